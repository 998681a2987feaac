/* SPDX-License-Identifier: Apache-2.0
 * job_cost.c - see job_cost.h; docs/elastic.md has the model.
 *
 *     pause(D) = barrier + bytes / (rate out x devices now) + remake + bytes / (rate in x D)
 *
 * Each part is the median of the last JOB_COST_STOPS stops that let go of the devices: suspends and resizes.  Rates are those of one
 * device, as each has a link of its own.  What the ranks of a suspended job wait for an order is in no step, and not counted.
 */
#include "job_cost.h"

#include "job_resize.h"

#include <stdlib.h>

/* Of the newest stop; 0: it had no such step. */
static uint64_t took(const struct job_plan *plan, enum orr_cut_step step)
{
    uint64_t us = 0;
    for (uint32_t i = 0; i < plan->n_steps; i++)
        us += plan->steps[i].step == step ? plan->steps[i].took_us : 0;
    return us;
}

static bool has(const struct job_plan *plan, enum orr_cut_step step)
{
    for (uint32_t i = 0; i < plan->n_steps; i++)
        if (plan->steps[i].step == step)
            return true;
    return false;
}

void job_cost_note(struct job *self)
{
    struct job_plan *plan = &self->plan;
    struct job_cost_stop stop = {.record = UINT64_MAX};
    uint64_t quiesce = took(plan, ORR_CUT_QUIESCE), resume = took(plan, ORR_CUT_RESUME);
    if (!has(plan, ORR_CUT_BEGIN) || !has(plan, ORR_CUT_RELEASE) ||
        !has(plan, ORR_CUT_RESUME) || has(plan, ORR_CUT_SAVE) || !plan->cost.devices)
        return;
    for (uint32_t i = 0; i < self->n_nodes; i++) { /* they work side by side */
        const struct job_node *node = job_node_at(self, i);
        stop.bytes += node->device_bytes;
        stop.out = node->copy_us[0] > stop.out ? node->copy_us[0] : stop.out;
        stop.in = node->copy_us[1] > stop.in ? node->copy_us[1] : stop.in;
    }
    stop.out = stop.out < quiesce ? stop.out : quiesce;
    stop.in = stop.in < resume ? stop.in : resume;
    stop.barrier = took(plan, ORR_CUT_BEGIN) + took(plan, ORR_CUT_TARGETS);
    stop.rest = quiesce - stop.out + took(plan, ORR_CUT_RELEASE) + resume - stop.in;
    stop.devices_out = plan->cost.devices;
    stop.devices_in = job_device_count(self);
    uint64_t steps = stop.barrier + stop.rest + stop.out + stop.in;
    if (plan->remap == JOB_REMAP_TAKEN && plan->paused_ms * 1000 > steps)
        stop.record = plan->paused_ms * 1000 - steps;
    plan->cost.stops[plan->cost.n++ % JOB_COST_STOPS] = stop;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* 0: of none. */
static uint64_t median(uint64_t *values, uint32_t n)
{
    qsort(values, n, sizeof(*values), by_size);
    return n ? values[n / 2] : 0;
}

static uint64_t rate(uint64_t bytes, uint64_t us, uint32_t devices)
{
    return us && devices ? bytes * 1000000 / us / devices : 0;
}

static uint64_t copy_us(uint64_t bytes, uint64_t rate_of_one, uint32_t devices)
{
    return rate_of_one && devices ? bytes * 1000000 / rate_of_one / devices : 0;
}

static void fill(const struct job_cost *cost, struct orr_rec_resize_cost *ret)
{
    uint64_t barrier[JOB_COST_STOPS], rest[JOB_COST_STOPS], record[JOB_COST_STOPS];
    uint64_t out[JOB_COST_STOPS], in[JOB_COST_STOPS];
    uint32_t n = cost->n < JOB_COST_STOPS ? cost->n : JOB_COST_STOPS, n_records = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct job_cost_stop *stop = &cost->stops[i];
        barrier[i] = stop->barrier;
        rest[i] = stop->rest;
        out[i] = rate(stop->bytes, stop->out, stop->devices_out);
        in[i] = rate(stop->bytes, stop->in, stop->devices_in);
        if (stop->record != UINT64_MAX)
            record[n_records++] = stop->record;
    }
    ret->stops = n;
    ret->barrier_us = median(barrier, n);
    ret->remake_us = median(rest, n) + median(record, n_records);
    ret->out_bytes_per_s = median(out, n);
    ret->in_bytes_per_s = median(in, n);
    ret->bytes = cost->stops[(cost->n - 1) % JOB_COST_STOPS].bytes;
}

static uint64_t pause_us(const struct orr_rec_resize_cost *cost, uint32_t devices)
{
    return cost->barrier_us + cost->remake_us +
           copy_us(cost->bytes, cost->out_bytes_per_s, cost->devices) +
           copy_us(cost->bytes, cost->in_bytes_per_s, devices);
}

struct orr_rec_resize_cost job_cost_tell(struct job *self)
{
    struct orr_rec_resize_cost cost = {0};
    const struct orr_job_args *args = &self->args;
    uint32_t shards = args->shards ? args->shards : self->plan.shards.n;
    uint32_t least = args->gpus_min > shards ? args->gpus_min : shards;
    if (!self->plan.cost.n)
        return cost;
    fill(&self->plan.cost, &cost);
    cost.devices = job_device_count(self);
    uint32_t fewer = cost.devices / 2 > least ? cost.devices / 2 : least;
    uint32_t more =
        2 * cost.devices < args->gpus_max ? 2 * cost.devices : args->gpus_max;
    if (fewer < cost.devices) {
        cost.fewer = fewer;
        cost.fewer_us = pause_us(&cost, fewer);
    }
    if (more > cost.devices) {
        cost.more = more;
        cost.more_us = pause_us(&cost, more);
    }
    return cost;
}
