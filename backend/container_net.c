/* A container's ports and rules, and what its properties say about its network. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend_internal.h"
#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/registry.h"
#include "container.h"
#include "net_rule.h"
#include "network.h"
#include "spec.h"

/* ---- properties ------------------------------------------------------------------------------ */

static int set_own(struct container *container, const char *key, const char *value)
{
	char *copy = strdup(value);
	void *old = NULL;
	int r = copy ? registry_set(container->properties, key, copy, &old) : -ENOMEM;

	free(r < 0 ? copy : old);
	return r;
}

static int copy_ports(struct container *container, const struct net_port *ports, size_t n)
{
	struct net_port *copy = malloc(n * sizeof(*copy));

	if (!copy)
		return -ENOMEM;
	memcpy(copy, ports, n * sizeof(*copy));
	free(container->ports);
	container->ports = copy;
	container->n_ports = n;
	return 0;
}

static int set_mapped_ports(struct container *container)
{
	AUTO_BUF struct buf text;
	const struct net_port *ports;
	size_t n;

	buf_init(&text, 1 << 20);
	ports = network_ports(container->lease, &n);
	if (!n)
		return 0;
	for (size_t i = 0; i < n; i++)
		buf_addf(&text, "%s{\"HostPort\":%u,\"ContainerPort\":%u}", i ? "," : "[",
			ports[i].host, ports[i].container);
	buf_adds(&text, "]");
	if (buf_failed(&text) || copy_ports(container, ports, n) < 0)
		return -ENOMEM;
	return set_own(container, "garden.network.mapped-ports", buf_str(&text));
}

int container_put_network_properties(struct container *container, struct err *err)
{
	struct network_facts facts;
	int r;

	if (!container->lease)
		return 0;
	network_link_made(container->lease);
	network_facts(container->backend->network, container->lease, &facts);
	r = set_own(container, "garden.network.container-ip", facts.container_ip);
	if (r == 0)
		r = set_own(container, "garden.network.host-ip", facts.host_ip);
	if (r == 0)
		r = set_own(container, "garden.network.external-ip", facts.external_ip);
	if (r == 0)
		r = set_mapped_ports(container);
	return r < 0 ? err_system(err, r, "properties") : 0;
}

/* ---- requests -------------------------------------------------------------------------------- */

/* The net_lock is held: while it is, nobody takes the lease away. */
static int check_lease(struct container *container, const char *what, struct err *err)
{
	const char *missing = network_missing(container->backend->network);

	if (container->lease)
		return 0;
	return err_set(err, ERR_UNSUPPORTED, ENOSYS, "%s: the container has a loopback only%s%s",
		what, missing ? ": " : "", missing ? missing : "");
}

static int add_port(struct container *container, const struct net_port *wanted,
	struct net_port *ret_port, struct err *err)
{
	int r = check_lease(container, "net in", err);

	if (r == 0)
		r = network_in(container->lease, wanted, ret_port, err);
	if (r < 0)
		return r;
	network_link_made(container->lease);
	pthread_mutex_lock(&container->lock);
	r = set_mapped_ports(container);
	pthread_mutex_unlock(&container->lock);
	return r < 0 ? err_system(err, r, "properties") : 0;
}

int container_net_in(struct container *container, const struct net_port *wanted,
	struct net_port *ret_port, struct err *err)
{
	int r;

	pthread_mutex_lock(&container->net_lock);
	r = add_port(container, wanted, ret_port, err);
	pthread_mutex_unlock(&container->net_lock);
	return r;
}

int container_net_out(
	struct container *container, const struct net_rule *rules, size_t n_rules, struct err *err)
{
	int r;

	pthread_mutex_lock(&container->net_lock);
	r = check_lease(container, "net out", err);
	if (r == 0)
		r = network_out(container->lease, rules, n_rules, err);
	pthread_mutex_unlock(&container->net_lock);
	return r;
}

/* ---- at birth -------------------------------------------------------------------------------- */

static bool is_hermetic(const struct backend *backend, const struct container_spec *spec)
{
	return backend->config.network->hermetic_without_netout && !spec->n_net_out;
}

bool container_has_default_network(const struct backend *backend, const struct container_spec *spec)
{
	return !is_hermetic(backend, spec) && !(spec->network && *spec->network);
}

/* What a hermetic container cannot have. */
static int check_hermetic(const struct container_spec *spec, struct err *err)
{
	if (spec->n_net_in || (spec->network && *spec->network))
		return err_set(err, ERR_INVALID, EINVAL,
			"%s: a container without netout_rules is hermetic here",
			spec->n_net_in ? "netin" : "network");
	return 0;
}

static int reserve(struct container *container, const char *wanted, struct err *err)
{
	struct backend *backend = container->backend;
	int r = network_reserve(backend->network, container->id, wanted, &container->lease, err);

	if (r == 0 || err->kind != ERR_EXHAUSTED)
		return r;
	pool_drain(backend); /* what it holds does not count */
	return network_reserve(backend->network, container->id, wanted, &container->lease, err);
}

int container_reserve_network(
	struct container *container, const struct container_spec *spec, struct err *err)
{
	struct net_port port;
	int r;

	if (is_hermetic(container->backend, spec))
		return check_hermetic(spec, err);
	if (!container->is_prepared)
		r = reserve(container, spec->network, err);
	else /* somebody may have flushed the table meanwhile */
		r = container->lease ? network_admit(container->lease, err) : 0;
	if (r == 0 && spec->n_net_in)
		r = check_lease(container, "netin", err);
	if (r == 0 && spec->n_net_out)
		r = check_lease(container, "netout_rules", err);
	for (size_t i = 0; i < spec->n_net_in && r == 0; i++)
		r = network_in(container->lease, &spec->net_in[i], &port, err);
	if (r == 0 && spec->n_net_out)
		r = network_out(container->lease, spec->net_out, spec->n_net_out, err);
	return r;
}
