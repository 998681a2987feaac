/* SPDX-License-Identifier: Apache-2.0
 * sm.h - phases that move only along a table, and the table of a job's phases.
 *
 * A machine is a table of bit masks: moves[from] has ORR_IN(to) for each legal move.  A
 * move outside of it is a bug of the actor: it is logged with both names and fails the
 * actor (return the error), in tests as in production; the peer's message that led to
 * it is never trusted to be the reason.
 */
#ifndef ORR_SM_H
#define ORR_SM_H

#include "orrery/actor.h"

struct orr_sm {
    const char *what; /* "job" */
    const uint32_t *moves;
    uint32_t n_states;
    const char *(*state_name)(uint32_t state);
};

/* Errors: ORR_ECRASH, *state unchanged. */
ORR_NODISCARD static inline enum orr_err
orr_sm_move(struct orr_ctx *ctx, const struct orr_sm *sm, uint32_t *state, uint32_t to)
{
    if (*state >= sm->n_states || to >= sm->n_states ||
        !(sm->moves[*state] & ORR_IN(to))) {
        orr_log(ctx,
                ORR_LOG_ERROR,
                "bug: %s must not move from %s to %s",
                sm->what,
                sm->state_name(*state),
                sm->state_name(to));
        return ORR_ECRASH;
    }
    *state = to;
    return ORR_OK;
}

/* What the fleet may see of a job.  QUEUED from a phase with ranks: they are lost, or
 * moved with their checkpoint; a new generation will be made.  UNKNOWN: a node with
 * unfinished ranks is out of reach, they may well run.  STOPPING: on its way to its end,
 * or to SUSPENDED, which may fail: then it runs on.  SUSPENDED: its ranks are frozen and
 * hold no devices; from QUEUED: it is held back before it starts.  MOVED: its end in this
 * region, it goes on in another one.  Steps may be missed by
 * whoever looks from afar, so live phases follow each other in many ways. */
#define ORR_JOB_ENDS                                                                   \
    (ORR_IN(ORR_JOB_DONE) | ORR_IN(ORR_JOB_FAILED) | ORR_IN(ORR_JOB_CANCELLED) |       \
     ORR_IN(ORR_JOB_MOVED))
#define ORR_JOB_STARTED                                                                \
    (ORR_IN(ORR_JOB_RUNNING) | ORR_IN(ORR_JOB_STOPPING) | ORR_IN(ORR_JOB_SUSPENDED) |  \
     ORR_IN(ORR_JOB_RESTORING) | ORR_IN(ORR_JOB_UNKNOWN))
#define ORR_JOB_LIVE (ORR_IN(ORR_JOB_LAUNCHING) | ORR_JOB_STARTED)
#define ORR_JOB_MOVES(also, self)                                                      \
    ((ORR_IN(ORR_JOB_QUEUED) | (also) | ORR_JOB_ENDS) & ~ORR_IN(self))

static const uint32_t orr_job_moves[ORR_JOB_PHASE_MAX_] = {
    [ORR_JOB_QUEUED] = ORR_JOB_MOVES(
        ORR_IN(ORR_JOB_PLACING) | ORR_IN(ORR_JOB_SUSPENDED), ORR_JOB_QUEUED),
    [ORR_JOB_PLACING] = ORR_JOB_MOVES(ORR_JOB_LIVE, ORR_JOB_PLACING),
    [ORR_JOB_LAUNCHING] = ORR_JOB_MOVES(ORR_JOB_STARTED, ORR_JOB_LAUNCHING),
    [ORR_JOB_RUNNING] = ORR_JOB_MOVES(ORR_JOB_STARTED, ORR_JOB_RUNNING),
    [ORR_JOB_STOPPING] = ORR_JOB_MOVES(ORR_JOB_STARTED, ORR_JOB_STOPPING),
    [ORR_JOB_SUSPENDED] = ORR_JOB_MOVES(ORR_JOB_STARTED, ORR_JOB_SUSPENDED),
    [ORR_JOB_RESTORING] = ORR_JOB_MOVES(ORR_JOB_STARTED, ORR_JOB_RESTORING),
    [ORR_JOB_UNKNOWN] = ORR_JOB_MOVES(ORR_JOB_LIVE, ORR_JOB_UNKNOWN),
};

static const struct orr_sm orr_job_sm = {
    "a job",
    orr_job_moves,
    ORR_JOB_PHASE_MAX_,
    orr_job_phase_name,
};

#endif
