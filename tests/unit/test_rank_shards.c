/* SPDX-License-Identifier: Apache-2.0
 * test_rank_shards.c - which ranks are replicas, from the communicators that programs make.
 */
#include <stdio.h>
#include <string.h>

#include "orr_test.h"
#include "rank_shards.h"

enum { CLOCKS = 1 << 16 };

static struct job_barrier clocks;
static struct rank_shards shards;
static char text[400];
static uint64_t next_key;

static int setup(void **state)
{
    (void)state;
    next_key = 0x100;
    return job_barrier_init(&clocks, 1, CLOCKS) != ORR_OK;
}

static int teardown(void **state)
{
    (void)state;
    job_barrier_fini(&clocks);
    rank_shards_fini(&shards);
    return 0;
}

static void hear(struct orr_rec_clock clock)
{
    struct orr_error err;
    assert_int_equal(
        job_barrier_note(&clocks, 0, (struct orr_list_clock){&clock, 1}, &err), ORR_OK);
}

/* A communicator of n ranks from first, so far apart. */
static uint64_t add_new(uint32_t first, uint32_t stride, uint32_t n)
{
    uint64_t key = next_key++;
    for (uint32_t i = 0; i < n; i++)
        hear((struct orr_rec_clock){.rank = first + i * stride,
                                    .comm = key,
                                    .me = i,
                                    .n = n,
                                    .issued = 1,
                                    .op = ORR_CLOCK_OP_CREATE});
    return key;
}

/* One that is used. */
static uint64_t add(uint32_t first, uint32_t stride, uint32_t n)
{
    uint64_t key = add_new(first, stride, n);
    for (uint32_t i = 0; i < n; i++)
        hear((struct orr_rec_clock){.rank = first + i * stride,
                                    .comm = key,
                                    .me = i,
                                    .n = n,
                                    .issued = 2,
                                    .op = ORR_CLOCK_OP_ALL_REDUCE});
    return key;
}

/* Groups of n ranks so far apart, of all the world. */
static void add_all(uint32_t world, uint32_t stride, uint32_t n)
{
    for (uint32_t r = 0; r < world; r++)
        if (r / stride % n == 0)
            add(r, stride, n);
}

/* In communicator key of n ranks from first. */
static void
send(uint64_t key, uint32_t first, uint32_t stride, uint32_t n, uint32_t a, uint32_t b)
{
    hear((struct orr_rec_clock){.rank = first + a * stride,
                                .comm = key,
                                .kind = ORR_CLOCK_SEND,
                                .me = a,
                                .peer = b,
                                .n = n,
                                .issued = 3,
                                .op = ORR_CLOCK_OP_SEND});
}

static bool infer(uint32_t world)
{
    rank_shards_fini(&shards);
    assert_int_equal(rank_shards_init(&shards, world, CLOCKS), ORR_OK);
    bool is_found = rank_shards_infer(&shards, &clocks, text, sizeof(text));
    assert_true(is_found == (shards.n_shards < world));
    assert_true(text[0] != '\0');
    return is_found;
}

static void assert_none(uint32_t world, const char *why)
{
    assert_false(infer(world));
    if (!strstr(text, why))
        fail_msg("\"%s\" does not say \"%s\"", text, why);
    for (uint32_t r = 0; r < world; r++) {
        assert_int_equal(shards.shard_of[r], r);
        assert_int_equal(shards.replica_of[r], 0);
    }
}

/* As rank r % n_shards, r / n_shards. */
static void assert_shards(uint32_t world, uint32_t n_shards)
{
    assert_true(infer(world));
    assert_int_equal(shards.n_shards, n_shards);
    for (uint32_t r = 0; r < world; r++) {
        assert_int_equal(shards.shard_of[r], r % n_shards);
        assert_int_equal(shards.replica_of[r], r / n_shards);
    }
}

static void spec_says_who_is_a_replica(void **state)
{
    (void)state;
    struct orr_error err;
    assert_int_equal(rank_shards_init(&shards, 6, 0), ORR_OK);
    assert_int_equal(shards.n_shards, 6);
    assert_int_equal(rank_shards_set(&shards, 2, &err), ORR_OK);
    assert_int_equal(shards.n_shards, 2);
    assert_int_equal(shards.shard_of[5], 1);
    assert_int_equal(shards.replica_of[5], 2);
    assert_int_equal(rank_shards_set(&shards, 4, &err), ORR_EINVAL);
    assert_non_null(strstr(err.text, "shards: 4 does not divide the world of 6"));
    assert_int_equal(shards.n_shards, 2);
    rank_shards_reset(&shards);
    assert_int_equal(shards.n_shards, 6);
}

