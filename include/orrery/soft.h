/* SPDX-License-Identifier: Apache-2.0
 * soft.h - what actors publish for readers that only look: keys, and the puts to the
 * softstate edge of their host (docs/adr/0015-softstate.md).
 *
 * Soft state may be lost, late or wrong at any moment: nothing is ever decided by it.
 * A put is fire and forget.  The edge keeps the newest value of each key and writes it
 * again before its TTL ends; a key that its publisher has not put again for
 * ORR_SOFT_LAPSE_TTLS times the TTL lapses.  So a publisher repeats what is true, at a
 * leisurely pace, and says soft_gone for what is not true any more.
 * Limits: a value that does not fit ORR_SOFT_VALUE_MAX is not published.
 */
#ifndef ORR_SOFT_H
#define ORR_SOFT_H

#include "orrery/actor.h"

enum {
    ORR_SOFT_KEY_MAX = 256,    /* bytes of a key, with its NUL */
    ORR_SOFT_VALUE_MAX = 4096, /* bytes of an encoded value */
    ORR_SOFT_LAPSE_TTLS = 4,
    ORR_SOFT_REASON_MAX = 512, /* bytes of a job's reason that are published */
};

/* X(enum, word of the key, message of the value) */
#define ORR_SOFT_KINDS(X)                                                              \
    X(HOST, "host", soft_host)                                                         \
    X(NODE, "node", soft_node)                                                         \
    X(CLUSTER, "cluster", soft_cluster)                                                \
    X(JOB, "job", soft_job)                                                            \
    X(REGION, "region", soft_region)                                                   \
    X(PROGRESS, "progress", soft_progress)

enum orr_soft_kind {
#define X(kind, word, message) ORR_SOFT_##kind,
    ORR_SOFT_KINDS(X)
#undef X
        ORR_SOFT_KIND_MAX_
};

struct orr_soft_key {
    char text[ORR_SOFT_KEY_MAX];
};

/* orrery:<region>:<kind>[:<name>[/<sub>]]; sub and name may be empty. */
struct orr_soft_key orr_soft_key(enum orr_soft_kind kind,
                                 struct orr_str region,
                                 struct orr_str name,
                                 struct orr_str sub);

/* What a key of that region holds; false: not one of ours.  *ret_name is what follows
 * the kind, borrowed from key. */
bool orr_soft_key_parse(struct orr_str key,
                        struct orr_str region,
                        enum orr_soft_kind *ret_kind,
                        struct orr_str *ret_name);
const struct orr_msg_desc *orr_soft_desc(enum orr_soft_kind kind);

/* ---- for actors; the edge is on their own host, at_unix_ms is filled in here ---- */

void orr_soft_put_region(struct orr_ctx *ctx, const struct orr_msg_soft_region *region);
void orr_soft_put_cluster(struct orr_ctx *ctx,
                          struct orr_str region,
                          const struct orr_rec_cluster_row *row);
void orr_soft_put_node(struct orr_ctx *ctx,
                       struct orr_str region,
                       const struct orr_rec_node_row *row);
void orr_soft_put_job(struct orr_ctx *ctx,
                      struct orr_str region,
                      const struct orr_rec_job_row *row);
void orr_soft_put_progress(struct orr_ctx *ctx,
                           struct orr_str region,
                           const struct orr_msg_soft_progress *progress);
/* The job has ended: nobody looks for it among the live ones. */
void orr_soft_gone_job(struct orr_ctx *ctx, struct orr_str region, struct orr_str job);
/* Of a region that does not lead any more: another has the say. */
void orr_soft_drop(struct orr_ctx *ctx);

#endif
