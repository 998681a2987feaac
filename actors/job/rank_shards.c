/* SPDX-License-Identifier: Apache-2.0
 * rank_shards.c - see rank_shards.h; docs/elastic.md has the rule and why it holds.
 */
#include "rank_shards.h"

void rank_shards_reset(struct rank_shards *self)
{
    self->n_shards = self->world;
    for (uint32_t r = 0; r < self->world; r++) {
        self->shard_of[r] = r;
        self->replica_of[r] = 0;
    }
}

enum orr_err
rank_shards_init(struct rank_shards *self, uint32_t world, uint32_t clocks_max)
{
    *self = (struct rank_shards){.world = world, .clocks_max = clocks_max};
    if (world == 0 || world > ORR_WORLD_MAX)
        return ORR_EINVAL;
    enum orr_err err =
        orr_block_init(&self->block, (size_t)world * 2 * sizeof(uint32_t));
    if (err != ORR_OK)
        return err;
    self->shard_of = self->block.at;
    self->replica_of = self->shard_of + world;
    rank_shards_reset(self);
    return ORR_OK;
}

void rank_shards_fini(struct rank_shards *self)
{
    orr_block_fini(&self->block);
    *self = (struct rank_shards){0};
}

enum orr_err
rank_shards_set(struct rank_shards *self, uint32_t shards, struct orr_error *err)
{
    if (shards == 0 || self->world % shards != 0)
        return orr_fail(err,
                        ORR_EINVAL,
                        "shards: %u does not divide the world of %u ranks",
                        shards,
                        self->world);
    self->n_shards = shards;
    for (uint32_t r = 0; r < self->world; r++) {
        self->shard_of[r] = r % shards;
        self->replica_of[r] = r / shards;
    }
    return ORR_OK;
}
