/* writer.h - makes the entries of an archive in a tree: every parent found by place.h, nothing ever
 * written through a link's own name, what stands in the way replaced (a directory only if it is
 * empty), a directory that is there kept. One thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "volumes/dirtimes.h"
#include "volumes/place.h"

struct writer_xattr {
	const char *name;
	const void *value;
	size_t n_bytes;
};

/* All is borrowed for the call. */
struct writer_entry {
	const char
		*path; /* as place_enter has it, terminated; "" is the base itself, a directory */
	const char *target; /* of a symbolic link, as it stands; of a hard link, a path as above */
	size_t path_bytes, target_bytes;
	mode_t mode; /* with the type: directory, regular, symbolic link or fifo */
	uid_t uid;
	gid_t gid;
	struct timespec mtime; /* tv_nsec UTIME_OMIT: none */
	const struct writer_xattr *xattrs; /* kept ones only (xattrs.h) */
	size_t n_xattrs;
};

struct writer {
	struct place place, targets;
	struct dirtimes dirtimes;
	/* For somebody who is all that he writes: a directory that was there is left to whom it belongs,
	 * the base as it is, and a mode comes when everything in it is made. */
	bool is_user, base_is_new;
	bool is_layer; /* directories that stand in the way go with all that is in them */
};

/* As place_init. */
int writer_init(struct writer *writer, int root_fd, const char *base);
void writer_done(struct writer *writer);

/* Directories, symbolic links and fifos; all of it, but for the times of directories. */
int writer_make(struct writer *writer, const struct writer_entry *entry);

/* *target* gets a second name. -ENOENT if it is not there. */
int writer_link(struct writer *writer, const struct writer_entry *entry);

/* A regular file, empty; the descriptor is the caller's, who fills it and hands it back to
 * writer_end_file for owner, mode, attributes and times. */
int writer_begin_file(struct writer *writer, const struct writer_entry *entry);
int writer_end_file(const struct writer_entry *entry, int fd);

/* Takes path (terminated) away, or all that is in it, if it is there. */
int writer_take_away(struct writer *writer, const char *path, size_t n_bytes, bool only_content);

/* After the last entry. */
int writer_finish(struct writer *writer);
