/* SPDX-License-Identifier: Apache-2.0
 * store_gc.c - removing what nothing reaches.
 *
 * What is kept: parts among the roots, parts that are young (their root may not be in the ledger yet), the
 * chunks of both, and chunks that are young.  Young is what carries a time not before the cutoff: grace_ms
 * ago, and before the start of every writer that lives.  Writers are looked at before parts are: one that was
 * not seen to live has its part in the directory already, or begins later and marks what it meets with a later
 * time.  The last look at a file's time and its removal happen under the exclusive lock, and a writer marks
 * under the shared one: docs/checkpoint-store.md.
 */
#include "store_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

struct gc {
    struct orr_store *store; /* borrowed */
    struct orr_store_op *op; /* borrowed */
    struct timespec cutoff;
    struct orri_set roots, reached, packs;
    struct orr_store_gc_stats stats;
    int lock; /* owned */
};

static bool is_young(const struct gc *gc, const struct stat *st)
{
    return st->st_mtim.tv_sec > gc->cutoff.tv_sec ||
           (st->st_mtim.tv_sec == gc->cutoff.tv_sec &&
            st->st_mtim.tv_nsec >= gc->cutoff.tv_nsec);
}

static DIR *list(int dir)
{
    const int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d && fd >= 0)
        close(fd);
    return d;
}

/* ---- mark ---- */

static enum orr_err
reach(struct gc *gc, const struct orr_store_hash *hash, struct orr_error *err)
{
    struct orr_part part;
    bool is_new;
    enum orr_err code = orri_part_read(gc->store, hash, &part, err);
    if (code)
        return code;
    for (uint32_t i = 0; !code && i < part.n_files; i++)
        for (uint64_t k = 0; !code && k < part.files[i].n_chunks; k++)
            code = orri_set_add(&gc->reached, &part.files[i].chunks[k].hash, &is_new);
    orr_part_fini(&part);
    return code ? orr_fail(err, code, "store: out of memory") : ORR_OK;
}

static enum orr_err mark(struct gc *gc, struct orr_error *err)
{
    struct orr_store *s = gc->store;
    struct orr_store_hash hash;
    struct stat st;
    uint64_t n_roots = 0;
    enum orr_err code = ORR_OK;
    DIR *d = list(s->parts);
    if (!d)
        return orri_io_fail(err, "cannot read parts of", s->path);
    for (struct dirent *e; !code && (e = readdir(d));) {
        if (orr_store_parse(orr_str(e->d_name), &hash) != ORR_OK ||
            fstatat(s->parts, e->d_name, &st, 0) != 0)
            continue;
        const bool is_root = orri_set_has(&gc->roots, &hash);
        n_roots += is_root;
        if (!is_root && !is_young(gc, &st))
            continue;
        gc->stats.parts_kept++;
        code = reach(gc, &hash, err);
        if (code == ORR_ENOENT) /* removed meanwhile, by rm */
            code = ORR_OK;
        if (orri_is_cancelled(gc->op))
            code = orri_cancelled(err);
    }
    closedir(d);
    gc->stats.roots_elsewhere = gc->roots.n - n_roots;
    return code;
}

/* ---- sweep ---- */

/* A chunk's name stays: if it is a link, so does the pack that it leads to. */
static enum orr_err keep_pack(struct gc *gc, int dir, const char *name)
{
    char target[STORE_NAME], pack[STORE_NAME];
    uint64_t offset, len;
    struct orr_store_hash hash;
    bool is_new;
    const ssize_t n = readlinkat(dir, name, target, sizeof target - 1);
    if (n < 0)
        return ORR_OK;
    target[n] = '\0';
    if (!orri_link_parse(target, pack, &offset, &len))
        return ORR_OK;
    orri_hash(&hash, pack, strlen(pack));
    return orri_set_add(&gc->packs, &hash, &is_new);
}

/* Remove what is old and not in `keep` from a directory whose names are the last digits of
 * hashes that begin with *prefix[n]. */
