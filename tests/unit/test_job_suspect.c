/* SPDX-License-Identifier: Apache-2.0
 * test_job_suspect.c - who is named when ranks stand still.
 */
#include <stdio.h>
#include <string.h>

#include "job_suspect.h"
#include "orr_test.h"

enum { WORLD = 4, COMM_A = 0xa, COMM_B = 0xb, IDLE = 10000 };

static struct job_barrier clocks;
static struct job_pause pauses[WORLD];
static char text[300];

static int setup(void **state)
{
    (void)state;
    memset(pauses, 0, sizeof(pauses));
    text[0] = '\0';
    return job_barrier_init(&clocks, 1, 256) != ORR_OK;
}

static int teardown(void **state)
{
    (void)state;
    job_barrier_fini(&clocks);
    return 0;
}

static void hear(struct orr_rec_clock clock)
{
    struct orr_error err;
    clock.n = WORLD;
    clock.me = clock.rank;
    assert_int_equal(
        job_barrier_note(&clocks, 0, (struct orr_list_clock){&clock, 1}, &err), ORR_OK);
}

static void add(uint32_t rank, uint64_t comm, uint64_t issued, uint64_t idle_ms)
{
    hear((struct orr_rec_clock){.rank = rank,
                                .comm = comm,
                                .issued = issued,
                                .op = ORR_CLOCK_OP_ALL_REDUCE,
                                .idle_ms = idle_ms});
}

static void add_all(uint64_t comm, uint64_t issued, uint64_t idle_ms)
{
    for (uint32_t r = 0; r < WORLD; r++)
        add(r, comm, issued, idle_ms);
}

static void pause_all(uint32_t pause)
{
    for (uint32_t r = 0; r < WORLD; r++)
        pauses[r].pause = pause;
}

static int64_t find(void)
{
    const struct job_suspects suspects = {
        .clocks = &clocks, .pauses = pauses, .world = WORLD, .call = "cuCall"};
    assert_int_equal(job_barrier_aim(&clocks), ORR_OK);
    return job_suspect_find(&suspects, IDLE, text, sizeof(text));
}

static void nobody_is_named_where_all_compute(void **state)
{
    (void)state;
    assert_int_equal(find(), JOB_SUSPECT_NONE);
    add_all(COMM_A, 7, IDLE);
    assert_int_equal(find(), JOB_SUSPECT_NONE);
    pause_all(ORR_PAUSE_CALL); /* but for one */
    pauses[3].pause = ORR_PAUSE_NONE;
    assert_int_equal(find(), JOB_SUSPECT_NONE);
    assert_string_equal(text, "");
}

static void rank_that_does_not_run_is_named_though_it_has_come(void **state)
{
    (void)state;
    add_all(COMM_A, 7, IDLE);
    pause_all(ORR_PAUSE_CALL);
    pauses[2].pause = ORR_PAUSE_SILENT;
    assert_int_equal(find(), 2);
    assert_non_null(
        strstr(text, "rank 2 has issued 7 of 7 collectives in communicator"));
    assert_non_null(
        strstr(text, "it does not run (stopped?), its newest was ncclAllReduce"));
    add(1,
        COMM_B,
        2,
        10); /* others go on, and one of them waits: it is not known for whom */
    assert_int_equal(find(), 2);
    for (uint32_t r = 0; r < WORLD; r++)
        add(r, COMM_A, 7, r == 2 ? IDLE : 10);
    assert_int_equal(find(), JOB_SUSPECT_NONE); /* nobody waits */
}

/* One that skipped A's waits in B; all others wait in A. */
static void one_against_many_is_named(void **state)
{
    (void)state;
    pause_all(ORR_PAUSE_CALL);
    for (uint32_t r = 0; r < WORLD; r++) {
        add(r, COMM_A, r == 1 ? 6 : 7, IDLE + 50);
        add(r, COMM_B, r == 1 ? 5 : 4, IDLE + 90);
    }
    assert_int_equal(find(), 1);
    assert_non_null(strstr(text, "rank 1 has issued 6 of 7"));
    assert_non_null(strstr(text, "peers wait in ncclAllReduce"));
}

/* 3 waits for what 2 should send, 2 for 1, and 1 computes. */
static void end_of_a_chain_is_named(void **state)
{
    (void)state;
    add_all(COMM_A, 1, 5 * IDLE);
    for (uint32_t r = 1; r < WORLD; r++) {
        const struct orr_rec_clock recv = {.rank = r,
                                           .comm = COMM_A,
                                           .kind = ORR_CLOCK_RECV,
                                           .peer = r - 1,
                                           .issued = r == 1 ? 3 : 4,
                                           .op = ORR_CLOCK_OP_RECV,
                                           .idle_ms = IDLE};
        const struct orr_rec_clock send = {.rank = r - 1,
                                           .comm = COMM_A,
                                           .kind = ORR_CLOCK_SEND,
                                           .peer = r,
                                           .issued = 3,
                                           .op = ORR_CLOCK_OP_SEND,
                                           .idle_ms = IDLE + 1000 * r};
        hear(recv);
        hear(send);
    }
    assert_int_equal(find(), 1);
    assert_non_null(strstr(text, "rank 1 has issued 3 of 4 sends to 2"));
    assert_non_null(strstr(text, "peers wait in ncclRecv"));
}

static void rank_that_is_missed_in_a_new_communicator_is_named(void **state)
{
    (void)state;
    for (uint32_t r = 0; r < WORLD; r++)
        if (r != 2)
            add(r, COMM_A, 1, IDLE);
    assert_int_equal(find(), JOB_SUSPECT_NONE); /* they may be busy elsewhere */
    pause_all(ORR_PAUSE_CALL);
    pauses[2].pause = ORR_PAUSE_NONE;
    assert_int_equal(find(), 2);
    assert_non_null(strstr(text, "rank 2 has issued 0 of 1 collectives"));
    job_barrier_forget(&clocks, 0);
    assert_int_equal(find(), JOB_SUSPECT_NONE);
}

static void operation_that_does_not_end_is_named(void **state)
{
    (void)state;
    add_all(COMM_A, 7, IDLE);
    pause_all(ORR_PAUSE_CALL);
    assert_int_equal(find(), JOB_SUSPECT_ALL);
    assert_non_null(strstr(text, "has issued 7 of 7 collectives"));
    assert_non_null(strstr(
        text, "nothing has followed ncclAllReduce 10000 ms ago; all wait in cuCall"));
    add(0, COMM_A, 7, IDLE - 1);
    assert_int_equal(find(), JOB_SUSPECT_NONE);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(nobody_is_named_where_all_compute),
        CASE(rank_that_does_not_run_is_named_though_it_has_come),
        CASE(one_against_many_is_named),
        CASE(end_of_a_chain_is_named),
        CASE(rank_that_is_missed_in_a_new_communicator_is_named),
        CASE(operation_that_does_not_end_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
