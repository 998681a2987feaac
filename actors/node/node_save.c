/* SPDX-License-Identifier: Apache-2.0
 * node_save.c - ranks into the store and back: images of their processes, their device memory, and where these lie meanwhile.
 *
 * A part is the image's directory and the arena.  It is kept when the store says so; a job that goes on runs meanwhile.
 */
#include "node_calls.h"
#include "node_devices.h"

enum { STORE_MS = 60000, STORE_BYTES_PER_MS = 100000, DROP_MS = 5000 };

void node_image_dir(const struct node *self,
                    const struct node_group *group,
                    const struct node_row *row,
                    uint64_t cut,
                    char *dst,
                    size_t cap)
{
    snprintf(dst,
             cap,
             "%s/%s-%llu-%llu-%u",
             self->args.images_dir,
             group->job,
             (unsigned long long)group->generation,
             (unsigned long long)cut,
             row->rank);
}

static void drop_image(struct orr_ctx *ctx,
                       struct node *self,
                       const struct node_group *group,
                       const struct node_row *row)
{
    char dir[320];
    node_image_dir(self, group, row, row->save_cut, dir, sizeof(dir));
    if (group->wants_image)
        orr_send(ctx, self->process_edge, image_drop, .dir = orr_str(dir));
}

/* Restored, or not: its image has been read, or what is still read of it is open. */
void node_save_restored(struct orr_ctx *ctx, struct node *self, struct node_row *row)
{
    char dir[320];
    const struct node_group *group = orr_pool_at(&self->groups, row->group);
    if (!row->image_cut)
        return;
    node_image_dir(self, group, row, row->image_cut, dir, sizeof(dir));
    row->image_cut = 0;
    orr_send(ctx, self->process_edge, image_drop, .dir = orr_str(dir));
}

void node_save_image(struct orr_ctx *ctx,
                     struct node *self,
                     struct node_group *group,
                     struct node_row *row,
                     uint64_t tag)
{
    char dir[320];
    uint64_t now = orr_now_ms(ctx);
    uint64_t left = group->cut.until_ms > now ? group->cut.until_ms - now : 1;
    char devices[NODE_UUIDS_BYTES];
    node_image_dir(self, group, row, group->cut.cut, dir, sizeof(dir));
    node_row_list(self, group, row, devices, sizeof(devices));
    orr_ask(ctx,
            self->process_edge,
            left + 1000,
            tag,
            process_image,
            .job = orr_str(group->job),
            .generation = group->generation,
            .rank = row->rank,
            .dir = orr_str(dir),
            .leave_running = true,
            .timeout_ms = left < UINT32_MAX ? (uint32_t)left : UINT32_MAX,
            .devices = orr_str(devices));
}

static uint64_t store_ms(uint64_t bytes)
{
    return STORE_MS + bytes / STORE_BYTES_PER_MS;
}

void node_save_ask(struct orr_ctx *ctx,
                   struct node *self,
                   struct node_group *group,
                   struct node_row *row)
{
    char dir[320];
    struct node_files files;
    bool is_older = row->is_saving && row->save_cut != group->cut.cut;
    row->is_save_due = is_older;
    if (!node_rank_is_live(row->state) || row->is_kept || row->is_saving)
        return;
    node_image_dir(self, group, row, group->cut.cut, dir, sizeof(dir));
    row->is_saving = true;
    row->save_cut = group->cut.cut;
    row->save_seq = ++self->next_seq & 0xffffff;
    orr_ask(ctx,
            self->store_edge,
            store_ms(row->arena_bytes),
            node_tag(NODE_TAG_SAVE, orr_pool_index(&self->rows, row), row->save_seq),
            store_put,
            .files = {files.at, node_procs_files(self, row, &files)},
            .dir = orr_str(group->wants_image ? dir : ""));
}

/* NULL: nobody asks any more. */
static struct node_row *saving_row(struct orr_ctx *ctx,
                                   struct node *self,
                                   uint64_t tag,
                                   struct node_group **ret_group)
{
    struct node_row *row = orr_pool_at(&self->rows, (uint32_t)tag);
    if (!row || !row->is_saving || row->save_seq != ((uint32_t)(tag >> 32) & 0xffffff))
        return NULL;
    struct node_group *group = *ret_group = orr_pool_at(&self->groups, row->group);
    row->is_saving = false;
    row->save_bytes = 0;
    drop_image(ctx, self, group, row);
    if (row->save_cut == group->cut.cut)
        return row;
    if (row->is_save_due)
        node_save_ask(ctx, self, group, row);
    node_arenas_check(ctx, self, group);
    return NULL;
}

