/* SPDX-License-Identifier: Apache-2.0
 * edges.c - the edges of a simulated machine as actors over it: process, device, events (world.h).
 */
#include "world.h"

enum { LOOK_MS = 50, UNIX_BASE = 1000000, DEVICES_MAX = 64, T_LOOK = 1 };

/* ---- process edge ---- */

struct process_edge {
    struct edge_args args;
    struct orr_addr node;
};

ORR_HANDLER(process_edge, process_launch)
ORR_HANDLER(process_edge, process_signal)
ORR_HANDLER(process_edge, process_forget)
ORR_HANDLER(process_edge, process_freeze)
ORR_HANDLER(process_edge, process_widen)
ORR_HANDLER(process_edge, process_image)
ORR_HANDLER(process_edge, rank_note)
ORR_HANDLER(process_edge, image_drop)
ORR_HANDLER(process_edge, port_reserve)
ORR_HANDLER(process_edge, log_read)
ORR_HANDLER(process_edge, process_lease)
ORR_HANDLER(process_edge, node_note)
ORR_HANDLER(process_edge, edge_greet)
ORR_HANDLER(process_edge, timer)

static struct orr_rec_rank_row row_of(const struct world *world,
                                      const struct proc *proc)
{
    struct orr_rec_rank_row row = {
        .job = orr_str(proc->job),
        .generation = proc->generation,
        .rank = proc->rank,
        .state = ORR_RANK_RUNNING,
        .pid = 1000 + proc->rank,
        .device = proc->device,
        .changed_unix_ms = UNIX_BASE + proc->started_ms,
        .is_frozen = proc->is_parked,
        .cut = proc->noted_cut,
        .cut_step = proc->noted_step,
        .visible = proc->noted_visible,
    };
    if (world->now_ms < proc_reaped_ms(world, proc))
        return row;
    row.state = ORR_RANK_EXITED;
    row.exit_code = proc->exit_code;
    row.signal = proc->signal;
    row.is_told = proc->is_told;
    row.changed_unix_ms = UNIX_BASE + proc_reaped_ms(world, proc);
    row.stderr_tail = ORR_LIT("the end\n");
    return row;
}

static struct machine *machine_now(const struct process_edge *self)
{
    world_now(self->args.machine->world);
    return self->args.machine;
}

/* At the next end, or soon, since a peer's end may bring one forward; not at all while nothing runs. */
static void look_again(struct orr_ctx *ctx, const struct machine *machine)
{
    const struct world *world = machine->world;
    uint64_t due = UINT64_MAX;
    for (uint32_t i = 0; i < machine->n_procs; i++) {
        const struct proc *proc = &machine->procs[i];
        if (!proc->is_used || proc->is_ended)
            continue;
        uint64_t soon = world->now_ms + LOOK_MS;
        uint64_t end = proc->ends_ms == UINT64_MAX ? soon : proc_reaped_ms(world, proc);
        end = end < soon ? end : soon;
        due = end < due ? end : due;
    }
    if (due != UINT64_MAX)
        orr_timer_set(ctx, T_LOOK, due > world->now_ms ? due - world->now_ms : 1, 0);
}

static void introduce(struct orr_ctx *ctx, struct process_edge *self)
{
    struct machine *machine = machine_now(self);
    struct orr_rec_rank_row rows[WORLD_PROCS];
    uint32_t n = 0;
    for (uint32_t i = 0; i < machine->n_procs; i++) {
        struct proc *proc = &machine->procs[i];
        if (!proc->is_used)
            continue;
        rows[n++] = row_of(machine->world, proc);
        proc->is_ended = machine->world->now_ms >= proc_reaped_ms(machine->world, proc);
    }
    orr_send(ctx,
             self->node,
             processes_found,
             .ranks = {rows, n},
             .has_lease = machine->heard_ms != 0,
             .silent_ms = machine->world->now_ms - machine->heard_ms,
             .note = {machine->note, machine->note_len});
    orr_send(ctx,
             self->node,
             image_ability,
             .is_able = true,
             .text = ORR_LIT("simulated"),
             .criu_version = ORR_LIT("4.2"));
    look_again(ctx, machine);
}

static enum orr_err
process_edge_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct process_edge *self = state;
    self->args = *(const struct edge_args *)args;
    self->node =
        (struct orr_addr){.host = ctx->self.host,
                          .slot = orr_hash(orr_str(self->args.machine->node_path))};
    introduce(ctx, self);
    return ORR_OK;
}

