/* SPDX-License-Identifier: Apache-2.0
 * job_partial.c - a resize in which some ranks change node: only these are transferred, the others wait at the cut.
 *
 * START       The cluster gives devices of nodes that the job is not on (devices_given), and ranks are mapped to all
 * OPERATION   quiesce | save: those that leave | join: their new nodes restore them, and keep them frozen | release | the new places
 *             into the region's record | resume: each node is told who is there; whom it has besides it ends, and all go on
 * STOP        A node without ranks that may still have copies is a guest: it ends them and forgets the generation up to this
 *             cut, which fences it, too
 * FAILURES    Until the record is written the old map is resumed, and the new copies are ended.  From then on it is the new one
 *             that is resumed, until it is, or the generation is lost.  Of a rank there may be two copies: no more than one is
 *             ever thawed, since both are frozen until a resume, which names the one that the record has
 * Source: docs/adr/0023-partial-moves.md.
 */
#include "job_partial.h"
#include "job_resize.h"

enum { JOIN_MS = 8000, CLEAR_MS = 5000 };

/* A recovered actor does not know the network of its ranks, which those that join are to be on. */
bool job_partial_can(const struct job *self)
{
    return self->plan.may_move && self->level == ORR_LEVEL_IMAGE &&
           self->is_overlay_known;
}

/* ---- nodes ---- */

static struct job_node *find_node(const struct job *self, struct orr_str name)
{
    for (uint32_t i = 0; i < self->n_nodes; i++)
        if (orr_str_eq(orr_str(job_node_at(self, i)->name), name))
            return job_node_at(self, i);
    return NULL;
}

/* Indexes stay. */
static struct job_node *add_node(struct job *self, struct orr_str name)
{
    size_t used = self->n_nodes * sizeof(struct job_node);
    if (used + sizeof(struct job_node) > self->nodes.size) {
        struct orr_block more;
        if (orr_block_init(&more, used + sizeof(struct job_node)) != ORR_OK)
            return NULL;
        memcpy(more.at, self->nodes.at, used);
        orr_block_fini(&self->nodes);
        self->nodes = more;
    }
    struct job_node *node = job_node_at(self, self->n_nodes++);
    *node = (struct job_node){.state = ORR_NODE_UP};
    orr_str_copy(node->name, sizeof(node->name), name);
    job_hang_reset(self);
    return node;
}

enum orr_err
job_partial_add(struct job *self, struct orr_list_job_node nodes, struct orr_error *err)
{
    uint32_t before = self->n_nodes;
    enum orr_err code = ORR_OK;
    for (uint32_t i = 0; i < nodes.n && code == ORR_OK; i++) {
        const struct orr_rec_job_node *rec = &nodes.at[i];
        struct job_node *node = find_node(self, rec->node);
        if (!node)
            node = add_node(self, rec->node);
        if (!node) {
            code = ORR_ENOMEM;
            continue;
        }
        if (node->state != ORR_NODE_LOST)
            node->state = rec->state;
        node->addr = rec->addr;
        orr_str_copy(node->machine, sizeof(node->machine), rec->machine);
    }
    if (self->n_nodes > before && code == ORR_OK)
        code = job_plan_grow(self);
    if (code != ORR_OK)
        return orr_fail(err, code, "the cluster's host has no memory for more nodes");
    return self->n_nodes > before ? job_resize_grow(self, err) : ORR_OK;
}

void job_partial_found(struct orr_ctx *ctx,
                       struct job *self,
                       const struct orr_msg_node_changed *msg)
{
    if (!self->n_nodes || find_node(self, msg->node))
        return;
    struct job_node *node = add_node(self, msg->node);
    bool is_grown = node && job_plan_grow(self) == ORR_OK;
    job_resize_fini(self); /* made anew where it is needed */
    if (node)
        node->launch = JOB_LAUNCH_DONE;
    orr_log(ctx,
            ORR_LOG_WARN,
            "node %.*s has ranks of it that were to go, or have gone, elsewhere%s",
            ORR_STR_ARGS(msg->node),
            is_grown ? "" : "; there is no memory to end them");
}

uint64_t job_partial_fence(const struct job *self)
{
    return self->is_stopping || self->is_reported ? 0 : self->plan.cut;
}

bool job_partial_is_clearing(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    bool is_guest = false;
    for (uint32_t i = 0; i < self->n_nodes; i++)
        is_guest = is_guest || (job_node_is_guest(job_node_at(self, i)) &&
                                job_node_at(self, i)->state == ORR_NODE_UP);
    if (is_guest && !plan->clear_until_ms)
        plan->clear_until_ms = orr_now_ms(ctx) + CLEAR_MS;
    return is_guest && orr_now_ms(ctx) < plan->clear_until_ms;
}

