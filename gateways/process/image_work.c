/* SPDX-License-Identifier: Apache-2.0
 * image_work.c - image_work.h: freezing a rank, and making an image of it, step by step and back.
 *
 * An image: mark, freeze, link down, stop, CRIU, save the output; then, unless it is to end: link up, go on, unmark.  Whatever fails,
 * the second half is done all the same.  A rank that was frozen before keeps its link down after a good image until it is thawed:
 * what another rank's image has not sent yet must not arrive here after this image was made.  One that is not to go on is killed
 * while it stands still and is cut off: its peers see silence, and then the rank that was restored.
 */
#include "image_work.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "edge.h"
#include "image.h"
#include "rank_tree.h"

enum { FREEZE_MS_MAX = 5000, RUN_MS_MAX = 64, IMAGE_MS = 60000, MEMORY_LOOK_MS = 5 };

struct orri_task {
    TAILQ_ENTRY(orri_task) link;
    char key[ORRI_KEY_MAX];
    bool is_image, is_frozen, leave_running;
    char *dir;     /* owned */
    char *devices; /* owned; NULL: none */
    uint32_t timeout_ms;
    struct orr_process_done result; /* text is err's */
    struct orr_error err;
};

struct subject { /* the rank that a task is about */
    struct orri_edge *edge;
    struct orri_task *task;
    int dir;
    struct orri_meta meta;
    struct orri_env env;
};

static void task_free(struct orri_task *task)
{
    free(task->dir);
    free(task->devices);
    free(task);
}

/* ---- freezing
 * -------------------------------------------------------------------------------- */

/* The rank's cgroup, made when it is first needed; without one its processes are stopped. */
static enum orr_err find_cgroup(struct subject *s)
{
    char name[ORRI_RANK_NAME_MAX];
    if (*s->env.cgroup)
        return ORR_OK;
    orri_rank_name(s->edge->ranks_dir, s->task->key, name);
    if (!orri_cgroup_path(name, s->env.cgroup)) {
        s->env.cgroup[0] = '\0';
        return ORR_OK;
    }
    int rc = orri_env_write(s->dir, &s->env);
    if (rc == 0)
        rc = orri_cgroup_make(s->env.cgroup);
    if (rc == 0 && orri_tree_join(s->meta.keeper, s->env.cgroup))
        return ORR_OK;
    return orr_fail(&s->task->err,
                    ORR_EIO,
                    "rank %s: cannot move its processes into %s: %s",
                    s->task->key,
                    s->env.cgroup,
                    rc ? strerror(rc) : "they start faster than they are moved");
}

static enum orr_err fail_freeze(struct subject *s, bool is_frozen, int error)
{
    return orr_fail(
        &s->task->err,
        error == ETIMEDOUT ? ORR_ETIMEOUT : ORR_EIO,
        "rank %s: cannot %s it: %s",
        s->task->key,
        is_frozen ? "freeze" : "thaw",
        error == ETIMEDOUT
            ? "a process does not stop; it waits for a device or a file system"
            : strerror(error));
}

static int stop_or_continue(struct subject *s, bool is_frozen)
{
    if (*s->env.cgroup)
        return orri_cgroup_freeze(s->env.cgroup, is_frozen, FREEZE_MS_MAX);
    if (is_frozen)
        return orri_tree_stop(s->meta.keeper, FREEZE_MS_MAX) ? 0 : ETIMEDOUT;
    orri_image_resume(s->meta.keeper, s->edge->lease);
    return orri_lease_left_ms(s->edge->lease) == 0 ? EAGAIN : 0;
}

/* Not in the middle of a vfork, where the parent cannot be brought to any other state: CRIU would wait for it for ever.  The child
 * is let run for longer each time, as it may have to wait for a processor. */
static enum orr_err set_frozen(struct subject *s, bool is_frozen)
{
    uint64_t deadline_ms = orri_mono_ms() + FREEZE_MS_MAX;
    int run_ms = 1;
    int error = stop_or_continue(s, is_frozen);
    while (error == 0 && is_frozen && orri_tree_has_vfork(s->meta.keeper)) {
        if (orri_mono_ms() >= deadline_ms)
            error = ETIMEDOUT;
        if (error == 0)
            error = stop_or_continue(s, false);
        poll(NULL, 0, run_ms);
        run_ms = run_ms < RUN_MS_MAX ? 2 * run_ms : run_ms;
        if (error == 0)
            error = stop_or_continue(s, true);
    }
    if (error == EAGAIN)
        return orr_fail(&s->task->err,
                        ORR_EBUSY,
                        "rank %s: the lease is over; renew it first",
                        s->task->key);
    return error ? fail_freeze(s, is_frozen, error) : ORR_OK;
}

