/* SPDX-License-Identifier: Apache-2.0
 * rank_map_blocks.c - the nearest map whose devices have blocks of the tree of replicas (see rank_map.h).
 *
 * WHICH BLOCKS.  Take the replicas of all shards in blocks of 2^m, m the least with which they are no more than the devices; as
 * many as there are more devices are halved, the largest first.  (A partition of trees into D blocks is made from whole trees by
 * halving D - n_shards times; to halve a smaller block before a larger one leaves the larger one.)  Only among equally large ones
 * is there a choice.
 *
 * WHY IT IS THE NEAREST.  In a legal map the ranks of a device were a block, too, and of two blocks one contains the other or they
 * have nothing in common.  So between new blocks and devices the pairs with ranks in common are stars: a new block with all the
 * devices whose ranks it contains, or a device with all the new blocks that it contained.  A star has one pair at most in any
 * assignment, so the best assignment takes the best pair of each star, and any pairs for the rest.
 * What halving a block costs: (1) if one device had all of it, nothing as long as that device keeps the largest of its blocks whole,
 * and for that one the difference to what is then the largest; (2) otherwise its
 * halves are stars of their own and keep g0 + g1 instead of max(g0, g1): never a loss.  The choices of different stars do not
 * touch each other, and within a star the costs rise: the cheapest first is best.
 * (All of this holds for a part of a legal map, too: "all of it" means of those of its ranks that have a device.)
 *
 * Nodes: of equal costs those blocks are halved on whose node a device is free; blocks without a device of theirs take one of
 * the node where most of their ranks are, those with most ranks first.
 */
#include "rank_map_work.h"

/* ---- which blocks there are ---------------------------------------------------------------- */

/* m; and the blocks of 2^m into base. */
static uint32_t make_base(struct rank_map_work *w)
{
    uint32_t level = 0;
    for (uint64_t n = w->world; n > w->n_given;) {
        level++;
        n = 0;
        for (uint32_t s = 0; s < w->n_shards; s++)
            n += (rank_map_shard_size(w, s) + (UINT64_C(1) << level) - 1) >> level;
    }
    w->n_base = 0;
    for (uint32_t s = 0; s < w->n_shards; s++)
        for (uint32_t at = w->start[s]; at < w->start[s + 1]; at += 1u << level) {
            uint32_t left = w->start[s + 1] - at;
            w->is_halved[w->n_base] = false;
            w->base[w->n_base++] = (struct rank_map_block){
                .first = at, .n = left < 1u << level ? left : 1u << level};
        }
    return level;
}

/* Halves all that are larger than those of which only some are halved: returns how many of these; *ret_size is theirs. */
static uint32_t
halve_largest(struct rank_map_work *w, uint32_t level, uint32_t *ret_size)
{
    uint32_t half = level ? 1u << (level - 1) : 0, left = w->n_given - w->n_base;
    uint32_t *count = w->bucket, size = 1u << level;
    memset(count + half, 0, (size - half + 1) * sizeof(*count));
    for (uint32_t i = 0; i < w->n_base; i++)
        count[w->base[i].n < half ? half : w->base[i].n]++;
    for (; left > 0 && count[size] <= left; size--)
        left -= count[size];
    *ret_size = size;
    for (uint32_t i = 0; i < w->n_base; i++)
        w->is_halved[i] = half && w->base[i].n > size;
    return left;
}

static void make_blocks(struct rank_map_work *w, uint32_t level)
{
    w->n_blocks = 0;
    for (uint32_t i = 0; i < w->n_base; i++) {
        struct rank_map_block b = w->base[i];
        b.slot = ORR_NONE;
        if (w->is_halved[i]) {
            uint32_t half = 1u << (level - 1);
            w->blocks[w->n_blocks++] = (struct rank_map_block){b.first, half, ORR_NONE};
            b.first += half;
            b.n -= half;
        }
        w->blocks[w->n_blocks++] = b;
    }
}

void rank_map_block_sizes(struct rank_map_work *w, uint32_t *count)
{
    uint32_t level = make_base(w), size, left = halve_largest(w, level, &size);
    for (uint32_t i = 0; i < w->n_base && left > 0; i++)
        if (w->base[i].n == size) {
            w->is_halved[i] = true;
            left--;
        }
    make_blocks(w, level);
    memset(count, 0, (w->world + 1) * sizeof(*count));
    for (uint32_t i = 0; i < w->n_blocks; i++)
        count[w->blocks[i].n]++;
}

/* ---- which device each gets ---------------------------------------------------------------- */

