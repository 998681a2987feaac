/* SPDX-License-Identifier: Apache-2.0
 * data.c - reading, splitting and shuffling the digits.
 */
#include "data.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIXEL_MAX = 16, TEST_EVERY = 5, ROW_COLUMNS = DATA_PIXELS + 1 };

__attribute__((format(printf, 2, 3))) static bool
refuse(char err[DATA_ERR_MAX], const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err, DATA_ERR_MAX, fmt, ap);
    va_end(ap);
    return false;
}

static bool rows_push(struct rows *r, const long cells[ROW_COLUMNS])
{
    if ((r->n & (r->n - 1)) == 0) { /* full at every power of two */
        size_t room = r->n ? 2 * (size_t)r->n : 1;
        float *pixels = realloc(r->pixels, room * DATA_PIXELS * sizeof *pixels);
        if (!pixels)
            return false;
        r->pixels = pixels;
        int32_t *labels = realloc(r->labels, room * sizeof *labels);
        if (!labels)
            return false;
        r->labels = labels;
    }
    for (size_t k = 0; k < DATA_PIXELS; k++)
        r->pixels[r->n * (size_t)DATA_PIXELS + k] = (float)cells[k] / (float)PIXEL_MAX;
    r->labels[r->n++] = (int32_t)cells[DATA_PIXELS];
    return true;
}

/* Returns the number of the first column that is wrong, or 0. */
static unsigned parse_row(const char *line, long cells[ROW_COLUMNS])
{
    for (unsigned k = 0; k < ROW_COLUMNS; k++) {
        char *end;
        bool is_label = k == DATA_PIXELS;
        cells[k] = strtol(line, &end, 10);
        bool is_end = is_label ? strspn(end, "\r\n") == strlen(end) : *end == ',';
        if (end == line || !is_end || cells[k] < 0 ||
            cells[k] > (is_label ? DATA_CLASSES - 1 : PIXEL_MAX))
            return k + 1;
        line = end + 1;
    }
    return 0;
}

static bool
load_rows(struct data *d, FILE *file, const char *path, char err[DATA_ERR_MAX])
{
    char line[512]; /* 65 columns of at most 3 characters fit twice */
    long cells[ROW_COLUMNS];
    for (uint32_t n = 0; fgets(line, sizeof line, file); n++) {
        unsigned column = parse_row(line, cells);
        if (column)
            return refuse(
                err,
                "%s:%u: column %u: want 64 pixels of 0..16 and a label of 0..9",
                path,
                n + 1,
                column);
        if (n == DATA_ROWS_MAX)
            return refuse(err, "%s: more than %d rows", path, DATA_ROWS_MAX);
        if (!rows_push(n % TEST_EVERY == 0 ? &d->test : &d->train, cells))
            return refuse(err, "%s: out of memory at row %u", path, n + 1);
    }
    if (ferror(file))
        return refuse(err, "%s: %s", path, strerror(errno));
    if (d->train.n == 0)
        return refuse(err, "%s: no rows to train on: need at least two", path);
    return true;
}

bool data_load(struct data *ret, const char *path, char err[DATA_ERR_MAX])
{
    struct data d = {0};
    FILE *file = fopen(path, "re");
    if (!file)
        return refuse(
            err, "%s: %s: name the file with --data PATH", path, strerror(errno));
    bool ok = load_rows(&d, file, path, err);
    fclose(file);
    if (ok)
        *ret = d;
    else
        data_fini(&d);
    return ok;
}

void data_fini(struct data *d)
{
    free(d->train.pixels);
    free(d->train.labels);
    free(d->test.pixels);
    free(d->test.labels);
    *d = (struct data){0};
}

uint64_t data_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

uint32_t data_random_below(uint64_t *state, uint32_t limit)
{
    return (uint32_t)(((data_random(state) >> 32) * limit) >> 32);
}

void data_shuffle(uint32_t *ids, uint32_t n, uint64_t seed, uint32_t epoch)
{
    uint64_t state = seed;
    state = data_random(&state) + epoch;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t j = data_random_below(&state, i + 1);
        ids[i] = i;
        ids[i] = ids[j];
        ids[j] = i;
    }
}

void data_share(
    uint32_t n, uint32_t rank, uint32_t world, uint32_t *ret_first, uint32_t *ret_n)
{
    uint32_t first = (uint32_t)((uint64_t)n * rank / world);
    *ret_n = (uint32_t)((uint64_t)n * (rank + 1) / world) - first;
    *ret_first = first;
}
