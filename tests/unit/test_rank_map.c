/* SPDX-License-Identifier: Apache-2.0
 * test_rank_map.c - the nearest legal map: against all maps in small worlds, and by what must hold in large ones.
 *
 * ORR_REMAP_CASES: random cases (100000); ORR_REMAP_SEED: another series.  A failure prints its case.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orr_test.h"
#include "rank_map_large.h"
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
    assert_int_equal(large_make(l, l->next).n_moved, 0); /* where it is already */
    assert_memory_equal(l->next, l->old, l->world * sizeof(uint32_t));
    for (uint32_t i = 0; i < l->n_slots; i++)
        was_given[i] = l->slots[i].is_given;

    give_some(l, n);
    struct rank_map_cost there = large_make(l, l->next), same = large_make(l, l->other);
    assert_memory_equal(l->next, l->other, l->world * sizeof(uint32_t));
    assert_int_equal(there.n_moved, same.n_moved);
    l->ask.old = l->next; /* some other map for these devices: none of them is nearer */
    for (uint32_t r = 0; r < l->world; r++)
        l->other[r] = below(4) ? l->next[r] : ORR_NO_DEVICE;
    l->ask.old = l->other;
    large_make(l, l->other);
    l->ask.old = l->old;
    assert_true(large_cost_to(l, l->other).n_moved >= there.n_moved);

    for (uint32_t i = 0; i < l->n_slots; i++)
        l->slots[i].is_given = was_given[i];
    l->ask.old =
        l->next; /* the way back is no longer, and not longer than to where it came from */
    struct rank_map_cost back = large_make(l, l->other);
    assert_true(back.n_moved <= there.n_moved);
    assert_int_equal(large_cost_to(l, l->old).n_moved, there.n_moved);

    swap_maps(&l->old, &l->next);
    l->ask.old = l->old;
    large_make(l, l->next);
    renumber(l, number);
    assert_int_equal(large_make(l, l->other).n_moved, back.n_moved);
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
        large_give_first(&l, least + below(world - least + 1));
        large_make(&l, l.old);
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
        large_make(&l, l.next);
        large_fini(&l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_maps_are_legal_and_nearest),
        cmocka_unit_test(large_maps_keep_what_must_hold),
        cmocka_unit_test(from_maps_that_are_not_legal_legal_ones_are_made),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
