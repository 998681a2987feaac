/* SPDX-License-Identifier: Apache-2.0
 * region_orders.c - what is wanted of a job that runs: suspend, resume, checkpoint, migrate, resize.
 *
 * START      a client's request, a drain, or what the job's phase lacks of its user's wish (settle).  It is in the ledger
 *            before it is acknowledged, as the job's newest order: a number, a kind, a state.  A later order replaces it
 * OPERATION  OPEN    sent to the job's cluster until its actor has taken it, and again whenever either may have forgotten it:
 *                    another leader, a restarted cluster, a new actor.  The number makes the repeats harmless
 *            TAKEN   what comes of it is told by job_update, checkpoint_commit, job_ended, order_failed
 *            QUEUED  the generation is over, or there was none: the job waits for its place and runs on there; or it is handed
 *                    over to another region (region_peers.c)
 * STOP       DONE, or FAILED with the reason.  Whoever waits for a checkpoint is answered then
 * FAILURES   A suspend or a migration that failed leaves the job as it was.  A resume for which there are no devices is tried
 *            again, with a new number.  A generation that is lost after the commit of its last checkpoint has moved.
 */
#include "region_calls.h"

#include <inttypes.h>

enum {
    ASK_MS = 2000,
    DRAIN_AGAIN_MS = 60000,
    DEVICES_MIN_MS = 200,
    DEVICES_MAX_MS = 2000
};

bool region_order_is_open(const struct region_job *job)
{
    return job->order.state == ORR_ORDER_IS_OPEN ||
           job->order.state == ORR_ORDER_IS_TAKEN;
}

/* To another region: there is no generation here any more, and none will be made. */
bool region_order_is_away(const struct region_job *job)
{
    return job->to_region[0] && job->order.kind == ORR_ORDER_VACATE &&
           job->order.state == ORR_ORDER_IS_QUEUED;
}

uint32_t region_order_devices(const struct region_job *job)
{
    return job->order.kind == ORR_ORDER_RESIZE &&
                   job->order.state == ORR_ORDER_IS_QUEUED
               ? job->order.devices
               : 0;
}

/* It has a generation that an order can be given to. */
bool region_is_placed(const struct region_job *job)
{
    return job->where == REGION_RECOVERING ||
           (job->where == REGION_HELD && region_has_places(job));
}

static void move(struct orr_ctx *ctx,
                 struct region *self,
                 struct region_job *job,
                 enum orr_order_state state)
{
    struct region_order *order = &job->order;
    char subject[ORR_JOB_ID_MAX + 4];
    char cause[sizeof(order->text) + 48];
    snprintf(subject, sizeof(subject), "job/%s", job->id);
    snprintf(cause,
             sizeof(cause),
             "%s %" PRIu64 "%s%s",
             orr_order_name(order->kind),
             order->number,
             order->text[0] ? ": " : "",
             order->text);
    uint32_t from = order->state;
    order->state = state;
    region_save(self, job, 0);
    region_event(ctx,
                 self,
                 &(struct orr_msg_event){.type = ORR_LIT("job.order"),
                                         .subject = orr_str(subject),
                                         .generation = job->generation,
                                         .from = orr_str(orr_order_state_name(from)),
                                         .to = orr_str(orr_order_state_name(state)),
                                         .cause = orr_str(cause),
                                         .principal = orr_str(job->owner)});
}

/* Answers and forgets the waits for this order; checkpoint NULL: it has failed. */
static void answer_waits(struct orr_ctx *ctx,
                         struct region *self,
                         struct region_job *job,
                         const struct region_checkpoint *checkpoint)
{
    struct orr_rec_checkpoint_row row = {0};
    if (checkpoint)
        region_checkpoint_row(job, checkpoint, &row);
    uint32_t *link = &job->first_wait;
    struct region_wait *wait;
    while ((wait = orr_pool_at(&self->waits, *link)) != NULL) {
        if (wait->order != job->order.number || !wait->order) {
            link = &wait->next;
            continue;
        }
        const struct orr_msg_failed failed = {.code = job->order.code,
                                              .msg = wait->request.msg_id,
                                              .text = orr_str(job->order.text)};
        if (checkpoint)
            orr_reply_to(ctx, &wait->request, checkpoint_made, .row = row);
        else
            ctx->ops->reply(ctx, &wait->request, orr_msg_desc_failed(), &failed);
        *link = wait->next;
        orr_pool_give(&self->waits, wait);
    }
}

