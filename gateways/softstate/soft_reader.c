/* SPDX-License-Identifier: Apache-2.0
 * soft_reader.c - soft_reader.h over hiredis's blocking calls.
 *
 * SCAN with COUNT and not an index: an index would be one more thing that can be lost or
 * lie, its members would not expire with the rows, and a listing wants all rows of a
 * kind anyway.  Values are read with GETRANGE, so that a huge value that somebody else
 * put there never comes over the wire.
 */
#include "orrery/soft_reader.h"

#include "redis_address.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

enum {
    SCAN_COUNT = 512,
    BATCH_MAX = 4096,
    STEPS_MAX = 100000,
    REPLY_BYTES_MAX = 4 << 20
};

struct orr_soft_reader {
    redisContext *c; /* owned */
};

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static struct timeval timeval_of(uint64_t ms)
{
    return (struct timeval){.tv_sec = (time_t)(ms / 1000),
                            .tv_usec = (suseconds_t)(ms % 1000) * 1000};
}

/* hiredis writes without MSG_NOSIGNAL, and a command dies of SIGPIPE by intention when
 * its own reader goes: keep the two apart. */
static bool pipe_block(sigset_t *ret_old)
{
    sigset_t set, pending;
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &set, ret_old);
    return sigismember(&pending, SIGPIPE) == 1;
}

static void pipe_restore(const sigset_t *old, bool was_pending)
{
    sigset_t set;
    const struct timespec none = {0};
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    while (!was_pending && sigtimedwait(&set, NULL, &none) < 0 && errno == EINTR)
        ;
    pthread_sigmask(SIG_SETMASK, old, NULL);
}

static enum orr_err lost(const redisContext *c, struct orr_error *err)
{
    bool is_late = c->err == REDIS_ERR_IO && (errno == EAGAIN || errno == EWOULDBLOCK);
    const char *why = is_late ? "no answer in time" : c->errstr;
    return orr_fail(err,
                    is_late                        ? ORR_ETIMEOUT
                    : c->err == REDIS_ERR_PROTOCOL ? ORR_EPROTO
                                                   : ORR_EUNREACH,
                    "Redis: %.120s",
                    *why ? why : strerror(errno));
}

enum orr_err orr_soft_source_read(const char *file,
                                  struct orr_soft_source *ret_source,
                                  struct orr_error *err)
{
    struct orr_soft_source s = {.redis = ""};
    char line[4200];
    FILE *in = fopen(file, "re");
    if (!in)
        return orr_fail(err, ORR_ENOENT, "%.200s: %s", file, strerror(errno));
    while (fgets(line, sizeof line, in)) {
        line[strcspn(line, "\r\n")] = '\0';
        if (strncmp(line, "redis=", 6) == 0)
            orr_str_copy(s.redis, sizeof s.redis, orr_str(line + 6));
        else if (strncmp(line, "user=", 5) == 0)
            orr_str_copy(s.user, sizeof s.user, orr_str(line + 5));
        else if (strncmp(line, "password_file=", 14) == 0)
            orr_str_copy(s.password_file, sizeof s.password_file, orr_str(line + 14));
    }
    fclose(in);
    if (!s.redis[0])
        return orr_fail(err, ORR_EINVAL, "%.200s: no line redis=ADDRESS", file);
    *ret_source = s;
    return ORR_OK;
}

/* The next reply before end_ms; the caller frees it.  Not by redisGetReply: a timeout of
 * hiredis is one of each read, and a reply may come in many. */
static enum orr_err take_reply(struct orr_soft_reader *r,
                               uint64_t end_ms,
                               redisReply **ret_reply,
                               struct orr_error *err)
{
    for (;;) {
        void *reply = NULL;
        int is_written = 0;
        if (redisGetReplyFromReader(r->c, &reply) != REDIS_OK)
            return lost(r->c, err);
        *ret_reply = reply;
        if (reply)
            return ORR_OK;
        uint64_t now = now_ms();
        if (now >= end_ms)
            return orr_fail(err, ORR_ETIMEOUT, "Redis: no answer in time");
        if (redisSetTimeout(r->c, timeval_of(end_ms - now)) != REDIS_OK ||
            redisBufferWrite(r->c, &is_written) != REDIS_OK ||
            (is_written && redisBufferRead(r->c) != REDIS_OK))
            return lost(r->c, err);
        if (r->c->reader->len > REPLY_BYTES_MAX)
            return orr_fail(err, ORR_EPROTO, "Redis: its answer is too long");
    }
}

