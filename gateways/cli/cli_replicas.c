/* SPDX-License-Identifier: Apache-2.0
 * cli_replicas.c - region: the hosts that keep a region's ledger, and which of them
 * leads.
 *
 * ls asks each host itself, so that one which is behind, or cannot be reached, shows.
 * The others go to the leader's ledger and wait until what they asked for is so.
 */
#include "cli.h"

#include "orrery/yaml.h"

#include <inttypes.h>

enum {
    ASK_MS = 10000,
    CHANGE_MS = 30000, /* a host that joins reads the whole ledger first */
    HOST_MS = 1000,
    POLL_MS = 100,
    CELL = 48
};

static enum orr_err
get_info(struct orri_cli *cli, struct orr_answer *ret_answer, struct orr_error *err)
{
    return orri_cli_ask(cli,
                        ORRI_LEDGER_PATH,
                        orr_msg_desc_ledger_info_get(),
                        &(struct orr_msg_ledger_info_get){0},
                        ASK_MS,
                        ret_answer,
                        err);
}

/* A copy of what the leader says, or, when there is none, of what any host says; free
 * it. */
static enum orr_err leader_info(struct orri_cli *cli,
                                uint64_t end_ms,
                                struct orr_msg_ledger_info **ret_info,
                                struct orr_error *err)
{
    for (unsigned tried = 0;; tried++) {
        struct orr_answer answer;
        enum orr_err rc = get_info(cli, &answer, err);
        if (rc != ORR_OK)
            return rc;
        const struct orr_msg_ledger_info *info = answer.msg;
        orri_endpoints_learn(cli, info);
        if (info->is_leading || orri_cli_now_ms() >= end_ms || orri_cli_interrupts()) {
            *ret_info = malloc(orr_msg_size(answer.desc, info));
            if (!*ret_info)
                return orr_fail(err, ORR_ENOMEM, "out of memory");
            orr_msg_copy(answer.desc, info, *ret_info);
            return ORR_OK;
        }
        orri_cli_close(cli);
        cli->at = (cli->at + 1) % cli->n_endpoints;
        if (tried % cli->n_endpoints == cli->n_endpoints - 1)
            orri_cli_sleep(POLL_MS);
    }
}

/* ---- ls ---- */

struct listing {
    struct orri_cli *cli; /* borrowed: the verb's */
    struct orri_table table;
    size_t count;
};

static void add_row(struct listing *l,
                    const struct orr_rec_voter *v,
                    const struct orr_msg_ledger_info *info)
{
    char committed[CELL], keys[CELL], bytes[CELL];
    const char *state = info->is_leading                ? "leads"
                        : info->trouble == ORR_EUNREACH ? "unreachable"
                        : v->is_voting                  ? "follows"
                                                        : "joins";
    bool is_there = info->trouble != ORR_EUNREACH;
    snprintf(committed, CELL, is_there ? "%" PRIu64 : "", info->committed);
    snprintf(keys, CELL, is_there ? "%" PRIu64 : "", info->keys);
    const char *cells[] = {v->host.ptr,
                           state,
                           committed,
                           keys,
                           is_there ? orri_bytes(info->image_bytes, bytes, CELL) : "",
                           v->address.ptr,
                           v->endpoint.ptr,
                           info->trouble ? info->text.ptr : ""};
    orri_table_add(&l->table, cells);
}

static void show_host(struct listing *l,
                      const struct orr_rec_voter *v,
                      const struct orr_msg_ledger_info *info)
{
    if (l->cli->format == FORMAT_TABLE) {
        add_row(l, v, info);
        return;
    }
    char *json = orri_json(&orr_msg_desc_ledger_info()->body, info);
    orri_json_item(l->cli->format, &l->count, json);
    free(json);
}

/* What the voter's own host says; without an answer, that. */
static void ask_host(struct listing *l,
                     const struct orr_msg_ledger_info *leader,
                     const struct orr_rec_voter *v)
{
    struct orr_client *client = NULL;
    struct orr_answer answer;
    struct orr_error err = {.code = ORR_OK};
    enum orr_err rc = orr_client_new(v->endpoint.ptr, HOST_MS, &client, &err);
    if (rc == ORR_OK)
        rc = orr_client_ask(client,
                            ORRI_LEDGER_PATH,
                            orr_msg_desc_ledger_info_get(),
                            &(struct orr_msg_ledger_info_get){0},
                            HOST_MS,
                            &answer,
                            &err);
    const struct orr_msg_ledger_info nothing = {.region = leader->region,
                                                .host = v->host,
                                                .leader = leader->leader,
                                                .trouble = ORR_EUNREACH,
                                                .text = orr_str(err.text),
                                                .voters = leader->voters};
    bool is_there = rc == ORR_OK && answer.desc->id == ORR_MSG_ledger_info;
    show_host(l, v, is_there ? answer.msg : &nothing);
    orr_client_free(client);
}

