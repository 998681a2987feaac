/* SPDX-License-Identifier: Apache-2.0
 * log.c - one line per entry: time=2026-01-01T00:00:00.000Z level=info host=n1 actor=/eu1/a text="...", or the same as JSON.
 *
 * A line is formatted on the stack and written with one call, so that lines of several threads stay whole (O_APPEND files
 * and pipes up to PIPE_BUF) and logging takes no lock and no memory.
 */
#include "log.h"

#include <time.h>
#include <unistd.h>

static const char *const levels[] = {"debug", "info", "warn", "error"};

struct line {
    char at[4096];
    size_t len;
};

/* Whole or not at all: a cut line ends between two characters. */
static void put(struct line *line, const char *text, size_t n)
{
    if (n >
        sizeof(line->at) - 3 - line->len) /* room for the end: quote, brace, newline */
        return;
    memcpy(line->at + line->len, text, n);
    line->len += n;
}

static void put_quoted(struct line *line, const char *text)
{
    put(line, "\"", 1);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        char hex[8];
        if (c == '"' || c == '\\') {
            char pair[2] = {'\\', (char)c};
            put(line, pair, 2);
        } else if (c < 0x20 || c == 0x7f) {
            put(line, hex, (size_t)snprintf(hex, sizeof(hex), "\\u%04x", c));
        } else {
            put(line, text, 1);
        }
    }
    if (line->len + 3 <= sizeof(line->at))
        line->at[line->len++] = '"';
}

static void
put_field(struct line *line, bool is_json, const char *key, const char *value)
{
    if (line->len > (is_json ? 1 : 0))
        put(line, is_json ? "," : " ", 1);
    if (is_json)
        put_quoted(line, key);
    else
        put(line, key, strlen(key));
    put(line, is_json ? ":" : "=", 1);
    if (is_json || strcmp(key, "text") == 0)
        put_quoted(line, value);
    else
        put(line, value, strlen(value));
}

void orr_log_line(void *arg,
                  enum orr_log_level level,
                  uint64_t wall_ms,
                  const char *who,
                  const char *text)
{
    const struct orr_log *log = arg;
    if (level < log->level)
        return;
    struct line line = {.len = 0};
    char when[64];
    struct tm tm;
    time_t seconds = (time_t)(wall_ms / 1000);
    gmtime_r(&seconds, &tm);
    size_t n = strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(when + n, sizeof(when) - n, ".%03uZ", (unsigned)(wall_ms % 1000));
    if (log->is_json)
        put(&line, "{", 1);
    put_field(&line, log->is_json, "time", when);
    put_field(&line, log->is_json, "level", levels[level]);
    put_field(&line, log->is_json, "host", log->host);
    put_field(&line, log->is_json, "actor", who);
    put_field(&line, log->is_json, "text", text);
    if (log->is_json)
        line.at[line.len++] = '}';
    line.at[line.len++] = '\n';
    ssize_t written = write(log->fd, line.at, line.len);
    (void)written; /* a log that cannot be written must not stop the host */
}
