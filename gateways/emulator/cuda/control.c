/* SPDX-License-Identifier: Apache-2.0
 * control.c - the target's side of control.h.
 */
#include "control.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int sockets[2] = {-1, -1}; /* served, to be taken */
static int description = -1;
static CUprocessState state; /* written by the control thread alone */

static void publish(void)
{
    struct emu_control c = {.version = EMU_CONTROL_VERSION,
                            .pid = getpid(),
                            .tid = (int32_t)syscall(SYS_gettid),
                            .socket = sockets[1],
                            .state = (int32_t)state};
    while (pwrite(description, &c, sizeof c, 0) < 0 && errno == EINTR)
        ;
}

/* One request and the socket for its answer; -1: nothing that could be answered. */
static int receive(struct emu_request *request)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {request, sizeof *request};
    struct msghdr m = {.msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = sizeof control};
    ssize_t n = recvmsg(sockets[0], &m, MSG_CMSG_CLOEXEC);
    struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
    int answer = -1;
    if (c && c->cmsg_type == SCM_RIGHTS)
        memcpy(&answer, CMSG_DATA(c), sizeof answer);
    if (answer >= 0 &&
        (n != sizeof *request || request->version != EMU_CONTROL_VERSION)) {
        close(answer);
        answer = -1;
    }
    return answer;
}

static void *serve(void *unused)
{
    static struct emu_request request; /* too large for this stack */
    (void)unused;
    publish();
    for (;;) {
        int answer = receive(&request);
        if (answer < 0)
            continue;
        request.paths[sizeof request.paths - 1] = '\0';
        pthread_mutex_lock(&emu.lock);
        CUresult rc = emu_checkpoint_do(&request, &state);
        publish();
        pthread_mutex_unlock(&emu.lock);
        int32_t code = (int32_t)rc;
        (void)!send(answer, &code, sizeof code, MSG_NOSIGNAL);
        close(answer);
    }
    return NULL;
}

CUresult emu_control_start(void)
{
    pthread_t thread;
    pthread_attr_t attr;
    sigset_t all, before;
    description = memfd_create(EMU_CONTROL_NAME, MFD_CLOEXEC);
    if (description < 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) != 0) {
        emu_control_abandon();
        return CUDA_ERROR_OPERATING_SYSTEM;
    }
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    sigfillset(&all); /* the program's signals are for its own threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&thread, &attr, serve, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    if (rc == 0)
        return CUDA_SUCCESS;
    emu_control_abandon();
    return CUDA_ERROR_OUT_OF_MEMORY;
}

void emu_control_abandon(void)
{
    for (int i = 0; i < 2; i++)
        if (sockets[i] >= 0)
            close(sockets[i]);
    if (description >= 0)
        close(description);
    sockets[0] = sockets[1] = description = -1;
}