void job_partial_cleared(const struct job *self, struct job_node *node)
{
    node->is_forgotten = job_partial_fence(self) == 0;
    if (node->is_forgotten)
        return;
    node->launch = JOB_LAUNCH_NONE;
    node->is_stop_acked = node->has_absent = false;
}

/* ---- the map ---- */

enum orr_err job_partial_plan(struct job *self, uint32_t n, struct orr_error *err)
{
    bool is_able = job_partial_can(self);
    for (uint32_t r = 0; r < self->args.world && is_able; r++) {
        const struct job_rank *rank = job_rank_at(self, r);
        const struct job_node *to = job_node_at(self, rank->next_node);
        if (rank->next_node != rank->node)
            is_able = to->state == ORR_NODE_UP &&
                      (to->n_ranks || to->launch == JOB_LAUNCH_NONE);
    }
    if (!is_able)
        return orr_fail(err, ORR_ENODEV, "%u ranks would have to leave their nodes", n);
    for (uint32_t r = 0; r < self->args.world; r++) {
        struct job_rank *rank = job_rank_at(self, r);
        rank->next_state = ORR_RANK_STARTING;
        job_node_at(self, rank->next_node)->n_next += rank->next_node != rank->node;
    }
    self->plan.is_partial = true;
    return ORR_OK;
}

struct orr_list_rank_place job_partial_leaving(struct job *self, uint32_t node)
{
    struct orr_rec_rank_place *places = self->places.at;
    uint32_t n = 0;
    for (uint32_t r = 0; r < self->args.world; r++) {
        const struct job_rank *rank = job_rank_at(self, r);
        if (rank->node == node && rank->next_node != node)
            places[n++] = (struct orr_rec_rank_place){
                .rank = r,
                .node = orr_str(job_node_at(self, node)->name),
                .device = rank->device,
                .local_rank = rank->local_rank};
    }
    return (struct orr_list_rank_place){places, n};
}

/* Of ranks that come the numbers follow those of the ones that stay. */
static void number_locally(struct job *self)
{
    for (uint32_t i = 0; i < self->n_nodes; i++)
        job_node_at(self, i)->next_local = 0;
    for (uint32_t r = 0; r < self->args.world; r++) {
        const struct job_rank *rank = job_rank_at(self, r);
        struct job_node *node = job_node_at(self, rank->node);
        if (rank->next_node == rank->node && rank->local_rank >= node->next_local)
            node->next_local = rank->local_rank + 1;
    }
}

static struct orr_list_rank_place list_coming(struct job *self, uint32_t node)
{
    struct orr_rec_rank_place *places = self->places.at;
    uint32_t n = 0;
    number_locally(self);
    for (uint32_t r = 0; r < self->args.world; r++) {
        const struct job_rank *rank = job_rank_at(self, r);
        if (rank->next_node == node && rank->node != node)
            places[n++] = (struct orr_rec_rank_place){
                .rank = r,
                .node = orr_str(job_node_at(self, node)->name),
                .device = rank->next_device,
                .local_rank = job_node_at(self, node)->next_local++};
    }
    return (struct orr_list_rank_place){places, n};
}

void job_partial_take(struct job *self)
{
    if (!self->plan.is_partial)
        return;
    number_locally(self);
    for (uint32_t i = 0; i < self->n_nodes; i++)
        job_node_at(self, i)->n_ranks = job_node_at(self, i)->n_open = 0;
    for (uint32_t r = 0; r < self->args.world; r++) {
        struct job_rank *rank = job_rank_at(self, r);
        struct job_node *to = job_node_at(self, rank->next_node);
        if (rank->next_node != rank->node)
            rank->local_rank = to->next_local++;
        rank->node = rank->next_node;
        to->n_ranks++;
        to->n_open++;
    }
    job_partial_undo(self);
    self->plan.is_unrecorded = true;
    job_hang_reset(self);
}

void job_partial_undo(struct job *self)
{
    for (uint32_t i = 0; i < self->n_nodes; i++) {
        job_node_at(self, i)->n_next = 0;
        job_node_at(self, i)->join = JOB_LAUNCH_NONE;
    }
    self->plan.is_partial = false;
}

void job_partial_replaced(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    if (!plan->is_partial)
        return;
    job_partial_undo(self);
    plan->remap = JOB_REMAP_NONE;
    plan->is_keep_due = true;
    if (plan->step == ORR_CUT_SAVE || plan->step == ORR_CUT_JOIN ||
        plan->step == ORR_CUT_RELEASE)
        job_plan_go_on(ctx, self);
}

/* ---- join ---- */

void job_partial_saved(struct orr_ctx *ctx, struct job *self)
{
    const struct job_part *parts = self->plan.parts.at;
    uint64_t bytes = 0;
    uint32_t n = 0;
    for (uint32_t r = 0; r < self->args.world; r++)
        if (job_rank_at(self, r)->next_node != job_rank_at(self, r)->node) {
            bytes += parts[r].bytes;
            n++;
        }
    orr_log(ctx,
            ORR_LOG_INFO,
            "%u of %u ranks change node, with %llu bytes",
            n,
            self->args.world,
            (unsigned long long)bytes);
    job_plan_begin(ctx, self, ORR_CUT_JOIN);
}

