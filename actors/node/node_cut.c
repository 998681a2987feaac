/* SPDX-License-Identifier: Apache-2.0
 * node_cut.c - one step of a stop after another, for all ranks of a group here (docs/barrier.md).
 *
 * The job actor asks for a step and repeats it until the report says done or failed; each step is a row of stages.  begin,
 * targets and open are the libraries' alone, whose reports are handed on.
 *
 *   quiesce   room, library, device helper, freeze      save     image, store
 *   release   the devices are free                      resume   thaw, device helper, library
 *
 * A later step of the same cut takes the place of one that is under way: answers to older asks have an older number.  What
 * is asked of the edges is harmless when it is so already, so a resume starts from wherever the group is.
 * The lease goes first (node_lease.c): nothing thaws while it is over; and what is frozen here stays so when it is renewed.
 */
#include "node_calls.h"
#include "node_devices.h"
#include "node_moves.h"

enum { EDGE_MS = 5000 };

struct orr_addr node_job_addr(const struct node *self, const struct node_group *group)
{
    char path[2 * ORR_NAME_MAX + ORR_JOB_ID_MAX + 48];
    snprintf(path,
             sizeof(path),
             "/%s/%s/job/%s",
             self->args.region,
             self->args.cluster,
             group->key);
    return orr_addr_named(orr_str(self->args.cluster_host), orr_str(path));
}

/* ---- reports ---- */

static struct orr_list_part list_parts(const struct node *self,
                                       const struct node_group *group,
                                       struct orr_rec_part *parts,
                                       uint32_t cap)
{
    uint32_t n = 0;
    char *text = self->part_text.at, *end = text + self->part_text.size;
    for (struct node_row *row = node_row_first(self, group); row && n < cap;
         row = node_row_next(self, row)) {
        if (!row->is_kept)
            continue;
        node_procs_write(self, row, text, (size_t)(end - text));
        parts[n++] = (struct orr_rec_part){.rank = row->rank,
                                           .hash = orr_str(row->part),
                                           .bytes = row->part_bytes,
                                           .new_bytes = row->part_new_bytes,
                                           .store = orr_str(self->args.host),
                                           .endpoint = orr_str(self->args.endpoint),
                                           .arena_bytes = row->arena_bytes,
                                           .arenas = orr_str(text),
                                           .is_silent = row->is_silent};
        text += parts[n - 1].arenas.len + 1;
    }
    return (struct orr_list_part){parts, n};
}

/* With what the libraries said, where their report is what is told. */
static void tell_with(struct orr_ctx *ctx,
                      struct node *self,
                      struct node_group *group,
                      const struct orr_msg_cut_report *from)
{
    const struct node_cut *cut = &group->cut;
    struct orr_rec_part *parts = self->part_list.at;
    struct orr_msg_cut_report msg = {
        .job = orr_str(group->job),
        .generation = group->generation,
        .cut = cut->cut,
        .node = orr_str(self->args.node),
        .step = cut->step,
        .state = cut->state,
        .round = cut->round,
        .parts = list_parts(self, group, parts, self->args.ranks_max),
        .device_bytes = cut->device_bytes,
        .copy_us = cut->copy_us,
        .step_ms = cut->took_ms,
        .culprit = cut->state == ORR_STEP_FAILED ? cut->culprit : -1,
        .text = orr_str(cut->text)};
    if (from && cut->step != ORR_CUT_RESUME)
        msg.round = from->round;
    if (from) {
        msg.clocks = from->clocks;
        msg.ids = from->ids;
        msg.has_all_ids = from->has_all_ids;
    }
    if (group->cut_request.corr)
        ctx->ops->reply(ctx, &group->cut_request, orr_msg_desc_cut_report(), &msg);
    else
        ctx->ops->send(
            ctx, node_job_addr(self, group), orr_msg_desc_cut_report(), &msg);
    group->cut_request = (struct orr_request){0};
}

void node_cut_tell(struct orr_ctx *ctx, struct node *self, struct node_group *group)
{
    tell_with(ctx, self, group, NULL);
}

void node_cut_done(struct orr_ctx *ctx,
                   struct node *self,
                   struct node_group *group,
                   const struct orr_msg_cut_report *from)
{
    struct node_cut *cut = &group->cut;
    cut->state = ORR_STEP_DONE;
    cut->stage = NODE_STAGE_NONE;
    cut->took_ms = orr_now_ms(ctx) - cut->since_ms;
    tell_with(ctx, self, group, from);
    node_arenas_check(ctx, self, group);
}

