/* SPDX-License-Identifier: Apache-2.0
 * keeper.c - the process that belongs to one rank: starts it, waits, records its end.
 *
 * START      lock the rank's directory, open its logs, vfork and exec the rank in a
 * process group of its own, write meta, report to the host OPERATION  wait; processes
 * that the rank left orphaned come to the keeper and are reaped; when the machine's lease is over, freeze the rank (lease.h)
 * STOP       the rank
 * ended: kill what is left of its group and of its orphans, write the status, exit. The
 * status is written last: who reads it knows that nothing of the rank runs any more
 * FAILURES   the keeper dies: the rank gets SIGKILL from the kernel (PDEATHSIG), and no
 * status is written: LOST
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lease.h"
#include "spawner.h"

/* How long orphans are killed and waited for before the rank counts as ended all the
 * same. */
enum { SWEEP_MS_MAX = 10000, SWEEP_PAUSE_US = 300 };
/* How often a lease is looked at that is over, or was never given: it may be given, and end again. */
enum { LEASE_LOOK_MS = 500 };

enum start_step { STEP_LIMITS, STEP_OUTPUT, STEP_WORKDIR, STEP_LEASE, STEP_EXEC };

struct start {
    const struct orri_launch *launch;
    const char *key;
    const char *workdir;
    char **args;
    char **env;
    const struct orri_lease *lease; /* NULL: cannot be read, and nothing starts */
    int dir;
    pid_t keeper;
    volatile enum start_step
        step; /* written by the child, which shares our memory until it execs */
    volatile int error;
};

/* ---- the rank, before it becomes the user's program
 * -------------------------------------------------------------------- */

static bool set_limit(int what, uint64_t value)
{
    struct rlimit limit;
    if (getrlimit((__rlimit_resource_t)what, &limit) != 0)
        return false;
    if (limit.rlim_max == RLIM_INFINITY || value < limit.rlim_max)
        limit.rlim_max = value;
    limit.rlim_cur = limit.rlim_max;
    return setrlimit((__rlimit_resource_t)what, &limit) == 0;
}

static bool open_output(int dir)
{
    const int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC;
    int out = openat(dir, "stdout", flags, 0644);
    int err = openat(dir, "stderr", flags, 0644);
    return out >= 0 && err >= 0 && dup2(out, 1) == 1 && dup2(err, 2) == 2;
}

/* Only calls that are safe after vfork. */
_Noreturn static void rank_exec(struct start *s)
{
    sigset_t none;
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != s->keeper)
        _exit(1);
    s->step = STEP_LIMITS;
    if (!set_limit(RLIMIT_CORE, s->launch->core_bytes_max) ||
        (s->launch->files_max && !set_limit(RLIMIT_NOFILE, s->launch->files_max)))
        goto fail;
    s->step = STEP_OUTPUT;
    if (!open_output(s->dir))
        goto fail;
    s->step = STEP_WORKDIR;
    if (chdir(s->workdir) != 0)
        goto fail;
    /* A launch that waited while this machine stood still must not run beside the next generation, not even for a moment. */
    s->step = STEP_LEASE;
    errno = ETIMEDOUT;
    if (orri_lease_left_ms(s->lease) == 0)
        goto fail;
    s->step = STEP_EXEC;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
    execvp(s->args[0], s->args);
fail:
    s->error = errno;
    _exit(127);
}

static void explain(const struct start *s, char *buf, size_t cap)
{
    const char *why = strerror(s->error);
    switch (s->step) {
    case STEP_LIMITS:
        snprintf(
            buf, cap, "cannot set the limits of open files and core size: %s", why);
        return;
    case STEP_OUTPUT:
        snprintf(buf, cap, "cannot write the files of rank %s: %s", s->key, why);
        return;
    case STEP_WORKDIR:
        snprintf(buf, cap, "cannot enter workdir %.160s: %s", s->workdir, why);
        return;
    case STEP_LEASE:
        if (s->lease)
            snprintf(
                buf, cap, "the lease of this node was over before the rank started");
        else
            snprintf(
                buf, cap, "cannot read the lease file of the state directory: %s", why);
        return;
    case STEP_EXEC:
        snprintf(buf, cap, "cannot execute %.160s: %s", s->args[0], why);
        return;
    }
}

