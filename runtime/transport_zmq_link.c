/* SPDX-License-Identifier: Apache-2.0
 * transport_zmq_link.c - live links: the tables, the way out, and finding out that one
 * has died.
 *
 * An accepted link has died when libzmq no longer knows its routing id:
 * ROUTER_MANDATORY makes a send say so.  The ROUTER's monitor tells which connection
 * ended, a moment before or after the routing id is forgotten, and a connection's
 * number is soon used again; so its word only makes a link suspect, and a few probes
 * (frames without items) decide.
 */
#include "transport_zmq_impl.h"

#include <errno.h>
#include <sys/eventfd.h>

enum { PROBES = 3, PROBE_MS = 20, SWEEP_MS = 15000, MISSED_BEATS = 4 };

/* ---- tables ---- */

static struct orri_link **host_bucket(struct orr_zmq *z, uint64_t host)
{
    return &z->by_host[host % ORRI_BUCKETS];
}

static struct orri_link **route_bucket(struct orr_zmq *z,
                                       const struct orri_origin *origin)
{
    return &z->by_route[orr_hash((struct orr_str){(const char *)origin->route,
                                                  (uint32_t)origin->route_len}) %
                        ORRI_BUCKETS];
}

/* Senders hold table_lock for reading; the thread, which alone writes, needs no lock to
 * read. */
struct orri_link *orri_link_by_host(struct orr_zmq *z, uint64_t host)
{
    struct orri_link *link = *host_bucket(z, host);
    while (link && link->host != host)
        link = link->next_by_host;
    return link;
}

struct orri_link *orri_link_by_origin(struct orr_zmq *z,
                                      const struct orri_origin *origin)
{
    if (origin->dial)
        return origin->dial->link;
    struct orri_link *link = *route_bucket(z, origin);
    while (link && (link->origin.route_len != origin->route_len ||
                    memcmp(link->origin.route, origin->route, origin->route_len) != 0))
        link = link->next_by_route;
    return link;
}

static void table_add(struct orr_zmq *z, struct orri_link *link)
{
    struct orri_link **at = host_bucket(z, link->host);
    pthread_rwlock_wrlock(&z->table_lock);
    link->next_by_host = *at;
    *at = link;
    pthread_rwlock_unlock(&z->table_lock);
    if (!link->origin.dial) {
        at = route_bucket(z, &link->origin);
        link->next_by_route = *at;
        *at = link;
    }
    z->links = ++z->n_links;
}

static void table_remove(struct orr_zmq *z, struct orri_link *link)
{
    struct orri_link **at = host_bucket(z, link->host);
    pthread_rwlock_wrlock(&z->table_lock);
    while (*at != link)
        at = &(*at)->next_by_host;
    *at = link->next_by_host;
    pthread_rwlock_unlock(&z->table_lock);
    if (!link->origin.dial) {
        at = route_bucket(z, &link->origin);
        while (*at != link)
            at = &(*at)->next_by_route;
        *at = link->next_by_route;
    }
    z->links = --z->n_links;
}

static void ready_remove(struct orr_zmq *z, struct orri_link *link)
{
    pthread_mutex_lock(&z->wake_lock);
    struct orri_link **at = &z->ready;
    while (*at && *at != link)
        at = &(*at)->next_ready;
    if (*at) {
        *at = link->next_ready;
        if (z->ready_end == &link->next_ready)
            z->ready_end = at;
    }
    pthread_mutex_unlock(&z->wake_lock);
}

/* What its peer has sent for it may come yet. */
static void remember_ended(struct orr_zmq *z, const struct orri_origin *origin)
{
    struct orri_route *route = &z->ended[z->n_ended++ % ORRI_ENDED_MAX];
    memcpy(route->bytes, origin->route, origin->route_len);
    route->len = origin->route_len;
}

bool orri_link_has_ended(const struct orr_zmq *z, const struct orri_origin *origin)
{
    size_t n = z->n_ended < ORRI_ENDED_MAX ? z->n_ended : ORRI_ENDED_MAX;
    for (size_t i = 0; i < n && !origin->dial; i++) {
        if (z->ended[i].len == origin->route_len &&
            memcmp(z->ended[i].bytes, origin->route, origin->route_len) == 0)
            return true;
    }
    return false;
}

/* ---- up and down ---- */

/* Clients come and go; only hosts are news. */
static enum orr_log_level log_level(const struct orri_link *link,
                                    enum orr_log_level of_host)
{
    return link->role == ORR_ROLE_HOST ? of_host : ORR_LOG_DEBUG;
}

