/* SPDX-License-Identifier: Apache-2.0
 * yaml_explain.c - what a table says, in words, as a markdown table and as a JSON
 * schema: one source for errors, `explain` and the documentation.
 */
#include "yaml_tree.h"

#include <inttypes.h>

static void duration_text(int64_t ms, char *buf, size_t cap)
{
    static const struct {
        int64_t ms;
        const char *unit;
    } units[] = {{86400000, "d"}, {3600000, "h"}, {60000, "m"}, {1000, "s"}, {1, "ms"}};
    for (size_t i = 0; i < ORR_ARRAY_SIZE(units); i++) {
        if (ms % units[i].ms == 0 && (ms || units[i].ms == 1000)) {
            snprintf(buf, cap, "%" PRId64 "%s", ms / units[i].ms, units[i].unit);
            break;
        }
    }
}

static void size_text(int64_t bytes, char *buf, size_t cap)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t i = 0;
    for (; i < ORR_ARRAY_SIZE(units) - 1 && bytes && bytes % 1024 == 0; i++)
        bytes /= 1024;
    snprintf(buf, cap, "%" PRId64 "%s", bytes, bytes ? units[i] : "");
}

static void list_names(const char *const *names, char *buf, size_t cap)
{
    size_t used = 0;
    for (size_t i = 0; names[i] && used < cap; i++) {
        const char *between = i == 0 ? "" : names[i + 1] ? ", " : " or ";
        used += (size_t)snprintf(buf + used, cap - used, "%s%s", between, names[i]);
    }
}

static void accepts_number(const struct orr_yaml_field *f, char *buf, size_t cap)
{
    int64_t min = f->min < 0 ? 0 : f->min;
    const char *more = f->offset_high ? ", or two as a..b" : "";
    if (f->type == ORR_YAML_COUNT && f->min < 0)
        more = ", or unlimited";
    snprintf(buf, cap, "a whole number %" PRId64 "..%" PRId64 "%s", min, f->max, more);
}

static void accepts_quantity(const struct orr_yaml_field *f, char *buf, size_t cap)
{
    char low[32], high[32];
    const char *more = f->offset_high ? ", or two as a..b" : "";
    if (f->type == ORR_YAML_LIMIT)
        more = ", or unlimited";
    if (f->type == ORR_YAML_SIZE) {
        size_text(f->min, low, sizeof low);
        size_text(f->max, high, sizeof high);
        snprintf(buf, cap, "a size %s..%s (B, KiB, MiB, GiB, TiB)", low, high);
        return;
    }
    duration_text(f->min, low, sizeof low);
    duration_text(f->max, high, sizeof high);
    snprintf(buf, cap, "a duration %s..%s (ms, s, m, h, d)%s", low, high, more);
}

/* "a list of at most 8 of {host, endpoint}" */
static void accepts_records(const struct orr_yaml_field *f, char *buf, size_t cap)
{
    int len = snprintf(buf, cap, "a list of at most %" PRId64 " of {", f->max);
    for (size_t i = 0; i < f->record->n && (size_t)len < cap; i++)
        len += snprintf(buf + len,
                        cap - (size_t)len,
                        "%s%s",
                        i ? ", " : "",
                        f->record->fields[i].path);
    if ((size_t)len < cap)
        snprintf(buf + len, cap - (size_t)len, "}");
}

const char *orr_yaml_accepts(const struct orr_yaml_field *f, char *buf, size_t cap)
{
    static const char name[] =
        "a name of at most %" PRId64 " letters, digits, `.`, `_`, `-`";
    switch (f->type) {
    case ORR_YAML_SECTION:
        snprintf(buf, cap, "a section");
        break;
    case ORR_YAML_NAME:
        snprintf(buf, cap, name, f->max);
        break;
    case ORR_YAML_TEXT:
        snprintf(buf, cap, "a text of %" PRId64 "..%" PRId64 " bytes", f->min, f->max);
        break;
    case ORR_YAML_BOOL:
        snprintf(buf, cap, "true or false");
        break;
    case ORR_YAML_U32:
    case ORR_YAML_COUNT:
        accepts_number(f, buf, cap);
        break;
    case ORR_YAML_ENUM:
        list_names(f->names, buf, cap);
        break;
    case ORR_YAML_DURATION:
    case ORR_YAML_LIMIT:
    case ORR_YAML_SIZE:
        accepts_quantity(f, buf, cap);
        break;
    case ORR_YAML_TIME:
        snprintf(buf, cap, "a time such as 2027-01-15T00:00:00Z, or none");
        break;
    case ORR_YAML_TEXTS:
        snprintf(buf, cap, "a list of %" PRId64 "..%" PRId64 " texts", f->min, f->max);
        break;
    case ORR_YAML_ENV:
        snprintf(buf, cap, "at most %" PRId64 " `NAME: text`", f->max);
        break;
    case ORR_YAML_RECORDS:
        accepts_records(f, buf, cap);
        break;
    case ORR_YAML_TYPE_MAX_:
        ORR_ASSERT(f->type != ORR_YAML_TYPE_MAX_);
    }
    return buf;
}

