/* What leases mean in the table of nf_tables: elements that come and go, and the table as a whole,
 * made by the helper "cloche nft". The network's lock is held. */
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
#include "linux/sys.h"
#include "network_internal.h"

#define MAX_TABLE_BYTES (64 << 20)

/* ---- elements -------------------------------------------------------------------------------- */

struct source_key {
	char link[LINK_NAME_SIZE];
	uint32_t address;
};

static struct source_key source_key(const struct lease *lease)
{
	struct source_key key = { .address = htonl(lease->place.address) };

	memcpy(key.link, lease->source_link, sizeof(key.link));
	return key;
}

static void put_all(struct lease *lease, struct nft_batch *batch)
{
	struct nft *nft = &lease->network->nft;
	struct source_key source = source_key(lease);

	nft_put_element(nft, batch,
		&(struct nft_element){
			.set = "sources4", .key = &source, .key_bytes = sizeof(source) });
}

static int try_admit(struct lease *lease)
{
	unsigned char space[2048] __attribute__((aligned(8)));
	struct nft_batch batch;

	nft_begin(&lease->network->nft, &batch, space, sizeof(space));
	put_all(lease, &batch);
	return nft_commit(&lease->network->nft, &batch);
}

int network_rules_admit(struct lease *lease, struct err *err)
{
	int r = try_admit(lease);

	if (r == -ENOENT) { /* somebody has flushed our table: it is made anew, with us in it */
		lease->is_admitted = true;
		r = network_repair(lease->network, err);
		if (r < 0)
			lease->is_admitted = false;
		return r;
	}
	if (r < 0)
		return err_system(err, r, "let the container's address into table inet %s",
			lease->network->table);
	lease->is_admitted = true;
	return 0;
}

void network_rules_withdraw(struct lease *lease)
{
	unsigned char space[2048] __attribute__((aligned(8)));
	struct nft *nft = &lease->network->nft;
	struct source_key source = source_key(lease);
	struct nft_batch batch;
	int r;

	nft_begin(nft, &batch, space, sizeof(space));
	nft_delete_element(nft, &batch,
		&(struct nft_element){
			.set = "sources4", .key = &source, .key_bytes = sizeof(source) });
	r = nft_commit(nft, &batch);
	lease->is_admitted = false;
	if (r < 0 && r != -ENOENT)
		LOG(LOG_WARN, "rules-not-withdrawn", KV_STR("link", lease->link),
			KV_INT("errno", -r));
}

/* ---- the table ------------------------------------------------------------------------------- */

static void write_elements(struct buf *text, const char *set, void *arg)
{
	const struct network *network = arg;
	const struct lease *lease;
	unsigned n = 0;

	if (strcmp(set, "sources4") != 0)
		return;
	LIST_FOREACH(lease, &network->leases, entry)
	{
		uint32_t address = lease->place.address;

		if (lease->is_admitted)
			buf_addf(text, "%s\"%s\" . %u.%u.%u.%u", n++ ? ", " : "",
				lease->source_link, address >> 24, address >> 16 & 255,
				address >> 8 & 255, address & 255);
	}
}

/* The helper's exit status; words gets what it had to say. */
static int run_helper(struct network *network, int text_fd, char words[256])
{
	const char *argv[] = { "cloche", "nft", NULL };
	struct spawn spawn = { network->self_exe_fd, argv, text_fd, -1, -1, -1 };
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

int network_repair(struct network *network, struct err *err)
{
	AUTO_BUF struct buf text;
	AUTO_FD int text_fd = -1;
	char words[256] = "";
	int r;

	buf_init(&text, MAX_TABLE_BYTES);
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
	return r == 0 ? 0
		      : err_set(err, ERR_SYSTEM, EIO, "table inet %s cannot be made: %s",
				network->table, *words ? words : "the helper was killed");
}
