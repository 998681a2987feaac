/* SPDX-License-Identifier: Apache-2.0
 * region_entry.h - one ledger entry under construction: records, and the bytes of their keys and values.
 *
 * Nothing here knows what is recorded.  Limits: what one message of the wire may hold (msg.h), with room to spare.
 */
#ifndef ORR_REGION_ENTRY_H
#define ORR_REGION_ENTRY_H

#include "orrery/ids.h"
#include "orrery/msg.h"
#include "orrery/pool.h"

enum { REGION_ENTRY_RECORDS = 4096, REGION_ENTRY_BYTES = 3 << 20 };

struct region_entry {
    struct orr_block records; /* of orr_rec_ledger_record */
    struct orr_block bytes;   /* keys and values, one behind the other */
    uint32_t n;
    size_t used;
};

struct region_entry_mark {
    uint32_t n;
    size_t used;
};

/* Errors: ORR_ENOMEM. */
ORR_NODISCARD enum orr_err region_entry_init(struct region_entry *entry);
void region_entry_fini(struct region_entry *entry);

/* Add a record: an encoded message, bytes as they are, or the end of a key.  Errors: ORR_ENOSPC, nothing was added. */
ORR_NODISCARD enum orr_err region_entry_put(struct region_entry *entry,
                                            const char *key,
                                            const struct orr_msg_desc *desc,
                                            const void *msg);
ORR_NODISCARD enum orr_err region_entry_put_bytes(struct region_entry *entry,
                                                  const char *key,
                                                  struct orr_bytes value);
ORR_NODISCARD enum orr_err region_entry_end(struct region_entry *entry,
                                            const char *key);

/* Go back to an earlier point. */
static inline struct region_entry_mark
region_entry_mark(const struct region_entry *entry)
{
    return (struct region_entry_mark){entry->n, entry->used};
}
static inline void region_entry_rewind(struct region_entry *entry,
                                       struct region_entry_mark mark)
{
    entry->n = mark.n;
    entry->used = mark.used;
}

static inline struct orr_list_ledger_record
region_entry_list(const struct region_entry *entry)
{
    return (struct orr_list_ledger_record){entry->records.at, entry->n};
}

#endif
