/* SPDX-License-Identifier: Apache-2.0
 * node.h - the actor of one machine: its devices, its rank processes, and their reports
 * to the job actors.
 *
 * Spawn it permanent at "/<region>/<cluster>/<node>".  On the same host it needs the
 * process edge at /edge/process and the device edge at /edge/device, which introduce
 * themselves with processes_found and devices_found, again when it greets them; it may
 * have /edge/links, which dials its peers.  It registers with its cluster
 * when it has heard both.  A restarted host loses nothing: all it knows is found again.
 */
#ifndef ORR_NODE_H
#define ORR_NODE_H

#include "orrery/actor.h"

struct orr_node_args {
    char region[ORR_NAME_MAX];
    char cluster[ORR_NAME_MAX];
    char node[ORR_NAME_MAX];
    char cluster_host[ORR_NAME_MAX]; /* whose host runs "/<region>/<cluster>" */
    char host[ORR_NAME_MAX];       /* this host, and where peers may dial it; empty: */
    char endpoint[128];            /* nowhere, then they cannot vouch for this node */
    char machine[ORR_MACHINE_MAX]; /* as in node_register, */
    char machine_trouble[160];     /* and why that does not work */
    uint64_t memory_bytes;         /* of the machine, for display */
    uint32_t slots;                /* ranks without a device at a time; 0: default 64 */
    uint32_t ranks_max;            /* rank rows kept; 0: default 1024 */
    uint32_t heartbeat_ms;         /* 0: default 500 */
    bool has_softstate;            /* /edge/softstate is on this host: publish there */
    bool
        has_stops; /* /edge/rank and /edge/store are on this host: ranks can be stopped and saved */
    char run_dir[96]; /* of the links between ranks and /edge/rank */
    char rank_lib
        [256]; /* liborrery-rank.so, for programs that save themselves; empty: none */
    char images_dir
        [128]; /* for images on their way to and from the store; better in memory */
    uint64_t
        stop_bytes_max; /* host memory for the device memory of stopped ranks; 0: no bound */
};

extern const struct orr_actor_type orr_node_type;

#endif
