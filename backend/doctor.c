#include "doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/log.h"
#include "linux/features.h"
#include "linux/spawn.h"

#define WORKS "works  "
#define LACKS "lacks  "
#define FAILS "fails  "
#define GUARD_MS 10000 /* a probe that hangs holds nobody up for longer */

static void print(const struct feature *feature, void *arg)
{
	enum doctor_status *status = arg;
	bool is_required = feature->need == FEATURE_REQUIRED;

	if (feature->code == 0) {
		printf(WORKS "%s\n", feature->name);
		return;
	}
	printf("%s%s: %s. Without it: %s.\n", is_required ? FAILS : LACKS, feature->name,
		feature->reason, feature->loss);
	if (is_required)
		*status = DOCTOR_FAILS;
	else if (*status == DOCTOR_WELL)
		*status = DOCTOR_LACKS;
}

int doctor_main(const char *work_dir, uint32_t id_base)
{
	struct features_input input = { .work_dir = work_dir, .id_base = id_base };
	enum doctor_status status = DOCTOR_WELL;

	setvbuf(stdout, NULL, _IOLBF, 0); /* probes make children: nothing is printed twice */
	features_probe(&input, print, &status);
	return fflush(stdout) == 0 ? (int)status : DOCTOR_FAILS;
}

/* ---- beside a server ------------------------------------------------------------------------- */

/* Its pid, or -errno. */
static pid_t spawn(const struct doctor *doctor, int *ret_text_fd)
{
	char base[16];
	const char *argv[] = { "cloche", "doctor", "--work-dir", doctor->work_dir,
		"--id-pool-start", base, NULL };
	int ends[2];
	pid_t pid;

	snprintf(base, sizeof(base), "%u", doctor->id_base);
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	pid = spawn_program(&(struct spawn){ .exe_fd = doctor->self_exe_fd,
		.argv = argv,
		.stdin_fd = -1,
		.stdout_fd = ends[1],
		.stderr_fd = -1,
		.extra_fd = -1 });
	close(ends[1]);
	*ret_text_fd = ends[0];
	return pid;
}

static void log_line(const char *line)
{
	size_t mark = sizeof(LACKS) - 1;

	if (!strncmp(line, LACKS, mark))
		LOG(LOG_WARN, "environment-lacks", KV_STR("what", line + mark));
	else if (!strncmp(line, FAILS, mark))
		LOG(LOG_ERROR, "environment-lacks", KV_STR("what", line + mark));
}

/* What was said until its end or the guard's. */
static void read_report(int text_fd, char *text, size_t text_bytes)
{
	struct pollfd fd = { .fd = text_fd, .events = POLLIN };
	size_t len = 0;
	ssize_t n = 1;

	while (n > 0 && len < text_bytes - 1 && TEMP_FAILURE_RETRY(poll(&fd, 1, GUARD_MS)) > 0) {
		n = TEMP_FAILURE_RETRY(read(text_fd, text + len, text_bytes - 1 - len));
		len += n > 0 ? (size_t)n : 0;
	}
	text[len] = '\0';
	if (n != 0 || !strchr(text, '\n')) /* it was killed, or could not begin */
		LOG(LOG_WARN, "environment-unknown", KV_STR("reason", "the report is not whole"));
}

static void *tell(void *arg)
{
	char text[16384], *rest = text, *line;
	AUTO_FD int text_fd = -1;
	pid_t pid = spawn(arg, &text_fd);

	if (pid < 0) {
		LOG(LOG_WARN, "environment-unknown", KV_INT("errno", -pid));
		return NULL;
	}
	read_report(text_fd, text, sizeof(text));
	while ((line = strsep(&rest, "\n")))
		log_line(line);
	kill(-pid, SIGKILL); /* it leads a session of its own */
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		continue;
	LOG(LOG_INFO, "environment-examined", KV_STR("by", "cloche doctor"));
	return NULL;
}

void doctor_start(struct doctor *doctor, int self_exe_fd, const char *work_dir, uint32_t id_base)
{
	int r;

	*doctor = (struct doctor){
		.self_exe_fd = self_exe_fd, .work_dir = work_dir, .id_base = id_base
	};
	r = pthread_create(&doctor->thread, NULL, tell, doctor);
	doctor->has_thread = r == 0;
	if (r)
		LOG(LOG_WARN, "environment-unknown", KV_INT("errno", r));
}

void doctor_finish(struct doctor *doctor)
{
	if (doctor->has_thread)
		pthread_join(doctor->thread, NULL);
	doctor->has_thread = false;
}
