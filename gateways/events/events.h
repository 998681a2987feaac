/* SPDX-License-Identifier: Apache-2.0
 * events.h - the event stream of a region: keep the newest events, give them to whoever
 * asks, and let those who have seen all wait for the next.
 *
 * START      the region actor of this host sends each event as `event`: contiguous per
 *            epoch; after a restart first those that it retained, so what is known
 *            already is dropped
 * OPERATION  a subscriber asks `events_get` for what follows a seq.  An answer is its
 *            credit: there is at most one page on its way to each, so a slow subscriber
 *            costs one page and delays nobody.  When there is nothing yet, the request
 *            waits until there is, at most wait_ms; the empty answer then is the
 *            heartbeat
 * STOP       none: whoever waits learns from its link
 * FAILURES   whoever asks for less than is kept gets first_seq and knows exactly what it
 *            missed: nothing is lost in silence (docs/adr/0013-event-stream.md)
 *
 * Memory: at most kept_max lines and kept_bytes_max bytes; the oldest go first.
 * Source: docs/protocol.md, "Events"; CloudEvents 1.0.
 */
#ifndef ORR_EVENTS_H
#define ORR_EVENTS_H

#include "orrery/actor.h"

enum {
    ORR_EVENTS_TOPIC_MAX = 192,      /* bytes of SUBJECT/TYPE/ */
    ORR_EVENTS_PAGE_MAX = 512 << 10, /* bytes of lines in one answer */
    ORR_EVENTS_WAIT_MAX_MS = 10000,
    ORR_EVENTS_WAITERS_MAX = 256, /* requests that wait, one for each asker */
};

struct orr_events; /* the lines that are kept */

/* Errors: ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orr_events_new(uint32_t kept_max,
                                          size_t kept_bytes_max,
                                          struct orr_events **ret_events,
                                          struct orr_error *err);
void orr_events_free(struct orr_events *events);

/* Keep the line of one event.  False: it was known already, or could not be kept, and
 * then those who follow see the hole.  A new epoch, and a hole, start over.
 * Not thread-safe; never blocks. */
bool orr_events_publish(struct orr_events *events, const struct orr_msg_event *event);

struct orr_events_page {
    uint64_t epoch;     /* 0: no event yet */
    uint64_t first_seq; /* oldest kept; last_seq + 1 when nothing is */
    uint64_t last_seq;
    uint64_t through; /* the page accounts for all that is kept up to here */
    size_t len;       /* bytes of buf used */
};

/* Copy whole lines after seq `after`, at most `limit`, whose topic SUBJECT/TYPE/ begins
 * with `topic`, into buf. */
struct orr_events_page orr_events_replay(const struct orr_events *events,
                                         uint64_t after,
                                         uint32_t limit,
                                         struct orr_str topic,
                                         char *buf,
                                         size_t cap);

/* The actor at /edge/events. */
struct orr_events_args {
    struct orr_events *events; /* borrowed: outlives the actor */
};
extern const struct orr_actor_type orr_events_actor;

#endif
