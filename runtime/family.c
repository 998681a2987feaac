/* SPDX-License-Identifier: Apache-2.0
 * family.c - supervision, in the words of OTP.  It runs as part of the parent: a child that ended, or whose backoff is over,
 * is put on the parent's list of children to see.
 *
 * A child that has to be restarted keeps its slot, path and arguments, and gets a new life, so its old address is stale
 * and its name leads to the next life: what is sent to the name meanwhile waits there.
 * one_for_all and rest_for_one stop the siblings concerned and start them all, in order of birth, when the last one has
 * ended and the backoff is over.
 */
#include "core.h"

enum { INTENSITY = 10, PERIOD_MS = 60000, BACKOFF_MIN_MS = 50, BACKOFF_MAX_MS = 5000 };

/* A type that says nothing about supervision (no period) gets the house's defaults. */
static struct orr_supervision rules_of(struct orr_system *sys,
                                       struct orri_actor *parent)
{
    struct orr_supervision rules = atomic_load(&parent->dispatch)->type->supervision;
    if (rules.period_ms == 0) {
        rules.intensity = INTENSITY;
        rules.period_ms = PERIOD_MS;
        rules.backoff_min_ms = BACKOFF_MIN_MS;
        rules.backoff_max_ms = BACKOFF_MAX_MS;
    }
    if (parent == sys->root)
        rules.intensity = sys->config.supervisor_intensity;
    return rules;
}

void orri_family_see(struct orri_worker *w, struct orri_actor *child)
{
    struct orri_actor *parent = child->parent;
    struct orri_actor *first = atomic_load(&parent->to_see);
    do
        child->next_to_see = first;
    while (!atomic_compare_exchange_weak(&parent->to_see, &first, child));
    orri_order(w, parent, ORDER_FAMILY);
}

static void restart(struct orri_worker *w, struct orri_actor *child)
{
    if (child->is_asked_to_end) { /* meanwhile */
        orri_release(w, child);
        return;
    }
    const struct orr_actor_type *type = atomic_load(&child->dispatch)->type;
    memset(child->state, 0, type->state_size);
    child->is_reported = child->is_awaiting = child->is_doomed = false;
    child->is_fired = false;
    child->n_failures = 0;
    orri_logf(w, ORR_LOG_INFO, child, "restarting");
    atomic_store(&child->phase, PHASE_RESERVED);
    orri_order(w, child, ORDER_START);
}

/* Start the children that await a restart, all of them or none. */
static void restart_group(struct orri_worker *w, struct orri_actor *parent)
{
    struct orri_actor *first = parent->first_child;
    for (struct orri_actor *c = first; c; c = c->next_sibling)
        if (c->is_awaiting && (!c->is_reported || !c->is_fired))
            return;
    for (struct orri_actor *c = first, *next; c; c = next) {
        next = c->next_sibling;
        if (c->is_awaiting)
            restart(w, c);
    }
}

static void stop_siblings(struct orri_worker *w,
                          struct orri_actor *child,
                          enum orr_strategy strategy)
{
    struct orri_actor *first =
        strategy == ORR_ONE_FOR_ALL ? child->parent->first_child : child->next_sibling;
    for (struct orri_actor *c = first; c; c = c->next_sibling) {
        if (c == child || c->is_reported || c->is_awaiting)
            continue;
        c->is_awaiting = c->restart != ORR_TEMPORARY;
        c->is_asked_to_end |= c->restart == ORR_TEMPORARY;
        c->is_fired = true;
        orri_order(w, c, ORDER_STOP);
    }
}

static uint64_t
backoff_ms(struct orri_worker *w, const struct orr_supervision *rules, unsigned n)
{
    uint64_t delay = rules->backoff_min_ms;
    while (n-- > 1 && delay < rules->backoff_max_ms)
        delay *= 2;
    if (delay > rules->backoff_max_ms)
        delay = rules->backoff_max_ms;
    return delay / 2 + orri_random(w) % (delay / 2 + 1);
}

