/* SPDX-License-Identifier: Apache-2.0
 * region_clusters.c - what clusters and their job actors say.
 *
 * A cluster is one life (incarnation) of one host: what an earlier life still says changes nothing (ORR_ESTALE), what a life
 * says before it has registered must be said again (ORR_EBUSY).
 */
#include "region_calls.h"

enum {
    DRAINING_MAX = 256
}; /* told with the registration; the others with the next summary */

/* ---- clusters ---- */

static void cluster_state(struct orr_ctx *ctx,
                          struct region *self,
                          struct region_cluster *cluster,
                          uint32_t state)
{
    uint32_t from = cluster->state;
    cluster->state = state;
    region_save_cluster(ctx, self, cluster);
    char subject[ORR_NAME_MAX + 16];
    snprintf(subject, sizeof(subject), "cluster/%s", cluster->name);
    region_event(
        ctx,
        self,
        &(struct orr_msg_event){
            .type = ORR_LIT("cluster.state"),
            .subject = orr_str(subject),
            .from = orr_str(cluster->incarnation ? orr_node_state_name(from) : ""),
            .to = orr_str(orr_node_state_name(state))});
}

struct region_cluster *region_cluster_get(struct region *self, struct orr_str name)
{
    struct region_cluster *cluster = orr_map_find(&self->clusters_by_name, name);
    if (cluster)
        return cluster;
    cluster = name.len < ORR_NAME_MAX ? orr_pool_take(&self->clusters) : NULL;
    if (!cluster)
        return NULL;
    orr_str_copy(cluster->name, sizeof(cluster->name), name);
    cluster->first_node = ORR_NONE;
    cluster->state = ORR_NODE_UNKNOWN;
    orr_map_add(&self->clusters_by_name, cluster);
    return cluster;
}

void region_cluster_is_at(const struct region *self,
                          struct region_cluster *cluster,
                          uint64_t host)
{
    char path[2 * ORR_NAME_MAX + 3];
    snprintf(path, sizeof(path), "/%s/%s", self->args.region, cluster->name);
    cluster->addr = (struct orr_addr){.host = host, .slot = orr_hash(orr_str(path))};
}

static bool is_claimed(const struct orr_msg_cluster_register *msg,
                       const struct region_job *job)
{
    for (uint32_t i = 0; i < msg->jobs.n; i++)
        if (msg->jobs.at[i].generation == job->generation &&
            orr_str_eq(msg->jobs.at[i].job, orr_str(job->id)))
            return true;
    return false;
}

static void recover(struct orr_ctx *ctx, struct region *self, struct region_job *job)
{
    job->where = REGION_RECOVERING;
    job->stop_seq = 0;
    region_job_assign(ctx, self, job);
}

/* A job that this cluster should hold and does not claim: never permitted, so free to go elsewhere; or to be adopted. */
static enum orr_err
missing(struct orr_ctx *ctx, struct region *self, struct region_job *job)
{
    if (job->where == REGION_HELD && !region_has_places(job))
        return job->is_cancelled ? region_end(ctx, self, job, ORR_JOB_CANCELLED)
                                 : region_requeue(ctx, self, job, 0, ORR_LIT(""));
    if (job->where == REGION_HELD ||
        (job->where == REGION_RECOVERING && !job->assign_seq))
        recover(ctx, self, job);
    return ORR_OK;
}