static void groups_are_told_by_two_numbers(void **state)
{
    (void)state;
    add(0, 1, 8);
    add_all(8, 2, 2); /* {0,2},{1,3},{4,6},{5,7} */
    assert_true(infer(8));
    assert_int_equal(shards.n_shards, 4);
    assert_int_equal(shards.stride, 2);
    struct rank_shards again;
    assert_int_equal(rank_shards_init(&again, 8, 0), ORR_OK);
    assert_int_equal(rank_shards_family(&again, shards.stride, 2), ORR_OK);
    for (uint32_t r = 0; r < 8; r++) {
        assert_int_equal(again.shard_of[r], shards.shard_of[r]);
        assert_int_equal(again.replica_of[r], shards.replica_of[r]);
    }
    assert_int_equal(rank_shards_family(&again, 3, 2), ORR_EINVAL);
    assert_int_equal(rank_shards_family(&again, 0, 2), ORR_EINVAL);
    rank_shards_fini(&again);
}

static void sizes_beyond_the_limits_are_refused(void **state)
{
    (void)state;
    assert_int_equal(rank_shards_init(&shards, 0, 0), ORR_EINVAL);
    assert_int_equal(rank_shards_init(&shards, ORR_WORLD_MAX + 1, 0), ORR_EINVAL);
}

/* examples/digits. */
static void one_communicator_of_all_makes_all_replicas(void **state)
{
    (void)state;
    add(0, 1, 4);
    assert_shards(4, 1);
    assert_non_null(strstr(text, "all 4 ranks are replicas"));
    add(0, 1, 4); /* another one */
    assert_shards(4, 1);
    job_barrier_reset(&clocks); /* what was known is not known any more */
    assert_false(rank_shards_infer(&shards, &clocks, text, sizeof(text)));
    assert_int_equal(shards.n_shards, 4);
}

/* examples/mlp: world, neighbours share a net. */
static void tensor_parallel_neighbours_are_no_replicas(void **state)
{
    (void)state;
    add(0, 1, 4);
    add_all(4, 1, 2);
    uint64_t key = next_key;
    add_all(4, 2, 2);
    assert_shards(4, 2);
    char want[100];
    snprintf(want,
             sizeof(want),
             "data-parallel groups {0,2},{1,3} seen in communicator %016llx of size 2 "
             "and 1 more",
             (unsigned long long)key);
    assert_string_equal(text, want);
}

static void tensor_parallel_neighbours_of_eight_are_no_replicas(void **state)
{
    (void)state;
    add(0, 1, 8);
    add_all(8, 1, 2);
    add_all(8, 2, 4);
    assert_shards(8, 2);
}

/* examples/pipeline: neighbours send to each other. */
static void stages_of_a_pipeline_are_no_replicas(void **state)
{
    (void)state;
    add(0, 1, 8);
    uint64_t key = add(0, 1, 4);
    add(4, 1, 4);
    send(key, 0, 1, 4, 0, 1);
    add_all(8, 4, 2);
    assert_shards(8, 4);
    assert_non_null(
        strstr(text, "data-parallel groups {0,4},{1,5},{2,6},{3,7} seen in"));
}

/* Megatron-LM's order: tensor innermost, then data, pipeline outermost. */
static void pipeline_outside_of_data_is_told_by_its_sends(void **state)
{
    (void)state;
    add(0, 1, 8);
    add_all(8, 1, 2);
    add_all(8, 2, 2);
    uint64_t key = next_key;
    add_all(8, 4, 2);
    send(key, 0, 4, 2, 1, 0);
    assert_true(infer(8));
    assert_int_equal(shards.n_shards, 4);
    const uint32_t shard[] = {0, 1, 0, 1, 2, 3, 2, 3},
                   replica[] = {0, 0, 1, 1, 0, 0, 1, 1};
    assert_memory_equal(shards.shard_of, shard, sizeof(shard));
    assert_memory_equal(shards.replica_of, replica, sizeof(replica));
}

/* Before the first step nothing tells a stage from a replica. */
static void groups_without_collectives_are_no_replicas(void **state)
{
    (void)state;
    add(0, 1, 8);
    add_all(8, 1, 2);
    add_all(8, 2, 2);
    for (uint32_t r = 0; r < 4; r++)
        add_new(r, 4, 2);
    assert_true(infer(8));
    assert_int_equal(shards.n_shards, 4);
    assert_int_equal(shards.shard_of[2], 0);
    job_barrier_reset(&clocks);
    add_new(0, 1, 4);
    assert_none(4, "as far as they are used");
}

static void tensor_parallel_stages_have_no_replicas(void **state)
{
    (void)state;
    add(0, 1, 4);
    add_all(4, 1, 2);
    uint64_t key = next_key;
    add_all(4, 2, 2);
    send(key, 0, 2, 2, 0, 1);
    assert_none(4, "ranks 0 and 2 send to each other in communicator");
}

static void ranks_that_send_in_the_world_are_no_replicas(void **state)
{
    (void)state;
    uint64_t key = add(0, 1, 4);
    send(key, 0, 1, 4, 3, 1);
    assert_none(4, "ranks 1 and 3 send to each other");
}

