/* SPDX-License-Identifier: Apache-2.0
 * cluster_devices.c - devices of jobs that are suspended: given back, and taken again.
 *
 * A suspended job keeps its holds, so that its slots and its memory stay counted, but no devices in them.  To go on it gets
 * devices on the same nodes, of the same type, which may be others: ranks that shared one share one again.  All or none.
 *
 * A job that is resized asks for a number before it stops (devices_want): what it is given and what it has are both held
 * until it says which it runs on (devices_keep), so it can always go back.  What its nodes do not have it may get on others.
 */
#include <stdlib.h>

#include "cluster_calls.h"

static struct cluster_job *find_live(struct orr_ctx *ctx,
                                     const struct cluster *self,
                                     struct orr_str id,
                                     uint64_t generation)
{
    struct cluster_job *job = cluster_job_find(self, id, generation);
    if (job && job->state == CLUSTER_JOB_LIVE && orr_addr_eq(job->addr, ctx->from))
        return job;
    (void)orr_refuse(ctx,
                     ORR_ENOENT,
                     "cluster %s has no actor of job %.*s that this could be",
                     self->args.cluster,
                     ORR_STR_ARGS(id));
    return NULL;
}

static void free_of(struct cluster *self, struct cluster_hold *hold)
{
    struct cluster_node *node = orr_pool_at(&self->nodes, hold->node);
    uint32_t slots = hold->slots;
    cluster_hold_clear(self, hold);
    hold->slots = slots;
    node->slots_used += slots;
}

static void free_devices(struct cluster *self, struct cluster_job *job)
{
    for (struct cluster_hold *hold = orr_pool_at(&self->holds, job->first_hold); hold;
         hold = orr_pool_at(&self->holds, hold->next))
        free_of(self, hold);
}

enum orr_err cluster_devices_freed(struct orr_ctx *ctx,
                                   struct cluster *self,
                                   const struct orr_msg_devices_freed *msg)
{
    struct cluster_job *job = find_live(ctx, self, msg->job, msg->generation);
    if (!job)
        return ORR_ENOENT;
    for (struct cluster_hold *hold = orr_pool_at(&self->holds, job->first_hold); hold;
         hold = orr_pool_at(&self->holds, hold->next)) {
        uint64_t had = hold->devices | hold->parked;
        free_of(self, hold);
        hold->parked = had;
    }
    cluster_changed(ctx, self);
    return ORR_OK;
}

static uint64_t held_by(const struct cluster *self,
                        const struct cluster_job *job,
                        const struct cluster_node *node)
{
    for (const struct cluster_hold *hold = orr_pool_at(&self->holds, job->first_hold);
         hold;
         hold = orr_pool_at(&self->holds, hold->next))
        if (orr_pool_at(&self->nodes, hold->node) == node)
            return hold->devices;
    return 0;
}

/* Free, and as good as that one. */
static bool is_like(const struct cluster_node *node,
                    uint64_t taken,
                    uint32_t i,
                    const struct cluster_device *was)
{
    const struct cluster_device *device = &node->devices[i];
    return device->is_there && device->is_healthy && !(taken >> i & 1) &&
           strcmp(device->type, was->type) == 0 &&
           device->memory_bytes >= was->memory_bytes;
}

uint64_t
cluster_devices_like(const struct cluster_node *node, uint64_t taken, uint32_t device)
{
    uint64_t mask = 0;
    for (uint32_t i = 0; i < CLUSTER_DEVICES_MAX; i++)
        if (is_like(node, taken, i, &node->devices[device]))
            mask |= UINT64_C(1) << i;
    return mask;
}

/* The same one where it is free, else one of its type; ORR_NO_DEVICE: none. */
static uint32_t pick(const struct cluster_node *node, uint64_t taken, uint32_t was)
{
    uint32_t found = ORR_NO_DEVICE;
    for (uint32_t i = 0; i < CLUSTER_DEVICES_MAX; i++)
        if (is_like(node, taken, i, &node->devices[was]) &&
            (found == ORR_NO_DEVICE || i == was))
            found = i;
    return found;
}

