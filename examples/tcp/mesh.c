/* SPDX-License-Identifier: Apache-2.0
 * mesh.c - see mesh.h.
 */
#include "mesh.h"

#include "fail.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_MS = 2000, RETRY_MS = 40 };

struct place { /* as text, of any family */
    char host[64], port[8];
};

struct hello {
    char magic[8];
    uint32_t rank, world; /* big-endian */
    struct place place;
};

static const char magic[8] = {'t', 'c', 'p', 'm', 'e', 's', 'h', '1'};

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
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
    return recv(fd, data, len, MSG_WAITALL) == (ssize_t)len;
}

static struct addrinfo *resolve(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    int rc = getaddrinfo(host, port, &hints, &found);
    if (rc != 0)
        die("address %s port %s: %s", host, port, gai_strerror(rc));
    return found;
}

static int open_at(const char *host, const char *port, bool is_listener)
{
    struct addrinfo *at = resolve(host, port);
    int one = 1, fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, at->ai_addr, at->ai_addrlen) != 0 ||
        (is_listener && listen(fd, MESH_WORLD_MAX) != 0))
        die("bind to %s port %s: %s: is it an address of this rank, and the port free?",
            host,
            port,
            strerror(errno));
    freeaddrinfo(at);
    return fd;
}

/* Where `fd` is bound to. */
static void own_place(int fd, struct place *ret)
{
    struct sockaddr_storage at;
    socklen_t len = sizeof at;
    int rc = getsockname(fd, (struct sockaddr *)&at, &len);
    if (rc == 0)
        rc = getnameinfo((struct sockaddr *)&at,
                         len,
                         ret->host,
                         sizeof ret->host,
                         ret->port,
                         sizeof ret->port,
                         NI_NUMERICHOST | NI_NUMERICSERV);
    if (rc != 0)
        die("own address: %s", rc < 0 ? strerror(errno) : gai_strerror(rc));
}

/* From `own` (NULL: any address), until `deadline`. */
static int connect_to(const struct place *to,
                      const struct place *own,
                      int64_t deadline,
                      uint32_t rank)
{
    struct timespec pause = {.tv_nsec = RETRY_MS * 1000000L};
    struct addrinfo *at = resolve(to->host, to->port);
    for (;;) {
        int fd = own ? open_at(own->host, "0", false)
                     : socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
            die("socket: %s", strerror(errno));
        set_patience(fd, MESH_WAIT_MS);
        if (connect(fd, at->ai_addr, at->ai_addrlen) == 0) {
            freeaddrinfo(at);
            return fd;
        }
        int why = errno;
        close(fd);
        if (now_ms() >= deadline)
            die("no answer from rank %u at %s port %s in time: %s",
                rank,
                to->host,
                to->port,
                strerror(why));
        nanosleep(&pause, NULL);
    }
}

/* ---- hellos ---- */

static void
say_hello(const struct mesh *m, int fd, const struct place *own, uint32_t to)
{
    struct hello h = {.rank = htonl(m->rank), .world = htonl(m->world), .place = *own};
    memcpy(h.magic, magic, sizeof magic);
    if (!send_all(fd, &h, sizeof h))
        die("hello to rank %u: %s", to, strerror(errno));
}

/* The rank from `lowest` on whose hello came on `fd`, or 0 for a stranger. */
static uint32_t
read_hello(const struct mesh *m, int fd, uint32_t lowest, struct place *ret)
{
    struct hello h;
    set_patience(fd, PATIENCE_MS);
    if (!recv_all(fd, &h, sizeof h) || memcmp(h.magic, magic, sizeof magic) != 0 ||
        ntohl(h.world) != m->world || ntohl(h.rank) >= m->world ||
        ntohl(h.rank) < lowest || m->fds[ntohl(h.rank)] >= 0)
        return 0;
    h.place.host[sizeof h.place.host - 1] = '\0';
    h.place.port[sizeof h.place.port - 1] = '\0';
    *ret = h.place;
    return ntohl(h.rank);
}

/* Connections from all ranks from `lowest` on; places[rank] is where each listens. */
static void accept_ranks(struct mesh *m,
                         int listener,
                         uint32_t lowest,
                         int64_t deadline,
                         struct place *places)
{
    for (uint32_t missing = m->world - lowest; missing > 0;) {
        struct pollfd p = {.fd = listener, .events = POLLIN};
        struct place place;
        int64_t left = deadline - now_ms();
        if (left <= 0) {
            uint32_t first = lowest;
            while (m->fds[first] >= 0)
                first++;
            die("%u of %u ranks did not connect in time, rank %u among them: have all "
                "WORLD_SIZE=%u?",
                missing,
                m->world,
                first,
                m->world);
        }
        if (poll(&p, 1, (int)left) <= 0)
            continue;
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            continue;
        uint32_t rank = read_hello(m, fd, lowest, &place);
        if (rank == 0) {
            close(fd);
            continue;
        }
        m->fds[rank] = fd;
        places[rank] = place;
        missing--;
    }
}

/* ---- both sides ---- */

static void gather(struct mesh *m, const struct meet *who, struct place *places)
{
    int64_t deadline = now_ms() + MESH_WAIT_MS;
    int listener = open_at(who->addr, who->port, true);
    accept_ranks(m, listener, 1, deadline, places);
    close(listener);
    for (uint32_t r = 1; r < m->world; r++)
        if (!send_all(m->fds[r], places, m->world * sizeof *places))
            die("table to rank %u: %s", r, strerror(errno));
}

static void join(struct mesh *m, const struct meet *who, struct place *places)
{
    int64_t deadline = now_ms() + MESH_WAIT_MS;
    struct place root, own;
    snprintf(root.host, sizeof root.host, "%s", who->addr);
    snprintf(root.port, sizeof root.port, "%s", who->port);
    m->fds[0] = connect_to(&root, NULL, deadline, 0);
    own_place(m->fds[0], &own);
    int listener = open_at(own.host, "0", true);
    own_place(listener, &own);
    say_hello(m, m->fds[0], &own, 0);
    if (!recv_all(m->fds[0], places, m->world * sizeof *places))
        die("no table from rank 0 at %s port %s: is it running, with WORLD_SIZE=%u?",
            root.host,
            root.port,
            m->world);
    for (uint32_t r = 1; r < m->rank; r++) {
        m->fds[r] = connect_to(&places[r], &own, deadline, r);
        say_hello(m, m->fds[r], &own, r);
    }
    accept_ranks(m, listener, m->rank + 1, deadline, places);
    close(listener);
}

void mesh_init(struct mesh *m, const struct meet *who)
{
    struct place places[MESH_WORLD_MAX] = {0};
    int one = 1;
    *m = (struct mesh){.rank = who->rank, .world = who->world};
    for (uint32_t r = 0; r < m->world; r++)
        m->fds[r] = -1;
    if (m->rank == 0)
        gather(m, who, places);
    else
        join(m, who, places);
    for (uint32_t r = 0; r < m->world; r++) {
        if (r == m->rank)
            continue;
        set_patience(m->fds[r], 0);
        setsockopt(m->fds[r], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (fcntl(m->fds[r], F_SETFL, O_NONBLOCK) != 0)
            die("fcntl: %s", strerror(errno));
    }
}

void mesh_fini(struct mesh *m)
{
    for (uint32_t r = 0; r < m->world; r++)
        if (m->fds[r] >= 0)
            close(m->fds[r]);
    *m = (struct mesh){0};
}
