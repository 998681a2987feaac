/* SPDX-License-Identifier: Apache-2.0
 * cli_checkpoint.c - checkpoint JOB, checkpoint ls|show|verify|rm: the region's record of what can be gone back to.
 *
 * `verify` asks the store of each part's host to read every chunk, so it takes as long as reading the checkpoint does.
 */
#include "cli.h"

#include <inttypes.h>
#include <time.h>

enum { ASK_MS = 10000, MAKE_MS = 600000, VERIFY_MS = 3600000, CELL = 48 };

static void time_text(uint64_t unix_ms, char *buf, size_t cap)
{
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm tm;
    buf[0] = '\0';
    if (unix_ms && localtime_r(&seconds, &tm))
        strftime(buf, cap, "%Y-%m-%d %H:%M:%S", &tm);
}

void orri_checkpoint_table(const struct orr_list_checkpoint_row *rows)
{
    static const char *const heads[] = {
        "JOB", "NUMBER", "MADE", "LEVEL", "SIZE", "NEW", "PAUSED", "CAUSE"};
    struct orri_table table;
    orri_table_init(&table, heads, ORR_ARRAY_SIZE(heads));
    for (uint32_t i = 0; i < rows->n; i++) {
        const struct orr_rec_checkpoint_row *r = &rows->at[i];
        char number[CELL], made[CELL], bytes[CELL], fresh[CELL], paused[CELL] = "";
        snprintf(number, CELL, "%" PRIu64, r->number);
        time_text(r->created_unix_ms, made, CELL);
        if (r->paused_ms)
            snprintf(paused, CELL, "%" PRIu64 "ms", r->paused_ms);
        const char *cells[] = {r->job.ptr,
                               number,
                               made,
                               orr_level_name(r->level),
                               orri_bytes(r->bytes, bytes, CELL),
                               orri_bytes(r->new_bytes, fresh, CELL),
                               paused,
                               r->cause.ptr};
        orri_table_add(&table, cells);
    }
    orri_table_flush(&table, stdout);
    orri_table_fini(&table);
}

static bool parse_number(const char *text, uint64_t *ret)
{
    char *end;
    *ret = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == '\0';
}

/* checkpoint VERB JOB [NUMBER] */
static enum orr_err
which(const struct orri_cli *cli, uint64_t *ret_number, struct orr_error *err)
{
    *ret_number = 0;
    if (cli->n_args < 2)
        return orr_fail(err,
                        ORR_EINVAL,
                        "which job? usage: orrery checkpoint %s JOB [NUMBER]",
                        cli->args[0]);
    if (cli->n_args == 3 && !parse_number(cli->args[2], ret_number))
        return orr_fail(err,
                        ORR_EINVAL,
                        "%.32s: not the number of a checkpoint; `orrery checkpoint ls "
                        "%s` lists them",
                        cli->args[2],
                        cli->args[1]);
    return ORR_OK;
}

static void print_made(const struct orri_cli *cli,
                       const struct orr_rec_checkpoint_row *row)
{
    if (cli->format == FORMAT_TABLE) {
        printf("%" PRIu64 "\n", row->number);
        return;
    }
    char *json = orri_json(orr_rec_desc_checkpoint_row(), row);
    printf("%s\n", json ? json : "null");
    free(json);
}

static int make(struct orri_cli *cli, const char *job)
{
    struct orr_error err;
    struct orr_answer answer;
    uint64_t ms;
    const struct orr_msg_job_checkpoint msg = {.job = orr_str(job)};
    enum orr_err rc = orri_cli_duration(cli, MAKE_MS, &ms, &err);
    if (rc == ORR_OK)
        rc = orri_cli_ask(
            cli, NULL, orr_msg_desc_job_checkpoint(), &msg, ms, &answer, &err);
    if (rc != ORR_OK)
        return orri_cli_fail(cli, &err);
    print_made(cli, &((const struct orr_msg_checkpoint_made *)answer.msg)->row);
    return EXIT_OK;
}

