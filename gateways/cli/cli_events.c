/* SPDX-License-Identifier: Apache-2.0
 * cli_events.c - events: what the region still keeps, and with -f what follows, each
 * once and in order.
 *
 * Subscribe, then replay, then follow.  A line is printed only when its seq is the next
 * one.  One that is ahead, or a heartbeat that is, means that something was missed: it
 * is fetched by a replay, so that joining needs no other rule.  What the region no
 * longer keeps is reported as a gap, never passed over.
 */
#include "cli.h"

#include <inttypes.h>
#include <zmq.h>

enum {
    ASK_MS = 5000,
    SLICE_MS = 100,
    SILENCE_MS = 3000, /* heartbeats come each second */
    LOST_MS = 60000,
    LINE_BYTES_MAX = 64 << 10,
};

static const char events_path[] = "/edge/events";

struct stream {
    struct orri_cli *cli; /* borrowed: the verb's */
    uint64_t epoch;
    uint64_t seq; /* of the last line printed; 0: none */
    bool is_started;
    size_t count;
    char endpoint[256]; /* that sub is connected to */
    void *context;      /* owned */
    void *sub;          /* owned */
};

static void print_line(struct stream *s, const char *line)
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

/* Lines of one answer: skip what is known, report what is gone. */
static void take_lines(struct stream *s, const struct orr_msg_events *page)
{
    const char *at = (const char *)page->jsonl.ptr, *end = at + page->jsonl.len;
    if (s->is_started && page->first_seq > s->seq + 1) {
        fflush(stdout);
        fprintf(stderr,
                "orrery events: gap: %" PRIu64 "..%" PRIu64
                " are no longer kept; `orrery ps -a` shows how things stand\n",
                s->seq + 1,
                page->first_seq - 1);
    }
    if (page->first_seq > s->seq + 1)
        s->seq = page->first_seq - 1;
    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t len = newline ? (size_t)(newline - at) : (size_t)(end - at);
        char *line = strndup(at, len);
        uint64_t seq;
        if (line && orri_json_u64(line, "seq", &seq) && seq == s->seq + 1) {
            print_line(s, line);
            s->seq = seq;
        }
        free(line);
        at += len + 1;
    }
    s->is_started = true;
}

/* Everything after s->seq that the region keeps. */
static enum orr_err replay(struct stream *s, struct orr_error *err)
{
    for (;;) {
        struct orr_answer answer;
        struct orr_msg_events_get msg = {.epoch = s->epoch, .after = s->seq};
        enum orr_err rc = orri_cli_ask(
            s->cli, events_path, orr_msg_desc_events_get(), &msg, ASK_MS, &answer, err);
        if (rc == ORR_ESTALE &&
            s->epoch) { /* the region started anew: so do its numbers */
            fflush(stdout);
            fprintf(stderr, "orrery events: the region started anew\n");
            s->epoch = 0;
            s->seq = 0;
            s->is_started = false;
            continue;
        }
        if (rc != ORR_OK)
            return rc;
        const struct orr_msg_events *page = answer.msg;
        uint64_t before = s->seq;
        s->epoch = page->epoch;
        take_lines(s, page);
        fflush(stdout);
        if (s->seq >= page->last_seq || s->seq == before)
            return ORR_OK;
    }
}

/* The stream of whoever leads now; every host of the region publishes the same. */
static enum orr_err
find_stream(struct stream *s, char endpoint[256], struct orr_error *err)
{
    struct orr_answer answer;
    enum orr_err rc = orri_cli_ask(s->cli,
                                   NULL,
                                   orr_msg_desc_region_info_get(),
                                   &(struct orr_msg_region_info_get){0},
                                   ASK_MS,
                                   &answer,
                                   err);
    if (rc == ORR_OK)
        orr_str_copy(
            endpoint, 256, ((const struct orr_msg_region_info *)answer.msg)->events);
    return rc;
}

static enum orr_err connect_stream(struct stream *s, struct orr_error *err)
{
    if (zmq_connect(s->sub, s->endpoint) != 0)
        return orr_fail(err,
                        ORR_EUNREACH,
                        "events: cannot connect to %s: %s",
                        s->endpoint,
                        zmq_strerror(zmq_errno()));
    return ORR_OK;
}

