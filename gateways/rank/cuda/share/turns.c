/* SPDX-License-Identifier: Apache-2.0
 * turns.c - the thread that takes the turn and gives it up (share.h).
 *
 * It takes it when a thread waits at the gate.  When others want it, it gives it up as soon as no thread of the program has been in a
 * call for a while, and in any case after the quantum: it closes the gate, waits for all work, and leaves.  What keeps it (work that
 * does not end, no room in the backup) is tried again.
 */
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../../core/thread.h"
#include "../drain.h"
#include "../gate.h"
#include "../reason.h"
#include "../segment.h"
#include "shared.h"

enum {
    QUANTUM_MS = 100,
    QUANTUM_MS_MAX = 10000,
    QUANTUM_SWITCHES =
        10, /* a turn is at least as long as so many switches: they cost a tenth */
    QUIET_LOOKS = 2, /* in a row, a millisecond apart, with nobody in a call */
    LOOK_MS = 50,    /* who has died? */
    CLOSE_MS = 2000,
    IDLE_MS = 1000,
    ASKED_MS = 200,
    ENTER_TRIES = 50,
    RETRY_NS = 100000000,
    PAUSE_NS = 1000000,
    ROOM_MS = 10000,
};

enum state { NEW, ON, REFUSED };

struct orri_share orri_share = {.lock = PTHREAD_MUTEX_INITIALIZER};

static pthread_mutex_t join_lock = PTHREAD_MUTEX_INITIALIZER; /* guards state */
static _Atomic int state;
static _Atomic uint32_t asked;    /* a futex: a thread wants to go on */
static _Atomic uint32_t has_turn; /* a futex */
static _Atomic uint32_t n_turns;  /* a futex: taken so far */
static _Atomic uint32_t has_yielded;
static uint64_t enter_ms, leave_ms; /* what the newest of this rank took */

static void wait_while(_Atomic uint32_t *word, uint32_t value, uint32_t ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, &t, NULL, 0);
}

