/* libarchive, loaded by the helper that is to unpack: it brings ten more along. */
#include <archive.h>
#include <archive_entry.h>

#include "base/late.h"

#define FUNCTIONS(F)                                                                               \
	F(int, archive_version_number, (void), (), 0)                                              \
	F(struct archive *, archive_read_new, (void), (), NULL)                                    \
	F(int, archive_read_free, (struct archive * a), (a), ARCHIVE_FATAL)                        \
	F(int, archive_read_support_format_tar, (struct archive * a), (a), ARCHIVE_FATAL)          \
	F(int, archive_read_support_format_gnutar, (struct archive * a), (a), ARCHIVE_FATAL)       \
	F(int, archive_read_open2,                                                                 \
		(struct archive * a, void *arg, archive_open_callback *open,                       \
			archive_read_callback *read, archive_skip_callback *skip,                  \
			archive_close_callback *close),                                            \
		(a, arg, open, read, skip, close), ARCHIVE_FATAL)                                  \
	F(int, archive_read_next_header, (struct archive * a, struct archive_entry * *ret),        \
		(a, ret), ARCHIVE_FATAL)                                                           \
	F(int, archive_read_data_block,                                                            \
		(struct archive * a, const void **ret, size_t *ret_n, la_int64_t *ret_at),         \
		(a, ret, ret_n, ret_at), ARCHIVE_FATAL)                                            \
	F(int, archive_read_data_skip, (struct archive * a), (a), ARCHIVE_FATAL)                   \
	F(la_int64_t, archive_filter_bytes, (struct archive * a, int filter), (a, filter), -1)     \
	F(const char *, archive_error_string, (struct archive * a), (a), NULL)                     \
	F(__LA_MODE_T, archive_entry_filetype, (struct archive_entry * entry), (entry), 0)         \
	F(__LA_MODE_T, archive_entry_perm, (struct archive_entry * entry), (entry), 0)             \
	F(la_int64_t, archive_entry_uid, (struct archive_entry * entry), (entry), 0)               \
	F(la_int64_t, archive_entry_gid, (struct archive_entry * entry), (entry), 0)               \
	F(la_int64_t, archive_entry_size, (struct archive_entry * entry), (entry), 0)              \
	F(int, archive_entry_sparse_count, (struct archive_entry * entry), (entry), 1)             \
	F(time_t, archive_entry_mtime, (struct archive_entry * entry), (entry), 0)                 \
	F(long, archive_entry_mtime_nsec, (struct archive_entry * entry), (entry), 0)              \
	F(int, archive_entry_mtime_is_set, (struct archive_entry * entry), (entry), 0)             \
	F(const char *, archive_entry_pathname, (struct archive_entry * entry), (entry), NULL)     \
	F(const char *, archive_entry_hardlink, (struct archive_entry * entry), (entry), NULL)     \
	F(const char *, archive_entry_symlink, (struct archive_entry * entry), (entry), NULL)      \
	F(int, archive_entry_xattr_reset, (struct archive_entry * entry), (entry), 0)              \
	F(int, archive_entry_xattr_next,                                                           \
		(struct archive_entry * entry, const char **ret_name, const void **ret,            \
			size_t *ret_n),                                                            \
		(entry, ret_name, ret, ret_n), ARCHIVE_WARN)

LATE_LIBRARY("libarchive.so.13", FUNCTIONS, LATE_NONE);
