/* SPDX-License-Identifier: Apache-2.0
 * region_schedule.c - which cluster gets which job, and why a job waits.
 *
 * The queue is walked in order (tier, then age) whenever there is news: a job, free capacity, an answer.  A job goes to the
 * cluster that gives it the most devices, and among those to the one with the least room left (best fit).  A job that does
 * not fit is passed over, later ones may start (backfill).  A walk looks at SCAN_MAX jobs at most and goes on a little later
 * where it stopped, so a long queue never holds up the region.
 * Capacity is what clusters last summarized, less what was given away since.  It may be wrong: the cluster has the last word
 * (ORR_ENODEV), and a cluster that refused a job is not asked again before there is news.
 */
#include "orrery/job_units.h"
#include "region_calls.h"

enum { SCAN_MAX = 256, SCHEDULE_SOON_MS = 1, SCHEDULE_MORE_MS = 5 };

void region_debit(struct region *self, const struct region_job *job, int sign)
{
    struct region_cluster *cluster = orr_pool_at(&self->clusters, job->cluster);
    *(job->gpus_max ? &cluster->gpus_debit : &cluster->slots_debit) +=
        sign * (int64_t)job->units;
}

void region_offered(struct region *self, const struct region_job *job, int sign)
{
    struct region_cluster *cluster = orr_pool_at(&self->clusters, job->cluster);
    *(job->gpus_max ? &cluster->gpus_offered : &cluster->slots_offered) +=
        sign * (int64_t)job->units;
}

static bool is_listed(struct orr_list_text list, const char *name)
{
    for (uint32_t i = 0; i < list.n; i++)
        if (orr_str_eq(list.at[i].value, orr_str(name)))
            return true;
    return false;
}

static bool node_fits(const struct region_node *node,
                      const struct orr_msg_job_spec *spec)
{
    return !is_listed(spec->exclude, node->name) &&
           node->gpu_memory_bytes >= spec->gpu_memory_bytes &&
           (spec->gpu_types.n == 0 || is_listed(spec->gpu_types, node->gpu_type));
}

/* Free units of the kind that the job needs; spec: its rules, NULL for none.  all: as if nothing ran. */
static int64_t room_for(const struct region *self,
                        const struct region_cluster *cluster,
                        const struct region_job *job,
                        const struct orr_msg_job_spec *spec,
                        bool all)
{
    int64_t room = 0;
    if (!spec && !all && !job->to_node[0]) {
        room = job->gpus_max ? cluster->gpus_free : cluster->slots_free;
    } else if (!spec || !is_listed(spec->exclude, cluster->name)) {
        const struct region_node *node;
        for (uint32_t at = cluster->first_node;
             (node = orr_pool_at(&self->nodes, at)) != NULL;
             at = node->next) {
            if ((!all && node->state != ORR_NODE_UP) ||
                (job->to_node[0] && strcmp(node->name, job->to_node) != 0) ||
                (spec && job->gpus_max && !node_fits(node, spec)))
                continue;
            if (job->gpus_max)
                room += all ? node->gpus : node->gpus_free;
            else if (!spec || !is_listed(spec->exclude, node->name))
                room += all ? node->slots : node->slots_free;
        }
    }
    if (!all)
        room -= job->gpus_max ? cluster->gpus_debit : cluster->slots_debit;
    if (!all && job->gpus_max && job->counter != cluster->kept_counter)
        room -= cluster->kept;
    return room > 0 ? room : 0;
}

/* Devices or slots that the job would get from so much room; 0: it does not fit. */
static uint32_t units_of(const struct region_job *job, int64_t room)
{
    if (job->gpus_max == 0)
        return room >= job->world ? job->world : 0;
    uint32_t exactly = region_order_devices(job);
    if (exactly)
        return room >= exactly ? exactly : 0;
    uint32_t high = room < job->gpus_max ? (uint32_t)room : job->gpus_max;
    return orr_job_units(job->world, job->shards, job->gpus_min, high, job->gpus_max);
}

uint32_t region_devices_least(const struct region_job *job)
{
    uint32_t exactly = region_order_devices(job);
    uint32_t least = job->gpus_min ? job->gpus_min : 1;
    if (exactly)
        return exactly;
    return job->shards <= job->gpus_max && job->shards > least ? job->shards : least;
}

static const struct orr_msg_job_spec *rules_of(struct region *self,
                                               const struct region_job *job)
{
    if (!job->has_rules)
        return NULL;
    struct orr_bytes body = region_spec(self, job);
    if (orr_msg_decode(orr_msg_desc_job_spec(),
                       body.ptr,
                       body.len,
                       self->spec.at,
                       self->spec.size) != ORR_OK)
        return NULL;
    return self->spec.at;
}