static enum orr_err authenticate(struct orr_soft_reader *r,
                                 const struct orr_soft_source *source,
                                 uint64_t end_ms,
                                 struct orr_error *err)
{
    char password[512];
    redisReply *reply;
    if (!source->user[0])
        return ORR_OK;
    enum orr_err rc =
        redis_password_read(source->password_file, password, sizeof password, err);
    if (rc != ORR_OK)
        return rc;
    if (redisAppendCommand(r->c, "AUTH %s %s", source->user, password) != REDIS_OK)
        rc = orr_fail(err, ORR_ENOMEM, "Redis: out of memory");
    explicit_bzero(password, sizeof password);
    if (rc == ORR_OK)
        rc = take_reply(r, end_ms, &reply, err);
    if (rc != ORR_OK)
        return rc;
    if (reply->type == REDIS_REPLY_ERROR)
        rc = orr_fail(
            err, ORR_EPERM, "Redis: user %s: %.120s", source->user, reply->str);
    freeReplyObject(reply);
    return rc;
}

static enum orr_err connect_reader(struct orr_soft_reader *r,
                                   const struct orr_soft_source *source,
                                   uint64_t deadline_ms,
                                   struct orr_error *err)
{
    struct redis_address a;
    uint64_t end_ms = now_ms() + deadline_ms;
    enum orr_err rc = redis_address_parse(source->redis, &a, err);
    if (rc != ORR_OK)
        return rc;
    r->c = a.path[0] ? redisConnectUnixWithTimeout(a.path, timeval_of(deadline_ms))
                     : redisConnectWithTimeout(a.host, a.port, timeval_of(deadline_ms));
    if (!r->c)
        return orr_fail(err, ORR_ENOMEM, "Redis: out of memory");
    return r->c->err ? lost(r->c, err) : authenticate(r, source, end_ms, err);
}

enum orr_err orr_soft_reader_new(const struct orr_soft_source *source,
                                 uint64_t deadline_ms,
                                 struct orr_soft_reader **ret_reader,
                                 struct orr_error *err)
{
    sigset_t old;
    struct orr_soft_reader *r = calloc(1, sizeof *r);
    if (!r)
        return orr_fail(err, ORR_ENOMEM, "Redis: out of memory");
    bool was_pending = pipe_block(&old);
    enum orr_err rc = connect_reader(r, source, deadline_ms, err);
    pipe_restore(&old, was_pending);
    if (rc == ORR_OK)
        *ret_reader = r;
    else
        orr_soft_reader_free(r);
    return rc;
}

void orr_soft_reader_free(struct orr_soft_reader *r)
{
    if (r && r->c)
        redisFree(r->c);
    free(r);
}

/* ---- reading ----------------------------------------------------------------------- */

struct walk {
    struct orr_soft_reader *reader;
    struct orr_str region;
    unsigned kinds;
    uint64_t end_ms;
    orr_soft_visit_f visit;
    void *arg;
    struct orr_soft_count *count;
    bool is_over; /* visit said so */
};

static enum orr_err ask_value(struct walk *w, struct orr_str key)
{
    char last[16];
    const char *argv[] = {"GETRANGE", key.ptr, "0", last};
    /* One byte more than a value may have: then it is too long. */
    int len = snprintf(last, sizeof last, "%d", (int)ORR_SOFT_VALUE_MAX);
    size_t lens[] = {8, key.len, 1, (size_t)len};
    return redisAppendCommandArgv(w->reader->c, 4, argv, lens) == REDIS_OK ? ORR_OK
                                                                           : ORR_ENOMEM;
}

static enum orr_err
take_value(struct walk *w, struct orr_str key, struct orr_error *err)
{
    redisReply *reply;
    enum orr_err rc = take_reply(w->reader, w->end_ms, &reply, err);
    if (rc != ORR_OK)
        return rc;
    bool is_text = reply->type == REDIS_REPLY_STRING;
    bool has_expired = is_text && reply->len == 0;
    struct orr_bytes value = {
        is_text ? (const uint8_t *)reply->str : (const uint8_t *)"",
        is_text && reply->len <= UINT32_MAX ? (uint32_t)reply->len : 0};
    if (!has_expired && !w->is_over)
        w->is_over =
            !orr_soft_take(w->region, w->kinds, key, value, w->visit, w->arg, w->count);
    freeReplyObject(reply);
    return ORR_OK;
}

