/* SPDX-License-Identifier: Apache-2.0
 * store_batch.c - new chunks: written under a name of tmp/, synced many at a time, then named.
 *
 * Syncing each file by itself when it is written would commit the filesystem's journal each time.  Write-out of a
 * large chunk starts at once, and when a batch is full the first fsync commits all that the others need. Small
 * ones are many: their batch is synced by one syncfs, which took half the time of an fsync each.  It waits for what
 * others have written to the same filesystem, too, and reports errors since Linux 5.8.
 */
#include "store_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static void
tmp_name(const struct orri_writer *w, uint64_t number, char name[STORE_NAME])
{
    snprintf(name, STORE_NAME, "%.64s.%llu", w->lease.name, (unsigned long long)number);
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

void orri_writer_undo(struct orri_writer *w)
{
    const int lock = w->is_named ? -1 : orri_lock_open(w->store);
    for (size_t i = 0; lock >= 0 && i < w->n_made; i++) {
        char name[STORE_NAME];
        const int dir = orri_chunk_place(w->store, &w->made[i].hash, name);
        (void)orri_remove_old(lock, dir, name, &w->made[i].time, true);
    }
    if (lock >= 0)
        close(lock);
    atomic_store(&w->store->counted_ms, 0);
}

void orri_writer_fini(struct orri_writer *w)
{
    orri_lease_drop(w->store, &w->lease);
    pthread_mutex_destroy(&w->lock);
    free(w->made);
}

static enum orr_err note_made(struct orri_writer *w,
                              const struct orr_store_hash *hash,
                              const struct timespec *time)
{
    if (w->n_made == w->made_cap) {
        const size_t cap = w->made_cap ? 2 * w->made_cap : 256;
        struct orri_made *made = realloc(w->made, cap * sizeof *made);
        if (!made)
            return ORR_ENOMEM;
        w->made = made;
        w->made_cap = cap;
    }
    w->made[w->n_made++] = (struct orri_made){*hash, *time};
    return ORR_OK;
}

/* ---- a thread's batch ---- */

enum orr_err
orri_batch_init(struct orri_batch *b, struct orri_writer *w, struct orr_error *err)
{
    *b = (struct orri_batch){.writer = w, .lock = orri_lock_open(w->store)};
    return b->lock < 0 ? orri_io_fail(err, "cannot open lock of", w->store->path)
                       : ORR_OK;
}

void orri_batch_fini(struct orri_batch *b)
{
    for (unsigned i = 0; i < b->n; i++) {
        char name[STORE_NAME];
        tmp_name(b->writer, b->at[i].number, name);
        if (b->at[i].fd >= 0)
            close(b->at[i].fd);
        (void)orri_io_unlink(b->writer->store->tmp, name);
    }
    b->n = 0;
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

enum orr_err orri_batch_add(struct orri_batch *b,
                            const struct orr_store_hash *hash,
                            const struct orri_packed *packed,
                            size_t raw_len,
                            struct orr_store_op *op,
                            struct orr_error *err)
{
    struct orr_store *s = b->writer->store;
    const uint64_t number = atomic_fetch_add(&b->writer->lease.next, 1);
    const uint64_t file_len = STORE_HEAD_BYTES + packed->len;
    char name[STORE_NAME];
    enum orr_err code = orri_quota_check(s, file_len, err);
    if (code)
        return code;
    orri_rate_take(&s->rate, file_len, op);
    tmp_name(b->writer, number, name);
    const double began_s = orri_now_s();
    struct timespec time;
    int fd = orri_io_create(s->tmp, name);
    if (fd < 0)
        return orri_io_fail(err, "cannot make a file in", s->path);
    if (orri_io_write(
            fd, name, packed->head, STORE_HEAD_BYTES, packed->data, packed->len) ||
        orri_io_touch_fd(fd, name, &time)) {
        code = orri_io_fail(err, "cannot write a chunk to", s->path);
        close(fd);
        (void)orri_io_unlink(s->tmp, name);
        return code;
    }
    if (file_len >= STORE_LARGE_BYTES) {
        (void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
        b->n_open++;
    } else {
        close(fd);
        fd = -1;
    }
    b->busy_s += orri_now_s() - began_s;
    atomic_fetch_add(&s->used_bytes, file_len);
    b->at[b->n].fd = fd;
    b->at[b->n].hash = *hash;
    b->at[b->n].time = time;
    b->at[b->n].number = number;
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

/* Give the i-th its name.  Who else had the same content at the same time was first: meet that. */
static enum orr_err name_chunk(struct orri_batch *b, unsigned i, struct orr_error *err)
{
    struct orri_writer *w = b->writer;
    struct orr_store *s = w->store;
    const struct orr_store_hash *hash = &b->at[i].hash;
    char tmp[STORE_NAME], name[STORE_NAME];
    const int dir = orri_chunk_place(s, hash, name);
    tmp_name(w, b->at[i].number, tmp);
    if (orri_io_rename_new(s->tmp, tmp, dir, name) != 0) {
        if (errno != EEXIST)
            return orri_io_fail(err, "cannot name a chunk of", s->path);
        if (orri_batch_meet(b, hash, b->at[i].raw_len)) {
            atomic_fetch_sub(&s->used_bytes, b->at[i].file_len);
            return orri_io_unlink(s->tmp, tmp) == 0
                       ? ORR_OK
                       : orri_io_fail(err, "cannot remove a file of", s->path);
        }
        if (orri_io_rename(s->tmp, tmp, dir, name) !=
            0) /* what was there is no chunk */
            return orri_io_fail(err, "cannot name a chunk of", s->path);
    }
    pthread_mutex_lock(&w->lock);
    const enum orr_err code = note_made(w, hash, &b->at[i].time);
    w->shards[hash->at[0]] = true;
    w->new_chunks++;
    w->new_bytes += b->at[i].raw_len;
    w->written_bytes += b->at[i].file_len;
    w->zstd_chunks += b->at[i].is_zstd;
    pthread_mutex_unlock(&w->lock);
    return code ? orr_fail(err, code, "store: out of memory") : ORR_OK;
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

static int sync_all(const struct orri_batch *b)
{
    struct orr_store *s = b->writer->store;
    if (b->n_open < b->n)
        return orri_io_syncfs(s->tmp, "chunks");
    for (unsigned i = 0; i < b->n; i++)
        if (orri_io_sync(b->at[i].fd, "chunk") != 0)
            return -1;
    return 0;
}

enum orr_err orri_batch_flush(struct orri_batch *b, struct orr_error *err)
{
    struct orr_store *s = b->writer->store;
    const double began_s = orri_now_s();
    enum orr_err code = ORR_OK;
    unsigned named = 0;
    if (b->n && sync_all(b) != 0)
        code = orri_io_fail(err, "cannot sync chunks of", s->path);
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
    learn_rate(s, b);
    b->n = b->n_open = 0;
    b->bytes = 0;
    b->busy_s = 0;
    return ORR_OK;
}
