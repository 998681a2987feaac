/* SPDX-License-Identifier: Apache-2.0
 * transport_zmq_socket.h - what every socket of ours has in common: endpoints that are
 * allowed, options, and word of connections that ended.  For the transport and for
 * clients. Threads: a socket and its watch belong to one thread.
 */
#ifndef ORR_TRANSPORT_ZMQ_SOCKET_H
#define ORR_TRANSPORT_ZMQ_SOCKET_H

#include "orrery/base.h"

enum { ORR_ENDPOINT_MAX = 256 };

/* ipc://PATH or tcp://HOST:PORT?
 * Errors: ORR_EINVAL; when listening also ORR_EPERM beyond this machine, ORR_EEXIST
 * somebody listens there. */
ORR_NODISCARD enum orr_err
orri_endpoint_check(const char *endpoint, bool is_listening, struct orr_error *err);

/* Bound what a socket holds and how long it waits.  Errors: ORR_EINVAL. */
ORR_NODISCARD enum orr_err orri_zmq_options(void *socket);

/* Monotonic. */
uint64_t orri_zmq_now_ms(void);

/* A PAIR that tells of the given ZMQ_EVENT_* of socket; NULL: out of sockets.  Owned by
 * the caller, who stops the monitor of socket before closing either. */
void *orri_zmq_watch(void *context, void *socket, int events);

/* For that: no connection came about, or it has ended. */
#define ORRI_ZMQ_EVENTS_END                                                            \
    (ZMQ_EVENT_CLOSED | ZMQ_EVENT_DISCONNECTED |                                       \
     ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |      \
     ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)

/* The next event's value, such as the fd of a connection that ended; false when there
 * is none. */
bool orri_zmq_watch_next(void *watch, int *ret_value);

#endif
