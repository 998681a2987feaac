/* SPDX-License-Identifier: Apache-2.0
 * node_moves.h - what the node actor's files call for ranks that change node while others of their generation wait at a cut.
 */
#ifndef ORR_NODE_MOVES_H
#define ORR_NODE_MOVES_H

#include "node_state.h"

/* node_leave.c: ranks that have changed node. */
/* All of the group but those: their rows leave it, and they end.  False: there is no room. */
bool node_rows_leave(struct orr_ctx *ctx,
                     struct node *self,
                     struct node_group *group,
                     struct orr_list_rank_place places);
/* All of it; frozen as they are, and nobody thaws them.  The group is gone then. */
void node_group_leave(struct orr_ctx *ctx, struct node *self, struct node_group *group);
bool node_left_lives(const struct node *self, struct orr_str job, uint64_t generation);
struct node_row *node_left_find(const struct node *self,
                                struct orr_str job,
                                uint64_t generation,
                                uint32_t rank);
void node_left_answered(struct orr_ctx *ctx,
                        struct node *self,
                        uint32_t index,
                        uint32_t seq,
                        uint32_t code);
/* True: there is more to do. */
bool node_left_sweep(struct orr_ctx *ctx, struct node *self);

/* node_join.c: ranks that come to a group which waits at its cut. */
bool node_join_is_new(const struct node *self,
                      const struct node_group *group,
                      const struct orr_msg_rank_launch *msg);
enum orr_err node_join(struct orr_ctx *ctx,
                       struct node *self,
                       struct node_group *group,
                       const struct orr_msg_rank_launch *msg);
void node_join_done(struct node *self, struct node_group *group);
void node_join_give_up(struct orr_ctx *ctx,
                       struct node *self,
                       struct node_group *group,
                       uint32_t code,
                       struct orr_str text);

/* For node_join.c: may these ranks be launched?  And what they go on from. */
enum orr_err node_launch_check(struct orr_ctx *ctx,
                               const struct node *self,
                               const struct orr_msg_rank_launch *msg);
enum orr_err node_launch_take(struct orr_ctx *ctx,
                              struct node *self,
                              struct node_group *group,
                              const struct orr_msg_rank_launch *msg);

#endif
