/* SPDX-License-Identifier: Apache-2.0
 * cli_top.c - top: region, hosts, clusters, nodes and jobs, once a second.
 *
 * Many people leave it open, so it reads soft state: Redis, else the memory of the
 * region's host.  Only what is in neither is asked of the region itself, and then the
 * first page of jobs only.
 */
#include "cli_soft.h"

#include <inttypes.h>
#include <unistd.h>

enum {
    PERIOD_MS = 1000,
    ROWS_MAX = 20000,
    JOBS_SHOWN_MAX = 50,
    ASK_MS = 5000,
    PAGE = 500
};

static const unsigned all_kinds = (1u << ORR_SOFT_KIND_MAX_) - 1;

/* ---- gathering --------------------------------------------------------------------- */

static enum orr_err
ask_tree(struct orri_cli *cli, struct orri_soft *soft, struct orr_error *err)
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
    uint64_t now = orri_wall_ms();
    for (uint32_t i = 0; i < tree->clusters.n; i++) {
        struct orr_msg_soft_cluster c = {.at_unix_ms = now,
                                         .row = tree->clusters.at[i]};
        struct orr_soft_key key = orr_soft_key(
            ORR_SOFT_CLUSTER, tree->region, c.row.cluster, (struct orr_str){0});
        (void)orri_soft_add(soft, ORR_SOFT_CLUSTER, orr_str(key.text), &c, ROWS_MAX);
    }
    for (uint32_t i = 0; i < tree->nodes.n; i++) {
        struct orr_msg_soft_node n = {.at_unix_ms = now, .row = tree->nodes.at[i]};
        struct orr_soft_key key =
            orr_soft_key(ORR_SOFT_NODE, tree->region, n.row.cluster, n.row.node);
        (void)orri_soft_add(soft, ORR_SOFT_NODE, orr_str(key.text), &n, ROWS_MAX);
    }
    return ORR_OK;
}

static enum orr_err
ask_jobs(struct orri_cli *cli, struct orri_soft *soft, struct orr_error *err)
{
    struct orr_answer answer;
    struct orr_msg_job_list msg = {.limit = PAGE};
    for (uint32_t p = 0; p < ORR_JOB_PHASE_MAX_; p++)
        msg.phases |= orr_job_phase_is_final(p) ? 0 : 1u << p;
    enum orr_err rc =
        orri_cli_ask(cli, NULL, orr_msg_desc_job_list(), &msg, ASK_MS, &answer, err);
    if (rc != ORR_OK)
        return rc;
    const struct orr_msg_job_rows *rows = answer.msg;
    struct orr_str region = orr_str(cli->region_path + 1);
    for (uint32_t i = 0; i < rows->jobs.n; i++) {
        struct orr_msg_soft_job job = {orri_wall_ms(), rows->jobs.at[i], 0};
        struct orr_soft_key key =
            orr_soft_key(ORR_SOFT_JOB, region, job.row.job, (struct orr_str){0});
        (void)orri_soft_add(soft, ORR_SOFT_JOB, orr_str(key.text), &job, ROWS_MAX);
    }
    return ORR_OK;
}

/* What nobody has published: the region knows. */
static enum orr_err
fill_gaps(struct orri_cli *cli, struct orri_soft *soft, struct orr_error *err)
{
    enum orr_err rc = ORR_OK;
    bool has_rows = soft->n_rows > 0;
    bool has_region = orri_soft_first(soft, ORR_SOFT_REGION);
    bool has_clusters = orri_soft_first(soft, ORR_SOFT_CLUSTER);
    if (!has_clusters)
        rc = ask_tree(cli, soft, err);
    if (rc == ORR_OK && !has_region)
        rc = ask_jobs(cli, soft, err);
    if (!has_rows)
        soft->source = "region";
    orri_soft_sort(soft);
    return rc;
}

