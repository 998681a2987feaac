/* SPDX-License-Identifier: Apache-2.0
 * store_calls.c - what a thread of the pool does with a request: from message to store and back.
 */
#include "store_pool_impl.h"

#include <dirent.h>
#include <errno.h>

enum { ROUNDS_MAX = 3, GRACE_MS = 3600000 };

static void reply_failed(struct orr_store_pool *pool,
                         const struct pool_call *call,
                         const struct orr_error *err)
{
    const struct orr_msg_failed msg = {
        .code = err->code, .msg = call->desc->id, .text = orr_str(err->text)};
    pool_reply(pool, call, orr_msg_desc_failed(), &msg);
}

static uint64_t ms_since(double began_s)
{
    return (uint64_t)((orri_now_s() - began_s) * 1e3);
}

/* ---- put ---- */

struct files {
    struct orr_store_file
        *at; /* owned, with names and paths of those in the directory */
    struct orr_store_range *ranges; /* owned */
    char **names, **paths;          /* owned: of the directory's */
    size_t n, n_names;
};

static void files_fini(struct files *f)
{
    for (size_t i = 0; i < f->n_names; i++) {
        free(f->names[i]);
        free(f->paths[i]);
    }
    free(f->names);
    free(f->paths);
    free(f->at);
    free(f->ranges);
}

static enum orr_err
files_given(struct files *f, const struct orr_msg_store_put *msg, struct orr_error *err)
{
    size_t r = 0;
    for (uint32_t i = 0; i < msg->files.n; i++) {
        const struct orr_rec_store_file *from = &msg->files.at[i];
        struct orr_store_file *to = &f->at[f->n++];
        *to = (struct orr_store_file){.name = from->name.ptr,
                                      .path = from->path.ptr,
                                      .kind = (enum orr_store_kind)from->kind};
        for (; r < msg->ranges.n && msg->ranges.at[r].file == i; r++) {
            f->ranges[r] = (struct orr_store_range){msg->ranges.at[r].offset,
                                                    msg->ranges.at[r].bytes};
            if (!to->ranges)
                to->ranges = &f->ranges[r];
            to->n_ranges++;
        }
    }
    return r == msg->ranges.n
               ? ORR_OK
               : orr_fail(
                     err, ORR_EINVAL, "store: ranges do not follow the files' order");
}

static enum orr_err add_found(struct files *f,
                              const char *dir,
                              const struct dirent *e,
                              struct orr_error *err)
{
    const bool is_file = e->d_type == DT_REG || e->d_type == DT_UNKNOWN;
    if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
        return ORR_OK;
    if (!is_file)
        return orr_fail(
            err,
            ORR_EINVAL,
            "store: %s/%s is no regular file, and a part keeps nothing else",
            dir,
            e->d_name);
    if (f->n == ORR_STORE_FILES_MAX)
        return orr_fail(err,
                        ORR_EINVAL,
                        "store: %s has more files than the %d of a part",
                        dir,
                        ORR_STORE_FILES_MAX);
    char *name = strdup(e->d_name), *path = NULL;
    if (!name || asprintf(&path, "%s/%s", dir, e->d_name) < 0) {
        free(name);
        return orr_fail(err, ORR_ENOMEM, "store: out of memory");
    }
    f->names[f->n_names] = name;
    f->paths[f->n_names++] = path;
    f->at[f->n++] =
        (struct orr_store_file){.name = name, .path = path, .kind = ORR_STORE_IMAGE};
    return ORR_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct orr_store_file *)a)->name,
                  ((const struct orr_store_file *)b)->name);
}

static enum orr_err files_found(struct files *f, const char *dir, struct orr_error *err)
{
    const size_t first = f->n;
    enum orr_err code = ORR_OK;
    DIR *d = opendir(dir);
    if (!d)
        return orri_io_fail(err, "cannot read", dir);
    for (struct dirent *e; !code && (e = readdir(d));)
        code = add_found(f, dir, e, err);
    closedir(d);
    /* In the order of names: equal directories make equal parts. */
    qsort(f->at + first, f->n - first, sizeof *f->at, by_name);
    return code;
}

