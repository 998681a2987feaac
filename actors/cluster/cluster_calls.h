/* SPDX-License-Identifier: Apache-2.0
 * cluster_calls.h - what the files of the cluster actor call of each other.
 */
#ifndef ORR_CLUSTER_CALLS_H
#define ORR_CLUSTER_CALLS_H

#include "cluster_state.h"

/* cluster_nodes.c */
struct cluster_node *cluster_node_find(const struct cluster *self, struct orr_str name);
/* Find or make; NULL when the table is full. */
struct cluster_node *
cluster_node_get(struct orr_ctx *ctx, struct cluster *self, struct orr_str name);
enum orr_err cluster_node_register(struct orr_ctx *ctx,
                                   struct cluster *self,
                                   const struct orr_msg_node_register *msg);
enum orr_err cluster_node_heartbeat(struct orr_ctx *ctx,
                                    struct cluster *self,
                                    const struct orr_msg_node_heartbeat *msg);
/* Were it silent from now on.  Not while its list may be itself alone and there are others: nobody could outvote it. */
bool cluster_node_can_be_given_up(const struct cluster *self,
                                  const struct cluster_node *node);
void cluster_node_drain(struct orr_ctx *ctx,
                        struct cluster *self,
                        struct orr_str name,
                        bool is_draining);
void cluster_nodes_watch(struct orr_ctx *ctx, struct cluster *self);
struct orr_list_node_row cluster_node_rows(const struct orr_ctx *ctx,
                                           struct cluster *self);

/* cluster_jobs.c */
struct cluster_job *
cluster_job_find(const struct cluster *self, struct orr_str job, uint64_t generation);
/* Find or make, as an orphan; NULL when the table is full. */
struct cluster_job *
cluster_job_get(struct cluster *self, struct orr_str job, uint64_t generation);
/* The region has, or has not, a placement of it here that this life does not know yet. */
void cluster_job_await(struct cluster *self, struct cluster_job *job, bool is_awaited);
void cluster_job_drop(struct cluster *self, struct cluster_job *job);
/* Find or make; NULL when the table is full. */
struct cluster_hold *cluster_hold_get(struct cluster *self,
                                      struct cluster_job *job,
                                      struct cluster_node *node);
void cluster_hold_add(struct cluster *self, struct cluster_hold *hold, uint32_t device);
void cluster_hold_clear(struct cluster *self, struct cluster_hold *hold);
void cluster_hold_drop(struct cluster *self, struct cluster_hold *hold);
/* A stopped job gives its devices back, and wants as many again where its ranks are. */
enum orr_err cluster_devices_freed(struct orr_ctx *ctx,
                                   struct cluster *self,
                                   const struct orr_msg_devices_freed *msg);
enum orr_err cluster_devices_want(struct orr_ctx *ctx,
                                  struct cluster *self,
                                  const struct orr_msg_devices_want *msg);
enum orr_err cluster_devices_keep(struct orr_ctx *ctx,
                                  struct cluster *self,
                                  const struct orr_msg_devices_keep *msg);
enum orr_err cluster_job_assign(struct orr_ctx *ctx,
                                struct cluster *self,
                                const struct orr_msg_job_assign *msg);
/* Devices of the node that are free, and such as the spec wants; or such, free or not (fitting). */
uint64_t cluster_node_usable(const struct cluster_node *node,
                             const struct orr_msg_job_spec *spec);
/* May something new be placed there? */
bool cluster_node_suits(const struct cluster *self,
                        const struct cluster_node *node,
                        const struct orr_msg_job_spec *spec);
void cluster_job_doom(struct cluster *self, struct cluster_job *job);
void cluster_orphans_check(struct orr_ctx *ctx, struct cluster *self);
void cluster_job_gone(struct orr_ctx *ctx,
                      struct cluster *self,
                      const struct orr_msg_down *msg);
void cluster_forgotten(struct orr_ctx *ctx,
                       struct cluster *self,
                       uint32_t hold_index,
                       uint32_t seq);

uint64_t cluster_node_fitting(const struct cluster_node *node,
                              const struct orr_msg_job_spec *spec);
/* Free devices that are as good as that one. */
uint64_t
cluster_devices_like(const struct cluster_node *node, uint64_t taken, uint32_t device);

/* cluster_grow.c */
void cluster_growth_init(struct cluster_job *job, const struct orr_msg_job_spec *spec);
enum orr_err cluster_job_reported(struct orr_ctx *ctx,
                                  struct cluster *self,
                                  const struct orr_msg_job_report *msg);
void cluster_grow_tick(struct orr_ctx *ctx, struct cluster *self);
enum orr_err cluster_jobs_waiting(struct orr_ctx *ctx,
                                  struct cluster *self,
                                  const struct orr_msg_jobs_waiting *msg);
void cluster_resize_failed(struct orr_ctx *ctx,
                           struct cluster *self,
                           uint32_t seq,
                           const struct orr_msg_failed *msg);

/* cluster_collect.c */
enum orr_err cluster_collect(struct orr_ctx *ctx,
                             struct cluster *self,
                             const struct orr_msg_stores_collect *msg);
void cluster_collected(struct orr_ctx *ctx,
                       struct cluster *self,
                       const struct orr_msg_store_collected *msg);
void cluster_collect_failed(struct orr_ctx *ctx,
                            struct cluster *self,
                            const struct orr_msg_failed *msg);

/* cluster_soft.c */
void cluster_soft_publish(struct orr_ctx *ctx, struct cluster *self);

/* cluster_region.c */
void cluster_region_start(struct orr_ctx *ctx, struct cluster *self);
/* Where the region's leader is, or was when last heard of. */
struct orr_addr cluster_leader(const struct cluster *self);
void cluster_send_register(struct orr_ctx *ctx, struct cluster *self);
void cluster_send_summary(struct orr_ctx *ctx, struct cluster *self);
void cluster_changed(struct orr_ctx *ctx,
                     struct cluster *self); /* the summary is due */
enum orr_err cluster_registered(struct orr_ctx *ctx,
                                struct cluster *self,
                                const struct orr_msg_cluster_registered *msg);
/* A registration, or a summary, was not taken. */
void cluster_register_failed(struct orr_ctx *ctx,
                             struct cluster *self,
                             const struct orr_msg_failed *msg);
void cluster_summary_failed(struct orr_ctx *ctx,
                            struct cluster *self,
                            uint32_t seq,
                            const struct orr_msg_failed *msg);

/* As jobs and other nodes are told of it; borrowed from it. */
static inline struct orr_rec_job_node cluster_node_told(const struct cluster_node *node)
{
    return (struct orr_rec_job_node){.node = orr_str(node->name),
                                     .state = node->state,
                                     .addr = node->addr,
                                     .host = orr_str(node->host),
                                     .endpoint = orr_str(node->endpoint),
                                     .machine = orr_str(node->machine)};
}

#endif
