/* SPDX-License-Identifier: Apache-2.0
 * cli_jobs.c - ps, cancel, wait.
 */
#include "cli_soft.h"

#include <inttypes.h>
#include <time.h>

enum { ASK_MS = 10000, PAGE_ROWS = 500, WAIT_SLICE_MS = 250 };

/* ---- ps ---- */

const char *const orri_job_heads[ORRI_JOB_COLUMNS] = {"JOB",
                                                      "NAME",
                                                      "PROJECT",
                                                      "TIER",
                                                      "PHASE",
                                                      "RANKS",
                                                      "GPUS",
                                                      "CLUSTER",
                                                      "AGE",
                                                      "REASON"};

void orri_job_add(struct orri_table *table, const struct orr_rec_job_row *row)
{
    char world[16], gpus[16], age[32];
    uint64_t now_ms = orri_wall_ms();
    uint64_t age_ms =
        now_ms > row->submitted_unix_ms ? now_ms - row->submitted_unix_ms : 0;
    snprintf(world, sizeof world, "%" PRIu32, row->world);
    snprintf(gpus, sizeof gpus, "%" PRIu32, row->gpus);
    const char *cells[] = {row->job.ptr,
                           row->name.ptr,
                           row->project.ptr,
                           orr_tier_name(row->tier),
                           orr_job_phase_name(row->phase),
                           world,
                           gpus,
                           row->cluster.ptr,
                           orri_age(age_ms, age, sizeof age),
                           row->reason.ptr};
    orri_table_add(table, cells);
}

static uint32_t live_phases(void)
{
    uint32_t mask = 0;
    for (uint32_t p = 0; p < ORR_JOB_PHASE_MAX_; p++)
        mask |= orr_job_phase_is_final(p) ? 0 : 1u << p;
    return mask;
}

static enum orr_err list_jobs(struct orri_cli *cli,
                              struct orri_table *table,
                              size_t *ret_count,
                              struct orr_error *err)
{
    char after[ORR_JOB_ID_MAX] = "";
    uint32_t phases = cli->value[OPT_ALL] ? 0 : live_phases();
    for (bool more = true; more && !orri_cli_interrupts();) {
        struct orr_answer answer;
        struct orr_msg_job_list msg = {
            .after = orr_str(after), .limit = PAGE_ROWS, .phases = phases};
        enum orr_err rc = orri_cli_ask(
            cli, NULL, orr_msg_desc_job_list(), &msg, ASK_MS, &answer, err);
        if (rc != ORR_OK)
            return rc;
        const struct orr_msg_job_rows *rows = answer.msg;
        const struct orr_rec_desc *desc = answer.desc->body.fields[0].record();
        for (uint32_t i = 0; i < rows->jobs.n; i++) {
            if (cli->format == FORMAT_TABLE) {
                orri_job_add(table, &rows->jobs.at[i]);
                continue;
            }
            char *json =
                orri_json_with(orri_json(desc, &rows->jobs.at[i]), "age_ms", "0");
            orri_json_item(cli->format, ret_count, json);
            free(json);
        }
        more = rows->more && rows->jobs.n > 0;
        if (more)
            orr_str_copy(after, sizeof after, rows->jobs.at[rows->jobs.n - 1].job);
    }
    return ORR_OK;
}

/* A listing of a larger region is paged from the region's own table. */
enum { SOFT_JOBS_MAX = 10000, SOFT_FRESH_MS = 5000 };

