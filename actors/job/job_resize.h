/* SPDX-License-Identifier: Apache-2.0
 * job_resize.h - what the job actor's files call for another number of devices (job_resize.c).
 */
#ifndef ORR_JOB_RESIZE_H
#define ORR_JOB_RESIZE_H

#include "job_state.h"

uint32_t job_device_count(struct job *self);
void job_resize_fini(struct job *self);
/* Its nodes are more than they were. */
enum orr_err job_resize_grow(struct job *self, struct orr_error *ret_err);
/* Before the launch: which of the devices that it was given each rank is on. */
void job_resize_first(struct orr_ctx *ctx, struct job *self);
/* Can the order be taken? */
enum orr_err job_resize_check(struct orr_ctx *ctx,
                              struct job *self,
                              const struct orr_msg_job_order *msg);
/* Can the cut begin?  What has to come first is asked for. */
bool job_resize_is_ready(struct orr_ctx *ctx, struct job *self);
void job_resize_ask(struct orr_ctx *ctx,
                    struct job *self,
                    enum job_ask ask,
                    uint64_t tag);
void job_resize_given(struct orr_ctx *ctx,
                      struct job *self,
                      const struct orr_msg_devices_given *msg);
void job_resize_refused(struct orr_ctx *ctx,
                        struct job *self,
                        uint32_t code,
                        struct orr_str text);
/* All ranks are at the cut, and nothing has been done to them yet: does the map suit what their communicators show?  False: the
 * order has failed, or the job runs on while other devices are asked for. */
bool job_resize_at_cut(struct orr_ctx *ctx, struct job *self);
/* As they will be; the nodes look whether that fits. */
struct orr_list_rank_place job_resize_places(struct job *self, uint32_t node);
/* The old devices are free: from here on there is the new map alone. */
void job_resize_take(struct job *self);
/* job_report.c: to its cluster, if there is something new. */
void job_report(struct orr_ctx *ctx, struct job *self);
/* The ranks run, wherever. */
void job_resize_over(struct job *self);

#endif
