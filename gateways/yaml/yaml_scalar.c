/* SPDX-License-Identifier: Apache-2.0
 * yaml_scalar.c - the text of one scalar into a C member: numbers, names, durations,
 * sizes, times, pairs.
 *
 * One form per type and no guessing: `30` is no duration and `40GB` is no size, since
 * each has been read two ways before.
 */
#include "yaml_tree.h"

#include <ctype.h>
#include <time.h>

struct cursor {
    const char *at, *end;
};

struct unit {
    const char *word;
    uint64_t factor;
};
static const struct unit duration_units[] = {
    {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}, {NULL, 0}};
static const struct unit size_units[] = {{"B", 1},
                                         {"KiB", UINT64_C(1) << 10},
                                         {"MiB", UINT64_C(1) << 20},
                                         {"GiB", UINT64_C(1) << 30},
                                         {"TiB", UINT64_C(1) << 40},
                                         {NULL, 0}};

bool orri_yaml_is_text(enum orr_yaml_type type)
{
    return type == ORR_YAML_NAME || type == ORR_YAML_TEXT;
}

bool orri_yaml_is_scalar(enum orr_yaml_type type)
{
    return type != ORR_YAML_SECTION && type != ORR_YAML_TEXTS && type != ORR_YAML_ENV &&
           type != ORR_YAML_RECORDS;
}

static bool is_word(struct cursor c, const char *word)
{
    size_t len = strlen(word);
    return (size_t)(c.end - c.at) == len && memcmp(c.at, word, len) == 0;
}

static bool read_digits(struct cursor *c, uint64_t *ret)
{
    uint64_t v = 0;
    const char *start = c->at;
    for (; c->at < c->end && isdigit((unsigned char)*c->at); c->at++) {
        uint64_t digit = (uint64_t)(*c->at - '0');
        if (v > (INT64_MAX - digit) / 10)
            return false;
        v = v * 10 + digit;
    }
    *ret = v;
    return c->at > start;
}

static bool read_number(struct cursor c, uint64_t *ret)
{
    return read_digits(&c, ret) && c.at == c.end;
}

static bool read_quantity(struct cursor c, const struct unit *units, uint64_t *ret)
{
    uint64_t v;
    if (!read_digits(&c, &v))
        return false;
    for (const struct unit *u = units; u->word; u++) {
        if (is_word(c, u->word)) {
            *ret = v * u->factor;
            return v <= INT64_MAX / u->factor;
        }
    }
    return false;
}

/* Exactly n digits, then the character `stop` (0: anything may follow). */
static bool read_fixed(struct cursor *c, unsigned n, char stop, int *ret)
{
    int v = 0;
    if (c->end - c->at < (ptrdiff_t)n + (stop != 0))
        return false;
    for (unsigned i = 0; i < n; i++, c->at++) {
        if (!isdigit((unsigned char)*c->at))
            return false;
        v = v * 10 + (*c->at - '0');
    }
    *ret = v;
    return stop == 0 || *c->at++ == stop;
}

/* "Z" or "+02:00" at the end of a time. */
static bool read_zone(struct cursor c, int64_t *ret_seconds)
{
    int hours, minutes;
    *ret_seconds = 0;
    if (is_word(c, "Z"))
        return true;
    if (c.at == c.end || (*c.at != '+' && *c.at != '-'))
        return false;
    int64_t sign = *c.at++ == '-' ? -1 : 1;
    if (!read_fixed(&c, 2, ':', &hours) || !read_fixed(&c, 2, 0, &minutes) ||
        c.at != c.end || hours > 23 || minutes > 59)
        return false;
    *ret_seconds = sign * (hours * 3600 + minutes * 60);
    return true;
}

/* RFC 3339, e.g. 2027-01-15T00:00:00Z. */
static bool read_time(struct cursor c, uint64_t *ret_ms)
{
    struct tm tm = {0}, back;
    int64_t zone, ms = 0, scale = 100;
    if (!read_fixed(&c, 4, '-', &tm.tm_year) || !read_fixed(&c, 2, '-', &tm.tm_mon) ||
        !read_fixed(&c, 2, 'T', &tm.tm_mday) || !read_fixed(&c, 2, ':', &tm.tm_hour) ||
        !read_fixed(&c, 2, ':', &tm.tm_min) || !read_fixed(&c, 2, 0, &tm.tm_sec))
        return false;
    if (c.at < c.end && *c.at == '.') {
        if (++c.at == c.end || !isdigit((unsigned char)*c.at))
            return false;
        for (; c.at < c.end && isdigit((unsigned char)*c.at); c.at++, scale /= 10)
            ms += (*c.at - '0') * scale;
    }
    if (!read_zone(c, &zone) || tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 59)
        return false;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    time_t seconds = timegm(&(struct tm){.tm_year = tm.tm_year,
                                         .tm_mon = tm.tm_mon,
                                         .tm_mday = tm.tm_mday,
                                         .tm_hour = tm.tm_hour,
                                         .tm_min = tm.tm_min,
                                         .tm_sec = tm.tm_sec});
    /* A 30th of February would come back as another day. */
    if (!gmtime_r(&seconds, &back) || back.tm_mday != tm.tm_mday ||
        back.tm_mon != tm.tm_mon || seconds < zone)
        return false;
    *ret_ms = (uint64_t)(seconds - zone) * 1000 + (uint64_t)ms;
    return true;
}