static enum orr_err subscribe(struct stream *s, struct orr_error *err)
{
    int linger_ms = 0, hwm = 100000;
    int64_t max_bytes = LINE_BYTES_MAX;
    s->context = zmq_ctx_new();
    s->sub = s->context ? zmq_socket(s->context, ZMQ_SUB) : NULL;
    if (!s->sub)
        return orr_fail(err, ORR_ENOMEM, "events: no memory for a socket");
    zmq_setsockopt(s->sub, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
    zmq_setsockopt(s->sub, ZMQ_RCVHWM, &hwm, sizeof hwm);
    zmq_setsockopt(s->sub, ZMQ_MAXMSGSIZE, &max_bytes, sizeof max_bytes);
    zmq_setsockopt(s->sub, ZMQ_SUBSCRIBE, "", 0);
    return connect_stream(s, err);
}

/* Nothing was heard: does another host lead, and did we miss anything? */
static enum orr_err look_again(struct stream *s, struct orr_error *err)
{
    char endpoint[256];
    enum orr_err rc = find_stream(s, endpoint, err);
    if (rc != ORR_OK)
        return rc;
    if (strcmp(endpoint, s->endpoint) != 0) {
        zmq_disconnect(s->sub, s->endpoint);
        snprintf(s->endpoint, sizeof s->endpoint, "%s", endpoint);
        rc = connect_stream(s, err);
    }
    return rc == ORR_OK ? replay(s, err) : rc;
}

/* One message, both frames; false when none came within SLICE_MS. */
static bool receive_line(struct stream *s, char *line, size_t cap)
{
    zmq_pollitem_t item = {s->sub, 0, ZMQ_POLLIN, 0};
    int len = -1, more = 1;
    size_t more_size = sizeof more;
    if (zmq_poll(&item, 1, SLICE_MS) <= 0)
        return false;
    for (int frame = 0; more; frame++) {
        int n = zmq_recv(s->sub, line, cap - 1, ZMQ_DONTWAIT);
        if (n < 0)
            return false;
        len = frame == 1 ? n : len;
        if (zmq_getsockopt(s->sub, ZMQ_RCVMORE, &more, &more_size) != 0)
            return false;
    }
    if (len < 0 || (size_t)len >= cap)
        return false;
    line[len] = '\0';
    return true;
}

/* Print it when it is the next one; otherwise let a replay put things in order. */
static enum orr_err take_live(struct stream *s, const char *line, struct orr_error *err)
{
    char type[64];
    uint64_t seq, epoch;
    if (!orri_json_u64(line, "seq", &seq) || !orri_json_u64(line, "epoch", &epoch))
        return ORR_OK; /* not an event: nothing that we could have missed */
    orri_json_text(line, "type", type, sizeof type);
    bool is_heartbeat = strcmp(type, "heartbeat") == 0;
    if (epoch == 0 || (epoch == s->epoch && seq <= s->seq))
        return ORR_OK;
    if (epoch == s->epoch && seq == s->seq + 1 && !is_heartbeat) {
        print_line(s, line);
        fflush(stdout);
        s->seq = seq;
        return ORR_OK;
    }
    return replay(s, err);
}

static enum orr_err follow(struct stream *s, struct orr_error *err)
{
    char *line = malloc(LINE_BYTES_MAX);
    uint64_t heard_ms = orri_cli_now_ms(), asked_ms = heard_ms;
    enum orr_err rc =
        line ? ORR_OK : orr_fail(err, ORR_ENOMEM, "events: out of memory");
    while (rc == ORR_OK && !orri_cli_interrupts()) {
        uint64_t now_ms = orri_cli_now_ms();
        orri_cli_check_reader();
        if (receive_line(s, line, LINE_BYTES_MAX)) {
            heard_ms = asked_ms = now_ms;
            rc = take_live(s, line, err);
        } else if (now_ms - asked_ms > SILENCE_MS) {
            asked_ms = now_ms;
            rc = look_again(s, err);
            if (rc == ORR_OK)
                heard_ms = now_ms;
        }
        /* A region that is away for a moment comes back. */
        if ((rc == ORR_EUNREACH || rc == ORR_ETIMEOUT || rc == ORR_EGONE ||
             rc == ORR_EBUSY) &&
            now_ms - heard_ms < LOST_MS)
            rc = ORR_OK;
    }
    free(line);
    return rc;
}

int orri_verb_events(struct orri_cli *cli)
{
    struct orr_error err;
    struct stream s = {.cli = cli};
    enum orr_err rc = orri_cli_locate(cli, &err);
    if (rc == ORR_OK)
        rc = find_stream(&s, s.endpoint, &err);
    if (rc == ORR_OK && cli->value[OPT_FOLLOW])
        rc = subscribe(&s, &err);
    if (rc == ORR_OK)
        rc = replay(&s, &err);
    if (rc == ORR_OK && cli->value[OPT_FOLLOW])
        rc = follow(&s, &err);
    if (rc == ORR_OK)
        orri_json_end(cli->format, s.count);
    if (s.sub)
        zmq_close(s.sub);
    if (s.context)
        zmq_ctx_term(s.context);
    if (rc != ORR_OK)
        return orri_cli_fail(cli, &err);
    return orri_cli_interrupts() ? EXIT_INTERRUPTED : EXIT_OK;
}
