/* SPDX-License-Identifier: Apache-2.0
 * region_calls.h - what the files of the region actor call of each other.
 */
#ifndef ORR_REGION_CALLS_H
#define ORR_REGION_CALLS_H

#include "region_orders.h"
#include "region_state.h"

/* region_storage.c */
ORR_NODISCARD enum orr_err region_storage_init(struct region *self);
void region_storage_fini(struct region *self);

/* region_ledger.c: what every handler passes on its way in and out, and the ledger's own messages. */
enum orr_err region_must_lead(struct orr_ctx *ctx, const struct region *self);
enum orr_err region_finish(struct orr_ctx *ctx, struct region *self, enum orr_err err);
void region_confirm(struct region *self);
void region_save(struct region *self, struct region_job *job, unsigned what);
void region_save_event(struct orr_ctx *ctx,
                       struct region *self,
                       const struct orr_msg_event *event);
void region_save_cluster(struct orr_ctx *ctx,
                         struct region *self,
                         const struct region_cluster *cluster);
void region_save_node(struct orr_ctx *ctx,
                      struct region *self,
                      const struct region_node *node);
void region_save_checkpoint(struct orr_ctx *ctx,
                            struct region *self,
                            const struct region_job *job,
                            const struct region_checkpoint *checkpoint);
void region_save_checkpoint_end(struct orr_ctx *ctx,
                                struct region *self,
                                const struct region_job *job,
                                const struct region_checkpoint *checkpoint);
void region_save_job_end(struct orr_ctx *ctx,
                         struct region *self,
                         struct region_job *job);
ORR_NODISCARD enum orr_err region_ledger_init(struct orr_ctx *ctx, struct region *self);
enum orr_err region_ledger_page(struct orr_ctx *ctx,
                                struct region *self,
                                const struct orr_msg_ledger_page *msg);
enum orr_err region_ledger_news(struct orr_ctx *ctx,
                                struct region *self,
                                const struct orr_msg_ledger_news *msg);
void region_ledger_failed(struct orr_ctx *ctx, struct region *self);
void region_ledger_follow(struct orr_ctx *ctx, struct region *self);
void region_ledger_watch(struct orr_ctx *ctx, struct region *self);

/* region_records.c: tables to records, records to tables. */
ORR_NODISCARD enum orr_err
region_put_job(struct region *self, const struct region_job *job, unsigned what);
ORR_NODISCARD enum orr_err region_put_job_end(struct region *self,
                                              const struct region_job *job);
ORR_NODISCARD enum orr_err region_put_self(struct region *self);
ORR_NODISCARD enum orr_err region_put_cluster(struct region *self,
                                              const struct region_cluster *cluster);
ORR_NODISCARD enum orr_err region_put_node(struct region *self,
                                           const struct region_node *node);
ORR_NODISCARD enum orr_err
region_put_checkpoint(struct region *self,
                      const struct region_job *job,
                      const struct region_checkpoint *checkpoint);
ORR_NODISCARD enum orr_err
region_put_checkpoint_end(struct region *self,
                          const struct region_job *job,
                          const struct region_checkpoint *checkpoint);
ORR_NODISCARD enum orr_err region_put_event(struct region *self,
                                            const struct orr_msg_event *event);
struct orr_msg_region_check region_check(struct region *self);
ORR_NODISCARD enum orr_err region_fold(struct orr_ctx *ctx,
                                       struct region *self,
                                       const struct orr_rec_ledger_record *record);

/* region_collect.c: what the stores are to keep. */
void region_collect_soon(const struct orr_ctx *ctx, struct region *self);
void region_collect_tick(struct orr_ctx *ctx, struct region *self);

/* region.c */
enum orr_err region_find_job(struct orr_ctx *ctx,
                             const struct region *self,
                             struct orr_str id,
                             struct region_job **ret_job);
struct region_wait *region_wait_new(struct orr_ctx *ctx, struct region *self);
/* When that gives none. */
enum orr_err region_wait_refuse(struct orr_ctx *ctx, const struct region *self);

/* region_logs.c */
enum orr_err region_log_read(struct orr_ctx *ctx,
                             struct region *self,
                             const struct orr_msg_log_read *msg);
enum orr_err region_log_chunk(struct orr_ctx *ctx,
                              struct region *self,
                              const struct orr_msg_log_chunk *msg);
struct region_wait *region_log_wait(const struct orr_ctx *ctx,
                                    const struct region *self);

/* region_lead.c: from the tables of a standby to those of a leader. */
void region_lead(struct orr_ctx *ctx, struct region *self);

/* region_jobs.c: a job's way through the region. */
uint64_t region_tag(enum region_tag kind, uint32_t index, uint32_t seq);
uint32_t region_fresh_seq(struct region *self);
uint32_t region_job_timer_id(const struct region *self,
                             const struct region_job *job,
                             enum region_job_timer kind);
void region_list_init(struct region_list *list);
void region_list_append_all(struct region *self, struct region_job *job);
void region_list_append_finished(struct region *self, struct region_job *job);
struct region_job *region_job_take(struct region *self, struct orr_str id);
struct region_job *
region_job_new(struct orr_ctx *ctx, struct region *self, struct orr_str id);
void region_job_read_spec(struct region_job *job, const struct orr_msg_job_spec *spec);
void region_job_keep_tail(struct region *self,
                          struct region_job *job,
                          struct orr_str tail);
void region_job_forget(struct region *self, struct region_job *job);
void region_job_drop(struct orr_ctx *ctx, struct region *self, struct region_job *job);
void region_enqueue(struct region *self, struct region_job *job);
void region_dequeue(struct region *self, struct region_job *job);
enum orr_err region_phase(struct orr_ctx *ctx,
                          struct region *self,
                          struct region_job *job,
                          uint32_t phase,
                          const char *cause);
