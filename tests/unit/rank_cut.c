/* SPDX-License-Identifier: Apache-2.0
 * rank_cut.c - see rank_cut.h.
 */
#include "rank_cut.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "orrery/rank_link.h"

enum { PATIENCE_MS = 20000, LINK = 77 };

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}

/* ---- what the edge tells ------------------------------------------------------------------ */

static enum orr_err take_report(void *arg, const struct orr_msg_cut_report *report)
{
    struct cut *cut = arg;
    (void)report;
    pthread_mutex_lock(&cut->lock);
    cut->n_reports++;
    pthread_cond_broadcast(&cut->changed);
    pthread_mutex_unlock(&cut->lock);
    return ORR_OK;
}

static enum orr_err take_ability(void *arg, const struct orr_msg_rank_ability *msg)
{
    struct cut *cut = arg;
    pthread_mutex_lock(&cut->lock);
    cut->n_abilities++;
    cut->is_cooperative = msg->is_cooperative;
    orr_str_copy(cut->why_not, sizeof cut->why_not, msg->why_not);
    pthread_cond_broadcast(&cut->changed);
    pthread_mutex_unlock(&cut->lock);
    return ORR_OK;
}

static enum orr_err take_idle(void *arg, const struct orr_msg_rank_idle *msg)
{
    struct cut *cut = arg;
    pthread_mutex_lock(&cut->lock);
    cut->n_idle++;
    cut->n_over += msg->clocks.n == 0;
    for (uint32_t i = 0; i < msg->pauses.n; i++)
        if (msg->pauses.at[i].pause == ORR_PAUSE_SILENT) {
            cut->silent_rank = msg->pauses.at[i].rank;
            cut->n_silent++;
        }
    if (msg->clocks.n) {
        snprintf(cut->idle_op,
                 sizeof cut->idle_op,
                 "%s",
                 orr_clock_op_name(msg->clocks.at[0].op));
        cut->idle_rank = msg->clocks.at[0].rank;
    }
    pthread_cond_broadcast(&cut->changed);
    pthread_mutex_unlock(&cut->lock);
    return ORR_OK;
}

/* Holds the lock; false after `until`. */
static bool wait_changed(struct cut *cut, uint64_t until_ms)
{
    struct timespec until = {.tv_sec = (time_t)(until_ms / 1000),
                             .tv_nsec = (long)(until_ms % 1000) * 1000000};
    return pthread_cond_clockwait(&cut->changed, &cut->lock, CLOCK_MONOTONIC, &until) ==
           0;
}

void cut_wait(struct cut *cut, _Atomic uint32_t *count, uint32_t n)
{
    uint64_t until_ms = now_ms() + PATIENCE_MS;
    pthread_mutex_lock(&cut->lock);
    while (*count < n && wait_changed(cut, until_ms))
        ;
    uint32_t got = *count;
    pthread_mutex_unlock(&cut->lock);
    assert_true(got >= n);
}

void cut_wait_shared(_Atomic uint32_t *count, uint32_t n)
{
    uint64_t until_ms = now_ms() + PATIENCE_MS;
    while (*count < n && now_ms() < until_ms)
        nap();
    assert_true(*count >= n);
}

/* ---- set up ------------------------------------------------------------------------------- */

/* What a job would keep. */
static enum orr_err take_posts(void *arg, const struct orr_msg_job_posts *msg)
{
    struct cut *cut = arg;
    cut->n_posts += msg->posts.n;
    return ORR_OK;
}

void cut_open_edge(struct cut *cut)
{
    struct orr_error err;
    const struct orr_rank_edge_config config = {.run = cut->run,
                                                .node = "n1",
                                                .arenas = cut->arenas,
                                                .grace_ms =
                                                    cut->grace_ms ? cut->grace_ms : 50,
                                                .idle_ms = 300};
    assert_int_equal(orr_rank_edge_open(&config, &cut->edge, &err), ORR_OK);
    orr_rank_edge_attach(cut->edge,
                         &(struct orr_rank_sink){.report = take_report,
                                                 .ability = take_ability,
                                                 .idle = take_idle,
                                                 .posts = take_posts,
                                                 .arg = cut});
}

