/* SPDX-License-Identifier: Apache-2.0
 * client.c - see client.h.
 *
 * A tag is kind, number of the request, job: an answer that nobody waits for any more is one too many.
 */
#include "client.h"

enum { QUIET_MIN_MS = 1000, LOOK_MS = 20, ASK_MS = 1000, LATE_MS = 1000 };
enum {
    TAG_SUBMIT = 1,
    TAG_SHOW,
    TAG_CANCEL,
    TAG_ACT,
    TAG_LOG = TAG_ACT + ACT_MAX,
    TAG_TREE,
    TAG_DRAIN
};

struct sim_client {
    struct client *client; /* borrowed: whoever made it */
};

ORR_HANDLER(sim_client, job_submitted)
ORR_HANDLER(sim_client, job_detail)
ORR_HANDLER(sim_client, log_chunk)
ORR_HANDLER(sim_client, checkpoint_made)
ORR_HANDLER(sim_client, tree)
ORR_HANDLER(sim_client, ack)
ORR_HANDLER(sim_client, failed)
ORR_HANDLER(sim_client, timer)

static enum orr_err sim_client_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct sim_client *self = state;
    self->client = *(struct client *const *)args;
    for (uint32_t i = 0; i < self->client->n_jobs; i++)
        self->client->jobs[i].is_asked = false;
    for (uint32_t i = 0; i < self->client->n_drains; i++)
        self->client->drains[i].is_asked = false;
    if (!self->client->look_ms)
        self->client->look_ms = LOOK_MS;
    orr_timer_set(ctx, 1, LOOK_MS, 0);
    return ORR_OK;
}

static void key_of(char *key, size_t cap, uint32_t index)
{
    snprintf(key, cap, "key-%u", index);
}

static void
submit(struct orr_ctx *ctx, struct client *client, uint32_t index, uint64_t tag)
{
    const struct client_job *job = &client->jobs[index];
    char key[16];
    char number[7][16];
    key_of(key, sizeof(key), index);
    snprintf(number[0], sizeof(number[0]), "%u", job->run_ms);
    snprintf(number[1], sizeof(number[1]), "%d", job->bad_rank);
    snprintf(number[2], sizeof(number[2]), "%u", job->exit_code);
    snprintf(number[3], sizeof(number[3]), "%u", job->signal);
    snprintf(number[4], sizeof(number[4]), "%u", job->gpus_min);
    snprintf(number[5], sizeof(number[5]), "%u", job->gpus_max);
    snprintf(number[6],
             sizeof(number[6]),
             "%u",
             job->min_run_ms > QUIET_MIN_MS ? job->min_run_ms : QUIET_MIN_MS);
    const struct orr_rec_text command[] = {
        {ORR_LIT("sim")},
        {orr_str(number[0])},
        {orr_str(number[1])},
        {orr_str(number[2])},
        {orr_str(number[3])},
        {orr_str(number[4])},
        {orr_str(number[5])},
        {orr_str(number[6])},
    };
    const struct orr_msg_job_spec spec = {
        .name = ORR_LIT("sim"),
        .project = ORR_LIT("default"),
        .tier = ORR_TIER_STANDARD,
        .command = {command, ORR_ARRAY_SIZE(command)},
        .workdir = ORR_LIT("/"),
        .world = job->world,
        .gpus_min = job->gpus_min,
        .gpus_max = job->gpus_max,
        .reduce = job->gpus_min < job->gpus_max ? ORR_REDUCE_ORDERED : ORR_REDUCE_FAST,
        .shards = 1,
        .checkpoint_every_ms = job->every_ms ? job->every_ms : 900000,
        .checkpoint_keep = 3,
        .limit_ms = job->limit_ms,
        .min_run_ms = job->min_run_ms,
        .hang_ms = 300000,
        .retries_infra = -1,
        .retries_user = job->retries_user,
        .backoff_min_ms = 100,
        .backoff_max_ms = 1000,
    };
    uint8_t body[1024];
    size_t len;
    ORR_ASSERT(orr_msg_encode(
                   orr_msg_desc_job_spec(), &spec, body, sizeof(body), &len) == ORR_OK);
    orr_ask(ctx,
            client->regions[client->at],
            ASK_MS,
            tag,
            job_submit,
            .key = orr_str(key),
            .owner = ORR_LIT("sim"),
            .spec = {body, (uint32_t)len});
}

