/* SPDX-License-Identifier: Apache-2.0
 * rank_map_even.c - the nearest map without an order of ranks (see rank_map.h).
 *
 * WHY IT IS THE NEAREST.  Let load_max be the least load that suffices, load_min the greatest that is then possible.  Let shard s get
 * x devices, on which it had o_1 >= o_2 >= ... >= o_x ranks (0 on one that is new to it).  At most
 *     A = sum min(o_i, load_max)
 * of its ranks stay; and as every device gets at least load_min ranks, at least
 *     B = sum max(load_min - o_i, 0)
 * come from elsewhere, so that at most R - B stay.  Both bounds grow when a device is replaced by one with more ranks of the
 * shard, so the x with most are best; and min(A, R - B) is reached: take loads clamp(o_i), A + B in all; where this is too
 * little for R, raise any of them (A stay); where it is too much, lower those above load_min (R - B stay).
 * Hence f_s(x) = min(A, R - B) is what the shard can keep.  A has falling and B rising increments, so f_s is concave, and
 * the sum of f_s(x_s) over shards with sum x_s = D and x_s within its limits is greatest when the devices are handed out one by
 * one to whom the next is worth most.  Whoever gets devices that were not its own gets them from those that others do not
 * want: in a legal map each device was one shard's, so this never costs anybody anything.
 *
 * Which loads: each device has load_min, and one more is given at a time, where it keeps a rank on its device and its node, on its
 * device, on its node, or anywhere; devices are in nodes, nothing else ties them: again concave, greedy is exact.
 */
#include "rank_map_work.h"

/* ---- loads -------------------------------------------------------------------------------- */

static uint64_t devices_least(const struct rank_map_work *w, uint32_t load)
{
    uint64_t n = 0;
    for (uint32_t s = 0; s < w->n_shards; s++)
        n += (rank_map_shard_size(w, s) + load - 1) / load;
    return n;
}

static bool is_possible_least(const struct rank_map_work *w, uint32_t load)
{
    uint64_t n = 0;
    for (uint32_t s = 0; s < w->n_shards; s++) {
        uint32_t size = rank_map_shard_size(w, s), most = size / load;
        if (most < (size + w->load_max - 1) / w->load_max)
            return false;
        n += most;
    }
    return n >= w->n_given;
}

void rank_map_bounds(struct rank_map_work *w)
{
    uint32_t low = 1, high = w->world;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (devices_least(w, middle) <= w->n_given)
            high = middle;
        else
            low = middle + 1;
    }
    w->load_max = high;
    low = 1;
    while (low < high) {
        uint32_t middle = low + (high - low + 1) / 2;
        if (is_possible_least(w, middle))
            low = middle;
        else
            high = middle - 1;
    }
    w->load_min = low;
}

/* ---- how many devices each shard gets ------------------------------------------------------ */

/* slot_of, slot_old: whose ranks a given slot has (of several, most), and how many. */
static void find_owners(struct rank_map_work *w)
{
    for (uint32_t s = 0; s < w->n_shards; s++) {
        for (uint32_t i = w->start[s]; i < w->start[s + 1]; i++) {
            uint32_t slot = rank_map_old(w, w->member[i]);
            if (slot != ORR_NONE && w->ask->slots[slot].is_given)
                w->slot_n[slot]++;
        }
        for (uint32_t i = w->start[s]; i < w->start[s + 1]; i++) {
            uint32_t slot = rank_map_old(w, w->member[i]);
            if (slot == ORR_NONE)
                continue;
            if (w->slot_n[slot] > w->slot_old[slot]) {
                w->slot_old[slot] = w->slot_n[slot];
                w->slot_of[slot] = s;
            }
            w->slot_n[slot] = 0;
        }
    }
}