enum orr_err orri_link_up(struct orr_zmq *z,
                          const struct orri_origin *origin,
                          const struct orr_msg_hello *hello)
{
    struct orri_link *link = calloc(1, sizeof(*link));
    if (!link)
        return ORR_ENOMEM;
    link->host = orr_hash(hello->host);
    link->incarnation = hello->incarnation;
    link->role = hello->role;
    orr_str_copy(link->name, sizeof(link->name), hello->host);
    link->origin = *origin;
    link->heard_ms = z->now_ms;
    link->sent_ms = z->now_ms;
    pthread_mutex_init(&link->lock, NULL);
    if (origin->dial) {
        origin->dial->state = ORRI_DIAL_UP;
        origin->dial->backoff_ms = ORRI_BACKOFF_MIN_MS;
        origin->dial->link = link;
    }
    table_add(z, link);
    orri_zmq_log(z,
                 log_level(link, ORR_LOG_INFO),
                 "%s: link up, incarnation %u, build %.*s",
                 link->name,
                 link->incarnation,
                 ORR_STR_ARGS(hello->build));
    return ORR_OK;
}

static void link_free(struct orri_link *link)
{
    if (link->has_out)
        zmq_msg_close(&link->out);
    orri_queue_clear(&link->queue);
    pthread_mutex_destroy(&link->lock);
    free(link);
}

void orri_link_down(struct orr_zmq *z, struct orri_link *link, const char *why)
{
    table_remove(z, link); /* no sender can find it from here on */
    ready_remove(z, link);
    if (link->is_blocked)
        z->n_blocked--;
    orri_zmq_log(z,
                 log_level(link, ORR_LOG_WARN),
                 "%s: link down: %s; %zu bytes were waiting",
                 link->name,
                 why,
                 link->queue.bytes);
    if (link->origin.dial)
        orri_dial_again(z, link->origin.dial);
    else
        remember_ended(z, &link->origin);
    uint64_t host = link->host;
    link_free(link);
    orr_system_peer_down(z->system, host);
}

void orri_links_free(struct orr_zmq *z)
{
    for (size_t i = 0; i < ORRI_BUCKETS; i++) {
        for (struct orri_link *next, *link = z->by_host[i]; link; link = next) {
            next = link->next_by_host;
            link_free(link);
        }
    }
}

/* ---- the way out ---- */

enum orr_err orri_zmq_send(struct orr_transport *self,
                           uint64_t peer_host,
                           enum orr_lane lane,
                           const uint8_t *data,
                           size_t len)
{
    struct orr_zmq *z = (struct orr_zmq *)self;
    if (len == 0 || len > ORR_ITEM_MAX)
        return ORR_ENOSPC;
    enum orr_err rc = ORR_EUNREACH;
    bool must_wake = false;
    pthread_rwlock_rdlock(&z->table_lock);
    struct orri_link *link = orri_link_by_host(z, peer_host);
    if (link) {
        pthread_mutex_lock(&link->lock);
        rc = orri_queue_push(&link->queue, lane, z->queue_bytes_max, data, len);
        if (rc == ORR_OK && !link->is_ready) {
            link->is_ready = true;
            link->next_ready = NULL;
            pthread_mutex_lock(&z->wake_lock);
            *z->ready_end = link;
            z->ready_end = &link->next_ready;
            must_wake = z->is_asleep;
            z->is_asleep = false;
            pthread_mutex_unlock(&z->wake_lock);
        }
        pthread_mutex_unlock(&link->lock);
    }
    pthread_rwlock_unlock(&z->table_lock);
    if (must_wake)
        eventfd_write(z->wake_fd, 1);
    return rc;
}

static void chunk_release(void *data, void *hint)
{
    (void)data;
    free(hint);
}

/* Put the next frame to send into link->out; without has_out afterwards the link is not
 * ready any more. Errors: ORR_ENOMEM, and a frame is lost. */
static enum orr_err link_next_out(struct orri_link *link)
{
    if (link->has_out)
        return ORR_OK;
    pthread_mutex_lock(&link->lock);
    struct orri_chunk *chunk = orri_queue_pop(&link->queue);
    if (!chunk)
        link->is_ready = false;
    pthread_mutex_unlock(&link->lock);
    if (!chunk)
        return ORR_OK;
    if (zmq_msg_init_data(&link->out, chunk->bytes, chunk->len, chunk_release, chunk) !=
        0) {
        free(chunk);
        return ORR_ENOMEM;
    }
    link->has_out = true;
    return ORR_OK;
}

