/* SPDX-License-Identifier: Apache-2.0
 * cli_orders.c - suspend, resume, resize, migrate, checkpoint, drain: tell the region what is wanted, then follow what comes of it.
 *
 * The region's answer says only that it is durable.  What becomes of it is the job's newest order in job_show, which has a
 * number: a later one, of somebody else, replaces it.  Looking is a short poll, which also survives a change of leader.
 * A drain is over when the node has no ranks left; jobs that stay say why in their reason.
 */
#include "cli_orders.h"

#include <inttypes.h>

enum { ASK_MS = 10000, LOOK_MS = 150, WAIT_MS = 600000, CELL = 48 };

/* ---- follow an order ---- */

/* Is it over, and how?  Orders that were there before ours do not count. */
static bool judge(const struct orr_msg_job_detail *d,
                  const struct orri_order *order,
                  enum orr_err *ret_rc,
                  struct orr_error *err)
{
    const char *job = d->row.job.ptr;
    bool is_ours = d->order_kind == order->kind;
    bool is_nothing = d->order == 0 || (!is_ours && d->order <= order->before);
    *ret_rc = ORR_OK;
    if (is_nothing) /* had to be done */
        return true;
    if (!is_ours)
        *ret_rc = orr_fail(err,
                           ORR_ESTATE,
                           "job %s: a later order replaced this one: %s",
                           job,
                           orr_order_name(d->order_kind));
    else if (d->order_state == ORR_ORDER_IS_FAILED)
        *ret_rc = orr_fail(err,
                           d->order_code ? (enum orr_err)d->order_code : ORR_ESTATE,
                           "job %s: %s failed: %s",
                           job,
                           orr_order_name(d->order_kind),
                           d->order_text.ptr);
    /* queued and suspended: it goes there once it is resumed */
    return !is_ours || d->order_state == ORR_ORDER_IS_FAILED ||
           d->order_state == ORR_ORDER_IS_DONE ||
           (d->order_state == ORR_ORDER_IS_QUEUED && d->row.phase == ORR_JOB_SUSPENDED);
}

static enum orr_err show(struct orri_cli *cli,
                         const char *job,
                         struct orr_answer *ret_answer,
                         struct orr_error *err)
{
    const struct orr_msg_job_show msg = {.job = orr_str(job)};
    return orri_cli_ask(
        cli, NULL, orr_msg_desc_job_show(), &msg, ASK_MS, ret_answer, err);
}

static enum orr_err timed_out(const struct orr_msg_job_detail *d,
                              const struct orri_order *order,
                              struct orr_error *err)
{
    return orr_fail(err,
                    ORR_ETIMEOUT,
                    "job %s: %s is not over yet: it is %s%s%s; `orrery show %s` says "
                    "more, --timeout waits longer",
                    d->row.job.ptr,
                    orr_order_name(order->kind),
                    orr_job_phase_name(d->row.phase),
                    d->row.reason.len ? ", " : "",
                    d->row.reason.ptr,
                    d->row.job.ptr);
}

static enum orr_err
follow(struct orri_cli *cli, const struct orri_order *order, struct orr_error *err)
{
    uint64_t ms;
    enum orr_err rc = orri_cli_duration(cli, WAIT_MS, &ms, err);
    uint64_t end_ms = orri_cli_now_ms() + ms;
    while (rc == ORR_OK) {
        struct orr_answer answer;
        rc = show(cli, order->job, &answer, err);
        if (rc != ORR_OK)
            return rc;
        if (judge(answer.msg, order, &rc, err))
            return rc;
        if (orri_cli_interrupts())
            return orr_fail(err, ORR_ETIMEOUT, "interrupted; the order stands");
        if (orri_cli_now_ms() >= end_ms)
            return timed_out(answer.msg, order, err);
        orri_cli_sleep(LOOK_MS);
    }
    return rc;
}

/* Ask, and unless told otherwise wait for what comes of it. */
static int give(struct orri_cli *cli,
                const char *job,
                enum orr_order kind,
                const struct orr_msg_desc *desc,
                const void *msg)
{
    struct orr_error err;
    struct orr_answer answer;
    struct orri_order order = {.job = job, .kind = kind};
    enum orr_err rc = show(cli, job, &answer, &err);
    if (rc == ORR_OK) {
        order.before = ((const struct orr_msg_job_detail *)answer.msg)->order;
        rc = orri_cli_ask(cli, NULL, desc, msg, ASK_MS, &answer, &err);
    }
    bool is_recall = cli->value[OPT_GONE] != NULL; /* ends the order that was there */
    if (rc == ORR_OK && !cli->value[OPT_NO_WAIT] && !is_recall)
        rc = follow(cli, &order, &err);
    return rc == ORR_OK ? EXIT_OK : orri_cli_fail(cli, &err);
}

