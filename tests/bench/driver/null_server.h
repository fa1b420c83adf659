/* null_server.h - answers every request of a script at once, as if all had been done: what the driver, the kernel's TCP
 * and the scheduler cost by themselves. A thread for each connection, as many servers have it. */
#pragma once

/* Serves on a free port of 127.0.0.1, which it prints, until it is killed or has taken so many connections (0: any
 * number). Returns the program's status. */
int null_server(long n_connections);
