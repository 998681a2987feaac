/* SPDX-License-Identifier: Apache-2.0
 * node_ranks.c - the table of rank processes, and telling the job actors about each
 * change.
 *
 * A change marks its row dirty; a dirty row is told with rank_update until the job
 * actor acknowledged that very state.  At most one update per row is under way, so a
 * slow cluster sees the newest state and not a queue of old ones.
 */
#include "node_calls.h"
#include "node_devices.h"
#include "node_moves.h"

enum {
    UPDATE_TIMEOUT_MS = 2000,
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 5000,
    RETRY_MS = 100,
    KILL_AGAIN_MS = 1000
};
enum { SIGNAL_KILL = 9, SIGNAL_TERM = 15, GRACE_DEFAULT_MS = 10000 };

static void make_key(char *dst, size_t cap, struct orr_str job, uint64_t generation)
{
    snprintf(dst, cap, "%.*s/%llu", ORR_STR_ARGS(job), (unsigned long long)generation);
}

struct node_group *
node_group_find(const struct node *self, struct orr_str job, uint64_t generation)
{
    char key[ORR_JOB_ID_MAX + 24];
    make_key(key, sizeof(key), job, generation);
    return orr_map_find(&self->groups_by_key, orr_str(key));
}

struct node_group *
node_group_make(struct node *self, struct orr_str job, uint64_t generation)
{
    struct node_group *group = orr_pool_take(&self->groups);
    if (!group)
        return NULL;
    make_key(group->key, sizeof(group->key), job, generation);
    orr_str_copy(group->job, sizeof(group->job), job);
    group->generation = generation;
    group->first_row = ORR_NONE;
    group->spec = ORR_NONE;
    orr_map_add(&self->groups_by_key, group);
    return group;
}

void node_group_drop(struct node *self, struct node_group *group)
{
    for (struct node_row *row = node_row_first(self, group); row;) {
        struct node_row *next = node_row_next(self, row);
        node_procs_drop(self, row);
        orr_blob_drop(&self->specs, row->seen);
        orr_pool_give(&self->rows, row);
        row = next;
    }
    orr_blob_drop(&self->specs, group->spec);
    orr_map_remove(&self->groups_by_key, group);
    orr_pool_give(&self->groups, group);
}

struct node_row *node_row_first(const struct node *self, const struct node_group *group)
{
    return orr_pool_at(&self->rows, group->first_row);
}

struct node_row *node_row_next(const struct node *self, const struct node_row *row)
{
    return orr_pool_at(&self->rows, row->next);
}

struct node_row *
node_row_find(const struct node *self, const struct node_group *group, uint32_t rank)
{
    struct node_row *row = node_row_first(self, group);
    while (row && row->rank != rank)
        row = node_row_next(self, row);
    return row;
}

struct node_row *
node_row_add(struct node *self, struct node_group *group, uint32_t rank)
{
    struct node_row *row = orr_pool_take(&self->rows);
    if (!row)
        return NULL;
    row->group = orr_pool_index(&self->groups, group);
    row->rank = rank;
    row->first_proc = row->seen = ORR_NONE;
    row->device = row->old_device = ORR_NO_DEVICE;
    row->next = group->first_row;
    group->first_row = orr_pool_index(&self->rows, row);
    group->n_rows++;
    return row;
}

void node_row_rec(const struct node *self,
                  const struct node_row *row,
                  bool is_full,
                  struct orr_rec_rank_row *ret_rec)
{
    const struct node_group *group = orr_pool_at(&self->groups, row->group);
    *ret_rec = (struct orr_rec_rank_row){
        .job = orr_str(group->job),
        .generation = group->generation,
        .rank = row->rank,
        .state = row->state,
        .pid = row->pid,
        .device = row->device,
        .exit_code = row->exit_code,
        .signal = row->signal,
        .changed_unix_ms = row->changed_unix_ms,
        .is_told = row->is_told,
    };
    ret_rec->level = node_row_level(self, row, &ret_rec->why_level);
    if (is_full) {
        ret_rec->reason = orr_str(row->reason);
        ret_rec->stderr_tail = orr_str(row->tail);
    }
}

/* ---- telling ---- */

static void tell(struct orr_ctx *ctx, struct node *self, struct node_row *row)
{
    const struct node_group *group = orr_pool_at(&self->groups, row->group);
    char path[2 * ORR_NAME_MAX + ORR_JOB_ID_MAX + 48];
    snprintf(path,
             sizeof(path),
             "/%s/%s/job/%s",
             self->args.region,
             self->args.cluster,
             group->key);
    struct orr_addr job =
        orr_addr_named(orr_str(self->args.cluster_host), orr_str(path));
    struct orr_rec_rank_row rec;
    node_row_rec(self, row, true, &rec);
    row->is_dirty = false;
    row->is_telling = true;
    row->seq = ++self->next_seq & 0xffffff;
    orr_ask(ctx,
            job,
            UPDATE_TIMEOUT_MS,
            node_tag(NODE_TAG_UPDATE, orr_pool_index(&self->rows, row), row->seq),
            rank_update,
            .node = orr_str(self->args.node),
            .rank = rec);
}

