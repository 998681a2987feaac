/* SPDX-License-Identifier: Apache-2.0
 * ledger_raft.c - the op table of the raft backend: calls of any thread (ledger_raft.h).
 */
#include "raft_impl.h"

#include <errno.h>
#include <signal.h>
#include <sys/stat.h>

static struct ledger_raft *raft_of(struct orr_ledger *ledger)
{
    return (struct ledger_raft *)(void *)ledger;
}

/* ---- operation -------------------------------------------------------------------------------- */

static void raft_attach(struct orr_ledger *ledger, const struct orr_ledger_sink *sink)
{
    struct ledger_raft *l = raft_of(ledger);
    pthread_mutex_lock(&l->sink_lock);
    l->sink = sink ? *sink : (struct orr_ledger_sink){.news = NULL};
    if (l->sink.news) {
        struct orr_ledger_news news;
        pthread_mutex_lock(&l->lock);
        news = l->state.news;
        pthread_mutex_unlock(&l->lock);
        l->sink.news(l->sink.arg, &news);
    }
    pthread_mutex_unlock(&l->sink_lock);
}

/* True when the entry is the next of its term and there is room.  Under `lock`. */
static bool is_next(struct ledger_raft *l, uint64_t term, uint64_t ticket, size_t len)
{
    if (term < l->append_term || term < l->state.news.term)
        return false; /* over: dropped, as it should be */
    if (term > l->append_term) {
        l->append_term = term;
        l->append_ticket = 0;
    }
    if (ticket == l->append_ticket + 1 && l->append_bytes + len <= QUEUE_BYTES_MAX) {
        l->append_ticket = ticket;
        return true;
    }
    l->is_overrun = true;
    return false;
}

static void raft_append(struct orr_ledger *ledger,
                        uint64_t term,
                        uint64_t ticket,
                        const uint8_t *entry,
                        size_t len)
{
    struct ledger_raft *l = raft_of(ledger);
    struct append *a = calloc(1, sizeof *a);
    const size_t padded = orri_pad8(len);
    uint8_t *bytes = raft_calloc(1, padded);
    const bool has_memory = a && bytes;
    if (has_memory) {
        memcpy(bytes, entry, len);
        *a = (struct append){
            .term = term, .ticket = ticket, .bytes = bytes, .len = padded};
    }
    pthread_mutex_lock(&l->lock);
    const bool is_first = l->appends == NULL;
    const bool is_taken = has_memory && is_next(l, term, ticket, padded);
    if (is_taken) {
        *l->appends_end = a;
        l->appends_end = &a->next;
        l->append_bytes += padded;
    } else if (!has_memory) {
        l->is_overrun = true;
    }
    pthread_mutex_unlock(&l->lock);
    if (!is_taken) {
        free(a);
        raft_free(bytes);
    }
    if (is_first || !is_taken)
        uv_async_send(&l->wake);
}

static enum orr_err raft_read(struct orr_ledger *ledger,
                              struct orr_ledger_reader *reader,
                              uint64_t after,
                              orr_ledger_page_f page,
                              void *arg)
{
    struct ledger_raft *l = raft_of(ledger);
    pthread_mutex_lock(&l->lock);
    const enum orr_err code = orr_image_read(l->image, reader, after, page, arg);
    pthread_mutex_unlock(&l->lock);
    return code;
}

static void raft_info(struct orr_ledger *ledger, struct orr_ledger_info *ret_info)
{
    struct ledger_raft *l = raft_of(ledger);
    pthread_mutex_lock(&l->lock);
    const struct orr_image_stats stats = orr_image_stats(l->image);
    *ret_info = l->state;
    ret_info->news.committed = stats.last;
    ret_info->keys = stats.keys;
    ret_info->image_bytes = stats.bytes;
    ret_info->digest = stats.digest;
    pthread_mutex_unlock(&l->lock);
}

/* ---- requests --------------------------------------------------------------------------------- */

static void queue_request(struct ledger_raft *l,
                          enum request_kind kind,
                          const struct orr_ledger_voter *voter,
                          orr_ledger_done_f done,
                          void *arg)
{
    struct orr_error err = {.code = ORR_OK};
    struct request *r = calloc(1, sizeof *r);
    if (!r)
        (void)orr_fail(&err, ORR_ENOMEM, "out of memory");
    else
        *r = (struct request){.kind = kind, .voter = *voter, .done = done, .arg = arg};
    pthread_mutex_lock(&l->lock);
    if (r && l->n_requests >= REQUESTS_MAX) {
        (void)orr_fail(
            &err, ORR_EBUSY, "%u requests to the ledger wait already", REQUESTS_MAX);
    } else if (r) {
        r->next = l->requests;
        l->requests = r;
        l->n_requests++;
        r = NULL;
    }
    pthread_mutex_unlock(&l->lock);
    free(r);
    if (err.code != ORR_OK)
        done(arg, &err);
    else
        uv_async_send(&l->wake);
}

