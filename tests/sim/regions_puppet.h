/* SPDX-License-Identifier: Apache-2.0
 * regions_puppet.h - the clusters of two regions and the job actors in them, as a puppet of test_sim_regions.c: it repeats
 * whatever is not answered, and knows what is true of each job.
 */
#ifndef ORR_TEST_REGIONS_PUPPET_H
#define ORR_TEST_REGIONS_PUPPET_H

#include "orrery/actor.h"

enum {
    REGIONS = 2,
    HOSTS = 2, /* of each region */
    JOBS = 3,
};

extern const char *const host_names[REGIONS * HOSTS];
extern const char *const region_names[REGIONS];
extern unsigned leads[REGIONS]; /* host of the region */

enum slot_state { SLOT_NONE, SLOT_LAUNCH, SLOT_RUN, SLOT_SAVE, SLOT_END };

struct truth {
    char id[ORR_JOB_ID_MAX];
    uint64_t
        committed; /* number of the newest checkpoint that a region has acknowledged */
    uint64_t saving; /* the one under way: it counts, or it does not */
    unsigned starts;
};
extern struct truth truths[JOBS];
extern unsigned n_jobs;
extern char broken[512]; /* what must not be, and was; empty: nothing */

struct slot { /* a generation of a job at a cluster */
    uint64_t generation;
    enum slot_state state;
    bool runs; /* it has the permit, and ranks */
    uint64_t base;
    uint64_t order, checkpoint;
    uint64_t step;
};
extern struct slot slots[REGIONS][JOBS];

void breaks(const char *what, unsigned job);
struct orr_addr leader_of(unsigned region);

/* args: the region, an unsigned. */
extern const struct orr_actor_type regions_puppet_type;

#endif
