/* libnftables, for the helper that makes the table; nobody else calls it. */
#include <nftables/libnftables.h>

#include "base/late.h"

#define FUNCTIONS(F)                                                                               \
	F(struct nft_ctx *, nft_ctx_new, (uint32_t flags), (flags), NULL)                          \
	F(void, nft_ctx_free, (struct nft_ctx * ctx), (ctx), (void)0)                              \
	F(int, nft_ctx_buffer_output, (struct nft_ctx * ctx), (ctx), -1)                           \
	F(int, nft_ctx_buffer_error, (struct nft_ctx * ctx), (ctx), -1)                            \
	F(const char *, nft_ctx_get_error_buffer, (struct nft_ctx * ctx), (ctx), "")               \
	F(int, nft_run_cmd_from_buffer, (struct nft_ctx * ctx, const char *text), (ctx, text), -1)

LATE_LIBRARY("libnftables.so.1", FUNCTIONS, LATE_NONE);
