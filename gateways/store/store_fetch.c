/* SPDX-License-Identifier: Apache-2.0
 * store_fetch.c - objects as they travel: read here, verified and written there.
 */
#include "store_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

struct orr_store_fetch {
    struct orri_writer writer;
    struct orri_batch batch;
    struct orri_codec codec;
    uint8_t *content; /* owned */
    struct orr_store_hash name;
    uint8_t *bytes; /* owned: of the part, when it was given */
    size_t len;
    struct orr_store_hash *missing; /* owned */
    size_t n_missing;
};

enum orr_err orr_store_object_read(struct orr_store *s,
                                   enum orr_store_object kind,
                                   const struct orr_store_hash *hash,
                                   uint64_t offset,
                                   uint8_t *buf,
                                   size_t cap,
                                   size_t *ret_len,
                                   uint64_t *ret_size,
                                   struct orr_error *err)
{
    char name[ORR_STORE_HEX_BYTES];
    struct orri_place p = {.fd = -1};
    struct stat st;
    size_t len = 0;
    int why = 0;
    orr_store_hex(hash, name);
    if (kind == ORR_STORE_CHUNK) {
        why = orri_chunk_open(s, hash, &p);
    } else {
        p.fd = openat(s->parts, name, O_RDONLY | O_CLOEXEC);
        why = p.fd < 0 || fstat(p.fd, &st) != 0 ? errno : 0;
        p.len = why ? 0 : (uint64_t)st.st_size;
    }
    while (!why && len < cap && offset + len < p.len) {
        const uint64_t left = p.len - offset - len;
        const size_t want = left < cap - len ? (size_t)left : cap - len;
        const ssize_t n =
            pread(p.fd, buf + len, want, (off_t)(p.offset + offset + len));
        if (n < 0 && errno != EINTR)
            why = errno;
        else if (n == 0)
            break;
        len += n > 0 ? (size_t)n : 0;
    }
    if (p.fd >= 0)
        close(p.fd);
    if (why == ENOENT || why == EBADMSG)
        return orr_fail(err, ORR_ENOENT, "store: %s is not in %s", name, s->path);
    errno = why;
    if (why)
        return orri_io_fail(err, "cannot read", name);
    *ret_len = len;
    *ret_size = p.len;
    return ORR_OK;
}

static void fetch_free(struct orr_store_fetch *f)
{
    orri_batch_fini(&f->batch);
    orri_writer_fini(&f->writer);
    orri_codec_fini(&f->codec);
    free(f->content);
    free(f->bytes);
    free(f->missing);
    free(f);
}

enum orr_err orr_store_fetch_begin(struct orr_store *s,
                                   const struct orr_store_hash *part,
                                   struct orr_store_fetch **ret_fetch,
                                   struct orr_error *err)
{
    struct orr_store_fetch *f = calloc(1, sizeof *f);
    if (!f)
        return orr_fail(err, ORR_ENOMEM, "store: out of memory");
    f->name = *part;
    enum orr_err code = orri_writer_init(&f->writer, s, err);
    if (code) {
        free(f);
        return code;
    }
    code = orri_batch_init(&f->batch, &f->writer, err);
    f->content = malloc(ORR_STORE_CHUNK_MAX);
    if (!code && (!f->content || orri_codec_init(&f->codec) != ORR_OK))
        code = orr_fail(err, ORR_ENOMEM, "store: out of memory");
    if (!code)
        code = orri_quota_count(s, 60000, err);
    if (code) {
        fetch_free(f);
        return code;
    }
    *ret_fetch = f;
    return ORR_OK;
}

enum orr_err orr_store_fetch_part(struct orr_store_fetch *f,
                                  const uint8_t *bytes,
                                  size_t len,
                                  struct orr_error *err)
{
    struct orr_store_hash got;
    orri_hash(&got, bytes, len);
    if (memcmp(&got, &f->name, sizeof got) != 0)
        return orr_fail(
            err, ORR_EPROTO, "store: what was sent is not the part asked for");
    uint8_t *copy = malloc(len ? len : 1);
    if (!copy)
        return orr_fail(err, ORR_ENOMEM, "store: out of memory");
    memcpy(copy, bytes, len);
    free(f->bytes);
    f->bytes = copy;
    f->len = len;
    return ORR_OK;
}

static enum orr_err add_missing(struct orr_store_fetch *f,
                                const struct orr_part *part,
                                struct orri_set *seen)
{
    for (uint32_t i = 0; i < part->n_files; i++)
        for (uint64_t k = 0; k < part->files[i].n_chunks; k++) {
            const struct orr_part_chunk *c = &part->files[i].chunks[k];
            bool is_new;
            if (orri_set_add(seen, &c->hash, &is_new) != ORR_OK)
                return ORR_ENOMEM;
            if (is_new && !orri_batch_meet(&f->batch, &c->hash, c->len))
                f->missing[f->n_missing++] = c->hash;
        }
    return ORR_OK;
}

enum orr_err orr_store_fetch_missing(struct orr_store_fetch *f,
                                     const struct orr_store_hash **ret_chunks,
                                     size_t *ret_n,
                                     struct orr_error *err)
{
    struct orr_part part = {0};
    struct orri_set seen = {0};
    uint64_t n = 0;
    enum orr_err code = ORR_OK;
    if (f->bytes)
        code = orr_part_decode(f->bytes, f->len, &part) == ORR_OK
                   ? ORR_OK
                   : orr_fail(err, ORR_EPROTO, "store: what was sent is no part");
    else
        code = orri_part_read(f->writer.store, &f->name, &part, err);
    if (code)
        return code;
    for (uint32_t i = 0; i < part.n_files; i++)
        n += part.files[i].n_chunks;
    free(f->missing);
    f->n_missing = 0;
    f->missing = malloc((size_t)(n + 1) * sizeof *f->missing);
    if (!f->missing || add_missing(f, &part, &seen) != ORR_OK)
        code = orr_fail(err, ORR_ENOMEM, "store: out of memory");
    orri_set_fini(&seen);
    orr_part_fini(&part);
    if (!code) {
        *ret_chunks = f->missing;
        *ret_n = f->n_missing;
    }
    return code;
}

enum orr_err orr_store_fetch_chunk(struct orr_store_fetch *f,
                                   const struct orr_store_hash *hash,
                                   const uint8_t *bytes,
                                   size_t len,
                                   struct orr_error *err)
{
    size_t raw_len;
    struct orri_packed packed = {.data = bytes + STORE_HEAD_BYTES,
                                 .len = len - STORE_HEAD_BYTES};
    if (len < STORE_HEAD_BYTES || len > ORR_STORE_OBJECT_MAX ||
        !orri_chunk_unpack(&f->codec, hash, bytes, len, f->content, &raw_len))
        return orr_fail(
            err, ORR_EPROTO, "store: what was sent is not the chunk asked for");
    memcpy(packed.head, bytes, STORE_HEAD_BYTES);
    return orri_batch_add(&f->batch, hash, &packed, raw_len, NULL, err);
}

enum orr_err
orr_store_fetch_end(struct orr_store_fetch *f, bool is_whole, struct orr_error *err)
{
    struct orr_store_hash name;
    enum orr_err code = orri_batch_flush(&f->batch, err);
    if (!code)
        code = orri_writer_sync(&f->writer, err);
    if (!code && is_whole && f->bytes)
        code = orri_part_write(&f->writer, f->bytes, f->len, &name, err);
    fetch_free(f);
    return code;
}
