/* SPDX-License-Identifier: Apache-2.0
 * region.c - the region actor: what it accepts, and what clients ask of it.
 *
 * START       as a standby; it leads when the ledger says so (region_ledger.c, region_lead.c)
 * OPERATION   submit -> admission -> queue -> cluster -> end (region_jobs.c, region_schedule.c, region_clusters.c)
 * FAILURES    of clusters: region_clusters.c.  Of the region's host, or of its leadership: region_ledger.c
 *
 * Every handler of a request goes through region_must_lead and region_finish: see LEADER below.
 */
#include "region_admit.h"
#include "region_calls.h"

enum { TICK_MS = 500, WAIT_MAX_MS = 3600000, COLLECT_MS = 600000, GRACE_MS = 3600000 };

/* The thunk of a handler that only the leader runs, and of one that every replica runs. */
#define REGION_HANDLER(message, gate)                                                  \
    static enum orr_err region_on_##message(struct orr_ctx *ctx,                       \
                                            struct region *self,                       \
                                            const struct orr_msg_##message *msg);      \
    static enum orr_err region_on_##message##_thunk(                                   \
        struct orr_ctx *ctx, void *state, const void *msg)                             \
    {                                                                                  \
        enum orr_err err = (gate);                                                     \
        return err ? err                                                               \
                   : region_finish(ctx, state, region_on_##message(ctx, state, msg));  \
    }
#define LEADER(message) REGION_HANDLER(message, region_must_lead(ctx, state))
/* A handler that is a function of another file. */
#define LEADER_CALLS(message, function)                                                \
    LEADER(message)                                                                    \
    static enum orr_err region_on_##message(                                           \
        struct orr_ctx *ctx, struct region *self, const struct orr_msg_##message *msg) \
    {                                                                                  \
        return function(ctx, self, msg);                                               \
    }
#define REPLICA(message) REGION_HANDLER(message, ORR_OK)
#define REPLICA_CALLS(message, function)                                               \
    REPLICA(message)                                                                   \
    static enum orr_err region_on_##message(                                           \
        struct orr_ctx *ctx, struct region *self, const struct orr_msg_##message *msg) \
    {                                                                                  \
        return function(ctx, self, msg);                                               \
    }

LEADER(job_submit)
LEADER(job_cancel)
LEADER(job_list)
LEADER(job_show)
LEADER(job_wait)
LEADER_CALLS(log_read, region_log_read)
LEADER(tree_get)
LEADER_CALLS(job_suspend, region_suspend)
LEADER_CALLS(job_resume, region_resume)
LEADER_CALLS(job_checkpoint, region_take_checkpoint)
LEADER_CALLS(job_migrate, region_migrate)
LEADER_CALLS(job_resize, region_resize)
LEADER_CALLS(checkpoint_list, region_checkpoint_list)
LEADER_CALLS(checkpoint_show, region_checkpoint_show)
LEADER_CALLS(checkpoint_remove, region_checkpoint_remove)
LEADER_CALLS(node_drain, region_drain)
LEADER_CALLS(cluster_register, region_cluster_register)
LEADER_CALLS(cluster_summary, region_cluster_summary)
LEADER_CALLS(jobs_resize, region_jobs_resize)
LEADER_CALLS(claim_check, region_claim_check)
LEADER_CALLS(job_update, region_job_update)
LEADER_CALLS(job_ended, region_job_ended)
LEADER_CALLS(checkpoint_commit, region_checkpoint_commit)
LEADER_CALLS(order_failed, region_order_failed)
LEADER_CALLS(job_offer, region_take_offer)
LEADER_CALLS(job_transfer, region_take_transfer)
REPLICA(job_offered)
REPLICA(region_info_get)
REPLICA(region_check_get)
REPLICA(ledger_news)
REPLICA(ledger_page)
REPLICA_CALLS(log_chunk, region_log_chunk)
REPLICA(ack)
REPLICA(failed)
REPLICA(timer)

/* ---- life ---- */

static void region_fini(void *state)
{
    region_storage_fini(state);
}

static uint32_t default_to(uint32_t value, uint32_t otherwise)
{
    return value ? value : otherwise;
}

static enum orr_err region_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct region *self = state;
    self->args = *(const struct orr_region_args *)args;
    self->args.jobs_max = default_to(self->args.jobs_max, 65536);
    self->args.finished_max = default_to(self->args.finished_max, 10000);
    self->args.clusters_max = default_to(self->args.clusters_max, REGION_CLUSTERS_MAX);
    if (self->args.clusters_max > REGION_CLUSTERS_MAX)
        self->args.clusters_max = REGION_CLUSTERS_MAX;
    self->args.nodes_max = default_to(self->args.nodes_max, 4096);
    self->args.waits_max = default_to(self->args.waits_max, 4096);
    self->args.world_max = default_to(self->args.world_max, 4096);
    self->args.events_max = default_to(self->args.events_max, 65536);
    self->args.suspect_ms = default_to(self->args.suspect_ms, 2000);
    if (!self->args.collect_every_ms)
        self->args.collect_every_ms = COLLECT_MS;
    if (!self->args.collect_grace_ms)
        self->args.collect_grace_ms = GRACE_MS;
    enum orr_err err = region_storage_init(self);
    if (err == ORR_OK)
        err = region_ledger_init(ctx, self);
    if (err != ORR_OK) {
        region_storage_fini(self);
        return orr_refuse(ctx,
                          err,
                          "region %s: no memory for %u jobs",
                          self->args.region,
                          self->args.jobs_max);
    }
    region_list_init(&self->all);
    region_list_init(&self->finished);
    for (uint32_t tier = 0; tier < ORR_TIER_MAX_; tier++)
        region_list_init(&self->queue[tier]);
    self->events = (struct orr_addr){.host = ctx->self.host,
                                     .slot = orr_hash(ORR_LIT("/edge/events"))};
    self->resume_at = self->drain_job = ORR_NONE;
    region_soft_init(ctx, self);
    orr_timer_set(ctx, REGION_T_TICK, TICK_MS, 0);
    return ORR_OK;
}