/* An earlier rank of the list that had the same device; n: none. */
static uint32_t twin_of(const struct orr_msg_devices_want *msg, uint32_t at)
{
    const struct orr_rec_rank_place *rank = &msg->ranks.at[at];
    for (uint32_t i = 0; i < at; i++)
        if (msg->ranks.at[i].device == rank->device &&
            orr_str_eq(msg->ranks.at[i].node, rank->node))
            return i;
    return msg->ranks.n;
}

/* What is taken on a node: by others, and by the ranks before `n`. */
static uint64_t taken_on(const struct cluster *self,
                         const struct cluster_job *job,
                         const struct cluster_node *node,
                         const struct orr_rec_rank_place *places,
                         uint32_t n)
{
    uint64_t taken = node->used & ~held_by(self, job, node);
    for (uint32_t i = 0; i < n; i++)
        if (places[i].device < CLUSTER_DEVICES_MAX &&
            orr_str_eq(places[i].node, orr_str(node->name)))
            taken |= UINT64_C(1) << places[i].device;
    return taken;
}

static enum orr_err place_again(struct orr_ctx *ctx,
                                struct cluster *self,
                                const struct cluster_job *job,
                                const struct orr_msg_devices_want *msg)
{
    struct orr_rec_rank_place *places = self->places.at;
    for (uint32_t i = 0; i < msg->ranks.n; i++) {
        places[i] = msg->ranks.at[i];
        if (places[i].device >= CLUSTER_DEVICES_MAX)
            continue; /* a rank without one */
        uint32_t twin = twin_of(msg, i);
        if (twin < i) {
            places[i].device = places[twin].device;
            continue;
        }
        const struct cluster_node *node = cluster_node_find(self, places[i].node);
        uint32_t device =
            node && node->state == ORR_NODE_UP
                ? pick(node, taken_on(self, job, node, places, i), places[i].device)
                : ORR_NO_DEVICE;
        if (device == ORR_NO_DEVICE)
            return orr_refuse(ctx,
                              ORR_ENODEV,
                              "node %.*s has no free device of that type now",
                              ORR_STR_ARGS(places[i].node));
        places[i].device = device;
    }
    return ORR_OK;
}

static void hold_devices(struct cluster *self,
                         struct cluster_job *job,
                         struct orr_list_rank_place places)
{
    for (uint32_t i = 0; i < places.n; i++) {
        struct cluster_node *node = cluster_node_find(self, places.at[i].node);
        struct cluster_hold *hold = node ? cluster_hold_get(self, job, node) : NULL;
        if (!hold)
            continue;
        hold->is_placed = true;
        if (places.at[i].device < CLUSTER_DEVICES_MAX)
            cluster_hold_add(self, hold, places.at[i].device);
    }
}

/* ---- another number of devices ---- */

/* How many ranks each device of a node has. */
static void count_ranks(const struct orr_msg_devices_want *msg,
                        const struct cluster_node *node,
                        uint32_t ret_ranks[CLUSTER_DEVICES_MAX])
{
    memset(ret_ranks, 0, CLUSTER_DEVICES_MAX * sizeof(*ret_ranks));
    for (uint32_t i = 0; i < msg->ranks.n; i++)
        if (msg->ranks.at[i].device < CLUSTER_DEVICES_MAX &&
            orr_str_eq(msg->ranks.at[i].node, orr_str(node->name)))
            ret_ranks[msg->ranks.at[i].device]++;
}

