/* SPDX-License-Identifier: Apache-2.0
 * part.c - part.h.
 */
#include "part.h"

#include <endian.h>

enum { HEAD_BYTES = 16, FILE_BYTES = 24, CHUNK_BYTES = 12 + ORR_STORE_HASH_BYTES };

static const char magic[8] = {'O', 'R', 'P', 'A', 'R', 'T', '1', '\n'};

bool orr_part_name_ok(const char *name, size_t len)
{
    return len > 0 && len <= ORR_STORE_NAME_MAX && !memchr(name, '/', len) &&
           !memchr(name, '\0', len) && !(len == 1 && name[0] == '.') &&
           !(len == 2 && name[0] == '.' && name[1] == '.');
}

/* ---- encode ---- */

static uint8_t *put_16(uint8_t *at, uint16_t v)
{
    v = htole16(v);
    return (uint8_t *)memcpy(at, &v, sizeof v) + sizeof v;
}

static uint8_t *put_32(uint8_t *at, uint32_t v)
{
    v = htole32(v);
    return (uint8_t *)memcpy(at, &v, sizeof v) + sizeof v;
}

static uint8_t *put_64(uint8_t *at, uint64_t v)
{
    v = htole64(v);
    return (uint8_t *)memcpy(at, &v, sizeof v) + sizeof v;
}

static uint8_t *put_file(uint8_t *at, const struct orr_part_file *f)
{
    const size_t name_len = strlen(f->name);
    at = put_16(at, (uint16_t)name_len);
    at = put_16(at, (uint16_t)f->kind);
    at = put_32(at, f->mode);
    at = put_64(at, f->bytes);
    at = put_64(at, f->n_chunks);
    at = (uint8_t *)memcpy(at, f->name, name_len) + name_len;
    for (uint64_t i = 0; i < f->n_chunks; i++) {
        at = put_64(at, f->chunks[i].offset);
        at = put_32(at, f->chunks[i].len);
        memcpy(at, f->chunks[i].hash.at, ORR_STORE_HASH_BYTES);
        at += ORR_STORE_HASH_BYTES;
    }
    return at;
}

enum orr_err
orr_part_encode(const struct orr_part *part, uint8_t **ret_bytes, size_t *ret_len)
{
    size_t len = HEAD_BYTES;
    for (uint32_t i = 0; i < part->n_files; i++) {
        const struct orr_part_file *f = &part->files[i];
        if (f->n_chunks > ORR_PART_BYTES_MAX / CHUNK_BYTES)
            return ORR_ENOSPC;
        len += FILE_BYTES + strlen(f->name) + f->n_chunks * CHUNK_BYTES;
        if (len > ORR_PART_BYTES_MAX)
            return ORR_ENOSPC;
    }
    uint8_t *bytes = malloc(len);
    if (!bytes)
        return ORR_ENOMEM;
    uint8_t *at = (uint8_t *)memcpy(bytes, magic, sizeof magic) + sizeof magic;
    at = put_32(at, part->n_files);
    at = put_32(at, 0);
    for (uint32_t i = 0; i < part->n_files; i++)
        at = put_file(at, &part->files[i]);
    ORR_ASSERT(at == bytes + len);
    *ret_bytes = bytes;
    *ret_len = len;
    return ORR_OK;
}

/* ---- decode ---- */

struct reader {
    const uint8_t *at;
    size_t left;
};

static uint16_t get_16(struct reader *r)
{
    uint16_t v;
    memcpy(&v, r->at, sizeof v);
    r->at += sizeof v;
    r->left -= sizeof v;
    return le16toh(v);
}

static uint32_t get_32(struct reader *r)
{
    uint32_t v;
    memcpy(&v, r->at, sizeof v);
    r->at += sizeof v;
    r->left -= sizeof v;
    return le32toh(v);
}

static uint64_t get_64(struct reader *r)
{
    uint64_t v;
    memcpy(&v, r->at, sizeof v);
    r->at += sizeof v;
    r->left -= sizeof v;
    return le64toh(v);
}

static enum orr_err get_chunks(struct reader *r, struct orr_part_file *f, uint64_t n)
{
    uint64_t end = 0; /* of the chunk before */
    if (n > r->left / CHUNK_BYTES)
        return ORR_EPROTO;
    if (n && !(f->chunks = malloc((size_t)n * sizeof *f->chunks)))
        return ORR_ENOMEM;
    for (; f->n_chunks < n; f->n_chunks++) {
        struct orr_part_chunk *c = &f->chunks[f->n_chunks];
        c->offset = get_64(r);
        c->len = get_32(r);
        memcpy(c->hash.at, r->at, ORR_STORE_HASH_BYTES);
        r->at += ORR_STORE_HASH_BYTES;
        r->left -= ORR_STORE_HASH_BYTES;
        if (c->len == 0 || c->len > ORR_STORE_CHUNK_MAX || c->offset < end ||
            c->offset > f->bytes || c->len > f->bytes - c->offset)
            return ORR_EPROTO;
        end = c->offset + c->len;
    }
    return ORR_OK;
}

static enum orr_err get_file(struct reader *r, struct orr_part_file *f)
{
    if (r->left < FILE_BYTES)
        return ORR_EPROTO;
    const uint16_t name_len = get_16(r);
    f->kind = get_16(r);
    f->mode = get_32(r);
    f->bytes = get_64(r);
    const uint64_t n_chunks = get_64(r);
    if (f->kind >= ORR_STORE_KIND_MAX_ || f->mode > 07777 || f->bytes > INT64_MAX ||
        name_len > r->left || !orr_part_name_ok((const char *)r->at, name_len))
        return ORR_EPROTO;
    memcpy(f->name, r->at, name_len);
    r->at += name_len;
    r->left -= name_len;
    return get_chunks(r, f, n_chunks);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum orr_err check_names(const struct orr_part *part)
{
    const char **names = malloc((part->n_files + 1) * sizeof *names);
    enum orr_err code = names ? ORR_OK : ORR_ENOMEM;
    for (uint32_t i = 0; names && i < part->n_files; i++)
        names[i] = part->files[i].name;
    if (names)
        qsort(names, part->n_files, sizeof *names, by_name);
    for (uint32_t i = 1; names && i < part->n_files; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            code = ORR_EPROTO;
    free(names);
    return code;
}

enum orr_err
orr_part_decode(const uint8_t *bytes, size_t len, struct orr_part *ret_part)
{
    struct reader r = {bytes, len};
    struct orr_part part = {0};
    if (len < HEAD_BYTES || len > ORR_PART_BYTES_MAX ||
        memcmp(bytes, magic, sizeof magic) != 0)
        return ORR_EPROTO;
    r.at += sizeof magic;
    r.left -= sizeof magic;
    const uint32_t n = get_32(&r);
    if (get_32(&r) != 0 || n == 0 || n > ORR_STORE_FILES_MAX || n > r.left / FILE_BYTES)
        return ORR_EPROTO;
    if (!(part.files = calloc(n, sizeof *part.files)))
        return ORR_ENOMEM;
    enum orr_err code = ORR_OK;
    for (; code == ORR_OK && part.n_files < n; part.n_files++)
        code = get_file(&r, &part.files[part.n_files]);
    if (code == ORR_OK)
        code = r.left == 0 ? check_names(&part) : ORR_EPROTO;
    if (code != ORR_OK) {
        orr_part_fini(&part);
        return code;
    }
    *ret_part = part;
    return ORR_OK;
}

void orr_part_fini(struct orr_part *part)
{
    for (uint32_t i = 0; i < part->n_files; i++)
        free(part->files[i].chunks);
    free(part->files);
    *part = (struct orr_part){0};
}
