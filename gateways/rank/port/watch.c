/* SPDX-License-Identifier: Apache-2.0
 * watch.c - ranks that issue nothing, seen from their clock pages without asking them.
 *
 * The page is read with pread and checked as it is read: a rank can lie about its own clocks, and no more.
 */
#include <unistd.h>

#include "edge.h"

enum { TELL_MS = 5000, ROWS_MAX = ORR_LIST_MAX };

/* Under the edge's lock; too large for the stack. */
static struct {
    struct orri_page page;
    struct orr_rec_clock rows[ROWS_MAX];
    uint32_t n;
} scratch;

static uint32_t read_page(int fd)
{
    ssize_t n = pread(fd, &scratch.page, sizeof scratch.page, 0);
    if (n < (ssize_t)offsetof(struct orri_page, clocks) ||
        scratch.page.magic != ORRI_PAGE_MAGIC)
        return 0;
    uint32_t got = (uint32_t)(((size_t)n - offsetof(struct orri_page, clocks)) /
                              sizeof scratch.page.clocks[0]);
    uint32_t said = atomic_load_explicit(&scratch.page.n, memory_order_relaxed);
    return said < got ? said : got;
}

/* Adds the rank's clocks; true: it has issued something at some time, and nothing for idle_ms. */
static bool is_idle(struct orr_rank_edge *edge, const struct orri_rank *rank)
{
    uint64_t newest_ms = 0;
    uint32_t before = scratch.n;
    for (const struct orri_proc *p = rank->procs; p; p = p->next) {
        uint32_t n = p->page_fd < 0 ? 0 : read_page(p->page_fd);
        for (uint32_t i = 0; i < n && scratch.n < ROWS_MAX; i++) {
            const struct orri_clock *c = &scratch.page.clocks[i];
            uint64_t then_ms =
                atomic_load_explicit(&c->issued_ms, memory_order_relaxed);
            if (then_ms > edge->now_ms)
                then_ms = edge->now_ms;
            if (c->is_over)
                continue;
            if (then_ms > newest_ms)
                newest_ms = then_ms;
            scratch.rows[scratch.n++] = (struct orr_rec_clock){
                .rank = rank->rank,
                .comm = c->comm,
                .kind = c->kind,
                .me = c->me,
                .peer = c->peer,
                .n = c->n,
                .issued = atomic_load_explicit(&c->issued, memory_order_relaxed),
                .op = atomic_load_explicit(&c->op, memory_order_relaxed),
                .idle_ms = then_ms ? edge->now_ms - then_ms : 0,
            };
        }
    }
    if (newest_ms && edge->now_ms - newest_ms >= edge->idle_ms)
        return true;
    scratch.n = before;
    return false;
}

void orri_gen_watch(struct orr_rank_edge *edge, struct orri_gen *gen)
{
    bool is_cutting = gen->step != ORR_CUT_NONE && gen->step != ORR_CUT_OPEN &&
                      !(gen->step == ORR_CUT_RESUME && gen->state == ORR_STEP_DONE);
    uint32_t n_idle = 0;
    if (!edge->has_sink || is_cutting || edge->now_ms < gen->idle_told_ms + TELL_MS)
        return;
    scratch.n = 0;
    for (const struct orri_rank *rank = gen->ranks; rank; rank = rank->next)
        n_idle += is_idle(edge, rank);
    const struct orr_msg_rank_idle msg = {
        .job = orr_str(gen->job),
        .generation = gen->generation,
        .node = orr_str(edge->node),
        .clocks = {scratch.rows, scratch.n},
    };
    if (n_idle && edge->sink.idle(edge->sink.arg, &msg) == ORR_OK)
        gen->idle_told_ms = edge->now_ms;
}
