/* SPDX-License-Identifier: Apache-2.0
 * test_rank_map.c - the nearest legal map: against all maps in small worlds, by what must hold in large ones, and by hand.
 *
 * ORR_REMAP_CASES: random cases (100000); ORR_REMAP_SEED: another series.  A failure prints its case.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orr_test.h"
#include "rank_map.h"
#include "rank_map_oracle.h"

enum { NODES = 4 };

static uint64_t seed;

static uint64_t draw(void)
{
    uint64_t z = seed += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint32_t below(uint32_t n)
{
    return (uint32_t)(draw() % n);
}

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 0) : otherwise;
}

/* ---- random cases against the oracle ------------------------------------------------------ */

struct small {
    struct rank_shards shards;
    struct rank_map_slot slots[ORACLE_SLOTS_MAX];
    uint32_t old[ORACLE_WORLD_MAX];
    struct rank_map_ask ask;
};

/* Of any sizes, and in any order. */
static void draw_shards(struct rank_shards *shards, uint32_t world)
{
    assert_int_equal(rank_shards_init(shards, world, 0), ORR_OK);
    uint32_t kind = below(4), n = 0, count[ORACLE_WORLD_MAX] = {0};
    if (kind < 2) {
        uint32_t n_shards = 1 + below(kind == 0 ? 1 : world);
        while (world % n_shards != 0)
            n_shards--;
        assert_int_equal(rank_shards_set(shards, n_shards, NULL), ORR_OK);
        return;
    }
    uint32_t n_max = 1 + below(world);
    for (uint32_t r = 0; r < world; r++) {
        uint32_t s = below(n < n_max ? n + 1 : n);
        n += s == n;
        shards->shard_of[r] = s;
        uint32_t at = kind == 2 ? count[s] : below(count[s] + 1);
        for (uint32_t q = 0; q < r; q++)
            if (shards->shard_of[q] == s && shards->replica_of[q] >= at)
                shards->replica_of[q]++;
        shards->replica_of[r] = at;
        count[s]++;
    }
    shards->n_shards = n;
}

static void give(struct small *c, uint32_t n)
{
    for (uint32_t i = 0; i < c->ask.n_slots; i++)
        c->slots[i].is_given = false;
    while (n > 0) {
        uint32_t slot = below(c->ask.n_slots);
        n -= !c->slots[slot].is_given;
        c->slots[slot].is_given = true;
    }
}

static uint32_t draw_count(const struct small *c, uint32_t most)
{
    uint32_t n = c->shards.n_shards + below(c->shards.world - c->shards.n_shards + 1);
    return n < most ? n : most;
}

/* A world, its shards, any legal map of it for some devices, and other devices. */
static bool draw_case(struct small *c)
{
    uint32_t world = 1 + below(below(24) ? 5 : 8), most = world < 6 ? 5 : 4;
    memset(c, 0, sizeof(*c));
    draw_shards(&c->shards, world);
    c->ask = (struct rank_map_ask){
        .shards = &c->shards, .slots = c->slots, .old = c->old, .is_ordered = below(2)};
    if (c->shards.n_shards > most)
        return false;
    uint32_t n_old = draw_count(c, most), n_new = draw_count(c, most);
    uint32_t least = n_old > n_new ? n_old : n_new, n_nodes = 1 + below(NODES);
    c->ask.n_slots = least + below(n_old + n_new - least + 1);
    for (uint32_t i = 0; i < c->ask.n_slots; i++)
        c->slots[i].node = below(n_nodes);
    for (uint32_t r = 0; r < world; r++)
        c->old[r] = ORR_NO_DEVICE;
    if (below(16)) {
        struct oracle oracle = {.ask = &c->ask, .draw = draw};
        give(c, n_old);
        oracle_run(&oracle);
        assert_true(oracle.n_legal > 0);
        memcpy(c->old, oracle.drawn, sizeof(c->old));
        uint32_t lost = below(4) ? 0 : below(world);
        while (lost-- > 0)
            c->old[below(world)] = ORR_NO_DEVICE;
    }
    give(c, n_new);
    return true;
}

