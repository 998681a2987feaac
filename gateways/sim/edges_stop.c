/* SPDX-License-Identifier: Apache-2.0
 * edges_stop.c - /edge/rank and /edge/store of a simulated machine (world.h).
 *
 * A rank's gate, its cut and its step are the process's own and outlive the host, as in a real rank's library.  All ranks of a
 * job are members of one communicator.  Ranks that stand still at the end of their lease do not answer: their steps take as
 * long as that.  The store never loses a part, and every machine reaches all of it.
 */
#include "world.h"

enum { LOOK_MS = 20, T_LOOK = 1, REPORT_RANKS = WORLD_PROCS };

struct rank_edge {
    struct edge_args args;
    struct orr_addr node;
};

ORR_HANDLER(rank_edge, rank_expect)
ORR_HANDLER(rank_edge, rank_forgotten)
ORR_HANDLER(rank_edge, rank_arena_drop)
ORR_HANDLER(rank_edge, cut_step)
ORR_HANDLER(rank_edge, edge_greet)
ORR_HANDLER(rank_edge, timer)

static enum orr_err rank_edge_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct rank_edge *self = state;
    self->args = *(const struct edge_args *)args;
    self->node =
        (struct orr_addr){.host = ctx->self.host,
                          .slot = orr_hash(orr_str(self->args.machine->node_path))};
    return ORR_OK;
}

static struct machine *machine_now(const struct edge_args *args)
{
    world_now(args->machine->world);
    return args->machine;
}

static struct proc *next_of(struct machine *machine,
                            struct proc *at,
                            struct orr_str job,
                            uint64_t generation)
{
    uint32_t i = at ? (uint32_t)(at - machine->procs) + 1 : 0;
    for (; i < machine->n_procs; i++) {
        struct proc *proc = &machine->procs[i];
        if (proc_is_live(proc, machine->world->now_ms) &&
            proc->generation == generation && orr_str_eq(orr_str(proc->job), job))
            return proc;
    }
    return NULL;
}

static uint64_t comm_of(const struct proc *proc)
{
    return orr_hash(orr_str(proc->job)) | 1;
}

/* ---- steps ---- */

static void take_target(struct machine *machine,
                        struct proc *proc,
                        const struct orr_msg_cut_step *msg)
{
    uint64_t target = 0;
    for (uint32_t i = 0; i < msg->targets.n; i++)
        if (msg->targets.at[i].rank == proc->rank)
            target = msg->targets.at[i].issued;
    if (msg->round > proc->round)
        proc->round = msg->round;
    if (target > proc->target + 1)
        proc->target = target - 1;
    if (!proc->is_held && !proc->hold_at_ms) /* its lease was over meanwhile */
        proc_stand(machine, proc, &proc->is_held, true);
    if (proc->is_held)
        proc_run_to(machine, proc, proc->target);
}

static uint32_t device_index(struct orr_str uuid, uint32_t otherwise)
{
    const char *dash = uuid.len ? strrchr(uuid.ptr, '-') : NULL;
    return dash ? (uint32_t)strtoul(dash + 1, NULL, 10) : otherwise;
}

static void
resume(struct machine *machine, struct proc *proc, const struct orr_msg_cut_step *msg)
{
    for (uint32_t i = 0; i < msg->ranks.n; i++)
        if (msg->ranks.at[i].rank == proc->rank && proc->device != ORR_NO_DEVICE)
            proc->device = device_index(msg->ranks.at[i].node, proc->device);
    proc->is_stopped = false;
    proc->hold_at_ms = 0;
    proc->target = 0;
    if (proc->is_held)
        proc_stand(machine, proc, &proc->is_held, false);
    one_owner_per_device_share(machine, proc);
    one_live_generation_per_rank(machine->world, proc);
}

static bool is_maker_there(const struct world *world, const struct proc *of)
{
    for (uint32_t i = 0; i < world->n_machines; i++)
        for (struct proc *proc = NULL;
             (proc = next_of(
                  &world->machines[i], proc, orr_str(of->job), of->generation)) !=
             NULL;)
            if (proc->rank == 0)
                return true;
    return false;
}

