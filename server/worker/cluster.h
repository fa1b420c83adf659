/* cluster.h - "cloche cluster": the process that alone knows the cluster. It keeps the worker registered, through
 * connections that it renews, and sweeps. Its end changes nothing for containers: the server starts it anew.
 * Descriptor 3 is a socket to the server: what it says and is told are single bytes; its end is ours. */
#pragma once

struct worker_config;

/* From the server. */
#define CLUSTER_LAND 'l'
#define CLUSTER_RETIRE 'r'
#define CLUSTER_DRAIN 'd' /* the server is about to end */
/* To the server. */
#define CLUSTER_REGISTERED 'R'
#define CLUSTER_UNREGISTERED 'U'

/* Exit statuses: anything else is a failure. */
#define CLUSTER_STOPPED 0
#define CLUSTER_LEFT 10 /* the cluster has ended the registration: the worker is to end, too */

int cluster_main(const struct worker_config *config);
