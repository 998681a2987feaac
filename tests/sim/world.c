/* SPDX-License-Identifier: Apache-2.0
 * world.c - machines, and the three edges as actors over them (world.h).
 */
#include "world.h"

#include <stdarg.h>

enum { LOOK_MS = 10, UNIX_BASE = 1000000 };

uint64_t world_random(struct world *world)
{
    uint64_t x = world->random += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

void world_broken(struct world *world, const char *fmt, ...)
{
    if (world->broken)
        return;
    va_list args;
    va_start(args, fmt);
    vsnprintf(world->broken_text, sizeof(world->broken_text), fmt, args);
    va_end(args);
    world->broken = world->broken_text;
}

/* ---- machines ---- */

static void end_peers(struct world *world, const struct proc *dead)
{
    for (uint32_t m = 0; m < world->n_machines; m++)
        for (uint32_t i = 0; i < WORLD_PROCS; i++) {
            struct proc *proc = &world->machines[m].procs[i];
            if (proc == dead || !proc_is_live(proc, world->now_ms) ||
                proc->generation != dead->generation ||
                strcmp(proc->job, dead->job) != 0)
                continue;
            uint64_t ends = world->now_ms + 100 + world_random(world) % 100;
            if (ends >= proc->ends_ms)
                continue;
            proc->ends_ms = ends;
            proc->exit_code = 1;
            proc->signal = 0;
        }
}

void world_machine_dies(struct machine *machine)
{
    struct world *world = machine->world;
    for (uint32_t i = 0; i < WORLD_PROCS; i++) {
        struct proc *proc = &machine->procs[i];
        if (proc_is_live(proc, world->now_ms)) {
            proc->ends_ms = world->now_ms;
            end_peers(world, proc);
        }
        proc->is_used = false;
    }
}

static void check_pair(struct world *world,
                       const struct proc *a,
                       const struct proc *b,
                       bool is_same_machine)
{
    if (strcmp(a->job, b->job) == 0) {
        if (a->generation != b->generation && !a->is_frozen && !b->is_frozen)
            world_broken(world,
                         "%s lives as generations %u and %u",
                         a->job,
                         (unsigned)a->generation,
                         (unsigned)b->generation);
        if (a->generation == b->generation && a->rank == b->rank)
            world_broken(world, "%s has rank %u twice", a->job, a->rank);
    } else if (is_same_machine && a->device != ORR_NO_DEVICE &&
               a->device == b->device) {
        world_broken(
            world, "device %u is used by %s and %s", a->device, a->job, b->job);
    }
}

static void freeze(struct proc *proc, uint64_t now_ms)
{
    if (proc->is_frozen || !proc_is_live(proc, now_ms))
        return;
    proc->is_frozen = true;
    proc->left_ms = proc->ends_ms - now_ms;
    proc->ends_ms = UINT64_MAX;
}

static void keep_lease(struct machine *machine, uint64_t now_ms)
{
    if (!machine->freeze_at_ms || now_ms < machine->freeze_at_ms)
        return;
    for (uint32_t i = 0; i < WORLD_PROCS; i++)
        freeze(&machine->procs[i], now_ms);
}

void world_check(struct world *world)
{
    for (uint32_t m = 0; m < world->n_machines; m++)
        keep_lease(&world->machines[m], world->now_ms);
    const struct proc *live[WORLD_MACHINES * WORLD_PROCS];
    uint32_t machine[WORLD_MACHINES * WORLD_PROCS];
    uint32_t n = 0;
    for (uint32_t m = 0; m < world->n_machines; m++)
        for (uint32_t i = 0; i < WORLD_PROCS; i++) {
            if (!proc_is_live(&world->machines[m].procs[i], world->now_ms))
                continue;
            live[n] = &world->machines[m].procs[i];
            machine[n++] = m;
        }
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = i + 1; j < n; j++)
            check_pair(world, live[i], live[j], machine[i] == machine[j]);
}

/* ---- process edge ---- */

struct process_edge {
    struct edge_args args;
    struct orr_addr node;
};

ORR_HANDLER(process_edge, process_launch)
ORR_HANDLER(process_edge, process_signal)
ORR_HANDLER(process_edge, process_forget)
ORR_HANDLER(process_edge, port_reserve)
ORR_HANDLER(process_edge, log_read)
ORR_HANDLER(process_edge, process_lease)
ORR_HANDLER(process_edge, node_note)
ORR_HANDLER(process_edge, edge_greet)
ORR_HANDLER(process_edge, timer)

