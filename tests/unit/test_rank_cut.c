/* SPDX-License-Identifier: Apache-2.0
 * test_rank_cut.c - cuts of real processes: the library in rank_probe, the node's side here.
 *
 * Usage: test_rank_cut PROBE [CUTS]
 */
#include "rank_cut.h"

#include <dirent.h>
#include <signal.h>
#include <unistd.h>

static const char *probe;
static uint32_t n_cuts = 200;

static void cuts_while_threads_hammer_are_consistent(void **state)
{
    (void)state;
    static struct cut cut;
    enum { THREADS = 3 };
    cut_set_up(&cut, 3);
    cut_start(&cut, probe, THREADS, "calls");
    for (uint32_t i = 0; i < n_cuts; i++) {
        uint64_t before = cut.shared->issued[0][0];
        assert_int_equal(cut_make(&cut), ORR_STEP_DONE);
        cut_check(&cut, THREADS);
        assert_int_equal(cut_step(&cut, ORR_CUT_OPEN, false), ORR_STEP_DONE);
        while (cut.shared->issued[0][0] <= before)
            usleep(50); /* it runs on */
    }
    cut_end(&cut);
    cut_tear_down(&cut);
}

static void stop_gives_all_and_resume_takes_it_back(void **state)
{
    (void)state;
    static struct cut cut;
    cut_set_up(&cut, 2);
    cut_start(&cut, probe, 2, "calls");
    for (uint32_t i = 1; i <= 10; i++) {
        assert_int_equal(cut_make(&cut), ORR_STEP_DONE);
        bool is_detached = i % 2;
        assert_int_equal(cut_step(&cut, ORR_CUT_QUIESCE, is_detached), ORR_STEP_DONE);
        assert_int_equal(cut.report->arenas.n, 2);
        assert_int_equal(cut.report->arenas.at[0].bytes, 3 << 20);
        assert_int_equal(access(cut.report->arenas.at[0].path.ptr, R_OK), 0);
        cut_check(&cut, 2);
        cut.round = 0;
        assert_int_equal(cut_step(&cut, ORR_CUT_RESUME, false), ORR_STEP_DONE);
        assert_int_equal(cut.shared->n_resumed, 2 * i);
    }
    cut_end(&cut);
    cut_tear_down(&cut);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts_while_threads_hammer_are_consistent),
        cmocka_unit_test(stop_gives_all_and_resume_takes_it_back),
    };
    if (argc < 2)
        return 2;
    probe = argv[1];
    if (argc > 2)
        n_cuts = (uint32_t)strtoul(argv[2], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