void region_order_close(struct orr_ctx *ctx,
                        struct region *self,
                        struct region_job *job,
                        uint32_t code,
                        struct orr_str text)
{
    struct region_order *order = &job->order;
    order->code = code;
    order->seq = 0;
    order->backoff_ms = 0;
    if (text.len)
        orr_str_copy(order->text, sizeof(order->text), text);
    bool is_move =
        order->kind == ORR_ORDER_VACATE ||
        (order->kind == ORR_ORDER_RUN && order->state == ORR_ORDER_IS_QUEUED);
    if (is_move)
        job->to_cluster[0] = job->to_node[0] = job->to_region[0] = '\0';
    if (order->kind == ORR_ORDER_RESIZE && !order->is_own && code == ORR_OK)
        job->asked_devices = order->devices;
    if (order->is_own && code != ORR_OK && job->cluster != ORR_NONE)
        region_kept_drop(ctx, self, orr_pool_at(&self->clusters, job->cluster));
    move(ctx, self, job, code == ORR_OK ? ORR_ORDER_IS_DONE : ORR_ORDER_IS_FAILED);
    if (code != ORR_OK)
        answer_waits(ctx, self, job, NULL);
    if (self->drain_job == orr_pool_index(&self->jobs, job)) {
        self->drain_job = ORR_NONE;
        job->drain_ms = code == ORR_OK ? 0 : orr_now_ms(ctx) + DRAIN_AGAIN_MS;
    }
}

static void send(struct orr_ctx *ctx, struct region *self, struct region_job *job)
{
    const struct region_cluster *cluster = orr_pool_at(&self->clusters, job->cluster);
    struct region_order *order = &job->order;
    order->seq = region_fresh_seq(self);
    orr_ask(ctx,
            cluster->addr,
            ASK_MS,
            region_tag(REGION_TAG_ORDER, orr_pool_index(&self->jobs, job), order->seq),
            job_order,
            .job = orr_str(job->id),
            .generation = job->generation,
            .number = order->number,
            .order = order->kind,
            .checkpoint = order->checkpoint,
            .why = orr_str(order->text),
            .devices = order->devices,
            .may_move = order->may_move);
}

/* Whoever has the job may not know of its order (any more). */
void region_order_send(struct orr_ctx *ctx, struct region *self, struct region_job *job)
{
    bool is_due = region_order_is_open(job) && job->where == REGION_HELD &&
                  region_is_placed(job) && !job->is_cancelled &&
                  job->order.generation == job->generation;
    if (!is_due)
        return;
    if (job->order.code != ORR_OK) { /* that number has failed: there were no devices */
        job->order.number++;
        job->order.code = ORR_OK;
        region_save(self, job, 0);
    }
    send(ctx, self, job);
}

void region_order_open(struct orr_ctx *ctx,
                       struct region *self,
                       struct region_job *job,
                       enum orr_order kind,
                       struct orr_str why,
                       struct region_resize resize)
{
    struct region_order *order = &job->order;
    if (region_order_is_open(job) || order->state == ORR_ORDER_IS_QUEUED) {
        char to_cluster[ORR_NAME_MAX], to_node[ORR_NAME_MAX], to_region[ORR_NAME_MAX];
        memcpy(to_cluster, job->to_cluster, sizeof(to_cluster));
        memcpy(to_node, job->to_node, sizeof(to_node));
        memcpy(to_region, job->to_region, sizeof(to_region));
        region_order_close(
            ctx, self, job, ORR_ESTALE, ORR_LIT("replaced by a later order"));
        memcpy(job->to_cluster, to_cluster, sizeof(to_cluster));
        memcpy(job->to_node, to_node, sizeof(to_node));
        if (kind == ORR_ORDER_VACATE)
            memcpy(job->to_region, to_region, sizeof(to_region));
    }
    order->number++;
    order->kind = kind;
    order->state = ORR_ORDER_IS_NONE;
    order->generation = job->generation;
    order->code = ORR_OK;
    order->seq = 0;
    order->devices = resize.devices;
    order->may_move = resize.may_move;
    order->is_own = resize.is_own;
    bool is_saved =
        kind == ORR_ORDER_CHECKPOINT || kind == ORR_ORDER_VACATE || resize.may_move;
    order->checkpoint = is_saved ? ++job->checkpoint : 0;
    orr_str_copy(order->text, sizeof(order->text), why);
    orr_timer_cancel(ctx, region_job_timer_id(self, job, REGION_JOB_ORDER));
    move(ctx,
         self,
         job,
         region_is_placed(job) ? ORR_ORDER_IS_OPEN : ORR_ORDER_IS_QUEUED);
    region_order_send(ctx, self, job);
}

