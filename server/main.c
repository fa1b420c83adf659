/* cloche - a Garden server. Without a sub-command it serves, as "worker" with what a cluster needs;
 * "tree" and "nft" are its own helpers for trees of files and for packet rules, "doctor" says what this
 * host lacks, "manual" prints the options for cloche(8), "manual flags" those of other workers. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend.h"
#include "base/auto.h"
#include "base/err.h"
#include "base/log.h"
#include "base/parse.h"
#include "linux/devices.h"
#include "doctor.h"
#include "nft_main.h"
#include "server/oci.h"
#include "server/options.h"
#include "server/listeners.h"
#include "server/worker/commands.h"
#include "server/worker/tied.h"
#include "volumes/tree_main.h"
#include "volumes/volumes.h"

struct main_args {
	int argc;
	char **argv;
	const sigset_t *stop; /* signals that are waited for */
};

/* Whatever the caller has left us: the first three descriptors are taken, no signal surprises us.
 */
static void normalise(bool is_worker, sigset_t *ret_stop)
{
	struct sigaction ignore = { .sa_handler = SIG_IGN }, standard = { .sa_handler = SIG_DFL };
	struct rlimit file_size;
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd < 3);
	if (fd >= 3)
		close(fd);
	sigaction(SIGPIPE, &ignore, NULL);
	sigaction(SIGHUP, &ignore, NULL);
	sigaction(SIGUSR1, is_worker ? &standard : &ignore, NULL);
	sigaction(SIGUSR2, is_worker ? &standard : &ignore, NULL);
	sigaction(SIGXFSZ, &ignore, NULL);
	sigaction(SIGCHLD, &standard, NULL);
	/* a shell's "ulimit -f" is not meant for volumes */
	if (getrlimit(RLIMIT_FSIZE, &file_size) == 0) {
		file_size.rlim_cur = file_size.rlim_max;
		setrlimit(RLIMIT_FSIZE, &file_size);
	}
	sigemptyset(ret_stop);
	sigaddset(ret_stop, SIGTERM);
	sigaddset(ret_stop, SIGINT);
	if (is_worker) { /* told to land, or to retire */
		sigaddset(ret_stop, SIGUSR1);
		sigaddset(ret_stop, SIGUSR2);
	}
	sigprocmask(SIG_SETMASK, ret_stop, NULL);
}

/* It lies beside the program, or where make install puts it. */
static char *find_busybox_root(void)
{
	static const char *const places[] = { "busybox-root.tar",
		"../lib/cloche/busybox-root.tar" };
	char program[PATH_MAX];
	struct stat st;
	ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);

	if (n < 0)
		return NULL;
	program[n] = '\0';
	*strrchr(program, '/') = '\0';
	for (size_t i = 0; i < N_ELEMENTS(places); i++) {
		AUTO_FREE char *path = NULL;

		if (asprintf(&path, "%s/%s", program, places[i]) < 0)
			return NULL;
		if (stat(path, &st) == 0)
			return TAKE_PTR(path);
	}
	return NULL;
}

/* NULL: none. A worker has none of its own, so that web can say what is wrong with a task that names
 * no image. */
static char *default_rootfs_of(const struct options *options)
{
	if (*options->default_rootfs)
		return strdup(options->default_rootfs);
	return options->is_worker ? NULL : find_busybox_root();
}

/* Limits and privileges. */
static int check_policy(const struct options *options, struct err *err)
{
	struct device_rule rule;
	enum privileged_mode mode;
	double entitlement;

	if (privileged_mode_parse(options->privileged_mode, &mode) < 0)
		return err_set(err, ERR_INVALID, EINVAL,
			"--containerd-privileged-mode '%s': expected full, userns, fuse-only or ignore",
			options->privileged_mode);
	if (options->more_devices.n_items > MAX_DEVICE_RULES / 2)
		return err_set(err, ERR_INVALID, E2BIG, "--containerd-allowed-device: more than %d",
			MAX_DEVICE_RULES / 2);
	for (size_t i = 0; i < options->more_devices.n_items; i++)
		if (device_rule_parse(options->more_devices.items[i], &rule) < 0)
			return err_set(err, ERR_INVALID, EINVAL,
				"--containerd-allowed-device '%s': expected as in \"b 7:* rwm\"",
				options->more_devices.items[i]);
	if (parse_double(options->cpu_entitlement_per_share, &entitlement) < 0 || entitlement < 0)
		return err_set(err, ERR_INVALID, EINVAL,
			"--cpu-entitlement-per-share '%s': expected a number of percent",
			options->cpu_entitlement_per_share);
	if (options->cpu_quota_per_share > 1000000)
		return err_set(
			err, ERR_INVALID, EINVAL, "--cpu-quota-per-share: expected 0 to 1000000");
	return 0;
}