enum orr_err region_requeue(struct orr_ctx *ctx,
                            struct region *self,
                            struct region_job *job,
                            uint64_t delay_ms,
                            struct orr_str cause);
enum orr_err
region_leave(struct orr_ctx *ctx, struct region *self, struct region_job *job);
enum orr_err region_end(struct orr_ctx *ctx,
                        struct region *self,
                        struct region_job *job,
                        uint32_t phase);
void region_job_assign(struct orr_ctx *ctx,
                       struct region *self,
                       struct region_job *job);
void region_job_stop(struct orr_ctx *ctx, struct region *self, struct region_job *job);
void region_job_retry(struct orr_ctx *ctx,
                      struct region *self,
                      struct region_job *job,
                      enum region_job_timer kind);
void region_cluster_has(struct region *self, struct region_job *job);
enum orr_err region_assign_answered(struct orr_ctx *ctx,
                                    struct region *self,
                                    struct region_job *job,
                                    uint32_t code);
enum orr_err region_cancel(struct orr_ctx *ctx,
                           struct region *self,
                           struct region_job *job,
                           struct orr_str why);

/* region_schedule.c: which cluster, and why a job waits. */
void region_schedule(struct orr_ctx *ctx, struct region *self);
enum orr_err region_schedule_some(struct orr_ctx *ctx, struct region *self);
void region_debit(struct region *self, const struct region_job *job, int sign);
void region_offered(struct region *self, const struct region_job *job, int sign);
/* Could it be placed there, if nothing ran? */
bool region_may_run_in(struct region *self,
                       const struct region_cluster *cluster,
                       const struct region_job *job);
/* Devices that it needs to be placed. */
uint32_t region_devices_least(const struct region_job *job);
/* Is there room for the job now, where it is to go? */
bool region_fits_devices(struct region *self,
                         const struct region_job *job,
                         uint32_t devices);
bool region_fits_now(struct region *self, const struct region_job *job);
bool region_spec_fits_now(struct region *self,
                          const struct region_job *job,
                          const struct orr_msg_job_spec *spec);
void region_why_not(struct region *self,
                    const struct region_job *job,
                    char *buf,
                    size_t cap);
void region_why(const struct orr_ctx *ctx,
                struct region *self,
                const struct region_job *job,
                char *buf,
                size_t cap);

/* region_elastic.c: growing, and giving back. */
void region_tell_waiting(struct orr_ctx *ctx,
                         struct region *self,
                         struct region_cluster *cluster);
void region_kept_drop(struct orr_ctx *ctx,
                      struct region *self,
                      struct region_cluster *cluster);
void region_kept_watch(struct orr_ctx *ctx, struct region *self);
enum orr_err region_jobs_resize(struct orr_ctx *ctx,
                                struct region *self,
                                const struct orr_msg_jobs_resize *msg);

/* region_clusters.c: what clusters and their job actors say. */
/* Whose message it is; refused where it has not registered with this leader. */
enum orr_err region_cluster_known(struct orr_ctx *ctx,
                                  struct region *self,
                                  struct orr_str name,
                                  struct region_cluster **ret_cluster);
struct region_cluster *region_cluster_get(struct region *self, struct orr_str name);
void region_cluster_is_at(const struct region *self,
                          struct region_cluster *cluster,
                          uint64_t host);
struct region_node *region_node_get(struct region *self,
                                    struct region_cluster *cluster,
                                    struct orr_str name);
enum orr_err region_cluster_register(struct orr_ctx *ctx,
                                     struct region *self,
                                     const struct orr_msg_cluster_register *msg);
enum orr_err region_cluster_summary(struct orr_ctx *ctx,
                                    struct region *self,
                                    const struct orr_msg_cluster_summary *msg);
enum orr_err region_claim_check(struct orr_ctx *ctx,
                                struct region *self,
                                const struct orr_msg_claim_check *msg);
/* May the sender speak for this generation of the job? */
enum orr_err region_speaks_for(struct orr_ctx *ctx,
                               struct region *self,
                               struct orr_str id,
                               uint64_t generation,
                               struct region_job **ret_job);
enum orr_err region_job_update(struct orr_ctx *ctx,
                               struct region *self,
                               const struct orr_msg_job_update *msg);
enum orr_err region_job_ended(struct orr_ctx *ctx,
                              struct region *self,
                              const struct orr_msg_job_ended *msg);
enum orr_err region_clusters_watch(struct orr_ctx *ctx, struct region *self);

/* region_soft.c */
void region_soft_init(struct orr_ctx *ctx, const struct region *self);
void region_soft_job(struct orr_ctx *ctx, struct region *self, struct region_job *job);
void region_soft_tick(struct orr_ctx *ctx, struct region *self);

/* region_show.c: answers to those who look, and the events. */
void region_event(struct orr_ctx *ctx,
                  struct region *self,
                  const struct orr_msg_event *event);
void region_job_row(const struct orr_ctx *ctx,
                    struct region *self,
                    const struct region_job *job,
                    char *why,
                    size_t why_cap,
                    struct orr_rec_job_row *ret_row);
struct orr_list_rank_place region_places(struct region *self,
                                         const struct region_job *job);
struct orr_bytes region_spec(struct region *self, const struct region_job *job);
void region_reply_detail(struct orr_ctx *ctx,
                         struct region *self,
                         const struct region_job *job,
                         const struct orr_request *request);
void region_reply_list(struct orr_ctx *ctx,
                       struct region *self,
                       const struct orr_msg_job_list *msg);
void region_reply_tree(struct orr_ctx *ctx, struct region *self);

#endif
