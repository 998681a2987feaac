/* SPDX-License-Identifier: Apache-2.0
 * loop.c - the edge's one thread: wait for sockets and for time, bring processes up to date, judge, tell.
 */
#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "edge.h"

enum {
    EVENTS_MAX = 64,
    STEP_MS =
        50, /* a step is under way: what was not said for want of room is said again, deadlines are kept */
    WATCH_MS = 1000, /* clock pages */
    HELLO_MS = 10000,
};

void orri_edge_wake_up(struct orr_rank_edge *edge)
{
    uint64_t one = 1;
    ssize_t n = write(edge->wake_fd, &one, sizeof one);
    (void)n; /* full: it will wake anyway */
}

static void handle(struct orr_rank_edge *edge, struct orri_source *source)
{
    uint64_t wakes;
    ssize_t n = 0;
    switch (source->kind) {
    case ORRI_SOURCE_WAKE:
        n = read(edge->wake_fd, &wakes, sizeof wakes);
        break;
    case ORRI_SOURCE_LISTENER: {
        struct orri_rank *rank = (struct orri_rank *)(void *)source;
        if (rank->listener >= 0)
            orri_rank_accept(edge, rank);
        break;
    }
    case ORRI_SOURCE_PROC: {
        struct orri_proc *proc = (struct orri_proc *)(void *)source;
        if (proc->sock >= 0)
            orri_proc_read(edge, proc);
        break;
    }
    }
    (void)n;
}

/* Who has connected and does not say who it is. */
static void drop_silent(struct orr_rank_edge *edge, struct orri_rank *rank)
{
    struct orri_proc *next;
    for (struct orri_proc *p = rank->procs; p; p = next) {
        next = p->next;
        if (p->process == 0 && !p->is_expected &&
            edge->now_ms >= p->accepted_ms + HELLO_MS)
            orri_proc_free(edge, p);
    }
}

static bool is_working(const struct orri_gen *gen)
{
    return gen->step != ORR_CUT_NONE &&
           (gen->state == ORR_STEP_WORKING || gen->step <= ORR_CUT_TARGETS);
}

static void tend(struct orr_rank_edge *edge, struct orri_gen *gen)
{
    for (struct orri_rank *rank = gen->ranks; rank; rank = rank->next) {
        drop_silent(edge, rank);
        for (struct orri_proc *p = rank->procs; p; p = p->next)
            orri_proc_drive(edge, p);
    }
    gen->is_touched = false;
    orri_gen_judge(edge, gen);
    orri_gen_tell(edge, gen);
}

static void look_after(struct orr_rank_edge *edge, uint64_t *watch_ms)
{
    bool is_watch = edge->now_ms >= *watch_ms;
    for (struct orri_gen *gen = edge->gens; gen; gen = gen->next) {
        if (is_watch || gen->is_touched || gen->report_due || is_working(gen))
            tend(edge, gen);
        if (is_watch) {
            orri_gen_watch(edge, gen);
            for (struct orri_rank *rank = gen->ranks; rank; rank = rank->next)
                orri_rank_keep_shown(edge, rank);
        }
    }
    if (is_watch)
        *watch_ms = edge->now_ms + WATCH_MS;
}

static int timeout_of(const struct orr_rank_edge *edge, uint64_t watch_ms)
{
    for (const struct orri_gen *gen = edge->gens; gen; gen = gen->next)
        if (is_working(gen) || gen->report_due || gen->is_touched)
            return STEP_MS;
    return watch_ms > edge->now_ms ? (int)(watch_ms - edge->now_ms) : 0;
}

void *orri_edge_loop(void *arg)
{
    struct orr_rank_edge *edge = arg;
    struct epoll_event events[EVENTS_MAX];
    uint64_t watch_ms = 0;
    int timeout_ms = 0;
    for (;;) {
        int n = epoll_wait(edge->epoll_fd, events, EVENTS_MAX, timeout_ms);
        pthread_mutex_lock(&edge->lock);
        edge->now_ms = orri_edge_now();
        for (int i = 0; i < n; i++)
            handle(edge, events[i].data.ptr);
        look_after(edge, &watch_ms);
        orri_edge_bury(edge);
        timeout_ms = timeout_of(edge, watch_ms);
        bool is_closing = edge->is_closing;
        pthread_mutex_unlock(&edge->lock);
        if (is_closing)
            return NULL;
    }
}