/* ---- clients ---- */

enum orr_err region_find_job(struct orr_ctx *ctx,
                             const struct region *self,
                             struct orr_str id,
                             struct region_job **ret_job)
{
    *ret_job = orr_map_find(&self->jobs_by_id, id);
    if (*ret_job)
        return ORR_OK;
    return orr_refuse(ctx,
                      ORR_ENOENT,
                      "job %.*s: no such job in region %s; `orrery ps -a` lists them",
                      ORR_STR_ARGS(id),
                      self->args.region);
}

static enum orr_err region_on_job_submit(struct orr_ctx *ctx,
                                         struct region *self,
                                         const struct orr_msg_job_submit *msg)
{
    if (msg->key.len >= ORR_NAME_MAX)
        return orr_refuse(
            ctx, ORR_EINVAL, "key: longer than %d bytes", ORR_NAME_MAX - 1);
    struct region_job *job =
        msg->key.len ? orr_map_find(&self->jobs_by_key, msg->key) : NULL;
    if (job) {
        orr_reply(ctx, job_submitted, .job = orr_str(job->id), .existed = true);
        return ORR_OK;
    }
    enum orr_err err = orr_msg_decode(orr_msg_desc_job_spec(),
                                      msg->spec.ptr,
                                      msg->spec.len,
                                      self->spec.at,
                                      self->spec.size);
    if (err != ORR_OK)
        return orr_refuse(ctx,
                          err,
                          "the job spec cannot be read, or is larger than %d bytes",
                          REGION_SPEC_BYTES);
    struct orr_error detail;
    err = region_admit(self->spec.at, self->args.region, self->args.world_max, &detail);
    if (err != ORR_OK)
        return orr_refuse(ctx, err, "%s", detail.text);
    uint32_t blob;
    if (orr_blob_put(&self->blobs, msg->spec, &blob) != ORR_OK)
        return orr_refuse(
            ctx,
            ORR_EBUSY,
            "region %s has no room for more job specs; try again when jobs have ended",
            self->args.region);
    job = region_job_new(ctx, self, ORR_LIT(""));
    if (!job) {
        orr_blob_drop(&self->blobs, blob);
        return orr_refuse(ctx,
                          ORR_EBUSY,
                          "region %s holds %u live jobs, its limit; try again later",
                          self->args.region,
                          self->jobs.cap);
    }
    job->spec = blob;
    region_job_read_spec(job, self->spec.at);
    orr_str_copy(job->owner, sizeof(job->owner), msg->owner);
    orr_str_copy(job->key, sizeof(job->key), msg->key);
    if (job->key[0])
        orr_map_add(&self->jobs_by_key, job);
    region_save(self, job, REGION_DIRTY_SPEC);
    region_enqueue(self, job);
    char subject[ORR_JOB_ID_MAX + 4];
    snprintf(subject, sizeof(subject), "job/%s", job->id);
    region_event(
        ctx,
        self,
        &(struct orr_msg_event){.type = ORR_LIT("job.state"),
                                .subject = orr_str(subject),
                                .to = orr_str(orr_job_phase_name(ORR_JOB_QUEUED)),
                                .cause = ORR_LIT("submitted"),
                                .principal = orr_str(job->owner)});
    region_soft_job(ctx, self, job);
    region_schedule(ctx, self);
    orr_reply(ctx, job_submitted, .job = orr_str(job->id));
    return ORR_OK;
}

