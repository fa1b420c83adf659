/* trial.h - whether an overlay mount does here what volumes need of it. */
#pragma once

struct err;

/* root_fd: an overlay over a lower tree in which there is TRIAL_DIR, a directory that is not empty.
 * Does what needs the help of the file system below: replaces the directory, gives a file away. */
#define TRIAL_DIR "directory"
#define TRIAL_FILE "file"
int trial(int root_fd, struct err *err);
