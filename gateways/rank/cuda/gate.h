/* SPDX-License-Identifier: Apache-2.0
 * gate.h - what every call passes on its way to the driver, so that a stop can hold all threads
 * back and know that none is inside.
 *
 *     orri_cuda_enter(CALL_x); ... the driver ...; orri_cuda_leave();
 *
 * Open, it costs a flag of the thread, a compiler barrier and one load: the fences are on the
 * closing side, which uses membarrier(2) after it closed, so that a thread either sees the gate
 * closed or is seen inside. The same on the way out: whoever leaves a closed gate wakes the
 * closer. Threads: any. A thread that is inside may enter again.
 *
 * Never held back: threads that are exempt (our own, and those that run a host function of a
 * stream), and calls that come from the driver or from NCCL's own library, whose threads must
 * end while its communicators are taken down at a cut.
 */
#ifndef ORR_RANK_CUDA_GATE_H
#define ORR_RANK_CUDA_GATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct orri_cuda_thread {
    _Atomic uint32_t is_inside; /* pairs with the closer's load after membarrier */
    uint32_t depth;
    uint32_t exempt;       /* > 0: the gate does not hold this thread */
    bool is_known;         /* in the closer's list */
    _Atomic uint32_t call; /* where it is, for messages */
    pid_t tid;
    struct orri_cuda_thread *next;
};

extern __thread struct orri_cuda_thread orri_cuda_self
    __attribute__((tls_model("initial-exec")));
extern _Atomic uint32_t orri_cuda_closed; /* a futex: 0 open, else why it is closed */

/* Why, each by itself. */
enum {
    ORRI_CLOSED_STOP = 1,
    ORRI_CLOSED_TURN = 2, /* the process has not got the turn (share/share.h) */
};

void orri_cuda_enter_slow(const void *caller);
void orri_cuda_left_closed(void);

static inline __attribute__((always_inline)) void orri_cuda_enter_at(uint32_t call,
                                                                     const void *caller)
{
    struct orri_cuda_thread *t = &orri_cuda_self;
    if (t->depth++ > 0)
        return;
    atomic_store_explicit(&t->call, call, memory_order_relaxed);
    atomic_store_explicit(&t->is_inside, 1, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
    if (__builtin_expect(
            !t->is_known ||
                atomic_load_explicit(&orri_cuda_closed, memory_order_relaxed) != 0,
            0))
        orri_cuda_enter_slow(caller);
}

static inline __attribute__((always_inline)) void orri_cuda_leave(void)
{
    struct orri_cuda_thread *t = &orri_cuda_self;
    if (--t->depth > 0)
        return;
    atomic_store_explicit(&t->is_inside, 0, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst);
    if (__builtin_expect(
            atomic_load_explicit(&orri_cuda_closed, memory_order_relaxed) != 0, 0))
        orri_cuda_left_closed();
}

#define orri_cuda_enter(call) orri_cuda_enter_at(call, __builtin_return_address(0))

static inline void orri_cuda_exempt_begin(void)
{
    orri_cuda_self.exempt++;
}

static inline void orri_cuda_exempt_end(void)
{
    orri_cuda_self.exempt--;
}

/* Close, and wait until nobody is inside. False when the deadline (CLOCK_MONOTONIC, ms) came
 * first: why names the thread and its call, and the gate is open again. */
bool orri_cuda_gate_close(uint64_t deadline_ms, char *why, size_t why_bytes);
void orri_cuda_gate_open(void);
/* The same, for a reason of its own: it is open when it is closed for none. */
bool orri_cuda_gate_close_for(uint32_t reason,
                              uint64_t deadline_ms,
                              char *why,
                              size_t why_bytes);
void orri_cuda_gate_open_for(uint32_t reason);
/* How many threads are inside now; of one of them *ret_call.  They may have left when it returns. */
uint32_t orri_cuda_gate_inside(const char **ret_call);
/* NULL, or why this process has no gate that can be relied on. */
const char *orri_cuda_gate_broken(void);

uint64_t orri_cuda_now_ms(void);

#endif
