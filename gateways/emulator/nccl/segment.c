/* SPDX-License-Identifier: Apache-2.0
 * segment.c - shared memory of a communicator (segment.h).
 *
 * A lane's word is its step number times two, plus GONE once any rank is gone: the bit
 * lives in the word that waiters sleep on, so that none can miss it. A step that is
 * complete counts as met even if somebody left right after it.
 */
#include "segment.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { GONE = 1, STEP = 2 };

struct lane {
    _Alignas(64) _Atomic uint32_t word;
    _Alignas(64) _Atomic uint32_t arrived;
};

struct seat {
    _Alignas(64) _Atomic uint32_t state;
    _Atomic uint32_t doorbell;
    struct orri_intent intent[LANE_MAX_][2];
    char control[2][ORRI_CONTROL_BYTES];
};

struct orri_shared {
    struct lane lane[LANE_MAX_];
    _Alignas(64) _Atomic uint32_t gone; /* ranks that are not HERE */
    struct seat seat[];
    /* then, page aligned: nranks x 2 halves, nranks x nranks pipes */
};

static size_t page_up(size_t n)
{
    return (n + 4095) & ~(size_t)4095;
}

static size_t halves_at(int nranks)
{
    return page_up(sizeof(struct orri_shared) + (size_t)nranks * sizeof(struct seat));
}

static size_t pipes_at(int nranks)
{
    return halves_at(nranks) + (size_t)nranks * 2 * ORRI_HALF_BYTES;
}

size_t orri_segment_bytes(int nranks)
{
    return pipes_at(nranks) +
           (size_t)nranks * (size_t)nranks * sizeof(struct orri_pipe);
}

int orri_segment_map(struct orri_segment *seg, int fd, int nranks, int rank)
{
    size_t bytes = orri_segment_bytes(nranks);
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (at == MAP_FAILED)
        return -errno;
    *seg = (struct orri_segment){
        .shared = at, .bytes = bytes, .nranks = nranks, .rank = rank};
    return 0;
}

void orri_segment_unmap(struct orri_segment *seg)
{
    if (seg->shared)
        munmap(seg->shared, seg->bytes);
    seg->shared = NULL;
}

uint64_t orri_now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Shared between processes, hence no FUTEX_PRIVATE_FLAG. deadline_ms 0: none. */
static void futex_wait(_Atomic uint32_t *word, uint32_t seen, uint64_t deadline_ms)
{
    struct timespec until = {.tv_sec = (time_t)(deadline_ms / 1000),
                             .tv_nsec = (long)(deadline_ms % 1000) * 1000000};

    syscall(SYS_futex,
            word,
            FUTEX_WAIT_BITSET,
            seen,
            deadline_ms ? &until : NULL,
            NULL,
            FUTEX_BITSET_MATCH_ANY);
}

static void futex_wake_all(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

char *orri_lane_half(struct orri_segment *seg, enum orri_lane_id lane, int rank)
{
    uint32_t half = seg->step[lane] & 1;

    if (lane == LANE_CONTROL)
        return seg->shared->seat[rank].control[half];
    return (char *)seg->shared + halves_at(seg->nranks) +
           ((size_t)rank * 2 + half) * ORRI_HALF_BYTES;
}

struct orri_intent *
orri_lane_intent(struct orri_segment *seg, enum orri_lane_id lane, int rank)
{
    return &seg->shared->seat[rank].intent[lane][seg->step[lane] & 1];
}

enum orri_wait
orri_lane_meet(struct orri_segment *seg, enum orri_lane_id lane, uint64_t deadline_ms)
{
    struct lane *l = &seg->shared->lane[lane];
    uint32_t word = atomic_load(&l->word), step = word & ~(uint32_t)GONE;

    if (atomic_fetch_add(&l->arrived, 1) + 1 == (uint32_t)seg->nranks) {
        atomic_store(&l->arrived, 0);
        atomic_fetch_add(&l->word, STEP);
        futex_wake_all(&l->word);
        return WAIT_OK;
    }
    while (((word = atomic_load(&l->word)) & ~(uint32_t)GONE) == step) {
        if (word & GONE)
            return WAIT_GONE;
        if (deadline_ms && orri_now_ms() >= deadline_ms)
            return WAIT_TIMEOUT;
        futex_wait(&l->word, word, deadline_ms);
    }
    return WAIT_OK;
}

void orri_lane_next(struct orri_segment *seg, enum orri_lane_id lane)
{
    seg->step[lane]++;
}

struct orri_pipe *orri_pipe_get(struct orri_segment *seg, int from, int to)
{
    char *pipes = (char *)seg->shared + pipes_at(seg->nranks);

    return (struct orri_pipe *)(void *)pipes + (size_t)from * (size_t)seg->nranks + to;
}

uint32_t orri_doorbell_read(struct orri_segment *seg)
{
    return atomic_load(&seg->shared->seat[seg->rank].doorbell);
}

void orri_doorbell_ring(struct orri_segment *seg, int rank)
{
    atomic_fetch_add(&seg->shared->seat[rank].doorbell, 1);
    futex_wake_all(&seg->shared->seat[rank].doorbell);
}

void orri_doorbell_wait(struct orri_segment *seg, uint32_t seen)
{
    futex_wait(&seg->shared->seat[seg->rank].doorbell, seen, 0);
}

enum orri_rank_state orri_rank_get(struct orri_segment *seg, int rank)
{
    return (enum orri_rank_state)atomic_load(&seg->shared->seat[rank].state);
}

bool orri_rank_mark(struct orri_segment *seg, int rank, enum orri_rank_state state)
{
    struct orri_shared *s = seg->shared;
    uint32_t here = RANK_HERE;

    if (!atomic_compare_exchange_strong(&s->seat[rank].state, &here, (uint32_t)state))
        return false;
    atomic_fetch_add(&s->gone, 1);
    for (int i = 0; i < LANE_MAX_; i++) {
        atomic_fetch_or(&s->lane[i].word, GONE);
        futex_wake_all(&s->lane[i].word);
    }
    for (int r = 0; r < seg->nranks; r++)
        orri_doorbell_ring(seg, r);
    return true;
}

int orri_rank_gone(struct orri_segment *seg)
{
    if (atomic_load(&seg->shared->gone) == 0)
        return -1;
    for (int r = 0; r < seg->nranks; r++)
        if (orri_rank_get(seg, r) != RANK_HERE)
            return r;
    return -1;
}

int orri_rank_lost(struct orri_segment *seg)
{
    enum orri_rank_state worst = RANK_LEFT;
    int lost = -1;

    if (atomic_load(&seg->shared->gone) == 0)
        return -1;
    for (int r = 0; r < seg->nranks; r++) {
        enum orri_rank_state state = orri_rank_get(seg, r);
        if (state > worst) {
            worst = state;
            lost = r;
        }
    }
    return lost;
}
