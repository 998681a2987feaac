/* SPDX-License-Identifier: Apache-2.0
 * follow.c - follow the events of a region from outside: see include/orrery/follow.h.
 *
 * One request is always on its way.  Its answer becomes the page, and the next request
 * leaves before the page is read.  `after` is what the pages taken account for, `seq`
 * what was given out; a new link asks for what follows `after`, so what lies in the page
 * is neither asked for again nor forgotten.
 */
#include "orrery/follow.h"

#include "transport_zmq_socket.h"

#include <inttypes.h>
#include <poll.h>
#include <sys/random.h>

enum {
    CONNECT_MS = 1000,
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 2000,
    BUSY_MS = 50,
    TOPIC_MAX = 192,
};

static const char events_path[] = "/edge/events", ledger_path[] = "/edge/ledger";

struct orr_follower {
    char endpoints[ORR_FOLLOW_HOSTS_MAX][ORR_ENDPOINT_MAX];
    uint32_t n_endpoints, at;
    char topic[TOPIC_MAX];
    uint64_t epoch;
    uint64_t after;
    uint64_t seq;
    uint64_t lost_ms;
    bool has_answer; /* ever: from then on everything that is missing is told */
    bool is_joined;  /* this link has answered */
    bool is_current; /* the page reaches the end of what its host has */

    struct orr_client *client; /* owned; NULL: no link */
    uint64_t corr;             /* of the request on its way; 0: at ask_ms */
    uint64_t ask_ms;
    uint64_t info_corr;  /* of the question for the replicas */
    uint64_t heard_ms;   /* of this link */
    uint64_t lost_at_ms; /* since when nobody answers; 0: somebody does */
    uint64_t retry_ms;
    uint32_t n_failures; /* since somebody answered */

    bool has_notice;
    struct orr_follow_item notice;
    char *page; /* owned */
    size_t page_len, page_at;
    struct orr_error why; /* of the last failure */
};

/* What does not fit is left out: there are enough to go on with. */
static enum orr_err
add_endpoint(struct orr_follower *f, struct orr_str text, struct orr_error *err)
{
    char endpoint[ORR_ENDPOINT_MAX];
    orr_str_copy(endpoint, sizeof endpoint, text);
    for (uint32_t i = 0; i < f->n_endpoints; i++) {
        if (strcmp(f->endpoints[i], endpoint) == 0)
            return ORR_OK;
    }
    enum orr_err rc = orri_endpoint_check(endpoint, false, err);
    if (rc == ORR_OK && f->n_endpoints < ORR_FOLLOW_HOSTS_MAX)
        memcpy(f->endpoints[f->n_endpoints++], endpoint, sizeof endpoint);
    return rc;
}

static enum orr_err
parse_endpoints(struct orr_follower *f, const char *at, struct orr_error *err)
{
    for (;;) {
        size_t len = strcspn(at, ",");
        enum orr_err rc = add_endpoint(f, (struct orr_str){at, (uint32_t)len}, err);
        if (rc != ORR_OK || at[len] == '\0')
            return rc;
        at += len + 1;
    }
}

enum orr_err orr_follower_new(const struct orr_follow_config *config,
                              struct orr_follower **ret_follower,
                              struct orr_error *err)
{
    const char *topic = config->topic ? config->topic : "";
    if (strlen(topic) >= TOPIC_MAX)
        return orr_fail(
            err, ORR_EINVAL, "topic: longer than %d bytes: %.40s...", TOPIC_MAX, topic);
    struct orr_follower *f = calloc(1, sizeof *f);
    if (!f)
        return orr_fail(err, ORR_ENOMEM, "events: out of memory");
    orr_str_copy(f->topic, sizeof f->topic, orr_str(topic));
    f->epoch = config->epoch;
    f->after = f->seq = config->after;
    f->lost_ms = config->lost_ms;
    enum orr_err rc = parse_endpoints(f, config->endpoints, err);
    if (rc != ORR_OK) {
        free(f);
        return rc;
    }
    *ret_follower = f;
    return ORR_OK;
}

void orr_follower_free(struct orr_follower *f)
{
    if (!f)
        return;
    orr_client_free(f->client);
    free(f->page);
    free(f);
}

bool orr_follower_is_current(const struct orr_follower *f)
{
    return f->is_current && !f->has_notice && f->page_at == f->page_len;
}

const char *orr_follower_endpoint(const struct orr_follower *f)
{
    return f->client ? f->endpoints[f->at] : "";
}

/* ---- links ---- */

/* The pause before the next try: none while there are hosts that were not tried. */
static uint64_t backoff_ms(const struct orr_follower *f)
{
    uint32_t rounds = f->n_failures / f->n_endpoints;
    uint64_t ms = BACKOFF_MAX_MS;
    uint16_t noise = 0;
    if (f->n_failures % f->n_endpoints != 0)
        return 0;
    if (rounds < 6 && (uint64_t)BACKOFF_MIN_MS << (rounds - 1) < BACKOFF_MAX_MS)
        ms = (uint64_t)BACKOFF_MIN_MS << (rounds - 1);
    (void)!getrandom(&noise, sizeof noise, 0);
    return ms / 2 + ms / 2 * noise / UINT16_MAX;
}

