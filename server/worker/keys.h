/* keys.h - the keys of worker and gateways, in the form in which OpenSSH's client takes them.
 * Threads: any. */
#pragma once

struct buf;
struct err;

/* A private key in PEM as it lies in a file, tidied up: Unix line ends, nothing around it, and PKCS#1 bytes that call
 * themselves PRIVATE KEY, as `concourse generate-key` writes them, under their right name. */
int private_key_tidy(const char *pem, struct buf *ret, struct err *err);

/* Public keys, a line each (authorized_keys or known_hosts), as known_hosts lines that hold for every gateway. */
int host_keys_list(const char *text, struct buf *ret, struct err *err);

/* Both from the two files into dir_fd under these names, mode 0600. The message names file and option. */
struct key_names {
	char private_key[32], host_keys[32];
};
int keys_copy(int dir_fd, const struct key_names *names, const char *private_key_file,
	const char *public_key_file, struct err *err);