static enum orr_err
gather(struct orri_cli *cli, struct orri_soft *soft, struct orr_error *err)
{
    struct orr_soft_source source;
    struct orr_error why = {.code = ORR_OK};
    bool has_redis = orri_soft_locate(cli, &source, &why) != ORR_ENOENT;
    enum orr_err rc =
        has_redis ? orri_soft_read(cli, all_kinds, ROWS_MAX, soft, &why) : ORR_ENOENT;
    if (rc != ORR_OK) {
        soft->is_degraded = has_redis;
        snprintf(soft->why, sizeof soft->why, "%s", why.text);
        orri_soft_fini(soft);
        if (orri_soft_ask(cli, all_kinds, ROWS_MAX, soft, &why) != ORR_OK)
            soft->source = "region"; /* an older host has no such edge */
    }
    return fill_gaps(cli, soft, err);
}

/* ---- for people -------------------------------------------------------------------- */

static uint64_t oldest_ms(const struct orri_soft *soft)
{
    uint64_t oldest = 0;
    for (size_t i = 0; i < soft->n_rows; i++) {
        uint64_t age = orri_soft_age_ms(soft->rows[i].msg);
        oldest = age > oldest ? age : oldest;
    }
    return oldest;
}

static void print_head(const struct orri_cli *cli, const struct orri_soft *soft)
{
    const struct orri_soft_row *row = orri_soft_first(soft, ORR_SOFT_REGION);
    const struct orr_msg_soft_region *r = row ? row->msg : NULL;
    char age[32];
    printf("region %s", cli->region_path + 1);
    if (r)
        printf("  jobs: %" PRIu64 " live, %" PRIu64 " running, %" PRIu64
               " queued  gpus: %" PRIu32 "/%" PRIu32 " free",
               r->jobs,
               r->running,
               r->queued,
               r->gpus_free,
               r->gpus);
    printf("  hosts: %zu\nfrom %s, at most %s old",
           orri_soft_count(soft, ORR_SOFT_HOST),
           soft->source,
           orri_age(oldest_ms(soft), age, sizeof age));
    if (soft->count.garbage)
        printf(", %" PRIu64 " unreadable values left out", soft->count.garbage);
    if (soft->is_degraded)
        printf("; soft state is degraded: %s", soft->why);
    printf("\n\n");
}

/* The node's own word on its ranks is newer than the cluster's. */
static uint32_t ranks_of(const struct orri_soft *soft,
                         const struct orr_rec_node_row *node)
{
    for (size_t i = 0; i < soft->n_rows; i++) {
        const struct orr_msg_soft_progress *p = soft->rows[i].msg;
        if (soft->rows[i].kind == ORR_SOFT_PROGRESS &&
            orr_str_eq(p->node, node->node) && orr_str_eq(p->cluster, node->cluster))
            return p->ranks_starting + p->ranks_running;
    }
    return node->ranks;
}

static void print_tables(const struct orri_soft *soft)
{
    struct orri_table nodes, jobs;
    size_t n_jobs = 0;
    orri_table_init(&nodes, orri_tree_heads, ORRI_TREE_COLUMNS);
    orri_table_init(&jobs, orri_job_heads, ORRI_JOB_COLUMNS);
    for (size_t i = 0; i < soft->n_rows; i++) {
        const struct orr_msg_soft_cluster *c = soft->rows[i].msg;
        if (soft->rows[i].kind != ORR_SOFT_CLUSTER)
            continue;
        orri_tree_add_cluster(&nodes, &c->row);
        for (size_t k = 0; k < soft->n_rows; k++) {
            const struct orr_msg_soft_node *n = soft->rows[k].msg;
            if (soft->rows[k].kind != ORR_SOFT_NODE ||
                !orr_str_eq(n->row.cluster, c->row.cluster))
                continue;
            struct orr_rec_node_row row = n->row;
            row.ranks = ranks_of(soft, &row);
            orri_tree_add_node(&nodes, &row);
        }
    }
    for (size_t i = 0; i < soft->n_rows; i++) {
        const struct orr_msg_soft_job *job = soft->rows[i].msg;
        if (soft->rows[i].kind == ORR_SOFT_JOB && n_jobs++ < JOBS_SHOWN_MAX)
            orri_job_add(&jobs, &job->row);
    }
    orri_table_flush(&nodes, stdout);
    putchar('\n');
    orri_table_flush(&jobs, stdout);
    if (n_jobs > JOBS_SHOWN_MAX)
        printf("and %zu more; `orrery ps` lists all\n", n_jobs - JOBS_SHOWN_MAX);
    orri_table_fini(&nodes);
    orri_table_fini(&jobs);
}

