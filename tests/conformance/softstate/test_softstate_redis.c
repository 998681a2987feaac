/* SPDX-License-Identifier: Apache-2.0
 * test_softstate_redis.c - Redis gone, stopped, emptied, full of garbage, full, lying:
 * puts never wait, status says why, and everything is back soon after Redis is.
 */
#include "redis_server.h"

#include "orr_test.h"
#include "orrery/soft_reader.h"

#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define WITHIN(ms, cond)                                                               \
    do {                                                                               \
        uint64_t end_ = test_now_ms() + (ms);                                          \
        bool is_so_ = (cond);                                                          \
        for (; !is_so_ && test_now_ms() < end_; is_so_ = (cond))                       \
            test_pause();                                                              \
        assert_true(is_so_);                                                           \
    } while (0)

enum { KEYS = 300, TTL_MS = 15000, BACK_MS = 20000, NOTICED_MS = 20000 };

struct fixture {
    struct redis_server server;
    struct orr_softstate *softstate;
};

static struct orr_softstate_config config_of(const struct fixture *f)
{
    return (struct orr_softstate_config){.region = "eu1",
                                         .host = "h1",
                                         .keys_max = 1024,
                                         .ttl_ms = TTL_MS,
                                         .redis = f->server.address,
                                         .user = "orrery",
                                         .password_file = f->server.password_file};
}

static void key_of(char key[64], int i)
{
    memset(key, 0, 64);
    snprintf(key, 64, "orrery:eu1:job:%d", i);
}

static void put_all(struct fixture *f)
{
    for (int i = 0; i < KEYS; i++) {
        char key[64];
        key_of(key, i);
        assert_int_equal(
            f->softstate->ops->put(f->softstate,
                                   orr_str(key),
                                   (struct orr_bytes){(const uint8_t *)key, 20},
                                   0,
                                   1),
            ORR_OK);
    }
}

static struct orr_softstate_status status(struct fixture *f)
{
    struct orr_softstate_status s;
    f->softstate->ops->status(f->softstate, &s);
    return s;
}

/* All keys of ours are in Redis, as they should be, with a TTL. */
static bool is_complete(struct fixture *f)
{
    for (int i = 0; i < KEYS; i += 37) {
        char key[64], value[64];
        key_of(key, i);
        memset(value, 0, sizeof value);
        memcpy(value, key, 20);
        redisReply *reply = redis_server_ask(&f->server, "GET %s", key);
        bool is_right = reply->type == REDIS_REPLY_STRING && reply->len == 20 &&
                        memcmp(reply->str, value, 20) == 0;
        freeReplyObject(reply);
        long long ttl = redis_server_number(&f->server, "PTTL %s", key);
        if (!is_right || ttl <= 0 || ttl > TTL_MS)
            return false;
    }
    return redis_server_number(&f->server, "DBSIZE") >= KEYS + 1;
}

static void setup(struct fixture *f)
{
    *f = (struct fixture){.softstate = NULL};
    if (!redis_server_init(&f->server))
        skip();
    redis_server_start(&f->server);
    struct orr_softstate_config config = config_of(f);
    struct orr_error err;
    assert_int_equal(orr_softstate_redis_open(&config, &f->softstate, &err), ORR_OK);
    put_all(f);
    WITHIN(BACK_MS, !status(f).is_degraded && is_complete(f));
}

static void teardown(struct fixture *f)
{
    f->softstate->ops->close(f->softstate);
    redis_server_fini(&f->server);
}

static void killed_and_restarted_empty_has_everything_again(void **state)
{
    struct fixture f;
    (void)state;
    setup(&f);
    redis_server_kill(&f.server);
    WITHIN(NOTICED_MS, status(&f).is_degraded);
    assert_non_null(strstr(status(&f).why, f.server.socket));
    put_all(&f);
    redis_server_start(&f.server);
    uint64_t back_ms = test_now_ms();
    WITHIN(BACK_MS, !status(&f).is_degraded);
    assert_true(is_complete(&f));
    print_message(
        "{\"bench\":\"softstate_restarted\",\"value\":%llu,\"unit\":\"ms\"}\n",
        (unsigned long long)(test_now_ms() - back_ms));
    teardown(&f);
}

