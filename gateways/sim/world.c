/* SPDX-License-Identifier: Apache-2.0
 * world.c - machines and their processes (world.h).
 */
#include "world.h"

enum { SIGNAL_KILL = 9, SIGNAL_TERM = 15, SIGNAL_CONT = 18, SIGNAL_STOP = 19 };

/* What a machine's keepers have done by now. */
static void keep_lease(struct machine *machine, uint64_t now)
{
    uint64_t end = machine->freeze_at_ms;
    if (!end || now < end)
        return;
    for (uint32_t i = 0; i < machine->n_procs; i++) {
        struct proc *proc = &machine->procs[i];
        if (!proc->is_used || proc->is_frozen || proc->ends_ms <= end)
            continue;
        proc->is_frozen = true;
        proc->left_ms =
            proc->ends_ms - (proc->started_ms > end ? proc->started_ms : end);
        proc->ends_ms = UINT64_MAX;
    }
}

uint64_t world_now(struct world *world)
{
    if (world->true_ms)
        world->now_ms = world->true_ms(world->arg);
    for (uint32_t i = 0; i < world->n_machines; i++)
        keep_lease(&world->machines[i], world->now_ms);
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
    older_generation_launches_nothing(
        machine->world, orr_str(proc->job), proc->generation);
    return proc;
}

void machine_signal(struct machine *machine, struct proc *proc, uint32_t signal)
{
    uint64_t now = machine->world->now_ms;
    if (!proc_is_live(proc, now))
        return;
    if (signal == SIGNAL_STOP && !proc->is_frozen) {
        proc->is_frozen = true;
        proc->left_ms = proc->ends_ms - now;
        proc->ends_ms = UINT64_MAX;
    } else if (signal == SIGNAL_CONT && proc->is_frozen) {
        proc->is_frozen = false;
        proc->ends_ms = now + proc->left_ms;
        check(machine, proc);
    }
    if (signal == SIGNAL_KILL ||
        (signal == SIGNAL_TERM && !proc->is_frozen && !proc->ignores_term)) {
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
                proc->is_frozen ? proc->left_ms : proc->ends_ms - world->now_ms;
            if (left >= now_left)
                continue;
            if (proc->is_frozen) /* it notices when it thaws */
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
        if (proc_is_live(proc, world->now_ms)) {
            proc->ends_ms = world->now_ms;
            machine_end_peers(world, proc);
        }
        proc->is_used = false;
    }
}
