/* SPDX-License-Identifier: Apache-2.0
 * hand_ledger.h - a ledger whose every move the test decides: who leads, when entries are committed, what is lost.
 *
 * One struct hand_ledger is shared by the /edge/ledger actors of all hosts of a region.
 */
#ifndef SIM_HAND_LEDGER_H
#define SIM_HAND_LEDGER_H

#include "orrery/actor.h"

enum { HAND_KEYS = 4096, HAND_OPEN = 1024 };

struct hand_record {
    char key[ORR_KEY_MAX];
    uint8_t *value; /* owned */
    uint32_t len;
    bool is_gone;
    uint64_t index;
};

struct hand_ledger {
    uint64_t term;
    uint64_t leader; /* host id; 0: nobody */
    char leader_name[ORR_NAME_MAX];
    bool is_committing; /* appended entries are committed at once */
    uint32_t trouble;   /* enum orr_err */
    uint64_t committed;
    uint64_t ticket;
    uint64_t refused; /* appends of a term that was over */
    struct hand_record records[HAND_KEYS];
    uint32_t n_records;
    struct orr_msg_ledger_append *open[HAND_OPEN]; /* owned; appended, not committed */
    uint32_t n_open;
};

void hand_ledger_lead(struct hand_ledger *ledger, const char *host);
void hand_ledger_commit(struct hand_ledger *ledger);
void hand_ledger_free(struct hand_ledger *ledger);
/* Keys other than events, and their digest. */
uint64_t hand_ledger_digest(const struct hand_ledger *ledger, uint64_t *ret_keys);

struct hand_ledger_args {
    struct hand_ledger *ledger; /* borrowed: the test's */
    char region_path[ORR_NAME_MAX + 1];
};
extern const struct orr_actor_type hand_ledger_type; /* /edge/ledger */

/* Asks a region once whether its tables are what the ledger says. */
struct hand_check {
    struct orr_addr region;
    bool is_answered;
    uint64_t open;
    uint64_t keys;
    uint64_t digest;
};
extern const struct orr_actor_type hand_check_type; /* args: struct hand_check * */

#endif
