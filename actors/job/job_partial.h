/* SPDX-License-Identifier: Apache-2.0
 * job_partial.h - what the job actor's files call for a resize in which some ranks change node (job_partial.c).
 */
#ifndef ORR_JOB_PARTIAL_H
#define ORR_JOB_PARTIAL_H

#include "job_state.h"

enum { JOB_MACHINES_MAX = ORR_MACHINES_MAX + 1 }; /* more: the node says so */
/* Those of its other nodes, each once; borrowed from them. */
struct orr_list_text job_machines(const struct job *self,
                                  uint32_t but,
                                  struct orr_rec_text machines[JOB_MACHINES_MAX]);
/* May the cluster give it devices of other nodes? */
bool job_partial_can(const struct job *self);
/* Nodes that it was given devices of, and is not on yet. */
enum orr_err job_partial_add(struct job *self,
                             struct orr_list_job_node nodes,
                             struct orr_error *err);
/* The ranks have their next nodes, and `n` leave theirs.  Errors: ORR_ENODEV: not so. */
enum orr_err job_partial_plan(struct job *self, uint32_t n, struct orr_error *err);
/* Those that leave this node. */
struct orr_list_rank_place job_partial_leaving(struct job *self, uint32_t node);
/* Those that leave are in their stores: they join the others of their new nodes. */
void job_partial_saved(struct orr_ctx *ctx, struct job *self);
/* Have all that come to it been restored there? */
bool job_partial_has_come(const struct job *self, const struct job_node *node);
void job_partial_ask(struct orr_ctx *ctx,
                     struct job *self,
                     struct job_node *node,
                     uint64_t tag);
void job_partial_refused(struct orr_ctx *ctx,
                         struct job *self,
                         const struct job_node *node,
                         struct orr_str text);
/* Is this of a rank on another node than its own?  Then it is dealt with. */
bool job_partial_heard(struct orr_ctx *ctx,
                       struct job *self,
                       const struct orr_msg_rank_update *msg);
/* A node that is to get ranks may be gone by now. */
void job_partial_watch(struct orr_ctx *ctx, struct job *self);
/* Another order has come in the middle. */
void job_partial_replaced(struct orr_ctx *ctx, struct job *self);
/* Guests are fenced up to this cut; 0: altogether. */
uint64_t job_partial_fence(const struct job *self);
/* Do nodes that it has left still have something of it?  For a while that is waited for. */
bool job_partial_is_clearing(struct orr_ctx *ctx, struct job *self);
/* A guest has nothing of it any more. */
void job_partial_cleared(const struct job *self, struct job_node *node);
/* The ranks are where they were to go, and nowhere else. */
void job_partial_take(struct job *self);
/* No rank is to change node any more; what was restored for it is left to be ended. */
void job_partial_undo(struct job *self);
/* The cluster tells of a node; of one that is not known here it knows ranks of this generation. */
void job_partial_found(struct orr_ctx *ctx,
                       struct job *self,
                       const struct orr_msg_node_changed *msg);

#endif
