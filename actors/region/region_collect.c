/* SPDX-License-Identifier: Apache-2.0
 * region_collect.c - tells the stores which parts are still needed, so that they can remove the rest.
 *
 * START      when this host begins to lead, every collect_every_ms, and soon after a checkpoint was forgotten
 * OPERATION  the parts of all manifests of all jobs go to every cluster as one list, and from there to the store of each node.
 *            A save under way is in no list: the grace period keeps its parts until it is
 * FAILURES   A list that is not whole is never sent.  It leaves with an entry of its own: only once everything that it is made
 *            of is committed, and never from a leader that was deposed.  One that is late is refused by the store, which
 *            remembers (term, round) of the newest that it took.  One that is lost is made up for by the next
 */
#include "region_calls.h"

enum { SOON_SHARE = 10, ASK_MS = 60000 };

static int digit_of(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool add_root(struct region *self, struct orr_str hex, uint32_t *n)
{
    uint8_t *to = (uint8_t *)self->roots.at + (size_t)*n * REGION_ROOT_BYTES;
    if (hex.len != 2 * REGION_ROOT_BYTES || *n == REGION_ROOTS_MAX)
        return false;
    for (uint32_t i = 0; i < REGION_ROOT_BYTES; i++) {
        int high = digit_of(hex.ptr[2 * i]), low = digit_of(hex.ptr[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        to[i] = (uint8_t)(high << 4 | low);
    }
    ++*n;
    return true;
}

/* All parts of all checkpoints, or nothing: false. */
static bool list_roots(struct orr_ctx *ctx, struct region *self, uint32_t *ret_n)
{
    *ret_n = 0;
    for (struct region_checkpoint *at = NULL;
         (at = orr_pool_next(&self->checkpoints, at)) != NULL;) {
        const struct orr_msg_manifest *manifest =
            region_manifest_decode(self, region_manifest(self, at));
        for (uint32_t i = 0; manifest && i < manifest->parts.n; i++)
            if (!add_root(self, manifest->parts.at[i].hash, ret_n))
                manifest = NULL;
        if (manifest)
            continue;
        orr_log(ctx,
                ORR_LOG_WARN,
                "stores are not collected: %s; remove checkpoints with `orrery "
                "checkpoint rm`",
                *ret_n == REGION_ROOTS_MAX
                    ? "there are more than 65536 parts"
                    : "the manifest of a checkpoint cannot be read");
        return false;
    }
    return true;
}

static void tell_clusters(struct orr_ctx *ctx, struct region *self, uint32_t n)
{
    struct orr_bytes roots = {self->roots.at, n * REGION_ROOT_BYTES};
    self->collect_round++;
    for (struct region_cluster *cluster = NULL;
         (cluster = orr_pool_next(&self->clusters, cluster)) != NULL;)
        if (cluster->is_registered && cluster->state == ORR_NODE_UP)
            orr_ask(ctx,
                    cluster->addr,
                    ASK_MS,
                    region_tag(REGION_TAG_COLLECT, 0, 0),
                    stores_collect,
                    .roots = roots,
                    .grace_ms = self->args.collect_grace_ms,
                    .region = orr_str(self->args.region),
                    .epoch = self->epoch,
                    .term = self->ledger.term,
                    .round = self->collect_round);
    region_confirm(self);
}

/* A checkpoint was forgotten.  The share bounds how often: a collection reads the whole directory of a store. */
void region_collect_soon(const struct orr_ctx *ctx, struct region *self)
{
    uint64_t soon = orr_now_ms(ctx) + self->args.collect_every_ms / SOON_SHARE;
    if (!self->collect_ms || soon < self->collect_ms)
        self->collect_ms = soon;
}

void region_collect_tick(struct orr_ctx *ctx, struct region *self)
{
    uint32_t n;
    uint64_t now = orr_now_ms(ctx);
    if (now < self->collect_ms)
        return;
    self->collect_ms = now + self->args.collect_every_ms;
    if (list_roots(ctx, self, &n))
        tell_clusters(ctx, self, n);
}
