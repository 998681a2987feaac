/* SPDX-License-Identifier: Apache-2.0
 * region_checkpoints.c - what the region remembers of checkpoints: their manifests, and which of them counts.
 *
 * A checkpoint counts once its record is in the ledger (the answer to checkpoint_commit).  Beyond the spec's `keep` the oldest
 * is forgotten; what no manifest names, a store may collect.  Invariants: numbers grow in the list of a job; (generation, cut)
 * names a checkpoint, so a repeated commit makes no second one; a manifest names a part for each rank.
 * A job that is done or was cancelled has no use for its checkpoints; one that failed keeps them, for whoever looks.
 */
#include "region_calls.h"

#include <inttypes.h>

struct region_checkpoint *region_checkpoint_find(const struct region *self,
                                                 const struct region_job *job,
                                                 uint64_t number)
{
    struct region_checkpoint *at = region_checkpoint_at(self, job->first_checkpoint);
    while (at && at->number != number)
        at = region_checkpoint_at(self, at->next);
    return at;
}

/* The newest one that nothing speaks against; NULL: none, start from the beginning. */
struct region_checkpoint *region_checkpoint_newest(const struct region *self,
                                                   const struct region_job *job)
{
    struct region_checkpoint *best = NULL;
    struct region_checkpoint *at = region_checkpoint_at(self, job->first_checkpoint);
    for (; at; at = region_checkpoint_at(self, at->next))
        if (!job->restore_below || at->number < job->restore_below)
            best = at;
    return best;
}

/* Encoded, in scratch memory until the next call. */
struct orr_bytes region_manifest(struct region *self,
                                 const struct region_checkpoint *checkpoint)
{
    return orr_blob_get(&self->blobs,
                        checkpoint->manifest,
                        self->manifest_body.at,
                        self->manifest_body.size);
}

void region_checkpoint_row(const struct region_job *job,
                           const struct region_checkpoint *checkpoint,
                           struct orr_rec_checkpoint_row *ret_row)
{
    *ret_row =
        (struct orr_rec_checkpoint_row){.job = orr_str(job->id),
                                        .number = checkpoint->number,
                                        .generation = checkpoint->generation,
                                        .cut = checkpoint->cut,
                                        .level = checkpoint->level,
                                        .created_unix_ms = checkpoint->created_unix_ms,
                                        .bytes = checkpoint->bytes,
                                        .new_bytes = checkpoint->new_bytes,
                                        .paused_ms = checkpoint->paused_ms,
                                        .cause = orr_str(checkpoint->cause)};
}

struct orr_msg_manifest *region_manifest_decode(struct region *self,
                                                struct orr_bytes bytes)
{
    return orr_msg_decode(orr_msg_desc_manifest(),
                          bytes.ptr,
                          bytes.len,
                          self->manifest.at,
                          self->manifest.size) == ORR_OK
               ? self->manifest.at
               : NULL;
}

/* Before the first one that is newer. */
static void insert(struct region *self,
                   struct region_job *job,
                   struct region_checkpoint *checkpoint)
{
    uint32_t *link = &job->first_checkpoint;
    struct region_checkpoint *at;
    while ((at = region_checkpoint_at(self, *link)) != NULL &&
           at->number < checkpoint->number)
        link = &at->next;
    checkpoint->next = *link;
    *link = orr_pool_index(&self->checkpoints, checkpoint);
}

/* From a manifest as it is recorded.  Errors: ORR_EPROTO, ORR_ENOSPC; nothing has changed. */
enum orr_err region_checkpoint_keep(struct region *self,
                                    struct region_job *job,
                                    struct orr_bytes manifest,
                                    struct region_checkpoint **ret_checkpoint)
{
    const struct orr_msg_manifest *msg = region_manifest_decode(self, manifest);
    if (!msg)
        return ORR_EPROTO;
    uint32_t blob;
    struct region_checkpoint *old = region_checkpoint_find(self, job, msg->row.number);
    if (orr_blob_put(&self->blobs, manifest, &blob) != ORR_OK)
        return ORR_ENOSPC;
    struct region_checkpoint *checkpoint =
        old ? old : orr_pool_take(&self->checkpoints);
    if (!checkpoint) {
        orr_blob_drop(&self->blobs, blob);
        return ORR_ENOSPC;
    }
    if (old)
        orr_blob_drop(&self->blobs, old->manifest);
    checkpoint->manifest = blob;
    checkpoint->number = msg->row.number;
    checkpoint->generation = msg->row.generation;
    checkpoint->cut = msg->row.cut;
    checkpoint->level = msg->row.level;
    checkpoint->created_unix_ms = msg->row.created_unix_ms;
    checkpoint->bytes = msg->row.bytes;
    checkpoint->new_bytes = msg->row.new_bytes;
    checkpoint->paused_ms = msg->row.paused_ms;
    orr_str_copy(checkpoint->cause, sizeof(checkpoint->cause), msg->row.cause);
    if (!old)
        insert(self, job, checkpoint);
    *ret_checkpoint = checkpoint;
    return ORR_OK;
}