static void set_and_wake(_Atomic uint32_t *word, uint32_t value)
{
    atomic_store(word, value);
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

static void pause_ns(long ns)
{
    const struct timespec t = {.tv_nsec = ns};
    nanosleep(&t, NULL);
}

bool orri_share_is_on(void)
{
    static _Atomic int known; /* 0: not asked, 1: no, 2: yes */
    int answer = atomic_load_explicit(&known, memory_order_relaxed);
    if (!answer) {
        const char *text = getenv("ORRERY_MEMORY");
        answer = text && strcmp(text, "shared") == 0 ? 2 : 1;
        atomic_store_explicit(&known, answer, memory_order_relaxed);
    }
    return answer == 2;
}

void orri_share_ask(void)
{
    if (atomic_load(&asked) == 0)
        set_and_wake(&asked, 1);
}

/* ---- without the turn ---------------------------------------------------------------------------- */

static void await_turn(void)
{
    struct orri_meet *m = &orri_share.meet;
    for (bool has = false; !has;) {
        orri_meet_lock(m);
        orri_turn_want(m->board, m->me);
        has = orri_turn_take(m->board, m->me);
        uint32_t seen = atomic_load(&m->board->moved);
        orri_meet_unlock(m);
        if (has)
            return;
        orri_meet_wait(m, seen, LOOK_MS);
        if (atomic_load(&m->board->moved) == seen)
            orri_meet_look(m);
    }
}

/* The context has failed, or there is no memory left to work with: never on with what may be wrong. */
static void give_up(CUresult rc)
{
    const char *name = "?";
    REAL(cuGetErrorName)(rc, &name);
    fprintf(stderr,
            "orrery: cannot restore the memory that this rank shares with others of "
            "its device: "
            "%s; it ends here\n",
            name);
    abort();
}

static void take_turn(void)
{
    await_turn();
    const uint64_t start_ms = orri_cuda_now_ms();
    CUresult rc = orri_share.ctx ? REAL(cuCtxSetCurrent)(orri_share.ctx) : CUDA_SUCCESS;
    for (int i = 0; i < ENTER_TRIES; i++) {
        if (!rc && (rc = orri_switch_enter()) == CUDA_SUCCESS)
            break;
        pause_ns(RETRY_NS);
        rc = orri_share.ctx ? REAL(cuCtxSetCurrent)(orri_share.ctx) : CUDA_SUCCESS;
        if (i + 1 == ENTER_TRIES)
            give_up(rc ? rc : orri_switch_enter());
    }
    enter_ms = orri_cuda_now_ms() - start_ms;
    orri_share.counts.turns++;
    atomic_store(&has_yielded, 0);
    set_and_wake(&has_turn, 1);
    set_and_wake(&n_turns, atomic_load(&n_turns) + 1);
    orri_cuda_gate_open_for(ORRI_CLOSED_TURN);
}

/* ---- with it ------------------------------------------------------------------------------------- */

/* Its context has failed: nothing of it runs there any more, and what it had nobody can read. */
static void drop_out(void)
{
    orri_meet_go(&orri_share.meet);
    atomic_store(&state, REFUSED);
    orri_cuda_gate_open_for(ORRI_CLOSED_TURN); /* its calls fail, and say so */
}

/* False: it has the turn still. */
static bool leave(void)
{
    char why[200];
    uint64_t deadline_ms = orri_cuda_now_ms() + CLOSE_MS;
    atomic_store(&asked, 0); /* whoever finds the gate closed asks again */
    if (!orri_cuda_gate_close_for(ORRI_CLOSED_TURN, deadline_ms, why, sizeof why)) {
        orri_share.counts.kept++;
        return false;
    }
    set_and_wake(&has_turn, 0);
    CUresult rc = orri_drain(deadline_ms);
    if (rc && rc != CUDA_ERROR_TIMEOUT && rc != CUDA_ERROR_OUT_OF_MEMORY) {
        drop_out();
        return true;
    }
    if (!rc && orri_share.ctx)
        rc = REAL(cuCtxSetCurrent)(orri_share.ctx);
    const uint64_t start_ms = orri_cuda_now_ms();
    if (!rc)
        rc = orri_switch_leave();
    leave_ms = orri_cuda_now_ms() - start_ms;
    if (rc) { /* what it changed has no other place yet */
        orri_share.counts.kept++;
        set_and_wake(&has_turn, 1);
        orri_cuda_gate_open_for(ORRI_CLOSED_TURN);
        return false;
    }
    return true;
}

static bool is_wanted(uint32_t *ret_seen)
{
    struct orri_meet *m = &orri_share.meet;
    orri_meet_lock(m);
    bool is_wanted = orri_turn_is_wanted(m->board, m->me);
    *ret_seen = atomic_load(&m->board->moved);
    orri_meet_unlock(m);
    return is_wanted || atomic_load(&has_yielded);
}

static uint64_t quantum_ms(void)
{
    uint64_t ms = QUANTUM_SWITCHES * (enter_ms + leave_ms);
    return ms < QUANTUM_MS ? QUANTUM_MS : ms > QUANTUM_MS_MAX ? QUANTUM_MS_MAX : ms;
}

static void keep_turn(void)
{
    uint64_t since_ms = orri_cuda_now_ms();
    int quiet = 0;
    while (atomic_load(&state) == ON) {
        uint32_t seen = 0;
        const char *call;
        if (!is_wanted(&seen)) {
            orri_meet_wait(&orri_share.meet, seen, IDLE_MS);
            quiet = 0;
            continue;
        }
        quiet = orri_cuda_gate_inside(&call) ? 0 : quiet + 1;
        if (quiet > QUIET_LOOKS || orri_cuda_now_ms() - since_ms >= quantum_ms()) {
            if (leave())
                return;
            since_ms = orri_cuda_now_ms();
            quiet = 0;
        }
        pause_ns(PAUSE_NS);
    }
}

/* Others have no memory, and this rank, though it wants nothing now, has some apart: it gives it up with its next turn. */
static bool must_make_room(void)
{
    struct orri_share_counts now;
    if (!orri_share.meet.board->is_tight)
        return false;
    orri_share_get_counts(&now);
    return now.private > 0;
}

static void *run(void *unused)
{
    (void)unused;
    orri_cuda_exempt_begin();
    while (atomic_load(&state) == ON) {
        while (atomic_load(&asked) == 0 && !must_make_room())
            wait_while(&asked, 0, ASKED_MS);
        take_turn();
        keep_turn();
    }
    return NULL;
}

/* ---- joining ------------------------------------------------------------------------------------- */

static CUresult refuse(const char *why)
{
    fprintf(stderr, "orrery: ORRERY_MEMORY=shared: %s\n", why);
    atomic_store(&state, REFUSED);
    return CUDA_ERROR_OPERATING_SYSTEM;
}

/* With join_lock. */
static CUresult join(CUdevice device)
{
    CUuuid uuid;
    size_t granule = 0;
    char why[256];
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                .location = {CU_MEM_LOCATION_TYPE_DEVICE, device}};
    if (orri_cuda_gate_broken())
        return refuse(orri_cuda_gate_broken());
    if (REAL(cuDeviceGetUuid)(&uuid, device) != CUDA_SUCCESS ||
        REAL(cuMemGetAllocationGranularity)(
            &granule, &prop, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED) != CUDA_SUCCESS)
        return refuse("the driver does not say what the device is");
    if (!orri_meet_come(&orri_share.meet,
                        (const uint8_t *)uuid.bytes,
                        granule,
                        orri_piece_give,
                        why,
                        sizeof why))
        return refuse(why);
    orri_share.hasher =
        (struct orri_hasher){.key = &orri_share.meet.key, .piece_bytes = granule};
    orri_share.device = device;
    orri_cuda_note("shares memory with other ranks of its device");
    atomic_store(&state, ON);
    return orri_thread_run(run, NULL) ? CUDA_SUCCESS
                                      : refuse("no thread for its turns");
}

