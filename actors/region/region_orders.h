/* SPDX-License-Identifier: Apache-2.0
 * region_orders.h - what the files of the region actor call of those that see to orders, checkpoints and drains.
 */
#ifndef ORR_REGION_ORDERS_H
#define ORR_REGION_ORDERS_H

#include "region_state.h"

/* region_checkpoints.c */
struct region_checkpoint *region_checkpoint_find(const struct region *self,
                                                 const struct region_job *job,
                                                 uint64_t number);
struct region_checkpoint *region_checkpoint_newest(const struct region *self,
                                                   const struct region_job *job);
/* Into scratch memory until the next call; NULL: it cannot be read. */
struct orr_msg_manifest *region_manifest_decode(struct region *self,
                                                struct orr_bytes bytes);
struct orr_bytes region_manifest(struct region *self,
                                 const struct region_checkpoint *checkpoint);
void region_checkpoint_row(const struct region_job *job,
                           const struct region_checkpoint *checkpoint,
                           struct orr_rec_checkpoint_row *ret_row);
ORR_NODISCARD enum orr_err
region_checkpoint_keep(struct region *self,
                       struct region_job *job,
                       struct orr_bytes manifest,
                       struct region_checkpoint **ret_checkpoint);
void region_checkpoint_forget(struct region *self,
                              struct region_job *job,
                              struct region_checkpoint *checkpoint);
void region_checkpoints_end(struct orr_ctx *ctx,
                            struct region *self,
                            struct region_job *job);
void region_restore_failed(struct orr_ctx *ctx,
                           struct region *self,
                           struct region_job *job,
                           bool is_damaged);
enum orr_err region_checkpoint_commit(struct orr_ctx *ctx,
                                      struct region *self,
                                      const struct orr_msg_checkpoint_commit *msg);
enum orr_err region_checkpoint_list(struct orr_ctx *ctx,
                                    struct region *self,
                                    const struct orr_msg_checkpoint_list *msg);
enum orr_err region_checkpoint_show(struct orr_ctx *ctx,
                                    struct region *self,
                                    const struct orr_msg_checkpoint_show *msg);
enum orr_err region_checkpoint_remove(struct orr_ctx *ctx,
                                      struct region *self,
                                      const struct orr_msg_checkpoint_remove *msg);

struct region_resize {
    uint32_t devices; /* 0: it is none */
    bool may_move;
    bool is_own; /* nobody has asked for it */
};

/* region_orders.c */
/* It has a generation that an order can be given to. */
bool region_is_placed(const struct region_job *job);
void region_order_open(struct orr_ctx *ctx,
                       struct region *self,
                       struct region_job *job,
                       enum orr_order kind,
                       struct orr_str why,
                       struct region_resize resize);
void region_order_close(struct orr_ctx *ctx,
                        struct region *self,
                        struct region_job *job,
                        uint32_t code,
                        struct orr_str text);
bool region_order_is_open(const struct region_job *job);
bool region_order_is_away(const struct region_job *job);
/* It may end the generation, with a checkpoint. */
bool region_order_is_move(const struct region_order *order);
/* It waits for its place with that many devices; 0: as many as its spec says. */
uint32_t region_order_devices(const struct region_job *job);
void region_order_send(struct orr_ctx *ctx,
                       struct region *self,
                       struct region_job *job);
void region_order_answered(struct orr_ctx *ctx,
                           struct region *self,
                           struct region_job *job,
                           uint32_t code,
                           struct orr_str text);
void region_order_settle(struct orr_ctx *ctx,
                         struct region *self,
                         struct region_job *job);
void region_order_committed(struct orr_ctx *ctx,
                            struct region *self,
                            struct region_job *job,
                            uint64_t number,
                            const struct region_checkpoint *checkpoint);
bool region_order_survives(struct orr_ctx *ctx,
                           struct region *self,
                           struct region_job *job,
                           uint32_t outcome);
void region_order_end(struct orr_ctx *ctx, struct region *self, struct region_job *job);
enum orr_err region_order_failed(struct orr_ctx *ctx,
                                 struct region *self,
                                 const struct orr_msg_order_failed *msg);

/* region_wishes.c */
enum orr_err region_suspend(struct orr_ctx *ctx,
                            struct region *self,
                            const struct orr_msg_job_suspend *msg);
