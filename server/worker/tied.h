/* tied.h - "cloche tied PARENT PROGRAM ARGUMENT...": becomes a program that ends (by TERM) when the process with the
 * pid PARENT does, however that happens. */
#pragma once

/* The exit status, if it cannot become it. */
int tied_command(int argc, char **argv);
