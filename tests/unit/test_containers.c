/* SPDX-License-Identifier: Apache-2.0
 * test_containers.c - pool, blobs and map: bounds, reuse, and agreement with a plain
 * model under random use.
 */
#include "orr_test.h"
#include "orrery/map.h"

struct item {
    char key[24];
    uint64_t value;
};

static struct orr_str key_of(const void *item)
{
    return orr_str(((const struct item *)item)->key);
}

static void pool_full_gives_null_and_reuses_zeroed(void **state)
{
    (void)state;
    struct orr_pool pool;
    assert_int_equal(orr_pool_init(&pool, sizeof(struct item), 2), ORR_OK);
    struct item *a = orr_pool_take(&pool);
    struct item *b = orr_pool_take(&pool);
    assert_non_null(b);
    assert_null(orr_pool_take(&pool));
    a->value = 7;
    orr_pool_give(&pool, a);
    assert_null(orr_pool_at(&pool, 0));
    assert_ptr_equal(orr_pool_next(&pool, NULL), b);
    struct item *c = orr_pool_take(&pool);
    assert_ptr_equal(c, a);
    assert_int_equal(c->value, 0);
    orr_pool_fini(&pool);
}

static void blob_any_length_comes_back_whole(void **state)
{
    (void)state;
    static uint8_t in[5000], out[5000];
    struct orr_blobs blobs;
    assert_int_equal(orr_blobs_init(&blobs, 8000), ORR_OK);
    for (size_t i = 0; i < sizeof(in); i++)
        in[i] = (uint8_t)(i * 31);
    const uint32_t lengths[] = {0, 1, 247, 248, 249, 496, 5000};
    for (size_t i = 0; i < ORR_ARRAY_SIZE(lengths); i++) {
        uint32_t blob = ORR_NONE;
        struct orr_bytes bytes = {in, lengths[i]};
        assert_int_equal(orr_blob_put(&blobs, bytes, &blob), ORR_OK);
        struct orr_bytes got = orr_blob_get(&blobs, blob, out, sizeof(out));
        assert_int_equal(got.len, lengths[i]);
        assert_memory_equal(out, in, got.len);
        assert_true(lengths[i] == 0 ||
                    orr_blob_get(&blobs, blob, out, lengths[i] - 1).len == 0);
        orr_blob_drop(&blobs, blob);
    }
    assert_int_equal(blobs.chunks.n_used, 0);
    orr_blobs_fini(&blobs);
}

static void blob_beyond_the_bound_keeps_nothing(void **state)
{
    (void)state;
    static const uint8_t big[4096];
    struct orr_blobs blobs;
    uint32_t blob = 99;
    assert_int_equal(orr_blobs_init(&blobs, 1000), ORR_OK);
    struct orr_bytes bytes = {big, sizeof(big)};
    assert_int_equal(orr_blob_put(&blobs, bytes, &blob), ORR_ENOSPC);
    assert_int_equal(blob, 99);
    assert_int_equal(blobs.chunks.n_used, 0);
    orr_blobs_fini(&blobs);
}

static void map_random_use_agrees_with_a_list(void **state)
{
    (void)state;
    enum { CAP = 61, KEYS = 128 };
    struct orr_pool pool;
    struct orr_map map;
    struct item *model[KEYS] = {0};
    assert_int_equal(orr_pool_init(&pool, sizeof(struct item), CAP), ORR_OK);
    assert_int_equal(orr_map_init(&map, &pool, key_of), ORR_OK);
    uint64_t x = 88172645463325252u;
    for (int i = 0; i < 20000; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        unsigned k = (unsigned)(x % KEYS);
        char key[24];
        snprintf(key, sizeof(key), "eu1-%u", k);
        assert_ptr_equal(orr_map_find(&map, orr_str(key)), model[k]);
        if (model[k]) {
            orr_map_remove(&map, model[k]);
            orr_pool_give(&pool, model[k]);
            model[k] = NULL;
        } else if ((model[k] = orr_pool_take(&pool)) != NULL) {
            memcpy(model[k]->key, key, sizeof(key));
            orr_map_add(&map, model[k]);
        }
        assert_int_equal(map.n, pool.n_used);
    }
    orr_map_fini(&map);
    orr_pool_fini(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pool_full_gives_null_and_reuses_zeroed),
        cmocka_unit_test(blob_any_length_comes_back_whole),
        cmocka_unit_test(blob_beyond_the_bound_keeps_nothing),
        cmocka_unit_test(map_random_use_agrees_with_a_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
