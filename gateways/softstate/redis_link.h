/* SPDX-License-Identifier: Apache-2.0
 * redis_link.h - one pipelined, never blocking connection to Redis (hiredis).
 *
 * Built on hiredis's non-blocking contexts, reader and formatter rather than on its
 * async layer: that one aborts the process (assert in async.c of 0.14) when a reply
 * arrives that nobody asked for, and no Redis may end a host.
 * Every command has a deadline; a link that misses one, sends what was not asked for,
 * or more than REDIS_REPLY_BYTES_MAX at once, is lost.  Threads: one.
 */
#ifndef ORR_REDIS_LINK_H
#define ORR_REDIS_LINK_H

#include "redis_address.h"

struct redisContext;
struct redisReply;

enum { REDIS_CALLS_MAX = 256, REDIS_REPLY_BYTES_MAX = 1 << 20 };

struct redis_call { /* of the caller; given back with the reply */
    uint32_t kind;
    uint32_t index;
    uint64_t life;
    uint64_t version;
};

struct redis_link {
    struct redisContext *c; /* owned; NULL: not open */
    bool is_connected;      /* the socket is; until then nothing is sent */
    bool has_output;        /* that the socket has not taken yet */
    uint64_t deadline_ms;   /* of the connect and of each command */
    uint64_t opened_ms;
    uint32_t head, n; /* of calls: those that wait for their reply, in order */
    struct {
        struct redis_call call;
        uint64_t due_ms;
    } calls[REDIS_CALLS_MAX];
};

/* Start connecting.  Errors: ORR_EUNREACH. */
ORR_NODISCARD enum orr_err redis_link_open(struct redis_link *link,
                                           const struct redis_address *address,
                                           uint64_t deadline_ms,
                                           uint64_t now_ms,
                                           struct orr_error *err);
void redis_link_close(struct redis_link *link);

static inline bool redis_link_has_room(const struct redis_link *link)
{
    return link->c && link->n < REDIS_CALLS_MAX;
}

/* Queue a command; there must be room.  Errors: ORR_ENOMEM. */
ORR_NODISCARD enum orr_err redis_link_call(struct redis_link *link,
                                           const struct redis_call *call,
                                           int argc,
                                           const char **argv,
                                           const size_t *lens,
                                           uint64_t now_ms);

int redis_link_fd(const struct redis_link *link);
short redis_link_events(const struct redis_link *link); /* for poll */
uint64_t redis_link_due_ms(const struct redis_link *link);

/* The reply is borrowed until this returns. */
typedef void (*redis_reply_f)(void *arg,
                              const struct redis_call *call,
                              const struct redisReply *reply);

/* After poll: write, read, hand out replies, watch the deadlines.  An error: the link is
 * of no use any more, err says why. */
ORR_NODISCARD enum orr_err redis_link_service(struct redis_link *link,
                                              short revents,
                                              uint64_t now_ms,
                                              redis_reply_f on_reply,
                                              void *arg,
                                              struct orr_error *err);

#endif
