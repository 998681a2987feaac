/* SPDX-License-Identifier: Apache-2.0
 * node_launch.c - from rank_launch to running processes.
 *
 * START       rows are made first, in the state `starting`: from then on ranks_get and
 * rank_stop know the generation OPERATION   the node with rank 0 reserves a port; each
 * rank is one process_launch with a complete environment STOP        rank_launched is
 * answered when every process_launch was FAILURES    a rank that cannot start is a row
 * in the state `failed`, or `lost` where it is the machine that cannot, with the reason, told like every change; a launch that the
 * process edge did not answer is repeated (the edge knows (job, generation, rank) and
 * starts it once)
 */
#include "node_calls.h"
#include "node_devices.h"
#include "node_moves.h"

enum {
    PORT_TIMEOUT_MS = 5000,
    LAUNCH_TIMEOUT_MS = 5000,
    RESTORE_TIMEOUT_MS = 120000,
    SIGNAL_TERM = 15
};

/* On the job's overlay: ranks count from 10.77.0.1. */
static void rank_address(uint32_t rank, char *dst, size_t cap, bool has_prefix)
{
    snprintf(dst,
             cap,
             "10.77.%u.%u%s",
             (rank + 1) >> 8 & 255,
             (rank + 1) & 255,
             has_prefix ? "/16" : "");
}

static void launch_row(struct orr_ctx *ctx,
                       struct node *self,
                       struct node_group *group,
                       struct node_row *row,
                       const struct orr_msg_job_spec *spec)
{
    row->launch_seq = ++self->next_seq & 0xffffff;
    row->is_launching = true;
    row->is_relaunching = false;
    row->image_cut = group->is_image_restore ? group->cut.cut : 0;
    char dir[320], address[32], hostname[24];
    struct orr_rec_text machines[ORR_MACHINES_MAX];
    node_image_dir(self, group, row, group->cut.cut, dir, sizeof(dir));
    rank_address(row->rank, address, sizeof(address), true);
    snprintf(hostname, sizeof(hostname), "rank%u", row->rank);
    bool is_image = group->wants_image, is_wide = is_image && group->n_machines;
    orr_ask(
        ctx,
        self->process_edge,
        group->is_image_restore ? RESTORE_TIMEOUT_MS : LAUNCH_TIMEOUT_MS,
        node_tag(NODE_TAG_LAUNCH, orr_pool_index(&self->rows, row), row->launch_seq),
        process_launch,
        .job = orr_str(group->job),
        .generation = group->generation,
        .rank = row->rank,
        .device = row->device,
        .command = spec->command,
        .env = node_env_make(self, group, row, spec),
        .workdir = spec->workdir,
        .wants_image = is_image,
        .overlay = is_image ? group->overlay : 0,
        .address = orr_str(is_image ? address : ""),
        .hostname = orr_str(is_image ? hostname : ""),
        .underlay = orr_str(is_wide ? self->args.machine : ""),
        .peers =
            is_wide ? node_machines_list(group, machines) : (struct orr_list_text){0},
        .restore_dir = orr_str(group->is_image_restore ? dir : ""),
        .stays_frozen = group->is_joining);
}

static enum orr_err decode_spec(struct node *self, struct orr_bytes body)
{
    return orr_msg_decode(
        orr_msg_desc_job_spec(), body.ptr, body.len, self->spec.at, self->spec.size);
}

static enum orr_err launch_all(struct orr_ctx *ctx,
                               struct node *self,
                               struct node_group *group,
                               struct orr_bytes body)
{
    enum orr_err err = decode_spec(self, body);
    if (err != ORR_OK)
        return orr_refuse(ctx, err, "job %s: its spec cannot be read", group->job);
    for (struct node_row *row = node_row_first(self, group); row;
         row = node_row_next(self, row)) {
        if (group->is_joined_by && !row->is_joining)
            continue;
        launch_row(ctx, self, group, row, self->spec.at);
        group->n_launching++;
    }
    return ORR_OK;
}

