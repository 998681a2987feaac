/* SPDX-License-Identifier: Apache-2.0
 * follow.h - follow the events of a region from outside: each once, in order, and
 * whatever was missed named.
 *
 * START      new: no link yet; `after` says what is known already
 * OPERATION  next gives one item: an event, or a notice of what is missing.  A page is
 *            asked for ahead, so one more is on its way while this one is read
 * STOP       free
 * FAILURES   a host that is gone, refuses, or is silent for three heartbeats: the next
 *            of the endpoints, and of the replicas that hosts told of, is asked for what
 *            follows the last seq.  All replicas publish the same stream, so nothing
 *            comes twice and nothing is left out.  Retries back off up to 2 s, jittered
 *
 * To hold state and follow it: take a snapshot first, follow from the seq before it, and
 * take another one after each notice.  One follower belongs to one thread.
 * Source: docs/protocol.md, "Events"; docs/adr/0013-event-stream.md.
 */
#ifndef ORR_FOLLOW_H
#define ORR_FOLLOW_H

#include "orrery/client.h"

enum {
    ORR_FOLLOW_HOSTS_MAX = 16,
    ORR_FOLLOW_BEAT_MS = 1000, /* an answer comes at least that often */
    ORR_FOLLOW_SILENCE_MS = 3 * ORR_FOLLOW_BEAT_MS,
};

enum orr_follow_kind {
    ORR_FOLLOW_EVENT,     /* line */
    ORR_FOLLOW_COMPACTED, /* first..last were no longer kept when a host was asked */
    ORR_FOLLOW_OVERRUN,   /* first..last were pushed out while we followed: too slow */
    ORR_FOLLOW_EPOCH,     /* the region started anew: seq begins again at 1 */
};

struct orr_follow_item {
    enum orr_follow_kind kind;
    uint64_t epoch;
    uint64_t first; /* of an event: its seq */
    uint64_t last;
    struct orr_str line; /* borrowed: until the next call; JSON without its newline */
};

struct orr_follow_config {
    const char *endpoints; /* of hosts of the region, one or several with commas */
    const char *topic;     /* NULL: all; copied */
    uint64_t epoch;        /* 0: the current one */
    uint64_t after;        /* 0: from the oldest kept, and that is no notice */
    uint64_t lost_ms;      /* give up when nobody answered for so long; 0: never */
};

struct orr_follower;

/* Errors: ORR_EINVAL (endpoints, topic), ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orr_follower_new(const struct orr_follow_config *config,
                                            struct orr_follower **ret_follower,
                                            struct orr_error *err);
void orr_follower_free(struct orr_follower *follower);

/* Errors: ORR_ETIMEOUT nothing within timeout_ms (0: only what has come already);
 * ORR_EUNREACH nobody answered for lost_ms, err says why; ORR_EPROTO a host told events
 * out of order, and another one is asked.  After each of them it may be called again.
 * Blocks up to a second longer while it connects. */
ORR_NODISCARD enum orr_err orr_follower_next(struct orr_follower *follower,
                                             uint64_t timeout_ms,
                                             struct orr_follow_item *ret_item,
                                             struct orr_error *err);

/* All that its host had when it was last heard has been given out. */
bool orr_follower_is_current(const struct orr_follower *follower);

/* Where it is read from now; "" without a link.  Borrowed: until the next call. */
const char *orr_follower_endpoint(const struct orr_follower *follower);

#endif
