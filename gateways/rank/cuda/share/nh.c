/* SPDX-License-Identifier: Apache-2.0
 * nh.c - see nh.h.
 */
#include "nh.h"

#include <string.h>

/* Words in pairs: lane l multiplies x[i] + k[i + 2 l] by x[i + 1] + k[i + 1 + 2 l]. */
static void add_up(const uint32_t *key, const uint32_t *x, size_t n, uint64_t *ret_sums)
{
    uint64_t a = 0, b = 0, c = 0, d = 0;
    for (size_t i = 0; i < n; i += 2) {
        const uint32_t *k = key + i;
        a += (uint64_t)(x[i] + k[0]) * (x[i + 1] + k[1]);
        b += (uint64_t)(x[i] + k[2]) * (x[i + 1] + k[3]);
        c += (uint64_t)(x[i] + k[4]) * (x[i + 1] + k[5]);
        d += (uint64_t)(x[i] + k[6]) * (x[i + 1] + k[7]);
    }
    ret_sums[0] = a;
    ret_sums[1] = b;
    ret_sums[2] = c;
    ret_sums[3] = d;
}

void orri_nh_sums(const struct orri_nh_key *key,
                  const void *data,
                  size_t bytes,
                  uint64_t *ret_sums)
{
    const uint32_t *words = data; /* pages */
    for (size_t at = 0; at < bytes; at += ORRI_NH_BLOCK_BYTES)
        add_up(key->first,
               words + at / sizeof *words,
               ORRI_NH_BLOCK_BYTES / sizeof *words,
               ret_sums + at / ORRI_NH_BLOCK_BYTES * ORRI_NH_LANES);
}

struct orri_hash
orri_nh_of_sums(const struct orri_nh_key *key, const uint64_t *sums, unsigned n_blocks)
{
    uint32_t words[ORRI_NH_BLOCKS_MAX * ORRI_NH_LANES * 2];
    struct orri_hash hash;
    memcpy(words, sums, n_blocks * ORRI_NH_LANES * sizeof *sums);
    add_up(key->second, words, (size_t)n_blocks * ORRI_NH_LANES * 2, hash.lane);
    return hash;
}

struct orri_hash orri_nh(const struct orri_nh_key *key, const void *data, size_t bytes)
{
    uint64_t sums[ORRI_NH_BLOCKS_MAX * ORRI_NH_LANES];
    orri_nh_sums(key, data, bytes, sums);
    return orri_nh_of_sums(key, sums, (unsigned)(bytes / ORRI_NH_BLOCK_BYTES));
}