struct orr_str node_why_no_image(const struct node *self,
                                 const struct node_group *group)
{
    switch (group->mode) {
    case ORR_CHECKPOINT_INPLACE:
        return ORR_LIT("checkpoint.mode is inplace");
    case ORR_CHECKPOINT_COOPERATIVE:
        return ORR_LIT("checkpoint.mode is cooperative");
    case ORR_CHECKPOINT_NONE:
        return ORR_LIT("checkpoint.mode is none");
    default:
        if (group->is_as_first)
            return ORR_LIT(
                "the node of rank 0 cannot make images: no network of ranks");
        return group->is_too_wide
                   ? ORR_LIT("a network of ranks spans 65 machines at most")
                   : orr_str(self->image_text);
    }
}

/* What this machine can give; a rank's own library may say less, or that its program saves itself. */
static uint32_t launch_level(const struct node *self,
                             const struct node_group *group,
                             struct orr_str *ret_why)
{
    *ret_why = ORR_LIT("");
    if (!self->args.has_stops) {
        *ret_why = ORR_LIT("its node has no edge for ranks");
        return ORR_LEVEL_NONE;
    }
    if (group->wants_image)
        return ORR_LEVEL_IMAGE;
    *ret_why = node_why_no_image(self, group);
    return ORR_LEVEL_INPLACE;
}

static void
answer(struct orr_ctx *ctx, const struct node *self, struct node_group *group)
{
    struct orr_str why;
    if (group->request.corr)
        orr_reply_to(ctx,
                     &group->request,
                     rank_launched,
                     .master_addr = orr_str(group->master_addr),
                     .master_port = group->master_port,
                     .level = launch_level(self, group, &why),
                     .why_level = why);
    group->request = (struct orr_request){0};
}

static bool device_exists(const struct node *self, uint32_t index)
{
    for (uint32_t i = 0; i < self->n_devices; i++)
        if (self->devices[i].index == index)
            return true;
    return index == ORR_NO_DEVICE;
}

enum orr_err node_launch_check(struct orr_ctx *ctx,
                               const struct node *self,
                               const struct orr_msg_rank_launch *msg)
{
    if (node_is_fenced(self, msg->job, msg->generation, msg->cut))
        return orr_refuse(ctx,
                          ORR_ESTALE,
                          "job %.*s generation %llu has ended on %s",
                          ORR_STR_ARGS(msg->job),
                          (unsigned long long)msg->generation,
                          self->args.node);
    if (node_lease_is_over(
            ctx, self)) /* it may have waited here while the host was stopped */
        return orr_refuse(ctx,
                          ORR_EBUSY,
                          "node %s has not heard its cluster for too long; ask again",
                          self->args.node);
    if (msg->ranks.n == 0 || msg->job.len >= ORR_JOB_ID_MAX)
        return orr_refuse(
            ctx, ORR_EINVAL, "rank_launch names no rank, or too long a job");
    if (msg->ranks.n > self->rows.cap - self->rows.n_used ||
        self->groups.n_used == self->groups.cap)
        return orr_refuse(ctx,
                          ORR_ENOSPC,
                          "node %s keeps at most %u ranks; raise ranks_max",
                          self->args.node,
                          self->rows.cap);
    for (uint32_t i = 0; i < msg->ranks.n; i++)
        if (node_left_find(self, msg->job, msg->generation, msg->ranks.at[i].rank))
            return orr_refuse(ctx,
                              ORR_EBUSY,
                              "rank %u, which was here before, is still being ended",
                              msg->ranks.at[i].rank);
    for (uint32_t i = 0; i < msg->ranks.n; i++)
        if (!device_exists(self, msg->ranks.at[i].device))
            return orr_refuse(ctx,
                              ORR_ENODEV,
                              "node %s has no device %u",
                              self->args.node,
                              msg->ranks.at[i].device);
    for (struct node_group *group = NULL;
         (group = orr_pool_next(&self->groups, group)) != NULL;)
        if (orr_str_eq(orr_str(group->job), msg->job) &&
            group->generation > msg->generation)
            return orr_refuse(ctx,
                              ORR_ESTALE,
                              "job %s runs as generation %llu on %s",
                              group->job,
                              (unsigned long long)group->generation,
                              self->args.node);
    return ORR_OK;
}