void cut_close_edge(struct cut *cut)
{
    orr_rank_edge_attach(cut->edge, NULL);
    orr_rank_edge_close(cut->edge);
    cut->edge = NULL;
}

void cut_expect(struct cut *cut, uint32_t rank, uint32_t process, uint64_t arena_bytes)
{
    struct orr_error err = {.text = ""};
    const struct orr_msg_rank_expect msg = {.job = ORR_LIT("r-1"),
                                            .generation = cut->generation,
                                            .rank = rank,
                                            .link = LINK,
                                            .process = process,
                                            .arena_bytes = arena_bytes};
    if (orr_rank_edge_expect(cut->edge, &msg, &err) != ORR_OK)
        fail_msg("%s", err.text);
}

void cut_prepare(struct cut *cut, uint32_t world)
{
    memset(cut, 0, sizeof *cut);
    pthread_mutex_init(&cut->lock, NULL);
    pthread_cond_init(&cut->changed, NULL);
    strcpy(cut->dir, "/tmp/orrery-rank-XXXXXX");
    assert_non_null(mkdtemp(cut->dir));
    snprintf(cut->run, sizeof cut->run, "%s/run", cut->dir);
    snprintf(cut->shared_path, sizeof cut->shared_path, "%s/shared", cut->dir);
    strcpy(cut->arenas, "/dev/shm/orrery-rank-XXXXXX");
    assert_non_null(mkdtemp(cut->arenas));
    int fd = open(cut->shared_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0 && ftruncate(fd, sizeof *cut->shared) == 0);
    cut->shared =
        mmap(NULL, sizeof *cut->shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    assert_true(cut->shared != MAP_FAILED);
    cut->world = world;
    cut->generation = 1;
    cut->timeout_ms = PATIENCE_MS;
}

void cut_set_up(struct cut *cut, uint32_t world)
{
    cut_prepare(cut, world);
    cut_open_edge(cut);
}

void cut_wait_progress(struct cut *cut)
{
    for (uint32_t r = 0; r < cut->world; r++) {
        uint64_t before = cut->shared->issued[0][r], until_ms = now_ms() + PATIENCE_MS;
        while (cut->shared->issued[0][r] <= before + PROBE_AHEAD && now_ms() < until_ms)
            nap();
        assert_true(cut->shared->issued[0][r] > before + PROBE_AHEAD);
    }
}

void cut_start_rank(struct cut *cut,
                    const char *probe,
                    uint32_t rank,
                    uint32_t n_threads,
                    const char *mode)
{
    char link[128] = "ORRERY_RANK_LINK=", rank_text[32], world[32], threads[16],
         gen[40];
    orr_rank_link_path(
        cut->run, LINK, rank, link + strlen(link), sizeof link - strlen(link));
    snprintf(rank_text, sizeof rank_text, "RANK=%u", rank);
    snprintf(world, sizeof world, "WORLD_SIZE=%u", cut->world);
    snprintf(threads, sizeof threads, "%u", n_threads);
    snprintf(
        gen, sizeof gen, "ORRERY_GENERATION=%llu", (unsigned long long)cut->generation);
    char job[] = "ORRERY_JOB=r-1", lost[] = "ORRERY_RANK_LOST_MS=4000";
    char *env[] = {link, rank_text, world, gen, job, lost, NULL};
    char *argv[] = {(char *)(uintptr_t)probe,
                    cut->shared_path,
                    threads,
                    (char *)(uintptr_t)mode,
                    NULL};
    assert_int_equal(posix_spawn(&cut->pids[rank], probe, NULL, NULL, argv, env), 0);
}

void cut_start(struct cut *cut, const char *probe, uint32_t n_threads, const char *mode)
{
    for (uint32_t r = 0; r < cut->world; r++)
        cut_expect(cut, r, 0, 0);
    for (uint32_t r = 0; r < cut->world; r++)
        cut_start_rank(cut, probe, r, n_threads, mode);
    cut_wait(cut, &cut->n_abilities, cut->world);
    cut_wait_shared(&cut->shared->n_started, cut->world);
}

void cut_end(struct cut *cut)
{
    int status;
    cut->shared->is_over = 1;
    for (uint32_t r = 0; r < cut->world; r++)
        if (cut->pids[r] > 0) {
            assert_int_equal(waitpid(cut->pids[r], &status, 0), cut->pids[r]);
            assert_int_equal(status, 0);
            cut->pids[r] = 0;
        }
    assert_int_equal(cut->shared->n_bad, 0);
}

void cut_kill(struct cut *cut)
{
    for (uint32_t r = 0; r < cut->world; r++) {
        kill(cut->pids[r], SIGKILL);
        waitpid(cut->pids[r], NULL, 0);
        cut->pids[r] = 0;
    }
}

void cut_tear_down(struct cut *cut)
{
    cut_close_edge(cut);
    free(cut->report);
    munmap(cut->shared, sizeof *cut->shared);
    unlink(cut->shared_path);
    assert_int_equal(rmdir(cut->run), 0); /* no socket was left */
    assert_int_equal(rmdir(cut->dir), 0);
    assert_int_equal(rmdir(cut->arenas), 0); /* no arena either */
}

/* ---- the job's side ----------------------------------------------------------------------- */

static void keep_report(void *arg, const struct orr_msg_cut_report *report)
{
    struct cut *cut = arg;
    free(cut->report);
    cut->report = malloc(orr_msg_size(orr_msg_desc_cut_report(), report));
    assert_non_null(cut->report);
    orr_msg_copy(orr_msg_desc_cut_report(), report, cut->report);
}

bool cut_tell_resume(struct cut *cut, bool has_all_ids)
{
    struct orr_error err = {.text = ""};
    const struct orr_rec_rank_place moved = {.rank = 0, .node = ORR_LIT("GPU-zero")};
    const struct orr_msg_cut_step msg = {.job = ORR_LIT("r-1"),
                                         .generation = cut->generation,
                                         .cut = cut->cut,
                                         .step = ORR_CUT_RESUME,
                                         .timeout_ms = cut->timeout_ms,
                                         .round = cut->round,
                                         .ranks = {&moved, 1},
                                         .has_all_ids = has_all_ids};
    if (orr_rank_edge_step(cut->edge, &msg, keep_report, cut, &err) != ORR_OK)
        fail_msg("%s", err.text);
    return cut->report->has_all_ids;
}

uint32_t cut_step(struct cut *cut, uint32_t step, bool is_detached)
{
    struct orr_error err = {.text = ""};
    uint64_t until_ms = now_ms() + 2 * PATIENCE_MS;
    struct orr_msg_cut_step msg = {.job = ORR_LIT("r-1"),
                                   .generation = cut->generation,
                                   .cut = cut->cut,
                                   .step = step,
                                   .timeout_ms = cut->timeout_ms,
                                   .round = cut->round,
                                   .is_detached = is_detached};
    const struct orr_rec_rank_place moved = {.rank = 0, .node = ORR_LIT("GPU-zero")};
    if (step == ORR_CUT_RESUME)
        msg.ranks = (struct orr_list_rank_place){&moved, 1};
    msg.targets.at = cut->targets;
    msg.targets.n = step == ORR_CUT_TARGETS ? cut->n_targets : 0;
    for (;;) {
        uint32_t seen = cut->n_reports;
        if (orr_rank_edge_step(cut->edge, &msg, keep_report, cut, &err) != ORR_OK)
            fail_msg("%s", err.text);
        if (cut->report->step == step && cut->report->state != ORR_STEP_WORKING)
            return cut->report->state;
        if (step == ORR_CUT_TARGETS)
            return ORR_STEP_WORKING;
        if (cut->report->has_all_ids && !msg.has_all_ids) { /* this is the whole job */
            msg.has_all_ids = true;
            continue;
        }
        pthread_mutex_lock(&cut->lock);
        while (cut->n_reports == seen && wait_changed(cut, until_ms))
            ;
        pthread_mutex_unlock(&cut->lock);
        assert_true(now_ms() < until_ms);
    }
}

uint32_t cut_count_arenas(const struct cut *cut)
{
    uint32_t n = 0;
    DIR *list = opendir(cut->arenas);
    assert_non_null(list);
    for (struct dirent *e; (e = readdir(list)) != NULL;)
        n += e->d_name[0] != '.';
    closedir(list);
    return n;
}

void cut_fill_arenas(struct cut *cut, uint8_t *const *bytes, const size_t *len)
{
    struct orr_error err;
    const struct orr_msg_cut_step msg = {.job = ORR_LIT("r-1"),
                                         .generation = cut->generation,
                                         .cut = 0,
                                         .step = ORR_CUT_SAVE};
    assert_int_equal(orr_rank_edge_step(cut->edge, &msg, keep_report, cut, &err),
                     ORR_OK);
    assert_int_equal(cut->report->arenas.n, cut->world);
    for (uint32_t i = 0; i < cut->report->arenas.n; i++) {
        const struct orr_rec_rank_arena *a = &cut->report->arenas.at[i];
        int fd = open(a->path.ptr, O_WRONLY | O_CLOEXEC);
        assert_int_equal(write(fd, bytes[a->rank], len[a->rank]), len[a->rank]);
        close(fd);
    }
}

static uint64_t
most_issued(const struct orr_list_clock *clocks, uint64_t comm, uint32_t *n)
{
    uint64_t most = 0;
    *n = 0;
    for (uint32_t i = 0; i < clocks->n; i++)
        if (clocks->at[i].comm == comm) {
            *n += 1;
            if (clocks->at[i].issued > most)
                most = clocks->at[i].issued;
        }
    return most;
}

/* The targets of collective clocks; true: they have changed. */
static bool aim(struct cut *cut)
{
    static struct orr_rec_clock fresh[ORR_ARRAY_SIZE(cut->targets)];
    const struct orr_list_clock *clocks = &cut->report->clocks;
    uint32_t n = 0, members;
    for (uint32_t i = 0; i < clocks->n; i++) {
        fresh[n] = clocks->at[i];
        fresh[n].issued = most_issued(clocks, fresh[n].comm, &members);
        fresh[n].op = 0;
        fresh[n].idle_ms = 0;
        n++;
        if (members < clocks->at[i].n && fresh[n - 1].issued > 0) {
            fresh[n] = fresh[n - 1];
            fresh[n++].me = UINT32_MAX;
        }
    }
    bool is_new =
        n != cut->n_targets || memcmp(fresh, cut->targets, n * sizeof *fresh) != 0;
    memcpy(cut->targets, fresh, n * sizeof *fresh);
    cut->n_targets = n;
    return is_new;
}

uint32_t cut_make(struct cut *cut)
{
    uint64_t until_ms = now_ms() + 2 * PATIENCE_MS;
    cut->cut++;
    cut->round = cut->n_targets = 0;
    uint32_t state = cut_step(cut, ORR_CUT_BEGIN, false);
    bool is_new = true;
    aim(cut);
    while (state != ORR_STEP_FAILED && now_ms() < until_ms) {
        uint32_t seen = cut->n_reports;
        cut->round += is_new;
        state = cut_step(cut, ORR_CUT_TARGETS, false);
        is_new = aim(cut); /* somebody has raised a target */
        if (state == ORR_STEP_FAILED || (state == ORR_STEP_DONE && !is_new))
            return state;
        pthread_mutex_lock(&cut->lock);
        if (cut->n_reports == seen && !is_new)
            wait_changed(cut, now_ms() + 20);
        pthread_mutex_unlock(&cut->lock);
    }
    return state;
}

void cut_check(struct cut *cut, uint32_t n_threads)
{
    for (uint32_t t = 0; t < n_threads; t++)
        for (uint32_t r = 1; r < cut->world; r++)
            assert_int_equal(cut->shared->issued[t][r], cut->shared->issued[t][0]);
    for (uint32_t i = 0; i < cut->report->clocks.n; i++) {
        const struct orr_rec_clock *c = &cut->report->clocks.at[i];
        if (c->comm >= 100)
            assert_int_equal(c->issued, cut->shared->issued[c->comm - 100][c->rank]);
    }
}
