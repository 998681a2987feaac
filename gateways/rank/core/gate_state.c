/* SPDX-License-Identifier: Apache-2.0
 * gate_state.c - see gate_state.h.
 */
#include "gate_state.h"

#include <string.h>

static uint64_t issued_of(const struct orri_clock *clock)
{
    return atomic_load_explicit(&clock->issued, memory_order_relaxed);
}

static bool is_same(const struct orri_clock *clock, const struct orri_target *target)
{
    return clock->comm == target->comm && clock->kind == target->kind &&
           clock->me == target->me &&
           (clock->kind == ORR_CLOCK_COLLECTIVE || clock->peer == target->peer);
}

void orri_gate_init(struct orri_gate *gate,
                    struct orri_clock *clocks,
                    uint64_t *targets,
                    uint32_t cap,
                    struct orri_target *wants,
                    uint32_t wants_cap)
{
    *gate = (struct orri_gate){.clocks = clocks,
                               .targets = targets,
                               .cap = cap,
                               .wants = wants,
                               .wants_cap = wants_cap};
}

void orri_gate_add_clock(struct orri_gate *gate)
{
    uint32_t at = gate->n++;
    gate->targets[at] = 0;
    for (uint32_t i = 0; i < gate->n_wants; i++)
        if (is_same(&gate->clocks[at], &gate->wants[i])) {
            gate->targets[at] = gate->wants[i].issued;
            gate->wants[i] = gate->wants[--gate->n_wants];
            return;
        }
}

static void forget_targets(struct orri_gate *gate)
{
    memset(gate->targets, 0, gate->n * sizeof *gate->targets);
    gate->n_wants = 0;
    gate->is_overfull = false;
    gate->round = 0;
}

bool orri_gate_close(struct orri_gate *gate, uint64_t cut)
{
    if (cut < gate->cut || gate->mode == ORRI_GATE_SHUT)
        return false;
    if (cut == gate->cut && gate->mode != ORRI_GATE_OPEN)
        return true;
    forget_targets(gate);
    gate->cut = cut;
    gate->mode = ORRI_GATE_CLOSED;
    return true;
}

bool orri_gate_open(struct orri_gate *gate, uint64_t cut)
{
    if (cut < gate->cut || gate->mode == ORRI_GATE_SHUT)
        return false;
    forget_targets(gate);
    gate->cut = cut;
    gate->mode = ORRI_GATE_OPEN;
    return true;
}

static bool is_incomplete(const struct orri_target *want)
{
    return want->me == ORRI_MEMBER_ABSENT;
}

/* A list of targets says anew which communicators are incomplete. */
static void forget_incomplete(struct orri_gate *gate)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < gate->n_wants; i++)
        if (!is_incomplete(&gate->wants[i]))
            gate->wants[kept++] = gate->wants[i];
    gate->n_wants = kept;
}

static void want(struct orri_gate *gate, const struct orri_target *target)
{
    for (uint32_t i = 0; i < gate->n_wants; i++) {
        struct orri_target *w = &gate->wants[i];
        if (w->comm == target->comm && w->kind == target->kind && w->me == target->me &&
            w->peer == target->peer) {
            if (w->issued < target->issued)
                w->issued = target->issued;
            return;
        }
    }
    if (gate->n_wants < gate->wants_cap)
        gate->wants[gate->n_wants++] = *target;
    else
        gate->is_overfull = true;
}

/* Every member has the communicator's collective clock: its creation is the first count there. */
static bool is_member(const struct orri_gate *gate, uint64_t comm, uint32_t me)
{
    for (uint32_t i = 0; i < gate->n; i++)
        if (gate->clocks[i].comm == comm && gate->clocks[i].me == me &&
            gate->clocks[i].kind == ORR_CLOCK_COLLECTIVE)
            return true;
    return false;
}

/* What is another process' of the rank is left to it. */
static void take_target(struct orri_gate *gate, const struct orri_target *target)
{
    if (!is_incomplete(target)) {
        if (!is_member(gate, target->comm, target->me))
            return;
        for (uint32_t i = 0; i < gate->n; i++)
            if (is_same(&gate->clocks[i], target)) {
                if (gate->targets[i] < target->issued)
                    gate->targets[i] = target->issued;
                return;
            }
        if (target->issued == 0)
            return;
    }
    want(gate, target);
}

