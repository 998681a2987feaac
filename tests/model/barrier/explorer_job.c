/* SPDX-License-Identifier: Apache-2.0
 * explorer_job.c - the job, and what a cut must be; see explorer_impl.h.
 */
#include "explorer_impl.h"

/* ---- the job ---- */

bool deliver_up(struct run *run, uint32_t index)
{
    struct rank *rank = &run->now.ranks[index];
    if (!rank->n_up)
        return false;
    const struct up msg = rank->up[0];
    rank->up[0] = rank->up[1];
    memset(&rank->up[--rank->n_up], 0, sizeof(msg));
    if (run->now.phase != JOB_CUTTING || msg.cut != run->now.cut)
        return true;
    struct orr_rec_clock clocks[CLOCKS];
    for (uint32_t i = 0; i < msg.n; i++)
        clocks[i] = (struct orr_rec_clock){.rank = index,
                                           .comm = msg.recs[i].comm,
                                           .kind = msg.recs[i].kind,
                                           .me = msg.recs[i].me,
                                           .peer = msg.recs[i].peer,
                                           .n = msg.recs[i].n,
                                           .issued = msg.recs[i].issued};
    bool is_begin = msg.round == 0;
    uint64_t round = msg.round;
    if (run->mutant == X_OLD_ROUND && msg.is_at_cut)
        round = run->barrier.round;
    const struct orr_msg_cut_report report = {
        .step = is_begin ? ORR_CUT_BEGIN : ORR_CUT_TARGETS,
        .state = is_begin || msg.is_at_cut ? ORR_STEP_DONE : ORR_STEP_WORKING,
        .round = round,
        .clocks = {clocks, msg.n}};
    struct orr_error err;
    if (job_barrier_hear(&run->barrier, index, &report, &err) != ORR_OK)
        broken(run, err.text);
    return true;
}

static bool send_down(struct run *run, uint32_t index, const struct down *msg)
{
    struct rank *rank = &run->now.ranks[index];
    if (rank->n_down == CHANNEL)
        return false;
    rank->down[rank->n_down++] = *msg;
    return true;
}

static bool send_targets(struct run *run, uint32_t index, uint64_t round)
{
    struct orr_rec_clock recs[ROWS];
    uint32_t n = job_barrier_targets(&run->barrier, index, recs, ROWS);
    struct down msg = {
        .what = TO_TARGETS, .cut = run->now.cut, .round = (uint8_t)round};
    if (run->now.ranks[index].n_down == CHANNEL)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        bool is_absent = recs[i].me == ORR_NONE;
        if ((run->mutant == X_NO_INCOMPLETE && is_absent) ||
            (run->mutant == X_ONE_SIDED && recs[i].kind == ORR_CLOCK_RECV) ||
            (run->mutant == X_FIRST_IS_MAX && index == 0))
            continue;
        ORR_ASSERT(msg.n < CLOCKS);
        msg.recs[msg.n++] = (struct rec){(uint8_t)recs[i].comm,
                                         (uint8_t)recs[i].kind,
                                         (uint8_t)recs[i].me,
                                         (uint8_t)recs[i].peer,
                                         (uint8_t)recs[i].n,
                                         (uint8_t)recs[i].issued};
    }
    return send_down(run, index, &msg);
}

