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
#include <poll.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "image.h"
#include "keeper.h"
#include "rank_tree.h"

/* How long orphans are killed and waited for before the rank counts as ended all the
 * same. */
enum { SWEEP_MS_MAX = 10000, SWEEP_PAUSE_US = 300 };
/* How often a lease is looked at that is over, or was never given: it may be given, and end again. */
enum { LEASE_LOOK_MS = 500, LOOK_MS_MAX = 1 << 30, STOP_MS_MAX = 2000 };

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

bool orri_open_output(int dir)
{
    const int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC;
    int out = openat(dir, "stdout", flags, 0644);
    int err = openat(dir, "stderr", flags, 0644);
    return out >= 0 && err >= 0 && dup2(out, 1) == 1 && dup2(err, 2) == 2;
}

bool orri_rank_prepare(struct start *s)
{
    s->step = STEP_LIMITS;
    if (!set_limit(RLIMIT_CORE, s->launch->core_bytes_max) ||
        (s->launch->files_max && !set_limit(RLIMIT_NOFILE, s->launch->files_max)))
        goto fail;
    s->step = STEP_OUTPUT;
    if (!orri_open_output(s->dir))
        goto fail;
    s->step = STEP_WORKDIR;
    if (chdir(s->workdir) == 0)
        return true;
fail:
    s->error = errno;
    return false;
}

/* A launch that waited while this machine stood still must not run beside the next generation, not even for a moment. */
bool orri_lease_allows(struct start *s)
{
    if (orri_lease_left_ms(s->lease) != 0)
        return true;
    s->step = STEP_LEASE;
    s->error = ETIMEDOUT;
    return false;
}

/* Only calls that are safe after vfork. */
_Noreturn static void rank_exec(struct start *s)
{
    sigset_t none;
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != s->keeper)
        _exit(1);
    if (!orri_rank_prepare(s) || !orri_lease_allows(s))
        _exit(127);
    s->step = STEP_EXEC;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
    execvp(s->args[0], s->args);
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
    case STEP_NAMESPACE:
        snprintf(
            buf, cap, "cannot make namespaces of its own, %.120s: %s", s->what, why);
        return;
    case STEP_RESTORE:
        snprintf(buf, cap, "%s", s->what);
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

/* Whoever renewed the lease while we stopped the rank has told it to go on before our last stop. */
static void undo_stop(const struct start *s)
{
    if (!orri_mark_get(s->dir, ORRI_MARK_FROZEN) &&
        !orri_mark_get(s->dir, ORRI_MARK_IMAGING))
        orri_image_resume(getpid(), s->lease);
}

uint64_t orri_lease_look(const struct start *s, uint64_t *frozen_for)
{
    uint64_t end = orri_lease_end(s->lease);
    uint64_t left = orri_lease_left_ms(s->lease);
    if (left == 0 && *frozen_for != end) {
        if (orri_tree_stop(getpid(), STOP_MS_MAX))
            *frozen_for = end;
        if (orri_lease_left_ms(s->lease) != 0)
            undo_stop(s);
    }
    return left < LOOK_MS_MAX && left > 0 ? left : LEASE_LOOK_MS;
}

/* Until a child ends or the lease needs a look. */
static void wait_child(const struct start *s, uint64_t *frozen_for)
{
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    uint64_t left = orri_lease_look(s, frozen_for);
    const struct timespec wait = {.tv_sec = (time_t)(left / 1000),
                                  .tv_nsec = (long)(left % 1000) * 1000000};
    sigtimedwait(&child, NULL, &wait);
}

/* Wait until the rank ended, and leave it a zombie: its pid, and so its group's, cannot
 * be taken by anybody else yet.  SIGCHLD is blocked, so none is missed in between. */
