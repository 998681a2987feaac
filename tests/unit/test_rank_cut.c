/* SPDX-License-Identifier: Apache-2.0
 * test_rank_cut.c - cuts of real processes: the library in rank_probe, the node's side here.
 *
 * Usage: test_rank_cut PROBE LIBORRERY-RANK.SO COUNT.PY [CUTS]
 */
#include "rank_cut.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "orrery/rank_link.h"

static const char *probe, *library, *example;
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
        assert_int_equal(cut_count_arenas(&cut), is_detached ? 2 : 0);
        cut_check(&cut, 2);
        cut.round = 0;
        assert_int_equal(cut_step(&cut, ORR_CUT_RESUME, false), ORR_STEP_DONE);
        assert_int_equal(cut.shared->n_resumed, 2 * i);
        assert_int_equal(cut_count_arenas(&cut), 0);
    }
    cut_end(&cut);
    cut_tear_down(&cut);
}

static void tell_resume_until_all_have_spoken(struct cut *cut)
{
    for (uint32_t seen = cut->n_reports; !cut_tell_resume(cut, false); seen++)
        cut_wait(cut, &cut->n_reports, seen + 1);
}

/* The job's actor died with its host before it had told who has spoken; the next one numbers its resume anew. */
static void resume_that_was_left_is_taken_up_with_a_later_cut(void **state)
{
    (void)state;
    static struct cut cut;
    cut_set_up(&cut, 3);
    cut_start(&cut, probe, 2, "calls");
    for (uint32_t i = 1; i <= 3; i++) {
        assert_int_equal(cut_make(&cut), ORR_STEP_DONE);
        assert_int_equal(cut_step(&cut, ORR_CUT_QUIESCE, true), ORR_STEP_DONE);
        cut.round = 0;
        tell_resume_until_all_have_spoken(&cut);
        cut.cut++;
        assert_int_equal(cut_step(&cut, ORR_CUT_RESUME, false), ORR_STEP_DONE);
        assert_int_equal(cut.shared->n_resumed, 3 * i);
    }
    cut_end(&cut);
    cut_tear_down(&cut);
}

/* They make communicators that one of them does not come to, and would wait for it until their deadline. */
static void attempt_that_nobody_comes_to_gives_way_to_the_next(void **state)
{
    (void)state;
    static struct cut cut;
    cut_set_up(&cut, 3);
    cut_start(&cut, probe, 2, "calls");
    for (uint32_t later = 0; later <= 1; later++) { /* a round, and a cut */
        assert_int_equal(cut_make(&cut), ORR_STEP_DONE);
        assert_int_equal(cut_step(&cut, ORR_CUT_QUIESCE, true), ORR_STEP_DONE);
        cut.round = 1;
        cut.shared->stalls_resume = later + 1;
        tell_resume_until_all_have_spoken(&cut);
        (void)cut_tell_resume(&cut, true);
        cut_wait_shared(&cut.shared->n_stalled, 3 * (later + 1));
        cut.cut += later;
        cut.round += !later;
        assert_int_equal(cut_step(&cut, ORR_CUT_RESUME, false), ORR_STEP_DONE);
    }
    cut_end(&cut);
    cut_tear_down(&cut);
}

static void drop_arenas(struct cut *cut, uint64_t n)
{
    const struct orr_msg_rank_arena_drop msg = {
        .job = ORR_LIT("r-1"), .generation = cut->generation, .cut = n};
    orr_rank_edge_drop_arenas(cut->edge, &msg);
}

/* The store reads it while the job goes on, and stops again. */
static void arena_is_readable_until_nobody_reads_it(void **state)
{
    (void)state;
    static struct cut cut;
    char path[2][64];
    cut_set_up(&cut, 1);
    cut_start(&cut, probe, 1, "calls");
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(cut_make(&cut), ORR_STEP_DONE);
        assert_int_equal(cut_step(&cut, ORR_CUT_QUIESCE, true), ORR_STEP_DONE);
        orr_str_copy(path[i], sizeof path[i], cut.report->arenas.at[0].path);
        cut.round = 0;
        assert_int_equal(cut_step(&cut, ORR_CUT_RESUME, false), ORR_STEP_DONE);
        cut_wait_progress(&cut);
    }
    assert_int_equal(access(path[0], R_OK), 0);
    assert_int_equal(access(path[1], R_OK), 0);
    drop_arenas(&cut, cut.cut - 1);
    assert_int_equal(access(path[0], F_OK), -1);
    assert_int_equal(access(path[1], R_OK), 0);
    drop_arenas(&cut, cut.cut);
    assert_int_equal(access(path[1], F_OK), -1);
    cut_end(&cut);
    cut_tear_down(&cut);
}