static void open_order(struct orr_ctx *ctx,
                       struct region *self,
                       struct region_job *job,
                       enum orr_order kind,
                       struct orr_str why)
{
    region_order_open(ctx, self, job, kind, why, (struct region_resize){0});
}

/* ---- what comes of it ---- */

/* What the job's phase says of its order, and what it lacks of what its user wants. */
void region_order_settle(struct orr_ctx *ctx,
                         struct region *self,
                         struct region_job *job)
{
    const struct region_order *order = &job->order;
    bool is_ours = order->generation == job->generation;
    bool is_done =
        (order->state == ORR_ORDER_IS_QUEUED && job->phase == ORR_JOB_RUNNING) ||
        (order->state == ORR_ORDER_IS_TAKEN && is_ours &&
         ((order->kind == ORR_ORDER_SUSPEND && job->phase == ORR_JOB_SUSPENDED) ||
          (order->kind == ORR_ORDER_RUN && job->phase == ORR_JOB_RUNNING) ||
          (order->kind == ORR_ORDER_RESIZE && job->phase == ORR_JOB_RUNNING &&
           job->units == order->devices)));
    if (is_done)
        region_order_close(ctx, self, job, ORR_OK, ORR_LIT(""));
    if (region_order_is_open(job) || job->where != REGION_HELD ||
        !region_is_placed(job) || job->is_cancelled)
        return;
    if (job->is_to_suspend && job->phase == ORR_JOB_RUNNING)
        open_order(ctx, self, job, ORR_ORDER_SUSPEND, ORR_LIT("to be suspended"));
    else if (!job->is_to_suspend && job->phase == ORR_JOB_SUSPENDED)
        open_order(ctx, self, job, ORR_ORDER_RUN, ORR_LIT("to run on"));
}

static void
wait_for_devices(struct orr_ctx *ctx, struct region *self, struct region_job *job)
{
    uint32_t *backoff = &job->order.backoff_ms;
    *backoff = *backoff == 0               ? DEVICES_MIN_MS
               : *backoff < DEVICES_MAX_MS ? *backoff * 2
                                           : DEVICES_MAX_MS;
    orr_timer_set(ctx,
                  region_job_timer_id(self, job, REGION_JOB_ORDER),
                  *backoff / 2 + orr_random(ctx) % *backoff,
                  0);
}

static void fail(struct orr_ctx *ctx,
                 struct region *self,
                 struct region_job *job,
                 uint32_t code,
                 struct orr_str text)
{
    struct region_order *order = &job->order;
    snprintf(job->reason,
             sizeof(job->reason),
             "%s: %.*s",
             orr_order_name(order->kind),
             ORR_STR_ARGS(text));
    region_save(self, job, 0);
    if (order->kind == ORR_ORDER_RUN && code == ORR_ENODEV) { /* others have them now */
        order->code = code;
        order->state = ORR_ORDER_IS_OPEN;
        order->seq = 0;
        wait_for_devices(ctx, self, job);
        return;
    }
    if (order->kind == ORR_ORDER_SUSPEND || order->kind == ORR_ORDER_RUN)
        job->is_to_suspend = order->kind == ORR_ORDER_RUN; /* it stays as it is */
    region_order_close(ctx, self, job, code ? code : ORR_EIO, text);
}

/* These will not pass by asking again.  Of a generation that ends (ORR_ESTATE) the end is awaited: the wish outlives it. */
static bool is_definite(enum orr_order kind, uint32_t code)
{
    bool is_wish = kind == ORR_ORDER_RUN || kind == ORR_ORDER_SUSPEND;
    return code == ORR_EINVAL || (code == ORR_ESTATE && !is_wish) ||
           code == ORR_ENOSYS || code == ORR_EPERM || code == ORR_ENODEV;
}

