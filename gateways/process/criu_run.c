/* SPDX-License-Identifier: Apache-2.0
 * criu_run.c - criu_run.h.
 */
#include "criu_run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LOOK_MS = 100 };

/* Short of memory the kernel is to end others than one that has its hands in a rank (docs/images.md).  Where that may not be asked
 * for, the image is made all the same. */
static void spare_from_oom(void)
{
    static const char never[] = "-1000";
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)!write(fd, never, sizeof never - 1);
    close(fd);
}

/* Only calls that are safe after vfork. */
_Noreturn static void
become_criu(const struct orri_criu_run *run, pid_t parent, volatile int *error)
{
    static char path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *const env[] = {path,
                                                                               NULL};
    sigset_t none;
    if (!run->is_lone)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    setpgid(0, 0);         /* with whatever it starts: end_of_group */
    if (run->procs_fd < 0) /* a dump: what is restored brings its own */
        spare_from_oom();
    sigemptyset(&none);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd <= 2; fd++)
        dup2(null, fd);
    close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
    for (int i = 0; i < run->n_fds; i++)
        fcntl(run->fds[i], F_SETFD, 0);
    if (run->procs_fd >= 0 && write(run->procs_fd, "0", 1) != 1)
        goto fail;
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(run->args[0], (char *const *)(uintptr_t)run->args, env);
fail:
    *error = errno;
    _exit(127);
}

/* True when it ended by itself. */
static bool await(const struct orri_criu_run *run, int pidfd)
{
    struct pollfd fds[] = {{.fd = pidfd, .events = POLLIN},
                           {.fd = run->stop_fd, .events = POLLIN}};
    uint64_t deadline_ms = orri_mono_ms() + run->timeout_ms;
    for (;;) {
        poll(fds, 2, LOOK_MS);
        if (fds[0].revents)
            return true;
        if (fds[1].revents || orri_mono_ms() >= deadline_ms ||
            (run->lease && orri_lease_left_ms(run->lease) == 0))
            return false;
    }
}

pid_t orri_criu_start(const struct orri_criu_run *run, int *ret_error)
{
    volatile int error = 0;
    pid_t parent = getpid();
    pid_t pid = vfork();
    if (pid == 0)
        become_criu(run, parent, &error);
    int why = pid < 0 ? errno : error;
    if (why == 0)
        return pid;
    if (pid > 0)
        waitpid(pid, NULL, 0);
    *ret_error = why;
    return -1;
}

/* Children that CRIU has not ended itself hold the rank's namespaces; while it is a zombie, no other group has its number. */
static void end_of_group(pid_t pid, int *ret_status)
{
    siginfo_t end = {.si_pid = 0};
    while (waitid(P_PID, (id_t)pid, &end, WEXITED | WNOWAIT) < 0 && errno == EINTR)
        ;
    if (end.si_code != CLD_EXITED || end.si_status != 0)
        kill(-pid, SIGKILL);
    while (waitpid(pid, ret_status, 0) < 0 && errno == EINTR)
        ;
}

struct orri_criu_end orri_criu_run(const struct orri_criu_run *run)
{
    struct orri_criu_end end = {.is_ok = false};
    int status = -1;
    pid_t pid = orri_criu_start(run, &end.error);
    if (pid < 0)
        return end;
    int pidfd = pidfd_open(pid, 0);
    end.is_late = !await(run, pidfd);
    if (end.is_late)
        kill(pid, SIGKILL);
    end_of_group(pid, &status);
    close(pidfd);
    end.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    end.is_ok = !end.is_late && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    return end;
}
