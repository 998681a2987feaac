/* SPDX-License-Identifier: Apache-2.0
 * main.c - runs the cases of suite.h: one cmocka test for each case and world size, one
 * process for each rank.
 *
 *   conformance_nccl [PATTERN]                  all tests, or those whose name matches
 *   conformance_nccl --rank CASE RANK WORLD FD  one rank (started by the above)
 *
 * With NCCL_CONFORMANCE_CUTS=SEED, and the interposer and cut_core.c preloaded, all ranks are stopped at random consistent cuts
 * while a test runs, and all communicators destroyed and made anew.
 *
 * Where the driver has too few devices for a world (real GPUs: one rank each), it is
 * skipped. With the emulator the devices are made here, in a directory of our own.
 */
#include "coverage.h"
#include "cut_board.h"
#include "orr_test.h"
#include "suite_devices.h"
#include "suite_run.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CASE_MS = 45000, TESTS_MAX = 256 };

extern char **environ;

struct test {
    const struct conf_case *c;
    int world;
    char name[64];
};

static const struct conf_case *const all_cases[] = {
    comm_cases, collective_cases, exchange_cases, fault_cases, splice_cases, cut_cases};

static const struct conf_case *find_case(const char *name)
{
    for (size_t i = 0; i < sizeof all_cases / sizeof *all_cases; i++)
        for (const struct conf_case *c = all_cases[i]; c->name; c++)
            if (strcmp(c->name, name) == 0)
                return c;
    return NULL;
}

