/* SPDX-License-Identifier: Apache-2.0
 * store_batch.c - new chunks: written under a name of tmp/, synced many at a time, then named.
 *
 * Syncing each file by itself when it is written would commit the filesystem's journal each time.  Write-out of a
 * large chunk starts at once, and when a batch is full the first fsync commits all that the others need. Small
 * ones are many, and a file each would cost more than its content: a batch's lie one after the other in a pack, which
 * is synced and named before any link leads into it.
 */
#include "store_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum { PACK_STEP_BYTES = 4 << 20 };

static void
tmp_name(const struct orri_writer *w, uint64_t number, char name[STORE_NAME])
{
    snprintf(name, STORE_NAME, "%.64s.%llu", w->lease.name, (unsigned long long)number);
}

static void
pack_name(const struct orri_writer *w, uint64_t number, char name[STORE_NAME])
{
    snprintf(name, STORE_NAME, "%.16s.%llu", w->lease.name, (unsigned long long)number);
}

/* Never 0. */
static uint64_t next_number(struct orri_writer *w)
{
    return atomic_fetch_add(&w->lease.next, 1) + 1;
}

/* ---- the writer ---- */

enum orr_err
orri_writer_init(struct orri_writer *w, struct orr_store *s, struct orr_error *err)
{
    *w = (struct orri_writer){.store = s};
    enum orr_err code = orri_lease_take(s, &w->lease, err);
    if (!code)
        pthread_mutex_init(&w->lock, NULL);
    return code;
}

enum orr_err orri_writer_sync(struct orri_writer *w, struct orr_error *err)
{
    for (unsigned i = 0; i < STORE_SHARDS; i++) {
        char name[8];
        snprintf(name, sizeof name, "%02x", i);
        if (w->shards[i] && orri_io_sync(w->store->shards[i], name) != 0)
            return orri_io_fail(err, "cannot sync chunks", name);
        w->shards[i] = false;
    }
    return ORR_OK;
}

/* A pack goes when no name that leads to it has stayed. */
static void undo_pack(struct orri_writer *w, uint64_t number)
{
    char name[STORE_NAME];
    for (size_t i = 0; i < w->n_made; i++)
        if (w->made[i].pack == number)
            return;
    pack_name(w, number, name);
    (void)orri_io_unlink(w->store->packs, name);
}

void orri_writer_undo(struct orri_writer *w)
{
    const int lock = w->is_named ? -1 : orri_lock_open(w->store);
    if (lock < 0)
        return;
    for (size_t i = 0; i < w->n_made; i++) {
        char name[STORE_NAME];
        const int dir = orri_chunk_place(w->store, &w->made[i].hash, name);
        if (orri_remove_old(lock, dir, name, &w->made[i].time, true) > 0)
            w->made[i].pack = 0;
    }
    for (size_t i = 0; i < w->n_packs; i++)
        undo_pack(w, w->packs[i]);
    close(lock);
    atomic_store(&w->store->counted_ms, 0);
}

void orri_writer_fini(struct orri_writer *w)
{
    orri_lease_drop(w->store, &w->lease);
    pthread_mutex_destroy(&w->lock);
    free(w->made);
    free(w->packs);
}

static enum orr_err note_made(struct orri_writer *w,
                              const struct orr_store_hash *hash,
                              const struct timespec *time,
                              uint64_t pack)
{
    if (w->n_made == w->made_cap) {
        const size_t cap = w->made_cap ? 2 * w->made_cap : 256;
        struct orri_made *made = realloc(w->made, cap * sizeof *made);
        if (!made)
            return ORR_ENOMEM;
        w->made = made;
        w->made_cap = cap;
    }
    w->made[w->n_made++] = (struct orri_made){*hash, *time, pack};
    return ORR_OK;
}

static enum orr_err note_pack(struct orri_writer *w, uint64_t number)
{
    pthread_mutex_lock(&w->lock);
    uint64_t *packs = realloc(w->packs, (w->n_packs + 1) * sizeof *packs);
    if (packs) {
        w->packs = packs;
        w->packs[w->n_packs++] = number;
    }
    pthread_mutex_unlock(&w->lock);
    return packs ? ORR_OK : ORR_ENOMEM;
}

/* ---- a thread's batch ---- */

enum orr_err
orri_batch_init(struct orri_batch *b, struct orri_writer *w, struct orr_error *err)
{
    *b = (struct orri_batch){.writer = w, .pack = -1, .lock = orri_lock_open(w->store)};
    return b->lock < 0 ? orri_io_fail(err, "cannot open lock of", w->store->path)
                       : ORR_OK;
}

static void drop_tmp(const struct orri_batch *b, int fd, uint64_t number)
{
    char name[STORE_NAME];
    tmp_name(b->writer, number, name);
    close(fd);
    (void)orri_io_unlink(b->writer->store->tmp, name);
}