static int check_ports(const struct options *options, struct err *err)
{
	if (options->bind_port > 65535 || options->volumes_bind_port > 65535 ||
		options->health_port > 65535 || options->debug_port > 65535)
		return err_set(err, ERR_INVALID, EINVAL,
			"--bind-port, --baggageclaim-bind-port, --healthcheck-bind-port, --debug-bind-port: "
			"expected 0 to 65535");
	if (options->health_timeout < 1000000)
		return err_set(
			err, ERR_INVALID, EINVAL, "--healthcheck-timeout: expected 1ms or more");
	return check_policy(options, err);
}

static int check_options(const struct options *options, struct err *err)
{
	uint64_t ring = options->ring_bytes;

	if (strcmp(options->idmap, "unique") && strcmp(options->idmap, "maximal"))
		return err_set(err, ERR_INVALID, EINVAL, "--idmap '%s': expected unique or maximal",
			options->idmap);
	if (!volume_driver_is_known(options->volume_driver))
		return err_set(err, ERR_INVALID, EINVAL,
			"--baggageclaim-driver '%s': expected detect, overlay, btrfs or copy",
			options->volume_driver);
	if (ring < 4096 || ring > 1 << 30 || ring & (ring - 1))
		return err_set(err, ERR_INVALID, EINVAL,
			"--ring-bytes: expected a power of two from 4096 to 1073741824");
	if (options->id_pool_start > UINT32_MAX || options->id_pool_count > 65536 ||
		options->max_containers > UINT32_MAX || options->n_unborn > 1024)
		return err_set(err, ERR_INVALID, EINVAL,
			"--id-pool-start, --id-pool-count, --max-containers or --container-pool: too large");
	return check_ports(options, err);
}

/* /proc/self/exe, held open above the descriptors that a spawned program gets. */
static int open_self(void)
{
	AUTO_FD int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 10);
}

static void destroy_all(struct backend *backend)
{
	AUTO_STRV struct strv handles = { 0 };
	struct err err = { 0 };
	int r = container_list(backend, NULL, 0, &handles, &err);

	if (r < 0)
		LOG(LOG_ERROR, "containers-not-destroyed", KV_STR("error", err.msg));
	for (size_t i = 0; i < handles.n_items; i++)
		if (container_destroy(backend, handles.items[i], &err) < 0)
			LOG(LOG_ERROR, "container-not-destroyed",
				KV_STR("handle", handles.items[i]), KV_STR("error", err.msg));
}

static struct network_config network_config_of(const struct options *options)
{
	return (struct network_config){ .pool = options->network_pool,
		.tag = options->network_tag,
		.external_ip = options->external_ip,
		.denied = &options->deny_networks,
		.restricted = &options->restricted_networks,
		.dns_servers = &options->dns_servers,
		.additional_dns = &options->additional_dns_servers,
		.hosts = &options->additional_hosts,
		.mtu = options->mtu,
		.first_pool_port = options->port_pool_start,
		.n_pool_ports = options->port_pool_size,
		.own_ports = { (uint16_t)options->bind_port, (uint16_t)options->volumes_bind_port,
			(uint16_t)options->health_port, (uint16_t)options->debug_port },
		.n_own_ports = 4,
		.host_access = options->allow_host_access,
		.hermetic_without_netout = options->hermetic,
		.v6 = options->v6_enable,
		.v6_masquerade = !options->v6_disable_masquerade,
		.v6_pool = options->v6_pool };
}

