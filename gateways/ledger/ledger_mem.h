/* SPDX-License-Identifier: Apache-2.0
 * ledger_mem.h - the ledger in memory: one voter that always leads, for tests and simulation.
 *
 * Everything happens inside the call: an entry is committed when append returns, and the
 * sink has been called.  So it is deterministic when its callers are.
 */
#ifndef ORR_LEDGER_MEM_H
#define ORR_LEDGER_MEM_H

#include "ledger.h"

/* Errors: ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orr_ledger_mem_open(const char *host,
                                               struct orr_ledger **ret_ledger);

/* As after a crash of the host: a new term; whoever led must begin again. */
void orr_ledger_mem_new_term(struct orr_ledger *ledger);

/* As if the disk failed: nothing is committed, and news say why, until it is ORR_OK again;
 * then a new term begins, and what was appended meanwhile is lost. */
void orr_ledger_mem_fail(struct orr_ledger *ledger, enum orr_err code);

#endif