void orri_batch_fini(struct orri_batch *b)
{
    for (unsigned i = 0; i < b->n; i++)
        if (b->at[i].fd >= 0)
            drop_tmp(b, b->at[i].fd, b->at[i].number);
    if (b->pack >= 0)
        drop_tmp(b, b->pack, b->pack_number);
    b->n = 0;
    b->pack = -1;
    if (b->lock >= 0)
        close(b->lock);
    b->lock = -1;
}

bool orri_batch_meet(struct orri_batch *b,
                     const struct orr_store_hash *hash,
                     size_t raw_len)
{
    if (!orri_chunk_meet(b->writer->store, b->lock, hash, raw_len))
        return false;
    pthread_mutex_lock(&b->writer->lock);
    b->writer->shards[hash->at[0]] = true; /* its maker may not have come to that */
    pthread_mutex_unlock(&b->writer->lock);
    return true;
}

/* A file of its own, or the batch's pack. */
static int open_target(struct orri_batch *b, bool is_large, uint64_t *ret_number)
{
    char name[STORE_NAME];
    const uint64_t number = next_number(b->writer);
    if (!is_large && b->pack >= 0)
        return b->pack;
    tmp_name(b->writer, number, name);
    const int fd = orri_io_create(b->writer->store->tmp, name);
    *ret_number = number;
    if (fd >= 0 && !is_large) {
        b->pack = fd;
        b->pack_number = number;
        b->pack_bytes = b->pack_begun = 0;
    }
    return fd;
}

/* Write-out begins while the rest of the pack is still being hashed. */
static void grow_pack(struct orri_batch *b, uint64_t bytes)
{
    b->pack_bytes += bytes;
    if (b->pack_bytes - b->pack_begun < PACK_STEP_BYTES)
        return;
    (void)sync_file_range(b->pack,
                          (off_t)b->pack_begun,
                          (off_t)(b->pack_bytes - b->pack_begun),
                          SYNC_FILE_RANGE_WRITE);
    b->pack_begun = b->pack_bytes;
}