static void print_case(const struct small *c, const uint32_t *map)
{
    printf("world %u, %s\n", c->shards.world, c->ask.is_ordered ? "ordered" : "any");
    for (uint32_t i = 0; i < c->ask.n_slots; i++)
        printf("device %u on node %u%s\n",
               i,
               c->slots[i].node,
               c->slots[i].is_given ? ", given" : "");
    for (uint32_t r = 0; r < c->shards.world; r++)
        printf("rank %u: shard %u replica %u, from %d to %u\n",
               r,
               c->shards.shard_of[r],
               c->shards.replica_of[r],
               (int)c->old[r],
               map[r]);
}

struct tally {
    uint64_t n, n_greedy, n_worse;
};

static bool judge_case(struct rank_map *map, const struct small *c, struct tally *tally)
{
    struct oracle oracle = {.ask = &c->ask};
    struct rank_map_cost cost, again;
    struct orr_error err;
    uint32_t to[ORACLE_WORLD_MAX] = {0};
    uint8_t load[ORACLE_SLOTS_MAX];
    oracle_run(&oracle);
    bool is_good = oracle.n_legal > 0 && oracle.is_fairest &&
                   rank_map_make(map, &c->ask, to, &cost, &err) == ORR_OK &&
                   oracle_keeps_rules(&c->ask, to, load) &&
                   load[0] == oracle.load_max && cost.load_max == oracle.load_max &&
                   cost.load_min == oracle.load_min && cost.n_moved == oracle.n_moved &&
                   rank_map_check(map, &c->ask, to, &again, &err) == ORR_OK &&
                   memcmp(&cost, &again, sizeof(cost)) == 0;
    bool is_exact = c->shards.n_shards == 1 && !c->ask.is_ordered;
    is_good = is_good && (is_exact ? cost.n_left_node == oracle.n_left_node
                                   : cost.n_left_node >= oracle.n_left_node);
    if (!is_good) {
        print_case(c, to);
        printf("moved %u left %u; best %u, %u; loads %u..%u; best %u..%u, fairest %d\n",
               cost.n_moved,
               cost.n_left_node,
               oracle.n_moved,
               oracle.n_left_node,
               cost.load_min,
               cost.load_max,
               oracle.load_min,
               oracle.load_max,
               oracle.is_fairest);
        return false;
    }
    tally->n++;
    tally->n_greedy += !is_exact;
    tally->n_worse += cost.n_left_node > oracle.n_left_node;
    return true;
}

static void random_maps_are_legal_and_nearest(void **state)
{
    (void)state;
    struct rank_map map;
    struct tally tally = {0};
    uint64_t n = number_of("ORR_REMAP_CASES", 100000);
    seed = number_of("ORR_REMAP_SEED", 1);
    assert_int_equal(rank_map_init(&map, ORACLE_WORLD_MAX, ORACLE_SLOTS_MAX, NODES),
                     ORR_OK);
    while (tally.n < n) {
        struct small c;
        uint64_t from = seed;
        bool is_good = !draw_case(&c) || judge_case(&map, &c, &tally);
        rank_shards_fini(&c.shards);
        if (!is_good)
            fail_msg("seed %llu", (unsigned long long)from);
    }
    rank_map_fini(&map);
    printf("%llu maps; of %llu with shards or order %llu are not the best for nodes\n",
           (unsigned long long)tally.n,
           (unsigned long long)tally.n_greedy,
           (unsigned long long)tally.n_worse);
    assert_true(tally.n_worse * 250 <= tally.n_greedy + 2500);
}

/* ---- large worlds: what must hold whatever the answer is ------------------------------------ */

struct large {
    uint32_t world, n_slots;
    struct rank_shards shards;
    struct rank_map map;
    struct rank_map_slot *slots;
    struct rank_map_ask ask;
    uint32_t *old, *next, *other; /* [world] */
};

static void
large_init(struct large *l, uint32_t world, uint32_t shards, bool is_ordered)
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

static void large_fini(struct large *l)
{
    rank_map_fini(&l->map);
    rank_shards_fini(&l->shards);
    free(l->slots);
    free(l->old);
    free(l->next);
    free(l->other);
}

static void give_first(struct large *l, uint32_t n)
{
    for (uint32_t i = 0; i < l->n_slots; i++)
        l->slots[i].is_given = i < n;
}

/* n of them, most of those that there were. */
static void give_some(struct large *l, uint32_t n)
{
    uint32_t n_given = 0;
    for (uint32_t i = 0; i < l->n_slots; i++) {
        bool is_kept = l->slots[i].is_given && below(8) > 0;
        l->slots[i].is_given = is_kept && n_given < n;
        n_given += l->slots[i].is_given;
    }
    for (uint32_t i = below(l->n_slots); n_given < n; i = (i + 1) % l->n_slots) {
        n_given += !l->slots[i].is_given;
        l->slots[i].is_given = true;
    }
}

