/* SPDX-License-Identifier: Apache-2.0
 * calls.h - the calls between the files of the kernel; included by core.h.
 */
#ifndef ORRI_CALLS_H
#define ORRI_CALLS_H

/* mailbox.c: the owner's side and the senders' side of an actor's lanes. */
/* Push n letters of one lane, linked by next, first->last the last; false: there is no room for all of them. */
bool orri_mailbox_push_run(struct orri_worker *w,
                           struct orri_actor *to,
                           struct orri_letter *first,
                           uint32_t n);
enum orr_err orri_mailbox_push(struct orri_worker *w,
                               struct orri_actor *to,
                               struct orri_letter *letter);
struct orri_letter *orri_mailbox_take(struct orri_worker *w, struct orri_actor *actor);
bool orri_mailbox_has_mail(struct orri_actor *actor);
uint64_t orri_mailbox_length(struct orri_actor *actor); /* any thread; approximate */
/* Reject what was sent to an earlier life and is first in its lane. */
void orri_mailbox_sweep(struct orri_worker *w, struct orri_actor *actor);

/* dispatch.c */
struct orri_dispatch *orri_dispatch_new(const struct orr_actor_type *type);
static inline const struct orr_handler *
orri_dispatch_find(const struct orri_dispatch *d, uint16_t id)
{
    unsigned row = d->rows[(uint32_t)(id * d->multiplier) >> d->shift];
    if (row == 0 || d->type->handlers[row - 1].msg_id != id)
        return NULL;
    return &d->type->handlers[row - 1];
}

/* table.c: slots and names. */
struct orri_actor *orri_actor_at(struct orr_system *sys, uint32_t index);
struct orri_actor *orri_slot_take(struct orr_system *sys);             /* tree held */
void orri_slot_give(struct orr_system *sys, struct orri_actor *actor); /* tree held */
uint64_t orri_name_find(struct orr_system *sys, uint64_t hash); /* a slot, 0 = none */
enum orr_err
orri_name_add(struct orr_system *sys, uint64_t hash, struct orri_actor *actor);
void orri_name_remove(struct orr_system *sys, uint64_t hash);
struct orr_addr orri_actor_addr(const struct orr_system *sys, struct orri_actor *actor);
const char *orri_actor_path(const struct orri_actor *actor); /* "" for none */

/* route.c: all of these take the letter. */
enum orr_err
orri_send(struct orri_worker *w, struct orr_addr to, struct orri_letter *letter);
enum orr_err orri_deliver(struct orri_worker *w, struct orri_letter *letter);
void orri_reject(struct orri_worker *w,
                 struct orr_addr to,
                 struct orri_letter *letter,
                 enum orr_err why,
                 const char *text);
void orri_answer(struct orri_worker *w,
                 struct orr_addr asker,
                 uint64_t corr,
                 struct orri_letter *letter);
/* NULL out of memory: then the asker's deadline tells it.  text: NULL or empty for that of `why`. */
struct orri_letter *orri_failed_make(struct orri_worker *w,
                                     uint16_t msg_id,
                                     enum orr_err why,
                                     const char *text);
void orri_answer_failed(struct orri_worker *w,
                        struct orr_addr from,
                        struct orr_addr asker,
                        uint64_t corr,
                        uint16_t msg_id,
                        enum orr_err why,
                        const char *text);
struct orr_addr orri_letter_to(const struct orr_system *sys,
                               const struct orri_letter *letter);

/* remote.c */
enum orr_err
orri_remote_send(struct orri_worker *w, struct orr_addr to, struct orri_letter *letter);

/* ask.c */
struct orri_asker { /* whose answer it is */
    uint64_t slot;
    uint64_t tag;
    struct orr_addr origin; /* of a request that was relayed for another host */
    uint64_t origin_corr;
};
/* Returns the corr of a new open ask, 0 when there are too many.  actor NULL: relayed for origin. */
uint64_t orri_ask_open(struct orri_worker *w,
                       struct orri_actor *actor,
                       const struct orri_asker *asker,
                       uint64_t host,
                       uint16_t msg_id,
                       uint64_t due_ms);
