/* SPDX-License-Identifier: Apache-2.0
 * record.h - the digest by which a region's tables and its ledger's image are compared.
 *
 * Both add up (mod 2^64) one number for each record; equal sums mean equal tables.  Events and
 * voters count 0: the tables do not have them.  Against accidents, not against malice.
 * Source: docs/adr/0008-ledger.md.
 */
#ifndef ORR_RECORD_H
#define ORR_RECORD_H

#include "orrery/msg.h"

__extension__ typedef unsigned __int128 orr_u128;

static inline uint64_t orr_digest_mix(uint64_t a, uint64_t b)
{
    const orr_u128 product =
        (orr_u128)(a ^ 0x9e3779b97f4a7c15u) * (b ^ 0xbf58476d1ce4e5b9u);
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Of bytes on one kind of machine: words are taken as the machine has them. */
static inline uint64_t orr_digest_bytes(uint64_t seed, const uint8_t *bytes, size_t len)
{
    uint64_t h = orr_digest_mix(seed, len);
    uint64_t word;
    for (; len >= sizeof word; len -= sizeof word, bytes += sizeof word) {
        memcpy(&word, bytes, sizeof word);
        h = orr_digest_mix(h, word);
    }
    word = 0;
    if (len)
        memcpy(&word, bytes, len);
    return orr_digest_mix(h, word);
}

static inline uint64_t orr_record_digest(struct orr_str key, struct orr_bytes value)
{
    if (key.len >= 6 &&
        (memcmp(key.ptr, "event/", 6) == 0 || memcmp(key.ptr, "voter/", 6) == 0))
        return 0;
    return orr_digest_bytes(
        orr_digest_bytes(0, (const uint8_t *)key.ptr, key.len), value.ptr, value.len);
}

#endif