/* All live jobs from soft state; false: the region must be asked, and why. */
static bool read_soft_jobs(struct orri_cli *cli, struct orri_soft *soft)
{
    struct orr_error err;
    if (cli->value[OPT_ALL] || cli->value[OPT_FRESH])
        return false;
    enum orr_err rc = orri_soft_read(
        cli, 1u << ORR_SOFT_REGION | 1u << ORR_SOFT_JOB, SOFT_JOBS_MAX + 1, soft, &err);
    const struct orri_soft_row *row = orri_soft_first(soft, ORR_SOFT_REGION);
    const struct orr_msg_soft_region *region = row ? row->msg : NULL;
    if (rc != ORR_OK)
        snprintf(soft->why, sizeof soft->why, "%s", err.text);
    else if (!region || orri_soft_age_ms(region) > SOFT_FRESH_MS)
        snprintf(soft->why, sizeof soft->why, "Redis has nothing new of the region");
    else if (orri_soft_count(soft, ORR_SOFT_JOB) < region->jobs)
        snprintf(soft->why,
                 sizeof soft->why,
                 "Redis has %zu of %" PRIu64 " jobs",
                 orri_soft_count(soft, ORR_SOFT_JOB),
                 region->jobs);
    else
        return true;
    return false;
}

static void print_soft_jobs(const struct orri_cli *cli,
                            const struct orri_soft *soft,
                            struct orri_table *table,
                            size_t *ret_count)
{
    for (size_t i = 0; i < soft->n_rows; i++) {
        const struct orr_msg_soft_job *job = soft->rows[i].msg;
        char age[24];
        if (soft->rows[i].kind != ORR_SOFT_JOB ||
            orr_job_phase_is_final(job->row.phase))
            continue;
        if (cli->format == FORMAT_TABLE) {
            orri_job_add(table, &job->row);
            continue;
        }
        snprintf(age, sizeof age, "%" PRIu64, orri_soft_age_ms(job));
        char *json =
            orri_json_with(orri_json(orr_rec_desc_job_row(), &job->row), "age_ms", age);
        orri_json_item(cli->format, ret_count, json);
        free(json);
    }
}

int orri_verb_ps(struct orri_cli *cli)
{
    struct orr_error err;
    struct orri_table table;
    struct orri_soft soft = {.source = "region"};
    size_t count = 0;
    enum orr_err rc = orri_cli_locate(cli, &err);
    orri_table_init(&table, orri_job_heads, ORRI_JOB_COLUMNS);
    bool is_soft = rc == ORR_OK && read_soft_jobs(cli, &soft);
    if (is_soft)
        print_soft_jobs(cli, &soft, &table, &count);
    else if (rc == ORR_OK)
        rc = list_jobs(cli, &table, &count, &err);
    if (cli->value[OPT_VERBOSE] && soft.why[0])
        fprintf(stderr, "orrery ps: asked the region: %s\n", soft.why);
    if (rc == ORR_OK && cli->format == FORMAT_TABLE)
        orri_table_flush(&table, stdout);
    if (rc == ORR_OK)
        orri_json_end(cli->format, count);
    orri_table_fini(&table);
    orri_soft_fini(&soft);
    return rc == ORR_OK ? EXIT_OK : orri_cli_fail(cli, &err);
}

/* ---- cancel ---- */

int orri_verb_cancel(struct orri_cli *cli)
{
    struct orr_error err;
    int code = EXIT_OK;
    if (orri_cli_locate(cli, &err) != ORR_OK)
        return orri_cli_fail(cli, &err);
    for (int i = 0; i < cli->n_args && !orri_cli_interrupts(); i++) {
        struct orr_answer answer;
        const char *why = cli->value[OPT_WHY];
        struct orr_msg_job_cancel msg = {.job = orr_str(cli->args[i]),
                                         .why = orr_str(why ? why : "by its user")};
        if (orri_cli_ask(
                cli, NULL, orr_msg_desc_job_cancel(), &msg, ASK_MS, &answer, &err) ==
            ORR_OK)
            continue;
        int failed = orri_cli_fail(cli, &err);
        code = code == EXIT_OK ? failed : code;
    }
    return code;
}

/* ---- wait ---- */

