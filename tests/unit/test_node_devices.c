/* SPDX-License-Identifier: Apache-2.0
 * test_node_devices.c - which devices ranks see: at their start, and through any moves of them all.
 */
#include "node/node_devices.h"

#include "orr_test.h"

enum { DEVICES = 6, RANKS = 8 };

static struct node *self;
static struct node_group *group;
static struct node_row *rows[RANKS];

static int setup(void **state)
{
    (void)state;
    self = calloc(1, sizeof(*self));
    assert_non_null(self);
    assert_int_equal(orr_pool_init(&self->rows, sizeof(struct node_row), RANKS),
                     ORR_OK);
    assert_int_equal(orr_pool_init(&self->groups, sizeof(struct node_group), 1),
                     ORR_OK);
    self->n_devices = DEVICES;
    for (uint32_t i = 0; i < DEVICES; i++) {
        self->devices[i] = (struct node_device){.index = i, .memory_bytes = 64 << 20};
        snprintf(self->devices[i].uuid,
                 sizeof(self->devices[i].uuid),
                 "GPU-%c",
                 'a' + (int)i);
    }
    group = orr_pool_take(&self->groups);
    group->first_row = ORR_NONE;
    for (uint32_t i = 0; i < RANKS; i++) {
        rows[i] = node_row_add(self, group, i);
        rows[i]->local_rank = i;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    orr_pool_fini(&self->rows);
    orr_pool_fini(&self->groups);
    free(self);
    return 0;
}

/* As at a launch: so many ranks on each of the first n devices. */
static void place(uint32_t n)
{
    for (uint32_t i = 0; i < RANKS; i++)
        rows[i]->device = i * n / RANKS;
    for (uint32_t i = 0; i < RANKS; i++)
        rows[i]->visible = node_group_devices(self, group);
}

static void move_to(uint32_t rank, uint32_t device)
{
    if (rows[rank]->device == device)
        return;
    rows[rank]->old_device = rows[rank]->device;
    rows[rank]->device = device;
}

static void local_rank_finds_the_device_that_it_was_given(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 4; n *= 2) {
        place(n);
        for (uint32_t i = 0; i < RANKS; i++) {
            uint32_t order[NODE_DEVICES_MAX];
            assert_int_equal(node_row_order(self, group, rows[i], order), n);
            assert_int_equal(order[i % n], rows[i]->device);
            uint64_t seen = 0;
            for (uint32_t k = 0; k < n; k++)
                seen |= 1u << order[k];
            assert_int_equal(seen, (1u << n) - 1);
        }
    }
}

static void rank_that_joins_another_swaps_what_it_sees(void **state)
{
    (void)state;
    struct node_pairs pairs;
    place(4);
    for (uint32_t i = 0; i < RANKS; i++)
        move_to(i, i / 4); /* devices 2 and 3 are given back */
    node_row_pairs(self, group, rows[0], &pairs);
    assert_string_equal(pairs.to, "");
    node_row_pairs(self, group, rows[7], &pairs);
    assert_string_equal(pairs.from, "GPU-a,GPU-b,GPU-c,GPU-d");
    assert_string_equal(pairs.to, "GPU-a,GPU-d,GPU-c,GPU-b");
    node_group_moved(self, group);
    assert_int_equal(rows[7]->visible, 15);
    assert_false(node_row_has_moved(rows[7]));
}

static void all_that_move_together_see_where_the_others_are(void **state)
{
    (void)state;
    struct node_pairs pairs;
    place(2);
    for (uint32_t i = 0; i < RANKS; i++)
        move_to(i, i < 4 ? 4 : 5);
    node_row_pairs(self, group, rows[0], &pairs);
    assert_string_equal(pairs.from, "GPU-a,GPU-b");
    assert_string_equal(pairs.to, "GPU-e,GPU-f");
}

static uint32_t index_of(const char *list, uint32_t at)
{
    for (; at > 0; at--)
        list = strchr(list, ',') + 1;
    return (uint32_t)(list[4] - 'a');
}