static void record_frozen(struct subject *s, bool is_frozen)
{
    (void)orri_mark_set(s->dir, ORRI_MARK_FROZEN, is_frozen);
    pthread_mutex_lock(&s->edge->lock);
    struct orri_rank *rank = orri_rank_table_find(&s->edge->table, s->task->key);
    if (rank)
        rank->is_frozen = is_frozen;
    pthread_mutex_unlock(&s->edge->lock);
}

/* It may have come frozen, from another machine (ADR 0023): then the others still look for it there. */
static void let_be_found(struct subject *s)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/ns/net", (int)s->env.init);
    int ns = s->env.init > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (ns >= 0 && orri_proc_start(s->env.init) != s->env.init_start) {
        close(ns);
        ns = -1;
    }
    (void)orri_overlay_link(&s->env.overlay, true, ns, s->env.address);
    if (ns >= 0)
        close(ns);
}

static enum orr_err do_freeze(struct subject *s)
{
    bool is_frozen = s->task->is_frozen;
    enum orr_err rc = find_cgroup(s);
    if (rc != ORR_OK)
        return rc;
    if (is_frozen)
        record_frozen(s, true);
    else if (orri_mark_get(s->dir, ORRI_MARK_HURT)) /* now it shows */
        (void)orri_mark_set(s->dir, ORRI_MARK_HURT, true);
    rc = set_frozen(s, is_frozen);
    if (rc == ORR_OK && !is_frozen) {
        record_frozen(s, false);
        let_be_found(s);
    } else if (rc != ORR_OK && is_frozen) { /* not by halves */
        struct orr_error first = s->task->err;
        (void)set_frozen(s, false);
        record_frozen(s, false);
        s->task->err = first;
    }
    return rc;
}

/* ---- images
 * ---------------------------------------------------------------------------------- */

static enum orr_err dump(struct subject *s)
{
    char path[ORRI_KEY_MAX + 1024];
    snprintf(path, sizeof path, "%s/%s", s->edge->ranks_path, s->task->key);
    const struct orri_dump d = {
        .criu = {s->edge->criu, s->edge->plugins, s->edge->ability.has_nft},
        .dir = s->task->dir,
        .devices = s->task->devices,
        .rank_dir = s->dir,
        .rank_path = path,
        .init = s->env.init,
        .timeout_ms = s->task->timeout_ms,
        .stop_fd = s->edge->work.stop_fd,
    };
    return orri_image_dump(&d, &s->task->result.bytes, &s->task->err);
}

/* From frozen to stopped, CRIU, and what a failed one left, put right before anything runs again. */
static enum orr_err halt_and_dump(struct subject *s)
{
    (void)orri_overlay_link(&s->env.overlay, false, -1, "");
    if (!orri_image_halt(s->meta.keeper, s->env.cgroup))
        return fail_freeze(s, true, ETIMEDOUT);
    enum orr_err rc = dump(s);
    (void)orri_mark_set(s->dir, ORRI_MARK_HURT, rc != ORR_OK);
    if (rc != ORR_OK)
        orri_image_mend(s->env.init, s->dir);
    unlinkat(s->dir, ORRI_UNDO_FILE, 0);
    return rc;
}

static void go_on(struct subject *s, bool is_frozen, bool is_cut_off)
{
    struct orr_error first = s->task->err;
    if (is_frozen)
        (void)set_frozen(s, true);
    if (!is_cut_off)
        (void)orri_overlay_link(&s->env.overlay, true, -1, "");
    if (!is_frozen)
        (void)orri_cgroup_freeze(s->env.cgroup, false, FREEZE_MS_MAX);
    orri_image_resume(s->meta.keeper, s->edge->lease);
    s->task->err = first;
}

