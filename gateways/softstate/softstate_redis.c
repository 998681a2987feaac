/* SPDX-License-Identifier: Apache-2.0
 * softstate_redis.c - soft state with Redis: memory first, and a thread that keeps a
 * copy there.
 *
 * START      the thread connects, authenticates, writes a nonce under a key of its own,
 *            then all keys, pipelined
 * OPERATION  a put lists its key; the thread writes it, and again at a quarter of its
 *            TTL, so that damage to single keys heals by then.  Twice a second it reads
 *            the nonce back: missing or different means that Redis was emptied or
 *            filled by somebody else, and all is written anew
 * STOP       the thread ends; the keys lapse
 * FAILURES   refused, lost, silent for deadline_ms, wrong replies: the link is closed,
 *            status says degraded and why, and it is tried again after 50 ms, doubling
 *            to 1 s, with jitter.  Memory is what counts, so nothing is lost
 * Nothing that is read from Redis is used but to compare the nonce.
 */
#include "redis_link.h"
#include "soft_table.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum {
    DEADLINE_MS = 500,
    CHECK_MS = 500,
    TICK_MS = 250,
    REFUSED_PAUSE_MS = 500,
    BACKOFF_MIN_MS = 50,
    BACKOFF_MAX_MS = 1000,
    NONCE_BYTES = 17,
};

enum call_kind { CALL_AUTH, CALL_NONCE_SET, CALL_NONCE_GET, CALL_SET, CALL_DEL };

struct redis {
    struct orr_softstate base;
    struct redis_address address; /* constant */
    char user[64];
    char password_file[4096];
    char nonce_key[ORR_SOFT_KEY_MAX];
    uint64_t ttl_ms;
    uint64_t deadline_ms;
    int wake_fd; /* owned */
    pthread_t thread;

    /* the thread only */
    struct redis_link link;
    char nonce[NONCE_BYTES];
    bool is_ready;           /* authenticated, and the nonce was accepted */
    bool is_checking;        /* the nonce is being read */
    struct orr_error failed; /* set by a reply: close the link */
    uint64_t retry_ms;
    uint64_t backoff_ms;
    uint64_t check_ms; /* when it is due */
    uint64_t nonce_ms; /* when it is to be written again */
    uint64_t tick_ms;
    uint64_t pause_ms; /* refused: no writes before */
    unsigned seed;

    pthread_mutex_t lock; /* guards: */
    struct soft_table table;
    struct orr_softstate_status status;
    bool is_woken;
    bool is_stopping;
};

