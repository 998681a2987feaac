/* SPDX-License-Identifier: Apache-2.0
 * node_join.c - ranks that come to a node on which others of their generation wait at the cut.
 *
 * START       rank_launch with is_joining names ranks that the group does not have: they become rows of it
 * OPERATION   the stages of a restore, for these rows alone; the step of the others waits meanwhile, which is done.  They are
 *             restored frozen, and go on with the resume of all
 * FAILURES    What cannot be fetched is taken back: the rows leave the group as if they had gone elsewhere (node_leave.c).  The
 *             same where a step comes in the middle: its job actor does not know of the join
 */
#include "node_calls.h"
#include "node_devices.h"
#include "node_moves.h"

bool node_join_is_new(const struct node *self,
                      const struct node_group *group,
                      const struct orr_msg_rank_launch *msg)
{
    for (uint32_t i = 0; i < msg->ranks.n && msg->is_joining; i++)
        if (!node_row_find(self, group, msg->ranks.at[i].rank))
            return true;
    return false;
}

/* Those that do not join stay. */
static void take_back(struct orr_ctx *ctx, struct node *self, struct node_group *group)
{
    struct orr_rec_rank_place *places = self->place_list.at;
    uint32_t n = 0;
    for (struct node_row *row = node_row_first(self, group); row;
         row = node_row_next(self, row))
        if (!row->is_joining)
            places[n++] = (struct orr_rec_rank_place){.rank = row->rank};
    if (!node_rows_leave(ctx, self, group, (struct orr_list_rank_place){places, n}))
        orr_log(ctx,
                ORR_LOG_ERROR,
                "%s: no room to end ranks that were to join it; they stay frozen",
                group->key);
}

void node_join_done(struct node *self, struct node_group *group)
{
    orr_blob_drop(&self->specs, group->spec);
    group->spec = ORR_NONE;
    group->cut.step = group->step_before;
    group->cut.state = ORR_STEP_DONE;
    group->cut.stage = NODE_STAGE_NONE;
    group->is_joined_by = group->is_fetching = false;
}

void node_join_give_up(struct orr_ctx *ctx,
                       struct node *self,
                       struct node_group *group,
                       uint32_t code,
                       struct orr_str text)
{
    if (group->request.corr)
        orr_reply_to(ctx,
                     &group->request,
                     failed,
                     .code = code,
                     .msg = ORR_MSG_rank_launch,
                     .text = text);
    group->request = (struct orr_request){0};
    node_join_done(self, group);
    take_back(ctx, self, group);
}

enum orr_err node_join(struct orr_ctx *ctx,
                       struct node *self,
                       struct node_group *group,
                       const struct orr_msg_rank_launch *msg)
{
    uint32_t spec;
    bool is_at_cut = group->cut.cut == msg->cut && group->cut.is_frozen &&
                     group->cut.state == ORR_STEP_DONE && !group->n_launching;
    if (group->is_joined_by || group->is_stopping || !is_at_cut)
        return orr_refuse(ctx,
                          ORR_ENOENT,
                          "%s does not wait at that cut on %s",
                          group->key,
                          self->args.node);
    enum orr_err err = node_launch_check(ctx, self, msg);
    if (err == ORR_OK && orr_blob_put(&self->specs, msg->spec, &spec) != ORR_OK)
        err = orr_refuse(
            ctx, ORR_EBUSY, "node %s launches too many jobs at once", self->args.node);
    if (err != ORR_OK)
        return err;
    group->spec = spec; /* that of the others went when they had started */
    group->is_joined_by = true;
    group->step_before = group->cut.step;
    for (uint32_t i = 0; i < msg->ranks.n; i++) {
        struct node_row *row = node_row_find(self, group, msg->ranks.at[i].rank);
        if (row)
            continue;
        row = node_row_add(self, group, msg->ranks.at[i].rank);
        row->device = msg->ranks.at[i].device;
        row->local_rank = msg->ranks.at[i].local_rank;
        row->changed_unix_ms = ctx->wall_ms;
        row->is_joining = true;
        row->visible = UINT64_C(1) << row->device; /* until it is known */
    }
    err = node_launch_take(ctx, self, group, msg);
    if (err != ORR_OK) {
        node_join_done(self, group);
        take_back(ctx, self, group);
        return err;
    }
    group->cut.step = ORR_CUT_NONE;
    group->cut.until_ms = orr_now_ms(ctx) + NODE_FETCH_MS;
    group->is_fetching = true;
    group->request = orr_defer(ctx);
    node_cut_stage(ctx, self, group, NODE_STAGE_EXPECT);
    return ORR_OK;
}
