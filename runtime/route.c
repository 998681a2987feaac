/* SPDX-License-Identifier: Apache-2.0
 * route.c - from an address to a mailbox or another host, and what happens to letters that cannot be delivered.
 *
 * Every letter ends in exactly one of: handled, sent to another host, rejected.  A rejected request is answered with
 * `failed`; what asked for no answer is counted and, when its receiver is gone, kept among the newest dead letters.
 */
#include "core.h"

struct orr_addr orri_letter_to(const struct orr_system *sys,
                               const struct orri_letter *letter)
{
    return (struct orr_addr){sys->host, letter->slot, sys->config.incarnation};
}

static void bury(struct orri_worker *w,
                 struct orr_addr to,
                 const struct orri_letter *letter,
                 enum orr_err why)
{
    struct orr_system *sys = w->sys;
    uint64_t n = atomic_fetch_add_explicit(&sys->n_dead, 1, memory_order_relaxed);
    if (pthread_mutex_trylock(&sys->dead_lock) != 0)
        return; /* a sample is enough */
    sys->dead[n % ORRI_DEAD_KEPT] =
        (struct orr_rec_dead_letter){to, letter->peer, letter->desc->id, (uint32_t)why};
    pthread_mutex_unlock(&sys->dead_lock);
}

void orri_reject(struct orri_worker *w,
                 struct orr_addr to,
                 struct orri_letter *letter,
                 enum orr_err why,
                 const char *text)
{
    if (why == ORR_EGONE || why == ORR_EUNREACH || why == ORR_ETIMEOUT) {
        bury(w, to, letter, why);
    } else {
        uint64_t n = atomic_load_explicit(&w->refused, memory_order_relaxed) + 1;
        atomic_store_explicit(&w->refused, n, memory_order_relaxed);
    }
    if (letter->corr && !(letter->flags & (LETTER_ANSWER | LETTER_TIMER)))
        orri_answer_failed(
            w, to, letter->peer, letter->corr, letter->desc->id, why, text);
    orri_letter_free(w, letter);
}

enum orr_err orri_deliver(struct orri_worker *w, struct orri_letter *letter)
{
    struct orri_actor *actor = orri_actor_at(w->sys, (uint32_t)letter->slot);
    uint32_t life = (uint32_t)(letter->slot >> 32);
    enum orr_err err = ORR_EGONE;
    if (actor && atomic_load_explicit(&actor->life, memory_order_relaxed) == life)
        err = orri_mailbox_push(w, actor, letter);
    if (err == ORR_OK)
        orri_schedule(w, actor);
    else
        orri_reject(w, orri_letter_to(w->sys, letter), letter, err, NULL);
    return err;
}

enum orr_err
orri_send(struct orri_worker *w, struct orr_addr to, struct orri_letter *letter)
{
    struct orr_system *sys = w->sys;
    if (to.host != sys->host)
        return orri_remote_send(w, to, letter);
    if (to.incarnation == sys->config.incarnation) {
        letter->slot = to.slot;
        return orri_deliver(w, letter);
    }
    letter->slot = to.incarnation == 0 ? orri_name_find(sys, to.slot) : 0;
    if (letter->slot)
        return orri_deliver(w, letter);
    const char *text =
        to.incarnation == 0
            ? "no actor of that name on this host"
            : "an address of an earlier start of this host; look it up again";
    orri_reject(w, to, letter, ORR_EGONE, text);
    return ORR_EGONE;
}

void orri_answer(struct orri_worker *w,
                 struct orr_addr asker,
                 uint64_t corr,
                 struct orri_letter *letter)
{
    letter->corr = corr;
    letter->flags |= LETTER_ANSWER;
    if (asker.host != w->sys->host) {
        (void)orri_remote_send(w, asker, letter);
        return;
    }
    struct orri_asker whose;
    if (!orri_ask_take(w->sys, corr, w->sys->host, &whose)) {
        orri_letter_free(w, letter); /* answered already, or too late */
        return;
    }
    if (whose.origin.host) { /* we relayed it for another host */
        letter->corr = whose.origin_corr;
        (void)orri_remote_send(w, whose.origin, letter);
        return;
    }
    letter->slot = whose.slot;
    letter->tag = whose.tag;
    (void)orri_deliver(w, letter);
}

struct orri_letter *orri_failed_make(struct orri_worker *w,
                                     uint16_t msg_id,
                                     enum orr_err why,
                                     const char *text)
{
    char full[256];
    if (!text || !*text) {
        const struct orr_msg_desc *desc = orr_msg_find(msg_id);
        snprintf(full,
                 sizeof(full),
                 "%s: %s",
                 desc ? desc->body.name : "message",
                 orr_err_text(why));
        text = full;
    }
    struct orr_msg_failed failed = {
        .code = (uint32_t)why, .msg = msg_id, .text = orr_str(text)};
    return orri_letter_make(w, orr_msg_desc_failed(), &failed, NULL, true);
}

void orri_answer_failed(struct orri_worker *w,
                        struct orr_addr from,
                        struct orr_addr asker,
                        uint64_t corr,
                        uint16_t msg_id,
                        enum orr_err why,
                        const char *text)
{
    struct orri_letter *letter = orri_failed_make(w, msg_id, why, text);
    if (!letter)
        return;
    letter->peer = from;
    letter->role = ORR_ROLE_LOCAL;
    orri_answer(w, asker, corr, letter);
}
