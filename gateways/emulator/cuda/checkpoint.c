/* SPDX-License-Identifier: Apache-2.0
 * checkpoint.c - the caller's side of control.h: the driver's six checkpoint calls.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "control.h"

enum {
    CLOSE_MS_MAX = 1000,
    ANSWER_MS_MAX = 600000
}; /* the real driver waits for ever; nothing of ours does */

/* The process' number in its own PID namespace: the last of NSpid. */
static int own_pid(int pid)
{
    char path[64], line[512];
    int own = -1;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f)) {
        const char *last = strncmp(line, "NSpid:", 6) == 0 ? strrchr(line, '\t') : NULL;
        if (last)
            own = atoi(last + 1);
    }
    if (f)
        fclose(f);
    return own;
}

/* The description that the process itself has published; one inherited by fork is its parent's. */
static bool read_control(int pid, struct emu_control *ret)
{
    char path[300], link[300];
    bool is_found = false;
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    DIR *dir = opendir(path);
    const int own = dir ? own_pid(pid) : -1;
    for (struct dirent *e; dir && !is_found && (e = readdir(dir));) {
        snprintf(path, sizeof path, "/proc/%d/fd/%s", pid, e->d_name);
        ssize_t n = readlink(path, link, sizeof link - 1);
        link[n > 0 ? n : 0] = '\0';
        if (strncmp(link,
                    "/memfd:" EMU_CONTROL_NAME,
                    strlen("/memfd:" EMU_CONTROL_NAME)) != 0)
            continue;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        is_found = fd >= 0 && read(fd, ret, sizeof *ret) == sizeof *ret &&
                   ret->version == EMU_CONTROL_VERSION && ret->pid == own;
        if (fd >= 0)
            close(fd);
    }
    if (dir)
        closedir(dir);
    return is_found;
}

static int take_socket(int pid, int number)
{
    int process = (int)syscall(SYS_pidfd_open, pid, 0);
    int fd = process < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, process, number, 0);
    if (process >= 0)
        close(process);
    return fd;
}

/* Hand over the request together with a socket for the answer; false: it could not be sent. */
static bool send_request(int fd, const struct emu_request *r, int answer)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {(void *)(uintptr_t)r, sizeof *r};
    struct msghdr m = {.msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = sizeof control};
    memset(&control, 0, sizeof control);
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof answer);
    memcpy(CMSG_DATA(&control.header), &answer, sizeof answer);
    return sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof *r;
}

static CUresult wait_answer(int fd)
{
    int32_t code;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int rc;
    while ((rc = poll(&p, 1, ANSWER_MS_MAX)) < 0 && errno == EINTR)
        ;
    if (rc == 0)
        return CUDA_ERROR_TIMEOUT;
    if (recv(fd, &code, sizeof code, 0) != sizeof code)
        return CUDA_ERROR_OPERATING_SYSTEM; /* it has ended */
    /* Until it has closed the answer's socket, which is of our network namespace: an image of it could not have that. */
    char nothing;
    if (poll(&p, 1, CLOSE_MS_MAX) == 1)
        (void)!recv(fd, &nothing, 1, 0);
    return (CUresult)code;
}

static CUresult ask(int pid, struct emu_request *r)
{
    struct emu_control control;
    int pair[2];
    if (pid <= 0 || !read_control(pid, &control))
        return CUDA_ERROR_INVALID_VALUE;
    int fd = take_socket(pid, control.socket);
    if (fd < 0)
        return errno == EPERM ? CUDA_ERROR_NOT_PERMITTED : CUDA_ERROR_OPERATING_SYSTEM;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        close(fd);
        return CUDA_ERROR_OPERATING_SYSTEM;
    }
    const char *paths = getenv("ORRERY_EMULATOR_DEVICES");
    r->version = EMU_CONTROL_VERSION;
    snprintf(r->paths, sizeof r->paths, "%s", paths ? paths : "");
    bool is_sent = send_request(fd, r, pair[1]);
    close(pair[1]);
    close(fd);
    CUresult rc = is_sent ? wait_answer(pair[0]) : CUDA_ERROR_OPERATING_SYSTEM;
    close(pair[0]);
    return rc;
}

EMU_API CUresult cuCheckpointProcessGetRestoreThreadId(int pid, int *tid)
{
    struct emu_control control;
    if (!tid || pid <= 0 || !read_control(pid, &control))
        return CUDA_ERROR_INVALID_VALUE;
    *tid = control.tid;
    return CUDA_SUCCESS;
}

EMU_API CUresult cuCheckpointProcessGetState(int pid, CUprocessState *state)
{
    struct emu_control control;
    if (!state || pid <= 0 || !read_control(pid, &control))
        return CUDA_ERROR_INVALID_VALUE;
    *state = (CUprocessState)control.state;
    return CUDA_SUCCESS;
}

EMU_API CUresult cuCheckpointProcessLock(int pid, CUcheckpointLockArgs *args)
{
    struct emu_request r = {.kind = EMU_LOCK, .timeout_ms = args ? args->timeoutMs : 0};
    return ask(pid, &r);
}

EMU_API CUresult cuCheckpointProcessCheckpoint(int pid,
                                               CUcheckpointCheckpointArgs *args)
{
    struct emu_request r = {.kind = EMU_CHECKPOINT};
    (void)args;
    return ask(pid, &r);
}

EMU_API CUresult cuCheckpointProcessRestore(int pid, CUcheckpointRestoreArgs *args)
{
    struct emu_request r = {.kind = EMU_RESTORE};
    if (args && args->gpuPairsCount > EMU_PAIRS_MAX)
        return CUDA_ERROR_INVALID_VALUE;
    if (args && args->gpuPairs) {
        r.n_pairs = args->gpuPairsCount;
        memcpy(r.pairs, args->gpuPairs, r.n_pairs * sizeof r.pairs[0]);
    }
    return ask(pid, &r);
}

EMU_API CUresult cuCheckpointProcessUnlock(int pid, CUcheckpointUnlockArgs *args)
{
    struct emu_request r = {.kind = EMU_UNLOCK};
    (void)args;
    return ask(pid, &r);
}
