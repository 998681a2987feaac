/* SPDX-License-Identifier: Apache-2.0
 * rank_map.c - the question is checked and laid out here; rank_map_even.c and rank_map_blocks.c answer it (see rank_map.h).
 */
#include "rank_map.h"

#include "rank_map_work.h"

/* ---- the work area ------------------------------------------------------------------------- */

struct carver {
    uint8_t *at; /* borrowed: the block; NULL: only measure */
    size_t used;
};

static void *carve(struct carver *c, size_t n, size_t size)
{
    void *at = c->at ? c->at + c->used : NULL;
    c->used += (n * size + 15) & ~(size_t)15;
    return at;
}

static void
lay_out(const struct rank_map *self, struct rank_map_work *w, struct carver *c)
{
    size_t u = sizeof(uint32_t), world = self->world_max, slots = self->slots_max;
    size_t most = world > slots ? world : slots;
    uint32_t **by_slot[] = {
        &w->slot_n, &w->slot_link, &w->slot_of, &w->slot_old, &w->slot_load};
    uint32_t **by_node[] = {&w->node_n, &w->node_m, &w->node_list};
    uint32_t **by_rank[] = {&w->start,
                            &w->member,
                            &w->given,
                            &w->next,
                            &w->heap,
                            &w->own,
                            &w->devices,
                            &w->is_halved,
                            &w->gain,
                            &w->home,
                            &w->arcs.block,
                            &w->arcs.to,
                            &w->arcs.n,
                            &w->arcs.n_node};
    for (size_t i = 0; i < ORR_ARRAY_SIZE(by_slot); i++)
        *by_slot[i] = carve(c, slots, u);
    for (size_t i = 0; i < ORR_ARRAY_SIZE(by_node); i++)
        *by_node[i] = carve(c, self->nodes_max, u);
    for (size_t i = 0; i < ORR_ARRAY_SIZE(by_rank); i++)
        *by_rank[i] = carve(c, world + 1, u);
    w->order = carve(c, most, u);
    w->order2 = carve(c, most, u);
    size_t few =
        slots < RANK_MAP_NODES_DEVICES_MAX ? slots : RANK_MAP_NODES_DEVICES_MAX;
    w->keeps = carve(c, few * few, sizeof(*w->keeps));
    w->bucket = carve(c, 2 * world + 2, u);
    w->shards = carve(c, world, sizeof(*w->shards));
    w->base = carve(c, world, sizeof(*w->base));
    w->blocks = carve(c, world, sizeof(*w->blocks));
}

enum orr_err rank_map_init(struct rank_map *self,
                           uint32_t world_max,
                           uint32_t slots_max,
                           uint32_t nodes_max)
{
    *self = (struct rank_map){
        .world_max = world_max, .slots_max = slots_max, .nodes_max = nodes_max};
    if (!world_max || world_max > ORR_WORLD_MAX || !slots_max ||
        slots_max > 2 * ORR_WORLD_MAX || !nodes_max || nodes_max > ORR_WORLD_MAX)
        return ORR_EINVAL;
    struct rank_map_work w;
    struct carver c = {NULL, 0};
    lay_out(self, &w, &c);
    return orr_block_init(&self->block, c.used);
}

void rank_map_fini(struct rank_map *self)
{
    orr_block_fini(&self->block);
    *self = (struct rank_map){0};
}

/* ---- the question -------------------------------------------------------------------------- */

static enum orr_err check_numbers(const struct rank_map *self,
                                  const struct rank_map_ask *ask,
                                  uint32_t *ret_given,
                                  struct orr_error *err)
{
    uint32_t world = ask->shards->world, n_given = 0;
    if (world > self->world_max || ask->n_slots > self->slots_max)
        return orr_fail(err,
                        ORR_EINVAL,
                        "%u ranks and %u devices, old and new: at most %u and %u are "
                        "possible here",
                        world,
                        ask->n_slots,
                        self->world_max,
                        self->slots_max);
    for (uint32_t i = 0; i < ask->n_slots; i++) {
        if (ask->slots[i].node >= self->nodes_max)
            return orr_fail(
                err,
                ORR_EINVAL,
                "device %u is on node %u: at most %u nodes are possible here",
                i,
                ask->slots[i].node,
                self->nodes_max);
        n_given += ask->slots[i].is_given;
    }
    for (uint32_t r = 0; r < world; r++)
        if (ask->old[r] >= ask->n_slots && ask->old[r] != ORR_NO_DEVICE)
            return orr_fail(err,
                            ORR_EINVAL,
                            "rank %u is on device %u of %u: the map there is must be "
                            "one of the given table",
                            r,
                            ask->old[r],
                            ask->n_slots);
    *ret_given = n_given;
    return ORR_OK;
}

