/* unpack.h - a helper process that turns an archive into a tree and can do nothing else. */
#pragma once

/* "cloche unpack": reads a tar archive (also gzip or zstd) from descriptor 0, writes what it holds
 * into the empty directory on descriptor 3, says what is wrong on descriptor 2, one line. The exit
 * status is the answer.
 *
 * Confined before the first byte is read: own mount, network, ipc and uts namespaces, the directory
 * as its root, capabilities only for owners and modes of files. Devices are passed over; xattrs by
 * allow-list. */
int unpack_main(void);
