/* member.h - the header of an archive's entry, checked and put into the terms of writer.h. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "volumes/writer.h"

struct archive_entry;
struct err;

/* Start with zeros; used for one entry after the other. */
struct member {
	struct writer_entry entry;
	bool is_hard_link, is_device; /* a device has nothing but that */
	int64_t size; /* of a regular file */
	bool has_holes; /* what the archive has of it is not all of it */
	struct buf path, target;
	struct writer_xattr *xattrs;
	size_t n_space;
};

/* What is in member is borrowed from header. -errno with ERR_BAD_REQUEST: it is not to be unpacked
 * at all, nor is what comes after it. */
int member_read(struct member *member, struct archive_entry *header, struct err *err);
void member_done(struct member *member);
