/* SPDX-License-Identifier: Apache-2.0
 * process_fixture.c - process_fixture.h.
 */
#include "process_fixture.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "orr_test.h"

enum { WAIT_S = 20 };

int fixture_dispatch(int argc, char **argv, int *ret_exit)
{
    if (argc < 2 || strcmp(argv[1], ORR_SPAWNER_ARG) != 0)
        return 0;
    *ret_exit = orr_spawner_main(argc, argv);
    return 1;
}

/* ---- the sink
 * ------------------------------------------------------------------------------- */

static struct told *find(struct fixture *f, struct orr_process_id id)
{
    for (uint32_t i = 0; i < f->n_told; i++) {
        struct told *t = &f->told[i];
        if (orr_str_eq(orr_str(t->job), id.job) && t->generation == id.generation &&
            t->rank == id.rank)
            return t;
    }
    return NULL;
}

static void store(struct fixture *f, const struct orr_rec_rank_row *row)
{
    struct told *t =
        find(f, (struct orr_process_id){row->job, row->generation, row->rank});
    if (!t && f->n_told < FIXTURE_RANKS_MAX)
        t = &f->told[f->n_told++];
    if (!t)
        return;
    *t = (struct told){.generation = row->generation,
                       .is_frozen = row->is_frozen,
                       .is_told = row->is_told,
                       .cut = row->cut,
                       .cut_step = row->cut_step,
                       .rank = row->rank,
                       .state = row->state,
                       .pid = row->pid,
                       .device = row->device,
                       .signal = row->signal,
                       .level = row->level,
                       .exit_code = row->exit_code};
    orr_str_copy(t->job, sizeof t->job, row->job);
    orr_str_copy(t->reason, sizeof t->reason, row->reason);
    orr_str_copy(t->why, sizeof t->why, row->why_level);
    orr_str_copy(t->tail, sizeof t->tail, row->stderr_tail);
}

static enum orr_err on_found(void *arg, struct orr_list_rank_row ranks)
{
    struct fixture *f = arg;
    pthread_mutex_lock(&f->lock);
    enum orr_err rc = f->n_refusals > 0 ? (f->n_refusals--, ORR_EBUSY) : ORR_OK;
    for (uint32_t i = 0; i < ranks.n && rc == ORR_OK; i++)
        store(f, &ranks.at[i]);
    f->n_found += rc == ORR_OK;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    return rc;
}

static enum orr_err on_event(void *arg, const struct orr_rec_rank_row *row)
{
    struct fixture *f = arg;
    pthread_mutex_lock(&f->lock);
    enum orr_err rc = f->n_refusals > 0 ? (f->n_refusals--, ORR_EBUSY) : ORR_OK;
    if (rc == ORR_OK)
        store(f, row);
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    return rc;
}

static enum orr_err on_done(void *arg, const struct orr_process_done *done)
{
    struct fixture *f = arg;
    pthread_mutex_lock(&f->lock);
    struct finished *at = &f->finished[done->tag % FIXTURE_DONE_MAX];
    *at = (struct finished){.is_done = true,
                            .code = done->code,
                            .bytes = done->bytes,
                            .took_ms = done->took_ms,
                            .paused_ms = done->paused_ms};
    orr_str_copy(at->text, sizeof at->text, done->text);
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    return ORR_OK;
}

static enum orr_err on_ability(void *arg, const struct orr_process_ability *ability)
{
    struct fixture *f = arg;
    pthread_mutex_lock(&f->lock);
    f->has_ability = true;
    f->is_able = ability->is_able;
    orr_str_copy(f->ability, sizeof f->ability, ability->text);
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    return ORR_OK;
}

/* ---- open and close
 * -------------------------------------------------------------------------- */

void fixture_attach(struct fixture *f)
{
    const struct orr_process_sink sink = {on_found, on_event, on_done, on_ability, f};
    f->process->ops->attach(f->process, &sink);
}

void fixture_open(struct fixture *f)
{
    f->config.state_dir = f->dir;
    f->n_found = 0;
    if (orr_process_linux_open(&f->config, &f->process, &f->err) != ORR_OK)
        fail_msg("%s", f->err.text);
    fixture_attach(f);
}

void fixture_close(struct fixture *f)
{
    f->process->ops->attach(f->process, NULL);
    f->process->ops->close(f->process);
    f->process = NULL;
}

int fixture_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    strcpy(f->dir, "/tmp/orr-process-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    fixture_open(f);
    *state = f;
    return 0;
}

static int
remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

