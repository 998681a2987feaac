/* SPDX-License-Identifier: Apache-2.0
 * cli_events.c - events: what the region still keeps, and with -f what follows, each
 * once and in order; with --jobs a snapshot first.
 *
 * Where to follow from is asked for before the snapshot is, so nothing falls between
 * them: an event may tell again what the snapshot shows already, none is left out.  What
 * was missed is printed where it is missing, and with --jobs a snapshot stands in for
 * it.
 */
#include "cli.h"

#include "orrery/follow.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>

enum { ASK_MS = 5000, SLICE_MS = 100, LOST_MS = 60000, LIST_PAGE = 500 };

static const char events_path[] = "/edge/events";

struct stream {
    struct orri_cli *cli;          /* borrowed: the verb's */
    struct orr_follower *follower; /* owned */
    size_t count;                  /* of what was printed */
    char topic[ORR_JOB_ID_MAX + 8];
    char endpoints[ORR_REGION_HOSTS_MAX * sizeof(struct orri_endpoint)];
};

static void print_event(struct stream *s, const char *line)
{
    char time[40], subject[128], type[64], from[32], to[32], cause[256];
    if (s->cli->format != FORMAT_TABLE) {
        orri_json_item(s->cli->format, &s->count, line);
        return;
    }
    orri_json_text(line, "time", time, sizeof time);
    orri_json_text(line, "subject", subject, sizeof subject);
    orri_json_text(line, "type", type, sizeof type);
    orri_json_text(line, "from", from, sizeof from);
    orri_json_text(line, "to", to, sizeof to);
    orri_json_text(line, "cause", cause, sizeof cause);
    printf("%s  %-16s  %-13s  %s%s%s%s%s\n",
           time,
           subject,
           type,
           from,
           from[0] ? " -> " : "",
           to,
           cause[0] ? "  " : "",
           cause);
}

/* ---- what was missed ---- */

static const char *notice_type(enum orr_follow_kind kind)
{
    switch (kind) {
    case ORR_FOLLOW_COMPACTED:
        return "compacted";
    case ORR_FOLLOW_OVERRUN:
        return "overrun";
    case ORR_FOLLOW_EPOCH:
        return "epoch";
    case ORR_FOLLOW_EVENT:
        break;
    }
    return "?";
}

static void print_notice(struct stream *s, const struct orr_follow_item *item)
{
    char line[160];
    const char *type = notice_type(item->kind);
    if (s->cli->format != FORMAT_TABLE) {
        snprintf(line,
                 sizeof line,
                 "{\"type\":\"%s\",\"epoch\":%" PRIu64 ",\"first\":%" PRIu64
                 ",\"last\":%" PRIu64 "}",
                 type,
                 item->epoch,
                 item->first,
                 item->last);
        orri_json_item(s->cli->format, &s->count, line);
        return;
    }
    fflush(stdout);
    if (item->kind == ORR_FOLLOW_EPOCH)
        fprintf(stderr,
                "orrery events: epoch: the region started anew, its events count from "
                "1 again\n");
    else
        fprintf(stderr,
                "orrery events: %s: %" PRIu64 "..%" PRIu64
                " are no longer kept; `orrery ps -a` shows how things stand\n",
                type,
                item->first,
                item->last);
}

/* ---- snapshots ---- */

static void print_row(struct stream *s, const struct orr_rec_job_row *row)
{
    char *line = NULL;
    if (s->cli->format == FORMAT_TABLE) {
        printf("%-24s  job/%-12.*s  %-13s  %s\n",
               "",
               ORR_STR_ARGS(row->job),
               "snapshot",
               orr_job_phase_name(row->phase));
        return;
    }
    char *json = orri_json(orr_rec_desc_job_row(), row);
    if (json && asprintf(&line, "{\"type\":\"snapshot\",%s", json + 1) < 0)
        line = NULL;
    orri_json_item(s->cli->format, &s->count, line);
    free(line);
    free(json);
}

static enum orr_err print_jobs(struct stream *s, struct orr_error *err)
{
    char after[ORR_JOB_ID_MAX] = "";
    for (bool more = true; more;) {
        struct orr_answer answer;
        const struct orr_msg_job_list list = {.after = orr_str(after),
                                              .limit = LIST_PAGE};
        enum orr_err rc = orri_cli_ask(
            s->cli, NULL, orr_msg_desc_job_list(), &list, ASK_MS, &answer, err);
        if (rc != ORR_OK)
            return rc;
        const struct orr_msg_job_rows *rows = answer.msg;
        for (uint32_t i = 0; i < rows->jobs.n; i++) {
            print_row(s, &rows->jobs.at[i]);
            orr_str_copy(after, sizeof after, rows->jobs.at[i].job);
        }
        more = rows->more && rows->jobs.n;
    }
    return ORR_OK;
}

/* ---- the verb ---- */

