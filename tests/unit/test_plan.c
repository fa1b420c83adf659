/* Plans as text, compared with tests/unit/golden/NAME.txt. After a wanted change:
 * UPDATE_GOLDEN=1 make check, and read the difference. Run from the root of the repository. */
#include "unit.h"

#include <errno.h>
#include <linux/mount.h>

#include "alloc.h"
#include "base/auto.h"
#include "base/buf.h"
#include "base/strv.h"
#include "linux/cgroup.h"
#include "network.h"
#include "pea_group.h"
#include "plan.h"
#include "shim/protocol.h"
#include "spec.h"

#define BASE 1879048192u

static char *const masked_items[] = { (char *)"proc/kcore", (char *)"proc/keys",
	(char *)"proc/scsi/", (char *)"sys/firmware/", NULL };
static char *const readonly_items[] = { (char *)"proc/bus", (char *)"proc/sys",
	(char *)"proc/sysrq-trigger", NULL };
static const struct strv masked = { (char **)masked_items, 4 };
static const struct strv readonly = { (char **)readonly_items, 3 };

static const struct cgroups hybrid = {
	.all = { { .name = "memory", .parent = (char *)"/cg/memory/own/cloche-1", .joins = true },
		{ .name = "cpu,cpuacct",
			.parent = (char *)"/cg/cpu,cpuacct/own/cloche-1",
			.joins = true },
		{ .name = "", .parent = (char *)"/cg/unified/own/cloche-1", .is_v2 = true } },
	.n_all = 3,
	.v2 = 2,
};
static const struct cgroups only_v2 = {
	.all = { { .name = "", .parent = (char *)"/cg/own/cloche-1", .is_v2 = true } },
	.n_all = 1,
	.v2 = 0,
};
static const struct cgroups only_v1 = {
	.all = { { .name = "pids", .parent = (char *)"/cg/pids/own/cloche-1", .joins = true } },
	.n_all = 1,
	.v2 = -1,
};

static const struct bind_mount binds[] = {
	{ .src = (char *)"/host/in", .dst = (char *)"/in" },
	{ .src = (char *)"/host/out", .dst = (char *)"/deep/er/out", .read_write = true },
};

static struct plan_input unprivileged(void)
{
	struct plan_input input = { .id = "0123456789abcdef",
		.cgroups = &hybrid,
		.hosts = "127.0.0.1 localhost\n127.0.0.1 c1\n",
		.hostname_file = "c1\n",
		.resolvers = "",
		.skeleton_dir = "/work/skeleton",
		.container_dir = "/work/live/c1",
		.lower = "/work/images/default",
		.masked = &masked,
		.readonly = &readonly };

	id_map_range(&input.map, BASE);
	return input;
}

static struct plan_input privileged(void)
{
	struct plan_input input = unprivileged();

	id_map_none(&input.map);
	input.privileged = input.has_fuse = true;
	return input;
}

typedef int make_plan(const struct plan_input *input, void **ret_blob, size_t *ret_bytes);

/* plan_describe is for error messages and leaves long texts out. */
static void render_lines(const char *lines, struct buf *text)
{
	if (!strchr(lines, '\n'))
		return;
	buf_adds(text, " = ");
	for (const char *p = lines; *p; p++)
		if (*p == '\n')
			buf_adds(text, "\\n");
		else
			buf_add(text, p, 1);
}

static void render(const void *blob, struct buf *text)
{
	const struct plan_wire *plan = blob;

	buf_addf(text, "root %u:%u\n", plan->root_uid, plan->root_gid);
	for (uint32_t i = 0; i < plan->n_ops; i++) {
		plan_describe(blob, i, text);
		render_lines((const char *)blob + plan->ops[i].a, text);
		render_lines((const char *)blob + plan->ops[i].b, text);
		buf_adds(text, "\n");
	}
}

