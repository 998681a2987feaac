/* SPDX-License-Identifier: Apache-2.0
 * gate.c - the program's threads at the gate (gate.h), around the decisions of gate_state.c.
 *
 * `calls` holds two numbers: threads that are just being counted (high half), and threads between enter and leave (low half).
 * A thread adds itself to both, then looks at is_closed; the closing side sets is_closed, then looks at `calls`.  Both do so in
 * the one order of sequentially consistent operations, so of the two at least one sees the other: a thread was counted before
 * the gate closed, or it finds it closed, takes itself out again and asks under the lock.  The closing side waits for the few
 * instructions in which a thread is being counted, so what it then reads is exact.  On x86 all this is the price of the two
 * atomic additions that are needed anyway.
 */
#include <errno.h>
#include <sched.h>
#include <time.h>

#include "core.h"

#define INSIDE   UINT64_C(1)
#define COUNTING (UINT64_C(1) << 32)

enum { SETTLE_SPINS = 2000 };

static _Atomic bool is_closed;
static _Atomic uint64_t calls;
static _Atomic bool has_moved;
static pthread_cond_t may_have_opened = PTHREAD_COND_INITIALIZER;
static uint64_t targets[ORRI_CLOCKS_MAX];
static struct orri_target wants[ORRI_CLOCKS_MAX];

/* A thread parked in a point, at the link's service.  Under orri_core.lock. */
static struct {
    uint32_t n_parked;
    void (*fn)(void *arg);
    void *arg;
    bool is_served, is_busy;
    pthread_cond_t done;
} point = {.done = PTHREAD_COND_INITIALIZER};

struct orri_core orri_core = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .gate = {.targets = targets,
             .cap = ORRI_CLOCKS_MAX,
             .wants = wants,
             .wants_cap = ORRI_CLOCKS_MAX},
};

uint64_t orri_mono_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static uint64_t coarse_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void note(struct orri_clock *clock, enum orr_clock_op op, uint64_t now_ms)
{
    atomic_store_explicit(&clock->issued_ms, now_ms, memory_order_relaxed);
    atomic_store_explicit(&clock->op, (uint32_t)op, memory_order_relaxed);
}

void orri_gate_tell_moved(void)
{
    atomic_store_explicit(&has_moved, true, memory_order_release);
    orri_link_wake();
}

bool orri_gate_has_moved(void)
{
    return atomic_exchange_explicit(&has_moved, false, memory_order_acq_rel);
}

uint32_t orri_gate_inside(void)
{
    return (uint32_t)atomic_load(&calls);
}

/* ---- the program's threads ---------------------------------------------------------------- */

/* Under the lock, when the call may go. */
static bool count(struct orri_clock *const *clocks, uint32_t n, enum orr_clock_op op)
{
    bool is_raised = false;
    uint64_t now_ms = coarse_ms();
    for (uint32_t i = 0; i < n; i++) {
        if (!clocks[i])
            continue;
        uint32_t at = (uint32_t)(clocks[i] - orri_core.gate.clocks);
        is_raised |= orri_gate_count(&orri_core.gate, &at, 1);
        note(clocks[i], op, now_ms);
    }
    return is_raised;
}

static void
enter_closed(struct orri_clock *const *clocks, uint32_t n, enum orr_clock_op op)
{
    pthread_mutex_lock(&orri_core.lock);
    while (!orri_gate_may_go(&orri_core.gate, false))
        pthread_cond_wait(&may_have_opened, &orri_core.lock);
    bool is_raised = count(clocks, n, op);
    atomic_fetch_add(&calls, INSIDE);
    pthread_mutex_unlock(&orri_core.lock);
    if (is_raised)
        orri_gate_tell_moved();
}

