/* SPDX-License-Identifier: Apache-2.0
 * region_records.c - what the ledger keeps of a region, both ways: tables to records, records to tables.
 *
 *   region              region_record      epoch of the events, job numbers given away
 *   job/ID              job_record         all of a job that a next leader must know
 *   spec/ID             job_spec           as it was submitted
 *   checkpoint/ID/N     manifest           the newest of its checkpoints; what is not named here, stores may collect
 *   places/ID           job_update         its ranks; there from the permit to launch until the job goes back to the queue
 *   cluster/NAME        cluster_record     which life of which host it is
 *   node/CLUSTER/NODE   node_record        its state, as last published
 *   event/SEQ           event              the newest events_max
 *
 * Other keys belong to others, or to a later version: passed over.
 */
#include "orrery/record.h"
#include "region_calls.h"

#include <inttypes.h>

/* ---- to records ---- */

struct job_keys {
    char job[ORR_JOB_ID_MAX + 8];
    char spec[ORR_JOB_ID_MAX + 8];
    char places[ORR_JOB_ID_MAX + 8];
};

static struct job_keys keys_of(const struct region_job *job)
{
    struct job_keys keys;
    snprintf(keys.job, sizeof(keys.job), "job/%s", job->id);
    snprintf(keys.spec, sizeof(keys.spec), "spec/%s", job->id);
    snprintf(keys.places, sizeof(keys.places), "places/%s", job->id);
    return keys;
}

static enum orr_err
put_job(struct region *self, const struct region_job *job, const char *key)
{
    const struct region_cluster *cluster = orr_pool_at(&self->clusters, job->cluster);
    struct orr_bytes tail =
        orr_blob_get(&self->blobs, job->tail, self->tail, sizeof(self->tail));
    const struct orr_msg_job_record record = {
        .counter = job->counter,
        .key = orr_str(job->key),
        .owner = orr_str(job->owner),
        .phase = job->phase,
        .generation = job->generation,
        .is_cancelled = job->is_cancelled,
        .cluster = orr_str(cluster ? cluster->name : ""),
        .units = job->units,
        .update_incarnation = job->update_incarnation,
        .update_step = job->update_step,
        .submitted_unix_ms = job->submitted_unix_ms,
        .changed_unix_ms = job->changed_unix_ms,
        .start_unix_ms = job->start_unix_ms,
        .restarts = job->restarts,
        .user_restarts = job->user_restarts,
        .exit_code = job->exit_code,
        .signal = job->signal,
        .culprit = job->culprit,
        .culprit_node = orr_str(job->culprit_node),
        .reason = orr_str(job->reason),
        .stderr_tail = {(const char *)tail.ptr, tail.len},
        .is_to_suspend = job->is_to_suspend,
        .order = job->order.number,
        .order_kind = job->order.kind,
        .order_state = job->order.state,
        .order_generation = job->order.generation,
        .order_checkpoint = job->order.checkpoint,
        .order_code = job->order.code,
        .order_devices = job->order.devices,
        .order_may_move = job->order.may_move,
        .order_is_own = job->order.is_own,
        .asked_devices = job->asked_devices,
        .order_text = orr_str(job->order.text),
        .to_cluster = orr_str(job->to_cluster),
        .to_node = orr_str(job->to_node),
        .checkpoint = job->checkpoint,
        .restore = job->restore,
        .restore_below = job->restore_below,
        .restore_tries = job->restore_tries,
        .level = job->level,
        .why_level = orr_str(job->why_level),
        .is_parked = job->is_parked,
        .to_region = orr_str(job->to_region),
        .from_region = orr_str(job->from_region),
        .from_generation = job->from_generation,
        .is_from_known = job->is_from_known,
        .is_settled = job->is_settled,
    };
    return region_entry_put(
        &self->ledger.entry, key, orr_msg_desc_job_record(), &record);
}

static enum orr_err put_part(struct region *self, const char *key, uint32_t blob)
{
    struct orr_bytes body =
        orr_blob_get(&self->blobs, blob, self->body.at, self->body.size);
    return body.len ? region_entry_put_bytes(&self->ledger.entry, key, body)
                    : region_entry_end(&self->ledger.entry, key);
}