static void wait_rank(const struct start *s, pid_t rank, siginfo_t *ret_end)
{
    uint64_t frozen_for = 0;
    for (;;) {
        ret_end->si_pid = 0;
        if (waitid(P_ALL, 0, ret_end, WEXITED | WNOWAIT | WNOHANG) != 0) {
            ORR_ASSERT(errno == EINTR);
            continue;
        }
        if (ret_end->si_pid == 0) {
            wait_child(s, &frozen_for);
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

/* One that was made to freeze the rank.  The zombie that the rank still is does not hold it. */
static void remove_cgroup(int dir)
{
    struct orri_env env;
    if (orri_env_read(dir, &env) == ORRI_READ_OK && *env.cgroup)
        (void)orri_cgroup_remove(env.cgroup, SWEEP_MS_MAX);
}

/* In the form of waitpid. */
static int await_rank(const struct start *s, pid_t rank)
{
    siginfo_t end;
    wait_rank(s, rank, &end);
    kill(-rank, SIGKILL);
    uint64_t deadline_ms = orri_mono_ms() + SWEEP_MS_MAX;
    while (sweep_orphans(rank) > 0 && orri_mono_ms() < deadline_ms)
        usleep(SWEEP_PAUSE_US);
    return end.si_code == CLD_EXITED ? end.si_status << 8 : end.si_status;
}

/* It is not told to end otherwise than by SIGKILL, and its program cannot hurt it: such a signal is what CRIU has left in it.  The
 * kernel kills all others of the namespace before it is a zombie. */
static bool has_init_died_first(const struct start *s)
{
    enum { INIT_END_MS = 2000, LOOK_MS = 10 };
    uint64_t deadline_ms = orri_mono_ms() + INIT_END_MS;
    siginfo_t end = {.si_pid = 0};
    for (;;) {
        if (waitid(P_PID, (id_t)s->rank_env.init, &end, WEXITED | WNOHANG | WNOWAIT) !=
            0)
            return false;
        if (end.si_pid != 0)
            return end.si_code != CLD_EXITED && end.si_status != SIGKILL;
        if (orri_mono_ms() >= deadline_ms)
            return false;
        poll(NULL, 0, LOOK_MS);
    }
}

/* CRIU was at work in the rank, or was killed there.  A process that it has hurt ends in some sudden way, and the rank's others say so with
 * whatever code they have for that: no fault of the program.  It shows as soon as they run: a rank that has run for a while was not hurt,
 * and dies its own death. */
static bool is_death_by_criu(const struct start *s, int end)
{
    enum { HURT_MS = 10000 };
    uint64_t now_ms = orri_unix_ms();
    bool is_good = WIFEXITED(end) && WEXITSTATUS(end) == 0;
    bool is_asked =
        WIFSIGNALED(end) && (WTERMSIG(end) == SIGKILL || WTERMSIG(end) == SIGTERM);
    if (orri_mark_get(s->dir, ORRI_MARK_IMAGING))
        return !is_good;
    uint64_t hurt_ms = orri_mark_unix_ms(s->dir, ORRI_MARK_HURT);
    if (is_good || hurt_ms == UINT64_MAX || hurt_ms + HURT_MS <= now_ms)
        return false;
    return !is_asked || /* a job's end is made of those, too */
           (WTERMSIG(end) == SIGKILL && has_init_died_first(s));
}

static void blame_criu(struct orri_status *status)
{
    char how[64];
    snprintf(how, sizeof how, "%.60s", status->reason);
    status->state = ORR_RANK_LOST;
    snprintf(status->reason,
             sizeof status->reason,
             "%s, while criu made an image of it or after it had failed to",
             how);
}

static void await_end(struct start *s, pid_t rank)
{
    bool is_image = s->rank_env.is_image;
    int end = is_image ? orri_ns_wait(s, rank) : await_rank(s, rank);
    bool is_by_criu = is_image && is_death_by_criu(s, end);
    struct orri_status status = {.state = ORR_RANK_EXITED,
                                 .ended_unix_ms = orri_unix_ms()};
    if (WIFEXITED(end))
        status.exit_code = WEXITSTATUS(end);
    else
        status.signal = (uint32_t)WTERMSIG(end);
    orri_exit_text(
        status.exit_code, status.signal, status.reason, sizeof status.reason);
    if (is_by_criu)
        blame_criu(&status);
    if (s->lazy.has_failed) {
        status.state = ORR_RANK_LOST;
        orr_str_copy(status.reason, sizeof status.reason, orr_str(s->lazy.why));
    }
    if (is_image)
        orri_ns_end(s);
    else
        remove_cgroup(s->dir);
    orri_status_write(s->dir, &status);
    if (!is_image)
        waitpid(rank, NULL, 0);
}

/* ---- from launch to end
 * ---------------------------------------------------------------------------------------------------
 */

static char *text_after(char *text)
{
    return text + strlen(text) + 1;
}

/* Split the packet's texts; the lists are NULL-terminated as execve wants them, with room for an init before the arguments. */
static bool parse_launch(char *packet, struct start *s)
{
    s->launch = (const struct orri_launch *)(const void *)packet;
    const char **texts[] = {&s->workdir,
                            &s->address,
                            &s->hostname,
                            &s->underlay,
                            &s->restore_dir,
                            &s->why,
                            &s->criu,
                            &s->init,
                            &s->plugins};
    size_t n_peers = s->launch->n_peers, n_args = s->launch->n_args,
           n_env = s->launch->n_env;
    char **list = calloc(n_peers + 1 + 2 + n_args + 1 + n_env + 1, sizeof *list);
    if (!list)
        return false;
    char *text = packet + sizeof *s->launch;
    s->key = text;
    for (size_t i = 0; i < ORR_ARRAY_SIZE(texts); i++)
        *texts[i] = text = text_after(text);
    s->peers = list;
    s->args = s->peers + n_peers + 1 + 2;
    s->env = s->args + n_args + 1;
    for (size_t i = 0; i < n_peers; i++)
        s->peers[i] = text = text_after(text);
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
    bool is_machine = s->step == STEP_OUTPUT || s->step == STEP_LEASE ||
                      s->step == STEP_NAMESPACE || s->step == STEP_RESTORE;
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
    report->keeper = s->keeper;
    report->is_image = s->rank_env.is_image;
    orr_str_copy(report->why, sizeof report->why, orr_str(s->rank_env.why));
    report->rank = rank;
    report->rank_start = meta.rank_start;
    report->started_unix_ms = meta.started_unix_ms;
    return true;
}

/* As a plain process: no image will be made of it. */
static pid_t start_inplace(struct start *s, const char *why)
{
    s->error = 0;
    s->rank_env = (struct orri_env){.is_image = false};
    orr_str_copy(s->rank_env.why, sizeof s->rank_env.why, orr_str(why));
    if (*why)
        (void)orri_env_write(s->dir, &s->rank_env);
    return start_rank(s);
}

static pid_t start(struct start *s)
{
    char why[ORRI_REASON_MAX];
    if (*s->restore_dir) {
        alarm(0); /* it takes as long as the image is large; it has its own limit */
        return orri_ns_restore(s);
    }
    if (!s->launch->wants_image)
        return start_inplace(s, s->why);
    pid_t rank = orri_ns_start(s);
    bool is_wide = *s->underlay; /* its peers elsewhere would look for it in vain */
    if (rank > 0 || s->step != STEP_NAMESPACE || is_wide)
        return rank;
    explain(s, why, sizeof why);
    orri_ns_end(s);
    return start_inplace(s, why);
}

/* 0, or an errno with its step. */
static int prepare(struct start *s)
{
    s->lease = orri_lease_watch(s->ranks_dir);
    int why_no_lease = errno;
    s->step = STEP_OUTPUT;
    int rc = orri_status_reserve(s->dir);
    if (rc == 0 && !s->lease) {
        s->step = STEP_LEASE;
        rc = why_no_lease;
    }
    return rc;
}

_Noreturn void orri_keeper_run(int ranks_dir, int sock, const char *boot, char *packet)
{
    struct start s = {.keeper = getpid(),
                      .ranks_dir = ranks_dir,
                      .work_dir = -1,
                      .net_ns = -1,
                      .procs_fd = -1,
                      .report_fd = -1,
                      .gone_fd = -1};
    struct orri_report report = {.is_started = false};
    struct orri_status old;
    become_keeper();
    if (!parse_launch(packet, &s))
        _exit(1);
    s.dir = openat(ranks_dir, s.key, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* Locked or ended already: another host has decided about this launch. */
    if (s.dir < 0 || !orri_dir_lock(s.dir) ||
        orri_status_read(s.dir, &old) != ORRI_READ_ABSENT)
        _exit(1);
    orr_str_copy(report.key, sizeof report.key, orr_str(s.key));
    alarm((s.launch->start_timeout_ms + 999) / 1000);
    s.error = prepare(&s);
    pid_t rank = s.error ? -1 : start(&s);
    alarm(0);
    if (rank < 0 || !record_start(&s, boot, rank, &report)) {
        if (s.rank_env.is_image)
            orri_ns_end(&s);
        record_failed_start(&s);
    }
    int self = pidfd_open(s.keeper, 0);
    orri_report_send(sock, &report, self);
    close(self);
    close(sock);
    if (report.is_started && *s.restore_dir)
        orri_image_resume(s.keeper, s.lease);
    if (report.is_started)
        await_end(&s, rank);
    _exit(0);
}
