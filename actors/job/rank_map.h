/* SPDX-License-Identifier: Apache-2.0
 * rank_map.h - which rank runs on which device: from the map there is and the devices there will be to the nearest legal map
 * (docs/elastic.md).
 *
 * Pure and deterministic: no ctx, no time, and no memory is taken between init and fini.
 *
 * A map is legal if every given device has a rank; ranks share a device only if they are replicas of one shard; and loads (ranks of
 * a device) are even: the greatest is as small as these rules allow, the least as great as they allow then.  Ordered, besides: the
 * ranks of a device are all replicas of an aligned block of a power of two, [i 2^k, (i + 1) 2^k) of its shard's (the last may be cut
 * off by their end): a subtree of the tree in which they are added up, and blocks are halved largest first.
 *
 * Of all legal maps it is one with the fewest moved ranks: ranks that had a device and get another one.  Among those it prefers
 * ranks that stay on their node: as many as can be where there is one shard and no order; elsewhere as many as a greedy choice of
 * who shares a device leaves, with the best choice of which device each group gets (of up to 128; greedy beyond).  The map there is
 * must be legal for its own devices, or a part of such a map; from any other the result is legal, and not always the nearest.
 *
 * A slot is a device that ranks have or will have, by number: the caller's, 0..n_slots-1.
 * Ownership: fini frees what init took; all else is the caller's.  Threads: none of its own.
 * Limits: world up to ORR_WORLD_MAX, slots_max up to 2 ORR_WORLD_MAX, nodes_max up to ORR_WORLD_MAX.  Time: linear in all three
 * but for a logarithm, and the cube of up to 128 devices.
 */
#ifndef ORR_RANK_MAP_H
#define ORR_RANK_MAP_H

#include "rank_shards.h"

struct rank_map_slot {
    uint32_t node; /* < nodes_max; equal numbers are one node */
    bool is_given; /* the new map uses it; if not, its ranks must leave it */
};

struct rank_map_ask {
    const struct rank_shards *shards;  /* and the world */
    const struct rank_map_slot *slots; /* [n_slots] */
    uint32_t n_slots;
    const uint32_t *old; /* [world] slot of each rank; ORR_NO_DEVICE: none yet */
    bool is_ordered;
};

struct rank_map_cost {
    uint32_t n_moved;     /* had a slot, and get another one */
    uint32_t n_left_node; /* of these: on another node */
    uint32_t load_min, load_max;
};

struct rank_map {
    uint32_t world_max, slots_max, nodes_max;
    struct orr_block block; /* work area: it holds nothing between calls */
};

/* Errors: ORR_ENOMEM; ORR_EINVAL: a limit is 0 or beyond what is above. */
ORR_NODISCARD enum orr_err rank_map_init(struct rank_map *self,
                                         uint32_t world_max,
                                         uint32_t slots_max,
                                         uint32_t nodes_max);
void rank_map_fini(struct rank_map *self);

/* ret_map[world] may be ask->old; ret_cost may be NULL; both unchanged on failure.
 * Errors: ORR_EINVAL: fewer devices than shards, or more than ranks, or numbers beyond the limits; the text says what would do. */
ORR_NODISCARD enum orr_err rank_map_make(struct rank_map *self,
                                         const struct rank_map_ask *ask,
                                         uint32_t *ret_map,
                                         struct rank_map_cost *ret_cost,
                                         struct orr_error *err);

/* Is map[world] legal for the given slots?  ret_cost (may be NULL): what it costs from ask->old.
 * Errors: ORR_EINVAL: no; the text says where. */
ORR_NODISCARD enum orr_err rank_map_check(struct rank_map *self,
                                          const struct rank_map_ask *ask,
                                          const uint32_t *map,
                                          struct rank_map_cost *ret_cost,
                                          struct orr_error *err);

#endif
