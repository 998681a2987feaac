/* SPDX-License-Identifier: Apache-2.0
 * rank_edge.h - the node's side of the libraries in its ranks: who is there, where they are in a cut, what they left.
 *
 * Each expected rank has a socket of its own, <run>/<16 hex>.sock (orrery/rank_link.h), so a process speaks for the rank whose
 * socket it found and for no other.  Whatever it says is bounded and checked; the worst it can do is to have its own job's cut
 * expire.  A restarted host makes the sockets again when the node expects the ranks again; the libraries come back by themselves.
 *
 * START open -> attach -> expect ...   OPERATION step (asked again and again; the sink is told of changes)   STOP close
 * Threads: one of its own, which does all that waits; everything here returns at once and may be called from any thread.
 */
#ifndef ORR_RANK_EDGE_H
#define ORR_RANK_EDGE_H

#include "orrery/msg.h"

struct orr_rank_edge;

/* Called by the edge's thread, or within expect and step.  ORR_OK: taken; else it is told again soon. */
struct orr_rank_sink {
    enum orr_err (*report)(void *arg, const struct orr_msg_cut_report *report);
    enum orr_err (*ability)(void *arg, const struct orr_msg_rank_ability *ability);
    enum orr_err (*idle)(void *arg, const struct orr_msg_rank_idle *idle);
    enum orr_err (*posts)(void *arg, const struct orr_msg_job_posts *posts);
    void *arg;
};

struct orr_rank_edge_config {
    const char
        *run; /* directory for the sockets, made (0700) when absent; at most 85 bytes */
    const char *node; /* its name, for reports */
    const char *
        arenas; /* a directory in memory, for device memory that outlives this host; NULL: nothing does */
    uint32_t ranks_max; /* default 4096 */
    uint32_t
        grace_ms; /* a rank that is expected may take so long to be heard of before it counts as one that uses no library;
                           default 3000 */
    uint32_t
        idle_ms; /* default 5000: a rank that issued nothing for so long is told of */
};

/* Errors: ORR_EINVAL run is too long, ORR_EIO it cannot be made or is somebody else's, ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orr_rank_edge_open(const struct orr_rank_edge_config *config,
                                              struct orr_rank_edge **ret_edge,
                                              struct orr_error *err);
void orr_rank_edge_close(struct orr_rank_edge *edge);

/* NULL: nobody listens; returns when no call is in progress. */
void orr_rank_edge_attach(struct orr_rank_edge *edge, const struct orr_rank_sink *sink);

/* Idempotent.  Errors: ORR_ESTALE a newer generation is expected, ORR_ENOSPC, ORR_ENOMEM, ORR_EIO. */
ORR_NODISCARD enum orr_err orr_rank_edge_expect(struct orr_rank_edge *edge,
                                                const struct orr_msg_rank_expect *msg,
                                                struct orr_error *err);
void orr_rank_edge_forget(struct orr_rank_edge *edge,
                          struct orr_str job,
                          uint64_t generation);
/* That one has left; what it was a member of is none of its end's concern. */
void orr_rank_edge_forget_rank(struct orr_rank_edge *edge,
                               struct orr_str job,
                               uint64_t generation,
                               uint32_t rank);

/* Nothing reads the arenas of stops up to `cut` any more: those of ranks that have gone on are freed.  An empty job: all ranks that
 * live are expected, so arenas that an earlier life left of others are removed. */
void orr_rank_edge_drop_arenas(struct orr_rank_edge *edge,
                               const struct orr_msg_rank_arena_drop *msg);

/* What was told in the job, for those processes here that wait for it. */
void orr_rank_edge_posts(struct orr_rank_edge *edge,
                         const struct orr_msg_job_posts *msg);

/* answer is called once, within the call, with how far it is.  Errors: ORR_ENOENT nothing is expected of that generation,
 * ORR_EINVAL no such step, ORR_ENOMEM. */
ORR_NODISCARD enum orr_err
orr_rank_edge_step(struct orr_rank_edge *edge,
                   const struct orr_msg_cut_step *msg,
                   void (*answer)(void *arg, const struct orr_msg_cut_report *report),
                   void *arg,
                   struct orr_error *err);

#endif
