/* SPDX-License-Identifier: Apache-2.0
 * timer.c - the timers of actors, and the clock work of the system.
 *
 * A timer stays in the table until its message is handled: a timer that its actor cancelled or moved after it fired, but
 * before it was handled, is never seen.  The message carries the serial number of the setting for that.
 */
#include "core.h"

struct orri_timer {
    struct orri_due due; /* first: the wheel knows no more */
    struct orri_timer *next_in_bucket;
    struct orri_timer *next; /* of the actor's */
    struct orri_timer *prev;
    struct orri_actor *actor; /* borrowed: slots outlive timers */
    uint64_t slot;
    uint64_t serial;
    uint64_t arg;
    uint32_t id;
};

void orri_time_insert(struct orr_system *sys, struct orri_due *due, uint64_t due_ms)
{
    struct orri_time *time = &sys->time;
    orri_wheel_insert(&time->wheel, due, due_ms);
    if (due_ms >= atomic_load_explicit(&time->next_ms, memory_order_relaxed))
        return;
    atomic_store(&time->next_ms, due_ms); /* before has_keeper is looked at */
    orri_wake_keeper(sys);
}

static struct orri_timer **
bucket_of(struct orri_time *time, const struct orri_actor *actor, uint32_t id)
{
    uint64_t hash = ((uint64_t)actor->index << 32 | id) * UINT64_C(0x9e3779b97f4a7c15);
    return &time->buckets[(hash >> 32) & (time->n_buckets - 1)];
}

static struct orri_timer **
find(struct orri_time *time, const struct orri_actor *actor, uint32_t id)
{
    static struct orri_timer *none;
    if (!time->buckets)
        return &none;
    struct orri_timer **at = bucket_of(time, actor, id);
    while (*at && ((*at)->actor != actor || (*at)->id != id))
        at = &(*at)->next_in_bucket;
    return at;
}

static bool grow(struct orri_time *time)
{
    if (time->n_timers < time->n_buckets)
        return true;
    struct orri_time old = *time;
    uint32_t n = old.n_buckets ? old.n_buckets * 2 : 16;
    struct orri_timer **buckets = orri_zalloc(n * sizeof(struct orri_timer *));
    if (!buckets)
        return false;
    time->buckets = buckets;
    time->n_buckets = n;
    for (uint32_t i = 0; i < old.n_buckets; i++) {
        while (old.buckets[i]) {
            struct orri_timer *timer = old.buckets[i];
            old.buckets[i] = timer->next_in_bucket;
            struct orri_timer **at = bucket_of(time, timer->actor, timer->id);
            timer->next_in_bucket = *at;
            *at = timer;
        }
    }
    free(old.buckets);
    return true;
}

static struct orri_timer *
add(struct orr_system *sys, struct orri_actor *actor, uint32_t id)
{
    struct orri_time *time = &sys->time;
    if (time->n_timers >= sys->config.actors_max || !grow(time))
        return NULL;
    struct orri_timer *timer = orri_zalloc(sizeof(*timer));
    if (!timer)
        return NULL;
    timer->actor = actor;
    timer->id = id;
    timer->due.kind = DUE_TIMER;
    timer->next = actor->timers;
    if (timer->next)
        timer->next->prev = timer;
    actor->timers = timer;
    *find(time, actor, id) = timer;
    time->n_timers++;
    return timer;
}

static void drop(struct orri_time *time, struct orri_timer **at)
{
    struct orri_timer *timer = *at;
    *at = timer->next_in_bucket;
    orri_wheel_remove(&time->wheel, &timer->due);
    if (timer->next)
        timer->next->prev = timer->prev;
    if (timer->prev)
        timer->prev->next = timer->next;
    else
        timer->actor->timers = timer->next;
    time->n_timers--;
    free(timer);
}

