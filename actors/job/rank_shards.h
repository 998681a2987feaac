/* SPDX-License-Identifier: Apache-2.0
 * rank_shards.h - which ranks of a job are replicas of one another (docs/elastic.md): as the job spec says, or as its
 * communicators show.
 *
 * A shard is a part of the model; its replicas are the ranks that hold it.  Pure, as job_barrier.h: no ctx, no time, and no memory
 * is taken between init and fini.  In doubt ranks are no replicas: then each is a shard of its own.
 *
 * Shapes: shard_of and replica_of have one entry per rank; shards are 0..n_shards-1, the replicas of each 0..n-1: the order in
 *         which `reduce: ordered` adds them up (their order in the communicator of the replicas, or that of the ranks).
 * Ownership: fini frees what init took.  Threads: none of its own.
 * Limits: world up to ORR_WORLD_MAX; clocks_max clocks of all ranks together.
 */
#ifndef ORR_RANK_SHARDS_H
#define ORR_RANK_SHARDS_H

#include "job_barrier.h"

struct rank_shards {
    uint32_t world;
    uint32_t n_shards;
    uint32_t *shard_of;   /* borrowed: of block */
    uint32_t *replica_of; /* borrowed: of block */
    uint32_t
        stride; /* of a shard's ranks, if they are as far apart in their order; else 0 */
    uint32_t clocks_max;
    uint32_t *count;                /* [world] work of infer, as those below */
    uint32_t *best;                 /* [world] */
    uint32_t *members;              /* [clocks_max] */
    struct rank_shards_comm *comms; /* [clocks_max / 2 + 1] */
    uint32_t n_comms;
    struct orr_block block;
};

/* Each rank is a shard of its own.  clocks_max 0: nothing will be inferred.  Errors: ORR_ENOMEM; ORR_EINVAL: no world, or too large. */
ORR_NODISCARD enum orr_err
rank_shards_init(struct rank_shards *self, uint32_t world, uint32_t clocks_max);
void rank_shards_fini(struct rank_shards *self);

/* Nothing is known. */
void rank_shards_reset(struct rank_shards *self);

/* As the spec's `shards:` says: neighbours share a replica; rank r is replica r / shards of shard r % shards.
 * Errors: ORR_EINVAL: it does not divide the world (unchanged). */
ORR_NODISCARD enum orr_err
rank_shards_set(struct rank_shards *self, uint32_t shards, struct orr_error *err);

/* As was found before: a shard's `size` ranks are so far apart.  Errors: ORR_EINVAL: the world has no such groups (unchanged). */
ORR_NODISCARD enum orr_err
rank_shards_family(struct rank_shards *self, uint32_t stride, uint32_t size);

/* As the communicators show: best asked at a cut, when all of their members have been heard.  True: replicas were found; false: none
 * were, or it is doubtful, and each rank is a shard of its own.  text says which and why, for `show`, in one sentence; it is
 * cut where it does not fit. */
bool rank_shards_infer(struct rank_shards *self,
                       const struct job_barrier *clocks,
                       char *text,
                       size_t cap);

#endif