int orri_verb_suspend(struct orri_cli *cli)
{
    struct orr_error err;
    const char *why = cli->value[OPT_WHY];
    const struct orr_msg_job_suspend msg = {.job = orr_str(cli->args[0]),
                                            .why = orr_str(why ? why : "by its user")};
    if (orri_cli_locate(cli, &err) != ORR_OK)
        return orri_cli_fail(cli, &err);
    return give(cli, cli->args[0], ORR_ORDER_SUSPEND, orr_msg_desc_job_suspend(), &msg);
}

int orri_verb_resume(struct orri_cli *cli)
{
    struct orr_error err;
    const struct orr_msg_job_resume msg = {.job = orr_str(cli->args[0])};
    if (orri_cli_locate(cli, &err) != ORR_OK)
        return orri_cli_fail(cli, &err);
    return give(cli, cli->args[0], ORR_ORDER_RUN, orr_msg_desc_job_resume(), &msg);
}

/* ---- resize ---- */

/* What it runs on now: the number may have been its own already. */
static enum orr_err
judge_devices(struct orri_cli *cli, uint32_t devices, struct orr_error *err)
{
    struct orr_answer answer;
    enum orr_err rc = show(cli, cli->args[0], &answer, err);
    const struct orr_msg_job_detail *d = answer.msg;
    if (rc != ORR_OK || cli->value[OPT_NO_WAIT] || d->row.gpus == devices)
        return rc;
    return orr_fail(err,
                    ORR_ESTATE,
                    "job %s is %s on %" PRIu32 " devices; `orrery show %s` says why",
                    cli->args[0],
                    orr_job_phase_name(d->row.phase),
                    d->row.gpus,
                    cli->args[0]);
}

int orri_verb_resize(struct orri_cli *cli)
{
    struct orr_error err;
    char *end;
    const char *text = cli->args[1];
    unsigned long devices = strtoul(text, &end, 10);
    bool is_number = text[0] >= '0' && text[0] <= '9' && *end == '\0';
    if (!is_number || devices == 0 || devices > ORR_WORLD_MAX) {
        (void)orr_fail(&err,
                       ORR_EINVAL,
                       "%.64s: give a number of devices, gpus.min..gpus.max of the job",
                       text);
        return orri_cli_fail(cli, &err);
    }
    const struct orr_msg_job_resize msg = {.job = orr_str(cli->args[0]),
                                           .devices = (uint32_t)devices};
    if (orri_cli_locate(cli, &err) != ORR_OK)
        return orri_cli_fail(cli, &err);
    int code =
        give(cli, cli->args[0], ORR_ORDER_RESIZE, orr_msg_desc_job_resize(), &msg);
    if (code != EXIT_OK)
        return code;
    return judge_devices(cli, msg.devices, &err) == ORR_OK ? EXIT_OK
                                                           : orri_cli_fail(cli, &err);
}

/* ---- migrate ---- */

/* "node:N", "node:C/N", "cluster:C", "region:R". */
static bool
take_kind(const char *text, const char *kind, char *buf, size_t cap, bool *ret_is_it)
{
    size_t len = strlen(kind);
    *ret_is_it = strncmp(text, kind, len) == 0 && text[len] == ':';
    if (!*ret_is_it)
        return true;
    snprintf(buf, cap, "%s", text + len + 1);
    return text[len + 1] != '\0' && strlen(text + len + 1) < cap;
}

static void split_node(struct orri_target *target)
{
    char *slash = strchr(target->node, '/');
    if (!slash)
        return;
    *slash = '\0';
    orr_str_copy(target->cluster, sizeof target->cluster, orr_str(target->node));
    memmove(target->node, slash + 1, strlen(slash + 1) + 1);
}

