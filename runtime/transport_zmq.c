/* SPDX-License-Identifier: Apache-2.0
 * transport_zmq.c - the transport's life and its thread.
 *
 * The thread sleeps in one poll(2) over the ROUTER, the dialled DEALERs, their monitors
 * and one eventfd.  A sender writes the eventfd only when it put a link on an empty
 * ready list of a sleeping thread; while the thread is awake, sending costs no system
 * call.
 */
#include "transport_zmq_impl.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum {
    LINKS_MAX = 4096,
    QUEUE_BYTES_MAX = 16 << 20,
    HEARTBEAT_MS = 500,
    STOP_LINGER_MS = 250,
    ROUNDS_PER_POLL = 64,
    BLOCKED_RETRY_MS = 1,
    LOG_LINES_PER_S = 20,
    POLL_MAX = 3 + 2 * ORR_ZMQ_DIALS_MAX,
};

uint64_t orri_zmq_now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void log_line(struct orr_zmq *z, enum orr_log_level level, const char *text)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    z->log(z->log_arg,
           level,
           (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000,
           "transport",
           text);
}

/* Peers can provoke lines, so they are bounded, trouble and news each on its own; what was left out is counted. */
void orri_zmq_log(struct orr_zmq *z, enum orr_log_level level, const char *fmt, ...)
{
    char text[512];
    unsigned *n_logged = &z->n_logged[level >= ORR_LOG_WARN];
    if (!z->log)
        return;
    if (z->now_ms / 1000 != z->log_second) {
        if (z->n_logged[true] > LOG_LINES_PER_S) {
            snprintf(text,
                     sizeof(text),
                     "%u lines were left out",
                     z->n_logged[true] - LOG_LINES_PER_S);
            log_line(z, ORR_LOG_WARN, text);
        }
        z->log_second = z->now_ms / 1000;
        memset(z->n_logged, 0, sizeof(z->n_logged));
    }
    if ((*n_logged)++ >= LOG_LINES_PER_S)
        return;
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    log_line(z, level, text);
}

bool orri_port_open(struct orri_port *port, void *socket)
{
    size_t len = sizeof(port->fd);
    *port = (struct orri_port){.socket = socket, .fd = -1, .may_read = true};
    return socket && zmq_getsockopt(socket, ZMQ_FD, &port->fd, &len) == 0;
}

void orri_port_close(struct orri_port *port)
{
    if (port->socket)
        zmq_close(port->socket);
    *port = (struct orri_port){.fd = -1};
}

/* ---- the thread ---- */

/* The links that became ready since the last call; NULL when none. */
static struct orri_link *
take_ready(struct orr_zmq *z, size_t *ret_n_dials, bool *ret_is_stopping)
{
    pthread_mutex_lock(&z->wake_lock);
    struct orri_link *ready = z->ready;
    z->ready = NULL;
    z->ready_end = &z->ready;
    z->is_asleep = false;
    *ret_n_dials = z->n_dials;
    *ret_is_stopping = z->is_stopping;
    pthread_mutex_unlock(&z->wake_lock);
    return ready;
}

/* From here on senders must wake the thread; false when one has come before. */
static bool fall_asleep(struct orr_zmq *z)
{
    pthread_mutex_lock(&z->wake_lock);
    z->is_asleep = z->ready == NULL;
    bool is_asleep = z->is_asleep;
    pthread_mutex_unlock(&z->wake_lock);
    return is_asleep;
}

static void flush_all(struct orr_zmq *z, struct orri_link *ready)
{
    for (struct orri_link *next; ready; ready = next) {
        next = ready->next_ready; /* a sender may put it back on the list at once */
        orri_link_flush(z, ready);
    }
}

static int poll_timeout(const struct orr_zmq *z, size_t n_dials)
{
    uint64_t due = z->beat_ms;
    if (z->n_blocked > 0)
        due = z->now_ms + BLOCKED_RETRY_MS;
    if (z->is_probing && z->probe_ms < due)
        due = z->probe_ms;
    for (size_t i = 0; i < n_dials; i++) {
        if (z->dials[i].state != ORRI_DIAL_UP && z->dials[i].due_ms < due)
            due = z->dials[i].due_ms;
    }
    return due > z->now_ms ? (int)(due - z->now_ms) : 0;
}

/* Take one message: a frame is its only part.  What has more parts is handed on as an empty one, which no frame is.
 * false: nothing to read. */
static bool receive_frame(void *socket, zmq_msg_t *frame)
{
    if (zmq_msg_recv(frame, socket, ZMQ_DONTWAIT) < 0)
        return false;
    bool is_alone = true;
    while (zmq_msg_more(frame)) {
        is_alone = false;
        if (zmq_msg_recv(frame, socket, ZMQ_DONTWAIT) < 0)
            break;
    }
    if (!is_alone) {
        zmq_msg_close(frame);
        zmq_msg_init(frame);
    }
    return true;
}