void node_row_changed(struct orr_ctx *ctx, struct node *self, struct node_row *row)
{
    const struct node_group *group = orr_pool_at(&self->groups, row->group);
    if (group->is_left) {
        node_retry_arm(ctx, self);
        return;
    }
    row->is_dirty = true;
    row->backoff_ms = 0;
    if (!row->is_telling)
        tell(ctx, self, row);
}

void node_row_answered(
    struct orr_ctx *ctx, struct node *self, uint32_t index, uint32_t seq, bool is_ok)
{
    struct node_row *row = orr_pool_at(&self->rows, index);
    if (!row || row->seq != seq || !row->is_telling)
        return;
    row->is_telling = false;
    if (is_ok) {
        if (row->is_dirty)
            tell(ctx, self, row);
        return;
    }
    row->is_dirty = true;
    row->backoff_ms = row->backoff_ms ? row->backoff_ms * 2 : BACKOFF_MIN_MS;
    if (row->backoff_ms > BACKOFF_MAX_MS)
        row->backoff_ms = BACKOFF_MAX_MS;
    row->retry_ms =
        orr_now_ms(ctx) + row->backoff_ms + orr_random(ctx) % row->backoff_ms;
    node_retry_arm(ctx, self);
}

void node_row_apply(struct orr_ctx *ctx,
                    struct node *self,
                    struct node_row *row,
                    const struct orr_rec_rank_row *now)
{
    if (!node_rank_is_live(row->state) || now->state < row->state)
        return;
    bool is_new = row->state != now->state || row->pid != now->pid;
    row->state = now->state;
    row->pid = now->pid;
    row->exit_code = now->exit_code;
    row->signal = now->signal;
    row->changed_unix_ms = now->changed_unix_ms;
    row->is_told = now->is_told;
    node_row_saw(self, row, now->devices);
    row->level = now->level;
    orr_str_copy(row->why_level, sizeof(row->why_level), now->why_level);
    orr_str_copy(row->reason, sizeof(row->reason), now->reason);
    orr_str_copy(row->tail, sizeof(row->tail), now->stderr_tail);
    if (row->state != ORR_RANK_STARTING)
        node_save_restored(ctx, self, row);
    if (is_new && row->state != ORR_RANK_STARTING)
        node_row_changed(ctx, self, row);
}

void node_row_end(struct orr_ctx *ctx,
                  struct node *self,
                  struct node_row *row,
                  uint32_t state,
                  struct orr_str reason)
{
    node_row_apply(ctx,
                   self,
                   row,
                   &(struct orr_rec_rank_row){.state = state,
                                              .changed_unix_ms = ctx->wall_ms,
                                              .reason = reason});
}

/* ---- stopping and retrying ---- */

void node_group_signal(struct orr_ctx *ctx,
                       struct node *self,
                       const struct node_group *group,
                       uint32_t signal)
{
    for (struct node_row *row = node_row_first(self, group); row;
         row = node_row_next(self, row))
        if (node_rank_is_live(row->state))
            orr_send(ctx,
                     self->process_edge,
                     process_signal,
                     .job = orr_str(group->job),
                     .generation = group->generation,
                     .rank = row->rank,
                     .signal = signal);
}

static bool has_live(const struct node *self, const struct node_group *group)
{
    struct node_row *row = node_row_first(self, group);
    while (row && !node_rank_is_live(row->state))
        row = node_row_next(self, row);
    return row != NULL;
}

void node_retry_arm(struct orr_ctx *ctx, struct node *self)
{
    if (self->is_retrying)
        return;
    self->is_retrying = true;
    orr_timer_set(ctx, NODE_T_RETRY, RETRY_MS, 0);
}

/* Some freezers let a signal wait until the end of the frost. */
static void
thaw_dead(struct orr_ctx *ctx, struct node *self, const struct node_group *group)
{
    for (struct node_row *row = node_row_first(self, group);
         row && group->cut.is_frozen;
         row = node_row_next(self, row))
        if (node_rank_is_live(row->state))
            orr_send(ctx,
                     self->process_edge,
                     process_freeze,
                     .job = orr_str(group->job),
                     .generation = group->generation,
                     .rank = row->rank);
}

void node_retry(struct orr_ctx *ctx, struct node *self)
{
    uint64_t now = orr_now_ms(ctx);
    bool is_more = false;
    self->is_retrying = false;
    for (struct node_row *row = NULL;
         (row = orr_pool_next(&self->rows, row)) != NULL;) {
        if (row->is_relaunching)
            node_launch_again(ctx, self, row);
        if (!row->is_dirty || row->is_telling)
            continue;
        if (row->retry_ms <= now)
            tell(ctx, self, row);
        else
            is_more = true;
    }
    for (struct node_group *group = NULL;
         (group = orr_pool_next(&self->groups, group)) != NULL;) {
        if (!group->is_stopping || !has_live(self, group))
            continue;
        is_more = true;
        if (group->kill_ms > now)
            continue;
        node_group_signal(ctx, self, group, SIGNAL_KILL);
        thaw_dead(ctx, self, group);
        group->kill_ms = now + KILL_AGAIN_MS;
    }
    for (struct node_group *group = NULL;
         (group = orr_pool_next(&self->groups, group)) != NULL;)
        node_arenas_check(ctx, self, group);
    node_cut_look_again(ctx, self, &is_more);
    is_more = node_left_sweep(ctx, self) || is_more;
    if (is_more)
        node_retry_arm(ctx, self);
}