void orri_gate_enter(struct orri_clock *const *clocks, uint32_t n, enum orr_clock_op op)
{
    atomic_fetch_add(&calls, INSIDE + COUNTING); /* pairs with the load in settle */
    if (__builtin_expect(atomic_load(&is_closed), false)) {
        atomic_fetch_sub(&calls, INSIDE + COUNTING);
        enter_closed(clocks, n, op);
        return;
    }
    uint64_t now_ms = n ? coarse_ms() : 0;
    for (uint32_t i = 0; i < n; i++)
        if (clocks[i]) {
            atomic_fetch_add_explicit(&clocks[i]->issued, 1, memory_order_relaxed);
            note(clocks[i], op, now_ms);
        }
    /* release: pairs with the acquire in settle, which then reads the clocks */
    atomic_fetch_sub_explicit(&calls, COUNTING, memory_order_release);
}

void orri_gate_leave(void)
{
    atomic_fetch_sub(&calls, INSIDE);
    if (__builtin_expect(atomic_load(&is_closed), false))
        orri_gate_tell_moved();
}

/* ---- points ------------------------------------------------------------------------------- */

/* Under the lock, which is given up meanwhile. */
static void serve_parked(void)
{
    if (!point.fn || point.is_busy || point.is_served)
        return;
    point.is_busy = true;
    pthread_mutex_unlock(&orri_core.lock);
    point.fn(point.arg);
    pthread_mutex_lock(&orri_core.lock);
    point.is_busy = false;
    point.is_served = true;
    pthread_cond_broadcast(&point.done);
}

void orri_gate_point(struct orri_clock *world)
{
    pthread_mutex_lock(&orri_core.lock);
    while (!orri_gate_may_go(&orri_core.gate, true)) {
        point.n_parked++;
        orri_gate_tell_moved();
        pthread_cond_wait(&may_have_opened, &orri_core.lock);
        serve_parked();
        point.n_parked--;
    }
    bool is_raised = count(&world, 1, ORR_CLOCK_OP_POINT);
    pthread_mutex_unlock(&orri_core.lock);
    if (is_raised)
        orri_gate_tell_moved();
    else if (atomic_load(&is_closed))
        orri_gate_tell_moved(); /* perhaps at the cut now */
}

void orri_gate_set_cooperative(void)
{
    pthread_mutex_lock(&orri_core.lock);
    orri_core.gate.is_cooperative = true;
    pthread_cond_broadcast(&may_have_opened);
    pthread_mutex_unlock(&orri_core.lock);
    orri_gate_tell_moved();
}

bool orri_gate_serve(void (*fn)(void *arg), void *arg, uint64_t deadline_ms)
{
    struct timespec until = {.tv_sec = (time_t)(deadline_ms / 1000),
                             .tv_nsec = (long)(deadline_ms % 1000) * 1000000};
    int rc = 0;
    pthread_mutex_lock(&orri_core.lock);
    bool is_parked = point.n_parked > 0 && orri_core.gate.mode == ORRI_GATE_SHUT;
    if (is_parked) {
        point.fn = fn;
        point.arg = arg;
        point.is_served = false;
        pthread_cond_broadcast(&may_have_opened);
        /* what has begun is waited for: it works with arg */
        while (!point.is_served && (rc != ETIMEDOUT || point.is_busy))
            rc = point.is_busy
                     ? pthread_cond_wait(&point.done, &orri_core.lock)
                     : pthread_cond_clockwait(
                           &point.done, &orri_core.lock, CLOCK_MONOTONIC, &until);
        is_parked = point.is_served;
        point.fn = NULL;
    }
    pthread_mutex_unlock(&orri_core.lock);
    return is_parked;
}

/* ---- the link's thread -------------------------------------------------------------------- */

/* After is_closed was set: wait until nobody is just being counted.  False: one is, still (it was suspended there). */
static bool settle(void)
{
    for (int i = 0; i < SETTLE_SPINS; i++) {
        if (atomic_load(&calls) < COUNTING)
            return true;
        sched_yield();
    }
    return false;
}

static uint32_t n_inside(void)
{
    return (uint32_t)atomic_load(&calls);
}

/* Under the lock: what the threads on the fast path see. */
static void publish(void)
{
    atomic_store(&is_closed, orri_core.gate.mode != ORRI_GATE_OPEN);
    pthread_cond_broadcast(&may_have_opened);
}