static bool read_name(const struct orr_yaml_field *field, struct cursor c)
{
    if (field->type == ORR_YAML_TEXT)
        return true;
    for (const char *p = c.at; p < c.end; p++) {
        bool is_inner = *p == '.' || *p == '_' || *p == '-';
        if (!isalnum((unsigned char)*p) && (!is_inner || p == c.at))
            return false;
    }
    return true;
}

static bool
read_enum(const struct orr_yaml_field *field, struct cursor c, uint32_t *ret)
{
    for (uint32_t i = 0; field->names[i]; i++) {
        if (is_word(c, field->names[i])) {
            *ret = i;
            return true;
        }
    }
    return false;
}

/* Types whose value is a number; *is_special: a word that the range does not touch. */
static bool read_value(const struct orr_yaml_field *field,
                       struct cursor c,
                       uint64_t *ret,
                       bool *is_special)
{
    *is_special = false;
    switch (field->type) {
    case ORR_YAML_U32:
        return read_number(c, ret);
    case ORR_YAML_COUNT:
        if (field->min < 0 && is_word(c, "unlimited")) {
            *is_special = true;
            *ret = (uint64_t)-1;
            return true;
        }
        return read_number(c, ret);
    case ORR_YAML_LIMIT:
        if (is_word(c, "unlimited")) {
            *is_special = true;
            *ret = 0;
            return true;
        }
        return read_quantity(c, duration_units, ret);
    case ORR_YAML_DURATION:
        return read_quantity(c, duration_units, ret);
    case ORR_YAML_SIZE:
        *ret = 0;
        return is_word(c, "0") || read_quantity(c, size_units, ret);
    case ORR_YAML_TIME:
        *ret = 0;
        *is_special = is_word(c, "none");
        return *is_special || read_time(c, ret);
    case ORR_YAML_SECTION:
    case ORR_YAML_NAME:
    case ORR_YAML_TEXT:
    case ORR_YAML_BOOL:
    case ORR_YAML_ENUM:
    case ORR_YAML_TEXTS:
    case ORR_YAML_ENV:
    case ORR_YAML_RECORDS:
    case ORR_YAML_TYPE_MAX_:
        break;
    }
    return false;
}

static bool
read_in_range(const struct orr_yaml_field *field, struct cursor c, uint64_t *ret)
{
    bool is_special;
    if (!read_value(field, c, ret, &is_special))
        return false;
    return is_special || ((int64_t)*ret >= field->min && (int64_t)*ret <= field->max);
}

static void put_number(enum orr_yaml_type type, uint64_t v, unsigned char *member)
{
    uint32_t v32 = (uint32_t)v;
    if (type == ORR_YAML_U32)
        memcpy(member, &v32, sizeof v32);
    else
        memcpy(member, &v, sizeof v);
}

static bool
put_numbers(const struct orr_yaml_field *field, struct cursor c, unsigned char *record)
{
    struct cursor low = c, high = c;
    uint64_t from, to;
    if (field->offset_high) {
        const char *dots = memmem(c.at, (size_t)(c.end - c.at), "..", 2);
        if (dots) {
            low.end = dots;
            high.at = dots + 2;
        }
    }
    if (!read_in_range(field, low, &from) || !read_in_range(field, high, &to) ||
        (field->offset_high && from > to))
        return false;
    put_number(field->type, from, record + field->offset);
    if (field->offset_high)
        put_number(field->type, to, record + field->offset_high);
    return true;
}

bool orri_yaml_scalar(const struct orr_yaml_field *field,
                      const char *text,
                      size_t len,
                      void *record)
{
    unsigned char *member = (unsigned char *)record + field->offset;
    struct cursor c = {text, text + len};
    struct orr_str str = {text, (uint32_t)len};
    uint32_t position;
    bool is_true = is_word(c, "true");

    if (orri_yaml_is_text(field->type)) {
        if ((int64_t)len < field->min || (int64_t)len > field->max ||
            !read_name(field, c))
            return false;
        memcpy(member, &str, sizeof str);
        return true;
    }
    if (field->type == ORR_YAML_BOOL) {
        memcpy(member, &is_true, sizeof is_true);
        return is_true || is_word(c, "false");
    }
    if (field->type == ORR_YAML_ENUM) {
        if (!read_enum(field, c, &position))
            return false;
        memcpy(member, &position, sizeof position);
        return true;
    }
    return put_numbers(field, c, record);
}
