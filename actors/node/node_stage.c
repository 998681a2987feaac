/* SPDX-License-Identifier: Apache-2.0
 * node_stage.c - the stages that a step of a stop is made of: each is asked for rank by rank, and the next begins when all
 * have answered (node_cut.c).
 */
#include "node_calls.h"
#include "node_devices.h"

enum { EDGE_MS = 5000, WORK_SLACK_MS = 1000, SIGNAL_CONT = 18 };

static const enum node_stage stages_of[ORR_CUT_STEP_MAX_][7] = {
    [ORR_CUT_BEGIN] = {NODE_STAGE_LIBRARY},
    [ORR_CUT_TARGETS] = {NODE_STAGE_LIBRARY},
    [ORR_CUT_QUIESCE] = {NODE_STAGE_THAW, /* if it was found */
                         NODE_STAGE_NOTE,
                         NODE_STAGE_ROOM,
                         NODE_STAGE_LIBRARY,
                         NODE_STAGE_SUSPEND,
                         NODE_STAGE_FREEZE},
    [ORR_CUT_SAVE] = {NODE_STAGE_IMAGE, NODE_STAGE_STORE},
    [ORR_CUT_RELEASE] = {NODE_STAGE_WIDEN, NODE_STAGE_FREE},
    [ORR_CUT_RESUME] = {NODE_STAGE_THAW, NODE_STAGE_RESUME, NODE_STAGE_LIBRARY},
    [ORR_CUT_OPEN] = {NODE_STAGE_LIBRARY},
    [ORR_CUT_NONE] = {NODE_STAGE_EXPECT, NODE_STAGE_ARENA, NODE_STAGE_FETCH},
};

/* What an earlier life of this host has frozen in the middle of a step cannot say how far it is. */
enum node_stage node_cut_first_stage(enum orr_cut_step step, bool is_found)
{
    return stages_of[step][step == ORR_CUT_QUIESCE && !is_found ? 1 : 0];
}

uint64_t node_cut_left_ms(const struct orr_ctx *ctx, const struct node_cut *cut)
{
    uint64_t now = orr_now_ms(ctx);
    return cut->until_ms > now ? cut->until_ms - now : 1;
}

/* Its processes that are there to be asked for. */
static uint32_t n_known(const struct node *self, const struct node_row *row)
{
    uint32_t n = 0;
    for (const struct node_proc *proc = node_proc_first(self, row); proc;
         proc = node_proc_next(self, proc))
        n += proc->pid != 0;
    return n;
}

/* How many asks a stage makes for the rank. */
static uint32_t
n_asks(const struct node *self, const struct node_row *row, enum node_stage stage)
{
    uint32_t n = 0;
    if (stage == NODE_STAGE_SUSPEND || stage == NODE_STAGE_RESUME)
        return n_known(self, row);
    if (stage != NODE_STAGE_EXPECT)
        return 1;
    for (const struct node_proc *proc = node_proc_first(self, row); proc;
         proc = node_proc_next(self, proc))
        n++;
    return n ? n : 1;
}

/* In a save of some. */
static bool is_staying(const struct node_group *group, const struct node_row *row)
{
    return group->cut.is_some && !row->is_leaving;
}

/* In a restore beside ranks that wait. */
static bool is_waiting(const struct node_group *group, const struct node_row *row)
{
    return group->cut.step == ORR_CUT_NONE && group->is_joined_by && !row->is_joining;
}

/* All of them are on one network. */
static const struct node_row *first_live(const struct node *self,
                                         const struct node_group *group)
{
    struct node_row *row = node_row_first(self, group);
    while (row && !node_rank_is_live(row->state))
        row = node_row_next(self, row);
    return row;
}

