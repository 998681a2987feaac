/* SPDX-License-Identifier: Apache-2.0
 * cli_show.c - `orrery show JOB`: all that its region knows of a job.
 */
#include "cli.h"

#include <inttypes.h>
#include <time.h>

enum { ASK_MS = 10000 };

static enum orr_err decode_spec(struct orr_bytes wire,
                                struct orr_msg_job_spec **ret_spec,
                                struct orr_error *err)
{
    const struct orr_msg_desc *desc = orr_msg_desc_job_spec();
    size_t size, taken;
    enum orr_err rc = orr_msg_decode_size(desc, wire.ptr, wire.len, &size, &taken);
    void *spec = rc == ORR_OK ? malloc(size) : NULL;
    if (rc == ORR_OK)
        rc = spec ? orr_msg_decode(desc, wire.ptr, wire.len, spec, size) : ORR_ENOMEM;
    if (rc != ORR_OK) {
        free(spec);
        return orr_fail(err, rc, "the job's spec is unreadable: %s", orr_err_text(rc));
    }
    *ret_spec = spec;
    return ORR_OK;
}

static void show_line(const char *name, const char *value)
{
    if (value && *value)
        printf("%-12s %s\n", name, value);
}

static void show_time(const char *name, uint64_t unix_ms)
{
    char text[40];
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm tm;
    if (unix_ms == 0 || !localtime_r(&seconds, &tm))
        return;
    strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S %z", &tm);
    show_line(name, text);
}

static void show_command(const struct orr_msg_job_spec *spec)
{
    printf("%-12s", "command");
    for (uint32_t i = 0; i < spec->command.n; i++) {
        struct orr_str word = spec->command.at[i].value;
        bool is_plain = word.len && strcspn(word.ptr, " \t\n\"'\\$") == word.len;
        printf(is_plain ? " %s" : " '%s'", word.ptr);
    }
    printf("\n");
}

static void show_ranks(const struct orr_msg_job_detail *d)
{
    static const char *const heads[] = {"RANK", "NODE", "DEVICE"};
    struct orri_table table;
    if (d->ranks.n == 0)
        return;
    printf("\n");
    orri_table_init(&table, heads, ORR_ARRAY_SIZE(heads));
    for (uint32_t i = 0; i < d->ranks.n; i++) {
        char rank[16], device[16] = "-";
        snprintf(rank, sizeof rank, "%" PRIu32, d->ranks.at[i].rank);
        if (d->ranks.at[i].device != ORR_NO_DEVICE)
            snprintf(device, sizeof device, "%" PRIu32, d->ranks.at[i].device);
        const char *cells[] = {rank, d->ranks.at[i].node.ptr, device};
        orri_table_add(&table, cells);
    }
    orri_table_flush(&table, stdout);
    orri_table_fini(&table);
}

static void show_stop(const struct orr_list_stop_step *stop)
{
    char text[512] = "";
    for (uint32_t i = 0, at = 0; i < stop->n && at < sizeof text; i++) {
        const struct orr_rec_stop_step *step = &stop->at[i];
        at += (uint32_t)snprintf(text + at,
                                 sizeof text - at,
                                 "%s%s %.3f ms",
                                 i ? ", " : "",
                                 orr_cut_step_name(step->cut_step),
                                 (double)step->took_us / 1000);
        if (step->rounds > 1 && at < sizeof text)
            at += (uint32_t)snprintf(
                text + at, sizeof text - at, " (%" PRIu32 " rounds)", step->rounds);
    }
    if (stop->n)
        show_line("last stop", text);
}

static double ms(uint64_t us)
{
    return (double)us / 1000;
}

static double mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

