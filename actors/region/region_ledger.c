/* SPDX-License-Identifier: Apache-2.0
 * region_ledger.c - standing by, leading, and what lies between.
 *
 * START       as a standby with empty tables: reads the ledger from its beginning
 * STANDBY     follows: the ledger's news say that there is more, ledger_read fetches it, region_fold takes it over
 * LEAD        once the ledger leads in a new term and the tables mean all that is committed: queues are made, clusters
 *             register again, requests are taken
 * COMMIT      what a handler changed is appended as one entry when the handler is through, and all that it sends is held
 *             until the news say that the entry is committed (docs/adr/0008-ledger.md)
 * STOP        a leader that is deposed, or whose ledger stands still, stops itself: its tables may be ahead of the ledger and
 *             what it holds must never leave.  Its supervisor starts it again, as a standby.  It does not lead again in a term
 *             in which it led before: the news cannot tell the tickets of two lives apart
 * FAILURES    of the disk: the ledger says so, leads no more, and every request is refused with its words
 */
#include "region_calls.h"

#include <inttypes.h>

enum { READ_MS = 2000, STUCK_MS = 10000, OPEN_MAX = 8192 };

/* ---- entries ---- */

static void append(struct orr_ctx *ctx, struct region *self)
{
    struct region_ledger *ledger = &self->ledger;
    if (ledger->entry.n == 0)
        return;
    if (ledger->ticket == ledger->ticket_done)
        ledger->progress_ms = orr_now_ms(ctx);
    ledger->ticket++;
    orr_send_now(ctx,
                 ledger->edge,
                 ledger_append,
                 .term = ledger->term,
                 .ticket = ledger->ticket,
                 .records = region_entry_list(&ledger->entry));
    orr_hold(ctx, ledger->ticket);
    region_entry_rewind(&ledger->entry, (struct region_entry_mark){0});
}

/* Each line puts the records of one thing, whole; when the entry is full, into the next one. */
#define PUT(ctx, self, call)                                                           \
    do {                                                                               \
        if ((call) == ORR_OK)                                                          \
            break;                                                                     \
        append(ctx, self);                                                             \
        enum orr_err put_err_ = (call);                                                \
        ORR_ASSERT(put_err_ == ORR_OK); /* an empty entry holds the largest thing */   \
    } while (0)

void region_save(struct region *self, struct region_job *job, unsigned what)
{
    if (!job->dirty) {
        job->next_dirty = self->ledger.first_dirty;
        self->ledger.first_dirty = orr_pool_index(&self->jobs, job);
    }
    job->dirty |= (uint8_t)(what | REGION_DIRTY_JOB);
}

void region_save_event(struct orr_ctx *ctx,
                       struct region *self,
                       const struct orr_msg_event *event)
{
    if (self->seq_first == 0)
        self->seq_first = event->seq;
    PUT(ctx, self, region_put_event(self, event));
    if (event->seq - self->seq_first >= self->args.events_max)
        self->seq_first++;
}

void region_save_cluster(struct orr_ctx *ctx,
                         struct region *self,
                         const struct region_cluster *cluster)
{
    PUT(ctx, self, region_put_cluster(self, cluster));
}

void region_save_node(struct orr_ctx *ctx,
                      struct region *self,
                      const struct region_node *node)
{
    PUT(ctx, self, region_put_node(self, node));
}

void region_save_checkpoint(struct orr_ctx *ctx,
                            struct region *self,
                            const struct region_job *job,
                            const struct region_checkpoint *checkpoint)
{
    PUT(ctx, self, region_put_checkpoint(self, job, checkpoint));
}

void region_save_checkpoint_end(struct orr_ctx *ctx,
                                struct region *self,
                                const struct region_job *job,
                                const struct region_checkpoint *checkpoint)
{
    PUT(ctx, self, region_put_checkpoint_end(self, job, checkpoint));
}

void region_save_job_end(struct orr_ctx *ctx,
                         struct region *self,
                         struct region_job *job)
{
    uint32_t index = orr_pool_index(&self->jobs, job);
    uint32_t *link = &self->ledger.first_dirty;
    while (job->dirty && *link != index)
        link = &region_job_at(self, *link)->next_dirty;
    if (job->dirty)
        *link = job->next_dirty;
    job->dirty = 0;
    if (job->counter >= self->counter_min) {
        self->counter_min = job->counter + 1;
        self->ledger.is_region_dirty = true;
    }
    PUT(ctx, self, region_put_job_end(self, job));
}

static void commit(struct orr_ctx *ctx, struct region *self)
{
    struct region_ledger *ledger = &self->ledger;
    if (ledger->is_region_dirty)
        PUT(ctx, self, region_put_self(self));
    ledger->is_region_dirty = false;
    struct region_job *job;
    while ((job = region_job_at(self, ledger->first_dirty)) != NULL) {
        PUT(ctx, self, region_put_job(self, job, job->dirty));
        ledger->first_dirty = job->next_dirty;
        job->dirty = 0;
    }
    append(ctx, self);
}

