/* SPDX-License-Identifier: Apache-2.0
 * cli_leader.c - a region runs on one host or on several, of which one leads: every
 * question of a verb goes through here to that one.
 *
 * START      the host that was given first
 * OPERATION  one that does not lead knows who does (its ledger) and where to dial it;
 *            one that cannot be reached, or has hung, is passed over
 * FAILURES   A round of hosts of which none leads: they may be electing one, so after a
 *            pause the next round, until the time of the question is over; the error
 *            says what was tried.  A round in which nobody was there at all, or no
 *            host knew the region, ends the search at once.
 */
#include "cli.h"

enum {
    CONNECT_MS = 3000,
    CONNECT_MIN_MS = 500, /* where there are others; doubles with each round */
    LOOK_UP_MS = 1000,
    PAUSE_MS = 60, /* between rounds: from half of it to one and a half */
};

/* ---- endpoints ---- */

static bool add_endpoint(struct orri_cli *cli, struct orr_str text)
{
    for (unsigned i = 0; i < cli->n_endpoints; i++)
        if (orr_str_eq(orr_str(cli->endpoints[i].text), text))
            return true;
    if (cli->n_endpoints == ORR_REGION_HOSTS_MAX || text.len == 0 ||
        text.len >= sizeof cli->endpoints[0].text)
        return false;
    struct orri_endpoint *e = &cli->endpoints[cli->n_endpoints++];
    orr_str_copy(e->text, sizeof e->text, text);
    e->last = ORR_OK;
    return true;
}

enum orr_err
orri_endpoints_parse(struct orri_cli *cli, const char *text, struct orr_error *err)
{
    cli->n_endpoints = 0;
    for (;;) {
        struct orr_str one = {text, (uint32_t)strcspn(text, ",")};
        if (strncmp(text, "ipc://", 6) != 0 && strncmp(text, "tcp://", 6) != 0)
            return orr_fail(err,
                            ORR_EINVAL,
                            "%.*s: not an endpoint; write ipc:///PATH or "
                            "tcp://HOST:PORT, several with commas between",
                            (int)(one.len < 200 ? one.len : 200),
                            one.ptr);
        if (!add_endpoint(cli, one))
            return orr_fail(err,
                            ORR_EINVAL,
                            "%.200s: too long, or more than %d endpoints",
                            text,
                            (int)ORR_REGION_HOSTS_MAX);
        if (text[one.len] == '\0')
            return ORR_OK;
        text += one.len + 1;
    }
}

void orri_endpoints_learn(struct orri_cli *cli, const struct orr_msg_ledger_info *info)
{
    for (uint32_t i = 0; i < info->voters.n; i++)
        (void)add_endpoint(cli, info->voters.at[i].endpoint);
}

/* ---- the search ---- */

struct search {
    uint64_t end_ms;
    uint64_t connect_ms;
    unsigned tried;  /* in this round: a bit for each endpoint */
    unsigned absent; /* of them: nobody there */
    unsigned gone;   /* of them: a host without this region's actor */
};

/* An actor that is gone in a region of one host is a region of another name. */
bool orri_leader_is_lost(const struct orri_cli *cli, enum orr_err rc)
{
    return rc == ORR_ENOTLEADER || rc == ORR_EUNREACH ||
           (rc == ORR_EGONE && cli->n_endpoints > 1);
}

/* Where the host at the other end says that the leader is; cli->at when it does not
 * know. */
static unsigned look_up(struct orri_cli *cli)
{
    struct orr_answer answer;
    struct orr_error ignored;
    if (orri_link_ask(cli,
                      ORRI_LEDGER_PATH,
                      orr_msg_desc_ledger_info_get(),
                      &(struct orr_msg_ledger_info_get){0},
                      LOOK_UP_MS,
                      &answer,
                      &ignored) != ORR_OK)
        return cli->at;
    const struct orr_msg_ledger_info *info = answer.msg;
    orri_endpoints_learn(cli, info);
    for (uint32_t i = 0; i < info->voters.n; i++) {
        const struct orr_rec_voter *v = &info->voters.at[i];
        for (unsigned at = 0; v->is_leading && at < cli->n_endpoints; at++)
            if (orr_str_eq(orr_str(cli->endpoints[at].text), v->endpoint))
                return at;
    }
    return cli->at;
}

