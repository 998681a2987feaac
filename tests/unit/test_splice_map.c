/* SPDX-License-Identifier: Apache-2.0
 * test_splice_map.c - whatever the places of the ranks are, an ordered reduction is one tree: with values that show every combination
 * and its sides, not numbers that may come out the same by chance.
 */
#include "map.h"
#include "orr_test.h"

#include <stdlib.h>
#include <string.h>

enum { RANKS_MAX = 64, CASES = 20000 };

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t x = a * UINT64_C(0x9e3779b97f4a7c15) ^ (b + UINT64_C(0x7f4a7c159e3779b9));
    x ^= x >> 29;
    return x * UINT64_C(0xbf58476d1ce4e5b9);
}

/* As a kernel does it: d = 1, 2, 4. */
static uint64_t combine(const uint64_t *values, const struct orri_combine *c)
{
    uint64_t x[ORRI_FAN];
    for (int k = 0; k < c->m; k++)
        x[k] = values[c->in[k]];
    for (int d = 1; d < c->m; d *= 2)
        for (int k = 0; k + d < c->m; k += 2 * d)
            x[k] = mix(x[k], x[k + d]);
    return x[0];
}

static uint64_t run(const struct orri_program *p, uint64_t *values)
{
    for (int i = 0; i < p->n; i++) {
        assert_in_range(p->at[i].m, 2, ORRI_FAN);
        values[p->at[i].in[0]] = combine(values, &p->at[i]);
    }
    return p->n ? values[p->at[p->n - 1].in[0]] : values[0];
}

static uint64_t by_definition(int n)
{
    uint64_t x[RANKS_MAX];
    for (int r = 0; r < n; r++)
        x[r] = mix((uint64_t)r, 1);
    for (int d = 1; d < n; d *= 2)
        for (int r = 0; r + d < n; r += 2 * d)
            x[r] = mix(x[r], x[r + d]);
    return x[0];
}

static uint64_t by_map(const struct orri_map *map)
{
    uint64_t parts[RANKS_MAX], values[RANKS_MAX];
    bool is_seen[RANKS_MAX] = {false};
    for (int p = 0; p < map->nparts; p++) {
        const struct orri_subtree *part = &map->parts[p];
        for (int k = 0; k < part->n; k++) {
            int rank = part->ranks[k];
            assert_false(is_seen[rank]);
            assert_int_equal(map->device_of[rank], part->device);
            is_seen[rank] = true;
            values[k] = mix((uint64_t)rank, 1);
        }
        parts[p] = run(&part->program, values);
    }
    for (int r = 0; r < map->n; r++)
        assert_true(is_seen[r]);
    return run(&map->top, parts);
}

/* Blocks, turns, or anything. */
static void place_ranks(uint64_t *place, int n)
{
    int devices = 1 + rand() % n, how = rand() % 3;
    for (int r = 0; r < n; r++)
        place[r] = 1000 + (uint64_t)(how == 0   ? r * devices / n
                                     : how == 1 ? r % devices
                                                : rand() % devices);
}

static void ordered_is_one_tree_on_any_map(void **state)
{
    uint64_t place[RANKS_MAX];
    (void)state;
    srand(7);
    for (int i = 0; i < CASES; i++) {
        struct orri_map map;
        int n = 1 + rand() % RANKS_MAX;
        place_ranks(place, n);
        assert_true(orri_map_init(&map, n, rand() % n, place, true));
        assert_true(by_map(&map) == by_definition(n));
        orri_map_fini(&map);
    }
}

static void fast_takes_every_rank_once(void **state)
{
    uint64_t place[RANKS_MAX];
    (void)state;
    srand(8);
    for (int i = 0; i < CASES; i++) {
        struct orri_map map;
        int n = 1 + rand() % RANKS_MAX;
        place_ranks(place, n);
        assert_true(orri_map_init(&map, n, 0, place, false));
        assert_int_equal(map.nparts, map.ndevices);
        by_map(&map);
        orri_map_fini(&map);
    }
}

static void aligned_blocks_are_one_part_each(void **state)
{
    uint64_t place[8] = {1, 1, 1, 1, 2, 2, 3, 3};
    struct orri_map map;
    (void)state;
    assert_true(orri_map_init(&map, 8, 5, place, true));
    assert_int_equal(map.nparts, 3);
    assert_int_equal(map.device, 1);
    assert_int_equal(map.leader[2], 6);
    assert_int_equal(map.local_of[5], 1);
    assert_int_equal(map.most, 4);
    orri_map_fini(&map);
}

static size_t claim(uint8_t *used, size_t at, size_t bytes, size_t total)
{
    assert_true(at + bytes <= total);
    for (size_t i = at / 32; i < (at + bytes) / 32; i++)
        assert_int_equal(used[i]++, 0);
    return bytes;
}

static void no_two_things_have_the_same_place_in_the_scratch(void **state)
{
    static uint8_t used[(4 << 20) / 32];
    uint64_t place[RANKS_MAX];
    (void)state;
    srand(9);
    for (int i = 0; i < 200; i++) {
        struct orri_layout l;
        struct orri_map map;
        int n = 1 + rand() % 16;
        place_ranks(place, n);
        assert_true(orri_map_init(&map, n, 0, place, rand() % 2));
        assert_true(orri_layout_init(&l, &map, 4 << 20));
        memset(used, 0, sizeof used);
        for (int h = 0; h < 2; h++) {
            for (int r = 0; r < l.most; r++)
                claim(used, orri_layout_slot(&l, h, r), l.slot, l.bytes);
            claim(used, orri_layout_result(&l, h), l.result, l.bytes);
            claim(used, orri_layout_inbox(&l, h), l.inbox, l.bytes);
        }
        assert_true(orri_flag_vote(&l, l.ndevices) <= l.flags);
        assert_int_equal(orri_flag_vote(&l, 1) - orri_flag_vote(&l, 0), 8);
        used[orri_flag_vote(&l, 0) / 32]++;
        for (int a = 0; a < l.most; a++) {
            claim(used, orri_flag_done(&l, a), 32, l.flags);
            claim(used, orri_flag_broken(&l, a), 32, l.flags);
            assert_int_equal(orri_flag_left(&l, a), orri_flag_broken(&l, a) + 4);
            for (int b = 0; b < l.most; b++) {
                claim(used, orri_flag_ready(&l, a, b), 32, l.flags);
                claim(used, orri_flag_taken(&l, a, b), 32, l.flags);
                claim(used, orri_flag_sent(&l, a, b), 32, l.flags);
                claim(used, orri_flag_got(&l, a, b), 32, l.flags);
                for (int h = 0; h < 2; h++)
                    claim(used, orri_layout_mail(&l, a, b, h), l.mail, l.bytes);
            }
        }
        orri_map_fini(&map);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ordered_is_one_tree_on_any_map),
        cmocka_unit_test(fast_takes_every_rank_once),
        cmocka_unit_test(aligned_blocks_are_one_part_each),
        cmocka_unit_test(no_two_things_have_the_same_place_in_the_scratch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
