/* SPDX-License-Identifier: Apache-2.0
 * handover.c - see handover.h.
 *
 * The socket lies beside the one of the node's link, which all ranks of a node can reach: network namespaces of their own do not part
 * them there.  A request is a key; the answer a byte with the descriptors; the asker's
 * end of the connection says that it holds the memory.
 */
#include "handover.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../core/thread.h"
#include "../comm.h"

enum { BACKLOG = 128, LOOK_MS = 100, ASK_MS = 2000 };

struct orri_handover {
    int fd;
    uint64_t nonce;
    struct sockaddr_un address;
    struct orri_gift *gifts; /* owned */
    size_t n;
    uint64_t deadline_ms;
    atomic_bool is_over;
    bool has_all;
    bool has_thread;
    pthread_t thread;
};

/* "DIR/sNONCE"; false: too long. */
static bool name_socket(struct sockaddr_un *address, uint64_t nonce)
{
    const char *dir = getenv("ORRERY_SPLICE_DIR"), *link = getenv("ORRERY_RANK_LINK");
    const char *slash = link ? strrchr(link, '/') : NULL;
    int len = dir ? (int)strlen(dir) : slash ? (int)(slash - link) : 4;

    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    len = snprintf(address->sun_path,
                   sizeof address->sun_path,
                   "%.*s/s%016llx",
                   len,
                   dir     ? dir
                   : slash ? link
                           : "/tmp",
                   (unsigned long long)nonce);
    return len > 0 && (size_t)len < sizeof address->sun_path;
}

struct orri_handover *orri_handover_new(void)
{
    struct orri_handover *h = calloc(1, sizeof *h);

    if (!h) {
        orri_nccl_fail(ncclSystemError, "out of memory");
        return NULL;
    }
    h->fd = -1;
    if (getrandom(&h->nonce, sizeof h->nonce, 0) == (ssize_t)sizeof h->nonce &&
        name_socket(&h->address, h->nonce))
        h->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (h->fd >= 0 &&
        (bind(h->fd, (struct sockaddr *)&h->address, sizeof h->address) != 0 ||
         listen(h->fd, BACKLOG) != 0)) {
        close(h->fd);
        h->fd = -1;
    }
    if (h->fd >= 0)
        return h;
    orri_nccl_fail(ncclSystemError,
                   "cannot listen at %s for ranks of the device: %s",
                   h->address.sun_path,
                   strerror(errno));
    free(h);
    return NULL;
}

uint64_t orri_handover_nonce(const struct orri_handover *h)
{
    return h->nonce;
}

/* Until then, in steps that see is_over. */
static bool await_readable(int fd, uint64_t deadline_ms, const atomic_bool *is_over)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    uint64_t now_ms;

    while ((now_ms = orri_nccl_now_ms()) < deadline_ms &&
           !(is_over && atomic_load(is_over))) {
        uint64_t left = deadline_ms - now_ms;
        if (poll(&p, 1, left < LOOK_MS ? (int)left : LOOK_MS) == 1)
            return true;
    }
    return false;
}

enum { FDS_BYTES = 2 * sizeof(int) };

static bool send_fds(int to, const int fd[2])
{
    char byte = 1, control[CMSG_SPACE(FDS_BYTES)] = {0};
    struct iovec io = {&byte, 1};
    struct msghdr msg = {.msg_iov = &io,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(FDS_BYTES);
    memcpy(CMSG_DATA(c), fd, FDS_BYTES);
    return sendmsg(to, &msg, MSG_NOSIGNAL) == 1;
}

static bool receive_fds(int from, int ret_fd[2])
{
    char byte, control[CMSG_SPACE(FDS_BYTES)];
    struct iovec io = {&byte, 1};
    struct msghdr msg = {.msg_iov = &io,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = sizeof control};
    struct cmsghdr *c;

    if (recvmsg(from, &msg, MSG_CMSG_CLOEXEC) != 1)
        return false;
    c = CMSG_FIRSTHDR(&msg);
    if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
        c->cmsg_len != CMSG_LEN(FDS_BYTES))
        return false;
    memcpy(ret_fd, CMSG_DATA(c), FDS_BYTES);
    return true;
}

/* ---- giving -------------------------------------------------------------------------------- */

static size_t left_to_give(const struct orri_handover *h)
{
    size_t left = 0;

    for (size_t i = 0; i < h->n; i++)
        left += (size_t)h->gifts[i].times;
    return left;
}

static void give_to(struct orri_handover *h, int peer)
{
    uint64_t deadline_ms = orri_nccl_now_ms() + ASK_MS, key = 0;

    if (!await_readable(peer, deadline_ms, &h->is_over) ||
        recv(peer, &key, sizeof key, 0) != (ssize_t)sizeof key)
        return;
    for (size_t i = 0; i < h->n; i++)
        if (h->gifts[i].key == key && h->gifts[i].times > 0 &&
            send_fds(peer, h->gifts[i].fd)) {
            /* until it holds the memory, this process must */
            if (await_readable(peer, h->deadline_ms, &h->is_over))
                h->gifts[i].times--;
            return;
        }
}

static void *serve(void *arg)
{
    struct orri_handover *h = arg;

    while (left_to_give(h) > 0 && await_readable(h->fd, h->deadline_ms, &h->is_over)) {
        int peer = accept4(h->fd, NULL, NULL, SOCK_CLOEXEC);
        if (peer < 0)
            continue;
        give_to(h, peer);
        close(peer);
    }
    h->has_all = left_to_give(h) == 0;
    return NULL;
}

bool orri_handover_serve(struct orri_handover *h,
                         const struct orri_gift *gifts,
                         size_t n,
                         uint64_t deadline_ms)
{
    h->gifts = malloc(n ? n * sizeof *gifts : 1);
    if (!h->gifts)
        return false;
    if (n)
        memcpy(h->gifts, gifts, n * sizeof *gifts);
    h->n = n;
    h->deadline_ms = deadline_ms;
    h->has_thread = orri_thread_start(&h->thread, serve, h);
    return h->has_thread;
}

bool orri_handover_await(struct orri_handover *h)
{
    if (h->has_thread)
        pthread_join(h->thread, NULL);
    h->has_thread = false;
    return h->has_all;
}

void orri_handover_free(struct orri_handover *h)
{
    if (!h)
        return;
    atomic_store(&h->is_over, true);
    orri_handover_await(h);
    close(h->fd);
    unlink(h->address.sun_path);
    free(h->gifts);
    free(h);
}

/* ---- fetching ------------------------------------------------------------------------------ */

bool orri_handover_fetch(
    uint64_t nonce, uint64_t key, uint64_t deadline_ms, int ret_fd[2], int *ret_sock)
{
    struct sockaddr_un address;
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    if (sock >= 0 && name_socket(&address, nonce) &&
        connect(sock, (struct sockaddr *)&address, sizeof address) == 0 &&
        send(sock, &key, sizeof key, MSG_NOSIGNAL) == (ssize_t)sizeof key &&
        await_readable(sock, deadline_ms, NULL) && receive_fds(sock, ret_fd)) {
        *ret_sock = sock;
        return true;
    }
    if (sock >= 0)
        close(sock);
    orri_nccl_fail(ncclSystemError,
                   "the rank that leads this device has not given its scratch at %s",
                   address.sun_path);
    return false;
}
