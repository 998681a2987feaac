/* SPDX-License-Identifier: Apache-2.0
 * rank_map_large.c - see rank_map_large.h.
 */
#include "rank_map_large.h"

#include <stdlib.h>

#include "orr_test.h"

void large_init(struct large *l, uint32_t world, uint32_t shards, bool is_ordered)
{
    *l = (struct large){.world = world, .n_slots = world + world / 2};
    l->old = malloc(world * sizeof(uint32_t));
    l->next = malloc(world * sizeof(uint32_t));
    l->other = malloc(world * sizeof(uint32_t));
    l->slots = calloc(l->n_slots, sizeof(*l->slots));
    assert_true(l->old && l->next && l->other && l->slots);
    for (uint32_t i = 0; i < l->n_slots; i++)
        l->slots[i].node = i / 8;
    for (uint32_t r = 0; r < world; r++)
        l->old[r] = ORR_NO_DEVICE;
    assert_int_equal(rank_shards_init(&l->shards, world, 0), ORR_OK);
    assert_int_equal(rank_shards_set(&l->shards, shards, NULL), ORR_OK);
    assert_int_equal(rank_map_init(&l->map, world, l->n_slots, l->n_slots / 8 + 1),
                     ORR_OK);
    l->ask = (struct rank_map_ask){.shards = &l->shards,
                                   .slots = l->slots,
                                   .n_slots = l->n_slots,
                                   .old = l->old,
                                   .is_ordered = is_ordered};
}

void large_fini(struct large *l)
{
    rank_map_fini(&l->map);
    rank_shards_fini(&l->shards);
    free(l->slots);
    free(l->old);
    free(l->next);
    free(l->other);
}

void large_give_first(struct large *l, uint32_t n)
{
    for (uint32_t i = 0; i < l->n_slots; i++)
        l->slots[i].is_given = i < n;
}

struct rank_map_cost large_make(struct large *l, uint32_t *map)
{
    struct rank_map_cost cost, again;
    struct orr_error err = {.text = ""};
    if (rank_map_make(&l->map, &l->ask, map, &cost, &err) != ORR_OK)
        fail_msg("%s", err.text);
    if (rank_map_check(&l->map, &l->ask, map, &again, &err) != ORR_OK)
        fail_msg("%s", err.text);
    assert_memory_equal(&cost, &again, sizeof(cost));
    return cost;
}

struct rank_map_cost large_cost_to(struct large *l, const uint32_t *map)
{
    struct rank_map_cost cost;
    struct orr_error err = {.text = ""};
    if (rank_map_check(&l->map, &l->ask, map, &cost, &err) != ORR_OK)
        fail_msg("%s", err.text);
    return cost;
}