static void await_restart(struct orri_worker *w,
                          struct orri_actor *parent,
                          struct orri_actor *child)
{
    struct orr_system *sys = w->sys;
    struct orr_supervision rules = rules_of(sys, parent);
    bool is_failed = child->why != ORR_OK; /* a permanent child that stops itself wants
                                              a new life: no failure */
    if (parent->n_failures == 0 ||
        w->now_ms - parent->failures_from_ms > rules.period_ms) {
        parent->n_failures = 0;
        parent->failures_from_ms = w->now_ms;
    }
    if (is_failed && ++parent->n_failures > rules.intensity) {
        orri_logf(w,
                  ORR_LOG_ERROR,
                  parent,
                  "more than %u of its children failed within %u ms: it fails, too",
                  rules.intensity,
                  rules.period_ms);
        if (parent == sys->root)
            atomic_store(&sys->has_given_up, true);
        orri_end(w, parent, ORR_ECRASH);
        return;
    }
    child->is_awaiting = true;
    uint64_t delay = backoff_ms(w, &rules, is_failed ? parent->n_failures : 1);
    if (rules.strategy != ORR_ONE_FOR_ONE)
        stop_siblings(w, child, rules.strategy);
    pthread_mutex_lock(&sys->time.lock);
    child->restart_due.kind = DUE_RESTART;
    orri_time_insert(sys, &child->restart_due, w->now_ms + delay);
    pthread_mutex_unlock(&sys->time.lock);
}

static void
child_ended(struct orri_worker *w, struct orri_actor *parent, struct orri_actor *child)
{
    child->is_reported = true;
    if (atomic_load(&parent->phase) != PHASE_LIVE) {
        orri_release(w, child);
        return;
    }
    if (child->is_awaiting) { /* stopped by us, for a restart of the group */
        restart_group(w, parent);
        return;
    }
    bool is_failed = child->why != ORR_OK;
    if (child->is_asked_to_end || child->restart == ORR_TEMPORARY ||
        (child->restart == ORR_TRANSIENT && !is_failed))
        orri_release(w, child);
    else
        await_restart(w, parent, child);
}

static void
child_due(struct orri_worker *w, struct orri_actor *parent, struct orri_actor *child)
{
    child->is_fired = true;
    if (atomic_load(&parent->phase) != PHASE_LIVE)
        return;
    if (rules_of(w->sys, parent).strategy == ORR_ONE_FOR_ONE)
        restart(w, child);
    else
        restart_group(w, parent);
}

/* A child is on the list once at most: after it ended, or after its backoff, which is armed when its end was seen.  Seeing
 * one may end the parent, which sees the others from within. */
static void see_all(struct orri_worker *w, struct orri_actor *parent)
{
    for (;;) {
        struct orri_actor *newest =
            parent->seeing ? NULL : atomic_exchange(&parent->to_see, NULL);
        while (newest) {
            struct orri_actor *next = newest->next_to_see;
            newest->next_to_see = parent->seeing;
            parent->seeing = newest;
            newest = next;
        }
        struct orri_actor *child = parent->seeing;
        if (!child)
            return;
        parent->seeing = child->next_to_see;
        if (child->is_reported)
            child_due(w, parent, child);
        else
            child_ended(w, parent, child);
    }
}

void orri_family_run(struct orri_worker *w, struct orri_actor *parent)
{
    see_all(w, parent);
    if (atomic_load(&parent->phase) != PHASE_STOPPING)
        return;
    pthread_mutex_lock(&w->sys->tree);
    bool is_alone = !parent->first_child;
    pthread_mutex_unlock(&w->sys->tree);
    if (is_alone)
        orri_finalize(w, parent);
}

static void cancel_restarts(struct orri_worker *w, struct orri_actor *parent)
{
    struct orr_system *sys = w->sys;
    pthread_mutex_lock(&sys->tree);
    for (struct orri_actor *c = parent->first_child; c; c = c->next_sibling) {
        pthread_mutex_lock(&sys->time.lock);
        orri_wheel_remove(&sys->time.wheel, &c->restart_due);
        pthread_mutex_unlock(&sys->time.lock);
    }
    pthread_mutex_unlock(&sys->tree);
}

void orri_family_stop(struct orri_worker *w, struct orri_actor *parent)
{
    struct orr_system *sys = w->sys;
    cancel_restarts(w, parent);
    see_all(w, parent); /* from here on only children that end are put there */
    pthread_mutex_lock(&sys->tree);
    struct orri_actor *child = parent->first_child;
    while (child) {
        struct orri_actor *next = child->next_sibling;
        if (child->is_reported) {
            pthread_mutex_unlock(&sys->tree);
            orri_release(w, child);
            pthread_mutex_lock(&sys->tree);
        } else {
            orri_order(w, child, ORDER_STOP);
        }
        child = next;
    }
    pthread_mutex_unlock(&sys->tree);
}