/* The ranks' ids are made by rank 0, wherever it is; none go on before all have spoken.  One that has ended counts as zeros. */
static bool has_ids(const struct machine *machine,
                    const struct proc *proc,
                    const struct orr_msg_cut_step *msg)
{
    if (!proc->is_stopped || proc->world == 1)
        return true;
    if (!msg->has_all_ids)
        return false;
    if (proc->rank == 0 || !is_maker_there(machine->world, proc))
        return true;
    for (uint32_t i = 0; i < msg->ids.n; i++)
        if (msg->ids.at[i].comm == comm_of(proc))
            return true;
    return false;
}

static void take_step(struct machine *machine,
                      struct proc *proc,
                      const struct orr_msg_cut_step *msg)
{
    if (msg->cut < proc->cut || proc->is_frozen)
        return;
    if (msg->cut > proc->cut) {
        proc->cut = msg->cut;
        proc->step = ORR_CUT_NONE;
        proc->round = 0;
        proc->target = 0;
        proc->hold_at_ms = 0;
    }
    bool is_back = msg->step == ORR_CUT_RESUME || msg->step == ORR_CUT_OPEN;
    if (msg->step < proc->step && !is_back)
        return;
    if (msg->step == ORR_CUT_RESUME &&
        (proc->is_parked || !has_ids(machine, proc, msg)))
        return;
    if (msg->step == ORR_CUT_OPEN && proc->is_stopped)
        return; /* it takes a resume */
    if (msg->step == ORR_CUT_BEGIN && proc->step == ORR_CUT_NONE && !proc->is_held)
        proc_stand(machine, proc, &proc->is_held, true);
    if (msg->step == ORR_CUT_TARGETS && !proc->is_stopped)
        take_target(machine, proc, msg);
    if (msg->step == ORR_CUT_QUIESCE)
        proc->is_stopped = proc->is_held;
    if (is_back)
        resume(machine, proc, msg);
    proc->step = msg->step;
    if (msg->step == ORR_CUT_RESUME)
        proc->round = msg->round;
}

/* ---- reports ---- */

static bool is_step_done(const struct proc *proc, const struct orr_msg_cut_step *msg)
{
    const uint64_t count = proc->done_ms / WORLD_STEP_MS;
    if (proc->cut > msg->cut)
        return true;
    if (proc->is_frozen || proc->cut != msg->cut || proc->step != msg->step)
        return false;
    switch (msg->step) {
    case ORR_CUT_BEGIN:
        return proc->is_held;
    case ORR_CUT_TARGETS:
        return proc->is_held && count >= proc->target && proc->round >= msg->round;
    case ORR_CUT_QUIESCE:
        return proc->is_stopped;
    case ORR_CUT_RESUME:
        return !proc->is_stopped && proc->round >= msg->round;
    default:
        return true;
    }
}

struct report {
    struct orr_rec_clock clocks[REPORT_RANKS];
    struct orr_rec_rank_arena arenas[REPORT_RANKS];
    struct orr_rec_comm_id id;
    struct orr_msg_cut_report msg;
};

static void add_rank(struct report *r, const struct proc *proc, uint64_t now_ms)
{
    static const uint8_t id[] = "unique";
    r->clocks[r->msg.clocks.n++] =
        (struct orr_rec_clock){.rank = proc->rank,
                               .comm = comm_of(proc),
                               .kind = ORR_CLOCK_COLLECTIVE,
                               .me = proc->rank,
                               .n = proc->world,
                               .issued = proc_count(proc, now_ms) + 1,
                               .op = ORR_CLOCK_OP_ALL_REDUCE};
    if (proc->is_stopped && proc->device != ORR_NO_DEVICE) {
        r->arenas[r->msg.arenas.n++] =
            (struct orr_rec_rank_arena){.rank = proc->rank,
                                        .process = 1,
                                        .path = ORR_LIT("/arena"),
                                        .bytes = 4096,
                                        .pid = 1000 + proc->rank};
        r->msg.device_bytes += 4096;
    }
    if (proc->rank == 0) {
        r->id = (struct orr_rec_comm_id){.comm = comm_of(proc), .id = {id, 6}};
        r->msg.ids = (struct orr_list_comm_id){&r->id, 1};
    }
}

