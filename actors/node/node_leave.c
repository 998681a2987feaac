/* SPDX-License-Identifier: Apache-2.0
 * node_leave.c - ranks that have changed node while others of their generation stay: what is left of them here ends.
 *
 * START       A resume says who is here (is_whole); the rows of the others go into a group that nobody finds by its generation
 * OPERATION   /edge/rank forgets the rank first, or it would take its end for that of a member that the others wait for; then
 *             it is killed, frozen as it is, and its row goes once the process edge has seen its end.  Nobody is told
 * FAILURES    Each is repeated until it is so.  A host that restarts finds the rank in its generation, until the next resume
 */
#include "node_calls.h"
#include "node_moves.h"

enum { EDGE_MS = 2000, SIGNAL_KILL = 9 };

static void make_key(char *dst, size_t cap, struct orr_str job, uint64_t generation)
{
    snprintf(
        dst, cap, "%.*s/%llu/left", ORR_STR_ARGS(job), (unsigned long long)generation);
}

static struct node_group *
find_left(const struct node *self, struct orr_str job, uint64_t generation)
{
    char key[sizeof(((struct node_group *)NULL)->key)];
    make_key(key, sizeof(key), job, generation);
    return orr_map_find(&self->groups_by_key, orr_str(key));
}

struct node_row *node_left_find(const struct node *self,
                                struct orr_str job,
                                uint64_t generation,
                                uint32_t rank)
{
    const struct node_group *left = find_left(self, job, generation);
    return left ? node_row_find(self, left, rank) : NULL;
}

/* No lease, and nobody else, thaws it. */
static void become_left(struct node *self, struct node_group *left)
{
    make_key(left->key, sizeof(left->key), orr_str(left->job), left->generation);
    left->cut = (struct node_cut){.cut = left->cut.cut, .is_frozen = true};
    left->is_fetching = left->is_joined_by = false;
    left->is_left = true;
    orr_map_add(&self->groups_by_key, left);
}

static struct node_group *make_left(struct node *self, const struct node_group *group)
{
    struct node_group *left = find_left(self, orr_str(group->job), group->generation);
    left = left ? left : orr_pool_take(&self->groups);
    if (!left || left->is_left)
        return left;
    memcpy(left->job, group->job, sizeof(left->job));
    left->generation = group->generation;
    left->first_row = left->spec = ORR_NONE;
    left->wants_image = group->wants_image;
    left->cut.cut = group->cut.cut;
    become_left(self, left);
    return left;
}

static void ask_forget(struct orr_ctx *ctx, struct node *self, struct node_row *row)
{
    const struct node_group *left = orr_pool_at(&self->groups, row->group);
    row->seq = ++self->next_seq & 0xffffff;
    row->is_telling = true;
    orr_ask(ctx,
            self->rank_edge,
            EDGE_MS,
            node_tag(NODE_TAG_LEAVE, orr_pool_index(&self->rows, row), row->seq),
            rank_forgotten,
            .job = orr_str(left->job),
            .generation = left->generation,
            .is_one = true,
            .rank = row->rank);
}

static void ask_kill(struct orr_ctx *ctx, struct node *self, struct node_row *row)
{
    const struct node_group *left = orr_pool_at(&self->groups, row->group);
    row->seq = ++self->next_seq & 0xffffff;
    row->is_telling = true;
    orr_ask(ctx,
            self->process_edge,
            EDGE_MS,
            node_tag(NODE_TAG_LEAVE, orr_pool_index(&self->rows, row), row->seq),
            process_signal,
            .job = orr_str(left->job),
            .generation = left->generation,
            .rank = row->rank,
            .signal = SIGNAL_KILL);
}

void node_left_answered(
    struct orr_ctx *ctx, struct node *self, uint32_t index, uint32_t seq, uint32_t code)
{
    struct node_row *row = orr_pool_at(&self->rows, index);
    if (!row || !row->is_telling || row->seq != seq)
        return;
    row->is_telling = false;
    if (row->is_leaving && code == ORR_OK) {
        row->is_leaving = false;
        ask_kill(ctx, self, row);
    } else if (!row->is_leaving && code == ORR_ENOENT) { /* it was never started */
        row->state = ORR_RANK_LOST;
    }
    node_retry_arm(ctx, self);
}

