/* SPDX-License-Identifier: Apache-2.0
 * store.h - checkpoint chunks in a directory: content-addressed, deduplicated, verified.
 *
 * A file is cut into chunks, a chunk is named by the BLAKE2b-256 of its content and kept once,
 * whoever has it and whenever.  A *part* is an object that lists files and their chunks; the
 * hash of the part is its name, and is all that a caller keeps.  What is in the directory, and why
 * a crash at any point leaves every earlier part whole: docs/checkpoint-store.md.
 *
 * Several processes, on several machines with a shared filesystem, may have one directory open
 * at once.  Every function blocks, some for as long as the disk takes; any thread may call, and
 * calls run beside each other.  A call runs a team of threads (orr_store_config.threads) of its
 * own; memory is about 3 MiB a thread and 150 bytes a chunk.
 *
 * Errors of all: ORR_EDISK the disk is full or fails, ORR_EIO other failures of files and damage,
 * ORR_ENOMEM, ORR_ESTATE cancelled (orr_store_op).  The text names the file and the remedy.
 */
#ifndef ORR_STORE_H
#define ORR_STORE_H

#include "orrery/base.h"

#include <stdatomic.h>

enum {
    ORR_STORE_HASH_BYTES = 32,
    ORR_STORE_HEX_BYTES = 2 * ORR_STORE_HASH_BYTES + 1, /* with its NUL */
    ORR_STORE_NAME_MAX = 255,      /* bytes of a file's name in a part */
    ORR_STORE_FILES_MAX = 4096,    /* of one part */
    ORR_STORE_CHUNK_MAX = 1 << 20, /* bytes of a chunk's content */
    ORR_STORE_OBJECT_MAX = ORR_STORE_CHUNK_MAX + 16, /* and of its file */
    ORR_STORE_DAMAGES_MAX = 16, /* named one by one; more are counted */
};

struct orr_store_hash {
    uint8_t at[ORR_STORE_HASH_BYTES];
};

struct orr_store;

struct orr_store_config {
    const char *path;     /* absolute; made when its parent is there; copied */
    uint64_t quota_bytes; /* 0: none.  Checked before each chunk that is new */
    uint64_t bytes_per_s; /* cap on what is written, 0: none */
    unsigned threads;     /* of each call; 0: one per core, at most 16 */
};

/* Progress and the way to stop a call, from any thread.  Zeroed before use. */
struct orr_store_op {
    atomic_bool is_cancelled; /* set: the call ends soon with ORR_ESTATE */
    atomic_uint_fast64_t bytes_done;
    atomic_uint_fast64_t bytes_total; /* 0: not known yet */
};

/* Errors: ORR_EINVAL path, ORR_EVERSION made by a newer Orrery. */
ORR_NODISCARD enum orr_err orr_store_open(const struct orr_store_config *config,
                                          struct orr_store **ret_store,
                                          struct orr_error *err);
void orr_store_close(struct orr_store *store);

void orr_store_hex(const struct orr_store_hash *hash, char hex[ORR_STORE_HEX_BYTES]);
/* Errors: ORR_EINVAL not 64 lower-case hex digits. */
ORR_NODISCARD enum orr_err orr_store_parse(struct orr_str hex,
                                           struct orr_store_hash *ret_hash);

/* ---- put ---- */

enum orr_store_kind {
    ORR_STORE_IMAGE, /* pages that may move by whole pages: boundaries follow content */
    ORR_STORE_MEMORY, /* device memory: 1 MiB chunks from the start of each range */
    ORR_STORE_KIND_MAX_
};

struct orr_store_range {
    uint64_t offset;
    uint64_t bytes;
};

struct orr_store_file {
    const char *name; /* unique in the part; no '/', not "." or ".." */
    const char *path; /* what is read: a regular file, or /proc/self/fd/N of a memfd */
    enum orr_store_kind kind;
    const struct orr_store_range
        *ranges; /* ascending, apart; what lies outside is not kept
                                             and reads as zero.  NULL: the whole file */
    size_t n_ranges;
};

