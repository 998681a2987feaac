/* SPDX-License-Identifier: Apache-2.0
 * store_impl.h - what the files of this folder share.
 *
 * The directory: format, lock, chunks/<2 hex>/<62 hex>, packs/<lease>.<n>, parts/<64 hex>, tmp/<lease>.<n>,
 * leases/<lease>, damaged/.  A large chunk is a file; small ones lie together in a pack, and their names are
 * symbolic links that say where: PACK:OFFSET:LENGTH.  A name below chunks/ and parts/ appears only when its content is on
 * disk; it goes only under the exclusive lock, and is met (found and marked as used) under the
 * shared one.
 */
#ifndef ORR_STORE_IMPL_H
#define ORR_STORE_IMPL_H

#include "part.h"
#include "store.h"

#include <pthread.h>
#include <sys/stat.h>
#include <time.h>

enum {
    STORE_SHARDS = 256,
    STORE_NAME = 96,       /* of any file in the directory, with its NUL */
    STORE_HEAD_BYTES = 16, /* before a chunk's content */
    STORE_PAGE = 4096,
    STORE_THREADS_MAX = 16,
    STORE_BATCH_FILES = 512, /* new chunks of a thread that are synced together, */
    STORE_BATCH_OPEN = 32,   /* of them large ones, which stay open until then */
    STORE_LARGE_BYTES = 256 << 10,
    STORE_BATCH_BYTES = 32 << 20,
};

/* ---- system calls that change the directory (store_io.c) ---- */

/* For tests: called before each such call with its name and the file's; what it returns (0, or an
 * errno) is the call's fate, and it may never return.  Half a write is a call of its own. */
typedef int (*orri_store_fault_f)(const char *call, const char *name);
extern orri_store_fault_f orri_store_fault; /* NULL in production */
/* 0, or -1 and errno: for calls that are made elsewhere. */
int orri_io_fault(const char *call, const char *name);

int orri_io_create(int dir, const char *name);
int orri_io_write(int fd,
                  const char *name,
                  const void *head,
                  size_t head_len,
                  const void *data,
                  size_t len);
int orri_io_sync(int fd, const char *name);
int orri_io_symlink(const char *target, int dir, const char *name);
int orri_io_rename(int from_dir, const char *from, int to_dir, const char *to);
/* EEXIST when `to` is there. */
int orri_io_rename_new(int from_dir, const char *from, int to_dir, const char *to);
int orri_io_unlink(int dir, const char *name);
int orri_io_mkdir(int dir, const char *name);
/* Set the file's time to now, by this machine's precise clock. */
int orri_io_touch(int dir, const char *name);
int orri_io_touch_fd(int fd, const char *name, struct timespec *ret_time);

/* Name the call that failed with errno, and the remedy. */
enum orr_err orri_io_fail(struct orr_error *err, const char *what, const char *name);

/* ---- tokens (store_rate.c) ---- */
struct orri_rate {
    pthread_mutex_t lock; /* guards all below */
    uint64_t bytes_per_s; /* 0: no limit */
    double tokens;
    double at_s;
};
void orri_rate_init(struct orri_rate *rate, uint64_t bytes_per_s);
void orri_rate_fini(struct orri_rate *rate);
/* Wait for as many; ends early when op is cancelled. */
void orri_rate_take(struct orri_rate *rate, uint64_t bytes, struct orr_store_op *op);
double orri_now_s(void);

/* ---- a set of hashes (store_set.c) ---- */
struct orri_set {
    struct orr_store_hash *at; /* owned: open addressing, all zero = free */
    size_t cap, n;
};
/* Errors: ORR_ENOMEM. */
ORR_NODISCARD enum orr_err
orri_set_add(struct orri_set *set, const struct orr_store_hash *hash, bool *ret_is_new);
bool orri_set_has(const struct orri_set *set, const struct orr_store_hash *hash);
void orri_set_fini(struct orri_set *set);

/* ---- the store (store_dir.c) ---- */

struct orr_store {
    char *path;                                           /* owned */
    int root, chunks, packs, parts, tmp, leases, damaged; /* owned */
    int shards[STORE_SHARDS];                             /* owned: chunks/<2 hex> */
    unsigned threads;
    uint64_t quota_bytes;
    struct orri_rate rate;
    atomic_uint_fast64_t used_bytes; /* as last counted, and what was written since */
    atomic_uint_fast64_t counted_ms; /* when; 0: never */
    atomic_uint_fast64_t disk_rate;  /* bytes/s as measured by batches; 0: not yet */
};