/* This host does not serve us: f->why says so.  On to the next. */
static void leave(struct orr_follower *f)
{
    uint64_t now_ms = orri_zmq_now_ms();
    orr_client_free(f->client);
    f->client = NULL;
    f->is_joined = f->is_current = false;
    f->at = (f->at + 1) % f->n_endpoints;
    f->n_failures++;
    f->retry_ms = now_ms + backoff_ms(f);
    if (f->lost_at_ms == 0)
        f->lost_at_ms = now_ms;
}

static void ask(struct orr_follower *f)
{
    const struct orr_msg_events_get msg = {.epoch = f->epoch,
                                           .after = f->after,
                                           .wait_ms = ORR_FOLLOW_BEAT_MS,
                                           .topic = orr_str(f->topic)};
    if (orr_client_send(f->client,
                        events_path,
                        orr_msg_desc_events_get(),
                        &msg,
                        ORR_FOLLOW_SILENCE_MS,
                        &f->corr,
                        &f->why) != ORR_OK)
        leave(f);
}

static void connect_next(struct orr_follower *f)
{
    const struct orr_msg_ledger_info_get info = {0};
    enum orr_err rc =
        orr_client_new(f->endpoints[f->at], CONNECT_MS, &f->client, &f->why);
    f->info_corr = 0;
    if (rc == ORR_OK) /* who else has this stream?  A region without replicas refuses */
        rc = orr_client_send(f->client,
                             ledger_path,
                             orr_msg_desc_ledger_info_get(),
                             &info,
                             ORR_FOLLOW_SILENCE_MS,
                             &f->info_corr,
                             &f->why);
    f->heard_ms = orri_zmq_now_ms();
    if (rc == ORR_OK)
        ask(f);
    else
        leave(f);
}

static void learn_replicas(struct orr_follower *f, const struct orr_msg_ledger_info *m)
{
    for (uint32_t i = 0; i < m->voters.n; i++)
        (void)add_endpoint(f, m->voters.at[i].endpoint, NULL);
}

/* ---- answers ---- */

static void set_notice(struct orr_follower *f,
                       enum orr_follow_kind kind,
                       uint64_t first,
                       uint64_t last)
{
    f->notice = (struct orr_follow_item){
        .kind = kind, .epoch = f->epoch, .first = first, .last = last};
    f->has_notice = true;
}

/* Take what it says; the page before it has been given out. */
static enum orr_err take_page(struct orr_follower *f, const struct orr_msg_events *m)
{
    if (m->through < f->after)
        return orr_fail(&f->why,
                        ORR_EPROTO,
                        "%s: its events go back from %" PRIu64 " to %" PRIu64,
                        f->endpoints[f->at],
                        f->after,
                        m->through);
    char *page = realloc(f->page, m->jsonl.len + 1u);
    if (!page)
        return orr_fail(&f->why, ORR_ENOMEM, "events: out of memory for a page");
    f->page = page;
    if (m->jsonl.len)
        memcpy(f->page, m->jsonl.ptr, m->jsonl.len);
    f->page[m->jsonl.len] = '\0';
    f->page_len = m->jsonl.len;
    f->page_at = 0;
    if (m->epoch)
        f->epoch = m->epoch;
    if (m->through > f->after && m->first_seq > f->after + 1) {
        if (f->has_answer || f->after > 0)
            set_notice(f,
                       f->is_joined ? ORR_FOLLOW_OVERRUN : ORR_FOLLOW_COMPACTED,
                       f->after + 1,
                       m->first_seq - 1);
        f->seq = m->first_seq - 1;
    }
    f->after = m->through;
    f->is_current = m->through >= m->last_seq;
    f->has_answer = f->is_joined = true;
    if (m->last_seq >= f->after) { /* else it is behind us: as good as silent */
        f->heard_ms = orri_zmq_now_ms();
        f->lost_at_ms = 0;
        f->n_failures = 0;
    }
    return ORR_OK;
}

static void take_failed(struct orr_follower *f, const struct orr_msg_failed *m)
{
    (void)orr_fail(&f->why,
                   m->code ? (enum orr_err)m->code : ORR_EPROTO,
                   "%.*s",
                   ORR_STR_ARGS(m->text));
    if (m->code == ORR_EBUSY &&
        f->is_joined) { /* it will be heard again, or is silent */
        f->corr = 0;
        f->ask_ms = orri_zmq_now_ms() + BUSY_MS;
        return;
    }
    if (m->code != ORR_ESTALE || f->epoch == 0) {
        leave(f);
        return;
    }
    set_notice(f, ORR_FOLLOW_EPOCH, f->seq + 1, 0);
    f->epoch = f->after = f->seq = 0;
    ask(f);
}

static void take_answer(struct orr_follower *f, const struct orr_answer *answer)
{
    if (answer->corr == f->info_corr && answer->desc->id == ORR_MSG_ledger_info) {
        learn_replicas(f, answer->msg);
        f->heard_ms = orri_zmq_now_ms();
    }
    if (answer->corr != f->corr)
        return;
    if (answer->desc->id == ORR_MSG_failed)
        take_failed(f, answer->msg);
    else if (answer->desc->id == ORR_MSG_events && take_page(f, answer->msg) == ORR_OK)
        ask(f);
    else
        leave(f);
}