static void show_head(const struct orr_msg_ledger_info *info)
{
    printf("region %s  term %" PRIu64 "  ", info->region.ptr, info->term);
    if (info->leader.len)
        printf("%s leads\n", info->leader.ptr);
    else
        printf("no leader\n");
}

static int list(struct orri_cli *cli)
{
    static const char *const heads[] = {
        "HOST", "STATE", "COMMITTED", "KEYS", "SIZE", "ADDRESS", "ENDPOINT", "TROUBLE"};
    struct orr_error err;
    struct orr_msg_ledger_info *info;
    uint64_t ms;
    struct listing l = {.cli = cli};
    if (orri_cli_duration(cli, HOST_MS, &ms, &err) != ORR_OK ||
        leader_info(cli, orri_cli_now_ms() + ms, &info, &err) != ORR_OK)
        return orri_cli_fail(cli, &err);
    orri_table_init(&l.table, heads, ORR_ARRAY_SIZE(heads));
    if (cli->format == FORMAT_TABLE)
        show_head(info);
    for (uint32_t i = 0; i < info->voters.n && !orri_cli_interrupts(); i++)
        ask_host(&l, info, &info->voters.at[i]);
    if (cli->format == FORMAT_TABLE)
        orri_table_flush(&l.table, stdout);
    orri_table_fini(&l.table);
    orri_json_end(cli->format, l.count);
    free(info);
    return EXIT_OK;
}

/* ---- add, remove, move ---- */

static const struct orr_rec_voter *voter_of(const struct orr_msg_ledger_info *info,
                                            const char *host)
{
    for (uint32_t i = 0; i < info->voters.n; i++)
        if (orr_str_eq(info->voters.at[i].host, orr_str(host)))
            return &info->voters.at[i];
    return NULL;
}

static enum orr_err change(struct orri_cli *cli,
                           const struct orr_msg_desc *desc,
                           const void *msg,
                           struct orr_error *err)
{
    struct orr_answer answer;
    uint64_t ms;
    enum orr_err rc = orri_cli_duration(cli, CHANGE_MS, &ms, err);
    return rc == ORR_OK
               ? orri_cli_ask(cli, ORRI_LEDGER_PATH, desc, msg, ms, &answer, err)
               : rc;
}

static int add(struct orri_cli *cli)
{
    struct orr_error err;
    const char *address = cli->value[OPT_ADDRESS], *endpoint = cli->value[OPT_ENDPOINT];
    if (cli->n_args != 2 || !address || !endpoint) {
        (void)orr_fail(
            &err,
            ORR_EINVAL,
            "which host? usage: orrery region add HOST --address IP:PORT "
            "--endpoint ENDPOINT, as in its configuration with `join: true`");
        return orri_cli_fail(cli, &err);
    }
    struct orr_msg_voter_add msg = {.host = orr_str(cli->args[1]),
                                    .address = orr_str(address),
                                    .endpoint = orr_str(endpoint)};
    if (change(cli, orr_msg_desc_voter_add(), &msg, &err) != ORR_OK)
        return orri_cli_fail(cli, &err);
    if (cli->format == FORMAT_TABLE)
        printf("%s votes\n", cli->args[1]);
    return EXIT_OK;
}

static int remove_host(struct orri_cli *cli)
{
    struct orr_error err;
    if (cli->n_args != 2) {
        (void)orr_fail(
            &err, ORR_EINVAL, "which host? usage: orrery region remove HOST");
        return orri_cli_fail(cli, &err);
    }
    struct orr_msg_voter_remove msg = {.host = orr_str(cli->args[1])};
    if (change(cli, orr_msg_desc_voter_remove(), &msg, &err) != ORR_OK)
        return orri_cli_fail(cli, &err);
    if (cli->format == FORMAT_TABLE)
        printf("%s votes no more; stop its host\n", cli->args[1]);
    return EXIT_OK;
}

