/* SPDX-License-Identifier: Apache-2.0
 * gate.c - the slow half of gate.h: the list of threads, waiting, waking.
 */
#include "gate.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "memory.h"
#include "real.h"
#include "share/share.h"

__thread struct orri_cuda_thread orri_cuda_self
    __attribute__((tls_model("initial-exec")));
_Atomic uint32_t orri_cuda_closed;

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the list */
static struct orri_cuda_thread *threads;
static _Atomic uint32_t n_left; /* a futex: moves when a thread leaves a closed gate */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t at_thread_end;
static const char *broken;

uint64_t orri_cuda_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Wait while *word is value; at most ms (< 0: for ever). */
static void futex_wait(_Atomic uint32_t *word, uint32_t value, int64_t ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, ms < 0 ? NULL : &t, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

/* ---- threads ----------------------------------------------------------------------- */

static void forget(void *thread)
{
    pthread_mutex_lock(&list_lock);
    struct orri_cuda_thread **at = &threads;
    while (*at && *at != thread)
        at = &(*at)->next;
    if (*at)
        *at = (*at)->next;
    pthread_mutex_unlock(&list_lock);
    orri_cuda_self.is_known = false;
}

/* The child has one thread, and nothing that could be stopped. */
static void on_fork_child(void)
{
    pthread_mutex_init(&list_lock, NULL);
    pthread_mutex_init(&orri_cuda_lock, NULL); /* another thread may have held it */
    threads = orri_cuda_self.is_known ? &orri_cuda_self : NULL;
    orri_cuda_self.next = NULL;
    atomic_store_explicit(&orri_cuda_closed, 0, memory_order_relaxed);
    orri_share_in_child();
}

static void start(void)
{
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0)
        broken = "a kernel without membarrier(2)";
    else if (pthread_key_create(&at_thread_end, forget) != 0)
        broken = "too many thread-specific keys";
    else if (pthread_atfork(NULL, NULL, on_fork_child) != 0)
        broken = "out of memory";
}

const char *orri_cuda_gate_broken(void)
{
    pthread_once(&once, start);
    return broken;
}

static void remember(struct orri_cuda_thread *t)
{
    if (orri_cuda_gate_broken())
        return;
    t->tid = (pid_t)syscall(SYS_gettid);
    pthread_setspecific(at_thread_end, t);
    pthread_mutex_lock(&list_lock);
    t->next = threads;
    threads = t;
    t->is_known = true;
    pthread_mutex_unlock(&list_lock);
}

/* NCCL's library, or the driver, which may call itself by its exported names. Asked only while the
 * gate is closed. */
static bool is_from_library(const void *caller)
{
    Dl_info info;
    if (!caller || !dladdr(caller, &info) || !info.dli_fname)
        return false;
    if (orri_cuda_is_driver(info.dli_fbase))
        return true;
    const char *slash = strrchr(info.dli_fname, '/');
    return strncmp(slash ? slash + 1 : info.dli_fname, "libnccl", 7) == 0;
}

void orri_cuda_enter_slow(const void *caller)
{
    struct orri_cuda_thread *t = &orri_cuda_self;
    for (;;) {
        atomic_store_explicit(&t->is_inside, 0, memory_order_release);
        if (!t->is_known)
            remember(t);
        uint32_t closed = atomic_load_explicit(&orri_cuda_closed, memory_order_acquire);
        if (closed != 0) {
            if (t->exempt || is_from_library(caller))
                return; /* passes, and nobody waits for it */
            orri_cuda_left_closed();
            if (closed & ORRI_CLOSED_TURN)
                orri_share_ask();
            /* whoever closes opens, by deadline; or when the turn has come */
            futex_wait(&orri_cuda_closed, closed, -1);
            continue;
        }
        atomic_store_explicit(&t->is_inside, 1, memory_order_relaxed);
        atomic_signal_fence(memory_order_seq_cst);
        if (atomic_load_explicit(&orri_cuda_closed, memory_order_relaxed) == 0)
            return;
    }
}

void orri_cuda_left_closed(void)
{
    atomic_fetch_add_explicit(&n_left, 1, memory_order_release);
    futex_wake(&n_left);
}

/* ---- closing ------------------------------------------------------------------------- */

/* The first thread that is still inside; with list_lock. */
static const struct orri_cuda_thread *anyone_inside(void)
{
    for (const struct orri_cuda_thread *t = threads; t; t = t->next)
        if (t != &orri_cuda_self &&
            atomic_load_explicit(&t->is_inside, memory_order_acquire))
            return t;
    return NULL;
}

bool orri_cuda_gate_close(uint64_t deadline_ms, char *why, size_t why_bytes)
{
    return orri_cuda_gate_close_for(ORRI_CLOSED_STOP, deadline_ms, why, why_bytes);
}

void orri_cuda_gate_open(void)
{
    orri_cuda_gate_open_for(ORRI_CLOSED_STOP);
}

bool orri_cuda_gate_close_for(uint32_t reason,
                              uint64_t deadline_ms,
                              char *why,
                              size_t why_bytes)
{
    if (orri_cuda_gate_broken()) {
        snprintf(why, why_bytes, "%s", broken);
        return false;
    }
    atomic_fetch_or_explicit(&orri_cuda_closed, reason, memory_order_seq_cst);
    syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
    for (;;) {
        uint32_t seen = atomic_load_explicit(&n_left, memory_order_acquire);
        uint64_t now = orri_cuda_now_ms();
        pthread_mutex_lock(
            &list_lock); /* a thread that ends waits for us: look, no more */
        const struct orri_cuda_thread *t = anyone_inside();
        if (t && now >= deadline_ms)
            snprintf(why,
                     why_bytes,
                     "thread %d has not come back from %s",
                     (int)t->tid,
                     orri_cuda_call_name(
                         atomic_load_explicit(&t->call, memory_order_relaxed)));
        pthread_mutex_unlock(&list_lock);
        if (!t)
            return true;
        if (now >= deadline_ms)
            break;
        futex_wait(&n_left, seen, (int64_t)(deadline_ms - now));
    }
    orri_cuda_gate_open_for(reason);
    return false;
}

void orri_cuda_gate_open_for(uint32_t reason)
{
    atomic_fetch_and_explicit(&orri_cuda_closed, ~reason, memory_order_seq_cst);
    futex_wake(&orri_cuda_closed);
}

uint32_t orri_cuda_gate_inside(const char **ret_call)
{
    uint32_t n = 0;
    pthread_mutex_lock(&list_lock);
    for (const struct orri_cuda_thread *t = threads; t; t = t->next)
        if (t != &orri_cuda_self &&
            atomic_load_explicit(&t->is_inside, memory_order_acquire)) {
            *ret_call = orri_cuda_call_name(
                atomic_load_explicit(&t->call, memory_order_relaxed));
            n++;
        }
    pthread_mutex_unlock(&list_lock);
    return n;
}
