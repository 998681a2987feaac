/* SPDX-License-Identifier: Apache-2.0
 * test_ledger_image.c - the image of a ledger against a plain model of it; its snapshots, its
 * pages, its memory.
 */
#include "orr_test.h"

#include "image.h"

enum { KEYS = 500, GONE_MAX = 40, STEPS = 20000 };

static struct orr_image *image;
static const struct orr_image_config config = {.gone_max = GONE_MAX};

static int setup(void **state)
{
    (void)state;
    assert_int_equal(orr_image_new(&config, &image), ORR_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    orr_image_free(image);
    return 0;
}

static enum orr_err
apply(uint64_t index, const struct orr_rec_ledger_record *records, uint32_t n)
{
    static uint8_t entry[1 << 20];
    const struct orr_msg_ledger_append msg = {
        .term = 7, .ticket = index, .records = {records, n}};
    size_t len;
    uint64_t term, ticket;
    assert_int_equal(
        orr_msg_encode(orr_msg_desc_ledger_append(), &msg, entry, sizeof entry, &len),
        ORR_OK);
    const enum orr_err code = orr_image_apply(image, index, entry, len, &term, &ticket);
    if (code == ORR_OK)
        assert_true(term == 7 && ticket == index);
    return code;
}

static struct orr_rec_ledger_record row(const char *key, const char *value)
{
    return (struct orr_rec_ledger_record){
        .key = orr_str(key),
        .value = {(const uint8_t *)value, value ? (uint32_t)strlen(value) : 0},
        .is_gone = !value};
}

static void put(uint64_t index, const char *key, const char *value)
{
    const struct orr_rec_ledger_record r = row(key, value);
    assert_int_equal(apply(index, &r, 1), ORR_OK);
}

/* ---- a reader, and the model that it must arrive at ------------------------------------------- */

struct model {
    uint64_t value[KEYS]; /* 0: none */
};

struct follower {
    struct orr_ledger_reader reader;
    struct model tables;
    uint64_t last, committed;
    unsigned n_resets, n_pages;
};

static void follow_page(void *arg, const struct orr_msg_ledger_page *page)
{
    struct follower *f = arg;
    if (page->is_reset) {
        memset(&f->tables, 0, sizeof f->tables);
        f->n_resets++;
    }
    for (uint32_t i = 0; i < page->records.n; i++) {
        const struct orr_rec_ledger_record *r = &page->records.at[i];
        char key[16], value[32];
        orr_str_copy(key, sizeof key, r->key);
        orr_str_copy(value,
                     sizeof value,
                     (struct orr_str){(const char *)r->value.ptr, r->value.len});
        f->tables.value[strtoul(key + 1, NULL, 10)] =
            r->is_gone ? 0 : strtoull(value, NULL, 10);
    }
    f->n_pages++;
    f->last = page->last;
    f->committed = page->committed;
}

static void follow(struct follower *f)
{
    do
        assert_int_equal(orr_image_read(image, &f->reader, f->last, follow_page, f),
                         ORR_OK);
    while (f->last < f->committed);
}

static uint64_t random_next(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

/* One entry of one to three records. */
static void random_entry(uint64_t index, uint64_t *seed, struct model *model)
{
    struct orr_rec_ledger_record rows[3];
    char keys[3][16], values[3][32];
    const uint32_t n = 1 + (uint32_t)(random_next(seed) % 3);
    for (uint32_t i = 0; i < n; i++) {
        const unsigned k = (unsigned)(random_next(seed) % KEYS);
        const bool is_gone = random_next(seed) % 3 == 0;
        const uint64_t value = index * 3 + i;
        snprintf(keys[i], sizeof keys[i], "k%u", k);
        snprintf(values[i], sizeof values[i], "%llu", (unsigned long long)value);
        rows[i] = row(keys[i], is_gone ? NULL : values[i]);
        model->value[k] = is_gone ? 0 : value;
    }
    assert_int_equal(apply(index, rows, n), ORR_OK);
}

static void snapshot_and_restore(void)
{
    const struct orr_image_stats before = orr_image_stats(image);
    struct orr_image_frozen *frozen;
    struct orr_image *again;
    uint8_t *bytes;
    size_t len;
    assert_int_equal(orr_image_freeze(image, &frozen), ORR_OK);
    assert_int_equal(orr_image_encode(frozen, &bytes, &len), ORR_OK);
    orr_image_thaw(image, frozen);
    assert_int_equal(orr_image_decode(&config, bytes, len, &again), ORR_OK);
    free(bytes);
    orr_image_free(image);
    image = again;
    const struct orr_image_stats after = orr_image_stats(image);
    assert_true(before.keys == after.keys && before.digest == after.digest &&
                before.last == after.last && before.gone == after.gone &&
                before.forgotten == after.forgotten);
}

static void readers_arrive_at_the_model_whatever_they_missed(void **state)
{
    (void)state;
    struct model model = {{0}};
    struct follower often = {.last = 0}, seldom = {.last = 0}, fresh;
    uint64_t seed = 42;
    for (uint64_t index = 1; index <= STEPS; index++) {
        random_entry(index, &seed, &model);
        assert_true(orr_image_stats(image).gone <= GONE_MAX);
        if (index % 5 == 0)
            follow(&often);
        if (index % 1009 == 0)
            follow(&seldom);
        if (index % 4001 == 0)
            snapshot_and_restore();
    }
    follow(&often);
    follow(&seldom);
    fresh = (struct follower){.last = 0};
    follow(&fresh);
    assert_memory_equal(&often.tables, &model, sizeof model);
    assert_memory_equal(&seldom.tables, &model, sizeof model);
    assert_memory_equal(&fresh.tables, &model, sizeof model);
    assert_true(often.n_resets < 3 && seldom.n_resets > 10);
}

static void snapshot_is_of_the_moment_of_the_freeze(void **state)
{
    (void)state;
    struct orr_image_frozen *frozen, *second;
    struct orr_image *then;
    uint8_t *bytes;
    size_t len;
    struct orr_bytes value;
    put(1, "a", "old");
    put(2, "b", "old");
    const uint64_t digest = orr_image_stats(image).digest;
    assert_int_equal(orr_image_freeze(image, &frozen), ORR_OK);
    assert_int_equal(orr_image_freeze(image, &second), ORR_EBUSY);
    put(3, "a", "new");
    put(4, "b", NULL);
    put(5, "c", "new");
    assert_int_equal(orr_image_encode(frozen, &bytes, &len), ORR_OK);
    orr_image_thaw(image, frozen);
    assert_int_equal(orr_image_decode(&config, bytes, len, &then), ORR_OK);
    assert_int_equal(orr_image_stats(then).digest, digest);
    assert_true(orr_image_find(then, ORR_LIT("b"), &value) && value.len == 3);
    assert_false(orr_image_find(then, ORR_LIT("c"), &value));
    assert_true(orr_image_find(image, ORR_LIT("c"), &value));
    free(bytes);
    orr_image_free(then);
}

static void every_damaged_byte_of_a_snapshot_is_seen(void **state)
{
    (void)state;
    struct orr_image_frozen *frozen;
    struct orr_image *then;
    uint8_t *bytes;
    size_t len;
    put(1, "job/1", "some value");
    put(2, "job/2", "another");
    put(3, "job/1", NULL);
    assert_int_equal(orr_image_freeze(image, &frozen), ORR_OK);
    assert_int_equal(orr_image_encode(frozen, &bytes, &len), ORR_OK);
    orr_image_thaw(image, frozen);
    for (size_t i = 0; i < len; i++) {
        bytes[i] ^= 0x10;
        if (orr_image_decode(&config, bytes, len, &then) != ORR_EPROTO)
            fail_msg("byte %zu of %zu", i, len);
        bytes[i] ^= 0x10;
        assert_int_equal(orr_image_decode(&config, bytes, i, &then), ORR_EPROTO);
    }
    free(bytes);
}

static void entry_that_was_taken_is_not_taken_again(void **state)
{
    (void)state;
    struct orr_bytes value;
    put(5, "a", "new");
    put(5, "a", "again");
    put(4, "a", "old");
    assert_true(orr_image_find(image, ORR_LIT("a"), &value) &&
                memcmp(value.ptr, "new", 3) == 0);
    assert_int_equal(orr_image_stats(image).last, 5);
}

static void bad_entry_changes_nothing(void **state)
{
    (void)state;
    uint64_t term, ticket;
    static char long_key[ORR_KEY_MAX + 1];
    memset(long_key, 'k', ORR_KEY_MAX);
    put(1, "a", "1");
    const struct orr_image_stats before = orr_image_stats(image);
    const struct orr_rec_ledger_record bad[2] = {row("b", "2"), row(long_key, "3")};
    const struct orr_rec_ledger_record none[2] = {row("b", "2"), row("", "3")};
    assert_int_equal(apply(2, bad, 2), ORR_EPROTO);
    assert_int_equal(apply(2, none, 2), ORR_EPROTO);
    assert_int_equal(
        orr_image_apply(image, 2, (const uint8_t *)"\xff\x01", 2, &term, &ticket),
        ORR_EPROTO);
    const struct orr_image_stats after = orr_image_stats(image);
    assert_memory_equal(&before, &after, sizeof before);
}

static void digest_does_not_depend_on_history(void **state)
{
    (void)state;
    put(1, "a", "1");
    put(2, "b", "2");
    const uint64_t two = orr_image_stats(image).digest;
    put(3, "c", "3");
    put(4, "c", NULL);
    assert_int_equal(orr_image_stats(image).digest, two);
    put(5, "a", "1");
    assert_int_equal(orr_image_stats(image).digest, two);
    put(6, "a", "2");
    assert_int_not_equal(orr_image_stats(image).digest, two);
}

static void overhead_of_a_key_is_small(void **state)
{
    (void)state;
    enum { N = 100000, VALUE = 300 };
    static char value[VALUE + 1];
    memset(value, 'v', VALUE);
    size_t keys = 0;
    for (uint64_t i = 1; i <= N; i++) {
        char key[32];
        keys +=
            (size_t)snprintf(key, sizeof key, "job/eu1-%llu", (unsigned long long)i);
        put(i, key, value);
    }
    const struct orr_image_stats s = orr_image_stats(image);
    assert_int_equal(s.keys, N);
    const uint64_t overhead = (s.bytes - keys - (uint64_t)N * VALUE) / N;
    print_message("%llu bytes per key besides its own\n", (unsigned long long)overhead);
    assert_true(overhead <= 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(readers_arrive_at_the_model_whatever_they_missed),
        T(snapshot_is_of_the_moment_of_the_freeze),
        T(every_damaged_byte_of_a_snapshot_is_seen),
        T(entry_that_was_taken_is_not_taken_again),
        T(bad_entry_changes_nothing),
        T(digest_does_not_depend_on_history),
        T(overhead_of_a_key_is_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