/* A killed process is torn down before its parent hears of it. */
static uint64_t reaped_at(const struct world *world, const struct proc *proc)
{
    return proc->ends_ms + (proc->signal ? world->reap_ms : 0);
}

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
    };
    if (world->now_ms < reaped_at(world, proc))
        return row;
    row.state = ORR_RANK_EXITED;
    row.exit_code = proc->exit_code;
    row.signal = proc->signal;
    row.changed_unix_ms = UNIX_BASE + reaped_at(world, proc);
    row.stderr_tail = ORR_LIT("the end\n");
    return row;
}

static struct machine *machine_now(const struct orr_ctx *ctx,
                                   const struct process_edge *self)
{
    self->args.machine->world->now_ms = orr_now_ms(ctx);
    return self->args.machine;
}

static void introduce(struct orr_ctx *ctx, struct process_edge *self)
{
    struct machine *machine = machine_now(ctx, self);
    struct orr_rec_rank_row rows[WORLD_PROCS];
    uint32_t n = 0;
    for (uint32_t i = 0; i < WORLD_PROCS; i++) {
        struct proc *proc = &machine->procs[i];
        if (!proc->is_used)
            continue;
        rows[n++] = row_of(machine->world, proc);
        proc->is_ended = machine->world->now_ms >= reaped_at(machine->world, proc);
    }
    orr_send(ctx,
             self->node,
             processes_found,
             .ranks = {rows, n},
             .has_lease = machine->heard_ms != 0,
             .silent_ms = machine->world->now_ms - machine->heard_ms,
             .note = {machine->note, machine->note_len});
}

static enum orr_err
process_edge_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct process_edge *self = state;
    self->args = *(const struct edge_args *)args;
    struct machine *machine = machine_now(ctx, self);
    self->node = (struct orr_addr){.host = ctx->self.host,
                                   .slot = orr_hash(orr_str(machine->node_path))};
    introduce(ctx, self);
    orr_timer_set(ctx, 1, LOOK_MS, 0);
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

static enum orr_err
process_edge_on_process_lease(struct orr_ctx *ctx,
                              struct process_edge *self,
                              const struct orr_msg_process_lease *msg)
{
    struct machine *machine = machine_now(ctx, self);
    machine->freeze_at_ms = msg->until_ms;
    machine->heard_ms = msg->heard_ms ? msg->heard_ms : 1;
    return ORR_OK;
}

static enum orr_err process_edge_on_node_note(struct orr_ctx *ctx,
                                              struct process_edge *self,
                                              const struct orr_msg_node_note *msg)
{
    struct machine *machine = machine_now(ctx, self);
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
    struct machine *machine = machine_now(ctx, self);
    struct world *world = machine->world;
    for (uint32_t i = 0; i < WORLD_PROCS; i++) {
        struct proc *proc = &machine->procs[i];
        if (!proc->is_used || proc->is_ended || proc_is_live(proc, world->now_ms))
            continue;
        if (proc->exit_code || proc->signal)
            end_peers(world, proc);
        if (world->now_ms < reaped_at(world, proc))
            continue;
        proc->is_ended = true;
        orr_send(ctx, self->node, process_event, .rank = row_of(world, proc));
    }
    orr_timer_set(ctx, 1, LOOK_MS, 0);
    return ORR_OK;
}

static struct proc *find_proc(struct machine *machine,
                              struct orr_str job,
                              uint64_t generation,
                              uint32_t rank)
{
    for (uint32_t i = 0; i < WORLD_PROCS; i++) {
        struct proc *proc = &machine->procs[i];
        if (proc->is_used && proc->generation == generation && proc->rank == rank &&
            orr_str_eq(orr_str(proc->job), job))
            return proc;
    }
    return NULL;
}

