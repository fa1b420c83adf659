/* NetIn and NetOut: which ports of the host lead into which container, and what rules open for it.
 * Recorded first, then told to the kernel; what the kernel refuses is taken out of the record. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/db.h"
#include "base/err.h"
#include "base/log.h"
#include "network_internal.h"

/* ---- ports ----------------------------------------------------------------------------------- */

static bool port_is_mapped(const struct network *network, uint16_t host)
{
	const struct lease *lease;

	LIST_FOREACH(lease, &network->leases, entry)
	for (size_t i = 0; i < lease->n_ports; i++)
		if (lease->ports[i].host == host)
			return true;
	return false;
}

static int copy_number(const struct db_row *row, void *arg)
{
	*(int64_t *)arg = db_row_int(row, 0);
	return 0;
}

int network_ports_open(struct network *network, struct err *err)
{
	const struct network_config *config = network->config;
	int64_t next = 0;
	int r;

	if (!config->n_pool_ports ||
		config->first_pool_port + (uint64_t)config->n_pool_ports > 65536 ||
		!config->first_pool_port)
		return err_set(err, ERR_INVALID, EINVAL,
			"--port-pool-start, --port-pool-size: the ports must lie between 1 and 65535");
	/* the pool of id ranges does the same with other numbers: first in, first out */
	r = idpool_init(&network->port_pool, IDS_PER_RANGE, (uint32_t)config->n_pool_ports);
	if (r < 0)
		return err_system(err, r, "pool of ports");
	r = db_each(network->db, copy_number, &next, err,
		"SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'next-port'", "");
	next -= (int64_t)config->first_pool_port;
	for (int64_t i = 0; r == 0 && i < next && next < (int64_t)config->n_pool_ports; i++)
		idpool_give(&network->port_pool, idpool_take(&network->port_pool));
	return r;
}

/* One that nobody has asked for by its number. */
static int take_pool_port(struct network *network, uint16_t *ret_port, struct err *err)
{
	for (uint64_t i = 0; i < network->config->n_pool_ports; i++) {
		int64_t n = idpool_take(&network->port_pool);
		uint16_t port = (uint16_t)(network->config->first_pool_port + (uint64_t)n);

		if (n < 0)
			break;
		if (!port_is_mapped(network, port)) {
			*ret_port = port;
			return 0;
		}
		idpool_give(&network->port_pool, n);
	}
	return err_set(err, ERR_EXHAUSTED, EAGAIN, "port pool is exhausted");
}

void network_port_give(struct network *network, uint16_t port)
{
	idpool_give(&network->port_pool, (int64_t)port - (int64_t)network->config->first_pool_port);
}

struct port_change {
	const struct lease *lease;
	struct net_port port;
	bool is_of_pool;
};

static int add_port_rows(struct db *db, void *arg, struct err *err)
{
	const struct port_change *change = arg;
	int r = db_change(db, err, "INSERT INTO ports VALUES (?, ?, ?, ?)", "siii",
		change->lease->id, (int64_t)change->lease->n_ports, (int64_t)change->port.host,
		(int64_t)change->port.container);

	if (r == 0 && change->is_of_pool)
		r = db_change(db, err,
			"INSERT OR REPLACE INTO meta VALUES ('next-port', CAST(? AS TEXT))", "i",
			(int64_t)change->port.host + 1);
	return r;
}

static int record_port(struct lease *lease, const struct port_change *change, struct err *err)
{
	struct net_port *more = realloc(lease->ports, (lease->n_ports + 1) * sizeof(*more));
	int r;

	if (!more)
		return err_system(err, -ENOMEM, "port");
	lease->ports = more;
	r = db_transaction(lease->network->db, add_port_rows, (void *)change, err);
	if (r == 0)
		lease->ports[lease->n_ports++] = change->port;
	return r;
}

static void forget_port(struct lease *lease)
{
	struct err err;

	lease->n_ports--;
	if (db_change(lease->network->db, &err,
		    "DELETE FROM ports WHERE container = ? AND position = ?", "si", lease->id,
		    (int64_t)lease->n_ports) < 0)
		LOG(LOG_ERROR, "port-not-forgotten", KV_STR("error", err.msg));
}

/* Lock held. */
static bool is_own_port(const struct network *network, uint16_t port)
{
	for (size_t i = 0; i < network->policy.n_own_ports; i++)
		if (network->policy.own_ports[i] == port)
			return true;
	return false;
}

static int map_port(struct lease *lease, struct port_change *change, struct err *err)
{
	struct network *network = lease->network;
	int r;

	if (change->port.host && is_own_port(network, change->port.host))
		return err_set(err, ERR_INVALID, EADDRINUSE,
			"host_port: %u is the server's own: nobody could reach it any more",
			change->port.host);
	if (change->port.host && port_is_mapped(network, change->port.host))
		return err_set(err, ERR_EXISTS, EADDRINUSE, "host_port: %u is already mapped",
			change->port.host);
	change->is_of_pool = !change->port.host;
	r = change->is_of_pool ? take_pool_port(network, &change->port.host, err) : 0;
	if (r < 0)
		return r;
	network_connections_take_port(network);
	if (!change->port.container)
		change->port.container = change->port.host;
	r = record_port(lease, change, err);
	if (r == 0 && lease->is_admitted) {
		r = network_rules_open_port(lease, &change->port, err);
		if (r < 0)
			forget_port(lease);
	}
	if (r < 0 && change->is_of_pool)
		network_port_give(network, change->port.host);
	return r;
}