static pid_t start_rank(const struct test *t, int rank, int board_fd, int alive_fd)
{
    char rank_text[12], world_text[12], fd_text[12];
    char *argv[] = {"conformance_nccl",
                    "--rank",
                    (char *)(uintptr_t)t->c->name,
                    rank_text,
                    world_text,
                    fd_text,
                    NULL};
    posix_spawn_file_actions_t actions;
    pid_t pid;
    int err;

    snprintf(rank_text, sizeof rank_text, "%d", rank);
    snprintf(world_text, sizeof world_text, "%d", t->world);
    snprintf(fd_text, sizeof fd_text, "%d", board_fd);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addclose(&actions, alive_fd);
    err = posix_spawn(&pid, "/proc/self/exe", &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    assert_int_equal(err, 0);
    return pid;
}

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* The ranks hold the pipe's other end: it closes when the last of them has ended. */
static bool all_end(int alive_fd)
{
    int64_t deadline = now_ms() + CASE_MS, left;
    struct pollfd poll_fd = {.fd = alive_fd, .events = POLLIN};

    while ((left = deadline - now_ms()) > 0)
        if (poll(&poll_fd, 1, (int)left) == 1)
            return true;
    return false;
}

/* They may be there only for what the ranks tell each other. */
static bool has_cuts(void)
{
    const char *seed = getenv("NCCL_CONFORMANCE_CUTS");

    return seed && atoi(seed) != CUT_NEVER;
}

static uint64_t cuts_done, comms_remade, comms_left;

/* NULL: none are wanted. */
static struct cut_drive *start_cuts(void)
{
    const char *seed = getenv("NCCL_CONFORMANCE_CUTS");
    struct cut_drive *d = seed ? cut_drive_new((unsigned)atoi(seed)) : NULL;

    if (d)
        setenv("NCCL_CUT_BOARD", cut_drive_path(d), 1);
    return d;
}

static void run_one(void **state)
{
    const struct test *t = *state;
    pid_t pid[SUITE_RANKS];
    struct board *board;
    int board_fd = board_new(t->world, &board), alive[2], status, failed = 0;
    struct cut_drive *cuts = start_cuts();
    bool in_time;

    assert_true(board_fd >= 0);
    assert_int_equal(pipe(alive), 0);
    for (int r = 0; r < t->world; r++)
        pid[r] = start_rank(t, r, board_fd, alive[0]);
    close(alive[1]);
    in_time = all_end(alive[0]);
    for (int r = 0; r < t->world; r++) {
        if (!in_time)
            kill(pid[r], SIGKILL);
        assert_int_equal(waitpid(pid[r], &status, 0), pid[r]);
        if (!(WIFEXITED(status) && WEXITSTATUS(status) == 0) &&
            !board_may_die(board, r)) {
            fprintf(stderr, "%s: rank %d ended with status 0x%x\n", t->name, r, status);
            failed++;
        }
    }
    close(alive[0]);
    if (cuts && cut_drive_free(cuts, &cuts_done, &comms_remade, &comms_left) > 0)
        failed++;
    board_free(board, board_fd);
    if (!in_time)
        fail_msg("%s: not over after %d ms", t->name, (int)CASE_MS);
    assert_int_equal(failed, 0);
}

static size_t list_tests(struct test *tests, struct CMUnitTest *units, int ndevices)
{
    size_t n = 0;

    bool has_board = getenv("NCCL_CONFORMANCE_CUTS") != NULL;

    for (size_t i = 0; i < sizeof all_cases / sizeof *all_cases; i++) {
        /* a stop among ranks that die is the job's, not this library's */
        if ((has_board && all_cases[i] == fault_cases) ||
            (has_cuts() && all_cases[i] == splice_cases))
            continue;
        for (const struct conf_case *c = all_cases[i]; c->name; c++) {
            for (const int *world = c->worlds; *world; world++) {
                if ((c->is_for_emulator && !suite_is_emulated()) ||
                    (*world > ndevices && !suite_is_emulated()))
                    continue;
                tests[n] = (struct test){.c = c, .world = *world};
                snprintf(tests[n].name, sizeof tests[n].name, "%s/%d", c->name, *world);
                units[n] = (struct CMUnitTest){.name = tests[n].name,
                                               .test_func = run_one,
                                               .initial_state = &tests[n]};
                if (++n == TESTS_MAX)
                    return n;
            }
        }
    }
    return n;
}

static void cuts_were_made(void **state)
{
    (void)state;
    printf("%llu cuts, %llu communicators made anew, %llu where one had destroyed it\n",
           (unsigned long long)cuts_done,
           (unsigned long long)comms_remade,
           (unsigned long long)comms_left);
    assert_true(cuts_done > 50 && comms_remade > 50 && comms_left > 10);
}

static void every_call_is_covered(void **state)
{
    (void)state;
    assert_int_equal(coverage_missing(), 0);
}

/* NCCL_CONFORMANCE_DEVICES: fewer than ranks, which then share them. */
static int devices_wanted(void)
{
    const char *text = getenv("NCCL_CONFORMANCE_DEVICES");

    return text ? atoi(text) : 4;
}

static int run_all(const char *pattern)
{
    static struct test tests[TESTS_MAX];
    static struct CMUnitTest units[TESTS_MAX + 2];
    int failed, ndevices = suite_devices_make(devices_wanted());
    size_t n;

    if (ndevices <= 0) {
        fprintf(stderr, "no device: nothing to run on\n");
        return 1;
    }
    n = list_tests(tests, units, ndevices);
    if (pattern)
        cmocka_set_test_filter(pattern);
    else if (suite_is_emulated() && !getenv("NCCL_CONFORMANCE_CUTS") &&
             coverage_begin())
        units[n++] = (struct CMUnitTest){.name = "every_call_is_covered",
                                         .test_func = every_call_is_covered};
    if (has_cuts() && !pattern)
        units[n++] =
            (struct CMUnitTest){.name = "cuts_were_made", .test_func = cuts_were_made};
    failed = _cmocka_run_group_tests("nccl", units, n, NULL, NULL);
    suite_devices_remove();
    coverage_end();
    return failed ? 1 : 0;
}

int main(int argc, char **argv)
{
    const struct conf_case *c;

    if (argc == 6 && strcmp(argv[1], "--rank") == 0) {
        c = find_case(argv[2]);
        return c ? suite_rank_main(c, atoi(argv[3]), atoi(argv[4]), atoi(argv[5])) : 1;
    }
    return run_all(argc > 1 ? argv[1] : NULL);
}