static bool is_listed(struct orr_list_rank_place places, uint32_t rank)
{
    for (uint32_t i = 0; i < places.n; i++)
        if (places.at[i].rank == rank)
            return true;
    return false;
}

static void row_leaves(struct orr_ctx *ctx, struct node *self, struct node_row *row)
{
    row->n_due = 0;
    row->is_dirty = row->is_held = row->is_saving = row->is_save_due = false;
    row->is_relaunching = false;
    row->save_bytes = 0;
    row->is_leaving = true;
    ask_forget(ctx, self, row);
    node_retry_arm(ctx, self);
}

bool node_rows_leave(struct orr_ctx *ctx,
                     struct node *self,
                     struct node_group *group,
                     struct orr_list_rank_place places)
{
    uint32_t *link = &group->first_row;
    for (struct node_row *row; (row = orr_pool_at(&self->rows, *link)) != NULL;) {
        if (is_listed(places, row->rank)) {
            link = &row->next;
            continue;
        }
        struct node_group *left = make_left(self, group);
        if (!left)
            return false;
        *link = row->next;
        group->n_rows--;
        row->next = left->first_row;
        left->first_row = orr_pool_index(&self->rows, row);
        left->n_rows++;
        row->group = orr_pool_index(&self->groups, left);
        group->n_launching -= row->is_launching;
        left->n_launching += row->is_launching;
        row_leaves(ctx, self, row);
    }
    return true;
}

void node_group_leave(struct orr_ctx *ctx, struct node *self, struct node_group *group)
{
    const struct orr_list_rank_place nobody = {0};
    if (group->request.corr)
        orr_reply_to(ctx,
                     &group->request,
                     failed,
                     .code = ORR_ESTALE,
                     .msg = ORR_MSG_rank_launch,
                     .text = ORR_LIT("stopped before it started"));
    group->request = group->cut_request = (struct orr_request){0};
    if (find_left(self, orr_str(group->job), group->generation)) {
        (void)node_rows_leave(ctx, self, group, nobody);
        node_group_drop(self, group);
        return;
    }
    orr_map_remove(&self->groups_by_key, group);
    become_left(self, group);
    for (struct node_row *row = node_row_first(self, group); row;
         row = node_row_next(self, row))
        row_leaves(ctx, self, row);
}

bool node_left_lives(const struct node *self, struct orr_str job, uint64_t generation)
{
    return find_left(self, job, generation) != NULL;
}

/* That it was to be restored from. */
static void drop_image(struct orr_ctx *ctx,
                       struct node *self,
                       const struct node_group *left,
                       const struct node_row *row)
{
    char dir[320];
    node_image_dir(self, left, row, left->cut.cut, dir, sizeof(dir));
    if (row->is_joining)
        orr_send(ctx, self->process_edge, image_drop, .dir = orr_str(dir));
}

/* Each that has ended is forgotten; true: some have not. */
static bool sweep(struct orr_ctx *ctx, struct node *self, struct node_group *left)
{
    bool is_due = orr_now_ms(ctx) >= left->kill_ms;
    uint32_t *link = &left->first_row;
    if (is_due)
        left->kill_ms = orr_now_ms(ctx) + EDGE_MS;
    for (struct node_row *row; (row = orr_pool_at(&self->rows, *link)) != NULL;) {
        if (node_rank_is_live(row->state)) {
            if (is_due && row->is_leaving && !row->is_telling)
                ask_forget(ctx, self, row);
            else if (is_due && !row->is_telling)
                ask_kill(ctx, self, row);
            link = &row->next;
            continue;
        }
        drop_image(ctx, self, left, row);
        orr_send(ctx,
                 self->process_edge,
                 process_forget,
                 .job = orr_str(left->job),
                 .generation = left->generation,
                 .rank = row->rank);
        *link = row->next;
        left->n_rows--;
        node_procs_drop(self, row);
        orr_blob_drop(&self->specs, row->seen);
        orr_pool_give(&self->rows, row);
    }
    return left->first_row != ORR_NONE;
}

bool node_left_sweep(struct orr_ctx *ctx, struct node *self)
{
    bool is_more = false;
    for (struct node_group *group = NULL;
         (group = orr_pool_next(&self->groups, group)) != NULL;) {
        if (!group->is_left)
            continue;
        if (sweep(ctx, self, group))
            is_more = true;
        else
            node_group_drop(self, group);
    }
    return is_more;
}
