/* SPDX-License-Identifier: Apache-2.0
 * transport_zmq_impl.h - what the files of the ZeroMQ transport share.
 *
 * Two kinds of memory.  What senders touch: the table of links by host (rwlock: senders
 * read, the thread writes), each link's queue (its mutex), the ready list and the sleep
 * flag (wake_lock).  Everything else belongs to the thread alone. Lock order:
 * table_lock, then a link's lock, then wake_lock.  No lock is held while the kernel or
 * libzmq is called.
 */
#ifndef ORR_TRANSPORT_ZMQ_IMPL_H
#define ORR_TRANSPORT_ZMQ_IMPL_H

#include "transport_zmq.h"
#include "transport_zmq_socket.h"
#include "wire.h"

#include <pthread.h>
#include <stdatomic.h>
#include <zmq.h>

enum {
    ORRI_ROUTE_MAX = 32,          /* bytes of a routing id; libzmq makes them of 5 */
    ORRI_FRAME_TARGET = 64 << 10, /* items are put together up to this */
    ORRI_BUCKETS = 1024,          /* of the link tables */
    ORRI_ENDED_MAX = 64,          /* routes of links that ended last */
    ORRI_HELLO_MS = 3000, /* a dialled peer that has not said hello is dialled again */
    ORRI_BACKOFF_MIN_MS = 100,
    ORRI_BACKOFF_MAX_MS = 2000,
};

/* ---- transport_zmq_queue.c: what waits for one link ---- */

/* A whole frame under construction. */
struct orri_chunk {
    struct orri_chunk *next;
    size_t len;
    size_t cap;
    uint8_t bytes[];
};

struct orri_queue {
    struct orri_chunk *first[ORR_LANE_MAX_]; /* owned */
    struct orri_chunk *last[ORR_LANE_MAX_];
    size_t bytes;
};

/* Errors: ORR_EBUSY full for this lane, ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orri_queue_push(struct orri_queue *queue,
                                           enum orr_lane lane,
                                           size_t bytes_max,
                                           const uint8_t *data,
                                           size_t len);
/* The next frame, control before job before telemetry; NULL when empty.  Owned by the
 * caller. */
struct orri_chunk *orri_queue_pop(struct orri_queue *queue);
void orri_queue_clear(struct orri_queue *queue);

/* ---- links and dials ---- */

/* Where a frame came from, and so where its answer goes: a dialled socket, or a routing
 * id at the ROUTER. */
struct orri_origin {
    struct orri_dial *dial; /* NULL: accepted */
    uint8_t route[ORRI_ROUTE_MAX];
    size_t route_len;
    int fd; /* of the accepted connection, -1 unknown */
};

/* A routing id, which libzmq never gives twice. */
struct orri_route {
    uint8_t bytes[ORRI_ROUTE_MAX];
    size_t len;
};

struct orri_link {
    uint64_t host;
    uint32_t incarnation;
    unsigned role;
    char name[ORR_NAME_MAX];
    struct orri_origin origin;
    uint64_t heard_ms; /* when the last frame came */
    uint64_t sent_ms;  /* when the last one went */
    unsigned probes;   /* still to send, to see whether it lives */
    zmq_msg_t out;     /* the frame that libzmq had no room for */
    bool has_out;
    bool is_blocked; /* waiting for room; on no list but the table */
    struct orri_link *next_by_host;
    struct orri_link *next_by_route;
    pthread_mutex_t lock; /* guards queue and is_ready */
    struct orri_queue queue;
    bool is_ready; /* on the ready list, or about to be flushed */
    struct orri_link *next_ready;
};

/* A socket and what poll(2) needs of it.  Its fd tells of a change, not of a state, and any call on the socket may swallow
 * that word: so after a send, too, it must be read until it is empty before the thread sleeps. */
struct orri_port {
    void *socket;  /* owned; NULL: closed */
    int fd;        /* borrowed: of socket */
    bool may_read; /* not known to be empty */
};

enum orri_dial_state {
    ORRI_DIAL_EMPTY,
    ORRI_DIAL_WAITING,
    ORRI_DIAL_HELLO,
    ORRI_DIAL_UP
};

struct orri_dial {
    char name[ORR_NAME_MAX];
    char endpoint[ORR_ENDPOINT_MAX];
    uint64_t host;
    enum orri_dial_state state;
    uint64_t due_ms; /* waiting: when to dial; hello: until when to wait */
    uint32_t backoff_ms;
    struct orri_port dealer;
    struct orri_port monitor; /* PAIR that says when it disconnects */
    struct orri_link *link;   /* borrowed: from the tables, while up */
    /* Guarded by wake_lock, like host, name and endpoint while the place is empty: what the
     * thread is to do next. */
    bool is_new;
    bool is_dropped;
};

