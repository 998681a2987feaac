/* SPDX-License-Identifier: Apache-2.0
 * lazy.c - lazy.h.
 */
#include "lazy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "criu_run.h"

enum {
    BYTES_PER_MS = 20000, /* at worst, from a disk that others use as well */
    LOOK_MS = 1,
    END_MS_MAX = 10000,
    SECOND_MS = 1000,
};
#define SOCKET "lazy-pages.socket" /* as criu names it */

uint64_t orri_lazy_bytes(const char *dir)
{
    uint64_t bytes = 0;
    DIR *list = opendir(dir);
    struct dirent *entry;
    struct stat st;
    while (list && (entry = readdir(list))) {
        if (strncmp(entry->d_name, "pages-", 6) == 0 &&
            fstatat(dirfd(list), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
            bytes += (uint64_t)st.st_size;
    }
    if (list)
        closedir(list);
    return bytes;
}

/* ---- start
 * ------------------------------------------------------------------------------------ */

static int open_signal_fd(void)
{
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    return signalfd(-1, &child, SFD_NONBLOCK | SFD_CLOEXEC);
}

static pid_t start_daemon(const struct orri_lazy_plan *plan, int ready, int *ret_error)
{
    char work[32], status[16];
    snprintf(work, sizeof work, "/proc/self/fd/%d", plan->rank_dir);
    snprintf(status, sizeof status, "%d", ready);
    const char *const args[] = {plan->criu,
                                "lazy-pages",
                                "--images-dir",
                                plan->dir,
                                "--work-dir",
                                work,
                                "--log-file",
                                "lazy-pages.log",
                                "-v2",
                                "--status-fd",
                                status,
                                NULL};
    const struct orri_criu_run run = {.args = args,
                                      .fds = {plan->rank_dir, ready},
                                      .n_fds = 2,
                                      .procs_fd = -1,
                                      .is_lone = true};
    return orri_criu_start(&run, ret_error);
}

/* It listens: the restore can connect. */
static bool await_ready(int fd, uint32_t timeout_ms)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    char byte;
    return poll(&ready, 1, (int)timeout_ms) > 0 && read(fd, &byte, 1) == 1;
}

enum orr_err orri_lazy_start(struct orri_lazy *lazy,
                             const struct orri_lazy_plan *plan,
                             struct orr_error *err)
{
    int ready[2], error = 0;
    *lazy = (struct orri_lazy){.pidfd = -1,
                               .signal_fd = open_signal_fd(),
                               .rank_dir = plan->rank_dir,
                               .left_ms = plan->timeout_ms +
                                          orri_lazy_bytes(plan->dir) / BYTES_PER_MS,
                               .looked_ms = orri_mono_ms()};
    if (lazy->signal_fd < 0 || pipe2(ready, O_CLOEXEC) != 0) {
        error = errno;
        orri_lazy_end(lazy);
        return orr_fail(err, ORR_EIO, "criu lazy-pages: %s", strerror(error));
    }
    pid_t pid = start_daemon(plan, ready[1], &error);
    close(ready[1]);
    lazy->pid = pid > 0 ? pid : 0;
    lazy->pidfd = pid > 0 ? pidfd_open(pid, 0) : -1;
    bool is_ready = lazy->pidfd >= 0 && await_ready(ready[0], plan->timeout_ms);
    close(ready[0]);
    if (is_ready)
        return ORR_OK;
    orri_lazy_end(lazy);
    return orr_fail(err,
                    ORR_EIO,
                    "criu lazy-pages of %s: %s",
                    plan->dir,
                    error ? strerror(error) : "does not start, see lazy-pages.log");
}

/* ---- guard
 * ------------------------------------------------------------------------------------ */

/* It has all userfaultfds and files when it does not listen any more. */
static bool is_listening(int rank_dir)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    snprintf(to.sun_path, sizeof to.sun_path, "/proc/self/fd/%d/" SOCKET, rank_dir);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool is_refused = fd >= 0 &&
                      connect(fd, (const struct sockaddr *)&to, sizeof to) != 0 &&
                      errno != EAGAIN;
    if (fd >= 0)
        close(fd);
    return !is_refused;
}