static bool may_go(const struct region_cluster *cluster, const struct region_job *job)
{
    return !job->to_cluster[0] || strcmp(cluster->name, job->to_cluster) == 0;
}

bool region_may_run_in(struct region *self,
                       const struct region_cluster *cluster,
                       const struct region_job *job)
{
    return cluster->state == ORR_NODE_UP && may_go(cluster, job) &&
           room_for(self, cluster, job, rules_of(self, job), true) >=
               (int64_t)region_devices_least(job);
}

static struct region_cluster *choose(struct region *self,
                                     const struct region_job *job,
                                     const struct orr_msg_job_spec *spec,
                                     uint32_t *ret_units)
{
    struct region_cluster *best = NULL;
    int64_t best_room = 0;
    uint32_t best_units = 0;
    for (struct region_cluster *cluster = NULL;
         (cluster = orr_pool_next(&self->clusters, cluster)) != NULL;) {
        uint64_t bit = UINT64_C(1) << orr_pool_index(&self->clusters, cluster);
        if (cluster->state != ORR_NODE_UP || !cluster->is_registered ||
            !may_go(cluster, job) ||
            (job->refused_at == self->capacity_seq && (job->refused_by & bit)))
            continue;
        int64_t room = room_for(self, cluster, job, spec, false);
        uint32_t units = units_of(job, room);
        if (units > best_units || (units && units == best_units && room < best_room)) {
            best = cluster;
            best_room = room;
            best_units = units;
        }
    }
    *ret_units = best_units;
    return best;
}

bool region_fits_now(struct region *self, const struct region_job *job)
{
    uint32_t units;
    return choose(self, job, rules_of(self, job), &units) != NULL;
}

/* Would they be there, once it has given back its own? */
bool region_fits_devices(struct region *self,
                         const struct region_job *job,
                         uint32_t devices)
{
    const struct orr_msg_job_spec *spec = rules_of(self, job);
    for (struct region_cluster *cluster = NULL;
         (cluster = orr_pool_next(&self->clusters, cluster)) != NULL;) {
        bool is_its_own = orr_pool_index(&self->clusters, cluster) == job->cluster;
        int64_t room = room_for(self, cluster, job, spec, false) +
                       (is_its_own ? (int64_t)job->units : 0);
        if (cluster->state == ORR_NODE_UP && cluster->is_registered &&
            room >= (int64_t)devices)
            return true;
    }
    return false;
}

/* The same for one that is not in the table. */
bool region_spec_fits_now(struct region *self,
                          const struct region_job *job,
                          const struct orr_msg_job_spec *spec)
{
    uint32_t units;
    return choose(self, job, job->has_rules ? spec : NULL, &units) != NULL;
}

/* "waits for 4 free devices on node n3 of c1" */
static size_t
say_need(const struct region_job *job, const char *verb, char *buf, size_t cap)
{
    uint32_t need = job->gpus_max ? (job->gpus_min ? job->gpus_min : 1) : job->world;
    return (size_t)snprintf(buf,
                            cap,
                            "%s %u free %s%s%s%s%s",
                            verb,
                            need,
                            job->gpus_max ? "devices" : "slots",
                            job->to_node[0] ? " on node " : "",
                            job->to_node,
                            job->to_cluster[0] ? " of " : "",
                            job->to_cluster);
}

void region_why_not(struct region *self,
                    const struct region_job *job,
                    char *buf,
                    size_t cap)
{
    (void)self;
    size_t len = say_need(job, "it needs", buf, cap);
    if (len < cap)
        snprintf(buf + len, cap - len, ", and there is no room now");
}

static enum orr_err offer(struct orr_ctx *ctx,
                          struct region *self,
                          struct region_job *job,
                          const struct region_cluster *cluster,
                          uint32_t units)
{
    region_dequeue(self, job);
    job->where = REGION_ASSIGNING;
    job->cluster = orr_pool_index(&self->clusters, cluster);
    job->units = units;
    job->generation++;
    job->update_incarnation =
        0; /* steps count within a generation: it may be on another host */
    job->update_step = 0;
    const struct region_checkpoint *from = region_checkpoint_newest(self, job);
    job->restore = from ? from->number : 0;
    if (!region_order_devices(job)) /* it is placed as its spec says */
        job->asked_devices = 0;
    region_save(self, job, 0);
    job->reason[0] = '\0';
    region_debit(self, job, 1);
    region_offered(self, job, 1);
    region_job_assign(ctx, self, job);
    return region_phase(ctx, self, job, ORR_JOB_PLACING, cluster->name);
}

