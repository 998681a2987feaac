/* SPDX-License-Identifier: Apache-2.0
 * region_storage.c - the region's tables and scratch memory, all sized once from its arguments.
 */
#include "region_calls.h"

enum { LIST_BYTES_PER_ROW = 256, LIST_MAX = 500, CHECKPOINTS_PER_JOB = 4 };

static struct orr_str job_id(const void *item)
{
    return orr_str(((const struct region_job *)item)->id);
}
static struct orr_str job_key(const void *item)
{
    return orr_str(((const struct region_job *)item)->key);
}
static struct orr_str cluster_name(const void *item)
{
    return orr_str(((const struct region_cluster *)item)->name);
}
static struct orr_str node_key(const void *item)
{
    return orr_str(((const struct region_node *)item)->key);
}

void region_storage_fini(struct region *self)
{
    orr_map_fini(&self->jobs_by_id);
    orr_map_fini(&self->jobs_by_key);
    orr_map_fini(&self->clusters_by_name);
    orr_map_fini(&self->nodes_by_key);
    orr_pool_fini(&self->jobs);
    orr_pool_fini(&self->clusters);
    orr_pool_fini(&self->nodes);
    orr_pool_fini(&self->waits);
    orr_pool_fini(&self->checkpoints);
    orr_blobs_fini(&self->blobs);
    orr_block_fini(&self->spec);
    orr_block_fini(&self->spec_body);
    orr_block_fini(&self->body);
    orr_block_fini(&self->places);
    orr_block_fini(&self->manifest);
    orr_block_fini(&self->manifest_body);
    orr_block_fini(&self->roots);
    orr_block_fini(&self->list);
    orr_block_fini(&self->waiting);
    region_entry_fini(&self->ledger.entry);
}

static size_t max_of(size_t a, size_t b)
{
    return a > b ? a : b;
}

static enum orr_err take_tables(struct region *self)
{
    const struct orr_region_args *args = &self->args;
    enum orr_err err =
        orr_pool_init(&self->jobs, sizeof(struct region_job), args->jobs_max);
    if (err == ORR_OK)
        err = orr_pool_init(
            &self->clusters, sizeof(struct region_cluster), args->clusters_max);
    if (err == ORR_OK)
        err = orr_pool_init(&self->nodes, sizeof(struct region_node), args->nodes_max);
    if (err == ORR_OK)
        err = orr_pool_init(&self->waits, sizeof(struct region_wait), args->waits_max);
    if (err == ORR_OK)
        err = orr_pool_init(&self->checkpoints,
                            sizeof(struct region_checkpoint),
                            args->jobs_max > UINT32_MAX / CHECKPOINTS_PER_JOB
                                ? UINT32_MAX / 2
                                : args->jobs_max * CHECKPOINTS_PER_JOB);
    if (err == ORR_OK)
        err = orr_map_init(&self->jobs_by_id, &self->jobs, job_id);
    if (err == ORR_OK)
        err = orr_map_init(&self->jobs_by_key, &self->jobs, job_key);
    if (err == ORR_OK)
        err = orr_map_init(&self->clusters_by_name, &self->clusters, cluster_name);
    if (err == ORR_OK)
        err = orr_map_init(&self->nodes_by_key, &self->nodes, node_key);
    return err;
}

static enum orr_err take_blocks(struct region *self)
{
    const struct orr_region_args *args = &self->args;
    size_t rows = LIST_MAX * (sizeof(struct orr_rec_job_row) + LIST_BYTES_PER_ROW);
    size_t nodes = args->nodes_max * sizeof(struct orr_rec_node_row);
    size_t claims = args->jobs_max * sizeof(struct orr_rec_job_claim);
    size_t place = sizeof(struct orr_rec_rank_place) + ORR_NAME_MAX;
    size_t part = sizeof(struct orr_rec_part) + REGION_HASH_BYTES;
    enum orr_err err = orr_blobs_init(&self->blobs, (size_t)args->jobs_max * 2048);
    if (err == ORR_OK)
        err = orr_block_init(&self->spec, REGION_SPEC_BYTES);
    if (err == ORR_OK)
        err = orr_block_init(&self->spec_body, REGION_SPEC_BYTES);
    if (err == ORR_OK)
        err = orr_block_init(&self->body, REGION_BODY_BYTES);
    if (err == ORR_OK)
        err = orr_block_init(&self->places,
                             sizeof(struct orr_msg_job_update) + 64 +
                                 args->world_max * place);
    if (err == ORR_OK)
        err = orr_block_init(&self->manifest,
                             sizeof(struct orr_msg_manifest) + REGION_HASH_BYTES +
                                 args->world_max * part);
    if (err == ORR_OK)
        err = orr_block_init(&self->manifest_body, REGION_BODY_BYTES);
    if (err == ORR_OK)
        err =
            orr_block_init(&self->roots, (size_t)REGION_ROOTS_MAX * REGION_ROOT_BYTES);
    if (err == ORR_OK)
        err = orr_block_init(&self->list, max_of(rows, max_of(nodes, claims)));
    if (err == ORR_OK)
        err = orr_block_init(&self->waiting, REGION_WAITING_BYTES);
    return err;
}

enum orr_err region_storage_init(struct region *self)
{
    enum orr_err err = take_tables(self);
    if (err == ORR_OK)
        err = take_blocks(self);
    if (err != ORR_OK)
        region_storage_fini(self);
    return err;
}
