/* SPDX-License-Identifier: Apache-2.0
 * region.h - the actor of one region: the job table, admission, the queue, and which cluster gets which job.
 *
 * Spawn it permanent at "/<region>" on each host of the region, beside /edge/ledger and /edge/events.  It leads where the
 * ledger leads and stands by elsewhere, where it refuses all requests with ORR_ENOTLEADER.  Clients and clusters talk to the
 * leader.  Every replica sends each committed event to its own /edge/events.
 * Source: docs/adr/0008-ledger.md.
 */
#ifndef ORR_REGION_H
#define ORR_REGION_H

#include "orrery/actor.h"

struct orr_region_peer { /* a host of another region, linked */
    char region[ORR_NAME_MAX];
    char host[ORR_NAME_MAX];
    char endpoint[256];
};

struct orr_region_args {
    char region[ORR_NAME_MAX];
    char build[ORR_NAME_MAX]; /* version, for region_info */
    char host[ORR_NAME_MAX];  /* that it runs on, for events */
    uint32_t jobs_max;        /* live and finished; 0: default 65536 */
    uint32_t finished_max;    /* finished jobs kept, oldest dropped; 0: default 10000 */
    uint32_t clusters_max;    /* 0: default 64, which is also the most */
    uint32_t nodes_max;       /* of all clusters; 0: default 4096 */
    uint32_t waits_max;       /* job_wait and log_read under way; 0: default 4096 */
    uint32_t world_max;       /* ranks of one job; 0: default 4096 */
    uint32_t events_max;      /* kept in the ledger for replay; 0: default 65536 */
    bool has_softstate;       /* /edge/softstate is on this host: publish there */
    uint64_t collect_every_ms; /* stores are told what is needed; 0: default 10 min */
    uint64_t collect_grace_ms; /* what is younger stays in them; 0: default 1 h */
    uint32_t suspect_ms; /* silence after which a cluster is UNKNOWN; 0: default 2000 */
    struct orr_region_peer
        peers[ORR_REGION_PEERS_MAX]; /* jobs may be handed over there */
    uint32_t n_peers;
};

extern const struct orr_actor_type orr_region_type;

#endif
