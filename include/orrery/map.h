/* SPDX-License-Identifier: Apache-2.0
 * map.h - bounded map from a text to an item of a pool.
 *
 * The map keeps hashes and indices only; the keys stay in the items, where key_of finds
 * them.  An item's key must not change while it is in the map.  Open addressing, half
 * full at most, deletion without tombstones. Threads: none of its own; one actor owns
 * it.
 */
#ifndef ORR_MAP_H
#define ORR_MAP_H

#include "orrery/pool.h"

typedef struct orr_str (*orr_key_f)(const void *item);

struct orr_map_slot {
    uint64_t hash;
    uint32_t index; /* into the pool, + 1; 0: free */
};

struct orr_map {
    struct orr_map_slot *slots;  /* owned */
    const struct orr_pool *pool; /* borrowed: outlives the map */
    orr_key_f key_of;
    uint32_t mask;
    uint32_t n;
};

/* Holds every item of the pool.  Errors: ORR_ENOMEM. */
ORR_NODISCARD enum orr_err
orr_map_init(struct orr_map *map, const struct orr_pool *pool, orr_key_f key_of);
void orr_map_fini(struct orr_map *map);

/* NULL when there is none. */
void *orr_map_find(const struct orr_map *map, struct orr_str key);

/* The key must not be in the map yet. */
void orr_map_add(struct orr_map *map, const void *item);
void orr_map_remove(struct orr_map *map, const void *item);

#endif
