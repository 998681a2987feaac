/* SPDX-License-Identifier: Apache-2.0
 * cluster_jobs.c - the jobs placed here, what they hold, and what was left behind by
 * earlier lives.
 *
 * START     job_assign: place all ranks or none (ORR_ENODEV), hold the devices, spawn
 * the job actor RECOVERY  job_assign with is_recovery: hold what the region remembers,
 * spawn an actor that adopts END       the actor releases node by node and stops
 * ORPHANS   ranks that a node lists and no actor cares for: the region is asked
 * (claim_check) and either hands the job over again or does not know it, then they are
 * stopped and forgotten here
 */
#include "cluster_calls.h"
#include "orrery/job_args.h"

enum { ASK_MS = 2000, ORPHAN_GRACE_MS = 1000 };

static void make_key(char *dst, size_t cap, struct orr_str job, uint64_t generation)
{
    snprintf(dst, cap, "%.*s/%llu", ORR_STR_ARGS(job), (unsigned long long)generation);
}

struct cluster_job *
cluster_job_find(const struct cluster *self, struct orr_str job, uint64_t generation)
{
    char key[ORR_JOB_ID_MAX + 24];
    make_key(key, sizeof(key), job, generation);
    return orr_map_find(&self->jobs_by_key, orr_str(key));
}

struct cluster_job *
cluster_job_get(struct cluster *self, struct orr_str id, uint64_t generation)
{
    struct cluster_job *job = cluster_job_find(self, id, generation);
    if (job)
        return job;
    job = id.len < ORR_JOB_ID_MAX ? orr_pool_take(&self->jobs) : NULL;
    if (!job)
        return NULL;
    make_key(job->key, sizeof(job->key), id, generation);
    orr_str_copy(job->job, sizeof(job->job), id);
    job->generation = generation;
    job->state = CLUSTER_JOB_ORPHAN;
    job->first_hold = ORR_NONE;
    orr_map_add(&self->jobs_by_key, job);
    return job;
}

void cluster_job_await(struct cluster *self, struct cluster_job *job, bool is_awaited)
{
    if (job->is_awaited != is_awaited)
        self->n_awaited = is_awaited ? self->n_awaited + 1 : self->n_awaited - 1;
    job->is_awaited = is_awaited;
}

void cluster_job_drop(struct cluster *self, struct cluster_job *job)
{
    cluster_job_await(self, job, false);
    while (job->first_hold != ORR_NONE)
        cluster_hold_drop(self, orr_pool_at(&self->holds, job->first_hold));
    orr_map_remove(&self->jobs_by_key, job);
    orr_pool_give(&self->jobs, job);
}

/* ---- holds ---- */

static struct cluster_hold *hold_find(const struct cluster *self,
                                      const struct cluster_job *job,
                                      const struct cluster_node *node)
{
    uint32_t index = orr_pool_index(&self->nodes, node);
    struct cluster_hold *hold = orr_pool_at(&self->holds, job->first_hold);
    while (hold && hold->node != index)
        hold = orr_pool_at(&self->holds, hold->next);
    return hold;
}

struct cluster_hold *cluster_hold_get(struct cluster *self,
                                      struct cluster_job *job,
                                      struct cluster_node *node)
{
    struct cluster_hold *hold = hold_find(self, job, node);
    if (hold)
        return hold;
    hold = orr_pool_take(&self->holds);
    if (!hold)
        return NULL;
    hold->job = orr_pool_index(&self->jobs, job);
    hold->node = orr_pool_index(&self->nodes, node);
    hold->next = job->first_hold;
    job->first_hold = orr_pool_index(&self->holds, hold);
    return hold;
}

/* One more rank: its device (which ranks may share), or a slot. */
void cluster_hold_add(struct cluster *self, struct cluster_hold *hold, uint32_t device)
{
    struct cluster_node *node = orr_pool_at(&self->nodes, hold->node);
    if (device == ORR_PARKED_DEVICE)
        return; /* suspended: it is there and has none */
    if (device < CLUSTER_DEVICES_MAX) {
        hold->devices |= UINT64_C(1) << device;
        node->used |= UINT64_C(1) << device;
    } else {
        hold->slots++;
        node->slots_used++;
    }
}