/* CRIU cannot make an image of memory that somebody else still brings. */
static enum orr_err await_memory(struct subject *s)
{
    struct pollfd stop = {.fd = s->edge->work.stop_fd, .events = POLLIN};
    uint64_t from_ms = orri_mono_ms();
    while (orri_mark_get(s->dir, ORRI_MARK_LAZY)) {
        if (orri_proc_start(s->env.init) != s->env.init_start)
            return orr_fail(
                &s->task->err, ORR_EGONE, "rank %s: has ended", s->task->key);
        if (orri_mono_ms() - from_ms >= s->task->timeout_ms)
            return orr_fail(&s->task->err,
                            ORR_ETIMEOUT,
                            "rank %s: is being restored, its memory is not all there "
                            "yet; try again later",
                            s->task->key);
        if (poll(&stop, 1, MEMORY_LOOK_MS) > 0)
            return orr_fail(
                &s->task->err, ORR_EGONE, "rank %s: this host stops", s->task->key);
    }
    uint64_t took_ms = orri_mono_ms() - from_ms;
    s->task->timeout_ms -= took_ms < s->task->timeout_ms ? (uint32_t)took_ms : 0;
    return ORR_OK;
}

/* Somebody called, and went, before the program took the call: CRIU cannot save that, and the program takes it as soon as it runs. */
static bool has_lost_call(const struct subject *s)
{
    return strstr(s->task->err.text, "closed in-flight socket") != NULL;
}

/* At a cut it is cut off, too, while it is let run. */
static enum orr_err freeze_and_dump(struct subject *s, bool was_frozen)
{
    uint64_t deadline_ms = orri_mono_ms() + FREEZE_MS_MAX;
    int run_ms = 1;
    enum orr_err rc = set_frozen(s, true);
    if (rc == ORR_OK)
        rc = halt_and_dump(s);
    while (rc != ORR_OK && has_lost_call(s) && orri_mono_ms() < deadline_ms) {
        go_on(s, false, was_frozen);
        poll(NULL, 0, run_ms);
        run_ms = run_ms < RUN_MS_MAX ? 2 * run_ms : run_ms;
        rc = set_frozen(s, true);
        if (rc == ORR_OK)
            rc = halt_and_dump(s);
    }
    return rc;
}

static enum orr_err do_image(struct subject *s)
{
    if (!s->env.is_image || s->env.init <= 0)
        return orr_fail(&s->task->err,
                        ORR_ENOSYS,
                        "rank %s: has no namespaces of its own%s%s",
                        s->task->key,
                        *s->env.why ? ": " : "",
                        s->env.why);
    enum orr_err there = await_memory(s);
    if (there != ORR_OK)
        return there;
    bool was_frozen = orri_mark_get(s->dir, ORRI_MARK_FROZEN);
    uint64_t from_ms = orri_mono_ms();
    int error = orri_mark_set(s->dir, ORRI_MARK_IMAGING, true);
    enum orr_err rc =
        error ? fail_freeze(s, true, error) : freeze_and_dump(s, was_frozen);
    if (rc == ORR_OK && !s->task->leave_running) {
        (void)orri_mark_set(
            s->dir, ORRI_MARK_IMAGING, false); /* what follows is as asked, no harm */
        kill(s->env.init,
             SIGKILL); /* the keeper has not reaped it, or there were a status */
    } else {
        go_on(s, was_frozen, was_frozen && rc == ORR_OK);
    }
    (void)orri_mark_set(s->dir, ORRI_MARK_IMAGING, false);
    s->task->result.paused_ms = orri_mono_ms() - from_ms;
    return rc;
}

void orri_env_mend(struct orri_edge *edge, int dir, pid_t keeper)
{
    struct orri_env env;
    if (!orri_mark_get(dir, ORRI_MARK_IMAGING) ||
        orri_env_read(dir, &env) != ORRI_READ_OK || env.init <= 0 ||
        orri_proc_start(env.init) != env.init_start)
        return;
    bool is_frozen = orri_mark_get(dir, ORRI_MARK_FROZEN);
    (void)orri_mark_set(dir, ORRI_MARK_HURT, true);
    orri_image_mend(env.init, dir);
    (void)orri_overlay_link(&env.overlay, true, -1, "");
    (void)orri_cgroup_freeze(env.cgroup, is_frozen, FREEZE_MS_MAX);
    orri_image_resume(keeper, edge->lease);
    (void)orri_mark_set(dir, ORRI_MARK_IMAGING, false);
}

/* ---- the threads
 * ----------------------------------------------------------------------------- */

