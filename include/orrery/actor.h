/* SPDX-License-Identifier: Apache-2.0
 * actor.h - what an actor is, and all that it can do.
 *
 * An actor is a state struct and a const table of handlers.  Its effects are exactly
 * three: send, timers, spawn/stop.  They go through ctx, are queued while the handler
 * runs, take place when it returns ORR_OK and are discarded when it returns an error.
 * Time and randomness come from ctx.  So an actor is a pure state machine: the
 * simulator steps the same object code.
 *
 * Guarantees: messages of one sender to one receiver arrive in order, at most once;
 * handlers of one actor never run at the same time; a request is answered exactly once
 * or its deadline passes.  A handler's return value is the answer: an error becomes
 * `failed` (with the text of orr_refuse), ORR_OK without an answer of its own becomes
 * `ack`. Ownership: a message and all it points to is the handler's until it returns;
 * what is kept must be copied. Threads: ctx belongs to the running handler; nothing
 * here may be called from elsewhere.
 */
#ifndef ORR_ACTOR_H
#define ORR_ACTOR_H

#include "orrery/ids.h"
#include "orrery/msg.h"

struct orr_ctx;
struct orr_actor_type;

typedef enum orr_err (*orr_handler_f)(struct orr_ctx *ctx,
                                      void *state,
                                      const void *msg);

/* A request kept for a later answer. */
struct orr_request {
    struct orr_addr from;
    uint64_t corr;
    uint64_t deadline_ms; /* on the clock of orr_now_ms; 0 = none */
    uint16_t msg_id;
};

enum orr_log_level { ORR_LOG_DEBUG, ORR_LOG_INFO, ORR_LOG_WARN, ORR_LOG_ERROR };

enum orr_restart {
    ORR_TEMPORARY, /* never restarted */
    ORR_TRANSIENT, /* restarted when it failed */
    ORR_PERMANENT, /* restarted whenever it stops without being asked to; a stop by
                      itself (orr_stop) counts as no failure */
};

/* What becomes of children that fail (OTP's words).  A parent whose children fail more
 * than `intensity` times within period_ms fails itself.  Restarts wait backoff_min_ms,
 * doubling up to backoff_max_ms, with jitter.  period_ms 0: 10 failures in 60 s, backoff
 * from 50 ms to 5 s.  A restarted actor has a new address; its path leads to it, and what
 * is sent there during the backoff waits for it. */
enum orr_strategy { ORR_ONE_FOR_ONE, ORR_ONE_FOR_ALL, ORR_REST_FOR_ONE };
struct orr_supervision {
    enum orr_strategy strategy;
    uint32_t intensity;
    uint32_t period_ms;
    uint32_t backoff_min_ms;
    uint32_t backoff_max_ms;
};

struct orr_spawn {
    const struct orr_actor_type *type;
    const void *args; /* type->args_size bytes, copied; kept for restarts */
    const char *path; /* registered name such as /eu1/a/n03; NULL for none; copied */
    enum orr_restart restart;
};

/* The kernel's side of ctx.  Tests may bring their own. */
struct orr_ctx_ops {
    void (*send)(struct orr_ctx *,
                 struct orr_addr to,
                 const struct orr_msg_desc *,
                 const void *msg);
    void (*ask)(struct orr_ctx *,
                struct orr_addr to,
                uint64_t timeout_ms,
                uint64_t tag,
                const struct orr_msg_desc *,
                const void *msg);
    void (*reply)(struct orr_ctx *,
                  const struct orr_request *,
                  const struct orr_msg_desc *,
                  const void *msg);
    void (*relay)(struct orr_ctx *, struct orr_addr to);
    void (*send_now)(struct orr_ctx *,
                     struct orr_addr to,
                     const struct orr_msg_desc *,
                     const void *msg);
    void (*hold)(struct orr_ctx *, uint64_t ticket);
    void (*release)(struct orr_ctx *, uint64_t ticket);
    void (*timer_set)(struct orr_ctx *, uint32_t id, uint64_t delay_ms, uint64_t arg);
    void (*timer_cancel)(struct orr_ctx *, uint32_t id);
    enum orr_err (*spawn)(struct orr_ctx *,
                          const struct orr_spawn *,
                          struct orr_addr *ret_addr);
    void (*stop)(struct orr_ctx *, struct orr_addr);
    void (*monitor)(struct orr_ctx *, struct orr_addr who, bool on);
    uint64_t (*now_us)(struct orr_ctx *); /* NULL: as exact as now_ms */
    uint64_t (*random)(struct orr_ctx *);
    void (*log)(struct orr_ctx *, enum orr_log_level, const char *text);
};

