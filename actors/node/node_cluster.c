/* SPDX-License-Identifier: Apache-2.0
 * node_cluster.c - what a node tells its cluster: registration and heartbeats.
 */
#include "node_calls.h"

enum { REGISTER_TIMEOUT_MS = 2000 };

static void device_rec(const struct node_device *device,
                       struct orr_rec_device_row *ret_rec)
{
    *ret_rec = (struct orr_rec_device_row){
        .index = device->index,
        .uuid = orr_str(device->uuid),
        .type = orr_str(device->type),
        .memory_bytes = device->memory_bytes,
        .is_healthy = device->is_healthy,
        .trouble = orr_str(device->trouble),
    };
}

/* The answer tells when the question was sent. */
static uint64_t sent_tag(const struct orr_ctx *ctx, enum node_tag kind)
{
    uint64_t now = orr_now_ms(ctx);
    return node_tag(kind, (uint32_t)now, (uint32_t)(now >> 32));
}

uint64_t node_sent_ms(const struct orr_ctx *ctx)
{
    return ctx->tag & ((UINT64_C(1) << 56) - 1);
}

static uint32_t level_of(const struct node *self)
{
    if (!self->args.has_stops)
        return ORR_LEVEL_NONE;
    if (!self->is_image_able && !self->image_text[0])
        return ORR_LEVEL_UNKNOWN; /* still being tried */
    return self->is_image_able ? ORR_LEVEL_IMAGE : ORR_LEVEL_INPLACE;
}

void node_register_send(struct orr_ctx *ctx, struct node *self)
{
    if (self->state != NODE_READY || self->is_registering)
        return;
    struct orr_rec_device_row devices[NODE_DEVICES_MAX];
    for (uint32_t i = 0; i < self->n_devices; i++)
        device_rec(&self->devices[i], &devices[i]);
    struct orr_rec_rank_row *rows = self->row_list.at;
    uint32_t n = 0;
    for (struct node_row *row = NULL; (row = orr_pool_next(&self->rows, row)) != NULL;)
        node_row_rec(self, row, false, &rows[n++]);
    self->is_registering = true;
    self->is_changed = false;
    orr_ask(ctx,
            self->cluster,
            REGISTER_TIMEOUT_MS,
            sent_tag(ctx, NODE_TAG_REGISTER),
            node_register,
            .node = orr_str(self->args.node),
            .slots = self->args.slots,
            .memory_bytes = self->args.memory_bytes,
            .devices = {devices, self->n_devices},
            .ranks = {rows, n},
            .seq = ++self->heartbeat_seq,
            .host = orr_str(self->args.host),
            .endpoint = orr_str(self->args.endpoint),
            .machine = orr_str(self->args.machine),
            .machine_trouble = orr_str(self->args.machine_trouble),
            .level = level_of(self),
            .why_level = orr_str(self->is_image_able ? "" : self->image_text));
}

static uint32_t live_ranks(const struct node *self)
{
    uint32_t n = 0;
    for (struct node_row *row = NULL; (row = orr_pool_next(&self->rows, row)) != NULL;)
        n += node_rank_is_live(row->state);
    return n;
}

void node_heartbeat_send(struct orr_ctx *ctx, struct node *self)
{
    if (!self->is_registered) {
        if (orr_now_ms(ctx) >= self->register_due_ms)
            node_register_send(ctx, self);
    } else {
        orr_ask(ctx,
                self->cluster,
                self->args.heartbeat_ms * 2,
                sent_tag(ctx, NODE_TAG_HEARTBEAT),
                node_heartbeat,
                .node = orr_str(self->args.node),
                .seq = ++self->heartbeat_seq,
                .ranks = live_ranks(self),
                .members = self->noted,
                .is_unheard = node_is_unheard(ctx, self));
    }
    node_lease_check(ctx, self);
    node_soft_publish(ctx, self);
    orr_timer_set(ctx, NODE_T_HEARTBEAT, self->args.heartbeat_ms, 0);
}
