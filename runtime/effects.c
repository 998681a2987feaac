/* SPDX-License-Identifier: Apache-2.0
 * effects.c - carry out or discard what a handler left in its outbox, in the order in which it did so.
 */
#include "core.h"

static void
commit_ask(struct orri_worker *w, struct orri_letter *letter, struct orr_addr to)
{
    struct orri_ctx *ctx = &w->ctx;
    struct orri_asker asker = {.slot = ctx->pub.self.slot, .tag = letter->tag};
    uint64_t left = UINT64_MAX - w->now_ms;
    uint64_t due_ms = w->now_ms + (letter->corr < left ? letter->corr : left);
    if (letter->deadline_ms == 0 || due_ms < letter->deadline_ms)
        letter->deadline_ms = due_ms;
    letter->corr = orri_ask_open(
        w, ctx->actor, &asker, to.host, letter->desc->id, letter->deadline_ms);
    if (letter->corr) {
        (void)orri_send(w, to, letter);
        return;
    }
    char text[96];
    int n = snprintf(text,
                     sizeof(text),
                     "%s: too many open requests (asks_max is %u)",
                     letter->desc->body.name,
                     w->sys->config.asks_max);
    struct orr_msg_failed failed = {
        .code = ORR_ENOSPC, .msg = letter->desc->id, .text = {text, (uint32_t)n}};
    struct orri_letter *answer =
        orri_letter_make(w, orr_msg_desc_failed(), &failed, NULL, true);
    if (answer) {
        answer->peer = to;
        answer->slot = asker.slot;
        answer->tag = asker.tag;
        answer->flags = LETTER_ANSWER;
        answer->role = ORR_ROLE_LOCAL;
        (void)orri_deliver(w, answer);
    } else {
        ctx->trouble = ORR_ENOMEM;
    }
    orri_letter_free(w, letter);
}

/* The letter being handled goes on to somebody else, who answers the asker. */
static void commit_relay(struct orri_worker *w, struct orr_addr to)
{
    struct orr_system *sys = w->sys;
    struct orri_letter *letter = w->ctx.current;
    if (w->ctx.is_relayed)
        return; /* relayed twice: the first counts */
    w->ctx.is_relayed = true;
    if (to.host == sys->host) {
        (void)orri_send(w, to, letter);
        return;
    }
    if (letter->peer.host == sys->host) {
        if (letter->corr)
            orri_ask_move(sys, letter->corr, to.host);
    } else if (letter->corr) {
        /* The next host may have no link to the asker: the answer comes back through us. */
        enum { RELAY_MAX_MS = 60000 };
        struct orri_asker asker = {.origin = letter->peer, .origin_corr = letter->corr};
        uint64_t due_ms =
            letter->deadline_ms ? letter->deadline_ms : w->now_ms + RELAY_MAX_MS;
        uint64_t corr =
            orri_ask_open(w, NULL, &asker, to.host, letter->desc->id, due_ms);
        if (corr == 0) {
            orri_reject(w, to, letter, ORR_ENOSPC, "too many open requests to relay");
            return;
        }
        letter->corr = corr;
        letter->peer = w->ctx.pub.self;
    } else {
        letter->peer = w->ctx.pub.self;
    }
    (void)orri_remote_send(w, to, letter);
}

static void commit_message(struct orri_worker *w, struct orri_letter *letter)
{
    struct orr_addr to = letter->peer;
    letter->peer = w->ctx.pub.self;
    letter->kind = LETTER_MESSAGE;
    if (letter->flags & LETTER_ASK) {
        letter->flags &= (uint8_t)~LETTER_ASK;
        commit_ask(w, letter, to);
    } else if (letter->flags & LETTER_ANSWER) {
        orri_answer(w, to, letter->corr, letter);
    } else {
        (void)orri_send(w, to, letter);
    }
}

