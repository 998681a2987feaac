/* SPDX-License-Identifier: Apache-2.0
 * node_calls.h - what the files of the node actor call of each other.
 */
#ifndef ORR_NODE_CALLS_H
#define ORR_NODE_CALLS_H

#include "node_state.h"

/* node_ranks.c */
struct node_group *
node_group_find(const struct node *self, struct orr_str job, uint64_t generation);
struct node_group *
node_group_make(struct node *self, struct orr_str job, uint64_t generation);
void node_group_drop(struct node *self, struct node_group *group);
struct node_row *
node_row_find(const struct node *self, const struct node_group *group, uint32_t rank);
/* NULL when the table is full. */
struct node_row *
node_row_add(struct node *self, struct node_group *group, uint32_t rank);
struct node_row *node_row_next(const struct node *self, const struct node_row *row);
struct node_row *node_row_first(const struct node *self,
                                const struct node_group *group);
void node_row_apply(struct orr_ctx *ctx,
                    struct node *self,
                    struct node_row *row,
                    const struct orr_rec_rank_row *now);
void node_row_end(struct orr_ctx *ctx,
                  struct node *self,
                  struct node_row *row,
                  uint32_t state,
                  struct orr_str reason);
void node_row_rec(const struct node *self,
                  const struct node_row *row,
                  bool is_full,
                  struct orr_rec_rank_row *ret_rec);
void node_row_answered(
    struct orr_ctx *ctx, struct node *self, uint32_t index, uint32_t seq, bool is_ok);
/* Its job actor is to know what it has not told yet. */
void node_row_changed(struct orr_ctx *ctx, struct node *self, struct node_row *row);
void node_retry(struct orr_ctx *ctx, struct node *self);
void node_retry_arm(struct orr_ctx *ctx, struct node *self);
/* cut 0: all of that generation. */
void node_fence(struct node *self,
                struct orr_str job,
                uint64_t generation,
                uint64_t cut);
bool node_is_fenced(const struct node *self,
                    struct orr_str job,
                    uint64_t generation,
                    uint64_t cut);
void node_group_signal(struct orr_ctx *ctx,
                       struct node *self,
                       const struct node_group *group,
                       uint32_t signal);

enum orr_err node_rank_stop(struct orr_ctx *ctx,
                            struct node *self,
                            const struct orr_msg_rank_stop *msg);
enum orr_err node_ranks_get(struct orr_ctx *ctx,
                            struct node *self,
                            const struct orr_msg_ranks_get *msg);
enum orr_err node_ranks_forget(struct orr_ctx *ctx,
                               struct node *self,
                               const struct orr_msg_ranks_forget *msg);

/* node_edges.c */
struct node_row *node_row_of(struct node *self, const struct orr_rec_rank_row *rec);
void node_devices_found(struct orr_ctx *ctx,
                        struct node *self,
                        const struct orr_msg_devices_found *msg);
/* Is there news for the cluster? */
bool node_device_health(struct node *self, const struct orr_msg_device_health *msg);
void node_processes_found(struct orr_ctx *ctx,
                          struct node *self,
                          const struct orr_msg_processes_found *msg);

/* node_cluster.c */
void node_register_send(struct orr_ctx *ctx, struct node *self);
void node_heartbeat_send(struct orr_ctx *ctx, struct node *self);
uint64_t
node_sent_ms(const struct orr_ctx *ctx); /* the question that was just answered */

/* node_lease.c */
void node_lease_start(const struct orr_ctx *ctx, struct node *self);
/* A heartbeat, or a registration, that was sent then was answered. */
void node_lease_renewed(struct orr_ctx *ctx, struct node *self, uint64_t sent_ms);
void node_lease_begun(struct orr_ctx *ctx, struct node *self, uint64_t sent_ms);
void node_lease_found(struct orr_ctx *ctx,
                      struct node *self,
                      const struct orr_msg_processes_found *msg);
void node_lease_check(struct orr_ctx *ctx, struct node *self);
bool node_is_unheard(const struct orr_ctx *ctx, const struct node *self);
bool node_is_cut_off(const struct orr_ctx *ctx, const struct node *self);
/* Ranks are to be frozen: nothing may start now. */
bool node_lease_is_over(const struct orr_ctx *ctx, const struct node *self);
void node_members_told(struct orr_ctx *ctx,
                       struct node *self,
                       const struct orr_msg_node_registered *msg);
