/* SPDX-License-Identifier: Apache-2.0
 * process_linux.c - opening and closing, and the callers' side of the op table
 * (process_linux.h, edge.h).
 */
#include "process_linux.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "edge.h"
#include "image_probe.h"
#include "rank_tree.h"

enum { LOCK_MS_MAX = 1000, LOCK_PAUSE_US = 5000 };

static struct orri_edge *edge_of(struct orr_process *process)
{
    return (struct orri_edge *)process;
}

/* ---- signal, forget, attach
 * ------------------------------------------------------------------ */

struct target {
    pid_t rank;
    uint64_t rank_start;
    pid_t keeper;
    bool is_frozen;
};

/* What the lease stopped goes on as a whole, unless it is also frozen, and by the same means.  A rank that is killed while it is
 * frozen is one that goes on elsewhere: its connections must not be closed. */
static int
send_signal(struct orri_edge *edge, const char *key, struct target t, int sig)
{
    struct orri_env env = {.is_image = false};
    int dir = t.is_frozen
                  ? openat(edge->ranks_dir, key, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
                  : -1;
    if (dir >= 0 && orri_env_read(dir, &env) != ORRI_READ_OK)
        env.cgroup[0] = '\0';
    if (dir >= 0)
        close(dir);
    if (sig == SIGCONT && t.is_frozen && !*env.cgroup)
        return 0;
    if (sig == SIGKILL && t.is_frozen)
        (void)orri_overlay_link(&env.overlay, false, -1, "");
    int rc = orri_rank_signal(edge, key, t.rank, t.rank_start, sig);
    if (rc == 0 && sig == SIGCONT && t.keeper > 0)
        orri_tree_signal(t.keeper, SIGCONT);
    if (rc == 0 && sig == SIGKILL && t.is_frozen && *env.cgroup)
        orri_cgroup_let_die(env.cgroup);
    return rc;
}

/* Locks, whatever it finds: *ret_rank is NULL for one that is not known here, or not any more. */
static enum orr_err lock_rank(struct orri_edge *edge,
                              const struct orr_process_id *id,
                              char key[ORRI_KEY_MAX],
                              struct orri_rank **ret_rank,
                              struct orr_error *err)
{
    enum orr_err rc = orri_key_make(id, key, err);
    if (rc != ORR_OK)
        return rc;
    pthread_mutex_lock(&edge->lock);
    struct orri_rank *rank = orri_rank_table_find(&edge->table, key);
    *ret_rank = rank && !rank->is_forgotten ? rank : NULL;
    return ORR_OK;
}

static enum orr_err edge_signal(struct orr_process *process,
                                const struct orr_process_id *id,
                                uint32_t signal,
                                struct orr_error *err)
{
    struct orri_edge *edge = edge_of(process);
    char key[ORRI_KEY_MAX];
    enum orr_err rc = orri_key_make(id, key, err);
    if (rc != ORR_OK)
        return rc;
    if (signal == 0 || signal > (uint32_t)SIGRTMAX)
        return orr_fail(err, ORR_EINVAL, "signal: %u; 1 to %d", signal, SIGRTMAX);
    /* Sent in time, it may have waited while this host stood still. */
    if (signal == SIGCONT && orri_lease_left_ms(edge->lease) == 0)
        return orr_fail(
            err, ORR_EBUSY, "rank %s: the lease is over; renew it first", key);
    pthread_mutex_lock(&edge->lock);
    struct orri_rank *rank = orri_rank_table_find(&edge->table, key);
    bool is_known = rank && !rank->is_forgotten,
         has_ended = rank && orri_rank_has_ended(rank);
    pid_t pid = rank ? rank->pid : 0, keeper = rank ? rank->keeper : 0;
    bool is_stopped = rank && rank->is_frozen;
    bool is_halted =
        rank && rank->is_in_image && signal == SIGCONT; /* goes on when that is done */
    uint64_t start = rank ? rank->pid_start : 0;
    if (is_known && rank->state == ORR_RANK_STARTING && rank->pending_signal != SIGKILL)
        rank->pending_signal = signal;
    pthread_mutex_unlock(&edge->lock);
    if (!is_known)
        return orr_fail(err, ORR_ENOENT, "rank %s: not known here", key);
    if (!has_ended && (pid == 0 || is_halted))
        return ORR_OK; /* when it is up */
    int error = has_ended ? ESRCH
                          : send_signal(edge,
                                        key,
                                        (struct target){pid, start, keeper, is_stopped},
                                        (int)signal);
    if (error == ESRCH)
        return orr_fail(err, ORR_EGONE, "rank %s: has ended", key);
    if (error)
        return orr_fail(err,
                        ORR_EIO,
                        "rank %s: cannot send signal %u: %s",
                        key,
                        signal,
                        strerror(error));
    return ORR_OK;
}

static enum orr_err edge_stop_note(struct orr_process *process,
                                   const struct orr_process_id *id,
                                   const struct orr_process_stop *stop,
                                   struct orr_error *err)
{
    struct orri_edge *edge = edge_of(process);
    struct orri_rank *rank;
    char key[ORRI_KEY_MAX];
    enum orr_err rc = lock_rank(edge, id, key, &rank, err);
    if (rc != ORR_OK)
        return rc;
    bool has_ended = rank && orri_rank_has_ended(rank);
    if (rank && !has_ended) {
        rank->cut = stop->cut;
        rank->cut_step = stop->step;
        rank->device = stop->device;
        rank->visible = stop->visible;
    }
    pthread_mutex_unlock(&edge->lock);
    if (!rank)
        return orr_fail(err, ORR_ENOENT, "rank %s: not known here", key);
    if (has_ended)
        return orr_fail(err, ORR_EGONE, "rank %s: has ended", key);
    int dir = openat(edge->ranks_dir, key, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int error =
        dir < 0
            ? errno
            : orri_stop_write(dir,
                              &(struct orri_stop){
                                  stop->cut, stop->step, stop->device, stop->visible});
    if (dir >= 0)
        close(dir);
    return error ? orr_fail(err,
                            ORR_EIO,
                            "rank %s: cannot note its stop: %s",
                            key,
                            strerror(error))
                 : ORR_OK;
}

static enum orr_err edge_forget(struct orr_process *process,
                                const struct orr_process_id *id,
                                struct orr_error *err)
{
    struct orri_edge *edge = edge_of(process);
    struct orri_rank *rank;
    char key[ORRI_KEY_MAX];
    enum orr_err rc = lock_rank(edge, id, key, &rank, err);
    if (rc != ORR_OK)
        return rc;
    bool can_forget = rank && orri_rank_has_ended(rank);
    if (can_forget) {
        rank->is_forgotten = true;
        orri_rank_queue_push(&edge->forgets, rank);
    }
    pthread_mutex_unlock(&edge->lock);
    if (can_forget)
        orri_edge_wake(edge);
    else if (rank)
        return orr_fail(err, ORR_ESTATE, "rank %s: still runs; stop it first", key);
    return ORR_OK;
}

static void edge_attach(struct orr_process *process,
                        const struct orr_process_sink *sink)
{
    struct orri_edge *edge = edge_of(process);
    pthread_mutex_lock(&edge->sink_lock);
    edge->has_sink = sink != NULL;
    edge->is_announced = edge->is_ability_told = false;
    if (sink)
        edge->sink = *sink;
    pthread_mutex_unlock(&edge->sink_lock);
    orri_edge_wake(edge);
}

/* ---- lease and note
 * -------------------------------------------------------------------------- */

static void
edge_lease_set(struct orr_process *process, uint64_t left_ms, uint64_t silent_ms)
{
    orri_lease_set(edge_of(process)->lease, left_ms, silent_ms);
}

static bool edge_lease_get(struct orr_process *process, uint64_t *ret_silent_ms)
{
    return orri_lease_silent_ms(edge_of(process)->lease, ret_silent_ms);
}

static enum orr_err
edge_note_put(struct orr_process *process, struct orr_bytes note, struct orr_error *err)
{
    return orri_note_write(edge_of(process)->state_dir, note.ptr, note.len, err);
}

static size_t edge_note_get(struct orr_process *process, void *buf, size_t cap)
{
    return orri_note_read(edge_of(process)->state_dir, buf, cap);
}

/* ---- open and close
 * --------------------------------------------------------------------------- */

static void edge_close(struct orr_process *process)
{
    struct orri_edge *edge = edge_of(process);
    if (edge->has_thread) {
        pthread_mutex_lock(&edge->lock);
        edge->is_closing = true;
        pthread_mutex_unlock(&edge->lock);
        orri_edge_wake(edge);
        pthread_join(edge->thread, NULL);
    }
    orri_work_stop(edge);
    orri_probe_stop(edge);
    for (size_t i = 0; i < ORRI_BUCKETS; i++) {
        while (!LIST_EMPTY(&edge->table.buckets[i]))
            orri_rank_table_remove(&edge->table, LIST_FIRST(&edge->table.buckets[i]));
    }
    const int fds[] = {edge->epoll_fd,
                       edge->wake_fd,
                       edge->ranks_dir,
                       edge->logs_dir,
                       edge->work.stop_fd,
                       edge->state_dir};
    for (size_t i = 0; i < ORR_ARRAY_SIZE(fds); i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
    orri_lease_close(edge->lease);
    pthread_mutex_destroy(&edge->lock);
    pthread_mutex_destroy(&edge->sink_lock);
    free(edge->ports.held_until_ms);
    free(edge->ranks_path);
    free(edge->state_path);
    free(edge->criu);
    free(edge->init);
    free(edge->plugins);
    free(edge);
}

static const struct orr_process_ops edge_ops = {
    .attach = edge_attach,
    .launch = orri_edge_launch,
    .signal = edge_signal,
    .freeze = orri_edge_freeze,
    .stop_note = edge_stop_note,
    .image = orri_edge_image,
    .widen = orri_edge_widen,
    .forget = edge_forget,
    .log_read = orri_edge_log_read,
    .port_reserve = orri_edge_port_reserve,
    .lease_set = edge_lease_set,
    .lease_get = edge_lease_get,
    .note_put = edge_note_put,
    .note_get = edge_note_get,
    .close = edge_close,
};

static enum orr_err
open_dir(int parent, const char *path, int *ret_fd, struct orr_error *err)
{
    if (mkdirat(parent, path, 0755) == 0 || errno == EEXIST) {
        *ret_fd = openat(parent, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (*ret_fd >= 0)
            return ORR_OK;
    }
    return orr_fail(err,
                    ORR_EIO,
                    "%s: cannot make or open the directory: %s",
                    path,
                    strerror(errno));
}

/* ext4 puts the files of sibling directories close together and does not take inodes
 * again that were freed lately: where thousands of ranks come and go it then searches
 * long for free ones (half of all time).  Spread out, it does not. */
static void spread_children(int dir)
{
    int flags;
    if (ioctl(dir, FS_IOC_GETFLAGS, &flags) == 0) {
        flags |= FS_TOPDIR_FL;
        (void)ioctl(
            dir, FS_IOC_SETFLAGS, &flags); /* other file systems do not need it */
    }
}

/* One host at a time.  A host that was killed while it started its spawner leaves the
 * lock to the child until that one's exec: wait a little. */
static bool lock_state(int dir)
{
    uint64_t deadline_ms = orri_mono_ms() + LOCK_MS_MAX;
    while (flock(dir, LOCK_EX | LOCK_NB) != 0) {
        if (orri_mono_ms() >= deadline_ms)
            return false;
        usleep(LOCK_PAUSE_US);
    }
    return true;
}

static enum orr_err
open_state(struct orri_edge *edge, const char *path, struct orr_error *err)
{
    enum orr_err rc = open_dir(AT_FDCWD, path, &edge->state_dir, err);
    if (rc != ORR_OK)
        return rc;
    if (!lock_state(edge->state_dir))
        return orr_fail(
            err,
            ORR_EEXIST,
            "%s: another host uses this state directory; stop it or name another one",
            path);
    edge->state_path = realpath(path, NULL);
    int n = edge->state_path ? asprintf(&edge->ranks_path, "%s/ranks", edge->state_path)
                             : -1;
    if (n < 0) {
        edge->ranks_path = NULL;
        return orr_fail(err, ORR_ENOMEM, "%s: out of memory", path);
    }
    rc = open_dir(edge->state_dir, "ranks", &edge->ranks_dir, err);
    if (rc != ORR_OK)
        return rc;
    spread_children(edge->ranks_dir);
    edge->lease = orri_lease_open(edge->state_dir, edge->boot, err);
    if (!edge->lease)
        return ORR_EIO;
    return open_dir(edge->state_dir, "logs", &edge->logs_dir, err);
}

static enum orr_err set_config(struct orri_edge *edge,
                               const struct orr_process_linux_config *c,
                               struct orr_error *err)
{
    struct orri_ports *ports = &edge->ports;
    edge->config = *c;
    edge->config.state_dir = edge->config.addr = NULL; /* the caller's */
    edge->config.criu = edge->config.init = NULL;
    edge->config.restore_timeout_ms =
        c->restore_timeout_ms ? c->restore_timeout_ms : 120000;
    edge->config.lazy_bytes_min = c->lazy_bytes_min ? c->lazy_bytes_min : 64 << 20;
    edge->config.ranks_max = c->ranks_max ? c->ranks_max : 16384;
    edge->config.launches_max = c->launches_max ? c->launches_max : 4096;
    edge->config.logs_max = c->logs_max ? c->logs_max : 1000;
    edge->config.log_bytes_max =
        c->log_bytes_max ? c->log_bytes_max : (uint64_t)1 << 30;
    edge->config.start_timeout_ms = c->start_timeout_ms ? c->start_timeout_ms : 30000;
    ports->min = c->port_min ? c->port_min : 20000;
    ports->max = c->port_max ? c->port_max : 29999;
    if (!c->state_dir || !*c->state_dir)
        return orr_fail(err, ORR_EINVAL, "state_dir: empty; name a directory");
    if (ports->min > ports->max)
        return orr_fail(err,
                        ORR_EINVAL,
                        "ports: the range %u to %u is empty",
                        ports->min,
                        ports->max);
    orr_str_copy(
        ports->addr, sizeof ports->addr, orr_str(c->addr ? c->addr : "127.0.0.1"));
    if (orri_ports_init(ports) != ORR_OK)
        return orr_fail(err, ORR_ENOMEM, "process edge: out of memory");
    return ORR_OK;
}

static struct orri_edge *edge_new(void)
{
    struct orri_edge *edge = calloc(1, sizeof *edge);
    if (!edge)
        return NULL;
    edge->base.ops = &edge_ops;
    edge->state_dir = edge->ranks_dir = edge->logs_dir = edge->spawner_fd = -1;
    edge->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    edge->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    edge->spawner_backoff_ms = ORRI_BACKOFF_MIN_MS;
    pthread_mutex_init(&edge->lock, NULL);
    pthread_mutex_init(&edge->sink_lock, NULL);
    orri_rank_table_init(&edge->table);
    edge->work.stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_cond_init(&edge->work.changed, NULL);
    TAILQ_INIT(&edge->work.freezes);
    TAILQ_INIT(&edge->work.images);
    TAILQ_INIT(&edge->work.done);
    orri_rank_queue_init(&edge->launches);
    orri_rank_queue_init(&edge->sent);
    orri_rank_queue_init(&edge->settling);
    orri_rank_queue_init(&edge->events);
    orri_rank_queue_init(&edge->forgets);
    orri_rank_queue_init(&edge->logs);
    orri_boot_id(edge->boot);
    return edge;
}

enum orr_err orr_process_linux_open(const struct orr_process_linux_config *config,
                                    struct orr_process **ret_process,
                                    struct orr_error *err)
{
    struct orri_edge *edge = edge_new();
    if (!edge)
        return orr_fail(err, ORR_ENOMEM, "process edge: out of memory");
    enum orr_err rc = set_config(edge, config, err);
    if (rc == ORR_OK && (edge->epoll_fd < 0 || edge->wake_fd < 0))
        rc = orr_fail(
            err,
            ORR_EIO,
            "process edge: no file descriptors left; raise the limit of open files");
    if (rc == ORR_OK)
        rc = open_state(edge, config->state_dir, err);
    if (rc == ORR_OK && orri_image_setup(edge, config) != ORR_OK)
        rc = orr_fail(err, ORR_ENOMEM, "process edge: out of memory");
    if (rc == ORR_OK)
        rc = orri_edge_adopt(edge, err);
    if (rc == ORR_OK)
        rc = orri_logs_adopt(edge, err);
    if (rc == ORR_OK) {
        (void)orri_probe_start(edge); /* else it stays unknown */
        int error = pthread_create(&edge->thread, NULL, orri_edge_run, edge);
        edge->has_thread = error == 0;
        if (error)
            rc = orr_fail(err,
                          ORR_EIO,
                          "process edge: cannot start its thread: %s",
                          strerror(error));
    }
    if (rc != ORR_OK) {
        edge_close(&edge->base);
        return rc;
    }
    *ret_process = &edge->base;
    return ORR_OK;
}