static enum orr_err
parse_after(const struct orri_cli *cli, uint64_t *ret_after, struct orr_error *err)
{
    const char *text = cli->value[OPT_AFTER];
    char *end = NULL;
    errno = 0;
    *ret_after = text ? strtoull(text, &end, 10) : 0;
    if (text && (!isdigit((unsigned char)*text) || *end || errno))
        return orr_fail(err,
                        ORR_EINVAL,
                        "--after: expected the seq of an event, got `%.40s`",
                        text);
    return ORR_OK;
}

/* --jobs follows from the end of the stream as it is before the snapshot is taken. */
static enum orr_err
find_end(struct stream *s, struct orr_follow_config *config, struct orr_error *err)
{
    struct orr_answer answer;
    const struct orr_msg_events_get msg = {.after = UINT64_MAX};
    enum orr_err rc = orri_cli_ask(
        s->cli, events_path, orr_msg_desc_events_get(), &msg, ASK_MS, &answer, err);
    if (rc != ORR_OK)
        return rc;
    const struct orr_msg_events *page = answer.msg;
    if (s->cli->value[OPT_JOBS] && !s->cli->value[OPT_AFTER]) {
        config->epoch = page->epoch;
        config->after = page->last_seq;
    }
    return ORR_OK;
}

/* All hosts of the region, first the one that answered. */
static void list_endpoints(struct stream *s)
{
    const struct orri_cli *cli = s->cli;
    for (unsigned i = 0; i < cli->n_endpoints; i++) {
        const char *text = cli->endpoints[(cli->at + i) % cli->n_endpoints].text;
        size_t len = strlen(s->endpoints);
        snprintf(s->endpoints + len,
                 sizeof s->endpoints - len,
                 "%s%s",
                 len ? "," : "",
                 text);
    }
}

static enum orr_err open_stream(struct stream *s, struct orr_error *err)
{
    struct orri_cli *cli = s->cli;
    struct orr_follow_config config = {.endpoints = s->endpoints,
                                       .topic = s->topic,
                                       .lost_ms =
                                           cli->value[OPT_FOLLOW] ? LOST_MS : ASK_MS};
    enum orr_err rc = parse_after(cli, &config.after, err);
    if (rc == ORR_OK && cli->n_args)
        snprintf(s->topic, sizeof s->topic, "job/%.*s/", ORR_JOB_ID_MAX, cli->args[0]);
    if (rc == ORR_OK)
        rc = orri_cli_locate(cli, err);
    if (rc == ORR_OK) /* also says at once when there is nobody to follow */
        rc = find_end(s, &config, err);
    if (rc == ORR_OK && cli->value[OPT_JOBS])
        rc = print_jobs(s, err);
    if (rc == ORR_OK)
        list_endpoints(s);
    return rc == ORR_OK ? orr_follower_new(&config, &s->follower, err) : rc;
}

static enum orr_err
take_item(struct stream *s, const struct orr_follow_item *item, struct orr_error *err)
{
    if (item->kind == ORR_FOLLOW_EVENT) {
        char *line = strndup(item->line.ptr, item->line.len);
        if (!line)
            return orr_fail(err, ORR_ENOMEM, "events: out of memory");
        print_event(s, line);
        free(line);
        return ORR_OK;
    }
    print_notice(s, item);
    return s->cli->value[OPT_JOBS] ? print_jobs(s, err) : ORR_OK;
}

static enum orr_err follow(struct stream *s, struct orr_error *err)
{
    bool is_endless = s->cli->value[OPT_FOLLOW] != NULL;
    enum orr_err rc = ORR_OK;
    while (rc == ORR_OK && !orri_cli_interrupts()) {
        struct orr_follow_item item;
        rc = orr_follower_next(s->follower, 0, &item, err);
        if (rc ==
            ORR_ETIMEOUT) { /* nothing to read: let the reader see what there is */
            fflush(stdout);
            orri_cli_check_reader();
            if (!is_endless && orr_follower_is_current(s->follower))
                return ORR_OK;
            rc = orr_follower_next(s->follower, SLICE_MS, &item, err);
        }
        if (rc == ORR_OK)
            rc = take_item(s, &item, err);
        if (rc == ORR_ETIMEOUT || rc == ORR_EPROTO) /* another host is asked */
            rc = ORR_OK;
    }
    return rc;
}

int orri_verb_events(struct orri_cli *cli)
{
    struct orr_error err;
    struct stream s = {.cli = cli};
    enum orr_err rc = open_stream(&s, &err);
    if (rc == ORR_OK)
        rc = follow(&s, &err);
    orr_follower_free(s.follower);
    fflush(stdout);
    if (rc != ORR_OK)
        return orri_cli_fail(cli, &err);
    orri_json_end(cli->format, s.count);
    return orri_cli_interrupts() ? EXIT_INTERRUPTED : EXIT_OK;
}