/* One frame, then everybody else's turn: what it made ready goes out before the next one is looked for. */
static void read_router(struct orr_zmq *z)
{
    struct orri_origin origin = {.fd = -1};
    zmq_msg_t frame;
    int len =
        zmq_recv(z->router.socket, origin.route, sizeof(origin.route), ZMQ_DONTWAIT);
    zmq_msg_init(&frame);
    if (len < 0 || !receive_frame(z->router.socket, &frame)) {
        z->router.may_read = false;
    } else if ((size_t)len > sizeof(origin.route)) {
        z->frames_refused++; /* a peer that chose its routing id, against the protocol */
    } else {
        origin.route_len = (size_t)len;
        origin.fd = zmq_msg_get(&frame, ZMQ_SRCFD);
        orri_session_frame(z, &origin, zmq_msg_data(&frame), zmq_msg_size(&frame));
    }
    zmq_msg_close(&frame);
}

static void read_dealer(struct orr_zmq *z, struct orri_dial *dial)
{
    const struct orri_origin origin = {.dial = dial, .fd = -1};
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    if (receive_frame(dial->dealer.socket, &frame))
        orri_session_frame(z, &origin, zmq_msg_data(&frame), zmq_msg_size(&frame));
    else
        dial->dealer.may_read = false;
    zmq_msg_close(&frame);
}

static void read_monitor(struct orr_zmq *z)
{
    int fd;
    while (orri_zmq_watch_next(z->monitor.socket, &fd))
        orri_links_suspect(z, fd);
    z->monitor.may_read = false;
}

/* Read what the connection still delivered, then let it go. */
static void read_dial_monitor(struct orr_zmq *z, struct orri_dial *dial)
{
    int fd;
    dial->monitor.may_read = false;
    if (!orri_zmq_watch_next(dial->monitor.socket, &fd))
        return;
    dial->dealer.may_read = true;
    while (dial->dealer.may_read)
        read_dealer(z, dial);
    if (dial->link)
        orri_link_down(z, dial->link, "the connection ended");
    else if (dial->dealer.socket)
        orri_dial_again(z, dial);
}

/* One frame of each port that may have one; false when all are known to be empty. */
static bool read_ports(struct orr_zmq *z, size_t n_dials)
{
    bool is_busy = z->router.may_read;
    if (z->monitor.may_read)
        read_monitor(z);
    if (z->router.may_read)
        read_router(z);
    for (size_t i = 0; i < n_dials; i++) {
        struct orri_dial *dial = &z->dials[i];
        is_busy = is_busy || dial->dealer.may_read;
        if (dial->dealer.may_read)
            read_dealer(z, dial);
        if (dial->monitor.may_read)
            read_dial_monitor(z, dial);
    }
    return is_busy;
}

/* Wait until some port has news or timeout_ms has passed. */
static void wait_ports(struct orr_zmq *z, size_t n_dials, int timeout_ms)
{
    struct pollfd fds[POLL_MAX];
    struct orri_port *ports[POLL_MAX] = {NULL, &z->router, &z->monitor};
    nfds_t n = 3;
    for (size_t i = 0; i < n_dials; i++) {
        if (!z->dials[i].dealer.socket)
            continue;
        ports[n++] = &z->dials[i].dealer;
        ports[n++] = &z->dials[i].monitor;
    }
    fds[0] = (struct pollfd){.fd = z->wake_fd, .events = POLLIN};
    for (nfds_t i = 1; i < n; i++)
        fds[i] = (struct pollfd){.fd = ports[i]->fd, .events = POLLIN};
    int rc = poll(fds, n, timeout_ms);
    ORR_ASSERT(rc >= 0 || errno == EINTR);
    if (rc <= 0)
        return;
    eventfd_t count;
    if (fds[0].revents)
        eventfd_read(z->wake_fd, &count);
    for (nfds_t i = 1; i < n; i++)
        ports[i]->may_read = ports[i]->may_read || fds[i].revents;
}

static void *run(void *arg)
{
    struct orr_zmq *z = arg;
    bool has_waited = false;
    for (unsigned round = 1;; round++) {
        size_t n_dials;
        bool is_stopping;
        flush_all(z, take_ready(z, &n_dials, &is_stopping));
        if (z->n_blocked > 0 && has_waited) /* there may be room now */
            orri_links_retry(z);
        if (is_stopping)
            return NULL;
        z->now_ms = orri_zmq_now_ms();
        for (size_t i = 0; i < n_dials; i++)
            orri_dial_step(z, &z->dials[i]);
        orri_links_probe(z);
        bool is_busy = read_ports(z, n_dials);
        if (!is_busy) /* what came was heard */
            orri_links_beat(z);
        has_waited = true;
        if (!is_busy && fall_asleep(z))
            wait_ports(z, n_dials, poll_timeout(z, n_dials));
        else if (round % ROUNDS_PER_POLL == 0) /* the quiet ports may have news, too */
            wait_ports(z, n_dials, 0);
        else
            has_waited = false;
    }
}

