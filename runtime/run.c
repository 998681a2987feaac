/* SPDX-License-Identifier: Apache-2.0
 * run.c - one turn of an actor: its orders, then its messages, each through the gates of the handler table.
 */
#include "core.h"

#include <sched.h>
#include <stdarg.h>

void orri_ctx_begin(struct orri_worker *w,
                    struct orri_actor *actor,
                    struct orri_letter *letter)
{
    struct orri_ctx *ctx = &w->ctx;
    struct orr_ctx *pub = &ctx->pub;
    pub->now_ms = w->now_ms;
    pub->wall_ms = w->wall_ms;
    pub->tag = 0;
    pub->request.corr = 0;
    pub->is_answered = false;
    pub->error.code = ORR_OK;
    pub->error.text[0] = '\0';
    ctx->current = letter;
    ctx->run = NULL;
    ctx->deadline_ms = 0;
    ctx->trouble = ORR_OK;
    ctx->is_relayed = false;
    ctx->is_ending = false;
    if (!letter) {
        pub->self = orri_actor_addr(w->sys, actor);
        pub->from = (struct orr_addr){0};
        pub->from_role = ORR_ROLE_LOCAL;
        return;
    }
    pub->self.slot = letter->slot;
    pub->from = letter->peer;
    pub->from_role = letter->role;
    if (letter->flags & ~LETTER_TRACED) { /* an answer, or made by the kernel */
        if (letter->flags & LETTER_ANSWER)
            pub->tag = letter->tag;
        return;
    }
    ctx->deadline_ms = letter->deadline_ms;
    pub->request = (struct orr_request){.from = letter->peer,
                                        .corr = letter->corr,
                                        .deadline_ms = letter->deadline_ms,
                                        .msg_id = letter->desc->id};
}

/* The row that will handle the letter; NULL when a gate closed: then the letter is gone. */
static inline const struct orr_handler *
pass_gates(struct orri_worker *w, struct orri_actor *actor, struct orri_letter *letter)
{
    const struct orri_dispatch *dispatch =
        atomic_load_explicit(&actor->dispatch, memory_order_relaxed);
    const struct orr_actor_type *type = dispatch->type;
    const struct orr_handler *row = orri_dispatch_find(dispatch, letter->desc->id);
    bool is_open = row && ((row->roles & letter->role) ||
                           (letter->flags & (LETTER_ANSWER | LETTER_KERNEL)));
    if (is_open && row->accept_in != ORR_ANY_STATE) {
        unsigned state = type->state_of ? type->state_of(actor->state) : 0;
        is_open = row->accept_in & ORR_IN(state);
    }
    if (is_open)
        return row;
    orri_gate_refuse(w, actor, letter, row);
    return NULL;
}

/* The handler returned: its effects, its answer, its end. */
static void finish(struct orri_worker *w,
                   struct orri_actor *actor,
                   struct orri_letter *letter,
                   enum orr_err err)
{
    struct orri_ctx *ctx = &w->ctx;
    struct orr_ctx *pub = &ctx->pub;
    if (ctx->trouble != ORR_OK)
        err = ORR_ECRASH;
    if (err == ORR_OK) {
        orri_effects_commit(w);
        if (pub->request.corr && !pub->is_answered) {
            struct orri_letter *answer =
                orri_letter_space(w, sizeof(struct orr_msg_ack), 0, true);
            if (answer) { /* else the asker's deadline tells it */
                memset(answer->body, 0, answer->bytes);
                answer->desc = orr_msg_desc_ack();
                orri_effects_answer(w, letter, answer);
            }
        }
    } else {
        orri_effects_discard(w);
        struct orri_letter *answer =
            pub->request.corr
                ? orri_failed_make(w, letter->desc->id, err, pub->error.text)
                : NULL;
        if (answer)
            orri_effects_answer(w, letter, answer);
    }
    if (!ctx->is_relayed)
        orri_letter_free(w, letter);
    if (ctx->trouble != ORR_OK || err == ORR_ECRASH) {
        orri_logf(w,
                  ORR_LOG_WARN,
                  actor,
                  "failed: %s",
                  pub->error.text[0]       ? pub->error.text
                  : ctx->trouble != ORR_OK ? orr_err_text(ctx->trouble)
                                           : orr_err_text(err));
        orri_end(w, actor, ORR_ECRASH);
    } else if (ctx->is_ending) {
        orri_end(w, actor, ORR_OK);
    }
}

