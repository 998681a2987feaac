/* SPDX-License-Identifier: Apache-2.0
 * job_stopwatch.c - what each step of the newest stop took, for the region and whoever asks it.
 *
 * From the moment that its first cut_step leaves to the moment that the last node has done it.  A suspended job that waits
 * is in no step.  Steps beyond the table's room (a suspended job that is saved again and again) are not kept.
 */
#include "job_state.h"

void job_stopwatch_end(struct orr_ctx *ctx, struct job_plan *plan)
{
    if (plan->step_us)
        plan->steps[plan->n_steps - 1].took_us += orr_now_us(ctx) - plan->step_us;
    plan->step_us = 0;
}

/* A step that is begun again goes on: another attempt. */
void job_stopwatch_begin(struct orr_ctx *ctx, struct job_plan *plan)
{
    struct job_stop_step *last = plan->n_steps ? &plan->steps[plan->n_steps - 1] : NULL;
    bool is_again = last && last->step == plan->step && plan->step_us;
    job_stopwatch_end(ctx, plan);
    if (!is_again && plan->n_steps == JOB_STOP_STEPS_MAX)
        return;
    if (!is_again)
        plan->steps[plan->n_steps++] = (struct job_stop_step){.step = plan->step};
    plan->steps[plan->n_steps - 1].rounds++;
    plan->step_us = orr_now_us(ctx);
}

void job_stopwatch_round(struct job_plan *plan, uint64_t round)
{
    if (plan->step == ORR_CUT_TARGETS && plan->step_us)
        plan->steps[plan->n_steps - 1].rounds = (uint32_t)round;
}

struct orr_list_stop_step job_stopwatch_list(const struct job_plan *plan,
                                             struct orr_rec_stop_step *list)
{
    for (uint32_t i = 0; i < plan->n_steps; i++)
        list[i] = (struct orr_rec_stop_step){.cut_step = plan->steps[i].step,
                                             .rounds = plan->steps[i].rounds,
                                             .took_us = plan->steps[i].took_us};
    return (struct orr_list_stop_step){list, plan->n_steps};
}
