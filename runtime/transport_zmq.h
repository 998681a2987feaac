/* SPDX-License-Identifier: Apache-2.0
 * transport_zmq.h - the transport between processes: one ROUTER that peers dial, one
 * DEALER for every peer we dial.
 *
 * START      new -> listen (zero or more) -> dial (any number, any time; undial) -> start
 * OPERATION  a link comes up when both sides have said hello; either side may have dialled.  Both directions use the one
 *            link between two hosts, so a host without a listener is reached over the link that it dialled.
 * STOP       stop (what is queued is handed to libzmq within a short, fixed time) -> free.  No promise that it arrives:
 *            what a slow receiver has not read when the connection ends is lost, so what matters is acknowledged.
 * FAILURES   a link that breaks takes its queue with it and the kernel is told (orr_system_peer_down); a dialled peer is
 *            dialled again with backoff, without end, and every new link starts with hello.
 * Threads: one thread owns every socket and makes every call into the kernel.  send may be called by any thread.
 * Limits: links, dials, bytes queued per link; docs/protocol.md, "Limits".
 */
#ifndef ORR_TRANSPORT_ZMQ_H
#define ORR_TRANSPORT_ZMQ_H

#include "transport.h"
#include "transport_zmq_socket.h"

struct orr_zmq;

enum { ORR_ZMQ_DIALS_MAX = 64 };

struct orr_zmq_config {
    struct orr_system *system; /* borrowed: outlives the transport's stop */
    const char *host;          /* our name, as in orr_system_config; copied */
    uint32_t incarnation;      /* as in orr_system_config */
    const char *build;         /* for people; copied */
    uint32_t links_max;        /* live links; 0 = 4096 */
    uint32_t
        queue_bytes_max;   /* waiting for one link; 0 = 16 MiB, never below one frame */
    uint32_t heartbeat_ms; /* between signs of life, the same on all hosts; 0 = 500.
                                * Four missed ones end a link */
    orr_log_f log;         /* NULL: nowhere.  Called by the transport's thread */
    void *log_arg;
};

struct orr_zmq_stats {
    uint64_t links;
    uint64_t frames_sent;
    uint64_t frames_received;
    uint64_t items_received;
    uint64_t frames_refused; /* garbage, or before hello */
    uint64_t links_refused;  /* a hello that was turned down */
};

/* Errors: ORR_EINVAL (name, incarnation), ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orr_zmq_new(const struct orr_zmq_config *config,
                                       struct orr_zmq **ret_zmq,
                                       struct orr_error *err);
void orr_zmq_free(struct orr_zmq *zmq);

/* Listen at ipc://PATH or tcp://127.x.y.z:PORT (PORT * = any free one), before start.
 * What was bound goes into ret_bound[ORR_ENDPOINT_MAX] unless that is NULL; the first
 * one is told to peers in hello. Errors: ORR_EINVAL, ORR_EPERM beyond this machine,
 * ORR_EEXIST somebody listens there. */
ORR_NODISCARD enum orr_err orr_zmq_listen(struct orr_zmq *zmq,
                                          const char *endpoint,
                                          char *ret_bound,
                                          struct orr_error *err);

/* Keep a link to `host` at `endpoint` from now on.  Any thread.
 * Errors: ORR_EINVAL, ORR_EEXIST dialled already, ORR_ENOSPC. */
ORR_NODISCARD enum orr_err orr_zmq_dial(struct orr_zmq *zmq,
                                        const char *host,
                                        const char *endpoint,
                                        struct orr_error *err);

/* Let it go again, link and all; unknown: nothing.  Any thread. */
void orr_zmq_undial(struct orr_zmq *zmq, const char *host);

/* The first endpoint that was listened at, as in hello; "" when none.  Borrowed. */
const char *orr_zmq_endpoint(const struct orr_zmq *zmq);

ORR_NODISCARD enum orr_err orr_zmq_start(struct orr_zmq *zmq, struct orr_error *err);
void orr_zmq_stop(struct orr_zmq *zmq);

/* For orr_system_set_transport; borrowed: lives as long as zmq. */
struct orr_transport *orr_zmq_transport(struct orr_zmq *zmq);

void orr_zmq_stats(struct orr_zmq *zmq, struct orr_zmq_stats *ret_stats);

#endif
