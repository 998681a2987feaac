/* SPDX-License-Identifier: Apache-2.0
 * events.h - the event stream of a region: publish, keep, replay.
 *
 * The region actor numbers its events (contiguous per epoch) and sends each as `event`
 * to this edge's actor.  The edge publishes it on a PUB socket as two frames, topic and
 * one line of JSON (a CloudEvent), and keeps the newest lines for replay by
 * `events_get`.  Every heartbeat_ms it publishes a `heartbeat` that repeats the last
 * seq, so that a subscriber notices what it missed.  A slow subscriber loses messages
 * at its high-water mark and sees the gap in seq. Memory: at most kept_max lines and
 * kept_bytes_max bytes; the oldest go first. Source: docs/protocol.md, "Event stream";
 * CloudEvents 1.0.
 */
#ifndef ORR_EVENTS_H
#define ORR_EVENTS_H

#include "orrery/actor.h"

struct orr_events; /* the publisher: socket and ring */

/* Bind the stream.  endpoint: ipc://PATH or loopback tcp://.
 * Errors: ORR_EINVAL endpoint, ORR_EIO with the reason in err. */
ORR_NODISCARD enum orr_err orr_events_new(const char *endpoint,
                                          uint32_t kept_max,
                                          size_t kept_bytes_max,
                                          struct orr_events **ret_events,
                                          struct orr_error *err);
void orr_events_free(struct orr_events *events);

/* Publish one event and keep its line.  Not thread-safe; never blocks. */
void orr_events_publish(struct orr_events *events, const struct orr_msg_event *event);

/* Copy whole lines after seq `after` into buf; answers as the fields of `events` say.
 */
struct orr_events_page {
    uint64_t epoch;
    uint64_t first_seq; /* oldest kept; last_seq + 1 when nothing is */
    uint64_t last_seq;
    size_t len; /* bytes of buf used */
};
struct orr_events_page orr_events_replay(const struct orr_events *events,
                                         uint64_t after,
                                         uint32_t limit,
                                         char *buf,
                                         size_t cap);

/* The actor at /edge/events. */
struct orr_events_args {
    struct orr_events *events; /* borrowed: outlives the actor */
    const char *source;        /* of heartbeats, such as /eu1; borrowed */
    uint64_t heartbeat_ms;
};
extern const struct orr_actor_type orr_events_actor;

#endif