static enum orr_err
check_room(const struct rank_map_ask *ask, uint32_t n_given, struct orr_error *err)
{
    uint32_t world = ask->shards->world, n_shards = ask->shards->n_shards;
    if (n_given > world)
        return orr_fail(err,
                        ORR_EINVAL,
                        "%u devices for %u ranks: some would have none; ask for %u at "
                        "most",
                        n_given,
                        world,
                        world);
    if (n_given < n_shards)
        return orr_fail(err,
                        ORR_EINVAL,
                        "%u shards do not fit on %u device%s, as only replicas of one "
                        "shard share a device: ask for "
                        "%u devices at least, or say in `shards:` of the job's spec "
                        "which ranks are replicas",
                        n_shards,
                        n_given,
                        n_given == 1 ? "" : "s",
                        n_shards);
    return ORR_OK;
}

/* Members by shard, and what all arrays must hold before. */
static void begin(const struct rank_map *self,
                  const struct rank_map_ask *ask,
                  struct rank_map_work *w)
{
    const struct rank_shards *shards = ask->shards;
    struct carver c = {self->block.at, 0};
    lay_out(self, w, &c);
    w->ask = ask;
    w->world = shards->world;
    w->n_shards = shards->n_shards;
    w->n_given = 0;
    memset(w->start, 0, (w->n_shards + 1) * sizeof(*w->start));
    for (uint32_t r = 0; r < w->world; r++)
        w->start[shards->shard_of[r] + 1]++;
    for (uint32_t s = 0; s < w->n_shards; s++)
        w->start[s + 1] += w->start[s];
    for (uint32_t r = 0; r < w->world; r++) {
        uint32_t at = w->start[shards->shard_of[r]] + shards->replica_of[r];
        ORR_ASSERT(at < w->start[shards->shard_of[r] + 1]);
        w->member[at] = r;
    }
    memset(w->slot_n, 0, ask->n_slots * sizeof(*w->slot_n));
    memset(w->slot_old, 0, ask->n_slots * sizeof(*w->slot_old));
    memset(w->slot_load, 0, ask->n_slots * sizeof(*w->slot_load));
    memset(w->slot_of, 0xff, ask->n_slots * sizeof(*w->slot_of));
    for (uint32_t i = 0; i < ask->n_slots; i++) {
        w->node_n[ask->slots[i].node] = 0;
        w->node_m[ask->slots[i].node] = 0;
        w->node_list[ask->slots[i].node] = ORR_NONE;
        if (ask->slots[i].is_given)
            w->given[w->n_given++] = i;
    }
}

void rank_map_list_free(struct rank_map_work *w)
{
    for (uint32_t i = 0; i < w->n_given; i++)
        w->node_list[rank_map_node(w, w->given[i])] = ORR_NONE;
    for (uint32_t i = w->n_given; i-- > 0;) {
        uint32_t slot = w->given[i];
        if (w->slot_of[slot] != ORR_NONE)
            continue;
        uint32_t *list = &w->node_list[rank_map_node(w, slot)];
        w->slot_link[slot] = *list;
        *list = slot;
    }
}

/* Of a map that is legal. */
static struct rank_map_cost
cost_of(const struct rank_map_work *w, const uint32_t *map, uint32_t *load)
{
    struct rank_map_cost cost = {.load_min = UINT32_MAX};
    memset(load, 0, w->ask->n_slots * sizeof(*load));
    for (uint32_t r = 0; r < w->world; r++) {
        uint32_t old = rank_map_old(w, r);
        load[map[r]]++;
        if (old == ORR_NONE || old == map[r])
            continue;
        cost.n_moved++;
        cost.n_left_node += rank_map_node(w, old) != rank_map_node(w, map[r]);
    }
    for (uint32_t i = 0; i < w->n_given; i++) {
        uint32_t n = load[w->given[i]];
        cost.load_min = n < cost.load_min ? n : cost.load_min;
        cost.load_max = n > cost.load_max ? n : cost.load_max;
    }
    return cost;
}

