/* SPDX-License-Identifier: Apache-2.0
 * yaml_arena.c - the memory of one document: everything is freed at once, so nothing in
 * it has an owner of its own.
 */
#include "yaml_tree.h"

#include <stdarg.h>

enum { CHUNK_BYTES = 8192 };

struct orri_yaml_chunk {
    struct orri_yaml_chunk *next; /* owned */
    size_t used, cap;
    _Alignas(8) unsigned char data[];
};

void *orr_yaml_alloc(struct orr_yaml *yaml, size_t size)
{
    size = (size + 7) & ~(size_t)7;
    struct orri_yaml_chunk *chunk = yaml->chunks;
    if (!chunk || chunk->cap - chunk->used < size) {
        size_t cap = size > CHUNK_BYTES ? size : CHUNK_BYTES;
        chunk = calloc(1, sizeof *chunk + cap);
        if (!chunk)
            return NULL;
        chunk->cap = cap;
        chunk->next = yaml->chunks;
        yaml->chunks = chunk;
    }
    void *at = chunk->data + chunk->used;
    chunk->used += size;
    return at;
}

const char *orr_yaml_text(struct orr_yaml *yaml, const char *text, size_t len)
{
    char *copy = orr_yaml_alloc(yaml, len + 1);
    if (copy && len)
        memcpy(copy, text, len);
    return copy;
}

enum orr_err orri_yaml_new(const struct orr_yaml_table *table,
                           const char *file,
                           struct orr_yaml **ret_yaml,
                           struct orr_error *err)
{
    struct orr_yaml *yaml = calloc(1, sizeof *yaml);
    if (!yaml)
        return orr_fail(err, ORR_ENOMEM, "%s: out of memory", file);
    yaml->table = table;
    yaml->file = orr_yaml_text(yaml, file, strlen(file));
    yaml->is_set = orr_yaml_alloc(yaml, table->n * sizeof *yaml->is_set);
    if (!yaml->file || !yaml->is_set) {
        orr_yaml_free(yaml);
        return orr_fail(err, ORR_ENOMEM, "%s: out of memory", file);
    }
    *ret_yaml = yaml;
    return ORR_OK;
}

void orr_yaml_free(struct orr_yaml *yaml)
{
    if (!yaml)
        return;
    for (struct orri_yaml_chunk *c = yaml->chunks, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    free(yaml);
}

enum orr_err orri_yaml_fail_at(const struct orr_yaml *yaml,
                               struct orri_yaml_mark at,
                               struct orr_error *err,
                               const char *fmt,
                               ...)
{
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (at.line == 0)
        return orr_fail(err, ORR_EINVAL, "%s: %s", yaml->file, text);
    return orr_fail(
        err, ORR_EINVAL, "%s:%u:%u: %s", yaml->file, at.line, at.column, text);
}