/* Close it: true for exactly one caller.  host: who answers; must be the one that was asked. */
bool orri_ask_take(struct orr_system *sys,
                   uint64_t corr,
                   uint64_t host,
                   struct orri_asker *ret_asker);
void orri_ask_move(struct orr_system *sys, uint64_t corr, uint64_t host);
void orri_asks_drop(struct orr_system *sys, struct orri_actor *actor);
void orri_asks_unreach(struct orri_worker *w, uint64_t host);

/* timer.c */
enum orr_err orri_timer_set(struct orri_worker *w,
                            struct orri_actor *actor,
                            const struct orri_effect_timer *set);
void orri_timer_cancel(struct orr_system *sys, struct orri_actor *actor, uint32_t id);
/* The message of a setting is about to be handled: true when that setting still stands. */
bool orri_timer_claim(struct orr_system *sys,
                      struct orri_actor *actor,
                      uint64_t serial,
                      uint32_t id);
void orri_timers_drop(struct orr_system *sys, struct orri_actor *actor);
/* Deliver all that is due at w->now_ms. */
void orri_time_run(struct orri_worker *w);
enum orri_due_kind { DUE_TIMER, DUE_ASK, DUE_RESTART };
/* time.lock held: what became of a due entry, a letter to deliver or NULL. */
struct orri_letter *orri_timer_fire(struct orri_worker *w, struct orri_due *due);
struct orri_letter *orri_ask_expire(struct orri_worker *w, struct orri_due *due);
void orri_time_insert(struct orr_system *sys,
                      struct orri_due *due,
                      uint64_t due_ms); /* time.lock held */

/* ctx.c, effects.c */
extern const struct orr_ctx_ops orri_ctx_ops;
void orri_effects_commit(struct orri_worker *w);
void orri_effects_discard(struct orri_worker *w);
/* The kernel's own answer to a request of the actor: goes, or waits, after what was committed. */
void orri_effects_answer(struct orri_worker *w,
                         const struct orri_letter *request,
                         struct orri_letter *answer);
void orri_effect_commit(struct orri_worker *w, struct orri_letter *effect);
/* A run of messages is one effect of many letters. */
struct orri_letter *orri_effect_last(struct orri_letter *effect);

/* hold.c */
void orri_hold_mark(struct orri_worker *w); /* what follows waits for ctx->hold */
void orri_hold_add(struct orri_actor *actor, struct orri_letter *effect);
void orri_hold_release(struct orri_worker *w); /* up to ctx->release */
/* By the actor's owner, at its end: whom an answer was held back from gets ORR_EGONE. */
void orri_hold_drop(struct orri_worker *w, struct orri_actor *actor);
/* The system is freed: nobody is told. */
void orri_hold_free(struct orri_worker *w, struct orri_actor *actor);

/* gate.c: takes the letter.  row: NULL when the table has none. */
void orri_gate_refuse(struct orri_worker *w,
                      struct orri_actor *actor,
                      struct orri_letter *letter,
                      const struct orr_handler *row);

/* run.c, sched.c */
void orri_ctx_begin(struct orri_worker *w,
                    struct orri_actor *actor,
                    struct orri_letter *letter); /* NULL: init */
void orri_run(struct orri_worker *w, struct orri_actor *actor, unsigned batch);
void orri_schedule(struct orri_worker *w, struct orri_actor *actor);
void orri_enqueue(struct orri_worker *w, struct orri_actor *actor);
struct orri_actor *orri_next_actor(struct orri_worker *w);
void orri_clock_read(struct orri_worker *w);
void *orri_worker_main(void *arg);
void orri_wake_keeper(struct orr_system *sys);
void orri_wake_all(struct orr_system *sys);
uint64_t orri_random(struct orri_worker *w);
void orri_logf(struct orri_worker *w,
               enum orr_log_level level,
               const struct orri_actor *who,
               const char *fmt,
               ...) ORR_PRINTF(4, 5);

/* system.c, system_actor.c */
struct orri_worker *orri_outside_enter(struct orr_system *sys);
void orri_outside_leave(struct orr_system *sys);
extern const struct orr_actor_type orri_system_type;

#endif
