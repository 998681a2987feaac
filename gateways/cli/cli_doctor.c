/* SPDX-License-Identifier: Apache-2.0
 * cli_doctor.c - doctor: is the region well, and if not, what is to be done?  Changes nothing.
 *
 * The tables of the region's actor are compared with what its ledger would tell the next leader: both are asked until the
 * ledger did not move between two looks at it and nothing was open, or TRIES are used up.
 */
#include "cli.h"

#include <inttypes.h>
#include <stdarg.h>

enum { ASK_MS = 10000, VOTER_MS = 1000, TRIES = 20, PAUSE_MS = 50, TEXT = 480 };

enum level { LEVEL_OK, LEVEL_WARN, LEVEL_FAIL };
static const char *const level_names[] = {"ok", "warn", "fail"};

struct doctor {
    struct orri_cli *cli;
    struct orri_table table;
    size_t count;
    enum level worst;
};

static void escape(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fputc('\\', out);
        if ((unsigned char)*text >= 0x20)
            fputc(*text, out);
    }
}

static void
say(struct doctor *d, enum level level, const char *what, const char *fmt, ...)
    ORR_PRINTF(4, 5);
static void
say(struct doctor *d, enum level level, const char *what, const char *fmt, ...)
{
    char text[TEXT];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    d->worst = level > d->worst ? level : d->worst;
    if (d->cli->format == FORMAT_TABLE) {
        const char *cells[] = {level_names[level], what, text};
        orri_table_add(&d->table, cells);
        return;
    }
    char *json = NULL;
    size_t len;
    FILE *out = open_memstream(&json, &len);
    if (!out)
        return;
    fprintf(
        out, "{\"level\":\"%s\",\"what\":\"%s\",\"text\":\"", level_names[level], what);
    escape(out, text);
    fputs("\"}", out);
    fclose(out);
    orri_json_item(d->cli->format, &d->count, json);
    free(json);
}

static enum orr_err ask(struct doctor *d,
                        const char *path,
                        const struct orr_msg_desc *desc,
                        const void *msg,
                        struct orr_answer *ret_answer)
{
    struct orr_error err;
    enum orr_err rc = orri_cli_ask(d->cli, path, desc, msg, ASK_MS, ret_answer, &err);
    if (rc != ORR_OK)
        say(d, LEVEL_FAIL, path ? path : "region", "%s", err.text);
    return rc;
}

static enum orr_err ask_ledger(struct doctor *d, struct orr_answer *ret_answer)
{
    return ask(d,
               ORRI_LEDGER_PATH,
               orr_msg_desc_ledger_info_get(),
               &(struct orr_msg_ledger_info_get){0},
               ret_answer);
}

/* ---- the ledger and its voters ---- */

/* Each voter's own host: is it there, and can it write?  What the host that we are linked to has in trouble is said already. */
static void ask_voter(struct doctor *d,
                      const struct orr_msg_ledger_info *linked,
                      const struct orr_rec_voter *v)
{
    struct orr_client *client = NULL;
    struct orr_answer answer;
    struct orr_error err;
    if (v->endpoint.len == 0 || orr_str_eq(v->host, linked->host))
        return;
    enum orr_err rc = orr_client_new(v->endpoint.ptr, VOTER_MS, &client, &err);
    if (rc == ORR_OK)
        rc = orr_client_ask(client,
                            ORRI_LEDGER_PATH,
                            orr_msg_desc_ledger_info_get(),
                            &(struct orr_msg_ledger_info_get){0},
                            VOTER_MS,
                            &answer,
                            &err);
    if (rc != ORR_OK || answer.desc->id != ORR_MSG_ledger_info) {
        say(d,
            LEVEL_WARN,
            "voters",
            "%s is away, and its copy with it: start it, or replace it",
            v->host.ptr);
    } else {
        const struct orr_msg_ledger_info *info = answer.msg;
        if (info->trouble)
            say(d, LEVEL_FAIL, "ledger", "%s: %s", info->host.ptr, info->text.ptr);
    }
    orr_client_free(client);
}

