/* SPDX-License-Identifier: Apache-2.0
 * world.c - machines and their processes (world.h).
 */
#include "world.h"

enum { SIGNAL_KILL = 9, SIGNAL_TERM = 15, SIGNAL_CONT = 18, SIGNAL_STOP = 19 };

/* ---- standing still and going on ---- */

static void stop_at(struct proc *proc, uint64_t at)
{
    uint64_t from = proc->from_ms > at ? proc->from_ms : at;
    proc->left_ms = proc->ends_ms - from;
    proc->ends_ms = UINT64_MAX;
    proc->done_ms += from - proc->from_ms;
    proc->from_ms = 0;
}

static void go_on(struct machine *machine, struct proc *proc)
{
    uint64_t now = machine->world->now_ms;
    proc->ends_ms = now + proc->left_ms;
    proc->from_ms = now;
}

uint64_t proc_count(const struct proc *proc, uint64_t now_ms)
{
    uint64_t until = now_ms < proc->ends_ms ? now_ms : proc->ends_ms;
    uint64_t since = proc->from_ms && until > proc->from_ms ? until - proc->from_ms : 0;
    return (proc->done_ms + since) / WORLD_STEP_MS;
}

void proc_stand(struct machine *machine, struct proc *proc, bool *reason, bool on)
{
    bool stood = proc_stands(proc);
    *reason = on;
    if (!stood && on)
        stop_at(proc, machine->world->now_ms);
    else if (stood && !proc_stands(proc))
        go_on(machine, proc);
}

void proc_run_to(struct machine *machine, struct proc *proc, uint64_t target)
{
    uint64_t now = machine->world->now_ms;
    proc->target = target;
    if (proc_count(proc, now) >= target)
        return;
    proc_stand(machine, proc, &proc->is_held, false);
    proc->hold_at_ms = now + target * WORLD_STEP_MS - proc->done_ms;
}

/* What a machine's keepers, and the gates of its ranks, have done by now. */
static void keep_up(struct machine *machine, uint64_t now)
{
    uint64_t end = machine->freeze_at_ms;
    for (uint32_t i = 0; i < machine->n_procs; i++) {
        struct proc *proc = &machine->procs[i];
        uint64_t gate = proc->hold_at_ms;
        bool is_gate_first = gate && (!end || gate <= end);
        if (!proc->is_used)
            continue;
        if (gate && gate <= now && is_gate_first && !proc_stands(proc) &&
            proc->ends_ms > gate) {
            stop_at(proc, gate);
            proc->is_held = true;
            proc->hold_at_ms = 0;
        }
        if (!end || now < end || proc->is_frozen || proc->ends_ms <= end)
            continue;
        if (!proc_stands(proc))
            stop_at(proc, end);
        if (gate > end) /* it has that much left to its target when it thaws */
            proc->hold_at_ms = 0;
        proc->is_frozen = true;
    }
}

uint64_t world_now(struct world *world)
{
    if (world->true_ms)
        world->now_ms = world->true_ms(world->arg);
    for (uint32_t i = 0; i < world->n_machines; i++)
        keep_up(&world->machines[i], world->now_ms);
    return world->now_ms;
}