static void puts_do_not_wait_for_a_stopped_redis(void **state)
{
    struct fixture f;
    (void)state;
    setup(&f);
    kill(f.server.pid, SIGSTOP);
    unsigned n = 0, n_slow = 0;
    for (uint64_t end = test_now_ms() + 3000; test_now_ms() < end; test_pause()) {
        uint64_t start = test_now_ms();
        put_all(&f);
        n++;
        n_slow += test_now_ms() - start >= 400; /* 300 puts; one that waits takes 500 */
    }
    assert_true(status(&f).is_degraded);
    assert_true(n_slow < n / 2); /* a busy machine has others to run, too */
    kill(f.server.pid, SIGCONT);
    WITHIN(BACK_MS, !status(&f).is_degraded && is_complete(&f));
    teardown(&f);
}

static void emptied_redis_is_noticed_and_written_anew(void **state)
{
    struct fixture f;
    (void)state;
    setup(&f);
    uint64_t before = status(&f).rewrites;
    freeReplyObject(redis_server_ask(&f.server, "FLUSHALL"));
    WITHIN(BACK_MS, status(&f).rewrites > before && is_complete(&f));
    teardown(&f);
}

static void garbage_in_every_key_is_overwritten(void **state)
{
    struct fixture f;
    (void)state;
    setup(&f);
    redisReply *keys = redis_server_ask(&f.server, "KEYS *");
    assert_true(keys->elements > KEYS);
    for (size_t i = 0; i < keys->elements; i++) {
        const char *key = keys->element[i]->str;
        freeReplyObject(redis_server_ask(&f.server, "DEL %s", key));
        freeReplyObject(i % 2 ? redis_server_ask(&f.server, "SET %s garbage", key)
                              : redis_server_ask(&f.server, "RPUSH %s a b c", key));
    }
    freeReplyObject(keys);
    WITHIN(BACK_MS, is_complete(&f) && !status(&f).is_degraded);
    teardown(&f);
}

static void damage_to_one_key_heals_with_its_next_write(void **state)
{
    struct fixture f;
    (void)state;
    setup(&f);
    uint64_t before = status(&f).rewrites;
    freeReplyObject(redis_server_ask(&f.server, "DEL orrery:eu1:job:0"));
    WITHIN(BACK_MS, is_complete(&f));
    assert_int_equal(status(&f).rewrites, before);
    teardown(&f);
}

static void full_redis_is_degraded_and_recovers(void **state)
{
    struct fixture f;
    (void)state;
    setup(&f);
    freeReplyObject(redis_server_ask(&f.server, "CONFIG SET maxmemory 1"));
    put_all(&f);
    WITHIN(NOTICED_MS, status(&f).is_degraded && strstr(status(&f).why, "OOM"));
    freeReplyObject(redis_server_ask(&f.server, "CONFIG SET maxmemory 64mb"));
    WITHIN(BACK_MS, !status(&f).is_degraded && is_complete(&f));
    teardown(&f);
}

static void removed_key_is_gone_from_redis(void **state)
{
    struct fixture f;
    (void)state;
    setup(&f);
    f.softstate->ops->remove(f.softstate, ORR_LIT("orrery:eu1:job:0"));
    WITHIN(BACK_MS, redis_server_number(&f.server, "EXISTS orrery:eu1:job:0") == 0);
    teardown(&f);
}

static void wrong_password_is_named_and_mended(void **state)
{
    struct fixture f;
    (void)state;
    setup(&f);
    freeReplyObject(redis_server_ask(&f.server, "ACL SETUSER orrery resetpass >other"));
    redis_server_number(&f.server, "CLIENT KILL USER orrery");
    WITHIN(NOTICED_MS,
           status(&f).is_degraded && strstr(status(&f).why, "softstate.password_file"));
    freeReplyObject(
        redis_server_ask(&f.server, "ACL SETUSER orrery resetpass >not-a-secret"));
    WITHIN(BACK_MS, !status(&f).is_degraded);
    teardown(&f);
}

/* ---- a Redis that lies --------------------------------------------------------------- */

struct liar {
    char dir[32], socket[64], address[96];
    int fd;
    const char *text;
    size_t len;
    bool is_slow;
    unsigned n_seen; /* connections, atomically */
    pthread_t thread;
};

