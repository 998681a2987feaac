/* SPDX-License-Identifier: Apache-2.0
 * node_edges.c - what the edges find at their start: devices, and the ranks of earlier lives of this host.
 */
#include "node_calls.h"
#include "node_moves.h"

static void set_device(struct node_device *device, const struct orr_rec_device_row *rec)
{
    device->index = rec->index;
    device->is_healthy = rec->is_healthy;
    device->memory_bytes = rec->memory_bytes;
    orr_str_copy(device->uuid, sizeof(device->uuid), rec->uuid);
    orr_str_copy(device->type, sizeof(device->type), rec->type);
    orr_str_copy(device->trouble, sizeof(device->trouble), rec->trouble);
}

void node_devices_found(struct orr_ctx *ctx,
                        struct node *self,
                        const struct orr_msg_devices_found *msg)
{
    self->n_devices = 0;
    for (uint32_t i = 0; i < msg->devices.n && self->n_devices < NODE_DEVICES_MAX; i++)
        if (msg->devices.at[i].index < NODE_DEVICES_MAX)
            set_device(&self->devices[self->n_devices++], &msg->devices.at[i]);
    if (self->n_devices < msg->devices.n)
        orr_log(ctx,
                ORR_LOG_WARN,
                "%u devices found, the first %u are used",
                msg->devices.n,
                self->n_devices);
    self->n_rank_env = 0;
    for (uint32_t i = 0; i < msg->rank_env.n && i < NODE_RANK_ENV_MAX; i++) {
        struct node_var *var = &self->rank_env[self->n_rank_env++];
        orr_str_copy(var->name, sizeof(var->name), msg->rank_env.at[i].name);
        orr_str_copy(var->value, sizeof(var->value), msg->rank_env.at[i].value);
    }
    self->has_devices = true;
    self->is_changed = true;
    self->is_registered = false;
}

bool node_device_health(struct node *self, const struct orr_msg_device_health *msg)
{
    for (uint32_t i = 0; i < self->n_devices; i++) {
        if (self->devices[i].index != msg->device.index)
            continue;
        set_device(&self->devices[i], &msg->device);
        self->is_changed = true;
        self->is_registered = false;
        return true;
    }
    return false;
}

struct node_row *node_row_of(struct node *self, const struct orr_rec_rank_row *rec)
{
    struct node_group *group = node_group_find(self, rec->job, rec->generation);
    struct node_row *row = group ? node_row_find(self, group, rec->rank) : NULL;
    return row ? row : node_left_find(self, rec->job, rec->generation, rec->rank);
}

/* Its library finds its way back to this life of the host; the way is named after the job (job_plan_start). */
static void expect(struct orr_ctx *ctx,
                   struct node *self,
                   struct node_group *group,
                   const struct node_row *row)
{
    char name[ORR_JOB_ID_MAX + 8];
    snprintf(name, sizeof(name), "link/%s", group->job);
    group->link = orr_hash(orr_str(name));
    if (self->args.has_stops)
        orr_send(ctx,
                 self->rank_edge,
                 rank_expect,
                 .job = orr_str(group->job),
                 .generation = group->generation,
                 .rank = row->rank,
                 .link = group->link);
}

/* How far its stop had come.  Ranks of a group are noted one after another: the furthest counts, as a resume of one that runs
 * changes nothing. */
static void take_stop(struct node_group *group, const struct orr_rec_rank_row *rec)
{
    struct node_cut *cut = &group->cut;
    cut->is_frozen = cut->is_frozen || rec->is_frozen;
    cut->is_found = true;
    if (rec->cut > cut->cut || (rec->cut == cut->cut && rec->cut_step > cut->step)) {
        cut->cut = rec->cut;
        cut->step = rec->cut_step;
    }
}

/* A rank of an earlier life of this host. */
static void
adopt(struct orr_ctx *ctx, struct node *self, const struct orr_rec_rank_row *rec)
{
    struct node_group *group = node_group_find(self, rec->job, rec->generation);
    if (!group)
        group = node_group_make(self, rec->job, rec->generation);
    struct node_row *row = group ? node_row_add(self, group, rec->rank) : NULL;
    if (!row) {
        orr_log(ctx,
                ORR_LOG_ERROR,
                "rank %u of %.*s is not adopted: the table is full; raise ranks_max",
                rec->rank,
                ORR_STR_ARGS(rec->job));
        if (group && !group->n_rows)
            node_group_drop(self, group);
        return;
    }
    group->is_frozen = group->is_in_doubt = true;
    group->wants_image = group->wants_image || rec->level == ORR_LEVEL_IMAGE;
    row->device = rec->device;
    row->was_found = true;
    row->visible = rec->visible;
    row->is_seen = rec->visible != 0;
    take_stop(group, rec);
    expect(ctx, self, group, row);
    node_row_apply(ctx, self, row, rec);
}

static bool is_found(const struct orr_msg_processes_found *msg,
                     const struct node_group *group,
                     const struct node_row *row)
{
    for (uint32_t i = 0; i < msg->ranks.n; i++) {
        const struct orr_rec_rank_row *rec = &msg->ranks.at[i];
        if (rec->rank == row->rank && rec->generation == group->generation &&
            orr_str_eq(rec->job, orr_str(group->job)))
            return true;
    }
    return false;
}

void node_processes_found(struct orr_ctx *ctx,
                          struct node *self,
                          const struct orr_msg_processes_found *msg)
{
    for (struct node_row *row = NULL;
         (row = orr_pool_next(&self->rows, row)) != NULL;) {
        const struct node_group *group = orr_pool_at(&self->groups, row->group);
        if (!node_rank_is_live(row->state) || row->is_launching ||
            group->is_waiting_port || group->is_fetching || is_found(msg, group, row))
            continue;
        node_row_apply(ctx,
                       self,
                       row,
                       &(struct orr_rec_rank_row){
                           .state = ORR_RANK_LOST,
                           .changed_unix_ms = ctx->wall_ms,
                           .reason = ORR_LIT("its process is gone without a trace")});
    }
    for (uint32_t i = 0; i < msg->ranks.n; i++) {
        struct node_row *row = node_row_of(self, &msg->ranks.at[i]);
        if (row)
            node_row_apply(ctx, self, row, &msg->ranks.at[i]);
        else
            adopt(ctx, self, &msg->ranks.at[i]);
    }
    if (self->args.has_stops) /* all that live are expected: the arenas of others go */
        orr_send(ctx, self->rank_edge, rank_arena_drop, .job = orr_str(""));
    node_lease_found(ctx, self, msg);
    self->has_processes = true;
}