/* Make progress for at most wait_ms: connect, or receive one answer. */
static void advance(struct orr_follower *f, uint64_t wait_ms)
{
    struct orr_answer answer;
    uint64_t now_ms = orri_zmq_now_ms();
    if (!f->client && now_ms < f->retry_ms) {
        uint64_t pause_ms = f->retry_ms - now_ms;
        poll(NULL, 0, (int)(pause_ms < wait_ms ? pause_ms : wait_ms));
        return;
    }
    if (!f->client)
        connect_next(f);
    else if (f->corr == 0 && now_ms >= f->ask_ms)
        ask(f);
    if (!f->client)
        return;
    if (f->corr == 0)
        wait_ms = wait_ms < BUSY_MS ? wait_ms : BUSY_MS;
    uint64_t silent_ms = orri_zmq_now_ms() - f->heard_ms;
    uint64_t left_ms =
        silent_ms < ORR_FOLLOW_SILENCE_MS ? ORR_FOLLOW_SILENCE_MS - silent_ms : 0;
    enum orr_err rc = orr_client_receive(
        f->client, wait_ms < left_ms ? wait_ms : left_ms, &answer, &f->why);
    if (rc == ORR_OK)
        take_answer(f, &answer);
    else if (rc != ORR_ETIMEOUT)
        leave(f);
    if (f->client && orri_zmq_now_ms() - f->heard_ms >= ORR_FOLLOW_SILENCE_MS) {
        (void)orr_fail(&f->why,
                       ORR_EUNREACH,
                       "%s: no event after %" PRIu64 " and no heartbeat for %d ms",
                       f->endpoints[f->at],
                       f->after,
                       ORR_FOLLOW_SILENCE_MS);
        leave(f);
    }
}

/* ---- items ---- */

static bool read_seq(const char *line, size_t len, uint64_t *ret_seq)
{
    static const char key[] = "\"seq\":"; /* in a text its quotes are escaped */
    const char *at = memmem(line, len, key, sizeof key - 1);
    if (!at)
        return false;
    *ret_seq = strtoull(at + sizeof key - 1, NULL, 10); /* the page ends in a NUL */
    return true;
}

/* A host whose lines are not in order is not believed. */
static enum orr_err
disbelieve(struct orr_follower *f, uint64_t seq, struct orr_error *err)
{
    (void)orr_fail(&f->why,
                   ORR_EPROTO,
                   "%s: event %" PRIu64 " came after %" PRIu64,
                   f->endpoints[f->at],
                   seq,
                   f->seq);
    f->page_at = f->page_len = 0;
    f->after = f->seq;
    leave(f);
    if (err)
        *err = f->why;
    return ORR_EPROTO;
}

/* The next line of the page. */
static enum orr_err next_line(struct orr_follower *f,
                              struct orr_follow_item *ret_item,
                              struct orr_error *err)
{
    const char *line = f->page + f->page_at;
    const char *newline = memchr(line, '\n', f->page_len - f->page_at);
    size_t len = newline ? (size_t)(newline - line) : 0;
    uint64_t seq = 0;
    if (!read_seq(line, len, &seq) || seq <= f->seq || seq > f->after ||
        (f->topic[0] == '\0' && seq != f->seq + 1))
        return disbelieve(f, seq, err);
    f->page_at += len + 1;
    f->seq = seq;
    *ret_item = (struct orr_follow_item){.kind = ORR_FOLLOW_EVENT,
                                         .epoch = f->epoch,
                                         .first = seq,
                                         .last = seq,
                                         .line = {line, (uint32_t)len}};
    return ORR_OK;
}

enum orr_err orr_follower_next(struct orr_follower *f,
                               uint64_t timeout_ms,
                               struct orr_follow_item *ret_item,
                               struct orr_error *err)
{
    uint64_t end_ms = orri_zmq_now_ms() + timeout_ms;
    for (;;) {
        if (f->has_notice) {
            f->has_notice = false;
            *ret_item = f->notice;
            return ORR_OK;
        }
        if (f->page_at < f->page_len)
            return next_line(f, ret_item, err);
        if (f->topic[0] == '\0' && f->seq != f->after)
            return disbelieve(f, f->after + 1, err);
        f->seq = f->after;
        uint64_t now_ms = orri_zmq_now_ms();
        advance(f, now_ms < end_ms ? end_ms - now_ms : 0);
        if (f->has_notice || f->page_at < f->page_len)
            continue;
        now_ms = orri_zmq_now_ms();
        if (f->lost_ms && f->lost_at_ms && now_ms - f->lost_at_ms > f->lost_ms)
            return orr_fail(err, ORR_EUNREACH, "%s", f->why.text);
        if (now_ms >= end_ms)
            return orr_fail(
                err, ORR_ETIMEOUT, "events: nothing new in %" PRIu64 " ms", timeout_ms);
    }
}