static enum orr_err
files_init(struct files *f, const struct orr_msg_store_put *msg, struct orr_error *err)
{
    *f = (struct files){.at = calloc(ORR_STORE_FILES_MAX, sizeof *f->at),
                        .ranges = calloc(msg->ranges.n + 1, sizeof *f->ranges),
                        .names = calloc(ORR_STORE_FILES_MAX, sizeof *f->names),
                        .paths = calloc(ORR_STORE_FILES_MAX, sizeof *f->paths)};
    if (!f->at || !f->ranges || !f->names || !f->paths)
        return orr_fail(err, ORR_ENOMEM, "store: out of memory");
    if (msg->files.n > ORR_STORE_FILES_MAX)
        return orr_fail(err,
                        ORR_EINVAL,
                        "store: %u files; a part has 1 to %d",
                        (unsigned)msg->files.n,
                        ORR_STORE_FILES_MAX);
    enum orr_err code = files_given(f, msg, err);
    return code || msg->dir.len == 0 ? code : files_found(f, msg->dir.ptr, err);
}

static enum orr_err
run_put(struct orr_store_pool *pool, struct pool_call *call, struct orr_error *err)
{
    struct files files;
    struct orr_store_put_stats s;
    char hex[ORR_STORE_HEX_BYTES];
    const double began_s = orri_now_s();
    enum orr_err code = files_init(&files, call->msg, err);
    if (!code)
        code = orr_store_put(pool->config.store, files.at, files.n, &call->op, &s, err);
    files_fini(&files);
    if (code)
        return code;
    orr_store_hex(&s.part, hex);
    const struct orr_msg_store_kept msg = {.part = orr_str(hex),
                                           .bytes = s.logical_bytes,
                                           .data_bytes = s.data_bytes,
                                           .new_bytes = s.new_bytes,
                                           .written_bytes = s.written_bytes,
                                           .chunks = s.chunks,
                                           .new_chunks = s.new_chunks,
                                           .took_ms = ms_since(began_s)};
    pool_reply(pool, call, orr_msg_desc_store_kept(), &msg);
    return ORR_OK;
}

/* ---- get, verify ---- */

static enum orr_err
parse_part(struct orr_str text, struct orr_store_hash *ret_part, struct orr_error *err)
{
    return orr_store_parse(text, ret_part) == ORR_OK
               ? ORR_OK
               : orr_fail(err,
                          ORR_EINVAL,
                          "store: part \"%.80s\": not 64 hexadecimal digits",
                          text.len ? text.ptr : "");
}

/* The files, and when something is missing or damaged: what peers have of it, then again. */
static enum orr_err get_rounds(struct orr_store_pool *pool,
                               struct pool_call *call,
                               const struct orr_store_hash *part,
                               const struct orr_store_target *targets,
                               struct orr_store_report *report,
                               struct pool_fetched *fetched,
                               struct orr_error *err)
{
    const struct orr_msg_store_get *msg = call->msg;
    const bool has_files = msg->files.n || msg->dir.len;
    const char *dir = msg->dir.len ? msg->dir.ptr : NULL;
    enum orr_err code = ORR_OK;
    if (!has_files && msg->peers.n)
        return pool_transfer(pool, call, part, msg->peers, fetched, err);
    for (unsigned round = 0; round < ROUNDS_MAX; round++) {
        atomic_store(&call->op.bytes_done, 0);
        code = orr_store_get(pool->config.store,
                             part,
                             dir,
                             targets,
                             msg->files.n,
                             &call->op,
                             report,
                             err);
        if (!code || !(report->n_damages || report->is_part_bad) || msg->peers.n == 0)
            break;
        const struct orr_error damage = *err;
        const bool was_whole =
            !report->is_part_bad; /* its name came after its chunks */
        code = pool_transfer(pool, call, part, msg->peers, fetched, err);
        if (code == ORR_EUNREACH && was_whole) { /* no peer is to wait for */
            *err = damage;
            code = damage.code;
        }
        if (code)
            break;
    }
    return code;
}

static enum orr_err
run_get(struct orr_store_pool *pool, struct pool_call *call, struct orr_error *err)
{
    const struct orr_msg_store_get *msg = call->msg;
    struct orr_store_report report = {.files = 0};
    struct pool_fetched fetched = {.bytes = 0};
    struct orr_store_hash part;
    const double began_s = orri_now_s();
    struct orr_store_target *targets = calloc(msg->files.n + 1, sizeof *targets);
    enum orr_err code = targets ? parse_part(msg->part, &part, err)
                                : orr_fail(err, ORR_ENOMEM, "store: out of memory");
    for (uint32_t i = 0; targets && i < msg->files.n; i++)
        targets[i] = (struct orr_store_target){msg->files.at[i].name.ptr,
                                               msg->files.at[i].path.ptr};
    if (!code)
        code = get_rounds(pool, call, &part, targets, &report, &fetched, err);
    free(targets);
    if (code)
        return code;
    const struct orr_msg_store_got got = {.bytes = report.bytes,
                                          .fetched_bytes = fetched.bytes,
                                          .fetched_chunks = fetched.chunks,
                                          .took_ms = ms_since(began_s)};
    pool_reply(pool, call, orr_msg_desc_store_got(), &got);
    return ORR_OK;
}