/* What the driver does to the devices that a process sees. */
static void apply(const struct node_pairs *pairs, uint32_t *view, uint32_t n)
{
    uint32_t n_pairs = 1, done[DEVICES];
    for (const char *p = pairs->from; *p; p++)
        n_pairs += *p == ',';
    if (!pairs->from[0])
        return;
    for (uint32_t v = 0; v < n; v++) {
        done[v] = DEVICES;
        for (uint32_t i = 0; i < n_pairs; i++)
            if (index_of(pairs->from, i) == view[v])
                done[v] = index_of(pairs->to, i);
        assert_true(done[v] < DEVICES); /* it has to be told of each */
    }
    memcpy(view, done, n * sizeof(*view));
}

static void whatever_moves_each_sees_its_own_where_it_always_was(void **state)
{
    (void)state;
    uint32_t view[RANKS][NODE_DEVICES_MAX], n = 4;
    uint64_t x = 7;
    place(n);
    for (uint32_t i = 0; i < RANKS; i++)
        (void)node_row_order(self, group, rows[i], view[i]);
    for (uint32_t round = 0; round < 3000; round++) {
        for (uint32_t i = 0; i < RANKS; i++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            if (x >> 60 & 1)
                move_to(i, (uint32_t)(x >> 33) % DEVICES);
        }
        for (uint32_t i = 0; i < RANKS; i++) {
            struct node_pairs pairs;
            node_row_pairs(self, group, rows[i], &pairs);
            apply(&pairs, view[i], n);
        }
        node_group_moved(self, group);
        for (uint32_t i = 0; i < RANKS; i++) {
            uint64_t seen = 0;
            for (uint32_t k = 0; k < n; k++)
                seen |= UINT64_C(1) << view[i][k];
            assert_int_equal(view[i][i % n], rows[i]->device);
            assert_int_equal(__builtin_popcountll(seen), n); /* no two in one place */
            assert_int_equal(seen, rows[i]->visible);
        }
    }
}

/* Its host has restarted, and knows only where ranks are: what they see is what all had before some of them left the node. */
static void ranks_that_stay_see_what_those_had_that_left(void **state)
{
    (void)state;
    struct node_pairs pairs;
    place(4);
    for (uint32_t i = 0; i < RANKS; i++)
        rows[i]->visible = 0;
    node_group_know_devices(self, group);
    for (uint32_t i = 2; i < RANKS; i++)
        rows[i]->device = ORR_NO_DEVICE;
    move_to(0, 1);
    node_row_pairs(self, group, rows[0], &pairs);
    assert_string_equal(pairs.from, "GPU-a,GPU-b,GPU-c,GPU-d");
    assert_string_equal(pairs.to, "GPU-b,GPU-a,GPU-c,GPU-d");
}

static void map_that_does_not_fit_is_seen_before(void **state)
{
    (void)state;
    char text[160];
    struct orr_rec_rank_place to[RANKS];
    place(4);
    for (uint32_t i = 0; i < RANKS; i++) {
        rows[i]->arena_bytes = 10 << 20;
        rows[i]->used_bytes = 30 << 20; /* of two ranks together */
        to[i] = (struct orr_rec_rank_place){.rank = i, .device = i / 4};
    }
    assert_true(node_group_fits(
        self, group, (struct orr_list_rank_place){to, RANKS}, text, sizeof(text)));
    for (uint32_t i = 0; i < RANKS; i++)
        to[i].device = 3;
    assert_false(node_group_fits(
        self, group, (struct orr_list_rank_place){to, RANKS}, text, sizeof(text)));
    assert_non_null(strstr(text, "device 3"));
    assert_non_null(strstr(text, "120 MiB"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(local_rank_finds_the_device_that_it_was_given),
        T(rank_that_joins_another_swaps_what_it_sees),
        T(all_that_move_together_see_where_the_others_are),
        T(whatever_moves_each_sees_its_own_where_it_always_was),
        T(ranks_that_stay_see_what_those_had_that_left),
        T(map_that_does_not_fit_is_seen_before),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