enum orr_err region_cluster_register(struct orr_ctx *ctx,
                                     struct region *self,
                                     const struct orr_msg_cluster_register *msg)
{
    struct region_cluster *cluster = region_cluster_get(self, msg->cluster);
    if (!cluster)
        return orr_refuse(ctx,
                          ORR_ENOSPC,
                          "region %s has room for %u clusters; raise clusters_max",
                          self->args.region,
                          self->clusters.cap);
    bool is_same_host = cluster->addr.host == ctx->from.host;
    if (is_same_host && ctx->from.incarnation < cluster->incarnation)
        return orr_refuse(
            ctx, ORR_ESTALE, "cluster %s has restarted since", cluster->name);
    if (cluster->incarnation && !is_same_host && cluster->state == ORR_NODE_UP)
        return orr_refuse(
            ctx,
            ORR_EEXIST,
            "another host is cluster %s already; give this one its own name",
            cluster->name);
    bool is_new = !is_same_host || cluster->incarnation != ctx->from.incarnation;
    region_cluster_is_at(self, cluster, ctx->from.host);
    if (cluster->state != ORR_NODE_UP)
        cluster_state(ctx, self, cluster, ORR_NODE_UP);
    cluster->incarnation = ctx->from.incarnation;
    if (is_new)
        region_save_cluster(ctx, self, cluster);
    cluster->is_registered = true;
    region_confirm(self); /* what is not in the answer, the cluster stops */
    cluster->is_given_up = false;
    cluster->seen_ms = orr_now_ms(ctx);
    uint32_t index = orr_pool_index(&self->clusters, cluster);
    struct orr_rec_job_claim *claims = self->list.at;
    uint32_t n = 0;
    for (struct region_job *job = NULL;
         (job = orr_pool_next(&self->jobs, job)) != NULL;) {
        if (!region_is_with_cluster(job) || job->cluster != index)
            continue;
        bool is_there = is_claimed(msg, job);
        enum orr_err err = is_there ? ORR_OK : missing(ctx, self, job);
        if (err != ORR_OK)
            return err;
        if (is_there)
            region_order_send(ctx, self, job);
        if (region_is_with_cluster(job))
            claims[n++] = (struct orr_rec_job_claim){
                orr_str(job->id), job->generation, job->phase};
    }
    struct orr_rec_text draining[DRAINING_MAX];
    orr_reply(ctx,
              cluster_registered,
              .jobs = {claims, n},
              .draining = region_draining(self, cluster, draining, DRAINING_MAX));
    return ORR_OK;
}

enum orr_err region_cluster_known(struct orr_ctx *ctx,
                                  struct region *self,
                                  struct orr_str name,
                                  struct region_cluster **ret_cluster)
{
    struct region_cluster *cluster = orr_map_find(&self->clusters_by_name, name);
    bool is_known = cluster && cluster->is_registered &&
                    cluster->addr.host == ctx->from.host &&
                    cluster->incarnation == ctx->from.incarnation;
    if (!is_known)
        return orr_refuse(
            ctx, ORR_ESTALE, "cluster %.*s is not registered", ORR_STR_ARGS(name));
    *ret_cluster = cluster;
    return ORR_OK;
}

struct region_node *region_node_get(struct region *self,
                                    struct region_cluster *cluster,
                                    struct orr_str name)
{
    char key[2 * ORR_NAME_MAX];
    snprintf(key, sizeof(key), "%s/%.*s", cluster->name, ORR_STR_ARGS(name));
    struct region_node *node = orr_map_find(&self->nodes_by_key, orr_str(key));
    if (node)
        return node;
    node = name.len < ORR_NAME_MAX ? orr_pool_take(&self->nodes) : NULL;
    if (!node)
        return NULL;
    memcpy(node->key, key, sizeof(key));
    orr_str_copy(node->name, sizeof(node->name), name);
    node->cluster = orr_pool_index(&self->clusters, cluster);
    node->state = ORR_NODE_STATE_MAX_;
    node->next = cluster->first_node;
    cluster->first_node = orr_pool_index(&self->nodes, node);
    orr_map_add(&self->nodes_by_key, node);
    return node;
}

static void node_state(struct orr_ctx *ctx,
                       struct region *self,
                       struct region_node *node,
                       uint32_t state)
{
    if (node->state == state)
        return;
    char subject[sizeof(node->key) + 8];
    snprintf(subject, sizeof(subject), "node/%s", node->key);
    region_event(
        ctx,
        self,
        &(struct orr_msg_event){.type = ORR_LIT("node.state"),
                                .subject = orr_str(subject),
                                .from = orr_str(node->state == ORR_NODE_STATE_MAX_
                                                    ? ""
                                                    : orr_node_state_name(node->state)),
                                .to = orr_str(orr_node_state_name(state))});
    node->state = state;
    region_save_node(ctx, self, node);
}

static void node_read(struct region_node *node, const struct orr_rec_node_row *row)
{
    node->is_present = true;
    node->gpus = row->gpus;
    node->gpus_free = row->gpus_free;
    node->gpu_memory_bytes = row->gpu_memory_bytes;
    node->slots = row->slots;
    node->slots_free = row->slots_free;
    node->ranks = row->ranks;
    node->seen_ms = row->seen_ms;
    orr_str_copy(node->gpu_type, sizeof(node->gpu_type), row->gpu_type);
    orr_str_copy(node->why_level, sizeof(node->why_level), row->why_level);
    orr_str_copy(node->machine, sizeof(node->machine), row->machine);
    orr_str_copy(
        node->machine_trouble, sizeof(node->machine_trouble), row->machine_trouble);
    node->level = row->level;
    orr_str_copy(node->host, sizeof(node->host), row->host);
    orr_str_copy(node->endpoint, sizeof(node->endpoint), row->endpoint);
}