static void look_at_voters(struct doctor *d, const struct orr_msg_ledger_info *info)
{
    uint32_t n_voting = 0;
    for (uint32_t i = 0; i < info->voters.n; i++) {
        ask_voter(d, info, &info->voters.at[i]);
        n_voting += info->voters.at[i].is_voting;
        if (!info->voters.at[i].is_voting)
            say(d,
                LEVEL_WARN,
                "voters",
                "%s does not vote: add it again with `orrery region add`, or remove it",
                info->voters.at[i].host.ptr);
    }
    if (n_voting > 1 && n_voting % 2 == 0)
        say(d,
            LEVEL_WARN,
            "voters",
            "%u hosts vote: an even number survives no more failures than one less",
            n_voting);
    else
        say(d,
            LEVEL_OK,
            "voters",
            "%u vote, so %u of them may be away",
            n_voting,
            n_voting ? (n_voting - 1) / 2 : 0);
}

static void look_at_ledger(struct doctor *d)
{
    struct orr_answer answer;
    if (ask_ledger(d, &answer) != ORR_OK)
        return;
    struct orr_msg_ledger_info *info = malloc(orr_msg_size(answer.desc, answer.msg));
    if (!info) {
        say(d, LEVEL_FAIL, "ledger", "out of memory");
        return;
    }
    orr_msg_copy(answer.desc, answer.msg, info); /* more is asked while it is read */
    if (info->trouble)
        say(d, LEVEL_FAIL, "ledger", "%s: %s", info->host.ptr, info->text.ptr);
    else if (!info->leader.len)
        say(d,
            LEVEL_FAIL,
            "ledger",
            "no leader; a majority of the voters must be up and reach each other");
    else
        say(d,
            LEVEL_OK,
            "ledger",
            "led by %s in term %" PRIu64 ", %" PRIu64 " entries, %" PRIu64 " keys",
            info->leader.ptr,
            info->term,
            info->committed,
            info->keys);
    look_at_voters(d, info);
    free(info);
}

/* ---- tables against ledger ---- */

/* One look: false when it does not count, since something moved. */
static bool
compare_once(struct doctor *d, bool *ret_is_equal, uint64_t *ret_index, bool *ret_gone)
{
    struct orr_answer answer;
    *ret_gone = ask_ledger(d, &answer) != ORR_OK;
    if (*ret_gone)
        return false;
    const struct orr_msg_ledger_info *info = answer.msg;
    uint64_t digest = info->digest, index = info->committed;
    *ret_gone = ask(d,
                    NULL,
                    orr_msg_desc_region_check_get(),
                    &(struct orr_msg_region_check_get){0},
                    &answer) != ORR_OK;
    if (*ret_gone)
        return false;
    const struct orr_msg_region_check check =
        *(const struct orr_msg_region_check *)answer.msg;
    *ret_gone = ask_ledger(d, &answer) != ORR_OK;
    if (*ret_gone)
        return false;
    info = answer.msg;
    *ret_is_equal = check.digest == digest;
    *ret_index = index;
    return check.open == 0 && info->committed == index && info->digest == digest;
}

static void compare(struct doctor *d)
{
    bool is_equal = false, is_gone = false, is_settled = false;
    uint64_t index = 0;
    for (unsigned i = 0; i < TRIES && !is_settled && !is_gone; i++) {
        if (i > 0)
            orri_cli_sleep(PAUSE_MS);
        is_settled = compare_once(d, &is_equal, &index, &is_gone);
    }
    if (is_gone)
        return;
    if (!is_settled)
        say(d,
            LEVEL_WARN,
            "replay",
            "not compared: the ledger never stood still; try again at a quiet moment");
    else if (is_equal)
        say(d,
            LEVEL_OK,
            "replay",
            "the tables are what the ledger says at entry %" PRIu64,
            index);
    else
        say(d,
            LEVEL_FAIL,
            "replay",
            "the tables differ from the ledger at entry %" PRIu64
            ": move the leader with `orrery region move`, and report this",
            index);
}

/* ---- clusters and nodes ---- */

/* Can jobs be saved there? */
static bool look_at_level(struct doctor *d, const struct orr_rec_node_row *n)
{
    if (n->state != ORR_NODE_UP || n->level == ORR_LEVEL_UNKNOWN)
        return false;
    if (n->level != ORR_LEVEL_IMAGE)
        say(d,
            LEVEL_WARN,
            "images",
            "%s/%s cannot make images of ranks, jobs there cannot move: %s",
            n->cluster.ptr,
            n->node.ptr,
            n->why_level.ptr);
    return n->level == ORR_LEVEL_IMAGE;
}

/* ":4789", or NULL; a region of an older build says nothing of machines. */
static const char *port_of(const struct orr_rec_node_row *n)
{
    return n->machine.len ? strchr(n->machine.ptr, ':') : NULL;
}