/* Sums within machines first: the same communicators as of tensor-parallel ranks. */
static void groups_of_neighbours_are_no_replicas(void **state)
{
    (void)state;
    add(0, 1, 8);
    add_all(8, 1, 4);
    assert_none(8, "has rank 0 and some, not all");
    add_all(8, 4, 2);
    assert_shards(8, 4);
}

static void group_that_is_divided_is_none(void **state)
{
    (void)state;
    add_all(8, 2, 4);
    add(0, 1, 2);
    assert_shards(8, 2);
    add(2, 2, 2); /* 2 and 4: what have they got to do with each other? */
    assert_none(8, "has rank 2 and some, not all");
}

/* It is as even as a family's, and in none. */
static void group_between_two_is_none(void **state)
{
    (void)state;
    add(2, 2, 2);
    add_all(8, 2, 2);
    assert_true(infer(8));
    assert_int_equal(shards.n_shards, 4);
    assert_int_equal(shards.shard_of[0], shards.shard_of[2]);
    assert_int_equal(shards.replica_of[2], 1);
    assert_int_equal(shards.shard_of[4], shards.shard_of[6]);
}

static void finer_of_two_families_counts(void **state)
{
    (void)state;
    add_all(16, 2, 8);
    add_all(16, 8, 2);
    assert_shards(16, 8);
}

static void family_with_a_gap_is_none(void **state)
{
    (void)state;
    for (uint32_t r = 0; r < 3; r++)
        add(r, 4, 2);
    assert_none(8, "do not divide all 8");
    assert_none(7, "do not divide all 7");
}

static void nothing_is_known_of_no_communicators(void **state)
{
    (void)state;
    assert_none(4, "no communicator");
    for (uint32_t r = 0; r < 4; r++) /* orr_rank_point's */
        hear((struct orr_rec_clock){.rank = r, .me = r, .n = 4, .issued = 1});
    assert_none(4, "no communicator");
    hear((struct orr_rec_clock){.rank = 1, .comm = 7, .n = 1, .issued = 1});
    assert_none(4, "no communicator");
}

static void member_that_has_not_told_of_it_is_a_doubt(void **state)
{
    (void)state;
    add(0, 1, 4);
    hear((struct orr_rec_clock){.rank = 1, .comm = 7, .n = 2, .issued = 1});
    assert_none(4, "has 2 ranks, and 1 have told of it");
}

static void rank_with_two_members_is_a_doubt(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 4; i++)
        hear((struct orr_rec_clock){
            .rank = i / 2, .comm = 7, .me = i, .n = 4, .issued = 1});
    assert_none(4, "a rank is in communicator");
}

static void order_of_replicas_is_that_of_their_communicator(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 4; i++)
        hear((struct orr_rec_clock){
            .rank = 3 - i, .comm = 7, .me = i, .n = 4, .issued = 2});
    assert_true(infer(4));
    assert_int_equal(shards.replica_of[0], 3);
    assert_int_equal(shards.replica_of[3], 0);
    add(0, 1, 4); /* one in the order of ranks is preferred */
    assert_shards(4, 1);
}

static void text_is_cut_and_not_overrun(void **state)
{
    (void)state;
    add_all(64, 8, 8);
    assert_shards(64, 8);
    assert_non_null(strstr(text, "{0,8,16,24,..},"));
    assert_non_null(strstr(text, "{3,11,19,27,..},.. (8) seen"));
    for (size_t cap = 0; cap < 60; cap++) {
        memset(text, 'x', sizeof(text));
        assert_true(rank_shards_infer(&shards, &clocks, text, cap));
        assert_int_equal(text[cap], 'x');
        if (cap > 0)
            assert_int_equal(strlen(text), cap - 1);
    }
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(spec_says_who_is_a_replica),
        CASE(groups_are_told_by_two_numbers),
        CASE(sizes_beyond_the_limits_are_refused),
        CASE(one_communicator_of_all_makes_all_replicas),
        CASE(tensor_parallel_neighbours_are_no_replicas),
        CASE(tensor_parallel_neighbours_of_eight_are_no_replicas),
        CASE(stages_of_a_pipeline_are_no_replicas),
        CASE(pipeline_outside_of_data_is_told_by_its_sends),
        CASE(groups_without_collectives_are_no_replicas),
        CASE(tensor_parallel_stages_have_no_replicas),
        CASE(ranks_that_send_in_the_world_are_no_replicas),
        CASE(groups_of_neighbours_are_no_replicas),
        CASE(group_that_is_divided_is_none),
        CASE(group_between_two_is_none),
        CASE(finer_of_two_families_counts),
        CASE(family_with_a_gap_is_none),
        CASE(nothing_is_known_of_no_communicators),
        CASE(member_that_has_not_told_of_it_is_a_doubt),
        CASE(rank_with_two_members_is_a_doubt),
        CASE(order_of_replicas_is_that_of_their_communicator),
        CASE(text_is_cut_and_not_overrun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
