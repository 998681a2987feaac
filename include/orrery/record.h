/* SPDX-License-Identifier: Apache-2.0
 * record.h - the digest by which a region's tables and its ledger's image are compared.
 *
 * Both add up (mod 2^64) one number for each record; equal sums mean equal tables.  Events and
 * voters count 0: the tables do not have them.  Source: docs/adr/0008-ledger.md.
 */
#ifndef ORR_RECORD_H
#define ORR_RECORD_H

#include "orrery/msg.h"

static inline uint64_t orr_record_digest(struct orr_str key, struct orr_bytes value)
{
    if ((key.len >= 6 && memcmp(key.ptr, "event/", 6) == 0) ||
        (key.len >= 6 && memcmp(key.ptr, "voter/", 6) == 0))
        return 0;
    uint64_t h = orr_hash(key);
    h ^= orr_hash((struct orr_str){(const char *)value.ptr, value.len}) +
         0x9e3779b97f4a7c15u + (h << 6) + (h >> 2);
    h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u; /* spread, so that sums do not cancel */
    h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
    return h ^ (h >> 31);
}

#endif