static pid_t start_rank(struct start *s)
{
    extern char **environ;
    environ = s->env; /* execvp searches the rank's own PATH */
    pid_t pid = vfork();
    if (pid == 0)
        rank_exec(s);
    if (pid < 0) {
        s->step = STEP_EXEC;
        s->error = errno;
    } else if (s->error) {
        waitpid(pid, NULL, 0);
        pid = -1;
    }
    return pid;
}

/* ---- the end
 * ------------------------------------------------------------------------------------------------------------
 */

/* Until a child ends or the lease needs a look.  Freezes the rank once for each end of a lease. */
static void wait_child(pid_t rank, const struct orri_lease *lease, uint64_t *frozen_for)
{
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    uint64_t end = orri_lease_end(lease);
    uint64_t left = orri_lease_left_ms(lease);
    if (left == 0 && *frozen_for != end) {
        *frozen_for = end;
        kill(-rank, SIGSTOP);
    }
    if (left == 0 || left == UINT64_MAX)
        left = LEASE_LOOK_MS;
    const struct timespec wait = {.tv_sec = (time_t)(left / 1000),
                                  .tv_nsec = (long)(left % 1000) * 1000000};
    sigtimedwait(&child, NULL, &wait);
}

/* Wait until the rank ended, and leave it a zombie: its pid, and so its group's, cannot
 * be taken by anybody else yet.  SIGCHLD is blocked, so none is missed in between. */
static void wait_rank(pid_t rank, const struct orri_lease *lease, siginfo_t *ret_end)
{
    uint64_t frozen_for = 0;
    for (;;) {
        ret_end->si_pid = 0;
        if (waitid(P_ALL, 0, ret_end, WEXITED | WNOWAIT | WNOHANG) != 0) {
            ORR_ASSERT(errno == EINTR);
            continue;
        }
        if (ret_end->si_pid == 0) {
            wait_child(rank, lease, &frozen_for);
            continue;
        }
        if (ret_end->si_pid == rank)
            return;
        siginfo_t orphan;
        waitid(P_PID, (id_t)ret_end->si_pid, &orphan, WEXITED | WNOHANG);
    }
}

/* Kill the children that we have besides the rank; how many there were. */
static int sweep_orphans(pid_t rank)
{
    char buf[4096];
    int fd = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, buf, sizeof buf - 1);
    close(fd);
    buf[n > 0 ? n : 0] = '\0';
    int found = 0;
    char *at = buf, *end;
    for (long pid; pid = strtol(at, &end, 10), end != at; at = end) {
        if (pid == rank || (*end != ' ' && *end != '\0'))
            continue;
        kill((pid_t)pid, SIGKILL);
        waitid(P_PID, (id_t)pid, &(siginfo_t){0}, WEXITED | WNOHANG);
        found++;
    }
    return found;
}

void orri_exit_text(int64_t exit_code, uint32_t signal, char *buf, size_t cap)
{
    const char *name = signal ? sigabbrev_np((int)signal) : NULL;
    if (name)
        snprintf(buf, cap, "killed by signal %u (SIG%s)", signal, name);
    else if (signal)
        snprintf(buf, cap, "killed by signal %u", signal);
    else
        snprintf(buf, cap, "exit code %lld", (long long)exit_code);
}

static void await_end(int dir, pid_t rank, const struct orri_lease *lease)
{
    siginfo_t end;
    wait_rank(rank, lease, &end);
    kill(-rank, SIGKILL);
    uint64_t deadline_ms = orri_mono_ms() + SWEEP_MS_MAX;
    while (sweep_orphans(rank) > 0 && orri_mono_ms() < deadline_ms)
        usleep(SWEEP_PAUSE_US);
    struct orri_status status = {.state = ORR_RANK_EXITED,
                                 .ended_unix_ms = orri_unix_ms()};
    if (end.si_code == CLD_EXITED)
        status.exit_code = end.si_status;
    else
        status.signal = (uint32_t)end.si_status;
    orri_exit_text(
        status.exit_code, status.signal, status.reason, sizeof status.reason);
    orri_status_write(dir, &status);
    waitpid(rank, NULL, 0);
}

