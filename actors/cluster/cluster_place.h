/* SPDX-License-Identifier: Apache-2.0
 * cluster_place.h - gang placement: which nodes give how many devices (or slots) to one
 * job.  Pure.
 */
#ifndef ORR_CLUSTER_PLACE_H
#define ORR_CLUSTER_PLACE_H

#include "orrery/ids.h"

struct place_want {
    uint32_t world;
    uint32_t shards;
    uint32_t gpus_min;
    uint32_t gpus_max; /* 0: one slot per rank, no devices */
    uint32_t devices;  /* exactly so many; 0: any of these */
    uint32_t spread;   /* enum orr_spread */
};

struct place_node {
    uint32_t index; /* the caller's */
    uint32_t room;  /* devices that are free and fit, or free slots */
    uint32_t take;  /* out: how many of them the job gets */
};

/* All or nothing.  The number of devices (orr_job_units) is the largest k in gpus_min..gpus_max that
 * divides the world, where there is one; it is decided
 * before where they are.  pack: one node if one suffices, the one with the least room
 * to spare (best fit), else the fewest nodes; spread: one at a time from the node with
 * the most room left. ret_units: k, or world without devices. Errors: ORR_ENODEV, no
 * node's take is set. */
ORR_NODISCARD enum orr_err cluster_place(const struct place_want *want,
                                         struct place_node *nodes,
                                         uint32_t n_nodes,
                                         uint32_t *ret_units);

#endif