/* ---- before and after each handler ---- */

enum orr_err region_must_lead(struct orr_ctx *ctx, const struct region *self)
{
    const struct region_ledger *ledger = &self->ledger;
    if (ledger->is_leading && ledger->ticket - ledger->ticket_done <= OPEN_MAX)
        return ORR_OK;
    if (ledger->is_leading)
        return orr_refuse(ctx,
                          ORR_EBUSY,
                          "region %s: its ledger is behind; try again",
                          self->args.region);
    bool is_elsewhere =
        ledger->leader[0] && strcmp(ledger->leader, self->args.host) != 0;
    if (ledger->trouble && !is_elsewhere)
        return orr_refuse(
            ctx, (enum orr_err)ledger->trouble, "%s", ledger->trouble_text);
    if (ledger->is_elected)
        return orr_refuse(ctx,
                          ORR_ENOTLEADER,
                          "region %s: host %s reads its ledger; try again in a moment",
                          self->args.region,
                          self->args.host);
    return orr_refuse(ctx,
                      ORR_ENOTLEADER,
                      ledger->leader[0]
                          ? "region %s is led by host %s; ask there"
                          : "region %s has no leader now%s; try again in a moment",
                      self->args.region,
                      ledger->leader);
}

/* What this handler says is said only by a leader that still leads: an entry of its own makes it wait for the commit. */
void region_confirm(struct region *self)
{
    self->ledger.is_region_dirty = true;
}

/* "There is no such job", "its generation is another": on these words ranks are stopped and clients give up.  A leader that
 * was cut off may not say them. */
static enum orr_err
refuse_confirmed(struct orr_ctx *ctx, struct region *self, enum orr_err err)
{
    const char *text = ctx->error.text[0] ? ctx->error.text : orr_err_text(err);
    const struct orr_msg_failed failed = {
        .code = err, .msg = ctx->request.msg_id, .text = orr_str(text)};
    ctx->ops->reply(ctx, &ctx->request, orr_msg_desc_failed(), &failed);
    region_confirm(self);
    commit(ctx, self);
    return ORR_OK;
}

/* A handler that fails must have changed nothing: then there is nothing to append, and its effects are discarded. */
enum orr_err region_finish(struct orr_ctx *ctx, struct region *self, enum orr_err err)
{
    struct region_ledger *ledger = &self->ledger;
    if (err == ORR_OK) {
        if (ledger->is_leading)
            commit(ctx, self);
        return ORR_OK;
    }
    bool is_clean = ledger->first_dirty == ORR_NONE && ledger->entry.n == 0 &&
                    !ledger->is_region_dirty;
    if (is_clean && ledger->is_leading && (err == ORR_ENOENT || err == ORR_ESTALE))
        return refuse_confirmed(ctx, self, err);
    if (err == ORR_ECRASH || is_clean)
        return err;
    orr_log(ctx,
            ORR_LOG_ERROR,
            "bug: a handler changed the tables and failed: %s",
            orr_err_name(err));
    return ORR_ECRASH;
}

/* ---- standby ---- */

static void read_more(struct orr_ctx *ctx, struct region *self)
{
    struct region_ledger *ledger = &self->ledger;
    if (ledger->is_reading || ledger->is_leading)
        return;
    ledger->is_reading = true;
    orr_ask(ctx,
            ledger->edge,
            READ_MS,
            (uint64_t)REGION_TAG_LEDGER << 56,
            ledger_read,
            .after = ledger->applied);
}

enum orr_err region_ledger_init(struct orr_ctx *ctx, struct region *self)
{
    struct region_ledger *ledger = &self->ledger;
    ledger->edge = (struct orr_addr){.host = ctx->self.host,
                                     .slot = orr_hash(ORR_LIT("/edge/ledger"))};
    ledger->first_dirty = ORR_NONE;
    return region_entry_init(&ledger->entry);
}

void region_ledger_follow(struct orr_ctx *ctx, struct region *self)
{
    if (!self->ledger.is_leading && self->ledger.applied < self->ledger.committed)
        read_more(ctx, self);
}