void node_noted(struct orr_ctx *ctx, struct node *self, uint32_t seq, bool is_ok);
void node_probe_answered(struct orr_ctx *ctx,
                         struct node *self,
                         const struct orr_msg_node_probed *msg);
void node_asked(struct orr_ctx *ctx, struct node *self, struct node_group *group);

/* node_cut.c: a stop, as its job actor leads it. */
enum orr_err node_cut_step(struct orr_ctx *ctx,
                           struct node *self,
                           const struct orr_msg_cut_step *msg);
/* From /edge/rank: an answer, or word of a change. */
void node_cut_heard(struct orr_ctx *ctx,
                    struct node *self,
                    const struct orr_msg_cut_report *msg);
void node_cut_failed(struct orr_ctx *ctx,
                     struct node *self,
                     uint64_t tag,
                     const struct orr_msg_failed *msg);
/* One rank's share of a stage is done. */
void node_cut_worked(struct orr_ctx *ctx, struct node *self, uint64_t tag);
/* Stages that were asked for begin in a handler of their own. */
void node_cut_begin_due(struct orr_ctx *ctx, struct node *self);
void node_cut_look_again(struct orr_ctx *ctx, struct node *self, bool *ret_is_more);
void node_cut_used(struct orr_ctx *ctx,
                   struct node *self,
                   const struct orr_msg_device_used *msg);
void node_cut_note(struct orr_ctx *ctx,
                   struct node *self,
                   const struct node_group *group,
                   enum orr_cut_step step);
void node_cut_stage(struct orr_ctx *ctx,
                    struct node *self,
                    struct node_group *group,
                    enum node_stage stage);
void node_cut_tell(struct orr_ctx *ctx, struct node *self, struct node_group *group);
void node_cut_fail(struct orr_ctx *ctx,
                   struct node *self,
                   struct node_group *group,
                   int64_t culprit,
                   struct orr_str text);
void node_ability(struct orr_ctx *ctx,
                  struct node *self,
                  const struct orr_msg_rank_ability *msg);
/* How the rank can be stopped, as far as is known; *ret_why: why no better. */
/* Why its ranks are not saved as images, where they are not. */
/* The network of the group is to reach these machines, too.  False: why it cannot. */
bool node_machines_take(const struct node *self,
                        struct node_group *group,
                        struct orr_list_text machines,
                        char *why,
                        size_t cap);
/* Borrowed from the group. */
struct orr_list_text node_machines_list(const struct node_group *group,
                                        struct orr_rec_text list[ORR_MACHINES_MAX]);
/* Have it so, by way of one of its ranks. */
void node_machines_widen(struct orr_ctx *ctx,
                         struct node *self,
                         const struct node_group *group,
                         const struct node_row *row,
                         uint64_t tag);
struct orr_str node_why_no_image(const struct node *self,
                                 const struct node_group *group);
uint32_t node_row_level(const struct node *self,
                        const struct node_row *row,
                        struct orr_str *ret_why);
struct orr_addr node_job_addr(const struct node *self, const struct node_group *group);

/* Between node_cut.c and node_stage.c. */
/* is_found: in the middle of a stop that an earlier life of this host began. */
enum node_stage node_cut_first_stage(enum orr_cut_step step, bool is_found);
uint64_t node_cut_left_ms(const struct orr_ctx *ctx, const struct node_cut *cut);
struct node_row *node_cut_row(struct node *self,
                              uint64_t tag,
                              struct node_group **ret_group); /* whose share it was */
void node_cut_stage_done(struct orr_ctx *ctx,
                         struct node *self,
                         struct node_group *group,
                         const struct orr_msg_cut_report *from);
void node_cut_done(struct orr_ctx *ctx,
                   struct node *self,
                   struct node_group *group,
                   const struct orr_msg_cut_report *from);
void node_cut_resume_device(struct orr_ctx *ctx,
                            struct node *self,
                            struct node_group *group,
                            const struct node_row *row,
                            const struct node_proc *proc,
                            uint64_t tag);
