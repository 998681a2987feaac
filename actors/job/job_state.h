/* SPDX-License-Identifier: Apache-2.0
 * job_state.h - the job actor's state, shared by its files.
 *
 * Invariants: no rank is launched before the region has acknowledged the placement; an
 * outcome, once decided, stays; the end is reported only when no rank can be alive on a
 * node that is not proven lost.
 */
#ifndef ORR_JOB_STATE_H
#define ORR_JOB_STATE_H

#include "job.h"
#include "job_node.h"
#include "job_plan.h"
#include "orrery/pool.h"
#include "orrery/sm.h"

enum job_timer { JOB_T_RETRY = 1, JOB_T_LIMIT, JOB_T_PERIODIC, JOB_T_HANG };

struct job {
    struct orr_job_args args;
    struct orr_addr region;
    struct orr_addr cluster;
    uint32_t phase; /* enum orr_job_phase */
    bool is_recovery;
    bool has_permit;
    bool is_checking; /* a rank failed: hear every node before judging */
    bool is_stopping; /* the outcome is decided */
    bool is_ended;    /* and no rank lives */
    bool is_reported; /* and the region knows */
    bool is_disowned; /* the region does not want to know */
    bool is_update_due;
    bool is_suspended;      /* at the recovery, as the region knows it */
    bool is_restore_failed; /* lost: its checkpoint is of no use */
    enum orr_job_outcome outcome;
    uint64_t limit_at_ms;
    uint64_t step;
    uint64_t reported; /* digest of the last job_report */
    uint32_t next_seq;
    uint32_t n_state[ORR_RANK_STATE_MAX_];
    uint32_t n_ok;
    uint32_t n_bad;
    uint32_t
        n_told; /* had been told to end, by this life of the actor or an earlier one */
    uint64_t bad_from_ms;         /* wall clock: the earliest end of a bad one, */
    uint64_t told_from_ms;        /* and of one that had been told to */
    struct job_talk talk;         /* with the region */
    struct job_talk cluster_talk; /* with the cluster */
    struct job_plan plan;
    struct orr_block posts;   /* job_posts.c */
    uint32_t n_posts;         /* all so far */
    struct job_barrier watch; /* clocks of ranks that stand still (job_hang.c) */
    struct orr_block pauses;  /* struct job_pause[world]; with has_watch */
    char hang_call[48];
    bool has_watch;
    bool is_hung;            /* and `reason` says who holds it up, */
    int64_t hung_rank;       /* this one */
    uint64_t runs_from_ms;   /* without a break, as far as this life knows */
    uint32_t level;          /* enum orr_level: the least of all its ranks */
    uint32_t restored_level; /* of the checkpoint that it goes on from */
    char why_level[160];
    uint64_t link; /* of the job, for its life: names the ranks' ways to their nodes */
    uint64_t
        overlay; /* of this generation; fleets of equal names may share a machine */
    bool
        is_overlay_known; /* by this life of the actor: it has launched the generation */
    struct job_culprit culprit;
    char reason[200];
    char lost
        [200]; /* of the first rank that was lost, or ended by an earlier life: which, where, why */
    char master_addr[64];
    uint32_t master_port;
    uint32_t spec_len;
    uint32_t n_nodes;
    struct orr_block
        manifest; /* struct orr_msg_manifest, to restore from; empty: start */
    struct orr_block restored; /* struct orr_rec_part[world], for messages */
    struct orr_block spec;
    struct orr_block nodes;  /* struct job_node[n_nodes] */
    struct orr_block ranks;  /* struct job_rank[world] */
    struct orr_block places; /* struct orr_rec_rank_place[world], for messages */
};

static inline struct job_node *job_node_at(const struct job *self, uint32_t index)
{
    return (struct job_node *)self->nodes.at + index;
}
static inline struct job_rank *job_rank_at(const struct job *self, uint32_t rank)
{
    return (struct job_rank *)self->ranks.at + rank;
}
/* job_ranks.c: what is known of the ranks, and what follows from it. */
enum orr_err job_ranks_start(struct job *self, const struct orr_msg_job_start *msg);
struct orr_list_rank_place job_places(struct job *self,
                                      uint32_t node); /* ORR_NONE: all */
void job_rank_apply(struct job *self,
                    uint32_t rank,
                    const struct orr_rec_rank_row *now);
void job_ranks_heard(struct job *self,
                     struct job_node *node,
                     const struct orr_msg_ranks *msg);
void job_decide(struct orr_ctx *ctx,
                struct job *self,
                enum orr_job_outcome outcome,
                struct orr_str reason);
enum orr_err job_judge(struct orr_ctx *ctx, struct job *self);

static inline bool job_is_before_quiesce(enum orr_cut_step step)
{
    return step == ORR_CUT_BEGIN || step == ORR_CUT_TARGETS;
}