/* Ranks meet at rank 0's address: all on a network of theirs, or all on the machines'.  False: this node cannot do as that one. */
static bool
meet_as_first(const struct node *self, struct node_group *group, struct orr_str at)
{
    char overlay[32];
    rank_address(0, overlay, sizeof(overlay), false);
    bool is_overlay = orr_str_eq(at, orr_str(overlay));
    if (!at.len || !self->args.has_stops)
        return true;
    group->is_as_first = group->wants_image && !is_overlay;
    bool is_able = group->wants_image || !is_overlay;
    group->wants_image = group->wants_image && is_overlay;
    return is_able;
}

/* How its ranks are to be stopped, and what they go on from. */
enum orr_err node_launch_take(struct orr_ctx *ctx,
                              struct node *self,
                              struct node_group *group,
                              const struct orr_msg_rank_launch *msg)
{
    enum orr_err err = decode_spec(self, msg->spec);
    if (err != ORR_OK)
        return orr_refuse(ctx, err, "job %s: its spec cannot be read", group->job);
    const struct orr_msg_job_spec *spec = self->spec.at;
    group->mode = spec->checkpoint_mode;
    bool is_wanted =
        group->mode == ORR_CHECKPOINT_AUTO || group->mode == ORR_CHECKPOINT_IMAGE;
    bool is_known = self->is_image_able || self->image_text[0];
    if (self->args.has_stops && is_wanted && !is_known) /* else it never could be */
        return orr_refuse(ctx,
                          ORR_EBUSY,
                          "node %s is still looking whether it can make images",
                          self->args.node);
    char why[200] = "";
    bool is_reached = node_machines_take(self, group, msg->machines, why, sizeof(why));
    group->wants_image =
        self->args.has_stops && self->is_image_able && is_wanted && !group->is_too_wide;
    if (group->wants_image && !is_reached)
        return orr_refuse(ctx, ORR_ENOSYS, "%s", why);
    if (!meet_as_first(self, group, msg->master_addr) && is_wanted)
        return orr_refuse(ctx,
                          ORR_ENOSYS,
                          "node %s cannot make images, and the node of rank 0 can: its "
                          "ranks would not reach that one's: %.*s",
                          self->args.node,
                          ORR_STR_ARGS(node_why_no_image(self, group)));
    group->link = msg->link;
    group->overlay = msg->overlay;
    group->is_restore = msg->parts.n > 0;
    group->is_image_restore = group->is_restore && msg->level != ORR_LEVEL_COOPERATIVE;
    group->cut.cut = msg->cut;
    group->is_joining = group->cut.is_frozen =
        msg->is_joining && group->is_image_restore;
    if (group->is_restore && !self->args.has_stops)
        return orr_refuse(
            ctx, ORR_ENOSYS, "node %s cannot restore ranks", self->args.node);
    if (group->is_image_restore && !group->wants_image)
        return orr_refuse(ctx,
                          ORR_ENOSYS,
                          "node %s cannot restore images: %s",
                          self->args.node,
                          self->image_text);
    for (uint32_t i = 0; i < msg->parts.n; i++) {
        const struct orr_rec_part *part = &msg->parts.at[i];
        struct node_row *row = node_row_find(self, group, part->rank);
        if (!row)
            return orr_refuse(
                ctx,
                ORR_EINVAL,
                "rank_launch has a part of rank %u, which is not of this node",
                part->rank);
        orr_str_copy(row->part, sizeof(row->part), part->hash);
        orr_str_copy(row->part_store, sizeof(row->part_store), part->store);
        orr_str_copy(row->part_endpoint, sizeof(row->part_endpoint), part->endpoint);
        row->part_bytes = part->bytes;
        row->is_silent = part->is_silent && group->is_image_restore;
        if (!node_procs_read(self, row, part))
            return orr_refuse(ctx,
                              ORR_EINVAL,
                              "rank_launch: the list of rank %u's device memory, "
                              "`%.*s`, is damaged, or of too many processes",
                              part->rank,
                              ORR_STR_ARGS(part->arenas));
    }
    return ORR_OK;
}

/* Ranks that go on from a checkpoint need it here first. */
static enum orr_err launch_or_fetch(struct orr_ctx *ctx,
                                    struct node *self,
                                    struct node_group *group,
                                    struct orr_bytes body)
{
    if (!self->args.has_stops)
        return launch_all(ctx, self, group, body);
    if (!group->is_restore) {
        for (struct node_row *row = node_row_first(self, group); row;
             row = node_row_next(self, row))
            orr_send(ctx,
                     self->rank_edge,
                     rank_expect,
                     .job = orr_str(group->job),
                     .generation = group->generation,
                     .rank = row->rank,
                     .link = group->link);
        return launch_all(ctx, self, group, body);
    }
    group->cut.until_ms = orr_now_ms(ctx) + NODE_FETCH_MS;
    group->is_fetching = true;
    node_cut_stage(ctx, self, group, NODE_STAGE_EXPECT);
    return ORR_OK;
}

