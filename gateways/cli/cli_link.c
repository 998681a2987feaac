/* SPDX-License-Identifier: Apache-2.0
 * cli_link.c - the link to one of the region's hosts: one question and its answer.
 *
 * Answers may come in any order (a job_wait stays open while logs are read), so each is
 * told apart by its number, and one that nobody waits for any more is dropped.  A host
 * that hangs keeps its connections, so where another host could lead instead, one that
 * has said nothing for a while is asked for a sign of life.
 */
#include "cli.h"

enum { SLICE_MS = 100, LEARN_MS = 1000, PROBE_AFTER_MS = 1000, PROBE_MS = 1000 };

void orri_cli_close(struct orri_cli *cli)
{
    orr_client_free(cli->client);
    cli->client = NULL;
    cli->probe_corr = 0;
    cli->watch.corr = 0; /* its answer went with the link */
}

/* The actor's path is the region's name; its ledger knows it.  Where there is none, a
 * region runs on a host of its own name. */
static void learn_region(struct orri_cli *cli)
{
    struct orr_answer answer;
    struct orr_error ignored;
    snprintf(cli->region_path,
             sizeof cli->region_path,
             "/%.63s",
             orr_client_host(cli->client));
    if (orri_link_ask(cli,
                      ORRI_LEDGER_PATH,
                      orr_msg_desc_ledger_info_get(),
                      &(struct orr_msg_ledger_info_get){0},
                      LEARN_MS,
                      &answer,
                      &ignored) != ORR_OK) {
        if (!cli->client) /* the next host may tell more */
            cli->region_path[0] = '\0';
        return;
    }
    const struct orr_msg_ledger_info *info = answer.msg;
    if (info->region.len)
        snprintf(cli->region_path,
                 sizeof cli->region_path,
                 "/%.*s",
                 (int)(info->region.len < ORR_NAME_MAX ? info->region.len
                                                       : ORR_NAME_MAX - 1),
                 info->region.ptr);
    orri_endpoints_learn(cli, info);
}

enum orr_err
orri_link_open(struct orri_cli *cli, uint64_t timeout_ms, struct orr_error *err)
{
    if (cli->client)
        return ORR_OK;
    enum orr_err rc =
        orr_client_new(cli->endpoints[cli->at].text, timeout_ms, &cli->client, err);
    if (rc != ORR_OK)
        return rc;
    cli->contact_ms = orri_cli_now_ms();
    if (!cli->region_path[0])
        learn_region(cli);
    return cli->client ? ORR_OK
                       : orr_fail(err,
                                  ORR_EUNREACH,
                                  "%s: the host went away",
                                  cli->endpoints[cli->at].text);
}

/* ORR_EUNREACH when the host is silent. */
static enum orr_err probe(struct orri_cli *cli, struct orr_error *err)
{
    uint64_t now_ms = orri_cli_now_ms();
    if (cli->n_endpoints == 1)
        return ORR_ETIMEOUT;
    if (cli->probe_corr)
        return now_ms - cli->probe_ms < PROBE_MS
                   ? ORR_ETIMEOUT
                   : orr_fail(err,
                              ORR_EUNREACH,
                              "%s: the host has hung",
                              cli->endpoints[cli->at].text);
    if (now_ms - cli->contact_ms < PROBE_AFTER_MS)
        return ORR_ETIMEOUT;
    cli->probe_ms = now_ms;
    enum orr_err rc = orr_client_send(cli->client,
                                      "/system",
                                      orr_msg_desc_ping(),
                                      &(struct orr_msg_ping){0},
                                      PROBE_MS,
                                      &cli->probe_corr,
                                      err);
    return rc == ORR_OK ? ORR_ETIMEOUT : rc;
}

enum orr_err orri_link_receive(struct orri_cli *cli,
                               uint64_t timeout_ms,
                               struct orr_answer *ret_answer,
                               struct orr_error *err)
{
    enum orr_err rc = orr_client_receive(cli->client, timeout_ms, ret_answer, err);
    if (rc == ORR_ETIMEOUT)
        return probe(cli, err);
    if (rc != ORR_OK)
        return rc;
    cli->contact_ms = orri_cli_now_ms();
    bool is_sign_of_life = cli->probe_corr && ret_answer->corr == cli->probe_corr;
    cli->probe_corr = 0; /* any answer is one */
    return is_sign_of_life ? ORR_ETIMEOUT : ORR_OK;
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

enum orr_err orri_link_ask(struct orri_cli *cli,
                           const char *path,
                           const struct orr_msg_desc *desc,
                           const void *msg,
                           uint64_t timeout_ms,
                           struct orr_answer *ret_answer,
                           struct orr_error *err)
{
    uint64_t corr, end_ms = orri_cli_now_ms() + timeout_ms;
    unsigned interrupts_before = orri_cli_interrupts();
    enum orr_err rc = orr_client_send(
        cli->client, path ? path : cli->region_path, desc, msg, timeout_ms, &corr, err);
    while (rc == ORR_OK) {
        struct orr_answer answer;
        rc = orri_link_receive(cli, SLICE_MS, &answer, err);
        if (rc == ORR_ETIMEOUT) {
            if (orri_cli_interrupts() != interrupts_before)
                return orr_fail(err, ORR_ETIMEOUT, "interrupted");
            if (orri_cli_now_ms() >= end_ms)
                return orr_fail(
                    err,
                    ORR_ETIMEOUT,
                    "%s did not answer within %llu ms; see `orrery tree`, or "
                    "the host's log",
                    cli->endpoints[cli->at].text,
                    (unsigned long long)timeout_ms);
            rc = ORR_OK;
            continue;
        }
        if (rc != ORR_OK)
            break;
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
