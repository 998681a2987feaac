/* SPDX-License-Identifier: Apache-2.0
 * raft_members.c - voters and leadership.
 *
 * One request at a time.  Each turn looks at what is there (libraft's configuration, the
 * records) and does the next step towards what is asked; so a request that is repeated goes
 * on where the one before stopped.
 *
 * ADD     record -> raft_add (reads nothing yet) -> raft_assign (catches up, then votes)
 * REMOVE  record gone -> raft_remove; a leader that removes itself steps down when that is
 *         committed, and the others elect
 * MOVE    raft_transfer
 */
#include "raft_impl.h"

#include <arpa/inet.h>

enum orr_err orri_raft_check_address(const char *address, struct orr_error *err)
{
    char ip[64];
    struct in_addr in;
    char *end = NULL;
    const char *colon = strrchr(address, ':');
    const size_t ip_len = colon ? (size_t)(colon - address) : 0;
    const unsigned long port = colon ? strtoul(colon + 1, &end, 10) : 0;
    snprintf(ip, sizeof ip, "%.*s", (int)(ip_len < sizeof ip ? ip_len : 0), address);
    if (!colon || !end || *end != '\0' || port < 1 || port > 65535 ||
        inet_pton(AF_INET, ip, &in) != 1)
        return orr_fail(err,
                        ORR_EINVAL,
                        "%s: a ledger's address is IPv4:PORT, such as 127.0.0.1:7801",
                        address);
    if ((ntohl(in.s_addr) >> 24) != 127)
        return orr_fail(err,
                        ORR_EINVAL,
                        "%s: without keys a ledger may use loopback (127.0.0.1) only",
                        address);
    return ORR_OK;
}

/* ---- answers ---------------------------------------------------------------------------------- */

static void
finish(struct ledger_raft *l, struct request *r, const struct orr_error *result)
{
    if (!r)
        return;
    pthread_mutex_lock(&l->lock);
    l->n_requests--;
    pthread_mutex_unlock(&l->lock);
    r->done(r->arg, result);
    free(r);
}

static void finish_changing(struct ledger_raft *l, const struct orr_error *result)
{
    struct request *r = l->changing;
    l->changing = NULL;
    finish(l, r, result);
}

static void fail_not_leader(struct ledger_raft *l)
{
    struct orr_error err;
    const char *leader = l->state.news.leader;
    (void)orr_fail(
        &err,
        ORR_ENOTLEADER,
        leader[0] ? "%s does not lead this region: ask %s"
                  : "%s does not lead this region, and nobody does now%s: ask again",
        l->self.host,
        leader);
    finish_changing(l, &err);
}

static void fail_with(struct ledger_raft *l, enum orr_err code, const char *why)
{
    struct orr_error err;
    (void)orr_fail(&err, code, "voter %s: %s", l->changing->voter.host, why);
    finish_changing(l, &err);
}

static void succeed(struct ledger_raft *l)
{
    const struct orr_error ok = {.code = ORR_OK};
    finish_changing(l, &ok);
}

/* ---- what is there ---------------------------------------------------------------------------- */

static const struct raft_server *server_of(const struct ledger_raft *l,
                                           const char *host)
{
    const raft_id id = orri_voter_id(orr_str(host));
    for (unsigned i = 0; i < l->raft.configuration.n; i++)
        if (l->raft.configuration.servers[i].id == id)
            return &l->raft.configuration.servers[i];
    return NULL;
}

static unsigned count_voting(const struct ledger_raft *l)
{
    unsigned n = 0;
    for (unsigned i = 0; i < l->raft.configuration.n; i++)
        n += l->raft.configuration.servers[i].role == RAFT_VOTER;
    return n;
}

static const struct orr_ledger_voter *record_of(const struct ledger_raft *l,
                                                const char *host)
{
    for (uint32_t i = 0; i < l->voters.n; i++)
        if (strcmp(l->voters.at[i].host, host) == 0)
            return &l->voters.at[i];
    return NULL;
}

static bool is_same(const struct orr_ledger_voter *a, const struct orr_ledger_voter *b)
{
    return a && strcmp(a->address, b->address) == 0 &&
           strcmp(a->endpoint, b->endpoint) == 0;
}