/* What a resize would stop it for, by its last stops. */
static void show_resize_cost(const struct orr_rec_resize_cost *cost)
{
    char text[512];
    int at = 0;
    if (!cost->stops || (!cost->fewer && !cost->more))
        return;
    if (cost->fewer)
        at += snprintf(text,
                       sizeof text,
                       "%.0f ms to %" PRIu32 " devices, ",
                       ms(cost->fewer_us),
                       cost->fewer);
    if (cost->more)
        at += snprintf(text + at,
                       sizeof text - (size_t)at,
                       "%.0f ms to %" PRIu32 " devices, ",
                       ms(cost->more_us),
                       cost->more);
    snprintf(text + at,
             sizeof text - (size_t)at,
             "by %" PRIu32 " stops: barrier %.1f ms, %.1f MiB at %.1f MiB/s out of and "
             "%.1f MiB/s into each device, %.1f ms else",
             cost->stops,
             ms(cost->barrier_us),
             mib(cost->bytes),
             mib(cost->out_bytes_per_s),
             mib(cost->in_bytes_per_s),
             ms(cost->remake_us));
    show_line("resize cost", text);
}

/* Which of its ranks may share a device, and who says so. */
static void show_shards(const struct orr_msg_job_detail *d,
                        const struct orr_msg_job_spec *spec)
{
    char text[512];
    if (spec->gpus_max == 0 || spec->world < 2)
        return;
    if (spec->shards)
        snprintf(text, sizeof text, "%" PRIu32 ", by its spec", spec->shards);
    else if (d->shards)
        snprintf(
            text, sizeof text, "%" PRIu32 ": %.400s", d->shards, d->why_shards.ptr);
    else
        snprintf(text,
                 sizeof text,
                 "not known: its communicators are looked at when it is stopped");
    show_line("shards", text);
}

/* How it can be stopped, what was last wanted of it, where it is to go. */
static void show_orders(const struct orr_msg_job_detail *d)
{
    char text[512];
    snprintf(text,
             sizeof text,
             "%s%s%.300s",
             orr_level_name(d->level),
             d->why_level.len ? ": " : "",
             d->why_level.ptr);
    if (d->level != ORR_LEVEL_UNKNOWN)
        show_line("level", text);
    snprintf(text,
             sizeof text,
             "%s, %s%s%.300s",
             orr_order_name(d->order_kind),
             orr_order_state_name(d->order_state),
             d->order_text.len ? ": " : "",
             d->order_text.ptr);
    if (d->order)
        show_line("order", text);
    snprintf(text,
             sizeof text,
             "%" PRIu32 " device%s, as ordered: it does not grow or shrink by itself",
             d->asked_devices,
             d->asked_devices == 1 ? "" : "s");
    if (d->asked_devices)
        show_line("size", text);
    show_stop(&d->stop);
    show_resize_cost(&d->resize_cost);
    snprintf(text,
             sizeof text,
             "%s%s%s",
             d->to_cluster.ptr,
             d->to_node.len ? "/" : "",
             d->to_node.ptr);
    if (d->to_cluster.len)
        show_line("goes to", text);
    bool is_moved = d->row.phase == ORR_JOB_MOVED;
    snprintf(text, sizeof text, "region %.64s", d->to_region.ptr);
    if (d->to_region.len)
        show_line(is_moved ? "is in" : "goes to", text);
    snprintf(text,
             sizeof text,
             "orrery show %s --region %.300s",
             d->row.job.ptr,
             d->to_endpoints.ptr);
    if (is_moved && d->to_endpoints.len)
        show_line("ask there", text);
    snprintf(text, sizeof text, "region %.64s", d->from_region.ptr);
    if (d->from_region.len)
        show_line("came from", text);
}

/* `n` of those that the spec allows, -1: any number. */
static void retries_text(char *text, size_t cap, uint32_t n, int64_t allowed)
{
    if (allowed < 0)
        snprintf(text, cap, "%" PRIu32, n);
    else
        snprintf(text, cap, "%" PRIu32 " of %" PRId64, n, allowed);
}

/* Whose fault each was is what its retries are counted by. */
static void show_restarts(const struct orr_msg_job_detail *d,
                          const struct orr_msg_job_spec *spec)
{
    char text[160], user[40], infra[40];
    retries_text(user, sizeof user, d->user_restarts, spec->retries_user);
    retries_text(
        infra, sizeof infra, d->restarts - d->user_restarts, spec->retries_infra);
    snprintf(text,
             sizeof text,
             "%" PRIu64 ", restarts %" PRIu32 " (user %s, infra %s)",
             d->row.generation,
             d->restarts,
             user,
             infra);
    show_line("generation", text);
}