static uint64_t tag_of(unsigned kind, uint32_t number, uint32_t index)
{
    return (uint64_t)kind << 56 | (uint64_t)(number & 0xffffff) << 32 | index;
}

static void
act(struct orr_ctx *ctx, struct client *client, uint32_t i, uint32_t what, uint64_t tag)
{
    const struct client_job *job = &client->jobs[i];
    const struct orr_addr region = client->regions[client->at];
    struct orr_str id = orr_str(job->id);
    char cluster[16] = "";
    if (job->to)
        snprintf(cluster, sizeof(cluster), "c%u", job->to);
    if (what == ACT_SUSPEND)
        orr_ask(ctx, region, ASK_MS, tag, job_suspend, .job = id);
    else if (what == ACT_RESUME)
        orr_ask(ctx, region, ASK_MS, tag, job_resume, .job = id);
    else if (what == ACT_CHECKPOINT)
        orr_ask(ctx, region, ASK_MS, tag, job_checkpoint, .job = id);
    else if (what == ACT_RESIZE || what == ACT_RESIZE_AGAIN)
        orr_ask(ctx,
                region,
                ASK_MS,
                tag,
                job_resize,
                .job = id,
                .devices = job->devices[what - ACT_RESIZE]);
    else
        orr_ask(ctx,
                region,
                ASK_MS,
                tag,
                job_migrate,
                .job = id,
                .cluster = orr_str(cluster));
}

static uint32_t due_act(const struct client_job *job, uint64_t now_ms)
{
    uint32_t what = 0;
    uint64_t from = job->acts_when_running ? job->running_ms : 0;
    if (job->acts_when_running && !from)
        return ACT_MAX;
    while (what < ACT_MAX &&
           (!job->act_at_ms[what] || from + job->act_at_ms[what] > now_ms))
        what++;
    return what;
}

static void ask(struct orr_ctx *ctx, struct client *client, uint32_t i)
{
    struct client_job *job = &client->jobs[i];
    struct orr_str id = orr_str(job->id);
    bool is_cancel = job->cancel_at_ms && job->cancel_at_ms <= orr_now_ms(ctx);
    uint32_t what = due_act(job, orr_now_ms(ctx));
    unsigned kind = job->goal == CLIENT_SUBMIT ? TAG_SUBMIT
                    : is_cancel                ? TAG_CANCEL
                    : what < ACT_MAX           ? TAG_ACT + what
                                               : TAG_SHOW;
    job->is_asked = true;
    job->asked = ++client->n_asked & 0xffffff;
    job->asked_at = client->at;
    job->asked_ms = orr_now_ms(ctx);
    uint64_t tag = tag_of(kind, job->asked, i);
    if (kind == TAG_SUBMIT)
        submit(ctx, client, i, tag);
    else if (kind == TAG_CANCEL)
        orr_ask(ctx,
                client->regions[client->at],
                ASK_MS,
                tag,
                job_cancel,
                .job = id,
                .why = ORR_LIT("test"));
    else if (kind >= TAG_ACT && kind < TAG_LOG)
        act(ctx, client, i, what, tag);
    else if (i % 3 == 2 && !job->acts_when_running)
        orr_ask(ctx, client->regions[client->at], ASK_MS, tag, job_wait, .job = id);
    else
        orr_ask(ctx, client->regions[client->at], ASK_MS, tag, job_show, .job = id);
}

static void drain(struct orr_ctx *ctx, struct client *client, uint32_t i)
{
    struct client_drain *drain = &client->drains[i];
    uint64_t now = orr_now_ms(ctx);
    bool is_on = drain->on_at_ms && drain->on_at_ms <= now;
    bool is_off = !drain->on_at_ms && drain->off_at_ms && drain->off_at_ms <= now;
    char cluster[16], node[16];
    if (drain->is_asked || (!is_on && !is_off) || drain->look_at_ms > now)
        return;
    snprintf(cluster, sizeof(cluster), "c%u", drain->cluster + 1);
    snprintf(node, sizeof(node), "n%u", drain->node + 1);
    drain->is_asked = true;
    drain->asked_at = client->at;
    orr_ask(ctx,
            client->regions[client->at],
            ASK_MS,
            tag_of(TAG_DRAIN, is_on, i),
            node_drain,
            .cluster = orr_str(cluster),
            .node = orr_str(node),
            .is_draining = is_on);
}