enum orr_err orri_timer_set(struct orri_worker *w,
                            struct orri_actor *actor,
                            const struct orri_effect_timer *set)
{
    struct orri_time *time = &w->sys->time;
    pthread_mutex_lock(&time->lock);
    struct orri_timer *timer = *find(time, actor, set->id);
    if (!timer)
        timer = add(w->sys, actor, set->id);
    if (timer) {
        orri_wheel_remove(&time->wheel, &timer->due);
        timer->slot = orri_slot_of(atomic_load(&actor->life), actor->index);
        timer->serial = ++time->serial;
        timer->arg = set->arg;
        uint64_t left = UINT64_MAX - w->now_ms;
        uint64_t delay = set->delay_ms < left ? set->delay_ms : left;
        orri_time_insert(w->sys, &timer->due, w->now_ms + delay);
    }
    pthread_mutex_unlock(&time->lock);
    return timer ? ORR_OK : ORR_ENOMEM;
}

void orri_timer_cancel(struct orr_system *sys, struct orri_actor *actor, uint32_t id)
{
    pthread_mutex_lock(&sys->time.lock);
    struct orri_timer **at = find(&sys->time, actor, id);
    if (*at)
        drop(&sys->time, at);
    pthread_mutex_unlock(&sys->time.lock);
}

bool orri_timer_claim(struct orr_system *sys,
                      struct orri_actor *actor,
                      uint64_t serial,
                      uint32_t id)
{
    pthread_mutex_lock(&sys->time.lock);
    struct orri_timer **at = find(&sys->time, actor, id);
    bool stands = *at && (*at)->serial == serial;
    if (stands)
        drop(&sys->time, at);
    pthread_mutex_unlock(&sys->time.lock);
    return stands;
}

void orri_timers_drop(struct orr_system *sys, struct orri_actor *actor)
{
    pthread_mutex_lock(&sys->time.lock);
    while (actor->timers)
        drop(&sys->time, find(&sys->time, actor, actor->timers->id));
    pthread_mutex_unlock(&sys->time.lock);
}

struct orri_letter *orri_timer_fire(struct orri_worker *w, struct orri_due *due)
{
    struct orri_timer *timer = (struct orri_timer *)due;
    struct orr_msg_timer msg = {.id = timer->id, .arg = timer->arg};
    struct orri_letter *letter =
        orri_letter_make(w, orr_msg_desc_timer(), &msg, NULL, true);
    if (!letter) { /* no memory now: try again soon */
        orri_time_insert(w->sys, due, w->now_ms + 10);
        return NULL;
    }
    letter->peer =
        (struct orr_addr){w->sys->host, timer->slot, w->sys->config.incarnation};
    letter->slot = timer->slot;
    letter->corr = timer->serial;
    letter->flags = LETTER_TIMER | LETTER_KERNEL;
    letter->role = ORR_ROLE_LOCAL;
    return letter;
}

void orri_time_run(struct orri_worker *w)
{
    struct orri_time *time = &w->sys->time;
    if (atomic_load_explicit(&time->next_ms, memory_order_relaxed) > w->now_ms)
        return;
    struct orri_letter *first = NULL;
    struct orri_letter **last = &first;
    pthread_mutex_lock(&time->lock);
    for (struct orri_due *due; (due = orri_wheel_take(&time->wheel, w->now_ms));) {
        struct orri_letter *letter = NULL;
        if (due->kind == DUE_TIMER) {
            letter = orri_timer_fire(w, due);
        } else if (due->kind == DUE_ASK) {
            letter = orri_ask_expire(w, due);
        } else {
            struct orri_actor *child =
                (void *)((char *)due - offsetof(struct orri_actor, restart_due));
            orri_family_see(w, child);
        }
        if (letter) {
            *last = letter;
            last = &letter->next;
        }
    }
    atomic_store_explicit(
        &time->next_ms, orri_wheel_next_ms(&time->wheel), memory_order_relaxed);
    pthread_mutex_unlock(&time->lock);
    while (first) {
        struct orri_letter *letter = first;
        first = letter->next;
        (void)orri_deliver(w, letter);
    }
}
