/* SPDX-License-Identifier: Apache-2.0
 * cli_submit.c - submit and run: a spec from a file and options, sent until it is
 * acknowledged.
 *
 * Every attempt carries the same idempotency key, so a lost answer cannot make a second
 * job.
 */
#include "cli.h"

#include <errno.h>
#include <pwd.h>
#include <sys/random.h>
#include <unistd.h>

#include "orrery/job_spec.h"

enum {
    SUBMIT_MS = 10000,  /* until it is given up */
    STRANGER_MS = 2000, /* the same, where no region was ever reached */
    ATTEMPT_MS = 5000,  /* of it for one attempt */
    BACKOFF_MS = 50,    /* doubles */
    DRAIN_MS = 5000,    /* for the last output after the end */
    CANCEL_MS = 20000,  /* after Ctrl-C */
    RANKS_FOLLOWED_MAX = LOG_STREAMS_MAX / 2,
    POLL_MIN_MS = 10,
    POLL_MAX_MS = 300,
};

static const struct {
    enum orri_option option;
    const char *path;
} overrides[] = {{OPT_NAME, "name"},
                 {OPT_PROJECT, "project"},
                 {OPT_TIER, "tier"},
                 {OPT_WORKDIR, "workdir"},
                 {OPT_GPUS, "gpus"},
                 {OPT_WORLD, "world"}};

static enum orr_err read_spec(const struct orri_cli *cli,
                              struct orr_job_spec *ret_spec,
                              struct orr_error *err)
{
    char dir[4096];
    if (!getcwd(dir, sizeof dir))
        return orr_fail(err,
                        ORR_EIO,
                        "the current directory cannot be named: %s; change to another",
                        strerror(errno));
    enum orr_err rc = cli->command ? orr_job_spec_new(ret_spec, err)
                                   : orr_job_spec_load(cli->args[0], ret_spec, err);
    if (rc != ORR_OK)
        return rc;
    if (cli->command)
        rc = orr_job_spec_command(ret_spec, cli->n_command, cli->command, err);
    for (size_t i = 0; i < ORR_ARRAY_SIZE(overrides) && rc == ORR_OK; i++) {
        const char *value = cli->value[overrides[i].option];
        if (value)
            rc = orr_job_spec_set(ret_spec, overrides[i].path, value, err);
    }
    if (rc == ORR_OK)
        rc = orr_job_spec_finish(ret_spec, dir, err);
    if (rc != ORR_OK)
        orr_job_spec_free(ret_spec);
    return rc;
}

static enum orr_err make_key(char *key, size_t cap, struct orr_error *err)
{
    uint8_t random[16];
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return orr_fail(
            err, ORR_EIO, "no random numbers: %s; use --key", strerror(errno));
    for (size_t i = 0; i < sizeof random && 2 * i + 2 < cap; i++)
        snprintf(key + 2 * i, cap - 2 * i, "%02x", random[i]);
    return ORR_OK;
}

static const char *owner_name(char *buf, size_t cap)
{
    const struct passwd *user = getpwuid(getuid());
    if (user)
        snprintf(buf, cap, "%s", user->pw_name);
    else
        snprintf(buf, cap, "uid-%u", (unsigned)getuid());
    return buf;
}

static bool is_worth_retrying(const struct orri_cli *cli, enum orr_err rc)
{
    return orri_leader_is_lost(cli, rc) || rc == ORR_ETIMEOUT || rc == ORR_EBUSY;
}

static enum orr_err send_until_answered(struct orri_cli *cli,
                                        const struct orr_msg_job_submit *submit,
                                        uint64_t timeout_ms,
                                        struct orr_answer *ret_answer,
                                        struct orr_error *err)
{
    uint64_t start_ms = orri_cli_now_ms(), pause_ms = BACKOFF_MS;
    uint64_t end_ms = start_ms + timeout_ms;
    for (;;) {
        uint64_t now_ms = orri_cli_now_ms();
        uint64_t left_ms = now_ms < end_ms ? end_ms - now_ms : 1;
        enum orr_err rc = orri_cli_ask(cli,
                                       NULL,
                                       orr_msg_desc_job_submit(),
                                       submit,
                                       left_ms < ATTEMPT_MS ? left_ms : ATTEMPT_MS,
                                       ret_answer,
                                       err);
        if (cli->contact_ms == 0 && !cli->value[OPT_TIMEOUT]) /* nobody was there */
            end_ms = start_ms + STRANGER_MS;
        if (rc == ORR_OK || !is_worth_retrying(cli, rc) || orri_cli_interrupts() ||
            orri_cli_now_ms() + pause_ms >= end_ms)
            return rc;
        orri_cli_sleep(pause_ms / 2 + (uint64_t)rand() % pause_ms);
        pause_ms *= 2;
    }
}