/* Until somebody else leads, or `wanted` does. */
static enum orr_err wait_moved(struct orri_cli *cli,
                               const char *old,
                               const char *wanted,
                               uint64_t end_ms,
                               char now_leads[ORR_NAME_MAX],
                               struct orr_error *err)
{
    for (;;) {
        struct orr_msg_ledger_info *info;
        enum orr_err rc = leader_info(cli, end_ms, &info, err);
        if (rc != ORR_OK)
            return rc;
        bool is_moved =
            info->is_leading && (*wanted ? orr_str_eq(info->host, orr_str(wanted))
                                         : !orr_str_eq(info->host, orr_str(old)));
        orr_str_copy(now_leads, ORR_NAME_MAX, info->host);
        free(info);
        if (is_moved)
            return ORR_OK;
        if (orri_cli_now_ms() >= end_ms || orri_cli_interrupts())
            return orr_fail(
                err, ORR_ETIMEOUT, "%s still leads; see `orrery region ls`", old);
        orri_cli_sleep(POLL_MS);
    }
}

/* Asked of the leader that we saw, once: a second move would be another one. */
static enum orr_err move_lead(struct orri_cli *cli,
                              const char *wanted,
                              char now_leads[ORR_NAME_MAX],
                              struct orr_error *err)
{
    struct orr_msg_ledger_info *info;
    struct orr_answer answer;
    uint64_t ms;
    char old[ORR_NAME_MAX] = "";
    enum orr_err rc = orri_cli_duration(cli, CHANGE_MS, &ms, err);
    uint64_t end_ms = orri_cli_now_ms() + (rc == ORR_OK ? ms : 0);
    if (rc == ORR_OK)
        rc = leader_info(cli, end_ms, &info, err);
    if (rc != ORR_OK)
        return rc;
    orr_str_copy(old, sizeof old, info->host);
    orr_str_copy(now_leads, ORR_NAME_MAX, info->host);
    bool is_done = info->is_leading && strcmp(old, wanted) == 0;
    if (!info->is_leading)
        rc = orr_fail(err, ORR_ETIMEOUT, "nobody leads; see `orrery region ls`");
    else if (*wanted && !voter_of(info, wanted))
        rc =
            orr_fail(err,
                     ORR_ENOENT,
                     "%.64s: no such host in the region; `orrery region ls` lists them",
                     wanted);
    free(info);
    if (rc != ORR_OK || is_done)
        return rc;
    rc = orri_link_ask(cli,
                       ORRI_LEDGER_PATH,
                       orr_msg_desc_leader_move(),
                       &(struct orr_msg_leader_move){.host = orr_str(wanted)},
                       ms,
                       &answer,
                       err);
    /* Without an answer the move may have happened all the same. */
    if (rc != ORR_OK && !orri_leader_is_lost(cli, rc))
        return rc;
    return wait_moved(cli, old, wanted, end_ms, now_leads, err);
}

static int move(struct orri_cli *cli)
{
    struct orr_error err;
    char now_leads[ORR_NAME_MAX];
    const char *wanted = cli->n_args == 2 ? cli->args[1] : "";
    if (move_lead(cli, wanted, now_leads, &err) != ORR_OK)
        return orri_cli_fail(cli, &err);
    if (cli->format == FORMAT_TABLE)
        printf("%s leads\n", now_leads);
    else
        printf("{\"leader\":\"%s\"}\n", now_leads);
    return EXIT_OK;
}

int orri_verb_region(struct orri_cli *cli)
{
    static const struct {
        const char *name;
        int (*run)(struct orri_cli *cli);
    } verbs[] = {{"ls", list}, {"add", add}, {"remove", remove_host}, {"move", move}};
    struct orr_error err;
    struct orr_closest best = {0};
    for (size_t i = 0; i < ORR_ARRAY_SIZE(verbs); i++) {
        orr_closest_try(&best, cli->args[0], verbs[i].name);
        if (strcmp(cli->args[0], verbs[i].name) != 0)
            continue;
        return orri_cli_locate(cli, &err) == ORR_OK ? verbs[i].run(cli)
                                                    : orri_cli_fail(cli, &err);
    }
    (void)orr_fail(&err,
                   ORR_EINVAL,
                   "%.32s: unknown; did you mean `orrery region %s`?",
                   cli->args[0],
                   best.word[0] ? best.word : "ls");
    return orri_cli_fail(cli, &err);
}
