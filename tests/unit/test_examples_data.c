/* SPDX-License-Identifier: Apache-2.0
 * test_digits_data.c - the digits example's loader, shuffle and shares.
 */
#include "data.h"
#include "orr_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Loads `text` as a file; what it returns is data_load's. */
static bool load_text(const char *text, struct data *ret, char err[DATA_ERR_MAX])
{
    char path[] = "/tmp/digits-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    bool ok = data_load(ret, path, err);
    unlink(path);
    return ok;
}

/* `n` good rows; row r has the label r % 10 and r % 17 in every pixel. */
static char *good_rows(unsigned n)
{
    char *text = calloc(n, 256), *p = text;
    for (unsigned r = 0; r < n; r++) {
        for (unsigned k = 0; k < DATA_PIXELS; k++)
            p += sprintf(p, "%u,", r % 17);
        p += sprintf(p, "%u\n", r % 10);
    }
    return text;
}

static void load_shipped_file_splits_every_fifth_row(void **state)
{
    (void)state;
    char err[DATA_ERR_MAX] = "";
    struct data d;
    if (!data_load(&d, DIGITS_CSV, err))
        fail_msg("%s", err);
    assert_int_equal(d.train.n, 1437);
    assert_int_equal(d.test.n, 360);
    assert_int_equal(d.test.labels[0], 0);  /* row 1 of the file */
    assert_int_equal(d.train.labels[0], 1); /* row 2 */
    assert_true(d.test.pixels[2] == 5.0f / 16.0f);
    data_fini(&d);
}

static void load_good_rows_keeps_pixels_with_labels(void **state)
{
    (void)state;
    char err[DATA_ERR_MAX];
    char *text = good_rows(23);
    struct data d;
    assert_true(load_text(text, &d, err));
    free(text);
    assert_int_equal(d.test.n, 5);
    assert_int_equal(d.train.n, 18);
    for (uint32_t i = 0, test = 0, train = 0; i < 23; i++) {
        const struct rows *r = i % 5 == 0 ? &d.test : &d.train;
        uint32_t at = i % 5 == 0 ? test++ : train++;
        assert_int_equal(r->labels[at], i % 10);
        assert_true(r->pixels[at * DATA_PIXELS + 63] == (float)(i % 17) / 16.0f);
    }
    data_fini(&d);
}

static void load_bad_text_names_row_and_column(void **state)
{
    (void)state;
    static const struct {
        unsigned row, column; /* of the byte that is replaced */
        const char *text, *want;
    } cases[] = {
        {0, 3, "x", ":1: column 4:"},
        {2, 0, "-", ":3: column 1:"},
        {1, 63, "77", ":2: column 64:"},
        {1, 64, "10\n", ":2: column 65:"},
        {3, 20, "\n", ":4: column 21:"},
        {0, 64, "0,0\n", ":1: column 65:"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char err[DATA_ERR_MAX] = "";
        char text[4096] = "";
        for (unsigned r = 0; r < 5; r++)
            for (unsigned k = 0; k <= DATA_PIXELS; k++) {
                bool bad = r == cases[i].row && k == cases[i].column;
                strcat(text, bad ? cases[i].text : "0");
                if (!bad || k < DATA_PIXELS)
                    strcat(text, k < DATA_PIXELS ? "," : "\n");
            }
        struct data d = {.train.n = 77};
        assert_false(load_text(text, &d, err));
        assert_int_equal(d.train.n, 77);
        if (!strstr(err, cases[i].want))
            fail_msg("want '%s' in '%s'", cases[i].want, err);
    }
}

static void load_without_rows_to_train_on_is_refused(void **state)
{
    (void)state;
    char err[DATA_ERR_MAX];
    struct data d;
    char *text = good_rows(1);
    assert_false(load_text(text, &d, err));
    assert_non_null(strstr(err, "at least two"));
    free(text);
    assert_false(load_text("", &d, err));
    assert_false(data_load(&d, "/nonexistent/digits.csv", err));
    assert_non_null(strstr(err, "--data"));
}

static void shuffle_is_a_permutation_fixed_by_seed_and_epoch(void **state)
{
    (void)state;
    enum { N = 1437 };
    static uint32_t a[N], b[N];
    static bool seen[N];
    data_shuffle(a, N, 7, 3);
    for (uint32_t i = 0; i < N; i++) {
        assert_true(a[i] < N && !seen[a[i]]);
        seen[a[i]] = true;
    }
    data_shuffle(b, N, 7, 3);
    assert_memory_equal(a, b, sizeof a);
    data_shuffle(b, N, 7, 4);
    assert_memory_not_equal(a, b, sizeof a);
    data_shuffle(b, N, 8, 3);
    assert_memory_not_equal(a, b, sizeof a);
}

static void shares_cover_all_rows_without_overlap(void **state)
{
    (void)state;
    for (uint32_t world = 1; world <= 9; world++)
        for (uint32_t n = 0; n < 40; n++) {
            uint32_t next = 0;
            for (uint32_t rank = 0; rank < world; rank++) {
                uint32_t first, count;
                data_share(n, rank, world, &first, &count);
                assert_int_equal(first, next);
                assert_in_range(count, n / world, (n + world - 1) / world);
                next = first + count;
            }
            assert_int_equal(next, n);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(load_shipped_file_splits_every_fifth_row),
        cmocka_unit_test(load_good_rows_keeps_pixels_with_labels),
        cmocka_unit_test(load_bad_text_names_row_and_column),
        cmocka_unit_test(load_without_rows_to_train_on_is_refused),
        cmocka_unit_test(shuffle_is_a_permutation_fixed_by_seed_and_epoch),
        cmocka_unit_test(shares_cover_all_rows_without_overlap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