/* All that changed of one job, or nothing.  Errors: ORR_ENOSPC. */
enum orr_err
region_put_job(struct region *self, const struct region_job *job, unsigned what)
{
    struct region_entry_mark mark = region_entry_mark(&self->ledger.entry);
    const struct job_keys keys = keys_of(job);
    enum orr_err err = put_job(self, job, keys.job);
    if (err == ORR_OK && (what & REGION_DIRTY_SPEC))
        err = put_part(self, keys.spec, job->spec);
    if (err == ORR_OK && (what & REGION_DIRTY_PLACES))
        err = put_part(self, keys.places, job->places);
    if (err != ORR_OK)
        region_entry_rewind(&self->ledger.entry, mark);
    return err;
}

enum orr_err region_put_job_end(struct region *self, const struct region_job *job)
{
    struct region_entry_mark mark = region_entry_mark(&self->ledger.entry);
    const struct job_keys keys = keys_of(job);
    enum orr_err err = region_entry_end(&self->ledger.entry, keys.job);
    if (err == ORR_OK)
        err = region_entry_end(&self->ledger.entry, keys.spec);
    if (err == ORR_OK && region_has_places(job))
        err = region_entry_end(&self->ledger.entry, keys.places);
    if (err != ORR_OK)
        region_entry_rewind(&self->ledger.entry, mark);
    return err;
}

enum orr_err region_put_self(struct region *self)
{
    return region_entry_put(
        &self->ledger.entry,
        "region",
        orr_msg_desc_region_record(),
        &(struct orr_msg_region_record){self->epoch, self->counter_min, 0});
}

enum orr_err region_put_cluster(struct region *self,
                                const struct region_cluster *cluster)
{
    char key[ORR_NAME_MAX + 9];
    snprintf(key, sizeof(key), "cluster/%s", cluster->name);
    const struct orr_msg_cluster_record record = {.cluster = orr_str(cluster->name),
                                                  .host = cluster->addr.host,
                                                  .incarnation = cluster->incarnation,
                                                  .state = cluster->state};
    return region_entry_put(
        &self->ledger.entry, key, orr_msg_desc_cluster_record(), &record);
}

enum orr_err region_put_node(struct region *self, const struct region_node *node)
{
    char key[sizeof(node->key) + 6];
    snprintf(key, sizeof(key), "node/%s", node->key);
    return region_entry_put(
        &self->ledger.entry,
        key,
        orr_msg_desc_node_record(),
        &(struct orr_msg_node_record){.state = node->state,
                                      .is_draining = node->is_draining});
}

enum orr_err region_put_event(struct region *self, const struct orr_msg_event *event)
{
    char key[32];
    struct region_entry_mark mark = region_entry_mark(&self->ledger.entry);
    snprintf(key, sizeof(key), "event/%" PRIu64, event->seq);
    enum orr_err err =
        region_entry_put(&self->ledger.entry, key, orr_msg_desc_event(), event);
    if (err == ORR_OK && event->seq - self->seq_first >= self->args.events_max) {
        snprintf(key, sizeof(key), "event/%" PRIu64, self->seq_first);
        err = region_entry_end(&self->ledger.entry, key);
    }
    if (err != ORR_OK)
        region_entry_rewind(&self->ledger.entry, mark);
    return err;
}

static void checkpoint_key(char *key, size_t cap, const char *job, uint64_t number)
{
    snprintf(key, cap, "checkpoint/%s/%" PRIu64, job, number);
}

enum orr_err region_put_checkpoint(struct region *self,
                                   const struct region_job *job,
                                   const struct region_checkpoint *checkpoint)
{
    char key[ORR_JOB_ID_MAX + 40];
    checkpoint_key(key, sizeof(key), job->id, checkpoint->number);
    return region_entry_put_bytes(
        &self->ledger.entry, key, region_manifest(self, checkpoint));
}

enum orr_err region_put_checkpoint_end(struct region *self,
                                       const struct region_job *job,
                                       const struct region_checkpoint *checkpoint)
{
    char key[ORR_JOB_ID_MAX + 40];
    checkpoint_key(key, sizeof(key), job->id, checkpoint->number);
    return region_entry_end(&self->ledger.entry, key);
}

static void count(struct region *self, struct orr_msg_region_check *check)
{
    struct orr_list_ledger_record list = region_entry_list(&self->ledger.entry);
    for (uint32_t i = 0; i < list.n; i++) {
        check->keys++;
        check->digest += orr_record_digest(list.at[i].key, list.at[i].value);
    }
    region_entry_rewind(&self->ledger.entry, (struct region_entry_mark){0});
}