/* Returns -1 and errno; a pack that could not be written to goes with the batch. */
static int
write_chunk(struct orri_batch *b, const struct orri_packed *packed, uint64_t file_len)
{
    const bool is_large = file_len >= STORE_LARGE_BYTES;
    uint64_t number = 0;
    struct timespec time;
    const int fd = open_target(b, is_large, &number);
    if (fd < 0)
        return -1;
    if (orri_io_write(
            fd, "chunk", packed->head, STORE_HEAD_BYTES, packed->data, packed->len) ||
        (is_large && orri_io_touch_fd(fd, "chunk", &time))) {
        const int why = errno;
        if (is_large)
            drop_tmp(b, fd, number);
        errno = why;
        return -1;
    }
    if (is_large)
        (void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    b->at[b->n].fd = is_large ? fd : -1;
    b->at[b->n].number = is_large ? number : b->pack_bytes;
    if (!is_large)
        grow_pack(b, file_len);
    b->n_open += is_large;
    return 0;
}

enum orr_err orri_batch_add(struct orri_batch *b,
                            const struct orr_store_hash *hash,
                            const struct orri_packed *packed,
                            size_t raw_len,
                            struct orr_store_op *op,
                            struct orr_error *err)
{
    struct orr_store *s = b->writer->store;
    const uint64_t file_len = STORE_HEAD_BYTES + packed->len;
    enum orr_err code = orri_quota_check(s, file_len, err);
    if (code)
        return code;
    orri_rate_take(&s->rate, file_len, op);
    const double began_s = orri_now_s();
    if (write_chunk(b, packed, file_len) != 0)
        return orri_io_fail(err, "cannot write a chunk to", s->path);
    b->busy_s += orri_now_s() - began_s;
    atomic_fetch_add(&s->used_bytes, file_len);
    b->at[b->n].hash = *hash;
    b->at[b->n].raw_len = (uint32_t)raw_len;
    b->at[b->n].file_len = (uint32_t)file_len;
    b->at[b->n].is_zstd = packed->is_zstd;
    b->n++;
    b->bytes += file_len;
    return b->n == STORE_BATCH_FILES || b->n_open == STORE_BATCH_OPEN ||
                   b->bytes >= STORE_BATCH_BYTES
               ? orri_batch_flush(b, err)
               : ORR_OK;
}

/* ---- names ---- */

/* -1 and errno; EEXIST: the name is there and not replaced. */
static int name_new(struct orri_batch *b, unsigned i, bool is_replacing)
{
    struct orri_writer *w = b->writer;
    char tmp[STORE_NAME], name[STORE_NAME], target[STORE_NAME], pack[STORE_NAME];
    const int dir = orri_chunk_place(w->store, &b->at[i].hash, name);
    tmp_name(w, b->at[i].fd >= 0 ? b->at[i].number : next_number(w), tmp);
    if (b->at[i].fd >= 0)
        return is_replacing ? orri_io_rename(w->store->tmp, tmp, dir, name)
                            : orri_io_rename_new(w->store->tmp, tmp, dir, name);
    pack_name(w, b->pack_number, pack);
    snprintf(target,
             sizeof target,
             "%.40s:%llu:%u",
             pack,
             (unsigned long long)b->at[i].number,
             (unsigned)b->at[i].file_len);
    if (!is_replacing)
        return orri_io_symlink(target, dir, name);
    return orri_io_symlink(target, w->store->tmp, tmp) ||
                   orri_io_rename(w->store->tmp, tmp, dir, name)
               ? -1
               : 0;
}

static int drop_double(const struct orri_batch *b, unsigned i)
{
    char tmp[STORE_NAME];
    if (b->at[i].fd < 0)
        return 0;
    tmp_name(b->writer, b->at[i].number, tmp);
    atomic_fetch_sub(&b->writer->store->used_bytes, b->at[i].file_len);
    return orri_io_unlink(b->writer->store->tmp, tmp);
}

/* Give the i-th its name.  Who else had the same content at the same time was first: meet that. */
static enum orr_err name_chunk(struct orri_batch *b, unsigned i, struct orr_error *err)
{
    struct orri_writer *w = b->writer;
    struct orr_store *s = w->store;
    const struct orr_store_hash *hash = &b->at[i].hash;
    const bool is_large = b->at[i].fd >= 0;
    char name[STORE_NAME];
    struct stat st;
    const int dir = orri_chunk_place(s, hash, name);
    if (name_new(b, i, false) != 0) {
        if (errno != EEXIST)
            return orri_io_fail(err, "cannot name a chunk of", s->path);
        if (orri_batch_meet(b, hash, b->at[i].raw_len))
            return drop_double(b, i) == 0
                       ? ORR_OK
                       : orri_io_fail(err, "cannot remove a file of", s->path);
        if (name_new(b, i, true) != 0) /* what was there is no chunk */
            return orri_io_fail(err, "cannot name a chunk of", s->path);
    }
    const bool is_marked = is_large || orri_io_touch(dir, name) == 0;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return orri_io_fail(err, "cannot mark a chunk of", s->path);
    pthread_mutex_lock(&w->lock);
    const enum orr_err code =
        note_made(w, hash, &st.st_mtim, is_large ? 0 : b->pack_number);
    w->shards[hash->at[0]] = true;
    w->new_chunks++;
    w->new_bytes += b->at[i].raw_len;
    w->written_bytes += b->at[i].file_len;
    w->zstd_chunks += b->at[i].is_zstd;
    pthread_mutex_unlock(&w->lock);
    if (code)
        return orr_fail(err, code, "store: out of memory");
    return is_marked ? ORR_OK : orri_io_fail(err, "cannot mark a chunk of", s->path);
}

/* What the threads' batches say of the disk, smoothed. */
static void learn_rate(struct orr_store *s, const struct orri_batch *b)
{
    if (b->bytes < (1 << 20) || b->busy_s <= 0)
        return;
    const double now = (double)b->bytes / b->busy_s * s->threads;
    const double old = (double)atomic_load(&s->disk_rate);
    atomic_store(&s->disk_rate, (uint64_t)(old > 0 ? 0.7 * old + 0.3 * now : now));
}

/* Sync the pack and give it its name. */
static enum orr_err name_pack(struct orri_batch *b, struct orr_error *err)
{
    struct orr_store *s = b->writer->store;
    char tmp[STORE_NAME], name[STORE_NAME];
    struct timespec time;
    if (b->pack < 0)
        return ORR_OK;
    enum orr_err code = note_pack(b->writer, b->pack_number);
    if (code)
        return orr_fail(err, code, "store: out of memory");
    tmp_name(b->writer, b->pack_number, tmp);
    pack_name(b->writer, b->pack_number, name);
    if (orri_io_touch_fd(b->pack, tmp, &time) || orri_io_sync(b->pack, "pack") ||
        orri_io_rename(s->tmp, tmp, s->packs, name))
        return orri_io_fail(err, "cannot write a pack of", s->path);
    close(b->pack);
    b->pack = -1;
    return orri_io_sync(s->packs, "packs") == 0
               ? ORR_OK
               : orri_io_fail(err, "cannot sync packs of", s->path);
}

enum orr_err orri_batch_flush(struct orri_batch *b, struct orr_error *err)
{
    const double began_s = orri_now_s();
    unsigned named = 0;
    enum orr_err code = name_pack(b, err);
    for (unsigned i = 0; !code && i < b->n; i++)
        if (b->at[i].fd >= 0 && orri_io_sync(b->at[i].fd, "chunk") != 0)
            code = orri_io_fail(err, "cannot sync chunks of", b->writer->store->path);
    while (!code && named < b->n) {
        code = name_chunk(b, named, err);
        if (!code && b->at[named].fd >= 0)
            close(b->at[named].fd);
        named += !code;
    }
    if (code) { /* the rest goes with orri_batch_fini */
        memmove(b->at, b->at + named, (b->n - named) * sizeof b->at[0]);
        b->n -= named;
        return code;
    }
    b->busy_s += orri_now_s() - began_s;
    learn_rate(b->writer->store, b);
    b->n = b->n_open = 0;
    b->bytes = 0;
    b->busy_s = 0;
    return ORR_OK;
}
