/* SPDX-License-Identifier: Apache-2.0
 * test_kernel_parts.c - parts of the kernel by themselves: the timer wheel against a plain list, blocks, log lines.
 */
#include "../../runtime/log.h"
#include "../../runtime/memory.h"
#include "../../runtime/wheel.h"
#include "orr_test.h"

#include <unistd.h>

static uint64_t random_state;

static uint64_t next_random(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return random_state >> 20;
}

enum { ENTRIES = 200, ROUNDS = 20000 };

static void wheel_fires_what_a_list_would(void **state)
{
    (void)state;
    static struct orri_wheel wheel;
    struct orri_due due[ENTRIES] = {0};
    bool is_set[ENTRIES] = {false};
    uint64_t now =
        UINT64_C(68719476736) - 100000; /* crosses a boundary of high digits */
    orri_wheel_init(&wheel, now);
    for (int round = 0; round < ROUNDS; round++) {
        size_t i = next_random() % ENTRIES;
        orri_wheel_remove(&wheel, &due[i]);
        is_set[i] = next_random() % 4 != 0;
        if (is_set[i]) /* spans from nothing to weeks */
            orri_wheel_insert(&wheel,
                              &due[i],
                              now +
                                  (next_random() >> (next_random() % 44)) % 2000000000);
        uint64_t least = UINT64_MAX;
        for (size_t j = 0; j < ENTRIES; j++)
            if (is_set[j] && due[j].due_ms < least)
                least = due[j].due_ms;
        assert_true(orri_wheel_next_ms(&wheel) == least);
        now += next_random() % (round % 10 == 0 ? 100000 : 20);
        uint64_t last = 0;
        for (struct orri_due *d; (d = orri_wheel_take(&wheel, now));) {
            assert_true(d->due_ms <= now && d->due_ms >= last);
            assert_true(is_set[d - due]);
            is_set[d - due] = false;
            last = d->due_ms;
        }
        for (size_t j = 0; j < ENTRIES; j++)
            assert_true(!is_set[j] || due[j].due_ms > now);
    }
}

static void blocks_that_one_takes_and_another_gives_back_go_round(void **state)
{
    (void)state;
    struct orri_pool pool;
    struct orri_cache taker = {0};
    struct orri_cache giver = {0};
    uint8_t class;
    orri_pool_init(&pool, 64 << 10, 64 << 20);
    void *block = orri_block_new(&pool, &giver, 1, false, &class);
    orri_block_free(&pool, &giver, block, class, 1); /* it starts with a slab's rest */
    for (int i = 0; i < 100000; i++) {
        block = orri_block_new(&pool, &taker, 1, false, &class);
        assert_non_null(block);
        orri_block_free(&pool, &giver, block, class, 1);
    }
    assert_true(atomic_load(&pool.bytes) <= 2 * (64 << 10));
    orri_pool_fini(&pool);
}

static void blocks_of_all_sizes_are_apart_and_come_back(void **state)
{
    (void)state;
    enum { N = 3000 };
    struct orri_pool pool;
    struct orri_cache a = {0};
    struct orri_cache b = {0};
    static void *blocks[N];
    static uint8_t classes[N];
    orri_pool_init(&pool, 4096 + 64, 64 << 20);
    uint64_t after_first = 0;
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < N; i++) {
            size_t bytes = 1 + i * 7 % 6000;
            blocks[i] = orri_block_new(&pool, &a, bytes, false, &classes[i]);
            assert_non_null(blocks[i]);
            assert_int_equal((uintptr_t)blocks[i] % 16, 0);
            memset(blocks[i], (int)i, bytes);
        }
        for (size_t i = 0; i < N;
             i++) { /* freed by another: they come back through the pool */
            size_t bytes = 1 + i * 7 % 6000;
            assert_int_equal(((uint8_t *)blocks[i])[bytes - 1], (uint8_t)i);
            orri_block_free(&pool, &b, blocks[i], classes[i], bytes);
        }
        uint64_t held = atomic_load(&pool.bytes);
        if (round == 0)
            after_first = held;
        assert_true(held < after_first * 3 / 2);
    }
    orri_pool_fini(&pool);
}

static void check_line(bool is_json, const char *text, const char *want)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    struct orr_log log = {.fd = fds[1], .host = "n1", .is_json = is_json};
    orr_log_line(&log, ORR_LOG_WARN, 1767225600123, "/eu1/a", text);
    char line[8192];
    ssize_t n = read(fds[0], line, sizeof(line) - 1);
    assert_true(n > 0);
    line[n] = '\0';
    if (want)
        assert_string_equal(line, want);
    assert_string_equal(line + n - (is_json ? 3 : 2), is_json ? "\"}\n" : "\"\n");
    close(fds[0]);
    close(fds[1]);
}

static void log_lines_are_whole_and_quoted(void **state)
{
    (void)state;
    check_line(false,
               "say \"hi\"\n",
               "time=2026-01-01T00:00:00.123Z level=warn host=n1 actor=/eu1/a "
               "text=\"say \\\"hi\\\"\\u000a\"\n");
    check_line(
        true,
        "a\\b",
        "{\"time\":\"2026-01-01T00:00:00.123Z\",\"level\":\"warn\",\"host\":\"n1\","
        "\"actor\":\"/eu1/a\",\"text\":\"a\\\\b\"}\n");
    char big[6000];
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    check_line(true, big, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wheel_fires_what_a_list_would),
        cmocka_unit_test(blocks_of_all_sizes_are_apart_and_come_back),
        cmocka_unit_test(blocks_that_one_takes_and_another_gives_back_go_round),
        cmocka_unit_test(log_lines_are_whole_and_quoted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