static void show_detail(const struct orr_msg_job_detail *d,
                        const struct orr_msg_job_spec *spec)
{
    char text[160];
    show_line("job", d->row.job.ptr);
    show_line("name", d->row.name.ptr);
    show_line("project", d->row.project.ptr);
    show_line("owner", d->owner.ptr);
    show_line("tier", orr_tier_name(d->row.tier));
    show_line("phase", orr_job_phase_name(d->row.phase));
    show_line("reason", d->row.reason.ptr);
    show_line("cluster", d->row.cluster.ptr);
    snprintf(text,
             sizeof text,
             "%" PRIu32 " ranks on %" PRIu32 " devices (asked for %" PRIu32 "..%" PRIu32
             ")",
             d->row.world,
             d->row.gpus,
             spec->gpus_min,
             spec->gpus_max);
    show_line("size", text);
    show_shards(d, spec);
    show_restarts(d, spec);
    show_command(spec);
    show_line("workdir", spec->workdir.ptr);
    show_time("submitted", d->row.submitted_unix_ms);
    show_time("changed", d->row.changed_unix_ms);
    if (orr_job_phase_is_final(d->row.phase)) {
        snprintf(text, sizeof text, "%" PRId64, d->row.exit_code);
        if (d->signal)
            snprintf(text,
                     sizeof text,
                     "signal %" PRIu32 " (%s)",
                     d->signal,
                     strsignal((int)d->signal));
        show_line("exit", text);
    }
    if (d->culprit >= 0) {
        snprintf(text,
                 sizeof text,
                 "rank %" PRId64 " on %.64s",
                 d->culprit,
                 d->culprit_node.len ? d->culprit_node.ptr : "an unknown node");
        show_line("culprit", text);
    }
    show_orders(d);
    show_ranks(d);
    if (d->checkpoints.n) {
        printf("\n");
        orri_checkpoint_table(&d->checkpoints);
    }
    if (d->stderr_tail.len)
        printf("\nits last words on stderr:\n%.*s%s",
               ORR_STR_ARGS(d->stderr_tail),
               d->stderr_tail.ptr[d->stderr_tail.len - 1] == '\n' ? "" : "\n");
}

/* The spec is bytes on the wire and an object in JSON. */
static void print_detail_json(const struct orr_msg_job_detail *d,
                              const struct orr_msg_job_spec *spec)
{
    static const char hole[] = "\"spec\":\"\"";
    struct orr_msg_job_detail bare = *d;
    bare.spec = (struct orr_bytes){NULL, 0};
    char *outer = orri_json(&orr_msg_desc_job_detail()->body, &bare);
    char *inner = orri_json(&orr_msg_desc_job_spec()->body, spec);
    char *at = outer ? strstr(outer, hole) : NULL;
    if (at && inner)
        printf(
            "%.*s\"spec\":%s%s\n", (int)(at - outer), outer, inner, at + strlen(hole));
    free(outer);
    free(inner);
}

int orri_verb_show(struct orri_cli *cli)
{
    struct orr_error err;
    struct orr_answer answer;
    struct orr_msg_job_spec *spec = NULL;
    struct orr_msg_job_show msg = {.job = orr_str(cli->args[0])};
    enum orr_err rc = orri_cli_locate(cli, &err);
    if (rc == ORR_OK)
        rc = orri_cli_ask(
            cli, NULL, orr_msg_desc_job_show(), &msg, ASK_MS, &answer, &err);
    const struct orr_msg_job_detail *d = rc == ORR_OK ? answer.msg : NULL;
    if (rc == ORR_OK)
        rc = decode_spec(d->spec, &spec, &err);
    if (rc != ORR_OK)
        return orri_cli_fail(cli, &err);
    if (cli->format == FORMAT_TABLE)
        show_detail(d, spec);
    else
        print_detail_json(d, spec);
    free(spec);
    return EXIT_OK;
}
