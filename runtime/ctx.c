/* SPDX-License-Identifier: Apache-2.0
 * ctx.c - what a handler can do.  Effects are recorded as letters in the outbox of its worker; effects.c carries them out.
 *
 * Recording may fail for want of memory only.  Then the actor's state and its effects no longer agree, and the actor is
 * failed when its handler returns.
 */
#include "core.h"

static struct orri_ctx *full(struct orr_ctx *pub)
{
    return (struct orri_ctx *)pub;
}

static void append(struct orri_ctx *ctx, struct orri_letter *letter)
{
    ctx->run = NULL;
    if (ctx->out)
        ctx->out_last->next = letter;
    else
        ctx->out = letter;
    ctx->out_last = letter;
}

static struct orri_letter *
make(struct orri_ctx *ctx, const struct orr_msg_desc *desc, const void *msg)
{
    const uint8_t *trace = ctx->current ? orri_letter_trace(ctx->current) : NULL;
    struct orri_letter *letter = orri_letter_make(ctx->worker, desc, msg, trace, false);
    if (!letter) {
        ctx->trouble = ORR_ENOMEM;
        return NULL;
    }
    letter->role = ORR_ROLE_LOCAL;
    letter->deadline_ms = ctx->deadline_ms;
    return letter;
}

static struct orri_letter *
record_msg(struct orri_ctx *ctx, const struct orr_msg_desc *desc, const void *msg)
{
    struct orri_letter *letter = make(ctx, desc, msg);
    if (letter)
        append(ctx, letter);
    return letter;
}

static struct orri_letter *record(struct orri_ctx *ctx, uint8_t kind, size_t bytes)
{
    struct orri_letter *letter = orri_letter_space(ctx->worker, bytes, 0, false);
    if (!letter) {
        ctx->trouble = ORR_ENOMEM;
        return NULL;
    }
    letter->kind = kind;
    append(ctx, letter);
    return letter;
}

static void ctx_send(struct orr_ctx *pub,
                     struct orr_addr to,
                     const struct orr_msg_desc *desc,
                     const void *msg)
{
    struct orri_ctx *ctx = full(pub);
    struct orri_letter *letter = make(ctx, desc, msg);
    if (!letter)
        return;
    if (to.host != pub->self.host || to.incarnation != pub->self.incarnation) {
        letter->peer = to;
        append(ctx, letter);
        return;
    }
    /* To an actor of this host, by address: ready to be delivered as it is. */
    letter->peer = pub->self;
    letter->slot = to.slot;
    struct orri_letter *run = ctx->run;
    if (run && run->slot == to.slot && run->desc->lane == desc->lane) {
        run->last->next = letter;
        run->last = ctx->out_last = letter;
        run->corr++;
        return;
    }
    append(ctx, letter);
    letter->kind = LETTER_RUN;
    letter->last = letter;
    letter->corr = 1;
    ctx->run = letter;
}

static void ctx_ask(struct orr_ctx *pub,
                    struct orr_addr to,
                    uint64_t timeout_ms,
                    uint64_t tag,
                    const struct orr_msg_desc *desc,
                    const void *msg)
{
    struct orri_letter *letter = record_msg(full(pub), desc, msg);
    if (!letter)
        return;
    letter->peer = to;
    letter->flags |= LETTER_ASK;
    letter->tag = tag;
    letter->corr = timeout_ms;
}

static void ctx_reply(struct orr_ctx *pub,
                      const struct orr_request *request,
                      const struct orr_msg_desc *desc,
                      const void *msg)
{
    if (request->corr == 0)
        return;
    if (request->corr == pub->request.corr &&
        orr_addr_eq(request->from, pub->request.from))
        pub->is_answered = true;
    struct orri_letter *letter = record_msg(full(pub), desc, msg);
    if (!letter)
        return;
    letter->peer = request->from;
    letter->flags |= LETTER_ANSWER;
    letter->corr = request->corr;
    letter->tag = request->msg_id;
}

static void ctx_relay(struct orr_ctx *pub, struct orr_addr to)
{
    struct orri_ctx *ctx = full(pub);
    ORR_ASSERT(ctx->current); /* relaying from init: there is no message */
    struct orri_letter *letter = record(ctx, LETTER_RELAY, 0);
    if (letter)
        letter->peer = to;
    pub->is_answered = true;
}

static void ctx_send_now(struct orr_ctx *pub,
                         struct orr_addr to,
                         const struct orr_msg_desc *desc,
                         const void *msg)
{
    struct orri_letter *letter = record_msg(full(pub), desc, msg);
    if (!letter)
        return;
    letter->kind = LETTER_NOW;
    letter->peer = to;
}

