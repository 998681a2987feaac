/* SPDX-License-Identifier: Apache-2.0
 * yaml_bind.c - walk the document beside the table of fields.
 *
 * The walk follows what is written, so that every refusal has a place; what is missing
 * is found per section at its end. A field is required only where its section is
 * written: an absent role has no missing name.
 */
#include "orrery/msg.h"
#include "yaml_tree.h"

struct binder {
    struct orr_yaml *yaml;              /* borrowed: the caller's */
    const struct orr_yaml_table *table; /* borrowed: static */
    const char *where; /* "" or "peers[2]." : stands before paths in messages */
    bool *seen;        /* per field of the table */
    unsigned char *record;
    struct orr_error *err;
};

/* What stands in a list member of a message struct. */
struct list {
    const void *at;
    uint32_t n;
};

static enum orr_err no_memory(const struct binder *b)
{
    return orr_fail(b->err, ORR_ENOMEM, "%s: out of memory", b->yaml->file);
}

/* "min" for ("gpus.min", "gpus"); NULL when path is not directly or indirectly below
 * prefix. */
static const char *below(const char *path, const char *prefix)
{
    size_t len = strlen(prefix);
    if (len == 0)
        return path;
    return strncmp(path, prefix, len) == 0 && path[len] == '.' ? path + len + 1 : NULL;
}

static const struct orr_yaml_field *find_field(const struct orr_yaml_table *table,
                                               const char *path)
{
    for (size_t i = 0; i < table->n; i++) {
        if (strcmp(table->fields[i].path, path) == 0)
            return &table->fields[i];
    }
    return NULL;
}

/* "a, b, c": the words that may stand in a section; empty when it is none. */
static void list_words(const struct orr_yaml_table *table,
                       const char *prefix,
                       char *buf,
                       size_t cap)
{
    size_t used = 0, last_len = 0;
    const char *last = "";
    buf[0] = '\0';
    for (size_t i = 0; i < table->n; i++) {
        const char *rest = below(table->fields[i].path, prefix);
        size_t len = rest ? strcspn(rest, ".") : 0;
        if (len == 0 || (len == last_len && strncmp(rest, last, len) == 0))
            continue;
        int n = snprintf(
            buf + used, cap - used, "%s%.*s", used ? ", " : "", (int)len, rest);
        used += (size_t)n;
        if (used >= cap)
            return;
        last = rest;
        last_len = len;
    }
}

/* What the writer may have meant: a slip of the finger, or the right word in the wrong
 * section. */
static void suggest(const struct orr_yaml_table *table,
                    const char *prefix,
                    const char *key,
                    struct orr_closest *best)
{
    for (size_t i = 0; i < table->n; i++) {
        const char *rest = below(table->fields[i].path, prefix);
        char word[ORR_YAML_PATH_MAX];
        if (!rest)
            continue;
        orr_str_copy(word, sizeof word, orr_str(rest));
        word[strcspn(word, ".")] = '\0';
        orr_closest_try(best, key, word);
    }
    for (size_t i = 0; i < table->n && !best->word[0]; i++) {
        const char *path = table->fields[i].path, *last = strrchr(path, '.');
        if (last && strcmp(last + 1, key) == 0)
            orr_str_copy(best->word, sizeof best->word, orr_str(path));
    }
}

static enum orr_err unknown_field(const struct binder *b,
                                  const struct orri_yaml_node *entry,
                                  const char *prefix)
{
    struct orr_closest best = {0};
    char words[256], hint[300];
    list_words(b->table, prefix, words, sizeof words);
    suggest(b->table, prefix, entry->key, &best);
    if (best.word[0])
        snprintf(hint, sizeof hint, "did you mean `%s`?", best.word);
    else
        snprintf(hint, sizeof hint, "accepted here: %s", words);
    return orri_yaml_fail_at(b->yaml,
                             entry->key_at,
                             b->err,
                             "%s%s%s%.64s: unknown field; %s",
                             b->where,
                             prefix,
                             *prefix ? "." : "",
                             entry->key,
                             hint);
}

