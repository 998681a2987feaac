/* SPDX-License-Identifier: Apache-2.0
 * yaml.h - strict YAML into a C struct, by a table of fields.
 *
 * The binder accepts one document of mappings, lists and scalars, and nothing that is
 * not in the table: unknown and double keys, wrong types, values out of range, missing
 * fields, anchors, aliases and tags are errors of the form job.yaml:7:3: gpu: unknown
 * field; did you mean `gpus`? Texts and lists point into memory of the struct orr_yaml;
 * every text is terminated and never NULL. Limits: 1 MiB, 8 levels, 65536 values, 4096
 * keys in one mapping.  No I/O except orr_yaml_load.  Any thread.
 */
#ifndef ORR_YAML_H
#define ORR_YAML_H

#include "orrery/base.h"

enum { ORR_YAML_BYTES_MAX = 1 << 20, ORR_YAML_PATH_MAX = 128 };

/* What a field takes, and the member it goes into. */
enum orr_yaml_type {
    ORR_YAML_SECTION,  /* a mapping; sets a bool when it is there */
    ORR_YAML_NAME,     /* struct orr_str of A-Z a-z 0-9 . _ -, starting with a letter or
                          digit; min..max: bytes */
    ORR_YAML_TEXT,     /* struct orr_str; min..max: bytes */
    ORR_YAML_BOOL,     /* bool */
    ORR_YAML_U32,      /* uint32_t */
    ORR_YAML_ENUM,     /* uint32_t: position in `names` */
    ORR_YAML_COUNT,    /* int64_t; -1 for `unlimited` */
    ORR_YAML_DURATION, /* uint64_t ms: 500ms 30s 10m 2h 7d */
    ORR_YAML_LIMIT,    /* a duration, or `unlimited` = 0 */
    ORR_YAML_SIZE,     /* uint64_t bytes: 0 512MiB 40GiB */
    ORR_YAML_TIME,     /* uint64_t ms since 1970: RFC 3339, or `none` = 0 */
    ORR_YAML_TEXTS,    /* struct orr_list_text; min..max: how many */
    ORR_YAML_ENV,      /* struct orr_list_env_var, from a mapping; min..max: how many */
    ORR_YAML_RECORDS,  /* {const void *at; uint32_t n}, from a list of mappings;
                          min..max: how many */
    ORR_YAML_TYPE_MAX_
};

struct orr_yaml_table;

struct orr_yaml_field {
    const char *path; /* "gpus.min" */
    enum orr_yaml_type type;
    uint32_t offset;
    uint32_t
        offset_high; /* U32 and DURATION: `a..b` goes to two members; 0 = one member */
    int64_t min, max;
    const char *def; /* as it would be written; "" = zero; NULL = required where its
                        section is there */
    const char *const *names;            /* of ENUM, ended by NULL */
    const struct orr_yaml_table *record; /* of RECORDS */
    const char *doc;
};

struct orr_yaml_table {
    const struct orr_yaml_field *fields;
    size_t n;
    size_t size; /* of the struct */
};

struct orr_yaml;

/* Parse text (len bytes) and fill *dst (table->size bytes): defaults first, then what
 * is written.  file is for messages. *ret_yaml owns what *dst points to. Errors:
 * ORR_EINVAL (err says file:line:column, field, what is accepted), ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orr_yaml_bind(const struct orr_yaml_table *table,
                                         const char *file,
                                         const char *text,
                                         size_t len,
                                         void *dst,
                                         struct orr_yaml **ret_yaml,
                                         struct orr_error *err);
void orr_yaml_free(struct orr_yaml *yaml);

/* Only the defaults; *ret_yaml is for orr_yaml_set and orr_yaml_text.  origin takes the
 * place of the file in messages. */
ORR_NODISCARD enum orr_err orr_yaml_defaults(const struct orr_yaml_table *table,
                                             const char *origin,
                                             void *dst,
                                             struct orr_yaml **ret_yaml,
                                             struct orr_error *err);

/* Set one scalar as if `path: text` were written, e.g. from an option of the command
 * line. */
ORR_NODISCARD enum orr_err orr_yaml_set(struct orr_yaml *yaml,
                                        const char *path,
                                        const char *text,
                                        void *dst,
                                        struct orr_error *err);

/* Memory that lives as long as yaml, aligned to 8, zeroed; a terminated copy of text.
 * NULL when out of memory. */
void *orr_yaml_alloc(struct orr_yaml *yaml, size_t size);
const char *orr_yaml_text(struct orr_yaml *yaml, const char *text, size_t len);

/* Was the field written (or set)?  For rules between fields. */
bool orr_yaml_has(const struct orr_yaml *yaml, const char *path);

/* ORR_EINVAL with "file:line:column: path: " before the text; the place of the nearest
 * section when path was not written.  "peers[1].name" is a field of a list's record. */
enum orr_err orr_yaml_fail(const struct orr_yaml *yaml,
                           const char *path,
                           struct orr_error *err,
                           const char *fmt,
                           ...) ORR_PRINTF(4, 5);

/* Read a whole file, at most ORR_YAML_BYTES_MAX; *ret_text is terminated and owned by
 * the caller (free). Errors: ORR_ENOENT, ORR_EIO, ORR_EINVAL (too large). */
ORR_NODISCARD enum orr_err orr_yaml_load(const char *path,
                                         char **ret_text,
                                         size_t *ret_len,
                                         struct orr_error *err);

/* ---- what the tables say, for people and tools ---- */

/* "a whole number 1..65536": what the field takes.  Returns buf. */
const char *orr_yaml_accepts(const struct orr_yaml_field *field, char *buf, size_t cap);
/* Explain one field or section, or everything (path NULL).  Errors: ORR_ENOENT with a
 * suggestion. */
ORR_NODISCARD enum orr_err orr_yaml_explain(const struct orr_yaml_table *table,
                                            const char *path,
                                            FILE *out,
                                            struct orr_error *err);
void orr_yaml_print_markdown(const struct orr_yaml_table *table, FILE *out);
void orr_yaml_print_schema(const struct orr_yaml_table *table,
                           const char *title,
                           FILE *out);

/* The closest of several words, for "did you mean".  Start with {0}. */
struct orr_closest {
    char word[40]; /* empty when nothing is close */
    size_t distance;
};
void orr_closest_try(struct orr_closest *best,
                     const char *typed,
                     const char *candidate);

#endif