/* slot_n, node_n: ranks of these by given slot, by node.  by: 1, or -1 to take them out again. */
static void tally(struct rank_map_work *w, uint32_t first, uint32_t n, int32_t by)
{
    for (uint32_t i = first; i < first + n; i++) {
        uint32_t slot = rank_map_old(w, w->member[i]);
        if (slot == ORR_NONE)
            continue;
        if (w->ask->slots[slot].is_given)
            w->slot_n[slot] += (uint32_t)by;
        w->node_n[rank_map_node(w, slot)] += (uint32_t)by;
    }
}

/* Of a block to the slots, or nodes, where its ranks are; n arcs are there already. */
static uint32_t
add_arcs(struct rank_map_work *w, uint32_t block, bool is_node, uint32_t n)
{
    const struct rank_map_block *b = &w->blocks[block];
    uint32_t *marks = is_node ? w->node_m : w->slot_load, from = n;
    tally(w, b->first, b->n, 1);
    for (uint32_t i = b->first; i < b->first + b->n; i++) {
        uint32_t slot = rank_map_old(w, w->member[i]);
        if (slot == ORR_NONE)
            continue;
        uint32_t node = rank_map_node(w, slot), to = is_node ? node : slot;
        if (marks[to] || (!is_node && !w->slot_n[slot]))
            continue;
        marks[to] = true;
        w->arcs.block[n] = block;
        w->arcs.to[n] = to;
        w->arcs.n[n] = is_node ? w->node_n[node] : w->slot_n[slot];
        w->arcs.n_node[n++] = w->node_n[node];
    }
    tally(w, b->first, b->n, -1);
    for (; from < n; from++)
        marks[w->arcs.to[from]] = false;
    return n;
}

/* order2: most ranks first, then most on the node. */
static void sort_arcs(struct rank_map_work *w, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        w->order2[i] = i;
    rank_map_sort(w, w->arcs.n_node, w->world + 1, w->order2, n, w->order);
    rank_map_sort(w, w->arcs.n, w->world + 1, w->order, n, w->order2);
}

static void take(struct rank_map_work *w, uint32_t block, uint32_t slot)
{
    w->blocks[block].slot = slot;
    w->slot_of[slot] = block;
}

/* Each block the device, else a device of the node, where most of its ranks are. */
static void match(struct rank_map_work *w)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->n_given; i++)
        w->slot_of[w->given[i]] = ORR_NONE;
    for (uint32_t b = 0; b < w->n_blocks; b++)
        n = add_arcs(w, b, false, n);
    sort_arcs(w, n);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t b = w->arcs.block[w->order2[i]], slot = w->arcs.to[w->order2[i]];
        if (w->blocks[b].slot == ORR_NONE && w->slot_of[slot] == ORR_NONE)
            take(w, b, slot);
    }
    rank_map_list_free(w);
    n = 0;
    for (uint32_t b = 0; b < w->n_blocks; b++)
        if (w->blocks[b].slot == ORR_NONE)
            n = add_arcs(w, b, true, n);
    sort_arcs(w, n);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t b = w->arcs.block[w->order2[i]], node = w->arcs.to[w->order2[i]];
        uint32_t slot =
            w->blocks[b].slot == ORR_NONE ? rank_map_pop(w, node) : ORR_NONE;
        if (slot != ORR_NONE)
            take(w, b, slot);
    }
}

/* What has no device there is, in order: by replica, so that neighbours of a replica are neighbours. */
static void match_rest(struct rank_map_work *w)
{
    uint32_t n = 0;
    for (uint32_t b = 0; b < w->n_blocks; b++)
        if (w->blocks[b].slot == ORR_NONE) {
            uint32_t rank = w->member[w->blocks[b].first];
            w->arcs.n[b] = w->world - w->ask->shards->replica_of[rank];
            w->order2[n++] = b;
        }
    rank_map_sort(w, w->arcs.n, w->world + 1, w->order2, n, w->order);
    for (uint32_t i = 0, at = 0; i < n; i++) {
        while (w->slot_of[w->given[at]] != ORR_NONE)
            at++;
        take(w, w->order[i], w->given[at]);
    }
}

/* ---- which blocks are halved --------------------------------------------------------------- */

struct most {
    uint32_t slot, n;         /* given slot with most of the ranks */
    uint32_t node, n_on_node; /* node with most of them */
    uint32_t n_known;         /* ranks that had a device */
};

static struct most most_of(struct rank_map_work *w, uint32_t first, uint32_t n)
{
    struct most most = {.slot = ORR_NONE, .node = ORR_NONE};
    tally(w, first, n, 1);
    for (uint32_t i = first; i < first + n; i++) {
        uint32_t slot = rank_map_old(w, w->member[i]);
        if (slot == ORR_NONE)
            continue;
        uint32_t node = rank_map_node(w, slot);
        most.n_known++;
        if (w->slot_n[slot] > most.n) {
            most.n = w->slot_n[slot];
            most.slot = slot;
        }
        if (w->node_n[node] > most.n_on_node) {
            most.n_on_node = w->node_n[node];
            most.node = node;
        }
    }
    tally(w, first, n, -1);
    return most;
}

