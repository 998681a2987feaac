/* SPDX-License-Identifier: Apache-2.0
 * cli_print.c - tables for people, and errors.
 *
 * A table keeps at most TABLE_ROWS_MAX rows: a listing of a million jobs is printed in
 * blocks whose columns only widen.
 */
#include "cli.h"

#include <inttypes.h>
#include <time.h>

void orri_table_init(struct orri_table *table, const char *const *heads, size_t n)
{
    ORR_ASSERT(n <= TABLE_COLUMNS_MAX);
    *table = (struct orri_table){.heads = heads, .n_columns = n};
    for (size_t i = 0; i < n; i++)
        table->width[i] = strlen(heads[i]);
    table->cells = calloc(TABLE_ROWS_MAX * n, sizeof *table->cells);
}

/* Columns on a terminal: a continuation byte of UTF-8 takes none. */
static size_t columns_of(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

void orri_table_add(struct orri_table *table, const char *const *cells)
{
    if (!table->cells)
        return;
    if (table->n_rows == TABLE_ROWS_MAX)
        orri_table_flush(table, stdout);
    for (size_t i = 0; i < table->n_columns; i++) {
        char *copy = strdup(*cells[i] ? cells[i] : "-");
        for (char *p = copy; p && *p;
             p++) { /* nothing of a job's drives the terminal */
            if ((unsigned char)*p < 0x20 || *p == 0x7f)
                *p = ' ';
        }
        size_t width = copy ? columns_of(copy) : 0;
        if (width > table->width[i])
            table->width[i] = width;
        table->cells[table->n_rows * table->n_columns + i] = copy;
    }
    table->n_rows++;
}

static void
print_row(const struct orri_table *table, const char *const *cells, FILE *out)
{
    for (size_t i = 0; i < table->n_columns; i++) {
        const char *text = cells[i] ? cells[i] : "?";
        bool is_last = i + 1 == table->n_columns;
        size_t pad = is_last ? 0 : table->width[i] - columns_of(text) + 2;
        fprintf(out, "%s%*s", text, (int)pad, "");
    }
    fputc('\n', out);
}

void orri_table_flush(struct orri_table *table, FILE *out)
{
    if (!table->is_headed)
        print_row(table, table->heads, out);
    table->is_headed = true;
    for (size_t r = 0; r < table->n_rows; r++)
        print_row(table, (const char *const *)&table->cells[r * table->n_columns], out);
    for (size_t i = 0; i < table->n_rows * table->n_columns; i++) {
        free(table->cells[i]);
        table->cells[i] = NULL;
    }
    table->n_rows = 0;
}

void orri_table_fini(struct orri_table *table)
{
    for (size_t i = 0; table->cells && i < table->n_rows * table->n_columns; i++)
        free(table->cells[i]);
    free(table->cells);
    table->cells = NULL;
}

const char *orri_age(uint64_t ms, char *buf, size_t cap)
{
    uint64_t s = ms / 1000, m = s / 60, h = m / 60;
    if (s < 60)
        snprintf(buf, cap, "%" PRIu64 "s", s);
    else if (m < 60)
        snprintf(buf, cap, "%" PRIu64 "m%02" PRIu64 "s", m, s % 60);
    else if (h < 24)
        snprintf(buf, cap, "%" PRIu64 "h%02" PRIu64 "m", h, m % 60);
    else
        snprintf(buf, cap, "%" PRIu64 "d%02" PRIu64 "h", h / 24, h % 24);
    return buf;
}

const char *orri_bytes(uint64_t n, char *buf, size_t cap)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t i = 0;
    uint64_t tenths = 0;
    for (; i < ORR_ARRAY_SIZE(units) - 1 && n >= 1024; i++) {
        tenths = n % 1024 * 10 / 1024;
        n /= 1024;
    }
    if (tenths)
        snprintf(buf, cap, "%" PRIu64 ".%" PRIu64 "%s", n, tenths, units[i]);
    else
        snprintf(buf, cap, "%" PRIu64 "%s", n, units[i]);
    return buf;
}

uint64_t orri_wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

int orri_exit_of(enum orr_err code)
{
    switch (code) {
    case ORR_OK:
        return EXIT_OK;
    case ORR_EINVAL:
        return EXIT_USAGE;
    case ORR_EUNREACH:
    case ORR_EGONE:
    case ORR_EVERSION:
        return EXIT_UNREACH;
    case ORR_ENOENT:
        return EXIT_NONE;
    case ORR_EBUSY:
    case ORR_ENOSPC:
    case ORR_ENOSYS:
    case ORR_ESTATE:
    case ORR_EEXIST:
    case ORR_EPERM:
    case ORR_ESTALE:
    case ORR_ENODEV:
    case ORR_ENOTLEADER:
        return EXIT_REFUSED;
    case ORR_ETIMEOUT:
        return EXIT_TIMEOUT;
    case ORR_EPROTO:
    case ORR_ENOMEM:
    case ORR_EIO:
    case ORR_ECRASH:
    case ORR_EDISK:
    case ORR_ERR_MAX_:
        break;
    }
    return EXIT_OTHER;
}

int orri_cli_fail(const struct orri_cli *cli, const struct orr_error *err)
{
    fflush(stdout);
    if (orri_cli_interrupts())
        return EXIT_INTERRUPTED;
    fprintf(stderr, "orrery %s: %s\n", cli->verb->name, err->text);
    return orri_exit_of(err->code);
}
