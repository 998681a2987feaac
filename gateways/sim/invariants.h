/* SPDX-License-Identifier: Apache-2.0
 * invariants.h - what must hold of a simulated fleet after every step: each function is one sentence of the design.
 *
 * Each is checked where the step happens that could break it (a process starts, an event is published, an answer arrives), so
 * that nothing is missed and a step costs little.  The first that does not hold is kept; the run ends there.
 */
#ifndef SIM_INVARIANTS_H
#define SIM_INVARIANTS_H

#include "orrery/actor.h"
#include "orrery/map.h"

struct world;
struct machine;
struct proc;

enum { INVARIANT_JOBS = 4096 };

struct invariants {
    const char *broken; /* the first sentence that did not hold, static; NULL: none */
    char subject[ORR_JOB_ID_MAX]; /* the job, or the node, that it is about */
    char text[256];
    struct orr_pool jobs; /* struct job_seen */
    struct orr_map jobs_by_id;
    uint64_t epoch;     /* of the events */
    uint64_t first_seq; /* of those that are known; a follower may come late */
    uint64_t last_seq;
    uint64_t *events; /* owned; what event first_seq + i says, hashed */
    uint64_t n_events, cap_events;
    uint64_t n_terminal;
};

/* Errors: ORR_ENOMEM. */
ORR_NODISCARD enum orr_err invariants_init(struct invariants *invariants);
void invariants_fini(struct invariants *invariants);
void invariant_broken(struct invariants *invariants,
                      const char *sentence,
                      struct orr_str subject,
                      const char *fmt,
                      ...) ORR_PRINTF(4, 5);

/* ---- when a process starts or goes on ---- */

void one_owner_per_device_share(const struct machine *machine, const struct proc *proc);
void one_live_generation_per_rank(struct world *world, const struct proc *proc);
void placed_by_one_cluster_at_a_time(const struct machine *machine,
                                     const struct proc *proc);
void older_generation_launches_nothing(struct world *world, const struct proc *proc);
/* All ranks of a generation go on from the same count. */
void cut_is_consistent(struct world *world, const struct proc *proc);
/* One that changes node has got as far as those that wait for it. */
void joins_at_the_cut(struct world *world, const struct proc *proc);
/* How far it got, before its process is forgotten. */
void steps_are_noted(struct world *world, const struct proc *proc);
void planned_move_repeats_no_step(struct world *world, const struct proc *proc);
void manifest_names_only_complete_parts(struct world *world, const char *part);
void image_is_of_a_stopped_rank(struct world *world, const struct proc *proc);
void live_rank_is_not_forgotten(struct world *world, const struct proc *proc);

/* ---- when an event is published ---- */

struct event_stream { /* as one follower sees it */
    uint64_t epoch;
    uint64_t last_seq;
};

/* Contiguous per epoch, the same on every replica; and with the first copy of each event, what it says must follow from what
 * was said before: phases go on from phases, generations only grow, an end is the end and leaves no rank alive. */
void event_seq_is_contiguous(struct world *world,
                             struct event_stream *stream,
                             const struct orr_msg_event *event);

/* ---- when a client is answered ---- */

/* `key` is the idempotency key that the job was submitted with. */
void acknowledged_submit_is_one_job(struct invariants *invariants,
                                    struct orr_str key,
                                    const char *known_id,
                                    struct orr_str id);
void acknowledged_submit_is_kept(struct invariants *invariants,
                                 const char *id,
                                 bool is_lost);
void request_is_answered_once(struct invariants *invariants,
                              const char *what,
                              bool is_expected);
void request_is_answered_in_time(struct invariants *invariants,
                                 const char *what,
                                 uint64_t late_ms);

/* ---- when a region says what its tables mean ---- */

/* `want`: digests of the ledger's image at the indices that the tables may mean, want[0] .. want[n - 1]. */
void replay_of_the_log_is_the_state(struct invariants *invariants,
                                    const char *host,
                                    uint64_t digest,
                                    const uint64_t *want,
                                    uint64_t n);

/* ---- when the faults have stopped ---- */

void feasible_job_ends(struct invariants *invariants,
                       const char *id,
                       uint32_t phase,
                       const char *reason);
void good_program_fails_no_job(struct invariants *invariants,
                               const char *id,
                               const char *reason);
void soft_state_converges(struct invariants *invariants,
                          bool is_told,
                          const char *what);
void ends_are_told_once(struct invariants *invariants, uint64_t n_ended);

#endif
