/* SPDX-License-Identifier: Apache-2.0
 * spawner.c - the process that forks keepers, and the packets around it (spawner.h).
 *
 * It ignores SIGCHLD, so that the system reaps keepers and nothing here has to.
 */
#include "spawner.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "image_probe.h"
#include "process_linux.h"

enum { SPAWNER_FD = 3 };

/* Socket at SPAWNER_FD and nothing else of the host's; a session of its own, so that a
 * terminal's signals pass it by. */
static int start_program(const char *ranks_dir, int sock, pid_t *ret_pid)
{
    extern char **environ;
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t all, none;
    char *argv[] = {
        (char[]){"orrery"}, (char[]){ORR_SPAWNER_ARG}, strdup(ranks_dir), NULL};
    if (!argv[2])
        return ENOMEM;
    sigfillset(&all);
    sigemptyset(&none);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDWR, 0);
    posix_spawn_file_actions_adddup2(&files, sock, SPAWNER_FD);
    posix_spawn_file_actions_addclosefrom_np(&files, SPAWNER_FD + 1);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(
        &attr,
        (short)(POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID));
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawnattr_setsigmask(&attr, &none);
    int rc = posix_spawn(ret_pid, "/proc/self/exe", &files, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    free(argv[2]);
    return rc;
}

enum orr_err orri_spawner_start(const char *ranks_dir,
                                pid_t *ret_pid,
                                int *ret_socket,
                                struct orr_error *err)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return orr_fail(
            err, ORR_EIO, "spawner: cannot make a socket: %s", strerror(errno));
    int bytes = 2 * ORRI_LAUNCH_BYTES_MAX;
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    int rc = start_program(ranks_dir, pair[1], ret_pid);
    close(pair[1]);
    if (rc != 0) {
        close(pair[0]);
        return orr_fail(
            err, ORR_EIO, "spawner: cannot start /proc/self/exe: %s", strerror(rc));
    }
    *ret_socket = pair[0];
    return ORR_OK;
}

/* ---- reports
 * ---------------------------------------------------------------------------- */

union fd_control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
};

void orri_report_send(int sock, const struct orri_report *report, int keeper)
{
    union fd_control control;
    struct iovec data = {.iov_base = (void *)(uintptr_t)report,
                         .iov_len = sizeof *report};
    struct msghdr msg = {.msg_iov = &data, .msg_iovlen = 1};
    if (keeper >= 0) {
        memset(&control, 0, sizeof control);
        msg.msg_control = control.bytes;
        msg.msg_controllen = sizeof control.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
                              .cmsg_type = SCM_RIGHTS,
                              .cmsg_len = CMSG_LEN(sizeof(int))};
        memcpy(CMSG_DATA(c), &keeper, sizeof keeper);
    }
    /* A host that is gone reads the files instead. */
    while (sendmsg(sock, &msg, MSG_NOSIGNAL) < 0 && errno == EINTR)
        ;
}

int orri_report_receive(int sock, struct orri_report *ret_report, int *ret_keeper)
{
    union fd_control control;
    struct iovec data = {.iov_base = ret_report, .iov_len = sizeof *ret_report};
    struct msghdr msg = {.msg_iov = &data,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0)
        return errno == EINTR ? -EAGAIN : -errno;
    *ret_keeper = -1;
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (c && c->cmsg_type == SCM_RIGHTS)
        memcpy(ret_keeper, CMSG_DATA(c), sizeof *ret_keeper);
    if (n == 0)
        return 0;
    ORR_ASSERT((size_t)n == sizeof *ret_report);
    return 1;
}

/* ---- the process
 * ------------------------------------------------------------------------ */

static void fork_keeper(int ranks_dir, const char *boot, char *packet)
{
    pid_t pid = fork();
    if (pid == 0)
        orri_keeper_run(ranks_dir, SPAWNER_FD, boot, packet);
    if (pid < 0) {
        struct orri_report report = {.error = errno};
        orr_str_copy(report.key,
                     sizeof report.key,
                     orr_str(packet + sizeof(struct orri_launch)));
        orri_report_send(SPAWNER_FD, &report, -1);
    }
}

int orr_spawner_main(int argc, char **argv)
{
    static _Alignas(struct orri_launch) char packet[ORRI_LAUNCH_BYTES_MAX];
    char boot[ORRI_BOOT_MAX];
    if (argc == 6 && strcmp(argv[2], ORRI_PROBE_ARG) == 0)
        return orri_probe_main(argv[3], argv[4], argv[5]);
    int ranks_dir = argc == 3 ? open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (ranks_dir < 0) {
        fprintf(stderr, "orrery %s: for the host's own use\n", ORR_SPAWNER_ARG);
        return 2;
    }
    prctl(PR_SET_PDEATHSIG,
          SIGKILL); /* a host that dies before this closes the socket */
    prctl(PR_SET_NAME, "orrery-spawner");
    signal(SIGCHLD, SIG_IGN);
    orri_boot_id(boot);
    for (;;) {
        ssize_t n = recv(SPAWNER_FD, packet, sizeof packet, 0);
        if (n > (ssize_t)sizeof(struct orri_launch) && packet[n - 1] == '\0')
            fork_keeper(ranks_dir, boot, packet);
        else if (n >= 0 || errno != EINTR)
            _exit(0);
    }
}
