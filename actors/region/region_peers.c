/* SPDX-License-Identifier: Apache-2.0
 * region_peers.c - a job goes to another region: the side that gives it away.  The other side is region_transfer.c.
 *
 * START      job_migrate names a region among the peers.  It is asked first whether it would take the job: refused, nothing
 *            has happened.  Then the order is a vacate like any other, up to the end of the generation
 * OPERATION  LEAVING  The job has left its cluster and starts nowhere here.  job_offer asks whether the other region has it
 *                     already, else for a token; job_transfer with that token hands it over.  Both are repeated, with a longer
 *                     and longer pause, until there is an answer.  What is not answered may have been taken
 *            MOVED    its end here.  Its checkpoints stay until the other region has copies of its own (settled)
 * STOP       MOVED and settled; or refused, and the job goes on here from its checkpoint
 *            or its operator says that the other region is gone for good, and none of its hosts answers: as if it had refused
 * FAILURES   A transfer leaves with an entry of its own, so only from a leader.  A token is void once the other region has
 *            given a later one or has refused, so a transfer that is late, or of a former leader, takes nothing after the job
 *            went on here.  A new leader here knows no token and begins with an offer, which finds what was taken.
 * Source: docs/adr/0019-regions.md.
 */
#include "region_calls.h"

enum {
    OFFER_MS = 2500,
    ASK_MS = 5000,
    AGAIN_MIN_MS = 100,
    AGAIN_MAX_MS = 5000,
    SETTLE_MAX_MS = 60000,
    RECALL_MS = 1500, /* for each of its hosts */
};

/* ---- peers ---- */

static uint32_t n_hosts_of(const struct region *self, struct orr_str region)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < self->args.n_peers; i++)
        n += orr_str_eq(orr_str(self->args.peers[i].region), region);
    return n;
}

bool region_peer_is_known(const struct region *self, struct orr_str region)
{
    return n_hosts_of(self, region) > 0;
}

/* One of the region's hosts: the nth, counted round and round.  None: host is 0. */
static struct orr_addr
host_of(const struct region *self, struct orr_str region, uint32_t nth)
{
    char path[ORR_NAME_MAX + 2];
    uint32_t n = n_hosts_of(self, region);
    for (uint32_t i = 0; n && i < self->args.n_peers; i++) {
        const struct orr_region_peer *peer = &self->args.peers[i];
        if (!orr_str_eq(orr_str(peer->region), region) || nth-- % n != 0)
            continue;
        snprintf(path, sizeof(path), "/%s", peer->region);
        return orr_addr_named(orr_str(peer->host), orr_str(path));
    }
    return (struct orr_addr){0};
}

void region_peer_endpoints(const struct region *self,
                           const char *region,
                           char *buf,
                           size_t cap)
{
    size_t len = 0;
    buf[0] = '\0';
    for (uint32_t i = 0; i < self->args.n_peers && len < cap; i++) {
        const struct orr_region_peer *peer = &self->args.peers[i];
        if (region[0] && strcmp(peer->region, region) == 0)
            len += (size_t)snprintf(
                buf + len, cap - len, "%s%s", len ? "," : "", peer->endpoint);
    }
}

/* ---- would it take it? ---- */

static uint32_t level_of(const struct region *self, const struct region_job *job)
{
    const struct region_checkpoint *newest = region_checkpoint_newest(self, job);
    return region_has_places(job) ? job->level : newest ? newest->level : 0;
}

static bool put_host(struct orr_list_text *list,
                     struct orr_rec_text *at,
                     uint32_t cap,
                     struct orr_str host)
{
    bool is_again = list->n && orr_str_eq(at[list->n - 1].value, host);
    if (!host.len || is_again)
        return true;
    if (list->n == cap)
        return false;
    at[list->n++].value = host;
    return true;
}

