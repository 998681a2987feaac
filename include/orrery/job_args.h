/* SPDX-License-Identifier: Apache-2.0
 * job_args.h - what a cluster actor gives each job actor that it spawns.  The placement
 * follows in job_start.
 */
#ifndef ORR_JOB_ARGS_H
#define ORR_JOB_ARGS_H

#include "orrery/actor.h"

struct orr_job_args {
    char region[ORR_NAME_MAX];
    char cluster[ORR_NAME_MAX];
    struct orr_addr leader; /* of the region; region_moved when it changes */
    char job[ORR_JOB_ID_MAX];
    uint64_t generation;
    uint64_t limit_ms;            /* 0: none */
    uint64_t deadline_unix_ms;    /* 0: none */
    uint64_t checkpoint_every_ms; /* 0: never */
    uint64_t hang_ms;             /* 0: never */
    uint32_t checkpoint_mode;     /* enum orr_checkpoint_mode */
    uint32_t world;
    uint32_t shards; /* 0: as its communicators show */
    uint32_t gpus_min;
    uint32_t gpus_max;
    uint32_t reduce; /* enum orr_reduce */
    uint32_t n_nodes;
    uint32_t spec_bytes;
};

#endif
