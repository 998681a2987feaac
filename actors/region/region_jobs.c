/* SPDX-License-Identifier: Apache-2.0
 * region_jobs.c - a job's way through the region: queue, hand over, wait, again or end.
 *
 *   QUEUED -> ASSIGNING -> HELD -> ENDED            the plain way
 *   ASSIGNING -> QUEUED                             the cluster said no, or nothing: without the permit, which only the
 *                                                   region gives, nothing was launched, so the offer can be withdrawn
 *   HELD -> BACKOFF -> QUEUED                       it ended and is to be tried again
 *   HELD -> RECOVERING -> HELD                      its cluster restarted and is given it again
 *   HELD or QUEUED -> LEAVING -> ENDED, or QUEUED   it goes to another region, or was refused there (region_peers.c)
 */
#include "region_calls.h"

enum { ASK_MS = 2000, BACKOFF_MIN_MS = 100, BACKOFF_MAX_MS = 5000 };

/* ---- lists ---- */

void region_list_init(struct region_list *list)
{
    *list = (struct region_list){ORR_NONE, ORR_NONE, 0};
}

typedef struct region_link *(*link_f)(struct region_job *job);

static struct region_link *link_all(struct region_job *job)
{
    return &job->in_all;
}

static struct region_link *link_progress(struct region_job *job)
{
    return &job->in_progress;
}

/* after: ORR_NONE puts it first. */
static void list_insert(struct region *self,
                        struct region_list *list,
                        link_f link,
                        struct region_job *job,
                        uint32_t after)
{
    uint32_t index = orr_pool_index(&self->jobs, job);
    struct region_job *prev = region_job_at(self, after);
    struct region_link *at = link(job);
    at->prev = after;
    at->next = prev ? link(prev)->next : list->head;
    struct region_job *next = region_job_at(self, at->next);
    *(prev ? &link(prev)->next : &list->head) = index;
    *(next ? &link(next)->prev : &list->tail) = index;
    list->n++;
}

static void list_remove(struct region *self,
                        struct region_list *list,
                        link_f link,
                        struct region_job *job)
{
    struct region_link *at = link(job);
    struct region_job *prev = region_job_at(self, at->prev);
    struct region_job *next = region_job_at(self, at->next);
    *(prev ? &link(prev)->next : &list->head) = at->next;
    *(next ? &link(next)->prev : &list->tail) = at->prev;
    list->n--;
}

/* ---- the table ---- */

void region_list_append_all(struct region *self, struct region_job *job)
{
    list_insert(self, &self->all, link_all, job, self->all.tail);
}

void region_list_append_finished(struct region *self, struct region_job *job)
{
    list_insert(self, &self->finished, link_progress, job, self->finished.tail);
}

/* An empty job of that id, in no list. */
struct region_job *region_job_take(struct region *self, struct orr_str id)
{
    struct region_job *job =
        id.len < ORR_JOB_ID_MAX ? orr_pool_take(&self->jobs) : NULL;
    if (!job)
        return NULL;
    orr_str_copy(job->id, sizeof(job->id), id);
    job->spec = job->places = job->tail = job->stop = ORR_NONE;
    job->cluster = job->first_wait = job->first_checkpoint = ORR_NONE;
    job->culprit = -1;
    job->phase = ORR_JOB_QUEUED;
    orr_map_add(&self->jobs_by_id, job);
    return job;
}

/* The oldest finished job that may be forgotten: not one of which another region does not know yet that it came here.  NULL:
 * none near the head. */
static struct region_job *forgettable(struct region *self)
{
    enum { LOOK_MAX = 64 };
    struct region_job *job = region_job_at(self, self->finished.head);
    for (uint32_t i = 0; job && i < LOOK_MAX; i++) {
        if (!job->from_region[0] || job->is_from_known)
            return job;
        job = region_job_at(self, job->in_progress.next);
    }
    return NULL;
}

static void make_room(struct orr_ctx *ctx, struct region *self, bool is_needed)
{
    struct region_job *job = is_needed ? forgettable(self) : NULL;
    if (job)
        region_job_drop(ctx, self, job);
}

