/* SPDX-License-Identifier: Apache-2.0
 * cut.c - the steps of a stop, over all processes of a generation's ranks here.
 *
 * Steps of a cut only go forward, cuts only grow; what is older changes nothing.  Asking again is harmless.  Whether a step is
 * done is not remembered but looked at: done is what all processes show.  A failed step stays failed until the next step, or,
 * for a resume, until it is asked for with a higher round: the number of the attempt.
 */
#include <poll.h>
#include <stdarg.h>

#include "edge.h"

void orri_gen_fail(struct orr_rank_edge *edge,
                   struct orri_gen *gen,
                   int64_t culprit,
                   const char *fmt,
                   ...)
{
    va_list args;
    if (gen->state != ORR_STEP_WORKING)
        return;
    gen->state = ORR_STEP_FAILED;
    gen->culprit = culprit;
    gen->step_ms = edge->now_ms - gen->started_ms;
    va_start(args, fmt);
    vsnprintf(gen->text, sizeof gen->text, fmt, args);
    va_end(args);
    gen->report_due = gen->is_touched = true;
}

/* ---- taking a step ------------------------------------------------------------------------ */

static enum orr_err take_targets(struct orri_gen *gen,
                                 const struct orr_msg_cut_step *msg,
                                 struct orr_error *err)
{
    size_t bytes = msg->targets.n * sizeof *gen->targets;
    struct orr_rec_clock *targets = malloc(bytes + 1);
    if (!targets)
        return orr_fail(
            err, ORR_ENOMEM, "out of memory for %u targets", msg->targets.n);
    if (bytes)
        memcpy(targets, msg->targets.at, bytes);
    free(gen->targets);
    gen->targets = targets;
    gen->n_targets = msg->targets.n;
    gen->round = msg->round;
    for (struct orri_rank *rank = gen->ranks; rank; rank = rank->next)
        for (struct orri_proc *p = rank->procs; p; p = p->next)
            p->said_targets = 0;
    return ORR_OK;
}

/* The later of: wanted, an id, zeros (none can be). */
static uint32_t strength_of(const uint8_t *id, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (id[i])
            return 1;
    return len ? 2 : 0;
}

bool orri_gen_add_id(struct orri_gen *gen,
                     uint64_t comm,
                     const uint8_t *id,
                     size_t len,
                     bool is_made_here)
{
    uint32_t strength = strength_of(id, len);
    if (len != ORRI_ID_BYTES && len != 0)
        return false;
    if (!gen->ids && !(gen->ids = calloc(ORRI_IDS_MAX, sizeof *gen->ids)))
        return false;
    for (uint32_t i = 0; i < gen->n_ids; i++)
        if (gen->ids[i].comm == comm && gen->ids[i].strength >= strength)
            return true; /* of this attempt there is one */
    if (gen->n_ids == ORRI_IDS_MAX)
        return false;
    struct orri_id *to = &gen->ids[gen->n_ids++];
    to->comm = comm;
    to->is_made_here = is_made_here;
    to->strength = strength;
    memcpy(to->id, id, len);
    return true;
}

/* What an ended process had cannot be made anew by its peers. */
static void void_gone(struct orri_gen *gen)
{
    static const uint8_t zeros[ORRI_ID_BYTES];
    for (uint32_t i = 0; i < gen->n_gone; i++)
        orri_gen_add_id(gen, gen->gone[i], zeros, sizeof zeros, true);
}

static void note_gone(struct orri_gen *gen, const struct orri_proc *p)
{
    if (!gen->gone && !(gen->gone = calloc(ORRI_IDS_MAX, sizeof *gen->gone)))
        return;
    for (uint32_t i = 0; i < p->n_rows && gen->n_gone < ORRI_IDS_MAX; i++)
        if (p->rows[i].kind == ORR_CLOCK_COLLECTIVE)
            gen->gone[gen->n_gone++] = p->rows[i].comm;
    if (gen->step == ORR_CUT_RESUME && gen->state == ORR_STEP_WORKING) {
        void_gone(gen);
        gen->report_due = true;
    }
}