struct orr_store_put_stats {
    struct orr_store_hash part;
    uint64_t logical_bytes; /* of the files, holes included */
    uint64_t data_bytes;    /* of the chunks: without holes and zeros */
    uint64_t new_bytes;     /* of the chunks that the store did not have */
    uint64_t written_bytes; /* for those, on disk */
    uint64_t chunks, new_chunks, zstd_chunks;
};

/* Keep the files' content as it is now (nobody may write to them meanwhile) and return the
 * part's name; it is on disk then, and safe from orr_store_gc for grace_ms of that.
 * On failure what this call wrote is removed again.
 * Errors: ORR_EINVAL names, ranges; ORR_ENOENT a path; ORR_ENOSPC the quota. */
ORR_NODISCARD enum orr_err orr_store_put(struct orr_store *store,
                                         const struct orr_store_file *files,
                                         size_t n_files,
                                         struct orr_store_op *op,
                                         struct orr_store_put_stats *ret_stats,
                                         struct orr_error *err);

/* ---- get, verify ---- */

enum orr_store_trouble { ORR_STORE_MISSING, ORR_STORE_DAMAGED };

struct orr_store_damage {
    enum orr_store_trouble trouble;
    struct orr_store_hash chunk;
    uint64_t index, offset; /* which chunk of the file, and where that starts in it */
    char file[ORR_STORE_NAME_MAX + 1];
};

struct orr_store_report {
    uint64_t files, chunks, bytes; /* looked at */
    uint64_t n_damages;            /* chunks missing or damaged */
    bool is_part_bad;              /* the part itself is missing or damaged */
    struct orr_store_damage damages[ORR_STORE_DAMAGES_MAX]; /* the first of them */
};

struct orr_store_target {
    const char *name; /* a file of the part */
    const char *path; /* where it goes: replaced when whole; /proc/self/fd/N: written in
                         place */
};

/* Make the part's files again: those of `targets` where they say, and all others in `dir`, which is made
 * if need be (NULL: not at all).  Neither: nothing is made, and all is read, as by orr_store_verify.
 * Every chunk is verified as it is read; one that is damaged is set aside, so that the next put or
 * a transfer writes it anew.  Files appear under their names only when all of them are whole.
 * Errors: ORR_ENOENT no such part or file; ORR_EIO damage: report has it (may be NULL). */
ORR_NODISCARD enum orr_err orr_store_get(struct orr_store *store,
                                         const struct orr_store_hash *part,
                                         const char *dir,
                                         const struct orr_store_target *targets,
                                         size_t n_targets,
                                         struct orr_store_op *op,
                                         struct orr_store_report *ret_report,
                                         struct orr_error *err);

/* Read every chunk of the part.  As get, without files. */
ORR_NODISCARD enum orr_err orr_store_verify(struct orr_store *store,
                                            const struct orr_store_hash *part,
                                            struct orr_store_op *op,
                                            struct orr_store_report *ret_report,
                                            struct orr_error *err);

/* ---- what is in it, and what goes ---- */

struct orr_store_usage {
    uint64_t bytes; /* of files: what the quota counts */
    uint64_t chunks, parts;
    uint64_t damaged; /* set aside */
    uint64_t quota_bytes;
    uint64_t disk_free_bytes;
};

ORR_NODISCARD enum orr_err orr_store_stat(struct orr_store *store,
                                          struct orr_store_usage *ret_usage,
                                          struct orr_error *err);

/* Call fn for each part that is there.  fn must not call the store. */
ORR_NODISCARD enum orr_err orr_store_parts(struct orr_store *store,
                                           void (*fn)(void *arg,
                                                      const struct orr_store_hash *part,
                                                      uint64_t changed_unix_ms),
                                           void *arg,
                                           struct orr_error *err);

/* Forget a part; its chunks go with the next gc.  Errors: ORR_ENOENT. */
ORR_NODISCARD enum orr_err orr_store_rm(struct orr_store *store,
                                        const struct orr_store_hash *part,
                                        struct orr_error *err);

struct orr_store_gc_stats {
    uint64_t parts_kept, parts_removed;
    uint64_t chunks_kept, chunks_removed;
    uint64_t bytes_removed;
    uint64_t roots_elsewhere; /* not in this store: nothing to keep for them here */
};