void cluster_hold_clear(struct cluster *self, struct cluster_hold *hold)
{
    struct cluster_node *node = orr_pool_at(&self->nodes, hold->node);
    node->slots_used -= hold->slots;
    node->used =
        0; /* counted anew: what a node lists may overlap with what was placed */
    hold->devices = hold->parked = 0;
    hold->slots = 0;
    for (struct cluster_hold *other = NULL;
         (other = orr_pool_next(&self->holds, other)) != NULL;)
        if (other->node == hold->node)
            node->used |= other->devices;
}

void cluster_hold_drop(struct cluster *self, struct cluster_hold *hold)
{
    struct cluster_job *job = orr_pool_at(&self->jobs, hold->job);
    uint32_t *link = &job->first_hold;
    while (*link != orr_pool_index(&self->holds, hold))
        link = &((struct cluster_hold *)orr_pool_at(&self->holds, *link))->next;
    *link = hold->next;
    cluster_hold_clear(self, hold);
    orr_pool_give(&self->holds, hold);
}

/* ---- placing ---- */

static bool is_listed(struct orr_list_text list, const char *name)
{
    for (uint32_t i = 0; i < list.n; i++)
        if (orr_str_eq(list.at[i].value, orr_str(name)))
            return true;
    return false;
}

uint64_t cluster_node_fitting(const struct cluster_node *node,
                              const struct orr_msg_job_spec *spec)
{
    uint64_t mask = 0;
    for (uint32_t i = 0; i < CLUSTER_DEVICES_MAX; i++) {
        const struct cluster_device *device = &node->devices[i];
        if (device->is_there && device->is_healthy &&
            device->memory_bytes >= spec->gpu_memory_bytes &&
            (spec->gpu_types.n == 0 || is_listed(spec->gpu_types, device->type)))
            mask |= UINT64_C(1) << i;
    }
    return mask;
}

uint64_t cluster_node_usable(const struct cluster_node *node,
                             const struct orr_msg_job_spec *spec)
{
    return cluster_node_fitting(node, spec) & ~node->used;
}

bool cluster_node_suits(const struct cluster *self,
                        const struct cluster_node *node,
                        const struct orr_msg_job_spec *spec)
{
    return node->state == ORR_NODE_UP && !node->is_draining &&
           !is_listed(spec->exclude, node->name) &&
           cluster_node_can_be_given_up(self, node);
}

static uint32_t make_view(struct cluster *self,
                          const struct orr_msg_job_spec *spec,
                          struct orr_str want_node)
{
    struct place_node *view = self->view.at;
    uint32_t n = 0;
    if (is_listed(spec->exclude, self->args.cluster))
        return 0;
    for (struct cluster_node *node = NULL;
         (node = orr_pool_next(&self->nodes, node)) != NULL;) {
        if (!cluster_node_suits(self, node, spec) ||
            (want_node.len && !orr_str_eq(orr_str(node->name), want_node)))
            continue;
        uint32_t free_slots =
            node->slots > node->slots_used ? node->slots - node->slots_used : 0;
        uint32_t room =
            spec->gpus_max
                ? (uint32_t)__builtin_popcountll(cluster_node_usable(node, spec))
                : free_slots;
        if (room)
            view[n++] = (struct place_node){.index = orr_pool_index(&self->nodes, node),
                                            .room = room};
    }
    return n;
}

/* Ranks in order over the taken units: contiguous blocks per device, nodes in the order
 * of the table.  Who is really to share one is the job actor's to say (job_resize.c). */