void region_checkpoint_forget(struct region *self,
                              struct region_job *job,
                              struct region_checkpoint *checkpoint)
{
    uint32_t *link = &job->first_checkpoint;
    while (*link != orr_pool_index(&self->checkpoints, checkpoint))
        link = &region_checkpoint_at(self, *link)->next;
    *link = checkpoint->next;
    orr_blob_drop(&self->blobs, checkpoint->manifest);
    orr_pool_give(&self->checkpoints, checkpoint);
}

static void event(struct orr_ctx *ctx,
                  struct region *self,
                  const struct region_job *job,
                  uint64_t number,
                  const char *to,
                  struct orr_str cause)
{
    char subject[ORR_JOB_ID_MAX + 4];
    char which[24];
    snprintf(subject, sizeof(subject), "job/%s", job->id);
    snprintf(which, sizeof(which), "%" PRIu64, number);
    region_event(ctx,
                 self,
                 &(struct orr_msg_event){.type = ORR_LIT("job.checkpoint"),
                                         .subject = orr_str(subject),
                                         .generation = job->generation,
                                         .from = orr_str(which),
                                         .to = orr_str(to),
                                         .cause = cause,
                                         .principal = orr_str(job->owner)});
}

static void drop(struct orr_ctx *ctx,
                 struct region *self,
                 struct region_job *job,
                 struct region_checkpoint *checkpoint,
                 const char *why)
{
    event(ctx, self, job, checkpoint->number, "removed", orr_str(why));
    region_save_checkpoint_end(ctx, self, job, checkpoint);
    region_collect_soon(ctx, self);
    region_checkpoint_forget(self, job, checkpoint);
}

/* The job itself is about to be forgotten. */
void region_checkpoints_end(struct orr_ctx *ctx,
                            struct region *self,
                            struct region_job *job)
{
    struct region_checkpoint *at;
    while ((at = region_checkpoint_at(self, job->first_checkpoint)) != NULL) {
        region_save_checkpoint_end(ctx, self, job, at);
        region_collect_soon(ctx, self);
        region_checkpoint_forget(self, job, at);
    }
}

static void prune(struct orr_ctx *ctx, struct region *self, struct region_job *job)
{
    uint32_t n = 0;
    for (const struct region_checkpoint *at =
             region_checkpoint_at(self, job->first_checkpoint);
         at;
         at = region_checkpoint_at(self, at->next))
        n++;
    for (; n > job->checkpoint_keep; n--)
        drop(ctx,
             self,
             job,
             region_checkpoint_at(self, job->first_checkpoint),
             "more than checkpoint.keep");
}

/* ---- commits ---- */

static struct region_checkpoint *committed(const struct region *self,
                                           const struct region_job *job,
                                           const struct orr_rec_checkpoint_row *row)
{
    struct region_checkpoint *at = region_checkpoint_at(self, job->first_checkpoint);
    while (at && (at->generation != row->generation || at->cut != row->cut))
        at = region_checkpoint_at(self, at->next);
    return at;
}

static enum orr_err check_parts(struct orr_ctx *ctx,
                                const struct region_job *job,
                                const struct orr_msg_manifest *manifest)
{
    uint32_t n = 0;
    bool is_whole =
        manifest && manifest->world == job->world && manifest->parts.n == job->world;
    while (is_whole && n < job->world && manifest->parts.at[n].rank == n &&
           manifest->parts.at[n].hash.len > 0)
        n++;
    if (is_whole && n == job->world)
        return ORR_OK;
    return orr_refuse(ctx,
                      ORR_EINVAL,
                      "job %s: the manifest does not name a part of rank %u, of %u",
                      job->id,
                      n,
                      job->world);
}