static void reply_verified(struct orr_store_pool *pool,
                           const struct pool_call *call,
                           const struct orr_store_report *r,
                           const char *text)
{
    struct orr_rec_store_damage rows[ORR_STORE_DAMAGES_MAX];
    char hex[ORR_STORE_DAMAGES_MAX][ORR_STORE_HEX_BYTES];
    uint32_t n = 0;
    for (; n < r->n_damages && n < ORR_STORE_DAMAGES_MAX; n++) {
        const struct orr_store_damage *d = &r->damages[n];
        orr_store_hex(&d->chunk, hex[n]);
        rows[n] = (struct orr_rec_store_damage){.file = orr_str(d->file),
                                                .chunk = d->index,
                                                .offset = d->offset,
                                                .hash = orr_str(hex[n]),
                                                .is_missing =
                                                    d->trouble == ORR_STORE_MISSING};
    }
    const struct orr_msg_store_verified msg = {.files = r->files,
                                               .chunks = r->chunks,
                                               .bytes = r->bytes,
                                               .is_part_bad = r->is_part_bad,
                                               .damages = r->n_damages,
                                               .first = {rows, n},
                                               .text = orr_str(text)};
    pool_reply(pool, call, orr_msg_desc_store_verified(), &msg);
}

static enum orr_err
run_verify(struct orr_store_pool *pool, struct pool_call *call, struct orr_error *err)
{
    const struct orr_msg_store_verify *msg = call->msg;
    struct orr_store_report report = {.files = 0};
    struct orr_store_hash part;
    enum orr_err code = parse_part(msg->part, &part, err);
    if (code)
        return code;
    code = orr_store_verify(pool->config.store, &part, &call->op, &report, err);
    if (code && !report.n_damages && !report.is_part_bad)
        return code;
    reply_verified(pool, call, &report, code ? err->text : "");
    return ORR_OK;
}

/* ---- collecting, removing, counting ---- */

/* From both lists of the message; owned by the caller, NULL: out of memory. */
static struct orr_store_hash *
roots_of(const struct orr_msg_store_gc *msg, size_t *ret_n, struct orr_error *err)
{
    const size_t n_packed = msg->hashes.len / ORR_STORE_HASH_BYTES;
    struct orr_store_hash *roots =
        malloc((msg->roots.n + n_packed + 1) * sizeof *roots);
    enum orr_err code =
        roots ? ORR_OK : orr_fail(err, ORR_ENOMEM, "store: out of memory");
    if (!code && msg->hashes.len % ORR_STORE_HASH_BYTES)
        code = orr_fail(err, ORR_EINVAL, "store: gc: a root has 32 bytes");
    for (uint32_t i = 0; !code && i < msg->roots.n; i++)
        code = parse_part(msg->roots.at[i].value, &roots[i], err);
    for (size_t i = 0; !code && i < n_packed; i++)
        memcpy(roots[msg->roots.n + i].at,
               (const uint8_t *)msg->hashes.ptr + i * ORR_STORE_HASH_BYTES,
               ORR_STORE_HASH_BYTES);
    *ret_n = msg->roots.n + n_packed;
    if (!code)
        return roots;
    free(roots);
    return NULL;
}