static struct orr_list_rank_place lay_out(struct cluster *self,
                                          const struct orr_msg_job_spec *spec,
                                          uint32_t n_view,
                                          uint32_t units)
{
    const struct place_node *view = self->view.at;
    struct orr_rec_rank_place *places = self->places.at;
    uint32_t rank = 0, at = 0;
    for (uint32_t i = 0; i < n_view; i++) {
        const struct cluster_node *node = orr_pool_at(&self->nodes, view[i].index);
        uint64_t devices = spec->gpus_max ? cluster_node_usable(node, spec) : 0;
        uint32_t local = 0;
        for (uint32_t unit = 0; unit < view[i].take; unit++) {
            uint32_t device =
                devices ? (uint32_t)__builtin_ctzll(devices) : ORR_NO_DEVICE;
            devices &= devices - 1;
            uint64_t end = (uint64_t)spec->world * ++at / units;
            for (; rank < end; rank++)
                places[rank] = (struct orr_rec_rank_place){.rank = rank,
                                                           .node = orr_str(node->name),
                                                           .device = device,
                                                           .local_rank = local++};
        }
    }
    return (struct orr_list_rank_place){places, rank};
}

static enum orr_err place(struct orr_ctx *ctx,
                          struct cluster *self,
                          const struct orr_msg_job_spec *spec,
                          struct orr_str want_node,
                          uint32_t devices,
                          struct orr_list_rank_place *ret_places)
{
    const struct place_want want = {.world = spec->world,
                                    .shards = spec->shards,
                                    .devices = spec->gpus_max ? devices : 0,
                                    .gpus_min = spec->gpus_min,
                                    .gpus_max = spec->gpus_max,
                                    .spread = spec->spread};
    if (spec->world == 0 || spec->world > self->args.world_max)
        return orr_refuse(ctx,
                          ORR_ENODEV,
                          "cluster %s runs jobs of at most %u ranks",
                          self->args.cluster,
                          self->args.world_max);
    uint32_t n = make_view(self, spec, want_node);
    uint32_t units;
    if (cluster_place(&want, self->view.at, n, &units) != ORR_OK)
        return orr_refuse(
            ctx,
            ORR_ENODEV,
            "%s %.*s has no room for it now",
            want_node.len ? "node" : "cluster",
            ORR_STR_ARGS(want_node.len ? want_node : orr_str(self->args.cluster)));
    *ret_places = lay_out(self, spec, n, units);
    return ORR_OK;
}

/* ---- starting ---- */

static enum orr_err hold_places(struct orr_ctx *ctx,
                                struct cluster *self,
                                struct cluster_job *job,
                                struct orr_list_rank_place places,
                                bool is_suspended)
{
    /* An orphan's holds came from rows of these very ranks; the placement says it all.  A node that it does not name has what is
     * left of ranks that changed node: the actor is to end that. */
    for (struct cluster_hold *hold = orr_pool_at(&self->holds, job->first_hold); hold;
         hold = orr_pool_at(&self->holds, hold->next)) {
        hold->is_placed = false;
        cluster_hold_clear(self, hold);
    }
    for (uint32_t i = 0; i < places.n; i++) {
        struct cluster_node *node = cluster_node_get(ctx, self, places.at[i].node);
        struct cluster_hold *hold = node ? cluster_hold_get(self, job, node) : NULL;
        if (!hold)
            return orr_refuse(
                ctx,
                ORR_ENOSPC,
                "cluster %s: too many nodes or holds; raise nodes_max or jobs_max",
                self->args.cluster);
        hold->is_placed = true;
        uint32_t device = places.at[i].device;
        bool is_parked = is_suspended && device != ORR_NO_DEVICE;
        if (is_parked && device < CLUSTER_DEVICES_MAX)
            hold->parked |= UINT64_C(1) << device;
        cluster_hold_add(self, hold, is_parked ? ORR_PARKED_DEVICE : device);
    }
    return ORR_OK;
}

static struct orr_list_job_node list_nodes(struct cluster *self,
                                           const struct cluster_job *job)
{
    struct orr_rec_job_node *list = self->list.at;
    uint32_t n = 0;
    for (struct cluster_hold *hold = orr_pool_at(&self->holds, job->first_hold); hold;
         hold = orr_pool_at(&self->holds, hold->next)) {
        const struct cluster_node *node = orr_pool_at(&self->nodes, hold->node);
        list[n++] = cluster_node_told(node);
    }
    return (struct orr_list_job_node){list, n};
}