static void
handle(struct orri_worker *w, struct orri_actor *actor, struct orri_letter *letter)
{
    uint32_t life = atomic_load_explicit(&actor->life, memory_order_relaxed);
    if ((uint32_t)(letter->slot >> 32) != life) {
        orri_reject(w, orri_letter_to(w->sys, letter), letter, ORR_EGONE, NULL);
        return;
    }
    if (letter->deadline_ms && letter->deadline_ms < w->now_ms &&
        !(letter->flags & ~LETTER_TRACED)) {
        letter->corr = 0; /* the asker knows already */
        orri_reject(w, orri_letter_to(w->sys, letter), letter, ORR_ETIMEOUT, NULL);
        return;
    }
    const struct orr_handler *row = pass_gates(w, actor, letter);
    if (!row)
        return;
    if (letter->flags & LETTER_TIMER) {
        const struct orr_msg_timer *timer = (const void *)letter->body;
        if (!orri_timer_claim(w->sys, actor, letter->corr, timer->id)) {
            orri_letter_free(w, letter);
            return;
        }
    }
    orri_ctx_begin(w, actor, letter);
    const struct orr_system_config *config = &w->sys->config;
    if (config->trace)
        config->trace(config->trace_arg,
                      w->now_ms,
                      w->ctx.pub.self,
                      letter->peer,
                      letter->desc,
                      letter->body);
    enum orr_err err = row->fn(&w->ctx.pub, actor->state, letter->body);
    uint64_t n = atomic_load_explicit(&w->delivered, memory_order_relaxed) + 1;
    atomic_store_explicit(&w->delivered, n, memory_order_relaxed);
    finish(w, actor, letter, err);
}

/* Orders or new mail.  May be asked without holding the duty. */
static bool has_news(struct orri_actor *actor)
{
    if (atomic_load(&actor->orders))
        return true;
    for (unsigned i = 0; i < ORR_LANE_MAX_; i++)
        if (atomic_load(&actor->lanes[i].inbox))
            return true;
    return false;
}

void orri_run(struct orri_worker *w, struct orri_actor *actor, unsigned batch)
{
    uint8_t duty = DUTY_QUEUED;
    while (!atomic_compare_exchange_weak(&actor->duty, &duty, DUTY_RUNNING)) {
        duty = DUTY_QUEUED;
        sched_yield(); /* a sender sorts a full lane: soon done */
    }
    w->ctx.actor = actor;
    w->is_yielding = false;
    unsigned n = 0;
    bool is_empty = false;
    for (; n < batch && !w->is_yielding; n++) {
        if (atomic_load_explicit(&actor->orders, memory_order_relaxed)) {
            orri_orders_run(w, actor);
            continue;
        }
        if (atomic_load_explicit(&actor->phase, memory_order_relaxed) != PHASE_LIVE) {
            orri_mailbox_sweep(w, actor);
            is_empty = true; /* what is left waits for the actor to start */
            break;
        }
        struct orri_letter *letter = orri_mailbox_take(w, actor);
        if (!letter) {
            is_empty = true;
            break;
        }
        handle(w, actor, letter);
    }
    w->ctx.actor = NULL;
    w->was_busy = n > 8;
    if (!is_empty && (has_news(actor) || orri_mailbox_has_mail(actor))) {
        atomic_store_explicit(&actor->duty, DUTY_QUEUED, memory_order_release);
        orri_enqueue(w, actor);
        return;
    }
    /* pairs with orri_schedule: a sender either sees IDLE or its letter is seen here */
    atomic_exchange(&actor->duty, DUTY_IDLE);
    if (has_news(actor))
        orri_schedule(w, actor);
}

void orri_logf(struct orri_worker *w,
               enum orr_log_level level,
               const struct orri_actor *who,
               const char *fmt,
               ...)
{
    const struct orr_system_config *config = &w->sys->config;
    if (!config->log || level < config->log_level)
        return;
    char text[1024];
    char name[64];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    const char *path = orri_actor_path(who);
    if (!*path) {
        const struct orri_dispatch *dispatch = atomic_load(&who->dispatch);
        snprintf(name, sizeof(name), "%s#%u", dispatch->type->name, who->index);
        path = name;
    }
    config->log(config->log_arg, level, w->wall_ms, path, text);
}