/* Is there nothing to do for this rank? */
static bool is_idle(const struct node *self,
                    const struct node_group *group,
                    const struct node_row *row,
                    enum node_stage stage)
{
    bool has_device = row->device < NODE_DEVICES_MAX;
    if (is_waiting(group, row))
        return true;
    switch (stage) {
    case NODE_STAGE_WIDEN:
        return !group->cut.is_wider || row != first_live(self, group);
    case NODE_STAGE_ROOM:
        return !has_device || !self->args.stop_bytes_max;
    case NODE_STAGE_FREE:
        return !has_device;
    case NODE_STAGE_SUSPEND:
    case NODE_STAGE_RESUME:
        return !has_device || n_known(self, row) == 0;
    case NODE_STAGE_IMAGE:
        return !group->wants_image || row->is_kept || is_staying(group, row) ||
               (row->is_saving && row->save_cut == group->cut.cut);
    case NODE_STAGE_STORE:
        return group->cut.keeps_running || row->is_kept || is_staying(group, row);
    case NODE_STAGE_FETCH:
        return !row->part[0];
    case NODE_STAGE_NONE:
    case NODE_STAGE_NOTE:
    case NODE_STAGE_LIBRARY:
    case NODE_STAGE_FREEZE:
    case NODE_STAGE_THAW:
    case NODE_STAGE_EXPECT:
    case NODE_STAGE_ARENA:
    case NODE_STAGE_MAX_:
    default:
        return false;
    }
}

/* What the ranks' rows say to a later life of this host. */
static void note(struct orr_ctx *ctx,
                 struct node *self,
                 const struct node_group *group,
                 const struct node_row *row,
                 uint32_t step,
                 uint64_t tag)
{
    const struct orr_msg_rank_note msg = {.job = orr_str(group->job),
                                          .generation = group->generation,
                                          .rank = row->rank,
                                          .cut = group->cut.cut,
                                          .step = step,
                                          .device = row->device,
                                          .visible = row->visible};
    if (tag)
        ctx->ops->ask(
            ctx, self->process_edge, EDGE_MS, tag, orr_msg_desc_rank_note(), &msg);
    else
        ctx->ops->send(ctx, self->process_edge, orr_msg_desc_rank_note(), &msg);
}

/* Nobody waits for it.  A lost note that they run makes a later life resume what runs: nothing happens then.  A lost one of
 * a begin leaves it to whoever repeats that, or to the libraries, whose gates open by themselves when nobody does. */
void node_cut_note(struct orr_ctx *ctx,
                   struct node *self,
                   const struct node_group *group,
                   enum orr_cut_step step)
{
    for (struct node_row *row = node_row_first(self, group); row;
         row = node_row_next(self, row))
        if (node_rank_is_live(row->state))
            note(ctx, self, group, row, step, 0);
}

static void freeze(struct orr_ctx *ctx,
                   struct node *self,
                   const struct node_group *group,
                   const struct node_row *row,
                   bool is_frozen,
                   uint64_t tag)
{
    orr_ask(ctx,
            self->process_edge,
            node_cut_left_ms(ctx, &group->cut),
            tag,
            process_freeze,
            .job = orr_str(group->job),
            .generation = group->generation,
            .rank = row->rank,
            .is_frozen = is_frozen);
}

void node_cut_resume_device(struct orr_ctx *ctx,
                            struct node *self,
                            struct node_group *group,
                            const struct node_row *row,
                            const struct node_proc *proc,
                            uint64_t tag)
{
    uint64_t left = node_cut_left_ms(ctx, &group->cut);
    struct node_pairs pairs;
    node_row_pairs(self, group, row, &pairs);
    orr_ask(ctx,
            self->device_edge,
            left + WORK_SLACK_MS,
            tag,
            device_resume,
            .pid = proc->pid,
            .timeout_ms = left,
            .from = orr_str(pairs.from),
            .to = orr_str(pairs.to));
}

/* The driver has each process apart. */
static void ask_device(struct orr_ctx *ctx,
                       struct node *self,
                       struct node_group *group,
                       struct node_row *row,
                       uint64_t tag)
{
    uint64_t left = node_cut_left_ms(ctx, &group->cut);
    bool is_suspend = group->cut.stage == NODE_STAGE_SUSPEND;
    for (const struct node_proc *proc = node_proc_first(self, row); proc;
         proc = node_proc_next(self, proc)) {
        if (!proc->pid)
            continue;
        if (is_suspend)
            orr_ask(ctx,
                    self->device_edge,
                    left + WORK_SLACK_MS,
                    tag,
                    device_suspend,
                    .pid = proc->pid,
                    .timeout_ms = left);
        else
            node_cut_resume_device(ctx, self, group, row, proc, tag);
    }
}

