/* SPDX-License-Identifier: Apache-2.0
 * hand.c - see meet.h: descriptors go from process to process over UNIX sockets, one of each process, for as long as it lives.
 *
 * A request says what is wanted: board and backup, or the frames of some slots.  The answer is a packet with both descriptors, or one
 * packet for each slot, with a descriptor or without.  Whoever asks has the turn, or is alone in coming, so an answer never waits for
 * anything of the asker.
 */
#include <dirent.h>
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
#include "../gate.h"
#include "meet.h"

enum { BACKLOG = 64, WAIT_MS = 5000, FDS_MAX = 2, FD_MIN = 300 };
enum { WANT_BOARD, WANT_FRAMES };

struct request {
    uint32_t what, first, n;
};

static bool
name_socket(struct sockaddr_un *address, const struct orri_place *place, uint32_t nonce)
{
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    int n = snprintf(address->sun_path,
                     sizeof address->sun_path,
                     "%s/m%08x.%08x",
                     place->dir,
                     place->key,
                     nonce);
    return n > 0 && (size_t)n < sizeof address->sun_path;
}

/* Who comes later need not try it. */
static struct sockaddr_un mine;
static pid_t owner;

__attribute__((destructor)) static void remove_socket(void)
{
    if (owner && owner == getpid()) /* not a child of it */
        unlink(mine.sun_path);
}

int orri_hand_listen(const struct orri_place *place, uint32_t *ret_nonce)
{
    struct sockaddr_un address;
    if (getrandom(ret_nonce, sizeof *ret_nonce, 0) != (ssize_t)sizeof *ret_nonce ||
        !name_socket(&address, place, *ret_nonce))
        return -1;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, FD_MIN);
    if (fd >= 0)
        close(fd);
    if (high >= 0 && (bind(high, (struct sockaddr *)&address, sizeof address) != 0 ||
                      listen(high, BACKLOG) != 0)) {
        close(high);
        high = -1;
    }
    if (high >= 0) {
        mine = address;
        owner = getpid();
    }
    return high;
}

static bool await(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    uint64_t deadline_ms = orri_cuda_now_ms() + WAIT_MS, now_ms;
    int rc = 0;
    while (rc <= 0 && (now_ms = orri_cuda_now_ms()) < deadline_ms) {
        rc = poll(&p, 1, (int)(deadline_ms - now_ms));
        if (rc < 0 && errno != EINTR)
            break;
    }
    return rc == 1;
}

/* n descriptors; none: a packet that says so. */
static bool send_fds(int to, const int *fds, size_t n)
{
    char byte = n != 0, control[CMSG_SPACE(FDS_MAX * sizeof(int))] = {0};
    struct iovec io = {&byte, 1};
    struct msghdr msg = {.msg_iov = &io, .msg_iovlen = 1};
    if (n) {
        msg.msg_control = control;
        msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n * sizeof(int));
    }
    return sendmsg(to, &msg, MSG_NOSIGNAL) == 1;
}

/* How many came: 0 when there are none, -1 when nobody answers. */
static int receive_fds(int from, int *ret_fds, size_t n)
{
    char byte = 0, control[CMSG_SPACE(FDS_MAX * sizeof(int))];
    struct iovec io = {&byte, 1};
    struct msghdr msg = {.msg_iov = &io,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = sizeof control};
    if (!await(from) || recvmsg(from, &msg, MSG_CMSG_CLOEXEC) != 1)
        return -1;
    if (!byte)
        return 0;
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
        c->cmsg_len != CMSG_LEN(n * sizeof(int)))
        return -1;
    memcpy(ret_fds, CMSG_DATA(c), n * sizeof(int));
    return (int)n;
}

/* ---- giving -------------------------------------------------------------------------------------- */

static void answer(struct orri_meet *m, int peer)
{
    struct request r;
    if (!await(peer) || recv(peer, &r, sizeof r, 0) != (ssize_t)sizeof r)
        return;
    if (r.what == WANT_BOARD) {
        const int both[2] = {m->board_fd, m->backup_fd};
        send_fds(peer, both, 2);
        return;
    }
    for (uint32_t i = 0; i < r.n && r.n <= ORRI_SLOTS_MAX; i++) {
        int fd = r.first + i < ORRI_SLOTS_MAX ? m->give(r.first + i) : -1;
        bool is_sent = send_fds(peer, &fd, fd >= 0);
        if (fd >= 0)
            close(fd);
        if (!is_sent)
            return;
    }
}

static void *serve(void *arg)
{
    struct orri_meet *m = arg;
    orri_cuda_exempt_begin();
    for (;;) { /* as long as the process lives */
        int peer = accept4(m->listen_fd, NULL, NULL, SOCK_CLOEXEC);
        if (peer < 0 && errno != EINTR && errno != ECONNABORTED)
            return NULL; /* nobody can be given anything: they make their own */
        if (peer < 0)
            continue;
        const struct timeval limit = {.tv_sec = WAIT_MS / 1000};
        setsockopt(peer, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        answer(m, peer);
        close(peer);
    }
}

bool orri_hand_serve(struct orri_meet *m)
{
    return orri_thread_run(serve, m);
}

/* ---- asking -------------------------------------------------------------------------------------- */

/* *ret_is_stale: whoever listened there is gone. */
static int ask(const struct sockaddr_un *address, struct request r, bool *ret_is_stale)
{
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    *ret_is_stale = false;
    if (sock < 0)
        return -1;
    if (connect(sock, (const struct sockaddr *)address, sizeof *address) == 0 &&
        send(sock, &r, sizeof r, MSG_NOSIGNAL) == (ssize_t)sizeof r)
        return sock;
    *ret_is_stale = errno == ECONNREFUSED;
    close(sock);
    return -1;
}

static bool ask_board(const struct sockaddr_un *address, int ret_fds[2])
{
    bool is_stale;
    int sock = ask(address, (struct request){.what = WANT_BOARD}, &is_stale);
    if (is_stale)
        unlink(address->sun_path);
    if (sock < 0)
        return false;
    bool ok = receive_fds(sock, ret_fds, 2) == 2;
    close(sock);
    return ok;
}

bool orri_hand_find(const struct orri_place *place, int ret_fds[2])
{
    char start[16];
    bool ok = false;
    DIR *dir = opendir(place->dir);
    snprintf(start, sizeof start, "m%08x.", place->key);
    for (struct dirent *e; dir && !ok && (e = readdir(dir));) {
        struct sockaddr_un address;
        if (strncmp(e->d_name, start, strlen(start)) == 0 &&
            name_socket(&address,
                        place,
                        (uint32_t)strtoul(e->d_name + strlen(start), NULL, 16)))
            ok = ask_board(&address, ret_fds);
    }
    if (dir)
        closedir(dir);
    return ok;
}

void orri_hand_fetch(const struct orri_place *place,
                     uint64_t nonce,
                     uint32_t first,
                     uint32_t n,
                     int *ret_fds)
{
    struct sockaddr_un address;
    bool is_stale, is_there;
    int sock = -1;
    if (name_socket(&address, place, (uint32_t)nonce))
        sock = ask(&address,
                   (struct request){.what = WANT_FRAMES, .first = first, .n = n},
                   &is_stale);
    is_there = sock >= 0;
    for (uint32_t i = 0; i < n; i++) {
        ret_fds[i] = -1;
        if (is_there && receive_fds(sock, &ret_fds[i], 1) < 0)
            is_there = false;
    }
    if (sock >= 0)
        close(sock);
}