static const char *default_text(const struct orr_yaml_field *f)
{
    if (!f->def)
        return "required";
    return *f->def ? f->def : "-";
}

/* list: the path of the list whose records have the field; "" for none. */
static void explain_field(const char *list, const struct orr_yaml_field *f, FILE *out)
{
    char accepts[200];
    fprintf(out, "%s%s%s: %s\n", list, *list ? "[]." : "", f->path, f->doc);
    fprintf(out, "    %s\n", orr_yaml_accepts(f, accepts, sizeof accepts));
    if (f->type != ORR_YAML_SECTION)
        fprintf(out, "    default: %s\n", default_text(f));
}

static bool is_at_or_below(const char *path, const char *prefix)
{
    size_t len = strlen(prefix);
    return strncmp(path, prefix, len) == 0 && (path[len] == '.' || path[len] == '\0');
}

enum orr_err orr_yaml_explain(const struct orr_yaml_table *table,
                              const char *path,
                              FILE *out,
                              struct orr_error *err)
{
    struct orr_closest best = {0};
    bool is_found = false;
    for (size_t i = 0; i < table->n; i++) {
        const struct orr_yaml_field *f = &table->fields[i];
        if (path)
            orr_closest_try(&best, path, f->path);
        if (path && !is_at_or_below(f->path, path))
            continue;
        is_found = true;
        explain_field("", f, out);
        for (size_t j = 0; f->record && j < f->record->n; j++)
            explain_field(f->path, &f->record->fields[j], out);
    }
    if (is_found)
        return ORR_OK;
    return orr_fail(err,
                    ORR_ENOENT,
                    "%s: no such field%s%s%s",
                    path,
                    best.word[0] ? "; did you mean `"
                                 : "; without a field all are listed",
                    best.word,
                    best.word[0] ? "`?" : "");
}

void orr_yaml_print_markdown(const struct orr_yaml_table *table, FILE *out)
{
    char accepts[200];
    fputs("| field | meaning | takes | default |\n|---|---|---|---|\n", out);
    for (size_t i = 0; i < table->n; i++) {
        const struct orr_yaml_field *f = &table->fields[i];
        fprintf(out,
                "| `%s` | %s | %s | %s |\n",
                f->path,
                f->doc,
                orr_yaml_accepts(f, accepts, sizeof accepts),
                default_text(f));
    }
}

/* ---- JSON schema ---- */