int fixture_teardown(void **state)
{
    struct fixture *f = *state;
    if (f->process)
        fixture_close(f);
    for (uint32_t i = 0; i < f->n_told; i++) {
        if (f->told[i].state == ORR_RANK_RUNNING && f->told[i].pid)
            kill((pid_t)f->told[i].pid, SIGKILL);
    }
    for (uint32_t i = 0; i < f->n_told; i++) { /* their keepers still write */
        if (f->told[i].state == ORR_RANK_RUNNING && f->told[i].pid)
            fixture_wait_gone((pid_t)f->told[i].pid);
    }
    for (int i = 0;
         i < 1000 && nftw(f->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0;
         i++)
        usleep(1000);
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->changed);
    free(f);
    return 0;
}

int fixture_main(int argc, char **argv, const struct CMUnitTest *tests, size_t n)
{
    int exit_code;
    if (fixture_dispatch(argc, argv, &exit_code))
        return exit_code;
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return _cmocka_run_group_tests("tests", tests, n, NULL, NULL);
}

/* ---- use
 * ---------------------------------------------------------------------------------------
 */

enum orr_err fixture_launch(struct fixture *f,
                            struct orr_process_id id,
                            const char *workdir,
                            const char *const *argv)
{
    struct orr_rec_text args[16];
    uint32_t n = 0;
    for (; argv[n]; n++)
        args[n].value = orr_str(argv[n]);
    const struct orr_rec_env_var env[] = {
        {ORR_LIT("ORRERY_TEST"), ORR_LIT("a value")},
        {ORR_LIT("HOME"), ORR_LIT("/given")},
    };
    struct orr_process_launch launch = {.id = id,
                                        .device = 3,
                                        .command = {args, n},
                                        .env = {env, 2},
                                        .workdir = orr_str(workdir)};
    return f->process->ops->launch(f->process, &launch, &f->err);
}

enum orr_err fixture_sh(struct fixture *f, const char *job, const char *script)
{
    return fixture_launch(f,
                          (struct orr_process_id){orr_str(job), 1, 0},
                          "/tmp",
                          (const char *const[]){"sh", "-c", script, NULL});
}

enum orr_err fixture_signal(struct fixture *f, const char *job, uint32_t signal)
{
    struct orr_process_id id = {orr_str(job), 1, 0};
    return f->process->ops->signal(f->process, &id, signal, &f->err);
}

struct told fixture_wait_id(struct fixture *f, struct orr_process_id id, uint32_t state)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_S;
    pthread_mutex_lock(&f->lock);
    struct told *t = find(f, id);
    int rc = 0;
    while ((!t || t->state != state) && rc == 0) {
        rc = pthread_cond_timedwait(&f->changed, &f->lock, &until);
        t = find(f, id);
    }
    struct told copy = t ? *t : (struct told){0};
    pthread_mutex_unlock(&f->lock);
    if (rc != 0)
        fail_msg("rank %.*s.%lu.%u: %s expected, it is %s (%s)",
                 ORR_STR_ARGS(id.job),
                 (unsigned long)id.generation,
                 id.rank,
                 orr_rank_state_name(state),
                 t ? orr_rank_state_name(copy.state) : "not told",
                 copy.reason);
    return copy;
}

struct told fixture_wait(struct fixture *f, const char *job, uint32_t state)
{
    return fixture_wait_id(f, (struct orr_process_id){orr_str(job), 1, 0}, state);
}

struct finished fixture_finish(struct fixture *f, uint64_t tag)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 3 * WAIT_S;
    pthread_mutex_lock(&f->lock);
    int rc = 0;
    while (!f->finished[tag].is_done && rc == 0)
        rc = pthread_cond_timedwait(&f->changed, &f->lock, &until);
    struct finished copy = f->finished[tag];
    pthread_mutex_unlock(&f->lock);
    if (rc != 0)
        fail_msg("task %lu is never done", (unsigned long)tag);
    return copy;
}

static struct finished refused(struct fixture *f, enum orr_err rc)
{
    struct finished result = {.code = rc};
    orr_str_copy(result.text, sizeof result.text, orr_str(f->err.text));
    return result;
}

struct finished
fixture_freeze(struct fixture *f, struct orr_process_id id, bool is_frozen)
{
    uint64_t tag = ++f->n_tags;
    assert_true(tag < FIXTURE_DONE_MAX);
    enum orr_err rc = f->process->ops->freeze(f->process, &id, is_frozen, tag, &f->err);
    return rc == ORR_OK ? fixture_finish(f, tag) : refused(f, rc);
}

