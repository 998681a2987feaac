/* SPDX-License-Identifier: Apache-2.0
 * job_barrier.h - the job's half of the collective clock barrier (docs/barrier.md): from the clocks that ranks report
 * to the targets that they run on to, and to the word that all of them are at the cut.
 *
 * Pure: no ctx, no time; the other half is the rank's gate (gateways/rank/core).  tests/model/barrier walks all
 * interleavings of both in small worlds.  A peer is whoever reports: a node, for all of its ranks.
 *
 *   reset -> hear(begin) of every peer -> round 1 -> hear(targets) ... a raise makes round 2 ... -> is_cut
 *
 * Ownership: fini frees what init took.  Threads: none of its own.  Limits: clocks_max clocks of all ranks together.
 */
#ifndef ORR_JOB_BARRIER_H
#define ORR_JOB_BARRIER_H

#include "orrery/ids.h"
#include "orrery/map.h"

struct job_clock {
    uint64_t comm; /* these four are the key: 24 bytes without a hole */
    uint32_t kind; /* enum orr_clock_kind */
    uint32_t me;   /* ORR_NONE: the communicator itself */
    uint32_t peer; /* of a send, a receive; else 0 */
    uint32_t zero;
    uint32_t rank; /* of the job */
    uint32_t from; /* peer of the barrier that reports it */
    uint32_t n;    /* ranks of the communicator */
    uint32_t op;
    uint64_t issued;
    uint64_t target; /* of the newest round */
    uint64_t idle_ms;
    uint32_t n_members; /* of the communicator itself: that have reported */
};

struct job_barrier_peer {
    bool is_left_out;
    bool has_begun; /* all of its gates are closed, and their clocks were heard */
    bool is_at_cut; /* at all targets of its round, no call in progress */
    uint64_t round;
};

struct job_barrier {
    struct orr_pool clocks; /* struct job_clock */
    struct orr_map by_key;
    struct orr_block peers; /* struct job_barrier_peer[n_peers] */
    uint32_t n_peers;
    uint64_t round; /* version of the targets; 0: none yet */
    bool is_stale;  /* something was heard that these targets do not know */
};

/* Errors: ORR_ENOMEM. */
ORR_NODISCARD enum orr_err
job_barrier_init(struct job_barrier *self, uint32_t n_peers, uint32_t clocks_max);
void job_barrier_fini(struct job_barrier *self);

/* A new cut: nothing was heard. */
void job_barrier_reset(struct job_barrier *self);
/* After that: this peer has no ranks, and is not waited for. */
void job_barrier_leave_out(struct job_barrier *self, uint32_t peer);

/* Errors: ORR_ENOSPC too many clocks; ORR_EINVAL two ranks are the same member of a communicator, or disagree on its
 * size: no cut can be found, and the text says where. */
ORR_NODISCARD enum orr_err job_barrier_hear(struct job_barrier *self,
                                            uint32_t peer,
                                            const struct orr_msg_cut_report *report,
                                            struct orr_error *err);
/* The same without a barrier: clocks to look at (hang watch). */
ORR_NODISCARD enum orr_err job_barrier_note(struct job_barrier *self,
                                            uint32_t peer,
                                            struct orr_list_clock clocks,
                                            struct orr_error *err);

/* Version of the targets, computed anew when something was heard; 0: not all peers have begun.
 * Errors: ORR_ENOSPC: unchanged. */
ORR_NODISCARD enum orr_err job_barrier_round(struct job_barrier *self,
                                             uint64_t *ret_round);

/* What this peer reported is not so any more. */
void job_barrier_forget(struct job_barrier *self, uint32_t peer);

/* Compute the targets although not all have begun. */
ORR_NODISCARD enum orr_err job_barrier_aim(struct job_barrier *self);

/* Those of the newest round that this peer's ranks are not known to have reached, and the incomplete communicators
 * (me == ORR_NONE).  The count of all; at most cap are written. */
uint32_t job_barrier_targets(const struct job_barrier *self,
                             uint32_t peer,
                             struct orr_rec_clock *recs,
                             uint32_t cap);

/* Every peer is at the targets of the newest round: a consistent cut. */
bool job_barrier_is_cut(const struct job_barrier *self);

/* Who is waited for, in words; of ranks below a target the one that has issued nothing for longest.
 * Returns its rank; -1: nobody in particular (then *ret_peer is the peer that has not answered, or ORR_NONE). */
int64_t job_barrier_culprit(const struct job_barrier *self,
                            uint32_t *ret_peer,
                            char *text,
                            size_t cap);

/* A member's collectives; NULL: nothing was heard of it. */
const struct job_clock *
job_barrier_member(const struct job_barrier *self, uint64_t comm, uint32_t me);

/* Of a send the receive, and the other way round; NULL: of a collective, or nothing was heard of it. */
const struct job_clock *job_barrier_other(const struct job_barrier *self,
                                          const struct job_clock *clock);

/* In words: as snprintf. */
int job_barrier_tell(const struct job_clock *clock, char *text, size_t cap);
/* And who waits for it in what. */
void job_barrier_tell_late(const struct job_barrier *self,
                           const struct job_clock *clock,
                           char *text,
                           size_t cap);

#endif
