/* SPDX-License-Identifier: Apache-2.0
 * cli_watch.c - wait for the end of a job without a poll: one job_wait stays open and
 * is asked again when its time is up, its link is gone, or another host leads.
 */
#include "cli.h"

enum {
    FIND_MS = 2000,
    REASK_MS = 30000,
    REASK_SOON_MS = 3000,
    LOST_MS = 60000,
    RETRY_MS = 200
};

void orri_watch_start(struct orri_cli *cli, const char *job)
{
    cli->watch = (struct orri_watch){.job = job};
}

void orri_watch_stop(struct orri_cli *cli)
{
    free(cli->watch.detail);
    cli->watch = (struct orri_watch){0};
}

static void take_detail(struct orri_watch *w, const struct orr_answer *answer)
{
    const struct orr_msg_job_detail *d = answer->msg;
    if (orr_job_phase_is_final(d->row.phase) &&
        (w->detail = malloc(orr_msg_size(answer->desc, d))))
        orr_msg_copy(answer->desc, d, w->detail);
}

bool orri_watch_take(struct orri_cli *cli, const struct orr_answer *answer)
{
    struct orri_watch *w = &cli->watch;
    if (w->corr == 0 || answer->corr != w->corr)
        return false;
    w->corr = 0;
    if (answer->desc->id == ORR_MSG_failed) {
        const struct orr_msg_failed *f = answer->msg;
        w->is_lost = orri_leader_is_lost(cli, (enum orr_err)f->code);
        if (f->code != ORR_ETIMEOUT && f->code != ORR_EBUSY && !w->is_lost)
            (void)orr_fail(
                &w->error, (enum orr_err)f->code, "%.*s", ORR_STR_ARGS(f->text));
    } else if (answer->desc->id == ORR_MSG_job_detail) {
        take_detail(w, answer);
    }
    return true;
}

/* Makes the link, to whoever leads now, and knows whether the job is there.  Another
 * host would answer what is not only the leader's to say. */
static enum orr_err find_job(struct orri_cli *cli, struct orr_error *err)
{
    struct orri_watch *w = &cli->watch;
    struct orr_answer answer;
    enum orr_err rc = orri_cli_ask(cli,
                                   NULL,
                                   orr_msg_desc_job_show(),
                                   &(struct orr_msg_job_show){.job = orr_str(w->job)},
                                   FIND_MS,
                                   &answer,
                                   err);
    if (rc == ORR_OK)
        take_detail(w, &answer);
    else if (rc == ORR_ENOENT)
        w->error = *err;
    return rc;
}

/* A leader that steps down takes the question with it and does not say so. */
static uint64_t reask_ms(const struct orri_cli *cli)
{
    return cli->n_endpoints > 1 ? REASK_SOON_MS : REASK_MS;
}

/* A region that is away for a moment is no failure; one that stays away is. */
static enum orr_err ask_again(struct orri_cli *cli, struct orr_error *err)
{
    struct orri_watch *w = &cli->watch;
    enum orr_err rc = ORR_OK;
    if (!cli->client || w->is_lost)
        rc = find_job(cli, err);
    if (w->detail || w->error.code != ORR_OK)
        return ORR_OK;
    if (rc == ORR_OK && cli->client)
        rc = orr_client_send(cli->client,
                             cli->region_path,
                             orr_msg_desc_job_wait(),
                             &(struct orr_msg_job_wait){.job = orr_str(w->job)},
                             reask_ms(cli),
                             &w->corr,
                             err);
    if (rc == ORR_OK) {
        w->is_lost = false;
        w->lost_ms = 0;
        w->due_ms = orri_cli_now_ms() + reask_ms(cli) + 1000;
        return ORR_OK;
    }
    orri_cli_close(cli);
    if (!w->lost_ms)
        w->lost_ms = orri_cli_now_ms();
    if (orri_cli_now_ms() - w->lost_ms > LOST_MS)
        return rc;
    orri_cli_sleep(RETRY_MS);
    return ORR_ETIMEOUT;
}

enum orr_err
orri_watch_poll(struct orri_cli *cli, uint64_t wait_ms, struct orr_error *err)
{
    struct orri_watch *w = &cli->watch;
    struct orr_answer answer;
    if (!w->detail && w->error.code == ORR_OK &&
        (w->corr == 0 || orri_cli_now_ms() > w->due_ms)) {
        enum orr_err rc = ask_again(cli, err);
        if (rc != ORR_OK)
            return rc;
    }
    if (!w->detail && w->error.code == ORR_OK) {
        enum orr_err rc = orri_link_receive(cli, wait_ms, &answer, err);
        if (rc == ORR_OK) {
            orri_watch_take(cli, &answer);
        } else if (rc != ORR_ETIMEOUT) {
            orri_cli_close(cli);
        }
        if (w->corr == 0 && !w->detail && w->error.code == ORR_OK)
            orri_cli_sleep(RETRY_MS);
    }
    if (w->error.code != ORR_OK) {
        if (err)
            *err = w->error;
        return w->error.code;
    }
    return w->detail ? ORR_OK : ORR_ETIMEOUT;
}

int orri_exit_of_job(const struct orr_msg_job_detail *detail)
{
    int64_t code = detail->row.exit_code;
    if (detail->row.phase == ORR_JOB_DONE)
        return EXIT_OK;
    if (detail->row.phase == ORR_JOB_MOVED)
        return EXIT_MOVED;
    if (detail->signal)
        return 128 + (int)(detail->signal & 127);
    return code > 0 && code < 256 ? (int)code : EXIT_JOB;
}