static struct rank_map_cost make(struct large *l, uint32_t *map)
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

/* What it costs to go to this map instead. */
static struct rank_map_cost cost_to(struct large *l, const uint32_t *map)
{
    struct rank_map_cost cost;
    struct orr_error err = {.text = ""};
    if (rank_map_check(&l->map, &l->ask, map, &cost, &err) != ORR_OK)
        fail_msg("%s", err.text);
    return cost;
}

static void swap_maps(uint32_t **a, uint32_t **b)
{
    uint32_t *c = *a;
    *a = *b;
    *b = c;
}

/* The same devices by other numbers: `old` and slots. */
static void renumber(struct large *l, uint32_t *number)
{
    for (uint32_t i = 0; i < l->n_slots; i++)
        number[i] = i;
    for (uint32_t i = l->n_slots; i-- > 1;) {
        uint32_t j = below(i + 1), n = number[i];
        struct rank_map_slot slot = l->slots[i];
        number[i] = number[j];
        number[j] = n;
        l->slots[i] = l->slots[j];
        l->slots[j] = slot;
    }
    uint32_t *at = malloc(l->n_slots * sizeof(*at));
    assert_non_null(at);
    for (uint32_t i = 0; i < l->n_slots; i++)
        at[number[i]] = i;
    for (uint32_t r = 0; r < l->world; r++)
        l->old[r] = at[l->old[r]];
    free(at);
}

/* From a legal map in `old` for the given devices to n others, back, and on. */
static void walk(struct large *l, uint32_t n)
{
    bool *was_given = malloc(l->n_slots);
    uint32_t *number = malloc(l->n_slots * sizeof(*number));
    assert_true(was_given && number);
    assert_int_equal(make(l, l->next).n_moved, 0); /* where it is already */
    assert_memory_equal(l->next, l->old, l->world * sizeof(uint32_t));
    for (uint32_t i = 0; i < l->n_slots; i++)
        was_given[i] = l->slots[i].is_given;

    give_some(l, n);
    struct rank_map_cost there = make(l, l->next), same = make(l, l->other);
    assert_memory_equal(l->next, l->other, l->world * sizeof(uint32_t));
    assert_int_equal(there.n_moved, same.n_moved);
    l->ask.old = l->next; /* some other map for these devices: none of them is nearer */
    for (uint32_t r = 0; r < l->world; r++)
        l->other[r] = below(4) ? l->next[r] : ORR_NO_DEVICE;
    l->ask.old = l->other;
    make(l, l->other);
    l->ask.old = l->old;
    assert_true(cost_to(l, l->other).n_moved >= there.n_moved);

    for (uint32_t i = 0; i < l->n_slots; i++)
        l->slots[i].is_given = was_given[i];
    l->ask.old =
        l->next; /* the way back is no longer, and not longer than to where it came from */
    struct rank_map_cost back = make(l, l->other);
    assert_true(back.n_moved <= there.n_moved);
    assert_int_equal(cost_to(l, l->old).n_moved, there.n_moved);

    swap_maps(&l->old, &l->next);
    l->ask.old = l->old;
    make(l, l->next);
    renumber(l, number);
    assert_int_equal(make(l, l->other).n_moved, back.n_moved);
    swap_maps(&l->old, &l->other);
    l->ask.old = l->old;
    free(was_given);
    free(number);
}

static void large_maps_keep_what_must_hold(void **state)
{
    (void)state;
    static const struct {
        uint32_t world, shards, n_walks;
    } worlds[] = {{16, 1, 100},
                  {24, 2, 100},
                  {63, 3, 20},
                  {128, 8, 10},
                  {1000, 1, 10},
                  {4096, 16, 2},
                  {65536, 1, 1},
                  {65536, 8, 1}};
    seed = number_of("ORR_REMAP_SEED", 1);
    for (uint32_t i = 0; i < 2 * ORR_ARRAY_SIZE(worlds); i++) {
        struct large l;
        uint32_t world = worlds[i / 2].world, least = worlds[i / 2].shards;
        large_init(&l, world, least, i % 2);
        give_first(&l, least + below(world - least + 1));
        make(&l, l.old);
        for (uint32_t n = worlds[i / 2].n_walks; n > 0; n--)
            walk(&l, least + below(world - least + 1));
        large_fini(&l);
    }
}