uint64_t world_chance(const struct world *world,
                      struct orr_str job,
                      uint64_t generation,
                      uint32_t rank)
{
    uint64_t x = world->seed + orr_hash(job) + generation * 0x9e3779b97f4a7c15u + rank;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

struct proc *machine_find(struct machine *machine,
                          struct orr_str job,
                          uint64_t generation,
                          uint32_t rank)
{
    for (uint32_t i = 0; i < machine->n_procs; i++) {
        struct proc *proc = &machine->procs[i];
        if (proc->is_used && proc->generation == generation && proc->rank == rank &&
            orr_str_eq(orr_str(proc->job), job))
            return proc;
    }
    return NULL;
}

/* All that one more live process can break. */
static void check(struct machine *machine, const struct proc *proc)
{
    one_owner_per_device_share(machine, proc);
    one_live_generation_per_rank(machine->world, proc);
    placed_by_one_cluster_at_a_time(machine, proc);
}

struct proc *machine_start(struct machine *machine, const struct proc *plan)
{
    uint32_t at = 0;
    while (at < machine->n_procs && machine->procs[at].is_used)
        at++;
    if (at == WORLD_PROCS)
        return NULL;
    if (at == machine->n_procs)
        machine->n_procs++;
    struct proc *proc = &machine->procs[at];
    *proc = *plan;
    proc->is_used = true;
    machine->world->n_launched++;
    check(machine, proc);
    cut_is_consistent(machine->world, proc);
    if (!proc->is_parked) /* else its generation goes on */
        planned_move_repeats_no_step(machine->world, proc);
    else
        joins_at_the_cut(machine->world, proc);
    older_generation_launches_nothing(machine->world, proc);
    return proc;
}

void machine_signal(struct machine *machine, struct proc *proc, uint32_t signal)
{
    uint64_t now = machine->world->now_ms;
    if (!proc_is_live(proc, now))
        return;
    proc->is_told = proc->is_told || signal == SIGNAL_KILL || signal == SIGNAL_TERM;
    if (signal == SIGNAL_STOP && !proc->is_frozen) {
        proc_stand(machine, proc, &proc->is_frozen, true);
    } else if (signal == SIGNAL_CONT && proc->is_frozen) {
        proc_stand(machine, proc, &proc->is_frozen, false);
        check(machine, proc);
    }
    if (signal == SIGNAL_KILL || (signal == SIGNAL_TERM && !proc->is_frozen &&
                                  !proc->is_parked && !proc->ignores_term)) {
        proc->ends_ms = now + 1;
        proc->signal = signal;
        proc->exit_code = 0;
    }
}

void machine_end_peers(struct world *world, const struct proc *dead)
{
    for (uint32_t m = 0; m < world->n_machines; m++)
        for (uint32_t i = 0; i < world->machines[m].n_procs; i++) {
            struct proc *proc = &world->machines[m].procs[i];
            if (proc == dead || !proc_is_live(proc, world->now_ms) ||
                proc->generation != dead->generation ||
                strcmp(proc->job, dead->job) != 0)
                continue;
            uint64_t left =
                100 +
                world_chance(world, orr_str(proc->job), proc->generation, proc->rank) %
                    100;
            uint64_t now_left =
                proc_stands(proc) ? proc->left_ms : proc->ends_ms - world->now_ms;
            if (left >= now_left)
                continue;
            if (proc_stands(proc)) /* it notices when it goes on */
                proc->left_ms = left;
            else
                proc->ends_ms = world->now_ms + left;
            proc->exit_code = 1;
            proc->signal = 0;
        }
}

void machine_dies(struct machine *machine)
{
    struct world *world = machine->world;
    world_now(world);
    for (uint32_t i = 0; i < machine->n_procs; i++) {
        struct proc *proc = &machine->procs[i];
        if (proc->is_used)
            steps_are_noted(world, proc);
        if (proc_is_live(proc, world->now_ms)) {
            proc->ends_ms = world->now_ms;
            machine_end_peers(world, proc);
        }
        proc->is_used = false;
    }
}

/* ---- images ---- */

const struct saved_rank *world_image_find(const struct world *world, const char *dir)
{
    for (uint32_t i = world->n_images; i > 0; i--)
        if (strcmp(world->images[i - 1].dir, dir) == 0)
            return &world->images[i - 1];
    return NULL;
}

void world_image_keep(struct world *world, const char *dir, const struct proc *proc)
{
    const uint32_t n = world->n_images;
    if ((n & (n - 1)) == 0) {
        world->images =
            realloc(world->images, (n ? 2 * n : 1) * sizeof(*world->images));
        ORR_ASSERT(world->images);
    }
    struct saved_rank *image = &world->images[world->n_images++];
    image->proc = *proc;
    orr_str_copy(image->dir, sizeof(image->dir), orr_str(dir));
}

void world_fini(struct world *world)
{
    free(world->images);
    world->images = NULL;
    world->n_images = 0;
}
