/* The table as a whole, made anew by the helper "cloche nft" with all that is in it. The network's lock
 * is held. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "base/memfd.h"
#include "linux/spawn.h"
#include "network_internal.h"

#define MAX_TABLE_BYTES (64 << 20)

struct set_writer {
	const char *set;
	void (*write)(struct buf *text, const struct lease *lease);
};

static void write_address(struct buf *text, uint32_t address)
{
	buf_addf(text, "%u.%u.%u.%u", address >> 24, address >> 16 & 255, address >> 8 & 255,
		address & 255);
}

static void write_source(struct buf *text, const struct lease *lease)
{
	buf_addf(text, "\"%s\" . ", lease->source_link);
	write_address(text, lease->place.address);
	buf_adds(text, ", ");
}

static void write_ports(struct buf *text, const struct lease *lease)
{
	for (size_t i = 0; i < lease->n_ports; i++) {
		buf_addf(text, "%u : ", lease->ports[i].host);
		write_address(text, lease->place.address);
		buf_addf(text, " . %u, ", lease->ports[i].container);
	}
}

static void write_address_6(struct buf *text, const struct lease *lease)
{
	char address[INET6_ADDRSTRLEN];
	uint8_t bytes[16];

	network_address_6(lease->network, lease->place.address, bytes);
	inet_ntop(AF_INET6, bytes, address, sizeof(address));
	buf_adds(text, address);
}

static void write_source_6(struct buf *text, const struct lease *lease)
{
	if (!lease->network->config->v6)
		return;
	buf_addf(text, "\"%s\" . ", lease->source_link);
	write_address_6(text, lease);
	buf_adds(text, ", ");
}

static void write_station(struct buf *text, const struct lease *lease)
{
	uint8_t mac[6];

	network_mac(lease, mac);
	buf_addf(text, "\"%s\" . %02x:%02x:%02x:%02x:%02x:%02x . ", lease->link, mac[0], mac[1],
		mac[2], mac[3], mac[4], mac[5]);
}

static void write_station_4(struct buf *text, const struct lease *lease)
{
	if (!lease->place.is_shared)
		return;
	write_station(text, lease);
	write_address(text, lease->place.address);
	buf_adds(text, ", ");
}

static void write_station_6(struct buf *text, const struct lease *lease)
{
	if (!lease->place.is_shared || !lease->network->config->v6)
		return;
	write_station(text, lease);
	write_address_6(text, lease);
	buf_adds(text, ", ");
}

/* As a number, which is what nft takes a part of a packet for. */
static void write_target_6(struct buf *text, const struct lease *lease)
{
	uint8_t bytes[16];

	if (!lease->place.is_shared || !lease->network->config->v6)
		return;
	write_station(text, lease);
	network_address_6(lease->network, lease->place.address, bytes);
	buf_adds(text, "0x");
	for (size_t i = 0; i < sizeof(bytes); i++)
		buf_addf(text, "%02x", bytes[i]);
	buf_adds(text, ", ");
}

static void write_ports_6(struct buf *text, const struct lease *lease)
{
	for (size_t i = 0; i < lease->n_ports && lease->network->config->v6; i++) {
		buf_addf(text, "%u : ", lease->ports[i].host);
		write_address_6(text, lease);
		buf_addf(text, " . %u, ", lease->ports[i].container);
	}
}

static void write_bridge(struct buf *text, const struct lease *lease)
{
	if (lease->bridge)
		buf_addf(text, "\"%s\" . \"%s\", ", lease->source_link, lease->source_link);
}

static const struct set_writer set_writers[] = { { "sources4", write_source },
	{ "senders4", write_source }, { "ports4", write_ports }, { "bridges", write_bridge },
	{ "sources6", write_source_6 }, { "ports6", write_ports_6 },
	{ "stations4", write_station_4 }, { "stations6", write_station_6 },
	{ "targets6", write_target_6 } };

/* nft takes a comma behind the last one. */
static void write_elements(struct buf *text, const char *set, void *arg)
{
	const struct network *network = arg;
	const struct lease *lease;

	for (size_t i = 0; i < N_ELEMENTS(set_writers); i++)
		if (!strcmp(set_writers[i].set, set))
			LIST_FOREACH(lease, &network->leases, entry)
	if (lease->is_admitted)
		set_writers[i].write(text, lease);
}

/* Their chains are not part of the text: until they are back, what only they opened stays shut. One
 * that cannot come back harms nobody else. */
static void put_back_rules(struct network *network)
{
	struct lease *lease;

	LIST_FOREACH(lease, &network->leases, entry)
	{
		int r = lease->is_admitted && lease->n_rules ? network_rules_put(lease, 0) : 0;

		if (r < 0)
			LOG(LOG_ERROR, "rules-not-put-back", KV_STR("id", lease->id),
				KV_INT("errno", -r));
	}
}

/* The helper's exit status; words gets what it had to say. */
static int run_helper(struct network *network, int text_fd, char words[256])
{
	const char *argv[] = { "cloche", "nft", NULL };
	struct spawn spawn = { network->self_exe_fd, argv, text_fd, -1, -1, -1, 0, NULL };
	AUTO_FD int output_fd = memfd_of("cloche-nft", "", 0);
	int status = 0;
	ssize_t n;
	pid_t pid;

	if (output_fd < 0)
		return output_fd;
	spawn.stdout_fd = output_fd;
	if (lseek(text_fd, 0, SEEK_SET) < 0)
		return -errno;
	pid = spawn_program(&spawn);
	if (pid < 0)
		return pid;
	__atomic_store_n(&network->helper, (uint32_t)pid, __ATOMIC_RELEASE);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	n = pread(output_fd, words, 255, 0);
	words[n > 0 ? n : 0] = '\0';
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* Only then the kernel must know rules for bridges. */
static bool has_bridges(const struct network *network)
{
	const struct lease *lease;

	LIST_FOREACH(lease, &network->leases, entry)
	if (lease->is_admitted && lease->place.is_shared)
		return true;
	return false;
}

int network_repair(struct network *network, struct err *err)
{
	AUTO_BUF struct buf text;
	AUTO_FD int text_fd = -1;
	char words[256] = "";
	int r;

	buf_init(&text, MAX_TABLE_BYTES);
	network->policy.has_bridges = has_bridges(network);
	network_table_write(&text, &network->policy, write_elements, network);
	if (buf_failed(&text))
		return err_system(err, buf_failed(&text), "table inet %s", network->table);
	text_fd = memfd_of("cloche-nft", text.data, text.len);
	if (text_fd < 0)
		return err_system(err, text_fd, "table inet %s", network->table);
	r = run_helper(network, text_fd, words);
	if (r < 0)
		return err_system(err, r, "start the helper for table inet %s", network->table);
	network->n_repairs++;
	if (r > 0)
		return err_set(err, ERR_SYSTEM, EIO, "table inet %s cannot be made: %s",
			network->table, *words ? words : "the helper was killed");
	put_back_rules(network);
	return 0;
}
