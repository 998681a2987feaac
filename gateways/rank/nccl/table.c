/* SPDX-License-Identifier: Apache-2.0
 * table.c - the slots of virtual communicators, and who may use the real ones just now (comm.h).
 */
#include "comm.h"

#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct orri_comm orri_comms[ORRI_COMMS_MAX];
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;

struct orri_comm *orri_comm_get(ncclComm_t handle)
{
    struct orri_comm *c = orri_comm_find(handle);

    if (!c)
        orri_nccl_fail(ncclInvalidArgument,
                       "comm %p is not a communicator, or was destroyed",
                       (void *)handle);
    return c;
}

struct orri_comm *orri_comm_new(uint64_t key, int n, int me)
{
    struct orri_comm *c = NULL;
    uint32_t generation;

    pthread_mutex_lock(&table_lock);
    for (int i = 0; i < ORRI_COMMS_MAX && !c; i++)
        if (!orri_comms[i].is_used)
            c = &orri_comms[i];
    if (c) {
        generation = c->generation;
        memset(c, 0, sizeof *c);
        c->generation = generation;
        c->is_used = true;
    }
    pthread_mutex_unlock(&table_lock);
    if (!c) {
        orri_nccl_fail(ncclInternalError,
                       "more than %d communicators: destroy some",
                       (int)ORRI_COMMS_MAX);
        return NULL;
    }
    pthread_mutex_init(&c->lock, NULL);
    c->key = key;
    c->me = me;
    c->device = -1;
    atomic_store(&c->n, n);
    orri_ctx_get(&c->ctx);
    orri_nccl_register();
    if (n > 0)
        c->clock =
            orri_clock_get(key, (uint32_t)me, (uint32_t)n, ORR_CLOCK_COLLECTIVE, 0);
    return c;
}

ncclComm_t orri_comm_publish(struct orri_comm *c)
{
    uint64_t h;

    c->generation++;
    h = ORRI_HANDLE_TAG << 48 | (uint64_t)c->generation << 16 |
        (uint64_t)(c - orri_comms);
    atomic_store(&c->handle, h); /* pairs with the acquire in orri_comm_find */
    return (ncclComm_t)(uintptr_t)h;
}

/* ---- What is gone: others may still have it, and must not wait for us when it is made anew. */

static uint64_t gone[ORRI_GONE_MAX]; /* guarded by table_lock; a ring */
static uint32_t ngone;               /* all since clear */

void orri_gone_add(uint64_t key)
{
    pthread_mutex_lock(&table_lock);
    gone[ngone++ % ORRI_GONE_MAX] = key;
    pthread_mutex_unlock(&table_lock);
}

uint32_t orri_gone_list(uint64_t *keys, uint32_t cap)
{
    uint32_t n;

    pthread_mutex_lock(&table_lock);
    n = ngone < ORRI_GONE_MAX ? ngone : ORRI_GONE_MAX;
    n = n < cap ? n : cap;
    for (uint32_t i = 0; i < n; i++)
        keys[i] = gone[(ngone - 1 - i) % ORRI_GONE_MAX];
    pthread_mutex_unlock(&table_lock);
    return n;
}

void orri_gone_clear(void)
{
    pthread_mutex_lock(&table_lock);
    ngone = 0;
    pthread_mutex_unlock(&table_lock);
}

void orri_comm_lose(struct orri_comm *c, ncclResult_t code, const char *text)
{
    c->lost_code = code;
    snprintf(c->lost_text, sizeof c->lost_text, "%s", text);
    c->is_stopped = false;
    orri_gone_add(c->key);
    if (c->clock)
        orri_clock_over(c->key, (uint32_t)c->me);
    atomic_store(&c->is_lost, true); /* pairs with the loads before lost_code is read */
}

static ncclResult_t lost(struct orri_comm *c)
{
    atomic_store(&c->is_told, true);
    return orri_nccl_fail(c->lost_code, "%s", c->lost_text);
}