static void raft_voter_add(struct orr_ledger *ledger,
                           struct orr_str host,
                           struct orr_str address,
                           struct orr_str endpoint,
                           orr_ledger_done_f done,
                           void *arg)
{
    struct orr_ledger_voter voter = {.is_voting = false};
    struct orr_error err;
    orr_str_copy(voter.host, sizeof voter.host, host);
    orr_str_copy(voter.address, sizeof voter.address, address);
    orr_str_copy(voter.endpoint, sizeof voter.endpoint, endpoint);
    if (host.len == 0 || host.len >= sizeof voter.host ||
        endpoint.len >= sizeof voter.endpoint || address.len >= sizeof voter.address) {
        (void)orr_fail(&err,
                       ORR_EINVAL,
                       "a voter's host, address or endpoint is too long or empty");
        done(arg, &err);
    } else if (orri_raft_check_address(voter.address, &err) != ORR_OK) {
        done(arg, &err);
    } else {
        queue_request(raft_of(ledger), REQUEST_ADD, &voter, done, arg);
    }
}

static void raft_voter_remove(struct orr_ledger *ledger,
                              struct orr_str host,
                              orr_ledger_done_f done,
                              void *arg)
{
    struct orr_ledger_voter voter = {.is_voting = false};
    orr_str_copy(voter.host, sizeof voter.host, host);
    queue_request(raft_of(ledger), REQUEST_REMOVE, &voter, done, arg);
}

static void raft_leader_move(struct orr_ledger *ledger,
                             struct orr_str host,
                             orr_ledger_done_f done,
                             void *arg)
{
    struct orr_ledger_voter voter = {.is_voting = false};
    orr_str_copy(voter.host, sizeof voter.host, host);
    queue_request(raft_of(ledger), REQUEST_MOVE, &voter, done, arg);
}

/* ---- life ------------------------------------------------------------------------------------- */