/* That the other region's nodes would fetch it from, in scratch memory. */
static struct orr_list_text hosts_of(struct region *self, const struct region_job *job)
{
    struct orr_rec_text *at = self->list.at;
    struct orr_list_text list = {at, 0};
    uint32_t cap = (uint32_t)(self->list.size / sizeof(*at));
    struct orr_list_rank_place ranks = region_places(self, job);
    const struct region_checkpoint *newest = region_checkpoint_newest(self, job);
    const struct orr_msg_manifest *manifest =
        ranks.n || !newest
            ? NULL
            : region_manifest_decode(self, region_manifest(self, newest));
    for (uint32_t i = 0; i < ranks.n; i++) {
        const struct region_node *node = region_node_of(self, job, ranks.at[i].node);
        if (node && !put_host(&list, at, cap, orr_str(node->host)))
            break;
    }
    for (uint32_t i = 0; manifest && i < manifest->parts.n; i++)
        if (!put_host(&list, at, cap, manifest->parts.at[i].store))
            break;
    return list;
}

static void ask_first(struct orr_ctx *ctx,
                      struct region *self,
                      struct region_wait *wait,
                      const struct region_job *job)
{
    orr_ask(ctx,
            host_of(self, orr_str(wait->to_region), wait->tries),
            wait->is_recall ? RECALL_MS : OFFER_MS,
            (uint64_t)REGION_TAG_OFFER << 56 | orr_pool_index(&self->waits, wait),
            job_offer,
            .region = orr_str(self->args.region),
            .job = orr_str(job->id),
            .generation = job->generation + 1, /* that it would leave with */
            .spec = region_spec(self, job),
            .level = level_of(self, job),
            .is_running = region_has_places(job) && !job->is_to_suspend,
            .hosts = hosts_of(self, job));
}

bool region_peer_is_it(const struct region_job *job, struct orr_str region)
{
    return region.len && orr_str_eq(orr_str(job->to_region), region);
}

enum orr_err region_migrate_away(struct orr_ctx *ctx,
                                 struct region *self,
                                 struct region_job *job,
                                 struct orr_str region)
{
    if (!region_peer_is_known(self, region))
        return orr_refuse(ctx,
                          ORR_ENOENT,
                          "region %.*s: region %s does not know it; add its hosts to "
                          "`peers:` in the configuration of this region's hosts",
                          ORR_STR_ARGS(region),
                          self->args.region);
    if (region_has_places(job) && job->level == ORR_LEVEL_INPLACE)
        return orr_refuse(ctx,
                          ORR_ENOSYS,
                          "job %s can only be suspended where it is: %s",
                          job->id,
                          job->why_level);
    struct region_wait *wait = region_wait_new(ctx, self);
    if (!wait)
        return region_wait_refuse(ctx, self);
    wait->migrates = orr_pool_index(&self->jobs, job);
    wait->counter = job->counter;
    orr_str_copy(wait->to_region, sizeof(wait->to_region), region);
    ask_first(ctx, self, wait, job);
    return ORR_OK;
}

static void answer_failed(struct orr_ctx *ctx,
                          struct region *self,
                          struct region_wait *wait,
                          uint32_t code,
                          const char *text)
{
    const struct orr_msg_failed failed = {
        .code = code, .msg = wait->request.msg_id, .text = orr_str(text)};
    ctx->ops->reply(ctx, &wait->request, orr_msg_desc_failed(), &failed);
    orr_pool_give(&self->waits, wait);
}

/* The job that the client meant, if it may still leave. */
static struct region_job *leaving_job(const struct region *self,
                                      const struct region_wait *wait)
{
    struct region_job *job = region_job_at(self, wait->migrates);
    bool is_it = job && job->counter == wait->counter && job->where != REGION_ENDED &&
                 job->where != REGION_LEAVING && !job->is_cancelled;
    return is_it ? job : NULL;
}

/* ---- the other region is gone for good ---- */

static struct region_job *recalled_job(const struct region *self,
                                       const struct region_wait *wait)
{
    struct region_job *job = region_job_at(self, wait->migrates);
    bool is_it = job && job->counter == wait->counter && job->where == REGION_LEAVING &&
                 region_peer_is_it(job, orr_str(wait->to_region));
    return is_it ? job : NULL;
}

static enum orr_err
refuse_recall(struct orr_ctx *ctx, struct orr_str job, struct orr_str region)
{
    return orr_refuse(ctx,
                      ORR_ESTATE,
                      "job %.*s is not on its way to region %.*s; nothing was done",
                      ORR_STR_ARGS(job),
                      ORR_STR_ARGS(region));
}

