/* SPDX-License-Identifier: Apache-2.0
 * transport_zmq_thread.c - the thread that owns every socket.
 *
 * It sleeps in one poll(2) over the ROUTER, the dialled DEALERs, their monitors and one eventfd.  A sender writes the
 * eventfd only when it put a link on an empty ready list of a sleeping thread; while the thread is awake, sending costs no
 * system call.
 */
#include "transport_zmq_impl.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>

enum {
    ROUNDS_PER_POLL = 64,
    BLOCKED_RETRY_MS = 1,
    DRAIN_MS = 250,
    POLL_MAX = 3 + 2 * ORR_ZMQ_DIALS_MAX,
};

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
        if (z->dials[i].state != ORRI_DIAL_EMPTY && z->dials[i].state != ORRI_DIAL_UP &&
            z->dials[i].due_ms < due)
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
        orri_dial_unanswered(z, dial);
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

/* What was queued before the stop still goes out, as far as there is room for it in time. */
static void drain(struct orr_zmq *z, size_t n_dials)
{
    uint64_t deadline_ms = orri_zmq_now_ms() + DRAIN_MS;
    while (z->n_blocked > 0 && orri_zmq_now_ms() < deadline_ms) {
        wait_ports(z, n_dials, BLOCKED_RETRY_MS);
        orri_links_retry(z);
    }
}

void *orri_zmq_run(void *arg)
{
    struct orr_zmq *z = arg;
    bool has_waited = false;
    for (unsigned round = 1;; round++) {
        size_t n_dials;
        bool is_stopping;
        flush_all(z, take_ready(z, &n_dials, &is_stopping));
        if (z->n_blocked > 0 && has_waited) /* there may be room now */
            orri_links_retry(z);
        if (is_stopping) {
            drain(z, n_dials);
            return NULL;
        }
        z->now_ms = orri_zmq_now_ms();
        orri_dials_change(z);
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