static void free_ledger(struct ledger_raft *l)
{
    raft_configuration_close(&l->bootstrap);
    orr_image_free(l->image);
    pthread_cond_destroy(&l->started);
    pthread_mutex_destroy(&l->sink_lock);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

static void raft_close_ledger(struct orr_ledger *ledger)
{
    struct ledger_raft *l = raft_of(ledger);
    pthread_mutex_lock(&l->lock);
    const bool is_closing =
        l->is_closing; /* the start failed: the loop ends by itself */
    l->is_closing = true;
    if (!is_closing) /* under the lock: after it our thread may close `wake` any time */
        uv_async_send(&l->wake);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    free_ledger(l);
}

static const struct orr_ledger_ops ops = {
    .attach = raft_attach,
    .append = raft_append,
    .read = raft_read,
    .info = raft_info,
    .voter_add = raft_voter_add,
    .voter_remove = raft_voter_remove,
    .leader_move = raft_leader_move,
    .close = raft_close_ledger,
};

static enum orr_err copy_voter(const struct orr_ledger_raft_voter *from,
                               bool needs_address,
                               struct orr_ledger_voter *to,
                               struct orr_error *err)
{
    if (!from->host[0] || strlen(from->host) >= sizeof to->host ||
        strlen(from->endpoint) >= sizeof to->endpoint)
        return orr_fail(err,
                        ORR_EINVAL,
                        "voter %s: name or endpoint too long or empty",
                        from->host);
    if (needs_address || from->address[0]) {
        const enum orr_err code = orri_raft_check_address(from->address, err);
        if (code != ORR_OK)
            return code;
    }
    snprintf(to->host, sizeof to->host, "%s", from->host);
    snprintf(to->address, sizeof to->address, "%s", from->address);
    snprintf(to->endpoint, sizeof to->endpoint, "%s", from->endpoint);
    return ORR_OK;
}

static enum orr_err copy_config(struct ledger_raft *l,
                                const struct orr_ledger_raft_config *c,
                                struct orr_error *err)
{
    const struct orr_ledger_raft_voter *voters = c->n_voters ? c->voters : &c->self;
    bool has_self = false;
    l->configured.n = c->n_voters ? c->n_voters : 1;
    if (l->configured.n > ORR_LEDGER_VOTERS_MAX)
        return orr_fail(err,
                        ORR_EINVAL,
                        "%u voters: at most %d",
                        c->n_voters,
                        ORR_LEDGER_VOTERS_MAX);
    if (strlen(c->dir) >= sizeof l->dir)
        return orr_fail(err, ORR_EINVAL, "%s: the path is too long", c->dir);
    snprintf(l->dir, sizeof l->dir, "%s", c->dir);
    enum orr_err code =
        copy_voter(&c->self, c->is_joining || l->configured.n > 1, &l->self, err);
    for (uint32_t i = 0; code == ORR_OK && i < l->configured.n; i++) {
        code = copy_voter(&voters[i], l->configured.n > 1, &l->configured.at[i], err);
        has_self = has_self || strcmp(voters[i].host, c->self.host) == 0;
    }
    if (code == ORR_OK && !has_self && !c->is_joining)
        code = orr_fail(err,
                        ORR_EINVAL,
                        "host %s is not among the voters of its region",
                        c->self.host);
    l->is_joining = c->is_joining;
    l->is_moving = c->is_alone;
    l->election_ms = c->election_ms ? c->election_ms : 600;
    l->heartbeat_ms = c->heartbeat_ms ? c->heartbeat_ms : 100;
    l->snapshot_log_bytes = c->snapshot_log_bytes ? c->snapshot_log_bytes : 64u << 20;
    return code;
}

static enum orr_err make_bootstrap(struct ledger_raft *l, struct orr_error *err)
{
    for (uint32_t i = 0; i < l->configured.n; i++) {
        const struct orr_ledger_voter *v = &l->configured.at[i];
        const int rv = raft_configuration_add(&l->bootstrap,
                                              orri_voter_id(orr_str(v->host)),
                                              v->address[0] ? v->address : "local",
                                              RAFT_VOTER);
        if (rv != 0)
            return orr_fail(
                err, ORR_EINVAL, "voter %s: %s", v->host, raft_strerror(rv));
    }
    return ORR_OK;
}

static enum orr_err start_thread(struct ledger_raft *l, struct orr_error *err)
{
    sigset_t all, before;
    sigfillset(&all);
    if (orri_raft_loop_init(l) != 0)
        return orr_fail(err, ORR_ENOMEM, "the ledger's event loop cannot be made");
    pthread_sigmask(SIG_BLOCK, &all, &before);
    const int rv = pthread_create(&l->thread, NULL, orri_raft_thread, l);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rv != 0) {
        orri_raft_loop_fini(l);
        return orr_fail(
            err, ORR_ENOMEM, "the ledger's thread cannot be made: %s", strerror(rv));
    }
    pthread_mutex_lock(&l->lock);
    while (!l->has_started)
        pthread_cond_wait(&l->started, &l->lock);
    if (l->start_error.code != ORR_OK && err)
        *err = l->start_error;
    const enum orr_err code = l->start_error.code;
    pthread_mutex_unlock(&l->lock);
    if (code != ORR_OK)
        pthread_join(l->thread, NULL);
    return code;
}

enum orr_err orr_ledger_raft_open(const struct orr_ledger_raft_config *config,
                                  struct orr_ledger **ret_ledger,
                                  struct orr_error *err)
{
    struct ledger_raft *l = calloc(1, sizeof *l);
    if (!l)
        return orr_fail(err, ORR_ENOMEM, "out of memory");
    l->base.ops = &ops;
    l->appends_end = &l->appends;
    pthread_mutex_init(&l->lock, NULL);
    pthread_mutex_init(&l->sink_lock, NULL);
    pthread_cond_init(&l->started, NULL);
    raft_configuration_init(&l->bootstrap);
    const struct orr_image_config image = {.watch = orri_raft_watch,
                                           .watch_arg = &l->voters};
    enum orr_err code = orr_image_new(&image, &l->image);
    if (code != ORR_OK)
        (void)orr_fail(err, code, "out of memory");
    if (code == ORR_OK)
        code = copy_config(l, config, err);
    if (code == ORR_OK)
        code = make_bootstrap(l, err);
    if (code == ORR_OK && mkdir(l->dir, 0700) != 0 && errno != EEXIST)
        code = orr_fail(err, ORR_EIO, "%s: %s", l->dir, strerror(errno));
    if (code == ORR_OK)
        code = start_thread(l, err);
    if (code != ORR_OK) {
        free_ledger(l);
        return code;
    }
    *ret_ledger = &l->base;
    return ORR_OK;
}