static void print_json_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fputc('\\', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

/* The first field that stands at the path of the first len bytes, NULL for a section
 * that has no field of its own. */
static const struct orr_yaml_field *
field_at(const struct orr_yaml_table *table, const char *path, size_t len)
{
    for (size_t i = 0; i < table->n; i++) {
        const char *p = table->fields[i].path;
        if (strlen(p) == len && memcmp(p, path, len) == 0)
            return &table->fields[i];
    }
    return NULL;
}

static void print_object(const struct orr_yaml_table *table,
                         const char *prefix,
                         size_t len,
                         FILE *out);

static void print_bounds(const struct orr_yaml_field *f,
                         const char *low,
                         const char *high,
                         FILE *out)
{
    fprintf(out, ",\"%s\":%" PRId64 ",\"%s\":%" PRId64, low, f->min, high, f->max);
}

/* The keywords of one field's own form, without braces. */
static void print_form(const struct orr_yaml_field *f, FILE *out)
{
    static const char duration[] = "[0-9]+(ms|s|m|h|d)";
    bool is_pair = f->offset_high != 0;
    switch (f->type) {
    case ORR_YAML_BOOL:
        fputs("\"type\":\"boolean\"", out);
        return;
    case ORR_YAML_U32:
        fprintf(
            out, "\"type\":%s", is_pair ? "[\"integer\",\"string\"]" : "\"integer\"");
        print_bounds(f, "minimum", "maximum", out);
        if (is_pair)
            fputs(",\"pattern\":\"^[0-9]+\\\\.\\\\.[0-9]+$\"", out);
        return;
    case ORR_YAML_COUNT:
        fputs("\"type\":[\"integer\",\"string\"],\"pattern\":\"^unlimited$\"", out);
        fprintf(out, ",\"minimum\":%d,\"maximum\":%" PRId64, 0, f->max);
        return;
    case ORR_YAML_ENUM:
        for (size_t i = 0; f->names[i]; i++)
            fprintf(out, "%s\"%s\"", i ? "," : "\"enum\":[", f->names[i]);
        fputc(']', out);
        return;
    case ORR_YAML_NAME:
        fputs("\"type\":\"string\",\"pattern\":\"^[A-Za-z0-9][A-Za-z0-9._-]*$\"", out);
        print_bounds(f, "minLength", "maxLength", out);
        return;
    case ORR_YAML_DURATION:
        fprintf(out, "\"type\":\"string\",\"pattern\":\"^%s", duration);
        fprintf(out, is_pair ? "(\\\\.\\\\.%s)?$\"" : "$\"", duration);
        return;
    case ORR_YAML_LIMIT:
        fprintf(out, "\"type\":\"string\",\"pattern\":\"^(%s|unlimited)$\"", duration);
        return;
    case ORR_YAML_SIZE:
        fputs("\"type\":[\"integer\",\"string\"],\"maximum\":0,", out);
        fputs("\"pattern\":\"^[0-9]+(B|KiB|MiB|GiB|TiB)$\"", out);
        return;
    case ORR_YAML_TEXTS:
        fputs("\"type\":\"array\",\"items\":{\"type\":[\"string\",\"number\"]}", out);
        print_bounds(f, "minItems", "maxItems", out);
        return;
    case ORR_YAML_ENV:
        fputs("\"type\":\"object\",\"additionalProperties\":", out);
        fputs("{\"type\":[\"string\",\"number\"]}", out);
        print_bounds(f, "minProperties", "maxProperties", out);
        return;
    case ORR_YAML_RECORDS:
        fputs("\"type\":\"array\",\"items\":{", out);
        print_object(f->record, "", 0, out);
        fputc('}', out);
        print_bounds(f, "minItems", "maxItems", out);
        return;
    case ORR_YAML_TEXT:
    case ORR_YAML_TIME:
        fputs("\"type\":\"string\"", out);
        return;
    case ORR_YAML_SECTION:
    case ORR_YAML_TYPE_MAX_:
        return;
    }
}

/* One property: the field's own form, a section, or either of them. */
static void print_property(const struct orr_yaml_table *table,
                           const char *path,
                           size_t len,
                           FILE *out)
{
    const struct orr_yaml_field *f = field_at(table, path, len);
    bool is_section = false;
    for (size_t i = 0; i < table->n; i++)
        is_section |= strncmp(table->fields[i].path, path, len) == 0 &&
                      table->fields[i].path[len] == '.';
    bool has_form = f && f->type != ORR_YAML_SECTION;
    fputc('{', out);
    if (f) {
        fputs("\"description\":", out);
        print_json_text(out, f->doc);
        fputc(',', out);
    }
    if (has_form && is_section)
        fputs("\"anyOf\":[{", out);
    if (has_form)
        print_form(f, out);
    if (has_form && is_section)
        fputs("},{", out);
    if (is_section || !has_form)
        print_object(table, path, len, out);
    fputs(has_form && is_section ? "}]}" : "}", out);
}

/* The keywords of the object at the path of the first len bytes, without braces. */
static void print_object(const struct orr_yaml_table *table,
                         const char *prefix,
                         size_t len,
                         FILE *out)
{
    const char *last = "";
    size_t last_len = 0, n_required = 0;
    fputs("\"type\":\"object\",\"additionalProperties\":false,\"properties\":{", out);
    for (size_t i = 0; i < table->n; i++) {
        const char *path = table->fields[i].path;
        if (len && (strncmp(path, prefix, len) != 0 || path[len] != '.'))
            continue;
        size_t start = len ? len + 1 : 0, end = start + strcspn(path + start, ".");
        if (end == last_len && strncmp(path, last, end) == 0)
            continue;
        fprintf(
            out, "%s\"%.*s\":", last_len ? "," : "", (int)(end - start), path + start);
        print_property(table, path, end, out);
        last = path;
        last_len = end;
    }
    fputc('}', out);
    for (size_t i = 0; i < table->n; i++) {
        const char *path = table->fields[i].path;
        size_t start = len ? len + 1 : 0;
        if (table->fields[i].def ||
            (len && (strncmp(path, prefix, len) != 0 || path[len] != '.')) ||
            strchr(path + start, '.'))
            continue;
        fprintf(out, "%s\"%s\"", n_required++ ? "," : ",\"required\":[", path + start);
    }
    if (n_required)
        fputc(']', out);
}

void orr_yaml_print_schema(const struct orr_yaml_table *table,
                           const char *title,
                           FILE *out)
{
    fputs("{\"$schema\":\"https://json-schema.org/draft/2020-12/schema\",\"title\":",
          out);
    print_json_text(out, title);
    fputc(',', out);
    print_object(table, "", 0, out);
    fputs("}\n", out);
}