/* 0, or the errno of libzmq: EAGAIN no room, EHOSTUNREACH no such peer. */
static int
send_to(struct orr_zmq *z, const struct orri_origin *origin, zmq_msg_t *frame)
{
    struct orri_port *port = origin->dial ? &origin->dial->dealer : &z->router;
    port->may_read = true;
    if (!origin->dial && zmq_send(port->socket,
                                  origin->route,
                                  origin->route_len,
                                  ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        return zmq_errno();
    if (zmq_msg_send(frame, port->socket, ZMQ_DONTWAIT) < 0)
        return zmq_errno();
    z->frames_sent++;
    return 0;
}

void orri_link_flush(struct orr_zmq *z, struct orri_link *link)
{
    if (link->is_blocked) {
        link->is_blocked = false;
        z->n_blocked--;
    }
    for (;;) {
        if (link_next_out(link) != ORR_OK) {
            orri_link_down(z, link, "out of memory");
            return;
        }
        if (!link->has_out)
            return;
        int rc = send_to(z, &link->origin, &link->out);
        if (rc == 0) {
            link->has_out = false;
            link->sent_ms = z->now_ms;
        } else if (rc == EAGAIN) {
            link->is_blocked = true;
            z->n_blocked++;
            return;
        } else {
            orri_link_down(z, link, zmq_strerror(rc));
            return;
        }
    }
}

bool orri_zmq_send_frame(struct orr_zmq *z,
                         const struct orri_origin *origin,
                         const uint8_t *frame,
                         size_t len)
{
    zmq_msg_t msg;
    if (zmq_msg_init_size(&msg, len) != 0)
        return true;
    memcpy(zmq_msg_data(&msg), frame, len);
    int rc = send_to(z, origin, &msg);
    if (rc != 0)
        zmq_msg_close(&msg);
    return rc != EHOSTUNREACH;
}

/* ---- every link ---- */

/* Call fn for each link; fn may take the link down. */
static void for_each_link(struct orr_zmq *z,
                          void (*fn)(struct orr_zmq *, struct orri_link *))
{
    for (size_t i = 0; i < ORRI_BUCKETS; i++) {
        for (struct orri_link *next, *link = z->by_host[i]; link; link = next) {
            next = link->next_by_host;
            fn(z, link);
        }
    }
}

static void retry(struct orr_zmq *z, struct orri_link *link)
{
    if (link->is_blocked)
        orri_link_flush(z, link);
}

void orri_links_retry(struct orr_zmq *z)
{
    for_each_link(z, retry);
}

/* Send a frame without items; false: the link was dead and is gone. */
static bool send_beat(struct orr_zmq *z, struct orri_link *link)
{
    uint8_t frame[ORR_FRAME_HEADER];
    orr_frame_header(frame);
    link->sent_ms = z->now_ms;
    if (orri_zmq_send_frame(z, &link->origin, frame, sizeof(frame)))
        return true;
    orri_link_down(z, link, "the connection ended");
    return false;
}

static void probe(struct orr_zmq *z, struct orri_link *link)
{
    if (link->probes == 0)
        return;
    link->probes--;
    if (send_beat(z, link) && link->probes > 0)
        z->is_probing = true;
}

static void suspect(struct orr_zmq *z, struct orri_link *link)
{
    (void)z;
    if (!link->origin.dial && link->probes == 0)
        link->probes = 1;
}

void orri_links_suspect(struct orr_zmq *z, int fd)
{
    for (size_t i = 0; i < ORRI_BUCKETS; i++) {
        for (struct orri_link *link = z->by_host[i]; link; link = link->next_by_host) {
            if (link->origin.dial || link->origin.fd != fd)
                continue;
            link->probes = PROBES;
            z->is_probing = true;
            z->probe_ms = 0;
        }
    }
}

void orri_links_probe(struct orr_zmq *z)
{
    if (z->now_ms >= z->sweep_ms) { /* in case a word of the monitor was lost */
        z->sweep_ms = z->now_ms + SWEEP_MS;
        for_each_link(z, suspect);
        z->is_probing = true;
    }
    if (!z->is_probing || z->now_ms < z->probe_ms)
        return;
    z->is_probing = false;
    z->probe_ms = z->now_ms + PROBE_MS;
    for_each_link(z, probe);
}

static void forgive(struct orr_zmq *z, struct orri_link *link)
{
    link->heard_ms = z->now_ms;
}

static void beat(struct orr_zmq *z, struct orri_link *link)
{
    if (link->role != ORR_ROLE_HOST)
        return;
    if (z->now_ms - link->heard_ms > (uint64_t)MISSED_BEATS * z->heartbeat_ms)
        orri_session_end(z, link, ORR_ETIMEOUT, "no sign of life");
    else if (z->now_ms - link->sent_ms >= z->heartbeat_ms / 2)
        (void)send_beat(z, link);
}

void orri_links_beat(struct orr_zmq *z)
{
    if (z->now_ms < z->beat_ms)
        return;
    /* When it was this thread that was away, the others have not been silent. */
    if (z->now_ms - z->beat_ms > z->heartbeat_ms)
        for_each_link(z, forgive);
    z->beat_ms = z->now_ms + z->heartbeat_ms / 2;
    for_each_link(z, beat);
}