/* Read, send, and give the job's id; `world` of the spec as well. */
static enum orr_err submit(struct orri_cli *cli,
                           char job[ORR_JOB_ID_MAX],
                           bool *ret_existed,
                           uint32_t *ret_world,
                           struct orr_error *err)
{
    char key[64], owner[64];
    uint64_t timeout_ms = SUBMIT_MS;
    struct orr_job_spec spec;
    struct orr_answer answer;
    size_t len;
    enum orr_err rc = read_spec(cli, &spec, err);
    if (rc == ORR_ENOENT) /* a missing file is bad usage, not a missing job */
        rc = err->code = ORR_EINVAL;
    if (rc != ORR_OK)
        return rc;
    uint8_t *wire = malloc(ORR_SPEC_BYTES_MAX);
    rc = wire ? orr_msg_encode(
                    orr_msg_desc_job_spec(), &spec.msg, wire, ORR_SPEC_BYTES_MAX, &len)
              : orr_fail(err, ORR_ENOMEM, "out of memory");
    *ret_world = spec.msg.world;
    orr_job_spec_free(&spec);
    if (rc == ORR_OK)
        rc = make_key(key, sizeof key, err);
    if (rc == ORR_OK && strcmp(cli->verb->name, "submit") == 0)
        rc = orri_cli_duration(cli, SUBMIT_MS, &timeout_ms, err);
    if (rc == ORR_OK)
        rc = orri_cli_locate(cli, err);
    if (rc == ORR_OK) {
        const char *given = cli->value[OPT_KEY];
        struct orr_msg_job_submit msg = {.key = orr_str(given ? given : key),
                                         .owner =
                                             orr_str(owner_name(owner, sizeof owner)),
                                         .spec = {wire, (uint32_t)len}};
        rc = send_until_answered(cli, &msg, timeout_ms, &answer, err);
    }
    free(wire);
    if (rc != ORR_OK)
        return rc;
    const struct orr_msg_job_submitted *submitted = answer.msg;
    orr_str_copy(job, ORR_JOB_ID_MAX, submitted->job);
    *ret_existed = submitted->existed;
    return ORR_OK;
}

/* A file or a program, not both and not neither. */
static enum orr_err check_source(const struct orri_cli *cli, struct orr_error *err)
{
    if ((cli->n_args == 1) != (cli->command == NULL))
        return orr_fail(err,
                        ORR_EINVAL,
                        "either a FILE or `-- program`; usage: orrery %s %s",
                        cli->verb->name,
                        cli->verb->usage);
    return ORR_OK;
}

int orri_verb_submit(struct orri_cli *cli)
{
    struct orr_error err;
    char job[ORR_JOB_ID_MAX];
    bool existed;
    uint32_t world;
    if (check_source(cli, &err) != ORR_OK ||
        submit(cli, job, &existed, &world, &err) != ORR_OK)
        return orri_cli_fail(cli, &err);
    if (cli->format == FORMAT_TABLE)
        printf("%s\n", job);
    else
        printf("{\"job\":\"%s\",\"existed\":%s}\n", job, existed ? "true" : "false");
    return EXIT_OK;
}

/* ---- run ---- */

struct run {
    char job[ORR_JOB_ID_MAX];
    struct orri_log logs[LOG_STREAMS_MAX];
    size_t n_logs;
    bool has_prefix;
    unsigned interrupts_seen;
    uint64_t end_ms; /* when to give up; 0: never */
};

