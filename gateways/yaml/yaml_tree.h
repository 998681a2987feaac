/* SPDX-License-Identifier: Apache-2.0
 * yaml_tree.h - a parsed YAML document with the place of every value, and the memory it
 * lives in.  Internal to orr_yaml.
 */
#ifndef ORR_YAML_TREE_H
#define ORR_YAML_TREE_H

#include "orrery/yaml.h"

struct orri_yaml_mark {
    unsigned line, column; /* from 1; 0 = not from a file */
};

enum orri_yaml_kind { ORRI_YAML_SCALAR, ORRI_YAML_LIST, ORRI_YAML_MAP };

struct orri_yaml_node {
    enum orri_yaml_kind kind;
    bool is_quoted;
    uint32_t len;     /* bytes of text, or number of children */
    const char *text; /* of a scalar; terminated, without NUL inside */
    const char *key;  /* of a mapping's entry */
    struct orri_yaml_mark at, key_at;
    struct orri_yaml_node *first, *next; /* borrowed: same memory */
};

struct orri_yaml_chunk;

struct orr_yaml {
    const struct orr_yaml_table *table; /* borrowed: static */
    const char *file;
    struct orri_yaml_node *root;    /* NULL: defaults only */
    bool *is_set;                   /* by orr_yaml_set, per field of the table */
    struct orri_yaml_chunk *chunks; /* owned: all memory of the document */
};

ORR_NODISCARD enum orr_err orri_yaml_new(const struct orr_yaml_table *table,
                                         const char *file,
                                         struct orr_yaml **ret_yaml,
                                         struct orr_error *err);

/* Parse text into yaml->root.  Refuses anchors, aliases, tags, double keys, NUL bytes,
 * and what is beyond the limits. */
ORR_NODISCARD enum orr_err orri_yaml_parse(struct orr_yaml *yaml,
                                           const char *text,
                                           size_t len,
                                           struct orr_error *err);

/* One scalar into the members of `field` in record; false when it is not what
 * orr_yaml_accepts says. A text is borrowed, not copied. */
ORR_NODISCARD bool orri_yaml_scalar(const struct orr_yaml_field *field,
                                    const char *text,
                                    size_t len,
                                    void *record);
bool orri_yaml_is_scalar(enum orr_yaml_type type);
bool orri_yaml_is_text(enum orr_yaml_type type); /* may be quoted */

/* ORR_EINVAL "file:line:column: text". */
enum orr_err orri_yaml_fail_at(const struct orr_yaml *yaml,
                               struct orri_yaml_mark at,
                               struct orr_error *err,
                               const char *fmt,
                               ...) ORR_PRINTF(4, 5);

#endif