/* A random map of a random world: never the nearest, maybe, but legal. */
static void from_maps_that_are_not_legal_legal_ones_are_made(void **state)
{
    (void)state;
    seed = number_of("ORR_REMAP_SEED", 1);
    for (uint32_t n = 0; n < 400; n++) {
        struct large l;
        uint32_t shards = 1 + below(6), world = shards * (1 + below(20));
        large_init(&l, world, shards, n % 2);
        for (uint32_t r = 0; r < world; r++)
            l.old[r] = below(5) ? below(l.n_slots) : ORR_NO_DEVICE;
        give_some(&l, shards + below(world - shards + 1));
        make(&l, l.next);
        large_fini(&l);
    }
}

/* ---- by hand ------------------------------------------------------------------------------- */

static void assert_map(const struct large *l, const uint32_t *want)
{
    for (uint32_t r = 0; r < l->world; r++)
        if (l->next[r] != want[r])
            fail_msg("rank %u is on %u, not %u", r, l->next[r], want[r]);
}

static void first_map_is_in_order(void **state)
{
    (void)state;
    static const uint32_t shards[] = {1, 2, 4, 8};
    for (uint32_t i = 0; i < 2 * ORR_ARRAY_SIZE(shards); i++) {
        struct large l;
        large_init(&l, 32, shards[i / 2], i % 2);
        for (uint32_t n = 32; n >= shards[i / 2]; n /= 2) {
            give_first(&l, n);
            make(&l, l.next);
            uint32_t want[32], here = 32 / n; /* ranks of a device */
            for (uint32_t r = 0; r < 32; r++)
                want[r] =
                    l.shards.replica_of[r] / here * shards[i / 2] + r % shards[i / 2];
            assert_map(&l, want);
        }
        large_fini(&l);
    }
}

static void eight_in_order_on_three_are_four_two_and_two(void **state)
{
    (void)state;
    struct large l;
    large_init(&l, 8, 1, true);
    give_first(&l, 8);
    make(&l, l.old);
    give_first(&l, 3);
    struct rank_map_cost cost = make(&l, l.next);
    assert_int_equal(cost.load_max, 4);
    assert_int_equal(cost.load_min, 2);
    assert_int_equal(cost.n_moved,
                     6); /* 0 and 1 or 2 stay; 2 and 1 have to make room */
    l.ask.is_ordered = false;
    cost = make(&l, l.next);
    assert_int_equal(cost.load_max, 3);
    assert_int_equal(cost.n_moved, 5);
    large_fini(&l);
}

/* [8,15) is two blocks, of 4 and 3: to halve the first costs less than to halve both of [0,8). */
static void block_that_costs_least_is_halved(void **state)
{
    (void)state;
    struct large l;
    large_init(&l, 15, 1, true);
    give_first(&l, 2);
    make(&l, l.old);
    assert_int_equal(l.old[7], 0);
    assert_int_equal(l.old[8], 1);
    give_first(&l, 6);
    assert_int_equal(make(&l, l.next).n_moved, 15 - 4 - 3);
    large_fini(&l);
}

/* Of [0,8) only [4,8) has ranks that count: it is halved last. */
static void block_of_lost_ranks_is_halved_first(void **state)
{
    (void)state;
    struct large l;
    large_init(&l, 16, 1, true);
    give_first(&l, 2);
    make(&l, l.old);
    for (uint32_t r = 1; r < 4; r++)
        l.old[r] = ORR_NO_DEVICE;
    give_first(&l, 6);
    assert_int_equal(make(&l, l.next).n_moved, 13 - 4 - 4);
    large_fini(&l);
}

static void loads_are_even_also_beside_a_rank_that_is_alone(void **state)
{
    (void)state;
    struct large l;
    large_init(&l, 11, 1, false);
    l.shards.n_shards = 2;
    l.shards.shard_of[10] = 1;
    l.shards.replica_of[10] = 0;
    give_first(&l, 5);
    make(&l, l.next);
    uint32_t load[5] = {0}, n[4] = {0};
    for (uint32_t r = 0; r < 11; r++)
        load[l.next[r]]++;
    for (uint32_t i = 0; i < 5; i++)
        n[load[i]]++;
    assert_int_equal(n[3], 2);
    assert_int_equal(n[2], 2);
    assert_int_equal(n[1], 1);
    large_fini(&l);
}