static enum orr_err region_on_job_cancel(struct orr_ctx *ctx,
                                         struct region *self,
                                         const struct orr_msg_job_cancel *msg)
{
    struct region_job *job = NULL;
    enum orr_err err = region_find_job(ctx, self, msg->job, &job);
    if (err != ORR_OK || job->phase == ORR_JOB_CANCELLED)
        return err;
    if (job->phase == ORR_JOB_MOVED)
        return region_refuse_moved(ctx, job);
    if (job->where == REGION_LEAVING)
        return orr_refuse(
            ctx,
            ORR_ESTATE,
            "job %s is on its way to region %s, which may have it already; "
            "cancel it there once it has moved; if that is gone for good: "
            "`orrery migrate %s --to region:%s --gone %s`",
            job->id,
            job->to_region,
            job->id,
            self->args.region,
            job->to_region);
    if (job->where == REGION_ENDED)
        return orr_refuse(ctx,
                          ORR_ESTATE,
                          "job %s has ended already: %s",
                          job->id,
                          orr_job_phase_name(job->phase));
    return region_cancel(ctx, self, job, msg->why);
}

static enum orr_err region_on_job_list(struct orr_ctx *ctx,
                                       struct region *self,
                                       const struct orr_msg_job_list *msg)
{
    region_reply_list(ctx, self, msg);
    return ORR_OK;
}

static enum orr_err region_on_job_show(struct orr_ctx *ctx,
                                       struct region *self,
                                       const struct orr_msg_job_show *msg)
{
    struct region_job *job = NULL;
    enum orr_err err = region_find_job(ctx, self, msg->job, &job);
    if (err == ORR_OK)
        region_reply_detail(ctx, self, job, &ctx->request);
    return err;
}

struct region_wait *region_wait_new(struct orr_ctx *ctx, struct region *self)
{
    struct region_wait *wait = orr_pool_take(&self->waits);
    if (!wait)
        return NULL;
    wait->request = orr_defer(ctx);
    wait->until_ms = wait->request.deadline_ms ? wait->request.deadline_ms
                                               : orr_now_ms(ctx) + WAIT_MAX_MS;
    wait->next = ORR_NONE;
    wait->job = wait->migrates = ORR_NONE;
    return wait;
}

enum orr_err region_wait_refuse(struct orr_ctx *ctx, const struct region *self)
{
    return orr_refuse(
        ctx, ORR_EBUSY, "%u requests wait already; ask again later", self->waits.cap);
}

static enum orr_err region_on_job_wait(struct orr_ctx *ctx,
                                       struct region *self,
                                       const struct orr_msg_job_wait *msg)
{
    struct region_job *job = NULL;
    enum orr_err err = region_find_job(ctx, self, msg->job, &job);
    if (err != ORR_OK)
        return err;
    if (job->where == REGION_ENDED) {
        region_reply_detail(ctx, self, job, &ctx->request);
        return ORR_OK;
    }
    struct region_wait *wait = region_wait_new(ctx, self);
    if (!wait)
        return region_wait_refuse(ctx, self);
    wait->job = orr_pool_index(&self->jobs, job);
    wait->next = job->first_wait;
    job->first_wait = orr_pool_index(&self->waits, wait);
    return ORR_OK;
}

static enum orr_err region_on_tree_get(struct orr_ctx *ctx,
                                       struct region *self,
                                       const struct orr_msg_tree_get *msg)
{
    (void)msg;
    region_reply_tree(ctx, self);
    return ORR_OK;
}

static enum orr_err region_on_region_info_get(struct orr_ctx *ctx,
                                              struct region *self,
                                              const struct orr_msg_region_info_get *msg)
{
    (void)msg;
    orr_reply(ctx,
              region_info,
              .region = orr_str(self->args.region),
              .build = orr_str(self->args.build),
              .epoch = self->epoch,
              .seq = self->seq);
    return ORR_OK;
}

