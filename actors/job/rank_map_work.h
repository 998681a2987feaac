/* SPDX-License-Identifier: Apache-2.0
 * rank_map_work.h - what the files of the rank map share (see rank_map.h): the work area of one call, cut from its block.
 */
#ifndef ORR_RANK_MAP_WORK_H
#define ORR_RANK_MAP_WORK_H

#include "rank_map.h"

enum { RANK_MAP_NODES_DEVICES_MAX = 128 };

/* Ranks of a block that are on a slot, or a node, already: one array each, [world]. */
struct rank_map_arcs {
    uint32_t *block, *to, *n;
    uint32_t *n_node; /* of a slot: on its node */
};

struct rank_map_block { /* ordered: consecutive replicas of a shard */
    uint32_t first;     /* in member */
    uint32_t n;
    uint32_t slot; /* ORR_NONE: not yet */
};

struct rank_map_shard { /* not ordered */
    uint32_t n_devices, devices_max;
    uint32_t own, n_own; /* in `own`: those that have ranks of it, most first */
    uint32_t devices;    /* in `devices`: those that it gets */
    uint64_t kept, forced;
};

struct rank_map_work {
    const struct rank_map_ask *ask;
    uint32_t world, n_shards, n_given;
    uint32_t load_min, load_max; /* not ordered: bounds */

    uint32_t *start;  /* [n_shards + 1] in member */
    uint32_t *member; /* [world] ranks by shard, and by replica */
    uint32_t *given;  /* [n_given] slots */
    uint32_t *next;   /* [world] the new map */

    uint32_t *slot_n;    /* [n_slots] tally; 0 at first, as the next two */
    uint32_t *node_n;    /* [nodes] */
    uint32_t *node_m;    /* [nodes] */
    uint32_t *node_list; /* [nodes] first of its slots, ORR_NONE: the last; */
    uint32_t *slot_link; /* [n_slots] the next */
    uint32_t *slot_of;   /* [n_slots] who has it: a shard, a block; ORR_NONE: nobody */
    uint32_t *slot_old;  /* [n_slots] old ranks of its shard */
    uint32_t *slot_load; /* [n_slots] */
    uint32_t *bucket;    /* [2 world + 2] */
    uint32_t *order, *order2; /* [world, slots_max] */

    struct rank_map_shard *shards; /* [n_shards] */
    uint32_t *heap;                /* [n_shards] */
    uint32_t *own, *devices;       /* [slots_max] */

    struct rank_map_block *base, *blocks; /* [world] */
    uint32_t n_base, n_blocks;
    uint32_t *is_halved; /* [n_base] */
    uint32_t *gain;      /* [n_base] of halving it, + world */
    uint32_t *home;      /* [n_base] node of the half that needs a device; ORR_NONE */
    struct rank_map_arcs arcs;
    uint64_t *keeps; /* [n_given][n_given], of few */
};

static inline uint32_t rank_map_shard_size(const struct rank_map_work *w,
                                           uint32_t shard)
{
    return w->start[shard + 1] - w->start[shard];
}

/* The slot that a rank had; ORR_NONE: none. */
static inline uint32_t rank_map_old(const struct rank_map_work *w, uint32_t rank)
{
    uint32_t slot = w->ask->old[rank];
    return slot == ORR_NO_DEVICE ? ORR_NONE : slot;
}

static inline uint32_t rank_map_node(const struct rank_map_work *w, uint32_t slot)
{
    return w->ask->slots[slot].node;
}

/* key[order[0..n)] falls; equal ones stay as they are.  Keys are below n_keys <= 2 world + 1. */
static inline void rank_map_sort(const struct rank_map_work *w,
                                 const uint32_t *key,
                                 uint32_t n_keys,
                                 const uint32_t *order,
                                 uint32_t n,
                                 uint32_t *ret_order)
{
    memset(w->bucket, 0, (n_keys + 1) * sizeof(*w->bucket));
    for (uint32_t i = 0; i < n; i++)
        w->bucket[n_keys - 1 - key[order[i]] + 1]++;
    for (uint32_t k = 0; k < n_keys; k++)
        w->bucket[k + 1] += w->bucket[k];
    for (uint32_t i = 0; i < n; i++)
        ret_order[w->bucket[n_keys - 1 - key[order[i]]]++] = order[i];
}

/* node_list, slot_link: the given slots that nobody has. */
void rank_map_list_free(struct rank_map_work *w);

/* The first slot of a node that nobody has; ORR_NONE. */
static inline uint32_t rank_map_pop(struct rank_map_work *w, uint32_t node)
{
    uint32_t slot = w->node_list[node];
    while (slot != ORR_NONE && w->slot_of[slot] != ORR_NONE)
        slot = w->slot_link[slot];
    w->node_list[node] = slot == ORR_NONE ? ORR_NONE : w->slot_link[slot];
    return slot;
}

/* rank_map_even.c: load_min, load_max; and next. */
void rank_map_bounds(struct rank_map_work *w);
void rank_map_even(struct rank_map_work *w);

/* rank_map_blocks.c: next. */
void rank_map_blocks(struct rank_map_work *w);
/* How many blocks of each size there are in a legal map: count[n] for n in 1..world. */
void rank_map_block_sizes(struct rank_map_work *w, uint32_t *count);

/* rank_map_nodes.c: next, with fewer that leave their nodes. */
void rank_map_nodes(struct rank_map_work *w);

#endif
