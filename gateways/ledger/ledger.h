/* SPDX-License-Identifier: Apache-2.0
 * ledger.h - a region's replicated ledger, as an op table (docs/adr/0008-ledger.md).
 *
 * START      an implementation opens (ledger_raft.h, ledger_mem.h); then attach a sink
 * OPERATION  whoever leads appends entries; news say what is committed; everybody reads
 * STOP       attach(NULL), close: requests that still wait get ORR_EGONE
 * FAILURES   of the disk: news carry ORR_EDISK and a text, and nothing is reported
 *            committed until it is durable; it recovers by itself.  Of leadership: news
 *            carry the new term; whatever of the old term was not reported may or may
 *            not be in the ledger.
 *
 * An entry is an encoded `ledger_append`; term and ticket in it say whose it is.  The
 * ledger itself owns the keys voter/HOST (value: an encoded `voter_add`).
 */
#ifndef ORR_LEDGER_H
#define ORR_LEDGER_H

#include "orrery/ids.h"
#include "orrery/msg.h"

enum {
    ORR_LEDGER_PAGE_BYTES = 512 << 10, /* of one page, or one entry if that is longer */
    ORR_LEDGER_VOTERS_MAX = 9,
    ORR_LEDGER_ADDRESS_MAX = 128, /* bytes of an address or endpoint, with its NUL */
};

struct orr_ledger; /* defined below; an implementation embeds it first */

struct orr_ledger_news {
    uint64_t term;
    bool is_leading;           /* and all entries of earlier terms are in the image */
    char leader[ORR_NAME_MAX]; /* its host; "": not known */
    uint64_t committed;        /* index of the newest entry in the image */
    uint64_t ticket; /* all of this term's own entries up to here are durable */
    struct orr_error trouble; /* code ORR_OK: none */
};

struct orr_ledger_voter {
    char host[ORR_NAME_MAX];
    char address[ORR_LEDGER_ADDRESS_MAX];
    char endpoint[ORR_LEDGER_ADDRESS_MAX];
    bool is_leading;
    bool is_voting;
};

struct orr_ledger_info {
    struct orr_ledger_news news;
    uint64_t keys;
    uint64_t image_bytes;
    uint64_t digest; /* of the image at news.committed */
    struct orr_ledger_voter voters[ORR_LEDGER_VOTERS_MAX];
    uint32_t n_voters;
};

/* Where one reader is.  Zeroed at first; the ledger keeps it. */
struct orr_ledger_reader {
    uint64_t last;  /* where its newest page ended */
    uint64_t since; /* it has seen every key that went at or before this index */
};

/* Called from one thread of the ledger's, never by two at once (the memory backend: from
 * the thread that calls it).  Only changes; of several only the last may be told. */
struct orr_ledger_sink {
    void (*news)(void *arg, const struct orr_ledger_news *news);
    void *arg;
};

/* How a request ended; exactly once, from the ledger's thread or from the call itself. */
typedef void (*orr_ledger_done_f)(void *arg, const struct orr_error *result);

/* Sees a page; the ledger stands still meanwhile, and what the page points to lives until
 * this returns. */
typedef void (*orr_ledger_page_f)(void *arg, const struct orr_msg_ledger_page *page);

/* All calls may come from any thread and return without waiting for the disk. */
struct orr_ledger_ops {
    /* Tell the present state, then each change; NULL: no more calls once this returns. */
    void (*attach)(struct orr_ledger *ledger, const struct orr_ledger_sink *sink);

    /* One entry, copied.  Tickets of a term are 1, 2, 3, ...; one that is out of order is
     * dropped and begins a new term; an entry of a term that is over is dropped. */
    void (*append)(struct orr_ledger *ledger,
                   uint64_t term,
                   uint64_t ticket,
                   const uint8_t *entry,
                   size_t len);

    /* Records changed after an index; whole entries.  Errors: ORR_ENOMEM. */
    enum orr_err (*read)(struct orr_ledger *ledger,
                         struct orr_ledger_reader *reader,
                         uint64_t after,
                         orr_ledger_page_f page,
                         void *arg);

    void (*info)(struct orr_ledger *ledger, struct orr_ledger_info *ret_info);

    /* Idempotent.  Errors: ORR_ENOTLEADER (the text names who leads), ORR_EINVAL,
     * ORR_EBUSY another change goes on, ORR_ETIMEOUT, ORR_EUNREACH the host did not catch
     * up, ORR_ENOSPC, ORR_EGONE closed, ORR_ENOSYS. */
    void (*voter_add)(struct orr_ledger *ledger,
                      struct orr_str host,
                      struct orr_str address,
                      struct orr_str endpoint,
                      orr_ledger_done_f done,
                      void *arg);
    void (*voter_remove)(struct orr_ledger *ledger,
                         struct orr_str host,
                         orr_ledger_done_f done,
                         void *arg);
    /* host empty: whoever is most up to date. */
    void (*leader_move)(struct orr_ledger *ledger,
                        struct orr_str host,
                        orr_ledger_done_f done,
                        void *arg);

    void (*close)(struct orr_ledger *ledger);
};

struct orr_ledger {
    const struct orr_ledger_ops *ops;
};

#endif
