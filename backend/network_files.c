/* /etc/hosts and /etc/resolv.conf of containers. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "linux/sys.h"
#include "network_internal.h"

#define RESOLV_CONF "/etc/resolv.conf"
#define RESOLVED_CONF "/run/systemd/resolve/resolv.conf" /* the servers behind its local stub */
#define RESOLV_CONF_BYTES 32768

void network_hosts(const struct network *network, const struct lease *lease, const char *hostname,
	struct buf *text)
{
	struct network_facts facts;
	const struct strv *more = network->config->hosts;

	network_facts(network, lease, &facts);
	buf_addf(text, "127.0.0.1 localhost\n%s %s\n", lease ? facts.container_ip : "127.0.0.1",
		hostname);
	for (size_t i = 0; more && i < more->n_items; i++)
		buf_addf(text, "%s\n", more->items[i]);
}

/* ---- name servers ---------------------------------------------------------------------------- */

/* The address of a nameserver line, or NULL. */
static const char *server_of(const char *line, size_t len)
{
	static const char word[] = "nameserver";
	const size_t n = sizeof(word) - 1;

	if (len <= n || strncmp(line, word, n) != 0 || (line[n] != ' ' && line[n] != '\t'))
		return NULL;
	return line + n + strspn(line + n, " \t");
}

static bool is_loopback(const char *address)
{
	return !strncmp(address, "127.", 4) ||
		(!strncmp(address, "::1", 3) && !strchr("0123456789abcdefABCDEF:.", address[3]));
}

/* The file's lines without servers that only the host can reach, or without any. How many servers
 * are left. */
static unsigned add_lines(struct buf *text, const char *content, bool with_servers)
{
	unsigned n_servers = 0;

	while (*content) {
		size_t len = strcspn(content, "\n");
		const char *server = server_of(content, len);
		bool is_kept = !server || (with_servers && !is_loopback(server));

		if (is_kept && len)
			buf_addf(text, "%.*s\n", (int)len, content);
		n_servers += server && is_kept;
		content += len + (content[len] == '\n');
	}
	return n_servers;
}

static void add_servers(struct buf *text, const struct strv *servers)
{
	for (size_t i = 0; servers && i < servers->n_items; i++)
		buf_addf(text, "nameserver %s\n", servers->items[i]);
}

static void read_file(const char *path, char content[RESOLV_CONF_BYTES])
{
	if (sys_read_small(AT_FDCWD, path, 0, content, RESOLV_CONF_BYTES) < 0)
		content[0] = '\0';
}

/* host_ip: where a resolver on the host's loopback would be asked. */
static void write_resolvers(const struct network *network, const char *host_ip, struct buf *text)
{
	const struct network_config *config = network->config;
	bool is_given = config->dns_servers && config->dns_servers->n_items;
	char content[RESOLV_CONF_BYTES];
	unsigned n_servers;

	read_file(RESOLV_CONF, content);
	add_servers(text, config->dns_servers);
	n_servers = add_lines(text, content, !is_given);
	if (!is_given && !n_servers) { /* a resolver on the host's loopback */
		buf_clear(text);
		read_file(RESOLVED_CONF, content);
		n_servers = add_lines(text, content, true);
	}
	if (!is_given && !n_servers) {
		read_file(RESOLV_CONF, content);
		buf_clear(text);
		buf_addf(text, "nameserver %s\n", host_ip);
		add_lines(text, content, false);
	}
	add_servers(text, config->additional_dns);
}

/* The addresses of nameserver lines, but for those that only hold for one container or link. */
static int collect(const char *text, const char *host_ip, struct strv *ret_servers)
{
	int family, r = 0;

	while (*text && r == 0) {
		size_t len = strcspn(text, "\n");
		const char *server = server_of(text, len);
		char address[INET6_ADDRSTRLEN];

		if (server) {
			snprintf(address, sizeof(address), "%.*s", (int)strcspn(server, " \t\r\n"),
				server);
			if (strcmp(address, host_ip) != 0 && !strpbrk(address, "/-") &&
				network_text_check(address, &family) == 0)
				r = strv_add(ret_servers, address);
		}
		text += len + (text[len] == '\n');
	}
	return r;
}

static bool are_equal(const struct strv *a, const struct strv *b)
{
	for (size_t i = 0; i < a->n_items && i < b->n_items; i++)
		if (strcmp(a->items[i], b->items[i]) != 0)
			return false;
	return a->n_items == b->n_items;
}

/* Lock held. True if they are others than before. */
static bool take_servers(struct network *network, const char *text, const char *host_ip)
{
	AUTO_STRV struct strv servers = { 0 };

	if (collect(text, host_ip, &servers) < 0 || are_equal(&servers, &network->resolvers))
		return false;
	strv_done(&network->resolvers);
	network->resolvers = servers;
	servers = (struct strv){ 0 };
	return true;
}

void network_learn_resolvers(struct network *network)
{
	AUTO_BUF struct buf text;

	buf_init(&text, 2 * RESOLV_CONF_BYTES);
	write_resolvers(network, "", &text);
	take_servers(network, buf_str(&text), "");
}

void network_resolvers(struct network *network, const struct lease *lease, struct buf *text)
{
	struct network_facts facts;
	struct err err;

	if (!lease)
		return; /* nobody could be asked */
	network_facts(network, lease, &facts);
	write_resolvers(network, facts.host_ip, text);
	network_lock(network);
	if (take_servers(network, buf_str(text), facts.host_ip) &&
		network_repair(network, &err) < 0) {
		LOG(LOG_ERROR, "table-not-repaired", KV_STR("table", network->table),
			KV_STR("error", err.msg));
		strv_done(&network->resolvers); /* the next container tries again */
	}
	pthread_mutex_unlock(&network->lock);
}