static bool
has_later(const struct region *self, const struct region_job *job, uint64_t number)
{
    const struct region_checkpoint *at =
        region_checkpoint_at(self, job->first_checkpoint);
    while (at && at->number <= number)
        at = region_checkpoint_at(self, at->next);
    return at != NULL;
}

/* The number: allotted with the order, or the next one; also for an order that a periodic one has overtaken, since a later number is
 * a later state. */
static enum orr_err number_of(struct orr_ctx *ctx,
                              const struct region *self,
                              const struct region_job *job,
                              const struct orr_msg_checkpoint_commit *msg,
                              uint64_t *ret_number)
{
    *ret_number = msg->order ? msg->row.number : job->checkpoint + 1;
    bool is_given = *ret_number > 0 && *ret_number <= job->checkpoint;
    if (is_given && has_later(self, job, *ret_number)) {
        *ret_number = job->checkpoint + 1;
        return ORR_OK;
    }
    if (!msg->order || (is_given && !region_checkpoint_find(self, job, *ret_number)))
        return ORR_OK;
    return orr_refuse(ctx,
                      ORR_EINVAL,
                      "job %s: no order has asked for checkpoint %" PRIu64,
                      job->id,
                      msg->row.number);
}

enum orr_err region_checkpoint_commit(struct orr_ctx *ctx,
                                      struct region *self,
                                      const struct orr_msg_checkpoint_commit *msg)
{
    struct region_job *job = NULL;
    enum orr_err err =
        region_speaks_for(ctx, self, msg->row.job, msg->row.generation, &job);
    if (err != ORR_OK)
        return err;
    struct region_checkpoint *again = committed(self, job, &msg->row);
    if (again) { /* a repeat, or a suspended job that is saved once more */
        region_order_committed(ctx, self, job, msg->order, again);
        return ORR_OK;
    }
    uint64_t number;
    struct orr_msg_manifest *manifest = region_manifest_decode(self, msg->manifest);
    err = check_parts(ctx, job, manifest);
    if (err == ORR_OK)
        err = number_of(ctx, self, job, msg, &number);
    if (err != ORR_OK)
        return err;
    manifest->row = msg->row;
    manifest->row.number = number;
    if (!manifest->row.created_unix_ms)
        manifest->row.created_unix_ms = ctx->wall_ms;
    size_t len;
    struct region_checkpoint *checkpoint = NULL;
    err = orr_msg_encode(orr_msg_desc_manifest(),
                         manifest,
                         self->manifest_body.at,
                         self->manifest_body.size,
                         &len);
    if (err == ORR_OK)
        err = region_checkpoint_keep(
            self,
            job,
            (struct orr_bytes){self->manifest_body.at, (uint32_t)len},
            &checkpoint);
    if (err != ORR_OK)
        return orr_refuse(ctx,
                          ORR_ENOSPC,
                          "region %s has no room for checkpoint %" PRIu64
                          " of %s; remove old ones with `orrery checkpoint rm`",
                          self->args.region,
                          number,
                          job->id);
    if (number > job->checkpoint)
        job->checkpoint = number;
    if (msg->order && msg->order == job->order.number)
        job->order.checkpoint = number;
    job->restore_below = job->restore_tries = 0;
    job->is_settled = true;
    region_save(self, job, 0);
    region_save_checkpoint(ctx, self, job, checkpoint);
    event(ctx, self, job, number, "committed", msg->row.cause);
    region_order_committed(ctx, self, job, msg->order, checkpoint);
    prune(ctx, self, job);
    return ORR_OK;
}

/* ---- restores ---- */

/* A generation that was to be restored is lost: does something speak against its checkpoint?  Says so in the reason. */
void region_restore_failed(struct orr_ctx *ctx,
                           struct region *self,
                           struct region_job *job,
                           bool is_damaged)
{
    enum { TRIES_MAX = 3 };
    uint64_t number = job->restore;
    job->restore_tries++;
    if (!is_damaged && job->restore_tries < TRIES_MAX)
        return;
    job->restore_tries = 0;
    job->restore_below = number;
    char why[sizeof(job->reason)];
    char then[64] = "it starts from the beginning";
    const struct region_checkpoint *older = region_checkpoint_newest(self, job);
    if (older)
        snprintf(
            then, sizeof(then), "it goes on from checkpoint %" PRIu64, older->number);
    memcpy(why, job->reason, sizeof(why));
    snprintf(job->reason,
             sizeof(job->reason),
             "checkpoint %" PRIu64 " cannot be restored, %s: %.*s",
             number,
             then,
             (int)(sizeof(job->reason) - 100),
             why);
    event(ctx, self, job, number, "not restored", orr_str(job->reason));
}