static void compare(const char *name, const char *text)
{
	AUTO_FREE char *golden = NULL;
	char path[256];

	snprintf(path, sizeof(path), "tests/unit/golden/%s.txt", name);
	if (getenv("UPDATE_GOLDEN"))
		unit_write_file(path, text, strlen(text));
	golden = unit_read_file(path);
	if (!golden)
		fail_msg("%s is not there (the tests run in the root of the repository)", path);
	if (strcmp(golden, text))
		fail_msg("not as in %s:\n%s", path, text);
}

static void check_golden(make_plan *make, const struct plan_input *input, const char *name)
{
	AUTO_FREE void *blob = NULL;
	AUTO_BUF struct buf text;
	size_t n_bytes = 0;

	buf_init(&text, 1 << 20);
	assert_int_equal(make(input, &blob, &n_bytes), 0);
	assert_int_equal(plan_check(blob, n_bytes), 0);
	render(blob, &text);
	compare(name, buf_str(&text));
}

static void an_unprivileged_container_on_a_hybrid_host(void **state UNUSED)
{
	struct plan_input input = unprivileged();

	check_golden(plan_prepare, &input, "prepare-unprivileged-hybrid");
	check_golden(plan_birth, &input, "birth-unprivileged");
}

static void an_unprivileged_container_on_a_v2_host(void **state UNUSED)
{
	struct plan_input input = unprivileged();

	input.cgroups = &only_v2;
	check_golden(plan_prepare, &input, "prepare-unprivileged-v2");
}

static void an_unprivileged_container_on_a_v1_host(void **state UNUSED)
{
	struct plan_input input = unprivileged();

	input.cgroups = &only_v1;
	check_golden(plan_prepare, &input, "prepare-unprivileged-v1");
}

static void an_unprivileged_container_with_the_maximal_map(void **state UNUSED)
{
	struct plan_input input = unprivileged();

	id_map_maximal(&input.map);
	check_golden(plan_prepare, &input, "prepare-unprivileged-maximal");
}

static void a_container_with_a_link(void **state UNUSED)
{
	struct plan_input input = unprivileged();
	const struct network_link link = { .name = "cl-0afe0002",
		.address = "10.254.0.2/30",
		.gateway = "10.254.0.1",
		.host_address = "10.254.0.1/30",
		.mtu = 1500,
		.group = 0x12345678 };

	input.link = &link;
	check_golden(plan_prepare, &input, "prepare-with-link");
}

static void a_privileged_container(void **state UNUSED)
{
	struct plan_input input = privileged();

	check_golden(plan_prepare, &input, "prepare-privileged-hybrid");
	check_golden(plan_birth, &input, "birth-privileged");
}

static void a_root_in_place_and_bind_mounts(void **state UNUSED)
{
	struct plan_input input = unprivileged();

	input.raw = "/srv/root";
	input.lower = NULL;
	input.binds = binds;
	input.n_binds = 2;
	check_golden(plan_birth, &input, "birth-raw-with-binds");
}

static void a_process_with_a_root_of_its_own(void **state UNUSED)
{
	static const struct bind_mount own[] = { { (char *)"/srv/a", (char *)"/a", false, false },
		{ (char *)"/inside", (char *)"/b", true, true } };
	struct pea_group below, apart;
	struct plan_input input = unprivileged();

	pea_group_name(&below, input.id, 7, false);
	pea_group_name(&apart, input.id, 7, true);
	input.group = &below;
	input.binds = own;
	input.n_binds = 2;
	check_golden(plan_pea, &input, "pea-unprivileged");
	check_golden(plan_birth, &input, "birth-binds-of-root");
	input = privileged();
	input.cgroups = &only_v1;
	input.group = &below;
	check_golden(plan_pea, &input, "pea-privileged-v1");
	input.group = &apart;
	check_golden(plan_pea, &input, "pea-apart-v1");
	input.n_binds = MAX_SLOTS;
	input.binds = own; /* not looked at: there are too many */
	assert_int_equal(plan_pea(&input, &(void *){ NULL }, &(size_t){ 0 }), -E2BIG);
	input.n_binds = MAX_SLOTS + 1;
	assert_int_equal(plan_refresh(&input, &(void *){ NULL }, &(size_t){ 0 }), -E2BIG);
}