/* The least set of calls that has all that were issued when the gates closed, and with each call the others of it. */
static bool is_causal_past(struct run *run)
{
    uint8_t want[X_THREADS], upto[X_RANKS][X_COMMS][ORR_CLOCK_KIND_MAX_][X_RANKS];
    bool is_more = true;
    for (uint32_t i = 0; i < run->n_threads; i++)
        want[i] = run->now.threads[i].closed;
    while (is_more) {
        is_more = false;
        memset(upto, 0, sizeof(upto));
        for (uint32_t t = 0; t < run->n_threads; t++) {
            uint32_t left = want[t];
            for (uint32_t o = 0; left && o < run->programs[t].n; o++) {
                const struct op *op = &run->programs[t].ops[o];
                left -= !op->is_sync;
                for (uint32_t m = 0; m < op->n; m++)
                    upto[run->programs[t].rank][op->moves[m].comm][op->moves[m].kind]
                        [op->moves[m].peer]++;
            }
        }
        for (uint32_t t = 0; t < run->n_threads; t++) {
            uint32_t rank = run->programs[t].rank;
            bool is_below = false;
            for (uint32_t c = 0; c < run->n_comms; c++)
                for (uint32_t m = 0; m < run->n_members[c]; m++) {
                    uint32_t other = run->members[c][m];
                    uint32_t me = 0;
                    while (me < run->n_members[c] && run->members[c][me] != rank)
                        me++;
                    if (me == run->n_members[c])
                        continue;
                    is_below |= upto[rank][c][ORR_CLOCK_COLLECTIVE][0] <
                                upto[other][c][ORR_CLOCK_COLLECTIVE][0];
                    is_below |= upto[rank][c][ORR_CLOCK_SEND][m] <
                                upto[other][c][ORR_CLOCK_RECV][me];
                    is_below |= upto[rank][c][ORR_CLOCK_RECV][m] <
                                upto[other][c][ORR_CLOCK_SEND][me];
                }
            if (is_below) {
                want[t]++;
                is_more = true;
            }
        }
    }
    for (uint32_t i = 0; i < run->n_threads; i++)
        if (want[i] != run->now.threads[i].issued)
            return false;
    return true;
}

static void check_cut(struct run *run)
{
    run->result.n_cuts++;
    for (uint32_t t = 0; t < run->n_threads; t++)
        if (run->now.threads[t].is_inside || run->now.threads[t].n_half)
            broken(run, "the cut was found while a call was in progress");
    for (uint32_t i = 0; i < run->world->n_ranks; i++)
        if (!is_synced(run, i))
            broken(run,
                   "the cut is not consistent: what was issued can never complete");
    if (run->world->is_made && run->n_threads == run->world->n_ranks &&
        !is_causal_past(run))
        broken(run,
               "the cut is later than the causal past of the calls that were issued");
}

bool settle_job(struct run *run)
{
    struct state *now = &run->now;
    bool is_changed = false, is_open = true;
    for (uint32_t i = 0; i < run->world->n_ranks && now->phase == JOB_CUTTING; i++)
        if (!now->begun[i])
            is_changed |= now->begun[i] =
                send_down(run, i, &(struct down){.what = TO_CLOSE, .cut = now->cut});
    uint64_t round = 0;
    if (now->phase == JOB_CUTTING && job_barrier_round(&run->barrier, &round) != ORR_OK)
        broken(run, "no room for targets");
    for (uint32_t i = 0; i < run->world->n_ranks && now->phase == JOB_CUTTING; i++)
        if (now->sent[i] < round && send_targets(run, i, round)) {
            now->sent[i] = (uint8_t)round;
            is_changed = true;
        }
    if (now->phase == JOB_CUTTING && job_barrier_is_cut(&run->barrier)) {
        check_cut(run);
        now->phase = JOB_OPENING;
        now->is_decided = is_changed = true;
        memset(now->sent, 0, sizeof(now->sent));
    }
    for (uint32_t i = 0; i < run->world->n_ranks && now->phase == JOB_OPENING; i++) {
        if (!now->sent[i])
            is_changed |= now->sent[i] =
                send_down(run, i, &(struct down){.what = TO_OPEN, .cut = now->cut});
        is_open = is_open && now->sent[i];
    }
    if (now->phase == JOB_OPENING && is_open) {
        now->phase = JOB_IDLE;
        memset(now->sent, 0, sizeof(now->sent));
        memset(now->begun, 0, sizeof(now->begun));
        job_barrier_reset(&run->barrier);
        is_changed = true;
    }
    return is_changed;
}

bool request(struct run *run)
{
    struct state *now = &run->now;
    if (now->phase != JOB_IDLE || now->requests == run->world->requests)
        return false;
    now->requests++;
    now->cut++;
    now->phase = JOB_CUTTING;
    now->is_decided = 0;
    job_barrier_reset(&run->barrier);
    return true;
}

bool expire(struct run *run)
{
    struct state *now = &run->now;
    if (now->phase != JOB_CUTTING)
        return false;
    run->result.n_expired++;
    now->phase = JOB_OPENING;
    memset(now->sent, 0, sizeof(now->sent));
    for (uint32_t i = 0; i < run->world->n_ranks; i++)
        now->sent[i] = run->mutant == X_NO_RELEASE &&
                       !((struct job_barrier_peer *)run->barrier.peers.at)[i].is_at_cut;
    return true;
}
