/* SPDX-License-Identifier: Apache-2.0
 * keeper_ns.c - a keeper's rank in PID, network, IPC and UTS namespaces of its own: what an image can be made of.
 *
 *   keeper ── orrery-init (pid 1 there) ── rank (pid 2 there)
 *
 * START      write env (what will be made), make cgroup and network, clone the init, which starts the rank; or let CRIU restore
 * both.  The link of eth0 goes up last, so that a restored rank's peers never meet a machine that does not know them yet
 * OPERATION  the rank's end is seen through a pidfd; the init keeps it a zombie until its status was read from /proc
 * STOP       kill the init, and the kernel all else in the namespace; remove network and cgroup
 * FAILURES   of a rank whose memory still comes: lazy.h.  keeper dead: the init dies (PDEATHSIG, which CRIU restores, as it restores the init as a child of the keeper, not of
 * itself); a CRIU that was restoring dies as well; what it had made so far is in the cgroup and is killed by the host that sees
 * the keeper's lock gone, which nothing of CRIU's holds
 */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "image.h"
#include "rank_tree.h"

enum {
    STACK_BYTES = 256 << 10,
    END_MS_MAX = 10000,
    FREEZE_MS_MAX = 5000,
    CGROUP_MS_MAX = 2000,
    LAZY_LOOK_MS = 500,
};

static pid_t fail_at(struct start *s, int error, const char *what)
{
    s->step = STEP_NAMESPACE;
    s->error = error;
    snprintf(s->what, sizeof s->what, "%s", what);
    return -1;
}

/* ---- surroundings
 * ----------------------------------------------------------------------------- */

/* 0, or an errno with *ret_what. */
static int make_surroundings(struct start *s, const char **ret_what)
{
    char name[ORRI_RANK_NAME_MAX];
    orri_rank_name(s->ranks_dir, s->key, name);
    const struct orri_overlay_plan plan = {
        .id = s->launch->overlay,
        .rank = name,
        .address = s->address,
        .underlay = s->underlay,
        .peers = (const char *const *)s->peers,
        .n_peers = s->launch->n_peers,
    };
    s->rank_env =
        (struct orri_env){.is_image = true, .overlay = orri_overlay_names(&plan)};
    orr_str_copy(s->rank_env.address, sizeof s->rank_env.address, orr_str(s->address));
    *ret_what = "cgroup freezer";
    if (!orri_cgroup_path(name, s->rank_env.cgroup))
        return ENOENT;
    *ret_what = "file env";
    int rc = orri_env_write(s->dir, &s->rank_env);
    if (rc == 0) {
        *ret_what = s->rank_env.cgroup;
        rc = orri_cgroup_make(s->rank_env.cgroup);
    }
    if (rc == 0) {
        s->procs_fd = orri_cgroup_procs(s->rank_env.cgroup);
        rc = s->procs_fd < 0 ? -s->procs_fd : 0;
    }
    return rc ? rc
              : orri_overlay_make(&plan, &s->rank_env.overlay, &s->net_ns, ret_what);
}

