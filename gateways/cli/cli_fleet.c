/* SPDX-License-Identifier: Apache-2.0
 * cli_fleet.c - tree and node ls: the clusters and nodes as the region sees them.
 */
#include "cli_soft.h"

#include <inttypes.h>

enum { ASK_MS = 10000, CELL = 48 };

static enum orr_err
get_tree(struct orri_cli *cli, struct orr_answer *ret_answer, struct orr_error *err)
{
    enum orr_err rc = orri_cli_locate(cli, err);
    if (rc != ORR_OK)
        return rc;
    return orri_cli_ask(cli,
                        NULL,
                        orr_msg_desc_tree_get(),
                        &(struct orr_msg_tree_get){0},
                        ASK_MS,
                        ret_answer,
                        err);
}

const char *const orri_tree_heads[ORRI_TREE_COLUMNS] = {
    "NAME", "STATE", "GPUS FREE", "TYPE", "MEMORY", "SLOTS FREE", "RANKS", "SEEN"};

static const char *of_two(uint32_t free_now, uint32_t all, char buf[CELL])
{
    snprintf(buf, CELL, "%" PRIu32 "/%" PRIu32, free_now, all);
    return buf;
}

void orri_tree_add_node(struct orri_table *table, const struct orr_rec_node_row *n)
{
    char name[CELL], gpus[CELL], slots[CELL], ranks[CELL], memory[CELL], seen[CELL];
    snprintf(name, sizeof name, "    %.40s", n->node.ptr);
    snprintf(ranks, sizeof ranks, "%" PRIu32, n->ranks);
    const char *cells[] = {name,
                           orr_node_state_name(n->state),
                           of_two(n->gpus_free, n->gpus, gpus),
                           n->gpus ? n->gpu_type.ptr : "",
                           n->gpus ? orri_bytes(n->gpu_memory_bytes, memory, CELL) : "",
                           of_two(n->slots_free, n->slots, slots),
                           ranks,
                           orri_age(n->seen_ms, seen, CELL)};
    orri_table_add(table, cells);
}

void orri_tree_add_cluster(struct orri_table *table,
                           const struct orr_rec_cluster_row *c)
{
    char name[CELL], gpus[CELL], jobs[CELL], seen[CELL];
    snprintf(name, sizeof name, "  %.40s", c->cluster.ptr);
    snprintf(jobs, sizeof jobs, "%" PRIu32 " jobs", c->jobs);
    const char *cells[] = {name,
                           orr_node_state_name(c->state),
                           of_two(c->gpus_free, c->gpus, gpus),
                           "",
                           "",
                           "",
                           jobs,
                           orri_age(c->seen_ms, seen, CELL)};
    orri_table_add(table, cells);
}

static void print_tree(const struct orr_msg_tree *tree)
{
    struct orri_table table;
    orri_table_init(&table, orri_tree_heads, ORRI_TREE_COLUMNS);
    const char *region[] = {tree->region.ptr, "up", "", "", "", "", "", ""};
    orri_table_add(&table, region);
    for (uint32_t c = 0; c < tree->clusters.n; c++) {
        orri_tree_add_cluster(&table, &tree->clusters.at[c]);
        for (uint32_t i = 0; i < tree->nodes.n; i++) {
            const struct orr_rec_node_row *n = &tree->nodes.at[i];
            if (orr_str_eq(n->cluster, tree->clusters.at[c].cluster))
                orri_tree_add_node(&table, n);
        }
    }
    orri_table_flush(&table, stdout);
    orri_table_fini(&table);
}

int orri_verb_tree(struct orri_cli *cli)
{
    struct orr_error err;
    struct orr_answer answer;
    if (get_tree(cli, &answer, &err) != ORR_OK)
        return orri_cli_fail(cli, &err);
    char *json = NULL, state[300];
    if (cli->format == FORMAT_TABLE)
        print_tree(answer.msg);
    else
        json = orri_json(&answer.desc->body, answer.msg);
    orri_soft_state(cli, state, sizeof state); /* the answer is void now */
    if (cli->format == FORMAT_TABLE) {
        if (strncmp(state, "degraded", 8) == 0)
            printf("soft state is %s\n", state);
        return EXIT_OK;
    }
    json = orri_json_with(json, "softstate", state);
    printf("%s\n", json ? json : "null");
    free(json);
    return EXIT_OK;
}

static void print_nodes(const struct orr_msg_tree *tree)
{
    static const char *const heads[] = {"NODE",
                                        "CLUSTER",
                                        "STATE",
                                        "GPUS FREE",
                                        "TYPE",
                                        "MEMORY",
                                        "SLOTS FREE",
                                        "RANKS",
                                        "SEEN"};
    struct orri_table table;
    orri_table_init(&table, heads, ORR_ARRAY_SIZE(heads));
    for (uint32_t i = 0; i < tree->nodes.n; i++) {
        const struct orr_rec_node_row *n = &tree->nodes.at[i];
        char gpus[CELL], slots[CELL], ranks[CELL], memory[CELL], seen[CELL];
        snprintf(ranks, sizeof ranks, "%" PRIu32, n->ranks);
        const char *cells[] = {n->node.ptr,
                               n->cluster.ptr,
                               orr_node_state_name(n->state),
                               of_two(n->gpus_free, n->gpus, gpus),
                               n->gpus ? n->gpu_type.ptr : "",
                               n->gpus ? orri_bytes(n->gpu_memory_bytes, memory, CELL)
                                       : "",
                               of_two(n->slots_free, n->slots, slots),
                               ranks,
                               orri_age(n->seen_ms, seen, CELL)};
        orri_table_add(&table, cells);
    }
    orri_table_flush(&table, stdout);
    orri_table_fini(&table);
}

int orri_verb_node(struct orri_cli *cli)
{
    struct orr_error err;
    struct orr_answer answer;
    size_t count = 0;
    if (strcmp(cli->args[0], "ls") != 0) {
        (void)orr_fail(&err,
                       ORR_EINVAL,
                       "%.32s: unknown; did you mean `orrery node ls`?",
                       cli->args[0]);
        return orri_cli_fail(cli, &err);
    }
    if (get_tree(cli, &answer, &err) != ORR_OK)
        return orri_cli_fail(cli, &err);
    const struct orr_msg_tree *tree = answer.msg;
    if (cli->format == FORMAT_TABLE) {
        print_nodes(tree);
        return EXIT_OK;
    }
    const struct orr_rec_desc *desc = answer.desc->body.fields[2].record();
    for (uint32_t i = 0; i < tree->nodes.n; i++) {
        char *json = orri_json(desc, &tree->nodes.at[i]);
        orri_json_item(cli->format, &count, json);
        free(json);
    }
    orri_json_end(cli->format, count);
    return EXIT_OK;
}