/* A bare name is whatever the tree has of that name, as long as it is one thing. */
static enum orr_err resolve(struct orri_cli *cli,
                            const char *name,
                            struct orri_target *ret,
                            struct orr_error *err)
{
    struct orr_answer answer;
    unsigned found = 0;
    enum orr_err rc = orri_cli_ask(cli,
                                   NULL,
                                   orr_msg_desc_tree_get(),
                                   &(struct orr_msg_tree_get){0},
                                   ASK_MS,
                                   &answer,
                                   err);
    if (rc != ORR_OK)
        return rc;
    const struct orr_msg_tree *tree = answer.msg;
    for (uint32_t i = 0; i < tree->clusters.n; i++)
        if (orr_str_eq(tree->clusters.at[i].cluster, orr_str(name)) && ++found)
            orr_str_copy(ret->cluster, sizeof ret->cluster, orr_str(name));
    for (uint32_t i = 0; i < tree->nodes.n; i++)
        if (orr_str_eq(tree->nodes.at[i].node, orr_str(name)) && ++found) {
            orr_str_copy(ret->cluster, sizeof ret->cluster, tree->nodes.at[i].cluster);
            orr_str_copy(ret->node, sizeof ret->node, orr_str(name));
        }
    if (orr_str_eq(tree->region, orr_str(name)) && ++found)
        orr_str_copy(ret->region, sizeof ret->region, orr_str(name));
    if (found == 1)
        return ORR_OK;
    return orr_fail(err,
                    found ? ORR_EINVAL : ORR_ENOENT,
                    found
                        ? "%s: several things have that name; write node:CLUSTER/NODE, "
                          "cluster:NAME or region:NAME"
                        : "%s: no node or cluster of that name; `orrery tree` lists "
                          "them, region:NAME names another region",
                    name);
}

enum orr_err orri_target_parse(struct orri_cli *cli,
                               const char *text,
                               struct orri_target *ret,
                               struct orr_error *err)
{
    bool is_node, is_cluster, is_region;
    *ret = (struct orri_target){0};
    bool is_good =
        take_kind(text, "node", ret->node, sizeof ret->node, &is_node) &&
        take_kind(text, "cluster", ret->cluster, sizeof ret->cluster, &is_cluster) &&
        take_kind(text, "region", ret->region, sizeof ret->region, &is_region);
    if (!is_good || text[0] == '\0' || strlen(text) >= 2 * ORR_NAME_MAX)
        return orr_fail(err,
                        ORR_EINVAL,
                        "--to %.64s: write node:NAME, cluster:NAME or region:NAME",
                        text);
    if (is_node)
        split_node(ret);
    return is_node || is_cluster || is_region ? ORR_OK : resolve(cli, text, ret, err);
}

/* Where to ask for a job that is in another region now. */
static void say_where(struct orri_cli *cli, const char *job)
{
    struct orr_answer answer;
    struct orr_error ignored;
    if (show(cli, job, &answer, &ignored) != ORR_OK)
        return;
    const struct orr_msg_job_detail *d = answer.msg;
    if (d->row.phase == ORR_JOB_MOVED)
        fprintf(stderr,
                "job %s is in region %s now: orrery show %s --region %s\n",
                job,
                d->to_region.ptr,
                job,
                d->to_endpoints.ptr);
}

int orri_verb_migrate(struct orri_cli *cli)
{
    struct orr_error err;
    struct orri_target to;
    const char *text = cli->value[OPT_TO], *gone = cli->value[OPT_GONE];
    if (!text) {
        (void)orr_fail(&err,
                       ORR_EINVAL,
                       "where to? add --to node:NAME, cluster:NAME or region:NAME");
        return orri_cli_fail(cli, &err);
    }
    if (orri_cli_locate(cli, &err) != ORR_OK ||
        orri_target_parse(cli, text, &to, &err) != ORR_OK)
        return orri_cli_fail(cli, &err);
    const struct orr_msg_job_migrate msg = {.job = orr_str(cli->args[0]),
                                            .region = orr_str(to.region),
                                            .cluster = orr_str(to.cluster),
                                            .node = orr_str(to.node),
                                            .gone = orr_str(gone ? gone : "")};
    int code =
        give(cli, cli->args[0], ORR_ORDER_VACATE, orr_msg_desc_job_migrate(), &msg);
    if (code == EXIT_OK && to.region[0])
        say_where(cli, cli->args[0]);
    return code;
}

/* ---- drain ---- */