static enum orr_err process_edge_on_edge_greet(struct orr_ctx *ctx,
                                               struct process_edge *self,
                                               const struct orr_msg_edge_greet *msg)
{
    (void)msg;
    introduce(ctx, self);
    return ORR_OK;
}

/* From the host's clock, which may drift, to true time. */
static enum orr_err
process_edge_on_process_lease(struct orr_ctx *ctx,
                              struct process_edge *self,
                              const struct orr_msg_process_lease *msg)
{
    struct machine *machine = machine_now(self);
    uint64_t host_now = orr_now_ms(ctx), now = machine->world->now_ms;
    uint64_t left = msg->until_ms > host_now ? msg->until_ms - host_now : 0;
    uint64_t ago = host_now > msg->heard_ms ? host_now - msg->heard_ms : 0;
    machine->freeze_at_ms = msg->until_ms ? now + left : 0;
    machine->heard_ms = now > ago ? now - ago : 1;
    return ORR_OK;
}

static enum orr_err process_edge_on_node_note(struct orr_ctx *ctx,
                                              struct process_edge *self,
                                              const struct orr_msg_node_note *msg)
{
    struct machine *machine = self->args.machine;
    if (machine->has_bad_disk)
        return orr_refuse(ctx, ORR_EIO, "%s cannot write its note", machine->name);
    if (msg->note.len > sizeof(machine->note))
        return orr_refuse(ctx, ORR_ENOSPC, "the note is too long");
    memcpy(machine->note, msg->note.ptr, msg->note.len);
    machine->note_len = msg->note.len;
    return ORR_OK;
}

static enum orr_err process_edge_on_timer(struct orr_ctx *ctx,
                                          struct process_edge *self,
                                          const struct orr_msg_timer *msg)
{
    (void)msg;
    struct machine *machine = machine_now(self);
    struct world *world = machine->world;
    for (uint32_t i = 0; i < machine->n_procs; i++) {
        struct proc *proc = &machine->procs[i];
        if (!proc->is_used || proc->is_ended || proc_is_live(proc, world->now_ms))
            continue;
        /* one that was killed while it stood still is one that goes on elsewhere: its peers do not see it */
        bool is_seen = !proc->is_parked || !proc->is_told;
        if ((proc->exit_code || proc->signal) && is_seen)
            machine_end_peers(world, proc);
        if (world->now_ms < proc_reaped_ms(world, proc))
            continue;
        proc->is_ended = true;
        orr_send(ctx, self->node, process_event, .rank = row_of(world, proc));
    }
    look_again(ctx, machine);
    return ORR_OK;
}

static uint32_t world_size(const struct orr_msg_process_launch *msg)
{
    for (uint32_t i = 0; i < msg->env.n; i++)
        if (orr_str_eq(msg->env.at[i].name, ORR_LIT("WORLD_SIZE")))
            return (uint32_t)strtoul(msg->env.at[i].value.ptr, NULL, 10);
    return 1;
}

/* The rank of an image, standing still at its cut. */
static bool restored_of(const struct orr_msg_process_launch *msg,
                        const struct machine *machine,
                        struct proc *ret_plan)
{
    char dir[256];
    snprintf(
        dir, sizeof(dir), "%s:%.*s", machine->name, ORR_STR_ARGS(msg->restore_dir));
    const struct saved_rank *image = world_image_find(machine->world, dir);
    if (!image)
        return false;
    *ret_plan = image->proc;
    ret_plan->generation = msg->generation;
    ret_plan->device = msg->device;
    ret_plan->started_ms = machine->world->now_ms;
    ret_plan->is_held = ret_plan->is_stopped = true;
    ret_plan->is_frozen = ret_plan->is_ended = false;
    ret_plan->is_parked = msg->stays_frozen;
    ret_plan->is_told = false;
    if (!msg->stays_frozen) /* else its generation goes on, from where it began */
        ret_plan->restored = image->proc.done_ms / WORLD_STEP_MS;
    ret_plan->step = ORR_CUT_NONE;
    ret_plan->noted_cut = 0;
    ret_plan->noted_step = ORR_CUT_NONE;
    machine->world->n_restored++;
    return true;
}