/* Its own, those with the most ranks first; then free ones of the type of the first.  Returns how many there are. */
static uint32_t candidates(const struct cluster *self,
                           const struct cluster_job *job,
                           const struct cluster_node *node,
                           const struct orr_msg_devices_want *msg,
                           uint32_t ret_devices[CLUSTER_DEVICES_MAX])
{
    uint32_t ranks[CLUSTER_DEVICES_MAX], n = 0;
    uint64_t taken = node->used & ~held_by(self, job, node);
    count_ranks(msg, node, ranks);
    for (;;) {
        uint32_t best = CLUSTER_DEVICES_MAX;
        for (uint32_t i = 0; i < CLUSTER_DEVICES_MAX; i++)
            if (ranks[i] && (best == CLUSTER_DEVICES_MAX || ranks[i] > ranks[best]))
                best = i;
        if (best == CLUSTER_DEVICES_MAX)
            break;
        ranks[best] = 0;
        taken |= UINT64_C(1) << best;
        if (node->devices[best].is_there && node->devices[best].is_healthy)
            ret_devices[n++] = best;
    }
    for (uint32_t more; n > 0 && n < CLUSTER_DEVICES_MAX &&
                        (more = pick(node, taken, ret_devices[0])) != ORR_NO_DEVICE;) {
        taken |= UINT64_C(1) << more;
        ret_devices[n++] = more;
    }
    return n;
}

/* What each of its nodes can give.  Errors: ORR_EBUSY: one is out of reach. */
static enum orr_err view_own(struct orr_ctx *ctx,
                             struct cluster *self,
                             const struct cluster_job *job,
                             const struct orr_msg_devices_want *msg,
                             uint32_t *ret_least,
                             uint32_t *ret_most)
{
    struct place_node *view = self->view.at;
    uint32_t devices[CLUSTER_DEVICES_MAX];
    bool is_enough = true;
    *ret_least = *ret_most = 0;
    for (uint32_t i = 0; i < msg->needs.n; i++) {
        const struct orr_rec_device_need *need = &msg->needs.at[i];
        const struct cluster_node *node = cluster_node_find(self, need->node);
        if (!node || node->state != ORR_NODE_UP)
            return orr_refuse(ctx,
                              ORR_EBUSY,
                              "node %.*s is out of reach now",
                              ORR_STR_ARGS(need->node));
        uint32_t room = candidates(self, job, node, msg, devices);
        view[i] = (struct place_node){.index = orr_pool_index(&self->nodes, node),
                                      .room = room < need->ranks ? room : need->ranks,
                                      .take = need->least};
        *ret_least += need->least;
        *ret_most += view[i].room;
        is_enough = is_enough && view[i].room >= need->least;
    }
    *ret_most = is_enough ? *ret_most : 0;
    return ORR_OK;
}

/* The least first, then always where a device has the most ranks to carry. */
static void share_out(struct cluster *self,
                      const struct orr_msg_devices_want *msg,
                      uint32_t devices,
                      uint32_t given)
{
    struct place_node *view = self->view.at;
    while (given < devices) {
        uint32_t best = ORR_NONE;
        for (uint32_t i = 0; i < msg->needs.n; i++) {
            bool is_heavier = best == ORR_NONE ||
                              (uint64_t)msg->needs.at[i].ranks * view[best].take >
                                  (uint64_t)msg->needs.at[best].ranks * view[i].take;
            if (view[i].take < view[i].room && is_heavier)
                best = i;
        }
        view[best].take++;
        given++;
    }
}

static bool is_needed(const struct orr_msg_devices_want *msg,
                      const struct cluster_node *node)
{
    for (uint32_t i = 0; i < msg->needs.n; i++)
        if (orr_str_eq(msg->needs.at[i].node, orr_str(node->name)))
            return true;
    return false;
}

/* Those of another node that are like one that the job has. */
static uint64_t like_own(struct cluster *self,
                         const struct cluster_node *node,
                         const struct orr_msg_devices_want *msg)
{
    const struct cluster_node *own = cluster_node_find(self, msg->ranks.at[0].node);
    uint32_t was = msg->ranks.at[0].device;
    uint64_t usable = cluster_node_usable(node, self->spec.at), like = 0;
    for (uint32_t i = 0; own && was < CLUSTER_DEVICES_MAX && i < CLUSTER_DEVICES_MAX;
         i++)
        if ((usable >> i & 1) && is_like(node, node->used, i, &own->devices[was]))
            like |= UINT64_C(1) << i;
    return like;
}