static void kept(struct orr_ctx *ctx,
                 struct node *self,
                 struct node_group *group,
                 struct node_row *row)
{
    row->is_kept = true;
    if (group->cut.stage == NODE_STAGE_STORE && row->n_due)
        node_cut_worked(
            ctx,
            self,
            node_tag(NODE_TAG_WORK, orr_pool_index(&self->rows, row), group->cut.seq));
    else
        node_cut_tell(ctx, self, group);
    node_arenas_check(ctx, self, group);
}

void node_save_kept(struct orr_ctx *ctx,
                    struct node *self,
                    const struct orr_msg_store_kept *msg)
{
    struct node_group *group;
    struct node_row *row = saving_row(ctx, self, ctx->tag, &group);
    if (!row)
        return;
    orr_str_copy(row->part, sizeof(row->part), msg->part);
    row->part_bytes = msg->bytes;
    row->part_new_bytes = msg->new_bytes;
    kept(ctx, self, group, row);
}

/* A part with an empty hash says so. */
void node_save_failed(struct orr_ctx *ctx,
                      struct node *self,
                      uint64_t tag,
                      struct orr_str text)
{
    struct node_group *group;
    struct node_row *row = saving_row(ctx, self, tag, &group);
    if (!row)
        return;
    row->part[0] = '\0';
    row->is_kept = true;
    snprintf(group->cut.text,
             sizeof(group->cut.text),
             "rank %u: %.*s",
             row->rank,
             ORR_STR_ARGS(text));
    if (group->cut.stage == NODE_STAGE_STORE)
        node_cut_fail(ctx, self, group, row->rank, text);
    else
        node_cut_tell(ctx, self, group);
    node_arenas_check(ctx, self, group);
}

/* ---- host memory that is needed no more ---- */

static bool is_read(const struct node *self, const struct node_group *group)
{
    struct node_row *row = node_row_first(self, group);
    while (row && !row->is_saving)
        row = node_row_next(self, row);
    return row != NULL;
}

void node_arenas_check(struct orr_ctx *ctx, struct node *self, struct node_group *group)
{
    const struct node_cut *cut = &group->cut;
    bool is_over = cut->state == ORR_STEP_DONE &&
                   (cut->step == ORR_CUT_RESUME || cut->step == ORR_CUT_OPEN);
    if (!is_over || group->is_dropping || group->arenas_cut >= cut->cut ||
        is_read(self, group))
        return;
    group->arenas_seq = ++self->next_seq & 0xffffff;
    group->is_dropping = true;
    group->arenas_cut = cut->cut;
    for (struct node_row *row = node_row_first(self, group); row;
         row = node_row_next(self, row))
        row->is_held = false;
    orr_ask(ctx,
            self->rank_edge,
            DROP_MS,
            node_tag(NODE_TAG_ARENA,
                     orr_pool_index(&self->groups, group),
                     group->arenas_seq),
            rank_arena_drop,
            .job = orr_str(group->job),
            .generation = group->generation,
            .cut = cut->cut);
}

static struct node_group *dropping_group(struct node *self, uint64_t tag)
{
    struct node_group *group = orr_pool_at(&self->groups, (uint32_t)tag);
    bool is_its = group && group->is_dropping &&
                  group->arenas_seq == ((uint32_t)(tag >> 32) & 0xffffff);
    if (!is_its)
        return NULL;
    group->is_dropping = false;
    return group;
}

void node_arenas_dropped(struct node *self, uint64_t tag)
{
    dropping_group(self, tag);
}

void node_arenas_failed(struct orr_ctx *ctx,
                        struct node *self,
                        uint64_t tag,
                        uint32_t code)
{
    struct node_group *group = dropping_group(self, tag);
    if (!group || (code != ORR_ETIMEOUT && code != ORR_EBUSY && code != ORR_EGONE))
        return;
    group->arenas_cut = 0;
    node_retry_arm(ctx, self);
}

void node_save_fetch(struct orr_ctx *ctx,
                     struct node *self,
                     struct node_group *group,
                     struct node_row *row,
                     uint64_t tag)
{
    char dir[320];
    struct node_files files;
    const struct orr_rec_store_peer peer = {orr_str(row->part_store),
                                            orr_str(row->part_endpoint)};
    bool is_here = orr_str_eq(orr_str(row->part_store), orr_str(self->args.host));
    node_image_dir(self, group, row, group->cut.cut, dir, sizeof(dir));
    orr_ask(ctx,
            self->store_edge,
            store_ms(row->part_bytes),
            tag,
            store_get,
            .part = orr_str(row->part),
            .files = {files.at, node_procs_files(self, row, &files)},
            .dir = orr_str(group->is_image_restore ? dir : ""),
            .peers = {&peer, !is_here && row->part_store[0]});
}