static bool plan_of(const struct orr_msg_process_launch *msg,
                    struct world *world,
                    struct proc *ret_plan)
{
    if (msg->command.n < 5)
        return false;
    const struct orr_rec_text *argv = msg->command.at;
    uint64_t run_ms = strtoull(argv[1].value.ptr, NULL, 10);
    bool is_bad = strtoll(argv[2].value.ptr, NULL, 10) == (long long)msg->rank;
    *ret_plan = (struct proc){
        .generation = msg->generation,
        .rank = msg->rank,
        .device = msg->device,
        .started_ms = world->now_ms,
        .from_ms = world->now_ms,
        .world = world_size(msg),
        .ends_ms = world->now_ms + (is_bad ? run_ms / 2 : run_ms) + 1,
        .exit_code = is_bad ? strtoll(argv[3].value.ptr, NULL, 10) : 0,
        .signal = is_bad ? (uint32_t)strtoul(argv[4].value.ptr, NULL, 10) : 0,
        .ignores_term =
            world_chance(world, msg->job, msg->generation, msg->rank) % 8 == 0,
    };
    if (msg->command.n == 8) {
        ret_plan->gpus_min = (uint32_t)strtoul(argv[5].value.ptr, NULL, 10);
        ret_plan->gpus_max = (uint32_t)strtoul(argv[6].value.ptr, NULL, 10);
        ret_plan->quiet_ms = strtoull(argv[7].value.ptr, NULL, 10);
    }
    orr_str_copy(ret_plan->job, sizeof(ret_plan->job), msg->job);
    return true;
}

static enum orr_err
process_edge_on_process_launch(struct orr_ctx *ctx,
                               struct process_edge *self,
                               const struct orr_msg_process_launch *msg)
{
    struct machine *machine = machine_now(self);
    if (machine_find(machine, msg->job, msg->generation, msg->rank))
        return ORR_OK;
    struct proc plan;
    bool is_planned = msg->restore_dir.len ? restored_of(msg, machine, &plan)
                                           : plan_of(msg, machine->world, &plan);
    if (machine->has_bad_disk || !is_planned)
        return orr_refuse(
            ctx, ORR_EIO, "%s cannot write the files of a rank", machine->name);
    const struct proc *proc = machine_start(machine, &plan);
    if (!proc)
        return orr_refuse(
            ctx, ORR_ENOSPC, "%s runs %d ranks", machine->name, (int)WORLD_PROCS);
    orr_send(ctx, self->node, process_event, .rank = row_of(machine->world, proc));
    look_again(ctx, machine);
    return ORR_OK;
}

static enum orr_err
process_edge_on_process_signal(struct orr_ctx *ctx,
                               struct process_edge *self,
                               const struct orr_msg_process_signal *msg)
{
    struct machine *machine = machine_now(self);
    struct proc *proc = machine_find(machine, msg->job, msg->generation, msg->rank);
    if (proc)
        machine_signal(machine, proc, msg->signal);
    look_again(ctx, machine);
    return ORR_OK;
}

static enum orr_err
process_edge_on_process_freeze(struct orr_ctx *ctx,
                               struct process_edge *self,
                               const struct orr_msg_process_freeze *msg)
{
    struct machine *machine = machine_now(self);
    struct proc *proc = machine_find(machine, msg->job, msg->generation, msg->rank);
    if (!proc || !proc_is_live(proc, machine->world->now_ms))
        return orr_refuse(ctx, ORR_ENOENT, "rank %u has ended", msg->rank);
    if (proc->is_parked != msg->is_frozen)
        proc_stand(machine, proc, &proc->is_parked, msg->is_frozen);
    look_again(ctx, machine);
    return ORR_OK;
}

static enum orr_err
process_edge_on_process_widen(struct orr_ctx *ctx,
                              struct process_edge *self,
                              const struct orr_msg_process_widen *msg)
{
    struct machine *machine = machine_now(self);
    struct proc *proc = machine_find(machine, msg->job, msg->generation, msg->rank);
    return proc ? ORR_OK
                : orr_refuse(ctx, ORR_ENOENT, "rank %u: not known here", msg->rank);
}