ncclResult_t orri_comm_real(struct orri_comm *c, ncclComm_t *ret_real)
{
    *ret_real = atomic_load(&c->real);
    if (atomic_load(&c->is_lost))
        return lost(c);
    if (!*ret_real && c->is_stopped && !atomic_load(&c->splice))
        return orri_nccl_fail(ncclRemoteError,
                              "the communicator could not be made anew after a stop");
    return ncclSuccess;
}

bool orri_comm_forget(struct orri_comm *c, ncclComm_t handle)
{
    uint64_t h = (uint64_t)(uintptr_t)handle;

    if (!atomic_compare_exchange_strong(&c->handle, &h, 0))
        return false;
    if (c->clock)
        orri_clock_over(c->key, (uint32_t)c->me);
    return true;
}

static void drop_contents(struct orri_comm *c)
{
    free(atomic_exchange(&c->pair, NULL));
    for (unsigned i = 0; i < c->nredops; i++)
        free(c->redops[i]);
    free(c->redops);
    c->redops = NULL;
    c->nredops = 0;
    while (c->buffers) {
        struct orri_buffer *b = c->buffers;
        c->buffers = b->next;
        free(b);
    }
}

/* When there are more than fit, the oldest cannot be made anew any more. */
static void forget_oldest(void)
{
    struct orri_comm *oldest = NULL;
    int n = 0;

    pthread_mutex_lock(&table_lock);
    for (int i = 0; i < ORRI_COMMS_MAX; i++) {
        struct orri_comm *c = &orri_comms[i];
        if (!c->is_used || !c->destroyed)
            continue;
        n++;
        if (!oldest || c->destroyed < oldest->destroyed)
            oldest = c;
    }
    if (n <= ORRI_LEFT_MAX)
        oldest = NULL;
    else
        oldest->destroyed = 0; /* it is ours now */
    pthread_mutex_unlock(&table_lock);
    if (!oldest)
        return;
    orri_gone_add(oldest->key);
    orri_comm_free(oldest);
}

void orri_comm_retire(struct orri_comm *c)
{
    static uint64_t ndestroyed; /* guarded by table_lock */
    int n = atomic_load(&c->n);

    if (atomic_load(&c->is_lost) || n == 1) {
        orri_comm_free(c);
    } else if (!c->clock || c->device < 0) { /* it was never ready */
        orri_gone_add(c->key);
        orri_comm_free(c);
    } else {
        drop_contents(c);
        pthread_mutex_lock(&table_lock);
        c->destroyed = ++ndestroyed;
        pthread_mutex_unlock(&table_lock);
        forget_oldest();
    }
}

void orri_comm_free(struct orri_comm *c)
{
    if (c->is_retained)
        orri_ctx_release(c->device);
    drop_contents(c);
    pthread_mutex_destroy(&c->lock);
    pthread_mutex_lock(&table_lock);
    c->destroyed = 0;
    c->is_used = false;
    pthread_mutex_unlock(&table_lock);
}

void orri_comm_know(struct orri_comm *c, int n, int me)
{
    pthread_mutex_lock(&c->lock);
    if (atomic_load(&c->n) == 0) {
        c->me = me;
        c->clock =
            orri_clock_get(c->key, (uint32_t)me, (uint32_t)n, ORR_CLOCK_COLLECTIVE, 0);
        atomic_store(&c->n, n);
    }
    pthread_mutex_unlock(&c->lock);
}

ncclResult_t orri_comm_settle(struct orri_comm *c)
{
    ncclComm_t real = atomic_load(&c->real);
    ncclResult_t result = ncclSuccess;
    int n = atomic_load(&c->n), me = c->me;

    if (atomic_load(&c->splice))
        return ncclSuccess; /* it knows */
    if (!real)
        return ncclInvalidArgument;
    if (n == 0)
        result = REAL(CommCount, real, &n);
    if (result == ncclSuccess && atomic_load(&c->n) == 0)
        result = REAL(CommUserRank, real, &me);
    if (result == ncclSuccess && c->device < 0)
        result = REAL(CommCuDevice, real, &c->device);
    if (result != ncclSuccess)
        return result;
    orri_comm_know(c, n, me);
    return ncclSuccess;
}