/* Somebody is there, who may have the job. */
static void
recall_answered(struct orr_ctx *ctx, struct region *self, struct region_wait *wait)
{
    char text[200];
    snprintf(
        text,
        sizeof(text),
        "region %s answers, so it is not gone and may have the job; nothing was done",
        wait->to_region);
    answer_failed(ctx, self, wait, ORR_ESTATE, text);
}

/* All of its hosts were asked in vain.  That none of them comes back is the operator's word. */
static enum orr_err
recall(struct orr_ctx *ctx, struct region *self, struct region_wait *wait)
{
    char text[200];
    static const struct orr_msg_ack ack;
    struct region_job *job = recalled_job(self, wait);
    snprintf(text,
             sizeof(text),
             "region %s is gone for good, as its operator says; it goes on here",
             wait->to_region);
    ctx->ops->reply(ctx, &wait->request, orr_msg_desc_ack(), &ack);
    orr_pool_give(&self->waits, wait);
    if (!job) /* it has gone on meanwhile, here or there */
        return ORR_OK;
    job->peer_seq = 0;
    job->token = 0;
    region_order_refused(ctx, self, job, ORR_EGONE, orr_str(text));
    return region_requeue(ctx, self, job, 0, orr_str(text));
}

static enum orr_err recall_failed(struct orr_ctx *ctx,
                                  struct region *self,
                                  struct region_wait *wait,
                                  uint32_t code)
{
    const struct region_job *job = recalled_job(self, wait);
    if (code != ORR_EUNREACH && code != ORR_ETIMEOUT && code != ORR_EGONE) {
        recall_answered(ctx, self, wait);
        return ORR_OK;
    }
    if (!job || ++wait->tries >= n_hosts_of(self, orr_str(wait->to_region)))
        return recall(ctx, self, wait);
    ask_first(ctx, self, wait, job);
    return ORR_OK;
}

enum orr_err region_recall(struct orr_ctx *ctx,
                           struct region *self,
                           struct region_job *job,
                           const struct orr_msg_job_migrate *msg)
{
    if (job->where != REGION_LEAVING || !region_peer_is_it(job, msg->gone))
        return refuse_recall(ctx, msg->job, msg->gone);
    if (msg->cluster.len || msg->node.len ||
        (msg->region.len && !orr_str_eq(msg->region, orr_str(self->args.region))))
        return orr_refuse(
            ctx,
            ORR_EINVAL,
            "job %s goes on in region %s, which it was to leave; move it when it runs",
            job->id,
            self->args.region);
    struct region_wait *wait = region_wait_new(ctx, self);
    if (!wait)
        return region_wait_refuse(ctx, self);
    wait->is_recall = true;
    wait->migrates = orr_pool_index(&self->jobs, job);
    wait->counter = job->counter;
    orr_str_copy(wait->to_region, sizeof(wait->to_region), msg->gone);
    if (!region_peer_is_known(self,
                              msg->gone)) /* nobody there is to be heard any more */
        return recall(ctx, self, wait);
    ask_first(ctx, self, wait, job);
    return ORR_OK;
}

/* ---- the answer before it stops ---- */

enum orr_err region_first_offered(struct orr_ctx *ctx,
                                  struct region *self,
                                  struct region_wait *wait,
                                  const struct orr_msg_job_offered *msg)
{
    char text[300];
    if (wait->is_recall) {
        recall_answered(ctx, self, wait);
        return ORR_OK;
    }
    struct region_job *job = leaving_job(self, wait);
    if (!job || msg->is_refused) {
        snprintf(text,
                 sizeof(text),
                 "region %s %s%.*s; nothing was done",
                 wait->to_region,
                 job ? "does not take it: " : "was asked, and meanwhile the job ended",
                 job ? (int)msg->text.len : 0,
                 msg->text.ptr);
        answer_failed(ctx, self, wait, job ? msg->code : ORR_ESTATE, text);
        return ORR_OK;
    }
    char region[ORR_NAME_MAX];
    memcpy(region, wait->to_region, sizeof(region));
    static const struct orr_msg_ack ack;
    ctx->ops->reply(ctx, &wait->request, orr_msg_desc_ack(), &ack);
    orr_pool_give(&self->waits, wait);
    return region_order_away(ctx, self, job, region);
}