static void report_end(const struct orri_cli *cli,
                       const struct orr_msg_job_detail *d,
                       size_t *io_count)
{
    if (cli->format == FORMAT_TABLE) {
        bool is_done = d->row.phase == ORR_JOB_DONE;
        printf("%s %s%s%s\n",
               d->row.job.ptr,
               orr_job_phase_name(d->row.phase),
               is_done ? "" : ": ",
               is_done ? "" : d->row.reason.ptr);
    } else {
        const struct orr_field_desc *row = &orr_msg_desc_job_detail()->body.fields[0];
        char *json = orri_json(row->record(), &d->row);
        orri_json_item(cli->format, io_count, json);
        free(json);
    }
    fflush(stdout);
}

/* end_ms 0: as long as it takes. */
static enum orr_err
wait_one(struct orri_cli *cli, uint64_t end_ms, struct orr_error *err)
{
    for (;;) {
        uint64_t now_ms = orri_cli_now_ms(), slice_ms = WAIT_SLICE_MS;
        if (end_ms && now_ms >= end_ms)
            return orr_fail(
                err, ORR_ETIMEOUT, "%s has not ended within --timeout", cli->watch.job);
        if (end_ms && end_ms - now_ms < slice_ms)
            slice_ms = end_ms - now_ms;
        enum orr_err rc = orri_watch_poll(cli, slice_ms, err);
        if (rc != ORR_ETIMEOUT)
            return rc;
        if (orri_cli_interrupts())
            return orr_fail(err, ORR_ETIMEOUT, "interrupted");
    }
}

/* The job is in another region: ask there from now on.  False: it is not, or nobody knows where that listens. */
static bool go_after(struct orri_cli *cli,
                     const struct orr_msg_job_detail *d,
                     struct orr_error *err)
{
    bool is_known = d->row.phase == ORR_JOB_MOVED && d->to_endpoints.len > 0 &&
                    d->to_region.len < ORR_NAME_MAX;
    if (!is_known)
        return false;
    orri_cli_close(cli);
    cli->n_endpoints = cli->at = 0;
    snprintf(cli->region_path, sizeof cli->region_path, "/%s", d->to_region.ptr);
    fprintf(stderr,
            "orrery wait: %s is in region %s now\n",
            d->row.job.ptr,
            d->to_region.ptr);
    return orri_endpoints_parse(cli, d->to_endpoints.ptr, err) == ORR_OK;
}

/* Also where it goes on in other regions.  Returns an exit code. */
static int wait_along(struct orri_cli *cli,
                      const char *job,
                      uint64_t end_ms,
                      bool *ret_is_away,
                      size_t *io_count)
{
    struct orr_error err;
    for (;;) {
        orri_watch_start(cli, job);
        if (wait_one(cli, end_ms, &err) != ORR_OK)
            return orri_cli_fail(cli, &err);
        if (!go_after(cli, cli->watch.detail, &err))
            break;
        *ret_is_away = true;
        orri_watch_stop(cli);
    }
    report_end(cli, cli->watch.detail, io_count);
    return orri_exit_of_job(cli->watch.detail);
}

int orri_verb_wait(struct orri_cli *cli)
{
    struct orr_error err;
    uint64_t timeout_ms;
    size_t count = 0;
    int code = EXIT_OK;
    if (orri_cli_duration(cli, 0, &timeout_ms, &err) != ORR_OK ||
        orri_cli_locate(cli, &err) != ORR_OK)
        return orri_cli_fail(cli, &err);
    uint64_t end_ms = timeout_ms ? orri_cli_now_ms() + timeout_ms : 0;
    bool is_away = false;
    for (int i = 0; i < cli->n_args && !orri_cli_interrupts(); i++) {
        int one = wait_along(cli, cli->args[i], end_ms, &is_away, &count);
        orri_watch_stop(cli);
        if (is_away) { /* the next one may still be here */
            is_away = false;
            orri_cli_close(cli);
            cli->n_endpoints = cli->at = 0;
            cli->region_path[0] = '\0';
            if (orri_cli_locate(cli, &err) != ORR_OK)
                return orri_cli_fail(cli, &err);
        }
        code = code == EXIT_OK ? one : code;
    }
    orri_json_end(cli->format, count);
    return code;
}