/* The tables as the ledger would have them. */
struct orr_msg_region_check region_check(struct region *self)
{
    struct orr_msg_region_check check = {.applied = self->ledger.applied};
    bool is_ok = self->epoch == 0 || region_put_self(self) == ORR_OK;
    for (struct region_cluster *cluster = NULL;
         is_ok && (cluster = orr_pool_next(&self->clusters, cluster)) != NULL;) {
        is_ok = region_put_cluster(self, cluster) == ORR_OK;
        count(self, &check);
    }
    for (struct region_node *node = NULL;
         is_ok && (node = orr_pool_next(&self->nodes, node)) != NULL;) {
        is_ok = region_put_node(self, node) == ORR_OK;
        count(self, &check);
    }
    for (struct region_job *job = NULL;
         is_ok && (job = orr_pool_next(&self->jobs, job)) != NULL;) {
        unsigned parts = (job->spec != ORR_NONE ? REGION_DIRTY_SPEC : 0) |
                         (region_has_places(job) ? REGION_DIRTY_PLACES : 0);
        is_ok = region_put_job(self, job, parts) == ORR_OK;
        count(self, &check);
        const struct region_checkpoint *at;
        for (uint32_t i = job->first_checkpoint;
             is_ok && (at = region_checkpoint_at(self, i)) != NULL;
             i = at->next) {
            is_ok = region_put_checkpoint(self, job, at) == ORR_OK;
            count(self, &check);
        }
    }
    count(self, &check);
    return check;
}

/* ---- from records ---- */

/* Into scratch memory, until the next call.  NULL: not what the key says. */
static const void *decode(struct region *self,
                          const struct orr_msg_desc *desc,
                          const struct orr_rec_ledger_record *record)
{
    return orr_msg_decode(desc,
                          record->value.ptr,
                          record->value.len,
                          self->spec.at,
                          self->spec.size) == ORR_OK
               ? self->spec.at
               : NULL;
}

static enum orr_err fold_region(struct region *self,
                                const struct orr_rec_ledger_record *record)
{
    const struct orr_msg_region_record *msg =
        decode(self, orr_msg_desc_region_record(), record);
    if (!msg)
        return ORR_EPROTO;
    self->epoch = msg->epoch;
    self->counter_min = msg->counter_min;
    return ORR_OK;
}

static enum orr_err fold_cluster(struct region *self,
                                 const struct orr_rec_ledger_record *record)
{
    const struct orr_msg_cluster_record *msg =
        decode(self, orr_msg_desc_cluster_record(), record);
    struct region_cluster *cluster =
        msg ? region_cluster_get(self, msg->cluster) : NULL;
    if (!cluster)
        return msg ? ORR_ENOSPC : ORR_EPROTO;
    region_cluster_is_at(self, cluster, msg->host);
    cluster->incarnation = msg->incarnation;
    cluster->state = msg->state;
    return ORR_OK;
}

static enum orr_err fold_node(struct region *self,
                              struct orr_str key,
                              const struct orr_rec_ledger_record *record)
{
    const struct orr_msg_node_record *msg =
        decode(self, orr_msg_desc_node_record(), record);
    const char *slash = key.len ? memchr(key.ptr, '/', key.len) : NULL;
    if (!msg || !slash)
        return ORR_EPROTO;
    struct orr_str name = {slash + 1, key.len - (uint32_t)(slash + 1 - key.ptr)};
    struct region_cluster *cluster = region_cluster_get(
        self, (struct orr_str){key.ptr, (uint32_t)(slash - key.ptr)});
    struct region_node *node = cluster ? region_node_get(self, cluster, name) : NULL;
    if (!node)
        return ORR_ENOSPC;
    node->state = msg->state;
    self->n_draining += msg->is_draining;
    self->n_draining -= node->is_draining;
    node->is_draining = msg->is_draining;
    return ORR_OK;
}