void node_cut_fail(struct orr_ctx *ctx,
                   struct node *self,
                   struct node_group *group,
                   int64_t culprit,
                   struct orr_str text)
{
    struct node_cut *cut = &group->cut;
    if (cut->step == ORR_CUT_NONE) { /* of a restore: it has not begun */
        node_launch_give_up(ctx, self, group, ORR_EIO, text);
        return;
    }
    cut->state = ORR_STEP_FAILED;
    cut->stage = NODE_STAGE_NONE;
    cut->culprit = culprit;
    orr_str_copy(cut->text, sizeof(cut->text), text);
    node_cut_tell(ctx, self, group);
}

/* ---- the libraries ---- */

void node_cut_library(struct orr_ctx *ctx,
                      struct node *self,
                      struct node_group *group,
                      const struct orr_msg_cut_step *from)
{
    struct node_cut *cut = &group->cut;
    struct orr_rec_rank_place *places = self->place_list.at;
    uint32_t n = 0;
    for (struct node_row *row = node_row_first(self, group); row;
         row = node_row_next(self, row))
        places[n++] = (struct orr_rec_rank_place){
            .rank = row->rank,
            .node = orr_str(node_row_has_moved(row) || row->seen != ORR_NONE
                                ? node_device_uuid(self, row->device)
                                : ""),
            .device = row->device,
            .local_rank = row->local_rank};
    struct orr_msg_cut_step msg = {0};
    if (from)
        msg = *from;
    msg.job = orr_str(group->job);
    msg.generation = group->generation;
    msg.cut = cut->cut;
    msg.step = cut->stage == NODE_STAGE_ARENA ? (uint32_t)ORR_CUT_SAVE
                                              : cut->step; /* save: it only tells */
    msg.round = cut->round;
    msg.timeout_ms = node_cut_left_ms(ctx, cut);
    msg.is_detached = cut->is_detached;
    msg.ranks =
        (struct orr_list_rank_place){places, cut->step == ORR_CUT_RESUME ? n : 0};
    cut->is_asked = true;
    ctx->ops->ask(
        ctx,
        self->rank_edge,
        EDGE_MS,
        node_tag(NODE_TAG_CUT, orr_pool_index(&self->groups, group), cut->seq),
        orr_msg_desc_cut_step(),
        &msg);
}

/* False: it has failed. */
static bool note_arenas(struct orr_ctx *ctx,
                        struct node *self,
                        struct node_group *group,
                        const struct orr_msg_cut_report *msg)
{
    if (node_procs_heard(self, group, msg->arenas))
        return true;
    node_cut_fail(ctx,
                  self,
                  group,
                  -1,
                  ORR_LIT("the ranks of this node have more processes that use devices "
                          "than it keeps track of; run fewer here"));
    return false;
}

/* Of one that an earlier life has started, a process may stand still with its way here cut, and without device memory: it would
 * not be listed. */
static void note_silent(struct node *self, struct node_group *group)
{
    for (struct node_row *row = node_row_first(self, group); row;
         row = node_row_next(self, row))
        row->is_silent = !row->was_found && !node_proc_first(self, row);
}

