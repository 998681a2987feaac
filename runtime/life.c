/* SPDX-License-Identifier: Apache-2.0
 * life.c - the beginning and the end of actors.
 *
 * Start, stop and news of children are orders: bits in the actor that its owner takes before the next message, so they need
 * no memory and cannot be lost.  An actor ends after its children.  Its life number changes under the tree lock, at which
 * moment every address of it is stale; what is still queued for it then becomes dead letters.
 */
#include "core.h"

static struct orri_dispatch *dispatch_for(struct orr_system *sys,
                                          const struct orr_actor_type *type)
{
    struct orri_dispatch *d = sys->dispatches;
    while (d && d->type != type)
        d = d->next;
    if (!d && (d = orri_dispatch_new(type))) {
        d->next = sys->dispatches;
        sys->dispatches = d;
    }
    return d;
}

static struct orri_body *body_new(const struct orr_spawn *spawn, void **ret_state)
{
    size_t args = (spawn->type->args_size + 15) & ~(size_t)15;
    size_t path = spawn->path ? strlen(spawn->path) + 1 : 0;
    size_t head = (sizeof(struct orri_body) + args + path + 15) & ~(size_t)15;
    struct orri_body *body = orri_zalloc(head + spawn->type->state_size);
    if (!body)
        return NULL;
    body->bytes = (uint32_t)(head + spawn->type->state_size);
    char *at = (char *)(body + 1);
    if (spawn->type->args_size && spawn->args)
        memcpy(at, spawn->args, spawn->type->args_size);
    body->args = at;
    if (path) {
        body->path = memcpy(at + args, spawn->path, path);
        body->path_len = (uint32_t)path - 1;
    }
    *ret_state = (char *)body + head;
    return body;
}

static void link_child(struct orri_actor *parent, struct orri_actor *child)
{
    child->parent = parent;
    child->next_sibling = NULL;
    child->prev_sibling = parent->last_child;
    if (parent->last_child)
        parent->last_child->next_sibling = child;
    else
        parent->first_child = child;
    parent->last_child = child;
}

static void unlink_child(struct orri_actor *child)
{
    struct orri_actor *parent = child->parent;
    if (child->prev_sibling)
        child->prev_sibling->next_sibling = child->next_sibling;
    else
        parent->first_child = child->next_sibling;
    if (child->next_sibling)
        child->next_sibling->prev_sibling = child->prev_sibling;
    else
        parent->last_child = child->prev_sibling;
    child->parent = NULL;
}

/* tree held */
static enum orr_err spawn_locked(struct orr_system *sys,
                                 struct orri_actor *parent,
                                 const struct orr_spawn *spawn,
                                 struct orri_body *body,
                                 void *state,
                                 struct orri_actor **ret_actor)
{
    if (parent && atomic_load(&parent->phase) >= PHASE_STOPPING)
        return ORR_EGONE;
    struct orri_dispatch *dispatch = dispatch_for(sys, spawn->type);
    if (!dispatch)
        return ORR_ENOMEM;
    struct orri_actor *actor = orri_slot_take(sys);
    if (!actor)
        return sys->n_slots >= sys->config.actors_max ? ORR_ENOSPC : ORR_ENOMEM;
    if (spawn->path) {
        struct orr_str path = {body->path, body->path_len};
        enum orr_err err = orri_name_add(sys, orr_hash(path), actor);
        if (err != ORR_OK) {
            orri_slot_give(sys, actor);
            return err;
        }
    }
    uint32_t limit =
        spawn->type->mailbox_max ? spawn->type->mailbox_max : sys->config.mailbox_max;
    atomic_store(&actor->limit, limit < ORRI_LIMIT_MAX ? limit : ORRI_LIMIT_MAX);
    atomic_store(&actor->dispatch, dispatch);
    actor->restart = (uint8_t)spawn->restart;
    actor->body = body;
    actor->state = state;
    actor->why = ORR_OK;
    actor->is_asked_to_end = actor->is_reported = actor->is_awaiting = false;
    actor->is_doomed = false;
    actor->is_fired = false;
    actor->n_failures = 0;
    if (parent)
        link_child(parent, actor);
    atomic_store(&actor->phase, PHASE_RESERVED);
    *ret_actor = actor;
    return ORR_OK;
}

enum orr_err orri_spawn(struct orri_worker *w,
                        struct orri_actor *parent,
                        const struct orr_spawn *spawn,
                        struct orri_actor **ret_actor)
{
    struct orr_system *sys = w->sys;
    void *state;
    struct orri_body *body = body_new(spawn, &state);
    if (!body)
        return ORR_ENOMEM;
    uint64_t bytes = body->bytes;
    pthread_mutex_lock(&sys->tree);
    enum orr_err err = spawn_locked(sys, parent, spawn, body, state, ret_actor);
    pthread_mutex_unlock(&sys->tree);
    if (err != ORR_OK)
        free(body);
    else
        atomic_fetch_add_explicit(&sys->actor_bytes, bytes, memory_order_relaxed);
    return err;
}

void orri_order(struct orri_worker *w, struct orri_actor *actor, unsigned order)
{
    /* pairs with the exchange in orri_orders_run; before duty is looked at */
    atomic_fetch_or(&actor->orders, (uint8_t)order);
    orri_schedule(w, actor);
}

