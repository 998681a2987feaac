/* SPDX-License-Identifier: Apache-2.0
 * ledger_raft.h - the ledger on disk, kept by one voter or several: libraft on libuv.
 *
 * One thread of its own runs libraft.  Everything lives in one directory, which one process
 * may use at a time.  A single voter without an address opens no socket.
 */
#ifndef ORR_LEDGER_RAFT_H
#define ORR_LEDGER_RAFT_H

#include "ledger.h"

struct orr_ledger_raft_voter {
    const char *host;
    const char *address;  /* IP:PORT; "" for a single voter */
    const char *endpoint; /* "" where there is none */
};

struct orr_ledger_raft_config {
    const char *dir; /* absolute; made when its parent exists */
    struct orr_ledger_raft_voter self;
    /* Of the very first start, self among them; the same on all of them.  Ignored once the
     * directory has a ledger.  n_voters 0: self alone. */
    const struct orr_ledger_raft_voter *voters;
    uint32_t n_voters;
    bool is_joining;      /* start no ledger: wait to be added to one */
    bool is_alone;        /* the other voters are gone for good: this one, as it stands,
                              becomes the only one.  Errors: ORR_ENOENT no ledger here */
    uint32_t election_ms; /* 0: 600 */
    uint32_t heartbeat_ms; /* 0: 100 */
    uint64_t
        snapshot_log_bytes; /* log since the newest snapshot that is worth a snapshot,
                                    if the image is smaller; 0: 64 MiB */
};

/* All strings are copied.  Starts the thread; leadership and so on come as news.
 * Errors: ORR_EINVAL (an address, a voter), ORR_EIO (the directory), ORR_EDISK damaged
 * files: err names file and remedy; ORR_ENOMEM. */
ORR_NODISCARD enum orr_err
orr_ledger_raft_open(const struct orr_ledger_raft_config *config,
                     struct orr_ledger **ret_ledger,
                     struct orr_error *err);

#endif
