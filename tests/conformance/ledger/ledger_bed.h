/* SPDX-License-Identifier: Apache-2.0
 * ledger_bed.h - ledgers to test: one in memory, one voter on disk, or three of them in one
 * process.  Waits end with an event or fail the test after a deadline.
 */
#ifndef LEDGER_BED_H
#define LEDGER_BED_H

#include "orr_test.h"

#include "ledger_mem.h"
#include "ledger_raft.h"

#include <pthread.h>

enum { BED_MAX = 4, WAIT_MS = 30000 };

enum bed_kind { BED_MEM, BED_RAFT1, BED_RAFT3 };

struct bed_host {
    char name[16], address[32], endpoint[48], dir[256];
    struct orr_ledger *ledger; /* NULL: down */
    struct orr_ledger_news news;
    uint64_t told;   /* the highest ticket that was ever reported */
    uint64_t ticket; /* of the newest entry that the test appended in news.term */
    uint64_t term;   /* of those */
};

struct bed {
    enum bed_kind kind;
    char root[128];
    struct bed_host hosts[BED_MAX];
    unsigned n;         /* voters at the start */
    bool has_addresses; /* also when it is one */
    uint32_t election_ms, heartbeat_ms;
    uint64_t snapshot_log_bytes;
    pthread_mutex_t lock; /* guards news */
    pthread_cond_t told;
};

void bed_init(struct bed *bed, enum bed_kind kind);
void bed_fini(struct bed *bed);
/* Opens all that are down and, unless they never can, waits until one leads. */
void bed_open(struct bed *bed);
enum orr_err
bed_open_host(struct bed *bed, unsigned i, bool is_joining, struct orr_error *err);
void bed_close_host(struct bed *bed, unsigned i);

/* The index of the host that leads, once there is one. */
unsigned bed_leader(struct bed *bed);
unsigned bed_leader_above(struct bed *bed,
                          uint64_t term); /* in a later term than that */
struct orr_ledger_news bed_news(struct bed *bed, unsigned i);
/* Wait until the newest news of a host are so. */
typedef bool (*bed_is_f)(const struct orr_ledger_news *news, uint64_t arg);
bool bed_wait(struct bed *bed, unsigned i, bed_is_f is, uint64_t arg);
/* Wait until the newest news of all together are so.  Called under the lock. */
bool bed_wait_all(struct bed *bed, bool (*is)(const struct bed *bed));

/* Append one entry of one record to a host that leads; returns its ticket. */
uint64_t bed_put(struct bed *bed, unsigned i, const char *key, const char *value);
uint64_t bed_put_all(struct bed *bed,
                     unsigned i,
                     const struct orr_rec_ledger_record *records,
                     uint32_t n);
/* Put and wait until it is durable. */
void bed_put_wait(struct bed *bed, unsigned i, const char *key, const char *value);
bool bed_wait_ticket(struct bed *bed, unsigned i, uint64_t ticket);

/* What a reader that starts at 0 finds: value of a key, or NULL.  Static buffer. */
const char *bed_get(struct bed *bed, unsigned i, const char *key);
/* Requests; wait for the answer. */
struct orr_error bed_add(struct bed *bed, unsigned i, unsigned whom);
struct orr_error bed_remove(struct bed *bed, unsigned i, const char *host);
struct orr_error bed_move(struct bed *bed, unsigned i, const char *host);
/* Wait until two hosts are at the same index; then their digests are compared. */
void bed_expect_equal(struct bed *bed, unsigned a, unsigned b);

uint64_t bed_now_ms(void);

#endif