static void wake(struct orr_zmq *z)
{
    eventfd_write(z->wake_fd, 1);
}

/* ---- life ---- */

static const struct orr_transport_ops ops = {.send = orri_zmq_send};

static enum orr_err open_sockets(struct orr_zmq *z, struct orr_error *err)
{
    int yes = 1;
    z->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    z->context = zmq_ctx_new();
    if (z->wake_fd < 0 || !z->context)
        return orr_fail(
            err, ORR_ENOMEM, "%s: no sockets: %s", z->host, strerror(errno));
    zmq_ctx_set(z->context, ZMQ_MAX_SOCKETS, 16 + 4 * ORR_ZMQ_DIALS_MAX);
    if (!orri_port_open(&z->router, zmq_socket(z->context, ZMQ_ROUTER)) ||
        orri_zmq_options(z->router.socket) != ORR_OK ||
        zmq_setsockopt(z->router.socket, ZMQ_ROUTER_MANDATORY, &yes, sizeof(yes)) !=
            0 ||
        !orri_port_open(
            &z->monitor,
            orri_zmq_watch(z->context, z->router.socket, ZMQ_EVENT_DISCONNECTED)))
        return orr_fail(
            err, ORR_ENOMEM, "%s: no sockets: %s", z->host, zmq_strerror(zmq_errno()));
    return ORR_OK;
}

static struct orr_zmq *zmq_alloc(const struct orr_zmq_config *config)
{
    struct orr_zmq *z = calloc(1, sizeof(*z));
    if (!z)
        return NULL;
    uint32_t queue_bytes_max =
        config->queue_bytes_max ? config->queue_bytes_max : QUEUE_BYTES_MAX;
    z->base.ops = &ops;
    z->system = config->system;
    orr_str_copy(z->host, sizeof(z->host), orr_str(config->host));
    orr_str_copy(z->build, sizeof(z->build), orr_str(config->build));
    z->host_id = orr_hash(orr_str(z->host));
    z->incarnation = config->incarnation;
    z->links_max = config->links_max ? config->links_max : LINKS_MAX;
    z->queue_bytes_max =
        queue_bytes_max > ORR_FRAME_MAX ? queue_bytes_max : ORR_FRAME_MAX;
    z->heartbeat_ms = config->heartbeat_ms ? config->heartbeat_ms : HEARTBEAT_MS;
    z->log = config->log;
    z->log_arg = config->log_arg;
    z->ready_end = &z->ready;
    z->wake_fd = -1;
    z->now_ms = orri_zmq_now_ms();
    z->random = z->host_id ^ orri_zmq_now_ms() ^ 1;
    pthread_rwlockattr_t attr;
    pthread_rwlockattr_init(&attr);
    /* Busy senders must not keep the thread from changing the table. */
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&z->table_lock, &attr);
    pthread_rwlockattr_destroy(&attr);
    pthread_mutex_init(&z->wake_lock, NULL);
    return z;
}

enum orr_err orr_zmq_new(const struct orr_zmq_config *config,
                         struct orr_zmq **ret_zmq,
                         struct orr_error *err)
{
    size_t name_len = strlen(config->host);
    if (name_len == 0 || name_len >= ORR_NAME_MAX || config->incarnation == 0)
        return orr_fail(
            err,
            ORR_EINVAL,
            "a host needs a name of 1 to %d bytes and an incarnation above 0",
            ORR_NAME_MAX - 1);
    struct orr_zmq *z = zmq_alloc(config);
    if (!z)
        return orr_fail(err, ORR_ENOMEM, "%s: out of memory", config->host);
    enum orr_err rc = open_sockets(z, err);
    if (rc != ORR_OK) {
        orr_zmq_free(z);
        return rc;
    }
    *ret_zmq = z;
    return ORR_OK;
}

void orr_zmq_free(struct orr_zmq *z)
{
    if (!z)
        return;
    orr_zmq_stop(z);
    int linger_ms = STOP_LINGER_MS;
    for (size_t i = 0; i < z->n_dials; i++)
        orri_dial_close(&z->dials[i],
                        z->dials[i].state == ORRI_DIAL_UP ? linger_ms : 0);
    orri_links_free(z);
    if (z->router.socket) {
        zmq_setsockopt(z->router.socket, ZMQ_LINGER, &linger_ms, sizeof(linger_ms));
        zmq_socket_monitor(z->router.socket, NULL, 0);
    }
    orri_port_close(&z->router);
    orri_port_close(&z->monitor);
    if (z->context)
        zmq_ctx_term(z->context);
    if (z->wake_fd >= 0)
        close(z->wake_fd);
    pthread_rwlock_destroy(&z->table_lock);
    pthread_mutex_destroy(&z->wake_lock);
    free(z);
}