static void close_fds(struct start *s)
{
    int *fds[] = {&s->net_ns, &s->procs_fd, &s->report_fd, &s->gone_fd};
    for (size_t i = 0; i < ORR_ARRAY_SIZE(fds); i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
}

/* ---- a fresh start
 * ---------------------------------------------------------------------------- */

/* The init's life before its exec, in the keeper's memory. */
static int init_main(void *arg)
{
    struct start *s = arg;
    struct pollfd gone = {.fd = s->gone_fd, .events = POLLIN};
    char fd[16];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (poll(&gone, 1, 0) != 0)
        _exit(1);
    s->step = STEP_NAMESPACE;
    if (setns(s->net_ns, CLONE_NEWNET) != 0 || write(s->procs_fd, "0", 1) != 1 ||
        setsid() < 0 ||
        (*s->hostname && sethostname(s->hostname, strlen(s->hostname)) != 0))
        goto fail;
    if (!orri_rank_prepare(s) || !orri_lease_allows(s))
        _exit(127);
    s->step = STEP_EXEC;
    close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
    fcntl(s->report_fd, F_SETFD, 0);
    snprintf(fd, sizeof fd, "%d", s->report_fd);
    s->args[-2] = (char *)(uintptr_t) "orrery-init";
    s->args[-1] = fd;
    execve(s->init, s->args - 2, s->env);
    s->step = STEP_NAMESPACE;
fail:
    s->error = errno;
    _exit(127);
}

/* -1 with step and error, or the init's pid; then *ret_report is where the rank's exec is heard of. */
static pid_t clone_init(struct start *s, int *ret_report)
{
    static char stack[STACK_BYTES] __attribute__((aligned(16)));
    const int namespaces = CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS;
    int report[2];
    s->gone_fd = pidfd_open(s->keeper, 0);
    if (s->gone_fd < 0 || pipe2(report, O_CLOEXEC) != 0)
        return fail_at(s, errno, "pipe");
    s->report_fd = report[1];
    pid_t pid = clone(init_main,
                      stack + sizeof stack,
                      CLONE_VM | CLONE_VFORK | namespaces | SIGCHLD,
                      s);
    int error = errno;
    close(report[1]);
    s->report_fd = -1;
    if (pid > 0) {
        *ret_report = report[0];
        return pid;
    }
    close(report[0]);
    return fail_at(s, error, "PID, IPC and UTS namespaces");
}

/* Write down whom an image is to be made of.  The rank's pid, or -1. */
static pid_t record_init(struct start *s, pid_t init)
{
    pid_t rank = orri_tree_child(init);
    s->rank_env.init = init;
    s->rank_env.init_start = orri_proc_start(init);
    int rc = rank > 0 ? orri_env_write(s->dir, &s->rank_env) : ESRCH;
    if (rc == 0)
        return rank;
    kill(init, SIGKILL);
    waitpid(init, NULL, 0);
    return fail_at(s, rc, "file env");
}

pid_t orri_ns_start(struct start *s)
{
    const char *what;
    int report = -1;
    s->step = STEP_NAMESPACE;
    s->error = make_surroundings(s, &what);
    if (s->error == 0)
        s->error = orri_overlay_link(&s->rank_env.overlay, true, s->net_ns, s->address);
    if (s->error)
        return fail_at(s, s->error, what);
    pid_t init = clone_init(s, &report);
    close_fds(s);
    if (init < 0)
        return -1;
    int error = 0;
    if (s->error == 0 && read(report, &error, sizeof error) == (ssize_t)sizeof error) {
        s->step = STEP_EXEC;
        s->error = error;
    }
    close(report);
    if (s->error == 0)
        return record_init(s, init);
    kill(init, SIGKILL);
    waitpid(init, NULL, 0);
    return -1;
}

/* ---- from an image
 * ------------------------------------------------------------------------------ */

static pid_t fail_restore(struct start *s)
{
    s->step = STEP_RESTORE;
    s->error = EIO;
    return -1;
}

static enum orr_err
start_lazy(struct start *s, const struct orri_lazy_plan *plan, struct orr_error *err)
{
    enum orr_err rc = orri_lazy_start(&s->lazy, plan, err);
    if (rc != ORR_OK)
        return rc;
    s->rank_env.lazy = s->lazy.pid;
    s->rank_env.lazy_start = orri_proc_start(s->lazy.pid);
    int error = orri_env_write(s->dir, &s->rank_env);
    return error ? orr_fail(err, ORR_EIO, "file env: %s", strerror(error)) : ORR_OK;
}

static enum orr_err
restore(struct start *s, bool is_lazy, pid_t *ret_init, struct orr_error *err)
{
    const struct orri_lazy_plan plan = {.criu = s->criu,
                                        .dir = s->restore_dir,
                                        .rank_dir = s->work_dir,
                                        .timeout_ms = s->launch->restore_timeout_ms};
    enum orr_err rc = is_lazy ? start_lazy(s, &plan, err) : ORR_OK;
    const struct orri_restore restore = {
        .criu = {s->criu, s->plugins, s->launch->has_nft},
        .dir = s->restore_dir,
        .rank_dir = s->work_dir,
        .net_ns = s->net_ns,
        .procs_fd = s->procs_fd,
        .is_lazy = is_lazy,
        .lease = s->lease,
        .timeout_ms = s->launch->restore_timeout_ms,
    };
    if (rc == ORR_OK)
        rc = orri_image_restore(&restore, ret_init, err);
    if (rc == ORR_OK && is_lazy)
        rc = orri_lazy_guard(&s->lazy, &plan, err);
    return rc;
}

/* As process_freeze leaves a rank: a thaw puts its link up, too. */
static enum orr_err keep_frozen(struct start *s, struct orr_error *err)
{
    int error = orri_mark_set(s->dir, ORRI_MARK_FROZEN, true);
    if (error == 0)
        error = *s->rank_env.cgroup
                    ? orri_cgroup_freeze(s->rank_env.cgroup, true, FREEZE_MS_MAX)
                    : ENOTSUP;
    return error ? orr_fail(err, ORR_EIO, "cannot keep it frozen: %s", strerror(error))
                 : ORR_OK;
}

static pid_t restore_once(struct start *s, bool is_lazy)
{
    const char *what;
    struct orr_error err = {.text = ""};
    pid_t init = -1;
    s->step = STEP_NAMESPACE;
    s->error = make_surroundings(s, &what);
    if (s->error)
        return fail_at(s, s->error, what);
    enum orr_err rc = restore(s, is_lazy, &init, &err);
    if (init > 0 && rc != ORR_OK)
        s->rank_env.init = init; /* to be killed by orri_ns_end */
    if (rc == ORR_OK && s->launch->stays_frozen)
        rc = keep_frozen(s, &err);
    pid_t rank = rc == ORR_OK ? record_init(s, init) : -1;
    if (rank > 0 && !s->launch->stays_frozen)
        (void)orri_overlay_link(&s->rank_env.overlay, true, s->net_ns, s->address);
    close_fds(s);
    if (rc == ORR_OK)
        return rank;
    orr_str_copy(s->what, sizeof s->what, orr_str(err.text));
    return fail_restore(s);
}

/* What cannot be restored lazily may still be restored whole. */
pid_t orri_ns_restore(struct start *s)
{
    bool is_lazy = orri_lazy_bytes(s->restore_dir) >= s->launch->lazy_bytes_min;
    if (!orri_lease_allows(s))
        return -1;
    s->step = STEP_OUTPUT;
    s->work_dir = openat(s->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->work_dir < 0) {
        s->error = errno;
        return -1;
    }
    pid_t rank = restore_once(s, is_lazy);
    if (rank > 0 || !is_lazy || s->step != STEP_RESTORE ||
        orri_lease_left_ms(s->lease) == 0)
        return rank;
    orri_ns_end(s);
    s->lazy = (struct orri_lazy){.pid = 0};
    s->error = 0;
    return restore_once(s, false);
}

/* ---- the end
 * ---------------------------------------------------------------------------------- */

/* Of a zombie, in the form of waitpid; of one that is gone altogether with its namespace: killed. */
static int read_exit(pid_t rank, uint64_t start)
{
    char path[32], buf[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)rank);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, buf, sizeof buf - 1) : 0;
    if (fd >= 0)
        close(fd);
    buf[n > 0 ? n : 0] = '\0';
    char *at = strrchr(buf, ')');
    if (!at || orri_proc_start(rank) != start)
        return SIGKILL;
    for (int field = 2; at && field < 52; field++) /* exit_code is the 52nd */
        at = strchr(at + 1, ' ');
    return at ? atoi(at + 1) : SIGKILL;
}