void node_launch_restored(struct orr_ctx *ctx,
                          struct node *self,
                          struct node_group *group)
{
    struct orr_bytes body = orr_blob_get(
        &self->specs, group->spec, self->spec_body.at, self->spec_body.size);
    group->is_fetching = false;
    if (group->is_stopping)
        node_launch_give_up(
            ctx, self, group, ORR_ESTALE, ORR_LIT("stopped before it started"));
    else if (launch_all(ctx, self, group, body) != ORR_OK)
        node_launch_give_up(
            ctx, self, group, ORR_EIO, ORR_LIT("the spec cannot be read"));
}

enum orr_err node_launch(struct orr_ctx *ctx,
                         struct node *self,
                         const struct orr_msg_rank_launch *msg)
{
    struct node_group *group = node_group_find(self, msg->job, msg->generation);
    if (group && node_join_is_new(self, group, msg))
        return node_join(ctx, self, group, msg);
    if (group) { /* repeated: answer when the first is done */
        group->request = orr_defer(ctx);
        if (!group->is_waiting_port && !group->is_fetching && group->n_launching == 0)
            answer(ctx, self, group);
        return ORR_OK;
    }
    enum orr_err err = node_launch_check(ctx, self, msg);
    if (err != ORR_OK)
        return err;
    uint32_t spec;
    if (orr_blob_put(&self->specs, msg->spec, &spec) != ORR_OK)
        return orr_refuse(
            ctx, ORR_EBUSY, "node %s launches too many jobs at once", self->args.node);
    group = node_group_make(self, msg->job, msg->generation);
    group->spec = spec;
    group->asked_ms = orr_now_ms(ctx);
    group->node_rank = msg->node_rank;
    for (uint32_t i = 0; i < msg->ranks.n; i++) {
        struct node_row *row = node_row_add(self, group, msg->ranks.at[i].rank);
        row->device = msg->ranks.at[i].device;
        row->local_rank = msg->ranks.at[i].local_rank;
        row->changed_unix_ms = ctx->wall_ms;
    }
    for (struct node_row *row = node_row_first(self, group); row;
         row = node_row_next(self, row))
        row->visible = node_group_devices(self, group);
    orr_str_copy(group->master_addr, sizeof(group->master_addr), msg->master_addr);
    group->master_port = msg->master_port;
    err = node_launch_take(ctx, self, group, msg);
    if (err != ORR_OK) {
        node_group_drop(self, group);
        return err;
    }
    if (msg->master_addr.len == 0) {
        group->is_waiting_port = true;
        group->seq = ++self->next_seq & 0xffffff;
        orr_ask(
            ctx,
            self->process_edge,
            PORT_TIMEOUT_MS,
            node_tag(NODE_TAG_PORT, orr_pool_index(&self->groups, group), group->seq),
            port_reserve,
            .job = msg->job);
    } else if ((err = launch_or_fetch(ctx, self, group, msg->spec)) != ORR_OK) {
        node_group_drop(self, group);
        return err;
    }
    group->request = orr_defer(ctx);
    return ORR_OK;
}

/* The group is given up before any process: the job actor may ask again. */
void node_launch_give_up(struct orr_ctx *ctx,
                         struct node *self,
                         struct node_group *group,
                         uint32_t code,
                         struct orr_str text)
{
    if (group->is_joined_by) {
        node_join_give_up(ctx, self, group, code, text);
        return;
    }
    if (group->request.corr)
        orr_reply_to(ctx,
                     &group->request,
                     failed,
                     .code = code,
                     .msg = ORR_MSG_rank_launch,
                     .text = text);
    node_group_drop(self, group);
}

