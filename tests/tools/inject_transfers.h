/* inject_transfers.h - which calls the kernel may interrupt or cut short, and how one is cut short. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct transfer;

/* It waits: for a child, for events, or for a pipe, a socket or a terminal. */
bool call_may_block(pid_t pid, long nr, const uint64_t args[6]);

/* A stream of bytes, and more of them than what is written in one piece. */
bool transfer_may_be_short(pid_t pid, long nr, const uint64_t args[6]);

/* At the entry of the call: one byte (into a pipe: what it takes in one piece). */
struct transfer *transfer_shorten(pid_t thread, pid_t pid, long nr);

/* At its end: the registers are the caller's again. */
void transfer_restore(pid_t thread, struct transfer **take_transfer);

bool runs_our_program(pid_t pid);