static bool is_elsewhere(uint32_t code)
{
    return code == ORR_ENOTLEADER || code == ORR_EUNREACH || code == ORR_ETIMEOUT ||
           code == ORR_EGONE || code == ORR_ENOENT;
}

enum orr_err region_first_failed(struct orr_ctx *ctx,
                                 struct region *self,
                                 struct region_wait *wait,
                                 const struct orr_msg_failed *msg)
{
    char text[300];
    if (wait->is_recall)
        return recall_failed(ctx, self, wait, msg->code);
    const struct region_job *job = leaving_job(self, wait);
    wait->tries++;
    if (job && is_elsewhere(msg->code) &&
        wait->tries < n_hosts_of(self, orr_str(wait->to_region))) {
        ask_first(ctx, self, wait, job);
        return ORR_OK;
    }
    snprintf(text,
             sizeof(text),
             "region %s cannot be asked now: %.*s; nothing was done",
             wait->to_region,
             ORR_STR_ARGS(msg->text));
    answer_failed(ctx, self, wait, msg->code, text);
    return ORR_OK;
}

/* ---- the handover ---- */

static void again(struct orr_ctx *ctx, struct region *self, struct region_job *job)
{
    uint32_t most = job->where == REGION_ENDED ? SETTLE_MAX_MS : AGAIN_MAX_MS;
    job->backoff_ms = job->backoff_ms ? 2 * job->backoff_ms : AGAIN_MIN_MS;
    if (job->backoff_ms > most)
        job->backoff_ms = most;
    orr_timer_set(ctx,
                  region_job_timer_id(self, job, REGION_JOB_START),
                  job->backoff_ms / 2 + orr_random(ctx) % job->backoff_ms,
                  0);
}

static void transfer(struct orr_ctx *ctx,
                     struct region *self,
                     struct region_job *job,
                     struct orr_addr to)
{
    const struct region_checkpoint *from = region_checkpoint_newest(self, job);
    region_confirm(self); /* who led and does not any more hands nothing over */
    orr_ask(
        ctx,
        to,
        ASK_MS,
        region_tag(REGION_TAG_PEER, orr_pool_index(&self->jobs, job), job->peer_seq),
        job_transfer,
        .region = orr_str(self->args.region),
        .job = orr_str(job->id),
        .generation = job->generation,
        .token = job->token,
        .owner = orr_str(job->owner),
        .spec = region_spec(self, job),
        .manifest = from ? region_manifest(self, from) : (struct orr_bytes){0},
        .checkpoint = job->checkpoint,
        .is_to_suspend = job->is_to_suspend,
        .submitted_unix_ms = job->submitted_unix_ms,
        .restarts = job->restarts,
        .user_restarts = job->user_restarts,
        .level = job->level,
        .why_level = orr_str(job->why_level));
}

bool region_peer_is_due(const struct region_job *job)
{
    return !job->peer_seq && (job->where == REGION_LEAVING ||
                              (job->phase == ORR_JOB_MOVED && !job->is_settled));
}

/* Ask the other region what comes next. */
void region_peer_ask(struct orr_ctx *ctx, struct region *self, struct region_job *job)
{
    bool is_moved = job->where == REGION_ENDED;
    struct orr_str region = orr_str(job->to_region);
    if (!region_peer_is_known(self, region)) {
        job->peer_code = ORR_ENOENT;
        again(ctx, self, job);
        return;
    }
    struct orr_addr to = host_of(self, region, job->peer_at);
    job->peer_seq = region_fresh_seq(self);
    if (!is_moved && job->token) {
        transfer(ctx, self, job, to);
        return;
    }
    orr_ask(
        ctx,
        to,
        ASK_MS,
        region_tag(REGION_TAG_PEER, orr_pool_index(&self->jobs, job), job->peer_seq),
        job_offer,
        .region = orr_str(self->args.region),
        .job = orr_str(job->id),
        .generation = job->generation,
        .spec = is_moved ? (struct orr_bytes){0} : region_spec(self, job),
        .level = level_of(self, job),
        .is_final = true,
        .is_known = is_moved,
        .hosts = is_moved ? (struct orr_list_text){0} : hosts_of(self, job));
}