void node_cut_heard(struct orr_ctx *ctx,
                    struct node *self,
                    const struct orr_msg_cut_report *msg)
{
    struct node_group *group = node_group_find(self, msg->job, msg->generation);
    struct node_cut *cut = group ? &group->cut : NULL;
    bool is_late_back = cut && cut->stage == NODE_STAGE_NONE &&
                        cut->step == ORR_CUT_RESUME && msg->step == ORR_CUT_RESUME &&
                        msg->cut == cut->cut && msg->state == ORR_STEP_WORKING;
    if (is_late_back) { /* a process that nobody had counted on */
        cut->stage = NODE_STAGE_LIBRARY;
        cut->state = ORR_STEP_WORKING;
    }
    if (cut && cut->is_found &&
        cut->stage == NODE_STAGE_NONE) /* held since an earlier life */
        (void)node_procs_heard(self, group, msg->arenas);
    if (!cut || (cut->stage != NODE_STAGE_LIBRARY && cut->stage != NODE_STAGE_ARENA))
        return;
    if (ctx->tag >> 56 == NODE_TAG_CUT)
        cut->is_asked = false;
    if (cut->stage == NODE_STAGE_ARENA) {
        if (note_arenas(ctx, self, group, msg))
            node_cut_stage_done(ctx, self, group, NULL);
        return;
    }
    if (msg->cut != cut->cut || msg->step != cut->step)
        return;
    if (cut->step == ORR_CUT_RESUME && msg->round < cut->round)
        return; /* an earlier attempt's ids: all make new communicators */
    cut->text[0] = '\0';
    if (msg->device_bytes)
        cut->device_bytes = msg->device_bytes;
    cut->copy_us = msg->copy_us;
    bool is_out = cut->step == ORR_CUT_QUIESCE && msg->state == ORR_STEP_DONE;
    if (is_out && !note_arenas(ctx, self, group, msg))
        return;
    if (is_out)
        note_silent(self, group);
    if (msg->state == ORR_STEP_FAILED) {
        node_cut_fail(ctx, self, group, msg->culprit, msg->text);
    } else if (msg->state == ORR_STEP_DONE && cut->step != ORR_CUT_BEGIN &&
               cut->step != ORR_CUT_TARGETS) {
        node_cut_stage_done(ctx, self, group, msg);
    } else { /* begin and targets stay with the libraries: they may be raised */
        cut->state = msg->state;
        tell_with(ctx, self, group, msg);
    }
}

void node_cut_failed(struct orr_ctx *ctx,
                     struct node *self,
                     uint64_t tag,
                     const struct orr_msg_failed *msg)
{
    char text[200];
    if (tag >> 56 == NODE_TAG_WORK) {
        struct node_group *group;
        struct node_row *row = node_cut_row(self, tag, &group);
        if (!row)
            return;
        snprintf(text, sizeof(text), "%.*s", ORR_STR_ARGS(msg->text));
        if (group->cut.stage == NODE_STAGE_FREE && msg->code == ORR_ETIMEOUT) {
            node_retry_arm(ctx, self);
            return;
        }
        bool is_damaged = group->cut.stage == NODE_STAGE_FETCH &&
                          (msg->code == ORR_EIO || msg->code == ORR_ENOENT);
        if (is_damaged) /* it will not be whole the next time, either */
            node_launch_give_up(ctx, self, group, ORR_ENOENT, orr_str(text));
        else
            node_cut_fail(ctx, self, group, row->rank, orr_str(text));
        return;
    }
    struct node_group *group = orr_pool_at(&self->groups, (uint32_t)tag);
    if (!group || group->cut.seq != ((uint32_t)(tag >> 32) & 0xffffff) ||
        !group->cut.is_asked)
        return;
    group->cut.is_asked = false;
    if (msg->code == ORR_ETIMEOUT || msg->code == ORR_EBUSY || msg->code == ORR_EGONE) {
        if (group->cut.stage == NODE_STAGE_ARENA)
            node_cut_fail(
                ctx, self, group, -1, ORR_LIT("the libraries' edge does not answer"));
        return; /* the job actor asks again */
    }
    snprintf(text, sizeof(text), "%.*s", ORR_STR_ARGS(msg->text));
    node_cut_fail(ctx, self, group, -1, orr_str(text));
}

/* ---- the job actor ---- */

static void take_places(struct node *self,
                        struct node_group *group,
                        const struct orr_msg_cut_step *msg)
{
    for (uint32_t i = 0; i < msg->ranks.n; i++) {
        struct node_row *row = node_row_find(self, group, msg->ranks.at[i].rank);
        if (!row || row->device == msg->ranks.at[i].device)
            continue;
        if (row->old_device == ORR_NO_DEVICE) /* else it has not come to that one yet */
            row->old_device = row->device;
        row->device = msg->ranks.at[i].device;
    }
}

static void note_leaving(struct node *self,
                         struct node_group *group,
                         const struct orr_msg_cut_step *msg)
{
    for (struct node_row *row = node_row_first(self, group); row;
         row = node_row_next(self, row))
        row->is_leaving = false;
    for (uint32_t i = 0; i < msg->ranks.n && group->cut.is_some; i++) {
        struct node_row *row = node_row_find(self, group, msg->ranks.at[i].rank);
        if (row)
            row->is_leaving = true;
    }
}

