/* SPDX-License-Identifier: Apache-2.0
 * fleet_faults.c - the schedule of faults comes true: each begins and ends, and what hosts and links are then follows from
 * those that are active.
 */
#include "fleet_impl.h"

const struct orr_sim_faults fleet_calm_net = {.delay_min_ms = 1, .delay_max_ms = 3};

void fleet_crash(struct fleet *fleet, uint32_t host)
{
    if (fleet->n_down[host]++)
        return;
    orr_sim_crash(fleet->sim, host);
    if (host < fleet->first_cluster)
        ledger_edges_crash(&fleet->edges, host);
}

void fleet_restart(struct fleet *fleet, uint32_t host)
{
    if (fleet->n_down[host] == 0 || --fleet->n_down[host])
        return;
    ORR_ASSERT(orr_sim_restart(fleet->sim, host) == ORR_OK);
}

void fleet_side_set(struct fleet *fleet, uint32_t host, uint32_t side)
{
    if (fleet->sides[host] == side)
        return;
    fleet->sides[host] = side;
    orr_sim_side_set(fleet->sim, host, side);
}

static uint32_t at_least(uint32_t value, int32_t other)
{
    return other > 0 && (uint32_t)other > value ? (uint32_t)other : value;
}

static void set_links(struct fleet *fleet)
{
    struct orr_sim_faults net = fleet_calm_net;
    for (uint32_t i = 0; i < fleet->faults.n; i++) {
        const struct fault *fault = &fleet->faults.at[i];
        if (!fault->is_active)
            continue;
        if (fault->kind == FAULT_LOSS)
            net.loss_ppm = at_least(net.loss_ppm, fault->value);
        else if (fault->kind == FAULT_DELAY)
            net.delay_max_ms = at_least(net.delay_max_ms, fault->value);
        else if (fault->kind == FAULT_DUPLICATE)
            net.duplicate_ppm = at_least(net.duplicate_ppm, fault->value);
        else if (fault->kind == FAULT_REORDER)
            net.reorder_ppm = at_least(net.reorder_ppm, fault->value);
    }
    ORR_ASSERT(orr_sim_faults_set(fleet->sim, ORR_SIM_ALL, ORR_SIM_ALL, &net) ==
               ORR_OK);
}

/* Two hosts are on one side when the same partitions cut them off. */
static void set_sides(struct fleet *fleet)
{
    for (uint32_t host = 0; host < fleet->n_hosts; host++) {
        uint64_t side = 0;
        for (uint32_t i = 0; i < fleet->faults.n; i++) {
            const struct fault *fault = &fleet->faults.at[i];
            if (fault->is_active && fault_cuts_off(fault, host))
                side = side * 0x9e3779b97f4a7c15u + fault->salt;
        }
        fleet_side_set(fleet, host, (uint32_t)(side >> 32));
    }
}

static void set_clock(struct fleet *fleet, uint32_t host)
{
    int32_t drift = 0; /* of the last in the schedule */
    for (uint32_t i = 0; i < fleet->faults.n; i++) {
        const struct fault *fault = &fleet->faults.at[i];
        if (fault->is_active && fault->kind == FAULT_CLOCK && fault->host == host)
            drift = fault->value;
    }
    ORR_ASSERT(orr_sim_drift_set(fleet->sim, host, drift) == ORR_OK);
}

static void set_disk(struct fleet *fleet, uint32_t host)
{
    bool is_bad = false;
    for (uint32_t i = 0; i < fleet->faults.n; i++) {
        const struct fault *fault = &fleet->faults.at[i];
        is_bad |= fault->is_active && fault->kind == FAULT_DISK && fault->host == host;
    }
    if (host < fleet->first_cluster)
        ledger_edges_disk_set(&fleet->edges, host, !is_bad);
    else if (host >= fleet->first_node && host < fleet->user)
        fleet->machines[host - fleet->first_node].has_bad_disk = is_bad;
}

static void set_soft(struct fleet *fleet)
{
    bool is_away = false;
    for (uint32_t i = 0; i < fleet->faults.n; i++) {
        const struct fault *fault = &fleet->faults.at[i];
        is_away |= fault->is_active && fault->kind == FAULT_SOFT;
    }
    soft_store_set_away(&fleet->soft, is_away);
}

static void crash_as_told(struct fleet *fleet, const struct fault *fault)
{
    if (!fault->is_active) {
        fleet_restart(fleet, fault->host);
        return;
    }
    fleet_crash(fleet, fault->host);
    if (fault->value && fault->host >= fleet->first_node)
        machine_dies(&fleet->machines[fault->host - fleet->first_node]);
}

/* number: twice the index, + 1 for the end. */
static void toggle(void *arg, struct orr_sim *sim, uint64_t number)
{
    (void)sim;
    struct fleet *fleet = arg;
    struct fault *fault = &fleet->faults.at[number / 2];
    fault->is_active = number % 2 == 0;
    switch (fault->kind) {
    case FAULT_LOSS:
    case FAULT_DELAY:
    case FAULT_DUPLICATE:
    case FAULT_REORDER:
        set_links(fleet);
        break;
    case FAULT_PARTITION:
        set_sides(fleet);
        break;
    case FAULT_CRASH:
        crash_as_told(fleet, fault);
        break;
    case FAULT_CLOCK:
        set_clock(fleet, fault->host);
        break;
    case FAULT_DISK:
        set_disk(fleet, fault->host);
        break;
    case FAULT_SOFT:
        set_soft(fleet);
        break;
    case FAULT_KIND_MAX_:
        break;
    }
}

void fleet_schedule(struct fleet *fleet)
{
    for (uint32_t i = 0; i < fleet->faults.n; i++) {
        const struct fault *fault = &fleet->faults.at[i];
        if (fault->is_left_out)
            continue;
        ORR_ASSERT(orr_sim_at(fleet->sim, fault->from_ms, toggle, fleet, 2 * i) ==
                   ORR_OK);
        ORR_ASSERT(orr_sim_at(fleet->sim, fault->until_ms, toggle, fleet, 2 * i + 1) ==
                   ORR_OK);
    }
}
