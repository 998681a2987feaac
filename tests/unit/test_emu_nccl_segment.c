/* SPDX-License-Identifier: Apache-2.0
 * test_emu_nccl_segment.c - the shared memory of a communicator: two ranks as two
 * mappings in one process, one of them on a thread.
 */
#include "orr_test.h"

#include "segment.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

struct pair {
    struct orri_segment seg[2];
    pthread_t thread;
    enum orri_wait result;
};

static int pair_make(void **state)
{
    static struct pair p;
    int fd = memfd_create("test", MFD_CLOEXEC), err = 0;

    if (fd < 0 || ftruncate(fd, (off_t)orri_segment_bytes(2)) < 0)
        return -1;
    for (int r = 0; r < 2; r++)
        err |= orri_segment_map(&p.seg[r], fd, 2, r);
    close(fd);
    *state = &p;
    return err;
}

static int pair_drop(void **state)
{
    struct pair *p = *state;

    orri_segment_unmap(&p->seg[0]);
    orri_segment_unmap(&p->seg[1]);
    return 0;
}

static void *meet_second(void *arg)
{
    struct pair *p = arg;

    p->result = orri_lane_meet(&p->seg[1], LANE_DATA, 0);
    return NULL;
}

static void *step_many(void *arg)
{
    struct pair *p = arg;

    for (int i = 0; i < 1000; i++) {
        orri_lane_half(&p->seg[1], LANE_DATA, 1)[0] = (char)i;
        assert_int_equal(orri_lane_meet(&p->seg[1], LANE_DATA, 0), WAIT_OK);
        assert_int_equal(orri_lane_half(&p->seg[1], LANE_DATA, 0)[0], (char)(i + 1));
        orri_lane_next(&p->seg[1], LANE_DATA);
    }
    return NULL;
}

static void lane_steps_show_each_rank_the_others_half(void **state)
{
    struct pair *p = *state;

    pthread_create(&p->thread, NULL, step_many, p);
    for (int i = 0; i < 1000; i++) {
        orri_lane_half(&p->seg[0], LANE_DATA, 0)[0] = (char)(i + 1);
        assert_int_equal(orri_lane_meet(&p->seg[0], LANE_DATA, 0), WAIT_OK);
        assert_int_equal(orri_lane_half(&p->seg[0], LANE_DATA, 1)[0], (char)i);
        orri_lane_next(&p->seg[0], LANE_DATA);
    }
    pthread_join(p->thread, NULL);
}

static void lane_alone_times_out(void **state)
{
    struct pair *p = *state;
    uint64_t begin = orri_now_ms();

    assert_int_equal(orri_lane_meet(&p->seg[0], LANE_CONTROL, begin + 30),
                     WAIT_TIMEOUT);
    assert_true(orri_now_ms() >= begin + 30);
}

static void lane_wait_ends_when_a_rank_is_marked(void **state)
{
    struct pair *p = *state;

    pthread_create(&p->thread, NULL, meet_second, p);
    assert_true(orri_rank_mark(&p->seg[0], 0, RANK_DEAD));
    pthread_join(p->thread, NULL);
    assert_int_equal(p->result, WAIT_GONE);
}

static void lane_complete_counts_although_a_rank_leaves(void **state)
{
    struct pair *p = *state;

    pthread_create(&p->thread, NULL, meet_second, p);
    assert_int_equal(orri_lane_meet(&p->seg[0], LANE_DATA, 0), WAIT_OK);
    assert_true(orri_rank_mark(&p->seg[0], 0, RANK_LEFT));
    pthread_join(p->thread, NULL);
    assert_int_equal(p->result, WAIT_OK);
}

static void rank_is_marked_once_and_the_cause_is_named(void **state)
{
    struct pair *p = *state;

    assert_int_equal(orri_rank_gone(&p->seg[0]), -1);
    assert_true(orri_rank_mark(&p->seg[0], 0, RANK_FAILED));
    assert_false(orri_rank_mark(&p->seg[1], 0, RANK_DEAD));
    assert_int_equal(orri_rank_get(&p->seg[1], 0), RANK_FAILED);
    assert_int_equal(orri_rank_lost(&p->seg[1]), 0);
    assert_true(orri_rank_mark(&p->seg[0], 1, RANK_DEAD));
    assert_int_equal(orri_rank_lost(&p->seg[1]), 1);
}

static void rank_that_left_is_gone_but_not_lost(void **state)
{
    struct pair *p = *state;

    assert_true(orri_rank_mark(&p->seg[1], 1, RANK_LEFT));
    assert_int_equal(orri_rank_gone(&p->seg[0]), 1);
    assert_int_equal(orri_rank_lost(&p->seg[0]), -1);
}

static void doorbell_rung_before_the_wait_is_not_missed(void **state)
{
    struct pair *p = *state;
    uint32_t seen = orri_doorbell_read(&p->seg[0]);

    orri_doorbell_ring(&p->seg[1], 0);
    orri_doorbell_wait(&p->seg[0], seen); /* or this hangs */
    assert_int_not_equal(orri_doorbell_read(&p->seg[0]), seen);
}

static void pipes_of_all_pairs_are_distinct_and_inside(void **state)
{
    struct pair *p = *state;
    char *end = (char *)p->seg[0].shared + p->seg[0].bytes;

    for (int i = 0; i < 4; i++) {
        struct orri_pipe *pipe = orri_pipe_get(&p->seg[0], i / 2, i % 2);
        assert_true((char *)(pipe + 1) <= end);
        assert_ptr_equal(pipe, orri_pipe_get(&p->seg[0], 0, 0) + i);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, pair_make, pair_drop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(lane_steps_show_each_rank_the_others_half),
        TEST(lane_alone_times_out),
        TEST(lane_wait_ends_when_a_rank_is_marked),
        TEST(lane_complete_counts_although_a_rank_leaves),
        TEST(rank_is_marked_once_and_the_cause_is_named),
        TEST(rank_that_left_is_gone_but_not_lost),
        TEST(doorbell_rung_before_the_wait_is_not_missed),
        TEST(pipes_of_all_pairs_are_distinct_and_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