/* The mark is made here, where it may fail, and put before all that the handler sends when it has returned. */
static void ctx_hold(struct orr_ctx *pub, uint64_t ticket)
{
    struct orri_ctx *ctx = full(pub);
    if (!ctx->hold)
        ctx->hold = orri_letter_space(ctx->worker, 0, 0, false);
    if (!ctx->hold) {
        ctx->trouble = ORR_ENOMEM;
        return;
    }
    ctx->hold->kind = LETTER_HOLD;
    if (ticket > ctx->hold->corr)
        ctx->hold->corr = ticket;
}

static void ctx_release(struct orr_ctx *pub, uint64_t ticket)
{
    struct orri_ctx *ctx = full(pub);
    if (!ctx->is_releasing || ticket > ctx->release)
        ctx->release = ticket;
    ctx->is_releasing = true;
    if (ctx->hold && ctx->hold->corr <= ticket) { /* its own: confirmed at once */
        orri_letter_free(ctx->worker, ctx->hold);
        ctx->hold = NULL;
    }
}

static void
ctx_timer_set(struct orr_ctx *pub, uint32_t id, uint64_t delay_ms, uint64_t arg)
{
    struct orri_effect_timer set = {id, delay_ms, arg};
    struct orri_letter *letter = record(full(pub), LETTER_TIMER_SET, sizeof(set));
    if (letter)
        memcpy(letter->body, &set, sizeof(set));
}

static void ctx_timer_cancel(struct orr_ctx *pub, uint32_t id)
{
    struct orri_letter *letter = record(full(pub), LETTER_TIMER_CANCEL, 0);
    if (letter)
        letter->tag = id;
}

static enum orr_err
ctx_spawn(struct orr_ctx *pub, const struct orr_spawn *spawn, struct orr_addr *ret_addr)
{
    struct orri_ctx *ctx = full(pub);
    struct orri_actor *child;
    enum orr_err err = orri_spawn(ctx->worker, ctx->actor, spawn, &child);
    if (err != ORR_OK)
        return err;
    struct orr_addr addr = orri_actor_addr(ctx->worker->sys, child);
    struct orri_letter *letter = record(ctx, LETTER_SPAWN, 0);
    if (!letter) {
        orri_release(ctx->worker, child);
        return ORR_ENOMEM;
    }
    letter->slot = addr.slot;
    *ret_addr = addr;
    return ORR_OK;
}

static void ctx_stop(struct orr_ctx *pub, struct orr_addr who)
{
    struct orri_letter *letter = record(full(pub), LETTER_STOP, 0);
    if (letter)
        letter->peer = who;
}

static void ctx_monitor(struct orr_ctx *pub, struct orr_addr who, bool on)
{
    struct orri_ctx *ctx = full(pub);
    struct orri_watch *watch = NULL;
    struct orri_letter *letter =
        record(ctx, on ? LETTER_WATCH : LETTER_UNWATCH, sizeof(struct orri_watch *));
    if (!letter)
        return;
    letter->peer = who;
    if (on && !(watch = orri_watch_new(ctx->worker, pub->self, who)))
        ctx->trouble = ORR_ENOMEM;
    memcpy(letter->body, &watch, sizeof(struct orri_watch *));
}

static uint64_t ctx_now_us(struct orr_ctx *pub)
{
    struct timespec t;
    if (full(pub)->worker->sys->config.clock) /* somebody else's time */
        return pub->now_ms * 1000;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint64_t ctx_random(struct orr_ctx *pub)
{
    return orri_random(full(pub)->worker);
}

static void ctx_log(struct orr_ctx *pub, enum orr_log_level level, const char *text)
{
    struct orri_ctx *ctx = full(pub);
    orri_logf(ctx->worker, level, ctx->actor, "%s", text);
}

const struct orr_ctx_ops orri_ctx_ops = {
    .send = ctx_send,
    .ask = ctx_ask,
    .reply = ctx_reply,
    .relay = ctx_relay,
    .send_now = ctx_send_now,
    .hold = ctx_hold,
    .release = ctx_release,
    .timer_set = ctx_timer_set,
    .timer_cancel = ctx_timer_cancel,
    .spawn = ctx_spawn,
    .stop = ctx_stop,
    .monitor = ctx_monitor,
    .now_us = ctx_now_us,
    .random = ctx_random,
    .log = ctx_log,
};
