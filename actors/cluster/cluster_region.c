/* SPDX-License-Identifier: Apache-2.0
 * cluster_region.c - the ties to the region, which runs on one host or on several of
 * which one leads.
 *
 * START       registers with one host after the other, with the jobs it has actors for
 *             (none after a restart), until one leads; after a round without one it
 *             waits about a heartbeat
 * OPERATION   a summary per heartbeat, and soon after each change
 * FAILURES    A leader that does not know us (ESTALE) gets a new registration.  One that
 *             leads no more, is out of reach or silent is looked for again; a region of
 *             one host has no other, so its silence changes nothing.  With every
 *             registration job actors learn who leads and repeat what was not
 *             acknowledged.  Jobs that the leader does not list in its answer are
 *             stopped: the region has given them up.
 */
#include "cluster_calls.h"

enum { ASK_MS = 2000, SUMMARY_SOON_MS = 20 };

void cluster_region_start(struct orr_ctx *ctx, struct cluster *self)
{
    char path[ORR_NAME_MAX + 2];
    snprintf(path, sizeof(path), "/%s", self->args.region);
    while (self->n_region < ORR_REGION_HOSTS_MAX &&
           self->args.region_hosts[self->n_region][0]) {
        const char *host = self->args.region_hosts[self->n_region];
        self->region[self->n_region++] = orr_addr_named(orr_str(host), orr_str(path));
    }
    ORR_ASSERT(self->n_region > 0);
    cluster_send_register(ctx, self);
}

struct orr_addr cluster_leader(const struct cluster *self)
{
    return self->region[self->leader];
}

void cluster_send_register(struct orr_ctx *ctx, struct cluster *self)
{
    if (self->is_registering)
        return;
    struct orr_rec_job_claim *claims = self->list.at;
    uint32_t n = 0;
    for (struct cluster_job *job = NULL;
         (job = orr_pool_next(&self->jobs, job)) != NULL;) {
        job->is_claimed = job->state == CLUSTER_JOB_LIVE;
        if (job->is_claimed)
            claims[n++] = (struct orr_rec_job_claim){.job = orr_str(job->job),
                                                     .generation = job->generation};
    }
    self->is_registering = true;
    self->region_seq++;
    orr_ask(ctx,
            cluster_leader(self),
            ASK_MS,
            cluster_tag(CLUSTER_TAG_REGISTER, 0, self->region_seq),
            cluster_register,
            .cluster = orr_str(self->args.cluster),
            .jobs = {claims, n});
}

void cluster_send_summary(struct orr_ctx *ctx, struct cluster *self)
{
    self->is_summary_due = false;
    cluster_soft_publish(ctx, self);
    if (self->is_registered)
        orr_ask(ctx,
                cluster_leader(self),
                ASK_MS,
                cluster_tag(CLUSTER_TAG_SUMMARY, 0, self->region_seq),
                cluster_summary,
                .cluster = orr_str(self->args.cluster),
                .jobs = self->jobs.n_used,
                .nodes = cluster_node_rows(ctx, self));
}

void cluster_changed(struct orr_ctx *ctx, struct cluster *self)
{
    if (self->is_summary_due)
        return;
    self->is_summary_due = true; /* a large cluster's summary is dear: less often */
    orr_timer_set(ctx, CLUSTER_T_SUMMARY, SUMMARY_SOON_MS + self->nodes.n_used / 4, 0);
}

static bool is_in(const struct orr_msg_cluster_registered *msg,
                  const struct cluster_job *job)
{
    for (uint32_t i = 0; i < msg->jobs.n; i++)
        if (msg->jobs.at[i].generation == job->generation &&
            orr_str_eq(msg->jobs.at[i].job, orr_str(job->job)))
            return true;
    return false;
}

static void tell_jobs(struct orr_ctx *ctx, struct cluster *self)
{
    for (struct cluster_job *job = NULL;
         (job = orr_pool_next(&self->jobs, job)) != NULL;)
        if (job->state == CLUSTER_JOB_LIVE)
            orr_send(ctx, job->addr, region_moved, .region = cluster_leader(self));
}

enum orr_err cluster_registered(struct orr_ctx *ctx,
                                struct cluster *self,
                                const struct orr_msg_cluster_registered *msg)
{
    self->is_registering = false;
    self->is_registered = true;
    self->n_tried = 0;
    orr_log(ctx,
            ORR_LOG_INFO,
            "registered with %s on %s",
            self->args.region,
            self->args.region_hosts[self->leader]);
    tell_jobs(ctx, self);
    for (uint32_t i = 0; i < msg->draining.n; i++)
        cluster_node_drain(ctx, self, msg->draining.at[i].value, true);
    for (uint32_t i = 0; i < msg->jobs.n; i++) {
        const struct orr_rec_job_claim *claim = &msg->jobs.at[i];
        struct cluster_job *job =
            claim->phase == ORR_JOB_PLACING
                ? NULL
                : cluster_job_get(self, claim->job, claim->generation);
        if (job && job->state != CLUSTER_JOB_LIVE)
            cluster_job_await(self, job, true);
    }
    for (struct cluster_job *job = NULL;
         (job = orr_pool_next(&self->jobs, job)) != NULL;) {
        if (job->state == CLUSTER_JOB_LIVE && job->is_claimed && !is_in(msg, job))
            orr_send(ctx,
                     job->addr,
                     job_stop,
                     .job = orr_str(job->job),
                     .generation = job->generation,
                     .why = ORR_LIT("the region does not know this generation"));
    }
    cluster_orphans_check(ctx, self);
    cluster_send_summary(ctx, self);
    return ORR_OK;
}

/* ---- looking for the leader ---- */

static void try_next(struct orr_ctx *ctx, struct cluster *self)
{
    uint32_t wait_ms = self->args.heartbeat_ms;
    self->leader = (self->leader + 1) % self->n_region;
    if (++self->n_tried < self->n_region) {
        cluster_send_register(ctx, self);
        return;
    }
    self->n_tried = 0; /* nobody: they may be electing one */
    orr_timer_set(
        ctx, CLUSTER_T_SEARCH, wait_ms / 2 + orr_random(ctx) % (wait_ms + 1), 0);
}

void cluster_register_failed(struct orr_ctx *ctx,
                             struct cluster *self,
                             const struct orr_msg_failed *msg)
{
    if (msg->code != ORR_ENOTLEADER)
        orr_log(ctx,
                ORR_LOG_WARN,
                "%s on %s does not register us: %.*s",
                self->args.region,
                self->args.region_hosts[self->leader],
                ORR_STR_ARGS(msg->text));
    self->is_registering = false;
    try_next(ctx, self);
}

void cluster_summary_failed(struct orr_ctx *ctx,
                            struct cluster *self,
                            uint32_t seq,
                            const struct orr_msg_failed *msg)
{
    bool is_silent = msg->code == ORR_EUNREACH || msg->code == ORR_ETIMEOUT;
    bool is_lost = msg->code == ORR_ENOTLEADER || msg->code == ORR_EGONE || is_silent;
    if (!self->is_registered || (self->region_seq & 0xffffff) != seq)
        return; /* what was told to an earlier leader */
    if (msg->code == ORR_ESTALE) {
        self->is_registered = false;
        cluster_send_register(ctx, self);
    } else if (is_lost && self->n_region > 1) {
        orr_log(ctx,
                ORR_LOG_WARN,
                "%s leads %s no more: %s",
                self->args.region_hosts[self->leader],
                self->args.region,
                orr_err_text(msg->code));
        self->is_registered = false;
        try_next(ctx, self);
    }
}