static void make_report(struct machine *machine,
                        const struct orr_msg_cut_step *msg,
                        struct report *r)
{
    uint64_t now = machine->world->now_ms;
    bool is_done = true;
    r->msg = (struct orr_msg_cut_report){.job = msg->job,
                                         .generation = msg->generation,
                                         .cut = msg->cut,
                                         .node = orr_str(machine->name),
                                         .step = msg->step,
                                         .round = msg->round,
                                         .clocks = {r->clocks, 0},
                                         .arenas = {r->arenas, 0},
                                         .culprit = -1};
    for (struct proc *proc = NULL;
         (proc = next_of(machine, proc, msg->job, msg->generation)) != NULL;) {
        is_done = is_done && is_step_done(proc, msg);
        if (proc->is_frozen)
            continue; /* it does not answer */
        add_rank(r, proc, now);
        /* a resume's is the attempt that its ids are of, also while ranks wait for them */
        if (msg->step != ORR_CUT_RESUME && proc->round < r->msg.round)
            r->msg.round = proc->round;
    }
    if (msg->step != ORR_CUT_BEGIN && msg->step != ORR_CUT_TARGETS)
        r->msg.clocks.n = 0;
    if (msg->step != ORR_CUT_QUIESCE)
        r->msg.arenas.n = 0;
    if (msg->step != ORR_CUT_RESUME)
        r->msg.ids.n = 0;
    r->msg.has_all_ids = msg->step == ORR_CUT_RESUME;
    r->msg.state = is_done ? ORR_STEP_DONE : ORR_STEP_WORKING;
}

/* What is asked is asked again, so a change needs no report of its own. */
static enum orr_err rank_edge_on_cut_step(struct orr_ctx *ctx,
                                          struct rank_edge *self,
                                          const struct orr_msg_cut_step *msg)
{
    struct machine *machine = machine_now(&self->args);
    static struct report report;
    for (struct proc *proc = NULL;
         (proc = next_of(machine, proc, msg->job, msg->generation)) != NULL;)
        take_step(machine, proc, msg);
    make_report(machine, msg, &report);
    ctx->ops->reply(ctx, &ctx->request, orr_msg_desc_cut_report(), &report.msg);
    return ORR_OK;
}

static enum orr_err rank_edge_on_rank_expect(struct orr_ctx *ctx,
                                             struct rank_edge *self,
                                             const struct orr_msg_rank_expect *msg)
{
    (void)ctx;
    (void)self;
    (void)msg;
    return ORR_OK;
}

static enum orr_err
rank_edge_on_rank_forgotten(struct orr_ctx *ctx,
                            struct rank_edge *self,
                            const struct orr_msg_rank_forgotten *msg)
{
    (void)ctx;
    (void)self;
    (void)msg;
    return ORR_OK;
}

static enum orr_err
rank_edge_on_rank_arena_drop(struct orr_ctx *ctx,
                             struct rank_edge *self,
                             const struct orr_msg_rank_arena_drop *msg)
{
    (void)ctx;
    (void)self;
    (void)msg;
    return ORR_OK;
}

/* Introduces the ranks that are there, as their libraries do when they find a new host. */
static enum orr_err rank_edge_on_edge_greet(struct orr_ctx *ctx,
                                            struct rank_edge *self,
                                            const struct orr_msg_edge_greet *msg)
{
    (void)msg;
    orr_timer_set(ctx, T_LOOK, LOOK_MS, 0);
    (void)self;
    return ORR_OK;
}

static enum orr_err rank_edge_on_timer(struct orr_ctx *ctx,
                                       struct rank_edge *self,
                                       const struct orr_msg_timer *msg)
{
    struct machine *machine = machine_now(&self->args);
    (void)msg;
    for (uint32_t i = 0; i < machine->n_procs; i++) {
        const struct proc *proc = &machine->procs[i];
        if (proc_is_live(proc, machine->world->now_ms))
            orr_send(ctx,
                     self->node,
                     rank_ability,
                     .job = orr_str(proc->job),
                     .generation = proc->generation,
                     .rank = proc->rank,
                     .pid = 1000 + proc->rank,
                     .process = 1,
                     .is_stopped = proc->is_stopped);
    }
    return ORR_OK;
}

