/* SPDX-License-Identifier: Apache-2.0
 * cli_logs.c - what ranks wrote, read through the region from the node that has the
 * file.
 *
 * The files stand still when a node does: a follow asks again, more seldom the less
 * there is.  A new generation starts its files anew; what it wrote is read from the
 * first byte.
 */
#include "cli.h"

#include <inttypes.h>

enum {
    CHUNK_BYTES = 256 << 10,
    READ_MS = 5000,
    AWAY_MS = 10000,
    POLL_MIN_MS = 20,
    POLL_MAX_MS = 500
};

/* "[3] " before every line, also where a line was cut between two reads. */
static void
print_chunk(struct orri_log *log, bool has_prefix, const char *data, size_t len)
{
    if (!has_prefix) {
        fwrite(data, 1, len, log->out);
        return;
    }
    while (len) {
        const char *newline = memchr(data, '\n', len);
        size_t n = newline ? (size_t)(newline - data) + 1 : len;
        if (!log->is_mid_line)
            fprintf(log->out, "[%u] ", log->rank);
        fwrite(data, 1, n, log->out);
        log->is_mid_line = newline == NULL;
        data += n;
        len -= n;
    }
}

static enum orr_err read_chunk(struct orri_cli *cli,
                               const char *job,
                               struct orri_log *log,
                               bool has_prefix,
                               size_t *ret_bytes,
                               struct orr_error *err)
{
    struct orr_answer answer;
    struct orr_msg_log_read msg = {.job = orr_str(job),
                                   .rank = log->rank,
                                   .stream = log->stream,
                                   .offset = log->offset,
                                   .max_bytes = CHUNK_BYTES};
    *ret_bytes = 0;
    enum orr_err rc =
        orri_cli_ask(cli, NULL, orr_msg_desc_log_read(), &msg, READ_MS, &answer, err);
    if (rc != ORR_OK)
        return rc;
    const struct orr_msg_log_chunk *chunk = answer.msg;
    if (chunk->generation != log->generation) {
        bool is_stale = log->offset != 0; /* an offset in another file */
        log->generation = chunk->generation;
        log->is_final = false;
        log->offset = 0;
        if (is_stale)
            return read_chunk(cli, job, log, has_prefix, ret_bytes, err);
    }
    print_chunk(log, has_prefix, (const char *)chunk->data.ptr, chunk->data.len);
    log->offset = chunk->offset + chunk->data.len;
    log->is_final = chunk->is_final;
    *ret_bytes = chunk->data.len;
    return ORR_OK;
}

enum orr_err orri_logs_poll(struct orri_cli *cli,
                            const char *job,
                            struct orri_log *logs,
                            size_t n,
                            bool has_prefix,
                            size_t *ret_bytes,
                            struct orr_error *err)
{
    enum orr_err first = ORR_OK;
    *ret_bytes = 0;
    for (size_t i = 0; i < n; i++) {
        struct orr_error detail;
        size_t bytes;
        enum orr_err rc = read_chunk(cli, job, &logs[i], has_prefix, &bytes, &detail);
        *ret_bytes += bytes;
        if (rc == ORR_OK)
            continue;
        if (first == ORR_OK) {
            first = rc;
            *err = detail;
        }
        /* The next would fare no better, and wait as long. */
        if (rc == ORR_EUNREACH || rc == ORR_ETIMEOUT || rc == ORR_ESTATE ||
            rc == ORR_EBUSY)
            break;
    }
    fflush(stdout);
    return first;
}

bool orri_logs_are_final(const struct orri_log *logs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!logs[i].is_final)
            return false;
    }
    return true;
}

struct logs {
    char job[ORR_JOB_ID_MAX];
    uint32_t phase;
    uint32_t world;
    bool is_placed;
    struct orri_log at[LOG_STREAMS_MAX];
    size_t n;
};

static enum orr_err
look_at_job(struct orri_cli *cli, struct logs *logs, struct orr_error *err)
{
    struct orr_answer answer;
    struct orr_msg_job_show msg = {.job = orr_str(logs->job)};
    enum orr_err rc =
        orri_cli_ask(cli, NULL, orr_msg_desc_job_show(), &msg, READ_MS, &answer, err);
    if (rc != ORR_OK)
        return rc;
    const struct orr_msg_job_detail *detail = answer.msg;
    logs->phase = detail->row.phase;
    logs->world = detail->row.world;
    logs->is_placed = detail->ranks.n > 0;
    return ORR_OK;
}