/* job_cut.c: its words with the nodes. */
enum {
    JOB_MARGIN_MS = 1000
}; /* nodes know better what they wait for: they give up a step that much earlier */
/* A job that is never stopped needs none of them. */
enum orr_err job_plan_tables(struct job *self);
/* Its nodes are more than they were. */
enum orr_err job_plan_grow(struct job *self);
/* The barrier does not wait for nodes without ranks. */
void job_plan_leave_out(struct job *self);
void job_plan_fini(struct job *self);
enum orr_err job_plan_start(struct job *self, const struct orr_msg_job_start *msg);
/* All nodes of a recovered job have said what they know. */
void job_plan_recover(struct orr_ctx *ctx, struct job *self);
void job_plan_step(struct orr_ctx *ctx, struct job *self);
bool job_plan_wants(const struct job *self, const struct job_node *node);
void job_plan_ask(struct orr_ctx *ctx,
                  struct job *self,
                  struct job_node *node,
                  uint64_t tag);
void job_plan_heard(struct orr_ctx *ctx,
                    struct job *self,
                    struct job_node *node,
                    const struct orr_msg_cut_report *msg);
/* New targets, if something was heard that the last do not know. */
void job_plan_aim(struct orr_ctx *ctx, struct job *self);
void job_plan_new_cut(struct orr_ctx *ctx, struct job_plan *plan);
/* Of a job whose ranks all run. */
uint32_t job_plan_phase(const struct job *self);
void job_plan_fail(struct orr_ctx *ctx,
                   struct job *self,
                   enum orr_err code,
                   const char *text);
void job_plan_save_fail(struct orr_ctx *ctx,
                        struct job *self,
                        enum orr_err code,
                        const char *text);
void job_plan_begin(struct orr_ctx *ctx, struct job *self, enum orr_cut_step step);
/* Another order has come since, so it is over, however it ended.  False: it has not. */
bool job_plan_leave_save(struct orr_ctx *ctx, struct job *self);
/* From a cut, as the goal says. */
void job_plan_go_on(struct orr_ctx *ctx, struct job *self);
/* By all nodes, with new communicators; until the same time, or a later one. */
void job_plan_resume_again(struct orr_ctx *ctx, struct job *self);
/* When the plan has to be looked at without a message; UINT64_MAX: not. */
uint64_t job_plan_due_ms(const struct job *self, uint64_t now);

/* job_stopwatch.c: what the steps of a stop take. */
void job_stopwatch_begin(struct orr_ctx *ctx, struct job_plan *plan);
void job_stopwatch_end(struct orr_ctx *ctx, struct job_plan *plan);
void job_stopwatch_round(struct job_plan *plan, uint64_t round);
struct orr_list_stop_step job_stopwatch_list(const struct job_plan *plan,
                                             struct orr_rec_stop_step *list);

/* job_orders.c: orders, checkpoints, and the words with region and cluster about them. */
enum orr_err job_order_take(struct orr_ctx *ctx,
                            struct job *self,
                            const struct orr_msg_job_order *msg);
void job_periodic_arm(struct orr_ctx *ctx, const struct job *self);
void job_periodic_due(struct orr_ctx *ctx, struct job *self);
/* False: there is no room for its list of arenas. */
bool job_part_note(struct job *self,
                   struct job_node *node,
                   const struct orr_rec_part *rec);
bool job_parts_are_stored(const struct job *self);
void job_commit_ask(struct orr_ctx *ctx, struct job *self, uint64_t tag);
void job_refuse_ask(struct orr_ctx *ctx, struct job *self, uint64_t tag);
/* Of one rank; or of all ranks of a node of which nothing is known yet. */
void job_level_note(struct job *self,
                    uint32_t rank,
                    uint32_t level,
                    struct orr_str why);
void job_level_note_node(struct job *self,
                         const struct job_node *node,
                         uint32_t level,
                         struct orr_str why);
static inline bool job_level_is_saved(uint32_t level)
{
    return level == ORR_LEVEL_IMAGE || level == ORR_LEVEL_COOPERATIVE;
}
enum job_ask job_cluster_next(const struct job *self);
void job_cluster_ask(struct orr_ctx *ctx,
                     struct job *self,
                     enum job_ask ask,
                     uint64_t tag);
enum orr_err job_devices_given(struct orr_ctx *ctx,
                               struct job *self,
                               const struct orr_msg_devices_given *msg);

/* job_posts.c: what processes tell each other while the job runs. */
void job_posts_fini(struct job *self);
void job_posts_heard(struct orr_ctx *ctx,
                     struct job *self,
                     const struct orr_msg_job_posts *msg);

/* job_hang.c: ranks that wait for one that does not come. */
void job_hang_fini(struct job *self);
void job_hang_heard(struct orr_ctx *ctx,
                    struct job *self,
                    const struct orr_msg_rank_idle *msg);
/* Ranks have changed node, or there are more nodes: nothing was heard. */
void job_hang_reset(struct job *self);
/* Again without a message: what was said is old. */
void job_hang_due(struct orr_ctx *ctx, struct job *self);

/* job_steps.c: the next step towards each node and the region. */
#define JOB_TALK_REGION  UINT32_MAX /* as an index of a node, in tags */
#define JOB_TALK_CLUSTER (UINT32_MAX - 1)
enum orr_err job_step(struct orr_ctx *ctx,
                      struct job *self); /* judge, then ask what is due */
/* Who and what an answer is for: the node, or NULL for the region and the cluster.  JOB_ASK_NONE: for nobody. */
struct job_node *job_answered(struct job *self, uint64_t tag, enum job_ask *ret_ask);
void job_back_off(struct orr_ctx *ctx, struct job_talk *talk);

#endif
