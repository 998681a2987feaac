/* SPDX-License-Identifier: Apache-2.0
 * region_entry.c - see region_entry.h.
 */
#include "region_entry.h"

enum orr_err region_entry_init(struct region_entry *entry)
{
    enum orr_err err = orr_block_init(
        &entry->records, REGION_ENTRY_RECORDS * sizeof(struct orr_rec_ledger_record));
    if (err == ORR_OK)
        err = orr_block_init(&entry->bytes, REGION_ENTRY_BYTES);
    if (err != ORR_OK)
        region_entry_fini(entry);
    return err;
}

void region_entry_fini(struct region_entry *entry)
{
    orr_block_fini(&entry->records);
    orr_block_fini(&entry->bytes);
}

static uint8_t *end_of(const struct region_entry *entry)
{
    return (uint8_t *)entry->bytes.at + entry->used;
}

/* The next record, its key copied; it counts once its value is there. */
static struct orr_rec_ledger_record *start(struct region_entry *entry, const char *key)
{
    size_t len = strlen(key);
    ORR_ASSERT(len < ORR_KEY_MAX);
    if (entry->n == REGION_ENTRY_RECORDS || entry->used + len > entry->bytes.size)
        return NULL;
    struct orr_rec_ledger_record *record =
        (struct orr_rec_ledger_record *)entry->records.at + entry->n;
    memcpy(end_of(entry), key, len);
    *record = (struct orr_rec_ledger_record){
        .key = {(const char *)end_of(entry), (uint32_t)len}};
    return record;
}

enum orr_err region_entry_put(struct region_entry *entry,
                              const char *key,
                              const struct orr_msg_desc *desc,
                              const void *msg)
{
    struct orr_rec_ledger_record *record = start(entry, key);
    if (!record)
        return ORR_ENOSPC;
    uint8_t *at = end_of(entry) + record->key.len;
    size_t room = entry->bytes.size - entry->used - record->key.len;
    size_t len;
    if (orr_msg_encode(desc, msg, at, room, &len) != ORR_OK || len > ORR_BYTES_MAX)
        return ORR_ENOSPC;
    record->value = (struct orr_bytes){at, (uint32_t)len};
    entry->used += record->key.len + len;
    entry->n++;
    return ORR_OK;
}

enum orr_err region_entry_put_bytes(struct region_entry *entry,
                                    const char *key,
                                    struct orr_bytes value)
{
    struct orr_rec_ledger_record *record = start(entry, key);
    if (!record || value.len > ORR_BYTES_MAX ||
        value.len > entry->bytes.size - entry->used - record->key.len)
        return ORR_ENOSPC;
    uint8_t *at = end_of(entry) + record->key.len;
    if (value.len)
        memcpy(at, value.ptr, value.len);
    record->value = (struct orr_bytes){at, value.len};
    entry->used += record->key.len + value.len;
    entry->n++;
    return ORR_OK;
}

enum orr_err region_entry_end(struct region_entry *entry, const char *key)
{
    struct orr_rec_ledger_record *record = start(entry, key);
    if (!record)
        return ORR_ENOSPC;
    record->is_gone = true;
    entry->used += record->key.len;
    entry->n++;
    return ORR_OK;
}