enum orr_err region_resume(struct orr_ctx *ctx,
                           struct region *self,
                           const struct orr_msg_job_resume *msg);
enum orr_err region_take_checkpoint(struct orr_ctx *ctx,
                                    struct region *self,
                                    const struct orr_msg_job_checkpoint *msg);
enum orr_err region_migrate(struct orr_ctx *ctx,
                            struct region *self,
                            const struct orr_msg_job_migrate *msg);
enum orr_err region_resize(struct orr_ctx *ctx,
                           struct region *self,
                           const struct orr_msg_job_resize *msg);
enum orr_err region_vacate(struct orr_ctx *ctx,
                           struct region *self,
                           struct region_job *job,
                           const char *cluster,
                           const char *node,
                           struct orr_str why);
enum orr_err region_order_away(struct orr_ctx *ctx,
                               struct region *self,
                               struct region_job *job,
                               const char *region);
void region_order_moved(struct orr_ctx *ctx,
                        struct region *self,
                        struct region_job *job);
void region_order_refused(struct orr_ctx *ctx,
                          struct region *self,
                          struct region_job *job,
                          uint32_t code,
                          struct orr_str text);

/* region_peers.c */
bool region_peer_is_known(const struct region *self, struct orr_str region);
void region_peer_endpoints(const struct region *self,
                           const char *region,
                           char *buf,
                           size_t cap);
/* Is it on its way to that region, or there? */
bool region_peer_is_it(const struct region_job *job, struct orr_str region);
enum orr_err region_migrate_away(struct orr_ctx *ctx,
                                 struct region *self,
                                 struct region_job *job,
                                 struct orr_str region);
enum orr_err region_first_offered(struct orr_ctx *ctx,
                                  struct region *self,
                                  struct region_wait *wait,
                                  const struct orr_msg_job_offered *msg);
enum orr_err region_first_failed(struct orr_ctx *ctx,
                                 struct region *self,
                                 struct region_wait *wait,
                                 const struct orr_msg_failed *msg);
/* On the word of an operator, and none of its hosts must answer. */
enum orr_err region_recall(struct orr_ctx *ctx,
                           struct region *self,
                           struct region_job *job,
                           const struct orr_msg_job_migrate *msg);
bool region_peer_is_due(const struct region_job *job);
void region_peer_ask(struct orr_ctx *ctx, struct region *self, struct region_job *job);
enum orr_err region_peer_offered(struct orr_ctx *ctx,
                                 struct region *self,
                                 struct region_job *job,
                                 const struct orr_msg_job_offered *msg);
enum orr_err
region_peer_took(struct orr_ctx *ctx, struct region *self, struct region_job *job);
void region_peer_failed(struct orr_ctx *ctx,
                        struct region *self,
                        struct region_job *job,
                        uint32_t code);
void region_peer_why(const struct region_job *job, char *buf, size_t cap);

enum orr_err region_refuse_moved(struct orr_ctx *ctx, const struct region_job *job);

/* region_transfer.c */
enum orr_err region_take_offer(struct orr_ctx *ctx,
                               struct region *self,
                               const struct orr_msg_job_offer *msg);
enum orr_err region_take_transfer(struct orr_ctx *ctx,
                                  struct region *self,
                                  const struct orr_msg_job_transfer *msg);
void region_transfer_restored(struct orr_ctx *ctx,
                              struct region *self,
                              struct region_job *job);

/* region_drain.c */
/* Of the cluster that the job is with. */
const struct region_node *region_node_of(const struct region *self,
                                         const struct region_job *job,
                                         struct orr_str name);
struct region_node *region_target_node(struct orr_ctx *ctx,
                                       struct region *self,
                                       struct orr_str cluster,
                                       struct orr_str name);
enum orr_err region_drain(struct orr_ctx *ctx,
                          struct region *self,
                          const struct orr_msg_node_drain *msg);
uint32_t region_drain_state(struct orr_ctx *ctx,
                            const struct region *self,
                            const struct region_node *node,
                            uint32_t state);
struct orr_list_text region_draining(const struct region *self,
                                     const struct region_cluster *cluster,
                                     struct orr_rec_text *list,
                                     uint32_t cap);
enum orr_err region_drain_some(struct orr_ctx *ctx, struct region *self);

#endif