struct orr_zmq {
    struct orr_transport base;
    struct orr_system *system; /* borrowed: outlives our stop */
    char host[ORR_NAME_MAX];
    char build[ORR_NAME_MAX];
    char endpoint[ORR_ENDPOINT_MAX]; /* first bound; "" */
    uint64_t host_id;
    uint32_t incarnation;
    uint32_t links_max;
    uint32_t queue_bytes_max;
    uint32_t heartbeat_ms;
    orr_log_f log;
    void *log_arg; /* borrowed: of log */

    pthread_rwlock_t table_lock; /* guards by_host */
    struct orri_link *by_host[ORRI_BUCKETS];

    pthread_mutex_t wake_lock; /* guards the five below */
    struct orri_link *ready;
    struct orri_link **ready_end;
    size_t n_dials;   /* places, some of them may be empty */
    bool has_changes; /* some dial is new or dropped */
    bool is_asleep;   /* the thread is, or is about to be, in poll with nothing ready */
    bool is_stopping;
    int wake_fd;

    pthread_t thread;
    bool is_started;

    /* the thread's own, once started */
    void *context;
    struct orri_port router;
    struct orri_port monitor; /* PAIR: connections of the ROUTER that ended */
    struct orri_link *by_route[ORRI_BUCKETS];
    struct orri_dial dials[ORR_ZMQ_DIALS_MAX];
    struct orri_route ended[ORRI_ENDED_MAX]; /* of accepted links, a ring */
    size_t n_ended;                          /* all so far */
    size_t n_links;
    size_t n_blocked;
    uint64_t now_ms;  /* of this round */
    uint64_t beat_ms; /* when signs of life are sent and looked for next */
    bool is_probing;
    uint64_t probe_ms; /* when the links that look dead are probed next */
    uint64_t sweep_ms; /* when all accepted links are probed next */
    uint64_t random;
    uint64_t log_second;  /* in which n_logged lines were written or left out */
    unsigned n_logged[2]; /* news, trouble */

    _Atomic uint64_t links;
    _Atomic uint64_t frames_sent;
    _Atomic uint64_t frames_received;
    _Atomic uint64_t items_received;
    _Atomic uint64_t frames_refused;
    _Atomic uint64_t links_refused;
};

/* transport_zmq.c, transport_zmq_thread.c */
void *orri_zmq_run(void *zmq);
/* Takes socket, which may be NULL.  false: there is none, or no fd of it. */
bool orri_port_open(struct orri_port *port, void *socket);
void orri_port_close(struct orri_port *port);
void orri_zmq_log(struct orr_zmq *z, enum orr_log_level level, const char *fmt, ...)
    ORR_PRINTF(3, 4);

/* transport_zmq_link.c */
struct orri_link *orri_link_by_host(struct orr_zmq *z, uint64_t host);
struct orri_link *orri_link_by_origin(struct orr_zmq *z,
                                      const struct orri_origin *origin);
/* Errors: ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orri_link_up(struct orr_zmq *z,
                                        const struct orri_origin *origin,
                                        const struct orr_msg_hello *hello);
void orri_link_down(struct orr_zmq *z, struct orri_link *link, const char *why);
/* Did an accepted link have this route, not long ago? */
bool orri_link_has_ended(const struct orr_zmq *z, const struct orri_origin *origin);
/* Hand what is queued to libzmq.  The link may be gone afterwards. */
void orri_link_flush(struct orr_zmq *z, struct orri_link *link);
/* Send a whole frame that may be lost, such as a probe.  false: there is no such peer
 * any more. */
bool orri_zmq_send_frame(struct orr_zmq *z,
                         const struct orri_origin *origin,
                         const uint8_t *frame,
                         size_t len);
void orri_links_probe(struct orr_zmq *z);
/* Send signs of life to hosts, and take down links on which none came. */
void orri_links_beat(struct orr_zmq *z);
void orri_links_suspect(struct orr_zmq *z, int fd);
void orri_links_retry(struct orr_zmq *z);
void orri_links_free(struct orr_zmq *z);
enum orr_err orri_zmq_send(struct orr_transport *self,
                           uint64_t peer_host,
                           enum orr_lane lane,
                           const uint8_t *data,
                           size_t len);

/* transport_zmq_session.c */
void orri_session_say_hello(struct orr_zmq *z, const struct orri_origin *origin);
void orri_session_frame(struct orr_zmq *z,
                        const struct orri_origin *origin,
                        const uint8_t *frame,
                        size_t len);

/* Tell the peer why, and take the link down. */
void orri_session_end(struct orr_zmq *z,
                      struct orri_link *link,
                      enum orr_err code,
                      const char *what);

/* transport_zmq_dial.c */
void orri_dial_step(struct orr_zmq *z, struct orri_dial *dial);
/* Its link is down or never came up: close the socket, dial again after a while. */
void orri_dial_again(struct orr_zmq *z, struct orri_dial *dial);
/* No connection came about: soon again. */
void orri_dial_unanswered(struct orr_zmq *z, struct orri_dial *dial);
void orri_dial_close(struct orri_dial *dial, int linger_ms);
/* Take up what was dialled since, let go of what was undialled. */
void orri_dials_change(struct orr_zmq *z);

#endif