/* Another node of the cluster that is up, with or without a machine of that port; or NULL. */
static const struct orr_rec_node_row *find_other(const struct orr_msg_tree *tree,
                                                 const struct orr_rec_node_row *n)
{
    const char *port = port_of(n);
    for (uint32_t i = 0; i < tree->nodes.n; i++) {
        const struct orr_rec_node_row *other = &tree->nodes.at[i];
        const char *others = port_of(other);
        if (other->state == ORR_NODE_UP && orr_str_eq(other->cluster, n->cluster) &&
            others && (!port || strcmp(others, port) != 0))
            return other;
    }
    return NULL;
}

/* Do ranks reach each other over machines? */
static void look_at_machines(struct doctor *d, const struct orr_msg_tree *tree)
{
    uint32_t n_wide = 0;
    for (uint32_t i = 0; i < tree->nodes.n; i++) {
        const struct orr_rec_node_row *n = &tree->nodes.at[i];
        if (n->state != ORR_NODE_UP)
            continue;
        const struct orr_rec_node_row *other = find_other(tree, n);
        n_wide += n->machine.len && !n->machine_trouble.len;
        if (n->machine_trouble.len)
            say(d,
                LEVEL_WARN,
                "network",
                "%s/%s: its ranks cannot reach those on other machines: %s",
                n->cluster.ptr,
                n->node.ptr,
                n->machine_trouble.ptr);
        else if (other)
            say(d,
                LEVEL_WARN,
                "network",
                "%s/%s and %s cannot share a job: give both "
                "roles.node.overlay.address, "
                "with the same port",
                n->cluster.ptr,
                n->node.ptr,
                other->node.ptr);
    }
    if (n_wide)
        say(d,
            LEVEL_OK,
            "network",
            "ranks on %u of %u nodes reach other machines by VXLAN",
            n_wide,
            tree->nodes.n);
}

static void look_at_fleet(struct doctor *d)
{
    struct orr_answer answer;
    if (ask(d, NULL, orr_msg_desc_tree_get(), &(struct orr_msg_tree_get){0}, &answer) !=
        ORR_OK)
        return;
    const struct orr_msg_tree *tree = answer.msg;
    uint32_t n_away = 0, n_imaging = 0;
    for (uint32_t i = 0; i < tree->clusters.n; i++) {
        const struct orr_rec_cluster_row *c = &tree->clusters.at[i];
        if (c->state == ORR_NODE_UP)
            continue;
        n_away++;
        say(d,
            LEVEL_WARN,
            "cluster",
            "%s is %s; its jobs run on; look after its host",
            c->cluster.ptr,
            orr_node_state_name(c->state));
    }
    for (uint32_t i = 0; i < tree->nodes.n; i++) {
        const struct orr_rec_node_row *n = &tree->nodes.at[i];
        n_imaging += look_at_level(d, n);
        if (n->state == ORR_NODE_UP)
            continue;
        n_away++;
        say(d,
            LEVEL_WARN,
            "node",
            "%s/%s is %s",
            n->cluster.ptr,
            n->node.ptr,
            orr_node_state_name(n->state));
    }
    if (tree->clusters.n == 0)
        say(d, LEVEL_WARN, "cluster", "none has registered: start a cluster's host");
    else if (n_away == 0)
        say(d,
            LEVEL_OK,
            "fleet",
            "%u clusters and %u nodes are up",
            tree->clusters.n,
            tree->nodes.n);
    look_at_machines(d, tree);
    if (n_imaging)
        say(d, LEVEL_OK, "images", "work on %u of %u nodes", n_imaging, tree->nodes.n);
}

int orri_verb_doctor(struct orri_cli *cli)
{
    static const char *const heads[] = {"", "WHAT", "FINDING"};
    struct orr_error err;
    struct doctor d = {.cli = cli};
    if (orri_cli_locate(cli, &err) != ORR_OK)
        return orri_cli_fail(cli, &err);
    orri_table_init(&d.table, heads, ORR_ARRAY_SIZE(heads));
    look_at_ledger(&d);
    compare(&d);
    look_at_fleet(&d);
    if (cli->format == FORMAT_TABLE)
        orri_table_flush(&d.table, stdout);
    else
        orri_json_end(cli->format, d.count);
    orri_table_fini(&d.table);
    return d.worst == LEVEL_FAIL ? EXIT_UNWELL : EXIT_OK;
}
