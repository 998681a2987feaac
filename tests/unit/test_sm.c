/* SPDX-License-Identifier: Apache-2.0
 * test_sm.c - phases move along their table and nowhere else.
 */
#include "orrery/sm.h"

#include "orr_test.h"

static unsigned n_logged;

static void count_log(struct orr_ctx *ctx, enum orr_log_level level, const char *text)
{
    (void)ctx;
    (void)text;
    n_logged += level == ORR_LOG_ERROR;
}

static const struct orr_ctx_ops ops = {.log = count_log};

static void sm_legal_move_is_made(void **state)
{
    (void)state;
    struct orr_ctx ctx = {.ops = &ops};
    uint32_t phase = ORR_JOB_QUEUED;
    assert_int_equal(orr_sm_move(&ctx, &orr_job_sm, &phase, ORR_JOB_PLACING), ORR_OK);
    assert_int_equal(phase, ORR_JOB_PLACING);
}

static void sm_illegal_move_fails_the_actor_and_changes_nothing(void **state)
{
    (void)state;
    struct orr_ctx ctx = {.ops = &ops};
    uint32_t n_ends = 0;
    n_logged = 0;
    for (uint32_t end = 0; end < ORR_JOB_PHASE_MAX_; end++) {
        if (!orr_job_phase_is_final(end))
            continue;
        n_ends++;
        for (uint32_t to = 0; to <= ORR_JOB_PHASE_MAX_; to++) {
            uint32_t phase = end;
            assert_int_equal(orr_sm_move(&ctx, &orr_job_sm, &phase, to), ORR_ECRASH);
            assert_int_equal(phase, end);
        }
    }
    assert_true(n_ends > 0);
    assert_int_equal(n_logged, n_ends * (ORR_JOB_PHASE_MAX_ + 1));
}

static void sm_every_live_phase_reaches_an_end(void **state)
{
    (void)state;
    for (uint32_t phase = 0; phase < ORR_JOB_PHASE_MAX_; phase++)
        if (orr_job_moves[phase])
            assert_int_equal(orr_job_moves[phase] & ORR_JOB_ENDS, ORR_JOB_ENDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sm_legal_move_is_made),
        cmocka_unit_test(sm_illegal_move_fails_the_actor_and_changes_nothing),
        cmocka_unit_test(sm_every_live_phase_reaches_an_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
