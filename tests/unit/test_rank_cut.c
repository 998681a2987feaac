/* SPDX-License-Identifier: Apache-2.0
 * test_rank_cut.c - cuts of real processes: the library in rank_probe, the node's side here.
 *
 * Usage: test_rank_cut PROBE [CUTS]
 */
#include "rank_cut.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *probe;
static uint32_t n_cuts = 200;

static void cuts_while_threads_hammer_are_consistent(void **state)
{
    (void)state;
    static struct cut cut;
    enum { THREADS = 3 };
    cut_set_up(&cut, 3);
    cut.shared->forks = 1;
    cut_start(&cut, probe, THREADS, "calls");
    for (uint32_t i = 0; i < n_cuts; i++) {
        assert_int_equal(cut_make(&cut), ORR_STEP_DONE);
        cut_check(&cut, THREADS);
        assert_int_equal(cut_step(&cut, ORR_CUT_OPEN, false), ORR_STEP_DONE);
        cut_wait_progress(&cut);
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

/* Nothing of the machine is left in a process of which an image will be taken. */
static void assert_clean(pid_t pid)
{
    char path[64], line[512], target[256];
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(path, "r");
    assert_non_null(maps);
    while (fgets(line, sizeof line, maps))
        assert_null(strstr(line, "memfd:"));
    fclose(maps);
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *fds = opendir(path);
    assert_non_null(fds);
    for (struct dirent *e = readdir(fds); e; e = readdir(fds)) {
        ssize_t n = readlinkat(dirfd(fds), e->d_name, target, sizeof target - 1);
        target[n > 0 ? n : 0] = '\0';
        assert_null(strstr(target, "memfd:"));
        assert_null(strstr(target, "socket:"));
    }
    closedir(fds);
}

static void detached_process_is_clean(void **state)
{
    (void)state;
    static struct cut cut;
    cut_set_up(&cut, 2);
    cut_start(&cut, probe, 1, "calls");
    assert_int_equal(cut_make(&cut), ORR_STEP_DONE);
    assert_int_equal(cut_step(&cut, ORR_CUT_QUIESCE, true), ORR_STEP_DONE);
    assert_clean(cut.pids[0]);
    assert_clean(cut.pids[1]);
    cut.round = 0;
    assert_int_equal(cut_step(&cut, ORR_CUT_RESUME, false), ORR_STEP_DONE);
    cut_wait_progress(&cut);
    cut_end(&cut);
    cut_tear_down(&cut);
}

static void failed_quiesce_names_the_rank_and_is_undone(void **state)
{
    (void)state;
    static struct cut cut;
    cut_set_up(&cut, 3);
    cut_start(&cut, probe, 1, "calls");
    assert_int_equal(cut_make(&cut), ORR_STEP_DONE);
    cut.shared->fails_quiesce = 2;
    assert_int_equal(cut_step(&cut, ORR_CUT_QUIESCE, false), ORR_STEP_FAILED);
    assert_int_equal(cut.report->culprit, 1);
    assert_non_null(strstr(cut.report->text.ptr, "the device does not answer"));
    cut.round = 0;
    assert_int_equal(cut_step(&cut, ORR_CUT_RESUME, false), ORR_STEP_DONE);
    cut_wait_progress(&cut);
    cut.shared->fails_quiesce = 0;
    assert_int_equal(cut_make(&cut), ORR_STEP_DONE);
    assert_int_equal(cut_step(&cut, ORR_CUT_QUIESCE, true), ORR_STEP_DONE);
    cut.round = 0;
    assert_int_equal(cut_step(&cut, ORR_CUT_RESUME, false), ORR_STEP_DONE);
    cut_end(&cut);
    cut_tear_down(&cut);
}

static void rank_that_stands_still_is_named(void **state)
{
    (void)state;
    static struct cut cut;
    cut_set_up(&cut, 2);
    cut_start(&cut, probe, 2, "calls");
    cut_wait_progress(&cut);
    cut.shared->skips_next = 2;
    cut_wait(&cut, &cut.n_idle, 1);
    assert_string_equal(cut.idle_op, "ncclAllReduce");
    cut.timeout_ms =
        500; /* rank 1 has issued less than rank 0: it never gets to its target */
    assert_int_equal(cut_make(&cut), ORR_STEP_FAILED);
    assert_int_equal(cut.report->culprit, 1);
    assert_non_null(strstr(cut.report->text.ptr, "ncclAllReduce"));
    assert_int_equal(cut_step(&cut, ORR_CUT_OPEN, false), ORR_STEP_DONE);
    cut.shared->skips_next = 0;
    cut.timeout_ms = 20000;
    cut_wait_progress(&cut);
    cut_end(&cut);
    cut_tear_down(&cut);
}

/* ---- hosts that die ----------------------------------------------------------------------- */

/* A host in a process of its own, killed when the ranks have got to a step. */
static void run_and_kill_host(struct cut *cut, uint32_t step, bool is_detached)
{
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    pid_t host = fork();
    assert_true(host >= 0);
    if (host == 0) {
        cut_open_edge(cut);
        for (uint32_t r = 0; r < cut->world; r++)
            cut_expect(cut, r, 0, 0);
        cut_wait(cut, &cut->n_abilities, cut->world);
        cut_wait_shared(&cut->shared->n_started, cut->world);
        bool is_made = step == ORR_CUT_NONE || cut_make(cut) == ORR_STEP_DONE;
        if (step == ORR_CUT_QUIESCE)
            is_made = cut_step(cut, ORR_CUT_QUIESCE, is_detached) == ORR_STEP_DONE;
        byte = is_made;
        _exit(write(ready[1], &byte, 1) == 1 ? pause() : 1);
    }
    for (uint32_t r = 0; r < cut->world; r++)
        if (!cut->pids[r])
            cut_start_rank(cut, probe, r, 1, "calls");
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(byte, 1);
    close(ready[0]);
    kill(host, SIGKILL);
    waitpid(host, NULL, 0);
}

static void program_goes_on_when_hosts_die(void **state)
{
    (void)state;
    static struct cut cut;
    const uint32_t steps[] = {ORR_CUT_NONE, ORR_CUT_TARGETS, ORR_CUT_TARGETS};
    cut_prepare(&cut, 2);
    for (uint32_t i = 0; i < ORR_ARRAY_SIZE(steps); i++) {
        cut.cut = 10 * i;
        run_and_kill_host(&cut, steps[i], false);
        cut_wait_progress(&cut); /* of itself, after a while: there is no host */
    }
    cut.cut = 40;
    run_and_kill_host(&cut, ORR_CUT_QUIESCE, false);
    cut_open_edge(&cut); /* the next one */
    cut.n_abilities = 0;
    for (uint32_t r = 0; r < cut.world; r++)
        cut_expect(&cut, r, 0, 0);
    cut_wait(&cut, &cut.n_abilities, cut.world);
    cut.cut = 41;
    assert_int_equal(cut_step(&cut, ORR_CUT_RESUME, false), ORR_STEP_DONE);
    cut_wait_progress(&cut);
    assert_int_equal(cut_make(&cut), ORR_STEP_DONE);
    assert_int_equal(cut_step(&cut, ORR_CUT_OPEN, false), ORR_STEP_DONE);
    cut_end(&cut);
    cut_tear_down(&cut);
}

/* ---- cooperative -------------------------------------------------------------------------- */

static void
keep_arena(const char *path, uint8_t **ret_bytes, size_t *ret_len, size_t len)
{
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    *ret_bytes = malloc(len);
    assert_non_null(*ret_bytes);
    *ret_len = fread(*ret_bytes, 1, len, file);
    fclose(file);
    assert_int_equal(*ret_len, len);
}

static void cooperative_program_goes_on_in_new_processes(void **state)
{
    (void)state;
    static struct cut cut;
    uint8_t *arena[2];
    size_t len[2];
    cut_set_up(&cut, 2);
    cut_start(&cut, probe, 1, "cooperative");
    cut_wait_progress(&cut);
    assert_true(cut.is_cooperative);
    assert_int_equal(cut_make(&cut), ORR_STEP_DONE);
    assert_int_equal(cut.shared->issued[0][0], cut.shared->issued[0][1]);
    assert_int_equal(cut_step(&cut, ORR_CUT_QUIESCE, false), ORR_STEP_DONE);
    cut.round = 0;
    assert_int_equal(cut_step(&cut, ORR_CUT_RESUME, false), ORR_STEP_DONE);
    cut_wait_progress(&cut); /* the same processes */

    assert_int_equal(cut_make(&cut), ORR_STEP_DONE);
    assert_int_equal(cut_step(&cut, ORR_CUT_QUIESCE, true), ORR_STEP_DONE);
    for (uint32_t i = 0; i < 2; i++) {
        const struct orr_rec_rank_arena *a = &cut.report->arenas.at[i];
        keep_arena(a->path.ptr, &arena[a->rank], &len[a->rank], a->bytes);
    }
    cut_kill(&cut);
    orr_rank_edge_forget(cut.edge, ORR_LIT("r-1"), cut.generation);
    cut.generation = 2;
    cut.n_abilities = 0;
    cut.shared->n_started = 0;
    for (uint32_t r = 0; r < 2; r++)
        cut_expect(&cut, r, 4711, len[r]);
    cut.round = 0;
    cut_fill_arenas(&cut, arena, len);
    for (uint32_t r = 0; r < 2; r++)
        cut_start_rank(&cut, probe, r, 1, "cooperative");
    cut_wait_shared(&cut.shared->n_resumed, 2);
    assert_int_equal(cut_step(&cut, ORR_CUT_RESUME, false), ORR_STEP_DONE);
    cut_wait_progress(&cut);
    cut_end(&cut);
    cut_tear_down(&cut);
    free(arena[0]);
    free(arena[1]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts_while_threads_hammer_are_consistent),
        cmocka_unit_test(stop_gives_all_and_resume_takes_it_back),
        cmocka_unit_test(detached_process_is_clean),
        cmocka_unit_test(failed_quiesce_names_the_rank_and_is_undone),
        cmocka_unit_test(rank_that_stands_still_is_named),
        cmocka_unit_test(program_goes_on_when_hosts_die),
        cmocka_unit_test(cooperative_program_goes_on_in_new_processes),
    };
    if (argc < 2)
        return 2;
    probe = argv[1];
    if (argc > 2)
        n_cuts = (uint32_t)strtoul(argv[2], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