int network_in(struct lease *lease, const struct net_port *wanted, struct net_port *ret_port,
	struct err *err)
{
	struct port_change change = { .lease = lease, .port = *wanted };
	int r;

	network_lock(lease->network);
	r = map_port(lease, &change, err);
	pthread_mutex_unlock(&lease->network->lock);
	if (r < 0)
		return r;
	*ret_port = change.port;
	return 0;
}

/* ---- rules ----------------------------------------------------------------------------------- */

struct rules_change {
	const struct lease *lease;
	const struct net_rule *rules;
	size_t n_rules;
};

static int add_rule_rows(struct db *db, void *arg, struct err *err)
{
	const struct rules_change *change = arg;
	int r = 0;

	for (size_t i = 0; i < change->n_rules && r == 0; i++) {
		AUTO_BUF struct buf text;

		buf_init(&text, 1 << 20);
		net_rule_write(&text, &change->rules[i]);
		if (buf_failed(&text))
			return err_system(err, buf_failed(&text), "rule");
		r = db_change(db, err, "INSERT INTO rules VALUES (?, ?, ?)", "sis",
			change->lease->id, (int64_t)(change->lease->n_rules + i), buf_str(&text));
	}
	return r;
}

static void forget_rules(struct lease *lease, size_t n_kept)
{
	struct err err;

	while (lease->n_rules > n_kept)
		net_rule_done(&lease->rules[--lease->n_rules]);
	if (db_change(lease->network->db, &err,
		    "DELETE FROM rules WHERE container = ? AND position >= ?", "si", lease->id,
		    (int64_t)n_kept) < 0)
		LOG(LOG_ERROR, "rules-not-forgotten", KV_STR("error", err.msg));
}

static int keep_rules(
	struct lease *lease, const struct net_rule *rules, size_t n_rules, struct err *err)
{
	struct net_rule *more =
		realloc(lease->rules, (lease->n_rules + n_rules + 1) * sizeof(*more));

	if (!more)
		return err_system(err, -ENOMEM, "rules");
	lease->rules = more;
	for (size_t i = 0; i < n_rules; i++)
		if (net_rule_copy(&lease->rules[lease->n_rules++], &rules[i]) < 0)
			return err_system(err, -ENOMEM, "rules");
	return 0;
}

/* Lock held. */
static int open_all(
	struct lease *lease, const struct net_rule *rules, size_t n_rules, struct err *err)
{
	struct rules_change change = { lease, rules, n_rules };
	size_t n_before = lease->n_rules;
	int r = db_transaction(lease->network->db, add_rule_rows, &change, err);

	if (r == 0)
		r = keep_rules(lease, rules, n_rules, err);
	if (r == 0 && lease->is_admitted)
		r = network_rules_open(lease, n_before, err);
	if (r < 0)
		forget_rules(lease, n_before);
	return r;
}

int network_out(struct lease *lease, const struct net_rule *rules, size_t n_rules, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < n_rules && r == 0; i++)
		r = net_rule_check(&rules[i], err);
	if (r < 0 || !n_rules)
		return r;
	network_lock(lease->network);
	r = open_all(lease, rules, n_rules, err);
	pthread_mutex_unlock(&lease->network->lock);
	return r;
}

/* ---- after a restart ------------------------------------------------------------------------- */

/* Ports without an address are somebody's that failed. */
static struct lease *find(const struct db_row *row, const struct lease_finder *finder)
{
	struct lease **slot = finder->slot(db_row_text(row, 0), finder->arg);

	return slot ? *slot : NULL;
}

static int load_port(const struct db_row *row, void *arg)
{
	struct lease *lease = find(row, arg);
	struct net_port *more =
		lease ? realloc(lease->ports, (lease->n_ports + 1) * sizeof(*more)) : NULL;

	if (!more)
		return lease ? -ENOMEM : 0;
	lease->ports = more;
	more[lease->n_ports++] =
		(struct net_port){ (uint16_t)db_row_int(row, 1), (uint16_t)db_row_int(row, 2) };
	return 0;
}

static int load_rule(const struct db_row *row, void *arg)
{
	struct lease *lease = find(row, arg);
	struct net_rule *more =
		lease ? realloc(lease->rules, (lease->n_rules + 1) * sizeof(*more)) : NULL;

	if (!more)
		return lease ? -ENOMEM : 0;
	lease->rules = more;
	lease->is_damaged |= net_rule_parse(db_row_text(row, 1), &more[lease->n_rules++]) < 0;
	return 0;
}

int network_ports_load(struct lease_finder *finder, struct err *err)
{
	struct db *db = finder->network->db;
	int r = db_each(db, load_port, finder, err,
		"SELECT container, host_port, container_port FROM ports"
		" ORDER BY container, position",
		"");

	if (r == 0)
		r = db_each(db, load_rule, finder, err,
			"SELECT container, rule FROM rules ORDER BY container, position", "");
	return r == -ENOMEM ? err_system(err, r, "ports and rules")
			    : r; /* the others have said why */
}

void network_ports_mark(struct lease *lease)
{
	struct network *network = lease->network;

	for (size_t i = 0; i < lease->n_ports; i++)
		idpool_mark(&network->port_pool,
			(int64_t)lease->ports[i].host - (int64_t)network->config->first_pool_port);
}