/* ---- the ledger ---- */

static enum orr_err
region_on_region_check_get(struct orr_ctx *ctx,
                           struct region *self,
                           const struct orr_msg_region_check_get *msg)
{
    (void)msg;
    struct orr_msg_region_check check = region_check(self);
    const struct region_ledger *ledger = &self->ledger;
    orr_reply(ctx,
              region_check,
              .applied = ledger->is_leading ? 0 : check.applied,
              .open = ledger->is_leading ? ledger->ticket - ledger->ticket_done
                                         : ledger->committed - ledger->applied,
              .keys = check.keys,
              .digest = check.digest);
    return ORR_OK;
}

static enum orr_err region_on_ledger_news(struct orr_ctx *ctx,
                                          struct region *self,
                                          const struct orr_msg_ledger_news *msg)
{
    return region_ledger_news(ctx, self, msg);
}

static enum orr_err region_on_ledger_page(struct orr_ctx *ctx,
                                          struct region *self,
                                          const struct orr_msg_ledger_page *msg)
{
    return region_ledger_page(ctx, self, msg);
}

/* ---- answers and time ---- */

/* The job whose ask was answered; NULL when the answer is an old one. */
static struct region_job *
asked_job(const struct orr_ctx *ctx, const struct region *self, enum region_tag kind)
{
    uint32_t seq = (uint32_t)(ctx->tag >> 32) & 0xffffff;
    struct region_job *job = region_job_at(self, (uint32_t)ctx->tag);
    if (ctx->tag >> 56 != kind || !job)
        return NULL;
    uint32_t want = kind == REGION_TAG_ASSIGN  ? job->assign_seq
                    : kind == REGION_TAG_ORDER ? job->order.seq
                    : kind == REGION_TAG_PEER  ? job->peer_seq
                                               : job->stop_seq;
    return seq == want ? job : NULL;
}

static enum orr_err
region_on_ack(struct orr_ctx *ctx, struct region *self, const struct orr_msg_ack *msg)
{
    (void)msg;
    struct region_job *job = asked_job(ctx, self, REGION_TAG_ASSIGN);
    if (job)
        return region_assign_answered(ctx, self, job, ORR_OK);
    job = asked_job(ctx, self, REGION_TAG_ORDER);
    if (job)
        region_order_answered(ctx, self, job, ORR_OK, ORR_LIT(""));
    job = asked_job(ctx, self, REGION_TAG_PEER);
    return job ? region_peer_took(ctx, self, job) : ORR_OK;
}

/* The wait of a client whose job is to go to another region. */
static struct region_wait *offer_wait(const struct orr_ctx *ctx,
                                      const struct region *self)
{
    struct region_wait *wait = orr_pool_at(&self->waits, (uint32_t)ctx->tag);
    return ctx->tag >> 56 == REGION_TAG_OFFER && wait && wait->migrates != ORR_NONE
               ? wait
               : NULL;
}

static enum orr_err region_on_job_offered(struct orr_ctx *ctx,
                                          struct region *self,
                                          const struct orr_msg_job_offered *msg)
{
    struct region_wait *wait = offer_wait(ctx, self);
    if (wait)
        return region_first_offered(ctx, self, wait, msg);
    struct region_job *job = asked_job(ctx, self, REGION_TAG_PEER);
    return job ? region_peer_offered(ctx, self, job, msg) : ORR_OK;
}

static enum orr_err region_on_failed(struct orr_ctx *ctx,
                                     struct region *self,
                                     const struct orr_msg_failed *msg)
{
    if (ctx->tag >> 56 == REGION_TAG_LEDGER) {
        region_ledger_failed(ctx, self);
        return ORR_OK;
    }
    struct region_wait *wait = region_log_wait(ctx, self);
    if (wait) {
        ctx->ops->reply(ctx, &wait->request, orr_msg_desc_failed(), msg);
        orr_pool_give(&self->waits, wait);
        return ORR_OK;
    }
    wait = offer_wait(ctx, self);
    if (wait)
        return region_first_failed(ctx, self, wait, msg);
    struct region_job *job = asked_job(ctx, self, REGION_TAG_ASSIGN);
    if (job)
        return region_assign_answered(ctx, self, job, msg->code);
    job = asked_job(ctx, self, REGION_TAG_STOP);
    if (job)
        region_job_retry(ctx, self, job, REGION_JOB_STOP);
    job = asked_job(ctx, self, REGION_TAG_ORDER);
    if (job)
        region_order_answered(ctx, self, job, msg->code, msg->text);
    job = asked_job(ctx, self, REGION_TAG_PEER);
    if (job)
        region_peer_failed(ctx, self, job, msg->code);
    return ORR_OK;
}