static void try_to_lead(struct orr_ctx *ctx, struct region *self)
{
    struct region_ledger *ledger = &self->ledger;
    if (ledger->is_leading || ledger->is_reading || !ledger->is_elected ||
        ledger->applied < ledger->committed)
        return;
    /* The tickets of a former life would be taken for ours: one that is out of order begins a new term. */
    if (ledger->is_used) {
        orr_send(ctx, ledger->edge, ledger_append, .term = ledger->term, .ticket = 0);
        return;
    }
    ledger->is_leading = true;
    ledger->ticket = ledger->ticket_done = 0;
    ledger->progress_ms = orr_now_ms(ctx);
    orr_log(ctx,
            ORR_LOG_INFO,
            "leads region %s in term %" PRIu64 " with %u jobs",
            self->args.region,
            ledger->term,
            self->jobs.n_used);
    region_lead(ctx, self);
}

/* Errors: ORR_ECRASH, the ledger holds what this build cannot take: it must not lead. */
enum orr_err region_ledger_page(struct orr_ctx *ctx,
                                struct region *self,
                                const struct orr_msg_ledger_page *msg)
{
    struct region_ledger *ledger = &self->ledger;
    if (ctx->tag >> 56 != REGION_TAG_LEDGER || !ledger->is_reading)
        return ORR_OK;
    ledger->is_reading = false;
    if (msg->is_reset &&
        ledger->applied > 0) { /* begin anew, from a page that tells all */
        orr_stop(ctx, ctx->self);
        return ORR_OK;
    }
    for (uint32_t i = 0; i < msg->records.n; i++) {
        enum orr_err err = region_fold(ctx, self, &msg->records.at[i]);
        if (err == ORR_OK)
            continue;
        (void)orr_refuse(ctx,
                         ORR_ECRASH,
                         "ledger: %.*s: %s; a newer build wrote it, or jobs_max, "
                         "clusters_max or nodes_max is smaller than it was",
                         ORR_STR_ARGS(msg->records.at[i].key),
                         orr_err_text(err));
        return ORR_ECRASH;
    }
    ledger->applied = msg->last;
    if (msg->committed > ledger->committed)
        ledger->committed = msg->committed;
    region_ledger_follow(ctx, self);
    try_to_lead(ctx, self);
    return ORR_OK;
}

void region_ledger_failed(struct orr_ctx *ctx, struct region *self)
{
    (void)ctx;
    self->ledger.is_reading = false; /* the next news ask again */
}

/* ---- news ---- */

/* Those who wait ask the next leader. */
static void refuse_waits(struct orr_ctx *ctx, struct region *self)
{
    static const char text[] = "this host leads its region no more; ask again";
    for (struct region_wait *wait = NULL;
         (wait = orr_pool_next(&self->waits, wait)) != NULL;) {
        const struct orr_msg_failed failed = {
            .code = ORR_ENOTLEADER, .msg = wait->request.msg_id, .text = ORR_LIT(text)};
        ctx->ops->reply(ctx, &wait->request, orr_msg_desc_failed(), &failed);
    }
}

static void depose(struct orr_ctx *ctx, struct region *self, const char *why)
{
    refuse_waits(ctx, self);
    orr_log(ctx,
            ORR_LOG_WARN,
            "leads region %s no more: %s; %" PRIu64 " changes were not confirmed",
            self->args.region,
            why,
            self->ledger.ticket - self->ledger.ticket_done);
    orr_stop(ctx, ctx->self);
}

enum orr_err region_ledger_news(struct orr_ctx *ctx,
                                struct region *self,
                                const struct orr_msg_ledger_news *msg)
{
    struct region_ledger *ledger = &self->ledger;
    if (msg->term < ledger->term)
        return ORR_OK;
    if (ledger->is_leading && (!msg->is_leading || msg->term != ledger->term)) {
        depose(ctx, self, msg->trouble ? "its disk" : "another term has begun");
        return ORR_OK;
    }
    ledger->term = msg->term;
    ledger->committed = msg->committed;
    ledger->is_elected = msg->is_leading;
    ledger->is_used = !ledger->is_leading && msg->ticket > 0;
    ledger->trouble = msg->trouble;
    orr_str_copy(ledger->trouble_text, sizeof(ledger->trouble_text), msg->text);
    orr_str_copy(ledger->leader, sizeof(ledger->leader), msg->leader);
    if (ledger->is_leading) {
        if (msg->ticket <= ledger->ticket_done || msg->ticket > ledger->ticket)
            return ORR_OK;
        ledger->ticket_done = msg->ticket;
        ledger->progress_ms = orr_now_ms(ctx);
        orr_release(ctx, msg->ticket);
        return ORR_OK;
    }
    region_ledger_follow(ctx, self);
    try_to_lead(ctx, self);
    return ORR_OK;
}

void region_ledger_watch(struct orr_ctx *ctx, struct region *self)
{
    const struct region_ledger *ledger = &self->ledger;
    if (ledger->is_leading && ledger->ticket > ledger->ticket_done &&
        orr_now_ms(ctx) - ledger->progress_ms > STUCK_MS)
        depose(ctx, self, "its ledger confirms nothing");
}
