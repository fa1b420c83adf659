/* nft_main.h - "cloche nft": a short-lived helper that hands its standard input, one transaction in
 * nft(8)'s language, to libnftables; what that has to say goes to standard output. A process of its
 * own, since the library ends the process when memory runs out. The only user of libnftables. */
#pragma once

/* The exit status: 0, or 1. */
int nft_main(void);
