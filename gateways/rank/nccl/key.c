/* SPDX-License-Identifier: Apache-2.0
 * key.c - the name of a communicator that all of its ranks can compute: SipHash-2-4 (Aumasson, Bernstein 2012).
 *
 * 64 bits: a job has thousands of communicators in its life, not billions.
 */
#include "comm.h"

#include <string.h>

static inline uint64_t rotate(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

static void rounds(uint64_t v[4], int n)
{
    while (n-- > 0) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] = rotate(v[0], 32);
        v[2] += v[1];
        v[0] += v[3];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] = rotate(v[2], 32);
    }
}

static void absorb(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    rounds(v, 2);
    v[0] ^= word;
}

uint64_t orri_key(uint64_t seed, const void *data, size_t len)
{
    uint64_t v[4] = {0x736f6d6570736575u ^ seed,
                     0x646f72616e646f6du,
                     0x6c7967656e657261u ^ seed,
                     0x7465646279746573u};
    uint64_t word, last = (uint64_t)len << 56, key;
    const char *at = data;
    size_t left = len;

    for (; left >= 8; at += 8, left -= 8) {
        memcpy(&word, at, 8);
        absorb(v, word);
    }
    word = 0;
    memcpy(&word, at, left);
    absorb(v, last | word);
    v[2] ^= 0xff;
    rounds(v, 4);
    key = v[0] ^ v[1] ^ v[2] ^ v[3];
    return key ? key : 1; /* 0 is no key */
}
