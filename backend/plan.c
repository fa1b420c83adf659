#include "plan.h"

#include <errno.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/guard.h"
#include "linux/cgroup.h"
#include "network.h"
#include "pea_group.h"
#include "plan_list.h"
#include "shim/protocol.h"
#include "spec.h"
#include "volumes/volumes.h"

#define QUIET (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)

void id_map_range(struct id_map *map, uint32_t base)
{
	*map = (struct id_map){ .root = base, .tty_gid = base + 5, .n_ids = 65536 };
	snprintf(map->text, sizeof(map->text), "0 %u 65536\n", base);
}

/* As guardian and Concourse do it: root becomes the last id, everybody else is the host's. */
void id_map_maximal(struct id_map *map)
{
	*map = (struct id_map){
		.root = 4294967294u, .tty_gid = 5, .n_ids = 4294967294u, .is_one_to_one = true
	};
	snprintf(map->text, sizeof(map->text), "0 4294967294 1\n1 1 4294967293\n");
}

void id_map_none(struct id_map *map)
{
	*map = (struct id_map){ .root = 0, .tty_gid = 5, .n_ids = UINT32_MAX };
}

uint32_t id_map_to_host(const struct id_map *map, uint32_t id)
{
	return id && map->is_one_to_one ? id : map->root + id;
}

/* ---- the first list: namespaces, init, skeleton ---------------------------------------------- */

/* "tasks", not "cgroup.procs": a thread that moves only itself needs no lock of all thread groups,
 * whose grace period costs milliseconds (kernel: cgroup_procs_write_start, since 5.18). The builder
 * has one thread. */
static void add_groups(struct list *list, const struct plan_input *input)
{
	const struct cgroups *groups = input->cgroups;

	for (int i = 0; i < groups->n_all; i++) {
		bool is_own = input->group && pea_group_is_in(input->group, groups, i);

		if (groups->all[i].joins)
			list_add_path(list, OP_CGROUP_JOIN, 0,
				cgroup_path(&groups->all[i], is_own ? input->group->id : input->id,
					"tasks"),
				"", 0, 0);
	}
}

static void add_namespaces(struct list *list, const struct plan_input *input)
{
	const struct cgroups *groups = input->cgroups;
	uint64_t flags = CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;

	add_groups(list, input);
	list_add(list, OP_UNSHARE, 0, "", "", 0, CLONE_NEWNS);
	list_add(list, OP_UNSHARE, 0, "", "", 0, CLONE_NEWPID);
	if (*input->map.text)
		flags |= CLONE_NEWUSER;
	if (groups->v2 >= 0)
		list_add_path(list, OP_INIT, 0,
			cgroup_path(&groups->all[groups->v2], input->id, NULL), "", 0, flags);
	else
		list_add(list, OP_INIT, 0, "", "", 0, flags);
	if (*input->map.text)
		list_add(list, OP_ID_MAP, 0, input->map.text, "", 0, 0);
}