/* The first Ctrl-C cancels the job and waits for its end, the second leaves it. */
static bool must_leave(struct orri_cli *cli, struct run *run)
{
    struct orr_answer answer;
    struct orr_error err;
    if (orri_cli_interrupts() > run->interrupts_seen) {
        if (run->interrupts_seen++)
            return true;
        run->end_ms = orri_cli_now_ms() + CANCEL_MS;
        fprintf(stderr, "orrery run: cancelling %s; again to leave it\n", run->job);
        struct orr_msg_job_cancel msg = {.job = orr_str(run->job),
                                         .why = ORR_LIT("interrupted by its user")};
        (void)!orri_cli_ask(
            cli, NULL, orr_msg_desc_job_cancel(), &msg, 5000, &answer, &err);
    }
    return run->end_ms && orri_cli_now_ms() >= run->end_ms;
}

/* Until the job has ended: its output as it comes.  Errors of logs are passing: it may
 * not have started. */
static enum orr_err follow(struct orri_cli *cli, struct run *run, struct orr_error *err)
{
    uint64_t pause_ms = POLL_MIN_MS;
    struct orr_error ignored;
    for (;;) {
        size_t bytes = 0;
        enum orr_err rc = orri_watch_poll(cli, pause_ms, err);
        if (rc != ORR_ETIMEOUT)
            return rc;
        if (must_leave(cli, run)) {
            fprintf(stderr,
                    "orrery run: job %s goes on; `orrery wait %s` waits for it\n",
                    run->job,
                    run->job);
            return orr_fail(err, ORR_ETIMEOUT, "left before the end of the job");
        }
        if (orri_logs_poll(cli,
                           run->job,
                           run->logs,
                           run->n_logs,
                           run->has_prefix,
                           &bytes,
                           &ignored) != ORR_OK ||
            bytes == 0)
            pause_ms = pause_ms * 2 < POLL_MAX_MS ? pause_ms * 2 : POLL_MAX_MS;
        else
            pause_ms = POLL_MIN_MS;
    }
}

/* What was written before the end and not read yet. */
static void drain(struct orri_cli *cli, struct run *run)
{
    struct orr_error ignored;
    uint64_t end_ms = orri_cli_now_ms() + DRAIN_MS;
    size_t bytes = 1;
    while (bytes && !orri_logs_are_final(run->logs, run->n_logs) &&
           orri_cli_now_ms() < end_ms) {
        if (orri_logs_poll(cli,
                           run->job,
                           run->logs,
                           run->n_logs,
                           run->has_prefix,
                           &bytes,
                           &ignored) != ORR_OK &&
            bytes == 0)
            return;
    }
}

int orri_verb_run(struct orri_cli *cli)
{
    struct run run = {.job = ""};
    struct orr_error err;
    uint32_t world;
    bool existed;
    uint64_t timeout_ms;
    if (check_source(cli, &err) != ORR_OK ||
        orri_cli_duration(cli, 0, &timeout_ms, &err) != ORR_OK ||
        submit(cli, run.job, &existed, &world, &err) != ORR_OK)
        return orri_cli_fail(cli, &err);
    run.end_ms = timeout_ms ? orri_cli_now_ms() + timeout_ms : 0;
    uint32_t ranks = world < RANKS_FOLLOWED_MAX ? world : RANKS_FOLLOWED_MAX;
    run.n_logs = 2 * (size_t)ranks;
    run.has_prefix = world > 1;
    for (uint32_t i = 0; i < run.n_logs; i++)
        run.logs[i] = (struct orri_log){.rank = i / 2,
                                        .stream = i % 2 ? LOG_STDERR : LOG_STDOUT,
                                        .out = i % 2 ? stderr : stdout};
    fprintf(stderr, "orrery run: job %s\n", run.job);
    if (ranks < world)
        fprintf(stderr, "orrery run: showing ranks 0..%u of %u\n", ranks - 1, world);
    orri_watch_start(cli, run.job);
    enum orr_err rc = follow(cli, &run, &err);
    int code;
    if (rc == ORR_OK) {
        const struct orr_msg_job_detail *d = cli->watch.detail;
        drain(cli, &run);
        fflush(stdout);
        code = orri_exit_of_job(d);
        if (code != EXIT_OK)
            fprintf(stderr,
                    "orrery run: job %s %s: %.*s\n",
                    run.job,
                    orr_job_phase_name(d->row.phase),
                    ORR_STR_ARGS(d->row.reason));
        if (run.interrupts_seen)
            code = EXIT_INTERRUPTED;
    } else {
        code = orri_cli_fail(cli, &err);
    }
    orri_watch_stop(cli);
    return code;
}