static int list(struct orri_cli *cli)
{
    struct orr_error err;
    struct orr_answer answer;
    size_t count = 0;
    const struct orr_msg_checkpoint_list msg = {
        .job = orr_str(cli->n_args > 1 ? cli->args[1] : "")};
    if (orri_cli_ask(
            cli, NULL, orr_msg_desc_checkpoint_list(), &msg, ASK_MS, &answer, &err) !=
        ORR_OK)
        return orri_cli_fail(cli, &err);
    const struct orr_msg_checkpoint_rows *rows = answer.msg;
    if (cli->format == FORMAT_TABLE) {
        orri_checkpoint_table(&rows->rows);
        return EXIT_OK;
    }
    for (uint32_t i = 0; i < rows->rows.n; i++) {
        char *json = orri_json(orr_rec_desc_checkpoint_row(), &rows->rows.at[i]);
        orri_json_item(cli->format, &count, json);
        free(json);
    }
    orri_json_end(cli->format, count);
    return EXIT_OK;
}

static enum orr_err
get_detail(struct orri_cli *cli, struct orr_answer *ret_answer, struct orr_error *err)
{
    struct orr_msg_checkpoint_show msg = {0};
    enum orr_err rc = which(cli, &msg.number, err);
    if (rc != ORR_OK)
        return rc;
    msg.job = orr_str(cli->args[1]);
    return orri_cli_ask(
        cli, NULL, orr_msg_desc_checkpoint_show(), &msg, ASK_MS, ret_answer, err);
}

static void print_parts(const struct orr_msg_checkpoint_detail *d)
{
    static const char *const heads[] = {"RANK", "SIZE", "NEW", "STORE", "PART"};
    struct orri_table table;
    orri_table_init(&table, heads, ORR_ARRAY_SIZE(heads));
    for (uint32_t i = 0; i < d->parts.n; i++) {
        const struct orr_rec_part *p = &d->parts.at[i];
        char rank[CELL], bytes[CELL], fresh[CELL];
        snprintf(rank, CELL, "%" PRIu32, p->rank);
        const char *cells[] = {rank,
                               orri_bytes(p->bytes, bytes, CELL),
                               orri_bytes(p->new_bytes, fresh, CELL),
                               p->store.ptr,
                               p->hash.ptr};
        orri_table_add(&table, cells);
    }
    orri_table_flush(&table, stdout);
    orri_table_fini(&table);
}

static int show(struct orri_cli *cli)
{
    struct orr_error err;
    struct orr_answer answer;
    if (get_detail(cli, &answer, &err) != ORR_OK)
        return orri_cli_fail(cli, &err);
    const struct orr_msg_checkpoint_detail *d = answer.msg;
    if (cli->format == FORMAT_TABLE) {
        orri_checkpoint_table(&(struct orr_list_checkpoint_row){
            (struct orr_rec_checkpoint_row *)&d->row, 1});
        printf("\n");
        print_parts(d);
        return EXIT_OK;
    }
    char *json = orri_json(&answer.desc->body, d);
    printf("%s\n", json ? json : "null");
    free(json);
    return EXIT_OK;
}

/* ---- verify ---- */

/* One part, by the store that has it.  Returns whether it is whole; says what is wrong. */
static bool verify_part(struct orri_cli *cli,
                        const struct orr_rec_part *part,
                        uint64_t ms,
                        struct orr_error *err)
{
    struct orr_client *client = NULL;
    struct orr_answer answer;
    const struct orr_msg_store_verify msg = {.part = part->hash};
    (void)cli;
    *err = (struct orr_error){.code = ORR_OK};
    enum orr_err rc = orr_client_new(part->endpoint.ptr, ASK_MS, &client, err);
    if (rc == ORR_OK)
        rc = orr_client_ask(
            client, "/edge/store", orr_msg_desc_store_verify(), &msg, ms, &answer, err);
    if (rc == ORR_OK && answer.desc->id == ORR_MSG_failed) {
        const struct orr_msg_failed *failed = answer.msg;
        rc = orr_fail(err, (enum orr_err)failed->code, "%s", failed->text.ptr);
    } else if (rc == ORR_OK) {
        const struct orr_msg_store_verified *v = answer.msg;
        if (v->is_part_bad || v->damages)
            rc = orr_fail(err, ORR_EIO, "%s", v->text.ptr);
    }
    orr_client_free(client);
    return rc == ORR_OK;
}