static enum orr_err begin_resume(struct orr_rank_edge *edge,
                                 struct orri_gen *gen,
                                 const struct orr_msg_cut_step *msg,
                                 struct orr_error *err)
{
    gen->attempt++;
    gen->round = msg->round;
    gen->n_ids = 0;
    gen->has_all_ids = false;
    void_gone(gen);
    for (struct orri_rank *rank = gen->ranks; rank; rank = rank->next) {
        for (uint32_t i = 0; i < msg->ranks.n;
             i++) /* from a node, `node` is the device's uuid */
            if (msg->ranks.at[i].rank == rank->rank)
                orr_str_copy(rank->device, sizeof rank->device, msg->ranks.at[i].node);
        enum orr_err rc = orri_rank_show(edge, rank, err);
        if (rc)
            return rc;
    }
    return ORR_OK;
}

static void begin_cut(struct orri_gen *gen, uint64_t cut)
{
    gen->cut = cut;
    gen->step = ORR_CUT_NONE;
    gen->round = 0;
    gen->n_targets = 0;
    gen->n_ids = 0;
    for (struct orri_rank *rank = gen->ranks; rank; rank = rank->next)
        for (struct orri_proc *p = rank->procs; p; p = p->next) {
            p->said_round = 0;
            p->said_targets = 0;
        }
}

static void begin_step(struct orr_rank_edge *edge,
                       struct orri_gen *gen,
                       const struct orr_msg_cut_step *msg)
{
    gen->step = msg->step;
    gen->state = ORR_STEP_WORKING;
    gen->culprit = -1;
    gen->text[0] = '\0';
    gen->is_detached = msg->is_detached;
    gen->started_ms = edge->now_ms;
    gen->deadline_ms = edge->now_ms + msg->timeout_ms;
    gen->step_ms = 0;
    gen->report_due = gen->is_touched = true;
}

/* Again what was asked for: perhaps with more than before. */
static enum orr_err step_again(struct orr_rank_edge *edge,
                               struct orri_gen *gen,
                               const struct orr_msg_cut_step *msg,
                               struct orr_error *err)
{
    enum orr_err rc = ORR_OK;
    if (msg->step == ORR_CUT_TARGETS && msg->round > gen->round) {
        rc = take_targets(gen, msg, err);
        if (!rc && gen->state == ORR_STEP_DONE)
            gen->state = ORR_STEP_WORKING;
        gen->report_due |= rc == ORR_OK;
    } else if (msg->step == ORR_CUT_RESUME && msg->round > gen->round) {
        /* also while one is under way: whoever asks has forgotten its ids */
        rc = begin_resume(edge, gen, msg, err);
        if (!rc)
            begin_step(edge, gen, msg);
    }
    return rc;
}

enum orr_err orri_gen_step(struct orr_rank_edge *edge,
                           struct orri_gen *gen,
                           const struct orr_msg_cut_step *msg,
                           struct orr_error *err)
{
    enum orr_err rc = ORR_OK;
    if (msg->step == ORR_CUT_NONE || msg->step >= ORR_CUT_JOIN)
        return orr_fail(err, ORR_EINVAL, "a cut has no step %u", msg->step);
    if (msg->cut < gen->cut || (msg->cut == gen->cut && msg->step < gen->step))
        return ORR_OK;
    edge->now_ms = orri_edge_now();
    if (msg->cut > gen->cut)
        begin_cut(gen, msg->cut);
    if (msg->step == gen->step) {
        rc = step_again(edge, gen, msg, err);
    } else {
        if (msg->step == ORR_CUT_TARGETS)
            rc = take_targets(gen, msg, err);
        else if (msg->step == ORR_CUT_RESUME)
            rc = begin_resume(edge, gen, msg, err);
        if (!rc)
            begin_step(edge, gen, msg);
    }
    for (uint32_t i = 0; !rc && msg->step == ORR_CUT_RESUME &&
                         msg->round == gen->round && i < msg->ids.n;
         i++)
        orri_gen_add_id(gen,
                        msg->ids.at[i].comm,
                        msg->ids.at[i].id.ptr,
                        msg->ids.at[i].id.len,
                        false);
    if (msg->step == ORR_CUT_RESUME && msg->round == gen->round)
        gen->has_all_ids |= msg->has_all_ids;
    gen->is_touched = true;
    return rc;
}

