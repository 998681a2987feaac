/* SPDX-License-Identifier: Apache-2.0
 * report.c - what the node is told of a generation: one cut_report with all that its step is about.
 */
#include <unistd.h>

#include "edge.h"

enum { ARENA_PATH_MAX = 48 };

struct report {
    struct orr_msg_cut_report msg;
    struct orr_rec_clock *clocks;
    struct orr_rec_comm_id *ids;
    struct orr_rec_rank_arena *arenas;
    char (*paths)[ARENA_PATH_MAX];
};

static void count(const struct orri_gen *gen, uint32_t *ret_rows, uint32_t *ret_procs)
{
    *ret_rows = *ret_procs = 0;
    for (struct orri_rank *rank = gen->ranks; rank; rank = rank->next)
        for (struct orri_proc *p = rank->procs; p; p = p->next) {
            *ret_procs += 1;
            *ret_rows += p->rows_cut == gen->cut ? p->n_rows : 0;
        }
}

static void add_arena(struct report *r, const struct orri_proc *p)
{
    uint32_t at = r->msg.arenas.n++;
    r->paths[at][0] = '\0';
    if (p->arena_fd >= 0)
        snprintf(r->paths[at],
                 sizeof r->paths[at],
                 "/proc/%d/fd/%d",
                 (int)getpid(),
                 p->arena_fd);
    r->arenas[at] = (struct orr_rec_rank_arena){.rank = p->rank->rank,
                                                .process = p->process,
                                                .path = orr_str(r->paths[at]),
                                                .bytes = p->arena_bytes,
                                                .pid = (uint32_t)p->pid};
    r->msg.device_bytes += p->device_bytes;
}

static void add_arenas(const struct orri_gen *gen, struct report *r)
{
    for (struct orri_rank *rank = gen->ranks; rank; rank = rank->next)
        for (struct orri_proc *p = rank->procs; p; p = p->next)
            if (p->is_stopped)
                add_arena(r, p);
}

/* rounds: all that take part have acted on it. */
static void fill(const struct orri_gen *gen, struct report *r)
{
    bool is_cut = gen->step == ORR_CUT_BEGIN || gen->step == ORR_CUT_TARGETS;
    r->msg.round = gen->round;
    for (struct orri_rank *rank = gen->ranks; rank; rank = rank->next)
        for (struct orri_proc *p = rank->procs; p; p = p->next) {
            uint64_t round = p->rows_cut == gen->cut ? p->rows_round : 0;
            if (!is_cut && p->copy_us > r->msg.copy_us)
                r->msg.copy_us = p->copy_us;
            if (is_cut && round < r->msg.round)
                r->msg.round = round;
            if (is_cut && p->rows_cut == gen->cut && p->n_rows) {
                memcpy(
                    r->clocks + r->msg.clocks.n, p->rows, p->n_rows * sizeof *p->rows);
                r->msg.clocks.n += p->n_rows;
            }
        }
    add_arenas(gen, r);
    for (uint32_t i = 0; i < gen->n_ids; i++)
        if (gen->ids[i].is_made_here)
            r->ids[r->msg.ids.n++] = (struct orr_rec_comm_id){
                .comm = gen->ids[i].comm,
                .id = {gen->ids[i].id, gen->ids[i].strength ? ORRI_ID_BYTES : 0}};
}

enum orr_err orri_gen_report(struct orr_rank_edge *edge,
                             const struct orri_gen *gen,
                             enum orr_err (*tell)(void *arg,
                                                  const struct orr_msg_cut_report *),
                             void *arg)
{
    uint32_t n_rows, n_procs;
    count(gen, &n_rows, &n_procs);
    struct report r = {
        .clocks = malloc((n_rows + 1) * sizeof *r.clocks),
        .ids = malloc((gen->n_ids + 1) * sizeof *r.ids),
        .arenas = malloc((n_procs + 1) * sizeof *r.arenas),
        .paths = malloc((n_procs + 1) * sizeof *r.paths),
    };
    enum orr_err rc = ORR_ENOMEM;
    if (r.clocks && r.ids && r.arenas && r.paths) {
        r.msg = (struct orr_msg_cut_report){
            .job = orr_str(gen->job),
            .generation = gen->generation,
            .cut = gen->cut,
            .node = orr_str(edge->node),
            .step = gen->step,
            .state = gen->state,
            .step_ms = gen->step_ms,
            .culprit = gen->culprit,
            .text = orr_str(gen->text),
            .clocks.at = r.clocks,
            .ids.at = r.ids,
            .arenas.at = r.arenas,
            .has_all_ids = orri_gen_has_spoken(edge, gen),
        };
        fill(gen, &r);
        if (r.msg.clocks.n >
            ORR_LIST_MAX) { /* not one report: the cut cannot be made here */
            r.msg.clocks.n = 0;
            r.msg.state = ORR_STEP_FAILED;
            r.msg.text =
                ORR_LIT("the ranks of this node count on more than 65536 clocks");
        }
        rc = tell(arg, &r.msg);
    }
    free(r.clocks);
    free(r.ids);
    free(r.arenas);
    free(r.paths);
    return rc;
}

/* A rank can be what all of its processes can be. */
static struct orr_msg_rank_ability ability_of(const struct orri_rank *rank)
{
    struct orr_msg_rank_ability msg = {.job = orr_str(rank->gen->job),
                                       .generation = rank->gen->generation,
                                       .rank = rank->rank};
    if (rank->is_crowded)
        msg.why_not = msg.why_no_image =
            ORR_LIT("more than 64 of its processes use devices");
    for (const struct orri_proc *p = rank->procs; p; p = p->next) {
        msg.is_cooperative |= p->is_cooperative;
        if (!msg.why_not.len)
            msg.why_not = orr_str(p->why_not);
        if (!msg.why_no_image.len)
            msg.why_no_image = orr_str(p->why_no_image);
    }
    return msg;
}

static enum orr_err tell_ability(struct orr_rank_edge *edge, struct orri_rank *rank)
{
    struct orr_msg_rank_ability msg = ability_of(rank);
    enum orr_err rc = ORR_OK;
    for (struct orri_proc *p = rank->procs; p && !rc; p = p->next) {
        if (!p->ability_due)
            continue;
        msg.pid = (uint32_t)p->pid;
        msg.process = p->process;
        msg.is_stopped = p->is_stopped;
        rc = edge->sink.ability(edge->sink.arg, &msg);
        p->ability_due = rc != ORR_OK;
        rank->ability_due &= rc != ORR_OK;
    }
    if (rc || !rank->ability_due)
        return rc;
    msg.pid = msg.process = 0;
    msg.is_stopped = false;
    rc = edge->sink.ability(edge->sink.arg, &msg);
    rank->ability_due = rc != ORR_OK;
    return rc;
}

void orri_gen_tell(struct orr_rank_edge *edge, struct orri_gen *gen)
{
    if (!edge->has_sink)
        return;
    for (struct orri_rank *rank = gen->ranks; rank; rank = rank->next)
        if (tell_ability(edge, rank) != ORR_OK)
            return; /* again soon */
    if (gen->report_due &&
        orri_gen_report(edge, gen, edge->sink.report, edge->sink.arg) == ORR_OK)
        gen->report_due = false;
}