static void finish(struct orri_lazy *lazy)
{
    lazy->pid = 0;
    (void)orri_mark_set(lazy->rank_dir, ORRI_MARK_LAZY, false);
    unlinkat(lazy->rank_dir, SOCKET, 0);
    int *fds[] = {&lazy->pidfd, &lazy->signal_fd};
    for (size_t i = 0; i < ORR_ARRAY_SIZE(fds); i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
}

static void fail(struct orri_lazy *lazy, const char *how)
{
    lazy->has_failed = true;
    snprintf(
        lazy->why,
        sizeof lazy->why,
        "the program that brings its memory (criu lazy-pages) %s before all was there",
        how);
}

static void fail_with(struct orri_lazy *lazy, int status)
{
    char how[64];
    if (WIFSIGNALED(status))
        snprintf(how, sizeof how, "was killed by signal %d", WTERMSIG(status));
    else
        snprintf(how, sizeof how, "ended with code %d", WEXITSTATUS(status));
    fail(lazy, how);
}

enum orr_err orri_lazy_guard(struct orri_lazy *lazy,
                             const struct orri_lazy_plan *plan,
                             struct orr_error *err)
{
    struct pollfd end = {.fd = lazy->pidfd, .events = POLLIN};
    uint64_t deadline_ms = orri_mono_ms() + plan->timeout_ms;
    int error = orri_mark_set(lazy->rank_dir, ORRI_MARK_LAZY, true);
    while (error == 0 && is_listening(lazy->rank_dir) && poll(&end, 1, LOOK_MS) == 0) {
        if (orri_mono_ms() >= deadline_ms)
            error = ETIMEDOUT;
    }
    if (error == 0 &&
        ptrace(PTRACE_SEIZE, lazy->pid, NULL, (void *)PTRACE_O_TRACEEXIT) != 0)
        error = errno;
    if (error == 0 || error == ESRCH ||
        error == EPERM) /* the latter two: it may be done already */
        (void)orri_lazy_look(lazy, NULL);
    if (lazy->has_failed)
        return orr_fail(err, ORR_EIO, "%s: %s", plan->dir, lazy->why);
    if (error == 0 || lazy->pid == 0)
        return ORR_OK;
    return orr_fail(err,
                    error == ETIMEDOUT ? ORR_ETIMEOUT : ORR_EIO,
                    "criu lazy-pages of %s: %s",
                    plan->dir,
                    strerror(error));
}

/* ---- operation
 * -------------------------------------------------------------------------------- */

/* What stops it goes to the rank, and it would have to be continued with it. */
static int signal_to_pass(int status)
{
    int sig = WSTOPSIG(status);
    bool is_event = status >> 16 != 0;
    return is_event || sig == SIGSTOP || sig == SIGTSTP ? 0 : sig;
}

static void go_on(const struct orri_lazy *lazy, int sig)
{
    ptrace(PTRACE_CONT, lazy->pid, NULL, (void *)(intptr_t)sig);
}

static void see(struct orri_lazy *lazy, int status)
{
    unsigned long end = 0;
    if (!WIFSTOPPED(status)) {
        finish(lazy);
        if (status != 0)
            fail_with(lazy, status);
    } else if (status >> 16 == PTRACE_EVENT_EXIT) {
        ptrace(PTRACE_GETEVENTMSG, lazy->pid, NULL, &end);
        if (end != 0)
            fail_with(lazy, (int)end); /* held until orri_lazy_end */
        else
            go_on(lazy, 0);
    } else {
        go_on(lazy, signal_to_pass(status));
    }
}

enum orri_lazy_state orri_lazy_look(struct orri_lazy *lazy,
                                    const struct orri_lease *lease)
{
    struct signalfd_siginfo info;
    uint64_t now_ms = orri_mono_ms();
    bool counts = !lease || orri_lease_left_ms(lease) > 0;
    uint64_t gone_ms = counts ? now_ms - lazy->looked_ms : 0;
    int status;
    if (lazy->has_failed)
        return ORRI_LAZY_FAILED;
    if (lazy->pid == 0)
        return ORRI_LAZY_NONE;
    while (read(lazy->signal_fd, &info, sizeof info) > 0)
        ; /* before the look, or one that comes after it would be missed */
    while (lazy->pid && !lazy->has_failed &&
           waitpid(lazy->pid, &status, WNOHANG | __WALL) == lazy->pid)
        see(lazy, status);
    lazy->looked_ms = now_ms;
    lazy->left_ms -= gone_ms < lazy->left_ms ? gone_ms : lazy->left_ms;
    if (lazy->pid && lazy->left_ms == 0 && !lazy->has_failed)
        fail(lazy, "was not done in time");
    return lazy->has_failed ? ORRI_LAZY_FAILED
           : lazy->pid      ? ORRI_LAZY_WORKS
                            : ORRI_LAZY_NONE;
}

void orri_lazy_end(struct orri_lazy *lazy)
{
    uint64_t deadline_ms = orri_mono_ms() + END_MS_MAX;
    int status = 0;
    if (lazy->pid == 0 && lazy->signal_fd <= 0)
        return;
    if (lazy->pid) {
        kill(lazy->pid, SIGKILL);
        go_on(lazy, 0);
    }
    while (lazy->pid && orri_mono_ms() < deadline_ms) {
        pid_t pid = waitpid(lazy->pid, &status, WNOHANG | __WALL);
        if (pid == lazy->pid && WIFSTOPPED(status))
            go_on(lazy, 0);
        else if (pid != 0)
            break;
        poll(NULL, 0, LOOK_MS);
    }
    finish(lazy);
}