/* Whose list of roots it is, and which: a later one has a higher (term, round). */
struct orr_store_fence {
    char region[64];
    uint64_t epoch; /* of the region's ledger */
    uint64_t term;  /* of its leader */
    uint64_t round; /* of that leader */
};

/* As orr_store_gc, with a list that is refused when the store has taken a newer one.  The same list once more does nothing.
 * Errors: ORR_ESTALE an older list, or of another ledger; ORR_EPERM of another region; ORR_EBUSY another process is at it. */
ORR_NODISCARD enum orr_err orr_store_collect(struct orr_store *store,
                                             const struct orr_store_fence *fence,
                                             const struct orr_store_hash *roots,
                                             size_t n_roots,
                                             uint64_t grace_ms,
                                             struct orr_store_op *op,
                                             struct orr_store_gc_stats *ret_stats,
                                             struct orr_error *err);

/* Remove what no root reaches and nobody put, met again or fetched within grace_ms.  Puts, gets and
 * other collections, in this and other processes, may run beside it: docs/checkpoint-store.md.
 * grace_ms: longer than from a put to the moment its part is among the roots that callers pass, and
 * than the clocks of the machines differ.
 * Errors: ORR_EIO a root is damaged: nothing is removed, since its chunks are not known. */
ORR_NODISCARD enum orr_err orr_store_gc(struct orr_store *store,
                                        const struct orr_store_hash *roots,
                                        size_t n_roots,
                                        uint64_t grace_ms,
                                        struct orr_store_op *op,
                                        struct orr_store_gc_stats *ret_stats,
                                        struct orr_error *err);

/* ---- between stores: objects as they are on disk ---- */

enum orr_store_object { ORR_STORE_CHUNK, ORR_STORE_PART };

/* Read up to cap bytes from offset of an object's file; *ret_size is the whole file's.  Not verified:
 * the receiver does.  Errors: ORR_ENOENT. */
ORR_NODISCARD enum orr_err orr_store_object_read(struct orr_store *store,
                                                 enum orr_store_object kind,
                                                 const struct orr_store_hash *hash,
                                                 uint64_t offset,
                                                 uint8_t *buf,
                                                 size_t cap,
                                                 size_t *ret_len,
                                                 uint64_t *ret_size,
                                                 struct orr_error *err);

/* A transfer is a writer: while one is open, what it fetched is safe from gc, and chunks are on
 * disk only after orr_store_fetch_end.  One thread at a time uses it. */
struct orr_store_fetch;
ORR_NODISCARD enum orr_err orr_store_fetch_begin(struct orr_store *store,
                                                 const struct orr_store_hash *part,
                                                 struct orr_store_fetch **ret_fetch,
                                                 struct orr_error *err);
/* Verify the part's bytes and remember them; orr_store_fetch_end writes them, last.  Not needed when the
 * store has the part.  Errors: ORR_EPROTO not that part. */
ORR_NODISCARD enum orr_err orr_store_fetch_part(struct orr_store_fetch *fetch,
                                                const uint8_t *bytes,
                                                size_t len,
                                                struct orr_error *err);
/* The chunks that are not here, each once; borrowed until the end.  What is here is marked as used.
 * Errors: ORR_ENOENT the part is not here and was not given. */
ORR_NODISCARD enum orr_err
orr_store_fetch_missing(struct orr_store_fetch *fetch,
                        const struct orr_store_hash **ret_chunks,
                        size_t *ret_n,
                        struct orr_error *err);
/* Verify and write a chunk.  Errors: ORR_EPROTO not that chunk; ORR_ENOSPC the quota. */
ORR_NODISCARD enum orr_err orr_store_fetch_chunk(struct orr_store_fetch *fetch,
                                                 const struct orr_store_hash *hash,
                                                 const uint8_t *bytes,
                                                 size_t len,
                                                 struct orr_error *err);
/* Make all of it durable; with is_whole the part too, which then is here with all of its chunks.
 * Without, chunks stay for the next try.  Frees fetch. */
ORR_NODISCARD enum orr_err orr_store_fetch_end(struct orr_store_fetch *fetch,
                                               bool is_whole,
                                               struct orr_error *err);

#endif