/* Nothing of the machine is left in a process of which an image will be taken. */
static void assert_clean(const struct cut *cut, uint32_t rank)
{
    char path[64], line[512], target[256];
    int pid = (int)cut->pids[rank];
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    FILE *maps = fopen(path, "r");
    assert_non_null(maps);
    while (fgets(line, sizeof line, maps)) {
        assert_null(strstr(line, "memfd:"));
        assert_null(strstr(line, cut->arenas));
    }
    fclose(maps);
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    DIR *fds = opendir(path);
    assert_non_null(fds);
    for (struct dirent *e = readdir(fds); e; e = readdir(fds)) {
        ssize_t n = readlinkat(dirfd(fds), e->d_name, target, sizeof target - 1);
        target[n > 0 ? n : 0] = '\0';
        assert_null(strstr(target, "memfd:"));
        assert_null(strstr(target, cut->arenas));
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
    assert_clean(&cut, 0);
    assert_clean(&cut, 1);
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

static void rank_that_does_not_run_is_told_of_until_it_does(void **state)
{
    (void)state;
    static struct cut cut;
    cut_set_up(&cut, 2);
    cut_start(&cut, probe, 2, "calls");
    cut_wait_progress(&cut);
    assert_int_equal(kill(cut.pids[1], SIGSTOP), 0);
    cut_wait(&cut, &cut.n_silent, 1);
    assert_int_equal(cut.silent_rank, 1);
    assert_int_equal(kill(cut.pids[1], SIGCONT), 0);
    cut_wait(&cut, &cut.n_over, 1);
    cut_wait_progress(&cut);
    cut_end(&cut);
    cut_tear_down(&cut);
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

/* Its device memory is where the dead host kept it, and what another has left there goes. */
static void detached_process_outlives_its_host(void **state)
{
    (void)state;
    static struct cut cut;
    char stale[128];
    cut_prepare(&cut, 2);
    for (cut.cut = 0; cut.cut < 100; cut.cut += 50) {
        cut.n_abilities = 0;
        run_and_kill_host(&cut, ORR_CUT_QUIESCE, true);
        assert_int_equal(cut_count_arenas(&cut), 2);
        snprintf(stale, sizeof stale, "%s/arena-r-1-1-0-x", cut.arenas);
        close(open(stale, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
        cut_open_edge(&cut);
        cut.n_abilities = 0;
        for (uint32_t r = 0; r < cut.world; r++)
            cut_expect(&cut, r, 0, 0);
        orr_rank_edge_drop_arenas(cut.edge,
                                  &(struct orr_msg_rank_arena_drop){.cut = 0});
        assert_int_equal(cut_count_arenas(&cut), 2);
        assert_clean(&cut, 0);
        cut.cut += 40;
        cut.round = 0;
        assert_int_equal(cut_step(&cut, ORR_CUT_RESUME, false), ORR_STEP_DONE);
        assert_int_equal(cut_count_arenas(&cut), 0);
        cut_wait_progress(&cut);
        cut_close_edge(&cut);
    }
    assert_int_equal(cut.shared->n_resumed, 4);
    cut_open_edge(&cut);
    cut_end(&cut);
    cut_tear_down(&cut);
}

/* Who asks has not heard that it was done.  The process has given its memory away, and the next host has found it. */
static void quiesce_is_done_also_when_the_next_host_is_asked_again(void **state)
{
    (void)state;
    static struct cut cut;
    cut_prepare(&cut, 2);
    run_and_kill_host(&cut, ORR_CUT_QUIESCE, true);
    cut_open_edge(&cut);
    for (uint32_t r = 0; r < cut.world; r++)
        cut_expect(&cut, r, 0, 0);
    cut.cut++; /* as it did */
    assert_int_equal(cut_step(&cut, ORR_CUT_QUIESCE, true), ORR_STEP_DONE);
    assert_int_equal(cut_count_arenas(&cut), 2);
    assert_int_equal(cut.report->arenas.n, 2);
    assert_int_equal(cut.report->arenas.at[0].bytes, 3 << 20);
    cut.round = 0;
    assert_int_equal(cut_step(&cut, ORR_CUT_RESUME, false), ORR_STEP_DONE);
    cut_wait_progress(&cut);
    cut_end(&cut);
    cut_tear_down(&cut);
}

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

/* As after a migration: the same processes, another node, which counts its cuts from 1. */
static void stopped_processes_go_on_in_a_new_generation(void **state)
{
    (void)state;
    static struct cut cut;
    uint8_t *arena[2];
    size_t len[2];
    cut_set_up(&cut, 2);
    cut.cut = 40;
    cut_start(&cut, probe, 2, "calls");
    assert_int_equal(cut_make(&cut), ORR_STEP_DONE);
    assert_int_equal(cut_step(&cut, ORR_CUT_QUIESCE, true), ORR_STEP_DONE);
    for (uint32_t i = 0; i < 2; i++) {
        const struct orr_rec_rank_arena *a = &cut.report->arenas.at[i];
        assert_int_equal(a->process, cut.pids[a->rank]);
        keep_arena(a->path.ptr, &arena[a->rank], &len[a->rank], a->bytes);
    }
    orr_rank_edge_forget(cut.edge, ORR_LIT("r-1"), cut.generation);
    cut_close_edge(&cut);
    cut_open_edge(&cut);
    cut.generation = 2;
    for (uint32_t r = 0; r < 2; r++)
        cut_expect(&cut, r, (uint32_t)cut.pids[r], len[r]);
    cut_fill_arenas(&cut, arena, len);
    cut.cut = 1;
    cut.round = 0;
    assert_int_equal(cut_step(&cut, ORR_CUT_RESUME, false), ORR_STEP_DONE);
    cut_wait_progress(&cut);
    assert_int_equal(cut_make(&cut), ORR_STEP_DONE);
    cut_check(&cut, 2);
    assert_int_equal(cut_step(&cut, ORR_CUT_OPEN, false), ORR_STEP_DONE);
    cut_end(&cut);
    cut_tear_down(&cut);
    free(arena[0]);
    free(arena[1]);
}

/* Restored, where none used the library: nobody comes, and nobody is waited for. */
static void rank_without_a_library_goes_on_at_once(void **state)
{
    (void)state;
    static struct cut cut;
    struct orr_error err = {.text = ""};
    cut_prepare(&cut, 1);
    cut.grace_ms = 600000;
    cut.cut = 7;
    cut_open_edge(&cut);
    const struct orr_msg_rank_expect silent = {
        .job = ORR_LIT("r-1"), .generation = cut.generation, .is_silent = true};
    assert_int_equal(orr_rank_edge_expect(cut.edge, &silent, &err), ORR_OK);
    assert_int_equal(cut_step(&cut, ORR_CUT_RESUME, false), ORR_STEP_DONE);
    cut_end(&cut);
    cut_tear_down(&cut);
}

/* ---- cooperative -------------------------------------------------------------------------- */

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

/* The example, stopped in the middle and begun anew from what it saved; and without Orrery. */
static void
run_example(struct cut *cut, uint32_t rank, const char *out, const char *pause)
{
    char path[128], env[3][300], link[200];
    posix_spawn_file_actions_t actions;
    orr_rank_link_path(cut->run, 77, rank, link, sizeof link);
    snprintf(
        env[0], sizeof env[0], "%s=%s", rank < 2 ? "ORRERY_RANK_LINK" : "UNUSED", link);
    snprintf(env[1], sizeof env[1], "ORRERY_RANK_LIB=%s", library);
    snprintf(env[2], sizeof env[2], "RANK=%u", rank % 2);
    snprintf(path, sizeof path, "%s/%s%u", cut->dir, out, rank);
    char *const environment[] = {env[0],
                                 env[1],
                                 env[2],
                                 (char *)(uintptr_t) "WORLD_SIZE=2",
                                 (char *)(uintptr_t) "ORRERY_JOB=r-1",
                                 (char *)(uintptr_t) "ORRERY_GENERATION=1",
                                 (char *)(uintptr_t) "PYTHONDONTWRITEBYTECODE=1",
                                 NULL};
    char *const argv[] = {(char *)(uintptr_t)example,
                          (char *)(uintptr_t) "300",
                          (char *)(uintptr_t)pause,
                          NULL};
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(
        &actions, 1, path, O_CREAT | O_WRONLY | O_TRUNC, 0600);
    assert_int_equal(
        posix_spawn(&cut->pids[rank], example, &actions, NULL, argv, environment), 0);
    posix_spawn_file_actions_destroy(&actions);
}

/* The last line that it wrote; its file is removed. */
static void
take_output(struct cut *cut, uint32_t rank, const char *out, char *line, int cap)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s%u", cut->dir, out, rank);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    line[0] = '\0';
    while (fgets(line, cap, file))
        ;
    fclose(file);
    unlink(path);
}

static void python_program_goes_on_in_new_processes(void **state)
{
    (void)state;
    static struct cut cut;
    uint8_t *arena[2];
    size_t len[2];
    char got[128], want[128];
    int status;
    cut_set_up(&cut, 2);
    for (uint32_t r = 0; r < 2; r++) {
        cut_expect(&cut, r, 0, 0);
        run_example(&cut, r, "first", "0.02");
    }
    cut_wait(&cut, &cut.n_abilities, 2);
    do /* until both have come to points: those that start later are not in the first cuts */
        assert_int_equal(cut_make(&cut), ORR_STEP_DONE);
    while (cut.report->clocks.n < 2 &&
           cut_step(&cut, ORR_CUT_OPEN, false) == ORR_STEP_DONE);
    assert_int_equal(cut_step(&cut, ORR_CUT_QUIESCE, true), ORR_STEP_DONE);
    for (uint32_t i = 0; i < 2; i++) {
        const struct orr_rec_rank_arena *a = &cut.report->arenas.at[i];
        keep_arena(a->path.ptr, &arena[a->rank], &len[a->rank], a->bytes);
    }
    cut_kill(&cut);
    orr_rank_edge_forget(cut.edge, ORR_LIT("r-1"), cut.generation);
    cut.generation = 2;
    for (uint32_t r = 0; r < 2; r++)
        cut_expect(&cut, r, 4711, len[r]);
    cut_fill_arenas(&cut, arena, len);
    for (uint32_t r = 0; r < 2; r++) {
        run_example(&cut, r, "second", "0");
        run_example(&cut, 2 + r, "alone", "0"); /* the same, never stopped */
    }
    for (uint32_t r = 0; r < 4; r++) {
        assert_int_equal(waitpid(cut.pids[r], &status, 0), cut.pids[r]);
        assert_int_equal(status, 0);
    }
    for (uint32_t r = 0; r < 2; r++) {
        take_output(&cut, r, "first", got, sizeof got);
        assert_string_equal(got, ""); /* it did not get to its end */
        take_output(&cut, r, "second", got, sizeof got);
        take_output(&cut, 2 + r, "alone", want, sizeof want);
        assert_string_equal(got, want);
        free(arena[r]);
    }
    cut_tear_down(&cut);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts_while_threads_hammer_are_consistent),
        cmocka_unit_test(stop_gives_all_and_resume_takes_it_back),
        cmocka_unit_test(resume_that_was_left_is_taken_up_with_a_later_cut),
        cmocka_unit_test(attempt_that_nobody_comes_to_gives_way_to_the_next),
        cmocka_unit_test(arena_is_readable_until_nobody_reads_it),
        cmocka_unit_test(detached_process_is_clean),
        cmocka_unit_test(failed_quiesce_names_the_rank_and_is_undone),
        cmocka_unit_test(rank_that_stands_still_is_named),
        cmocka_unit_test(rank_that_does_not_run_is_told_of_until_it_does),
        cmocka_unit_test(program_goes_on_when_hosts_die),
        cmocka_unit_test(detached_process_outlives_its_host),
        cmocka_unit_test(quiesce_is_done_also_when_the_next_host_is_asked_again),
        cmocka_unit_test(stopped_processes_go_on_in_a_new_generation),
        cmocka_unit_test(rank_without_a_library_goes_on_at_once),
        cmocka_unit_test(cooperative_program_goes_on_in_new_processes),
        cmocka_unit_test(python_program_goes_on_in_new_processes),
    };
    if (argc < 4)
        return 2;
    probe = argv[1];
    library = argv[2];
    example = argv[3];
    if (argc > 4)
        n_cuts = (uint32_t)strtoul(argv[4], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
