/* SPDX-License-Identifier: Apache-2.0
 * cluster_elastic.h - which running jobs get more devices, and which give some back (docs/adr/0024-growth.md).  Pure.
 *
 * A job's pace is that of the device with the most of its ranks.  A size is worth having if it is the fewest devices for its
 * pace; only such sizes are chosen, but never fewer than `least`.
 */
#ifndef ORR_CLUSTER_ELASTIC_H
#define ORR_CLUSTER_ELASTIC_H

#include "orrery/actor.h"

enum { ELASTIC_JOBS_MAX = 64, ELASTIC_SPOTS_MAX = 1024, ELASTIC_GAIN = 2 };

struct elastic_spot { /* one of a job's nodes */
    uint32_t node;
    uint32_t cap;    /* so many more devices can its ranks there use */
    uint64_t usable; /* free ones that suit it */
};

struct elastic_job {
    uint32_t index; /* the caller's */
    uint32_t world;
    uint32_t shards; /* 0: as 1 */
    bool is_ordered;
    uint32_t least; /* fewest devices that it may be left with: its promise */
    uint32_t most;
    uint32_t devices; /* that it has */
    uint32_t tier;    /* enum orr_tier */
    bool may_change;
    struct orr_rec_resize_cost cost; /* stops 0: not known, and `guess_us` counts */
    uint64_t guess_us;
    uint32_t first_spot, n_spots; /* for growing */
    uint32_t to;                  /* out; as many as it has: it stays */
};

/* The most ranks that one device has. */
uint32_t elastic_load(const struct elastic_job *job, uint32_t devices);
/* The fewest devices for that load, no fewer than `least`. */
uint32_t elastic_size(const struct elastic_job *job, uint32_t load);
/* What a resize would make it stand still. */
uint64_t elastic_pause_us(const struct elastic_job *job, uint32_t to);

/* Hands out the free devices: always one size more to the job that has the least of its `most`, the higher tier and then the
 * earlier in the list first, while there are devices.  A job stays where what it would gain within the horizon is not ELASTIC_GAIN times
 * the pause.  Returns how many grow. */
uint32_t elastic_grow(struct elastic_job *jobs,
                      uint32_t n_jobs,
                      const struct elastic_spot *spots,
                      uint64_t horizon_us);

struct elastic_sum { /* scratch: the best jobs to free some number of devices */
    uint32_t n;
    uint64_t cost;
    uint64_t set;
};
enum { ELASTIC_NEED_MAX = 65536 };
/* Has jobs of the tier, or lower ones, give back `need` devices together, or more: as few jobs as can be; of these choices those of
 * the lowest tiers, and then those whose pauses are the shortest together.  sums: `need` + 1 of them.  False: they can't, and all
 * stay. */
ORR_NODISCARD bool elastic_give_back(struct elastic_job *jobs,
                                     uint32_t n_jobs,
                                     uint32_t tier,
                                     uint32_t need,
                                     struct elastic_sum *sums);

#endif
