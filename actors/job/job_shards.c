/* SPDX-License-Identifier: Apache-2.0
 * job_shards.c - which ranks of the job may share a device (docs/elastic.md).
 *
 * START       The spec says it, or nobody does: then all ranks count as replicas, as they do at the launch, which cannot know
 *             more.  Devices are asked for by that
 * OPERATION   At the cut of a resize all clocks are here, and the communicators show it (rank_shards_infer).  The map is made
 *             again by what they show, before anything of the ranks is touched (job_resize_at_cut)
 * FAILURES    In doubt each rank is a shard of its own: fewer devices than ranks are refused, with the reason
 * Any other stop looks, too, as long as nothing is known: `show` can tell then.  What was seen is kept for the life of the actor; a
 * resize looks again, as a program makes communicators at any time.
 */
#include "job_shards.h"

enum { CLOCKS_A_RANK = 256, CLOCKS_MIN = 4096, CLOCKS_MAX = 1 << 20 };

void job_shards_fini(struct job *self)
{
    struct job_shards *shards = &self->plan.shards;
    rank_shards_fini(&shards->now);
    orr_block_fini(&shards->members);
    shards->has_tables = false;
}

/* members: the ranks by shard, those of one in the order of its replicas. */
static void list_members(struct job *self)
{
    const struct rank_shards *now = &self->plan.shards.now;
    uint32_t *members = self->plan.shards.members.at;
    uint32_t replicas = now->world / now->n_shards;
    for (uint32_t r = 0; r < now->world; r++)
        members[now->shard_of[r] * replicas + now->replica_of[r]] = r;
}

enum orr_err job_shards_tables(struct job *self, struct orr_error *err)
{
    struct job_shards *shards = &self->plan.shards;
    uint32_t world = self->args.world;
    uint32_t clocks = world > CLOCKS_MAX / CLOCKS_A_RANK
                          ? CLOCKS_MAX
                          : world * CLOCKS_A_RANK + CLOCKS_MIN;
    if (shards->has_tables)
        return ORR_OK;
    enum orr_err code =
        rank_shards_init(&shards->now, world, job_shards_are_said(self) ? 0 : clocks);
    if (code == ORR_OK)
        code = orr_block_init(&shards->members, world * sizeof(uint32_t));
    if (code != ORR_OK)
        (void)orr_fail(
            err, code, "the cluster's host has no memory to tell its ranks' shards");
    else
        code = rank_shards_set(
            &shards->now, job_shards_are_said(self) ? self->args.shards : 1, err);
    if (code != ORR_OK) {
        job_shards_fini(self);
        return code;
    }
    list_members(self);
    shards->has_tables = true;
    return ORR_OK;
}

static void believe_all(struct job *self)
{
    struct orr_error err;
    struct job_shards *shards = &self->plan.shards;
    shards->is_seen = false;
    if (rank_shards_set(&shards->now, 1, &err) == ORR_OK)
        list_members(self);
}

void job_shards_look(struct job *self)
{
    struct job_shards *shards = &self->plan.shards;
    struct orr_error err;
    if (job_shards_are_said(self) || job_shards_tables(self, &err) != ORR_OK)
        return;
    (void)rank_shards_infer(
        &shards->now, &self->plan.barrier, shards->why, sizeof(shards->why));
    shards->is_seen = true;
    shards->n = shards->now.n_shards;
    list_members(self);
}

void job_shards_tell(const struct job *self, struct orr_msg_manifest *manifest)
{
    const struct job_shards *shards = &self->plan.shards;
    if (!shards->is_seen || !shards->now.stride)
        return;
    manifest->shards_stride = shards->now.stride;
    manifest->shards_size = self->args.world / shards->now.n_shards;
}

void job_shards_recall(struct job *self, const struct orr_msg_manifest *manifest)
{
    struct job_shards *shards = &self->plan.shards;
    struct orr_error err;
    if (job_shards_are_said(self) || manifest->shards_size == 0 ||
        job_shards_tables(self, &err) != ORR_OK ||
        rank_shards_family(
            &shards->now, manifest->shards_stride, manifest->shards_size) != ORR_OK)
        return;
    shards->is_seen = true;
    shards->n = shards->now.n_shards;
    snprintf(shards->why,
             sizeof(shards->why),
             "groups of %u ranks, each %u after the one before, as was seen before it "
             "was restored",
             manifest->shards_size,
             manifest->shards_stride);
    list_members(self);
}

void job_shards_doubt(struct job *self, uint32_t devices)
{
    struct job_shards *shards = &self->plan.shards;
    if (!job_shards_are_said(self) && shards->has_tables && shards->n > devices)
        believe_all(self);
}

static bool is_on(struct job *self, uint32_t shard, uint32_t replica, uint32_t node)
{
    const struct rank_shards *now = &self->plan.shards.now;
    const uint32_t *members = self->plan.shards.members.at;
    uint32_t rank = members[shard * (now->world / now->n_shards) + replica];
    return job_rank_at(self, rank)->node == node;
}

/* Replicas of a shard on a node that share a device at best: all that are there; ordered, those of an aligned block of a power
 * of two.  How many such blocks are there? */
static uint32_t blocks_on(struct job *self, uint32_t node, uint32_t shard)
{
    uint32_t n = 0, replicas = self->args.world / self->plan.shards.now.n_shards;
    bool is_ordered = self->args.reduce == ORR_REDUCE_ORDERED;
    for (uint32_t at = 0; at < replicas;) {
        uint32_t size = 1;
        if (!is_on(self, shard, at, node)) {
            at++;
            continue;
        }
        if (!is_ordered)
            return 1;
        for (bool is_whole = true;
             is_whole && at % (2 * size) == 0 && size < replicas;) {
            for (uint32_t i = at + size; i < at + 2 * size && i < replicas; i++)
                is_whole = is_whole && is_on(self, shard, i, node);
            size *= is_whole ? 2 : 1;
        }
        at += size;
        n++;
    }
    return n;
}

uint32_t job_shards_least(struct job *self, uint32_t node)
{
    uint32_t n = 0;
    for (uint32_t s = 0; s < self->plan.shards.now.n_shards; s++)
        n += blocks_on(self, node, s);
    return n;
}
