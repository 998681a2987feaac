/* SPDX-License-Identifier: Apache-2.0
 * soft_take.c - what is believed of a value: it decodes, it says the same thing as its
 * key, and its enums are ours.
 */
#include "orrery/soft_reader.h"

static struct orr_soft_key
key_of(enum orr_soft_kind kind, struct orr_str region, const void *msg)
{
    const struct orr_str none = {0};
    switch (kind) {
    case ORR_SOFT_HOST:
        return orr_soft_key(
            kind, region, ((const struct orr_msg_soft_host *)msg)->host, none);
    case ORR_SOFT_NODE: {
        const struct orr_rec_node_row *row =
            &((const struct orr_msg_soft_node *)msg)->row;
        return orr_soft_key(kind, region, row->cluster, row->node);
    }
    case ORR_SOFT_CLUSTER:
        return orr_soft_key(kind,
                            region,
                            ((const struct orr_msg_soft_cluster *)msg)->row.cluster,
                            none);
    case ORR_SOFT_JOB:
        return orr_soft_key(
            kind, region, ((const struct orr_msg_soft_job *)msg)->row.job, none);
    case ORR_SOFT_REGION:
        return orr_soft_key(
            kind, ((const struct orr_msg_soft_region *)msg)->region, none, none);
    case ORR_SOFT_PROGRESS: {
        const struct orr_msg_soft_progress *p = msg;
        return orr_soft_key(kind, region, p->cluster, p->node);
    }
    case ORR_SOFT_KIND_MAX_:
        break;
    }
    return (struct orr_soft_key){""};
}

static bool has_known_enums(enum orr_soft_kind kind, const void *msg)
{
    const struct orr_msg_soft_job *job = msg;
    const struct orr_msg_soft_node *node = msg;
    const struct orr_msg_soft_cluster *cluster = msg;
    if (kind == ORR_SOFT_JOB)
        return job->row.phase < ORR_JOB_PHASE_MAX_ && job->row.tier < ORR_TIER_MAX_;
    if (kind == ORR_SOFT_NODE)
        return node->row.state < ORR_NODE_STATE_MAX_;
    return kind != ORR_SOFT_CLUSTER || cluster->row.state < ORR_NODE_STATE_MAX_;
}

bool orr_soft_take(struct orr_str region,
                   unsigned kinds,
                   struct orr_str key,
                   struct orr_bytes value,
                   orr_soft_visit_f visit,
                   void *arg,
                   struct orr_soft_count *io_count)
{
    enum orr_soft_kind kind;
    struct orr_str name;
    size_t size, taken;
    bool is_believed = false, goes_on = true;
    if (!orr_soft_key_parse(key, region, &kind, &name) || !(kinds & 1u << kind))
        return true;
    const struct orr_msg_desc *desc = orr_soft_desc(kind);
    io_count->keys++;
    void *msg = NULL;
    if (value.len <= ORR_SOFT_VALUE_MAX &&
        orr_msg_decode_size(desc, value.ptr, value.len, &size, &taken) == ORR_OK &&
        taken == value.len)
        msg = malloc(size);
    if (msg && orr_msg_decode(desc, value.ptr, value.len, msg, size) == ORR_OK) {
        struct orr_soft_key said = key_of(kind, region, msg);
        is_believed = orr_str_eq(orr_str(said.text), key) && has_known_enums(kind, msg);
    }
    if (is_believed)
        goes_on = visit(arg, kind, key, msg);
    else
        io_count->garbage++;
    free(msg);
    return goes_on;
}