int orri_ns_wait(struct start *s, pid_t rank)
{
    uint64_t frozen_for = 0, start = orri_proc_start(rank);
    struct pollfd ends[] = {{.fd = pidfd_open(rank, 0), .events = POLLIN},
                            {.fd = pidfd_open(s->rank_env.init, 0), .events = POLLIN},
                            {.fd = -1, .events = POLLIN}};
    bool has_ended = ends[0].fd < 0 || ends[1].fd < 0;
    while (!has_ended) {
        uint64_t look_ms = orri_lease_look(s, &frozen_for);
        enum orri_lazy_state lazy = orri_lazy_look(&s->lazy, s->lease);
        if (lazy == ORRI_LAZY_FAILED)
            kill(s->rank_env.init, SIGKILL);
        ends[2].fd = lazy == ORRI_LAZY_WORKS ? s->lazy.signal_fd : -1;
        if (lazy == ORRI_LAZY_WORKS && look_ms > LAZY_LOOK_MS)
            look_ms = LAZY_LOOK_MS;
        poll(ends, 3, (int)look_ms);
        has_ended = ends[0].revents || ends[1].revents;
    }
    for (int i = 0; i < 2; i++) {
        if (ends[i].fd >= 0)
            close(ends[i].fd);
    }
    return read_exit(rank, start);
}

void orri_ns_end(struct start *s)
{
    struct orri_env *env = &s->rank_env;
    uint64_t deadline_ms = orri_mono_ms() + END_MS_MAX;
    close_fds(s);
    if (env->init > 0)
        kill(env->init, SIGKILL);
    if (*env->cgroup)
        (void)orri_cgroup_kill(env->cgroup, END_MS_MAX);
    while (env->init > 0 && waitpid(env->init, NULL, WNOHANG) == 0 &&
           orri_mono_ms() < deadline_ms)
        poll(NULL, 0, 1);
    orri_lazy_end(&s->lazy);
    if (*env->cgroup)
        (void)orri_cgroup_remove(env->cgroup, CGROUP_MS_MAX);
    orri_overlay_remove(&env->overlay);
}
