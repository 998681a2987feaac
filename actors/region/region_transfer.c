/* SPDX-License-Identifier: Apache-2.0
 * region_transfer.c - a job comes from another region: the side that takes it.  The other side is region_peers.c.
 *
 * START      job_offer asks.  Before the job stops it is refused also when there is no room; once it has left its cluster
 *            (final) only when it could never run here, because what is refused then goes back where it was
 * OPERATION  A final offer gives a token and makes those given before void; a job_transfer with the newest token makes the
 *            job, durable before it is answered.  It keeps its id; its generations go on above that of the handover
 * STOP       The job is settled once it runs from parts that its own nodes' stores have, or has a checkpoint made here.  Its
 *            record is kept, also after its end, until the other region says that it knows
 * FAILURES   A repeat finds the job by (id, generation of the handover).  Tokens are this leader's memory: the next leader
 *            knows none, refuses the transfer (ORR_ESTALE), and is offered the job again.
 * Source: docs/adr/0019-regions.md.
 */
#include "region_admit.h"
#include "region_calls.h"

/* ---- tokens ---- */

static struct region_token *find_token(struct region *self, struct orr_str job)
{
    for (uint32_t i = 0; i < REGION_TOKENS_MAX; i++)
        if (self->tokens[i].token && orr_str_eq(orr_str(self->tokens[i].job), job))
            return &self->tokens[i];
    return NULL;
}

static void drop_token(struct region *self, struct orr_str job)
{
    struct region_token *token = find_token(self, job);
    if (token)
        token->token = 0;
}

/* In the place of the oldest: whose transfer comes later is offered again. */
static uint64_t
new_token(struct orr_ctx *ctx, struct region *self, const struct orr_msg_job_offer *msg)
{
    drop_token(self, msg->job);
    struct region_token *token = &self->tokens[self->next_token++ % REGION_TOKENS_MAX];
    orr_str_copy(token->job, sizeof(token->job), msg->job);
    token->generation = msg->generation;
    token->token = orr_random(ctx) | 1;
    return token->token;
}

/* ---- offers ---- */

/* This handover was taken, whatever has become of the job since. */
static bool is_taken(const struct region_job *job, uint64_t generation)
{
    return job && job->from_region[0] && job->from_generation >= generation;
}

/* It was here before, and has left. */
static bool is_back(const struct region_job *job, uint64_t generation)
{
    return job->phase == ORR_JOB_MOVED && job->generation < generation;
}

static bool can_restore(const struct region *self, uint32_t level)
{
    if (level < ORR_LEVEL_IMAGE)
        return true;
    for (const struct region_node *node = NULL;
         (node = orr_pool_next(&self->nodes, node)) != NULL;)
        if (node->level >= ORR_LEVEL_IMAGE)
            return true;
    return false;
}

/* Before the job stops: could it go on, and is there a place for it now? */
static enum orr_err check_room(struct region *self,
                               const struct orr_msg_job_offer *msg,
                               struct orr_error *err)
{
    char text[160];
    struct region_job job = {0};
    region_job_read_spec(&job, self->spec.at);
    job.cluster = ORR_NONE;
    if (!can_restore(self, msg->level))
        return orr_fail(
            err, ORR_ENOSYS, "no node there can go on from an image; see its `doctor`");
    if (self->jobs.n_used == self->jobs.cap && self->finished.n == 0)
        return orr_fail(err, ORR_EBUSY, "it holds %u jobs, its limit", self->jobs.cap);
    if (!msg->is_running || region_spec_fits_now(self, &job, self->spec.at))
        return ORR_OK;
    region_why_not(self, &job, text, sizeof(text));
    return orr_fail(err, ORR_ENODEV, "%s", text);
}

/* Is a host of this region called so?  Then nodes here would take the other region's host for that one. */
static bool is_host_here(const struct region *self, struct orr_str name)
{
    if (orr_str_eq(name, orr_str(self->args.host)))
        return true;
    for (const struct region_cluster *cluster = NULL;
         (cluster = orr_pool_next(&self->clusters, cluster)) != NULL;)
        if (cluster->addr.host == orr_hash(name))
            return true;
    for (const struct region_node *node = NULL;
         (node = orr_pool_next(&self->nodes, node)) != NULL;)
        if (node->state != ORR_NODE_LOST && orr_str_eq(name, orr_str(node->host)))
            return true;
    return false;
}

static enum orr_err check_hosts(const struct region *self,
                                struct orr_list_text hosts,
                                struct orr_error *err)
{
    for (uint32_t i = 0; i < hosts.n; i++)
        if (is_host_here(self, hosts.at[i].value))
            return orr_fail(
                err,
                ORR_EEXIST,
                "host %.*s is here and there, and a name is one host's only, "
                "over all regions: give one of them another name",
                ORR_STR_ARGS(hosts.at[i].value));
    return ORR_OK;
}