/* The answer to job_order; code ORR_OK: taken. */
void region_order_answered(struct orr_ctx *ctx,
                           struct region *self,
                           struct region_job *job,
                           uint32_t code,
                           struct orr_str text)
{
    job->order.seq = 0;
    if (!region_order_is_open(job) || job->order.generation != job->generation)
        return;
    if (code == ORR_OK) {
        job->backoff_ms = 0;
        if (job->order.backoff_ms) { /* once more: nothing new to tell */
            job->order.state = ORR_ORDER_IS_TAKEN;
            region_save(self, job, 0);
        } else if (job->order.state == ORR_ORDER_IS_OPEN) {
            move(ctx, self, job, ORR_ORDER_IS_TAKEN);
        }
        region_order_settle(ctx, self, job);
    } else if (is_definite(job->order.kind, code)) {
        fail(ctx, self, job, code, text);
    } else {
        region_job_retry(ctx, self, job, REGION_JOB_ORDER);
    }
}

enum orr_err region_order_failed(struct orr_ctx *ctx,
                                 struct region *self,
                                 const struct orr_msg_order_failed *msg)
{
    struct region_job *job = NULL;
    enum orr_err err = region_speaks_for(ctx, self, msg->job, msg->generation, &job);
    if (err == ORR_OK && msg->number == job->order.number &&
        region_order_is_open(job) && job->order.code == ORR_OK)
        fail(ctx, self, job, msg->code, msg->text);
    return err;
}

void region_order_committed(struct orr_ctx *ctx,
                            struct region *self,
                            struct region_job *job,
                            uint64_t number,
                            const struct region_checkpoint *checkpoint)
{
    bool is_it = number && number == job->order.number && region_order_is_open(job) &&
                 job->order.kind == ORR_ORDER_CHECKPOINT;
    if (!is_it)
        return;
    region_order_close(ctx, self, job, ORR_OK, ORR_LIT(""));
    answer_waits(ctx, self, job, checkpoint);
}

/* It may end the generation with a checkpoint. */
bool region_order_is_move(const struct region_order *order)
{
    return order->kind == ORR_ORDER_VACATE ||
           (order->kind == ORR_ORDER_RESIZE && order->checkpoint);
}

/* Its generation has ended, the job has not.  Returns whether nothing of its work is lost. */
bool region_order_survives(struct orr_ctx *ctx,
                           struct region *self,
                           struct region_job *job,
                           uint32_t outcome)
{
    const struct region_order *order = &job->order;
    bool was_open = region_order_is_open(job);
    bool is_saved = region_checkpoint_find(self, job, order->checkpoint) != NULL;
    bool is_moved = outcome == ORR_OUTCOME_MOVED
                        ? region_checkpoint_newest(self, job) != NULL
                        : outcome != ORR_OUTCOME_FAILED && was_open &&
                              region_order_is_move(order) && is_saved;
    if (!was_open)
        return is_moved;
    if ((region_order_is_move(order) && is_moved) || order->kind == ORR_ORDER_RUN)
        move(ctx, self, job, ORR_ORDER_IS_QUEUED);
    else if (order->kind == ORR_ORDER_SUSPEND)
        region_order_close(ctx, self, job, ORR_OK, orr_str(job->reason));
    else
        region_order_close(ctx, self, job, ORR_ESTATE, orr_str(job->reason));
    return is_moved;
}

/* The job has ended: nothing can come of it any more. */
void region_order_end(struct orr_ctx *ctx, struct region *self, struct region_job *job)
{
    char text[sizeof(job->reason) + 32];
    if (!region_order_is_open(job) && job->order.state != ORR_ORDER_IS_QUEUED)
        return;
    snprintf(text,
             sizeof(text),
             "the job has ended%s%s",
             job->reason[0] ? ": " : "",
             job->reason);
    region_order_close(ctx, self, job, ORR_ESTATE, orr_str(text));
}

/* ---- another region's answer ---- */

void region_order_moved(struct orr_ctx *ctx,
                        struct region *self,
                        struct region_job *job)
{
    char region[ORR_NAME_MAX];
    memcpy(region, job->to_region, sizeof(region));
    region_order_close(ctx, self, job, ORR_OK, ORR_LIT(""));
    memcpy(job->to_region, region, sizeof(region));
}

void region_order_refused(struct orr_ctx *ctx,
                          struct region *self,
                          struct region_job *job,
                          uint32_t code,
                          struct orr_str text)
{
    region_order_close(ctx, self, job, code, text);
}
