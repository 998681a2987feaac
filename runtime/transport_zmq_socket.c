/* SPDX-License-Identifier: Apache-2.0
 * transport_zmq_socket.c - endpoints that are allowed, options that libzmq leaves
 * unsafe, and word of ended connections.
 *
 * Not used: libzmq's heartbeats.  In 4.3.4 a heartbeat that falls due after a connection broke while its input was held
 * back (RCVHWM) aborts the whole process (assertion !_io_error).  Links have their own signs of life instead, and the
 * monitors of ROUTER and DEALER tell what the sockets themselves hide: that a connection ended.
 */
#include "transport_zmq_socket.h"

#include "wire.h"

#include <arpa/inet.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

enum {
    FRAMES_OUT = 32,
    FRAMES_IN = 8,
    SOCKET_BUFFER = 512 << 10,
    HANDSHAKE_MS = 5000,
    CONNECT_MS = 3000,
    RECONNECT_NEVER = -1, /* what waits in a socket would go out before hello */
    KEEPALIVE_S = 10,
    KEEPALIVE_COUNT = 3,
    BACKLOG = 1024
};

enum orr_err orri_zmq_options(void *socket)
{
    const struct {
        int name;
        int value;
    } options[] = {
        {ZMQ_LINGER, 0},
        /* Few frames: what waits longer is put together into larger ones in our own
         * queues, which count bytes.  And few bytes in between: signs of life wait behind
         * them, and a busy peer must not look like a dead one. */
        {ZMQ_SNDHWM, FRAMES_OUT},
        {ZMQ_RCVHWM, FRAMES_IN},
        {ZMQ_SNDBUF, SOCKET_BUFFER},
        {ZMQ_RCVBUF, SOCKET_BUFFER},
        {ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS},
        {ZMQ_CONNECT_TIMEOUT, CONNECT_MS},
        {ZMQ_RECONNECT_IVL, RECONNECT_NEVER},
        {ZMQ_TCP_KEEPALIVE, 1},
        {ZMQ_TCP_KEEPALIVE_IDLE, KEEPALIVE_S},
        {ZMQ_TCP_KEEPALIVE_INTVL, KEEPALIVE_S},
        {ZMQ_TCP_KEEPALIVE_CNT, KEEPALIVE_COUNT},
        {ZMQ_IPV6, 0},
        {ZMQ_BACKLOG, BACKLOG},
    };
    for (size_t i = 0; i < ORR_ARRAY_SIZE(options); i++) {
        int value = options[i].value;
        if (zmq_setsockopt(socket, options[i].name, &value, sizeof(value)) != 0)
            return ORR_EINVAL;
    }
    int64_t frame_max = ORR_FRAME_MAX;
    if (zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &frame_max, sizeof(frame_max)) != 0)
        return ORR_EINVAL;
    return ORR_OK;
}

uint64_t orri_zmq_now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* ---- endpoints ---- */

/* Does somebody answer at this path?  libzmq would unlink a live listener's socket
 * without a word. */