static void begin(struct orr_ctx *ctx,
                  struct node *self,
                  struct node_group *group,
                  const struct orr_msg_cut_step *msg)
{
    struct node_cut *cut = &group->cut;
    if (group->is_joined_by)
        node_join_give_up(
            ctx, self, group, ORR_ESTALE, ORR_LIT("its job has begun another step"));
    if (msg->cut != cut->cut)
        for (struct node_row *row = node_row_first(self, group); row;
             row = node_row_next(self, row)) {
            row->is_kept = row->is_save_due = false;
            if (row->is_saving && row->is_held && !row->save_bytes)
                row->save_bytes = row->arena_bytes;
        }
    for (struct node_row *row = node_row_first(self, group);
         row && msg->step == ORR_CUT_SAVE;
         row = node_row_next(self, row))
        row->is_kept = row->is_kept && row->part[0]; /* what failed is tried again */
    cut->stage = node_cut_first_stage(msg->step, cut->is_found);
    cut->is_found = false;
    cut->cut = msg->cut;
    cut->step = msg->step;
    cut->state = ORR_STEP_WORKING;
    cut->round = msg->round;
    cut->since_ms = orr_now_ms(ctx);
    cut->until_ms = cut->since_ms + msg->timeout_ms;
    cut->culprit = -1;
    cut->text[0] = '\0';
    cut->keeps_running = msg->keeps_running;
    cut->is_some = msg->step == ORR_CUT_SAVE && msg->is_some;
    note_leaving(self, group, msg);
    if (msg->step == ORR_CUT_QUIESCE)
        cut->is_detached = msg->is_detached;
    if (msg->step == ORR_CUT_RESUME)
        take_places(self, group, msg);
    cut->seq = ++self->next_seq & 0xffffff;
    cut->n_due = 0;
    cut->is_to_begin = cut->stage != NODE_STAGE_LIBRARY;
    char why[160] = "";
    cut->is_wider = msg->step == ORR_CUT_RELEASE && msg->machines.n;
    if (msg->step == ORR_CUT_RELEASE)
        (void)node_group_fits(self, group, msg->ranks, why, sizeof(why));
    if (cut->is_wider && !why[0] &&
        node_machines_take(self, group, msg->machines, why, sizeof(why)))
        group->overlay = msg->overlay;
    if (msg->step == ORR_CUT_RESUME && msg->is_whole &&
        !node_rows_leave(ctx, self, group, msg->ranks))
        snprintf(why, sizeof(why), "no room for what is left of ranks that have gone");
    if (why[0]) {
        cut->is_to_begin = false;
        node_cut_fail(ctx, self, group, -1, orr_str(why));
    } else if (
        cut->is_to_begin) /* what is asked here would end with the time of the job's ask, not with the step's */
        orr_timer_set(ctx, NODE_T_STAGE, 0, 0);
    else
        node_cut_library(ctx, self, group, msg);
    if (cut->step == ORR_CUT_BEGIN) {
        node_group_know_devices(self, group); /* before any leaves, and the note */
        /* beside it: the ranks are not to wait for a disk */
        node_cut_note(ctx, self, group, ORR_CUT_BEGIN);
    }
}

void node_cut_begin_due(struct orr_ctx *ctx, struct node *self)
{
    for (struct node_group *group = NULL;
         (group = orr_pool_next(&self->groups, group)) != NULL;) {
        if (!group->cut.is_to_begin)
            continue;
        group->cut.is_to_begin = false;
        if (!group->is_stopping)
            node_cut_stage(ctx, self, group, group->cut.stage);
    }
}

/* Does the ask want something that is not under way or done? */
static bool is_new(const struct node_cut *cut, const struct orr_msg_cut_step *msg)
{
    return cut->is_found || msg->cut > cut->cut || msg->step != cut->step ||
           msg->round > cut->round;
}

static bool is_with_libraries(const struct node_cut *cut)
{
    return cut->stage == NODE_STAGE_LIBRARY && cut->step != ORR_CUT_QUIESCE;
}

