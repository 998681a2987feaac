/* SPDX-License-Identifier: Apache-2.0
 * suite.c - what every softstate backend does: run on memory and on Redis.
 */
#include "redis_server.h"

#include "orr_test.h"

#define WITHIN(ms, cond)                                                               \
    do {                                                                               \
        uint64_t end_ = test_now_ms() + (ms);                                          \
        bool is_so_ = (cond);                                                          \
        for (; !is_so_ && test_now_ms() < end_; is_so_ = (cond))                       \
            test_pause();                                                              \
        assert_true(is_so_);                                                           \
    } while (0)

enum { KEYS = 64, TTL_MS = 5000 };

struct fixture {
    bool is_redis;
    struct redis_server server;
    struct orr_softstate *softstate;
};

static void open_with_ttl(struct fixture *f, uint64_t ttl_ms)
{
    struct orr_error err;
    const struct orr_softstate_config config = {.region = "eu1",
                                                .host = "h1",
                                                .keys_max = KEYS,
                                                .ttl_ms = ttl_ms,
                                                .redis = f->server.address,
                                                .user = "orrery",
                                                .password_file =
                                                    f->server.password_file};
    enum orr_err rc = f->is_redis
                          ? orr_softstate_redis_open(&config, &f->softstate, &err)
                          : orr_softstate_mem_open(&config, &f->softstate, &err);
    assert_int_equal(rc, ORR_OK);
}

static void setup(struct fixture *f, bool is_redis, uint64_t ttl_ms)
{
    *f = (struct fixture){.is_redis = is_redis};
    if (is_redis) {
        if (!redis_server_init(&f->server))
            skip();
        redis_server_start(&f->server);
    }
    open_with_ttl(f, ttl_ms);
}

static void teardown(struct fixture *f)
{
    f->softstate->ops->close(f->softstate);
    if (f->is_redis)
        redis_server_fini(&f->server);
}

static enum orr_err
put(struct fixture *f, const char *key, const char *value, uint64_t owner)
{
    return f->softstate->ops->put(
        f->softstate,
        orr_str(key),
        (struct orr_bytes){(const uint8_t *)value, (uint32_t)strlen(value)},
        0,
        owner);
}

struct seen {
    const char *key;
    char value[64];
    unsigned n, all;
};

static bool look(void *arg, struct orr_str key, struct orr_bytes value)
{
    struct seen *s = arg;
    s->all++;
    if (s->key && orr_str_eq(key, orr_str(s->key))) {
        s->n++;
        snprintf(
            s->value, sizeof s->value, "%.*s", (int)value.len, (const char *)value.ptr);
    }
    return true;
}

static bool has(struct fixture *f, const char *key, const char *value)
{
    struct seen s = {.key = key};
    assert_int_equal(f->softstate->ops->scan(f->softstate, 0, look, &s), 0);
    assert_true(s.n <= 1);
    return s.n == 1 && strcmp(s.value, value) == 0;
}

static unsigned count(struct fixture *f)
{
    struct seen s = {.key = NULL};
    f->softstate->ops->scan(f->softstate, 0, look, &s);
    return s.all;
}

static struct orr_softstate_status status(struct fixture *f)
{
    struct orr_softstate_status s;
    f->softstate->ops->status(f->softstate, &s);
    return s;
}

/* ---- every backend ----------------------------------------------------------------- */

static void newest_value_is_kept_until_it_is_removed(bool is_redis)
{
    struct fixture f;
    setup(&f, is_redis, TTL_MS);
    assert_int_equal(put(&f, "orrery:eu1:job:a", "one", 1), ORR_OK);
    assert_int_equal(put(&f, "orrery:eu1:job:b", "two", 1), ORR_OK);
    assert_int_equal(put(&f, "orrery:eu1:job:a", "three", 1), ORR_OK);
    assert_true(has(&f, "orrery:eu1:job:a", "three"));
    assert_int_equal(count(&f), 2);
    f.softstate->ops->remove(f.softstate, ORR_LIT("orrery:eu1:job:a"));
    f.softstate->ops->remove(f.softstate, ORR_LIT("orrery:eu1:job:none"));
    assert_int_equal(count(&f), 1);
    assert_int_equal(put(&f, "orrery:eu1:job:a", "again", 1), ORR_OK);
    assert_true(has(&f, "orrery:eu1:job:a", "again"));
    WITHIN(20000, !status(&f).is_degraded && status(&f).writes >= 2);
    teardown(&f);
}

