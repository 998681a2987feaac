/* SPDX-License-Identifier: Apache-2.0
 * fleet_host.c - the processes of a development fleet: start, find, stop.
 *
 * A host is known by pid and start time (field 22 of /proc/PID/stat) in DIR/<host>/pid,
 * so that a stranger which got the same pid later is never signalled; signals go
 * through a pidfd that was opened before the start time was compared.
 */
#include "fleet.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { WIPE_DEADLINE_MS = 15000 };

static void file_of(const struct fleet *f,
                    const struct fleet_host *h,
                    const char *name,
                    char path[FLEET_PATH_MAX])
{
    snprintf(
        path, FLEET_PATH_MAX, "%.*s/%s/%s", FLEET_PATH_MAX - 64, f->dir, h->name, name);
}

/* Ticks since boot at which pid started, 0 if there is no such process. */
static unsigned long long start_time(int pid)
{
    char path[64], stat[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *in = fopen(path, "re");
    if (!in)
        return 0;
    size_t n = fread(stat, 1, sizeof stat - 1, in);
    fclose(in);
    stat[n] = '\0';
    char *at = strrchr(stat, ')'); /* the name may hold anything but ends here */
    if (!at || at[1] == '\0')
        return 0;
    at += 2;
    for (int field = 3; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoull(at, NULL, 10) : 0;
}

/* Not before its last thread is gone: until then its locks are held. */
static bool has_ended(int pidfd)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    return poll(&p, 1, 0) > 0;
}

/* A pidfd of the running host, -1 if it does not run. */
static int open_host(const struct fleet *f, const struct fleet_host *h, int *ret_pid)
{
    char path[FLEET_PATH_MAX];
    int pid = 0;
    unsigned long long started = 0;
    file_of(f, h, "pid", path);
    FILE *in = fopen(path, "re");
    if (!in)
        return -1;
    int n = fscanf(in, "%d %llu", &pid, &started);
    fclose(in);
    if (n != 2 || pid <= 0)
        return -1;
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd >= 0 && (start_time(pid) != started || has_ended(fd))) {
        close(fd);
        return -1;
    }
    *ret_pid = pid;
    return fd;
}

int fleet_host_pid(const struct fleet *f, const struct fleet_host *h)
{
    int pid, fd = open_host(f, h, &pid);
    if (fd < 0)
        return 0;
    close(fd);
    return pid;
}

/* Its output is appended to the host's log. */
static int spawn(const struct fleet *f,
                 const struct fleet_host *h,
                 const char *program,
                 char *const args[],
                 pid_t *ret_pid)
{
    char log[FLEET_PATH_MAX];
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    file_of(f, h, "host.log", log);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(
        &actions, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID);
    int why = posix_spawn(ret_pid, program, &actions, &attr, args, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    return why;
}

/* This program, by its own path, so that `ps` shows its name and not "exe"; "" when it
 * cannot be told. */
static const char *self_path(char path[FLEET_PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", path, FLEET_PATH_MAX - 1);
    path[n > 0 ? n : 0] = '\0';
    return path;
}

/* Ranks move between the nodes of a fleet, and find their node by the same path on each; other fleets have jobs of the same names.
 * A UNIX socket's path is short, the folder of a fleet perhaps not. */
static void set_run_dir(const struct fleet *f)
{
    char run[FLEET_PATH_MAX + 32];
    if (strlen(f->dir) < 64)
        snprintf(run, sizeof run, "%s/run", f->dir);
    else
        snprintf(run,
                 sizeof run,
                 "/tmp/orrery-run-%016llx",
                 (unsigned long long)orr_hash(orr_str(f->dir)));
    setenv("ORRERY_RUN", run, 0);
}

enum orr_err fleet_host_start(const struct fleet *f,
                              const struct fleet_host *h,
                              struct orr_error *err)
{
    char config[FLEET_PATH_MAX], self[FLEET_PATH_MAX];
    set_run_dir(f);
    file_of(f, h, "host.yaml", config);
    char *args[] = {"orrery", "host", "--config", config, NULL};
    return fleet_process_start(f, h, self_path(self), args, err);
}

enum orr_err fleet_process_start(const struct fleet *f,
                                 const struct fleet_host *h,
                                 const char *program,
                                 char *const args[],
                                 struct orr_error *err)
{
    char path[FLEET_PATH_MAX];
    file_of(f, h, "pid", path);
    pid_t pid;
    int why = spawn(f, h, program, args, &pid);
    if (why)
        return orr_fail(err, ORR_EIO, "%s: cannot start: %s", h->name, strerror(why));
    FILE *out = fopen(path, "we");
    if (!out || fprintf(out, "%d %llu\n", (int)pid, start_time(pid)) < 0 ||
        fclose(out) != 0) {
        kill(pid, SIGKILL);
        return orr_fail(
            err, ORR_EIO, "%s: cannot write %s: %s", h->name, path, strerror(errno));
    }
    return ORR_OK;
}

void fleet_host_log_tail(const struct fleet *f,
                         const struct fleet_host *h,
                         char *buf,
                         size_t cap)
{
    char path[FLEET_PATH_MAX];
    file_of(f, h, "host.log", path);
    buf[0] = '\0';
    FILE *in = fopen(path, "re");
    if (!in)
        return;
    if (fseek(in, -(long)(cap - 1), SEEK_END) != 0)
        rewind(in);
    buf[fread(buf, 1, cap - 1, in)] = '\0';
    fclose(in);
}

/* Also reaps it when it is our child.  Returns whether it is gone. */
static bool wait_gone(int pidfd, int pid, int timeout_ms)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    int n;
    do
        n = poll(&p, 1, timeout_ms);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        (void)waitpid(pid, NULL, WNOHANG);
    return n > 0;
}

void fleet_host_stop(const struct fleet *f,
                     const struct fleet_host *h,
                     unsigned grace_ms)
{
    int pid, fd = open_host(f, h, &pid);
    if (fd < 0)
        return;
    syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0);
    if (!wait_gone(fd, pid, (int)grace_ms)) {
        syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
        wait_gone(fd, pid, (int)grace_ms);
    }
    close(fd);
}

enum orr_err fleet_host_wipe(const struct fleet *f,
                             const struct fleet_host *h,
                             struct orr_error *err)
{
    char config[FLEET_PATH_MAX], self[FLEET_PATH_MAX];
    file_of(f, h, "host.yaml", config);
    char *args[] = {"orrery", "host", "--config", config, "--wipe", NULL};
    pid_t pid;
    int status = 0, why = spawn(f, h, self_path(self), args, &pid);
    if (why)
        return orr_fail(
            err, ORR_EIO, "%s: cannot clean up: %s", h->name, strerror(why));
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (fd < 0 || poll(&p, 1, WIPE_DEADLINE_MS) <= 0)
        kill(pid, SIGKILL);
    if (fd >= 0)
        close(fd);
    if (waitpid(pid, &status, 0) != pid || status != 0)
        return orr_fail(err,
                        ORR_EIO,
                        "%s: the clean-up failed; see %s/%s/host.log",
                        h->name,
                        f->dir,
                        h->name);
    return ORR_OK;
}