/* ---- is it done? -------------------------------------------------------------------------- */

/* The clock that is furthest from its target, in words. */
static void explain_targets(const struct orri_gen *gen,
                            const struct orri_proc *p,
                            char *why,
                            size_t cap)
{
    for (uint32_t t = 0; t < gen->n_targets; t++) {
        const struct orr_rec_clock *target = &gen->targets[t];
        for (uint32_t i = 0; i < p->n_rows; i++) {
            const struct orr_rec_clock *row = &p->rows[i];
            if (target->rank != p->rank->rank || row->comm != target->comm ||
                row->kind != target->kind || row->me != target->me ||
                row->peer != target->peer || row->issued >= target->issued)
                continue;
            snprintf(why,
                     cap,
                     "it has issued %llu of %llu operations on communicator %016llx "
                     "(the last was %s); what keeps it from the next?",
                     (unsigned long long)row->issued,
                     (unsigned long long)target->issued,
                     (unsigned long long)row->comm,
                     orr_clock_op_name(row->op));
            return;
        }
    }
    snprintf(why, cap, "a call of NCCL, or the making of a communicator, does not end");
}

static bool is_proc_done(const struct orri_gen *gen,
                         const struct orri_proc *p,
                         char *why,
                         size_t cap)
{
    bool is_up = p->sock >= 0 && p->is_welcome;
    const char *text =
        is_up ? "" : "its library has lost its connection; is it frozen?";
    bool is_done = false;
    switch ((enum orr_cut_step)gen->step) {
    case ORR_CUT_BEGIN:
        is_done = is_up && p->rows_cut == gen->cut;
        text = is_up ? "its library does not answer; is the process stopped?" : text;
        break;
    case ORR_CUT_TARGETS:
        is_done = is_up && p->rows_cut == gen->cut && p->rows_round == gen->round &&
                  p->is_at_cut;
        if (is_up && !is_done) {
            explain_targets(gen, p, why, cap);
            return false;
        }
        break;
    case ORR_CUT_QUIESCE:
        is_done = p->is_stopped && p->stopped_cut == gen->cut && !is_up;
        text = "it has not let go of its device";
        break;
    case ORR_CUT_RESUME:
        is_done = p->resumed_attempt == gen->attempt;
        text = is_up ? "it has not gone on" : "it has not come back; does it run?";
        break;
    case ORR_CUT_OPEN:
        is_done = !is_up || p->said_open == gen->cut;
        break;
    case ORR_CUT_NONE:
    case ORR_CUT_SAVE:
    case ORR_CUT_RELEASE:
    case ORR_CUT_JOIN:
    case ORR_CUT_STEP_MAX_:
        is_done = true;
        break;
    }
    if (!is_done)
        snprintf(why, cap, "%s", text);
    return is_done;
}

/* After a restart of this host, or from an image: it was frozen until now, and comes back as it is thawed.  Not where this
 * life has seen the stop, and that there is none: a job without a library would stand still for nothing. */
static bool may_come_back(const struct orr_rank_edge *edge,
                          const struct orri_rank *rank)
{
    return rank->n_procs == 0 && !rank->is_silent &&
           rank->silent_cut != rank->gen->cut &&
           edge->now_ms < rank->gen->started_ms + edge->grace_ms;
}

bool orri_gen_has_spoken(const struct orr_rank_edge *edge, const struct orri_gen *gen)
{
    if (gen->step != ORR_CUT_RESUME)
        return false;
    for (const struct orri_rank *rank = gen->ranks; rank; rank = rank->next) {
        if (may_come_back(edge, rank))
            return false;
        for (const struct orri_proc *p = rank->procs; p; p = p->next)
            if (p->spoken_attempt != gen->attempt && p->resumed_attempt != gen->attempt)
                return false;
    }
    return true;
}