bool orri_gate_take_targets(struct orri_gate *gate,
                            uint64_t cut,
                            uint64_t round,
                            bool is_first,
                            const struct orri_target *targets,
                            uint32_t n,
                            bool is_last)
{
    bool is_closed = gate->mode == ORRI_GATE_CLOSED || gate->mode == ORRI_GATE_BOUND;
    if (cut != gate->cut || !is_closed || round < gate->round)
        return false;
    if (is_first)
        forget_incomplete(gate);
    for (uint32_t i = 0; i < n; i++)
        take_target(gate, &targets[i]);
    if (is_last) {
        gate->round = round;
        gate->mode = ORRI_GATE_BOUND;
    }
    return true;
}

static bool has_issued_on(const struct orri_gate *gate, uint64_t comm)
{
    for (uint32_t i = 0; i < gate->n; i++)
        if (gate->clocks[i].comm == comm && issued_of(&gate->clocks[i]) > 0)
            return true;
    return false;
}

bool orri_gate_reports(const struct orri_gate *gate, uint32_t at)
{
    return !gate->is_cooperative || gate->clocks[at].comm == ORRI_WORLD_COMM;
}

/* Below any target that binds this process. */
static bool is_below(const struct orri_gate *gate)
{
    if (gate->is_overfull)
        return true;
    for (uint32_t i = 0; i < gate->n; i++)
        if (orri_gate_reports(gate, i) && !gate->clocks[i].is_over &&
            issued_of(&gate->clocks[i]) < gate->targets[i])
            return true;
    for (uint32_t i = 0; i < gate->n_wants; i++) {
        const struct orri_target *w = &gate->wants[i];
        if (gate->is_cooperative && w->comm != ORRI_WORLD_COMM)
            continue;
        if (!is_incomplete(w) || !has_issued_on(gate, w->comm))
            return true;
    }
    return false;
}

bool orri_gate_may_go(const struct orri_gate *gate, bool is_point)
{
    switch (gate->mode) {
    case ORRI_GATE_OPEN:
        return true;
    case ORRI_GATE_SHUT:
        return false;
    case ORRI_GATE_CLOSED:
        return gate->is_cooperative && !is_point;
    case ORRI_GATE_BOUND:
        return (gate->is_cooperative && !is_point) || is_below(gate);
    }
    return true;
}

bool orri_gate_count(struct orri_gate *gate, const uint32_t *at, uint32_t n)
{
    bool is_raised = false;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t issued = atomic_fetch_add_explicit(
                              &gate->clocks[at[i]].issued, 1, memory_order_relaxed) +
                          1;
        if (gate->mode != ORRI_GATE_BOUND || issued <= gate->targets[at[i]])
            continue;
        gate->targets[at[i]] = issued;
        is_raised |= orri_gate_reports(gate, at[i]);
    }
    return is_raised;
}

bool orri_gate_is_at_cut(const struct orri_gate *gate,
                         uint32_t n_inside,
                         uint32_t n_points)
{
    if (gate->mode == ORRI_GATE_SHUT)
        return true;
    if (gate->mode != ORRI_GATE_BOUND || is_below(gate))
        return false;
    return gate->is_cooperative ? n_points > 0 : n_inside == 0;
}

bool orri_gate_shut(struct orri_gate *gate, uint32_t n_inside, uint32_t n_points)
{
    if (gate->mode == ORRI_GATE_SHUT || !orri_gate_is_at_cut(gate, n_inside, n_points))
        return false;
    gate->mode = ORRI_GATE_SHUT;
    return true;
}

void orri_gate_unshut(struct orri_gate *gate)
{
    if (gate->mode == ORRI_GATE_SHUT)
        gate->mode = ORRI_GATE_BOUND;
}

void orri_gate_reopen(struct orri_gate *gate)
{
    forget_targets(gate);
    gate->mode = ORRI_GATE_OPEN;
}