static struct region_job *first_from(struct region *self, uint32_t tier)
{
    for (; tier < ORR_TIER_MAX_; tier++)
        if (self->queue[tier].head != ORR_NONE)
            return region_job_at(self, self->queue[tier].head);
    return NULL;
}

static struct region_job *after(struct region *self, const struct region_job *job)
{
    struct region_job *next = region_job_at(self, job->in_progress.next);
    return next ? next : first_from(self, job->tier + 1);
}

static bool has_room(const struct region *self)
{
    for (struct region_cluster *cluster = NULL;
         (cluster = orr_pool_next(&self->clusters, cluster)) != NULL;)
        if (cluster->state == ORR_NODE_UP &&
            (cluster->gpus_free > cluster->gpus_debit ||
             cluster->slots_free > cluster->slots_debit))
            return true;
    return false;
}

static void schedule_in(struct orr_ctx *ctx, struct region *self, uint64_t delay_ms)
{
    self->is_scheduling = true;
    orr_timer_set(ctx, REGION_T_SCHEDULE, delay_ms, 0);
}

/* There is news: walk the queue soon.  One walk for many news. */
void region_schedule(struct orr_ctx *ctx, struct region *self)
{
    if (!self->is_scheduling)
        schedule_in(ctx, self, SCHEDULE_SOON_MS);
}

enum orr_err region_schedule_some(struct orr_ctx *ctx, struct region *self)
{
    self->is_scheduling = false;
    struct region_job *job = region_job_at(self, self->resume_at);
    if (!job || job->where != REGION_QUEUED)
        job = first_from(self, 0);
    self->resume_at = ORR_NONE;
    for (uint32_t seen = 0; job && has_room(self); seen++) {
        if (seen == SCAN_MAX) {
            self->resume_at = orr_pool_index(&self->jobs, job);
            schedule_in(ctx, self, SCHEDULE_MORE_MS);
            return ORR_OK;
        }
        struct region_job *next = after(self, job);
        uint32_t units;
        struct region_cluster *cluster = choose(self, job, rules_of(self, job), &units);
        enum orr_err err = cluster ? offer(ctx, self, job, cluster, units) : ORR_OK;
        if (err != ORR_OK)
            return err;
        job = next;
    }
    return ORR_OK;
}

/* "waits for 4 free devices; c1 has 1, c2 has 0" */
void region_why(const struct orr_ctx *ctx,
                struct region *self,
                const struct region_job *job,
                char *buf,
                size_t cap)
{
    (void)ctx;
    buf[0] = '\0';
    if (job->where == REGION_LEAVING) {
        region_peer_why(job, buf, cap);
        return;
    }
    if (job->where != REGION_QUEUED || job->reason[0]) {
        orr_str_copy(buf, cap, orr_str(job->reason));
        return;
    }
    const struct orr_msg_job_spec *spec = rules_of(self, job);
    const char *what = job->gpus_max ? "devices" : "slots";
    uint32_t need = job->gpus_max ? (job->gpus_min ? job->gpus_min : 1) : job->world;
    int64_t most = 0;
    for (struct region_cluster *cluster = NULL;
         (cluster = orr_pool_next(&self->clusters, cluster)) != NULL;) {
        int64_t all = room_for(self, cluster, job, spec, true);
        most = all > most ? all : most;
    }
    if (self->clusters.n_used == 0) {
        snprintf(buf, cap, "waits for a cluster; none has registered yet");
        return;
    }
    size_t len = most >= need
                     ? say_need(job, "waits for", buf, cap)
                     : (size_t)snprintf(buf,
                                        cap,
                                        "needs %u %s%s; no cluster has more than %lld",
                                        need,
                                        what,
                                        spec ? " that fit" : "",
                                        (long long)most);
    for (struct region_cluster *cluster = NULL;
         most >= need && len < cap &&
         (cluster = orr_pool_next(&self->clusters, cluster)) != NULL;) {
        const char *separator = strchr(buf, ';') ? "," : ";";
        if (!may_go(cluster, job))
            continue;
        bool is_excluded = spec && is_listed(spec->exclude, cluster->name);
        len +=
            (size_t)(is_excluded
                         ? snprintf(buf + len,
                                    cap - len,
                                    "%s %s is excluded",
                                    separator,
                                    cluster->name)
                         : snprintf(
                               buf + len,
                               cap - len,
                               "%s %s has %lld%s",
                               separator,
                               cluster->name,
                               (long long)room_for(self, cluster, job, spec, false),
                               cluster->state == ORR_NODE_UP ? "" : " (out of reach)"));
    }
}
