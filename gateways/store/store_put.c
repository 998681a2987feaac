/* SPDX-License-Identifier: Apache-2.0
 * store_put.c - from files to a part.
 *
 * Each thread takes a piece, hashes it, and unless the store has it writes it; then the new names are
 * synced, and last the part is written.  A crash before that leaves chunks that nobody names.
 */
#include "store_source.h"

struct record {
    size_t file;
    struct orr_part_chunk chunk;
};

struct records {
    struct record *at; /* owned */
    size_t n, cap;
};

struct put {
    struct orri_source source;
    struct orri_writer writer;
    pthread_mutex_t lock; /* guards all below */
    struct orri_set
        seen; /* some thread of ours has it, or made sure that the store has */
    struct records all;
    uint64_t data_bytes;
};

static enum orr_err add_record(struct records *r, const struct record *record)
{
    if (r->n == r->cap) {
        const size_t cap = r->cap ? 2 * r->cap : 256;
        struct record *at = realloc(r->at, cap * sizeof *at);
        if (!at)
            return ORR_ENOMEM;
        r->at = at;
        r->cap = cap;
    }
    r->at[r->n++] = *record;
    return ORR_OK;
}

/* ---- a thread ---- */

struct worker {
    struct orri_team *team; /* borrowed */
    struct put *put;        /* borrowed */
    struct orri_batch batch;
    struct orri_codec codec;
    uint8_t *content; /* owned */
    struct records records;
    uint64_t data_bytes;
};

static enum orr_err keep(struct worker *w,
                         const struct orr_store_hash *hash,
                         size_t len,
                         struct orr_error *err)
{
    struct orr_store *s = w->team->store;
    struct orri_packed packed;
    bool is_new = false;
    pthread_mutex_lock(&w->put->lock);
    enum orr_err code = orri_set_add(&w->put->seen, hash, &is_new);
    pthread_mutex_unlock(&w->put->lock);
    if (code)
        return orr_fail(err, code, "store: out of memory");
    if (!is_new || orri_batch_meet(&w->batch, hash, len))
        return ORR_OK;
    orri_chunk_pack(s, &w->codec, w->content, len, &packed);
    return orri_batch_add(&w->batch, hash, &packed, len, w->team->op, err);
}

static enum orr_err work_pieces(struct worker *w, struct orr_error *err)
{
    struct orr_store_op *op = w->team->op;
    enum orr_err code = ORR_OK;
    while (!code && !orri_team_is_over(w->team)) {
        struct orri_piece piece;
        struct record record;
        code = orri_source_next(&w->put->source, op, w->content, &piece, err);
        if (code || piece.len == 0)
            break;
        if (orri_is_zero(w->content, piece.len))
            continue;
        record =
            (struct record){piece.file, {piece.offset, (uint32_t)piece.len, {{0}}}};
        orri_hash(&record.chunk.hash, w->content, piece.len);
        w->data_bytes += piece.len;
        code = keep(w, &record.chunk.hash, piece.len, err);
        if (!code && add_record(&w->records, &record) != ORR_OK)
            code = orr_fail(err, ORR_ENOMEM, "store: out of memory");
        if (op)
            atomic_fetch_add_explicit(&op->bytes_done, piece.len, memory_order_relaxed);
    }
    if (!code && !orri_team_is_over(w->team))
        code = orri_batch_flush(&w->batch, err);
    return code;
}

static enum orr_err hand_in(struct worker *w, struct orr_error *err)
{
    enum orr_err code = ORR_OK;
    pthread_mutex_lock(&w->put->lock);
    w->put->data_bytes += w->data_bytes;
    for (size_t i = 0; !code && i < w->records.n; i++)
        code = add_record(&w->put->all, &w->records.at[i]);
    pthread_mutex_unlock(&w->put->lock);
    return code ? orr_fail(err, code, "store: out of memory") : ORR_OK;
}

static enum orr_err work(struct orri_team *team, struct orr_error *err)
{
    struct worker w = {
        .team = team, .put = team->arg, .content = malloc(ORR_STORE_CHUNK_MAX)};
    enum orr_err code = orri_batch_init(&w.batch, &w.put->writer, err);
    if (!code && (!w.content || orri_codec_init(&w.codec) != ORR_OK))
        code = orr_fail(err, ORR_ENOMEM, "store: out of memory");
    if (!code)
        code = work_pieces(&w, err);
    if (!code)
        code = hand_in(&w, err);
    orri_batch_fini(&w.batch);
    orri_codec_fini(&w.codec);
    free(w.content);
    free(w.records.at);
    return code;
}