/* own: the given slots by shard, and in each those with most ranks first. */
static void list_owned(struct rank_map_work *w)
{
    rank_map_sort(w, w->slot_old, w->world + 1, w->given, w->n_given, w->order);
    for (uint32_t i = 0; i < w->n_given; i++)
        if (w->slot_of[w->given[i]] != ORR_NONE)
            w->shards[w->slot_of[w->given[i]]].n_own++;
    for (uint32_t s = 0, at = 0; s < w->n_shards; s++) {
        w->shards[s].own = at;
        at += w->shards[s].n_own;
        w->shards[s].n_own = 0;
    }
    for (uint32_t i = 0; i < w->n_given; i++) {
        uint32_t slot = w->order[i];
        if (w->slot_of[slot] == ORR_NONE)
            continue;
        struct rank_map_shard *shard = &w->shards[w->slot_of[slot]];
        w->own[shard->own + shard->n_own++] = slot;
    }
}

static uint64_t
kept(const struct rank_map_work *w, uint32_t s, uint64_t most, uint64_t forced)
{
    uint32_t size = rank_map_shard_size(w, s);
    return most + forced <= size ? most : size - forced;
}

/* One device more: A and B. */
static void with_one_more(const struct rank_map_work *w,
                          uint32_t s,
                          uint64_t *ret_kept,
                          uint64_t *ret_forced)
{
    const struct rank_map_shard *shard = &w->shards[s];
    uint32_t n = shard->n_devices < shard->n_own
                     ? w->slot_old[w->own[shard->own + shard->n_devices]]
                     : 0;
    *ret_kept = shard->kept + (n < w->load_max ? n : w->load_max);
    *ret_forced = shard->forced + (n < w->load_min ? w->load_min - n : 0);
}

static void add_device(struct rank_map_work *w, uint32_t s)
{
    with_one_more(w, s, &w->shards[s].kept, &w->shards[s].forced);
    w->shards[s].n_devices++;
}

/* What one device more keeps; the least number: it cannot have one. */
static int64_t worth(const struct rank_map_work *w, uint32_t s)
{
    const struct rank_map_shard *shard = &w->shards[s];
    uint64_t most, forced;
    if (shard->n_devices == shard->devices_max)
        return INT64_MIN;
    with_one_more(w, s, &most, &forced);
    return (int64_t)kept(w, s, most, forced) -
           (int64_t)kept(w, s, shard->kept, shard->forced);
}

/* Of equal worth: to the one with more ranks a device. */
static bool is_before(const struct rank_map_work *w, uint32_t a, uint32_t b)
{
    int64_t worth_a = worth(w, a), worth_b = worth(w, b);
    if (worth_a != worth_b)
        return worth_a > worth_b;
    uint64_t load_a = (uint64_t)rank_map_shard_size(w, a) * w->shards[b].n_devices;
    uint64_t load_b = (uint64_t)rank_map_shard_size(w, b) * w->shards[a].n_devices;
    return load_a != load_b ? load_a > load_b : a < b;
}

static void sink(struct rank_map_work *w, uint32_t at)
{
    for (;;) {
        uint32_t first = at;
        for (uint32_t child = 2 * at + 1; child <= 2 * at + 2; child++)
            if (child < w->n_shards && is_before(w, w->heap[child], w->heap[first]))
                first = child;
        if (first == at)
            return;
        uint32_t shard = w->heap[at];
        w->heap[at] = w->heap[first];
        w->heap[first] = shard;
        at = first;
    }
}

static void hand_out(struct rank_map_work *w)
{
    uint32_t left = w->n_given;
    for (uint32_t s = 0; s < w->n_shards; s++) {
        uint32_t size = rank_map_shard_size(w, s);
        w->shards[s].devices_max = size / w->load_min;
        for (uint32_t n = (size + w->load_max - 1) / w->load_max; n > 0; n--, left--)
            add_device(w, s);
        w->heap[s] = s;
    }
    for (uint32_t at = w->n_shards; at-- > 0;)
        sink(w, at);
    for (; left > 0; left--) {
        add_device(w, w->heap[0]);
        sink(w, 0);
    }
}

/* ---- which devices ------------------------------------------------------------------------- */

static void take(struct rank_map_work *w, uint32_t s, uint32_t slot)
{
    struct rank_map_shard *shard = &w->shards[s];
    w->devices[shard->devices + shard->n_own++] = slot;
    w->slot_of[slot] = s;
}

