/* commands.h - what `cloche` does about a cluster beside serving: the process that knows it, and what an operator says
 * to a running worker. */
#pragma once

/* "cloche cluster GARDEN VOLUMES START worker OPTION...": not for people. The exit status. */
int cluster_command(int argc, char **argv);

/* "cloche land [OPTION...]", "cloche retire [OPTION...]": tells the worker that serves --work-dir. The exit status. */
int tell_command(int argc, char **argv);