static int serve(const struct options *options, const struct main_args *args, struct err *err)
{
	AUTO_FREE char *found = default_rootfs_of(options);
	struct network_config network = network_config_of(options);
	struct backend_config backend_config = { .work_dir = options->work_dir,
		.default_rootfs = found,
		.allow_raw = &options->allow_raw,
		.idmap_maximal = !strcmp(options->idmap, "maximal"),
		.more_devices = &options->more_devices,
		.destroy_on_start = options->destroy_on_start,
		.ring_bytes = options->ring_bytes,
		.default_grace_ns = options->default_grace_time,
		.max_containers = (uint32_t)options->max_containers,
		.id_pool_start = (uint32_t)options->id_pool_start,
		.id_pool_count = (uint32_t)options->id_pool_count,
		.n_unborn = (uint32_t)options->n_unborn,
		.volume_driver = options->volume_driver,
		.explains_oom = options->explain_oom,
		.has_profile = options->profile,
		.limits_policy = { .cpu_quota_us_per_share = options->cpu_quota_per_share,
			.leaves_swap = options->leave_swap },
		.cgroup_parent = *options->cgroup_parent ? options->cgroup_parent : NULL,
		.image_map = *options->image_map ? options->image_map : NULL,
		.read_layout = oci_read,
		.self_exe_fd = open_self(),
		.network = &network,
		.claimed = listeners_open };
	struct backend *backend = NULL;
	struct listeners *listeners;
	int r;

	privileged_mode_parse(options->privileged_mode, &backend_config.privileged_mode);
	if (options->disable_privileged)
		backend_config.privileged_mode = PRIVILEGED_OFF;
	parse_double(options->cpu_entitlement_per_share, &backend_config.cpu_entitlement_per_share);
	r = listeners_new(options, args->argc, args->argv, &listeners, err);
	if (r < 0)
		return r;
	backend_config.claimed_arg = listeners;
	r = backend_open(&backend_config, &backend, err);
	if (r == 0)
		r = listeners_run(listeners, backend, args->stop, err);
	listeners_free(listeners);
	if (backend && options->destroy_on_stop)
		destroy_all(backend);
	if (backend)
		backend_close(backend);
	if (r < 0)
		return r;
	LOG(LOG_INFO, "stopped");
	return 0;
}

/* With the server's options, so that it looks at what the server would use. */
static int doctor(int argc, char **argv)
{
	AUTO(options_done) struct options options = { 0 };
	struct err err = { 0 };
	int r = options_parse(&options, argc - 1, argv + 1, environ, &err);

	if (r == 0)
		r = check_options(&options, &err);
	if (r < 0) {
		fprintf(stderr, "cloche: %s\n", err.msg);
		return DOCTOR_FAILS;
	}
	if (r == 1) {
		printf("usage: cloche doctor [OPTION...]\n\n"
		       "Says what this host lacks. Options are those of the server; see cloche(8).\n");
		return 0;
	}
	return doctor_main(options.work_dir, (uint32_t)options.id_pool_start);
}

/* Its /proc is gone: nothing is to run at exit. */
static int tree(int argc, char **argv)
{
	_exit(tree_main(argc - 1, argv + 1));
}

static int nft(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return nft_main();
}

static int manual(int argc, char **argv)
{
	if (argc == 2)
		options_manual(stdout);
	else if (argc == 3 && !strcmp(argv[2], "flags"))
		options_flags(stdout);
	else
		return 2;
	return 0;
}

/* What else it can do: *ret_status is set if it was asked for. */
static bool run_command(int argc, char **argv, int *ret_status)
{
	static const struct {
		const char *name;
		int (*run)(int argc, char **argv);
	} commands[] = { { "tree", tree }, { "nft", nft }, { "manual", manual },
		{ "doctor", doctor }, { "cluster", cluster_command }, { "tied", tied_command },
		{ "land", tell_command }, { "retire", tell_command } };

	for (size_t i = 0; argc >= 2 && i < N_ELEMENTS(commands); i++)
		if (!strcmp(argv[1], commands[i].name)) {
			*ret_status = commands[i].run(argc, argv);
			return true;
		}
	return false;
}

int main(int argc, char **argv)
{
	AUTO(options_done) struct options options = { 0 };
	enum log_level level;
	struct err err = { 0 };
	sigset_t stop;
	int r;

	if (run_command(argc, argv, &r))
		return r;
	normalise(argc >= 2 && !strcmp(argv[1], "worker"), &stop);
	r = options_parse(&options, argc, argv, environ, &err);
	if (r == 1) {
		options_help(stdout);
		return 0;
	}
	if (r == 0)
		r = check_options(&options, &err);
	if (r == 0 && log_level_parse(options.log_level, &level) < 0)
		r = err_set(&err, ERR_INVALID, EINVAL,
			"--log-level '%s': expected debug, info, warn or error", options.log_level);
	if (r < 0) {
		fprintf(stderr, "cloche: %s\n", err.msg);
		return 1;
	}
	umask(022);
	log_open("cloche", level, 2);
	for (size_t i = 0; i < options.remarks.n_items; i++)
		LOG(LOG_WARN, "option-without-effect", KV_STR("remark", options.remarks.items[i]));
	r = serve(&options, &(struct main_args){ argc, argv, &stop }, &err);
	if (r < 0)
		LOG(LOG_ERROR, "failed", KV_STR("error", err.msg));
	return r < 0 ? 1 : 0;
}