static enum orr_err
moved(struct orr_ctx *ctx, struct region *self, struct region_job *job)
{
    region_order_moved(ctx, self, job);
    snprintf(job->reason, sizeof(job->reason), "to region %s", job->to_region);
    job->token = 0;
    job->backoff_ms = 0;
    job->is_settled = false; /* whatever it once had of where it came from */
    enum orr_err err = region_end(ctx, self, job, ORR_JOB_MOVED);
    if (err == ORR_OK)
        region_peer_ask(ctx, self, job);
    return err;
}

/* It was refused, for good: no transfer of this generation counts any more. */
static enum orr_err refused(struct orr_ctx *ctx,
                            struct region *self,
                            struct region_job *job,
                            const struct orr_msg_job_offered *msg)
{
    char text[200];
    snprintf(text,
             sizeof(text),
             "region %s does not take it: %.*s; it goes on here",
             job->to_region,
             ORR_STR_ARGS(msg->text));
    region_order_refused(ctx, self, job, msg->code, orr_str(text));
    return region_requeue(ctx, self, job, 0, orr_str(text));
}

static void settled(struct orr_ctx *ctx, struct region *self, struct region_job *job)
{
    job->is_settled = true;
    region_checkpoints_end(ctx, self, job);
    region_save(self, job, 0);
}

enum orr_err region_peer_offered(struct orr_ctx *ctx,
                                 struct region *self,
                                 struct region_job *job,
                                 const struct orr_msg_job_offered *msg)
{
    job->peer_seq = 0;
    job->peer_code = ORR_OK;
    if (job->where == REGION_ENDED) {
        bool is_over = msg->is_taken ? msg->is_settled : !msg->is_refused;
        if (is_over) /* also where it has ended and was forgotten since */
            settled(ctx, self, job);
        else
            again(ctx, self, job);
        return ORR_OK;
    }
    if (job->where != REGION_LEAVING)
        return ORR_OK;
    if (msg->is_taken)
        return moved(ctx, self, job);
    if (msg->is_refused)
        return refused(ctx, self, job, msg);
    job->token = msg->token;
    job->backoff_ms = 0;
    region_peer_ask(ctx, self, job);
    return ORR_OK;
}

/* It is there, and durable. */
enum orr_err
region_peer_took(struct orr_ctx *ctx, struct region *self, struct region_job *job)
{
    job->peer_seq = 0;
    return job->where == REGION_LEAVING ? moved(ctx, self, job) : ORR_OK;
}

/* It may have been taken all the same: the next offer tells. */
void region_peer_failed(struct orr_ctx *ctx,
                        struct region *self,
                        struct region_job *job,
                        uint32_t code)
{
    job->peer_seq = 0;
    job->token = 0;
    job->peer_code = code;
    job->peer_at += is_elsewhere(code);
    if (region_peer_is_due(job))
        again(ctx, self, job);
}

enum orr_err region_refuse_moved(struct orr_ctx *ctx, const struct region_job *job)
{
    return orr_refuse(
        ctx,
        ORR_ESTATE,
        "job %s is in region %s now; ask there: `orrery show %s` says where "
        "that listens",
        job->id,
        job->to_region,
        job->id);
}

/* "waits for region r2: the host cannot be reached" */
void region_peer_why(const struct region_job *job, char *buf, size_t cap)
{
    snprintf(buf,
             cap,
             "goes to region %s, which %s%s",
             job->to_region,
             job->peer_code == ORR_ENOENT ? "`peers:` of this host does not name"
             : job->peer_code             ? "has not answered whether it has it: "
                                          : "is asked to take it",
             job->peer_code && job->peer_code != ORR_ENOENT
                 ? orr_err_text((enum orr_err)job->peer_code)
                 : "");
}
