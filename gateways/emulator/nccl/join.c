/* SPDX-License-Identifier: Apache-2.0
 * join.c - the side of a rendezvous that comes to it (rendezvous.h).
 */
#include "rendezvous.h"
#include "segment.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    RETRY_MS = 2,
    GRACE_MS = 5000
}; /* for the root's own report of a timeout to arrive */

struct joiner {
    struct orri_id id;
    struct orri_hello hello;
    int cancel; /* borrowed */
    uint64_t deadline_ms;
    struct orri_why *why;
};

/* Waits for `events` on fd. Errors: internal (cancelled), system (too late). */
static ncclResult_t await(const struct joiner *j, int fd, short events)
{
    struct pollfd polls[2] = {{.fd = fd, .events = events},
                              {.fd = j->cancel, .events = POLLIN}};
    uint64_t now;

    while ((now = orri_now_ms()) < j->deadline_ms) {
        if (poll(polls, 2, (int)(j->deadline_ms - now)) < 0 && errno != EINTR)
            return orri_why_set(j->why, ncclSystemError, "poll: %s", strerror(errno));
        if (polls[1].revents)
            return orri_why_set(
                j->why, ncclInternalError, "the communicator was aborted in its init");
        if (polls[0].revents)
            return ncclSuccess;
    }
    return orri_why_set(j->why,
                        ncclSystemError,
                        "the process that made the unique id did not answer in %u ms",
                        orri_timeout_ms() + GRACE_MS);
}

/* The root removes its socket's name before it hangs up on those who come too late. */
static ncclResult_t used_up(const struct joiner *j)
{
    return orri_why_set(
        j->why,
        ncclInvalidUsage,
        "the unique id is used up, or its ranks do not share one machine "
        "and its /dev/shm: make one for each communicator");
}

/* Errors: internal (cancelled). */
static ncclResult_t pause_a_little(const struct joiner *j)
{
    struct pollfd poll_fd = {.fd = j->cancel, .events = POLLIN};

    if (poll(&poll_fd, 1, RETRY_MS) == 1)
        return orri_why_set(
            j->why, ncclInternalError, "the communicator was aborted in its init");
    return ncclSuccess;
}

static ncclResult_t dial(const struct joiner *j, int *ret_fd)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), err;

    memcpy(un.sun_path, j->id.path, sizeof j->id.path);
    while ((err = fd < 0 || connect(fd, (struct sockaddr *)&un, sizeof un) < 0
                      ? errno
                      : 0) == EAGAIN &&
           orri_now_ms() < j->deadline_ms) { /* its queue is full */
        ncclResult_t result = pause_a_little(j);
        if (result != ncclSuccess) {
            close(fd);
            return result;
        }
    }
    if (!err) {
        *ret_fd = fd;
        return ncclSuccess;
    }
    if (fd >= 0)
        close(fd);
    if (err == ENOENT)
        return used_up(j);
    return orri_why_set(j->why,
                        ncclSystemError,
                        "cannot reach the process that made the unique id (%s): "
                        "it must live until all ranks have joined",
                        strerror(err));
}

static ncclResult_t say_hello(const struct joiner *j, int fd)
{
    if (send(fd, &j->hello, sizeof j->hello, MSG_NOSIGNAL) == (ssize_t)sizeof j->hello)
        return ncclSuccess;
    return orri_why_set(j->why, ncclSystemError, "rendezvous: %s", strerror(errno));
}

/* The descriptors of a successful answer. */
static bool take_fds(struct msghdr *msg, struct orri_share *ret_share)
{
    struct cmsghdr *c = CMSG_FIRSTHDR(msg);
    int fds[ORRI_FDS];

    if (!c || c->cmsg_type != SCM_RIGHTS ||
        c->cmsg_len != CMSG_LEN(sizeof(int) * ORRI_FDS))
        return false;
    memcpy(fds, CMSG_DATA(c), sizeof fds);
    *ret_share = (struct orri_share){.segment = fds[0], .ring = {fds[1], fds[2]}};
    return true;
}

/* Waits until everybody has come. */
static ncclResult_t
hear_answer(const struct joiner *j, int fd, struct orri_share *ret_share)
{
    struct orri_answer answer;
    union {
        char bytes[CMSG_SPACE(sizeof(int) * ORRI_FDS)];
        struct cmsghdr header;
    } control;
    struct iovec iov = {.iov_base = &answer, .iov_len = sizeof answer};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof control.bytes};
    ncclResult_t result = await(j, fd, POLLIN);
    ssize_t n;

    if (result != ncclSuccess)
        return result;
    n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
    if (n <= 0 && access(j->id.path, F_OK) < 0 && errno == ENOENT)
        return used_up(j);
    if (n <= 0)
        return orri_why_set(j->why,
                            ncclRemoteError,
                            "the process that made the unique id has ended, or does "
                            "not understand this version");
    if (n != (ssize_t)sizeof answer || answer.magic != ORRI_HELLO_MAGIC ||
        answer.result < 0 || answer.result >= ncclNumResults ||
        (answer.result == ncclSuccess && !take_fds(&msg, ret_share)))
        return orri_why_set(j->why, ncclInternalError, "rendezvous: garbled answer");
    answer.why.text[sizeof answer.why.text - 1] = '\0';
    *j->why = answer.why;
    return (ncclResult_t)answer.result;
}

ncclResult_t orri_join(const ncclUniqueId *id,
                       int nranks,
                       int rank,
                       const uint8_t device[16],
                       int cancel,
                       struct orri_share *ret_share,
                       struct orri_why *why)
{
    struct joiner j = {.hello = {.magic = ORRI_HELLO_MAGIC,
                                 .version = ORRI_HELLO_VERSION,
                                 .nranks = nranks,
                                 .rank = rank},
                       .cancel = cancel,
                       .deadline_ms = orri_now_ms() + orri_timeout_ms() + GRACE_MS,
                       .why = why};
    ncclResult_t result;
    int fd = -1;

    memcpy(&j.id, id->internal, sizeof j.id);
    j.id.path[sizeof j.id.path - 1] = '\0';
    if (memcmp(j.id.tag, orri_id_tag, sizeof orri_id_tag) != 0)
        return orri_why_set(why,
                            ncclInvalidArgument,
                            "not a unique id of the emulated ncclGetUniqueId");
    memcpy(j.hello.device, device, sizeof j.hello.device);
    memcpy(j.hello.cookie, j.id.cookie, sizeof j.hello.cookie);
    result = dial(&j, &fd);
    if (result != ncclSuccess)
        return result;
    result = say_hello(&j, fd);
    if (result == ncclSuccess)
        result = hear_answer(&j, fd, ret_share);
    close(fd);
    return result;
}