/* id: empty for a new one. */
struct region_job *
region_job_new(struct orr_ctx *ctx, struct region *self, struct orr_str given)
{
    make_room(ctx, self, self->jobs.n_used == self->jobs.cap);
    if (self->jobs.n_used == self->jobs.cap)
        return NULL;
    static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
    char number[16];
    char id[ORR_JOB_ID_MAX];
    size_t at = sizeof(number) - 1;
    number[at] = '\0';
    for (uint64_t n = self->next_counter; n; n /= 36)
        number[--at] = digits[n % 36];
    snprintf(id, sizeof(id), "%s-%s", self->args.region, number + at);
    struct region_job *job = region_job_take(self, given.len ? given : orr_str(id));
    job->counter = self->next_counter++;
    job->is_recorded = true;
    job->submitted_unix_ms = job->changed_unix_ms = ctx->wall_ms;
    region_list_append_all(self, job);
    return job;
}

void region_job_read_spec(struct region_job *job, const struct orr_msg_job_spec *spec)
{
    orr_str_copy(job->name, sizeof(job->name), spec->name);
    orr_str_copy(job->project, sizeof(job->project), spec->project);
    job->tier = spec->tier < ORR_TIER_MAX_ ? spec->tier : ORR_TIER_BASIC;
    job->world = spec->world;
    job->gpus_min = spec->gpus_min;
    job->gpus_max = spec->gpus_max;
    job->shards = spec->shards ? spec->shards : 1;
    job->has_rules = spec->gpu_types.n || spec->exclude.n || spec->gpu_memory_bytes;
    job->retries_infra = spec->retries_infra;
    job->retries_user = spec->retries_user;
    job->checkpoint_keep = spec->checkpoint_keep ? spec->checkpoint_keep : 1;
    job->backoff_min_ms = spec->backoff_min_ms;
    job->backoff_max_ms = spec->backoff_max_ms;
}

/* What a rank said last: a courtesy, so without room there is none. */
void region_job_keep_tail(struct region *self,
                          struct region_job *job,
                          struct orr_str tail)
{
    const struct orr_bytes bytes = {(const uint8_t *)tail.ptr, tail.len};
    orr_blob_drop(&self->blobs, job->tail);
    job->tail = ORR_NONE;
    if (bytes.len > 0 && bytes.len <= ORR_TAIL_MAX &&
        orr_blob_put(&self->blobs, bytes, &job->tail) != ORR_OK)
        job->tail = ORR_NONE;
}

/* Of the tables; lists are the caller's. */
void region_job_forget(struct region *self, struct region_job *job)
{
    orr_map_remove(&self->jobs_by_id, job);
    if (job->key[0])
        orr_map_remove(&self->jobs_by_key, job);
    orr_blob_drop(&self->blobs, job->spec);
    orr_blob_drop(&self->blobs, job->places);
    orr_blob_drop(&self->blobs, job->tail);
    orr_blob_drop(&self->blobs, job->stop);
    while (job->first_checkpoint != ORR_NONE)
        region_checkpoint_forget(
            self, job, region_checkpoint_at(self, job->first_checkpoint));
    orr_pool_give(&self->jobs, job);
}

/* A finished job makes room. */
void region_job_drop(struct orr_ctx *ctx, struct region *self, struct region_job *job)
{
    orr_timer_cancel(ctx, region_job_timer_id(self, job, REGION_JOB_START));
    region_checkpoints_end(ctx, self, job);
    region_save_job_end(ctx, self, job);
    list_remove(self, &self->finished, link_progress, job);
    list_remove(self, &self->all, link_all, job);
    region_job_forget(self, job);
}

/* Ordered by age: a new job goes last at once, one that comes back is old and near the front. */
void region_enqueue(struct region *self, struct region_job *job)
{
    struct region_list *queue = &self->queue[job->tier];
    uint32_t after = queue->tail;
    struct region_job *other = region_job_at(self, after);
    if (other && other->counter > job->counter) {
        after = ORR_NONE;
        for (uint32_t at = queue->head; at != ORR_NONE; at = other->in_progress.next) {
            other = region_job_at(self, at);
            if (other->counter > job->counter)
                break;
            after = at;
        }
    }
    job->where = REGION_QUEUED;
    list_insert(self, queue, link_progress, job, after);
}

