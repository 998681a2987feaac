/* SPDX-License-Identifier: Apache-2.0
 * region_drain.c - a node is emptied: nothing new is placed there, and what runs there is migrated, one job after the other.
 *
 * That a node drains is in the ledger.  Its cluster is told when it registers and whenever its summary says otherwise, so a
 * lost word is said again.  A job moves only when there is room for it elsewhere; one that cannot move stays and runs on, its
 * reason says why, and it is tried again a minute later.  A walk over the jobs looks at SCAN_MAX of them in a tick.
 */
#include "region_calls.h"

enum { SCAN_MAX = 256, AGAIN_MS = 60000, MOVE_MS = 600000 };

static void tell_cluster(struct orr_ctx *ctx,
                         const struct region *self,
                         const struct region_node *node)
{
    const struct region_cluster *cluster = orr_pool_at(&self->clusters, node->cluster);
    orr_send(ctx,
             cluster->addr,
             node_drain,
             .cluster = orr_str(cluster->name),
             .node = orr_str(node->name),
             .is_draining = node->is_draining);
}

static const struct region_node *
find_node(const struct region *self, struct orr_str cluster, struct orr_str name)
{
    const struct region_node *found = NULL;
    for (const struct region_node *node = NULL;
         (node = orr_pool_next(&self->nodes, node)) != NULL;) {
        const struct region_cluster *of = orr_pool_at(&self->clusters, node->cluster);
        if (!orr_str_eq(orr_str(node->name), name) ||
            (cluster.len && !orr_str_eq(orr_str(of->name), cluster)))
            continue;
        if (found)
            return NULL; /* of two clusters */
        found = node;
    }
    return found;
}

const struct region_node *region_node_of(const struct region *self,
                                         const struct region_job *job,
                                         struct orr_str name)
{
    char key[2 * ORR_NAME_MAX];
    const struct region_cluster *cluster = orr_pool_at(&self->clusters, job->cluster);
    snprintf(key, sizeof(key), "%s/%.*s", cluster->name, ORR_STR_ARGS(name));
    return orr_map_find(&self->nodes_by_key, orr_str(key));
}

struct region_node *region_target_node(struct orr_ctx *ctx,
                                       struct region *self,
                                       struct orr_str cluster,
                                       struct orr_str name)
{
    const struct region_node *node = find_node(self, cluster, name);
    if (node)
        return orr_pool_at(&self->nodes, orr_pool_index(&self->nodes, node));
    (void)orr_refuse(ctx,
                     ORR_ENOENT,
                     "node %.*s: there is none, or one in each of several clusters; "
                     "`orrery tree` lists them, write CLUSTER/NODE",
                     ORR_STR_ARGS(name));
    return NULL;
}

enum orr_err region_drain(struct orr_ctx *ctx,
                          struct region *self,
                          const struct orr_msg_node_drain *msg)
{
    struct region_node *node = region_target_node(ctx, self, msg->cluster, msg->node);
    if (!node)
        return ORR_ENOENT;
    if (node->is_draining == msg->is_draining)
        return ORR_OK;
    node->is_draining = msg->is_draining;
    self->n_draining += node->is_draining ? 1 : UINT32_MAX;
    region_save_node(ctx, self, node);
    char subject[sizeof(node->key) + 8];
    snprintf(subject, sizeof(subject), "node/%s", node->key);
    region_event(ctx,
                 self,
                 &(struct orr_msg_event){.type = ORR_LIT("node.drain"),
                                         .subject = orr_str(subject),
                                         .to = node->is_draining ? ORR_LIT("on")
                                                                 : ORR_LIT("off")});
    tell_cluster(ctx, self, node);
    for (struct region_job *job = NULL;
         (job = orr_pool_next(&self->jobs, job)) != NULL;)
        job->drain_ms = 0;
    return ORR_OK;
}

/* After a summary: the state that the cluster gives it, or its drain, which it may not know. */
uint32_t region_drain_state(struct orr_ctx *ctx,
                            const struct region *self,
                            const struct region_node *node,
                            uint32_t state)
{
    bool is_told = state == ORR_NODE_DRAINING;
    bool is_there = state == ORR_NODE_UP || is_told;
    if (is_there && is_told != node->is_draining)
        tell_cluster(ctx, self, node);
    return is_there ? (node->is_draining ? ORR_NODE_DRAINING : ORR_NODE_UP) : state;
}

