/* SPDX-License-Identifier: Apache-2.0
 * transport_zmq.c - the transport's life, and what it says about itself.  Its thread is in transport_zmq_thread.c.
 */
#include "transport_zmq_impl.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum {
    LINKS_MAX = 4096,
    QUEUE_BYTES_MAX = 16 << 20,
    HEARTBEAT_MS = 500,
    STOP_LINGER_MS = 250,
    LOG_LINES_PER_S = 20,
};

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

/* Under wake_lock.  host 0: an empty place. */
static struct orri_dial *dial_of(struct orr_zmq *z, uint64_t host)
{
    for (size_t i = 0; i < z->n_dials; i++) {
        if (z->dials[i].host == host)
            return &z->dials[i];
    }
    return NULL;
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
    struct orri_dial *dial = dial_of(z, host_id);
    if (dial && !dial->is_dropped)
        rc = ORR_EEXIST;
    if (rc == ORR_OK && !dial)
        dial = dial_of(z, 0);
    if (!dial && z->n_dials < ORR_ZMQ_DIALS_MAX)
        dial = &z->dials[z->n_dials++];
    if (!dial) {
        rc = ORR_ENOSPC;
    } else if (dial->is_dropped) { /* and not let go yet: it stays */
        dial->is_dropped = false;
    } else if (rc == ORR_OK) {
        dial->host = host_id;
        dial->is_new = z->has_changes = true;
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

void orr_zmq_undial(struct orr_zmq *z, const char *host)
{
    pthread_mutex_lock(&z->wake_lock);
    struct orri_dial *dial = dial_of(z, orr_hash(orr_str(host)));
    if (dial)
        dial->is_dropped = z->has_changes = true;
    pthread_mutex_unlock(&z->wake_lock);
    if (dial)
        wake(z);
}

const char *orr_zmq_endpoint(const struct orr_zmq *z)
{
    return z->endpoint;
}

enum orr_err orr_zmq_start(struct orr_zmq *z, struct orr_error *err)
{
    ORR_ASSERT(!z->is_started);
    int rc = pthread_create(&z->thread, NULL, orri_zmq_run, z);
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
