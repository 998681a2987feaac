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
    uint32_t world = 1 + below(below(8) ? 5 : 8), most = world < 6 ? 5 : 4;
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
    uint64_t n, n_node, n_node_worse, node_excess, node_least;
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
    tally->n_node += !is_exact;
    tally->n_node_worse += cost.n_left_node > oracle.n_left_node;
    tally->node_excess += cost.n_left_node - oracle.n_left_node;
    tally->node_least += oracle.n_left_node;
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
    printf("%llu cases; of %llu with shards or order %llu leave nodes more than they "
           "need to: %llu ranks, at best "
           "%llu\n",
           (unsigned long long)tally.n,
           (unsigned long long)tally.n_node,
           (unsigned long long)tally.n_node_worse,
           (unsigned long long)tally.node_excess,
           (unsigned long long)tally.node_least);
    rank_map_fini(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_maps_are_legal_and_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