/* "ipc:///a (the host cannot be reached), ipc:///b (...)" */
static enum orr_err
say_what_was_tried(const struct orri_cli *cli, enum orr_err code, struct orr_error *err)
{
    char text[700] = "";
    for (unsigned i = 0; i < cli->n_endpoints; i++) {
        size_t len = strlen(text);
        snprintf(text + len,
                 sizeof text - len,
                 "%s%s (%s)",
                 i ? ", " : "",
                 cli->endpoints[i].text,
                 cli->endpoints[i].last ? orr_err_text(cli->endpoints[i].last)
                                        : "not tried");
    }
    return orr_fail(err, code, "no leader of the region answers; tried %s", text);
}

/* Choose the host to ask next.  ORR_OK: ask it; another: give up with that. */
static enum orr_err search_next(struct orri_cli *cli,
                                struct search *s,
                                enum orr_err rc,
                                struct orr_error *err)
{
    unsigned next = cli->at;
    cli->endpoints[cli->at].last = rc;
    s->tried |= 1u << cli->at;
    if (rc == ORR_ENOTLEADER)
        next = look_up(cli); /* which may still be the one that was lost */
    else if (rc == ORR_EGONE)
        s->gone |= 1u << cli->at;
    else
        s->absent |= 1u << cli->at;
    if (cli->n_endpoints == 1 && rc != ORR_ENOTLEADER)
        return rc;
    orri_cli_close(cli);
    for (unsigned i = 0; i < cli->n_endpoints && s->tried >> next & 1; i++)
        next = (next + 1) % cli->n_endpoints;
    cli->at = next;
    if (!(s->tried >> next & 1))
        return ORR_OK;
    if (s->absent == s->tried || s->gone == s->tried)
        return say_what_was_tried(cli, rc, err);
    uint64_t pause_ms = PAUSE_MS / 2 + (uint64_t)rand() % PAUSE_MS;
    if (orri_cli_now_ms() + pause_ms >= s->end_ms)
        return say_what_was_tried(cli, ORR_ETIMEOUT, err);
    orri_cli_sleep(pause_ms);
    s->tried = 0;
    s->absent = 0;
    s->gone = 0;
    s->connect_ms *= 2;
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
    uint64_t start_ms = orri_cli_now_ms();
    unsigned interrupts_before = orri_cli_interrupts();
    struct search s = {.end_ms = start_ms + timeout_ms,
                       .connect_ms =
                           cli->n_endpoints > 1 ? CONNECT_MIN_MS : CONNECT_MS};
    for (;;) {
        uint64_t now_ms = orri_cli_now_ms();
        uint64_t left_ms = now_ms < s.end_ms ? s.end_ms - now_ms : 1;
        /* In too little time a host that is there would look as if it were not. */
        uint64_t connect_ms = s.connect_ms < left_ms ? s.connect_ms : left_ms;
        enum orr_err rc = orri_link_open(
            cli, connect_ms > CONNECT_MIN_MS ? connect_ms : CONNECT_MIN_MS, err);
        if (rc == ORR_OK)
            rc = orri_link_ask(cli, path, desc, msg, left_ms, ret_answer, err);
        if (!orri_leader_is_lost(cli, rc) || orri_cli_interrupts() != interrupts_before)
            return rc;
        rc = search_next(cli, &s, rc, err);
        if (rc != ORR_OK || orri_cli_interrupts() != interrupts_before)
            return rc != ORR_OK ? rc : orr_fail(err, ORR_ETIMEOUT, "interrupted");
    }
}
