/* say.h - what the tree helper says: a line in one write, which an interruption does not lose (stdio would).
 * Not for the server's threads: theirs is log.h. */
#pragma once

int say(int fd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