static bool is_of_one(const struct most *most)
{
    return most->n > 0 && most->n == most->n_known;
}

static void at_least(uint32_t *n, uint32_t least)
{
    if (*n < least)
        *n = least;
}

/* Of a device that had all of several blocks.  slot_old: what it keeps when all blocks of the choice are halved; slot_load: 1 + the one
 * of them that is halved last, as it would keep most of that. */
static void look_at_stars(struct rank_map_work *w, uint32_t size, uint32_t half)
{
    for (uint32_t i = 0; i < w->n_given; i++)
        w->slot_old[w->given[i]] = 0;
    for (uint32_t b = 0; b < w->n_blocks; b++) {
        struct most most = most_of(w, w->blocks[b].first, w->blocks[b].n);
        if (w->blocks[b].n != size && is_of_one(&most))
            at_least(&w->slot_old[most.slot], most.n);
    }
    for (uint32_t i = 0; i < w->n_base; i++) {
        const struct rank_map_block *b = &w->base[i];
        struct most all = most_of(w, b->first, b->n);
        w->gain[i] = all.n;
        if (b->n != size || !is_of_one(&all))
            continue;
        struct most one = most_of(w, b->first, half);
        at_least(&w->slot_old[all.slot], one.n);
        at_least(&w->slot_old[all.slot], all.n - one.n);
        uint32_t *last = &w->slot_load[all.slot];
        if (!*last || w->gain[*last - 1] < all.n)
            *last = i + 1;
    }
}

/* gain, home. */
static void weigh(struct rank_map_work *w, uint32_t i, uint32_t half)
{
    const struct rank_map_block *b = &w->base[i];
    struct most all = most_of(w, b->first, b->n);
    if (is_of_one(&all)) {
        uint32_t rest = w->slot_old[all.slot];
        bool is_last = w->slot_load[all.slot] == i + 1 && all.n > rest;
        w->gain[i] = w->world - (is_last ? all.n - rest : 0);
        w->home[i] = all.node;
        return;
    }
    struct most one = most_of(w, b->first, half);
    struct most two = most_of(w, b->first + half, b->n - half);
    const struct most *less = one.n < two.n ? &one : &two;
    w->gain[i] = w->world + one.n + two.n - all.n;
    w->home[i] = less->n ? rank_map_node(w, less->slot) : less->node;
}

/* Of equal gains n: first where a device is free on the node. */
static uint32_t
halve_equal(struct rank_map_work *w, const uint32_t *order, uint32_t n, uint32_t left)
{
    for (uint32_t pass = 0; pass < 2; pass++)
        for (uint32_t k = 0; k < n && left > 0; k++) {
            uint32_t i = order[k], slot = ORR_NONE;
            if (w->is_halved[i])
                continue;
            if (w->home[i] != ORR_NONE)
                slot = rank_map_pop(w, w->home[i]);
            if (pass == 0 && slot == ORR_NONE)
                continue;
            w->is_halved[i] = true;
            left--;
        }
    return left;
}

static void
halve_cheapest(struct rank_map_work *w, uint32_t level, uint32_t size, uint32_t left)
{
    uint32_t n = 0, half = 1u << (level - 1);
    make_blocks(w, level);
    match(w); /* free devices stay listed by node */
    look_at_stars(w, size, half);
    for (uint32_t i = 0; i < w->n_base; i++)
        if (w->base[i].n == size) {
            weigh(w, i, half);
            w->order2[n++] = i;
        }
    rank_map_sort(w, w->gain, 2 * w->world + 1, w->order2, n, w->order);
    for (uint32_t from = 0, to; from < n && left > 0; from = to) {
        for (to = from; to < n && w->gain[w->order[to]] == w->gain[w->order[from]];)
            to++;
        left = halve_equal(w, w->order + from, to - from, left);
    }
    for (uint32_t i = 0; i < w->n_given; i++)
        w->slot_load[w->given[i]] = 0;
}

void rank_map_blocks(struct rank_map_work *w)
{
    uint32_t level = make_base(w), size, left = halve_largest(w, level, &size);
    if (left > 0)
        halve_cheapest(w, level, size, left);
    make_blocks(w, level);
    match(w);
    match_rest(w);
    for (uint32_t b = 0; b < w->n_blocks; b++)
        for (uint32_t i = 0; i < w->blocks[b].n; i++)
            w->next[w->member[w->blocks[b].first + i]] = w->blocks[b].slot;
}