static enum orr_err spawn_job(struct orr_ctx *ctx,
                              struct cluster *self,
                              struct cluster_job *job,
                              const struct orr_msg_job_assign *msg,
                              struct orr_list_rank_place places)
{
    const struct orr_msg_job_spec *spec = self->spec.at;
    struct orr_list_job_node nodes = list_nodes(self, job);
    struct orr_job_args args = {
        .leader = cluster_leader(self),
        .generation = job->generation,
        .limit_ms = spec->limit_ms,
        .deadline_unix_ms = spec->deadline_unix_ms,
        .checkpoint_every_ms = spec->checkpoint_every_ms,
        .hang_ms = spec->hang_ms,
        .checkpoint_mode = spec->checkpoint_mode,
        .world = spec->world,
        .shards = spec->shards,
        .gpus_min = spec->gpus_min,
        .gpus_max = spec->gpus_max,
        .reduce = spec->reduce,
        .n_nodes = nodes.n,
        .spec_bytes = msg->spec.len,
    };
    memcpy(args.region, self->args.region, sizeof(args.region));
    memcpy(args.cluster, self->args.cluster, sizeof(args.cluster));
    memcpy(args.job, job->job, sizeof(args.job));
    char path[2 * ORR_NAME_MAX + sizeof(job->key) + 16];
    snprintf(path,
             sizeof(path),
             "/%s/%s/job/%s",
             self->args.region,
             self->args.cluster,
             job->key);
    enum orr_err err =
        orr_spawn(ctx,
                  &(struct orr_spawn){self->args.job_type, &args, path, ORR_TEMPORARY},
                  &job->addr);
    if (err != ORR_OK)
        return orr_refuse(ctx,
                          ORR_EBUSY,
                          "cluster %s cannot start one more job actor: %s",
                          self->args.cluster,
                          orr_err_text(err));
    job->state = CLUSTER_JOB_LIVE;
    cluster_job_await(self, job, false);
    cluster_growth_init(job, spec);
    orr_monitor(ctx, job->addr, true);
    orr_send(ctx,
             job->addr,
             job_start,
             .spec = msg->spec,
             .is_recovery = msg->is_recovery,
             .ranks = places,
             .nodes = nodes,
             .manifest = msg->manifest,
             .is_suspended = msg->is_suspended);
    cluster_changed(ctx, self);
    return ORR_OK;
}

enum orr_err cluster_job_assign(struct orr_ctx *ctx,
                                struct cluster *self,
                                const struct orr_msg_job_assign *msg)
{
    struct cluster_job *job = cluster_job_find(self, msg->job, msg->generation);
    if (job && job->state == CLUSTER_JOB_LIVE)
        return ORR_OK;
    if (!msg->is_recovery && (!self->is_registered || self->n_awaited > 0))
        return orr_refuse(ctx,
                          ORR_EBUSY,
                          "cluster %s has restarted and still finds out what runs here",
                          self->args.cluster);
    if (job && !msg->is_recovery)
        return orr_refuse(ctx, ORR_ESTALE, "job %s has ranks here already", job->key);
    enum orr_err err = orr_msg_decode(orr_msg_desc_job_spec(),
                                      msg->spec.ptr,
                                      msg->spec.len,
                                      self->spec.at,
                                      self->spec.size);
    if (err != ORR_OK)
        return orr_refuse(
            ctx, err, "job %.*s: its spec cannot be read", ORR_STR_ARGS(msg->job));
    struct orr_list_rank_place places = msg->ranks;
    if (!msg->is_recovery)
        err = place(ctx, self, self->spec.at, msg->want_node, msg->devices, &places);
    if (err != ORR_OK)
        return err;
    job = cluster_job_get(self, msg->job, msg->generation);
    if (!job)
        return orr_refuse(ctx,
                          ORR_ENODEV,
                          "cluster %s holds %u jobs already; raise jobs_max",
                          self->args.cluster,
                          self->jobs.n_used);
    err = hold_places(ctx, self, job, places, msg->is_recovery && msg->is_suspended);
    if (err == ORR_OK)
        err = spawn_job(ctx, self, job, msg, places);
    if (err != ORR_OK && !msg->is_recovery)
        cluster_job_drop(self, job);
    return err;
}