static void add_dev(struct list *list, const struct plan_input *input)
{
	static const struct {
		const char *path;
		unsigned major, minor;
	} nodes[] = { { "dev/null", 1, 3 }, { "dev/zero", 1, 5 }, { "dev/full", 1, 7 },
		{ "dev/random", 1, 8 }, { "dev/urandom", 1, 9 }, { "dev/tty", 5, 0 } };
	static const char *const links[][2] = { { "dev/fd", "/proc/self/fd" },
		{ "dev/stdin", "/proc/self/fd/0" }, { "dev/stdout", "/proc/self/fd/1" },
		{ "dev/stderr", "/proc/self/fd/2" }, { "dev/ptmx", "pts/ptmx" } };
	char options[160];

	list_add_given(list, "dev", "dev", 0755, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
	for (size_t i = 0; i < N_ELEMENTS(nodes); i++)
		list_add(list, OP_MKNOD, 0, nodes[i].path, "", 0,
			makedev(nodes[i].major, nodes[i].minor));
	if (input->has_fuse)
		list_add(list, OP_MKNOD, 0, "dev/fuse", "", 0, makedev(10, 229));
	for (size_t i = 0; i < N_ELEMENTS(links); i++)
		list_add(list, OP_SYMLINK, 0, links[i][0], links[i][1], 0, 0);
	list_add_mkdir(list, "dev/pts");
	list_add_mkdir(list, "dev/shm");
	list_add_mkdir(list, "dev/mqueue");
	snprintf(options, sizeof(options), "devpts newinstance,ptmxmode=0666,mode=0620,gid=%u",
		input->map.tty_gid);
	list_add(list, OP_MOUNT, 0, "dev/pts", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, 0);
	list_add_given(list, "shm", "dev/shm", 01777, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
	list_add(list, OP_MOUNT, OPF_IN_HELPER, "dev/mqueue", "mqueue", QUIET, 0);
}

/* Named as the host names them, each showing the container's own group and nothing above. */
static void add_cgroup_mounts(struct list *list, const struct plan_input *input)
{
	const struct cgroups *groups = input->cgroups;
	uint64_t attrs = QUIET | (input->privileged ? 0 : MOUNT_ATTR_RDONLY);
	bool only_v2 = groups->n_all == 1 && groups->v2 == 0;

	if (!only_v2) {
		list_add_mkdir(list, "cgroup");
		for (int i = 0; i < groups->n_all; i++) {
			char path[96];

			snprintf(path, sizeof(path), "cgroup/%s",
				groups->all[i].is_v2 ? "unified" : groups->all[i].name);
			list_add_mkdir(list, path);
		}
		list_add(list, OP_BIND, OPF_SKELETON_SRC, "cgroup", "sys/fs/cgroup",
			QUIET | MOUNT_ATTR_RDONLY, 0);
	}
	for (int i = 0; i < groups->n_all; i++) {
		char path[96] = "sys/fs/cgroup";

		if (!only_v2)
			snprintf(path, sizeof(path), "sys/fs/cgroup/%s",
				groups->all[i].is_v2 ? "unified" : groups->all[i].name);
		list_add_path(list, OP_BIND, 0, cgroup_path(&groups->all[i], input->id, NULL), path,
			attrs, 0);
	}
}

static void add_covers(struct list *list, const struct plan_input *input)
{
	for (size_t i = 0; i < input->masked->n_items; i++) {
		char path[256];
		size_t len;

		snprintf(path, sizeof(path), "%s", input->masked->items[i]);
		len = strlen(path);
		if (len && path[len - 1] == '/') {
			path[len - 1] = '\0';
			list_add(list, OP_BIND, OPF_SKELETON_SRC | OPF_OPTIONAL, "empty", path,
				QUIET | MOUNT_ATTR_RDONLY, 0);
		} else {
			list_add(list, OP_BIND, OPF_SKELETON_SRC | OPF_OPTIONAL, "dev/null", path,
				MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY, 0);
		}
	}
	for (size_t i = 0; i < input->readonly->n_items; i++)
		list_add(list, OP_BIND, OPF_SKELETON_SRC | OPF_OPTIONAL, input->readonly->items[i],
			input->readonly->items[i], QUIET | MOUNT_ATTR_RDONLY, 0);
}

/* IPv6 is off but on the loopback, unless it is given: a link-local address would be a way around the
 * rules. Nobody out there is to tell the container its routes. */
static void add_link(struct list *list, const struct network_link *link)
{
	bool has_6 = *link->address_6;
	char mtu[12];

	snprintf(mtu, sizeof(mtu), "%u", link->mtu);
	list_add(list, OP_SYSCTL, OPF_IN_HELPER | OPF_OPTIONAL,
		has_6 ? "net/ipv6/conf/default/accept_ra" : "net/ipv6/conf/default/disable_ipv6",
		has_6 ? "0" : "1", 0, 0);
	list_add(list, OP_VETH, 0, link->name, mtu, has_6,
		(uint64_t)link->group << 32 | link->bridge);
	if (*link->host_address)
		list_add(list, OP_ADDRESS, 0, link->name, link->host_address, 0, 0);
	if (*link->host_address_6)
		list_add(list, OP_ADDRESS, 0, link->name, link->host_address_6, 0, 0);
	if (*link->mac)
		list_add(list, OP_MAC, OPF_IN_HELPER, "eth0", link->mac, 0, 0);
	list_add(list, OP_ADDRESS, OPF_IN_HELPER, "eth0", link->address, 0, 0);
	list_add(list, OP_ROUTE, OPF_IN_HELPER, link->gateway, "", 0, 0);
	if (has_6) {
		list_add(list, OP_ADDRESS, OPF_IN_HELPER, "eth0", link->address_6, 0, 0);
		list_add(list, OP_ROUTE, OPF_IN_HELPER, link->gateway_6, "", 0, 0);
	}
}

int plan_prepare(const struct plan_input *input, void **ret_blob, size_t *ret_bytes)
{
	static const char *const dirs[] = { "proc", "sys", "root", "lower", "own", "empty" };
	struct list list AUTO(auto_list);

	list_open(&list);
	add_namespaces(&list, input);
	list_add(&list, OP_SKELETON, 0, input->skeleton_dir, "", 0, 0);
	for (size_t i = 0; i < N_ELEMENTS(dirs); i++)
		list_add_mkdir(&list, dirs[i]);
	add_dev(&list, input);
	if (input->link)
		add_link(&list, input->link); /* beside the other work of the helper */
	list_add(&list, OP_MOUNT, OPF_IN_HELPER, "proc", "proc", QUIET, 0);
	list_add(&list, OP_MOUNT, OPF_IN_HELPER, "sys", "sysfs",
		QUIET | (input->privileged ? 0 : MOUNT_ATTR_RDONLY), 0);
	add_cgroup_mounts(&list, input);
	if (!input->privileged && GUARD(MASKS))
		add_covers(&list, input);
	return list_close(&list, &input->map, ret_blob, ret_bytes);
}

/* ---- the second list: what the request says -------------------------------------------------- */

/* A new directory of the skeleton. Two letters: all layers of an overlay must fit into an option of
 * 255 bytes. */
static void add_place(struct list *list, char name[NAME_BYTES])
{
	static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
	unsigned n = list->n_names++;

	if (n >= 36 * 36) {
		list->ops.failed = -E2BIG;
		n = 0;
	}
	name[0] = digits[n / 36];
	name[1] = digits[n % 36];
	name[2] = '\0';
	list_add_mkdir(list, name);
}

static bool is_plain(const struct volume_mount *mount)
{
	return !mount->top_dir && mount->layers.n_items == 1;
}

/* What is written to one upper tree goes through one mount: a volume that is used twice is staged
 * once. */
static const char *find_staged(const struct list *list, const struct volume_mount *mount)
{
	for (unsigned i = 0; i < list->n_staged; i++)
		if (mount->top_dir && !strcmp(list->staged[i]->top_dir, mount->top_dir))
			return list->staged_at[i];
	return NULL;
}

static void remember_staged(struct list *list, const struct volume_mount *mount, const char *at)
{
	if (!mount->top_dir)
		return;
	if (list->n_staged == MAX_STAGED) {
		list->ops.failed = -E2BIG;
		return;
	}
	list->staged[list->n_staged] = mount;
	memcpy(list->staged_at[list->n_staged++], at, NAME_BYTES);
}

/* Each tree of a volume is seen through the container's id map; an overlay itself cannot be mapped. */
static void stage(struct list *list, const struct volume_mount *mount, char at[NAME_BYTES])
{
	char options[256] = "lowerdir=", name[NAME_BYTES];
	uint64_t attrs = MOUNT_ATTR_NODEV | (mount->top_dir ? 0 : MOUNT_ATTR_RDONLY);
	size_t len = strlen(options);

	if (is_plain(mount)) {
		add_place(list, at);
		list_add(list, OP_BIND, OPF_IDMAP, mount->layers.items[0], at, MOUNT_ATTR_NODEV, 0);
		return;
	}
	for (size_t i = 0; i < mount->layers.n_items && len < sizeof(options) - 4; i++) {
		add_place(list, name);
		list_add(list, OP_BIND, OPF_IDMAP, mount->layers.items[i], name, MOUNT_ATTR_RDONLY,
			0);
		len += snprintf(options + len, sizeof(options) - len, "%s%s", i ? ":" : "", name);
	}
	if (mount->top_dir) {
		add_place(list, name);
		list_add(list, OP_BIND, OPF_IDMAP, mount->top_dir, name, 0, 0);
		len += snprintf(options + len, sizeof(options) - len,
			",upperdir=%s/upper,workdir=%s/work", name, name);
	}
	if (len >= sizeof(options))
		list->ops.failed = -E2BIG;
	add_place(list, at);
	list_add(list, OP_OVERLAY, 0, at, options, attrs, 0);
	remember_staged(list, mount, at);
}

/* flags and target as of an OP_BIND that takes the staged tree, or a part of it, to its place. */
static void add_volume(struct list *list, const struct volume_mount *mount, uint16_t flags,
	const char *target, uint64_t attrs)
{
	const char *staged = find_staged(list, mount);
	AUTO_FREE char *source = NULL;
	char at[NAME_BYTES];

	if (is_plain(mount) && !*mount->sub_path) {
		list_add(
			list, OP_BIND, OPF_IDMAP | flags, mount->layers.items[0], target, attrs, 0);
		return;
	}
	if (!staged) {
		stage(list, mount, at);
		staged = at;
	}
	if (asprintf(&source, "%s/%s", staged, *mount->sub_path ? mount->sub_path : ".") < 0) {
		list->ops.failed = -ENOMEM;
		return;
	}
	list_add(list, OP_BIND, OPF_PART | flags, source, target, attrs, 0);
}

/* volatile: what a container writes is gone with it, so nobody waits for the disk at its end (the
 * end of another overlay would write out the whole file system below). */
static void add_root(struct list *list, const struct plan_input *input)
{
	if (input->volume) {
		add_volume(list, input->volume, OPF_ROOT_ITSELF, "root", MOUNT_ATTR_NODEV);
		return;
	}
	list_add(list, OP_BIND, OPF_IDMAP, input->container_dir, "own", 0, 0);
	if (input->raw) {
		list_add(list, OP_BIND, OPF_IDMAP | OPF_ROOT_ITSELF, input->raw, "root",
			MOUNT_ATTR_NODEV, 0);
		return;
	}
	list_add(list, OP_BIND, OPF_IDMAP, input->lower, "lower", MOUNT_ATTR_RDONLY, 0);
	list_add(list, OP_OVERLAY, OPF_ROOT_ITSELF, "root",
		"lowerdir=lower,upperdir=own/upper,workdir=own/work,volatile",
		GUARD(NODEV) ? MOUNT_ATTR_NODEV : 0, 0);
}

/* Of the container's own tree, with what is mounted in it so far. */
static void add_bind_of_root(struct list *list, const struct bind_mount *bind)
{
	list_add(list, OP_BIND, OPF_IN_ROOT | OPF_RECURSIVE | OPF_ROOT_SRC, bind->src, bind->dst,
		MOUNT_ATTR_NODEV | (bind->read_write ? 0 : MOUNT_ATTR_RDONLY), 0);
}

/* kept: 0, or the slot from which on those of the container's tree lie. */
static void add_binds(struct list *list, const struct plan_input *input, size_t kept)
{
	for (size_t i = 0; i < input->n_binds; i++) {
		const struct bind_mount *bind = &input->binds[i];

		if (bind->from_container && kept)
			list_add(list, OP_PUT, OPF_IN_ROOT, bind->dst, "", 0, kept + i);
		else if (bind->from_container)
			add_bind_of_root(list, bind);
		if (bind->from_container)
			continue;
		if (input->bind_volumes && input->bind_volumes[i].layers.n_items) {
			add_volume(list, &input->bind_volumes[i], OPF_IN_ROOT, bind->dst,
				MOUNT_ATTR_NODEV | (bind->read_write ? 0 : MOUNT_ATTR_RDONLY));
			continue;
		}
		list_add(list, OP_BIND, OPF_IN_ROOT | OPF_RECURSIVE, bind->src, bind->dst,
			MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID |
				(bind->read_write ? 0 : MOUNT_ATTR_RDONLY),
			0);
	}
}

/* The container's own: its root may write it, and the image's is left as it is. */
static void add_file(struct list *list, const char *name, const char *path, const char *content)
{
	list_add(list, OP_FILE, 0, name, content, 0, 0);
	list_add(list, OP_BIND, OPF_SKELETON_SRC | OPF_IN_ROOT, name, path, QUIET, 0);
}

int plan_birth(const struct plan_input *input, void **ret_blob, size_t *ret_bytes)
{
	struct list list AUTO(auto_list);

	list_open(&list);
	add_root(&list, input);
	list_add(&list, OP_MOVE, 0, "proc", "proc", 0, 0);
	list_add(&list, OP_MOVE, 0, "sys", "sys", 0, 0);
	list_add(&list, OP_MOVE, 0, "dev", "dev", 0, 0);
	add_file(&list, "hosts", "/etc/hosts", input->hosts);
	add_file(&list, "hostname", "/etc/hostname", input->hostname_file);
	add_file(&list, "resolv.conf", "/etc/resolv.conf", input->resolvers);
	add_binds(&list, input, 0);
	list_add(&list, OP_PIVOT, 0, "root", "", 0, 0);
	return list_close(&list, &input->map, ret_blob, ret_bytes);
}

/* ---- a third one: volumes that were copied under a container --------------------------------- */

static bool is_stale(const struct plan_input *input, size_t i)
{
	return input->bind_volumes[i].layers.n_items && input->bind_volumes[i].is_stale;
}

static void add_take(struct list *list, const struct plan_input *input, size_t i)
{
	const struct volume_mount *mount = &input->bind_volumes[i];
	const char *staged = find_staged(list, mount);
	char at[NAME_BYTES], *source;

	if (!staged) {
		stage(list, mount, at);
		staged = at;
	}
	if (asprintf(&source, "%s/%s", staged, *mount->sub_path ? mount->sub_path : ".") < 0)
		source = NULL;
	list_add_path(list, OP_TAKE, OPF_PART, source, "",
		MOUNT_ATTR_NODEV | (input->binds[i].read_write ? 0 : MOUNT_ATTR_RDONLY), i);
}

/* All of them, in their order: one may lie in another. */
int plan_refresh(const struct plan_input *input, void **ret_blob, size_t *ret_bytes)
{
	struct list list AUTO(auto_list);

	list_open(&list);
	if (input->n_binds > MAX_SLOTS)
		return -E2BIG;
	list_add(&list, OP_UNSHARE, 0, "", "", 0, CLONE_NEWNS);
	list_add(&list, OP_SKELETON, 0, input->skeleton_dir, "", 0, 0);
	if (*input->map.text)
		list_add(&list, OP_USERNS, 0, "", "", 0, 0);
	for (size_t i = 0; i < input->n_binds; i++)
		if (is_stale(input, i))
			add_take(&list, input, i);
	list_add(&list, OP_ENTER, 0, "", "", 0, 0);
	for (size_t i = 0; i < input->n_binds; i++)
		if (!is_stale(input, i) && !input->binds[i].from_container)
			list_add(&list, OP_KEEP, 0, input->binds[i].dst, "", 0, i);
	for (size_t i = 0; i < input->n_binds; i++)
		if (input->binds[i].from_container)
			add_bind_of_root(&list, &input->binds[i]);
		else
			list_add(&list, OP_PUT, OPF_IN_ROOT, input->binds[i].dst, "", 0, i);
	return list_close(&list, &input->map, ret_blob, ret_bytes);
}

/* ---- a process with a root of its own -------------------------------------------------------- */

/* What it shares with the container, by the slots where that is kept; binds come behind. */
static const struct {
	const char *path;
	bool is_file; /* which the container need not have */
} shared[] = { { "proc", false }, { "sys", false }, { "dev", false }, { "/etc/hosts", true },
	{ "/etc/resolv.conf", true } };

static void keep_shared(struct list *list, const struct plan_input *input)
{
	for (size_t i = 0; i < N_ELEMENTS(shared); i++)
		list_add(list, OP_KEEP, shared[i].is_file ? OPF_OPTIONAL : 0, shared[i].path, "", 0,
			i);
	for (size_t i = 0; i < input->n_binds; i++)
		if (input->binds[i].from_container)
			list_add(list, OP_KEEP, OPF_ROOT_SRC, input->binds[i].src, "",
				MOUNT_ATTR_NODEV |
					(input->binds[i].read_write ? 0 : MOUNT_ATTR_RDONLY),
				N_ELEMENTS(shared) + i);
}

static void put_shared(struct list *list)
{
	for (size_t i = 0; i < N_ELEMENTS(shared); i++)
		list_add(list, OP_PUT, shared[i].is_file ? OPF_OPTIONAL | OPF_IN_ROOT : 0,
			shared[i].path, "", 0, i);
}

int plan_pea(const struct plan_input *input, void **ret_blob, size_t *ret_bytes)
{
	static const char *const dirs[] = { "root", "lower", "own" };
	struct list list AUTO(auto_list);

	list_open(&list);
	if (input->n_binds > MAX_SLOTS - N_ELEMENTS(shared))
		return -E2BIG;
	add_groups(&list, input);
	list_add(&list, OP_UNSHARE, 0, "", "", 0, CLONE_NEWNS);
	if (*input->map.text)
		list_add(&list, OP_USERNS, 0, "", "", 0, 0);
	list_add(&list, OP_SKELETON, 0, input->skeleton_dir, "", 0, 0);
	for (size_t i = 0; i < N_ELEMENTS(dirs); i++)
		list_add_mkdir(&list, dirs[i]);
	list_add(&list, OP_HOME, 0, "", "", 0, 0);
	list_add(&list, OP_ENTER, 0, "", "", 0, 0);
	keep_shared(&list, input);
	list_add(&list, OP_HOME, 0, "", "", 0, 1);
	add_root(&list, input);
	put_shared(&list);
	add_binds(&list, input, N_ELEMENTS(shared));
	list_add(&list, OP_PIVOT, 0, "root", "", 0, 0);
	list_add(&list, OP_JOIN, 0, "", "", 0,
		CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP);
	list_add(&list, OP_PROGRAM, 0, "", "", 0, 0);
	return list_close(&list, &input->map, ret_blob, ret_bytes);
}