static void drained(struct orr_ctx *ctx, struct client *client, bool is_taken)
{
    struct client_drain *drain = &client->drains[(uint32_t)ctx->tag];
    drain->is_asked = false;
    drain->look_at_ms = orr_now_ms(ctx) + client->look_ms;
    if (!is_taken)
        return;
    client->n_acts++;
    if (ctx->tag >> 32 & 1)
        drain->on_at_ms = 0;
    else
        drain->off_at_ms = 0;
}

static enum orr_err sim_client_on_timer(struct orr_ctx *ctx,
                                        struct sim_client *self,
                                        const struct orr_msg_timer *msg)
{
    (void)msg;
    struct client *client = self->client;
    uint64_t now = orr_now_ms(ctx);
    for (uint32_t i = 0; i < client->n_jobs; i++) {
        struct client_job *job = &client->jobs[i];
        uint64_t late_ms = now - job->asked_ms;
        if (job->is_asked)
            request_is_answered_in_time(
                client->invariants, job->id, late_ms > ASK_MS + LATE_MS ? late_ms : 0);
        else if (job->goal != CLIENT_ENDED && job->submit_at_ms <= now &&
                 job->look_at_ms <= now)
            ask(ctx, client, i);
    }
    for (uint32_t i = 0; i < client->n_drains; i++)
        drain(ctx, client, i);
    orr_timer_set(ctx, 1, LOOK_MS, 0);
    return ORR_OK;
}

static struct client_job *asked(const struct orr_ctx *ctx,
                                const struct sim_client *self)
{
    struct client *client = self->client;
    struct client_job *job = &client->jobs[(uint32_t)ctx->tag];
    request_is_answered_once(client->invariants,
                             job->id,
                             job->is_asked &&
                                 job->asked == (ctx->tag >> 32 & 0xffffff));
    job->is_asked = false;
    job->look_at_ms = orr_now_ms(ctx) + client->look_ms;
    return job;
}

static enum orr_err sim_client_on_job_submitted(struct orr_ctx *ctx,
                                                struct sim_client *self,
                                                const struct orr_msg_job_submitted *msg)
{
    struct client_job *job = asked(ctx, self);
    char key[16];
    key_of(key, sizeof(key), (uint32_t)ctx->tag);
    acknowledged_submit_is_one_job(
        self->client->invariants, orr_str(key), job->id, msg->job);
    orr_str_copy(job->id, sizeof(job->id), msg->job);
    job->goal = CLIENT_LIVE;
    return ORR_OK;
}

static enum orr_err sim_client_on_job_detail(struct orr_ctx *ctx,
                                             struct sim_client *self,
                                             const struct orr_msg_job_detail *msg)
{
    struct client_job *job = asked(ctx, self);
    job->phase = msg->row.phase;
    job->generation = msg->row.generation;
    job->restarts = msg->restarts;
    if (msg->row.phase == ORR_JOB_RUNNING && !job->running_ms)
        job->running_ms = orr_now_ms(ctx);
    orr_str_copy(job->reason, sizeof(job->reason), msg->row.reason);
    if (msg->row.phase == ORR_JOB_QUEUED && msg->row.reason.len)
        orr_str_copy(job->waited, sizeof(job->waited), msg->row.reason);
    if (!orr_job_phase_is_final(msg->row.phase))
        return ORR_OK;
    job->goal = CLIENT_ENDED;
    job->end_exit_code = msg->row.exit_code;
    job->end_signal = msg->signal;
    job->culprit = msg->culprit;
    orr_str_copy(job->tail, sizeof(job->tail), msg->stderr_tail);
    self->client->n_ended++;
    if (msg->ranks.n > 0)
        orr_ask(ctx,
                self->client->regions[self->client->at],
                ASK_MS,
                tag_of(TAG_LOG, 0, (uint32_t)ctx->tag),
                log_read,
                .job = msg->row.job,
                .rank = msg->ranks.n - 1,
                .stream = 1);
    orr_ask(ctx,
            self->client->regions[self->client->at],
            ASK_MS,
            tag_of(TAG_TREE, 0, 0),
            tree_get);
    return ORR_OK;
}

