/* SPDX-License-Identifier: Apache-2.0
 * raft_instance.c - the life of libraft in our thread.
 *
 * START      check the directory, make an instance, bootstrap it the first time, start it
 * STOP       close the instance, then the loop's handles; the thread ends
 * FAILURES   of the disk: the instance is closed and made again, after a pause that doubles;
 *            meanwhile news carry the trouble, and entries of its term are dropped: they were
 *            not reported, and whoever appended them sees the new term
 */
#include "raft_impl.h"

enum { OWN_HANDLES = 4 /* wake, turn, tick, restart */, QUIET_MS = 10 };

void orri_raft_close_handles(struct ledger_raft *l)
{
    orri_raft_members_close(l);
    uv_close((uv_handle_t *)&l->turn, NULL);
    uv_close((uv_handle_t *)&l->tick, NULL);
    uv_close((uv_handle_t *)&l->restart, NULL);
    uv_close((uv_handle_t *)&l->wake, NULL);
}

bool orri_raft_is_closing(struct ledger_raft *l)
{
    pthread_mutex_lock(&l->lock);
    const bool yes = l->is_closing;
    pthread_mutex_unlock(&l->lock);
    return yes;
}

static void restart_due(uv_timer_t *timer);

/* Nothing of the instance is left: end, or try again later. */
static void instance_gone(struct ledger_raft *l)
{
    l->instance = INSTANCE_DOWN;
    if (orri_raft_is_closing(l)) {
        orri_raft_close_handles(l);
        return;
    }
    uv_timer_start(&l->restart, restart_due, l->restart_ms, 0);
    l->restart_ms =
        l->restart_ms * 2 < RESTART_MAX_MS ? l->restart_ms * 2 : RESTART_MAX_MS;
}

void orri_raft_instance_free(struct ledger_raft *l)
{
    if (!l->has_io)
        return;
    l->has_io = false;
    raft_uv_close(&l->io);
    if (l->is_transport_tcp)
        raft_uv_tcp_close(&l->transport);
}

static void raft_is_closed(struct raft *raft)
{
    instance_gone(raft->data);
}

static void count_handle(uv_handle_t *handle, void *n)
{
    (void)handle;
    ++*(unsigned *)n;
}

/* libraft says that it is closed while writers of its segments are not, and they will look at
 * its memory once more. */
static bool is_quiet(struct ledger_raft *l)
{
    unsigned n = 0;
    uv_walk(&l->loop, count_handle, &n);
    return n == OWN_HANDLES;
}

void orri_raft_instance_close(struct ledger_raft *l)
{
    l->instance = INSTANCE_CLOSING;
    l->leading_term = l->barrier_term = 0;
    raft_close(&l->raft, raft_is_closed);
}

static int init_instance(struct ledger_raft *l)
{
    int rv = 0;
    l->is_transport_tcp = l->self.address[0] != '\0';
    l->broken = (struct orr_error){.code = ORR_OK};
    l->leading_term = l->barrier_term = 0;
    l->has_term = false;
    l->is_snapshot_bad = false;
    l->transport = (struct raft_uv_transport){.data = NULL};
    if (l->is_transport_tcp)
        rv = raft_uv_tcp_init(&l->transport, &l->loop);
    else
        orri_raft_transport_none(&l->transport);
    if (rv != 0)
        return rv;
    rv = raft_uv_init(&l->io, &l->loop, l->dir, &l->transport);
    if (rv != 0) {
        if (l->is_transport_tcp)
            raft_uv_tcp_close(&l->transport);
        return rv;
    }
    raft_uv_set_auto_recovery(&l->io, false); /* it drops what it cannot read */
    (void)raft_uv_set_snapshot_compression(&l->io, false);
    raft_uv_set_connect_retry_delay(&l->io, 200);
    l->has_io = true;
    orri_raft_io_wrap(l);
    orri_raft_fsm_init(l);
    rv = raft_init(&l->raft,
                   &l->io,
                   &l->fsm,
                   orri_voter_id(orr_str(l->self.host)),
                   l->is_transport_tcp ? l->self.address : "local");
    if (rv != 0) {
        orri_raft_instance_free(l);
        return rv;
    }
    l->raft.data = l;
    raft_set_election_timeout(&l->raft, l->election_ms);
    raft_set_heartbeat_timeout(&l->raft, l->heartbeat_ms);
    raft_set_pre_vote(&l->raft, true);
    raft_set_max_catch_up_round_duration(&l->raft, 20000);
    return 0;
}

/* The only voter was given another address, or its first: nobody else knows the old one, so
 * its configuration may be replaced.  libraft can do that while it is not started. */
static bool has_moved(const struct ledger_raft *l)
{
    const struct raft_configuration *c = &l->raft.configuration;
    return c->n == 1 && c->servers[0].id == l->raft.id &&
           strcmp(c->servers[0].address, l->raft.address) != 0;
}

static int move_voter(struct ledger_raft *l)
{
    struct raft_configuration c;
    raft_configuration_init(&c);
    int rv = raft_configuration_add(&c, l->raft.id, l->raft.address, RAFT_VOTER);
    if (rv == 0)
        rv = raft_recover(&l->raft, &c);
    raft_configuration_close(&c);
    return rv;
}

/* ORR_OK, or *err why not; then the instance is down or on its way there. */
enum orr_err orri_raft_instance_start(struct ledger_raft *l, struct orr_error *err)
{
    enum orr_err code = orri_raft_check_dir(l, err);
    if (code != ORR_OK) {
        instance_gone(l);
        return code;
    }
    int rv = init_instance(l);
    if (rv != 0) {
        (void)orr_fail(err,
                       ORR_EIO,
                       "the ledger in %s: %s: %s",
                       l->dir,
                       raft_strerror(rv),
                       l->raft.errmsg);
        instance_gone(l);
        return ORR_EIO;
    }
    l->instance = INSTANCE_RUNNING;
    if (!l->is_joining)
        rv = raft_bootstrap(&l->raft, &l->bootstrap);
    else if (l->is_moving)
        rv = RAFT_CANTBOOTSTRAP;
    if (rv == RAFT_CANTBOOTSTRAP)
        rv = l->is_moving ? move_voter(l) : 0;
    l->is_moving = false;
    if (rv == 0)
        rv = raft_start(&l->raft);
    if (rv == 0) {
        l->is_moving = has_moved(l);
        if (l->is_moving)
            orri_raft_instance_close(l); /* the next one begins with the new address */
        return ORR_OK;
    }
    const char *why = l->raft.errmsg[0] ? l->raft.errmsg : l->io.errmsg;
    if (l->is_snapshot_bad)
        code = orr_fail(
            err,
            ORR_EDISK,
            "%s/%s is damaged: restore that file from a copy; or, when other "
            "voters live, replace this host (docs/operations.md): not under the "
            "same name",
            l->dir,
            l->snapshot_name);
    else
        code = orr_fail(err,
                        ORR_EIO,
                        "the ledger in %s cannot be opened: %s: %s",
                        l->dir,
                        raft_strerror(rv),
                        why);
    orri_raft_instance_close(l);
    return code;
}

static void restart_due(uv_timer_t *timer)
{
    struct ledger_raft *l = timer->data;
    struct orr_error err;
    if (orri_raft_is_closing(l))
        return;
    if (!is_quiet(l)) {
        uv_timer_start(timer, restart_due, QUIET_MS, 0);
        return;
    }
    orri_raft_instance_free(l);
    if (orri_raft_instance_start(l, &err) != ORR_OK)
        l->trouble = err;
}
