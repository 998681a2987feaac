/* SPDX-License-Identifier: Apache-2.0
 * region_show.c - answers to those who look, and the events.
 */
#include "region_calls.h"

#include <inttypes.h>

enum { LIST_DEFAULT = 100, LIST_MAX = 500, WHY_BYTES = 256, SHOW_CHECKPOINTS = 16 };

/* Fills in what all events have in common; into the entry, and out once that is committed. */
void region_event(struct orr_ctx *ctx,
                  struct region *self,
                  const struct orr_msg_event *event)
{
    char id[48];
    char source[ORR_NAME_MAX + 2];
    self->seq++;
    snprintf(id, sizeof(id), "%" PRIu64 "-%" PRIu64, self->epoch, self->seq);
    snprintf(source, sizeof(source), "/%s", self->args.region);
    struct orr_msg_event full = *event;
    full.epoch = self->epoch;
    full.seq = self->seq;
    full.id = orr_str(id);
    full.source = orr_str(source);
    full.time_unix_ms = ctx->wall_ms;
    region_save_event(ctx, self, &full);
    ctx->ops->send(ctx, self->events, orr_msg_desc_event(), &full);
}

struct orr_bytes region_spec(struct region *self, const struct region_job *job)
{
    return orr_blob_get(
        &self->blobs, job->spec, self->spec_body.at, self->spec_body.size);
}

struct orr_list_rank_place region_places(struct region *self,
                                         const struct region_job *job)
{
    struct orr_bytes body =
        orr_blob_get(&self->blobs, job->places, self->body.at, self->body.size);
    if (body.len == 0 || orr_msg_decode(orr_msg_desc_job_update(),
                                        body.ptr,
                                        body.len,
                                        self->places.at,
                                        self->places.size) != ORR_OK)
        return (struct orr_list_rank_place){0};
    return ((const struct orr_msg_job_update *)self->places.at)->ranks;
}

struct stop_scratch { /* a job_update with REGION_STOP_STEPS_MAX steps, decoded */
    struct orr_msg_job_update msg;
    struct orr_rec_stop_step steps[REGION_STOP_STEPS_MAX + 1];
    char text[640];
};

static const struct orr_msg_job_update *newest_stop(struct region *self,
                                                    const struct region_job *job,
                                                    struct stop_scratch *scratch)
{
    static const struct orr_msg_job_update none;
    struct orr_bytes body =
        orr_blob_get(&self->blobs, job->stop, self->body.at, self->body.size);
    bool is_known = body.len > 0 && orr_msg_decode(orr_msg_desc_job_update(),
                                                   body.ptr,
                                                   body.len,
                                                   scratch,
                                                   sizeof(*scratch)) == ORR_OK;
    return is_known ? &scratch->msg : &none;
}

void region_job_row(const struct orr_ctx *ctx,
                    struct region *self,
                    const struct region_job *job,
                    char *why,
                    size_t why_cap,
                    struct orr_rec_job_row *ret_row)
{
    const struct region_cluster *cluster = orr_pool_at(&self->clusters, job->cluster);
    region_why(ctx, self, job, why, why_cap);
    *ret_row = (struct orr_rec_job_row){
        .job = orr_str(job->id),
        .name = orr_str(job->name),
        .project = orr_str(job->project),
        .tier = job->tier,
        .phase = job->phase,
        .generation = job->generation,
        .world = job->world,
        .gpus = region_is_with_cluster(job) && job->gpus_max && !job->is_parked
                    ? job->units
                    : 0,
        .cluster = orr_str(cluster ? cluster->name : ""),
        .submitted_unix_ms = job->submitted_unix_ms,
        .changed_unix_ms = job->changed_unix_ms,
        .exit_code = job->exit_code,
        .reason = orr_str(why),
    };
}

/* The newest ones, oldest first. */
static struct orr_list_checkpoint_row newest(const struct region *self,
                                             const struct region_job *job,
                                             struct orr_rec_checkpoint_row *rows)
{
    uint32_t n = 0;
    const struct region_checkpoint *at;
    for (uint32_t i = job->first_checkpoint;
         (at = region_checkpoint_at(self, i)) != NULL;
         i = at->next)
        n++;
    uint32_t skip = n > SHOW_CHECKPOINTS ? n - SHOW_CHECKPOINTS : 0;
    n = 0;
    for (uint32_t i = job->first_checkpoint;
         (at = region_checkpoint_at(self, i)) != NULL;
         i = at->next)
        if (skip > 0)
            skip--;
        else
            region_checkpoint_row(job, at, &rows[n++]);
    return (struct orr_list_checkpoint_row){rows, n};
}

