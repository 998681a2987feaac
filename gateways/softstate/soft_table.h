/* SPDX-License-Identifier: Apache-2.0
 * soft_table.h - the keys that a host publishes: bounded, newest value of each.
 *
 * An entry is listed as dirty when the backend does not have its newest value, or will
 * lose it soon.  Threads: the backend's lock guards it.
 */
#ifndef ORR_SOFT_TABLE_H
#define ORR_SOFT_TABLE_H

#include "orrery/map.h"
#include "softstate.h"

struct soft_entry {
    char key[ORR_SOFT_KEY_MAX];
    uint8_t *value; /* owned */
    uint32_t len;
    uint32_t next; /* of the dirty list */
    uint64_t life; /* tells two entries in one place apart */
    uint64_t version;
    uint64_t owner;
    uint64_t ttl_ms;
    uint64_t put_ms;
    uint64_t written_ms; /* 0: never */
    bool is_dirty;       /* in the list */
    bool is_gone;        /* to be removed from the backend, then from here */
    bool is_unsynced;    /* not written since all was to be written anew */
};

struct soft_table {
    struct orr_pool entries;
    struct orr_map by_key;
    uint64_t ttl_ms;
    bool has_backend; /* entries are written somewhere: the list is used */
    uint64_t next_life;
    uint32_t dirty_head, dirty_tail;
    uint32_t n_unsynced;
    uint64_t refused;
};

/* Errors: ORR_ENOMEM. */
ORR_NODISCARD enum orr_err
soft_table_init(struct soft_table *table, uint32_t keys_max, uint64_t ttl_ms);
void soft_table_fini(struct soft_table *table);

/* Errors: as orr_softstate_ops.put. */
enum orr_err soft_table_put(struct soft_table *table,
                            struct orr_str key,
                            struct orr_bytes value,
                            uint64_t ttl_ms,
                            uint64_t owner,
                            uint64_t now_ms);
/* Also from a backend that has it from somebody else. */
void soft_table_remove(struct soft_table *table, struct orr_str key, uint64_t now_ms);
void soft_table_drop(struct soft_table *table, uint64_t owner);
uint64_t soft_table_scan(const struct soft_table *table,
                         uint64_t cursor,
                         orr_softstate_visit_f visit,
                         void *arg);

/* Let lapse what was not put again, list what the backend will soon lose. */
void soft_table_tick(struct soft_table *table, uint64_t now_ms);
/* The backend has nothing any more. */
void soft_table_all_dirty(struct soft_table *table);
/* Take the next of the list; ORR_NONE: it is empty. */
uint32_t soft_table_take_dirty(struct soft_table *table);
/* The backend has that version now, or has removed it; or it has refused. */
void soft_table_written(struct soft_table *table,
                        uint32_t index,
                        uint64_t life,
                        uint64_t version,
                        uint64_t now_ms);
void soft_table_not_written(struct soft_table *table, uint32_t index, uint64_t life);

#endif