static void run_task(struct orri_edge *edge, struct orri_task *task)
{
    uint64_t from_ms = orri_mono_ms();
    struct subject s = {.edge = edge, .task = task};
    struct orri_status status;
    s.dir = openat(edge->ranks_dir, task->key, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum orr_err rc = ORR_OK;
    if (s.dir < 0 || orri_meta_read(s.dir, &s.meta) != ORRI_READ_OK ||
        orri_status_read(s.dir, &status) != ORRI_READ_ABSENT)
        rc = orr_fail(&task->err, ORR_EGONE, "rank %s: has ended", task->key);
    else if (orri_env_read(s.dir, &s.env) != ORRI_READ_OK)
        s.env = (struct orri_env){.is_image = false};
    if (rc == ORR_OK)
        rc = task->is_image ? do_image(&s) : do_freeze(&s);
    if (s.dir >= 0) {
        if (orri_status_read(s.dir, &status) != ORRI_READ_ABSENT)
            orri_env_end(s.dir); /* it ended meanwhile */
        close(s.dir);
    }
    task->result.code = rc;
    task->result.took_ms = orri_mono_ms() - from_ms;
}

/* Under lock. */
static struct orri_task *take_task(struct orri_work *work)
{
    struct orri_task *task = TAILQ_FIRST(&work->freezes);
    if (task) {
        TAILQ_REMOVE(&work->freezes, task, link);
    } else if (work->n_images < ORRI_WORKERS_MAX / 2 &&
               (task = TAILQ_FIRST(&work->images))) {
        TAILQ_REMOVE(&work->images, task, link);
        work->n_images++;
    }
    return task;
}

/* Under lock. */
static void finish_task(struct orri_edge *edge, struct orri_task *task)
{
    struct orri_rank *rank = orri_rank_table_find(&edge->table, task->key);
    if (rank)
        rank->is_in_work = rank->is_in_image = false;
    if (task->is_image)
        edge->work.n_images--;
    TAILQ_INSERT_TAIL(&edge->work.done, task, link);
    pthread_cond_signal(
        &edge->work.changed); /* an image may have waited for this one */
}

static void *work_run(void *arg)
{
    struct orri_edge *edge = arg;
    struct orri_work *work = &edge->work;
    struct orri_task *task;
    pthread_setname_np(pthread_self(), "orr-image");
    pthread_mutex_lock(&edge->lock);
    while (!edge->is_closing) {
        task = take_task(work);
        if (!task) {
            work->n_idle++;
            pthread_cond_wait(&work->changed, &edge->lock);
            work->n_idle--;
            continue;
        }
        pthread_mutex_unlock(&edge->lock);
        run_task(edge, task);
        pthread_mutex_lock(&edge->lock);
        finish_task(edge, task);
        orri_edge_wake(edge);
    }
    pthread_mutex_unlock(&edge->lock);
    return NULL;
}

void orri_work_stop(struct orri_edge *edge)
{
    struct orri_work *work = &edge->work;
    struct orri_task *task;
    uint64_t one = 1;
    if (work->stop_fd < 0)
        return;
    ssize_t n = write(work->stop_fd, &one, sizeof one);
    (void)n;
    pthread_mutex_lock(&edge->lock);
    pthread_cond_broadcast(&work->changed);
    pthread_mutex_unlock(&edge->lock);
    for (uint32_t i = 0; i < work->n_threads; i++)
        pthread_join(work->threads[i], NULL);
    while ((task = TAILQ_FIRST(&work->freezes)) ||
           (task = TAILQ_FIRST(&work->images)) || (task = TAILQ_FIRST(&work->done))) {
        if (TAILQ_FIRST(&work->freezes) == task)
            TAILQ_REMOVE(&work->freezes, task, link);
        else if (TAILQ_FIRST(&work->images) == task)
            TAILQ_REMOVE(&work->images, task, link);
        else
            TAILQ_REMOVE(&work->done, task, link);
        task_free(task);
    }
    pthread_cond_destroy(&work->changed);
}

enum orr_err orri_work_tell(struct orri_edge *edge)
{
    enum orr_err rc = ORR_OK;
    while (rc == ORR_OK) {
        pthread_mutex_lock(&edge->lock);
        struct orri_task *task = TAILQ_FIRST(&edge->work.done);
        pthread_mutex_unlock(&edge->lock);
        if (!task)
            break;
        task->result.text = orr_str(task->result.code == ORR_OK ? "" : task->err.text);
        rc = edge->sink.done ? edge->sink.done(edge->sink.arg, &task->result) : ORR_OK;
        if (rc != ORR_OK)
            break;
        pthread_mutex_lock(&edge->lock);
        TAILQ_REMOVE(&edge->work.done, task, link);
        edge->work.n_tasks--;
        pthread_mutex_unlock(&edge->lock);
        task_free(task);
    }
    return rc;
}

/* ---- asking for it
 * ---------------------------------------------------------------------------- */

/* Under lock. */
static enum orr_err
add_task(struct orri_edge *edge, struct orri_task *task, struct orr_error *err)
{
    struct orri_work *work = &edge->work;
    struct orri_rank *rank = orri_rank_table_find(&edge->table, task->key);
    if (!rank || rank->is_forgotten)
        return orr_fail(err, ORR_ENOENT, "rank %s: not known here", task->key);
    if (orri_rank_has_ended(rank))
        return orr_fail(err, ORR_EGONE, "rank %s: has ended", task->key);
    if (rank->state != ORR_RANK_RUNNING)
        return orr_fail(err, ORR_ESTATE, "rank %s: is still starting", task->key);
    if (rank->is_in_work)
        return orr_fail(err,
                        ORR_EBUSY,
                        "rank %s: another freeze or image of it goes on",
                        task->key);
    if (work->n_tasks >= ORRI_WORK_MAX)
        return orr_fail(
            err, ORR_EBUSY, "%d freezes and images wait already", ORRI_WORK_MAX);
    if (task->is_image && !rank->is_image)
        return orr_fail(err,
                        ORR_ENOSYS,
                        "rank %s: has no namespaces of its own%s%s",
                        task->key,
                        *rank->why ? ": " : "",
                        rank->why);
    if (work->n_idle == 0 && work->n_threads < ORRI_WORKERS_MAX &&
        pthread_create(&work->threads[work->n_threads], NULL, work_run, edge) == 0)
        work->n_threads++;
    if (work->n_threads == 0)
        return orr_fail(err, ORR_EIO, "no thread left for it");
    rank->is_in_work = true;
    rank->is_in_image = task->is_image;
    work->n_tasks++;
    if (task->is_image)
        TAILQ_INSERT_TAIL(&work->images, task, link);
    else
        TAILQ_INSERT_TAIL(&work->freezes, task, link);
    pthread_cond_signal(&work->changed);
    return ORR_OK;
}

static enum orr_err add(struct orri_edge *edge,
                        const struct orr_process_id *id,
                        struct orri_task *task,
                        struct orr_error *err)
{
    enum orr_err rc = task ? orri_key_make(id, task->key, err)
                           : orr_fail(err, ORR_ENOMEM, "out of memory");
    if (rc == ORR_OK) {
        pthread_mutex_lock(&edge->lock);
        rc = add_task(edge, task, err);
        pthread_mutex_unlock(&edge->lock);
    }
    if (rc != ORR_OK && task)
        task_free(task);
    return rc;
}

enum orr_err orri_edge_freeze(struct orr_process *process,
                              const struct orr_process_id *id,
                              bool is_frozen,
                              uint64_t tag,
                              struct orr_error *err)
{
    struct orri_task *task = calloc(1, sizeof *task);
    if (task) {
        task->is_frozen = is_frozen;
        task->result.tag = tag;
    }
    return add((struct orri_edge *)process, id, task, err);
}

enum orr_err orri_edge_image(struct orr_process *process,
                             const struct orr_process_id *id,
                             const struct orr_process_image *image,
                             uint64_t tag,
                             struct orr_error *err)
{
    struct orri_edge *edge = (struct orri_edge *)process;
    if (image->dir.len == 0 || image->dir.ptr[0] != '/' ||
        memchr(image->dir.ptr, '\0', image->dir.len))
        return orr_fail(err,
                        ORR_EINVAL,
                        "dir: \"%.*s\": must be an absolute path",
                        ORR_STR_ARGS(image->dir));
    if (!*edge->criu)
        return orr_fail(err, ORR_ENOSYS, "no criu here; `make criu` builds one");
    struct orri_task *task = calloc(1, sizeof *task);
    if (task) {
        task->is_image = true;
        task->leave_running = image->leave_running;
        task->timeout_ms = image->timeout_ms ? image->timeout_ms : IMAGE_MS;
        task->result.tag = tag;
        task->dir = strndup(image->dir.ptr, image->dir.len);
        task->devices =
            image->devices.len ? strndup(image->devices.ptr, image->devices.len) : NULL;
        if (!task->dir || (image->devices.len && !task->devices)) {
            task_free(task);
            task = NULL;
        }
    }
    return add(edge, id, task, err);
}
