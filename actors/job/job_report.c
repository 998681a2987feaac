/* SPDX-License-Identifier: Apache-2.0
 * job_report.c - what its cluster is told of a job that may have more devices or fewer, for its plans (docs/adr/0024-growth.md).
 *
 * Told on change, and again after a node came back: a report that is lost makes the cluster do nothing, or ask for what is
 * refused.
 */
#include "job_cost.h"
#include "job_resize.h"
#include "job_shards.h"

static struct orr_list_device_need list_needs(struct job *self)
{
    struct orr_rec_device_need *needs = self->places.at; /* larger, and as many */
    uint32_t n = 0;
    for (uint32_t i = 0; i < self->n_nodes; i++) {
        const struct job_node *node = job_node_at(self, i);
        uint32_t least = node->n_ranks ? job_shards_least(self, i) : 0;
        if (node->n_ranks)
            needs[n++] = (struct orr_rec_device_need){.node = orr_str(node->name),
                                                      .ranks = node->n_ranks,
                                                      .least = least ? least : 1};
    }
    return (struct orr_list_device_need){needs, n};
}

/* What there is to tell, but for what follows from it. */
static uint64_t digest(const struct job *self, bool is_busy)
{
    const struct job_plan *plan = &self->plan;
    const uint64_t words[] = {self->phase,
                              is_busy,
                              self->level,
                              plan->cut,
                              plan->cost.n,
                              plan->shards.n,
                              self->is_recovery};
    return orr_hash((struct orr_str){(const char *)words, sizeof(words)}) | 1;
}

void job_report(struct orr_ctx *ctx, struct job *self)
{
    const struct orr_job_args *args = &self->args;
    const struct job_plan *plan = &self->plan;
    bool is_busy = plan->goal != ORR_ORDER_NONE || plan->step != ORR_CUT_NONE ||
                   plan->is_keep_due || self->cluster_talk.asked != JOB_ASK_NONE;
    _Static_assert(sizeof(struct orr_rec_device_need) <=
                       sizeof(struct orr_rec_rank_place),
                   "its places are scratch for its needs");
    if (args->gpus_min >= args->gpus_max || !self->has_permit || self->is_ended)
        return;
    uint64_t now = digest(self, is_busy);
    if (now == self->reported)
        return;
    self->reported = now;
    orr_send(ctx,
             self->cluster,
             job_report,
             .job = orr_str(args->job),
             .generation = args->generation,
             .phase = self->phase,
             .is_busy = is_busy || self->is_stopping,
             .level = self->level,
             .devices = job_device_count(self),
             .shards = args->shards ? args->shards : plan->shards.n,
             .needs = list_needs(self),
             .cost = job_cost_tell(self));
}
