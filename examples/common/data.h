/* SPDX-License-Identifier: Apache-2.0
 * data.h - the handwritten digits, their fixed split, and who sees which row when.
 *
 * Every fifth row of the file, from the first, is a test row: 1,437 rows to train on
 * and 360 to test with. All functions are pure but for data_load, which reads one file.
 */
#ifndef EXAMPLE_DATA_H
#define EXAMPLE_DATA_H

#include <stdbool.h>
#include <stdint.h>

enum {
    DATA_PIXELS = 64,
    DATA_CLASSES = 10,
    DATA_ROWS_MAX = 1 << 20,
    DATA_ERR_MAX = 256
};

struct rows {
    uint32_t n;
    float *pixels;   /* owned: n x 64, 0 to 1 */
    int32_t *labels; /* owned: n, 0 to 9 */
};

struct data {
    struct rows train, test;
};

/* Reads 65 columns a row: 64 pixels of 0..16, then the label. False, with *ret
 * untouched and the file, line and column in `err`, when that is not what the file
 * holds. */
bool data_load(struct data *ret, const char *path, char err[DATA_ERR_MAX]);
void data_fini(struct data *d);

/* The next number of splitmix64, and one below `limit`. */
uint64_t data_random(uint64_t *state);
uint32_t data_random_below(uint64_t *state, uint32_t limit);

/* ids[0..n) becomes the order of the rows in `epoch`: the same for the same seed. */
void data_shuffle(uint32_t *ids, uint32_t n, uint64_t seed, uint32_t epoch);

/* The contiguous share [*ret_first, *ret_first + *ret_n) of n rows that is this rank's.
 */
void data_share(
    uint32_t n, uint32_t rank, uint32_t world, uint32_t *ret_first, uint32_t *ret_n);

#endif