struct orr_ctx {
    const struct orr_ctx_ops *ops;
    struct orr_addr self;
    struct orr_addr from;       /* sender of the message being handled */
    unsigned from_role;         /* enum orr_role bit of the sender */
    uint64_t now_ms;            /* monotonic, of this host */
    uint64_t wall_ms;           /* since 1970 UTC; for people, never for decisions */
    uint64_t tag;               /* of the ask that this message answers, else 0 */
    struct orr_request request; /* corr 0: the message wants no answer */
    bool is_answered;           /* replied, deferred or relayed */
    struct orr_error error;     /* text for `failed`, set by orr_refuse */
};

/* orr_send(ctx, to, job_cancel, .job = id, .why = why) */
#define orr_send(ctx, to, ...) ORR_SEND_(ctx, to, __VA_ARGS__, )
#define ORR_SEND_(ctx, to, name, ...)                                                  \
    (ctx)->ops->send(                                                                  \
        (ctx), (to), orr_msg_desc_##name(), ORR_MSG_LITERAL_(name, __VA_ARGS__))

/* Ask: the answer is handled by this actor's handler for the answering message, with
 * ctx->tag = tag; when it fails or timeout_ms passes, by its handler for `failed` with
 * the same tag.  Exactly one of them, once.  While a request is handled, what is asked
 * and sent has at most the time that this request has left; timers and what follows from
 * them start afresh. */
#define orr_ask(ctx, to, timeout_ms, tag, ...)                                         \
    ORR_ASK_(ctx, to, timeout_ms, tag, __VA_ARGS__, )
#define ORR_ASK_(ctx, to, timeout_ms, tag, name, ...)                                  \
    (ctx)->ops->ask((ctx),                                                             \
                    (to),                                                              \
                    (timeout_ms),                                                      \
                    (tag),                                                             \
                    orr_msg_desc_##name(),                                             \
                    ORR_MSG_LITERAL_(name, __VA_ARGS__))

/* Answer the message being handled; ignored when it wants no answer. */
#define orr_reply(ctx, ...) orr_reply_to(ctx, &(ctx)->request, __VA_ARGS__)

/* Answer a request that was kept with orr_defer. */
#define orr_reply_to(ctx, request, ...) ORR_REPLY_(ctx, request, __VA_ARGS__, )
#define ORR_REPLY_(ctx, request, name, ...)                                            \
    (ctx)->ops->reply(                                                                 \
        (ctx), (request), orr_msg_desc_##name(), ORR_MSG_LITERAL_(name, __VA_ARGS__))

#define ORR_MSG_LITERAL_(name, ...)                                                    \
    (&(const struct orr_msg_##name){.end_ = 0, __VA_ARGS__})

/* Keep the request; the kernel sends no answer now.  Bound what you keep. */
static inline struct orr_request orr_defer(struct orr_ctx *ctx)
{
    ctx->is_answered = true;
    return ctx->request;
}

/* Hand the request on to `to`; whatever answers it goes to the asker, with the time
 * that is left. */
static inline void orr_relay(struct orr_ctx *ctx, struct orr_addr to)
{
    ctx->ops->relay(ctx, to);
}

/* return orr_refuse(ctx, ORR_ENOENT, "job %s: no such job; `orrery ps -a` lists them",
 * id); */
enum orr_err orr_refuse(struct orr_ctx *ctx, enum orr_err code, const char *fmt, ...)
    ORR_PRINTF(3, 4);
void orr_log(struct orr_ctx *ctx, enum orr_log_level level, const char *fmt, ...)
    ORR_PRINTF(3, 4);

/* Output commit (docs/adr/0008-ledger.md).  After orr_hold, what this handler (all of it) and
 * every later one of this actor sends, asks, answers or watches stays in the actor, in order,
 * until orr_release with that ticket or a higher one; an error that a handler returns is an
 * answer too.  Tickets only grow.  Timers, spawns, stops and relays do not wait, nor does
 * orr_send_now, which is for whoever makes things durable.  Deadlines of asks start when they
 * leave; what is sent has none.  When the actor ends, what is held is dropped, and askers get ORR_EGONE: what they
 * asked may have been done or not. Bound what you hold: refuse work while too much waits. */
static inline void orr_hold(struct orr_ctx *ctx, uint64_t ticket)
{
    ctx->ops->hold(ctx, ticket);
}
static inline void orr_release(struct orr_ctx *ctx, uint64_t ticket)
{
    ctx->ops->release(ctx, ticket);
}
#define orr_send_now(ctx, to, ...) ORR_SEND_NOW_(ctx, to, __VA_ARGS__, )
#define ORR_SEND_NOW_(ctx, to, name, ...)                                              \
    (ctx)->ops->send_now(                                                              \
        (ctx), (to), orr_msg_desc_##name(), ORR_MSG_LITERAL_(name, __VA_ARGS__))

/* One-shot.  The message `timer` carries id and arg.  Setting a running id moves it. */
static inline void
orr_timer_set(struct orr_ctx *ctx, uint32_t id, uint64_t delay_ms, uint64_t arg)
{
    ctx->ops->timer_set(ctx, id, delay_ms, arg);
}
static inline void orr_timer_cancel(struct orr_ctx *ctx, uint32_t id)
{
    ctx->ops->timer_cancel(ctx, id);
}

/* The child's address is valid at once; it starts when this handler returned ORR_OK.
 * Errors: ORR_EEXIST path taken, ORR_ENOSPC too many actors. */
ORR_NODISCARD static inline enum orr_err
orr_spawn(struct orr_ctx *ctx, const struct orr_spawn *spawn, struct orr_addr *ret_addr)
{
    return ctx->ops->spawn(ctx, spawn, ret_addr);
}

/* Stop a child, or oneself.  Messages still queued for it become dead letters; its
 * askers get ORR_EGONE. */
static inline void orr_stop(struct orr_ctx *ctx, struct orr_addr who)
{
    ctx->ops->stop(ctx, who);
}

/* Death watch, also across hosts: one `down` message.  Watching what is gone already
 * answers at once. */
static inline void orr_monitor(struct orr_ctx *ctx, struct orr_addr who, bool on)
{
    ctx->ops->monitor(ctx, who, on);
}

static inline uint64_t orr_now_ms(const struct orr_ctx *ctx)
{
    return ctx->now_ms;
}

/* The same kind of clock, read now and exact, to measure how long something took; never for decisions. */
static inline uint64_t orr_now_us(struct orr_ctx *ctx)
{
    return ctx->ops->now_us ? ctx->ops->now_us(ctx) : ctx->now_ms * 1000;
}

static inline uint64_t orr_random(struct orr_ctx *ctx)
{
    return ctx->ops->random(ctx);
}

/* What happens to a message of this kind when the mailbox's lane is full. */
enum orr_overflow {
    ORR_REFUSE,      /* the sender gets ORR_EBUSY */
    ORR_DROP_OLDEST, /* the oldest message of the lane goes */
    ORR_COALESCE, /* replaces a queued message of the same kind and sender, full or not
                   */
};

struct orr_handler {
    uint16_t msg_id;
    uint8_t overflow;   /* enum orr_overflow */
    uint8_t roles;      /* enum orr_role bits that may send it */
    uint32_t accept_in; /* bit mask of states, ORR_ANY_STATE for all */
    orr_handler_f fn;
};
#define ORR_ANY_STATE UINT32_MAX
#define ORR_IN(s)     (1u << (unsigned)(s))

struct orr_actor_type {
    const char *name;
    size_t state_size;
    size_t args_size;
    /* State is zeroed.  An error stops the actor as failed.  NULL: nothing to do. */
    enum orr_err (*init)(struct orr_ctx *ctx, void *state, const void *args);
    /* Free what init or handlers took; no effects.  NULL: nothing to do. */
    void (*fini)(void *state);
    unsigned (*state_of)(const void *state);   /* < 32; NULL: always 0 */
    const char *(*state_name)(unsigned state); /* for errors and logs; NULL: numbers */
    const struct orr_handler *handlers;
    size_t n_handlers;
    uint32_t mailbox_max; /* messages per lane; 0 = the host's default */
    struct orr_supervision supervision;
};

/* A handler returns ORR_ECRASH when its state cannot be trusted any more: the actor
 * fails and its parent's supervision decides.  Every other error is an answer, and the
 * actor lives on unchanged. */

/* Typed handler `<actor>_on_<message>` and the thunk that the table points at. */
#define ORR_HANDLER(actor, message)                                                    \
    static enum orr_err actor##_on_##message(                                          \
        struct orr_ctx *ctx, struct actor *self, const struct orr_msg_##message *msg); \
    static enum orr_err actor##_on_##message##_thunk(                                  \
        struct orr_ctx *ctx, void *state, const void *msg)                             \
    {                                                                                  \
        return actor##_on_##message(ctx, state, msg);                                  \
    }
#define ORR_ON(actor, message, states, roles_, overflow_)                              \
    {                                                                                  \
        .msg_id = ORR_MSG_##message, .overflow = (overflow_), .roles = (roles_),       \
        .accept_in = (states), .fn = actor##_on_##message##_thunk                      \
    }

#endif
