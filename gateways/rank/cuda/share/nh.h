/* SPDX-License-Identifier: Apache-2.0
 * nh.h - the hash that names what is in a piece of memory.
 *
 * NH of UMAC (Black, Halevi, Krawczyk, Krovetz, Rogaway, CRYPTO 99): sums of products of pairs of 32-bit words, each with a word of the
 * key added, modulo 2^64; four such sums, each with the key two words further on (Toeplitz).  Every block of 16 KiB gives four sums; all
 * sums of a piece are hashed once more in the same way.  With keys drawn at random two pieces that differ have the same hash with a
 * probability of at most 2^-127, whatever is in them, if that does not depend on the keys.
 *
 * The sums may be added up in any order, so a device's threads can: nh.ptx does the first level, this file both.
 */
#ifndef ORR_RANK_CUDA_SHARE_NH_H
#define ORR_RANK_CUDA_SHARE_NH_H

#include "board.h"

enum {
    ORRI_NH_LANES = 4,
    ORRI_NH_BLOCK_BYTES = 16384,
    ORRI_NH_BLOCKS_MAX = 128, /* pieces of 2 MiB */
    ORRI_NH_FIRST = ORRI_NH_BLOCK_BYTES / 4 + 2 * (ORRI_NH_LANES - 1),
    ORRI_NH_SECOND = ORRI_NH_BLOCKS_MAX * ORRI_NH_LANES * 2 + 2 * (ORRI_NH_LANES - 1),
};

struct orri_nh_key { /* all of it random; the same in all who compare */
    uint32_t first[ORRI_NH_FIRST];
    uint32_t second[ORRI_NH_SECOND];
};

/* The sums of all blocks, ORRI_NH_LANES for each.  bytes: whole blocks. */
void orri_nh_sums(const struct orri_nh_key *key,
                  const void *data,
                  size_t bytes,
                  uint64_t *ret_sums);
/* The hash, from the sums of n_blocks. */
struct orri_hash
orri_nh_of_sums(const struct orri_nh_key *key, const uint64_t *sums, unsigned n_blocks);
/* Both, of at most ORRI_NH_BLOCKS_MAX blocks. */
struct orri_hash orri_nh(const struct orri_nh_key *key, const void *data, size_t bytes);

#endif
