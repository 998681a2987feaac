/* SPDX-License-Identifier: Apache-2.0
 * logs.c - what ranks wrote: reading it, keeping it after forget, aging it out.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "edge.h"

/* ---- reading
 * ------------------------------------------------------------------------------ */

/* The directory may move from ranks to logs at any moment. */
static int open_log(struct orri_edge *edge, const char *key, const char *name)
{
    char path[ORRI_KEY_MAX + 16];
    snprintf(path, sizeof path, "%s/%s", key, name);
    int fd = openat(edge->ranks_dir, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT)
        fd = openat(edge->logs_dir, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    return fd;
}

static bool find_log(struct orri_edge *edge,
                     const struct orr_process_id *id,
                     char *ret_key,
                     uint64_t *ret_generation,
                     bool *ret_has_ended)
{
    pthread_mutex_lock(&edge->lock);
    struct orri_rank *rank = NULL;
    if (id->generation == 0)
        rank = orri_rank_table_newest(&edge->table, id->job, id->rank);
    else if (orri_key_make(id, ret_key, NULL) == ORR_OK)
        rank = orri_rank_table_find(&edge->table, ret_key);
    if (rank) {
        memcpy(ret_key, rank->key, sizeof rank->key);
        *ret_generation = rank->id.generation;
        *ret_has_ended = orri_rank_has_ended(rank);
    }
    pthread_mutex_unlock(&edge->lock);
    return rank != NULL;
}

enum orr_err orri_edge_log_read(struct orr_process *process,
                                const struct orr_process_id *id,
                                uint32_t stream,
                                uint64_t offset,
                                uint8_t *buf,
                                size_t cap,
                                struct orr_process_log *ret_log,
                                struct orr_error *err)
{
    struct orri_edge *edge = (struct orri_edge *)process;
    char key[ORRI_KEY_MAX];
    bool has_ended;
    struct orr_process_log log = {.offset = offset};
    struct stat st;
    if (stream != 1 && stream != 2)
        return orr_fail(
            err, ORR_EINVAL, "stream: %u; 1 is stdout, 2 is stderr", stream);
    if (!find_log(edge, id, key, &log.generation, &has_ended))
        return orr_fail(err,
                        ORR_ENOENT,
                        "job %.*s rank %u: no logs here; it did not run on this node, "
                        "or they aged out",
                        ORR_STR_ARGS(id->job),
                        id->rank);
    int fd = open_log(edge, key, stream == 1 ? "stdout" : "stderr");
    if (fd < 0 &&
        errno == ENOENT) { /* not started yet, or never: nothing was written */
        log.is_final = has_ended;
        *ret_log = log;
        return ORR_OK;
    }
    ssize_t n =
        fd >= 0 && offset <= INT64_MAX ? pread(fd, buf, cap, (off_t)offset) : -1;
    if (n < 0 || fstat(fd, &st) != 0) {
        int error = errno;
        if (fd >= 0)
            close(fd);
        return orr_fail(err,
                        ORR_EIO,
                        "log of %s: cannot read at %llu: %s",
                        key,
                        (unsigned long long)offset,
                        strerror(error));
    }
    close(fd);
    log.len = (size_t)n;
    log.is_final = has_ended && offset + log.len >= (uint64_t)st.st_size;
    *ret_log = log;
    return ORR_OK;
}

/* ---- keeping
 * ------------------------------------------------------------------------------ */

static void age_out(struct orri_edge *edge)
{
    for (;;) {
        pthread_mutex_lock(&edge->lock);
        struct orri_rank *oldest = orri_rank_queue_peek(&edge->logs);
        bool is_over = edge->logs.n > edge->config.logs_max ||
                       edge->log_bytes > edge->config.log_bytes_max;
        if (!oldest || !is_over) {
            pthread_mutex_unlock(&edge->lock);
            return;
        }
        char key[ORRI_KEY_MAX];
        memcpy(key, oldest->key, sizeof key);
        edge->log_bytes -= oldest->log_bytes;
        orri_rank_table_remove(&edge->table, oldest);
        pthread_mutex_unlock(&edge->lock);
        orri_dir_remove(edge->logs_dir, key);
    }
}

/* Under lock.  Of a rank that comes back, whose image has all that it has written. */
bool orri_logs_drop(struct orri_edge *edge, struct orri_rank *rank)
{
    char key[ORRI_KEY_MAX];
    if (rank->queue != &edge->logs)
        return false;
    memcpy(key, rank->key, sizeof key);
    edge->log_bytes -= rank->log_bytes;
    orri_rank_table_remove(&edge->table, rank);
    orri_dir_remove(edge->logs_dir, key);
    return true;
}

static uint64_t bytes_of(struct orri_edge *edge, const char *key)
{
    int dir =
        openat(edge->logs_dir, key, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (dir < 0)
        return 0;
    uint64_t bytes = orri_dir_bytes(dir);
    close(dir);
    return bytes;
}

void orri_logs_keep(struct orri_edge *edge, struct orri_rank *rank)
{
    if (renameat(edge->ranks_dir, rank->key, edge->logs_dir, rank->key) != 0) {
        /* Only a stray directory of the same name can be in the way. */
        orri_dir_remove(edge->logs_dir, rank->key);
        if (renameat(edge->ranks_dir, rank->key, edge->logs_dir, rank->key) != 0)
            orri_dir_remove(edge->ranks_dir, rank->key);
    }
    /* The order of aging, also after a restart; the file system's own clock is too coarse. */
    struct timespec now[2];
    clock_gettime(CLOCK_REALTIME, &now[0]);
    now[1] = now[0];
    (void)utimensat(edge->logs_dir, rank->key, now, AT_SYMLINK_NOFOLLOW);
    rank->log_bytes = bytes_of(edge, rank->key);
    pthread_mutex_lock(&edge->lock);
    edge->log_bytes += rank->log_bytes;
    orri_rank_queue_push(&edge->logs, rank);
    pthread_mutex_unlock(&edge->lock);
    age_out(edge);
}

/* ---- at open
 * ------------------------------------------------------------------------------ */

struct aged {
    char key[ORRI_KEY_MAX];
    struct timespec forgotten;
};

static int older_first(const void *a, const void *b)
{
    const struct timespec *x = &((const struct aged *)a)->forgotten,
                          *y = &((const struct aged *)b)->forgotten;
    if (x->tv_sec != y->tv_sec)
        return x->tv_sec < y->tv_sec ? -1 : 1;
    return (x->tv_nsec > y->tv_nsec) - (x->tv_nsec < y->tv_nsec);
}

static enum orr_err list_logs(DIR *dir, struct aged **ret_list, size_t *ret_n)
{
    struct aged *list = NULL;
    size_t n = 0, cap = 0;
    struct dirent *entry;
    struct orr_process_id id;
    struct stat st;
    while ((entry = readdir(dir))) {
        if (strlen(entry->d_name) >= ORRI_KEY_MAX ||
            !orri_key_parse(entry->d_name, &id) ||
            fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        if (n == cap) {
            cap = cap ? 2 * cap : 64;
            struct aged *more = realloc(list, cap * sizeof *list);
            if (!more) {
                free(list);
                return ORR_ENOMEM;
            }
            list = more;
        }
        orr_str_copy(list[n].key, sizeof list[n].key, orr_str(entry->d_name));
        list[n++].forgotten = st.st_mtim;
    }
    *ret_list = list;
    *ret_n = n;
    return ORR_OK;
}

enum orr_err orri_logs_adopt(struct orri_edge *edge, struct orr_error *err)
{
    struct aged *list = NULL;
    size_t n = 0;
    int fd = openat(edge->logs_dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        if (fd >= 0)
            close(fd);
        return orr_fail(
            err, ORR_EIO, "logs: cannot list the directory: %s", strerror(errno));
    }
    enum orr_err rc = list_logs(dir, &list, &n);
    closedir(dir);
    if (n)
        qsort(list, n, sizeof *list, older_first);
    for (size_t i = 0; i < n && rc == ORR_OK; i++) {
        struct orri_rank *rank = orri_rank_table_find(&edge->table, list[i].key)
                                     ? NULL
                                     : orri_rank_table_add(&edge->table, list[i].key);
        if (!rank)
            continue; /* launched again since: its own end will replace these */
        rank->state = ORR_RANK_EXITED;
        rank->is_forgotten = true;
        rank->log_bytes = bytes_of(edge, rank->key);
        edge->log_bytes += rank->log_bytes;
        orri_rank_queue_push(&edge->logs, rank);
    }
    free(list);
    if (rc != ORR_OK)
        return orr_fail(err, rc, "logs: out of memory while listing them");
    age_out(edge);
    return ORR_OK;
}
