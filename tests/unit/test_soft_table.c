/* SPDX-License-Identifier: Apache-2.0
 * test_soft_table.c - the table of published keys: what is listed, kept and forgotten.
 */
#include "soft_table.h"

#include "orr_test.h"

enum { TTL_MS = 1000, KEYS = 4 };

static void table_with(struct soft_table *t, uint32_t keys)
{
    assert_int_equal(soft_table_init(t, KEYS, TTL_MS), ORR_OK);
    t->has_backend = true;
    for (uint32_t i = 0; i < keys; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%u", i);
        const struct orr_bytes value = {(const uint8_t *)"v", 1};
        assert_int_equal(soft_table_put(t, orr_str(key), value, 0, i, 5000), ORR_OK);
    }
}

static uint32_t write_all(struct soft_table *t, uint64_t now_ms)
{
    uint32_t n = 0;
    for (uint32_t i; (i = soft_table_take_dirty(t)) != ORR_NONE; n++) {
        const struct soft_entry *e = orr_pool_at(&t->entries, i);
        soft_table_written(t, i, e->life, e->version, now_ms);
    }
    return n;
}

/* The thread reads the clock before it has the lock. */
static void put_after_the_tick_was_timed_does_not_lapse(void **state)
{
    struct soft_table t;
    (void)state;
    table_with(&t, KEYS);
    soft_table_tick(&t, 4990);
    assert_int_equal(t.entries.n_used, KEYS);
    soft_table_tick(&t, 5000 + ORR_SOFT_LAPSE_TTLS * TTL_MS);
    assert_int_equal(t.entries.n_used, KEYS);
    soft_table_tick(&t, 5001 + ORR_SOFT_LAPSE_TTLS * TTL_MS);
    assert_int_equal(t.entries.n_used, 0);
    assert_int_equal(soft_table_take_dirty(&t), ORR_NONE);
    soft_table_fini(&t);
}

static void written_key_is_due_again_before_its_ttl_ends(void **state)
{
    struct soft_table t;
    (void)state;
    table_with(&t, KEYS);
    assert_int_equal(write_all(&t, 5000), KEYS);
    soft_table_tick(&t, 5000 + TTL_MS / 4 - 1);
    assert_int_equal(write_all(&t, 5000), 0);
    soft_table_tick(&t, 5000 + TTL_MS / 4);
    assert_int_equal(write_all(&t, 5250), KEYS);
    soft_table_fini(&t);
}

static void answer_to_an_older_write_leaves_the_newer_one_listed(void **state)
{
    struct soft_table t;
    (void)state;
    table_with(&t, 1);
    uint32_t i = soft_table_take_dirty(&t);
    const struct soft_entry *e = orr_pool_at(&t.entries, i);
    uint64_t life = e->life, version = e->version;
    soft_table_remove(&t, ORR_LIT("k0"), 5000);
    soft_table_written(&t, i, life, version, 5000);
    assert_int_equal(t.entries.n_used, 1); /* its removal is still to be written */
    assert_int_equal(write_all(&t, 5000), 1);
    assert_int_equal(t.entries.n_used, 0);
    soft_table_written(&t, i, life, version, 5000); /* late: nobody is there */
    soft_table_fini(&t);
}

/* Another host's edge may have written it. */
static void removed_key_that_was_never_put_is_removed_from_the_backend(void **state)
{
    struct soft_table t;
    (void)state;
    table_with(&t, KEYS - 1);
    assert_int_equal(write_all(&t, 5000), KEYS - 1);
    soft_table_remove(&t, ORR_LIT("stale"), 5000);
    soft_table_remove(&t, ORR_LIT("stale"), 5000);
    soft_table_remove(&t, ORR_LIT("no room"), 5000);
    soft_table_remove(&t, ORR_LIT(""), 5000);
    soft_table_tick(&t, 5100);
    uint32_t i = soft_table_take_dirty(&t);
    assert_int_not_equal(i, ORR_NONE);
    const struct soft_entry *e = orr_pool_at(&t.entries, i);
    assert_string_equal(e->key, "stale");
    assert_true(e->is_gone);
    assert_int_equal(soft_table_scan(&t, KEYS - 1, NULL, NULL), 0);
    soft_table_written(&t, i, e->life, e->version, 5100);
    assert_int_equal(t.entries.n_used, KEYS - 1);
    assert_int_equal(soft_table_take_dirty(&t), ORR_NONE);
    t.has_backend = false;
    soft_table_remove(&t, ORR_LIT("stale"), 5000);
    assert_int_equal(t.entries.n_used, KEYS - 1);
    soft_table_fini(&t);
}

static void what_was_to_be_written_anew_is_counted_down(void **state)
{
    struct soft_table t;
    (void)state;
    table_with(&t, KEYS);
    assert_int_equal(write_all(&t, 5000), KEYS);
    soft_table_all_dirty(&t);
    assert_int_equal(t.n_unsynced, KEYS);
    soft_table_drop(&t, 2);
    assert_int_equal(t.n_unsynced, KEYS - 1);
    uint32_t i = soft_table_take_dirty(&t);
    const struct soft_entry *e = orr_pool_at(&t.entries, i);
    soft_table_not_written(&t, i, e->life);
    assert_int_equal(t.n_unsynced, KEYS - 1);
    assert_int_equal(write_all(&t, 5000), KEYS - 1);
    assert_int_equal(t.n_unsynced, 0);
    soft_table_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(put_after_the_tick_was_timed_does_not_lapse),
        cmocka_unit_test(written_key_is_due_again_before_its_ttl_ends),
        cmocka_unit_test(answer_to_an_older_write_leaves_the_newer_one_listed),
        cmocka_unit_test(removed_key_that_was_never_put_is_removed_from_the_backend),
        cmocka_unit_test(what_was_to_be_written_anew_is_counted_down)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
