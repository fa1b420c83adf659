#include "nft_main.h"

#include <errno.h>
#include <nftables/libnftables.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"

#define MAX_INPUT_BYTES (64 << 20)

static int read_input(struct buf *text)
{
	char piece[65536];
	ssize_t n;

	while ((n = read(0, piece, sizeof(piece))) != 0) {
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0 && buf_add(text, piece, (size_t)n) < 0)
			return buf_failed(text);
	}
	return 0;
}

static void say(const char *text)
{
	size_t n = strcspn(text, "\n");

	while (n && write(1, text, n) < 0 && errno == EINTR)
		continue;
}

int nft_main(void)
{
	AUTO_BUF struct buf text;
	struct nft_ctx *context;
	int r;

	buf_init(&text, MAX_INPUT_BYTES);
	r = read_input(&text);
	context = r < 0 ? NULL : nft_ctx_new(NFT_CTX_DEFAULT);
	if (!context) {
		say("libnftables does not start");
		return 1;
	}
	nft_ctx_buffer_output(context);
	nft_ctx_buffer_error(context);
	r = nft_run_cmd_from_buffer(context, buf_str(&text));
	if (r)
		say(nft_ctx_get_error_buffer(context));
	nft_ctx_free(context);
	return r ? 1 : 0;
}