static void
add_up(struct orr_ctx *ctx, struct region *self, struct region_cluster *cluster)
{
    cluster->gpus = cluster->gpus_free = cluster->slots_free = 0;
    struct region_node *node;
    for (uint32_t at = cluster->first_node;
         (node = orr_pool_at(&self->nodes, at)) != NULL;
         at = node->next) {
        if (!node->is_present) { /* its cluster restarted and has not heard of it yet */
            node_state(ctx, self, node, ORR_NODE_UNKNOWN);
            node->gpus_free = node->slots_free = 0;
        }
        cluster->gpus += node->gpus;
        if (node->state != ORR_NODE_UP)
            continue;
        cluster->gpus_free += node->gpus_free;
        cluster->slots_free += node->slots_free;
    }
    cluster->gpus_debit = cluster->gpus_offered;
    cluster->slots_debit = cluster->slots_offered;
}

enum orr_err region_cluster_summary(struct orr_ctx *ctx,
                                    struct region *self,
                                    const struct orr_msg_cluster_summary *msg)
{
    struct region_cluster *cluster;
    enum orr_err err = region_cluster_known(ctx, self, msg->cluster, &cluster);
    if (err != ORR_OK)
        return err;
    cluster->seen_ms = orr_now_ms(ctx);
    cluster->jobs = msg->jobs;
    cluster->is_given_up = false;
    if (cluster->state != ORR_NODE_UP)
        cluster_state(ctx, self, cluster, ORR_NODE_UP);
    struct region_node *node;
    for (uint32_t at = cluster->first_node;
         (node = orr_pool_at(&self->nodes, at)) != NULL;
         at = node->next)
        node->is_present = false;
    for (uint32_t i = 0; i < msg->nodes.n; i++) {
        node = region_node_get(self, cluster, msg->nodes.at[i].node);
        if (!node) {
            orr_log(ctx,
                    ORR_LOG_WARN,
                    "no room for more than %u nodes; raise nodes_max",
                    self->nodes.cap);
            break;
        }
        node_read(node, &msg->nodes.at[i]);
        uint32_t state = msg->nodes.at[i].state;
        state = state < ORR_NODE_STATE_MAX_ ? state : ORR_NODE_UNKNOWN;
        node_state(ctx, self, node, region_drain_state(ctx, self, node, state));
    }
    add_up(ctx, self, cluster);
    self->capacity_seq++;
    region_schedule(ctx, self);
    region_tell_waiting(ctx, self, cluster);
    return ORR_OK;
}

/* What a silent cluster has no permit for may go elsewhere. */
static enum orr_err
give_up(struct orr_ctx *ctx, struct region *self, struct region_cluster *cluster)
{
    uint32_t index = orr_pool_index(&self->clusters, cluster);
    cluster->is_given_up = true;
    for (struct region_job *job = NULL;
         (job = orr_pool_next(&self->jobs, job)) != NULL;) {
        if (job->where != REGION_HELD || job->cluster != index ||
            region_has_places(job))
            continue;
        enum orr_err err = missing(ctx, self, job);
        if (err != ORR_OK)
            return err;
    }
    return ORR_OK;
}

enum orr_err region_clusters_watch(struct orr_ctx *ctx, struct region *self)
{
    for (struct region_cluster *cluster = NULL;
         (cluster = orr_pool_next(&self->clusters, cluster)) != NULL;) {
        if (cluster->is_given_up ||
            orr_now_ms(ctx) - cluster->seen_ms <= self->args.suspect_ms)
            continue;
        if (cluster->state == ORR_NODE_UP)
            cluster_state(ctx, self, cluster, ORR_NODE_UNKNOWN);
        enum orr_err err = give_up(ctx, self, cluster);
        if (err != ORR_OK)
            return err;
    }
    return ORR_OK;
}

/* ---- their jobs ---- */

