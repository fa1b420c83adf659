#include "unit.h"

#include <errno.h>
#include <linux/openat2.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/auto.h"
#include "linux/caps.h"
#include "linux/sys.h"

/* In the directory of each test: root/ with file, dir/inner, links that lead in, out and in circles;
 * outside, beside root. */
static int root_fd;

static int make_tree(void **state)
{
	if (unit_make_dir(state) < 0 || mkdir(unit_path(state, "root"), 0755) < 0 ||
		mkdir(unit_path(state, "root/dir"), 0755) < 0)
		return -1;
	unit_write_file(unit_path(state, "outside"), "outside", 7);
	unit_write_file(unit_path(state, "root/file"), "file", 4);
	unit_write_file(unit_path(state, "root/dir/inner"), "inner", 5);
	if (symlink("/dir/inner", unit_path(state, "root/absolute")) < 0 ||
		symlink("dir", unit_path(state, "root/relative")) < 0 ||
		symlink("../outside", unit_path(state, "root/out")) < 0 ||
		symlink("loop", unit_path(state, "root/loop")) < 0 ||
		symlink("/proc/self/cwd", unit_path(state, "root/magic")) < 0)
		return -1;
	root_fd = sys_open_at(AT_FDCWD, unit_path(state, "root"), O_PATH | O_DIRECTORY, 0, 0);
	return root_fd < 0 ? -1 : 0;
}

static int remove_tree(void **state)
{
	auto_fd(&root_fd);
	return unit_remove_dir(state);
}

static int try_open(int fd)
{
	if (fd < 0)
		return fd;
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	auto_fd(&fd);
	return 0;
}

static void in_a_root_links_lead_where_they_would_lead_inside(void **state UNUSED)
{
	assert_int_equal(try_open(sys_open_in_root(root_fd, "file", O_RDONLY, 0)), 0);
	assert_int_equal(try_open(sys_open_in_root(root_fd, "/file", O_RDONLY, 0)), 0);
	assert_int_equal(try_open(sys_open_in_root(root_fd, "../../../file", O_RDONLY, 0)), 0);
	assert_int_equal(try_open(sys_open_in_root(root_fd, "absolute", O_RDONLY, 0)), 0);
	assert_int_equal(try_open(sys_open_in_root(root_fd, "relative/inner", O_RDONLY, 0)), 0);
	assert_int_equal(try_open(sys_open_in_root(root_fd, "out", O_RDONLY, 0)), -ENOENT);
	assert_int_equal(try_open(sys_open_in_root(root_fd, "loop", O_RDONLY, 0)), -ELOOP);
	assert_true(sys_open_in_root(root_fd, "magic", O_RDONLY, 0) < 0);
	assert_int_equal(
		try_open(sys_open_in_root(root_fd, "new", O_WRONLY | O_CREAT | O_EXCL, 0600)), 0);
}

static void beneath_a_directory_no_link_is_followed_and_nothing_leads_out(void **state UNUSED)
{
	assert_int_equal(try_open(sys_open_beneath(root_fd, "dir/inner", O_RDONLY, 0)), 0);
	assert_int_equal(try_open(sys_open_beneath(root_fd, "dir/../file", O_RDONLY, 0)), 0);
	assert_int_equal(try_open(sys_open_beneath(root_fd, "../outside", O_RDONLY, 0)), -EXDEV);
	assert_int_equal(try_open(sys_open_beneath(root_fd, "/file", O_RDONLY, 0)), -EXDEV);
	assert_int_equal(try_open(sys_open_beneath(root_fd, "absolute", O_RDONLY, 0)), -ELOOP);
	assert_int_equal(
		try_open(sys_open_beneath(root_fd, "relative/inner", O_RDONLY, 0)), -ELOOP);
	assert_int_equal(try_open(sys_open_beneath(root_fd, "out", O_RDONLY, 0)), -ELOOP);
}

static ssize_t read_small(const char *path, char *space, size_t cap_bytes)
{
	return sys_read_small(root_fd, path, RESOLVE_IN_ROOT, space, cap_bytes);
}

static void a_small_file_is_read_whole_or_not_at_all(void **state)
{
	char space[16];

	assert_int_equal(read_small("file", space, sizeof(space)), 4);
	assert_string_equal(space, "file");
	assert_int_equal(read_small("file", space, 5), 4);
	assert_int_equal(read_small("file", space, 4), -EFBIG);
	assert_int_equal(read_small("nothing", space, sizeof(space)), -ENOENT);
	assert_int_equal(read_small("dir", space, sizeof(space)), -EINVAL);
	assert_int_equal(mkfifo(unit_path(state, "root/fifo"), 0644), 0);
	assert_int_equal(read_small("fifo", space, sizeof(space)), -EINVAL);
	unit_write_file(unit_path(state, "root/empty"), "", 0);
	assert_int_equal(read_small("empty", space, sizeof(space)), 0);
	assert_string_equal(space, "");
}