/* A rank of which nothing was heard uses no library, once it had the time to be heard of. */
static bool is_rank_done(const struct orr_rank_edge *edge,
                         const struct orri_rank *rank,
                         char *why,
                         size_t cap)
{
    const struct orri_gen *gen = rank->gen;
    bool is_silent = rank->n_procs == 0 && gen->step <= ORR_CUT_QUIESCE;
    if (is_silent && edge->now_ms < rank->expected_ms + edge->grace_ms) {
        snprintf(why, cap, "it was just started");
        return false;
    }
    if (gen->step == ORR_CUT_RESUME && may_come_back(edge, rank)) {
        snprintf(why, cap, "its library has not come back");
        return false;
    }
    for (const struct orri_proc *p = rank->procs; p; p = p->next)
        if (!is_proc_done(gen, p, why, cap))
            return false;
    return true;
}

/* A process that ended takes no part; one that is stopped is frozen, or an image: its arena counts, until it should go on here. */
static void drop_ended(struct orr_rank_edge *edge, struct orri_rank *rank)
{
    bool goes_on = rank->gen->step == ORR_CUT_RESUME;
    struct orri_proc *next;
    for (struct orri_proc *p = rank->procs; p; p = next) {
        struct pollfd end = {.fd = p->pidfd, .events = POLLIN};
        next = p->next;
        bool is_needed = p->is_stopped && (!goes_on || p->pidfd < 0);
        if (p->sock >= 0 || is_needed || p->is_expected)
            continue;
        if (p->pidfd < 0 || poll(&end, 1, 0) != 0) {
            note_gone(rank->gen, p);
            rank->ability_due |= p->why_not[0] || p->why_no_image[0];
            orri_proc_free(edge, p);
        }
    }
}

/* Nobody had counted on it any more, and its peers may wait for it. */
static bool has_late_comer(const struct orri_gen *gen)
{
    for (const struct orri_rank *rank = gen->ranks; rank; rank = rank->next)
        for (const struct orri_proc *p = rank->procs; p; p = p->next)
            if (p->sock >= 0 && p->is_welcome && p->is_stopped &&
                p->stopped_cut == gen->cut && p->resumed_attempt != gen->attempt)
                return true;
    return false;
}

static void note_silent(struct orri_gen *gen)
{
    bool is_quiet = gen->step == ORR_CUT_QUIESCE && gen->state == ORR_STEP_DONE;
    for (struct orri_rank *rank = gen->ranks; rank && is_quiet; rank = rank->next)
        if (rank->n_procs == 0)
            rank->silent_cut = gen->cut;
}

void orri_gen_judge(struct orr_rank_edge *edge, struct orri_gen *gen)
{
    char why[256];
    struct orri_rank *late = NULL;
    for (struct orri_rank *rank = gen->ranks; rank; rank = rank->next) {
        drop_ended(edge, rank);
        if (gen->step != ORR_CUT_NONE && !late &&
            !is_rank_done(edge, rank, why, sizeof why))
            late = rank;
    }
    if (gen->step == ORR_CUT_NONE || gen->state == ORR_STEP_FAILED)
        return;
    bool has_spoken = orri_gen_has_spoken(edge, gen);
    gen->report_due |= has_spoken && !gen->has_spoken;
    gen->has_spoken = has_spoken;
    uint32_t state = late ? ORR_STEP_WORKING : ORR_STEP_DONE;
    bool is_late = gen->step == ORR_CUT_RESUME && gen->state == ORR_STEP_DONE &&
                   has_late_comer(gen);
    if (is_late)
        gen->deadline_ms = edge->now_ms + (gen->deadline_ms - gen->started_ms);
    /* targets: a raise makes it undone; all others are done for good, but for who comes late */
    if (state != gen->state &&
        (gen->state == ORR_STEP_WORKING || is_late || gen->step == ORR_CUT_TARGETS)) {
        gen->state = state;
        gen->step_ms = edge->now_ms - gen->started_ms;
        gen->report_due = true;
        note_silent(gen);
    }
    if (gen->state == ORR_STEP_WORKING && late && edge->now_ms >= gen->deadline_ms)
        orri_gen_fail(edge, gen, late->rank, "rank %u: %s", late->rank, why);
}
