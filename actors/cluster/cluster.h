/* SPDX-License-Identifier: Apache-2.0
 * cluster.h - the actor of one cluster: the map of its nodes' devices, gang placement,
 * and the parent of its job actors.
 *
 * Spawn it permanent at "/<region>/<cluster>".  It keeps nothing on disk: nodes
 * register with what runs on them, and the region hands over again the jobs that were
 * placed here.
 */
#ifndef ORR_CLUSTER_H
#define ORR_CLUSTER_H

#include "orrery/actor.h"

struct orr_cluster_args {
    char region[ORR_NAME_MAX];
    char cluster[ORR_NAME_MAX];
    char region_hosts[ORR_REGION_HOSTS_MAX][ORR_NAME_MAX]; /* they run "/<region>", one
                                                              leads; "" ends the list */
    const struct orr_actor_type
        *job_type;         /* borrowed: static; takes struct orr_job_args */
    uint32_t nodes_max;    /* 0: default 256 */
    uint32_t jobs_max;     /* 0: default 4096 */
    uint32_t world_max;    /* ranks of one job; 0: default 4096 */
    uint32_t heartbeat_ms; /* 0: default 500 */
    uint32_t suspect_ms;   /* silence after which a node is UNKNOWN; 0: default 2000 */
    uint32_t lease_ms;     /* silence after which it may be LOST; 0: default 30000 */
    bool is_rigid;         /* no job grows, or gives back, by itself */
    bool has_softstate;    /* /edge/softstate is on this host: publish there */
};

extern const struct orr_actor_type orr_cluster_type;

#endif