static void give_up(struct rank_map_work *w, uint32_t slot)
{
    w->slot_of[slot] = ORR_NONE;
    w->slot_old[slot] = 0;
}

/* Their own; n_own is how many they have from here on. */
static void take_owned(struct rank_map_work *w)
{
    for (uint32_t s = 0, at = 0; s < w->n_shards; s++) {
        struct rank_map_shard *shard = &w->shards[s];
        uint32_t n_own = shard->n_own;
        shard->devices = at;
        at += shard->n_devices;
        shard->n_own = 0;
        for (uint32_t i = 0; i < n_own; i++)
            if (i < shard->n_devices)
                take(w, s, w->own[shard->own + i]);
            else
                give_up(w, w->own[shard->own + i]);
    }
}

/* Where more of the shard's ranks are on a node than its devices there can have: free ones of that node. */
static void take_near(struct rank_map_work *w, uint32_t s)
{
    struct rank_map_shard *shard = &w->shards[s];
    if (shard->n_own == shard->n_devices)
        return;
    for (uint32_t i = w->start[s]; i < w->start[s + 1]; i++) {
        uint32_t slot = rank_map_old(w, w->member[i]);
        if (slot != ORR_NONE)
            w->node_n[rank_map_node(w, slot)]++;
    }
    for (uint32_t i = 0; i < shard->n_own; i++) {
        uint32_t *n = &w->node_n[rank_map_node(w, w->devices[shard->devices + i])];
        *n -= *n < w->load_max ? *n : w->load_max;
    }
    for (uint32_t i = w->start[s]; i < w->start[s + 1]; i++) {
        uint32_t old = rank_map_old(w, w->member[i]);
        if (old == ORR_NONE)
            continue;
        uint32_t node = rank_map_node(w, old), slot;
        while (w->node_n[node] && shard->n_own < shard->n_devices &&
               (slot = rank_map_pop(w, node)) != ORR_NONE) {
            take(w, s, slot);
            w->node_n[node] -=
                w->node_n[node] < w->load_max ? w->node_n[node] : w->load_max;
        }
        w->node_n[node] = 0;
    }
}

/* One for each in turn, so that neighbours of a replica are neighbours. */
static void take_rest(struct rank_map_work *w)
{
    uint32_t *wanting = w->heap, n = 0, at = 0;
    for (uint32_t s = 0; s < w->n_shards; s++)
        if (w->shards[s].n_own < w->shards[s].n_devices)
            wanting[n++] = s;
    while (n > 0) {
        uint32_t n_left = 0;
        for (uint32_t i = 0; i < n; i++) {
            while (w->slot_of[w->given[at]] != ORR_NONE)
                at++;
            take(w, wanting[i], w->given[at]);
            if (w->shards[wanting[i]].n_own < w->shards[wanting[i]].n_devices)
                wanting[n_left++] = wanting[i];
        }
        n = n_left;
    }
}

/* ---- which ranks --------------------------------------------------------------------------- */

/* As many more as there is room for: below most, and of ranks that stay on the node, if asked. */
static uint32_t raise(
    struct rank_map_work *w, uint32_t slot, uint32_t most, bool is_node, uint32_t left)
{
    uint32_t node = rank_map_node(w, slot);
    uint32_t n = most > w->slot_load[slot] ? most - w->slot_load[slot] : 0;
    if (is_node) {
        uint32_t room =
            w->node_n[node] > w->node_m[node] ? w->node_n[node] - w->node_m[node] : 0;
        n = n < room ? n : room;
    }
    n = n < left ? n : left;
    w->slot_load[slot] += n;
    w->node_m[node] += n;
    return n;
}