static void expect(struct orr_ctx *ctx,
                   struct node *self,
                   const struct node_group *group,
                   const struct node_row *row,
                   uint64_t tag)
{
    static const struct node_proc none;
    const struct node_proc *proc = node_proc_first(self, row);
    for (bool is_first = true; proc || is_first; is_first = false) {
        const struct node_proc *who = proc ? proc : &none;
        orr_ask(ctx,
                self->rank_edge,
                EDGE_MS,
                tag,
                rank_expect,
                .job = orr_str(group->job),
                .generation = group->generation,
                .rank = row->rank,
                .link = group->link,
                .arena_bytes = who->bytes,
                .process = who->process,
                .is_silent = row->is_silent);
        proc = proc ? node_proc_next(self, proc) : NULL;
    }
}

static void work(struct orr_ctx *ctx,
                 struct node *self,
                 struct node_group *group,
                 struct node_row *row)
{
    struct node_cut *cut = &group->cut;
    uint64_t tag = node_tag(NODE_TAG_WORK, orr_pool_index(&self->rows, row), cut->seq);
    switch (cut->stage) {
    case NODE_STAGE_NOTE:
        note(ctx, self, group, row, cut->step, tag);
        break;
    case NODE_STAGE_ROOM:
    case NODE_STAGE_FREE:
        orr_ask(
            ctx, self->device_edge, EDGE_MS, tag, device_usage, .index = row->device);
        break;
    case NODE_STAGE_SUSPEND:
    case NODE_STAGE_RESUME:
        ask_device(ctx, self, group, row, tag);
        break;
    case NODE_STAGE_FREEZE:
        freeze(ctx, self, group, row, true, tag);
        break;
    case NODE_STAGE_THAW:
        freeze(ctx, self, group, row, false, tag);
        break;
    case NODE_STAGE_WIDEN:
        node_machines_widen(ctx, self, group, row, tag);
        break;
    case NODE_STAGE_IMAGE:
        node_save_image(ctx, self, group, row, tag);
        break;
    case NODE_STAGE_STORE: /* its answer is node_save_kept */
        break;
    case NODE_STAGE_EXPECT:
        expect(ctx, self, group, row, tag);
        break;
    case NODE_STAGE_FETCH:
        node_save_fetch(ctx, self, group, row, tag);
        break;
    case NODE_STAGE_NONE:
    case NODE_STAGE_LIBRARY:
    case NODE_STAGE_ARENA:
    case NODE_STAGE_MAX_:
    default:
        break;
    }
}

static enum node_stage stage_after(const struct node_cut *cut)
{
    const enum node_stage *row = stages_of[cut->step];
    uint32_t i = 0;
    while (row[i] != NODE_STAGE_NONE && row[i] != cut->stage)
        i++;
    return row[i] == NODE_STAGE_NONE ? NODE_STAGE_NONE : row[i + 1];
}

void node_cut_stage_done(struct orr_ctx *ctx,
                         struct node *self,
                         struct node_group *group,
                         const struct orr_msg_cut_report *from)
{
    struct node_cut *cut = &group->cut;
    if (cut->stage == NODE_STAGE_FREEZE)
        cut->is_frozen = true;
    if (cut->stage == NODE_STAGE_THAW) {
        cut->is_frozen = false;
        node_group_signal(
            ctx, self, group, SIGNAL_CONT); /* a lease may have stopped it meanwhile */
    }
    if (cut->stage == NODE_STAGE_IMAGE)
        for (struct node_row *row = node_row_first(self, group); row;
             row = node_row_next(self, row))
            if (!is_staying(group, row))
                node_save_ask(ctx, self, group, row);
    enum node_stage next = stage_after(cut);
    if (next == NODE_STAGE_NONE && cut->step == ORR_CUT_RESUME)
        node_group_moved(self, group);
    bool is_back = cut->step == ORR_CUT_RESUME || cut->step == ORR_CUT_OPEN;
    if (next == NODE_STAGE_NONE && is_back)
        node_cut_note(ctx, self, group, ORR_CUT_NONE);
    if (next != NODE_STAGE_NONE)
        node_cut_stage(ctx, self, group, next);
    else if (cut->step == ORR_CUT_NONE)
        node_launch_restored(ctx, self, group);
    else
        node_cut_done(ctx, self, group, from);
}

