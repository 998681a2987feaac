/* SPDX-License-Identifier: Apache-2.0
 * hold.c - output commit: what an actor sends waits in the actor until it says that what it did is durable.
 *
 * What is held is a ring of effects as handlers recorded them, the actor points at the newest; a mark (LETTER_HOLD) stands
 * before those that wait for its ticket.  All that the actor outputs while the ring is not empty goes to its end, so what was
 * sent later never overtakes.  To let go is to commit effects from the ring's beginning up to the first mark with a higher
 * ticket.  An actor that holds nothing has a NULL pointer, and pays for one flag.
 */
#include "core.h"

/* What a message tells has become durable by the time it leaves, whether or not somebody still waits for the request that led
 * to it: it has no deadline.  An ask or an answer keeps its own. */
static void forget_deadline(struct orri_letter *effect, const struct orri_letter *last)
{
    if (effect->kind != LETTER_RUN && (effect->kind != LETTER_MESSAGE ||
                                       (effect->flags & (LETTER_ASK | LETTER_ANSWER))))
        return;
    for (effect->deadline_ms = 0; effect != last;) {
        effect = effect->next;
        effect->deadline_ms = 0;
    }
}

void orri_hold_add(struct orri_actor *actor, struct orri_letter *effect)
{
    struct orri_letter *last = orri_effect_last(effect);
    forget_deadline(effect, last);
    if (actor->held) {
        last->next = actor->held->next;
        actor->held->next = effect;
    } else {
        last->next = effect;
    }
    actor->held = last;
    actor->is_holding = true;
}

void orri_hold_mark(struct orri_worker *w)
{
    struct orri_letter *mark = w->ctx.hold;
    w->ctx.hold = NULL;
    orri_hold_add(w->ctx.actor, mark);
}

static struct orri_letter *oldest(struct orri_actor *actor)
{
    return actor->held ? actor->held->next : NULL;
}

static struct orri_letter *take_oldest(struct orri_actor *actor)
{
    struct orri_letter *effect = actor->held->next;
    struct orri_letter *last = orri_effect_last(effect);
    if (last == actor->held) {
        actor->held = NULL;
        actor->is_holding = false;
    } else {
        actor->held->next = last->next;
    }
    return effect;
}

void orri_hold_release(struct orri_worker *w)
{
    struct orri_ctx *ctx = &w->ctx;
    struct orri_letter *effect;
    ctx->is_releasing = false;
    while ((effect = oldest(ctx->actor))) {
        if (effect->kind == LETTER_HOLD && effect->corr > ctx->release)
            return;
        orri_effect_commit(w, take_oldest(ctx->actor));
    }
}

static void fail_asker(struct orri_worker *w,
                       struct orr_addr from,
                       const struct orri_letter *answer)
{
    uint16_t id = (uint16_t)answer->tag;
    const struct orr_msg_desc *asked = orr_msg_find(id);
    char text[160];
    snprintf(text,
             sizeof(text),
             "%s: its actor ended before it could confirm; it may have been done: ask "
             "again",
             asked ? asked->body.name : "message");
    orri_answer_failed(w, from, answer->peer, answer->corr, id, ORR_EGONE, text);
}

/* The letters of one effect. */
static void drop(struct orri_worker *w,
                 struct orri_actor *actor,
                 struct orri_letter *effect,
                 bool is_told)
{
    if (is_told && effect->kind == LETTER_MESSAGE && (effect->flags & LETTER_ANSWER))
        fail_asker(w, orri_actor_addr(w->sys, actor), effect);
    else if (effect->kind == LETTER_WATCH)
        orri_watch_discard(w, effect);
    const struct orri_letter *last = orri_effect_last(effect);
    for (bool is_last = false; !is_last;) {
        struct orri_letter *next = effect->next;
        is_last = effect == last;
        orri_letter_free(w, effect);
        effect = next;
    }
}

void orri_hold_drop(struct orri_worker *w, struct orri_actor *actor)
{
    while (actor->held)
        drop(w, actor, take_oldest(actor), true);
}

void orri_hold_free(struct orri_worker *w, struct orri_actor *actor)
{
    while (actor->held)
        drop(w, actor, take_oldest(actor), false);
}