/* Append the record of a voter, or that it is gone. */
static void
write_record(struct ledger_raft *l, const struct orr_ledger_voter *v, bool is_gone)
{
    char key[ORR_KEY_MAX];
    uint8_t value[1024];
    size_t len = 0;
    const struct orr_msg_voter_add voter = {.host = orr_str(v->host),
                                            .address = orr_str(v->address),
                                            .endpoint = orr_str(v->endpoint)};
    snprintf(key, sizeof key, "voter/%s", v->host);
    if (!is_gone &&
        orr_msg_encode(orr_msg_desc_voter_add(), &voter, value, sizeof value, &len) !=
            ORR_OK)
        ORR_ASSERT(!"a voter fits");
    const struct orr_rec_ledger_record record = {
        .key = orr_str(key), .value = {value, (uint32_t)len}, .is_gone = is_gone};
    const struct orr_msg_ledger_append msg = {.term = l->leading_term,
                                              .records = {&record, 1}};
    if (orri_raft_append_own(l, &msg))
        uv_async_send(&l->wake);
}

void orri_raft_members_record(struct ledger_raft *l)
{
    for (uint32_t i = 0; i < l->configured.n; i++) {
        const struct orr_ledger_voter *v = &l->configured.at[i];
        const bool is_self = strcmp(v->host, l->self.host) == 0;
        const struct orr_ledger_voter *record = record_of(l, v->host);
        if (server_of(l, v->host) &&
            (!record || (is_self && !is_same(record, &l->self))))
            write_record(l, is_self ? &l->self : v, false);
    }
    for (uint32_t i = 0; i < l->voters.n; i++) /* of voters that a lone one outlived */
        if (!server_of(l, l->voters.at[i].host))
            write_record(l, &l->voters.at[i], true);
}

/* ---- steps ------------------------------------------------------------------------------------ */

static void change_done(struct raft_change *change, int status)
{
    struct ledger_raft *l = change->data;
    l->is_changing = false;
    if (!l->changing)
        return;
    if (status == 0 && l->changing->kind == REQUEST_REMOVE)
        succeed(l);
    else if (status == RAFT_NOCONNECTION)
        fail_with(l,
                  ORR_EUNREACH,
                  "it did not catch up: is it started with `join: true`, and "
                  "can it be reached at its address?");
    else if (status != 0)
        fail_with(l, ORR_ENOTLEADER, "leadership was lost meanwhile: ask again");
    /* else the next turn goes on */
}

/* What raft_add and so on said. */
static void change_begun(struct ledger_raft *l, int rv)
{
    if (rv == 0) {
        l->is_changing = true;
        l->changing->is_begun = true;
    } else if (rv == RAFT_NOTLEADER) {
        fail_not_leader(l);
    } else if (
        rv !=
        RAFT_CANTCHANGE) { /* that: another change goes on; the next turn tries again */
        fail_with(l, ORR_EIO, raft_strerror(rv));
    }
}

static void step_add(struct ledger_raft *l, struct request *r)
{
    const raft_id id = orri_voter_id(orr_str(r->voter.host));
    const struct raft_server *server = server_of(l, r->voter.host);
    if (!l->is_transport_tcp) {
        fail_with(l,
                  ORR_EINVAL,
                  "the only voter of this region has no address: give its host "
                  "ledger.address and restart it");
        return;
    }
    for (unsigned i = 0; i < l->raft.configuration.n; i++) {
        const struct raft_server *s = &l->raft.configuration.servers[i];
        if ((s->id == id) != (strcmp(s->address, r->voter.address) == 0)) {
            fail_with(l,
                      ORR_EINVAL,
                      s->id == id ? "it is a voter at another address: remove it first"
                                  : "another voter has this address");
            return;
        }
    }
    if (!server && l->raft.configuration.n >= ORR_LEDGER_VOTERS_MAX) {
        fail_with(l, ORR_ENOSPC, "the region has as many voters as it may have");
        return;
    }
    if (!is_same(record_of(l, r->voter.host), &r->voter)) {
        if (!r->has_record)
            write_record(l, &r->voter, false);
        r->has_record = r->is_begun = true;
        return;
    }
    l->change = (struct raft_change){.data = l};
    if (!server)
        change_begun(l,
                     raft_add(&l->raft, &l->change, id, r->voter.address, change_done));
    else if (server->role != RAFT_VOTER)
        change_begun(l, raft_assign(&l->raft, &l->change, id, RAFT_VOTER, change_done));
    else
        succeed(l);
}