static void start(struct orri_worker *w, struct orri_actor *actor)
{
    struct orri_ctx *ctx = &w->ctx;
    const struct orri_dispatch *dispatch = atomic_load(&actor->dispatch);
    const struct orr_actor_type *type = dispatch->type;
    const struct orri_body *body = actor->body;
    atomic_store(&actor->phase, PHASE_LIVE);
    if (!type->init || actor->is_doomed)
        return;
    orri_ctx_begin(w, actor, NULL);
    enum orr_err err = type->init(&ctx->pub, actor->state, body->args);
    if (err == ORR_OK && ctx->trouble == ORR_OK) {
        orri_effects_commit(w);
    } else {
        orri_effects_discard(w);
        orri_logf(w,
                  ORR_LOG_WARN,
                  actor,
                  "did not start: %s",
                  ctx->pub.error.text[0] ? ctx->pub.error.text : orr_err_text(err));
        err = err == ORR_OK ? ctx->trouble : err;
    }
    if (err != ORR_OK || ctx->trouble != ORR_OK)
        orri_end(w, actor, ORR_ECRASH);
    else if (ctx->is_ending)
        orri_end(w, actor, ORR_OK);
}

void orri_orders_run(struct orri_worker *w, struct orri_actor *actor)
{
    /* pairs with orri_order: what was written before the order is seen */
    uint8_t orders = atomic_exchange(&actor->orders, 0);
    bool is_reserved = atomic_load(&actor->phase) == PHASE_RESERVED;
    if (is_reserved && (orders & ORDER_STOP))
        actor->is_doomed = true; /* stopped before it started */
    if (is_reserved && (orders & ORDER_START))
        start(w, actor);
    if (orders & ORDER_FAMILY)
        orri_family_run(w, actor);
    if ((orders & ORDER_STOP) || (is_reserved && actor->is_doomed))
        orri_end(w, actor, ORR_OK);
}

void orri_end(struct orri_worker *w, struct orri_actor *actor, enum orr_err why)
{
    uint8_t phase = atomic_load(&actor->phase);
    if (phase != PHASE_LIVE)
        return;
    actor->why = (uint8_t)why;
    atomic_store(&actor->phase, PHASE_STOPPING);
    orri_hold_drop(w, actor); /* no handler of it runs any more that could let go */
    orri_family_stop(w, actor);
    pthread_mutex_lock(&w->sys->tree);
    bool has_children = actor->first_child;
    pthread_mutex_unlock(&w->sys->tree);
    if (!has_children)
        orri_finalize(w, actor);
}

void orri_finalize(struct orri_worker *w, struct orri_actor *actor)
{
    struct orr_system *sys = w->sys;
    const struct orr_actor_type *type = atomic_load(&actor->dispatch)->type;
    if (type->fini && !actor->is_doomed)
        type->fini(actor->state);
    orri_timers_drop(sys, actor);
    orri_asks_drop(sys, actor);
    pthread_mutex_lock(&sys->tree);
    atomic_fetch_add(&actor->life, 1);
    pthread_mutex_unlock(&sys->tree);
    orri_watch_ended(w, actor, (enum orr_err)actor->why);
    atomic_store(&actor->phase, PHASE_DOWN);
    orri_mailbox_sweep(w, actor);
    if (actor->parent)
        orri_family_see(w, actor); /* from here on it is its parent's */
    else
        orri_root_ended(sys);
}

void orri_release(struct orri_worker *w, struct orri_actor *actor)
{
    struct orr_system *sys = w->sys;
    struct orri_body *body = actor->body;
    pthread_mutex_lock(&sys->time.lock);
    orri_wheel_remove(&sys->time.wheel, &actor->restart_due);
    pthread_mutex_unlock(&sys->time.lock);
    pthread_mutex_lock(&sys->tree);
    if (body->path)
        orri_name_remove(sys, orr_hash((struct orr_str){body->path, body->path_len}));
    if (actor->parent)
        unlink_child(actor);
    actor->body = NULL;
    actor->state = NULL;
    atomic_fetch_add(&actor->life, 1); /* a name may have led letters to a next life */
    atomic_store(&actor->phase, PHASE_FREE);
    pthread_mutex_unlock(&sys->tree);
    atomic_fetch_sub_explicit(&sys->actor_bytes, body->bytes, memory_order_relaxed);
    free(body);
    orri_watch_ended(w, actor, ORR_EGONE);
    pthread_mutex_lock(&sys->tree);
    orri_slot_give(sys, actor);
    pthread_mutex_unlock(&sys->tree);
    orri_schedule(w, actor); /* sweep what came for the life that will not be */
}

void orri_stop_child(struct orri_worker *w,
                     struct orri_actor *parent,
                     struct orr_addr who)
{
    struct orr_system *sys = w->sys;
    uint64_t slot = who.slot;
    if (who.host == sys->host && who.incarnation == 0)
        slot = orri_name_find(sys, who.slot);
    bool is_child = false;
    bool is_gone = false;
    pthread_mutex_lock(&sys->tree);
    struct orri_actor *child = orri_actor_at(sys, (uint32_t)slot);
    if (child) {
        uint32_t later = atomic_load(&child->life) - (uint32_t)(slot >> 32);
        bool is_own = child->parent == parent && who.host == sys->host;
        is_gone = later != 0 && !(later == 1 && is_own && child->is_awaiting);
        is_child = !is_gone && is_own;
        if (is_child)
            child->is_asked_to_end = true; /* also stops a restart that is awaited */
    }
    pthread_mutex_unlock(&sys->tree);
    if (is_child)
        orri_order(w, child, ORDER_STOP);
    else if (!is_gone)
        orri_logf(w, ORR_LOG_WARN, parent, "stop ignored: not a child of this actor");
}