static enum orr_err
process_edge_on_process_launch(struct orr_ctx *ctx,
                               struct process_edge *self,
                               const struct orr_msg_process_launch *msg)
{
    struct machine *machine = machine_now(ctx, self);
    if (find_proc(machine, msg->job, msg->generation, msg->rank))
        return ORR_OK;
    struct proc *proc = machine->procs;
    while (proc < machine->procs + WORLD_PROCS && proc->is_used)
        proc++;
    if (proc == machine->procs + WORLD_PROCS || msg->command.n != 5)
        return orr_refuse(ctx, ORR_EIO, "cannot launch on %s", machine->name);
    const struct orr_rec_text *argv = msg->command.at;
    uint64_t run_ms = strtoull(argv[1].value.ptr, NULL, 10);
    bool is_bad = strtoll(argv[2].value.ptr, NULL, 10) == (long long)msg->rank;
    *proc = (struct proc){
        .is_used = true,
        .generation = msg->generation,
        .rank = msg->rank,
        .device = msg->device,
        .started_ms = machine->world->now_ms,
        .ends_ms = machine->world->now_ms + (is_bad ? run_ms / 2 : run_ms) + 1,
        .exit_code = is_bad ? strtoll(argv[3].value.ptr, NULL, 10) : 0,
        .signal = is_bad ? (uint32_t)strtoul(argv[4].value.ptr, NULL, 10) : 0,
        .ignores_term = world_random(machine->world) % 8 == 0,
    };
    orr_str_copy(proc->job, sizeof(proc->job), msg->job);
    machine->world->n_launched++;
    orr_log(ctx,
            ORR_LOG_DEBUG,
            "launch %s/%u rank %u on device %d",
            proc->job,
            (unsigned)proc->generation,
            proc->rank,
            (int)proc->device);
    orr_send(ctx, self->node, process_event, .rank = row_of(machine->world, proc));
    return ORR_OK;
}

static enum orr_err
process_edge_on_process_signal(struct orr_ctx *ctx,
                               struct process_edge *self,
                               const struct orr_msg_process_signal *msg)
{
    struct machine *machine = machine_now(ctx, self);
    struct proc *proc = find_proc(machine, msg->job, msg->generation, msg->rank);
    if (proc && msg->signal == 19) {
        freeze(proc, machine->world->now_ms);
    } else if (proc && msg->signal == 18 && proc->is_frozen) {
        proc->is_frozen = false;
        proc->ends_ms = machine->world->now_ms + proc->left_ms;
    }
    if (msg->signal >= 18 || (proc && proc->is_frozen && msg->signal != 9))
        return ORR_OK;
    if (!proc || !proc_is_live(proc, machine->world->now_ms) ||
        (msg->signal == 15 && proc->ignores_term))
        return ORR_OK;
    proc->ends_ms = machine->world->now_ms + 1;
    proc->signal = msg->signal;
    proc->exit_code = 0;
    return ORR_OK;
}

static enum orr_err
process_edge_on_process_forget(struct orr_ctx *ctx,
                               struct process_edge *self,
                               const struct orr_msg_process_forget *msg)
{
    struct machine *machine = machine_now(ctx, self);
    struct proc *proc = find_proc(machine, msg->job, msg->generation, msg->rank);
    if (proc && proc_is_live(proc, machine->world->now_ms))
        world_broken(machine->world, "a live rank of %s was forgotten", proc->job);
    if (proc)
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

static enum orr_err device_edge_on_edge_greet(struct orr_ctx *ctx,
                                              struct device_edge *self,
                                              const struct orr_msg_edge_greet *msg)
{
    (void)msg;
    const struct machine *machine = self->args.machine;
    struct orr_addr node = {.host = ctx->self.host,
                            .slot = orr_hash(orr_str(machine->node_path))};
    struct orr_rec_device_row rows[8];
    char uuids[8][ORR_NAME_MAX + 16];
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
};

const struct orr_actor_type sim_device_type = {
    .name = "sim_device",
    .state_size = sizeof(struct device_edge),
    .args_size = sizeof(struct edge_args),
    .init = device_init,
    .handlers = device_handlers,
    .n_handlers = ORR_ARRAY_SIZE(device_handlers),
};

/* ---- events edge ---- */

struct events_edge {
    struct edge_args args;
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
    struct world *world = self->args.world;
    if (msg->epoch != world->epoch) {
        world->epoch = msg->epoch;
        world->last_seq = 0;
    }
    if (msg->seq != world->last_seq + 1)
        world_broken(world,
                     "event seq %u follows %u",
                     (unsigned)msg->seq,
                     (unsigned)world->last_seq);
    world->last_seq = msg->seq;
    world->n_events++;
    if (orr_str_eq(msg->type, ORR_LIT("job.state")) &&
        (orr_str_eq(msg->to, ORR_LIT("done")) ||
         orr_str_eq(msg->to, ORR_LIT("failed")) ||
         orr_str_eq(msg->to, ORR_LIT("cancelled"))))
        world->n_terminal++;
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