/* ---- ending ---- */

void cluster_job_gone(struct orr_ctx *ctx,
                      struct cluster *self,
                      const struct orr_msg_down *msg)
{
    struct cluster_job *job = NULL;
    while ((job = orr_pool_next(&self->jobs, job)) != NULL)
        if (job->state == CLUSTER_JOB_LIVE && orr_addr_eq(job->addr, msg->who))
            break;
    if (!job)
        return;
    if (msg->why !=
        ORR_OK) { /* the region hands it over again when it misses the claim */
        orr_log(ctx,
                ORR_LOG_ERROR,
                "the actor of job %s failed: %s",
                job->key,
                orr_err_text(msg->why));
        self->is_registered = false;
        cluster_send_register(ctx, self);
    }
    job->state = CLUSTER_JOB_ORPHAN;
    if (job->first_hold == ORR_NONE)
        cluster_job_drop(self, job);
    cluster_changed(ctx, self);
}

void cluster_forgotten(struct orr_ctx *ctx,
                       struct cluster *self,
                       uint32_t hold_index,
                       uint32_t seq)
{
    struct cluster_hold *hold = orr_pool_at(&self->holds, hold_index);
    struct cluster_job *job = hold ? orr_pool_at(&self->jobs, hold->job) : NULL;
    if (!job || (hold->seq & 0xffffff) != seq || job->state != CLUSTER_JOB_DOOMED)
        return;
    cluster_hold_drop(self, hold);
    if (job->first_hold == ORR_NONE)
        cluster_job_drop(self, job);
    cluster_changed(ctx, self);
}

void cluster_job_doom(struct cluster *self, struct cluster_job *job)
{
    job->state = CLUSTER_JOB_DOOMED;
    cluster_job_await(self, job, false);
    if (job->first_hold == ORR_NONE)
        cluster_job_drop(self, job);
}

static void
clean_up(struct orr_ctx *ctx, struct cluster *self, const struct cluster_job *job)
{
    for (struct cluster_hold *hold = orr_pool_at(&self->holds, job->first_hold); hold;
         hold = orr_pool_at(&self->holds, hold->next)) {
        const struct cluster_node *node = orr_pool_at(&self->nodes, hold->node);
        if (node->state != ORR_NODE_UP)
            continue;
        uint32_t index = orr_pool_index(&self->holds, hold);
        hold->seq = ++self->next_seq;
        orr_ask(ctx,
                node->addr,
                ASK_MS,
                cluster_tag(CLUSTER_TAG_STOP, index, hold->seq),
                rank_stop,
                .job = orr_str(job->job),
                .generation = job->generation,
                .grace_ms = ORPHAN_GRACE_MS);
        orr_ask(ctx,
                node->addr,
                ASK_MS,
                cluster_tag(CLUSTER_TAG_FORGET, index, hold->seq),
                ranks_forget,
                .job = orr_str(job->job),
                .generation = job->generation);
    }
}

void cluster_orphans_check(struct orr_ctx *ctx, struct cluster *self)
{
    for (struct cluster_job *job = NULL;
         (job = orr_pool_next(&self->jobs, job)) != NULL;) {
        if (job->state == CLUSTER_JOB_DOOMED)
            clean_up(ctx, self, job);
        if (job->state != CLUSTER_JOB_ORPHAN || !self->is_registered)
            continue;
        job->seq = ++self->next_seq;
        orr_ask(
            ctx,
            cluster_leader(self),
            ASK_MS,
            cluster_tag(CLUSTER_TAG_CHECK, orr_pool_index(&self->jobs, job), job->seq),
            claim_check,
            .job = orr_str(job->job),
            .generation = job->generation);
    }
}
