/* SPDX-License-Identifier: Apache-2.0
 * image.c - image.h: arguments, directories, and what CRIU had to say.
 */
#include "image.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "criu_run.h"
#include "rank_tree.h"

enum {
    ARGS_MAX = 40,
    WHY_MAX = 160,
    LOG_BYTES_MAX = 64 << 10, /* that are searched for the first error */
    LOG_LOOK_BYTES = 16 << 10,
    COPY_BYTES = 1 << 20,
    HALT_MS_MAX = 5000,
};
#define NET_NAME "rank-net" /* what the image calls its network namespace */

/* ---- what went wrong
 * --------------------------------------------------------------------------- */

/* "(00.01) Error (criu/x.c:1): Can't ..." -> "Can't ..." of the first one: the others follow from it. */
static void read_error(int dir, const char *name, char why[WHY_MAX])
{
    char *buf = malloc(LOG_BYTES_MAX);
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    ssize_t n = buf && fd >= 0 ? read(fd, buf, LOG_BYTES_MAX - 1) : 0;
    snprintf(why, WHY_MAX, "see %s", name);
    if (n > 0) {
        buf[n] = '\0';
        char *error = strstr(buf, "Error (");
        while (error && strstr(error, "rlimit: ") == strstr(error, "): ") + 3)
            error = strstr(error + 1, "Error ("); /* only said, not meant */
        char *text = error ? strstr(error, "): ") : NULL;
        if (text)
            snprintf(why, WHY_MAX, "%.*s", (int)strcspn(text + 3, "\n"), text + 3);
    }
    if (fd >= 0)
        close(fd);
    free(buf);
}

static enum orr_err explain(const char *verb,
                            const struct orri_criu_end *end,
                            const char *dir_name,
                            int dir,
                            const char *log,
                            struct orr_error *err)
{
    char why[WHY_MAX];
    if (end->error)
        return orr_fail(err, ORR_EIO, "cannot start criu: %s", strerror(end->error));
    if (end->is_late)
        return orr_fail(err,
                        ORR_ETIMEOUT,
                        "criu %s of %s: not done in time, killed",
                        verb,
                        dir_name);
    if (end->signal)
        return orr_fail(err,
                        ORR_EIO,
                        "criu %s of %s: killed by signal %d",
                        verb,
                        dir_name,
                        end->signal);
    read_error(dir, log, why);
    return orr_fail(err, ORR_EIO, "criu %s of %s: %s", verb, dir_name, why);
}

/* ---- directories
 * ------------------------------------------------------------------------------- */

static void
each_file(int dir, void (*call)(int dir, const char *name, void *arg), void *arg)
{
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *entry;
    while (list && (entry = readdir(list))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        call(dir, entry->d_name, arg);
    }
    if (list)
        closedir(list);
}

static void remove_file(int dir, const char *name, void *arg)
{
    (void)arg;
    if (strcmp(name, "dump.log") != 0)
        unlinkat(dir, name, 0);
}

static void add_bytes(int dir, const char *name, void *arg)
{
    struct stat st;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        *(uint64_t *)arg += (uint64_t)st.st_size;
}

/* The log of an attempt that failed, which the next one replaces, is not in the way. */
static void count_file(int dir, const char *name, void *arg)
{
    (void)dir;
    *(int *)arg += strcmp(name, "dump.log") != 0;
}

static enum orr_err
open_image_dir(const char *path, int *ret_dir, struct orr_error *err)
{
    int n = 0;
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return orr_fail(err, ORR_EIO, "%s: cannot make it: %s", path, strerror(errno));
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return orr_fail(err, ORR_EIO, "%s: cannot open it: %s", path, strerror(errno));
    each_file(dir, count_file, &n);
    if (n == 0) {
        *ret_dir = dir;
        return ORR_OK;
    }
    close(dir);
    return orr_fail(err, ORR_EEXIST, "%s: is not empty; name a new directory", path);
}