/* The shard's directory and the name in it. */
int orri_chunk_place(const struct orr_store *s,
                     const struct orr_store_hash *hash,
                     char name[STORE_NAME]);
/* Where a chunk's bytes are. */
struct orri_place {
    int fd; /* owned */
    uint64_t offset, len;
};
/* ENOENT: no such name; EBADMSG: it leads nowhere; else errno. */
int orri_chunk_open(const struct orr_store *s,
                    const struct orr_store_hash *hash,
                    struct orri_place *ret_place);
/* The pack that a link names; false: it is no such link. */
bool orri_link_parse(const char *target,
                     char pack[STORE_NAME],
                     uint64_t *ret_offset,
                     uint64_t *ret_len);
bool orri_is_cancelled(const struct orr_store_op *op);
enum orr_err orri_cancelled(struct orr_error *err);
/* Errors: ORR_ENOSPC the quota is reached with so many more. */
ORR_NODISCARD enum orr_err
orri_quota_check(struct orr_store *s, uint64_t more, struct orr_error *err);
/* Count anew when the last count is older than this. */
ORR_NODISCARD enum orr_err
orri_quota_count(struct orr_store *s, uint64_t age_ms, struct orr_error *err);

/* A file descriptor of our own to lock with; -1 and errno. */
int orri_lock_open(struct orr_store *s);
/* LOCK_SH, LOCK_EX or LOCK_UN; held for microseconds by all.  false and errno. */
bool orri_lock(int lock, int how);
/* Remove dir/name when its time is before *cutoff, or exactly *cutoff when is_exact.
 * Returns 1 removed, 0 not, -1 and errno. */
int orri_remove_old(
    int lock, int dir, const char *name, const struct timespec *cutoff, bool is_exact);

/* ---- leases (store_lease.c): while one is held, what its holder wrote or met stays ---- */

struct orri_lease {
    int fd; /* owned: locked */
    char name[STORE_NAME];
    atomic_uint_fast64_t next; /* of its files in tmp/ */
};
ORR_NODISCARD enum orr_err
orri_lease_take(struct orr_store *s, struct orri_lease *lease, struct orr_error *err);
void orri_lease_drop(struct orr_store *s, struct orri_lease *lease);
/* Clear away what dead holders left; *cutoff is lowered below the start of each live one. */
ORR_NODISCARD enum orr_err
orri_lease_sweep(struct orr_store *s, struct timespec *cutoff, struct orr_error *err);

/* ---- chunks (store_chunk.c) ---- */

void orri_hash(struct orr_store_hash *ret_hash, const void *data, size_t len);

struct orri_codec { /* of one thread */
    void *zstd;     /* owned: ZSTD_CCtx */
    void *unzstd;   /* owned: ZSTD_DCtx */
    uint8_t *buf;   /* owned: a packed chunk's file */
};
ORR_NODISCARD enum orr_err orri_codec_init(struct orri_codec *c);
void orri_codec_fini(struct orri_codec *c);

/* A chunk's file: head, and content or its zstd frame. */
struct orri_packed {
    uint8_t head[STORE_HEAD_BYTES];
    const uint8_t *data; /* borrowed: the content, or the codec's buffer */
    size_t len;
    bool is_zstd;
};
void orri_chunk_pack(const struct orr_store *s,
                     struct orri_codec *c,
                     const uint8_t *data,
                     size_t len,
                     struct orri_packed *ret_packed);
/* From a whole file to content[ORR_STORE_CHUNK_MAX]; false: it is not that chunk. */
bool orri_chunk_unpack(struct orri_codec *c,
                       const struct orr_store_hash *hash,
                       const uint8_t *file,
                       size_t file_len,
                       uint8_t *content,
                       size_t *ret_len);
/* Read and verify.  ENOENT: missing; EBADMSG: damaged, and set aside; else errno of the disk. */
int orri_chunk_read(struct orr_store *s,
                    struct orri_codec *c,
                    const struct orr_store_hash *hash,
                    uint8_t *content,
                    size_t *ret_len);
/* Is it here with a file of the right length?  Marks it as used now, so that a collection that
 * runs leaves it.  raw_len 0: any. */
bool orri_chunk_meet(struct orr_store *s,
                     int lock,
                     const struct orr_store_hash *hash,
                     size_t raw_len);

/* ---- writing chunks (store_batch.c) ---- */