static const struct orr_handler rank_handlers[] = {
    ORR_ON(rank_edge, rank_expect, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(rank_edge, rank_forgotten, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(rank_edge, rank_arena_drop, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(rank_edge, cut_step, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(rank_edge, edge_greet, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_COALESCE),
    ORR_ON(rank_edge, timer, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};

const struct orr_actor_type sim_rank_type = {
    .name = "sim_rank",
    .state_size = sizeof(struct rank_edge),
    .args_size = sizeof(struct edge_args),
    .init = rank_edge_init,
    .handlers = rank_handlers,
    .n_handlers = ORR_ARRAY_SIZE(rank_handlers),
};

/* ---- store ---- */

struct store_edge {
    struct edge_args args;
};

ORR_HANDLER(store_edge, store_put)
ORR_HANDLER(store_edge, store_get)
ORR_HANDLER(store_edge, store_cancel)

static enum orr_err store_edge_init(struct orr_ctx *ctx, void *state, const void *args)
{
    (void)ctx;
    ((struct store_edge *)state)->args = *(const struct edge_args *)args;
    return ORR_OK;
}

static enum orr_err store_edge_on_store_put(struct orr_ctx *ctx,
                                            struct store_edge *self,
                                            const struct orr_msg_store_put *msg)
{
    struct machine *machine = machine_now(&self->args);
    char dir[256], hash[65];
    snprintf(dir, sizeof(dir), "%s:%.*s", machine->name, ORR_STR_ARGS(msg->dir));
    const struct saved_rank *image = world_image_find(machine->world, dir);
    if (machine->has_bad_disk || !image)
        return orr_refuse(ctx,
                          image ? ORR_EIO : ORR_ENOENT,
                          "%s cannot store %.*s",
                          machine->name,
                          ORR_STR_ARGS(msg->dir));
    const struct proc proc = image->proc;
    snprintf(hash,
             sizeof(hash),
             "%016llx%016llx%016llx%016llx",
             (unsigned long long)orr_hash(orr_str(proc.job)),
             (unsigned long long)proc.generation,
             (unsigned long long)proc.cut,
             (unsigned long long)proc.rank);
    world_image_keep(machine->world, hash, &proc);
    orr_reply(ctx, store_kept, .part = orr_str(hash), .bytes = 4096, .new_bytes = 4096);
    return ORR_OK;
}

static enum orr_err store_edge_on_store_get(struct orr_ctx *ctx,
                                            struct store_edge *self,
                                            const struct orr_msg_store_get *msg)
{
    struct machine *machine = machine_now(&self->args);
    char dir[256], part[80];
    orr_str_copy(part, sizeof(part), msg->part);
    manifest_names_only_complete_parts(machine->world, part);
    const struct saved_rank *image = world_image_find(machine->world, part);
    if (machine->has_bad_disk || !image)
        return orr_refuse(ctx, ORR_EIO, "%s cannot fetch %s", machine->name, part);
    const struct proc proc = image->proc;
    snprintf(dir, sizeof(dir), "%s:%.*s", machine->name, ORR_STR_ARGS(msg->dir));
    world_image_keep(machine->world, dir, &proc);
    orr_reply(ctx, store_got, .bytes = 4096);
    return ORR_OK;
}

static enum orr_err store_edge_on_store_cancel(struct orr_ctx *ctx,
                                               struct store_edge *self,
                                               const struct orr_msg_store_cancel *msg)
{
    (void)self;
    (void)msg;
    return orr_refuse(ctx, ORR_ENOENT, "no call of that id");
}

static const struct orr_handler store_handlers[] = {
    ORR_ON(store_edge, store_put, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(store_edge, store_get, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(store_edge, store_cancel, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
};

const struct orr_actor_type sim_store_type = {
    .name = "sim_store",
    .state_size = sizeof(struct store_edge),
    .args_size = sizeof(struct edge_args),
    .init = store_edge_init,
    .handlers = store_handlers,
    .n_handlers = ORR_ARRAY_SIZE(store_handlers),
};