static void drop_old_waits(struct orr_ctx *ctx, struct region *self)
{
    for (struct region_wait *wait = NULL;
         (wait = orr_pool_next(&self->waits, wait)) != NULL;) {
        if (wait->until_ms > orr_now_ms(ctx) || wait->job == ORR_NONE)
            continue; /* a log_read ends with its ask */
        uint32_t *link = &region_job_at(self, wait->job)->first_wait;
        while (*link != orr_pool_index(&self->waits, wait))
            link = &((struct region_wait *)orr_pool_at(&self->waits, *link))->next;
        *link = wait->next;
        orr_pool_give(&self->waits, wait);
    }
}

static void job_timer(struct orr_ctx *ctx, struct region *self, uint32_t id)
{
    struct region_job *job =
        region_job_at(self, (id - REGION_T_JOB) / REGION_JOB_TIMERS);
    uint32_t kind = (id - REGION_T_JOB) % REGION_JOB_TIMERS;
    bool is_stop = kind == REGION_JOB_STOP;
    if (!job)
        return;
    if (kind == REGION_JOB_ORDER && !job->order.seq) {
        region_order_send(ctx, self, job);
    } else if (kind == REGION_JOB_START && region_peer_is_due(job)) {
        region_peer_ask(ctx, self, job);
    } else if (is_stop && job->is_cancelled && job->where == REGION_HELD) {
        region_job_stop(ctx, self, job);
    } else if (!is_stop && job->where == REGION_BACKOFF) {
        region_enqueue(self, job);
        job->reason[0] = '\0';
        job->start_unix_ms = 0;
        region_save(self, job, 0);
        region_schedule(ctx, self);
    } else if (!is_stop && job->where == REGION_RECOVERING && !job->assign_seq) {
        region_job_assign(ctx, self, job);
    }
}

static enum orr_err region_on_timer(struct orr_ctx *ctx,
                                    struct region *self,
                                    const struct orr_msg_timer *msg)
{
    if (msg->id == REGION_T_SCHEDULE)
        return region_schedule_some(ctx, self);
    if (msg->id >= REGION_T_JOB) {
        job_timer(ctx, self, msg->id);
        return ORR_OK;
    }
    orr_timer_set(ctx, REGION_T_TICK, TICK_MS, 0);
    region_ledger_follow(ctx, self);
    region_ledger_watch(ctx, self);
    if (!self->ledger.is_leading)
        return ORR_OK;
    drop_old_waits(ctx, self);
    region_soft_tick(ctx, self);
    region_collect_tick(ctx, self);
    region_kept_watch(ctx, self);
    enum orr_err err = region_drain_some(ctx, self);
    return err == ORR_OK ? region_clusters_watch(ctx, self) : err;
}

static const struct orr_handler handlers[] = {
    /*     actor   message           accepted in    role            on overflow */
    ORR_ON(region, job_submit, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(region, job_cancel, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(region, job_list, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(region, job_show, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(region, job_wait, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(region, log_read, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(region, log_chunk, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(region, tree_get, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(region, region_info_get, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(region, region_check_get, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(region, ledger_news, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_COALESCE),
    ORR_ON(region, ledger_page, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(region, job_suspend, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(region, job_resume, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(region, job_checkpoint, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(region, job_migrate, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(region, job_resize, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(region, checkpoint_list, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(region, checkpoint_show, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(region, checkpoint_remove, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(region, node_drain, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(region, job_offer, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(region, job_offered, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(region, job_transfer, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(region, checkpoint_commit, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(region, order_failed, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(region, cluster_register, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(region, cluster_summary, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_COALESCE),
    ORR_ON(region, jobs_resize, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(region, claim_check, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(region, job_update, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(region, job_ended, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(region, ack, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(region, failed, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(region, timer, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};

const struct orr_actor_type orr_region_type = {
    .name = "region",
    .state_size = sizeof(struct region),
    .args_size = sizeof(struct orr_region_args),
    .init = region_init,
    .fini = region_fini,
    .handlers = handlers,
    .n_handlers = ORR_ARRAY_SIZE(handlers),
    .mailbox_max = 16384,
};
