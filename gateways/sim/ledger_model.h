/* SPDX-License-Identifier: Apache-2.0
 * ledger_model.h - a model of a region's replicated log, for the simulation: what Raft may do, and nothing that it may not.
 *
 * Replicas keep a log in memory of which a prefix is on disk.  Terms, votes, the up-to-date rule and the commit rule are
 * Raft's; a message between two replicas is one step at a random time, and is lost when they do not reach each other then.
 *   - an entry that is on the disks of a majority survives; one that is not may, or may not, and every log stays a prefix
 *     of one history of committed entries (asserted)
 *   - a leader that is cut off believes to lead until it has not heard a majority for an election timeout
 *   - a crash keeps what was synced and any part of what was not, whole entries; what is committed is known again only when
 *     a leader says so
 *   - a disk that fails takes nothing more: EDISK; its replica neither votes nor leads
 * The model is driven from outside: call ledger_step when ledger_next_ms has come.  Threads: none.
 */
#ifndef SIM_LEDGER_MODEL_H
#define SIM_LEDGER_MODEL_H

#include "image_model.h"

enum { LEDGER_REPLICAS_MAX = 7 };

struct ledger;

struct ledger_config {
    uint64_t seed;
    uint32_t n_replicas;
    /* No partition is between them; crashes are known to the ledger.  NULL: all reach all. */
    bool (*reaches)(void *arg, uint32_t from, uint32_t to);
    void *arg;
};

struct ledger_view { /* what a replica believes: the fields of ledger_news */
    uint64_t term;
    bool is_leading;
    uint32_t leader; /* ORR_NO_REPLICA: not known */
    uint64_t committed;
    uint64_t ticket;
    enum orr_err trouble;
};
#define ORR_NO_REPLICA UINT32_MAX

/* All replicas are down at first.  Errors: ORR_ENOMEM. */
ORR_NODISCARD enum orr_err ledger_new(const struct ledger_config *config,
                                      struct ledger **ret_ledger);
void ledger_free(struct ledger *ledger);

void ledger_start(struct ledger *ledger, uint32_t replica, uint64_t now_ms);
void ledger_crash(struct ledger *ledger, uint32_t replica);
void ledger_disk_set(struct ledger *ledger,
                     uint32_t replica,
                     bool works,
                     uint64_t now_ms);

/* A term that is over, or a ticket that is not the next: nothing happens. */
void ledger_append(struct ledger *ledger,
                   uint32_t replica,
                   const struct orr_msg_ledger_append *msg,
                   uint64_t now_ms);

void ledger_step(struct ledger *ledger, uint64_t now_ms);
uint64_t ledger_next_ms(const struct ledger *ledger);

void ledger_view(const struct ledger *ledger,
                 uint32_t replica,
                 struct ledger_view *ret_view);
/* Of the image after entry i + 1; as many as the image that committed most. */
const uint64_t *ledger_digests(const struct ledger *ledger);
const struct image *ledger_image(const struct ledger *ledger, uint32_t replica);

#endif