/* Loads of the shard's devices (at the top: in which order). */
static void choose_loads(struct rank_map_work *w, uint32_t s)
{
    const struct rank_map_shard *shard = &w->shards[s];
    const uint32_t *at = w->devices + shard->devices;
    uint32_t left = rank_map_shard_size(w, s) - shard->n_devices * w->load_min;
    for (uint32_t i = 0; i < shard->n_devices; i++) {
        w->slot_load[at[i]] = w->load_min;
        w->node_m[rank_map_node(w, at[i])] += w->load_min;
    }
    for (uint32_t pass = 0; pass < 3; pass++)
        for (uint32_t i = 0; i < shard->n_devices && left > 0; i++) {
            uint32_t most = w->slot_old[at[i]];
            if (pass == 2 || most > w->load_max)
                most = w->load_max;
            left -= raise(w, at[i], most, pass != 1, left);
        }
    for (uint32_t load = w->load_min; left > 0; load++)
        for (uint32_t i = 0; i < shard->n_devices && left > 0; i++)
            if (w->slot_load[at[i]] == load)
                left -= raise(w, at[i], load + 1, false, left);
}

static bool put(struct rank_map_work *w, uint32_t rank, uint32_t slot)
{
    if (w->slot_n[slot] == w->slot_load[slot])
        return false;
    w->slot_n[slot]++;
    w->next[rank] = slot;
    return true;
}

/* First those that stay on their devices, then on their nodes, then the rest, in order. */
static void choose_ranks(struct rank_map_work *w, uint32_t s)
{
    const struct rank_map_shard *shard = &w->shards[s];
    const uint32_t *at = w->devices + shard->devices;
    for (uint32_t i = w->start[s]; i < w->start[s + 1]; i++) {
        uint32_t rank = w->member[i], slot = rank_map_old(w, rank);
        w->next[rank] = ORR_NONE;
        if (slot != ORR_NONE && w->slot_of[slot] == s)
            put(w, rank, slot);
    }
    for (uint32_t i = shard->n_devices; i-- > 0;) {
        uint32_t *list = &w->node_list[rank_map_node(w, at[i])];
        w->slot_link[at[i]] = *list;
        *list = at[i];
    }
    for (uint32_t i = w->start[s]; i < w->start[s + 1]; i++) {
        uint32_t rank = w->member[i], old = rank_map_old(w, rank);
        if (w->next[rank] != ORR_NONE || old == ORR_NONE)
            continue;
        uint32_t *list = &w->node_list[rank_map_node(w, old)];
        while (*list != ORR_NONE && !put(w, rank, *list))
            *list = w->slot_link[*list];
    }
    for (uint32_t i = w->start[s], device = 0; i < w->start[s + 1]; i++)
        while (w->next[w->member[i]] == ORR_NONE && !put(w, w->member[i], at[device]))
            device++;
}

static void settle(struct rank_map_work *w, uint32_t s)
{
    const struct rank_map_shard *shard = &w->shards[s];
    for (uint32_t i = w->start[s]; i < w->start[s + 1]; i++) {
        uint32_t slot = rank_map_old(w, w->member[i]);
        if (slot != ORR_NONE)
            w->node_n[rank_map_node(w, slot)]++;
    }
    choose_loads(w, s);
    choose_ranks(w, s);
    for (uint32_t i = w->start[s]; i < w->start[s + 1]; i++) {
        uint32_t slot = rank_map_old(w, w->member[i]);
        if (slot != ORR_NONE)
            w->node_n[rank_map_node(w, slot)] = 0;
    }
    for (uint32_t i = 0; i < shard->n_devices; i++) {
        uint32_t slot = w->devices[shard->devices + i];
        w->node_m[rank_map_node(w, slot)] = 0;
        w->node_list[rank_map_node(w, slot)] = ORR_NONE;
    }
}

void rank_map_even(struct rank_map_work *w)
{
    memset(w->shards, 0, w->n_shards * sizeof(*w->shards));
    find_owners(w);
    list_owned(w);
    hand_out(w);
    take_owned(w);
    rank_map_list_free(w);
    for (uint32_t s = 0; s < w->n_shards; s++)
        take_near(w, s);
    take_rest(w);
    for (uint32_t i = 0; i < w->n_given; i++)
        w->node_list[rank_map_node(w, w->given[i])] = ORR_NONE;
    for (uint32_t s = 0; s < w->n_shards; s++)
        settle(w, s);
}