enum orr_err region_speaks_for(struct orr_ctx *ctx,
                               struct region *self,
                               struct orr_str id,
                               uint64_t generation,
                               struct region_job **ret_job)
{
    struct region_job *job = orr_map_find(&self->jobs_by_id, id);
    if (!job)
        return orr_refuse(ctx, ORR_ENOENT, "job %.*s: no such job", ORR_STR_ARGS(id));
    const struct region_cluster *cluster = orr_pool_at(&self->clusters, job->cluster);
    if (!region_is_with_cluster(job) || job->generation != generation ||
        cluster->addr.host != ctx->from.host ||
        ctx->from.incarnation < cluster->incarnation)
        return orr_refuse(ctx,
                          ORR_ESTALE,
                          "job %s is at generation %llu",
                          job->id,
                          (unsigned long long)job->generation);
    if (ctx->from.incarnation > cluster->incarnation || !cluster->is_registered)
        return orr_refuse(
            ctx, ORR_EBUSY, "cluster %s has not registered yet", cluster->name);
    *ret_job = job;
    return ORR_OK;
}

enum orr_err region_claim_check(struct orr_ctx *ctx,
                                struct region *self,
                                const struct orr_msg_claim_check *msg)
{
    struct region_job *job = NULL;
    enum orr_err err = region_speaks_for(ctx, self, msg->job, msg->generation, &job);
    if (err == ORR_OK && job->where == REGION_HELD)
        recover(ctx, self, job);
    return err;
}

/* The placement, kept encoded. */
static enum orr_err keep_places(struct region *self,
                                struct region_job *job,
                                struct orr_list_rank_place ranks)
{
    const struct orr_msg_job_update only_ranks = {.ranks = ranks};
    size_t len;
    uint32_t blob;
    enum orr_err err = orr_msg_encode(
        orr_msg_desc_job_update(), &only_ranks, self->body.at, self->body.size, &len);
    if (err == ORR_OK)
        err = orr_blob_put(
            &self->blobs, (struct orr_bytes){self->body.at, (uint32_t)len}, &blob);
    if (err != ORR_OK)
        return err;
    orr_blob_drop(&self->blobs, job->places);
    job->places = blob;
    region_save(self, job, REGION_DIRTY_PLACES);
    return ORR_OK;
}

/* The devices that it holds, as its actor counts them: it may have been given fewer than were offered, or be resized. */
static void keep_units(struct region *self, struct region_job *job, uint32_t devices)
{
    if (!job->gpus_max || !devices || devices == job->units)
        return;
    if (!job->is_parked)
        region_debit(self, job, -1);
    job->units = devices;
    if (!job->is_parked)
        region_debit(self, job, 1);
    region_save(self, job, 0);
}

/* What its newest stop took and showed: for those who look, so without room it is not kept. */
static void keep_stop(struct region *self,
                      struct region_job *job,
                      const struct orr_msg_job_update *msg)
{
    const struct orr_msg_job_update only_stop = {.cut = msg->cut,
                                                 .stop = msg->stop,
                                                 .shards = msg->shards,
                                                 .why_shards = msg->why_shards,
                                                 .resize_cost = msg->resize_cost};
    size_t len;
    if (msg->stop.n == 0 || msg->stop.n > REGION_STOP_STEPS_MAX)
        return; /* a new actor's, which has seen none */
    orr_blob_drop(&self->blobs, job->stop);
    job->stop = ORR_NONE;
    if (orr_msg_encode(orr_msg_desc_job_update(),
                       &only_stop,
                       self->body.at,
                       self->body.size,
                       &len) != ORR_OK ||
        orr_blob_put(&self->blobs,
                     (struct orr_bytes){self->body.at, (uint32_t)len},
                     &job->stop) != ORR_OK)
        job->stop = ORR_NONE;
}

/* Who waits for its event finds there what `show` says. */
static void tell_hang(struct orr_ctx *ctx,
                      struct region *self,
                      struct region_job *job,
                      bool is_hung)
{
    char subject[ORR_JOB_ID_MAX + 4];
    bool was_hung = job->is_hung;
    if (!is_hung && !was_hung)
        return;
    job->is_hung = is_hung;
    snprintf(subject, sizeof(subject), "job/%s", job->id);
    region_event(ctx,
                 self,
                 &(struct orr_msg_event){.type = ORR_LIT("job.hang"),
                                         .subject = orr_str(subject),
                                         .generation = job->generation,
                                         .from = orr_str(was_hung ? "hangs" : "runs"),
                                         .to = orr_str(is_hung ? "hangs" : "runs"),
                                         .cause = orr_str(job->reason),
                                         .principal = orr_str(job->owner)});
}

