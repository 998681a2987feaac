/* SPDX-License-Identifier: Apache-2.0
 * addr.h - where a message goes.
 *
 * Two forms.  An actor's address is (host, incarnation, slot): it names one life of one
 * actor and never matches another, neither a later actor in the same slot nor the same
 * path after the host restarted.  A named address has incarnation 0 and the hash of a
 * path as slot: it means "whoever has this path on this host now".  Well-known actors
 * are reached by name, so a restart of either side needs no new introduction. Shapes on
 * the wire: docs/protocol.md, "Addresses".
 */
#ifndef ORR_ADDR_H
#define ORR_ADDR_H

#include "orrery/base.h"

struct orr_addr {
    uint64_t host;        /* orr_hash of the host's name; 0 = nobody */
    uint64_t slot;        /* reuse count << 32 | index, or the hash of a path */
    uint32_t incarnation; /* which start of the host; 0 = a named address */
};

static inline struct orr_addr orr_addr_named(struct orr_str host, struct orr_str path)
{
    return (struct orr_addr){.host = orr_hash(host), .slot = orr_hash(path)};
}

static inline bool orr_addr_is_none(struct orr_addr a)
{
    return a.host == 0;
}

static inline bool orr_addr_eq(struct orr_addr a, struct orr_addr b)
{
    return a.host == b.host && a.slot == b.slot && a.incarnation == b.incarnation;
}

#endif
