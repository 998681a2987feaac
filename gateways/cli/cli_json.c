/* SPDX-License-Identifier: Apache-2.0
 * cli_json.c - JSON for programs: the codec's own, with names where the wire has
 * numbers.
 *
 * Texts are copied whole, quotes and all: what looks like `"phase":3` outside of them
 * is the field.
 */
#include "cli.h"

#include <ctype.h>
#include <inttypes.h>

static const char *spread_name(uint32_t v)
{
    return v == ORR_SPREAD_PACK ? "pack" : v == ORR_SPREAD_SPREAD ? "spread" : "?";
}

static const char *reduce_name(uint32_t v)
{
    return v == ORR_REDUCE_FAST ? "fast" : v == ORR_REDUCE_ORDERED ? "ordered" : "?";
}

static const char *checkpoint_name(uint32_t v)
{
    static const char *const names[] = {
        "auto", "image", "inplace", "cooperative", "none"};
    return v < ORR_ARRAY_SIZE(names) ? names[v] : "?";
}

/* Fields that are enums wherever they stand in what clients are shown. */
static const struct {
    const char *key;
    const char *(*name)(uint32_t);
} enums[] = {{"\"phase\":", orr_job_phase_name},
             {"\"state\":", orr_node_state_name},
             {"\"tier\":", orr_tier_name},
             {"\"level\":", orr_level_name},
             {"\"order_kind\":", orr_order_name},
             {"\"order_state\":", orr_order_state_name},
             {"\"cut_step\":", orr_cut_step_name},
             {"\"spread\":", spread_name},
             {"\"reduce\":", reduce_name},
             {"\"checkpoint_mode\":", checkpoint_name}};

/* An enum's key at `at`: its position in the list, or the list's length. */
static size_t enum_at(const char *at)
{
    size_t i = 0;
    while (i < ORR_ARRAY_SIZE(enums) &&
           (strncmp(at, enums[i].key, strlen(enums[i].key)) != 0 ||
            !isdigit((unsigned char)at[strlen(enums[i].key)])))
        i++;
    return i;
}

/* The quoted text at `at`, as it is; the position after it. */
static const char *copy_quoted(const char *at, FILE *out)
{
    fputc(*at++, out);
    for (; *at && *at != '"'; at++) {
        fputc(*at, out);
        if (*at == '\\' && at[1])
            fputc(*++at, out);
    }
    if (*at)
        fputc(*at++, out);
    return at;
}

/* Names for enums, null for no device, and a list of texts as a list of texts. */
static void write_named(const char *at, FILE *out)
{
    static const char text[] = "{\"value\":\"",
                      device[] = "\"device\":", none[] = "4294967295";
    while (*at) {
        size_t i = enum_at(at);
        if (i < ORR_ARRAY_SIZE(enums)) {
            char *end;
            at += strlen(enums[i].key);
            uint32_t v = (uint32_t)strtoul(at, &end, 10);
            fprintf(out, "%s\"%s\"", enums[i].key, enums[i].name(v));
            at = end;
        } else if (strncmp(at, text, sizeof text - 1) == 0) {
            at = copy_quoted(at + sizeof text - 2, out);
            at += *at == '}';
        } else if (strncmp(at, device, sizeof device - 1) == 0 &&
                   strncmp(at + sizeof device - 1, none, sizeof none - 1) == 0) {
            fprintf(out, "%snull", device);
            at += sizeof device + sizeof none - 2;
        } else if (*at == '"') {
            at = copy_quoted(at, out);
        } else {
            fputc(*at++, out);
        }
    }
}

char *orri_json(const struct orr_rec_desc *desc, const void *rec)
{
    char *named = NULL;
    size_t named_len, len = orr_rec_json(desc, rec, NULL, 0);
    char *plain = malloc(len + 1);
    FILE *out = plain ? open_memstream(&named, &named_len) : NULL;
    if (out) {
        orr_rec_json(desc, rec, plain, len + 1);
        write_named(plain, out);
        fclose(out);
    }
    free(plain);
    return named;
}

void orri_json_item(enum orri_format format, size_t *io_count, const char *json)
{
    if (format == FORMAT_JSON)
        fputs(*io_count ? ",\n" : "[\n", stdout);
    fputs(json ? json : "null", stdout);
    if (format == FORMAT_JSONL)
        fputc('\n', stdout);
    ++*io_count;
}

void orri_json_end(enum orri_format format, size_t count)
{
    if (format == FORMAT_JSON)
        fputs(count ? "\n]\n" : "[]\n", stdout);
}

static const char *value_of(const char *line, const char *key)
{
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const char *at = strstr(line, quoted);
    return at ? at + strlen(quoted) : NULL;
}

bool orri_json_u64(const char *line, const char *key, uint64_t *ret)
{
    const char *at = value_of(line, key);
    if (!at || !isdigit((unsigned char)*at))
        return false;
    *ret = strtoull(at, NULL, 10);
    return true;
}

bool orri_json_text(const char *line, const char *key, char *buf, size_t cap)
{
    const char *at = value_of(line, key);
    size_t n = 0;
    buf[0] = '\0';
    if (!at || *at++ != '"')
        return false;
    for (; *at && *at != '"' && n + 1 < cap; at++) {
        if (*at == '\\' && at[1])
            at++;
        buf[n++] = *at;
    }
    buf[n] = '\0';
    return true;
}