static int by_room(const void *a, const void *b)
{
    const struct place_node *x = a, *y = b;
    if (x->room != y->room)
        return x->room < y->room ? 1 : -1;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* That many on other nodes, first on those that have the most.  Returns how many entries the view has then; 0: there are not so
 * many devices. */
static uint32_t
spread(struct cluster *self, const struct orr_msg_devices_want *msg, uint32_t devices)
{
    struct place_node *view = self->view.at;
    uint32_t n = msg->needs.n, n_all = n;
    for (struct cluster_node *node = NULL;
         (node = orr_pool_next(&self->nodes, node)) != NULL;) {
        if (node->level != ORR_LEVEL_IMAGE || is_needed(msg, node) ||
            !cluster_node_suits(self, node, self->spec.at))
            continue;
        uint32_t room = (uint32_t)__builtin_popcountll(like_own(self, node, msg));
        if (room)
            view[n_all++] = (struct place_node){
                .index = orr_pool_index(&self->nodes, node), .room = room};
    }
    qsort(view + n, n_all - n, sizeof(*view), by_room);
    for (; devices > 0 && n < n_all; n++) {
        view[n].take = view[n].room < devices ? view[n].room : devices;
        devices -= view[n].take;
    }
    return devices ? 0 : n;
}

/* Fewer than its nodes need if all ranks stay: all on as few of them as can be, first on the one that has the most ranks. */
static void draw_together(struct cluster *self,
                          const struct cluster_job *job,
                          const struct orr_msg_devices_want *msg)
{
    struct place_node *view = self->view.at;
    uint32_t devices[CLUSTER_DEVICES_MAX], left = msg->devices;
    for (uint32_t i = 0; i < msg->needs.n; i++)
        view[i].take = 0;
    while (left > 0) {
        uint32_t best = ORR_NONE;
        for (uint32_t i = 0; i < msg->needs.n; i++)
            if (!view[i].take && view[i].room &&
                (best == ORR_NONE ||
                 msg->needs.at[i].ranks > msg->needs.at[best].ranks))
                best = i;
        if (best == ORR_NONE) /* they have as many as they need, which is more */
            return;
        const struct cluster_node *node = orr_pool_at(&self->nodes, view[best].index);
        uint32_t room = candidates(self, job, node, msg, devices);
        view[best].take = room < left ? room : left;
        left -= view[best].take;
    }
}

/* How many of its devices each node gives.  *ret_n: of the view. */
static enum orr_err choose(struct orr_ctx *ctx,
                           struct cluster *self,
                           const struct cluster_job *job,
                           const struct orr_msg_devices_want *msg,
                           uint32_t *ret_n)
{
    uint32_t least, most;
    enum orr_err err = view_own(ctx, self, job, msg, &least, &most);
    if (err != ORR_OK)
        return err;
    *ret_n = msg->needs.n;
    if (msg->may_spread && most > 0 && msg->devices < least) {
        draw_together(self, job, msg);
        return ORR_OK;
    }
    bool may_spread = msg->may_spread && msg->devices > most && most > 0 &&
                      msg->ranks.n > 0 &&
                      orr_msg_decode(orr_msg_desc_job_spec(),
                                     msg->spec.ptr,
                                     msg->spec.len,
                                     self->spec.at,
                                     self->spec.size) == ORR_OK;
    uint32_t own = may_spread ? most : msg->devices;
    if (may_spread)
        *ret_n = spread(self, msg, msg->devices - most);
    if (own < least || own > most || !*ret_n)
        return orr_refuse(ctx,
                          ORR_ENODEV,
                          "its nodes can run it on %u..%u devices now, not on %u",
                          least,
                          most,
                          msg->devices);
    share_out(self, msg, own, least);
    return ORR_OK;
}

/* Its devices, `take` of them. */
static uint32_t list_devices(struct cluster *self,
                             const struct cluster_job *job,
                             const struct cluster_node *node,
                             const struct orr_msg_devices_want *msg,
                             uint32_t ret_devices[CLUSTER_DEVICES_MAX])
{
    uint32_t n = 0;
    if (is_needed(msg, node))
        return candidates(self, job, node, msg, ret_devices);
    uint64_t like = like_own(self, node, msg);
    for (uint32_t i = 0; i < CLUSTER_DEVICES_MAX; i++)
        if (like >> i & 1)
            ret_devices[n++] = i;
    return n;
}

static enum orr_err give_number(struct orr_ctx *ctx,
                                struct cluster *self,
                                struct cluster_job *job,
                                const struct orr_msg_devices_want *msg)
{
    struct orr_rec_device_slot *slots = self->slots.at;
    struct orr_rec_job_node *others = self->list.at;
    uint32_t devices[CLUSTER_DEVICES_MAX], n = 0, n_view, n_others = 0;
    if (msg->needs.n == 0 || msg->needs.n > self->args.nodes_max ||
        msg->devices > self->args.world_max)
        return orr_refuse(
            ctx, ORR_EINVAL, "job %s: no nodes, or too many devices", job->job);
    free_devices(self, job); /* an answer that was lost gave it others, too */
    hold_devices(self, job, msg->ranks);
    enum orr_err err = choose(ctx, self, job, msg, &n_view);
    if (err != ORR_OK)
        return err;
    const struct place_node *view = self->view.at;
    for (uint32_t i = 0; i < n_view; i++) {
        struct cluster_node *node = orr_pool_at(&self->nodes, view[i].index);
        struct cluster_hold *hold = cluster_hold_get(self, job, node);
        (void)list_devices(self, job, node, msg, devices);
        if (i >= msg->needs.n)
            others[n_others++] = cluster_node_told(node);
        for (uint32_t d = 0; hold && d < view[i].take; d++) {
            slots[n++] = (struct orr_rec_device_slot){orr_str(node->name), devices[d]};
            hold->is_placed = true;
            cluster_hold_add(self, hold, devices[d]);
        }
    }
    cluster_changed(ctx, self);
    orr_reply(ctx, devices_given, .slots = {slots, n}, .nodes = {others, n_others});
    return ORR_OK;
}

enum orr_err cluster_devices_want(struct orr_ctx *ctx,
                                  struct cluster *self,
                                  const struct orr_msg_devices_want *msg)
{
    struct cluster_job *job = find_live(ctx, self, msg->job, msg->generation);
    if (!job)
        return ORR_ENOENT;
    if (msg->ranks.n > self->args.world_max)
        return orr_refuse(ctx, ORR_EINVAL, "job %s: too many ranks", job->job);
    if (msg->devices)
        return give_number(ctx, self, job, msg);
    enum orr_err err = place_again(ctx, self, job, msg);
    if (err != ORR_OK)
        return err;
    const struct orr_list_rank_place places = {self->places.at, msg->ranks.n};
    free_devices(self, job); /* an answer that was lost gave it others */
    hold_devices(self, job, places);
    cluster_changed(ctx, self);
    orr_reply(ctx, devices_given, .ranks = places);
    return ORR_OK;
}

enum orr_err cluster_devices_keep(struct orr_ctx *ctx,
                                  struct cluster *self,
                                  const struct orr_msg_devices_keep *msg)
{
    struct cluster_job *job = find_live(ctx, self, msg->job, msg->generation);
    if (!job)
        return ORR_ENOENT;
    free_devices(self, job);
    hold_devices(self, job, msg->ranks);
    cluster_changed(ctx, self);
    return ORR_OK;
}