static struct orr_str key_at(const redisReply *keys, size_t i)
{
    const redisReply *k = keys->element[i];
    bool is_key = k->type == REDIS_REPLY_STRING && k->len < ORR_SOFT_KEY_MAX;
    return is_key ? (struct orr_str){k->str, (uint32_t)k->len} : (struct orr_str){0};
}

static bool is_wanted(const struct walk *w, struct orr_str key)
{
    enum orr_soft_kind kind;
    struct orr_str name;
    return orr_soft_key_parse(key, w->region, &kind, &name) && (w->kinds & 1u << kind);
}

static enum orr_err
take_batch(struct walk *w, const redisReply *keys, struct orr_error *err)
{
    enum orr_err rc = ORR_OK;
    for (size_t i = 0; i < keys->elements && rc == ORR_OK; i++)
        if (is_wanted(w, key_at(keys, i)))
            rc = ask_value(w, key_at(keys, i));
    if (rc != ORR_OK)
        return orr_fail(err, rc, "Redis: out of memory");
    for (size_t i = 0; i < keys->elements && rc == ORR_OK; i++)
        if (is_wanted(w, key_at(keys, i)))
            rc = take_value(w, key_at(keys, i), err);
    return rc;
}

static enum orr_err
scan_step(struct walk *w, char *cursor, size_t cap, struct orr_error *err)
{
    redisReply *reply;
    if (redisAppendCommand(w->reader->c,
                           "SCAN %s MATCH orrery:%b:* COUNT %d",
                           cursor,
                           w->region.ptr,
                           (size_t)w->region.len,
                           (int)SCAN_COUNT) != REDIS_OK)
        return orr_fail(err, ORR_ENOMEM, "Redis: out of memory");
    enum orr_err rc = take_reply(w->reader, w->end_ms, &reply, err);
    if (rc != ORR_OK)
        return rc;
    if (reply->type == REDIS_REPLY_ERROR)
        rc = orr_fail(err, ORR_EPERM, "Redis: %.120s", reply->str);
    else if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
             reply->element[0]->type != REDIS_REPLY_STRING ||
             reply->element[0]->len >= cap ||
             reply->element[1]->type != REDIS_REPLY_ARRAY ||
             reply->element[1]->elements > BATCH_MAX)
        rc = orr_fail(err, ORR_EPROTO, "Redis: its answer to SCAN is not understood");
    else
        rc = take_batch(w, reply->element[1], err);
    if (rc == ORR_OK)
        snprintf(cursor, cap, "%s", reply->element[0]->str);
    freeReplyObject(reply);
    return rc;
}

enum orr_err orr_soft_reader_scan(struct orr_soft_reader *reader,
                                  struct orr_str region,
                                  unsigned kinds,
                                  uint64_t deadline_ms,
                                  orr_soft_visit_f visit,
                                  void *arg,
                                  struct orr_soft_count *io_count,
                                  struct orr_error *err)
{
    struct walk w = {
        reader, region, kinds, now_ms() + deadline_ms, visit, arg, io_count, false};
    char cursor[32] = "0";
    sigset_t old;
    bool was_pending = pipe_block(&old);
    enum orr_err rc = ORR_OK;
    uint32_t steps = 0;
    do
        rc = ++steps > STEPS_MAX ? orr_fail(err, ORR_EPROTO, "Redis: SCAN does not end")
                                 : scan_step(&w, cursor, sizeof cursor, err);
    while (rc == ORR_OK && !w.is_over && strcmp(cursor, "0") != 0);
    pipe_restore(&old, was_pending);
    return rc;
}

enum orr_err orr_soft_reader_get(struct orr_soft_reader *reader,
                                 struct orr_str region,
                                 const struct orr_soft_key *key,
                                 uint64_t deadline_ms,
                                 orr_soft_visit_f visit,
                                 void *arg,
                                 struct orr_soft_count *io_count,
                                 struct orr_error *err)
{
    struct walk w = {reader,
                     region,
                     UINT32_MAX,
                     now_ms() + deadline_ms,
                     visit,
                     arg,
                     io_count,
                     false};
    sigset_t old;
    bool was_pending = pipe_block(&old);
    enum orr_err rc = ask_value(&w, orr_str(key->text));
    rc = rc == ORR_OK ? take_value(&w, orr_str(key->text), err)
                      : orr_fail(err, rc, "Redis: out of memory");
    pipe_restore(&old, was_pending);
    return rc;
}
