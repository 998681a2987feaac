/* SPDX-License-Identifier: Apache-2.0
 * cluster_devices.c - devices of jobs that are suspended: given back, and taken again.
 *
 * A suspended job keeps its holds, so that its slots and its memory stay counted, but no devices in them.  To go on it gets
 * devices on the same nodes, of the same type, which may be others: ranks that shared one share one again.  All or none.
 */
#include "cluster_calls.h"

static struct cluster_job *find_live(struct orr_ctx *ctx,
                                     const struct cluster *self,
                                     struct orr_str id,
                                     uint64_t generation)
{
    struct cluster_job *job = cluster_job_find(self, id, generation);
    if (job && job->state == CLUSTER_JOB_LIVE && orr_addr_eq(job->addr, ctx->from))
        return job;
    (void)orr_refuse(ctx,
                     ORR_ENOENT,
                     "cluster %s has no actor of job %.*s that this could be",
                     self->args.cluster,
                     ORR_STR_ARGS(id));
    return NULL;
}

static void free_devices(struct cluster *self, struct cluster_job *job)
{
    for (struct cluster_hold *hold = orr_pool_at(&self->holds, job->first_hold); hold;
         hold = orr_pool_at(&self->holds, hold->next)) {
        struct cluster_node *node = orr_pool_at(&self->nodes, hold->node);
        uint32_t slots = hold->slots;
        cluster_hold_clear(self, hold);
        hold->slots = slots;
        node->slots_used += slots;
    }
}

enum orr_err cluster_devices_freed(struct orr_ctx *ctx,
                                   struct cluster *self,
                                   const struct orr_msg_devices_freed *msg)
{
    struct cluster_job *job = find_live(ctx, self, msg->job, msg->generation);
    if (!job)
        return ORR_ENOENT;
    free_devices(self, job);
    cluster_changed(ctx, self);
    return ORR_OK;
}

static uint64_t held_by(const struct cluster *self,
                        const struct cluster_job *job,
                        const struct cluster_node *node)
{
    for (const struct cluster_hold *hold = orr_pool_at(&self->holds, job->first_hold);
         hold;
         hold = orr_pool_at(&self->holds, hold->next))
        if (orr_pool_at(&self->nodes, hold->node) == node)
            return hold->devices;
    return 0;
}

/* The same one where it is free, else one of its type; ORR_NO_DEVICE: none. */
static uint32_t pick(const struct cluster_node *node, uint64_t taken, uint32_t was)
{
    uint32_t found = ORR_NO_DEVICE;
    for (uint32_t i = 0; i < CLUSTER_DEVICES_MAX; i++) {
        const struct cluster_device *device = &node->devices[i];
        bool fits = device->is_there && device->is_healthy && !(taken >> i & 1) &&
                    strcmp(device->type, node->devices[was].type) == 0 &&
                    device->memory_bytes >= node->devices[was].memory_bytes;
        if (fits && (found == ORR_NO_DEVICE || i == was))
            found = i;
    }
    return found;
}

/* An earlier rank of the list that had the same device; n: none. */
static uint32_t twin_of(const struct orr_msg_devices_want *msg, uint32_t at)
{
    const struct orr_rec_rank_place *rank = &msg->ranks.at[at];
    for (uint32_t i = 0; i < at; i++)
        if (msg->ranks.at[i].device == rank->device &&
            orr_str_eq(msg->ranks.at[i].node, rank->node))
            return i;
    return msg->ranks.n;
}

/* What is taken on a node: by others, and by the ranks before `n`. */
static uint64_t taken_on(const struct cluster *self,
                         const struct cluster_job *job,
                         const struct cluster_node *node,
                         const struct orr_rec_rank_place *places,
                         uint32_t n)
{
    uint64_t taken = node->used & ~held_by(self, job, node);
    for (uint32_t i = 0; i < n; i++)
        if (places[i].device < CLUSTER_DEVICES_MAX &&
            orr_str_eq(places[i].node, orr_str(node->name)))
            taken |= UINT64_C(1) << places[i].device;
    return taken;
}

static enum orr_err place_again(struct orr_ctx *ctx,
                                struct cluster *self,
                                const struct cluster_job *job,
                                const struct orr_msg_devices_want *msg)
{
    struct orr_rec_rank_place *places = self->places.at;
    for (uint32_t i = 0; i < msg->ranks.n; i++) {
        places[i] = msg->ranks.at[i];
        if (places[i].device >= CLUSTER_DEVICES_MAX)
            continue; /* a rank without one */
        uint32_t twin = twin_of(msg, i);
        if (twin < i) {
            places[i].device = places[twin].device;
            continue;
        }
        const struct cluster_node *node = cluster_node_find(self, places[i].node);
        uint32_t device =
            node && node->state == ORR_NODE_UP
                ? pick(node, taken_on(self, job, node, places, i), places[i].device)
                : ORR_NO_DEVICE;
        if (device == ORR_NO_DEVICE)
            return orr_refuse(ctx,
                              ORR_ENODEV,
                              "node %.*s has no free device of that type now",
                              ORR_STR_ARGS(places[i].node));
        places[i].device = device;
    }
    return ORR_OK;
}

enum orr_err cluster_devices_want(struct orr_ctx *ctx,
                                  struct cluster *self,
                                  const struct orr_msg_devices_want *msg)
{
    struct cluster_job *job = find_live(ctx, self, msg->job, msg->generation);
    if (!job)
        return ORR_ENOENT;
    if (msg->ranks.n > self->args.world_max)
        return orr_refuse(ctx, ORR_EINVAL, "job %s: too many ranks", job->job);
    enum orr_err err = place_again(ctx, self, job, msg);
    if (err != ORR_OK)
        return err;
    const struct orr_rec_rank_place *places = self->places.at;
    free_devices(self, job); /* an answer that was lost gave it others */
    for (uint32_t i = 0; i < msg->ranks.n; i++) {
        struct cluster_node *node = cluster_node_find(self, places[i].node);
        struct cluster_hold *hold = node ? cluster_hold_get(self, job, node) : NULL;
        if (hold && places[i].device < CLUSTER_DEVICES_MAX)
            cluster_hold_add(self, hold, places[i].device);
    }
    cluster_changed(ctx, self);
    orr_reply(ctx, devices_given, .ranks = {places, msg->ranks.n});
    return ORR_OK;
}