static enum orr_err sweep(struct gc *gc,
                          int dir,
                          const char *prefix,
                          const struct orri_set *keep,
                          uint64_t *n_kept,
                          uint64_t *n_removed,
                          struct orr_error *err)
{
    char hex[ORR_STORE_HEX_BYTES + 256];
    struct orr_store_hash hash;
    struct stat st;
    DIR *d = list(dir);
    if (!d)
        return orri_io_fail(err, "cannot read", gc->store->path);
    for (struct dirent *e; (e = readdir(d)) && !orri_is_cancelled(gc->op);) {
        snprintf(hex, sizeof hex, "%s%s", prefix, e->d_name);
        if (orr_store_parse(orr_str(hex), &hash) != ORR_OK ||
            fstatat(dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        int rc = 0;
        if (!orri_set_has(keep, &hash) && !is_young(gc, &st))
            rc = orri_remove_old(gc->lock, dir, e->d_name, &gc->cutoff, false);
        *n_removed += rc > 0;
        *n_kept += rc == 0;
        gc->stats.bytes_removed += rc > 0 ? (uint64_t)st.st_size : 0;
        if (rc < 0 || (rc == 0 && keep_pack(gc, dir, e->d_name) != ORR_OK)) {
            closedir(d);
            return rc < 0
                       ? orri_io_fail(err, "cannot remove a file of", gc->store->path)
                       : orr_fail(err, ORR_ENOMEM, "store: out of memory");
        }
    }
    closedir(d);
    return orri_is_cancelled(gc->op) ? orri_cancelled(err) : ORR_OK;
}

/* Packs to which no name leads any more.  A name that comes later leads to a pack that is young. */
static void sweep_packs(struct gc *gc)
{
    struct orr_store_hash hash;
    struct stat st;
    DIR *d = list(gc->store->packs);
    for (struct dirent *e; d && (e = readdir(d));) {
        orri_hash(&hash, e->d_name, strlen(e->d_name));
        if (e->d_name[0] == '.' || fstatat(gc->store->packs, e->d_name, &st, 0) != 0 ||
            is_young(gc, &st) || orri_set_has(&gc->packs, &hash))
            continue;
        if (orri_io_unlink(gc->store->packs, e->d_name) == 0)
            gc->stats.bytes_removed += (uint64_t)st.st_size;
    }
    if (d)
        closedir(d);
}

/* What was set aside is evidence for a while only. */
static void sweep_damaged(struct gc *gc)
{
    struct stat st;
    DIR *d = list(gc->store->damaged);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.' &&
            fstatat(gc->store->damaged, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            !is_young(gc, &st))
            (void)orri_io_unlink(gc->store->damaged, e->d_name);
    if (d)
        closedir(d);
}

static enum orr_err sweep_all(struct gc *gc, struct orr_error *err)
{
    struct orr_store *s = gc->store;
    uint64_t ignored = 0;
    /* Parts first: a part whose chunks go must not be there. */
    enum orr_err code =
        sweep(gc, s->parts, "", &gc->roots, &ignored, &gc->stats.parts_removed, err);
    if (!code && orri_io_sync(s->parts, "parts") != 0)
        code = orri_io_fail(err, "cannot sync parts of", s->path);
    for (unsigned i = 0; !code && i < STORE_SHARDS; i++) {
        char prefix[3];
        snprintf(prefix, sizeof prefix, "%02x", i);
        code = sweep(gc,
                     s->shards[i],
                     prefix,
                     &gc->reached,
                     &gc->stats.chunks_kept,
                     &gc->stats.chunks_removed,
                     err);
    }
    if (!code) {
        sweep_packs(gc);
        sweep_damaged(gc);
    }
    atomic_store(&s->counted_ms, 0);
    return code;
}

/* ---- the whole ---- */

static enum orr_err prepare(struct gc *gc,
                            const struct orr_store_hash *roots,
                            size_t n_roots,
                            uint64_t grace_ms,
                            struct orr_error *err)
{
    bool is_new;
    clock_gettime(CLOCK_REALTIME, &gc->cutoff);
    gc->cutoff.tv_sec -= (time_t)(grace_ms / 1000);
    gc->cutoff.tv_nsec -= (long)(grace_ms % 1000) * 1000000;
    if (gc->cutoff.tv_nsec < 0) {
        gc->cutoff.tv_nsec += 1000000000;
        gc->cutoff.tv_sec--;
    }
    for (size_t i = 0; i < n_roots; i++)
        if (orri_set_add(&gc->roots, &roots[i], &is_new) != ORR_OK)
            return orr_fail(err, ORR_ENOMEM, "store: out of memory");
    gc->lock = orri_lock_open(gc->store);
    if (gc->lock < 0)
        return orri_io_fail(err, "cannot open lock of", gc->store->path);
    return orri_lease_sweep(gc->store, &gc->cutoff, err);
}

enum orr_err orr_store_gc(struct orr_store *s,
                          const struct orr_store_hash *roots,
                          size_t n_roots,
                          uint64_t grace_ms,
                          struct orr_store_op *op,
                          struct orr_store_gc_stats *ret_stats,
                          struct orr_error *err)
{
    struct gc gc = {.store = s, .op = op, .lock = -1};
    enum orr_err code = prepare(&gc, roots, n_roots, grace_ms, err);
    if (!code)
        code = mark(&gc, err);
    if (!code)
        code = sweep_all(&gc, err);
    if (gc.lock >= 0)
        close(gc.lock);
    orri_set_fini(&gc.roots);
    orri_set_fini(&gc.reached);
    orri_set_fini(&gc.packs);
    if (!code)
        *ret_stats = gc.stats;
    return code;
}

enum orr_err orr_store_collect(struct orr_store *s,
                               const struct orr_store_fence *fence,
                               const struct orr_store_hash *roots,
                               size_t n_roots,
                               uint64_t grace_ms,
                               struct orr_store_op *op,
                               struct orr_store_gc_stats *ret_stats,
                               struct orr_error *err)
{
    int lock = -1;
    bool is_done;
    *ret_stats = (struct orr_store_gc_stats){0};
    enum orr_err code = orri_fence_take(s, fence, &lock, &is_done, err);
    if (!code && !is_done)
        code = orr_store_gc(s, roots, n_roots, grace_ms, op, ret_stats, err);
    if (lock >= 0)
        close(lock);
    return code;
}

enum orr_err orr_store_rm(struct orr_store *s,
                          const struct orr_store_hash *part,
                          struct orr_error *err)
{
    char hex[ORR_STORE_HEX_BYTES];
    orr_store_hex(part, hex);
    if (orri_io_unlink(s->parts, hex) == 0)
        return orri_io_sync(s->parts, "parts") == 0
                   ? ORR_OK
                   : orri_io_fail(err, "cannot sync parts of", s->path);
    return errno == ENOENT
               ? orr_fail(err, ORR_ENOENT, "store: part %s is not in %s", hex, s->path)
               : orri_io_fail(err, "cannot remove part", hex);
}
