/* SPDX-License-Identifier: Apache-2.0
 * job_units.h - how many devices a job is placed on when there is a choice.
 */
#ifndef ORR_JOB_UNITS_H
#define ORR_JOB_UNITS_H

#include "orrery/base.h"

/* The most in low..high that divides the world, so that each device has as many ranks; without one, the fewest on which no
 * device has more ranks than on `high`.  Ranks of different shards share no device (0 and more shards than max: as if there were
 * one).  0: none. */
static inline uint32_t orr_job_units(
    uint32_t world, uint32_t shards, uint32_t low, uint32_t high, uint32_t max)
{
    uint32_t least = shards && shards <= max && shards > low ? shards : low;
    least = least ? least : 1;
    high = high < world ? high : world;
    if (high < least)
        return 0;
    for (uint32_t k = high; k >= least; k--)
        if (world % k == 0)
            return k;
    uint32_t load = (world + high - 1) / high;
    uint32_t k = (world + load - 1) / load;
    return k > least ? k : least;
}

#endif
