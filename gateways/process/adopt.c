/* SPDX-License-Identifier: Apache-2.0
 * adopt.c - finding out, from a rank's directory, what has become of it.
 *
 *   status                     it ended: so it says
 *   meta, locked               it runs; its keeper is watched
 *   meta, not locked           its keeper died: the rank is killed for sure, and LOST
 *   no meta, locked            it is being started
 *   no meta, not locked        nobody will start it any more: LOST, written while we
 * hold the lock that a late keeper needs another boot, torn files   LOST
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "edge.h"
#include "image.h"

#define PIDFD_SIGNAL_PROCESS_GROUP_ (1u << 2) /* Linux 6.9 */

int orri_group_signal(pid_t pid, uint64_t start, int sig)
{
    int fd = pidfd_open(pid, 0);
    if (fd < 0)
        return errno;
    int rc = 0;
    if (orri_proc_start(pid) != start)
        rc = ESRCH;
    else if (pidfd_send_signal(fd, sig, NULL, PIDFD_SIGNAL_PROCESS_GROUP_) != 0)
        rc = errno == EINVAL && kill(-pid, sig) == 0 ? 0 : errno;
    close(fd);
    return rc;
}

/* The first time counts: what it does afterwards is what it was told. */
static void note_told(struct orri_edge *edge, const char *key)
{
    int dir =
        openat(edge->ranks_dir, key, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (dir < 0)
        return;
    if (!orri_mark_get(dir, ORRI_MARK_TOLD))
        (void)orri_mark_set(dir, ORRI_MARK_TOLD, true);
    close(dir);
}

int orri_rank_signal(
    struct orri_edge *edge, const char *key, pid_t pid, uint64_t start, int sig)
{
    if (sig == SIGTERM || sig == SIGKILL)
        note_told(edge, key);
    return orri_group_signal(pid, start, sig);
}

static int open_rank(struct orri_edge *edge, const struct orri_rank *rank)
{
    return openat(
        edge->ranks_dir, rank->key, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
}

/* ---- ends
 * --------------------------------------------------------------------------------- */

void orri_edge_watch(struct orri_edge *edge, struct orri_rank *rank, int pidfd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = rank};
    if (rank->watch_fd >= 0) {
        epoll_ctl(edge->epoll_fd, EPOLL_CTL_DEL, rank->watch_fd, NULL);
        close(rank->watch_fd);
    }
    rank->watch_fd = pidfd;
    if (pidfd >= 0)
        epoll_ctl(edge->epoll_fd, EPOLL_CTL_ADD, pidfd, &event);
}

void orri_edge_set_end(struct orri_edge *edge,
                       struct orri_rank *rank,
                       const struct orri_status *status)
{
    orri_edge_watch(edge, rank, -1);
    pthread_mutex_lock(&edge->lock);
    free(rank->launch);
    rank->launch = NULL;
    rank->state = status->state;
    rank->exit_code = status->exit_code;
    rank->signal = status->signal;
    rank->changed_unix_ms = status->ended_unix_ms;
    memcpy(rank->reason, status->reason, sizeof rank->reason);
    orri_rank_queue_push(&edge->events, rank);
    pthread_mutex_unlock(&edge->lock);
}

void orri_edge_declare(struct orri_edge *edge,
                       struct orri_rank *rank,
                       uint32_t state,
                       const char *fmt,
                       ...)
{
    struct orri_status status = {.state = state, .ended_unix_ms = orri_unix_ms()};
    va_list args;
    va_start(args, fmt);
    vsnprintf(status.reason, sizeof status.reason, fmt, args);
    va_end(args);
    int dir = open_rank(edge, rank);
    if (dir >= 0) {
        orri_env_end(dir);
        orri_status_write(dir, &status);
        close(dir);
    }
    orri_edge_set_end(edge, rank, &status);
}

/* Processes of the rank's group that outlived it.  The pair of group and session cannot
 * be a stranger's: both numbers stay taken while a member lives. */
static void kill_remnants(const struct orri_meta *meta)
{
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    while (proc && (entry = readdir(proc))) {
        pid_t pid = (pid_t)atoi(entry->d_name);
        if (pid > 0 && getpgid(pid) == meta->rank && getsid(pid) == meta->keeper)
            kill(pid, SIGKILL);
    }
    if (proc)
        closedir(proc);
}

/* True when the rank still has to die; it is then watched. */
static bool
kill_rank(struct orri_edge *edge, struct orri_rank *rank, const struct orri_meta *meta)
{
    kill_remnants(meta);
    if (rank->is_dying)
        return false;
    int pidfd = pidfd_open(meta->rank, 0);
    if (pidfd >= 0 && orri_proc_start(meta->rank) == meta->rank_start) {
        orri_group_signal(meta->rank, meta->rank_start, SIGKILL);
        rank->is_dying = true;
        orri_edge_watch(edge, rank, pidfd);
        return true;
    }
    if (pidfd >= 0)
        close(pidfd);
    return false;
}

void orri_edge_settle_end(struct orri_edge *edge, struct orri_rank *rank)
{
    struct orri_status status;
    struct orri_meta meta;
    int dir = open_rank(edge, rank);
    enum orri_read has_status =
        dir < 0 ? ORRI_READ_ABSENT : orri_status_read(dir, &status);
    enum orri_read has_meta = dir < 0 ? ORRI_READ_ABSENT : orri_meta_read(dir, &meta);
    if (dir >= 0) {
        orri_env_end(dir); /* nothing is left, unless the keeper was killed */
        close(dir);
    }
    if (has_status == ORRI_READ_OK)
        orri_edge_set_end(edge, rank, &status);
    else if (has_meta != ORRI_READ_OK || !kill_rank(edge, rank, &meta))
        orri_edge_declare(edge,
                          rank,
                          ORR_RANK_LOST,
                          has_status == ORRI_READ_TORN
                              ? "its status file is torn, how it ended is not known"
                              : "its keeper died before it recorded the end");
}

/* ---- adoption
 * ----------------------------------------------------------------------------- */

static void
take_meta(struct orri_edge *edge, struct orri_rank *rank, const struct orri_meta *meta)
{
    pthread_mutex_lock(&edge->lock);
    rank->pid = meta->rank;
    rank->pid_start = meta->rank_start;
    rank->keeper = meta->keeper;
    rank->device = meta->device;
    rank->changed_unix_ms = meta->started_unix_ms;
    pthread_mutex_unlock(&edge->lock);
}

static void
take_env(struct orri_edge *edge, struct orri_rank *rank, int dir, pid_t keeper)
{
    struct orri_env env;
    struct orri_stop stop;
    enum orri_read has_stop = orri_stop_read(dir, &stop);
    orri_env_mend(edge, dir, keeper);
    enum orri_read has_env = orri_env_read(dir, &env);
    bool is_frozen = orri_mark_get(dir, ORRI_MARK_FROZEN);
    char *devices = orri_image_devices(dir);
    pthread_mutex_lock(&edge->lock);
    free(rank->devices);
    rank->devices = devices;
    if (has_env == ORRI_READ_OK) {
        rank->is_image = env.is_image;
        memcpy(rank->why, env.why, sizeof rank->why);
    }
    rank->is_frozen = is_frozen;
    if (has_stop == ORRI_READ_OK) {
        rank->cut = stop.cut;
        rank->cut_step = stop.step;
        rank->device = stop.device;
        rank->visible = stop.visible;
    }
    pthread_mutex_unlock(&edge->lock);
}

static void set_running(struct orri_edge *edge, struct orri_rank *rank, int pidfd)
{
    orri_edge_watch(edge, rank, pidfd);
    pthread_mutex_lock(&edge->lock);
    rank->state = ORR_RANK_RUNNING;
    uint32_t pending = rank->pending_signal;
    rank->pending_signal = 0;
    orri_rank_queue_push(&edge->events, rank);
    pthread_mutex_unlock(&edge->lock);
    if (pending)
        orri_rank_signal(edge, rank->key, rank->pid, rank->pid_start, (int)pending);
}

static bool adopt_started(struct orri_edge *edge,
                          struct orri_rank *rank,
                          int dir,
                          const struct orri_meta *meta)
{
    take_meta(edge, rank, meta);
    if (strcmp(meta->boot, edge->boot) != 0) {
        orri_edge_declare(edge, rank, ORR_RANK_LOST, "the machine was restarted");
        return true;
    }
    /* Opened before the lock is tried: a lock that is held then proves that the pid was
     * still the keeper's. */
    int pidfd = pidfd_open(meta->keeper, 0);
    if (orri_dir_lock(dir)) {
        if (pidfd >= 0)
            close(pidfd);
        orri_edge_settle_end(edge, rank);
        return true;
    }
    if (pidfd < 0)
        return false; /* it is just going */
    take_env(edge, rank, dir, meta->keeper);
    set_running(edge, rank, pidfd);
    return true;
}

bool orri_edge_adopt_rank(struct orri_edge *edge, struct orri_rank *rank)
{
    struct orri_meta meta;
    struct orri_status status;
    bool is_done = true;
    int dir = open_rank(edge, rank);
    enum orri_read has_meta = dir < 0 ? ORRI_READ_ABSENT : orri_meta_read(dir, &meta);
    enum orri_read has_status =
        dir < 0 ? ORRI_READ_ABSENT : orri_status_read(dir, &status);
    if (has_meta == ORRI_READ_OK)
        take_meta(edge, rank, &meta);
    if (has_status == ORRI_READ_OK)
        orri_edge_set_end(edge, rank, &status);
    else if (has_status == ORRI_READ_TORN)
        orri_edge_settle_end(edge, rank);
    else if (has_meta == ORRI_READ_OK)
        is_done = adopt_started(edge, rank, dir, &meta);
    else if (dir >= 0 && !orri_dir_lock(dir))
        is_done = false;
    else
        orri_edge_declare(
            edge,
            rank,
            ORR_RANK_LOST,
            "%s",
            has_meta == ORRI_READ_TORN
                ? "its meta file is torn, the machine went down while it ran"
                : "its launch was interrupted by the end of the host");
    if (dir >= 0)
        close(dir);
    return is_done;
}

static enum orr_err adopt_entry(struct orri_edge *edge, const char *name)
{
    struct orr_process_id id;
    char key[ORRI_KEY_MAX];
    if (strlen(name) >= sizeof key || !orri_key_parse(name, &id))
        return ORR_OK; /* not ours */
    struct orri_rank *rank = orri_rank_table_add(&edge->table, name);
    if (!rank)
        return ORR_ENOMEM;
    if (!orri_edge_adopt_rank(edge, rank))
        orri_rank_queue_push(&edge->settling, rank);
    return ORR_OK;
}

enum orr_err orri_edge_adopt(struct orri_edge *edge, struct orr_error *err)
{
    int fd = openat(edge->ranks_dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    enum orr_err rc = ORR_OK;
    struct dirent *entry;
    if (!dir) {
        if (fd >= 0)
            close(fd);
        return orr_fail(err,
                        ORR_EIO,
                        "%s: cannot list the directory: %s",
                        edge->ranks_path,
                        strerror(errno));
    }
    while (rc == ORR_OK && (entry = readdir(dir)))
        rc = adopt_entry(edge, entry->d_name);
    closedir(dir);
    if (rc != ORR_OK)
        return orr_fail(
            err, rc, "%s: out of memory while reading it", edge->ranks_path);
    return ORR_OK;
}
