/* SPDX-License-Identifier: Apache-2.0
 * cli_region.c - the way to the region: where it is, the link, one question and its
 * answer.
 *
 * Answers may come in any order (a job_wait stays open while logs are read), so each is
 * told apart by its number, and one that nobody waits for any more is dropped.
 */
#include "cli.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

enum { SLICE_MS = 100, CONNECT_MS = 3000 };

static volatile sig_atomic_t interrupts;

static void on_signal(int signal)
{
    (void)signal;
    interrupts++;
}

void orri_cli_catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    interrupts = 0;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_DFL); /* a reader that has gone ends us without a word */
}

unsigned orri_cli_interrupts(void)
{
    return (unsigned)interrupts;
}

uint64_t orri_cli_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void orri_cli_sleep(uint64_t ms)
{
    struct timespec t = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
    orri_cli_check_reader();
}

void orri_cli_check_reader(void)
{
    struct pollfd out = {.fd = STDOUT_FILENO};
    if (poll(&out, 1, 0) == 1 && (out.revents & POLLERR))
        raise(SIGPIPE);
}

/* The first line of DIR/name. */
static bool read_line(const char *dir, const char *name, char *buf, size_t cap)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "re");
    bool is_read = f && fgets(buf, (int)cap, f) != NULL;
    if (f)
        fclose(f);
    if (is_read)
        buf[strcspn(buf, "\r\n")] = '\0';
    return is_read && buf[0];
}

static enum orr_err
locate_fleet(struct orri_cli *cli, const char *dir, struct orr_error *err)
{
    char name[ORR_NAME_MAX];
    if (!read_line(dir, "endpoint", cli->endpoint, sizeof cli->endpoint))
        return orr_fail(err,
                        ORR_EUNREACH,
                        "ORRERY_STATE=%s: no fleet there; start one with `orrery dev "
                        "up --state %s`",
                        dir,
                        dir);
    if (!cli->value[OPT_REGION_NAME] && read_line(dir, "region", name, sizeof name))
        snprintf(cli->region_path, sizeof cli->region_path, "/%s", name);
    return ORR_OK;
}

enum orr_err orri_cli_locate(struct orri_cli *cli, struct orr_error *err)
{
    const char *endpoint = cli->value[OPT_REGION];
    const char *dir = getenv("ORRERY_STATE");
    if (cli->value[OPT_REGION_NAME])
        snprintf(cli->region_path,
                 sizeof cli->region_path,
                 "/%.63s",
                 cli->value[OPT_REGION_NAME]);
    if (!endpoint)
        endpoint = getenv("ORRERY_REGION");
    if (endpoint && *endpoint) {
        if (strncmp(endpoint, "ipc://", 6) != 0 && strncmp(endpoint, "tcp://", 6) != 0)
            return orr_fail(err,
                            ORR_EINVAL,
                            "%.200s: not an endpoint; write ipc:///PATH or "
                            "tcp://HOST:PORT",
                            endpoint);
        orr_str_copy(cli->endpoint, sizeof cli->endpoint, orr_str(endpoint));
        return ORR_OK;
    }
    if (dir && *dir)
        return locate_fleet(cli, dir, err);
    return orr_fail(err,
                    ORR_EINVAL,
                    "which region? set ORRERY_STATE=DIR of `orrery dev up`, or "
                    "ORRERY_REGION or --region to the endpoint of its host");
}

void orri_cli_close(struct orri_cli *cli)
{
    orr_client_free(cli->client);
    cli->client = NULL;
    cli->watch.corr = 0; /* its answer went with the link */
}

/* The actor's path is the region's name; a region usually runs on a host of its own
 * name. */
static enum orr_err connect_region(struct orri_cli *cli, struct orr_error *err)
{
    if (cli->client)
        return ORR_OK;
    enum orr_err rc = orr_client_new(cli->endpoint, CONNECT_MS, &cli->client, err);
    if (rc != ORR_OK)
        return rc;
    cli->contact_ms = orri_cli_now_ms();
    if (!cli->region_path[0])
        snprintf(cli->region_path,
                 sizeof cli->region_path,
                 "/%.63s",
                 orr_client_host(cli->client));
    return ORR_OK;
}

static enum orr_err check_answer(const struct orr_msg_desc *asked,
                                 const struct orr_answer *answer,
                                 struct orr_error *err)
{
    if (answer->desc->id == ORR_MSG_failed) {
        const struct orr_msg_failed *f = answer->msg;
        enum orr_err code = f->code == ORR_OK ? ORR_EPROTO : (enum orr_err)f->code;
        if (f->text.len)
            return orr_fail(err, code, "%.*s", ORR_STR_ARGS(f->text));
        return orr_fail(err, code, "%s: %s", asked->body.name, orr_err_text(code));
    }
    if (answer->desc->id != asked->reply)
        return orr_fail(err,
                        ORR_EPROTO,
                        "%s was answered with %s; is the region's build too old?",
                        asked->body.name,
                        answer->desc->body.name);
    return ORR_OK;
}

enum orr_err orri_cli_ask(struct orri_cli *cli,
                          const char *path,
                          const struct orr_msg_desc *desc,
                          const void *msg,
                          uint64_t timeout_ms,
                          struct orr_answer *ret_answer,
                          struct orr_error *err)
{
    uint64_t corr, end_ms = orri_cli_now_ms() + timeout_ms;
    enum orr_err rc = connect_region(cli, err);
    if (rc == ORR_OK)
        rc = orr_client_send(cli->client,
                             path ? path : cli->region_path,
                             desc,
                             msg,
                             timeout_ms,
                             &corr,
                             err);
    unsigned interrupts_before = orri_cli_interrupts();
    while (rc == ORR_OK) {
        struct orr_answer answer;
        rc = orr_client_receive(cli->client, SLICE_MS, &answer, err);
        if (rc == ORR_ETIMEOUT) {
            if (orri_cli_interrupts() != interrupts_before)
                return orr_fail(err, ORR_ETIMEOUT, "interrupted");
            if (orri_cli_now_ms() >= end_ms)
                return orr_fail(
                    err,
                    ORR_ETIMEOUT,
                    "%s did not answer within %llu ms; see `orrery tree`, or "
                    "the host's log",
                    cli->endpoint,
                    (unsigned long long)timeout_ms);
            rc = ORR_OK;
            continue;
        }
        if (rc != ORR_OK)
            break;
        cli->contact_ms = orri_cli_now_ms();
        if (orri_watch_take(cli, &answer) || answer.corr != corr)
            continue;
        rc = check_answer(desc, &answer, err);
        if (rc == ORR_OK)
            *ret_answer = answer;
        return rc;
    }
    orri_cli_close(cli);
    return rc;
}