/* For the answer to a cluster that registers: into scratch memory. */
struct orr_list_text region_draining(const struct region *self,
                                     const struct region_cluster *cluster,
                                     struct orr_rec_text *list,
                                     uint32_t cap)
{
    const struct region_node *node;
    uint32_t n = 0;
    for (uint32_t at = cluster->first_node;
         (node = orr_pool_at(&self->nodes, at)) != NULL && n < cap;
         at = node->next)
        if (node->is_draining)
            list[n++].value = orr_str(node->name);
    return (struct orr_list_text){list, n};
}

/* A node of the job that is to be emptied; NULL: none. */
static const struct region_node *drained_node(struct region *self,
                                              const struct region_job *job)
{
    const struct region_cluster *cluster = orr_pool_at(&self->clusters, job->cluster);
    const struct region_node *node;
    for (uint32_t at = cluster->first_node;
         (node = orr_pool_at(&self->nodes, at)) != NULL;
         at = node->next) {
        if (!node->is_draining)
            continue;
        struct orr_list_rank_place ranks = region_places(self, job);
        for (uint32_t i = 0; i < ranks.n; i++)
            if (orr_str_eq(ranks.at[i].node, orr_str(node->name)))
                return node;
    }
    return NULL;
}

/* It stays, and says so. */
static void leave(struct orr_ctx *ctx,
                  struct region *self,
                  struct region_job *job,
                  const struct region_node *node,
                  const char *why)
{
    job->drain_ms = orr_now_ms(ctx) + AGAIN_MS;
    snprintf(job->reason,
             sizeof(job->reason),
             "node %.64s drains, and it cannot move: %.100s",
             node->name,
             why);
    region_save(self, job, 0);
}

static enum orr_err move_one(struct orr_ctx *ctx,
                             struct region *self,
                             struct region_job *job,
                             const struct region_node *node)
{
    char text[200];
    bool can_move = job->level == ORR_LEVEL_IMAGE ||
                    job->level == ORR_LEVEL_COOPERATIVE ||
                    job->level == ORR_LEVEL_UNKNOWN;
    if (!can_move) {
        snprintf(text,
                 sizeof(text),
                 "its level is %s, image is needed: %.120s",
                 orr_level_name(job->level),
                 job->why_level);
        leave(ctx, self, job, node, text);
        return ORR_OK;
    }
    if (!region_fits_now(self, job)) {
        region_why_not(self, job, text, sizeof(text));
        leave(ctx, self, job, node, text);
        return ORR_OK;
    }
    snprintf(text, sizeof(text), "node %s drains", node->name);
    self->drain_job = orr_pool_index(&self->jobs, job);
    job->drain_ms = orr_now_ms(ctx) + MOVE_MS;
    return region_vacate(ctx, self, job, "", "", orr_str(text));
}

/* The one that moves: over, or taking so long that the next may go. */
static bool is_moving(const struct orr_ctx *ctx, const struct region *self)
{
    const struct region_job *job = region_job_at(self, self->drain_job);
    return job && job->order.kind == ORR_ORDER_VACATE &&
           (region_order_is_open(job) || job->order.state == ORR_ORDER_IS_QUEUED) &&
           orr_now_ms(ctx) < job->drain_ms;
}

enum orr_err region_drain_some(struct orr_ctx *ctx, struct region *self)
{
    if (self->n_draining == 0 || is_moving(ctx, self))
        return ORR_OK;
    self->drain_job = ORR_NONE;
    for (uint32_t seen = 0; seen < SCAN_MAX; seen++) {
        if (self->drain_next >= self->jobs.n_fresh) {
            self->drain_next = 0;
            return ORR_OK;
        }
        struct region_job *job = region_job_at(self, self->drain_next++);
        bool may_move =
            job && job->where == REGION_HELD && region_has_places(job) &&
            !job->is_cancelled && !region_order_is_open(job) &&
            (job->phase == ORR_JOB_RUNNING || job->phase == ORR_JOB_SUSPENDED) &&
            orr_now_ms(ctx) >= job->drain_ms;
        const struct region_node *node = may_move ? drained_node(self, job) : NULL;
        enum orr_err err = node ? move_one(ctx, self, job, node) : ORR_OK;
        if (err != ORR_OK || self->drain_job != ORR_NONE)
            return err;
    }
    return ORR_OK;
}