static void fold_orders(struct region_job *job, const struct orr_msg_job_record *msg)
{
    job->is_to_suspend = msg->is_to_suspend;
    job->order = (struct region_order){.number = msg->order,
                                       .kind = msg->order_kind,
                                       .state = msg->order_state,
                                       .generation = msg->order_generation,
                                       .checkpoint = msg->order_checkpoint,
                                       .code = msg->order_code,
                                       .devices = msg->order_devices,
                                       .may_move = msg->order_may_move,
                                       .is_own = msg->order_is_own};
    job->asked_devices = msg->asked_devices;
    orr_str_copy(job->order.text, sizeof(job->order.text), msg->order_text);
    orr_str_copy(job->to_cluster, sizeof(job->to_cluster), msg->to_cluster);
    orr_str_copy(job->to_node, sizeof(job->to_node), msg->to_node);
    orr_str_copy(job->to_region, sizeof(job->to_region), msg->to_region);
    orr_str_copy(job->from_region, sizeof(job->from_region), msg->from_region);
    job->from_generation = msg->from_generation;
    job->is_from_known = msg->is_from_known;
    job->is_settled = msg->is_settled;
    job->checkpoint = msg->checkpoint;
    job->restore = msg->restore;
    job->restore_below = msg->restore_below;
    job->restore_tries = msg->restore_tries;
    job->level = msg->level;
    job->is_parked = msg->is_parked;
    orr_str_copy(job->why_level, sizeof(job->why_level), msg->why_level);
}

/* It may change: a job that has moved away is forgotten, and comes back without one. */
static void fold_key(struct region *self, struct region_job *job, struct orr_str key)
{
    if (orr_str_eq(orr_str(job->key), key))
        return;
    if (job->key[0])
        orr_map_remove(&self->jobs_by_key, job);
    orr_str_copy(job->key, sizeof(job->key), key);
    if (job->key[0])
        orr_map_add(&self->jobs_by_key, job);
}

static enum orr_err fold_job(struct region *self,
                             struct region_job *job,
                             const struct orr_rec_ledger_record *record)
{
    const struct orr_msg_job_record *msg =
        decode(self, orr_msg_desc_job_record(), record);
    if (!msg || msg->phase >= ORR_JOB_PHASE_MAX_)
        return ORR_EPROTO;
    struct region_cluster *cluster =
        msg->cluster.len ? region_cluster_get(self, msg->cluster) : NULL;
    if (msg->cluster.len && !cluster)
        return ORR_ENOSPC;
    fold_key(self, job, msg->key);
    job->is_recorded = true;
    job->counter = msg->counter;
    orr_str_copy(job->owner, sizeof(job->owner), msg->owner);
    job->phase = msg->phase;
    job->generation = msg->generation;
    job->is_cancelled = msg->is_cancelled;
    job->cluster = cluster ? orr_pool_index(&self->clusters, cluster) : ORR_NONE;
    job->units = msg->units;
    job->update_incarnation = msg->update_incarnation;
    job->update_step = msg->update_step;
    job->submitted_unix_ms = msg->submitted_unix_ms;
    job->changed_unix_ms = msg->changed_unix_ms;
    job->start_unix_ms = msg->start_unix_ms;
    job->restarts = msg->restarts;
    job->user_restarts = msg->user_restarts;
    job->exit_code = msg->exit_code;
    job->signal = msg->signal;
    job->culprit = msg->culprit;
    orr_str_copy(job->culprit_node, sizeof(job->culprit_node), msg->culprit_node);
    orr_str_copy(job->reason, sizeof(job->reason), msg->reason);
    region_job_keep_tail(self, job, msg->stderr_tail);
    fold_orders(job, msg);
    return ORR_OK;
}

static enum orr_err fold_spec(struct region *self,
                              struct region_job *job,
                              const struct orr_rec_ledger_record *record)
{
    const struct orr_msg_job_spec *spec = decode(self, orr_msg_desc_job_spec(), record);
    if (!spec)
        return ORR_EPROTO;
    region_job_read_spec(job, spec);
    orr_blob_drop(&self->blobs, job->spec);
    job->spec = ORR_NONE;
    return orr_blob_put(&self->blobs, record->value, &job->spec);
}

static enum orr_err fold_places(struct region *self,
                                struct region_job *job,
                                const struct orr_rec_ledger_record *record)
{
    orr_blob_drop(&self->blobs, job->places);
    job->places = ORR_NONE;
    return record->is_gone ? ORR_OK
                           : orr_blob_put(&self->blobs, record->value, &job->places);
}