enum orr_err fixture_image_begin(struct fixture *f,
                                 struct orr_process_id id,
                                 const char *dir,
                                 bool leave_running,
                                 uint64_t *ret_tag)
{
    const struct orr_process_image image = {
        .dir = orr_str(dir), .leave_running = leave_running, .timeout_ms = 30000};
    *ret_tag = ++f->n_tags;
    assert_true(*ret_tag < FIXTURE_DONE_MAX);
    return f->process->ops->image(f->process, &id, &image, *ret_tag, &f->err);
}

struct finished fixture_image(struct fixture *f,
                              struct orr_process_id id,
                              const char *dir,
                              bool leave_running)
{
    uint64_t tag;
    enum orr_err rc = fixture_image_begin(f, id, dir, leave_running, &tag);
    return rc == ORR_OK ? fixture_finish(f, tag) : refused(f, rc);
}

bool fixture_ability(struct fixture *f)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 3 * WAIT_S;
    pthread_mutex_lock(&f->lock);
    int rc = 0;
    while (!f->has_ability && rc == 0)
        rc = pthread_cond_timedwait(&f->changed, &f->lock, &until);
    bool is_able = f->is_able;
    pthread_mutex_unlock(&f->lock);
    assert_int_equal(rc, 0);
    return is_able;
}

uint32_t fixture_found(struct fixture *f, struct told all[FIXTURE_RANKS_MAX])
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_S;
    pthread_mutex_lock(&f->lock);
    int rc = 0;
    while (f->n_found == 0 && rc == 0)
        rc = pthread_cond_timedwait(&f->changed, &f->lock, &until);
    uint32_t n = f->n_told;
    memcpy(all, f->told, n * sizeof *all);
    pthread_mutex_unlock(&f->lock);
    assert_int_equal(rc, 0);
    return n;
}

const char *fixture_log(struct fixture *f, const char *job, uint32_t stream)
{
    static char buf[16384];
    struct orr_process_log log;
    struct orr_process_id id = {orr_str(job), 1, 0};
    if (f->process->ops->log_read(f->process,
                                  &id,
                                  stream,
                                  0,
                                  (uint8_t *)buf,
                                  sizeof buf - 1,
                                  &log,
                                  &f->err) != ORR_OK)
        fail_msg("%s", f->err.text);
    buf[log.len] = '\0';
    return buf;
}

void fixture_wait_log(struct fixture *f, const char *job, const char *text)
{
    for (int i = 0; i < WAIT_S * 1000; i++) {
        if (strstr(fixture_log(f, job, 1), text))
            return;
        usleep(1000);
    }
    fail_msg(
        "the log of %s never had \"%s\": \"%s\"", job, text, fixture_log(f, job, 1));
}

/* ---- other processes
 * ----------------------------------------------------------------------------- */

static bool read_stat(pid_t pid, char *ret_name, char *ret_state, pid_t *ret_parent)
{
    char path[32], buf[256];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool ok = fgets(buf, sizeof buf, file) != NULL;
    fclose(file);
    char *open = ok ? strchr(buf, '(') : NULL, *close = ok ? strrchr(buf, ')') : NULL;
    if (!open || !close || close - open > 32)
        return false;
    *close = '\0';
    strcpy(ret_name, open + 1);
    *ret_state = close[2];
    *ret_parent = (pid_t)atoi(close + 4);
    return true;
}

void fixture_wait_gone(pid_t pid)
{
    char name[40], state;
    pid_t parent;
    for (int i = 0; i < WAIT_S * 1000; i++) {
        if (!read_stat(pid, name, &state, &parent) || state == 'Z' || state == 'X')
            return;
        usleep(1000);
    }
    fail_msg("process %d (%s) is still there", (int)pid, name);
}

pid_t fixture_parent(pid_t pid)
{
    char name[40], state;
    pid_t parent;
    assert_true(read_stat(pid, name, &state, &parent));
    return parent;
}

pid_t fixture_spawner(void)
{
    char name[40], state;
    pid_t parent;
    for (int i = 0; i < WAIT_S * 100; i++) {
        DIR *proc = opendir("/proc");
        struct dirent *entry;
        pid_t found = 0;
        while (proc && !found && (entry = readdir(proc))) {
            pid_t pid = (pid_t)atoi(entry->d_name);
            if (pid > 0 && read_stat(pid, name, &state, &parent) &&
                parent == getpid() && state != 'Z' &&
                strcmp(name, "orrery-spawner") == 0)
                found = pid;
        }
        closedir(proc);
        if (found)
            return found;
        usleep(10000);
    }
    fail_msg("no spawner");
    return 0;
}