static void drop_takes_what_one_owner_put(bool is_redis)
{
    struct fixture f;
    setup(&f, is_redis, TTL_MS);
    assert_int_equal(put(&f, "orrery:eu1:job:a", "x", 1), ORR_OK);
    assert_int_equal(put(&f, "orrery:eu1:job:b", "x", 2), ORR_OK);
    assert_int_equal(put(&f, "orrery:eu1:job:c", "x", 1), ORR_OK);
    f.softstate->ops->drop(f.softstate, 1);
    assert_int_equal(count(&f), 1);
    assert_true(has(&f, "orrery:eu1:job:b", "x"));
    teardown(&f);
}

static void key_that_is_not_put_again_lapses(bool is_redis)
{
    struct fixture f;
    setup(&f, is_redis, 1000);
    assert_int_equal(put(&f, "orrery:eu1:job:a", "x", 1), ORR_OK);
    assert_int_equal(count(&f), 1);
    WITHIN(20000, count(&f) == 0);
    if (is_redis)
        WITHIN(20000, redis_server_number(&f.server, "EXISTS orrery:eu1:job:a") == 0);
    teardown(&f);
}

static void what_does_not_fit_is_refused_and_counted(bool is_redis)
{
    struct fixture f;
    char key[ORR_SOFT_KEY_MAX + 1], big[ORR_SOFT_VALUE_MAX + 2];
    setup(&f, is_redis, TTL_MS);
    memset(key, 'k', sizeof key - 1);
    key[sizeof key - 1] = '\0';
    memset(big, 'v', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    assert_int_equal(put(&f, key, "x", 1), ORR_EINVAL);
    assert_int_equal(put(&f, "", "x", 1), ORR_EINVAL);
    assert_int_equal(put(&f, "orrery:eu1:job:a", big, 1), ORR_EINVAL);
    for (int i = 0; i < KEYS; i++) {
        snprintf(key, sizeof key, "orrery:eu1:job:%d", i);
        assert_int_equal(put(&f, key, "x", 1), ORR_OK);
    }
    assert_int_equal(put(&f, "orrery:eu1:job:more", "x", 1), ORR_ENOSPC);
    assert_int_equal(put(&f, "orrery:eu1:job:0", "y", 1), ORR_OK);
    assert_true(status(&f).refused >= 4);
    assert_int_equal(status(&f).keys, KEYS);
    teardown(&f);
}

struct few {
    unsigned n, max;
};

static bool take_few(void *arg, struct orr_str key, struct orr_bytes value)
{
    struct few *few = arg;
    (void)key;
    (void)value;
    return few->n < few->max && ++few->n;
}

static void scan_goes_on_where_it_stopped(bool is_redis)
{
    struct fixture f;
    setup(&f, is_redis, TTL_MS);
    for (int i = 0; i < 10; i++) {
        char key[32];
        snprintf(key, sizeof key, "orrery:eu1:job:%d", i);
        assert_int_equal(put(&f, key, "x", 1), ORR_OK);
    }
    unsigned total = 0, rounds = 0;
    uint64_t cursor = 0;
    do {
        struct few few = {.max = 3};
        cursor = f.softstate->ops->scan(f.softstate, cursor, take_few, &few);
        total += few.n;
        rounds++;
    } while (cursor);
    assert_int_equal(total, 10);
    assert_int_equal(rounds, 4);
    teardown(&f);
}

#define ON_BOTH(name)                                                                  \
    static void memory_##name(void **state)                                            \
    {                                                                                  \
        (void)state;                                                                   \
        name(false);                                                                   \
    }                                                                                  \
    static void redis_##name(void **state)                                             \
    {                                                                                  \
        (void)state;                                                                   \
        name(true);                                                                    \
    }
ON_BOTH(newest_value_is_kept_until_it_is_removed)
ON_BOTH(drop_takes_what_one_owner_put)
ON_BOTH(key_that_is_not_put_again_lapses)
ON_BOTH(what_does_not_fit_is_refused_and_counted)
ON_BOTH(scan_goes_on_where_it_stopped)
#define BOTH(name) cmocka_unit_test(memory_##name), cmocka_unit_test(redis_##name)

int main(void)
{
    const struct CMUnitTest tests[] = {BOTH(newest_value_is_kept_until_it_is_removed),
                                       BOTH(drop_takes_what_one_owner_put),
                                       BOTH(key_that_is_not_put_again_lapses),
                                       BOTH(what_does_not_fit_is_refused_and_counted),
                                       BOTH(scan_goes_on_where_it_stopped)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