void region_reply_detail(struct orr_ctx *ctx,
                         struct region *self,
                         const struct region_job *job,
                         const struct orr_request *request)
{
    char why[WHY_BYTES];
    struct orr_rec_job_row row;
    struct orr_rec_checkpoint_row checkpoints[SHOW_CHECKPOINTS];
    char endpoints[1024];
    struct stop_scratch scratch;
    region_job_row(ctx, self, job, why, sizeof(why), &row);
    region_peer_endpoints(self, job->to_region, endpoints, sizeof(endpoints));
    const struct orr_msg_job_update *stop = newest_stop(self, job, &scratch);
    struct orr_bytes tail =
        orr_blob_get(&self->blobs, job->tail, self->tail, sizeof(self->tail));
    orr_reply_to(ctx,
                 request,
                 job_detail,
                 .row = row,
                 .owner = orr_str(job->owner),
                 .spec = region_spec(self, job),
                 .ranks = region_places(self, job),
                 .restarts = job->restarts,
                 .user_restarts = job->user_restarts,
                 .culprit = job->culprit,
                 .culprit_node = orr_str(job->culprit_node),
                 .signal = job->signal,
                 .stderr_tail = {(const char *)tail.ptr, tail.len},
                 .level = job->level,
                 .why_level = orr_str(job->why_level),
                 .checkpoints = newest(self, job, checkpoints),
                 .order = job->order.number,
                 .order_kind = job->order.kind,
                 .order_state = job->order.state,
                 .order_code = job->order.code,
                 .order_text = orr_str(job->order.text),
                 .order_devices = job->order.devices,
                 .to_cluster = orr_str(job->to_cluster),
                 .to_node = orr_str(job->to_node),
                 .to_region = orr_str(job->to_region),
                 .to_endpoints = orr_str(endpoints),
                 .from_region = orr_str(job->from_region),
                 .cut = stop->cut,
                 .stop = stop->stop,
                 .shards = stop->shards,
                 .why_shards = stop->why_shards,
                 .resize_cost = stop->resize_cost,
                 .asked_devices = job->asked_devices);
}

/* Where a page starts: after the job of that id, also if that job has been dropped since. */
static struct region_job *page_start(struct region *self, struct orr_str after)
{
    struct region_job *job = orr_map_find(&self->jobs_by_id, after);
    if (job)
        return region_job_at(self, job->in_all.next);
    job = region_job_at(self, self->all.head);
    const char *dash = after.len ? strrchr(after.ptr, '-') : NULL;
    uint64_t counter = dash ? strtoull(dash + 1, NULL, 36) : 0;
    while (job && job->counter <= counter)
        job = region_job_at(self, job->in_all.next);
    return job;
}

void region_reply_list(struct orr_ctx *ctx,
                       struct region *self,
                       const struct orr_msg_job_list *msg)
{
    static const uint32_t all = UINT32_MAX;
    struct orr_rec_job_row *rows = self->list.at;
    char *why = (char *)(rows + LIST_MAX);
    uint32_t limit = msg->limit == 0         ? LIST_DEFAULT
                     : msg->limit < LIST_MAX ? msg->limit
                                             : LIST_MAX;
    uint32_t phases = msg->phases ? msg->phases : all;
    uint32_t n = 0;
    struct region_job *job = page_start(self, msg->after);
    for (; job && n < limit; job = region_job_at(self, job->in_all.next)) {
        if (!(phases & ORR_IN(job->phase)))
            continue;
        region_job_row(ctx, self, job, why + n * WHY_BYTES, WHY_BYTES, &rows[n]);
        n++;
    }
    orr_reply(ctx, job_rows, .jobs = {rows, n}, .more = job != NULL);
}

void region_reply_tree(struct orr_ctx *ctx, struct region *self)
{
    struct orr_rec_cluster_row clusters[REGION_CLUSTERS_MAX];
    struct orr_rec_node_row *nodes = self->list.at;
    uint32_t n_clusters = 0;
    uint32_t n_nodes = 0;
    for (struct region_cluster *cluster = NULL;
         (cluster = orr_pool_next(&self->clusters, cluster)) != NULL;) {
        uint64_t silent_ms = orr_now_ms(ctx) - cluster->seen_ms;
        clusters[n_clusters++] = (struct orr_rec_cluster_row){
            .cluster = orr_str(cluster->name),
            .state = cluster->state,
            .gpus = cluster->gpus,
            .gpus_free = cluster->gpus_free,
            .jobs = cluster->jobs,
            .seen_ms = silent_ms,
        };
        const struct region_node *node;
        for (uint32_t at = cluster->first_node;
             (node = orr_pool_at(&self->nodes, at)) != NULL;
             at = node->next) {
            clusters[n_clusters - 1].nodes++;
            nodes[n_nodes++] = (struct orr_rec_node_row){
                .cluster = orr_str(cluster->name),
                .node = orr_str(node->name),
                .state = node->state,
                .gpus = node->gpus,
                .gpus_free = node->gpus_free,
                .gpu_type = orr_str(node->gpu_type),
                .gpu_memory_bytes = node->gpu_memory_bytes,
                .slots = node->slots,
                .slots_free = node->slots_free,
                .ranks = node->ranks,
                .seen_ms = node->seen_ms + silent_ms,
                .level = node->level,
                .why_level = orr_str(node->why_level),
                .machine = orr_str(node->machine),
                .machine_trouble = orr_str(node->machine_trouble),
            };
        }
    }
    orr_reply(ctx,
              tree,
              .region = orr_str(self->args.region),
              .clusters = {clusters, n_clusters},
              .nodes = {nodes, n_nodes});
}