void region_dequeue(struct region *self, struct region_job *job)
{
    if (self->resume_at == orr_pool_index(&self->jobs, job))
        self->resume_at = job->in_progress.next;
    list_remove(self, &self->queue[job->tier], link_progress, job);
}

/* ---- phases ---- */

/* Devices of a suspended job are free for others.  That it is out of reach, or about to move, gives it none back. */
static void park(struct region *self, struct region_job *job, uint32_t phase)
{
    bool was_parked = job->is_parked;
    if (phase == ORR_JOB_SUSPENDED)
        job->is_parked = region_is_with_cluster(job);
    else if (phase != ORR_JOB_UNKNOWN && phase != ORR_JOB_STOPPING)
        job->is_parked = false;
    if (was_parked == job->is_parked || !region_is_with_cluster(job) || !job->gpus_max)
        return;
    region_debit(self, job, was_parked ? 1 : -1);
}

enum orr_err region_phase(struct orr_ctx *ctx,
                          struct region *self,
                          struct region_job *job,
                          uint32_t phase,
                          const char *cause)
{
    uint32_t from = job->phase;
    if (from == phase)
        return ORR_OK;
    enum orr_err err = orr_sm_move(ctx, &orr_job_sm, &job->phase, phase);
    if (err != ORR_OK)
        return err;
    job->changed_unix_ms = ctx->wall_ms;
    self->n_running += phase == ORR_JOB_RUNNING;
    self->n_running -= from == ORR_JOB_RUNNING;
    park(self, job, phase);
    region_save(self, job, 0);
    region_soft_job(ctx, self, job);
    char subject[ORR_JOB_ID_MAX + 4];
    snprintf(subject, sizeof(subject), "job/%s", job->id);
    region_event(ctx,
                 self,
                 &(struct orr_msg_event){.type = ORR_LIT("job.state"),
                                         .subject = orr_str(subject),
                                         .generation = job->generation,
                                         .from = orr_str(orr_job_phase_name(from)),
                                         .to = orr_str(orr_job_phase_name(phase)),
                                         .cause = orr_str(cause),
                                         .principal = orr_str(job->owner)});
    return ORR_OK;
}

uint32_t region_job_timer_id(const struct region *self,
                             const struct region_job *job,
                             enum region_job_timer kind)
{
    return REGION_T_JOB + REGION_JOB_TIMERS * orr_pool_index(&self->jobs, job) +
           (uint32_t)kind;
}

static void
forget_asks(struct orr_ctx *ctx, struct region *self, struct region_job *job)
{
    orr_timer_cancel(ctx, region_job_timer_id(self, job, REGION_JOB_START));
    orr_timer_cancel(ctx, region_job_timer_id(self, job, REGION_JOB_STOP));
    orr_timer_cancel(ctx, region_job_timer_id(self, job, REGION_JOB_ORDER));
    job->assign_seq = job->stop_seq = job->order.seq = job->peer_seq = 0;
}

/* Take it out of wherever it is. */
static void detach(struct orr_ctx *ctx, struct region *self, struct region_job *job)
{
    if (job->where == REGION_QUEUED)
        region_dequeue(self, job);
    if (job->where == REGION_ASSIGNING)
        region_offered(self, job, -1);
    bool has_units = !job->is_parked || !job->gpus_max;
    if (region_is_with_cluster(job) && has_units)
        region_debit(self, job, -1);
    job->is_parked = false;
    forget_asks(ctx, self, job);
}

