/* SPDX-License-Identifier: Apache-2.0
 * rank_map_large.h - a world with more devices than ranks, eight a node, for tests of the nearest legal map.
 */
#ifndef ORR_RANK_MAP_LARGE_H
#define ORR_RANK_MAP_LARGE_H

#include "rank_map.h"

struct large {
    uint32_t world, n_slots;
    struct rank_shards shards;
    struct rank_map map;
    struct rank_map_slot *slots;
    struct rank_map_ask ask;
    uint32_t *old, *next, *other; /* [world] */
};

/* Nobody has a device yet; as many shards of equal size. */
void large_init(struct large *l, uint32_t world, uint32_t shards, bool is_ordered);
void large_fini(struct large *l);

/* The first n devices, and no others, are given. */
void large_give_first(struct large *l, uint32_t n);

/* The nearest map, checked, and what it costs. */
struct rank_map_cost large_make(struct large *l, uint32_t *map);

/* What it costs to go to this map instead. */
struct rank_map_cost large_cost_to(struct large *l, const uint32_t *map);

#endif
