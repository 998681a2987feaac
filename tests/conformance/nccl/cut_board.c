/* SPDX-License-Identifier: Apache-2.0
 * cut_board.c - see cut_board.h: its lock, and what the clocks say.
 */
#include "cut_board.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

uint64_t cut_now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void cut_lock(struct cut_board *b)
{
    if (pthread_mutex_lock(&b->lock) ==
        EOWNERDEAD) /* a rank was killed: that is some cases' point */
        pthread_mutex_consistent(&b->lock);
}

void cut_unlock(struct cut_board *b)
{
    pthread_mutex_unlock(&b->lock);
}

void cut_notify(struct cut_board *b)
{
    atomic_fetch_add(&b->turn, 1);
    syscall(SYS_futex, &b->turn, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

bool cut_wait(struct cut_board *b, uint64_t deadline_ms)
{
    struct timespec until = {.tv_sec = (time_t)(deadline_ms / 1000),
                             .tv_nsec = (long)(deadline_ms % 1000) * 1000000};
    uint32_t seen = atomic_load(&b->turn);

    cut_unlock(b);
    syscall(SYS_futex,
            &b->turn,
            FUTEX_WAIT_BITSET,
            seen,
            &until,
            NULL,
            FUTEX_BITSET_MATCH_ANY);
    cut_lock(b);
    return cut_now_ms() < deadline_ms;
}

/* Is `other` of the same order of operations? */
static bool is_member(const struct orri_clock *c, const struct orri_clock *other)
{
    if (c->comm != other->comm)
        return false;
    if (c->kind == ORR_CLOCK_COLLECTIVE)
        return other->kind == ORR_CLOCK_COLLECTIVE;
    return other->kind ==
               (c->kind == ORR_CLOCK_SEND ? ORR_CLOCK_RECV : ORR_CLOCK_SEND) &&
           other->me == c->peer && other->peer == c->me;
}

struct view {
    uint64_t target;
    uint32_t members;
    bool is_gone;
};

static struct view view_of(const struct cut_board *b, const struct orri_clock *c)
{
    struct view v = {.target = c->issued};

    for (int p = 0; p < CUT_PROCS; p++) {
        for (uint32_t i = 0; i < b->proc[p].nclocks; i++) {
            const struct orri_clock *o = &b->proc[p].clocks[i];
            if (o->comm == c->comm && b->proc[p].is_gone)
                v.is_gone = true;
            if (!is_member(c, o))
                continue;
            v.members++;
            if (o->issued > v.target)
                v.target = o->issued;
        }
    }
    return v;
}

bool cut_is_behind(const struct cut_board *b, const struct orri_clock *c)
{
    struct view v = view_of(b, c);

    if (c->is_over)
        return false;
    if (v.is_gone)
        return true;
    return c->issued < v.target;
}

bool cut_is_consistent(const struct cut_board *b)
{
    for (int p = 0; p < CUT_PROCS; p++) {
        for (uint32_t i = 0; i < b->proc[p].nclocks; i++) {
            const struct orri_clock *c = &b->proc[p].clocks[i];
            struct view v = view_of(b, c);
            uint32_t want = c->kind == ORR_CLOCK_COLLECTIVE ? c->n : 1;
            if (b->proc[p].is_gone)
                continue;
            if (c->is_over)
                continue;
            if (v.is_gone ||
                (v.target > 0 && (c->issued < v.target || v.members < want)))
                return false;
        }
        if (b->proc[p].is_here && !b->proc[p].is_gone && b->proc[p].inside > 0)
            return false;
    }
    return true;
}
