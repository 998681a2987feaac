/* SPDX-License-Identifier: Apache-2.0
 * region_fleet.h - what the region actor knows of its clusters and their nodes: as they last told, so always a little old.
 */
#ifndef ORR_REGION_FLEET_H
#define ORR_REGION_FLEET_H

#include "orrery/actor.h"

struct region_cluster {
    char name[ORR_NAME_MAX];
    struct orr_addr addr; /* named */
    uint32_t incarnation;
    uint32_t state;     /* enum orr_node_state: UP or UNKNOWN */
    bool is_registered; /* with this leader */
    bool is_given_up;   /* silent: what it had no permit for went back to the queue */
    uint64_t seen_ms;
    uint32_t jobs;
    uint32_t gpus;
    uint32_t gpus_free; /* as last summarized */
    uint32_t slots_free;
    int64_t gpus_debit; /* given away since, or given back (below 0) */
    int64_t slots_debit;
    int64_t gpus_offered; /* of jobs still ASSIGNING */
    int64_t slots_offered;
    uint32_t first_node;
    bool is_waited; /* it has been told that jobs wait */
    uint32_t
        kept; /* devices that running jobs give back, for one that waits: others see them not; 0: none */
    uint32_t kept_for;
    uint64_t kept_counter; /* of that job */
    uint64_t kept_until_ms;
};

struct region_node {
    char key[2 * ORR_NAME_MAX]; /* "<cluster>/<node>" */
    char name[ORR_NAME_MAX];
    char gpu_type[32];
    uint32_t cluster;
    uint32_t next;
    uint32_t state;
    uint32_t gpus;
    uint32_t gpus_free;
    uint64_t gpu_memory_bytes;
    uint32_t slots;
    uint32_t slots_free;
    uint32_t ranks;
    uint64_t seen_ms;        /* age at the last summary */
    char host[ORR_NAME_MAX]; /* that it runs on, and where that can be dialled */
    char endpoint[128];
    uint32_t level; /* enum orr_level that its machine can give */
    char why_level[160];
    char machine[ORR_MACHINE_MAX], machine_trouble[160];
    bool is_present;  /* in the summary being read */
    bool is_draining; /* nothing new is placed there, what runs there is to go */
};

#endif
