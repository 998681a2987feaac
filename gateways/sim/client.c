/* SPDX-License-Identifier: Apache-2.0
 * client.c - a client that submits jobs, cancels some and looks until all have ended (world.h).
 */
#include "world.h"

enum { LOOK_MS = 20, ASK_MS = 1000 };
enum { TAG_SUBMIT = 1, TAG_SHOW, TAG_CANCEL, TAG_LOG, TAG_TREE };

struct sim_client {
    struct client *client; /* borrowed: the test's */
};

ORR_HANDLER(sim_client, job_submitted)
ORR_HANDLER(sim_client, job_detail)
ORR_HANDLER(sim_client, log_chunk)
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
    orr_timer_set(ctx, 1, LOOK_MS, 0);
    return ORR_OK;
}

static void submit(struct orr_ctx *ctx, struct client *client, uint32_t index)
{
    struct client_job *job = &client->jobs[index];
    char key[16];
    char number[4][16];
    snprintf(key, sizeof(key), "key-%u", index);
    snprintf(number[0], sizeof(number[0]), "%u", job->run_ms);
    snprintf(number[1], sizeof(number[1]), "%d", job->bad_rank);
    snprintf(number[2], sizeof(number[2]), "%u", job->exit_code);
    snprintf(number[3], sizeof(number[3]), "%u", job->signal);
    const struct orr_rec_text command[] = {
        {ORR_LIT("sim")},
        {orr_str(number[0])},
        {orr_str(number[1])},
        {orr_str(number[2])},
        {orr_str(number[3])},
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
        .shards = 1,
        .checkpoint_every_ms = 900000,
        .checkpoint_keep = 3,
        .limit_ms = job->limit_ms,
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
            client->region,
            ASK_MS,
            (uint64_t)TAG_SUBMIT << 32 | index,
            job_submit,
            .key = orr_str(key),
            .owner = ORR_LIT("sim"),
            .spec = {body, (uint32_t)len});
}

static enum orr_err sim_client_on_timer(struct orr_ctx *ctx,
                                        struct sim_client *self,
                                        const struct orr_msg_timer *msg)
{
    (void)msg;
    struct client *client = self->client;
    for (uint32_t i = 0; i < client->n_jobs; i++) {
        struct client_job *job = &client->jobs[i];
        if (job->is_asked || job->goal == CLIENT_ENDED ||
            job->submit_at_ms > orr_now_ms(ctx))
            continue;
        job->is_asked = true;
        if (job->goal == CLIENT_SUBMIT)
            submit(ctx, client, i);
        else if (job->cancel_at_ms && job->cancel_at_ms <= orr_now_ms(ctx))
            orr_ask(ctx,
                    client->region,
                    ASK_MS,
                    (uint64_t)TAG_CANCEL << 32 | i,
                    job_cancel,
                    .job = orr_str(job->id),
                    .why = ORR_LIT("test"));
        else if (i % 3 == 2)
            orr_ask(ctx,
                    client->region,
                    ASK_MS,
                    (uint64_t)TAG_SHOW << 32 | i,
                    job_wait,
                    .job = orr_str(job->id));
        else
            orr_ask(ctx,
                    client->region,
                    ASK_MS,
                    (uint64_t)TAG_SHOW << 32 | i,
                    job_show,
                    .job = orr_str(job->id));
    }
    orr_timer_set(ctx, 1, LOOK_MS, 0);
    return ORR_OK;
}

static struct client_job *asked(const struct orr_ctx *ctx,
                                const struct sim_client *self)
{
    struct client_job *job = &self->client->jobs[(uint32_t)ctx->tag];
    job->is_asked = false;
    return job;
}

static enum orr_err sim_client_on_job_submitted(struct orr_ctx *ctx,
                                                struct sim_client *self,
                                                const struct orr_msg_job_submitted *msg)
{
    struct client_job *job = asked(ctx, self);
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
                self->client->region,
                ASK_MS,
                (uint64_t)TAG_LOG << 32 | (uint32_t)ctx->tag,
                log_read,
                .job = msg->row.job,
                .rank = msg->ranks.n - 1,
                .stream = 1);
    orr_ask(ctx, self->client->region, ASK_MS, (uint64_t)TAG_TREE << 32, tree_get);
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

static enum orr_err sim_client_on_ack(struct orr_ctx *ctx,
                                      struct sim_client *self,
                                      const struct orr_msg_ack *msg)
{
    (void)msg;
    asked(ctx, self)->cancel_at_ms = 0;
    return ORR_OK;
}

static enum orr_err sim_client_on_failed(struct orr_ctx *ctx,
                                         struct sim_client *self,
                                         const struct orr_msg_failed *msg)
{
    if (ctx->tag >> 32 >= TAG_LOG)
        return ORR_OK;
    struct client_job *job = asked(ctx, self);
    if (msg->code == ORR_EINVAL || msg->code == ORR_ESTATE)
        job->cancel_at_ms = 0;
    orr_str_copy(job->reason, sizeof(job->reason), msg->text);
    return ORR_OK;
}

static const struct orr_handler handlers[] = {
    ORR_ON(sim_client, job_submitted, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(sim_client, job_detail, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
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