enum orr_err orr_zmq_listen(struct orr_zmq *z,
                            const char *endpoint,
                            char *ret_bound,
                            struct orr_error *err)
{
    ORR_ASSERT(!z->is_started);
    enum orr_err rc = orri_endpoint_check(endpoint, true, err);
    if (rc != ORR_OK)
        return rc;
    char bound[ORR_ENDPOINT_MAX];
    size_t len = sizeof(bound);
    if (zmq_bind(z->router.socket, endpoint) != 0)
        return orr_fail(
            err,
            zmq_errno() == EADDRINUSE ? ORR_EEXIST : ORR_EINVAL,
            "%s: cannot listen: %s; choose another endpoint, or make its folder",
            endpoint,
            zmq_strerror(zmq_errno()));
    if (zmq_getsockopt(z->router.socket, ZMQ_LAST_ENDPOINT, bound, &len) != 0)
        return orr_fail(err, ORR_EIO, "%s: %s", endpoint, zmq_strerror(zmq_errno()));
    if (z->endpoint[0] == '\0')
        orr_str_copy(z->endpoint, sizeof(z->endpoint), orr_str(bound));
    if (ret_bound)
        orr_str_copy(ret_bound, ORR_ENDPOINT_MAX, orr_str(bound));
    return ORR_OK;
}

enum orr_err orr_zmq_dial(struct orr_zmq *z,
                          const char *host,
                          const char *endpoint,
                          struct orr_error *err)
{
    enum orr_err rc = orri_endpoint_check(endpoint, false, err);
    size_t name_len = strlen(host);
    uint64_t host_id = orr_hash(orr_str(host));
    if (rc != ORR_OK)
        return rc;
    if (name_len == 0 || name_len >= ORR_NAME_MAX || host_id == z->host_id)
        return orr_fail(err,
                        ORR_EINVAL,
                        "%s: cannot dial \"%.64s\" at %s; name another host",
                        z->host,
                        host,
                        endpoint);
    pthread_mutex_lock(&z->wake_lock);
    for (size_t i = 0; i < z->n_dials; i++) {
        if (z->dials[i].host == host_id)
            rc = ORR_EEXIST;
    }
    if (rc == ORR_OK && z->n_dials == ORR_ZMQ_DIALS_MAX)
        rc = ORR_ENOSPC;
    if (rc == ORR_OK) {
        struct orri_dial *dial = &z->dials[z->n_dials++];
        *dial = (struct orri_dial){.host = host_id, .backoff_ms = ORRI_BACKOFF_MIN_MS};
        orr_str_copy(dial->name, sizeof(dial->name), orr_str(host));
        orr_str_copy(dial->endpoint, sizeof(dial->endpoint), orr_str(endpoint));
    }
    pthread_mutex_unlock(&z->wake_lock);
    if (rc == ORR_EEXIST)
        return orr_fail(err, rc, "%s: is dialled already; one endpoint per host", host);
    if (rc == ORR_ENOSPC)
        return orr_fail(err,
                        rc,
                        "%s: cannot dial: %d hosts are dialled, the limit",
                        host,
                        ORR_ZMQ_DIALS_MAX);
    wake(z);
    return ORR_OK;
}

enum orr_err orr_zmq_start(struct orr_zmq *z, struct orr_error *err)
{
    ORR_ASSERT(!z->is_started);
    int rc = pthread_create(&z->thread, NULL, run, z);
    if (rc != 0)
        return orr_fail(err,
                        ORR_ENOMEM,
                        "%s: no thread for the transport: %s",
                        z->host,
                        strerror(rc));
    pthread_setname_np(z->thread, "orr-transport");
    z->is_started = true;
    return ORR_OK;
}

void orr_zmq_stop(struct orr_zmq *z)
{
    if (!z->is_started)
        return;
    pthread_mutex_lock(&z->wake_lock);
    z->is_stopping = true;
    pthread_mutex_unlock(&z->wake_lock);
    wake(z);
    pthread_join(z->thread, NULL);
    z->is_started = false;
}

struct orr_transport *orr_zmq_transport(struct orr_zmq *z)
{
    return &z->base;
}

void orr_zmq_stats(struct orr_zmq *z, struct orr_zmq_stats *ret_stats)
{
    *ret_stats = (struct orr_zmq_stats){
        .links = z->links,
        .frames_sent = z->frames_sent,
        .frames_received = z->frames_received,
        .items_received = z->items_received,
        .frames_refused = z->frames_refused,
        .links_refused = z->links_refused,
    };
}