static enum orr_err
process_edge_on_process_image(struct orr_ctx *ctx,
                              struct process_edge *self,
                              const struct orr_msg_process_image *msg)
{
    struct machine *machine = machine_now(self);
    struct world *world = machine->world;
    struct proc *proc = machine_find(machine, msg->job, msg->generation, msg->rank);
    char dir[256];
    if (!proc || !proc_is_live(proc, world->now_ms))
        return orr_refuse(ctx, ORR_ENOENT, "rank %u has ended", msg->rank);
    if (machine->has_bad_disk)
        return orr_refuse(ctx, ORR_EIO, "%s cannot write the image", machine->name);
    image_is_of_a_stopped_rank(world, proc);
    snprintf(dir, sizeof(dir), "%s:%.*s", machine->name, ORR_STR_ARGS(msg->dir));
    world_image_keep(world, dir, proc);
    if (!msg->leave_running)
        machine_signal(machine, proc, 9);
    look_again(ctx, machine);
    orr_reply(ctx, process_imaged, .bytes = 4096, .took_ms = 1, .paused_ms = 1);
    return ORR_OK;
}

static enum orr_err process_edge_on_rank_note(struct orr_ctx *ctx,
                                              struct process_edge *self,
                                              const struct orr_msg_rank_note *msg)
{
    struct machine *machine = machine_now(self);
    struct proc *proc = machine_find(machine, msg->job, msg->generation, msg->rank);
    if (!proc || !proc_is_live(proc, machine->world->now_ms))
        return orr_refuse(ctx, ORR_ENOENT, "rank %u has ended", msg->rank);
    if (machine->has_bad_disk)
        return orr_refuse(ctx, ORR_EIO, "%s cannot note a stop", machine->name);
    proc->noted_cut = msg->cut;
    proc->noted_step = msg->step;
    proc->noted_visible = msg->visible;
    return ORR_OK;
}

/* An image that is dropped stays in the world: a name is not used twice. */
static enum orr_err process_edge_on_image_drop(struct orr_ctx *ctx,
                                               struct process_edge *self,
                                               const struct orr_msg_image_drop *msg)
{
    (void)ctx;
    (void)self;
    (void)msg;
    return ORR_OK;
}

static enum orr_err
process_edge_on_process_forget(struct orr_ctx *ctx,
                               struct process_edge *self,
                               const struct orr_msg_process_forget *msg)
{
    (void)ctx;
    struct machine *machine = machine_now(self);
    struct proc *proc = machine_find(machine, msg->job, msg->generation, msg->rank);
    if (!proc)
        return ORR_OK;
    live_rank_is_not_forgotten(machine->world, proc);
    proc->is_used = false;
    return ORR_OK;
}

static enum orr_err process_edge_on_port_reserve(struct orr_ctx *ctx,
                                                 struct process_edge *self,
                                                 const struct orr_msg_port_reserve *msg)
{
    (void)msg;
    orr_reply(
        ctx, port_reserved, .addr = orr_str(self->args.machine->name), .port = 29500);
    return ORR_OK;
}

static enum orr_err process_edge_on_log_read(struct orr_ctx *ctx,
                                             struct process_edge *self,
                                             const struct orr_msg_log_read *msg)
{
    (void)self;
    orr_reply(ctx,
              log_chunk,
              .generation = msg->generation,
              .data = {(const uint8_t *)"hello\n", 6},
              .is_final = true);
    return ORR_OK;
}