ncclResult_t orri_comm_check(struct orri_comm *c)
{
    if (atomic_load(&c->is_lost))
        return lost(c);
    if (atomic_load(&c->is_finalized))
        return orri_nccl_fail(ncclInvalidUsage, "the communicator is finalized");
    if (atomic_load_explicit(&c->n, memory_order_acquire) == 0) {
        ncclResult_t result;
        orri_use_begin();
        result = orri_comm_settle(c);
        orri_use_end();
        return result;
    }
    return ncclSuccess;
}

struct orri_clock *
orri_comm_pair(struct orri_comm *c, enum orr_clock_kind kind, int peer)
{
    uint32_t n = (uint32_t)atomic_load(&c->n);
    struct orri_clock **pair = atomic_load(&c->pair), **slot;

    if (!pair) {
        pthread_mutex_lock(&c->lock);
        pair = atomic_load(&c->pair);
        if (!pair) {
            pair = calloc(2 * (size_t)n, sizeof(struct orri_clock *));
            atomic_store(&c->pair, pair);
        }
        pthread_mutex_unlock(&c->lock);
    }
    if (!pair)
        return NULL;
    slot = &pair[(kind == ORR_CLOCK_RECV ? n : 0) + (uint32_t)peer];
    if (!*slot) /* two threads find the same one */
        *slot = orri_clock_get(c->key, (uint32_t)c->me, n, kind, (uint32_t)peer);
    return *slot;
}

/* ---- Uses ---------------------------------------------------------------------------
 * A word counts the calls in progress; its top bit says that none may begin.
 */

static const uint32_t CLOSED = 1u << 31;
static _Atomic uint32_t uses, leaving;

uint64_t orri_nccl_now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void sleep_on(_Atomic uint32_t *word, uint32_t seen, uint64_t deadline_ms)
{
    struct timespec until = {.tv_sec = (time_t)(deadline_ms / 1000),
                             .tv_nsec = (long)(deadline_ms % 1000) * 1000000};

    syscall(SYS_futex,
            word,
            FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG,
            seen,
            deadline_ms ? &until : NULL,
            NULL,
            FUTEX_BITSET_MATCH_ANY);
}

static void wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT_MAX, NULL, NULL, 0);
}

bool orri_use_try(void)
{
    uint32_t seen = atomic_fetch_add(&uses, 1);

    if (!(seen & CLOSED))
        return true;
    orri_use_end();
    return false;
}

void orri_use_begin(void)
{
    while (!orri_use_try()) {
        uint32_t seen = atomic_load(&uses);
        if (seen &
            CLOSED) /* a resume is the program's to wait for: no deadline of ours */
            sleep_on(&uses, seen, 0);
    }
}

void orri_use_end(void)
{
    if (atomic_fetch_sub(&uses, 1) == (CLOSED | 1u))
        wake(&uses);
}

bool orri_use_close(uint64_t deadline_ms)
{
    uint32_t seen;

    atomic_fetch_or(&uses, CLOSED);
    while ((seen = atomic_load(&uses)) != CLOSED) {
        if (orri_nccl_now_ms() >= deadline_ms)
            return false;
        sleep_on(&uses, seen, deadline_ms);
    }
    return true;
}

void orri_use_open(void)
{
    atomic_fetch_and(&uses, ~CLOSED);
    wake(&uses);
}

void orri_leave_begin(void)
{
    atomic_fetch_add(&leaving, 1);
}

void orri_leave_end(void)
{
    if (atomic_fetch_sub(&leaving, 1) == 1)
        wake(&leaving);
}

bool orri_leave_await(uint64_t deadline_ms)
{
    uint32_t seen;

    while ((seen = atomic_load(&leaving)) != 0) {
        if (orri_nccl_now_ms() >= deadline_ms)
            return false;
        sleep_on(&leaving, seen, deadline_ms);
    }
    return true;
}