/* field NULL: only a section may stand at path. */
static enum orr_err wrong_value(const struct binder *b,
                                const struct orr_yaml_field *field,
                                const char *path,
                                const struct orri_yaml_node *node)
{
    char accepts[200] = "", words[160], got[72] = "a list", hint[64] = "";
    struct orr_closest best = {0};
    bool has_leaf = field && field->type != ORR_YAML_SECTION;
    if (has_leaf)
        orr_yaml_accepts(field, accepts, sizeof accepts);
    list_words(b->table, path, words, sizeof words);
    if (node->kind == ORRI_YAML_MAP)
        snprintf(got, sizeof got, "a section");
    if (node->kind == ORRI_YAML_SCALAR)
        snprintf(got,
                 sizeof got,
                 node->len ? "%s%.40s%s" : "nothing",
                 node->is_quoted ? "the text \"" : "`",
                 node->text,
                 node->is_quoted ? "\"" : "`");
    for (size_t i = 0; has_leaf && field->names && field->names[i]; i++) {
        if (node->kind == ORRI_YAML_SCALAR)
            orr_closest_try(&best, node->text, field->names[i]);
    }
    if (best.word[0])
        snprintf(hint, sizeof hint, "; did you mean `%s`?", best.word);
    return orri_yaml_fail_at(b->yaml,
                             node->at,
                             b->err,
                             "%s%s: expected %s%s%s%s, got %s%s",
                             b->where,
                             path,
                             accepts,
                             has_leaf && words[0] ? ", or " : "",
                             words[0] ? "a section with " : "",
                             words,
                             got,
                             hint);
}