static const struct orr_handler process_handlers[] = {
    ORR_ON(process_edge, process_launch, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(process_edge, process_signal, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(process_edge, process_forget, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(process_edge, process_freeze, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(process_edge, process_widen, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(process_edge, process_image, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(process_edge, rank_note, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(process_edge, image_drop, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(process_edge, port_reserve, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(process_edge, process_lease, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_COALESCE),
    ORR_ON(process_edge, node_note, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(process_edge, edge_greet, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_COALESCE),
    ORR_ON(process_edge, log_read, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(process_edge, timer, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};

const struct orr_actor_type sim_process_type = {
    .name = "sim_process",
    .state_size = sizeof(struct process_edge),
    .args_size = sizeof(struct edge_args),
    .init = process_edge_init,
    .handlers = process_handlers,
    .n_handlers = ORR_ARRAY_SIZE(process_handlers),
};

/* ---- device edge ---- */

struct device_edge {
    struct edge_args args;
};

ORR_HANDLER(device_edge, edge_greet)
ORR_HANDLER(device_edge, device_suspend)
ORR_HANDLER(device_edge, device_resume)
ORR_HANDLER(device_edge, device_usage)

static enum orr_err
device_edge_on_device_suspend(struct orr_ctx *ctx,
                              struct device_edge *self,
                              const struct orr_msg_device_suspend *msg)
{
    (void)ctx;
    (void)self;
    (void)msg;
    return ORR_OK;
}

static enum orr_err
device_edge_on_device_resume(struct orr_ctx *ctx,
                             struct device_edge *self,
                             const struct orr_msg_device_resume *msg)
{
    (void)ctx;
    (void)self;
    (void)msg;
    return ORR_OK;
}

static enum orr_err device_edge_on_device_usage(struct orr_ctx *ctx,
                                                struct device_edge *self,
                                                const struct orr_msg_device_usage *msg)
{
    const struct machine *machine = self->args.machine;
    uint64_t now = world_now(machine->world);
    uint32_t n = 0;
    for (uint32_t i = 0; i < machine->n_procs; i++)
        n += proc_is_live(&machine->procs[i], now) &&
             machine->procs[i].device == msg->index && !machine->procs[i].is_stopped;
    orr_reply(ctx,
              device_used,
              .index = msg->index,
              .bytes = (uint64_t)n * 4096,
              .processes = n);
    return ORR_OK;
}

static enum orr_err device_edge_on_edge_greet(struct orr_ctx *ctx,
                                              struct device_edge *self,
                                              const struct orr_msg_edge_greet *msg)
{
    (void)msg;
    const struct machine *machine = self->args.machine;
    struct orr_addr node = {.host = ctx->self.host,
                            .slot = orr_hash(orr_str(machine->node_path))};
    struct orr_rec_device_row rows[DEVICES_MAX];
    char uuids[DEVICES_MAX][ORR_NAME_MAX + 16];
    ORR_ASSERT(machine->gpus <= DEVICES_MAX);
    for (uint32_t i = 0; i < machine->gpus; i++) {
        snprintf(uuids[i], sizeof(uuids[i]), "GPU-%s-%u", machine->name, i);
        rows[i] = (struct orr_rec_device_row){.index = i,
                                              .uuid = orr_str(uuids[i]),
                                              .type = ORR_LIT("sim"),
                                              .memory_bytes = UINT64_C(1) << 30,
                                              .is_healthy = true};
    }
    orr_send(ctx, node, devices_found, .devices = {rows, machine->gpus});
    return ORR_OK;
}

static enum orr_err device_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct device_edge *self = state;
    self->args = *(const struct edge_args *)args;
    return device_edge_on_edge_greet(ctx, self, NULL);
}

static const struct orr_handler device_handlers[] = {
    ORR_ON(device_edge, edge_greet, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_COALESCE),
    ORR_ON(device_edge, device_suspend, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(device_edge, device_resume, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(device_edge, device_usage, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};

const struct orr_actor_type sim_device_type = {
    .name = "sim_device",
    .state_size = sizeof(struct device_edge),
    .args_size = sizeof(struct edge_args),
    .init = device_init,
    .handlers = device_handlers,
    .n_handlers = ORR_ARRAY_SIZE(device_handlers),
};

/* ---- events edge: a follower of the stream that this host publishes ---- */

struct events_edge {
    struct edge_args args;
    struct event_stream stream;
};

ORR_HANDLER(events_edge, event)

static enum orr_err events_edge_init(struct orr_ctx *ctx, void *state, const void *args)
{
    (void)ctx;
    ((struct events_edge *)state)->args = *(const struct edge_args *)args;
    return ORR_OK;
}

static enum orr_err events_edge_on_event(struct orr_ctx *ctx,
                                         struct events_edge *self,
                                         const struct orr_msg_event *msg)
{
    (void)ctx;
    world_now(self->args.world);
    event_seq_is_contiguous(self->args.world, &self->stream, msg);
    return ORR_OK;
}

static const struct orr_handler events_handlers[] = {
    ORR_ON(events_edge, event, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};

const struct orr_actor_type sim_events_type = {
    .name = "sim_events",
    .state_size = sizeof(struct events_edge),
    .args_size = sizeof(struct edge_args),
    .init = events_edge_init,
    .handlers = events_handlers,
    .n_handlers = ORR_ARRAY_SIZE(events_handlers),
};
