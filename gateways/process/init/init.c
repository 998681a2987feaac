/* SPDX-License-Identifier: Apache-2.0
 * init.c - pid 1 of a rank's own namespaces: starts the rank, reaps orphans, and stays.
 *
 * START      orrery-init FD PROGRAM ARGS...: fork, exec the program in a process group of its own; an exec that
 * fails writes its errno to FD, one that succeeds closes it
 * OPERATION  orphans of the rank come here and are reaped
 * STOP       the rank is left a zombie: the keeper, outside, reads from /proc how it ended, exact to the signal, and
 * kills this process; the kernel then kills all that is left.  So nothing but the process tree has to live through an
 * image, and the keeper of a restored rank learns as much as the first one
 * FAILURES   the keeper dies: this process gets SIGKILL from the kernel (PDEATHSIG, set before its exec)
 *
 * It is a part of each image: small, static, and without anything that looks around at start.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "probe.h"

static _Noreturn void become_rank(int report, char **argv)
{
    sigset_t none;
    sigemptyset(&none);
    setpgid(0, 0);
    sigprocmask(SIG_SETMASK, &none, NULL);
    fcntl(report, F_SETFD, FD_CLOEXEC);
    execvp(argv[0], argv);
    int error = errno;
    ssize_t n = write(report, &error, sizeof error);
    _exit(n == (ssize_t)sizeof error ? 127 : 126);
}

/* Nothing of the rank's output or directory is held here. */
static void let_go(int report)
{
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd <= 2 && null >= 0; fd++)
        dup2(null, fd);
    if (null > 2)
        close(null);
    close(report);
    if (chdir("/") != 0)
        _exit(1);
}

int main(int argc, char **argv)
{
    siginfo_t end;
    sigset_t all;
    if (argc == 2 && strcmp(argv[1], "--probe") == 0)
        return probe_main();
    if (argc < 3)
        return 2;
    int report = atoi(argv[1]);
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    pid_t rank = fork();
    if (rank == 0)
        become_rank(report, argv + 2);
    if (rank < 0) {
        int error = errno;
        return write(report, &error, sizeof error) == (ssize_t)sizeof error ? 1 : 2;
    }
    let_go(report);
    for (;;) {
        end.si_pid = 0;
        if (waitid(P_ALL, 0, &end, WEXITED | WNOWAIT) != 0)
            continue;
        if (end.si_pid == rank)
            break;
        waitid(P_PID, (id_t)end.si_pid, &end, WEXITED);
    }
    for (;;)
        pause();
}
