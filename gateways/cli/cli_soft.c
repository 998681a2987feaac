/* SPDX-License-Identifier: Apache-2.0
 * cli_soft.c - soft state for listings: out of Redis, or out of the memory of the
 * region's host; the region itself is not troubled.
 *
 * Neither is the truth: a command that must know asks the region.
 */
#include "cli_soft.h"

#include <inttypes.h>

enum { CONNECT_MS = 500, READ_MS = 2000, ASK_MS = 2000, PAGE_ROWS = 512 };

enum orr_err orri_soft_locate(const struct orri_cli *cli,
                              struct orr_soft_source *ret_source,
                              struct orr_error *err)
{
    const char *file = getenv("ORRERY_SOFTSTATE"), *dir = getenv("ORRERY_STATE");
    char path[4096];
    if (file && *file)
        return orr_soft_source_read(file, ret_source, err);
    const char *region = getenv("ORRERY_REGION");
    if (!dir || !*dir || cli->value[OPT_REGION] || (region && *region))
        return orr_fail(
            err, ORR_ENOENT, "no Redis is configured; set ORRERY_SOFTSTATE");
    snprintf(path, sizeof path, "%s/softstate", dir);
    enum orr_err rc = orr_soft_source_read(path, ret_source, err);
    return rc == ORR_ENOENT ? orr_fail(err, rc, "the fleet has no Redis") : rc;
}

/* ---- rows -------------------------------------------------------------------------- */

static void drop_row(struct orri_soft_row *row)
{
    free(row->msg);
    row->msg = NULL;
}

bool orri_soft_add(struct orri_soft *soft,
                   enum orr_soft_kind kind,
                   struct orr_str key,
                   const void *msg,
                   size_t rows_max)
{
    const struct orr_msg_desc *desc = orr_soft_desc(kind);
    if (soft->n_rows == rows_max)
        return false;
    if (soft->n_rows == soft->cap_rows) {
        size_t cap = soft->cap_rows ? soft->cap_rows * 2 : 64;
        struct orri_soft_row *rows = realloc(soft->rows, cap * sizeof *rows);
        if (!rows)
            return false;
        soft->rows = rows;
        soft->cap_rows = cap;
    }
    struct orri_soft_row *row = &soft->rows[soft->n_rows];
    row->kind = kind;
    orr_str_copy(row->key, sizeof row->key, key);
    row->msg = malloc(orr_msg_size(desc, msg));
    if (!row->msg)
        return false;
    orr_msg_copy(desc, msg, row->msg);
    soft->n_rows++;
    return true;
}

static int by_key(const void *a, const void *b)
{
    const struct orri_soft_row *x = a, *y = b;
    return x->kind != y->kind ? (int)x->kind - (int)y->kind : strcmp(x->key, y->key);
}

static int by_age(const void *a, const void *b)
{
    const struct orri_soft_row *x = a, *y = b;
    if (x->kind != ORR_SOFT_JOB || y->kind != ORR_SOFT_JOB)
        return by_key(a, b);
    uint64_t i = ((const struct orr_msg_soft_job *)x->msg)->row.submitted_unix_ms;
    uint64_t j = ((const struct orr_msg_soft_job *)y->msg)->row.submitted_unix_ms;
    return i != j ? (i < j ? -1 : 1) : by_key(a, b);
}

void orri_soft_sort(struct orri_soft *soft)
{
    size_t n = 0;
    if (soft->n_rows == 0)
        return;
    qsort(soft->rows, soft->n_rows, sizeof *soft->rows, by_key);
    for (size_t i = 1; i < soft->n_rows; i++) {
        if (by_key(&soft->rows[n], &soft->rows[i]) == 0)
            drop_row(&soft->rows[n]);
        else
            n++;
        soft->rows[n] = soft->rows[i];
    }
    soft->n_rows = n + 1;
    qsort(soft->rows, soft->n_rows, sizeof *soft->rows, by_age);
}

const struct orri_soft_row *orri_soft_first(const struct orri_soft *soft,
                                            enum orr_soft_kind kind)
{
    for (size_t i = 0; i < soft->n_rows; i++)
        if (soft->rows[i].kind == kind)
            return &soft->rows[i];
    return NULL;
}

size_t orri_soft_count(const struct orri_soft *soft, enum orr_soft_kind kind)
{
    size_t n = 0;
    for (size_t i = 0; i < soft->n_rows; i++)
        n += soft->rows[i].kind == kind;
    return n;
}

uint64_t orri_soft_age_ms(const void *msg)
{
    uint64_t at, now = orri_wall_ms();
    memcpy(&at, msg, sizeof at); /* every soft_* message starts with at_unix_ms */
    return now > at ? now - at : 0;
}

void orri_soft_fini(struct orri_soft *soft)
{
    for (size_t i = 0; i < soft->n_rows; i++)
        drop_row(&soft->rows[i]);
    free(soft->rows);
    soft->rows = NULL;
    soft->n_rows = soft->cap_rows = 0;
}

/* ---- sources ----------------------------------------------------------------------- */

struct taking {
    struct orri_soft *soft;
    size_t rows_max;
};

static bool
take(void *arg, enum orr_soft_kind kind, struct orr_str key, const void *msg)
{
    struct taking *t = arg;
    return orri_soft_add(t->soft, kind, key, msg, t->rows_max);
}

/* The region's name is what the fleet's folder says, or what its host calls itself. */
static enum orr_err region_of(struct orri_cli *cli, struct orr_str *ret_region)
{
    if (!cli->region_path[0]) {
        struct orr_error ignored;
        struct orr_answer answer;
        enum orr_err rc = orri_cli_ask(cli,
                                       "/edge/softstate",
                                       orr_msg_desc_soft_status_get(),
                                       &(struct orr_msg_soft_status_get){0},
                                       ASK_MS,
                                       &answer,
                                       &ignored);
        if (rc != ORR_OK)
            return rc;
    }
    *ret_region = orr_str(cli->region_path + 1);
    return ORR_OK;
}

