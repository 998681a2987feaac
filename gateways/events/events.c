/* SPDX-License-Identifier: Apache-2.0
 * events.c - the event stream: see events.h.
 *
 * The PUB socket belongs to the actor: its handlers never run at the same time, so no
 * lock is needed.  Lines are kept in a ring of pointers; a line is freed when it is
 * pushed out, by count or by bytes.
 */
#include "events.h"

#include <errno.h>
#include <inttypes.h>
#include <time.h>
#include <zmq.h>

enum {
    LINE_MAX_BYTES = 16 << 10,
    SUBSCRIBER_QUEUE_MAX = 100000,
    TOPIC_BYTES_MAX = 1024, /* all that a subscriber may send is a topic */
    HANDSHAKE_MS = 5000,
    REPLAY_BYTES_MAX = 512 << 10
};

struct line {
    char *text; /* owned */
    uint32_t len;
};

struct orr_events {
    void *context;     /* owned */
    void *pub;         /* owned */
    struct line *ring; /* owned: kept_max entries; seq n is at n % kept_max */
    uint32_t kept_max;
    size_t kept_bytes;
    size_t kept_bytes_max;
    uint64_t epoch;
    uint64_t first_seq; /* oldest kept */
    uint64_t last_seq;
};

enum orr_err orr_events_new(const char *endpoint,
                            uint32_t kept_max,
                            size_t kept_bytes_max,
                            struct orr_events **ret_events,
                            struct orr_error *err)
{
    struct orr_events *e = calloc(1, sizeof *e);
    int hwm = SUBSCRIBER_QUEUE_MAX, linger_ms = 200, handshake_ms = HANDSHAKE_MS;
    int64_t topic_max = TOPIC_BYTES_MAX;
    if (!e)
        return orr_fail(err, ORR_ENOMEM, "events: out of memory");
    *e = (struct orr_events){
        .kept_max = kept_max, .kept_bytes_max = kept_bytes_max, .first_seq = 1};
    e->ring = calloc(kept_max, sizeof *e->ring);
    e->context = zmq_ctx_new();
    e->pub = e->context ? zmq_socket(e->context, ZMQ_PUB) : NULL;
    if (!e->ring || !e->pub) {
        orr_events_free(e);
        return orr_fail(err, ORR_ENOMEM, "events: out of memory or sockets");
    }
    zmq_setsockopt(e->pub, ZMQ_SNDHWM, &hwm, sizeof hwm);
    zmq_setsockopt(e->pub, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
    zmq_setsockopt(e->pub, ZMQ_HANDSHAKE_IVL, &handshake_ms, sizeof handshake_ms);
    zmq_setsockopt(e->pub,
                   ZMQ_MAXMSGSIZE,
                   &topic_max,
                   sizeof topic_max); /* checked before libzmq allocates */
    if (zmq_bind(e->pub, endpoint) != 0) {
        int why = errno;
        orr_events_free(e);
        return orr_fail(err,
                        ORR_EIO,
                        "events: cannot listen on %s: %s; choose another `events:`",
                        endpoint,
                        zmq_strerror(why));
    }
    *ret_events = e;
    return ORR_OK;
}

static void drop_oldest(struct orr_events *e)
{
    struct line *l = &e->ring[e->first_seq % e->kept_max];
    e->kept_bytes -= l->len;
    free(l->text);
    *l = (struct line){0};
    e->first_seq++;
}

static void forget_all(struct orr_events *e)
{
    while (e->first_seq <= e->last_seq)
        drop_oldest(e);
}

void orr_events_free(struct orr_events *e)
{
    if (!e)
        return;
    if (e->ring)
        forget_all(e);
    free(e->ring);
    if (e->pub)
        zmq_close(e->pub);
    if (e->context)
        zmq_ctx_term(e->context);
    free(e);
}

/* The event as a CloudEvent on one line; its full length, cut at cap. */
static size_t format_line(const struct orr_msg_event *event, char *buf, size_t cap)
{
    char stamp[32];
    time_t seconds = (time_t)(event->time_unix_ms / 1000);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
    int head = snprintf(buf,
                        cap,
                        "{\"specversion\":\"1.0\",\"time\":\"%s.%03uZ\",",
                        stamp,
                        (unsigned)(event->time_unix_ms % 1000));
    char fields[LINE_MAX_BYTES];
    size_t n = orr_msg_json(orr_msg_desc_event(), event, fields, sizeof fields);
    if (n >= sizeof fields || (size_t)head + n >= cap)
        return cap;
    memcpy(buf + head, fields + 1, n); /* without its '{', with its NUL */
    return (size_t)head + n - 1;
}

static void keep(struct orr_events *e, uint64_t seq, const char *line, size_t len)
{
    char *copy = malloc(len);
    if (seq != e->last_seq + 1 || !copy) { /* a hole would lie: start over after it */
        forget_all(e);
        e->first_seq = copy ? seq : seq + 1;
    }
    e->last_seq = seq;
    if (!copy)
        return;
    memcpy(copy, line, len);
    while (e->first_seq < seq && (seq - e->first_seq >= e->kept_max ||
                                  e->kept_bytes + len > e->kept_bytes_max))
        drop_oldest(e);
    e->ring[seq % e->kept_max] = (struct line){copy, (uint32_t)len};
    e->kept_bytes += len;
}

static void send_line(struct orr_events *e,
                      const struct orr_msg_event *event,
                      const char *line,
                      size_t len)
{
    char topic[512];
    int n = snprintf(topic,
                     sizeof topic,
                     "e%" PRIu64 "%.*s/%.*s/%.*s/",
                     event->epoch,
                     ORR_STR_ARGS(event->source),
                     ORR_STR_ARGS(event->subject),
                     ORR_STR_ARGS(event->type));
    size_t topic_len = n < (int)sizeof topic ? (size_t)n : sizeof topic - 1;
    if (zmq_send(e->pub, topic, topic_len, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0)
        zmq_send(e->pub, line, len, ZMQ_DONTWAIT);
}

void orr_events_publish(struct orr_events *e, const struct orr_msg_event *event)
{
    char line[LINE_MAX_BYTES];
    size_t len = format_line(event, line, sizeof line);
    if (len >= sizeof line) { /* texts are bounded far below this by the region */
        struct orr_msg_event cut = *event;
        cut.cause = ORR_LIT("(too long)");
        cut.principal = ORR_LIT("(too long)");
        len = format_line(&cut, line, sizeof line);
        if (len >= sizeof line)
            return;
    }
    if (event->epoch != e->epoch) {
        forget_all(e);
        e->epoch = event->epoch;
        e->first_seq = event->seq;
        e->last_seq = event->seq - 1;
    }
    line[len] = '\n';
    keep(e, event->seq, line, len + 1);
    send_line(e, event, line, len);
}

struct orr_events_page orr_events_replay(
    const struct orr_events *e, uint64_t after, uint32_t limit, char *buf, size_t cap)
{
    struct orr_events_page page = {
        .epoch = e->epoch, .first_seq = e->first_seq, .last_seq = e->last_seq};
    uint64_t seq = after + 1 > e->first_seq ? after + 1 : e->first_seq;
    for (; seq <= e->last_seq && limit > 0; seq++, limit--) {
        const struct line *l = &e->ring[seq % e->kept_max];
        if (page.len + l->len > cap)
            break;
        memcpy(buf + page.len, l->text, l->len);
        page.len += l->len;
    }
    return page;
}

/* ---- the actor ---- */

struct events {
    struct orr_events *stream; /* borrowed: of the host */
    const char *source;        /* borrowed: of the host */
    uint64_t heartbeat_ms;
};

ORR_HANDLER(events, event)
ORR_HANDLER(events, events_get)
ORR_HANDLER(events, timer)

static enum orr_err events_init(struct orr_ctx *ctx, void *state, const void *args)
{
    const struct orr_events_args *a = args;
    struct events *self = state;
    *self = (struct events){a->events, a->source, a->heartbeat_ms};
    orr_timer_set(ctx, 0, self->heartbeat_ms, 0);
    return ORR_OK;
}

static enum orr_err events_on_event(struct orr_ctx *ctx,
                                    struct events *self,
                                    const struct orr_msg_event *msg)
{
    (void)ctx;
    orr_events_publish(self->stream, msg);
    return ORR_OK;
}

static enum orr_err events_on_events_get(struct orr_ctx *ctx,
                                         struct events *self,
                                         const struct orr_msg_events_get *msg)
{
    if (msg->epoch && msg->epoch != self->stream->epoch)
        return orr_refuse(ctx,
                          ORR_ESTALE,
                          "events: epoch %" PRIu64
                          " is over, the current one is %" PRIu64
                          "; take a snapshot and follow from there",
                          msg->epoch,
                          self->stream->epoch);
    char *buf = malloc(REPLAY_BYTES_MAX);
    if (!buf)
        return orr_refuse(
            ctx, ORR_ENOMEM, "events: out of memory for a replay; try again");
    struct orr_events_page page =
        orr_events_replay(self->stream,
                          msg->after,
                          msg->limit ? msg->limit : UINT32_MAX,
                          buf,
                          REPLAY_BYTES_MAX);
    orr_reply(ctx,
              events,
              .epoch = page.epoch,
              .first_seq = page.first_seq,
              .last_seq = page.last_seq,
              .jsonl = {(const uint8_t *)buf, (uint32_t)page.len});
    free(buf);
    return ORR_OK;
}

/* A heartbeat has the last seq and takes none of its own; it is not kept. */
static enum orr_err events_on_timer(struct orr_ctx *ctx,
                                    struct events *self,
                                    const struct orr_msg_timer *msg)
{
    (void)msg;
    char line[LINE_MAX_BYTES];
    struct orr_msg_event beat = {.epoch = self->stream->epoch,
                                 .seq = self->stream->last_seq,
                                 .id = ORR_LIT("heartbeat"),
                                 .source = orr_str(self->source),
                                 .type = ORR_LIT("heartbeat"),
                                 .subject = ORR_LIT("stream"),
                                 .time_unix_ms = ctx->wall_ms};
    size_t len = format_line(&beat, line, sizeof line);
    if (len < sizeof line)
        send_line(self->stream, &beat, line, len);
    orr_timer_set(ctx, 0, self->heartbeat_ms, 0);
    return ORR_OK;
}

static const struct orr_handler handlers[] = {
    ORR_ON(events, event, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(events, events_get, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(events, timer, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};

const struct orr_actor_type orr_events_actor = {
    .name = "events",
    .state_size = sizeof(struct events),
    .args_size = sizeof(struct orr_events_args),
    .init = events_init,
    .handlers = handlers,
    .n_handlers = ORR_ARRAY_SIZE(handlers),
    .mailbox_max = 1 << 16,
};