static bool ipc_is_taken(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    memcpy(addr.sun_path, path, len);
    socklen_t addr_len = sizeof(addr);
    if (path[0] == '@') { /* abstract: no file, a NUL in front */
        addr.sun_path[0] = '\0';
        addr_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    bool is_taken = connect(fd, (const struct sockaddr *)&addr, addr_len) == 0;
    close(fd);
    return is_taken;
}

static enum orr_err
check_ipc(const char *endpoint, bool is_listening, struct orr_error *err)
{
    const char *path = endpoint + strlen("ipc://");
    size_t max = sizeof(((struct sockaddr_un *)0)->sun_path) - 1;
    if (strlen(path) > max)
        return orr_fail(err,
                        ORR_EINVAL,
                        "%.64s...: a socket path of %zu bytes; the system allows %zu. "
                        "Use a shorter state directory",
                        endpoint,
                        strlen(path),
                        max);
    if (path[0] == '\0' || path[0] == '*')
        return orr_fail(err,
                        ORR_EINVAL,
                        "%s: name a path, as in ipc:///run/orrery/r1.sock",
                        endpoint);
    if (is_listening && ipc_is_taken(path))
        return orr_fail(
            err,
            ORR_EEXIST,
            "%s: somebody listens there already; stop that host or choose another path",
            endpoint);
    return ORR_OK;
}

/* HOST:PORT, split at the last colon. */
static bool split_tcp(const char *at, char host[ORR_ENDPOINT_MAX], long *ret_port)
{
    const char *colon = strrchr(at, ':');
    if (!colon || colon == at)
        return false;
    orr_str_copy(host, ORR_ENDPOINT_MAX, (struct orr_str){at, (uint32_t)(colon - at)});
    if (strcmp(colon, ":*") == 0) {
        *ret_port = 0;
        return true;
    }
    char *end;
    *ret_port = strtol(colon + 1, &end, 10);
    return end != colon + 1 && *end == '\0' && *ret_port > 0 && *ret_port <= UINT16_MAX;
}

static enum orr_err
check_tcp(const char *endpoint, bool is_listening, struct orr_error *err)
{
    char host[ORR_ENDPOINT_MAX];
    long port;
    if (!split_tcp(endpoint + strlen("tcp://"), host, &port) ||
        (port == 0 && !is_listening))
        return orr_fail(err,
                        ORR_EINVAL,
                        "%s: expected tcp://HOST:PORT, such as tcp://127.0.0.1:7700",
                        endpoint);
    struct in_addr addr;
    bool is_loopback = inet_pton(AF_INET, host, &addr) == 1 &&
                       ntohl(addr.s_addr) >> 24 == IN_LOOPBACKNET;
    if (is_listening && !is_loopback)
        return orr_fail(err,
                        ORR_EPERM,
                        "%s: without keys no host listens beyond its own machine; use "
                        "tcp://127.0.0.1:PORT or "
                        "ipc://PATH",
                        endpoint);
    return ORR_OK;
}

enum orr_err
orri_endpoint_check(const char *endpoint, bool is_listening, struct orr_error *err)
{
    if (strlen(endpoint) >= ORR_ENDPOINT_MAX)
        return orr_fail(err,
                        ORR_EINVAL,
                        "%.64s...: an endpoint has at most %d bytes",
                        endpoint,
                        ORR_ENDPOINT_MAX - 1);
    if (strncmp(endpoint, "ipc://", strlen("ipc://")) == 0)
        return check_ipc(endpoint, is_listening, err);
    if (strncmp(endpoint, "tcp://", strlen("tcp://")) == 0)
        return check_tcp(endpoint, is_listening, err);
    return orr_fail(
        err, ORR_EINVAL, "%s: expected ipc://PATH or tcp://HOST:PORT", endpoint);
}

/* ---- monitors ---- */

void *orri_zmq_watch(void *context, void *socket, int events)
{
    static _Atomic unsigned long n_watches;
    char name[64]; /* never used twice: libzmq forgets an old one in its own time */
    int linger = 0;
    int frames = 0; /* no limit: libzmq would wait for room, in its own thread */
    snprintf(name, sizeof(name), "inproc://watch-%lu", n_watches++);
    void *pair = zmq_socket(context, ZMQ_PAIR);
    if (!pair)
        return NULL;
    if (zmq_setsockopt(pair, ZMQ_LINGER, &linger, sizeof(linger)) != 0 ||
        zmq_setsockopt(pair, ZMQ_RCVHWM, &frames, sizeof(frames)) != 0 ||
        zmq_socket_monitor(socket, name, events) != 0 || zmq_connect(pair, name) != 0) {
        zmq_close(pair);
        return NULL;
    }
    return pair;
}

bool orri_zmq_watch_next(void *watch, int *ret_value)
{
    struct {
        uint8_t event[2];
        uint8_t value[4];
    } word;
    char endpoint[ORR_ENDPOINT_MAX];
    if (zmq_recv(watch, &word, sizeof(word), ZMQ_DONTWAIT) != sizeof(word))
        return false;
    (void)zmq_recv(watch, endpoint, sizeof(endpoint), ZMQ_DONTWAIT);
    int32_t value;
    memcpy(&value, word.value, sizeof(value));
    *ret_value = value;
    return true;
}
