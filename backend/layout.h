/* layout.h - an OCI image layout, a directory of blobs named by their digests, as far as a root file
 * system needs it: the layers of one image and its environment. Its JSON is read by the server, who
 * gives the function for it (backend_config); here the layers are opened. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/sha256.h"
#include "base/strv.h"

struct err;

#define LAYOUT_MAX_LAYERS 500

struct layout_blob {
	char hex[SHA256_HEX_SIZE]; /* its sha256 */
	uint64_t n_bytes;
};

struct layout {
	char manifest[SHA256_HEX_SIZE]; /* names the image: the same digest is the same image */
	struct layout_blob layers[LAYOUT_MAX_LAYERS]; /* the lowest first */
	size_t n_layers;
	struct strv env;
};

/* dir_fd: the layout. tag NULL: the only image there is. ret_layout is freed by layout_done also after
 * a failure. */
typedef int layout_reader(int dir_fd, const char *tag, struct layout *ret_layout, struct err *err);
void layout_done(struct layout *layout);

bool layout_is_one(int dir_fd);

/* "sha256:<64 hex digits>". -EINVAL. */
int layout_parse_digest(const char *text, char ret_hex[SHA256_HEX_SIZE]);

/* For reading from its beginning, after all of it was compared with its digest. */
int layout_open_blob(int dir_fd, const struct layout_blob *blob, struct err *err);