static enum orr_err read_all(struct orri_cli *cli,
                             struct orr_soft_reader *reader,
                             unsigned kinds,
                             struct taking *taking,
                             struct orr_error *err)
{
    struct orr_str region;
    struct orri_soft *soft = taking->soft;
    enum orr_err rc = region_of(cli, &region);
    if (rc != ORR_OK)
        return orr_fail(err, rc, "the region's name is not known; give --region-name");
    if (kinds &
        1u << ORR_SOFT_REGION) { /* a region that is too large is told by this */
        const struct orr_soft_key key = orr_soft_key(
            ORR_SOFT_REGION, region, (struct orr_str){0}, (struct orr_str){0});
        rc = orr_soft_reader_get(
            reader, region, &key, READ_MS, take, taking, &soft->count, err);
        kinds &= ~(1u << ORR_SOFT_REGION);
    }
    const struct orri_soft_row *row = orri_soft_first(soft, ORR_SOFT_REGION);
    const struct orr_msg_soft_region *msg = row ? row->msg : NULL;
    if (rc == ORR_OK && msg && msg->jobs >= taking->rows_max)
        kinds &= ~(1u << ORR_SOFT_JOB);
    if (rc == ORR_OK)
        rc = orr_soft_reader_scan(
            reader, region, kinds, READ_MS, take, taking, &soft->count, err);
    return rc;
}

enum orr_err orri_soft_read(struct orri_cli *cli,
                            unsigned kinds,
                            size_t rows_max,
                            struct orri_soft *soft,
                            struct orr_error *err)
{
    struct orr_soft_source source;
    struct orr_soft_reader *reader = NULL;
    struct taking taking = {soft, rows_max};
    enum orr_err rc = orri_soft_locate(cli, &source, err);
    if (rc == ORR_OK)
        rc = orr_soft_reader_new(&source, CONNECT_MS, &reader, err);
    if (rc != ORR_OK)
        return rc;
    rc = read_all(cli, reader, kinds, &taking, err);
    orr_soft_reader_free(reader);
    if (rc != ORR_OK)
        return rc;
    orri_soft_sort(soft);
    soft->source = "redis";
    return soft->n_rows ? ORR_OK
                        : orr_fail(err, ORR_ENOENT, "Redis has nothing of the region");
}

enum orr_err orri_soft_ask(struct orri_cli *cli,
                           unsigned kinds,
                           size_t rows_max,
                           struct orri_soft *soft,
                           struct orr_error *err)
{
    struct taking taking = {soft, rows_max};
    struct orr_str region;
    uint64_t cursor = 0;
    enum orr_err rc = region_of(cli, &region);
    if (rc != ORR_OK)
        return orr_fail(err, rc, "the region's host does not answer");
    do {
        struct orr_answer answer;
        const struct orr_msg_soft_scan msg = {.cursor = cursor, .limit = PAGE_ROWS};
        rc = orri_cli_ask(cli,
                          "/edge/softstate",
                          orr_msg_desc_soft_scan(),
                          &msg,
                          ASK_MS,
                          &answer,
                          err);
        if (rc != ORR_OK)
            return rc;
        const struct orr_msg_soft_page *page = answer.msg;
        cursor = page->cursor > cursor ? page->cursor : 0;
        for (uint32_t i = 0; i < page->entries.n; i++) {
            const struct orr_rec_soft_entry *e = &page->entries.at[i];
            if (!orr_soft_take(
                    region, kinds, e->key, e->value, take, &taking, &soft->count))
                cursor = 0;
        }
    } while (cursor && !orri_cli_interrupts());
    orri_soft_sort(soft);
    soft->source = "memory";
    return ORR_OK;
}

void orri_soft_state(struct orri_cli *cli, char *buf, size_t cap)
{
    struct orr_error err;
    struct orr_answer answer;
    enum orr_err rc = orri_cli_ask(cli,
                                   "/edge/softstate",
                                   orr_msg_desc_soft_status_get(),
                                   &(struct orr_msg_soft_status_get){0},
                                   ASK_MS,
                                   &answer,
                                   &err);
    if (rc != ORR_OK) {
        snprintf(buf, cap, "unknown: %s", err.text);
        return;
    }
    const struct orr_msg_soft_status *s = answer.msg;
    if (s->is_degraded)
        snprintf(buf, cap, "degraded: %s", s->why.ptr);
    else
        snprintf(buf, cap, "%s", s->backend.ptr);
}

/* A value that is no number is a text. */
char *orri_json_with(char *take_json, const char *name, const char *value)
{
    char *json = NULL;
    size_t len = take_json ? strlen(take_json) : 0, out_len;
    FILE *out =
        len && take_json[len - 1] == '}' ? open_memstream(&json, &out_len) : NULL;
    if (!out)
        return take_json;
    bool is_number = *value && strspn(value, "0123456789") == strlen(value);
    fprintf(out, "%.*s%s\"%s\":", (int)len - 1, take_json, len > 2 ? "," : "", name);
    if (!is_number)
        fputc('"', out);
    for (const char *p = value; *p; p++) {
        if (*p == '"' || *p == '\\')
            fputc('\\', out);
        fputc((unsigned char)*p < 0x20 ? ' ' : *p, out);
    }
    fputs(is_number ? "}" : "\"}", out);
    fclose(out);
    free(take_json);
    return json;
}
