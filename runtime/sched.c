/* SPDX-License-Identifier: Apache-2.0
 * sched.c - who runs next, on which worker.
 *
 * Each worker has a ring of ready actors: it appends, it and thieves take from the front.  What does not fit, and what other
 * threads make ready, goes to the shared queue.  A worker without work looks at its ring, the shared queue, the others'
 * rings, and parks.  One parked worker, the keeper, watches the clock for all.
 * A worker wakes a parked one when it leaves work lying behind other work; a single ready actor is about to be run by the
 * worker that made it ready, and waking somebody for it would cost more than it.
 */
#include "core.h"

#include <sched.h>
#include <time.h>

enum { SHARED_EVERY = 61, CLOCK_EVERY = 8, STEAL_ROUNDS = 2 };

uint64_t orri_random(struct orri_worker *w)
{
    uint64_t z = (w->random += UINT64_C(0x9e3779b97f4a7c15)); /* splitmix64 */
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint64_t clock_ms(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void orri_clock_read(struct orri_worker *w)
{
    const struct orr_clock *clock = w->sys->config.clock;
    if (clock) {
        w->now_ms = clock->now_ms(clock->arg);
        w->wall_ms = clock->wall_ms(clock->arg);
        return;
    }
    /* Read for every turn of an actor: coarse, and the people's time only now and then. */
    uint64_t now_ms = clock_ms(CLOCK_MONOTONIC_COARSE);
    if (now_ms != w->now_ms) {
        w->now_ms = now_ms;
        w->wall_ms = clock_ms(CLOCK_REALTIME_COARSE);
    }
}

/* ---- parking ---- */

static void wake_one(struct orri_sched *sched)
{
    pthread_mutex_lock(&sched->lock);
    pthread_cond_signal(atomic_load(&sched->n_parked) ? &sched->work : &sched->time);
    pthread_mutex_unlock(&sched->lock);
}

void orri_wake_keeper(struct orr_system *sys)
{
    struct orri_sched *sched = &sys->sched;
    if (!sys->is_threaded || !atomic_load(&sched->has_keeper))
        return;
    pthread_mutex_lock(&sched->lock);
    pthread_cond_signal(&sched->time);
    pthread_mutex_unlock(&sched->lock);
}

void orri_wake_all(struct orr_system *sys)
{
    pthread_mutex_lock(&sys->sched.lock);
    pthread_cond_broadcast(&sys->sched.work);
    pthread_cond_broadcast(&sys->sched.time);
    pthread_mutex_unlock(&sys->sched.lock);
}

static bool has_idle_help(struct orri_sched *sched)
{
    return atomic_load_explicit(&sched->n_parked, memory_order_relaxed) ||
           atomic_load_explicit(&sched->has_keeper, memory_order_relaxed);
}

/* ---- queues ---- */

/* sched.lock held */
static void share(struct orri_sched *sched, struct orri_actor *actor)
{
    actor->next_run = NULL;
    if (sched->last)
        sched->last->next_run = actor;
    else
        sched->first = actor;
    sched->last = actor;
    atomic_fetch_add(&sched->n_shared, 1);
}

static struct orri_actor *take_shared(struct orri_sched *sched)
{
    if (atomic_load_explicit(&sched->n_shared, memory_order_relaxed) == 0)
        return NULL;
    pthread_mutex_lock(&sched->lock);
    struct orri_actor *actor = sched->first;
    if (actor) {
        sched->first = actor->next_run;
        if (!sched->first)
            sched->last = NULL;
        atomic_fetch_sub(&sched->n_shared, 1);
    }
    pthread_mutex_unlock(&sched->lock);
    return actor;
}

/* Take from the front of a ring: its owner or a thief. */
static struct orri_actor *take_from(struct orri_worker *w)
{
    uint32_t head = atomic_load_explicit(&w->head, memory_order_acquire);
    for (;;) {
        /* pairs with the release in orri_enqueue */
        if (head == atomic_load_explicit(&w->tail, memory_order_acquire))
            return NULL;
        struct orri_actor *actor =
            atomic_load_explicit(&w->ring[head % ORRI_RING], memory_order_relaxed);
        if (w->sys->n_workers == 1) { /* no thieves */
            atomic_store_explicit(&w->head, head + 1, memory_order_relaxed);
            return actor;
        }
        if (atomic_compare_exchange_weak_explicit(
                &w->head, &head, head + 1, memory_order_acq_rel, memory_order_acquire))
            return actor;
    }
}

/* The ring is full: half of it goes to the shared queue. */
static void spill(struct orri_worker *w)
{
    struct orri_actor *some[ORRI_RING / 2];
    unsigned n = 0;
    while (n < ORR_ARRAY_SIZE(some) && (some[n] = take_from(w)))
        n++;
    pthread_mutex_lock(&w->sys->sched.lock);
    for (unsigned i = 0; i < n; i++)
        share(&w->sys->sched, some[i]);
    pthread_mutex_unlock(&w->sys->sched.lock);
}

void orri_enqueue(struct orri_worker *w, struct orri_actor *actor)
{
    struct orri_sched *sched = &w->sys->sched;
    if (w->is_outside) {
        pthread_mutex_lock(&sched->lock);
        share(sched, actor);
        pthread_cond_signal(atomic_load(&sched->n_parked) ? &sched->work
                                                          : &sched->time);
        pthread_mutex_unlock(&sched->lock);
        return;
    }
    uint32_t tail = atomic_load_explicit(&w->tail, memory_order_relaxed);
    uint32_t head = atomic_load_explicit(&w->head, memory_order_acquire);
    if (tail - head >= ORRI_RING) {
        spill(w);
        head = atomic_load_explicit(&w->head, memory_order_acquire);
    }
    atomic_store_explicit(&w->ring[tail % ORRI_RING], actor, memory_order_relaxed);
    /* pairs with the acquire in take_from */
    atomic_store_explicit(&w->tail, tail + 1, memory_order_release);
    if (tail != head && has_idle_help(sched))
        wake_one(sched);
}

void orri_schedule(struct orri_worker *w, struct orri_actor *actor)
{
    uint8_t duty = atomic_load(&actor->duty);
    if (duty == DUTY_IDLE &&
        atomic_compare_exchange_strong(&actor->duty, &duty, DUTY_QUEUED))
        orri_enqueue(w, actor);
}

struct orri_actor *orri_next_actor(struct orri_worker *w)
{
    struct orr_system *sys = w->sys;
    struct orri_actor *actor = NULL;
    if (++w->turns % SHARED_EVERY == 0)
        actor = take_shared(&sys->sched);
    if (!actor)
        actor = take_from(w);
    if (!actor)
        actor = take_shared(&sys->sched);
    for (unsigned i = 1; !actor && i < sys->n_workers * STEAL_ROUNDS; i++) {
        struct orri_worker *victim = &sys->workers[(w->index + i) % sys->n_workers];
        if (victim != w)
            actor = take_from(victim);
    }
    return actor;
}

/* sched.lock held: is there anything that this worker should do instead of parking? */
static bool has_work(struct orr_system *sys)
{
    if (sys->sched.first || atomic_load(&sys->sched.is_quitting))
        return true;
    for (unsigned i = 0; i < sys->n_workers; i++)
        if (atomic_load(&sys->workers[i].head) != atomic_load(&sys->workers[i].tail))
            return true;
    return false;
}

static struct timespec deadline_of(uint64_t delay_ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t ns = (uint64_t)t.tv_nsec + delay_ms % 1000 * 1000000;
    t.tv_sec += (time_t)(delay_ms / 1000 + ns / 1000000000);
    t.tv_nsec = (long)(ns % 1000000000);
    return t;
}

static void park(struct orri_worker *w)
{
    enum { NAP_MAX_MS = 1000, WATCH_MS = 10 };
    struct orr_system *sys = w->sys;
    struct orri_sched *sched = &sys->sched;
    pthread_mutex_lock(&sched->lock);
    bool is_keeper = !atomic_load(&sched->has_keeper);
    if (is_keeper)
        atomic_store(&sched->has_keeper, true);
    else
        atomic_fetch_add(&sched->n_parked, 1);
    if (!has_work(sys)) {
        uint64_t next = atomic_load(&sys->time.next_ms);
        orri_clock_read(w);
        uint64_t nap = next <= w->now_ms ? 0 : next - w->now_ms;
        if (!is_keeper || nap > NAP_MAX_MS)
            nap = NAP_MAX_MS;
        bool is_somebody_busy = atomic_load(&sched->n_parked) + 1 < sys->n_workers;
        if (is_keeper && is_somebody_busy && nap > WATCH_MS)
            nap = WATCH_MS; /* what lies behind a long handler will be stolen */
        struct timespec until = deadline_of(nap);
        if (nap)
            pthread_cond_timedwait(
                is_keeper ? &sched->time : &sched->work, &sched->lock, &until);
    }
    if (is_keeper)
        atomic_store(&sched->has_keeper, false);
    else
        atomic_fetch_sub(&sched->n_parked, 1);
    pthread_mutex_unlock(&sched->lock);
}

void *orri_worker_main(void *arg)
{
    struct orri_worker *w = arg;
    struct orr_system *sys = w->sys;
    while (!atomic_load_explicit(&sys->sched.is_quitting, memory_order_relaxed)) {
        if (w->was_busy || w->turns % CLOCK_EVERY == 0)
            orri_clock_read(w);
        orri_time_run(w);
        struct orri_actor *actor = orri_next_actor(w);
        if (actor) {
            orri_run(w, actor, ORRI_BATCH_MAX);
        } else {
            park(w);
            orri_clock_read(w);
        }
    }
    return NULL;
}