static void id_maps_have_the_form_of_the_kernel(void **state UNUSED)
{
	struct id_map map;

	id_map_range(&map, BASE);
	assert_string_equal(map.text, "0 1879048192 65536\n");
	assert_int_equal(map.root, BASE);
	assert_int_equal(map.tty_gid, BASE + 5);
	assert_int_equal(map.n_ids, 65536);
	id_map_maximal(&map);
	assert_string_equal(map.text, "0 4294967294 1\n1 1 4294967293\n");
	assert_int_equal(map.root, 4294967294u);
	assert_int_equal(map.n_ids, 4294967294u);
	id_map_none(&map);
	assert_string_equal(map.text, "");
	assert_int_equal(map.root, 0);
}

/* What must hold for every operation of an unprivileged plan, whatever the golden files say. */
static void check_op(const char *blob, const struct op_wire *op)
{
	const char *a = blob + op->a, *b = blob + op->b;
	const char *target = op->code == OP_BIND ? b : a;
	bool is_device_cover = op->code == OP_BIND && !strcmp(a, "dev/null");
	bool is_kernel_tree = !strncmp(target, "proc", 4) || !strncmp(target, "sys", 3);

	if (op->code != OP_MOUNT && op->code != OP_BIND && op->code != OP_OVERLAY)
		return;
	if (is_kernel_tree) {
		assert_true(op->attrs & MOUNT_ATTR_NOSUID);
		assert_true(op->attrs & MOUNT_ATTR_NOEXEC);
		assert_true(is_device_cover || op->attrs & MOUNT_ATTR_NODEV);
	}
	if (!strcmp(target, "sys") || !strncmp(target, "sys/", 4))
		assert_true(op->attrs & MOUNT_ATTR_RDONLY);
	if (op->flags & (OPF_ROOT_ITSELF | OPF_IN_ROOT))
		assert_true(op->attrs & MOUNT_ATTR_NODEV);
}

static void every_mount_of_an_unprivileged_container_is_restrained(void **state UNUSED)
{
	static make_plan *const makers[] = { plan_prepare, plan_birth, plan_pea };
	static const struct cgroups *const hosts[] = { &hybrid, &only_v1, &only_v2 };
	struct plan_input input = unprivileged();

	input.binds = binds;
	input.n_binds = 2;
	for (size_t i = 0; i < N_ELEMENTS(hosts); i++)
		for (size_t k = 0; k < N_ELEMENTS(makers); k++) {
			AUTO_FREE struct plan_wire *plan = NULL;
			size_t n_bytes;

			input.cgroups = hosts[i];
			assert_int_equal(makers[k](&input, (void **)&plan, &n_bytes), 0);
			for (uint32_t n = 0; n < plan->n_ops; n++)
				check_op((const char *)plan, &plan->ops[n]);
		}
}

static uint32_t index_of(const struct plan_wire *plan, uint16_t code)
{
	for (uint32_t i = 0; i < plan->n_ops; i++)
		if (plan->ops[i].code == code)
			return i;
	fail_msg("no operation %d", code);
	return 0;
}

static void the_order_that_isolation_rests_on_is_kept(void **state UNUSED)
{
	struct plan_input input = unprivileged();
	AUTO_FREE struct plan_wire *prepare = NULL, *birth = NULL;
	size_t n_bytes;

	assert_int_equal(plan_prepare(&input, (void **)&prepare, &n_bytes), 0);
	/* in its groups, before it is born; mapped, before anything is made for its root */
	assert_true(index_of(prepare, OP_CGROUP_JOIN) < index_of(prepare, OP_UNSHARE));
	assert_true(index_of(prepare, OP_UNSHARE) < index_of(prepare, OP_INIT));
	assert_int_equal(index_of(prepare, OP_ID_MAP), index_of(prepare, OP_INIT) + 1);
	assert_true(index_of(prepare, OP_ID_MAP) < index_of(prepare, OP_MOUNT));
	assert_int_equal(plan_birth(&input, (void **)&birth, &n_bytes), 0);
	assert_int_equal(index_of(birth, OP_PIVOT), birth->n_ops - 1);
	assert_true(index_of(birth, OP_OVERLAY) < index_of(birth, OP_MOVE));
}