/* ---- for programs ------------------------------------------------------------------ */

static void
print_list(const struct orri_soft *soft, enum orr_soft_kind kind, const char *name)
{
    const struct orr_rec_desc *desc = &orr_soft_desc(kind)->body;
    bool is_first = true;
    printf(",\"%s\":[", name);
    for (size_t i = 0; i < soft->n_rows; i++) {
        char age[24];
        if (soft->rows[i].kind != kind)
            continue;
        snprintf(age, sizeof age, "%" PRIu64, orri_soft_age_ms(soft->rows[i].msg));
        char *json = orri_json_with(orri_json(desc, soft->rows[i].msg), "age_ms", age);
        printf("%s%s", is_first ? "" : ",", json ? json : "null");
        free(json);
        is_first = false;
    }
    putchar(']');
}

static void print_json(const struct orri_cli *cli, const struct orri_soft *soft)
{
    char *head = strdup("{}"), number[24];
    head = orri_json_with(head, "region", cli->region_path + 1);
    head = orri_json_with(head, "source", soft->source);
    head = orri_json_with(head, "softstate", soft->is_degraded ? "degraded" : "ok");
    head = orri_json_with(head, "why", soft->why);
    snprintf(number, sizeof number, "%" PRIu64, oldest_ms(soft));
    head = orri_json_with(head, "age_ms", number);
    snprintf(number, sizeof number, "%" PRIu64, soft->count.garbage);
    head = orri_json_with(head, "garbage", number);
    printf("%.*s", head ? (int)strlen(head) - 1 : 0, head ? head : "");
    free(head);
    print_list(soft, ORR_SOFT_REGION, "summary");
    print_list(soft, ORR_SOFT_HOST, "hosts");
    print_list(soft, ORR_SOFT_CLUSTER, "clusters");
    print_list(soft, ORR_SOFT_NODE, "nodes");
    print_list(soft, ORR_SOFT_PROGRESS, "progress");
    print_list(soft, ORR_SOFT_JOB, "jobs");
    printf("}\n");
}

static enum orr_err show(struct orri_cli *cli, bool clears, struct orr_error *err)
{
    struct orri_soft soft = {.source = "region"};
    enum orr_err rc = gather(cli, &soft, err);
    if (rc == ORR_OK && clears)
        fputs("\033[H\033[2J", stdout);
    if (rc == ORR_OK && cli->format == FORMAT_TABLE) {
        print_head(cli, &soft);
        print_tables(&soft);
    } else if (rc == ORR_OK) {
        print_json(cli, &soft);
    }
    if (rc == ORR_OK && cli->value[OPT_VERBOSE] && soft.why[0])
        fprintf(stderr, "orrery top: not from Redis: %s\n", soft.why);
    orri_soft_fini(&soft);
    fflush(stdout);
    return rc;
}

int orri_verb_top(struct orri_cli *cli)
{
    struct orr_error err;
    bool is_once = cli->value[OPT_ONCE] || cli->format == FORMAT_JSON;
    bool clears = !is_once && cli->format == FORMAT_TABLE && isatty(STDOUT_FILENO);
    enum orr_err rc = orri_cli_locate(cli, &err);
    while (rc == ORR_OK) {
        rc = show(cli, clears, &err);
        if (is_once || orri_cli_interrupts())
            break;
        if (rc == ORR_OK)
            orri_cli_sleep(PERIOD_MS);
    }
    return rc == ORR_OK ? EXIT_OK : orri_cli_fail(cli, &err);
}
