/* SPDX-License-Identifier: Apache-2.0
 * meet.c - the rendezvous of meet.h over plain TCP.
 *
 * Rank 0 talks to one rank at a time: an exchange is a few hundred bytes, and a
 * stranger that says nothing costs PATIENCE_MS once.
 */
#include "meet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_MS = 2000, RETRY_MS = 40 };

struct hello {
    char magic[8];
    uint32_t rank, world; /* big-endian */
};

static const char magic[8] = {'m', 'e', 'e', 't', 'i', 'n', 'g', '1'};

__attribute__((format(printf, 2, 3))) static bool
refuse(char err[MEET_ERR_MAX], const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err, MEET_ERR_MAX, fmt, ap);
    va_end(ap);
    return false;
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- environment ---- */

static bool env_number(
    const char *name, uint32_t limit, uint32_t fallback, uint32_t *ret, char *err)
{
    const char *text = getenv(name);
    if (!text && fallback < limit) {
        *ret = fallback;
        return true;
    }
    if (!text)
        return refuse(err, "%s is not set: set it as torchrun does", name);
    char *end;
    errno = 0;
    unsigned long n = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || n >= limit)
        return refuse(err, "%s=%s: want a number below %u", name, text, limit);
    *ret = (uint32_t)n;
    return true;
}

bool meet_from_env(struct meet *ret, char err[MEET_ERR_MAX])
{
    struct meet m = {.addr = getenv("MASTER_ADDR"), .port = getenv("MASTER_PORT")};
    if (!env_number("WORLD_SIZE", MEET_WORLD_MAX + 1, 1, &m.world, err))
        return false;
    if (m.world == 0)
        return refuse(err, "WORLD_SIZE=0: want at least one rank");
    uint32_t fallback = m.world == 1 ? 0 : UINT32_MAX; /* alone needs no RANK */
    if (!env_number("RANK", m.world, fallback, &m.rank, err) ||
        !env_number("LOCAL_RANK", MEET_WORLD_MAX, m.rank, &m.local_rank, err))
        return false;
    if (m.world > 1 && (!m.addr || !m.port))
        return refuse(err,
                      "%s is not set: set it as torchrun does",
                      m.addr ? "MASTER_PORT" : "MASTER_ADDR");
    *ret = m;
    return true;
}

/* ---- sockets ---- */

static void set_patience(int fd, int64_t ms)
{
    struct timeval t = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t); /* bounds connect too */
}

static bool send_all(int fd, const void *data, size_t len)
{
    return send(fd, data, len, MSG_NOSIGNAL) == (ssize_t)len;
}

static bool recv_all(int fd, void *data, size_t len)
{
    ssize_t n = recv(fd, data, len, MSG_WAITALL);
    if (n >= 0 && n != (ssize_t)len)
        errno = ECONNRESET; /* closed in the middle */
    return n == (ssize_t)len;
}

static struct addrinfo *resolve(const struct meet *m, char *err)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    int rc = getaddrinfo(m->addr, m->port, &hints, &found);
    if (rc == 0)
        return found;
    refuse(
        err, "MASTER_ADDR=%s MASTER_PORT=%s: %s", m->addr, m->port, gai_strerror(rc));
    return NULL;
}

/* ---- rank 0 ---- */

static int listen_at(const struct meet *m, const struct addrinfo *at, char *err)
{
    int one = 1;
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd >= 0 && bind(fd, at->ai_addr, at->ai_addrlen) == 0 &&
        listen(fd, (int)m->world) == 0)
        return fd;
    refuse(err,
           "listen on %s:%s: %s: choose another MASTER_PORT, on an address of this "
           "machine",
           m->addr,
           m->port,
           strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

/* Returns the rank that now has the blob, or 0 for a stranger or a broken connection.
 */
static uint32_t serve_one(const struct meet *m, int fd, const void *blob, size_t len)
{
    struct hello h;
    char ack;
    set_patience(fd, PATIENCE_MS);
    if (!recv_all(fd, &h, sizeof h) || memcmp(h.magic, magic, sizeof magic) != 0 ||
        ntohl(h.world) != m->world || ntohl(h.rank) >= m->world)
        return 0;
    return send_all(fd, blob, len) && recv_all(fd, &ack, 1) ? ntohl(h.rank) : 0;
}

static bool serve(const struct meet *m,
                  const struct addrinfo *at,
                  const void *blob,
                  size_t len,
                  int64_t deadline,
                  char *err)
{
    bool has[MEET_WORLD_MAX] = {true}; /* itself */
    uint32_t missing = m->world - 1;
    int64_t left = 0;
    int fd = listen_at(m, at, err);
    if (fd < 0)
        return false;
    while (missing > 0 && (left = deadline - now_ms()) > 0) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, (int)left) <= 0)
            continue;
        int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        if (peer < 0)
            continue;
        uint32_t rank = serve_one(m, peer, blob, len);
        close(peer);
        missing -= !has[rank];
        has[rank] = true;
    }
    close(fd);
    if (missing == 0)
        return true;
    uint32_t first = 0;
    while (has[first])
        first++;
    return refuse(err,
                  "%u of %u ranks did not come to %s:%s in time, rank %u among them",
                  missing,
                  m->world,
                  m->addr,
                  m->port,
                  first);
}

/* ---- the others ---- */

static bool try_once(const struct meet *m,
                     const struct addrinfo *at,
                     void *blob,
                     size_t len,
                     int64_t patience_ms)
{
    struct hello h = {.rank = htonl(m->rank), .world = htonl(m->world)};
    memcpy(h.magic, magic, sizeof magic);
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    set_patience(fd, patience_ms);
    bool ok = connect(fd, at->ai_addr, at->ai_addrlen) == 0 &&
              send_all(fd, &h, sizeof h) && recv_all(fd, blob, len) &&
              send_all(fd, "!", 1);
    int saved = errno;
    close(fd);
    errno = saved;
    return ok;
}

static bool visit(const struct meet *m,
                  const struct addrinfo *at,
                  void *blob,
                  size_t len,
                  int64_t deadline,
                  char *err)
{
    /* spread by rank, so that a large world does not come in one burst */
    struct timespec pause = {.tv_nsec = (RETRY_MS + m->rank % 16) * 1000000L};
    for (;;) {
        int64_t left = deadline - now_ms();
        /* the answer waits for the ranks before this one: give it all the time left */
        if (left > 0 && try_once(m, at, blob, len, left))
            return true;
        if (now_ms() >= deadline)
            return refuse(
                err,
                "no answer from rank 0 at %s:%s in time (%s): is it running, with "
                "WORLD_SIZE=%u?",
                m->addr,
                m->port,
                strerror(errno),
                m->world);
        nanosleep(&pause, NULL);
    }
}

bool meet_share(const struct meet *m,
                void *blob,
                size_t len,
                unsigned wait_ms,
                char err[MEET_ERR_MAX])
{
    if (m->world == 1)
        return true;
    int64_t deadline = now_ms() + wait_ms;
    struct addrinfo *at = resolve(m, err);
    if (!at)
        return false;
    bool ok = m->rank == 0 ? serve(m, at, blob, len, deadline, err)
                           : visit(m, at, blob, len, deadline, err);
    freeaddrinfo(at);
    return ok;
}