enum orr_err region_job_update(struct orr_ctx *ctx,
                               struct region *self,
                               const struct orr_msg_job_update *msg)
{
    struct region_job *job = NULL;
    enum orr_err err = region_speaks_for(ctx, self, msg->job, msg->generation, &job);
    if (err != ORR_OK)
        return err;
    bool is_old = job->update_incarnation == ctx->from.incarnation &&
                  msg->step <= job->update_step;
    if (is_old)
        return ORR_OK;
    if (msg->phase >= ORR_JOB_PHASE_MAX_ || orr_job_phase_is_final(msg->phase) ||
        (msg->phase != job->phase && !(orr_job_moves[job->phase] & ORR_IN(msg->phase))))
        return orr_refuse(ctx,
                          ORR_EINVAL,
                          "job %s cannot go from %s to %s",
                          job->id,
                          orr_job_phase_name(job->phase),
                          orr_job_phase_name(msg->phase));
    if (msg->ranks.n > 0 && keep_places(self, job, msg->ranks) != ORR_OK)
        return orr_refuse(ctx,
                          ORR_EBUSY,
                          "region %s has no room for the placement of %s now",
                          self->args.region,
                          job->id);
    job->update_incarnation = ctx->from.incarnation;
    job->update_step = msg->step;
    region_save(self, job, 0);
    if (job->where == REGION_ASSIGNING) {
        region_cluster_has(self, job);
        job->assign_seq = 0;
    }
    if (!job->is_cancelled)
        orr_str_copy(job->reason, sizeof(job->reason), msg->reason);
    tell_hang(ctx, self, job, msg->is_hung);
    if (msg->level != ORR_LEVEL_UNKNOWN) {
        job->level = msg->level;
        orr_str_copy(job->why_level, sizeof(job->why_level), msg->why_level);
    }
    keep_stop(self, job, msg);
    keep_units(self, job, msg->devices);
    if (msg->phase == ORR_JOB_RUNNING) {
        region_transfer_restored(ctx, self, job);
        job->restore = job->restore_tries = 0;
    }
    err = region_phase(ctx, self, job, msg->phase, job->reason);
    if (err == ORR_OK)
        region_order_settle(ctx, self, job);
    return err;
}

static void keep_end(struct region *self,
                     struct region_job *job,
                     const struct orr_msg_job_ended *msg)
{
    region_save(self, job, 0);
    job->exit_code = msg->exit_code;
    job->signal = msg->signal;
    job->culprit = msg->culprit;
    orr_str_copy(job->culprit_node, sizeof(job->culprit_node), msg->culprit_node);
    if (!job->is_cancelled)
        orr_str_copy(job->reason, sizeof(job->reason), msg->reason);
    region_job_keep_tail(self, job, msg->stderr_tail);
}

static uint64_t start_delay(struct orr_ctx *ctx, const struct region_job *job)
{
    uint64_t delay = job->backoff_min_ms;
    for (uint32_t i = 1; i < job->restarts && delay < job->backoff_max_ms; i++)
        delay *= 2;
    if (delay > job->backoff_max_ms)
        delay = job->backoff_max_ms;
    return 1 + delay / 2 + (delay ? orr_random(ctx) % delay : 0);
}

enum orr_err region_job_ended(struct orr_ctx *ctx,
                              struct region *self,
                              const struct orr_msg_job_ended *msg)
{
    struct region_job *job = NULL;
    enum orr_err err = region_speaks_for(ctx, self, msg->job, msg->generation, &job);
    if (err != ORR_OK)
        return err;
    keep_end(self, job, msg);
    if (msg->outcome == ORR_OUTCOME_DONE)
        return region_end(ctx, self, job, ORR_JOB_DONE);
    bool is_users = msg->outcome == ORR_OUTCOME_FAILED && !msg->is_restore_failed;
    if (job->is_cancelled && !is_users)
        return region_end(ctx, self, job, ORR_JOB_CANCELLED);
    if (region_order_survives(ctx, self, job, msg->outcome))
        return region_order_is_away(job)
                   ? region_leave(ctx, self, job)
                   : region_requeue(ctx, self, job, 0, ORR_LIT("it moves"));
    if (job->restore && !is_users)
        region_restore_failed(ctx, self, job, msg->is_restore_failed);
    int64_t allowed = is_users ? job->retries_user : job->retries_infra;
    uint32_t used = is_users ? job->user_restarts : job->restarts - job->user_restarts;
    if (job->is_cancelled || (allowed >= 0 && used >= allowed))
        return region_end(ctx, self, job, ORR_JOB_FAILED);
    job->restarts++;
    job->user_restarts += is_users;
    char cause[sizeof(job->reason)];
    memcpy(cause, job->reason, sizeof(cause));
    return region_requeue(ctx, self, job, start_delay(ctx, job), orr_str(cause));
}