static uint64_t clock_ms(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static uint64_t now_ms(void)
{
    return clock_ms(CLOCK_MONOTONIC);
}

/* ---- any thread -------------------------------------------------------------------- */

/* Under the lock. */
static void wake(struct redis *r)
{
    if (!r->is_woken && eventfd_write(r->wake_fd, 1) == 0)
        r->is_woken = true;
}

static enum orr_err redis_put(struct orr_softstate *base,
                              struct orr_str key,
                              struct orr_bytes value,
                              uint64_t ttl_ms,
                              uint64_t owner)
{
    struct redis *r = (struct redis *)base;
    pthread_mutex_lock(&r->lock);
    enum orr_err rc = soft_table_put(&r->table, key, value, ttl_ms, owner, now_ms());
    if (rc == ORR_OK)
        wake(r);
    pthread_mutex_unlock(&r->lock);
    return rc;
}

static void redis_remove(struct orr_softstate *base, struct orr_str key)
{
    struct redis *r = (struct redis *)base;
    pthread_mutex_lock(&r->lock);
    soft_table_remove(&r->table, key, now_ms());
    wake(r);
    pthread_mutex_unlock(&r->lock);
}

static void redis_drop(struct orr_softstate *base, uint64_t owner)
{
    struct redis *r = (struct redis *)base;
    pthread_mutex_lock(&r->lock);
    soft_table_drop(&r->table, owner);
    pthread_mutex_unlock(&r->lock);
}

static uint64_t redis_scan(struct orr_softstate *base,
                           uint64_t cursor,
                           orr_softstate_visit_f visit,
                           void *arg)
{
    struct redis *r = (struct redis *)base;
    pthread_mutex_lock(&r->lock);
    cursor = soft_table_scan(&r->table, cursor, visit, arg);
    pthread_mutex_unlock(&r->lock);
    return cursor;
}

static void redis_status(struct orr_softstate *base,
                         struct orr_softstate_status *ret_status)
{
    struct redis *r = (struct redis *)base;
    pthread_mutex_lock(&r->lock);
    *ret_status = r->status;
    ret_status->keys = r->table.entries.n_used;
    ret_status->refused = r->table.refused;
    pthread_mutex_unlock(&r->lock);
}

/* ---- the thread: state ------------------------------------------------------------- */

/* Under the lock.  why NULL: not degraded. */
static void set_status(struct redis *r, const char *why)
{
    struct orr_softstate_status *s = &r->status;
    if (s->is_degraded != (why != NULL))
        s->since_unix_ms = clock_ms(CLOCK_REALTIME);
    s->is_degraded = why != NULL;
    orr_str_copy(s->why, sizeof s->why, orr_str(why ? why : ""));
}

static void degrade(struct redis *r, const char *fmt, ...) ORR_PRINTF(2, 3);
static void degrade(struct redis *r, const char *fmt, ...)
{
    char why[sizeof r->status.why];
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    pthread_mutex_lock(&r->lock);
    set_status(r, why);
    pthread_mutex_unlock(&r->lock);
}

static void close_link(struct redis *r, const struct orr_error *err)
{
    char where[160];
    if (r->address.path[0])
        snprintf(where, sizeof where, "%s", r->address.path);
    else
        snprintf(where, sizeof where, "%s:%d", r->address.host, r->address.port);
    redis_link_close(&r->link);
    r->is_ready = r->is_checking = false;
    r->failed.code = ORR_OK;
    r->backoff_ms = r->backoff_ms ? r->backoff_ms * 2 : BACKOFF_MIN_MS;
    if (r->backoff_ms > BACKOFF_MAX_MS)
        r->backoff_ms = BACKOFF_MAX_MS;
    r->retry_ms = now_ms() + r->backoff_ms / 2 +
                  (uint64_t)rand_r(&r->seed) % (r->backoff_ms / 2 + 1);
    degrade(r, "Redis at %s: %s", where, err->text);
}

/* ---- the thread: commands ---------------------------------------------------------- */

static void send_command(struct redis *r,
                         const struct redis_call *call,
                         int argc,
                         const char **argv,
                         const size_t *lens)
{
    size_t own[5];
    for (int i = 0; !lens && i < argc; i++)
        own[i] = strlen(argv[i]);
    if (redis_link_call(&r->link, call, argc, argv, lens ? lens : own, now_ms()))
        (void)orr_fail(&r->failed, ORR_ENOMEM, "out of memory");
}

/* A new nonce, and all keys behind it: whoever empties Redis after this takes the nonce,
 * too. */
static void write_anew(struct redis *r, const char *why)
{
    char ttl[24];
    uint64_t random = 0;
    const struct redis_call call = {.kind = CALL_NONCE_SET};
    const char *argv[] = {"SET", r->nonce_key, r->nonce, "PX", ttl};
    if (getrandom(&random, sizeof random, GRND_NONBLOCK) != sizeof random)
        random = clock_ms(CLOCK_REALTIME) ^ (uint64_t)rand_r(&r->seed) << 32;
    snprintf(r->nonce, sizeof r->nonce, "%016" PRIx64, random);
    snprintf(ttl, sizeof ttl, "%" PRIu64, r->ttl_ms);
    send_command(r, &call, 5, argv, NULL);
    r->nonce_ms = now_ms() + r->ttl_ms / 4;
    pthread_mutex_lock(&r->lock);
    soft_table_all_dirty(&r->table);
    r->status.rewrites++;
    if (!r->status.is_degraded || why)
        set_status(r, why);
    pthread_mutex_unlock(&r->lock);
}

static void open_link(struct redis *r)
{
    struct orr_error err;
    char password[512];
    const struct redis_call call = {.kind = CALL_AUTH};
    const char *argv[] = {"AUTH", r->user, password};
    enum orr_err rc = ORR_OK;
    if (r->user[0])
        rc = redis_password_read(r->password_file, password, sizeof password, &err);
    if (rc == ORR_OK)
        rc = redis_link_open(&r->link, &r->address, r->deadline_ms, now_ms(), &err);
    if (rc != ORR_OK) {
        close_link(r, &err);
        return;
    }
    if (r->user[0])
        send_command(r, &call, 3, argv, NULL);
    explicit_bzero(password, sizeof password);
    write_anew(r, NULL);
}

static void check_nonce(struct redis *r)
{
    const char *argv[] = {"GETRANGE", r->nonce_key, "0", "16"};
    const struct redis_call call = {.kind = CALL_NONCE_GET};
    if (!redis_link_has_room(&r->link) || r->is_checking)
        return;
    r->is_checking = true;
    r->check_ms = now_ms() + CHECK_MS;
    send_command(r, &call, 4, argv, NULL);
}

static void keep_nonce(struct redis *r)
{
    char ttl[24];
    const struct redis_call call = {.kind = CALL_NONCE_SET};
    const char *argv[] = {"SET", r->nonce_key, r->nonce, "PX", ttl, "XX"};
    size_t lens[] = {3, strlen(r->nonce_key), strlen(r->nonce), 2, 0, 2};
    if (!redis_link_has_room(&r->link))
        return;
    snprintf(ttl, sizeof ttl, "%" PRIu64, r->ttl_ms);
    lens[4] = strlen(ttl);
    r->nonce_ms = now_ms() + r->ttl_ms / 4;
    send_command(r, &call, 6, argv, lens); /* XX: an emptied Redis stays noticed */
}

/* Write what is listed while there is room. */
static void write_listed(struct redis *r)
{
    uint32_t index;
    pthread_mutex_lock(&r->lock);
    while (redis_link_has_room(&r->link) && r->failed.code == ORR_OK &&
           (index = soft_table_take_dirty(&r->table)) != ORR_NONE) {
        const struct soft_entry *e = orr_pool_at(&r->table.entries, index);
        struct redis_call call = {
            CALL_SET, .index = index, .life = e->life, .version = e->version};
        char ttl[24];
        const char *set[] = {"SET", e->key, (const char *)e->value, "PX", ttl};
        const char *del[] = {"DEL", e->key};
        int len = snprintf(ttl, sizeof ttl, "%" PRIu64, e->ttl_ms);
        size_t lens[] = {3, strlen(e->key), e->len, 2, (size_t)len};
        call.kind = e->is_gone ? CALL_DEL : CALL_SET;
        send_command(r, &call, e->is_gone ? 2 : 5, e->is_gone ? del : set, lens);
    }
    pthread_mutex_unlock(&r->lock);
}

/* ---- the thread: replies ----------------------------------------------------------- */

static void on_nonce(struct redis *r, const redisReply *reply)
{
    bool is_ours = reply->type == REDIS_REPLY_STRING &&
                   reply->len == strlen(r->nonce) &&
                   memcmp(reply->str, r->nonce, reply->len) == 0;
    r->is_checking = false;
    if (!is_ours)
        write_anew(r, "Redis was emptied or overwritten; all keys are written anew");
}

static void
on_written(struct redis *r, const struct redis_call *call, const redisReply *reply)
{
    pthread_mutex_lock(&r->lock);
    if (reply->type == REDIS_REPLY_ERROR) {
        char why[sizeof r->status.why];
        snprintf(why, sizeof why, "Redis refuses writes: %.120s", reply->str);
        soft_table_not_written(&r->table, call->index, call->life);
        set_status(r, why);
        r->pause_ms = now_ms() + REFUSED_PAUSE_MS;
    } else {
        soft_table_written(&r->table, call->index, call->life, call->version, now_ms());
        r->status.writes++;
    }
    pthread_mutex_unlock(&r->lock);
}

static void
on_reply(void *arg, const struct redis_call *call, const struct redisReply *reply)
{
    struct redis *r = arg;
    bool is_error = reply->type == REDIS_REPLY_ERROR;
    if (r->failed.code)
        return; /* the first error says why; the rest follows from it */
    switch ((enum call_kind)call->kind) {
    case CALL_AUTH:
        if (is_error)
            (void)orr_fail(&r->failed,
                           ORR_EPERM,
                           "user %s: %.80s; check softstate.user and "
                           "softstate.password_file",
                           r->user,
                           reply->str);
        return;
    case CALL_NONCE_SET:
        if (is_error)
            (void)orr_fail(&r->failed, ORR_EPERM, "%.120s", reply->str);
        r->is_ready = !is_error;
        return;
    case CALL_NONCE_GET:
        on_nonce(r, reply);
        return;
    case CALL_SET:
    case CALL_DEL:
        on_written(r, call, reply);
        return;
    }
}

/* ---- the thread: its loop ---------------------------------------------------------- */

static void settle(struct redis *r)
{
    pthread_mutex_lock(&r->lock);
    if (r->is_ready && r->status.is_degraded && r->table.n_unsynced == 0 &&
        now_ms() >= r->pause_ms) {
        set_status(r, NULL);
        r->backoff_ms = 0;
    }
    pthread_mutex_unlock(&r->lock);
}

static void work(struct redis *r)
{
    uint64_t now = now_ms();
    if (now >= r->tick_ms) {
        r->tick_ms = now + TICK_MS;
        pthread_mutex_lock(&r->lock);
        soft_table_tick(&r->table, now);
        pthread_mutex_unlock(&r->lock);
    }
    if (!r->link.c && now >= r->retry_ms)
        open_link(r);
    if (!r->is_ready)
        return;
    if (now >= r->check_ms)
        check_nonce(r);
    if (now >= r->nonce_ms)
        keep_nonce(r);
    if (now >= r->pause_ms)
        write_listed(r);
    settle(r);
}

static uint64_t min_ms(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static short wait_events(struct redis *r)
{
    struct pollfd fds[] = {
        {.fd = r->wake_fd, .events = POLLIN},
        {.fd = redis_link_fd(&r->link), .events = redis_link_events(&r->link)}};
    uint64_t now = now_ms(), due = min_ms(r->tick_ms, redis_link_due_ms(&r->link));
    due = min_ms(due, r->link.c ? r->check_ms > now ? r->check_ms : due : r->retry_ms);
    int n = poll(fds, 2, due > now ? (int)(due - now) : 0);
    if (n > 0 && fds[0].revents) {
        eventfd_t ignored;
        pthread_mutex_lock(&r->lock);
        (void)eventfd_read(r->wake_fd, &ignored);
        r->is_woken = false;
        pthread_mutex_unlock(&r->lock);
    }
    return n > 0 ? fds[1].revents : 0;
}

static bool is_stopping(struct redis *r)
{
    pthread_mutex_lock(&r->lock);
    bool is = r->is_stopping;
    pthread_mutex_unlock(&r->lock);
    return is;
}

static void *run(void *arg)
{
    struct redis *r = arg;
    pthread_setname_np(pthread_self(), "orr-softstate");
    while (!is_stopping(r)) {
        struct orr_error err = {.code = ORR_OK};
        short revents = wait_events(r);
        if (r->link.c &&
            redis_link_service(&r->link, revents, now_ms(), on_reply, r, &err))
            close_link(r, &err);
        else if (r->failed.code) {
            err = r->failed;
            close_link(r, &err);
        }
        work(r);
    }
    redis_link_close(&r->link);
    return NULL;
}

/* ---- open, close ------------------------------------------------------------------- */

static void redis_free(struct redis *r)
{
    if (r->wake_fd >= 0)
        close(r->wake_fd);
    soft_table_fini(&r->table);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static void redis_close(struct orr_softstate *base)
{
    struct redis *r = (struct redis *)base;
    pthread_mutex_lock(&r->lock);
    r->is_stopping = true;
    wake(r);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    redis_free(r);
}

static const struct orr_softstate_ops redis_ops = {
    redis_put, redis_remove, redis_drop, redis_scan, redis_status, redis_close};

static void fill(struct redis *r, const struct orr_softstate_config *c)
{
    snprintf(r->user, sizeof r->user, "%s", c->user ? c->user : "");
    snprintf(r->password_file,
             sizeof r->password_file,
             "%s",
             c->password_file ? c->password_file : "");
    snprintf(r->nonce_key,
             sizeof r->nonce_key,
             "orrery:%.63s:nonce:%.63s",
             c->region,
             c->host);
    r->base.ops = &redis_ops;
    r->ttl_ms = c->ttl_ms;
    r->deadline_ms = c->deadline_ms ? c->deadline_ms : DEADLINE_MS;
    r->seed = (unsigned)orr_hash(orr_str(c->host)) ^ (unsigned)now_ms();
    r->status.backend = "redis";
    r->status.since_unix_ms = clock_ms(CLOCK_REALTIME);
    r->table.has_backend = true;
    set_status(r, "Redis was not reached yet");
}

enum orr_err orr_softstate_redis_open(const struct orr_softstate_config *config,
                                      struct orr_softstate **ret_softstate,
                                      struct orr_error *err)
{
    struct redis_address address;
    enum orr_err rc = redis_address_parse(config->redis, &address, err);
    if (rc != ORR_OK)
        return rc;
    struct redis *r = calloc(1, sizeof *r);
    if (!r || soft_table_init(&r->table, config->keys_max, config->ttl_ms)) {
        free(r);
        return orr_fail(err,
                        ORR_ENOMEM,
                        "softstate: no memory for %u keys",
                        (unsigned)config->keys_max);
    }
    pthread_mutex_init(&r->lock, NULL);
    r->address = address;
    fill(r, config);
    r->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int why = r->wake_fd < 0 ? errno : pthread_create(&r->thread, NULL, run, r);
    if (why) {
        redis_free(r);
        return orr_fail(
            err, ORR_EIO, "softstate: cannot start its thread: %s", strerror(why));
    }
    *ret_softstate = &r->base;
    return ORR_OK;
}