static void text_is_written_to_what_exists(void **state)
{
	AUTO_FREE char *text = NULL;

	assert_int_equal(sys_write_file(root_fd, "file", "FI"), 0);
	text = unit_read_file(unit_path(state, "root/file"));
	assert_string_equal(text, "FIle");
	assert_int_equal(sys_write_file(root_fd, "new", "x"), -ENOENT);
	assert_true(sys_write_file(root_fd, "dir", "x") < 0);
	assert_int_equal(sys_write_file(AT_FDCWD, "/dev/full", "x"), -ENOSPC);
}

static void a_sealed_memfd_holds_a_copy_for_ever(void **state UNUSED)
{
	char text[] = "content", back[16] = "";
	AUTO_FD int fd = sys_sealed_memfd("test", text, sizeof(text));

	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	text[0] = 'X';
	assert_int_equal(pread(fd, back, sizeof(back), 0), sizeof(text));
	assert_string_equal(back, "content");
	assert_int_equal(pwrite(fd, "Y", 1, 0), -1);
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_int_equal(ftruncate(fd, 100), -1);
	assert_int_equal(
		fcntl(fd, F_GET_SEALS) & (F_SEAL_SEAL | F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW),
		F_SEAL_SEAL | F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW);
}

/* In a child, which ends with what the function returns. */
static int exit_of_child(int (*run)(void))
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(run());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int close_all_from_three(void)
{
	DIR *dir;
	int n = 0;

	if (sys_close_from(3) < 0)
		return 100;
	dir = opendir("/proc/self/fd");
	while (readdir(dir))
		n++;
	return n;
}

static void all_descriptors_from_a_number_on_are_closed(void **state UNUSED)
{
	int n_stdio = 0;

	for (int fd = 0; fd < 3; fd++)
		n_stdio += fcntl(fd, F_GETFD) >= 0;
	/* they, the directory, "." and ".." */
	assert_int_equal(exit_of_child(close_all_from_three), n_stdio + 3);
}

static int close_all_but_some(void)
{
	int keep[] = { 14, -1, 10, 3, 12, 10 };

	for (int fd = 3; fd < 20; fd++)
		if (dup3(STDIN_FILENO, fd, 0) != fd)
			return 1;
	sys_close_but(4, keep, N_ELEMENTS(keep));
	for (int fd = 0; fd < 20; fd++) {
		bool is_open = fcntl(fd, F_GETFD) >= 0;

		if (is_open != (fd <= 3 || fd == 10 || fd == 12 || fd == 14))
			return 10 + fd;
	}
	return 0;
}

static void some_descriptors_are_kept(void **state UNUSED)
{
	assert_int_equal(exit_of_child(close_all_but_some), 0);
}

static int limit_caps(void)
{
	const uint64_t some = 0x21; /* CHOWN, KILL */
	uint64_t before = caps_bounding();

	if (caps_limit(some) < 0)
		return before & ~some ? 77 : 1; /* without CAP_SETPCAP nothing can be dropped */
	if (caps_bounding() != (before & some))
		return 2;
	if (caps_set(0x1) < 0)
		return 3;
	if (caps_set(0x3) == 0)
		return 4; /* what is gone does not come back */
	return caps_bounding() == (before & some) ? 0 : 5;
}

static void capabilities_only_ever_become_fewer(void **state UNUSED)
{
	int r = exit_of_child(limit_caps);

	if (r == 77)
		skip();
	assert_int_equal(r, 0);
}

#define TREE_TEST(name) cmocka_unit_test_setup_teardown(name, make_tree, remove_tree)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TREE_TEST(in_a_root_links_lead_where_they_would_lead_inside),
		TREE_TEST(beneath_a_directory_no_link_is_followed_and_nothing_leads_out),
		TREE_TEST(a_small_file_is_read_whole_or_not_at_all),
		TREE_TEST(text_is_written_to_what_exists),
		cmocka_unit_test(a_sealed_memfd_holds_a_copy_for_ever),
		cmocka_unit_test(all_descriptors_from_a_number_on_are_closed),
		cmocka_unit_test(some_descriptors_are_kept),
		cmocka_unit_test(capabilities_only_ever_become_fewer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