static bool is_env_name(const char *name)
{
    if (*name == '\0' || (*name >= '0' && *name <= '9'))
        return false;
    return name[strspn(name,
                       "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                       "0123456789_")] == '\0';
}

/* A plain word of nothing (`- `) is YAML's null, and no text. */
static bool is_text(const struct orri_yaml_node *node)
{
    return node->kind == ORRI_YAML_SCALAR && (node->is_quoted || node->len);
}

static enum orr_err bind_texts(const struct binder *b,
                               const struct orr_yaml_field *field,
                               const struct orri_yaml_node *node)
{
    struct orr_rec_text *texts = orr_yaml_alloc(b->yaml, node->len * sizeof *texts);
    size_t n = 0;
    if (!texts)
        return no_memory(b);
    for (const struct orri_yaml_node *at = node->first; at; at = at->next) {
        if (!is_text(at))
            return orri_yaml_fail_at(b->yaml,
                                     at->at,
                                     b->err,
                                     "%s%s[%zu]: expected a text",
                                     b->where,
                                     field->path,
                                     n);
        texts[n++].value = (struct orr_str){at->text, at->len};
    }
    memcpy(b->record + field->offset,
           &(struct orr_list_text){texts, node->len},
           sizeof(struct orr_list_text));
    return ORR_OK;
}

static enum orr_err bind_env(const struct binder *b,
                             const struct orr_yaml_field *field,
                             const struct orri_yaml_node *node)
{
    struct orr_rec_env_var *vars = orr_yaml_alloc(b->yaml, node->len * sizeof *vars);
    size_t n = 0;
    if (!vars)
        return no_memory(b);
    for (const struct orri_yaml_node *at = node->first; at; at = at->next) {
        if (!is_env_name(at->key))
            return orri_yaml_fail_at(b->yaml,
                                     at->key_at,
                                     b->err,
                                     "%s%s.%.64s: not a name of a variable",
                                     b->where,
                                     field->path,
                                     at->key);
        if (!is_text(at))
            return orri_yaml_fail_at(b->yaml,
                                     at->at,
                                     b->err,
                                     "%s%s.%.64s: expected a text; write \"\" for none",
                                     b->where,
                                     field->path,
                                     at->key);
        vars[n++] = (struct orr_rec_env_var){orr_str(at->key), {at->text, at->len}};
    }
    memcpy(b->record + field->offset,
           &(struct orr_list_env_var){vars, node->len},
           sizeof(struct orr_list_env_var));
    return ORR_OK;
}

static void set_defaults(const struct binder *b)
{
    memset(b->record, 0, b->table->size);
    for (size_t i = 0; i < b->table->n; i++) {
        const struct orr_yaml_field *f = &b->table->fields[i];
        struct orr_str empty = {"", 0};
        if (orri_yaml_is_text(f->type))
            memcpy(b->record + f->offset, &empty, sizeof empty);
        if (!f->def || !*f->def || !orri_yaml_is_scalar(f->type))
            continue;
        bool is_set = orri_yaml_scalar(f, f->def, strlen(f->def), b->record);
        ORR_ASSERT(is_set); /* a default of our own table */
    }
}

static enum orr_err
bind_section(struct binder *b, const struct orri_yaml_node *map, const char *prefix);

static enum orr_err bind_records(const struct binder *b,
                                 const struct orr_yaml_field *field,
                                 const struct orri_yaml_node *node)
{
    size_t size = field->record->size;
    unsigned char *records = orr_yaml_alloc(b->yaml, node->len * size);
    char where[ORR_YAML_PATH_MAX];
    struct binder sub = {b->yaml, field->record, where, NULL, records, b->err};
    size_t n = 0;
    if (!records)
        return no_memory(b);
    for (const struct orri_yaml_node *at = node->first; at; at = at->next, n++) {
        snprintf(where, sizeof where, "%s%s[%zu]", b->where, field->path, n);
        if (at->kind != ORRI_YAML_MAP)
            return orri_yaml_fail_at(
                b->yaml, at->at, b->err, "%s: expected a section", where);
        snprintf(where, sizeof where, "%s%s[%zu].", b->where, field->path, n);
        sub.seen = orr_yaml_alloc(b->yaml, field->record->n * sizeof *sub.seen);
        sub.record = records + n * size;
        if (!sub.seen)
            return no_memory(b);
        set_defaults(&sub);
        enum orr_err rc = bind_section(&sub, at, "");
        if (rc != ORR_OK)
            return rc;
    }
    memcpy(b->record + field->offset,
           &(struct list){records, node->len},
           sizeof(struct list));
    return ORR_OK;
}

static enum orr_err bind_leaf(const struct binder *b,
                              const struct orr_yaml_field *field,
                              const struct orri_yaml_node *node)
{
    bool fits = (int64_t)node->len >= field->min && (int64_t)node->len <= field->max;
    if (field->type == ORR_YAML_TEXTS && node->kind == ORRI_YAML_LIST && fits)
        return bind_texts(b, field, node);
    if (field->type == ORR_YAML_ENV && node->kind == ORRI_YAML_MAP && fits)
        return bind_env(b, field, node);
    if (field->type == ORR_YAML_RECORDS && node->kind == ORRI_YAML_LIST && fits)
        return bind_records(b, field, node);
    if (orri_yaml_is_scalar(field->type) && node->kind == ORRI_YAML_SCALAR &&
        (!node->is_quoted || orri_yaml_is_text(field->type)) &&
        orri_yaml_scalar(field, node->text, node->len, b->record))
        return ORR_OK;
    return wrong_value(b, field, field->path, node);
}

static bool has_fields_below(const struct orr_yaml_table *table, const char *prefix)
{
    for (size_t i = 0; i < table->n; i++) {
        if (below(table->fields[i].path, prefix))
            return true;
    }
    return false;
}

static enum orr_err
bind_entry(struct binder *b, const struct orri_yaml_node *entry, const char *prefix)
{
    char path[ORR_YAML_PATH_MAX];
    int len =
        snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "." : "", entry->key);
    /* A dot in a key would name a field of another section. */
    bool is_path = (size_t)len < sizeof path && !strchr(entry->key, '.');
    const struct orr_yaml_field *field = is_path ? find_field(b->table, path) : NULL;
    bool is_section = is_path && has_fields_below(b->table, path);
    if (!field && !is_section)
        return unknown_field(b, entry, prefix);
    if (field)
        b->seen[field - b->table->fields] = true;
    if (entry->kind == ORRI_YAML_MAP &&
        (is_section || field->type == ORR_YAML_SECTION)) {
        if (field && field->type == ORR_YAML_SECTION)
            memcpy(b->record + field->offset, &(bool){true}, sizeof(bool));
        return bind_section(b, entry, path);
    }
    if (!field || field->type == ORR_YAML_SECTION)
        return wrong_value(b, field, path, entry);
    return bind_leaf(b, field, entry);
}

static enum orr_err
bind_section(struct binder *b, const struct orri_yaml_node *map, const char *prefix)
{
    for (const struct orri_yaml_node *entry = map->first; entry; entry = entry->next) {
        enum orr_err rc = bind_entry(b, entry, prefix);
        if (rc != ORR_OK)
            return rc;
    }
    for (size_t i = 0; i < b->table->n; i++) {
        const struct orr_yaml_field *f = &b->table->fields[i];
        const char *rest = below(f->path, prefix);
        if (!rest || strchr(rest, '.') || f->def || b->seen[i])
            continue;
        return orri_yaml_fail_at(b->yaml,
                                 map->at,
                                 b->err,
                                 "%s%s: missing; add `%s: ...` (%s)",
                                 b->where,
                                 f->path,
                                 rest,
                                 f->doc);
    }
    return ORR_OK;
}

enum orr_err orr_yaml_bind(const struct orr_yaml_table *table,
                           const char *file,
                           const char *text,
                           size_t len,
                           void *dst,
                           struct orr_yaml **ret_yaml,
                           struct orr_error *err)
{
    struct orr_yaml *yaml;
    enum orr_err rc = orr_yaml_defaults(table, file, dst, &yaml, err);
    if (rc != ORR_OK)
        return rc;
    struct binder b = {yaml, table, "", NULL, dst, err};
    b.seen = orr_yaml_alloc(yaml, table->n * sizeof *b.seen);
    rc = b.seen ? orri_yaml_parse(yaml, text, len, err) : no_memory(&b);
    if (rc == ORR_OK)
        rc = bind_section(&b, yaml->root, "");
    if (rc != ORR_OK) {
        orr_yaml_free(yaml);
        return rc;
    }
    *ret_yaml = yaml;
    return ORR_OK;
}

enum orr_err orr_yaml_defaults(const struct orr_yaml_table *table,
                               const char *origin,
                               void *dst,
                               struct orr_yaml **ret_yaml,
                               struct orr_error *err)
{
    struct orr_yaml *yaml;
    enum orr_err rc = orri_yaml_new(table, origin, &yaml, err);
    if (rc != ORR_OK)
        return rc;
    set_defaults(&(struct binder){yaml, table, "", NULL, dst, err});
    *ret_yaml = yaml;
    return ORR_OK;
}

enum orr_err orr_yaml_set(struct orr_yaml *yaml,
                          const char *path,
                          const char *text,
                          void *dst,
                          struct orr_error *err)
{
    const struct orr_yaml_field *field = find_field(yaml->table, path);
    char accepts[200];
    if (!field || !orri_yaml_is_scalar(field->type))
        return orr_fail(err, ORR_EINVAL, "%s: not a field that one value sets", path);
    const char *copy = orr_yaml_text(yaml, text, strlen(text));
    if (!copy)
        return orr_fail(err, ORR_ENOMEM, "%s: out of memory", path);
    if (!orri_yaml_scalar(field, copy, strlen(copy), dst))
        return orr_fail(err,
                        ORR_EINVAL,
                        "%s: expected %s, got `%.64s`",
                        path,
                        orr_yaml_accepts(field, accepts, sizeof accepts),
                        text);
    yaml->is_set[field - yaml->table->fields] = true;
    return ORR_OK;
}
