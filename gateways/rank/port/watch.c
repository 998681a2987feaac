/* SPDX-License-Identifier: Apache-2.0
 * watch.c - ranks that issue nothing: their clock pages, and where their threads are.
 *
 * The pages are read with pread and checked as they are read: a rank can lie about its own clocks, and no more.  They show who has
 * not come to an operation.  Operations are issued ahead of the device, though, so a rank may hold its peers up in one that it has
 * issued: a process that has stood still for idle_ms is also asked, once a second, where its threads are (rank_look).  Its library
 * answers at once, so a process that does not answer does not run; and one that is in a call of CUDA or NCCL each time waits for
 * its device.
 */
#include <unistd.h>

#include "edge.h"

enum {
    TELL_MS = 5000,
    SILENT_MS =
        3000, /* a process that runs answers within milliseconds; a machine may be busy */
    LOOKS_MIN = 2, /* one may meet a thread that is only passing */
    ROWS_MAX = ORR_LIST_MAX,
    PAUSES_MAX = 4096,
};

/* Under the edge's lock; too large for the stack. */
static struct {
    struct orri_page page;
    struct orr_rec_clock rows[ROWS_MAX];
    struct orr_rec_rank_pause pauses[PAUSES_MAX];
    uint32_t n, n_pauses;
} scratch;

static uint32_t read_page(int fd)
{
    size_t head = offsetof(struct orri_page, clocks);
    ssize_t n = pread(fd, &scratch.page, head, 0);
    if (n < (ssize_t)head || scratch.page.magic != ORRI_PAGE_MAGIC)
        return 0;
    uint32_t said = atomic_load_explicit(&scratch.page.n, memory_order_relaxed);
    if (said > ORRI_CLOCKS_MAX)
        said = ORRI_CLOCKS_MAX;
    n = pread(
        fd, scratch.page.clocks, said * sizeof scratch.page.clocks[0], (off_t)head);
    return n < 0 ? 0 : (uint32_t)((size_t)n / sizeof scratch.page.clocks[0]);
}

/* Adds the process' clocks; returns when it issued something last, 0: never. */
static uint64_t add_clocks(const struct orr_rank_edge *edge, const struct orri_proc *p)
{
    uint64_t newest_ms = 0;
    uint32_t n = p->page_fd < 0 ? 0 : read_page(p->page_fd);
    for (uint32_t i = 0; i < n && scratch.n < ROWS_MAX; i++) {
        const struct orri_clock *c = &scratch.page.clocks[i];
        uint64_t then_ms = atomic_load_explicit(&c->issued_ms, memory_order_relaxed);
        if (then_ms > edge->now_ms)
            then_ms = edge->now_ms;
        if (c->is_over)
            continue;
        if (then_ms > newest_ms)
            newest_ms = then_ms;
        scratch.rows[scratch.n++] = (struct orr_rec_clock){
            .rank = p->rank->rank,
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
    return newest_ms;
}

/* ---- where its threads are ---------------------------------------------------------------- */

static void look(const struct orr_rank_edge *edge, struct orri_proc *p)
{
    const struct orr_msg_rank_look msg = {.number = p->look + 1};
    if (p->sock < 0 || !p->is_welcome || !p->answers_looks || p->look != p->looked)
        return;
    p->look++;
    p->look_ms = edge->now_ms;
    if (orri_packet_send(p->sock, orr_msg_desc_rank_look(), &msg, -1) != 0)
        p->looked = p->look; /* again in a second */
}

void orri_proc_looked(struct orri_proc *p, const struct orr_msg_rank_looked *msg)
{
    if (msg->number != p->look || p->looked == p->look)
        return;
    p->looked = p->look;
    p->n_looks++;
    p->was_outside |= msg->n_inside == 0;
    orr_str_copy(p->call, sizeof p->call, msg->call);
}

static void note_newest(struct orri_proc *p, uint64_t newest_ms)
{
    if (newest_ms == p->newest_ms)
        return;
    p->newest_ms = newest_ms;
    p->n_looks = 0;
    p->was_outside = false;
}

static struct orr_rec_rank_pause pause_of(const struct orr_rank_edge *edge,
                                          const struct orri_proc *p)
{
    struct orr_rec_rank_pause pause = {.rank = p->rank->rank};
    uint64_t silent_ms = p->look == p->looked ? 0 : edge->now_ms - p->look_ms;
    if (silent_ms >= SILENT_MS) {
        pause.pause = ORR_PAUSE_SILENT;
        pause.silent_ms = silent_ms;
    } else if (p->n_looks >= LOOKS_MIN && !p->was_outside) {
        pause.pause = ORR_PAUSE_CALL;
        pause.call = orr_str(p->call);
    }
    return pause;
}

/* ---- a rank, a generation ----------------------------------------------------------------- */

/* Adds the rank's clocks; true: it has issued something at some time, and nothing for idle_ms. */
static bool is_idle(struct orr_rank_edge *edge, const struct orri_rank *rank)
{
    uint64_t newest_ms = 0;
    uint32_t before = scratch.n;
    for (struct orri_proc *p = rank->procs; p; p = p->next) {
        uint64_t then_ms = add_clocks(edge, p);
        note_newest(p, then_ms);
        if (then_ms > newest_ms)
            newest_ms = then_ms;
    }
    if (newest_ms && edge->now_ms - newest_ms >= edge->idle_ms)
        return true;
    scratch.n = before;
    return false;
}

/* Of its processes that issue operations the one which is worst off speaks for it. */
static void add_pause(struct orr_rank_edge *edge, const struct orri_rank *rank)
{
    struct orr_rec_rank_pause worst = {.pause = ORR_PAUSE_NONE};
    for (struct orri_proc *p = rank->procs; p; p = p->next) {
        if (!p->newest_ms)
            continue;
        struct orr_rec_rank_pause pause = pause_of(edge, p);
        if (pause.pause > worst.pause)
            worst = pause;
        look(edge, p);
    }
    if (worst.pause && scratch.n_pauses < PAUSES_MAX)
        scratch.pauses[scratch.n_pauses++] = worst;
}

/* Said again and again while it is so, and once when it is so no more. */
static void tell(struct orr_rank_edge *edge, struct orri_gen *gen, bool is_idle_now)
{
    bool is_due =
        is_idle_now ? edge->now_ms >= gen->idle_told_ms + TELL_MS : gen->is_idle_told;
    const struct orr_msg_rank_idle msg = {
        .job = orr_str(gen->job),
        .generation = gen->generation,
        .node = orr_str(edge->node),
        .clocks = {scratch.rows, scratch.n},
        .pauses = {scratch.pauses, scratch.n_pauses},
    };
    if (!is_due || edge->sink.idle(edge->sink.arg, &msg) != ORR_OK)
        return;
    gen->idle_told_ms = edge->now_ms;
    gen->is_idle_told = is_idle_now;
}

void orri_gen_watch(struct orr_rank_edge *edge, struct orri_gen *gen)
{
    bool is_cutting = gen->step != ORR_CUT_NONE && gen->step != ORR_CUT_OPEN &&
                      !(gen->step == ORR_CUT_RESUME && gen->state == ORR_STEP_DONE);
    bool is_idle_now = false;
    if (!edge->has_sink || is_cutting)
        return;
    scratch.n = scratch.n_pauses = 0;
    for (const struct orri_rank *rank = gen->ranks; rank; rank = rank->next)
        if (is_idle(edge, rank)) {
            add_pause(edge, rank);
            is_idle_now = true;
        }
    tell(edge, gen, is_idle_now);
}
