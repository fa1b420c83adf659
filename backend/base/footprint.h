/* footprint.h - how much of memory a process that has started goes on holding. Threads: any. */
#pragma once

/* Gives back what the start alone has needed: memory that is free, and the pages of programs and libraries that are
 * as in their files. What is used after all is mapped again when it is touched. */
void footprint_shrink(void);