static void three_in_order_fit_on_one(void **state)
{
    (void)state;
    struct large l;
    large_init(&l, 3, 1, true);
    give_first(&l, 1);
    assert_int_equal(make(&l, l.next).load_max, 3);
    give_first(&l, 2);
    make(&l, l.next);
    assert_map(&l, (const uint32_t[]){0, 0, 1});
    large_fini(&l);
}

/* Two nodes of four devices; 3 devices remain: the node with two of them halves its block. */
static void nobody_leaves_its_node_without_need(void **state)
{
    (void)state;
    for (uint32_t first = 0; first < 2; first++) {
        struct large l;
        large_init(&l, 8, 1, true);
        for (uint32_t i = 0; i < l.n_slots; i++)
            l.slots[i].node = i / 4 % 2;
        give_first(&l, 8);
        make(&l, l.old);
        give_first(&l, 0);
        l.slots[4 * first].is_given = l.slots[4 * first + 1].is_given = true;
        l.slots[4 - 4 * first].is_given = true;
        assert_int_equal(make(&l, l.next).n_left_node, 0);
        large_fini(&l);
    }
}

/* To the other half of the devices of each node, with too many of them for rank_map_nodes. */
static void many_stay_on_their_nodes(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        struct large l;
        uint32_t n_shards = i < 2 ? 1 : 2;
        large_init(&l, 1024, n_shards, i % 2);
        for (uint32_t r = 0; r < 1024; r++)
            l.old[r] = 1022 - 2 * (l.shards.replica_of[r] / 2 + r % n_shards * 256);
        for (uint32_t slot = 1; slot < 1024; slot += 2)
            l.slots[slot].is_given = true;
        struct rank_map_cost cost = make(&l, l.next);
        assert_int_equal(cost.n_moved, 1024);
        assert_int_equal(cost.n_left_node, 0);
        large_fini(&l);
    }
}

/* Nodes of eight devices, replicas of eight shards: each new node gets whole replicas. */
static void replicas_stay_together_on_new_nodes(void **state)
{
    (void)state;
    for (uint32_t is_ordered = 0; is_ordered < 2; is_ordered++) {
        struct large l;
        large_init(&l, 32, 8, is_ordered);
        give_first(&l, 16);
        make(&l, l.old);
        give_first(&l, 32);
        struct rank_map_cost cost = make(&l, l.next);
        assert_int_equal(cost.n_moved, 16);
        assert_int_equal(cost.n_left_node, 16);
        for (uint32_t r = 0; r < 32; r++)
            assert_int_equal(l.next[r] % 8, r % 8);
        for (uint32_t r = 1; r < 32; r++)
            if (r % 8 != 0)
                assert_int_equal(l.next[r] / 8, l.next[r - 1] / 8);
        large_fini(&l);
    }
}

/* ---- what is refused ----------------------------------------------------------------------- */

static void assert_refused(struct large *l, const char *why)
{
    struct orr_error err = {.text = ""};
    struct rank_map_cost cost = {.n_moved = 77};
    for (uint32_t r = 0; r < l->world; r++)
        l->next[r] = 4711;
    assert_int_equal(rank_map_make(&l->map, &l->ask, l->next, &cost, &err), ORR_EINVAL);
    if (!strstr(err.text, why))
        fail_msg("\"%s\" does not say \"%s\"", err.text, why);
    assert_int_equal(cost.n_moved, 77);
    for (uint32_t r = 0; r < l->world; r++)
        assert_int_equal(l->next[r], 4711);
}

static void what_cannot_be_is_refused_in_words(void **state)
{
    (void)state;
    struct large l;
    large_init(&l, 8, 4, true);
    give_first(&l, 3);
    assert_refused(&l, "4 shards do not fit on 3 devices");
    assert_refused(&l, "ask for 4 devices at least");
    give_first(&l, 0);
    assert_refused(&l, "4 shards do not fit on 0 devices");
    give_first(&l, 9);
    assert_refused(&l, "9 devices for 8 ranks");
    give_first(&l, 4);
    l.old[3] = 12;
    assert_refused(&l, "rank 3 is on device 12 of 12");
    l.old[3] = ORR_NO_DEVICE;
    l.slots[5].node = 99;
    assert_refused(&l, "device 5 is on node 99");
    l.slots[5].node = 0;
    l.ask.n_slots = 13;
    assert_refused(&l, "13 devices");
    large_fini(&l);
    struct rank_map map;
    assert_int_equal(rank_map_init(&map, ORR_WORLD_MAX + 1, 1, 1), ORR_EINVAL);
    assert_int_equal(rank_map_init(&map, 1, 2 * ORR_WORLD_MAX + 1, 1), ORR_EINVAL);
    assert_int_equal(rank_map_init(&map, 1, 1, 0), ORR_EINVAL);
}