/* job/, spec/ and places/ of one job come in any order, so the first of them makes it. */
static enum orr_err fold_any_job(struct region *self,
                                 struct orr_str kind,
                                 struct orr_str id,
                                 const struct orr_rec_ledger_record *record)
{
    struct region_job *job = orr_map_find(&self->jobs_by_id, id);
    bool is_whole = orr_str_eq(kind, ORR_LIT("job"));
    if (record->is_gone && (!job || orr_str_eq(kind, ORR_LIT("spec"))))
        return ORR_OK;
    if (record->is_gone && is_whole) {
        region_job_forget(self, job);
        return ORR_OK;
    }
    if (!job)
        job = region_job_take(self, id);
    if (!job)
        return ORR_ENOSPC;
    return is_whole                            ? fold_job(self, job, record)
           : orr_str_eq(kind, ORR_LIT("spec")) ? fold_spec(self, job, record)
                                               : fold_places(self, job, record);
}

/* checkpoint/ID/NUMBER, perhaps before the job itself. */
static enum orr_err fold_checkpoint(struct region *self,
                                    struct orr_str key,
                                    const struct orr_rec_ledger_record *record)
{
    char number[24];
    const char *slash = key.len ? memchr(key.ptr, '/', key.len) : NULL;
    if (!slash)
        return ORR_EPROTO;
    struct orr_str id = {key.ptr, (uint32_t)(slash - key.ptr)};
    orr_str_copy(
        number, sizeof(number), (struct orr_str){slash + 1, key.len - id.len - 1});
    struct region_job *job = orr_map_find(&self->jobs_by_id, id);
    if (record->is_gone) {
        struct region_checkpoint *checkpoint =
            job ? region_checkpoint_find(self, job, strtoull(number, NULL, 10)) : NULL;
        if (checkpoint)
            region_checkpoint_forget(self, job, checkpoint);
        return ORR_OK;
    }
    if (!job)
        job = region_job_take(self, id);
    struct region_checkpoint *ignored;
    return job ? region_checkpoint_keep(self, job, record->value, &ignored)
               : ORR_ENOSPC;
}

/* A standby publishes what the leader has committed. */
static enum orr_err fold_event(struct orr_ctx *ctx,
                               struct region *self,
                               struct orr_str key,
                               const struct orr_rec_ledger_record *record)
{
    char number[32];
    orr_str_copy(number, sizeof(number), key);
    uint64_t seq = strtoull(number, NULL, 10);
    if (record->is_gone) {
        if (seq >= self->seq_first)
            self->seq_first = seq + 1;
        return ORR_OK;
    }
    const struct orr_msg_event *event = decode(self, orr_msg_desc_event(), record);
    if (!event || event->seq != seq)
        return ORR_EPROTO;
    if (self->seq == 0)
        self->seq_first = seq;
    if (seq <= self->seq)
        return ORR_OK;
    self->seq = seq;
    ctx->ops->send(ctx, self->events, orr_msg_desc_event(), event);
    return ORR_OK;
}

/* One record into the tables of a standby.
 * Errors: ORR_EPROTO the value is not what its key says, ORR_ENOSPC a table is full. */
enum orr_err region_fold(struct orr_ctx *ctx,
                         struct region *self,
                         const struct orr_rec_ledger_record *record)
{
    const char *slash =
        record->key.len ? memchr(record->key.ptr, '/', record->key.len) : NULL;
    uint32_t len = slash ? (uint32_t)(slash - record->key.ptr) : record->key.len;
    struct orr_str kind = {record->key.ptr, len};
    struct orr_str rest = {slash ? slash + 1 : "",
                           slash ? record->key.len - len - 1 : 0};
    if (orr_str_eq(kind, ORR_LIT("job")) || orr_str_eq(kind, ORR_LIT("spec")) ||
        orr_str_eq(kind, ORR_LIT("places")))
        return fold_any_job(self, kind, rest, record);
    if (orr_str_eq(kind, ORR_LIT("event")))
        return fold_event(ctx, self, rest, record);
    if (orr_str_eq(kind, ORR_LIT("checkpoint")))
        return fold_checkpoint(self, rest, record);
    if (record->is_gone)
        return ORR_OK; /* of the kinds below none ever goes */
    if (orr_str_eq(kind, ORR_LIT("region")))
        return fold_region(self, record);
    if (orr_str_eq(kind, ORR_LIT("cluster")))
        return fold_cluster(self, record);
    if (orr_str_eq(kind, ORR_LIT("node")))
        return fold_node(self, rest, record);
    return ORR_OK;
}
