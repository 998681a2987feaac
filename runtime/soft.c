/* SPDX-License-Identifier: Apache-2.0
 * soft.c - soft.h: keys and puts.
 */
#include "orrery/soft.h"

static const char *const words[] = {
#define X(kind, word, message) word,
    ORR_SOFT_KINDS(X)
#undef X
};

const struct orr_msg_desc *orr_soft_desc(enum orr_soft_kind kind)
{
    switch (kind) {
#define X(kind_, word, message)                                                        \
    case ORR_SOFT_##kind_:                                                             \
        return orr_msg_desc_##message();
        ORR_SOFT_KINDS(X)
#undef X
    case ORR_SOFT_KIND_MAX_:
        break;
    }
    return NULL;
}

struct orr_soft_key orr_soft_key(enum orr_soft_kind kind,
                                 struct orr_str region,
                                 struct orr_str name,
                                 struct orr_str sub)
{
    struct orr_soft_key key;
    snprintf(key.text,
             sizeof key.text,
             "orrery:%.*s:%s%s%.*s%s%.*s",
             ORR_STR_ARGS(region),
             words[kind],
             name.len ? ":" : "",
             ORR_STR_ARGS(name),
             sub.len ? "/" : "",
             ORR_STR_ARGS(sub));
    return key;
}

/* Step over `text` at the start of *io; false: it does not start so. */
static bool skip(struct orr_str *io, struct orr_str text)
{
    if (io->len < text.len || (text.len && memcmp(io->ptr, text.ptr, text.len) != 0))
        return false;
    io->ptr += text.len;
    io->len -= text.len;
    return true;
}

bool orr_soft_key_parse(struct orr_str key,
                        struct orr_str region,
                        enum orr_soft_kind *ret_kind,
                        struct orr_str *ret_name)
{
    if (!skip(&key, ORR_LIT("orrery:")) || !skip(&key, region) ||
        !skip(&key, ORR_LIT(":")))
        return false;
    for (size_t i = 0; i < ORR_ARRAY_SIZE(words); i++) {
        struct orr_str rest = key;
        if (!skip(&rest, orr_str(words[i])) || (rest.len && !skip(&rest, ORR_LIT(":"))))
            continue;
        *ret_kind = (enum orr_soft_kind)i;
        *ret_name = rest;
        return true;
    }
    return false;
}

static struct orr_addr edge_of(const struct orr_ctx *ctx)
{
    return (struct orr_addr){.host = ctx->self.host,
                             .slot = orr_hash(ORR_LIT("/edge/softstate"))};
}

static void put(struct orr_ctx *ctx,
                const struct orr_soft_key *key,
                const struct orr_msg_desc *desc,
                const void *msg)
{
    uint8_t value[ORR_SOFT_VALUE_MAX];
    size_t len;
    if (orr_msg_encode(desc, msg, value, sizeof value, &len) != ORR_OK)
        return;
    orr_send(ctx,
             edge_of(ctx),
             soft_put,
             .key = orr_str(key->text),
             .value = {value, (uint32_t)len});
}

void orr_soft_put_region(struct orr_ctx *ctx, const struct orr_msg_soft_region *region)
{
    struct orr_msg_soft_region msg = *region;
    struct orr_soft_key key = orr_soft_key(
        ORR_SOFT_REGION, region->region, (struct orr_str){0}, (struct orr_str){0});
    msg.at_unix_ms = ctx->wall_ms;
    put(ctx, &key, orr_msg_desc_soft_region(), &msg);
}

void orr_soft_put_cluster(struct orr_ctx *ctx,
                          struct orr_str region,
                          const struct orr_rec_cluster_row *row)
{
    struct orr_msg_soft_cluster msg = {.at_unix_ms = ctx->wall_ms, .row = *row};
    struct orr_soft_key key =
        orr_soft_key(ORR_SOFT_CLUSTER, region, row->cluster, (struct orr_str){0});
    put(ctx, &key, orr_msg_desc_soft_cluster(), &msg);
}

void orr_soft_put_node(struct orr_ctx *ctx,
                       struct orr_str region,
                       const struct orr_rec_node_row *row)
{
    struct orr_msg_soft_node msg = {.at_unix_ms = ctx->wall_ms, .row = *row};
    struct orr_soft_key key =
        orr_soft_key(ORR_SOFT_NODE, region, row->cluster, row->node);
    put(ctx, &key, orr_msg_desc_soft_node(), &msg);
}

void orr_soft_put_job(struct orr_ctx *ctx,
                      struct orr_str region,
                      const struct orr_rec_job_row *row)
{
    struct orr_msg_soft_job msg = {.at_unix_ms = ctx->wall_ms, .row = *row};
    struct orr_soft_key key =
        orr_soft_key(ORR_SOFT_JOB, region, row->job, (struct orr_str){0});
    if (msg.row.reason.len > ORR_SOFT_REASON_MAX)
        msg.row.reason.len = ORR_SOFT_REASON_MAX;
    put(ctx, &key, orr_msg_desc_soft_job(), &msg);
}

void orr_soft_put_progress(struct orr_ctx *ctx,
                           struct orr_str region,
                           const struct orr_msg_soft_progress *progress)
{
    struct orr_msg_soft_progress msg = *progress;
    struct orr_soft_key key =
        orr_soft_key(ORR_SOFT_PROGRESS, region, progress->cluster, progress->node);
    msg.at_unix_ms = ctx->wall_ms;
    put(ctx, &key, orr_msg_desc_soft_progress(), &msg);
}

void orr_soft_gone_job(struct orr_ctx *ctx, struct orr_str region, struct orr_str job)
{
    struct orr_soft_key key =
        orr_soft_key(ORR_SOFT_JOB, region, job, (struct orr_str){0});
    orr_send(ctx, edge_of(ctx), soft_gone, .key = orr_str(key.text));
}

void orr_soft_drop(struct orr_ctx *ctx)
{
    orr_send(ctx, edge_of(ctx), soft_drop);
}