/* With join_lock, and the turn. */
static CUresult serve(CUcontext ctx)
{
    CUresult rc = REAL(cuStreamCreate)(&orri_share.stream, CU_STREAM_NON_BLOCKING);
    if (!rc)
        orri_share.ctx = ctx;
    return rc;
}

static void await_first_turn(void)
{
    while (atomic_load(&has_turn) == 0 && atomic_load(&state) == ON) {
        orri_share_ask();
        wait_while(&has_turn, 0, IDLE_MS);
    }
}

CUresult orri_share_ready(CUcontext ctx, CUdevice device)
{
    CUresult rc = CUDA_SUCCESS;
    if (!orri_share_is_on())
        return CUDA_SUCCESS;
    pthread_mutex_lock(&join_lock);
    if (atomic_load(&state) == NEW)
        rc = join(device);
    else if (atomic_load(&state) == REFUSED)
        rc = CUDA_ERROR_OPERATING_SYSTEM;
    if (!rc) {
        await_first_turn();
        if (!orri_share.ctx && device == orri_share.device)
            rc = serve(ctx);
    }
    pthread_mutex_unlock(&join_lock);
    return rc;
}

bool orri_share_serves(CUcontext ctx)
{
    return atomic_load(&state) == ON && ctx == orri_share.ctx;
}

void orri_share_context_gone(CUcontext ctx)
{
    if (!ctx || ctx != orri_share.ctx)
        return;
    orri_hasher_forget(&orri_share.hasher);
    orri_share.ctx = NULL;
    orri_share.stream = NULL;
}

/* The child has neither the thread nor the mapping, and CUDA does not work there. */
void orri_share_in_child(void)
{
    if (atomic_load(&state) == ON)
        atomic_store(&state, REFUSED);
    pthread_mutex_init(&join_lock, NULL);
}

/* Gives up the turn, and has it again, after all others that want it. */
static void yield(uint64_t deadline_ms)
{
    struct orri_meet *m = &orri_share.meet;
    const uint32_t before = atomic_load(&n_turns);
    atomic_store(&has_yielded, 1);
    orri_meet_lock(m); /* the thread of turns looks */
    atomic_fetch_add(&m->board->moved, 1);
    orri_meet_unlock(m);
    while (atomic_load(&n_turns) == before && orri_cuda_now_ms() < deadline_ms) {
        orri_share_ask();
        wait_while(&n_turns, before, LOOK_MS);
    }
}

static bool is_any_private(void)
{
    struct orri_meet *m = &orri_share.meet;
    orri_meet_lock(m);
    m->board->is_tight = 1;
    bool is_any = orri_board_is_any_private(m->board);
    orri_meet_unlock(m);
    return is_any;
}

bool orri_share_make_room(uint32_t call)
{
    const uint64_t deadline_ms = orri_cuda_now_ms() + ROOM_MS;
    if (atomic_load(&state) != ON || orri_cuda_self.depth != 1 || !is_any_private())
        return false;
    orri_cuda_leave();
    while (is_any_private() && orri_cuda_now_ms() < deadline_ms)
        yield(deadline_ms);
    orri_cuda_enter_at(call, NULL);
    return true;
}

void orri_share_get_counts(struct orri_share_counts *ret)
{
    *ret = orri_share.counts;
    ret->common = ret->private = 0;
    pthread_mutex_lock(&orri_share.lock);
    for (const struct orri_shared *s = orri_share.list; s; s = s->next)
        for (uint32_t i = 0; i < s->n; i++)
            *(s->piece[i].own ? &ret->private : &ret->common) += 1;
    pthread_mutex_unlock(&orri_share.lock);
}