static enum orr_err sim_client_on_log_chunk(struct orr_ctx *ctx,
                                            struct sim_client *self,
                                            const struct orr_msg_log_chunk *msg)
{
    struct client_job *job = &self->client->jobs[(uint32_t)ctx->tag];
    job->has_log = msg->data.len > 0 && msg->generation == job->generation;
    self->client->n_logs++;
    return ORR_OK;
}

static enum orr_err sim_client_on_tree(struct orr_ctx *ctx,
                                       struct sim_client *self,
                                       const struct orr_msg_tree *msg)
{
    (void)ctx;
    self->client->n_tree_nodes = msg->nodes.n;
    return ORR_OK;
}

/* What was wanted is acknowledged. */
static void taken(struct orr_ctx *ctx, struct sim_client *self)
{
    unsigned kind = (unsigned)(ctx->tag >> 56);
    if (kind == TAG_DRAIN) {
        drained(ctx, self->client, true);
        return;
    }
    struct client_job *job = asked(ctx, self);
    if (kind == TAG_CANCEL)
        job->cancel_at_ms = 0;
    if (kind < TAG_ACT || kind >= TAG_LOG)
        return;
    job->act_at_ms[kind - TAG_ACT] = 0;
    self->client->n_acts++;
}

static enum orr_err sim_client_on_ack(struct orr_ctx *ctx,
                                      struct sim_client *self,
                                      const struct orr_msg_ack *msg)
{
    (void)msg;
    taken(ctx, self);
    return ORR_OK;
}

static enum orr_err
sim_client_on_checkpoint_made(struct orr_ctx *ctx,
                              struct sim_client *self,
                              const struct orr_msg_checkpoint_made *msg)
{
    (void)msg;
    taken(ctx, self);
    return ORR_OK;
}

static bool is_elsewhere(uint32_t code)
{
    return code == ORR_ENOTLEADER || code == ORR_EUNREACH || code == ORR_ETIMEOUT ||
           code == ORR_EGONE || code == ORR_EDISK;
}

static enum orr_err sim_client_on_failed(struct orr_ctx *ctx,
                                         struct sim_client *self,
                                         const struct orr_msg_failed *msg)
{
    unsigned kind = (unsigned)(ctx->tag >> 56);
    if (kind == TAG_DRAIN) { /* a node that nobody has heard of is not drained */
        drained(ctx, self->client, msg->code == ORR_ENOENT);
        if (is_elsewhere(msg->code) &&
            self->client->drains[(uint32_t)ctx->tag].asked_at == self->client->at)
            self->client->at = (self->client->at + 1) % self->client->n_regions;
    }
    if (kind >= TAG_LOG)
        return ORR_OK;
    struct client_job *job = asked(ctx, self);
    bool is_act = kind >= TAG_ACT && kind < TAG_LOG;
    if (job->goal == CLIENT_LIVE && !is_act) /* of an act, it may be the target */
        acknowledged_submit_is_kept(
            self->client->invariants, job->id, msg->code == ORR_ENOENT);
    if (is_elsewhere(msg->code) && job->asked_at == self->client->at)
        self->client->at = (self->client->at + 1) % self->client->n_regions;
    bool is_refused = msg->code == ORR_EINVAL || msg->code == ORR_ESTATE ||
                      (is_act && (msg->code == ORR_ENODEV || msg->code == ORR_ENOSYS ||
                                  msg->code == ORR_ENOENT || msg->code == ORR_EIO)) ||
                      (kind == TAG_ACT + ACT_CHECKPOINT && msg->code == ORR_ETIMEOUT);
    if (is_refused && is_act)
        job->act_at_ms[kind - TAG_ACT] = 0;
    else if (is_refused && kind == TAG_CANCEL)
        job->cancel_at_ms = 0;
    orr_str_copy(job->reason, sizeof(job->reason), msg->text);
    return ORR_OK;
}

static const struct orr_handler handlers[] = {
    ORR_ON(sim_client, job_submitted, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(sim_client, job_detail, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(sim_client, checkpoint_made, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(sim_client, log_chunk, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(sim_client, tree, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(sim_client, ack, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(sim_client, failed, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(sim_client, timer, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};

const struct orr_actor_type sim_client_type = {
    .name = "sim_client",
    .state_size = sizeof(struct sim_client),
    .args_size = sizeof(struct client *),
    .init = sim_client_init,
    .handlers = handlers,
    .n_handlers = ORR_ARRAY_SIZE(handlers),
};