/* ---- clients ---- */

enum orr_err region_checkpoint_list(struct orr_ctx *ctx,
                                    struct region *self,
                                    const struct orr_msg_checkpoint_list *msg)
{
    struct orr_rec_checkpoint_row *rows = self->list.at;
    uint32_t cap = (uint32_t)(self->list.size / sizeof(*rows));
    uint32_t n = 0;
    struct region_job *only = NULL;
    enum orr_err err =
        msg->job.len ? region_find_job(ctx, self, msg->job, &only) : ORR_OK;
    if (err != ORR_OK)
        return err;
    const struct region_job *job = only ? only : region_job_at(self, self->all.head);
    for (; job; job = only ? NULL : region_job_at(self, job->in_all.next))
        for (const struct region_checkpoint *at =
                 region_checkpoint_at(self, job->first_checkpoint);
             at && n < cap;
             at = region_checkpoint_at(self, at->next))
            region_checkpoint_row(job, at, &rows[n++]);
    orr_reply(ctx, checkpoint_rows, .rows = {rows, n});
    return ORR_OK;
}

static enum orr_err find(struct orr_ctx *ctx,
                         struct region *self,
                         struct orr_str id,
                         uint64_t number,
                         struct region_job **ret_job,
                         struct region_checkpoint **ret_checkpoint)
{
    enum orr_err err = region_find_job(ctx, self, id, ret_job);
    if (err != ORR_OK)
        return err;
    struct region_checkpoint *at =
        region_checkpoint_at(self, (*ret_job)->first_checkpoint);
    while (at && (number ? at->number != number : at->next != ORR_NONE))
        at = region_checkpoint_at(self, at->next);
    if (!at)
        return orr_refuse(ctx,
                          ORR_ENOENT,
                          "job %s has no such checkpoint; `orrery checkpoint ls %s` "
                          "lists them",
                          (*ret_job)->id,
                          (*ret_job)->id);
    *ret_checkpoint = at;
    return ORR_OK;
}

enum orr_err region_checkpoint_show(struct orr_ctx *ctx,
                                    struct region *self,
                                    const struct orr_msg_checkpoint_show *msg)
{
    struct region_job *job = NULL;
    struct region_checkpoint *checkpoint = NULL;
    enum orr_err err = find(ctx, self, msg->job, msg->number, &job, &checkpoint);
    if (err != ORR_OK)
        return err;
    const struct orr_msg_manifest *manifest =
        region_manifest_decode(self, region_manifest(self, checkpoint));
    if (!manifest)
        return orr_refuse(
            ctx, ORR_EPROTO, "job %s: its manifest cannot be read", job->id);
    orr_reply(ctx, checkpoint_detail, .row = manifest->row, .parts = manifest->parts);
    return ORR_OK;
}

enum orr_err region_checkpoint_remove(struct orr_ctx *ctx,
                                      struct region *self,
                                      const struct orr_msg_checkpoint_remove *msg)
{
    struct region_job *job = NULL;
    struct region_checkpoint *checkpoint = NULL;
    if (!msg->number)
        return orr_refuse(ctx, ORR_EINVAL, "number: which checkpoint is to go?");
    enum orr_err err = find(ctx, self, msg->job, msg->number, &job, &checkpoint);
    if (err != ORR_OK)
        return err;
    bool is_needed =
        checkpoint->number == job->restore ||
        (region_order_is_move(&job->order) && job->order.state == ORR_ORDER_IS_TAKEN &&
         job->order.checkpoint == msg->number);
    if (is_needed)
        return orr_refuse(ctx,
                          ORR_ESTATE,
                          "job %s is about to go on from checkpoint %" PRIu64
                          "; try again once it runs",
                          job->id,
                          msg->number);
    bool is_lent = job->where == REGION_LEAVING ||
                   (job->phase == ORR_JOB_MOVED && !job->is_settled);
    if (is_lent)
        return orr_refuse(ctx,
                          ORR_ESTATE,
                          "job %s: region %s may have to fetch checkpoint %" PRIu64
                          " from here; try again once it runs there",
                          job->id,
                          job->to_region,
                          msg->number);
    drop(ctx, self, job, checkpoint, "asked");
    return ORR_OK;
}