static enum orr_err check_offer(struct region *self,
                                const struct orr_msg_job_offer *msg,
                                struct orr_error *err)
{
    const struct region_job *job = orr_map_find(&self->jobs_by_id, msg->job);
    if (!region_peer_is_known(self, msg->region))
        return orr_fail(err,
                        ORR_EPERM,
                        "`peers:` of its hosts does not name %.*s",
                        ORR_STR_ARGS(msg->region));
    if (msg->job.len == 0 || msg->job.len >= ORR_JOB_ID_MAX ||
        (job && !is_back(job, msg->generation)))
        return orr_fail(err, ORR_EEXIST, "it has a job of that id");
    if (orr_msg_decode(orr_msg_desc_job_spec(),
                       msg->spec.ptr,
                       msg->spec.len,
                       self->spec.at,
                       self->spec.size) != ORR_OK)
        return orr_fail(err, ORR_EINVAL, "it cannot read the job's spec");
    enum orr_err code =
        region_admit(self->spec.at, self->args.region, self->args.world_max, err);
    if (code == ORR_OK)
        code = check_hosts(self, msg->hosts, err);
    if (code == ORR_OK && !msg->is_final)
        code = check_room(self, msg, err);
    return code;
}

enum orr_err region_take_offer(struct orr_ctx *ctx,
                               struct region *self,
                               const struct orr_msg_job_offer *msg)
{
    struct region_job *job = orr_map_find(&self->jobs_by_id, msg->job);
    bool is_here = is_taken(job, msg->generation);
    if (msg->is_final)
        region_confirm(self); /* its answer is acted on */
    if (is_here && msg->is_known && !job->is_from_known) {
        job->is_from_known = true;
        region_save(self, job, 0);
    }
    if (is_here || msg->is_known) {
        orr_reply(ctx,
                  job_offered,
                  .is_taken = is_here,
                  .is_settled = is_here && job->is_settled);
        return ORR_OK;
    }
    struct orr_error why;
    enum orr_err code = check_offer(self, msg, &why);
    if (code != ORR_OK) {
        drop_token(self, msg->job);
        orr_reply(ctx,
                  job_offered,
                  .is_refused = true,
                  .code = code,
                  .text = orr_str(why.text));
        return ORR_OK;
    }
    orr_reply(ctx, job_offered, .token = msg->is_final ? new_token(ctx, self, msg) : 0);
    return ORR_OK;
}

/* ---- transfers ---- */

/* All that may fail, before anything has changed. */
static enum orr_err check_transfer(struct orr_ctx *ctx,
                                   struct region *self,
                                   const struct orr_msg_job_transfer *msg)
{
    const struct region_token *token = find_token(self, msg->job);
    if (!token || token->token != msg->token || token->generation != msg->generation)
        return orr_refuse(ctx,
                          ORR_ESTALE,
                          "job %.*s: offer it to region %s again",
                          ORR_STR_ARGS(msg->job),
                          self->args.region);
    if (orr_msg_decode(orr_msg_desc_job_spec(),
                       msg->spec.ptr,
                       msg->spec.len,
                       self->spec.at,
                       self->spec.size) != ORR_OK ||
        (msg->manifest.len && !region_manifest_decode(self, msg->manifest)))
        return orr_refuse(ctx,
                          ORR_EPROTO,
                          "job %.*s: its spec or its manifest cannot be read",
                          ORR_STR_ARGS(msg->job));
    uint32_t blob = ORR_NONE;
    bool has_room = self->jobs.n_used < self->jobs.cap || self->finished.n > 0;
    bool has_checkpoint =
        !msg->manifest.len || (self->checkpoints.n_used < self->checkpoints.cap &&
                               orr_blob_put(&self->blobs, msg->manifest, &blob) == 0);
    orr_blob_drop(&self->blobs, blob);
    if (has_room && has_checkpoint)
        return ORR_OK;
    return orr_refuse(ctx,
                      ORR_EBUSY,
                      "region %s has no room for another job; try again later",
                      self->args.region);
}

static void keep_checkpoint(struct orr_ctx *ctx,
                            struct region *self,
                            struct region_job *job,
                            struct orr_bytes manifest)
{
    struct region_checkpoint *checkpoint = NULL;
    if (region_checkpoint_keep(self, job, manifest, &checkpoint) != ORR_OK)
        ORR_ASSERT(!"there was room for it"); /* check_transfer */
    if (checkpoint->number > job->checkpoint)
        job->checkpoint = checkpoint->number;
    region_save_checkpoint(ctx, self, job, checkpoint);
}

static void
say_where_from(struct orr_ctx *ctx, struct region *self, const struct region_job *job)
{
    char subject[ORR_JOB_ID_MAX + 4];
    char cause[ORR_NAME_MAX + 16];
    snprintf(subject, sizeof(subject), "job/%s", job->id);
    snprintf(cause, sizeof(cause), "from region %s", job->from_region);
    region_event(
        ctx,
        self,
        &(struct orr_msg_event){.type = ORR_LIT("job.state"),
                                .subject = orr_str(subject),
                                .generation = job->generation,
                                .to = orr_str(orr_job_phase_name(ORR_JOB_QUEUED)),
                                .cause = orr_str(cause),
                                .principal = orr_str(job->owner)});
    region_soft_job(ctx, self, (struct region_job *)job);
}