void node_cut_stage(struct orr_ctx *ctx,
                    struct node *self,
                    struct node_group *group,
                    enum node_stage stage)
{
    struct node_cut *cut = &group->cut;
    cut->stage = stage;
    cut->seq = ++self->next_seq & 0xffffff;
    cut->n_due = 0;
    if (stage == NODE_STAGE_LIBRARY || stage == NODE_STAGE_ARENA) {
        node_cut_library(ctx, self, group, NULL);
        return;
    }
    for (struct node_row *row = node_row_first(self, group); row;
         row = node_row_next(self, row)) {
        bool is_live = node_rank_is_live(row->state);
        bool is_due = is_live && !is_idle(self, group, row, stage);
        row->n_due = is_due ? n_asks(self, row, stage) : 0;
        cut->n_due += is_due;
        if (is_due)
            work(ctx, self, group, row);
    }
    if (!cut->n_due)
        node_cut_stage_done(ctx, self, group, NULL);
}

struct node_row *
node_cut_row(struct node *self, uint64_t tag, struct node_group **ret_group)
{
    struct node_row *row = orr_pool_at(&self->rows, (uint32_t)tag);
    *ret_group = row ? orr_pool_at(&self->groups, row->group) : NULL;
    bool is_ours = *ret_group && row->n_due &&
                   (*ret_group)->cut.seq == ((uint32_t)(tag >> 32) & 0xffffff);
    return is_ours ? row : NULL;
}

static void row_done(struct orr_ctx *ctx,
                     struct node *self,
                     struct node_group *group,
                     struct node_row *row)
{
    if (--row->n_due == 0 && --group->cut.n_due == 0)
        node_cut_stage_done(ctx, self, group, NULL);
}

void node_cut_worked(struct orr_ctx *ctx, struct node *self, uint64_t tag)
{
    struct node_group *group;
    struct node_row *row = node_cut_row(self, tag, &group);
    if (row)
        row_done(ctx, self, group, row);
}

static uint64_t held_bytes(const struct node *self)
{
    uint64_t sum = 0;
    for (struct node_row *row = NULL; (row = orr_pool_next(&self->rows, row)) != NULL;)
        if (node_rank_is_live(row->state))
            sum += (row->is_held ? row->arena_bytes : 0) + row->save_bytes;
    return sum;
}

/* What the ranks hold must fit into host memory; what a released device holds must be nothing. */
void node_cut_used(struct orr_ctx *ctx,
                   struct node *self,
                   const struct orr_msg_device_used *msg)
{
    struct node_group *group;
    uint64_t tag = ctx->tag;
    struct node_row *row = node_cut_row(self, tag, &group);
    if (!row)
        return;
    char text[200];
    if (group->cut.stage == NODE_STAGE_ROOM) {
        row->arena_bytes = row->used_bytes = msg->bytes;
        row->is_held = true;
        if (held_bytes(self) > self->args.stop_bytes_max) {
            snprintf(text,
                     sizeof(text),
                     "%llu MiB of device memory do not fit into what node %s gives to "
                     "stopped ranks; raise roles.node.memory or stop others",
                     (unsigned long long)(msg->bytes >> 20),
                     self->args.node);
            row->arena_bytes = 0;
            row->is_held = false;
            node_cut_fail(ctx, self, group, row->rank, orr_str(text));
            return;
        }
    } else if (msg->bytes || msg->processes) {
        snprintf(group->cut.text,
                 sizeof(group->cut.text),
                 "device %u still has %llu MiB in use by %u processes",
                 msg->index,
                 (unsigned long long)(msg->bytes >> 20),
                 msg->processes);
        node_retry_arm(ctx, self); /* look again soon */
        return;
    }
    row_done(ctx, self, group, row);
}

void node_cut_look_again(struct orr_ctx *ctx, struct node *self, bool *ret_is_more)
{
    for (struct node_group *group = NULL;
         (group = orr_pool_next(&self->groups, group)) != NULL;) {
        if (group->cut.stage != NODE_STAGE_FREE)
            continue;
        *ret_is_more = true;
        if (orr_now_ms(ctx) >= group->cut.until_ms) {
            char text[sizeof(group->cut.text)];
            memcpy(text, group->cut.text, sizeof(text));
            node_cut_fail(ctx, self, group, -1, orr_str(text));
            continue;
        }
        group->cut.seq = ++self->next_seq & 0xffffff;
        for (struct node_row *row = node_row_first(self, group); row;
             row = node_row_next(self, row))
            if (row->n_due)
                work(ctx, self, group, row);
    }
}
