/* leftovers.h - what a dead server has left that no record names: groups, shims and their sockets,
 * directories, images, volumes' attachments, links and rules. At start, when all containers of the
 * record have been taken over or ended: one thread. What cannot be removed stays for the next start. */
#pragma once

struct backend;
struct err;

/* Starts the network too, which has to know whose links and rules are to stay. -ENOMEM. */
int leftovers_sweep(struct backend *backend, struct err *err);