static void read_transfer(struct region_job *job,
                          const struct orr_msg_job_transfer *msg)
{
    orr_str_copy(job->owner, sizeof(job->owner), msg->owner);
    orr_str_copy(job->from_region, sizeof(job->from_region), msg->region);
    orr_str_copy(job->why_level, sizeof(job->why_level), msg->why_level);
    job->from_generation = msg->generation;
    job->generation = msg->generation;
    job->checkpoint = msg->checkpoint;
    job->is_settled = msg->manifest.len == 0;
    job->is_to_suspend = msg->is_to_suspend;
    job->submitted_unix_ms = msg->submitted_unix_ms;
    job->restarts = msg->restarts;
    job->user_restarts = msg->user_restarts;
    job->level = msg->level;
}

enum orr_err region_take_transfer(struct orr_ctx *ctx,
                                  struct region *self,
                                  const struct orr_msg_job_transfer *msg)
{
    struct region_job *job = orr_map_find(&self->jobs_by_id, msg->job);
    if (is_taken(job, msg->generation)) {
        region_confirm(self);
        return ORR_OK;
    }
    enum orr_err err = check_transfer(ctx, self, msg);
    uint32_t spec = ORR_NONE;
    if (err == ORR_OK && orr_blob_put(&self->blobs, msg->spec, &spec) != ORR_OK)
        err = orr_refuse(ctx,
                         ORR_EBUSY,
                         "region %s has no room for more job specs; try again later",
                         self->args.region);
    if (err != ORR_OK)
        return err;
    drop_token(self, msg->job);
    char key[ORR_NAME_MAX] = "";
    if (job) { /* it was here before; whoever submits it again still means this one */
        memcpy(key, job->key, sizeof(key));
        region_job_drop(ctx, self, job);
    }
    job = region_job_new(ctx, self, msg->job);
    ORR_ASSERT(job); /* check_transfer */
    memcpy(job->key, key, sizeof(key));
    if (job->key[0])
        orr_map_add(&self->jobs_by_key, job);
    job->spec = spec;
    region_job_read_spec(job, self->spec.at);
    read_transfer(job, msg);
    region_save(self, job, REGION_DIRTY_SPEC);
    if (msg->manifest.len)
        keep_checkpoint(ctx, self, job, msg->manifest);
    say_where_from(ctx, self, job);
    region_enqueue(self, job);
    if (job->is_to_suspend)
        return region_requeue(ctx, self, job, 0, ORR_LIT("by its user"));
    region_schedule(ctx, self);
    return ORR_OK;
}

/* ---- after the restore ---- */

/* The manifest, with the stores of the nodes that have its ranks now; NULL: one is not known. */
static const struct orr_msg_manifest *with_own_stores(struct region *self,
                                                      const struct region_job *job,
                                                      struct orr_bytes manifest)
{
    struct orr_msg_manifest *msg = region_manifest_decode(self, manifest);
    struct orr_list_rank_place ranks = region_places(self, job);
    if (!msg || ranks.n != msg->parts.n)
        return NULL;
    struct orr_rec_part *parts = (void *)msg->parts.at; /* in our own scratch memory */
    for (uint32_t i = 0; i < ranks.n; i++) {
        const struct region_node *node = region_node_of(self, job, ranks.at[i].node);
        if (!node || !node->host[0])
            return NULL;
        parts[i].store = orr_str(node->host);
        parts[i].endpoint = orr_str(node->endpoint);
    }
    return msg;
}

/* A job that came with its checkpoint runs from it: each node's store has fetched the parts of its ranks.  If their names do
 * not fit in, its next checkpoint does as well. */
void region_transfer_restored(struct orr_ctx *ctx,
                              struct region *self,
                              struct region_job *job)
{
    struct region_checkpoint *checkpoint =
        region_checkpoint_find(self, job, job->restore);
    if (!job->from_region[0] || job->is_settled || !checkpoint)
        return;
    size_t len;
    const struct orr_msg_manifest *msg =
        with_own_stores(self, job, region_manifest(self, checkpoint));
    bool is_kept = msg &&
                   orr_msg_encode(orr_msg_desc_manifest(),
                                  msg,
                                  self->manifest_body.at,
                                  self->manifest_body.size,
                                  &len) == ORR_OK &&
                   region_checkpoint_keep(
                       self,
                       job,
                       (struct orr_bytes){self->manifest_body.at, (uint32_t)len},
                       &checkpoint) == ORR_OK;
    if (!is_kept)
        return;
    region_save_checkpoint(ctx, self, job, checkpoint);
    job->is_settled = true;
    region_save(self, job, 0);
}