static void commit_other(struct orri_worker *w, struct orri_letter *letter)
{
    struct orri_ctx *ctx = &w->ctx;
    struct orri_effect_timer set;
    switch ((enum orri_letter_kind)letter->kind) {
    case LETTER_TIMER_SET:
        memcpy(&set, letter->body, sizeof(set));
        if (orri_timer_set(w, ctx->actor, &set) != ORR_OK)
            ctx->trouble = ORR_ENOMEM;
        break;
    case LETTER_TIMER_CANCEL:
        orri_timer_cancel(w->sys, ctx->actor, (uint32_t)letter->tag);
        break;
    case LETTER_SPAWN:
        orri_order(w, orri_actor_at(w->sys, (uint32_t)letter->slot), ORDER_START);
        break;
    case LETTER_STOP:
        if (orr_addr_eq(letter->peer, ctx->pub.self))
            ctx->is_ending = true;
        else
            orri_stop_child(w, ctx->actor, letter->peer);
        break;
    case LETTER_WATCH:
    case LETTER_UNWATCH:
        orri_watch_commit(w, letter);
        break;
    case LETTER_RELAY:
        commit_relay(w, letter->peer);
        break;
    case LETTER_MESSAGE:
    case LETTER_RUN:
    case LETTER_NOW:
    case LETTER_HOLD:
        break;
    }
    orri_letter_free(w, letter);
}

/* Messages to one actor of this host are pushed at once when there is room for all of them. */
static void commit_run(struct orri_worker *w, struct orri_letter *first)
{
    uint32_t n = (uint32_t)first->corr;
    struct orri_letter *last = first->last;
    struct orri_actor *actor = orri_actor_at(w->sys, (uint32_t)first->slot);
    first->kind = LETTER_MESSAGE;
    first->corr = 0;
    last->next = NULL;
    if (actor &&
        atomic_load_explicit(&actor->life, memory_order_relaxed) == first->slot >> 32 &&
        orri_mailbox_push_run(w, actor, first, n)) {
        orri_schedule(w, actor);
        return;
    }
    while (first) {
        struct orri_letter *letter = first;
        first = letter->next;
        (void)orri_deliver(w, letter);
    }
}

struct orri_letter *orri_effect_last(struct orri_letter *effect)
{
    return effect->kind == LETTER_RUN ? effect->last : effect;
}

void orri_effect_commit(struct orri_worker *w, struct orri_letter *effect)
{
    if (effect->kind == LETTER_RUN)
        commit_run(w, effect);
    else if (effect->kind == LETTER_MESSAGE || effect->kind == LETTER_NOW)
        commit_message(w, effect);
    else
        commit_other(w, effect);
}

/* What others can see of the actor.  The rest is its own affair, or its children's. */
static bool is_output(const struct orri_letter *effect)
{
    return effect->kind == LETTER_MESSAGE || effect->kind == LETTER_RUN ||
           effect->kind == LETTER_WATCH || effect->kind == LETTER_UNWATCH;
}

static struct orri_letter *take_effect(struct orri_ctx *ctx)
{
    struct orri_letter *effect = ctx->out;
    ctx->out = orri_effect_last(effect)->next;
    return effect;
}

void orri_effects_commit(struct orri_worker *w)
{
    struct orri_ctx *ctx = &w->ctx;
    if (ctx->is_releasing)
        orri_hold_release(w);
    if (ctx->hold)
        orri_hold_mark(w);
    if (!ctx->actor->is_holding) { /* nearly always */
        while (ctx->out)
            orri_effect_commit(w, take_effect(ctx));
        return;
    }
    while (ctx->out) {
        struct orri_letter *effect = take_effect(ctx);
        if (is_output(effect))
            orri_hold_add(ctx->actor, effect);
        else
            orri_effect_commit(w, effect);
    }
}

void orri_effects_answer(struct orri_worker *w,
                         const struct orri_letter *request,
                         struct orri_letter *answer)
{
    answer->role = ORR_ROLE_LOCAL;
    if (!w->ctx.actor->is_holding) {
        answer->peer = orri_letter_to(w->sys, request);
        orri_answer(w, request->peer, request->corr, answer);
        return;
    }
    answer->peer = request->peer;
    answer->corr = request->corr;
    answer->tag = request->desc->id;
    answer->flags |= LETTER_ANSWER;
    orri_hold_add(w->ctx.actor, answer);
}

void orri_effects_discard(struct orri_worker *w)
{
    struct orri_letter *letter;
    if (w->ctx.hold)
        orri_letter_free(w, w->ctx.hold);
    w->ctx.hold = NULL;
    w->ctx.is_releasing = false;
    while ((letter = w->ctx.out)) {
        w->ctx.out = letter->next;
        if (letter->kind == LETTER_SPAWN)
            orri_release(w, orri_actor_at(w->sys, (uint32_t)letter->slot));
        else if (letter->kind == LETTER_WATCH)
            orri_watch_discard(w, letter);
        orri_letter_free(w, letter);
    }
}