static int verify(struct orri_cli *cli)
{
    struct orr_error err;
    struct orr_answer answer;
    uint64_t ms;
    uint32_t n_bad = 0;
    if (orri_cli_duration(cli, VERIFY_MS, &ms, &err) != ORR_OK ||
        get_detail(cli, &answer, &err) != ORR_OK)
        return orri_cli_fail(cli, &err);
    const struct orr_msg_checkpoint_detail *d = answer.msg;
    uint64_t number = d->row.number;
    uint32_t n = d->parts.n;
    for (uint32_t i = 0; i < n && !orri_cli_interrupts(); i++) {
        const struct orr_rec_part *p = &d->parts.at[i];
        if (verify_part(cli, p, ms, &err))
            continue;
        n_bad++;
        fprintf(stderr,
                "orrery checkpoint: rank %" PRIu32 " on %s: %s\n",
                p->rank,
                p->store.ptr,
                err.text);
    }
    if (orri_cli_interrupts())
        return EXIT_INTERRUPTED;
    if (n_bad) {
        (void)orr_fail(&err,
                       ORR_EIO,
                       "checkpoint %" PRIu64 " of %s: %" PRIu32 " of %" PRIu32
                       " parts are damaged or out of reach",
                       number,
                       cli->args[1],
                       n_bad,
                       n);
        return orri_cli_fail(cli, &err);
    }
    if (cli->format == FORMAT_TABLE)
        printf("checkpoint %" PRIu64 " of %s is whole: %" PRIu32 " parts\n",
               number,
               cli->args[1],
               n);
    else
        printf("{\"number\":%" PRIu64 ",\"parts\":%" PRIu32 ",\"damaged\":0}\n",
               number,
               n);
    return EXIT_OK;
}

static int remove_one(struct orri_cli *cli)
{
    struct orr_error err;
    struct orr_answer answer;
    struct orr_msg_checkpoint_remove msg = {0};
    enum orr_err rc = which(cli, &msg.number, &err);
    if (rc == ORR_OK && cli->n_args < 3)
        rc = orr_fail(
            &err, ORR_EINVAL, "which one? usage: orrery checkpoint rm JOB NUMBER");
    if (rc == ORR_OK) {
        msg.job = orr_str(cli->args[1]);
        rc = orri_cli_ask(
            cli, NULL, orr_msg_desc_checkpoint_remove(), &msg, ASK_MS, &answer, &err);
    }
    return rc == ORR_OK ? EXIT_OK : orri_cli_fail(cli, &err);
}

int orri_verb_checkpoint(struct orri_cli *cli)
{
    static const struct {
        const char *name;
        int (*run)(struct orri_cli *cli);
    } parts[] = {{"ls", list}, {"show", show}, {"verify", verify}, {"rm", remove_one}};
    struct orr_error err;
    if (orri_cli_locate(cli, &err) != ORR_OK)
        return orri_cli_fail(cli, &err);
    for (size_t i = 0; i < ORR_ARRAY_SIZE(parts); i++)
        if (strcmp(cli->args[0], parts[i].name) == 0)
            return parts[i].run(cli);
    if (cli->n_args == 1)
        return make(cli, cli->args[0]);
    (void)orr_fail(&err,
                   ORR_EINVAL,
                   "%.32s: unknown; usage: orrery checkpoint JOB, or checkpoint "
                   "ls|show|verify|rm",
                   cli->args[0]);
    return orri_cli_fail(cli, &err);
}