/* Back to the queue, after a delay; or to wait for its resume. */
enum orr_err region_requeue(struct orr_ctx *ctx,
                            struct region *self,
                            struct region_job *job,
                            uint64_t delay_ms,
                            struct orr_str cause)
{
    detach(ctx, self, job);
    orr_str_copy(job->reason, sizeof(job->reason), cause);
    bool has_places = region_has_places(job);
    orr_blob_drop(&self->blobs, job->places);
    job->places = ORR_NONE;
    if (job->is_to_suspend)
        delay_ms = 0;
    job->start_unix_ms = delay_ms ? ctx->wall_ms + delay_ms : 0;
    job->restore = 0;
    region_save(self, job, has_places ? REGION_DIRTY_PLACES : 0);
    if (job->is_to_suspend) {
        job->where = REGION_PARKED;
        return region_phase(ctx, self, job, ORR_JOB_SUSPENDED, job->reason);
    }
    if (delay_ms == 0) {
        region_enqueue(self, job);
        region_schedule(ctx, self);
    } else {
        job->where = REGION_BACKOFF;
        orr_timer_set(
            ctx, region_job_timer_id(self, job, REGION_JOB_START), delay_ms, 0);
    }
    return region_phase(ctx, self, job, ORR_JOB_QUEUED, job->reason);
}

/* Nothing starts it here any more, until the other region has refused it.  The generation is that of the handover: what is
 * still said of earlier ones is old. */
enum orr_err
region_leave(struct orr_ctx *ctx, struct region *self, struct region_job *job)
{
    char cause[ORR_NAME_MAX + 16];
    detach(ctx, self, job);
    snprintf(cause, sizeof(cause), "to region %s", job->to_region);
    bool has_places = region_has_places(job);
    orr_blob_drop(&self->blobs, job->places);
    job->places = ORR_NONE;
    job->where = REGION_LEAVING;
    job->generation++;
    job->update_incarnation = 0;
    job->update_step = 0;
    job->start_unix_ms = 0;
    job->restore = 0;
    job->token = 0;
    job->peer_code = ORR_OK;
    job->backoff_ms = 0;
    job->reason[0] = '\0';
    region_save(self, job, has_places ? REGION_DIRTY_PLACES : 0);
    region_peer_ask(ctx, self, job);
    return region_phase(ctx, self, job, ORR_JOB_QUEUED, cause);
}

enum orr_err region_end(struct orr_ctx *ctx,
                        struct region *self,
                        struct region_job *job,
                        uint32_t phase)
{
    region_order_end(ctx, self, job);
    detach(ctx, self, job);
    job->where = REGION_ENDED;
    job->restore = 0;
    if (phase != ORR_JOB_MOVED)
        job->is_settled = true;
    if (phase != ORR_JOB_FAILED &&
        phase != ORR_JOB_MOVED) /* nobody goes on from there */
        region_checkpoints_end(ctx, self, job);
    region_list_append_finished(self, job);
    enum orr_err err = region_phase(ctx, self, job, phase, job->reason);
    if (err != ORR_OK)
        return err;
    while (job->first_wait != ORR_NONE) {
        struct region_wait *wait = orr_pool_at(&self->waits, job->first_wait);
        job->first_wait = wait->next;
        region_reply_detail(ctx, self, job, &wait->request);
        orr_pool_give(&self->waits, wait);
    }
    make_room(ctx, self, self->finished.n > self->args.finished_max);
    region_schedule(ctx, self);
    return ORR_OK;
}

/* ---- towards the cluster ---- */

uint64_t region_tag(enum region_tag kind, uint32_t index, uint32_t seq)
{
    return (uint64_t)kind << 56 | (uint64_t)(seq & 0xffffff) << 32 | index;
}

uint32_t region_fresh_seq(struct region *self)
{
    self->next_seq = (self->next_seq + 1) & 0xffffff;
    return self->next_seq ? self->next_seq : ++self->next_seq;
}