/* Says its piece over and over to whoever comes. */
static void *lie(void *arg)
{
    struct liar *l = arg;
    for (;;) {
        int fd = accept(l->fd, NULL, NULL);
        if (fd < 0)
            return NULL;
        __atomic_add_fetch(&l->n_seen, 1, __ATOMIC_RELAXED);
        for (int i = 0; i < 1000 && send(fd, l->text, l->len, MSG_NOSIGNAL) > 0; i++)
            if (l->is_slow)
                test_pause();
        close(fd);
    }
}

static void liar_start(struct liar *l, const char *text, size_t len, bool is_slow)
{
    *l = (struct liar){.text = text, .len = len, .is_slow = is_slow};
    snprintf(l->dir, sizeof l->dir, "/tmp/orr-liar-XXXXXX");
    assert_non_null(mkdtemp(l->dir));
    snprintf(l->socket, sizeof l->socket, "%s/sock", l->dir);
    snprintf(l->address, sizeof l->address, "unix://%s", l->socket);
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    snprintf(at.sun_path, sizeof at.sun_path, "%s", l->socket);
    l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(l->fd, (const struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(l->fd, 16), 0);
    assert_int_equal(pthread_create(&l->thread, NULL, lie, l), 0);
}

static void liar_stop(struct liar *l)
{
    shutdown(l->fd, SHUT_RDWR);
    pthread_join(l->thread, NULL);
    close(l->fd);
    unlink(l->socket);
    assert_int_equal(rmdir(l->dir), 0);
}

static void lie_once(const char *text, size_t len)
{
    struct liar l;
    struct orr_softstate *s;
    struct orr_softstate_status st;
    struct orr_error err;
    liar_start(&l, text, len, false);
    const struct orr_softstate_config config = {.region = "eu1",
                                                .host = "h1",
                                                .keys_max = 8,
                                                .ttl_ms = TTL_MS,
                                                .redis = l.address};
    assert_int_equal(orr_softstate_redis_open(&config, &s, &err), ORR_OK);
    (void)s->ops->put(
        s, ORR_LIT("k"), (struct orr_bytes){(const uint8_t *)"v", 1}, 0, 1);
    WITHIN(10000, __atomic_load_n(&l.n_seen, __ATOMIC_RELAXED) >= 3);
    s->ops->status(s, &st);
    assert_true(st.is_degraded);
    s->ops->close(s);
    liar_stop(&l);
}

static void lies_end_the_link_and_nothing_else(void **state)
{
    static const char huge[] = "$536870912\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    (void)state;
    lie_once("+OK\r\n+OK\r\n+OK\r\n", 15); /* answers nobody asked for */
    lie_once("!?*\r\n\r\n", 7);
    lie_once("*-7\r\n$9\r\n", 9);
    lie_once("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n", 40);
    lie_once(huge, sizeof huge);
    lie_once("-ERR no\r\n", 9);
}

/* ---- the reader ---------------------------------------------------------------------- */

struct found {
    unsigned jobs;
    struct orr_soft_count count;
};

static bool
count_jobs(void *arg, enum orr_soft_kind kind, struct orr_str key, const void *msg)
{
    struct found *found = arg;
    const struct orr_msg_soft_job *job = msg;
    assert_int_equal(kind, ORR_SOFT_JOB);
    assert_true(key.len > job->row.job.len);
    found->jobs++;
    return true;
}

static void reader_takes_what_is_right_and_counts_the_rest(void **state)
{
    struct fixture f;
    struct orr_soft_reader *reader;
    struct orr_soft_source source = {.user = "reader"};
    struct orr_error err;
    (void)state;
    setup(&f);
    size_t last_len = 0;
    for (int i = 0; i < 20; i++) { /* the others are garbage to a reader */
        char id[16];
        uint8_t value[512];
        snprintf(id, sizeof id, "%d", i);
        struct orr_msg_soft_job job = {.at_unix_ms = 1, .row = {.job = orr_str(id)}};
        struct orr_soft_key key = orr_soft_key(
            ORR_SOFT_JOB, ORR_LIT("eu1"), orr_str(id), (struct orr_str){0});
        if (i == 7)
            job.row.job = ORR_LIT("8"); /* a value that belongs to another key */
        if (i == 9)
            job.row.phase = 4711;
        assert_int_equal(
            orr_msg_encode(
                orr_msg_desc_soft_job(), &job, value, sizeof value, &last_len),
            ORR_OK);
        f.softstate->ops->put(f.softstate,
                              orr_str(key.text),
                              (struct orr_bytes){value, (uint32_t)last_len},
                              0,
                              1);
    }
    const struct orr_soft_key last =
        orr_soft_key(ORR_SOFT_JOB, ORR_LIT("eu1"), ORR_LIT("19"), (struct orr_str){0});
    WITHIN(BACK_MS,
           redis_server_number(&f.server, "STRLEN %s", last.text) ==
               (long long)last_len);
    snprintf(source.redis, sizeof source.redis, "%s", f.server.address);
    snprintf(
        source.password_file, sizeof source.password_file, "%s", f.server.reader_file);
    assert_int_equal(orr_soft_reader_new(&source, 5000, &reader, &err), ORR_OK);
    struct found found = {.jobs = 0};
    assert_int_equal(orr_soft_reader_scan(reader,
                                          ORR_LIT("eu1"),
                                          1u << ORR_SOFT_JOB,
                                          5000,
                                          count_jobs,
                                          &found,
                                          &found.count,
                                          &err),
                     ORR_OK);
    assert_int_equal(found.jobs, 18);
    assert_int_equal(found.count.garbage, KEYS - 18);
    kill(f.server.pid, SIGSTOP);
    uint64_t start = test_now_ms();
    assert_int_equal(orr_soft_reader_scan(reader,
                                          ORR_LIT("eu1"),
                                          1u << ORR_SOFT_JOB,
                                          300,
                                          count_jobs,
                                          &found,
                                          &found.count,
                                          &err),
                     ORR_ETIMEOUT);
    assert_true(test_now_ms() - start <
                15000); /* it was given 300 ms, and did not wait for ever */
    kill(f.server.pid, SIGKILL);
    orr_soft_reader_free(reader);
    teardown(&f);
}

static enum orr_err read_from_liar(const char *text, size_t len, bool is_slow)
{
    struct liar l;
    struct found found = {.jobs = 0};
    struct orr_soft_reader *reader;
    struct orr_soft_source source = {.user = ""};
    struct orr_error err;
    liar_start(&l, text, len, is_slow);
    snprintf(source.redis, sizeof source.redis, "%s", l.address);
    assert_int_equal(orr_soft_reader_new(&source, 5000, &reader, &err), ORR_OK);
    enum orr_err rc = orr_soft_reader_scan(reader,
                                           ORR_LIT("eu1"),
                                           1u << ORR_SOFT_JOB,
                                           300,
                                           count_jobs,
                                           &found,
                                           &found.count,
                                           &err);
    orr_soft_reader_free(reader);
    liar_stop(&l);
    return rc;
}

static void reader_is_held_up_by_no_reply_however_long(void **state)
{
    static char huge[64 << 10];
    const int head = snprintf(huge, sizeof huge, "$536870912\r\n");
    (void)state;
    assert_int_equal(read_from_liar("$900000\r\n", 9, true), ORR_ETIMEOUT);
    memset(huge + head, 'x', sizeof huge - (size_t)head);
    enum orr_err rc = read_from_liar(huge, sizeof huge, false);
    assert_true(rc == ORR_EPROTO || rc == ORR_ETIMEOUT); /* a busy machine */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_and_restarted_empty_has_everything_again),
        cmocka_unit_test(puts_do_not_wait_for_a_stopped_redis),
        cmocka_unit_test(emptied_redis_is_noticed_and_written_anew),
        cmocka_unit_test(garbage_in_every_key_is_overwritten),
        cmocka_unit_test(damage_to_one_key_heals_with_its_next_write),
        cmocka_unit_test(full_redis_is_degraded_and_recovers),
        cmocka_unit_test(removed_key_is_gone_from_redis),
        cmocka_unit_test(wrong_password_is_named_and_mended),
        cmocka_unit_test(lies_end_the_link_and_nothing_else),
        cmocka_unit_test(reader_takes_what_is_right_and_counts_the_rest),
        cmocka_unit_test(reader_is_held_up_by_no_reply_however_long)};
    signal(SIGPIPE, SIG_IGN); /* as a host does */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