static void a_step_behind_the_end_is_described_by_its_number(void **state UNUSED)
{
	struct plan_input input = unprivileged();
	AUTO_FREE struct plan_wire *plan = NULL;
	AUTO_BUF struct buf text;
	size_t n_bytes;

	buf_init(&text, 1000);
	assert_int_equal(plan_birth(&input, (void **)&plan, &n_bytes), 0);
	plan_describe(plan, plan->n_ops, &text);
	buf_adds(&text, " ");
	plan_describe(plan, plan->n_ops + 7, &text);
	assert_non_null(strstr(buf_str(&text), "step "));
}

static void a_plan_of_thousands_of_mounts_is_made_or_refused(void **state UNUSED)
{
	struct plan_input input = unprivileged();
	AUTO_FREE struct bind_mount *many = calloc(100000, sizeof(*many));
	AUTO_FREE void *blob = NULL;
	size_t n_bytes;

	for (int i = 0; i < 100000; i++)
		many[i] = binds[i % 2];
	input.binds = many;
	input.n_binds = 1000;
	assert_int_equal(plan_birth(&input, &blob, &n_bytes), 0);
	assert_int_equal(plan_check(blob, n_bytes), 0);
	auto_free(&blob);
	blob = NULL;
	input.n_binds = 100000;
	assert_int_equal(plan_birth(&input, &blob, &n_bytes), -E2BIG);
	assert_null(blob);
}

/* A plan made with too little memory must not be another plan, such as one without a cgroup. */
static void check_torture(make_plan *make, const struct plan_input *input)
{
	AUTO_FREE void *whole = NULL;
	size_t whole_bytes;
	long n = 0;
	int failed;

	assert_int_equal(make(input, &whole, &whole_bytes), 0);
	do {
		AUTO_FREE void *blob = NULL;
		size_t n_bytes = 0;
		int r;

		alloc_fail_at(++n);
		r = make(input, &blob, &n_bytes);
		failed = alloc_has_failed();
		if (r == 0 && (n_bytes != whole_bytes || memcmp(blob, whole, n_bytes)))
			fail_msg("another plan after allocation %ld failed", n);
		assert_true(r == 0 || (r == -ENOMEM && failed));
	} while (failed);
}

static void whichever_allocation_fails_no_half_plan_comes_out(void **state UNUSED)
{
	struct plan_input input = unprivileged();

	if (!alloc_can_fail)
		skip();
	check_torture(plan_prepare, &input);
	check_torture(plan_birth, &input);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_unprivileged_container_on_a_hybrid_host),
		cmocka_unit_test(an_unprivileged_container_on_a_v2_host),
		cmocka_unit_test(an_unprivileged_container_on_a_v1_host),
		cmocka_unit_test(an_unprivileged_container_with_the_maximal_map),
		cmocka_unit_test(a_container_with_a_link),
		cmocka_unit_test(a_privileged_container),
		cmocka_unit_test(a_root_in_place_and_bind_mounts),
		cmocka_unit_test(a_process_with_a_root_of_its_own),
		cmocka_unit_test(id_maps_have_the_form_of_the_kernel),
		cmocka_unit_test(every_mount_of_an_unprivileged_container_is_restrained),
		cmocka_unit_test(the_order_that_isolation_rests_on_is_kept),
		cmocka_unit_test(a_step_behind_the_end_is_described_by_its_number),
		cmocka_unit_test(a_plan_of_thousands_of_mounts_is_made_or_refused),
		cmocka_unit_test(whichever_allocation_fails_no_half_plan_comes_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
