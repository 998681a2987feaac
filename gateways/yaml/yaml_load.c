/* SPDX-License-Identifier: Apache-2.0
 * yaml_load.c - files in, places of values back out, and "did you mean".
 */
#include "yaml_tree.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/stat.h>

enum orr_err
orr_yaml_load(const char *path, char **ret_text, size_t *ret_len, struct orr_error *err)
{
    struct stat st;
    FILE *f = fopen(path, "rbe");
    if (!f)
        return orr_fail(err,
                        errno == ENOENT ? ORR_ENOENT : ORR_EIO,
                        "%s: cannot be read: %s",
                        path,
                        strerror(errno));
    /* One byte more than the limit tells a file that is too large. */
    bool is_directory = fstat(fileno(f), &st) == 0 && S_ISDIR(st.st_mode);
    char *text = is_directory ? NULL : malloc(ORR_YAML_BYTES_MAX + 2);
    size_t len = text ? fread(text, 1, ORR_YAML_BYTES_MAX + 1, f) : 0;
    bool is_bad = ferror(f) != 0;
    fclose(f);
    if (!is_directory && !text)
        return orr_fail(err, ORR_ENOMEM, "%s: out of memory", path);
    if (is_directory || is_bad || len > ORR_YAML_BYTES_MAX) {
        free(text);
        if (len > ORR_YAML_BYTES_MAX)
            return orr_fail(err, ORR_EINVAL, "%s: larger than 1 MiB", path);
        return orr_fail(err,
                        ORR_EIO,
                        "%s: %s",
                        path,
                        is_directory ? "is a directory; name a file"
                                     : "reading failed");
    }
    text[len] = '\0';
    *ret_text = text;
    *ret_len = len;
    return ORR_OK;
}

/* The entry `name` of a mapping, len bytes; NULL: not written. */
static const struct orri_yaml_node *
entry_of(const struct orri_yaml_node *map, const char *name, size_t len)
{
    const struct orri_yaml_node *at = map->kind == ORRI_YAML_MAP ? map->first : NULL;
    while (at && (strlen(at->key) != len || strncmp(at->key, name, len) != 0))
        at = at->next;
    return at;
}

static const struct orri_yaml_node *item_of(const struct orri_yaml_node *list,
                                            unsigned long index)
{
    const struct orri_yaml_node *at = list->kind == ORRI_YAML_LIST ? list->first : NULL;
    for (; at && index; index--)
        at = at->next;
    return at;
}

/* The deepest written node on the way to path, such as a.b or a.list[1].c; *ret_exact:
 * it is path itself. */
static const struct orri_yaml_node *
find_node(const struct orr_yaml *yaml, const char *path, bool *ret_exact)
{
    const struct orri_yaml_node *at = yaml->root;
    *ret_exact = false;
    while (at && *path) {
        size_t len = strcspn(path, ".[");
        char *after;
        const struct orri_yaml_node *child =
            *path == '[' ? item_of(at, strtoul(path + 1, &after, 10))
                         : entry_of(at, path, len);
        if (!child)
            return at;
        at = child;
        path = *path == '[' ? after + 1 : path + len;
        path += *path == '.';
        *ret_exact = *path == '\0';
    }
    return at;
}

bool orr_yaml_has(const struct orr_yaml *yaml, const char *path)
{
    bool is_written;
    find_node(yaml, path, &is_written);
    for (size_t i = 0; i < yaml->table->n && !is_written; i++)
        is_written = yaml->is_set[i] && strcmp(yaml->table->fields[i].path, path) == 0;
    return is_written;
}

enum orr_err orr_yaml_fail(const struct orr_yaml *yaml,
                           const char *path,
                           struct orr_error *err,
                           const char *fmt,
                           ...)
{
    char text[320];
    bool is_exact;
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    const struct orri_yaml_node *node = find_node(yaml, path, &is_exact);
    struct orri_yaml_mark at = {0, 0};
    if (node)
        at = node->key ? node->key_at : node->at;
    return orri_yaml_fail_at(yaml, at, err, "%s%s%s", path, *path ? ": " : "", text);
}

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t m = a < b ? a : b;
    return m < c ? m : c;
}

/* Levenshtein, one row; a long word is never a slip of the finger. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[sizeof((struct orr_closest *)0)->word];
    size_t a_len = strlen(a), b_len = strlen(b);
    if (a_len >= ORR_ARRAY_SIZE(row) || b_len >= ORR_ARRAY_SIZE(row))
        return SIZE_MAX;
    for (size_t j = 0; j <= b_len; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t above = row[j];
            row[j] = min3(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[b_len];
}

void orr_closest_try(struct orr_closest *best, const char *typed, const char *candidate)
{
    size_t distance = edit_distance(typed, candidate);
    size_t allowed = strlen(typed) / 3 + 1;
    if (distance <= allowed && distance < strlen(candidate) &&
        (!best->word[0] || distance < best->distance)) {
        orr_str_copy(best->word, sizeof best->word, orr_str(candidate));
        best->distance = distance;
    }
}
