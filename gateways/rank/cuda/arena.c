/* SPDX-License-Identifier: Apache-2.0
 * arena.c - see arena.h. Threads take pieces from one list. A piece of the arena is pinned while it
 * is copied, so that the device writes to it directly; without (a limit of locked memory) the
 * driver goes by a buffer of its own, which is slower and as right.
 */
#include "arena.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "../core/thread.h"
#include "gate.h"

enum { THREADS_MAX = 8 };
static const uint64_t piece_bytes = 16 << 20;
static const uint64_t pinned_bytes_min =
    1 << 20; /* pinning less costs more than it saves */

struct run {
    const struct orri_copies *copies;
    bool is_out;
    uint64_t deadline_ms;
    _Atomic size_t next;
    _Atomic int rc; /* the first error; ends the others */
};

bool orri_copies_add(struct orri_copies *c, struct orri_copy copy)
{
    while (copy.bytes > 0) {
        if (c->n == c->cap) {
            size_t cap = c->cap ? 2 * c->cap : 64;
            struct orri_copy *items = realloc(c->items, cap * sizeof *items);
            if (!items)
                return false;
            c->items = items;
            c->cap = cap;
        }
        struct orri_copy *piece = &c->items[c->n++];
        *piece = copy;
        piece->bytes = copy.bytes < piece_bytes ? copy.bytes : piece_bytes;
        copy.device += piece->bytes;
        copy.host += piece->bytes;
        copy.bytes -= piece->bytes;
    }
    return true;
}

void orri_copies_fini(struct orri_copies *c)
{
    free(c->items);
    *c = (struct orri_copies){0};
}

/* A stream of the thread's own, in the context of the piece at hand. */
struct lane {
    CUcontext ctx;
    CUstream stream;
};

static void lane_close(struct lane *l)
{
    if (l->ctx)
        REAL(cuStreamDestroy)(l->stream);
    l->ctx = NULL;
}

static CUresult lane_enter(struct lane *l, CUcontext ctx)
{
    if (l->ctx == ctx)
        return CUDA_SUCCESS;
    lane_close(l);
    CUresult rc = REAL(cuCtxSetCurrent)(ctx);
    if (!rc)
        rc = REAL(cuStreamCreate)(&l->stream, CU_STREAM_NON_BLOCKING);
    if (!rc)
        l->ctx = ctx;
    return rc;
}

static CUresult copy_one(struct lane *l, const struct orri_copy *c, bool is_out)
{
    CUresult rc = lane_enter(l, c->ctx);
    if (rc)
        return rc;
    bool is_pinned = c->bytes >= pinned_bytes_min &&
                     REAL(cuMemHostRegister)(c->host, c->bytes, 0) == CUDA_SUCCESS;
    rc = is_out ? REAL(cuMemcpyDtoHAsync)(c->host, c->device, c->bytes, l->stream)
                : REAL(cuMemcpyHtoDAsync)(c->device, c->host, c->bytes, l->stream);
    CUresult done = REAL(cuStreamSynchronize)(l->stream);
    if (is_pinned)
        REAL(cuMemHostUnregister)(c->host);
    return rc ? rc : done;
}

static void *work(void *arg)
{
    struct run *run = arg;
    struct lane lane = {0};
    orri_cuda_exempt_begin();
    for (;;) {
        size_t i = atomic_fetch_add(&run->next, 1);
        if (i >= run->copies->n || atomic_load(&run->rc) != CUDA_SUCCESS)
            break;
        CUresult rc = orri_cuda_now_ms() < run->deadline_ms
                          ? copy_one(&lane, &run->copies->items[i], run->is_out)
                          : CUDA_ERROR_TIMEOUT;
        int none = CUDA_SUCCESS;
        if (rc)
            atomic_compare_exchange_strong(&run->rc, &none, (int)rc);
    }
    lane_close(&lane);
    return NULL;
}

/* In a thread of its own, even the first: the caller's current context stays as it is. */
static size_t thread_count(size_t n_pieces)
{
    cpu_set_t set;
    size_t n =
        sched_getaffinity(0, sizeof set, &set) == 0 ? (size_t)CPU_COUNT(&set) : 1;
    n = n > THREADS_MAX ? THREADS_MAX : n;
    return n > n_pieces ? n_pieces : n;
}

CUresult orri_copies_run(const struct orri_copies *c, bool is_out, uint64_t deadline_ms)
{
    struct run run = {.copies = c, .is_out = is_out, .deadline_ms = deadline_ms};
    pthread_t threads[THREADS_MAX];
    size_t wanted = thread_count(c->n), n = 0;
    while (n < wanted && orri_thread_start(&threads[n], work, &run))
        n++;
    if (wanted && n == 0)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (size_t i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    return (CUresult)atomic_load(&run.rc);
}