enum orr_err rank_map_make(struct rank_map *self,
                           const struct rank_map_ask *ask,
                           uint32_t *ret_map,
                           struct rank_map_cost *ret_cost,
                           struct orr_error *err)
{
    struct rank_map_work w;
    uint32_t n_given;
    enum orr_err code = check_numbers(self, ask, &n_given, err);
    if (code == ORR_OK)
        code = check_room(ask, n_given, err);
    if (code != ORR_OK)
        return code;
    begin(self, ask, &w);
    if (ask->is_ordered) {
        rank_map_blocks(&w);
    } else {
        rank_map_bounds(&w);
        rank_map_even(&w);
    }
    struct rank_map_cost cost = cost_of(&w, w.next, w.slot_load);
    if (cost.n_left_node > 0) {
        rank_map_nodes(&w);
        cost = cost_of(&w, w.next, w.slot_load);
    }
    if (ret_cost)
        *ret_cost = cost;
    memcpy(ret_map, w.next, w.world * sizeof(*ret_map));
    return ORR_OK;
}

/* ---- is a map legal? ----------------------------------------------------------------------- */

/* slot_of, slot_load. */
static enum orr_err
check_sharing(struct rank_map_work *w, const uint32_t *map, struct orr_error *err)
{
    const struct rank_shards *shards = w->ask->shards;
    for (uint32_t r = 0; r < w->world; r++) {
        uint32_t slot = map[r];
        if (slot >= w->ask->n_slots || !w->ask->slots[slot].is_given)
            return orr_fail(err,
                            ORR_EINVAL,
                            "rank %u is on device %u, which is not given",
                            r,
                            slot);
        if (w->slot_of[slot] != ORR_NONE && w->slot_of[slot] != shards->shard_of[r])
            return orr_fail(err,
                            ORR_EINVAL,
                            "device %u has ranks of shards %u and %u; only replicas of "
                            "one shard may share it",
                            slot,
                            w->slot_of[slot],
                            shards->shard_of[r]);
        w->slot_of[slot] = shards->shard_of[r];
        w->slot_load[slot]++;
    }
    for (uint32_t i = 0; i < w->n_given; i++)
        if (w->slot_load[w->given[i]] == 0)
            return orr_fail(
                err, ORR_EINVAL, "device %u is given and has no rank", w->given[i]);
    return ORR_OK;
}

static enum orr_err check_loads(struct rank_map_work *w, struct orr_error *err)
{
    rank_map_bounds(w);
    for (uint32_t i = 0; i < w->n_given; i++) {
        uint32_t n = w->slot_load[w->given[i]];
        if (n < w->load_min || n > w->load_max)
            return orr_fail(err,
                            ORR_EINVAL,
                            "device %u has %u ranks; %u to %u are possible for each",
                            w->given[i],
                            n,
                            w->load_min,
                            w->load_max);
    }
    return ORR_OK;
}

static enum orr_err
check_blocks(struct rank_map_work *w, const uint32_t *map, struct orr_error *err)
{
    uint32_t *count =
        w->gain; /* of each size, what there should be less what there is */
    rank_map_block_sizes(w, count);
    for (uint32_t s = 0; s < w->n_shards; s++)
        for (uint32_t at = w->start[s], n; at < w->start[s + 1]; at += n) {
            uint32_t slot = map[w->member[at]], end = w->start[s + 1];
            for (n = 0; at + n < end && map[w->member[at + n]] == slot;)
                n++;
            uint32_t from = at - w->start[s], whole = 1;
            while (whole < n)
                whole *= 2;
            if (n != w->slot_load[slot] || from % whole != 0 ||
                (n != whole && at + n != end))
                return orr_fail(
                    err,
                    ORR_EINVAL,
                    "device %u has rank %u, but not all of an aligned block "
                    "of a power of two of its "
                    "replicas: sums could not be taken in order there",
                    slot,
                    w->member[at]);
            if (count[n]-- == 0)
                return orr_fail(err,
                                ORR_EINVAL,
                                "device %u has %u ranks; loads can be more even",
                                slot,
                                n);
        }
    return ORR_OK;
}

enum orr_err rank_map_check(struct rank_map *self,
                            const struct rank_map_ask *ask,
                            const uint32_t *map,
                            struct rank_map_cost *ret_cost,
                            struct orr_error *err)
{
    struct rank_map_work w;
    uint32_t n_given;
    enum orr_err code = check_numbers(self, ask, &n_given, err);
    if (code == ORR_OK)
        code = check_room(ask, n_given, err);
    if (code != ORR_OK)
        return code;
    begin(self, ask, &w);
    code = check_sharing(&w, map, err);
    if (code == ORR_OK)
        code = ask->is_ordered ? check_blocks(&w, map, err) : check_loads(&w, err);
    if (code == ORR_OK && ret_cost)
        *ret_cost = cost_of(&w, map, w.slot_load);
    return code;
}