/* ---- from launch to end
 * ---------------------------------------------------------------------------------------------------
 */

static char *text_after(char *text)
{
    return text + strlen(text) + 1;
}

/* Split the packet's texts; the lists are NULL-terminated as execve wants them. */
static bool parse_launch(char *packet, struct start *s)
{
    s->launch = (const struct orri_launch *)(const void *)packet;
    size_t n_args = s->launch->n_args, n_env = s->launch->n_env;
    char **list = calloc(n_args + n_env + 2, sizeof *list);
    if (!list)
        return false;
    char *text = packet + sizeof *s->launch;
    s->key = text;
    s->workdir = text = text_after(text);
    s->args = list;
    s->env = list + n_args + 1;
    for (size_t i = 0; i < n_args; i++)
        s->args[i] = text = text_after(text);
    for (size_t i = 0; i < n_env; i++)
        s->env[i] = text = text_after(text);
    return true;
}

static void become_keeper(void)
{
    sigset_t ours;
    setsid();
    prctl(PR_SET_NAME, "orrery-keeper");
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    signal(SIGCHLD, SIG_DFL);
    sigemptyset(&ours);
    sigaddset(&ours, SIGHUP); /* what ends a host politely is not meant for the ranks */
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGQUIT);
    sigaddset(&ours, SIGTERM);
    sigaddset(&ours, SIGCHLD); /* waited for, with a timeout */
    sigprocmask(SIG_BLOCK, &ours, NULL);
    dup2(0, 1); /* /dev/null, since the spawner */
    dup2(0, 2);
}

/* That its files cannot be written, or that it came too late, is the machine's fault and not the program's. */
static void record_failed_start(const struct start *s)
{
    bool is_machine = s->step == STEP_OUTPUT || s->step == STEP_LEASE;
    struct orri_status status = {.state = is_machine ? ORR_RANK_LOST : ORR_RANK_FAILED,
                                 .ended_unix_ms = orri_unix_ms()};
    explain(s, status.reason, sizeof status.reason);
    orri_status_write(s->dir, &status);
}

static bool
record_start(struct start *s, const char *boot, pid_t rank, struct orri_report *report)
{
    struct orri_meta meta = {
        .keeper = s->keeper,
        .rank = rank,
        .rank_start = orri_proc_start(rank),
        .device = s->launch->device,
        .started_unix_ms = orri_unix_ms(),
    };
    memcpy(meta.boot, boot, sizeof meta.boot);
    s->error = orri_meta_write(s->dir, &meta);
    if (s->error) {
        s->step = STEP_OUTPUT;
        kill(-rank, SIGKILL);
        return false;
    }
    report->is_started = true;
    report->rank = rank;
    report->rank_start = meta.rank_start;
    report->started_unix_ms = meta.started_unix_ms;
    return true;
}

_Noreturn void orri_keeper_run(int ranks_dir, int sock, const char *boot, char *packet)
{
    struct start s = {.keeper = getpid()};
    struct orri_report report = {.is_started = false};
    struct orri_status old;
    become_keeper();
    if (!parse_launch(packet, &s))
        _exit(1);
    s.lease = orri_lease_watch(ranks_dir);
    int why_no_lease = errno;
    s.dir = openat(ranks_dir, s.key, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* Locked or ended already: another host has decided about this launch. */
    if (s.dir < 0 || !orri_dir_lock(s.dir) ||
        orri_status_read(s.dir, &old) != ORRI_READ_ABSENT)
        _exit(1);
    orr_str_copy(report.key, sizeof report.key, orr_str(s.key));
    alarm((s.launch->start_timeout_ms + 999) / 1000);
    s.step = STEP_OUTPUT;
    s.error = orri_status_reserve(s.dir);
    if (!s.error && !s.lease) {
        s.step = STEP_LEASE;
        s.error = why_no_lease;
    }
    pid_t rank = s.error ? -1 : start_rank(&s);
    alarm(0);
    if (rank < 0 || !record_start(&s, boot, rank, &report))
        record_failed_start(&s);
    int self = pidfd_open(s.keeper, 0);
    orri_report_send(sock, &report, self);
    close(self);
    close(sock);
    if (report.is_started)
        await_end(s.dir, rank, s.lease);
    _exit(0);
}
