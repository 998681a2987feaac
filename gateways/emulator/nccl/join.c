/* SPDX-License-Identifier: Apache-2.0
 * join.c - the side of a rendezvous that comes to it (rendezvous.h).
 */
#include "rendezvous.h"
#include "segment.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

enum { GRACE_MS = 5000 }; /* for the root's own report of a timeout to arrive */

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

static ncclResult_t dial(const struct joiner *j, int *ret_fd)
{
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_port = j->id.port,
                             .sin_addr.s_addr = j->id.address};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), err = 0;
    socklen_t len = sizeof err;
    ncclResult_t result = ncclSuccess;

    if (fd < 0 ||
        (connect(fd, (struct sockaddr *)&in, sizeof in) < 0 && errno != EINPROGRESS))
        err = errno;
    if (!err)
        result = await(j, fd, POLLOUT);
    if (!err && result == ncclSuccess)
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
    if (err)
        result = orri_why_set(j->why,
                              ncclSystemError,
                              "cannot reach the process that made the unique id (%s): "
                              "it must live until all ranks have joined",
                              strerror(err));
    if (result == ncclSuccess)
        *ret_fd = fd;
    else if (fd >= 0)
        close(fd);
    return result;
}

static ncclResult_t say_hello(const struct joiner *j, int fd)
{
    if (send(fd, &j->hello, sizeof j->hello, MSG_NOSIGNAL) == (ssize_t)sizeof j->hello)
        return ncclSuccess;
    return orri_why_set(j->why, ncclSystemError, "rendezvous: %s", strerror(errno));
}

/* Waits until everybody has come. */
static ncclResult_t hear_answer(const struct joiner *j, int fd)
{
    struct orri_answer answer;
    size_t got = 0;

    while (got < sizeof answer) {
        ncclResult_t result = await(j, fd, POLLIN);
        ssize_t n;
        if (result != ncclSuccess)
            return result;
        n = recv(fd, (char *)&answer + got, sizeof answer - got, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (n <= 0)
            return orri_why_set(
                j->why,
                ncclRemoteError,
                "the process that made the unique id has ended, or does "
                "not understand this version");
        got += (size_t)n;
    }
    answer.why.text[sizeof answer.why.text - 1] = '\0';
    if (answer.magic != ORRI_HELLO_MAGIC || answer.result < 0 ||
        answer.result >= ncclNumResults)
        return orri_why_set(j->why, ncclInternalError, "rendezvous: garbled answer");
    *j->why = answer.why;
    return (ncclResult_t)answer.result;
}

static bool receive_fds(int fd, int fds[ORRI_FDS])
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * ORRI_FDS)];
        struct cmsghdr header;
    } control;
    char byte;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof control.bytes};
    struct cmsghdr *c;

    if (recvmsg(fd, &msg, MSG_CMSG_CLOEXEC) <= 0)
        return false;
    c = CMSG_FIRSTHDR(&msg);
    if (!c || c->cmsg_type != SCM_RIGHTS ||
        c->cmsg_len != CMSG_LEN(sizeof(int) * ORRI_FDS))
        return false;
    memcpy(fds, CMSG_DATA(c), sizeof(int) * ORRI_FDS);
    return true;
}

static ncclResult_t take_share(const struct joiner *j, struct orri_share *ret_share)
{
    struct sockaddr_un un;
    socklen_t len = orri_root_address(j->id.root, &un);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), fds[ORRI_FDS];
    ncclResult_t result = ncclSuccess;

    if (fd < 0 || connect(fd, (struct sockaddr *)&un, len) < 0)
        result =
            orri_why_set(j->why,
                         ncclSystemError,
                         "cannot share memory with the other ranks (%s): they must "
                         "be on one machine and in one network namespace",
                         strerror(errno));
    if (result == ncclSuccess)
        result = say_hello(j, fd);
    if (result == ncclSuccess)
        result = await(j, fd, POLLIN);
    if (result == ncclSuccess && !receive_fds(fd, fds))
        result = orri_why_set(j->why,
                              ncclRemoteError,
                              "the rendezvous ended before rank %d took its share",
                              (int)j->hello.rank);
    if (result == ncclSuccess)
        *ret_share = (struct orri_share){.segment = fds[0], .ring = {fds[1], fds[2]}};
    if (fd >= 0)
        close(fd);
    return result;
}

ncclResult_t orri_join(const ncclUniqueId *id,
                       int nranks,
                       int rank,
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
    int fd;

    memcpy(&j.id, id->internal, sizeof j.id);
    if (memcmp(j.id.tag, orri_id_tag, sizeof orri_id_tag) != 0)
        return orri_why_set(why,
                            ncclInvalidArgument,
                            "not a unique id of the emulated ncclGetUniqueId");
    memcpy(j.hello.cookie, j.id.cookie, sizeof j.hello.cookie);
    result = dial(&j, &fd);
    if (result != ncclSuccess)
        return result;
    result = say_hello(&j, fd);
    if (result == ncclSuccess)
        result = hear_answer(&j, fd);
    if (result == ncclSuccess)
        result = take_share(&j, ret_share);
    close(fd);
    return result;
}