static void maps_that_are_not_legal_are_named(void **state)
{
    (void)state;
    static const struct {
        bool is_ordered;
        uint32_t map[8];
        const char *why;
    } cases[] = {
        {false, {0, 1, 0, 1, 2, 3, 2, 9}, "rank 7 is on device 9, which is not given"},
        {false, {0, 1, 0, 1, 2, 3, 2, 0}, "device 0 has ranks of shards 0 and 1"},
        {false, {0, 1, 0, 1, 0, 3, 0, 3}, "device 2 is given and has no rank"},
        {false, {0, 1, 0, 1, 0, 3, 2, 3}, "device 0 has 3 ranks; 2 to 2 are possible"},
        {true,
         {0, 1, 2, 1, 0, 3, 2, 3},
         "device 0 has rank 0, but not all of an aligned"},
        {true,
         {0, 1, 2, 1, 2, 3, 0, 3},
         "device 0 has rank 0, but not all of an aligned"},
        {true,
         {0, 1, 0, 1, 0, 3, 2, 3},
         "device 0 has rank 0, but not all of an aligned"},
    };
    struct large l;
    large_init(&l, 8, 2, false);
    give_first(&l, 4);
    for (uint32_t i = 0; i < ORR_ARRAY_SIZE(cases); i++) {
        struct orr_error err = {.text = ""};
        l.ask.is_ordered = cases[i].is_ordered;
        assert_int_equal(rank_map_check(&l.map, &l.ask, cases[i].map, NULL, &err),
                         ORR_EINVAL);
        if (!strstr(err.text, cases[i].why))
            fail_msg("\"%s\" does not say \"%s\"", err.text, cases[i].why);
    }
    large_fini(&l);
    large_init(&l, 9, 1, false);
    give_first(&l, 4);
    const uint32_t lean[9] = {0, 0, 0, 1, 1, 1, 2, 2, 3};
    assert_int_equal(rank_map_check(&l.map, &l.ask, lean, NULL, NULL), ORR_EINVAL);
    large_fini(&l);
    large_init(&l, 4, 1, true);
    give_first(&l, 3);
    const uint32_t shifted[4] = {0, 1, 1, 2};
    assert_int_equal(rank_map_check(&l.map, &l.ask, shifted, NULL, NULL), ORR_EINVAL);
    large_fini(&l);
    large_init(&l, 8, 1, true);
    give_first(&l, 4);
    struct orr_error err = {.text = ""};
    const uint32_t uneven[8] = {0, 0, 0, 0, 1, 1, 2, 3};
    assert_int_equal(rank_map_check(&l.map, &l.ask, uneven, NULL, &err), ORR_EINVAL);
    assert_non_null(strstr(err.text, "device 0 has 4 ranks; loads can be more even"));
    large_fini(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_maps_are_legal_and_nearest),
        cmocka_unit_test(large_maps_keep_what_must_hold),
        cmocka_unit_test(from_maps_that_are_not_legal_legal_ones_are_made),
        cmocka_unit_test(first_map_is_in_order),
        cmocka_unit_test(eight_in_order_on_three_are_four_two_and_two),
        cmocka_unit_test(block_that_costs_least_is_halved),
        cmocka_unit_test(block_of_lost_ranks_is_halved_first),
        cmocka_unit_test(loads_are_even_also_beside_a_rank_that_is_alone),
        cmocka_unit_test(three_in_order_fit_on_one),
        cmocka_unit_test(nobody_leaves_its_node_without_need),
        cmocka_unit_test(many_stay_on_their_nodes),
        cmocka_unit_test(replicas_stay_together_on_new_nodes),
        cmocka_unit_test(what_cannot_be_is_refused_in_words),
        cmocka_unit_test(maps_that_are_not_legal_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