void region_job_assign(struct orr_ctx *ctx, struct region *self, struct region_job *job)
{
    const struct region_cluster *cluster = orr_pool_at(&self->clusters, job->cluster);
    bool is_recovery = job->where == REGION_RECOVERING;
    const struct region_checkpoint *from =
        job->restore ? region_checkpoint_find(self, job, job->restore) : NULL;
    job->assign_seq = region_fresh_seq(self);
    orr_ask(ctx,
            cluster->addr,
            ASK_MS,
            region_tag(
                REGION_TAG_ASSIGN, orr_pool_index(&self->jobs, job), job->assign_seq),
            job_assign,
            .job = orr_str(job->id),
            .generation = job->generation,
            .spec = region_spec(self, job),
            .is_recovery = is_recovery,
            .ranks = is_recovery ? region_places(self, job)
                                 : (struct orr_list_rank_place){0},
            .manifest = from ? region_manifest(self, from) : (struct orr_bytes){0},
            .want_node = orr_str(job->to_node),
            .devices = region_order_devices(job),
            .is_suspended = is_recovery && job->is_parked);
}

void region_job_stop(struct orr_ctx *ctx, struct region *self, struct region_job *job)
{
    const struct region_cluster *cluster = orr_pool_at(&self->clusters, job->cluster);
    job->stop_seq = region_fresh_seq(self);
    orr_ask(
        ctx,
        cluster->addr,
        ASK_MS,
        region_tag(REGION_TAG_STOP, orr_pool_index(&self->jobs, job), job->stop_seq),
        job_stop,
        .job = orr_str(job->id),
        .generation = job->generation,
        .why = orr_str(job->reason));
}

static uint64_t longer_backoff(struct orr_ctx *ctx, struct region_job *job)
{
    job->backoff_ms = job->backoff_ms ? job->backoff_ms * 2 : BACKOFF_MIN_MS;
    if (job->backoff_ms > BACKOFF_MAX_MS)
        job->backoff_ms = BACKOFF_MAX_MS;
    return job->backoff_ms / 2 + orr_random(ctx) % job->backoff_ms;
}

void region_job_retry(struct orr_ctx *ctx,
                      struct region *self,
                      struct region_job *job,
                      enum region_job_timer kind)
{
    orr_timer_set(
        ctx, region_job_timer_id(self, job, kind), longer_backoff(ctx, job), 0);
}

/* It took what it was offered; if it was silent and given up before, there is something to give up again. */
void region_cluster_has(struct region *self, struct region_job *job)
{
    struct region_cluster *cluster = orr_pool_at(&self->clusters, job->cluster);
    region_offered(self, job, -1);
    job->where = REGION_HELD;
    cluster->is_given_up = false;
}

enum orr_err region_assign_answered(struct orr_ctx *ctx,
                                    struct region *self,
                                    struct region_job *job,
                                    uint32_t code)
{
    job->assign_seq = 0;
    if (code == ORR_OK) {
        job->backoff_ms = 0;
        if (job->where == REGION_ASSIGNING)
            region_cluster_has(self, job);
        job->where = REGION_HELD;
        if (job->is_cancelled)
            region_job_stop(ctx, self, job);
        else
            region_order_send(ctx, self, job);
        return ORR_OK;
    }
    if (job->where == REGION_RECOVERING) {
        region_job_retry(ctx, self, job, REGION_JOB_START);
        return ORR_OK;
    }
    if (job->refused_at != self->capacity_seq)
        job->refused_by = 0;
    job->refused_at = self->capacity_seq;
    job->refused_by |= UINT64_C(1) << job->cluster;
    return region_requeue(ctx,
                          self,
                          job,
                          code == ORR_ENODEV ? 0 : longer_backoff(ctx, job) + 1,
                          ORR_LIT(""));
}

enum orr_err region_cancel(struct orr_ctx *ctx,
                           struct region *self,
                           struct region_job *job,
                           struct orr_str why)
{
    orr_str_copy(
        job->reason, sizeof(job->reason), why.len ? why : ORR_LIT("cancelled"));
    job->is_cancelled = true;
    region_save(self, job, 0);
    bool may_run = job->where == REGION_RECOVERING ||
                   (job->where == REGION_HELD && region_has_places(job));
    if (!may_run)
        return region_end(ctx, self, job, ORR_JOB_CANCELLED);
    if (job->where == REGION_HELD && !job->stop_seq)
        region_job_stop(ctx, self, job);
    return ORR_OK;
}