struct orri_made { /* a chunk that a call made, to be taken back when the call fails */
    struct orr_store_hash hash;
    struct timespec time;
    uint64_t pack; /* number of its pack; 0: none */
};

struct orri_writer {         /* of one call */
    struct orr_store *store; /* borrowed */
    struct orri_lease lease;
    pthread_mutex_t lock;   /* guards all below */
    struct orri_made *made; /* owned */
    size_t n_made, made_cap;
    uint64_t *packs; /* owned: numbers of those made */
    size_t n_packs;
    bool
        shards[STORE_SHARDS]; /* with names that may not be on disk yet: made, or met */
    bool is_named; /* the part has its name: nothing is taken back any more */
    uint64_t new_bytes, written_bytes, new_chunks, zstd_chunks;
};
ORR_NODISCARD enum orr_err
orri_writer_init(struct orri_writer *w, struct orr_store *s, struct orr_error *err);
/* Make the new names durable.  All batches were flushed. */
ORR_NODISCARD enum orr_err orri_writer_sync(struct orri_writer *w,
                                            struct orr_error *err);
/* Take back what nobody else has met; nothing once the part is named. */
void orri_writer_undo(struct orri_writer *w);
void orri_writer_fini(struct orri_writer *w);

struct orri_batch {             /* of one thread: chunks under names of tmp/ */
    struct orri_writer *writer; /* borrowed */
    int lock;                   /* owned */
    unsigned n, n_open;
    uint64_t bytes;
    int pack;                        /* owned: -1 none */
    uint64_t pack_number;            /* of its name */
    uint64_t pack_bytes, pack_begun; /* of them, being written out */
    double busy_s;                   /* in the disk's hands */
    struct {
        int fd; /* owned; -1: a small one, in the pack */
        struct orr_store_hash hash;
        uint64_t number; /* of its name; in the pack: its offset */
        uint32_t raw_len, file_len;
        bool is_zstd;
    } at[STORE_BATCH_FILES];
};
ORR_NODISCARD enum orr_err
orri_batch_init(struct orri_batch *b, struct orri_writer *w, struct orr_error *err);
/* Write a packed chunk; flushes when the batch is full. */
ORR_NODISCARD enum orr_err orri_batch_add(struct orri_batch *b,
                                          const struct orr_store_hash *hash,
                                          const struct orri_packed *packed,
                                          size_t raw_len,
                                          struct orr_store_op *op,
                                          struct orr_error *err);
/* Is it in the store already?  What is met is part of what this call makes. */
bool orri_batch_meet(struct orri_batch *b,
                     const struct orr_store_hash *hash,
                     size_t raw_len);
ORR_NODISCARD enum orr_err orri_batch_flush(struct orri_batch *b,
                                            struct orr_error *err);
/* What is not flushed is removed. */
void orri_batch_fini(struct orri_batch *b);

/* ---- parts (store_part.c) ---- */

ORR_NODISCARD enum orr_err orri_part_write(struct orri_writer *w,
                                           const uint8_t *bytes,
                                           size_t len,
                                           struct orr_store_hash *ret_hash,
                                           struct orr_error *err);
/* Errors: ORR_ENOENT, ORR_EIO damaged. */
ORR_NODISCARD enum orr_err orri_part_read(struct orr_store *s,
                                          const struct orr_store_hash *hash,
                                          struct orr_part *ret_part,
                                          struct orr_error *err);

/* ---- boundaries (store_cut.c) ---- */

/* How much of page-aligned data[len] at this place is zero and left out, and the length of the
 * chunk behind that, 0 when there is none yet.  is_end: nothing follows data. */
struct orri_cut {
    size_t zero;
    size_t len;
};
struct orri_cut orri_cut_image(const uint8_t *data, size_t len, bool is_end);
bool orri_is_zero(const uint8_t *data, size_t len);

/* ---- teams (store_team.c) ---- */

/* Run work(arg) in n threads (this one included) and return the first error. */
struct orri_team {
    struct orr_store *store; /* borrowed */
    struct orr_store_op *op; /* borrowed */
    pthread_mutex_t lock;    /* guards all below */
    struct orr_error error;  /* of whoever failed first */
    atomic_bool has_failed;
    enum orr_err (*work)(struct orri_team *team, struct orr_error *err);
    void *arg; /* borrowed */
};
ORR_NODISCARD enum orr_err orri_team_run(struct orri_team *team, struct orr_error *err);
/* Somebody failed, or the call is cancelled. */
bool orri_team_is_over(struct orri_team *team);

#endif