enum orr_err node_cut_step(struct orr_ctx *ctx,
                           struct node *self,
                           const struct orr_msg_cut_step *msg)
{
    struct node_group *group = node_group_find(self, msg->job, msg->generation);
    if (!group || group->is_stopping)
        return orr_refuse(ctx,
                          ORR_ENOENT,
                          "job %.*s generation %llu does not run on %s",
                          ORR_STR_ARGS(msg->job),
                          (unsigned long long)msg->generation,
                          self->args.node);
    if (!self->args.has_stops)
        return orr_refuse(
            ctx, ORR_ENOSYS, "node %s cannot stop ranks", self->args.node);
    if (msg->step == ORR_CUT_NONE || msg->step >= ORR_CUT_JOIN)
        return orr_refuse(ctx, ORR_EINVAL, "cut_step: no such step: %u", msg->step);
    if (node_lease_is_over(ctx, self))
        return orr_refuse(ctx,
                          ORR_EBUSY,
                          "node %s has not heard its cluster for too long",
                          self->args.node);
    node_asked(ctx, self, group);
    struct node_cut *cut = &group->cut;
    bool is_older_step =
        msg->cut == cut->cut && cut->step == ORR_CUT_RESUME && msg->step < cut->step;
    group->cut_request = orr_defer(ctx);
    if (msg->cut < cut->cut || is_older_step) {
        node_cut_tell(ctx, self, group);
    } else if (is_new(cut, msg)) {
        begin(ctx, self, group, msg);
        if (group->cut_request.corr && !is_with_libraries(cut))
            node_cut_tell(ctx, self, group);
    } else if (is_with_libraries(cut) &&
               !cut->is_asked) { /* it knows more, or must hear more ids */
        node_cut_library(ctx, self, group, msg);
    } else if (!is_with_libraries(cut)) {
        node_cut_tell(ctx, self, group);
    }
    return ORR_OK;
}

/* ---- how ranks can be stopped ---- */

uint32_t node_row_level(const struct node *self,
                        const struct node_row *row,
                        struct orr_str *ret_why)
{
    const struct node_group *group = orr_pool_at(&self->groups, row->group);
    *ret_why = orr_str(row->why_level);
    if (!self->args.has_stops)
        return ORR_LEVEL_UNKNOWN;
    if (row->why_not[0]) {
        *ret_why = orr_str(row->why_not);
        return ORR_LEVEL_NONE;
    }
    uint32_t otherwise =
        row->is_cooperative ? ORR_LEVEL_COOPERATIVE : ORR_LEVEL_INPLACE;
    if (!group->wants_image) {
        *ret_why = node_why_no_image(self, group);
        return otherwise;
    }
    if (row->why_no_image[0]) {
        *ret_why = orr_str(row->why_no_image);
        return otherwise;
    }
    return row->level == ORR_LEVEL_INPLACE ? otherwise : (uint32_t)ORR_LEVEL_IMAGE;
}

/* It came back to a restarted host, or from an image.  In the middle of a resume: the driver is to let it go, too; else the resume
 * will see to it. */
static void note_back(struct orr_ctx *ctx,
                      struct node *self,
                      struct node_group *group,
                      struct node_row *row,
                      const struct orr_msg_rank_ability *msg)
{
    const struct node_cut *cut = &group->cut;
    bool is_back = msg->is_stopped && msg->pid;
    struct node_proc *proc = is_back ? node_proc_get(self, row, msg->process) : NULL;
    if (!proc || proc->pid == msg->pid)
        return;
    proc->pid = msg->pid;
    bool is_late = cut->step == ORR_CUT_RESUME && cut->stage != NODE_STAGE_THAW;
    if (is_late && row->device < NODE_DEVICES_MAX)
        node_cut_resume_device(ctx, self, group, row, proc, 0);
}

void node_ability(struct orr_ctx *ctx,
                  struct node *self,
                  const struct orr_msg_rank_ability *msg)
{
    struct node_group *group = node_group_find(self, msg->job, msg->generation);
    struct node_row *row = group ? node_row_find(self, group, msg->rank) : NULL;
    if (!row)
        return;
    note_back(ctx, self, group, row, msg);
    row->is_cooperative = msg->is_cooperative;
    orr_str_copy(row->why_not, sizeof(row->why_not), msg->why_not);
    orr_str_copy(row->why_no_image, sizeof(row->why_no_image), msg->why_no_image);
    node_row_changed(ctx, self, row);
}
