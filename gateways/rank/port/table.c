/* SPDX-License-Identifier: Apache-2.0
 * table.c - generations, their ranks, and the ranks' processes.
 */
#include <time.h>
#include <unistd.h>

#include "edge.h"

uint64_t orri_edge_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

struct orri_gen *
orri_gen_find(struct orr_rank_edge *edge, struct orr_str job, uint64_t generation)
{
    struct orri_gen *gen = edge->gens;
    while (gen &&
           (gen->generation != generation || !orr_str_eq(orr_str(gen->job), job)))
        gen = gen->next;
    return gen;
}

/* ---- processes ---------------------------------------------------------------------------- */

struct orri_proc *orri_proc_new(struct orri_rank *rank)
{
    struct orri_proc *proc =
        rank->n_procs < ORR_RANK_PROCS_MAX ? calloc(1, sizeof *proc) : NULL;
    if (!proc)
        return NULL;
    proc->source.kind = ORRI_SOURCE_PROC;
    proc->sock = proc->pidfd = proc->page_fd = proc->arena_fd = -1;
    proc->rank = rank;
    proc->next = rank->procs;
    rank->procs = proc;
    rank->n_procs++;
    return proc;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void orri_proc_disconnect(struct orri_proc *proc)
{
    close_fd(&proc->sock);
    close_fd(&proc->page_fd);
    proc->is_welcome = false;
    proc->rows_go_on = false;
    proc->rows_cut = 0;
    proc->said_close = proc->said_open = proc->said_quiesce = 0;
    proc->said_round = proc->said_attempt = 0;
    proc->said_targets = proc->said_ids = 0;
    proc->looked = proc->look; /* what was not answered never will be */
    proc->rank->gen->is_touched = true;
}

/* An event of this round may still point at it. */
void orri_proc_free(struct orr_rank_edge *edge, struct orri_proc *proc)
{
    struct orri_proc **at = &proc->rank->procs;
    while (*at != proc)
        at = &(*at)->next;
    *at = proc->next;
    proc->rank->n_procs--;
    orri_proc_disconnect(proc);
    close_fd(&proc->pidfd);
    orri_arena_drop(edge, proc);
    free(proc->rows);
    proc->rows = NULL;
    proc->next = edge->dead;
    edge->dead = proc;
}

void orri_edge_bury(struct orr_rank_edge *edge)
{
    while (edge->dead) {
        struct orri_proc *proc = edge->dead;
        edge->dead = proc->next;
        free(proc);
    }
    while (edge->dead_ranks) {
        struct orri_rank *rank = edge->dead_ranks;
        edge->dead_ranks = rank->next;
        free(rank);
    }
}

/* ---- generations -------------------------------------------------------------------------- */

/* at: where the list of its generation has it. */
static void free_rank(struct orr_rank_edge *edge, struct orri_rank **at)
{
    struct orri_rank *rank = *at;
    while (rank->procs)
        orri_proc_free(edge, rank->procs);
    orri_rank_hide(rank);
    *at = rank->next;
    rank->next = edge->dead_ranks;
    edge->dead_ranks = rank;
    edge->n_ranks--;
}

void orri_gen_free(struct orr_rank_edge *edge, struct orri_gen *gen)
{
    struct orri_gen **at = &edge->gens;
    while (*at != gen)
        at = &(*at)->next;
    *at = gen->next;
    while (gen->ranks)
        free_rank(edge, &gen->ranks);
    orri_arenas_dropped(gen, UINT64_MAX);
    free(gen->targets);
    free(gen->ids);
    free(gen->gone);
    free(gen);
}

static enum orr_err find_or_make_gen(struct orr_rank_edge *edge,
                                     const struct orr_msg_rank_expect *msg,
                                     struct orri_gen **ret_gen,
                                     struct orr_error *err)
{
    struct orri_gen *gen = orri_gen_find(edge, msg->job, msg->generation);
    if (gen) {
        *ret_gen = gen;
        return ORR_OK;
    }
    if (msg->job.len == 0 || msg->job.len >= sizeof gen->job)
        return orr_fail(err, ORR_EINVAL, "a job's id has 1 to 95 bytes");
    for (gen = edge->gens; gen; gen = gen->next)
        if (gen->generation > msg->generation &&
            orr_str_eq(orr_str(gen->job), msg->job))
            return orr_fail(err,
                            ORR_ESTALE,
                            "job %s: generation %llu is expected already",
                            gen->job,
                            (unsigned long long)gen->generation);
    if (!(gen = calloc(1, sizeof *gen)))
        return orr_fail(err, ORR_ENOMEM, "out of memory");
    orr_str_copy(gen->job, sizeof gen->job, msg->job);
    gen->generation = msg->generation;
    gen->link = msg->link;
    gen->culprit = -1;
    gen->state = ORR_STEP_DONE;
    gen->next = edge->gens;
    edge->gens = gen;
    *ret_gen = gen;
    return ORR_OK;
}

static enum orr_err find_or_make_rank(struct orr_rank_edge *edge,
                                      struct orri_gen *gen,
                                      uint32_t number,
                                      struct orri_rank **ret_rank,
                                      struct orr_error *err)
{
    struct orri_rank *rank = gen->ranks;
    while (rank && rank->rank != number)
        rank = rank->next;
    if (!rank) {
        if (edge->n_ranks == edge->ranks_max)
            return orr_fail(err, ORR_ENOSPC, "more than %u ranks", edge->ranks_max);
        if (!(rank = calloc(1, sizeof *rank)))
            return orr_fail(err, ORR_ENOMEM, "out of memory");
        rank->source.kind = ORRI_SOURCE_LISTENER;
        rank->listener = -1;
        rank->gen = gen;
        rank->rank = number;
        rank->expected_ms = orri_edge_now();
        rank->next = gen->ranks;
        gen->ranks = rank;
        edge->n_ranks++;
    }
    *ret_rank = rank;
    return ORR_OK;
}

/* It will come stopped, and finds its device memory here. */
static enum orr_err expect_stopped(struct orr_rank_edge *edge,
                                   struct orri_rank *rank,
                                   const struct orr_msg_rank_expect *msg,
                                   struct orr_error *err)
{
    for (struct orri_proc *p = rank->procs; p; p = p->next)
        if (p->process == msg->process &&
            (p->is_expected || p->is_stopped || p->process))
            return ORR_OK; /* asked again */
    struct orri_proc *proc = orri_proc_new(rank);
    if (!proc)
        return orr_fail(err, ORR_ENOSPC, "more than %d processes", ORR_RANK_PROCS_MAX);
    proc->process = msg->process;
    proc->is_expected = proc->is_stopped = true;
    proc->arena_bytes = msg->arena_bytes;
    enum orr_err rc = msg->arena_bytes ? orri_arena_make(edge, proc, err) : ORR_OK;
    if (rc)
        orri_proc_free(edge, proc);
    return rc;
}

static bool has_arena(const struct orri_rank *rank)
{
    for (const struct orri_proc *p = rank->procs; p; p = p->next)
        if (p->arena_fd >= 0)
            return true;
    return false;
}

enum orr_err orr_rank_edge_expect(struct orr_rank_edge *edge,
                                  const struct orr_msg_rank_expect *msg,
                                  struct orr_error *err)
{
    struct orri_gen *gen = NULL;
    struct orri_rank *rank = NULL;
    pthread_mutex_lock(&edge->lock);
    enum orr_err rc = find_or_make_gen(edge, msg, &gen, err);
    if (!rc)
        rc = find_or_make_rank(edge, gen, msg->rank, &rank, err);
    bool is_stopped = msg->process || msg->arena_bytes;
    if (!rc && !is_stopped && !rank->has_looked)
        orri_arenas_find(edge, rank);
    if (!rc)
        rank->has_looked = true;
    if (!rc)
        rank->is_silent = msg->is_silent && !rank->n_procs;
    if (!rc && is_stopped)
        rc = expect_stopped(edge, rank, msg, err);
    if (!rc && rank->listener < 0)
        rc = orri_rank_show(edge, rank, err);
    if (gen) {
        gen->is_touched = true;
        gen->report_due |= rank && has_arena(rank);
    }
    if (gen && !gen->ranks)
        orri_gen_free(edge, gen);
    pthread_mutex_unlock(&edge->lock);
    orri_edge_wake_up(edge);
    return rc;
}

void orr_rank_edge_forget(struct orr_rank_edge *edge,
                          struct orr_str job,
                          uint64_t generation)
{
    pthread_mutex_lock(&edge->lock);
    struct orri_gen *gen = orri_gen_find(edge, job, generation);
    if (gen)
        orri_gen_free(edge, gen);
    pthread_mutex_unlock(&edge->lock);
    orri_edge_wake_up(edge);
}

void orr_rank_edge_forget_rank(struct orr_rank_edge *edge,
                               struct orr_str job,
                               uint64_t generation,
                               uint32_t number)
{
    pthread_mutex_lock(&edge->lock);
    struct orri_gen *gen = orri_gen_find(edge, job, generation);
    struct orri_rank **at = gen ? &gen->ranks : NULL;
    while (at && *at && (*at)->rank != number)
        at = &(*at)->next;
    if (at && *at) {
        free_rank(edge, at);
        gen->is_touched = true;
    }
    if (gen && !gen->ranks)
        orri_gen_free(edge, gen);
    pthread_mutex_unlock(&edge->lock);
    orri_edge_wake_up(edge);
}

void orr_rank_edge_drop_arenas(struct orr_rank_edge *edge,
                               const struct orr_msg_rank_arena_drop *msg)
{
    pthread_mutex_lock(&edge->lock);
    struct orri_gen *gen = orri_gen_find(edge, msg->job, msg->generation);
    if (gen)
        orri_arenas_dropped(gen, msg->cut);
    else if (msg->job.len == 0)
        orri_arenas_sweep(edge);
    pthread_mutex_unlock(&edge->lock);
}

/* ---- steps -------------------------------------------------------------------------------- */

struct answer {
    void (*fn)(void *arg, const struct orr_msg_cut_report *report);
    void *arg;
};

static enum orr_err give_answer(void *arg, const struct orr_msg_cut_report *report)
{
    const struct answer *answer = arg;
    answer->fn(answer->arg, report);
    return ORR_OK;
}
enum orr_err orr_rank_edge_step(struct orr_rank_edge *edge,
                                const struct orr_msg_cut_step *msg,
                                void (*fn)(void *arg,
                                           const struct orr_msg_cut_report *report),
                                void *arg,
                                struct orr_error *err)
{
    struct answer answer = {fn, arg};
    pthread_mutex_lock(&edge->lock);
    struct orri_gen *gen = orri_gen_find(edge, msg->job, msg->generation);
    enum orr_err rc =
        gen ? orri_gen_step(edge, gen, msg, err)
            : orr_fail(err,
                       ORR_ENOENT,
                       "job %.*s: no rank of generation %llu is expected here",
                       ORR_STR_ARGS(msg->job),
                       (unsigned long long)msg->generation);
    if (!rc)
        rc = orri_gen_report(edge, gen, give_answer, &answer);
    pthread_mutex_unlock(&edge->lock);
    orri_edge_wake_up(edge);
    return rc;
}
