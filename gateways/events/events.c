/* SPDX-License-Identifier: Apache-2.0
 * events.c - the lines that are kept: see events.h.
 *
 * A ring of pointers; seq n is at n % kept_max.  A line is freed when it is pushed out,
 * by count or by bytes.  The kept seqs are always contiguous: a hole would lie, so what
 * comes before one is forgotten, and whoever wants it learns that it is gone.
 */
#include "events.h"

#include <inttypes.h>
#include <time.h>

enum { LINE_MAX_BYTES = 16 << 10 };

struct line {
    char *text; /* owned: the line with its newline, then the topic */
    uint32_t len;
    uint32_t topic_len;
};

struct orr_events {
    struct line *ring; /* owned: kept_max entries */
    uint32_t kept_max;
    size_t kept_bytes;
    size_t kept_bytes_max;
    uint64_t epoch;
    uint64_t first_seq; /* oldest kept */
    uint64_t last_seq;
};

enum orr_err orr_events_new(uint32_t kept_max,
                            size_t kept_bytes_max,
                            struct orr_events **ret_events,
                            struct orr_error *err)
{
    struct orr_events *e = calloc(1, sizeof *e);
    if (e)
        *e = (struct orr_events){.ring = calloc(kept_max, sizeof *e->ring),
                                 .kept_max = kept_max,
                                 .kept_bytes_max = kept_bytes_max,
                                 .first_seq = 1};
    if (!e || !e->ring) {
        free(e);
        return orr_fail(err, ORR_ENOMEM, "events: no memory for %u lines", kept_max);
    }
    *ret_events = e;
    return ORR_OK;
}

static void drop_oldest(struct orr_events *e)
{
    struct line *l = &e->ring[e->first_seq % e->kept_max];
    e->kept_bytes -= l->len + l->topic_len;
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
    forget_all(e);
    free(e->ring);
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

static void keep(struct orr_events *e,
                 uint64_t seq,
                 const char *line,
                 size_t len,
                 const char *topic,
                 size_t topic_len)
{
    size_t bytes = len + topic_len;
    char *copy = malloc(bytes);
    if (seq != e->last_seq + 1 || !copy) { /* a hole would lie: start over after it */
        forget_all(e);
        e->first_seq = copy ? seq : seq + 1;
    }
    e->last_seq = seq;
    if (!copy)
        return;
    memcpy(copy, line, len);
    memcpy(copy + len, topic, topic_len);
    while (e->first_seq < seq && (seq - e->first_seq >= e->kept_max ||
                                  e->kept_bytes + bytes > e->kept_bytes_max))
        drop_oldest(e);
    e->ring[seq % e->kept_max] =
        (struct line){copy, (uint32_t)len, (uint32_t)topic_len};
    e->kept_bytes += bytes;
}

bool orr_events_publish(struct orr_events *e, const struct orr_msg_event *event)
{
    char line[LINE_MAX_BYTES], topic[ORR_EVENTS_TOPIC_MAX];
    if (event->epoch == e->epoch && event->seq <= e->last_seq)
        return false; /* a region that restarted sends again what it retained */
    size_t len = format_line(event, line, sizeof line);
    if (len >= sizeof line) { /* texts are bounded far below this by the region */
        struct orr_msg_event cut = *event;
        cut.cause = ORR_LIT("(too long)");
        cut.principal = ORR_LIT("(too long)");
        len = format_line(&cut, line, sizeof line);
        if (len >= sizeof line)
            return false;
    }
    if (event->epoch != e->epoch) {
        forget_all(e);
        e->epoch = event->epoch;
        e->first_seq = event->seq;
        e->last_seq = event->seq - 1;
    }
    int n = snprintf(topic,
                     sizeof topic,
                     "%.*s/%.*s/",
                     ORR_STR_ARGS(event->subject),
                     ORR_STR_ARGS(event->type));
    line[len] = '\n';
    keep(e,
         event->seq,
         line,
         len + 1,
         topic,
         (size_t)n < sizeof topic ? (size_t)n : sizeof topic - 1);
    return true;
}

struct orr_events_page orr_events_replay(const struct orr_events *e,
                                         uint64_t after,
                                         uint32_t limit,
                                         struct orr_str topic,
                                         char *buf,
                                         size_t cap)
{
    struct orr_events_page page = {.epoch = e->epoch,
                                   .first_seq = e->first_seq,
                                   .last_seq = e->last_seq,
                                   .through = after};
    if (after >= e->last_seq)
        return page;
    if (page.through + 1 < e->first_seq)
        page.through = e->first_seq - 1;
    for (; page.through < e->last_seq; page.through++) {
        const struct line *l = &e->ring[(page.through + 1) % e->kept_max];
        if (l->topic_len < topic.len ||
            (topic.len && memcmp(l->text + l->len, topic.ptr, topic.len) != 0))
            continue;
        if (limit == 0 || page.len + l->len > cap)
            break;
        memcpy(buf + page.len, l->text, l->len);
        page.len += l->len;
        limit--;
    }
    return page;
}
