/* /etc/hosts and /etc/resolv.conf of containers. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "base/buf.h"
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

void network_resolvers(const struct network *network, const struct lease *lease, struct buf *text)
{
	const struct network_config *config = network->config;
	bool is_given = config->dns_servers && config->dns_servers->n_items;
	char content[RESOLV_CONF_BYTES];
	struct network_facts facts;
	unsigned n_servers;

	if (!lease)
		return; /* nobody could be asked */
	read_file(RESOLV_CONF, content);
	add_servers(text, config->dns_servers);
	n_servers = add_lines(text, content, !is_given);
	if (!is_given && !n_servers) { /* a resolver on the host's loopback */
		buf_clear(text);
		read_file(RESOLVED_CONF, content);
		n_servers = add_lines(text, content, true);
	}
	if (!is_given && !n_servers) {
		network_facts(network, lease, &facts);
		read_file(RESOLV_CONF, content);
		buf_clear(text);
		buf_addf(text, "nameserver %s\n", facts.host_ip);
		add_lines(text, content, false);
	}
	add_servers(text, config->additional_dns);
}