static enum orr_err
run_gc(struct orr_store_pool *pool, struct pool_call *call, struct orr_error *err)
{
    const struct orr_msg_store_gc *msg = call->msg;
    struct orr_store_gc_stats s;
    struct orr_store_fence fence = {
        .epoch = msg->epoch, .term = msg->term, .round = msg->round};
    size_t n = 0;
    struct orr_store_hash *roots = roots_of(msg, &n, err);
    if (!roots)
        return err->code;
    orr_str_copy(fence.region, sizeof fence.region, msg->region);
    enum orr_err code = orr_store_collect(pool->config.store,
                                          &fence,
                                          roots,
                                          n,
                                          msg->grace_ms ? msg->grace_ms : GRACE_MS,
                                          &call->op,
                                          &s,
                                          err);
    free(roots);
    if (code)
        return code;
    const struct orr_msg_store_collected reply = {.parts_kept = s.parts_kept,
                                                  .parts_removed = s.parts_removed,
                                                  .chunks_kept = s.chunks_kept,
                                                  .chunks_removed = s.chunks_removed,
                                                  .bytes_removed = s.bytes_removed};
    pool_reply(pool, call, orr_msg_desc_store_collected(), &reply);
    return ORR_OK;
}

static enum orr_err
run_remove(struct orr_store_pool *pool, struct pool_call *call, struct orr_error *err)
{
    const struct orr_msg_store_remove *msg = call->msg;
    const struct orr_msg_ack ack = {.end_ = 0};
    struct orr_store_hash part;
    enum orr_err code = parse_part(msg->part, &part, err);
    if (!code)
        code = orr_store_rm(pool->config.store, &part, err);
    if (!code)
        pool_reply(pool, call, orr_msg_desc_ack(), &ack);
    return code;
}

static enum orr_err
run_stat(struct orr_store_pool *pool, struct pool_call *call, struct orr_error *err)
{
    struct orr_store_usage u;
    struct orr_rec_store_call *rows;
    void *block;
    enum orr_err code = orr_store_stat(pool->config.store, &u, err);
    if (code)
        return code;
    const unsigned n = pool_rows(pool, &rows, &block);
    const struct orr_msg_store_stat msg = {.path = orr_str(pool->config.path),
                                           .bytes = u.bytes,
                                           .chunks = u.chunks,
                                           .parts = u.parts,
                                           .damaged = u.damaged,
                                           .quota_bytes = u.quota_bytes,
                                           .disk_free_bytes = u.disk_free_bytes,
                                           .calls = {rows, n}};
    pool_reply(pool, call, orr_msg_desc_store_stat(), &msg);
    free(block);
    return ORR_OK;
}

/* ---- for peers ---- */

static enum orr_err
run_read(struct orr_store_pool *pool, struct pool_call *call, struct orr_error *err)
{
    const struct orr_msg_store_read *msg = call->msg;
    uint8_t buf[ORR_STORE_PIECE_MAX];
    struct orr_store_hash hash;
    uint64_t size;
    size_t len;
    const size_t cap = msg->max_bytes < sizeof buf ? msg->max_bytes : sizeof buf;
    if (msg->hash.len != sizeof hash.at || msg->offset > INT64_MAX)
        return orr_fail(err, ORR_EINVAL, "store: no such object");
    memcpy(hash.at, msg->hash.ptr, sizeof hash.at);
    enum orr_err code =
        orr_store_object_read(pool->config.store,
                              msg->is_part ? ORR_STORE_PART : ORR_STORE_CHUNK,
                              &hash,
                              msg->offset,
                              buf,
                              cap,
                              &len,
                              &size,
                              err);
    if (code)
        return code;
    orri_rate_take(&pool->serve_rate, len, &call->op);
    const struct orr_msg_store_data data = {.size = size, .data = {buf, (uint32_t)len}};
    pool_reply(pool, call, orr_msg_desc_store_data(), &data);
    return ORR_OK;
}

void pool_call_run(struct orr_store_pool *pool, struct pool_call *call)
{
    static const struct {
        uint16_t id;
        enum orr_err (*run)(struct orr_store_pool *,
                            struct pool_call *,
                            struct orr_error *);
    } runs[] = {{ORR_MSG_store_put, run_put},
                {ORR_MSG_store_get, run_get},
                {ORR_MSG_store_verify, run_verify},
                {ORR_MSG_store_gc, run_gc},
                {ORR_MSG_store_remove, run_remove},
                {ORR_MSG_store_stat_get, run_stat},
                {ORR_MSG_store_read, run_read}};
    struct orr_error err = {.code = ORR_OK};
    enum orr_err code = ORR_OK;
    if (orri_is_cancelled(&call->op))
        code = orri_cancelled(&err);
    for (size_t i = 0; !code && i < ORR_ARRAY_SIZE(runs); i++)
        if (runs[i].id == call->desc->id)
            code = runs[i].run(pool, call, &err);
    if (code)
        reply_failed(pool, call, &err);
}