bool orri_gate_ask_close(uint64_t cut)
{
    pthread_mutex_lock(&orri_core.lock);
    bool is_taken = orri_gate_close(&orri_core.gate, cut);
    publish();
    pthread_mutex_unlock(&orri_core.lock);
    return is_taken;
}

void orri_gate_ask_open(uint64_t cut)
{
    pthread_mutex_lock(&orri_core.lock);
    orri_gate_open(&orri_core.gate, cut);
    publish();
    pthread_mutex_unlock(&orri_core.lock);
}

bool orri_gate_ask_targets(uint64_t cut,
                           uint64_t round,
                           bool is_first,
                           const struct orri_target *list,
                           uint32_t n,
                           bool is_last)
{
    pthread_mutex_lock(&orri_core.lock);
    bool is_taken =
        orri_gate_take_targets(&orri_core.gate, cut, round, is_first, list, n, is_last);
    publish();
    pthread_mutex_unlock(&orri_core.lock);
    return is_taken;
}

bool orri_gate_ask_shut(void)
{
    pthread_mutex_lock(&orri_core.lock);
    bool is_shut =
        settle() && orri_gate_shut(&orri_core.gate, n_inside(), point.n_parked);
    publish();
    pthread_mutex_unlock(&orri_core.lock);
    return is_shut;
}

void orri_gate_ask_unshut(void)
{
    pthread_mutex_lock(&orri_core.lock);
    orri_gate_unshut(&orri_core.gate);
    publish();
    pthread_mutex_unlock(&orri_core.lock);
}

void orri_gate_ask_reopen(void)
{
    pthread_mutex_lock(&orri_core.lock);
    orri_gate_reopen(&orri_core.gate);
    publish();
    pthread_mutex_unlock(&orri_core.lock);
}

void orri_gate_ask_renumber(uint64_t cut)
{
    pthread_mutex_lock(&orri_core.lock);
    orri_core.gate.cut = cut;
    pthread_mutex_unlock(&orri_core.lock);
}

static struct orr_rec_clock row_of(const struct orri_clock *clock, uint64_t now_ms)
{
    uint64_t then_ms = atomic_load_explicit(&clock->issued_ms, memory_order_relaxed);
    return (struct orr_rec_clock){
        .rank = orri_core.rank,
        .comm = clock->comm,
        .kind = clock->kind,
        .me = clock->me,
        .peer = clock->peer,
        .n = clock->n,
        .issued = atomic_load_explicit(&clock->issued, memory_order_relaxed),
        .op = atomic_load_explicit(&clock->op, memory_order_relaxed),
        .idle_ms = now_ms > then_ms ? now_ms - then_ms : 0,
    };
}

struct orri_gate_view orri_gate_look(struct orr_rec_clock *rows)
{
    const struct orri_gate *gate = &orri_core.gate;
    struct orri_gate_view view = {0};
    uint64_t now_ms = coarse_ms();
    pthread_mutex_lock(&orri_core.lock);
    view.is_settled = gate->mode == ORRI_GATE_OPEN || settle();
    view.cut = gate->cut;
    view.round = gate->round;
    view.mode = gate->mode;
    view.is_at_cut =
        view.is_settled && orri_gate_is_at_cut(gate, n_inside(), point.n_parked);
    for (uint32_t i = 0; rows && i < gate->n; i++)
        if (orri_gate_reports(gate, i))
            rows[view.n++] = row_of(&gate->clocks[i], now_ms);
    pthread_mutex_unlock(&orri_core.lock);
    return view;
}

/* Only the forking thread is there; those that were parked or inside are not. */
void orri_gate_in_child(void)
{
    atomic_store(&is_closed, false);
    atomic_store(&calls, 0);
    pthread_mutex_init(&orri_core.lock, NULL);
    pthread_cond_init(&may_have_opened, NULL);
    pthread_cond_init(&point.done, NULL);
    point.n_parked = 0;
    point.fn = NULL;
    orri_core.gate.mode = ORRI_GATE_OPEN;
}