/* 0 or an errno. */
static int copy_file(int from_dir, int to_dir, const char *name)
{
    int from = openat(from_dir, name, O_RDONLY | O_CLOEXEC);
    int to = openat(to_dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    int rc = from < 0 || to < 0 ? errno : 0;
    ssize_t n = 1;
    while (rc == 0 && n > 0) {
        n = sendfile(to, from, NULL, COPY_BYTES);
        rc = n < 0 ? errno : 0;
    }
    if (from >= 0)
        close(from);
    if (to >= 0 && close(to) != 0 && rc == 0)
        rc = errno;
    return rc;
}

/* ---- standing still
 * ---------------------------------------------------------------------------- */

bool orri_image_halt(pid_t keeper, const char *cgroup)
{
    orri_tree_signal(keeper, SIGSTOP);
    if (*cgroup && orri_cgroup_freeze(cgroup, false, HALT_MS_MAX) != 0)
        return false;
    return orri_tree_stop(keeper, HALT_MS_MAX);
}

void orri_image_resume(pid_t keeper, const struct orri_lease *lease)
{
    if (orri_lease_left_ms(lease) == 0)
        return; /* who renews it lets them go on */
    orri_tree_signal(keeper, SIGCONT);
    if (orri_lease_left_ms(lease) ==
        0) /* its keeper may just have found them stopped */
        (void)orri_tree_stop(keeper, HALT_MS_MAX);
}

/* ---- making one
 * -------------------------------------------------------------------------------- */

static enum orr_err run_dump(const struct orri_dump *d, int dir, struct orr_error *err)
{
    char pid[16], net[64], seconds[16], path[64];
    const char *args[ARGS_MAX];
    struct stat ns;
    snprintf(path, sizeof path, "/proc/%d/ns/net", (int)d->init);
    if (stat(path, &ns) != 0)
        return orr_fail(err, ORR_EGONE, "the rank has ended");
    snprintf(pid, sizeof pid, "%d", (int)d->init);
    snprintf(net, sizeof net, "net[%" PRIu64 "]:" NET_NAME, (uint64_t)ns.st_ino);
    snprintf(seconds, sizeof seconds, "%u", (d->timeout_ms + 999) / 1000);
    const char *const all[] = {d->criu.path,
                               "dump",
                               "--tree",
                               pid,
                               "--images-dir",
                               d->dir,
                               "--log-file",
                               "dump.log",
                               "-v2",
                               "--leave-running",
                               "--external",
                               net,
                               "--manage-cgroups=ignore",
                               "--tcp-established",
                               "--network-lock",
                               d->criu.has_nft ? "nftables" : "skip",
                               "--file-locks",
                               "--ghost-limit",
                               "1G",
                               "--timeout",
                               seconds,
                               "--libdir",
                               d->criu.plugins,
                               NULL};
    memcpy(args, all, sizeof all);
    const struct orri_criu_run run = {.args = args,
                                      .procs_fd = -1,
                                      .stop_fd = d->stop_fd,
                                      .timeout_ms = d->timeout_ms};
    struct orri_criu_end end = orri_criu_run(&run);
    return end.is_ok ? ORR_OK : explain("dump", &end, d->dir, dir, "dump.log", err);
}

/* What goes away by itself.  CRIU mounts the namespace's /proc for a moment on a directory of one fixed name in the working
 * directory of its pid 1, and fails when another of these is just doing that there; and it gives up on a process to which a
 * signal comes (the lease's, a machine under load renews late) while its code runs there. */
static bool is_passing(int dir)
{
    static const char *const texts[] = {"Can't create a directory (-17)",
                                        "task interruption, aborting"};
    char log[LOG_LOOK_BYTES];
    int fd = openat(dir, "dump.log", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, log, sizeof log - 1) : 0;
    if (fd >= 0)
        close(fd);
    log[n > 0 ? n : 0] = '\0';
    for (size_t i = 0; i < ORR_ARRAY_SIZE(texts); i++)
        if (strstr(log, texts[i]))
            return true;
    return false;
}

/* One that was killed has left the directory, and perhaps the mount: nobody else needs it for so long. */
static void clear_the_way(void)
{
    enum { LEFT_S = 3 };
    static const char place[] = "/proc.crtools"; /* orrery-init is in / */
    struct stat st;
    if (lstat(place, &st) != 0)
        return;
    if (st.st_ino == 1 ||
        st.st_ctime + LEFT_S > time(NULL)) /* of proc's root: mounted */
        return;
    rmdir(place);
}

static enum orr_err
dump_again(const struct orri_dump *d, int dir, struct orr_error *err)
{
    uint64_t deadline_ms = orri_mono_ms() + d->timeout_ms;
    int pause_ms = 2 + d->init % 8; /* not all at once */
    struct pollfd end = {.fd = d->stop_fd, .events = POLLIN};
    for (;;) {
        orri_image_keep(d->init, d->rank_dir);
        enum orr_err rc = run_dump(d, dir, err);
        if (rc == ORR_OK || !is_passing(dir) || orri_mono_ms() >= deadline_ms)
            return rc;
        each_file(dir, remove_file, NULL);
        clear_the_way();
        poll(&end, 1, pause_ms);
        pause_ms = pause_ms < 50 ? pause_ms * 2 : pause_ms;
    }
}

/* In a file of its own, of one line. */
static int save_devices(int dir, const char *devices)
{
    if (!devices || !*devices)
        return 0;
    int fd = openat(dir, "devices", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return errno;
    size_t len = strlen(devices);
    ssize_t put = write(fd, devices, len);
    int rc = put == (ssize_t)len ? 0 : put < 0 ? errno : ENOSPC;
    close(fd);
    return rc;
}

char *orri_image_devices(int dir)
{
    enum { BYTES_MAX = 64 * 64 };
    int fd = openat(dir, "devices", O_RDONLY | O_CLOEXEC);
    char *text = fd < 0 ? NULL : calloc(1, BYTES_MAX + 1);
    ssize_t len = text ? read(fd, text, BYTES_MAX) : -1;
    if (fd >= 0)
        close(fd);
    if (len > 0)
        return text;
    free(text);
    return NULL;
}

static enum orr_err save_logs(const struct orri_dump *d, int dir, struct orr_error *err)
{
    struct orri_image_note note;
    int rc = copy_file(d->rank_dir, dir, "stdout");
    if (rc == 0)
        rc = copy_file(d->rank_dir, dir, "stderr");
    if (snprintf(note.logs, sizeof note.logs, "%s", d->rank_path) >=
        (int)sizeof note.logs)
        rc = ENAMETOOLONG;
    if (rc == 0)
        rc = save_devices(dir, d->devices);
    if (rc == 0)
        rc = orri_image_note_write(dir, &note);
    return rc == 0 ? ORR_OK
                   : orr_fail(err,
                              ORR_EIO,
                              "%s: cannot save the rank's output: %s",
                              d->dir,
                              strerror(rc));
}

enum orr_err
orri_image_dump(const struct orri_dump *d, uint64_t *ret_bytes, struct orr_error *err)
{
    int dir = -1;
    uint64_t bytes = 0;
    enum orr_err rc = open_image_dir(d->dir, &dir, err);
    if (rc != ORR_OK)
        return rc;
    rc = dump_again(d, dir, err);
    if (rc == ORR_OK)
        rc = save_logs(d, dir, err);
    if (rc == ORR_OK) {
        each_file(dir, add_bytes, &bytes);
        *ret_bytes = bytes;
    } else {
        each_file(dir, remove_file, NULL);
    }
    close(dir);
    return rc;
}

/* ---- going on from one
 * ----------------------------------------------------------------------------- */

static pid_t read_pid(int dir)
{
    char text[16];
    int fd = openat(dir, "init.pid", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    return (pid_t)atoi(text);
}

static enum orr_err run_restore(const struct orri_restore *r,
                                const struct orri_image_note *note,
                                const int output[2],
                                struct orr_error *err)
{
    char net[64], out[900], errs[900], work[32];
    const char *args[ARGS_MAX];
    snprintf(net, sizeof net, "fd[%d]:" NET_NAME, r->net_ns);
    snprintf(out, sizeof out, "fd[%d]:%s/stdout", output[0], note->logs + 1);
    snprintf(errs, sizeof errs, "fd[%d]:%s/stderr", output[1], note->logs + 1);
    snprintf(work, sizeof work, "/proc/self/fd/%d", r->rank_dir);
    const char *const all[] = {r->criu.path,
                               "restore",
                               "--images-dir",
                               r->dir,
                               "--work-dir",
                               work,
                               "--log-file",
                               "restore.log",
                               "--pidfile",
                               "init.pid",
                               "-v2",
                               "--restore-detached",
                               "--restore-sibling",
                               "--manage-cgroups=ignore",
                               "--inherit-fd",
                               net,
                               "--inherit-fd",
                               out,
                               "--inherit-fd",
                               errs,
                               "--tcp-established",
                               "--network-lock",
                               r->criu.has_nft ? "nftables" : "skip",
                               "--file-locks",
                               "--libdir",
                               r->criu.plugins,
                               r->is_lazy ? "--lazy-pages" : NULL,
                               NULL};
    memcpy(args, all, sizeof all);
    const struct orri_criu_run run = {
        .args = args,
        .fds = {r->net_ns, output[0], output[1], r->rank_dir},
        .n_fds = 4,
        .procs_fd = r->procs_fd,
        .stop_fd = -1,
        .lease = r->lease,
        .timeout_ms = r->timeout_ms,
    };
    struct orri_criu_end end = orri_criu_run(&run);
    return end.is_ok
               ? ORR_OK
               : explain("restore", &end, r->dir, r->rank_dir, "restore.log", err);
}

/* The rank goes on writing where its output of before ends. */
static enum orr_err
take_logs(const struct orri_restore *r, int dir, int output[2], struct orr_error *err)
{
    (void)copy_file(dir, r->rank_dir, "devices"); /* for a later life of the edge */
    int rc = copy_file(dir, r->rank_dir, "stdout");
    if (rc == 0)
        rc = copy_file(dir, r->rank_dir, "stderr");
    const int flags = O_WRONLY | O_APPEND | O_CLOEXEC;
    output[0] = rc == 0 ? openat(r->rank_dir, "stdout", flags) : -1;
    output[1] = rc == 0 ? openat(r->rank_dir, "stderr", flags) : -1;
    if (rc == 0 && (output[0] < 0 || output[1] < 0))
        rc = errno;
    return rc == 0 ? ORR_OK
                   : orr_fail(err,
                              ORR_EIO,
                              "%s: cannot take over the rank's output: %s",
                              r->dir,
                              strerror(rc));
}

enum orr_err
orri_image_restore(const struct orri_restore *r, pid_t *ret_init, struct orr_error *err)
{
    struct orri_image_note note;
    int output[2] = {-1, -1};
    int dir = open(r->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return orr_fail(
            err, ORR_EIO, "%s: cannot open it: %s", r->dir, strerror(errno));
    enum orr_err rc = ORR_OK;
    if (orri_image_note_read(dir, &note) != ORRI_READ_OK)
        rc = orr_fail(err, ORR_EIO, "%s: is not a whole image", r->dir);
    if (rc == ORR_OK)
        rc = take_logs(r, dir, output, err);
    if (rc == ORR_OK)
        rc = run_restore(r, &note, output, err);
    if (rc == ORR_OK) {
        pid_t init = read_pid(r->rank_dir);
        if (init > 0)
            *ret_init = init;
        else
            rc = orr_fail(err, ORR_EIO, "criu restore of %s: wrote no pid", r->dir);
    }
    for (int i = 0; i < 2; i++) {
        if (output[i] >= 0)
            close(output[i]);
    }
    close(dir);
    return rc;
}
