/* SPDX-License-Identifier: Apache-2.0
 * soft_reader.h - read soft state out of Redis, for commands that only look; and check
 * what was read, wherever it came from.
 *
 * What is read may be missing, old or wrong: a value that does not decode, or that is
 * not what its key says, is skipped and counted.  Every call has a deadline and its
 * memory a bound.  Threads: one per reader.  Blocking: up to the deadline.
 */
#ifndef ORR_SOFT_READER_H
#define ORR_SOFT_READER_H

#include "orrery/soft.h"

struct orr_soft_source { /* lines redis=, user=, password_file= of a file */
    char redis[256];
    char user[64];
    char password_file[4096];
};

/* Errors: ORR_ENOENT no such file, ORR_EINVAL it names no Redis. */
ORR_NODISCARD enum orr_err orr_soft_source_read(const char *file,
                                                struct orr_soft_source *ret_source,
                                                struct orr_error *err);

struct orr_soft_reader;

/* Errors: ORR_EUNREACH, ORR_ETIMEOUT, ORR_EPERM, ORR_EINVAL, ORR_EIO, ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orr_soft_reader_new(const struct orr_soft_source *source,
                                               uint64_t deadline_ms,
                                               struct orr_soft_reader **ret_reader,
                                               struct orr_error *err);
void orr_soft_reader_free(struct orr_soft_reader *reader);

/* msg is of orr_soft_desc(kind), borrowed until this returns.  false: stop. */
typedef bool (*orr_soft_visit_f)(void *arg,
                                 enum orr_soft_kind kind,
                                 struct orr_str key,
                                 const void *msg);

struct orr_soft_count {
    uint64_t keys;    /* of these kinds */
    uint64_t garbage; /* skipped */
};

/* Visit the values of these kinds (bits 1 << kind) of a region, each at least once, in
 * no order; a key that is read while Redis moves it may come twice.  Counts are added to
 * *io_count.  SCAN in steps: no step holds Redis up.
 * Errors: ORR_EUNREACH, ORR_ETIMEOUT, ORR_EPERM, ORR_EPROTO. */
ORR_NODISCARD enum orr_err orr_soft_reader_scan(struct orr_soft_reader *reader,
                                                struct orr_str region,
                                                unsigned kinds,
                                                uint64_t deadline_ms,
                                                orr_soft_visit_f visit,
                                                void *arg,
                                                struct orr_soft_count *io_count,
                                                struct orr_error *err);

/* One key of the region, the same way; a missing one is not visited. */
ORR_NODISCARD enum orr_err orr_soft_reader_get(struct orr_soft_reader *reader,
                                               struct orr_str region,
                                               const struct orr_soft_key *key,
                                               uint64_t deadline_ms,
                                               orr_soft_visit_f visit,
                                               void *arg,
                                               struct orr_soft_count *io_count,
                                               struct orr_error *err);

/* Check one value and visit it.  Keys of other kinds and regions are passed over.
 * Returns what visit returned, true when it was not called. */
bool orr_soft_take(struct orr_str region,
                   unsigned kinds,
                   struct orr_str key,
                   struct orr_bytes value,
                   orr_soft_visit_f visit,
                   void *arg,
                   struct orr_soft_count *io_count);

#endif
