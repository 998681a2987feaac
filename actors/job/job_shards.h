/* SPDX-License-Identifier: Apache-2.0
 * job_shards.h - what the job actor knows of who may share a device (job_shards.c).
 */
#ifndef ORR_JOB_SHARDS_H
#define ORR_JOB_SHARDS_H

#include "job_state.h"

/* As `shards:` of the spec says; else all ranks count as replicas, until job_shards_look.
 * Errors: ORR_ENOMEM; ORR_EINVAL: they do not divide the world. */
ORR_NODISCARD enum orr_err job_shards_tables(struct job *self, struct orr_error *err);
void job_shards_fini(struct job *self);

/* The spec says them. */
static inline bool job_shards_are_said(const struct job *self)
{
    return self->args.shards > 0;
}

/* All ranks are at the cut: what do their communicators show?  Nothing is asked where the spec says it. */
void job_shards_look(struct job *self);

/* To the next generation, and from the one before. */
void job_shards_tell(const struct job *self, struct orr_msg_manifest *manifest);
void job_shards_recall(struct job *self, const struct orr_msg_manifest *manifest);

/* What was seen would not fit on so many devices: it may be old, so the next cut is asked again. */
void job_shards_doubt(struct job *self, uint32_t devices);

/* Devices that the ranks of one node need at least: as few as can be, ordered or not. */
uint32_t job_shards_least(struct job *self, uint32_t node);

#endif