/* from: what the job actor asked, NULL: nothing more than the step */
void node_cut_library(struct orr_ctx *ctx,
                      struct node *self,
                      struct node_group *group,
                      const struct orr_msg_cut_step *from);

/* node_procs.c: of a rank, those that are stopped. */
struct node_proc *node_proc_first(const struct node *self, const struct node_row *row);
struct node_proc *node_proc_next(const struct node *self, const struct node_proc *proc);
/* Made if need be; NULL: there is no room for it. */
struct node_proc *
node_proc_get(struct node *self, struct node_row *row, uint32_t process);
void node_procs_drop(struct node *self, struct node_row *row);
/* What /edge/rank said takes the place of all that was known.  False: no room. */
bool node_procs_heard(struct node *self,
                      struct node_group *group,
                      struct orr_list_rank_arena arenas);
uint32_t node_procs_files(const struct node *self,
                          const struct node_row *row,
                          struct node_files *files);
/* A part's list of them, and back.  False: it is no such list. */
void node_procs_write(const struct node *self,
                      const struct node_row *row,
                      char *dst,
                      size_t cap);
bool node_procs_read(struct node *self,
                     struct node_row *row,
                     const struct orr_rec_part *part);

/* node_save.c: images, parts and the store; and back. */
void node_save_ask(struct orr_ctx *ctx,
                   struct node *self,
                   struct node_group *group,
                   struct node_row *row);
void node_save_image(struct orr_ctx *ctx,
                     struct node *self,
                     struct node_group *group,
                     struct node_row *row,
                     uint64_t tag);
void node_save_kept(struct orr_ctx *ctx,
                    struct node *self,
                    const struct orr_msg_store_kept *msg);
void node_save_restored(struct orr_ctx *ctx, struct node *self, struct node_row *row);
void node_save_failed(struct orr_ctx *ctx,
                      struct node *self,
                      uint64_t tag,
                      struct orr_str text);
/* Its ranks run and nothing reads what they had: /edge/rank is to know. */
void node_arenas_check(struct orr_ctx *ctx,
                       struct node *self,
                       struct node_group *group);
void node_arenas_dropped(struct node *self, uint64_t tag);
/* again: the edge could not take it */
void node_arenas_failed(struct orr_ctx *ctx,
                        struct node *self,
                        uint64_t tag,
                        uint32_t code);
void node_save_fetch(struct orr_ctx *ctx,
                     struct node *self,
                     struct node_group *group,
                     struct node_row *row,
                     uint64_t tag);
void node_image_dir(const struct node *self,
                    const struct node_group *group,
                    const struct node_row *row,
                    uint64_t cut,
                    char *dst,
                    size_t cap);
/* All of a restore is here: launch. */
void node_launch_restored(struct orr_ctx *ctx,
                          struct node *self,
                          struct node_group *group);
void node_launch_give_up(struct orr_ctx *ctx,
                         struct node *self,
                         struct node_group *group,
                         uint32_t code,
                         struct orr_str text);

/* node_soft.c */
void node_soft_publish(struct orr_ctx *ctx, struct node *self);

/* node_env.c: complete; borrowed until the next call. */
struct orr_list_env_var node_env_make(struct node *self,
                                      const struct node_group *group,
                                      const struct node_row *row,
                                      const struct orr_msg_job_spec *spec);

/* node_launch.c */
enum orr_err node_launch(struct orr_ctx *ctx,
                         struct node *self,
                         const struct orr_msg_rank_launch *msg);
void node_launch_port(struct orr_ctx *ctx,
                      struct node *self,
                      uint32_t group_index,
                      uint32_t seq,
                      const struct orr_msg_port_reserved *msg);
void node_launch_failed(struct orr_ctx *ctx,
                        struct node *self,
                        uint64_t tag,
                        const struct orr_msg_failed *msg);
void node_launch_again(struct orr_ctx *ctx, struct node *self, struct node_row *row);
void node_launch_answered(struct orr_ctx *ctx,
                          struct node *self,
                          uint32_t row_index,
                          uint32_t seq);

#endif