static void step_remove(struct ledger_raft *l, struct request *r)
{
    const struct raft_server *server = server_of(l, r->voter.host);
    const bool has_record = record_of(l, r->voter.host) != NULL;
    if (!server && !has_record) {
        if (r->is_begun)
            succeed(l);
        else
            fail_with(l,
                      ORR_ENOENT,
                      "not a voter of this region; `orrery region ls` lists them");
        return;
    }
    if (server && server->role == RAFT_VOTER && count_voting(l) == 1) {
        fail_with(
            l, ORR_EINVAL, "the only voter cannot be removed: add another one first");
        return;
    }
    if (has_record) {
        if (!r->has_record)
            write_record(l, &r->voter, true);
        r->has_record = r->is_begun = true;
        return;
    }
    l->change = (struct raft_change){.data = l};
    change_begun(l, raft_remove(&l->raft, &l->change, server->id, change_done));
}

static void transfer_done(struct raft_transfer *transfer)
{
    struct ledger_raft *l = transfer->data;
    l->is_changing = false;
    if (!l->changing)
        return;
    if (l->raft.state == RAFT_LEADER)
        fail_with(
            l, ORR_ETIMEOUT, "it did not take over in time: is it up and up to date?");
    else
        succeed(l);
}

static void step_move(struct ledger_raft *l, struct request *r)
{
    const raft_id id = r->voter.host[0] ? orri_voter_id(orr_str(r->voter.host)) : 0;
    if (id == l->raft.id) {
        succeed(l);
        return;
    }
    l->transfer = (struct raft_transfer){.data = l};
    const int rv = raft_transfer(&l->raft, &l->transfer, id, transfer_done);
    if (rv == 0) {
        l->is_changing = true;
        r->is_begun = true;
    } else if (rv == RAFT_NOTLEADER) {
        fail_not_leader(l);
    } else if (rv == RAFT_NOTFOUND) {
        fail_with(l, ORR_ENOENT, "there is no other voter to lead");
    } else if (rv == RAFT_BADID) {
        fail_with(
            l, ORR_EINVAL, "not a voter of this region; `orrery region ls` lists them");
    } else {
        fail_with(l, ORR_EIO, raft_strerror(rv));
    }
}

static void step(struct ledger_raft *l)
{
    struct request *r = l->changing;
    if (l->instance != INSTANCE_RUNNING || l->raft.state != RAFT_LEADER) {
        fail_not_leader(l);
        return;
    }
    if (l->leading_term != l->raft.current_term)
        return; /* its barrier is on the way */
    switch (r->kind) {
    case REQUEST_ADD:
        step_add(l, r);
        break;
    case REQUEST_REMOVE:
        step_remove(l, r);
        break;
    case REQUEST_MOVE:
        step_move(l, r);
        break;
    }
}

/* ---- turns ------------------------------------------------------------------------------------ */

static void take_requests(struct ledger_raft *l)
{
    struct request **end = &l->waiting;
    struct request *newest, *oldest = NULL;
    pthread_mutex_lock(&l->lock);
    newest = l->requests;
    l->requests = NULL;
    pthread_mutex_unlock(&l->lock);
    for (struct request *next; newest; newest = next) {
        next = newest->next;
        newest->next = oldest;
        newest->deadline_ms = uv_now(&l->loop) + REQUEST_TIMEOUT_MS;
        oldest = newest;
    }
    while (*end)
        end = &(*end)->next;
    *end = oldest;
}

/* Those behind a change that takes its time: the oldest comes first. */
static void expire_waiting(struct ledger_raft *l)
{
    struct orr_error late;
    (void)orr_fail(&late, ORR_EBUSY, "another change of the voters goes on: ask again");
    while (l->waiting && uv_now(&l->loop) >= l->waiting->deadline_ms) {
        struct request *r = l->waiting;
        l->waiting = r->next;
        finish(l, r, &late);
    }
}

void orri_raft_members_turn(struct ledger_raft *l)
{
    take_requests(l);
    expire_waiting(l);
    if (l->changing && uv_now(&l->loop) >= l->changing->deadline_ms)
        fail_with(
            l, ORR_ETIMEOUT, "the change did not come to an end in time; it may yet");
    while (!l->is_changing && (l->changing || l->waiting)) {
        if (!l->changing) {
            l->changing = l->waiting;
            l->waiting = l->waiting->next;
        }
        step(l);
        if (l->changing)
            return; /* the next turn goes on */
    }
}

void orri_raft_members_close(struct ledger_raft *l)
{
    struct orr_error gone;
    (void)orr_fail(&gone, ORR_EGONE, "the ledger of this host stops");
    take_requests(l);
    if (l->changing)
        finish_changing(l, &gone);
    for (struct request *r = l->waiting, *next; r; r = next) {
        next = r->next;
        finish(l, r, &gone);
    }
    l->waiting = NULL;
}