/* ---- fences ---- */

void node_fence(struct node *self,
                struct orr_str job,
                uint64_t generation,
                uint64_t cut)
{
    cut = cut ? cut : UINT64_MAX;
    if (node_is_fenced(self, job, generation, cut))
        return;
    self->fences[self->next_fence++ % NODE_FENCES] =
        (struct node_fence){orr_hash(job), generation, cut};
}

bool node_is_fenced(const struct node *self,
                    struct orr_str job,
                    uint64_t generation,
                    uint64_t cut)
{
    uint64_t hash = orr_hash(job);
    for (size_t i = 0; i < NODE_FENCES; i++) {
        const struct node_fence *fence = &self->fences[i];
        if (fence->job == hash &&
            (fence->generation > generation ||
             (fence->generation == generation && fence->cut >= cut)))
            return true;
    }
    return false;
}

/* Has this group come to the node after its ranks had left it at that cut? */
static bool is_later(const struct node_group *group, uint64_t generation, uint64_t cut)
{
    return cut && group->generation == generation && group->cut.cut > cut;
}

/* ---- its job actor ---- */

enum orr_err node_rank_stop(struct orr_ctx *ctx,
                            struct node *self,
                            const struct orr_msg_rank_stop *msg)
{
    uint64_t grace = msg->grace_ms ? msg->grace_ms : GRACE_DEFAULT_MS;
    node_fence(self, msg->job, msg->generation, msg->cut);
    for (struct node_group *group = NULL;
         (group = orr_pool_next(&self->groups, group)) != NULL;) {
        if (group->generation > msg->generation ||
            !orr_str_eq(orr_str(group->job), msg->job) || group->is_left ||
            is_later(group, msg->generation, msg->cut))
            continue;
        if (msg->cut && group->generation == msg->generation) {
            node_group_leave(ctx, self, group);
            continue;
        }
        if (!group->is_stopping) {
            node_group_signal(ctx, self, group, SIGNAL_TERM);
            group->kill_ms = orr_now_ms(ctx) + grace;
        }
        if (group->is_frozen || group->cut.is_frozen) /* it cannot hear TERM */
            group->kill_ms = orr_now_ms(ctx);
        group->is_stopping = true;
        node_retry_arm(ctx, self);
    }
    return ORR_OK;
}

enum orr_err node_ranks_get(struct orr_ctx *ctx,
                            struct node *self,
                            const struct orr_msg_ranks_get *msg)
{
    struct orr_rec_rank_row *rows = self->row_list.at;
    uint32_t n = 0;
    struct node_group *group = node_group_find(self, msg->job, msg->generation);
    if (group)
        node_asked(ctx, self, group);
    for (struct node_row *row = group ? node_row_first(self, group) : NULL; row;
         row = node_row_next(self, row))
        node_row_rec(self, row, true, &rows[n++]);
    orr_reply(ctx,
              ranks,
              .node = orr_str(self->args.node),
              .ranks = {rows, n},
              .cut = group ? group->cut.cut : 0,
              .step = group ? group->cut.step : 0);
    return ORR_OK;
}

enum orr_err node_ranks_forget(struct orr_ctx *ctx,
                               struct node *self,
                               const struct orr_msg_ranks_forget *msg)
{
    struct node_group *group = node_group_find(self, msg->job, msg->generation);
    if (group && is_later(group, msg->generation, msg->cut))
        return ORR_OK;
    if (node_left_lives(self, msg->job, msg->generation))
        return orr_refuse(ctx,
                          ORR_ESTATE,
                          "what has left %.*s is still being ended on %s",
                          ORR_STR_ARGS(msg->job),
                          self->args.node);
    for (struct node_row *row = group ? node_row_first(self, group) : NULL; row;
         row = node_row_next(self, row))
        if (node_rank_is_live(row->state))
            return orr_refuse(ctx,
                              ORR_ESTATE,
                              "rank %u of %s still runs on %s; stop it first",
                              row->rank,
                              group->key,
                              self->args.node);
    node_fence(self, msg->job, msg->generation, msg->cut);
    if (!group)
        return ORR_OK;
    for (struct node_row *row = node_row_first(self, group); row;
         row = node_row_next(self, row))
        orr_send(ctx,
                 self->process_edge,
                 process_forget,
                 .job = msg->job,
                 .generation = msg->generation,
                 .rank = row->rank);
    if (self->args.has_stops)
        orr_send(ctx,
                 self->rank_edge,
                 rank_forgotten,
                 .job = msg->job,
                 .generation = msg->generation);
    node_group_drop(self, group);
    return ORR_OK;
}