/* ---- the whole ---- */

static int by_place(const void *a, const void *b)
{
    const struct record *x = a, *y = b;
    if (x->file != y->file)
        return x->file < y->file ? -1 : 1;
    return (x->chunk.offset > y->chunk.offset) - (x->chunk.offset < y->chunk.offset);
}

static enum orr_err make_part(struct put *p, struct orr_part *part)
{
    struct records *r = &p->all;
    if (r->n)
        qsort(r->at, r->n, sizeof *r->at, by_place);
    *part = (struct orr_part){.files = calloc(p->source.n_files, sizeof *part->files)};
    if (!part->files)
        return ORR_ENOMEM;
    for (size_t i = 0, next = 0; i < p->source.n_files; i++) {
        const struct orri_source_file *from = &p->source.files[i];
        struct orr_part_file *f = &part->files[part->n_files++];
        snprintf(f->name, sizeof f->name, "%s", from->what->name);
        f->kind = (uint32_t)from->what->kind;
        f->mode = from->mode;
        f->bytes = from->bytes;
        const size_t first = next;
        while (next < r->n && r->at[next].file == i)
            next++;
        if (next == first)
            continue;
        f->chunks = malloc((next - first) * sizeof *f->chunks);
        if (!f->chunks)
            return ORR_ENOMEM;
        for (size_t k = first; k < next; k++)
            f->chunks[f->n_chunks++] = r->at[k].chunk;
    }
    return ORR_OK;
}

static enum orr_err
write_part(struct put *p, struct orr_store_hash *ret_hash, struct orr_error *err)
{
    struct orr_part part;
    uint8_t *bytes = NULL;
    size_t len = 0;
    enum orr_err code = make_part(p, &part);
    if (!code)
        code = orr_part_encode(&part, &bytes, &len);
    orr_part_fini(&part);
    if (code)
        return orr_fail(err, code, "store: a part: %s", orr_err_text(code));
    code = orri_part_write(&p->writer, bytes, len, ret_hash, err);
    free(bytes);
    return code;
}

static enum orr_err run(struct orr_store *s,
                        struct put *p,
                        struct orr_store_op *op,
                        struct orr_store_put_stats *ret_stats,
                        struct orr_error *err)
{
    struct orri_team team = {.store = s, .op = op, .work = work, .arg = p};
    struct orr_store_put_stats stats = {.logical_bytes = p->source.logical_bytes};
    enum orr_err code = orri_quota_count(s, 60000, err);
    if (op)
        atomic_store(&op->bytes_total, p->source.logical_bytes);
    if (!code)
        code = orri_team_run(&team, err);
    if (!code)
        code = orri_writer_sync(&p->writer, err);
    if (!code)
        code = write_part(p, &stats.part, err);
    if (code) {
        orri_writer_undo(&p->writer);
        return code;
    }
    stats.data_bytes = p->data_bytes;
    stats.chunks = p->all.n;
    stats.new_bytes = p->writer.new_bytes;
    stats.written_bytes = p->writer.written_bytes;
    stats.new_chunks = p->writer.new_chunks;
    stats.zstd_chunks = p->writer.zstd_chunks;
    *ret_stats = stats;
    return ORR_OK;
}

enum orr_err orr_store_put(struct orr_store *s,
                           const struct orr_store_file *files,
                           size_t n_files,
                           struct orr_store_op *op,
                           struct orr_store_put_stats *ret_stats,
                           struct orr_error *err)
{
    struct put p = {.data_bytes = 0};
    enum orr_err code = orri_source_open(&p.source, files, n_files, err);
    if (code)
        return code;
    code = orri_writer_init(&p.writer, s, err);
    if (!code) {
        pthread_mutex_init(&p.lock, NULL);
        code = run(s, &p, op, ret_stats, err);
        pthread_mutex_destroy(&p.lock);
        orri_writer_fini(&p.writer);
    }
    orri_set_fini(&p.seen);
    free(p.all.at);
    orri_source_close(&p.source);
    return code;
}