/* What stays, and why: rows of jobs that say so. */
static void say_what_stays(struct orri_cli *cli, const char *node)
{
    struct orr_answer answer;
    struct orr_error ignored;
    const struct orr_msg_job_list msg = {.limit = 500,
                                         .phases = ORR_IN_PHASE(ORR_JOB_RUNNING) |
                                                   ORR_IN_PHASE(ORR_JOB_SUSPENDED) |
                                                   ORR_IN_PHASE(ORR_JOB_UNKNOWN)};
    if (orri_cli_ask(
            cli, NULL, orr_msg_desc_job_list(), &msg, ASK_MS, &answer, &ignored) !=
        ORR_OK)
        return;
    const struct orr_msg_job_rows *rows = answer.msg;
    for (uint32_t i = 0; i < rows->jobs.n; i++)
        if (strstr(rows->jobs.at[i].reason.ptr, node))
            fprintf(stderr,
                    "orrery drain: job %s stays: %s\n",
                    rows->jobs.at[i].job.ptr,
                    rows->jobs.at[i].reason.ptr);
}

/* Ranks that are left there; ORR_ETIMEOUT as long as there are any. */
static enum orr_err look_at_node(struct orri_cli *cli,
                                 const struct orri_target *to,
                                 uint32_t *ret_ranks,
                                 struct orr_error *err)
{
    struct orr_answer answer;
    enum orr_err rc = orri_cli_ask(cli,
                                   NULL,
                                   orr_msg_desc_tree_get(),
                                   &(struct orr_msg_tree_get){0},
                                   ASK_MS,
                                   &answer,
                                   err);
    if (rc != ORR_OK)
        return rc;
    const struct orr_msg_tree *tree = answer.msg;
    for (uint32_t i = 0; i < tree->nodes.n; i++) {
        const struct orr_rec_node_row *n = &tree->nodes.at[i];
        if (!orr_str_eq(n->node, orr_str(to->node)) ||
            (to->cluster[0] && !orr_str_eq(n->cluster, orr_str(to->cluster))))
            continue;
        *ret_ranks = n->ranks;
        return n->state == ORR_NODE_DRAINING && n->ranks == 0 ? ORR_OK : ORR_ETIMEOUT;
    }
    return orr_fail(err, ORR_ENOENT, "node %s has gone meanwhile", to->node);
}

static enum orr_err wait_until_empty(struct orri_cli *cli,
                                     const struct orri_target *to,
                                     struct orr_error *err)
{
    uint64_t ms;
    uint32_t ranks = 0;
    enum orr_err rc = orri_cli_duration(cli, WAIT_MS, &ms, err);
    if (rc != ORR_OK)
        return rc;
    for (uint64_t end_ms = orri_cli_now_ms() + ms;;) {
        rc = look_at_node(cli, to, &ranks, err);
        if (rc != ORR_ETIMEOUT)
            return rc;
        if (orri_cli_interrupts())
            return orr_fail(
                err, ORR_ETIMEOUT, "interrupted; node %s drains on", to->node);
        if (orri_cli_now_ms() >= end_ms)
            break;
        orri_cli_sleep(LOOK_MS);
    }
    say_what_stays(cli, to->node);
    return orr_fail(err,
                    ORR_ETIMEOUT,
                    "node %s drains, and %" PRIu32 " ranks are still there",
                    to->node,
                    ranks);
}

int orri_verb_drain(struct orri_cli *cli)
{
    struct orr_error err;
    struct orr_answer answer;
    struct orri_target to = {0};
    if (strlen(cli->args[0]) >= sizeof to.node) {
        (void)orr_fail(&err, ORR_ENOENT, "%.64s...: no such node", cli->args[0]);
        return orri_cli_fail(cli, &err);
    }
    snprintf(to.node, sizeof to.node, "%s", cli->args[0]);
    split_node(&to);
    const struct orr_msg_node_drain msg = {.cluster = orr_str(to.cluster),
                                           .node = orr_str(to.node),
                                           .is_draining = !cli->value[OPT_UNDO]};
    enum orr_err rc = orri_cli_locate(cli, &err);
    if (rc == ORR_OK)
        rc = orri_cli_ask(
            cli, NULL, orr_msg_desc_node_drain(), &msg, ASK_MS, &answer, &err);
    if (rc == ORR_OK && !cli->value[OPT_NO_WAIT] && msg.is_draining)
        rc = wait_until_empty(cli, &to, &err);
    return rc == ORR_OK ? EXIT_OK : orri_cli_fail(cli, &err);
}