static enum orr_err
choose_ranks(const struct orri_cli *cli, struct logs *logs, struct orr_error *err)
{
    const char *wanted = cli->value[OPT_RANK];
    uint32_t stream = cli->value[OPT_STDERR] ? LOG_STDERR : LOG_STDOUT;
    unsigned long rank = 0;
    if (wanted && strcmp(wanted, "all") == 0) {
        logs->n = logs->world < LOG_STREAMS_MAX ? logs->world : LOG_STREAMS_MAX;
        for (uint32_t i = 0; i < logs->n; i++)
            logs->at[i] = (struct orri_log){.rank = i, .stream = stream, .out = stdout};
        if (logs->n < logs->world)
            fprintf(stderr,
                    "orrery logs: showing ranks 0..%zu of %u\n",
                    logs->n - 1,
                    logs->world);
        return ORR_OK;
    }
    if (wanted) {
        char *end;
        rank = strtoul(wanted, &end, 10);
        if (*wanted < '0' || *wanted > '9' || *end || rank >= logs->world)
            return orr_fail(err,
                            ORR_EINVAL,
                            "--rank: expected 0..%u or all, got `%.32s`",
                            logs->world - 1,
                            wanted);
    }
    logs->n = 1;
    logs->at[0] =
        (struct orri_log){.rank = (uint32_t)rank, .stream = stream, .out = stdout};
    return ORR_OK;
}

/* While the job lives its output may not be there yet, or its node be away for a
 * moment. */
static bool is_passing(enum orr_err rc)
{
    return rc == ORR_ENOENT || rc == ORR_ESTATE || rc == ORR_EBUSY ||
           rc == ORR_EUNREACH || rc == ORR_ETIMEOUT || rc == ORR_EGONE;
}

static enum orr_err
follow(struct orri_cli *cli, struct logs *logs, struct orr_error *err)
{
    uint64_t pause_ms = POLL_MIN_MS, contact_ms = orri_cli_now_ms();
    while (!orri_cli_interrupts()) {
        size_t bytes;
        bool was_final = orr_job_phase_is_final(logs->phase);
        enum orr_err rc =
            orri_logs_poll(cli, logs->job, logs->at, logs->n, logs->n > 1, &bytes, err);
        if (bytes) {
            pause_ms = POLL_MIN_MS;
            continue;
        }
        if (was_final) /* looked before reading: nothing more can come */
            return rc;
        if (rc != ORR_OK && !is_passing(rc))
            return rc;
        rc = look_at_job(cli, logs, err);
        if (rc == ORR_OK)
            contact_ms = orri_cli_now_ms();
        else if (!is_passing(rc) || rc == ORR_ENOENT ||
                 orri_cli_now_ms() - contact_ms > 60000)
            return rc;
        if (rc == ORR_OK && orr_job_phase_is_final(logs->phase))
            continue;
        orri_cli_sleep(pause_ms);
        pause_ms = pause_ms * 2 < POLL_MAX_MS ? pause_ms * 2 : POLL_MAX_MS;
    }
    return ORR_OK;
}

/* It may only be starting again: the files are there then. */
static bool is_node_away(const struct logs *logs, enum orr_err rc)
{
    return rc == ORR_EGONE || rc == ORR_EUNREACH ||
           (rc == ORR_ESTATE && logs->is_placed);
}

static enum orr_err
read_to_end(struct orri_cli *cli, struct logs *logs, struct orr_error *err)
{
    size_t bytes = 1;
    enum orr_err rc = ORR_OK;
    uint64_t give_up_ms = orri_cli_now_ms() + AWAY_MS;
    while (rc == ORR_OK && bytes && !orri_logs_are_final(logs->at, logs->n) &&
           !orri_cli_interrupts()) {
        rc =
            orri_logs_poll(cli, logs->job, logs->at, logs->n, logs->n > 1, &bytes, err);
        if (is_node_away(logs, rc) && orri_cli_now_ms() < give_up_ms) {
            orri_cli_sleep(POLL_MIN_MS);
            rc = ORR_OK;
            bytes = 1;
        }
    }
    if (rc != ORR_OK && rc != ORR_EUNREACH && rc != ORR_ETIMEOUT &&
        !orr_job_phase_is_final(logs->phase) && logs->at[0].offset == 0) {
        fprintf(stderr,
                "orrery logs: job %s is %s and has no output yet; -f waits for it\n",
                logs->job,
                orr_job_phase_name(logs->phase));
        return ORR_OK;
    }
    return rc;
}

int orri_verb_logs(struct orri_cli *cli)
{
    struct orr_error err;
    struct logs logs = {.n = 0};
    orr_str_copy(logs.job, sizeof logs.job, orr_str(cli->args[0]));
    enum orr_err rc = orri_cli_locate(cli, &err);
    if (rc == ORR_OK)
        rc = look_at_job(cli, &logs, &err);
    if (rc == ORR_OK)
        rc = choose_ranks(cli, &logs, &err);
    if (rc == ORR_OK)
        rc = cli->value[OPT_FOLLOW] ? follow(cli, &logs, &err)
                                    : read_to_end(cli, &logs, &err);
    if (rc != ORR_OK)
        return orri_cli_fail(cli, &err);
    return orri_cli_interrupts() ? EXIT_INTERRUPTED : EXIT_OK;
}