void node_launch_port(struct orr_ctx *ctx,
                      struct node *self,
                      uint32_t group_index,
                      uint32_t seq,
                      const struct orr_msg_port_reserved *msg)
{
    struct node_group *group = orr_pool_at(&self->groups, group_index);
    if (!group || group->seq != seq || !group->is_waiting_port)
        return;
    group->is_waiting_port = false;
    if (group->is_stopping) {
        node_launch_give_up(
            ctx, self, group, ORR_ESTALE, ORR_LIT("stopped before it started"));
        return;
    }
    orr_str_copy(group->master_addr, sizeof(group->master_addr), msg->addr);
    group->master_port = msg->port;
    struct orr_bytes body = orr_blob_get(
        &self->specs, group->spec, self->spec_body.at, self->spec_body.size);
    if (group->wants_image) /* on the overlay, not the machine's */
        rank_address(0, group->master_addr, sizeof(group->master_addr), false);
    enum orr_err err = launch_or_fetch(ctx, self, group, body);
    if (err != ORR_OK)
        node_launch_give_up(ctx, self, group, err, ORR_LIT("the spec cannot be read"));
}

static void launch_done(struct orr_ctx *ctx,
                        struct node *self,
                        struct node_group *group,
                        struct node_row *row)
{
    row->is_launching = false;
    if (group->is_stopping && node_rank_is_live(row->state))
        orr_send(ctx,
                 self->process_edge,
                 process_signal,
                 .job = orr_str(group->job),
                 .generation = group->generation,
                 .rank = row->rank,
                 .signal = SIGNAL_TERM);
    if (--group->n_launching > 0 || group->is_left)
        return;
    orr_blob_drop(&self->specs, group->spec);
    group->spec = ORR_NONE;
    if (group->is_joined_by)
        node_join_done(self, group);
    answer(ctx, self, group);
}

void node_launch_answered(struct orr_ctx *ctx,
                          struct node *self,
                          uint32_t row_index,
                          uint32_t seq)
{
    struct node_row *row = orr_pool_at(&self->rows, row_index);
    if (row && row->is_launching && row->launch_seq == seq)
        launch_done(ctx, self, orr_pool_at(&self->groups, row->group), row);
}

static void row_failed(struct orr_ctx *ctx,
                       struct node *self,
                       struct node_row *row,
                       const struct orr_msg_failed *msg)
{
    struct node_group *group = orr_pool_at(&self->groups, row->group);
    if (msg->code == ORR_EEXIST) {
        launch_done(ctx, self, group, row);
        return;
    }
    if (msg->code == ORR_ETIMEOUT || msg->code == ORR_EBUSY || msg->code == ORR_EGONE) {
        row->is_relaunching = true; /* it may run or not: ask until the edge has said */
        node_retry_arm(ctx, self);
        return;
    }
    char reason[sizeof(row->reason)];
    bool is_machine =
        msg->code == ORR_EIO || msg->code == ORR_ENOSPC || msg->code == ORR_ENOMEM;
    snprintf(reason, sizeof(reason), "cannot start: %.*s", ORR_STR_ARGS(msg->text));
    launch_done(ctx, self, group, row);
    node_row_end(
        ctx, self, row, is_machine ? ORR_RANK_LOST : ORR_RANK_FAILED, orr_str(reason));
}

void node_launch_again(struct orr_ctx *ctx, struct node *self, struct node_row *row)
{
    struct node_group *group = orr_pool_at(&self->groups, row->group);
    struct orr_bytes body = orr_blob_get(
        &self->specs, group->spec, self->spec_body.at, self->spec_body.size);
    if (decode_spec(self, body) == ORR_OK)
        launch_row(ctx, self, group, row, self->spec.at);
}

void node_launch_failed(struct orr_ctx *ctx,
                        struct node *self,
                        uint64_t tag,
                        const struct orr_msg_failed *msg)
{
    uint32_t index = (uint32_t)tag;
    uint32_t seq = (uint32_t)(tag >> 32) & 0xffffff;
    if (tag >> 56 == NODE_TAG_LAUNCH) {
        struct node_row *row = orr_pool_at(&self->rows, index);
        if (row && row->is_launching && row->launch_seq == seq)
            row_failed(ctx, self, row, msg);
        return;
    }
    struct node_group *group = orr_pool_at(&self->groups, index);
    if (group && group->seq == seq && group->is_waiting_port)
        node_launch_give_up(ctx, self, group, msg->code, msg->text);
}