bool job_partial_has_come(const struct job *self, const struct job_node *node)
{
    uint32_t index = (uint32_t)(node - job_node_at(self, 0));
    for (uint32_t r = 0; r < self->args.world && node->n_next; r++) {
        const struct job_rank *rank = job_rank_at(self, r);
        if (rank->next_node == index && rank->node != index &&
            rank->next_state != ORR_RANK_RUNNING)
            return false;
    }
    return !node->n_next || node->join == JOB_LAUNCH_DONE;
}

static struct orr_list_part list_parts(struct job *self, uint32_t node)
{
    struct orr_rec_part *list = self->plan.part_list.at;
    const struct job_part *parts = self->plan.parts.at;
    uint32_t n = 0;
    for (uint32_t r = 0; r < self->args.world; r++) {
        const struct job_rank *rank = job_rank_at(self, r);
        const struct job_node *from = job_node_at(self, rank->node);
        if (rank->next_node == node && rank->node != node)
            list[n++] = (struct orr_rec_part){.rank = r,
                                              .hash = orr_str(parts[r].hash),
                                              .bytes = parts[r].bytes,
                                              .store = orr_str(from->store),
                                              .endpoint = orr_str(from->endpoint),
                                              .arena_bytes = parts[r].arena_bytes,
                                              .arenas = orr_str(parts[r].arenas),
                                              .is_silent = parts[r].is_silent};
    }
    return (struct orr_list_part){list, n};
}

void job_partial_ask(struct orr_ctx *ctx,
                     struct job *self,
                     struct job_node *node,
                     uint64_t tag)
{
    uint32_t index = (uint32_t)(node - job_node_at(self, 0));
    struct orr_rec_text machines[JOB_MACHINES_MAX];
    node->join = JOB_LAUNCH_SENT;
    if (node->launch == JOB_LAUNCH_NONE) /* from here on it may have something of it */
        node->launch = JOB_LAUNCH_SENT;
    orr_ask(ctx,
            node->addr,
            JOIN_MS,
            tag,
            rank_launch,
            .job = orr_str(self->args.job),
            .generation = self->args.generation,
            .spec = {self->spec.at, self->spec_len},
            .master_addr = orr_str(self->master_addr),
            .master_port = self->master_port,
            .ranks = list_coming(self, index),
            .node_rank = index,
            .link = self->link,
            .overlay = self->overlay,
            .parts = list_parts(self, index),
            .cut = self->plan.cut,
            .machines = job_machines(self, index, machines),
            .level = self->level,
            .is_joining = true);
}

static void fail(struct orr_ctx *ctx,
                 struct job *self,
                 const struct job_node *node,
                 struct orr_str why)
{
    char text[400];
    snprintf(text,
             sizeof(text),
             "%s: %s: %.*s; it runs on as before",
             orr_cut_step_name(ORR_CUT_JOIN),
             node->name,
             ORR_STR_ARGS(why));
    job_plan_fail(ctx, self, ORR_EIO, text);
}

void job_partial_refused(struct orr_ctx *ctx,
                         struct job *self,
                         const struct job_node *node,
                         struct orr_str text)
{
    if (self->plan.step == ORR_CUT_JOIN && node->n_next)
        fail(ctx, self, node, text);
}

bool job_partial_heard(struct orr_ctx *ctx,
                       struct job *self,
                       const struct orr_msg_rank_update *msg)
{
    struct job_rank *rank = job_rank_at(self, msg->rank.rank);
    const struct job_node *from = find_node(self, msg->node);
    if (!from || from == job_node_at(self, rank->node))
        return false;
    bool is_coming =
        self->plan.is_partial && from == job_node_at(self, rank->next_node);
    if (is_coming && msg->rank.state > rank->next_state)
        rank->next_state = msg->rank.state;
    if (is_coming && msg->rank.state > ORR_RANK_RUNNING && !self->is_stopping)
        fail(ctx, self, from, msg->rank.reason);
    return true; /* else a copy of it that is to end */
}

/* Its lease may bring it back, but the others stand still meanwhile. */
void job_partial_watch(struct orr_ctx *ctx, struct job *self)
{
    struct job_plan *plan = &self->plan;
    for (uint32_t i = 0; i < self->n_nodes; i++)
        if (job_plan_is_partial(plan) && plan->step != ORR_CUT_NONE &&
            job_node_at(self, i)->n_next && job_node_at(self, i)->state != ORR_NODE_UP)
            fail(ctx, self, job_node_at(self, i), ORR_LIT("is out of reach"));
}
