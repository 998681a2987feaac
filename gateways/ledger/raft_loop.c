/* SPDX-License-Identifier: Apache-2.0
 * raft_loop.c - our thread and its turns: before each wait for I/O one look at failures,
 * leadership, entries that came, members, and what is news of it.
 */
#include "raft_impl.h"

/* ---- a turn ----------------------------------------------------------------------------------- */

static void barrier_done(struct raft_barrier *req, int status)
{
    struct ledger_raft *l = req->data;
    free(req);
    if (status != 0 || l->raft.state != RAFT_LEADER) {
        l->barrier_term = 0;
        return;
    }
    l->leading_term = l->raft.current_term;
    l->ticket = 0; /* whatever was applied until now is not of this leadership */
    orri_raft_members_record(l);
}

/* libraft lets the only voter lead without an election, in the term before.  A leadership
 * without a term of its own would take the tickets of another for its own. */
static bool has_own_term(struct ledger_raft *l)
{
    unsigned n = 0;
    for (unsigned i = 0; i < l->raft.configuration.n; i++)
        n += l->raft.configuration.servers[i].role == RAFT_VOTER;
    if (n > 1)
        return true;
    const raft_term term = l->raft.current_term + 1;
    if (l->io.set_term(&l->io, term) != 0 || l->io.set_vote(&l->io, l->raft.id) != 0)
        return false;
    l->raft.current_term = term;
    l->raft.voted_for = l->raft.id;
    return true;
}

/* Whoever has won an election has all earlier entries, but does not know yet that they are
 * committed: an entry of the new term, a barrier, makes it so. */
static void watch_leadership(struct ledger_raft *l)
{
    if (l->raft.state != RAFT_LEADER) {
        l->leading_term = l->barrier_term = 0;
        l->has_term = false;
        return;
    }
    if (l->barrier_term == l->raft.current_term || l->raft.transfer)
        return;
    if (!l->has_term && !has_own_term(l))
        return;
    l->has_term = true;
    struct raft_barrier *req = calloc(1, sizeof *req);
    if (!req)
        return;
    req->data = l;
    if (raft_barrier(&l->raft, req, barrier_done) != 0)
        free(req);
    else
        l->barrier_term = l->raft.current_term;
}

static void watch_failures(struct ledger_raft *l)
{
    pthread_mutex_lock(&l->lock);
    const bool is_overrun = l->is_overrun;
    l->is_overrun = false;
    pthread_mutex_unlock(&l->lock);
    if (is_overrun && l->broken.code == ORR_OK && l->raft.state == RAFT_LEADER)
        (void)orr_fail(
            &l->broken,
            ORR_EBUSY,
            "entries were lost on their way to the ledger: a new term begins");
    if (l->raft.state == RAFT_UNAVAILABLE)
        orri_raft_broke(
            l, RAFT_IOERR, l->raft.errmsg[0] ? l->raft.errmsg : "libraft stopped");
    if (l->broken.code == ORR_OK)
        return;
    if (l->broken.code == ORR_EDISK)
        l->trouble = l->broken;
    orri_raft_instance_close(l);
}

static void free_appends(struct append *a)
{
    for (struct append *next; a; a = next) {
        next = a->next;
        raft_free(a->bytes);
        free(a);
    }
}

/* Entries for one raft_apply; those of a term that is over are freed.  Returns how many. */
static unsigned take_batch(struct ledger_raft *l, struct raft_buffer *bufs)
{
    struct append *dropped = NULL;
    unsigned n = 0;
    size_t bytes = 0;
    pthread_mutex_lock(&l->lock);
    while (l->appends && n < BATCH_ENTRIES_MAX) {
        struct append *a = l->appends;
        if (n && bytes + a->len > BATCH_BYTES_MAX)
            break;
        l->appends = a->next;
        l->append_bytes -= a->len;
        if (a->term == l->leading_term) {
            bytes += a->len;
            bufs[n++] = (struct raft_buffer){.base = a->bytes, .len = a->len};
            a->bytes = NULL;
        }
        a->next = dropped;
        dropped = a;
    }
    if (!l->appends)
        l->appends_end = &l->appends;
    pthread_mutex_unlock(&l->lock);
    free_appends(dropped);
    return n;
}

/* Its news come from the image: an entry carries its ticket. */
static void apply_done(struct raft_apply *req, int status, void *result)
{
    (void)status, (void)result;
    free(req);
}

/* Whatever came while the last write went on becomes one write. */
static void write_entries(struct ledger_raft *l)
{
    struct raft_buffer bufs[BATCH_ENTRIES_MAX];
    if (l->file_ops || l->raft.transfer)
        return;
    const unsigned n = take_batch(l, bufs);
    if (n == 0)
        return;
    struct raft_apply *req = calloc(1, sizeof *req);
    const int rv = req ? raft_apply(&l->raft, req, bufs, n, apply_done) : RAFT_NOMEM;
    if (rv == 0)
        return;
    free(req);
    for (unsigned i = 0; i < n; i++)
        raft_free(bufs[i].base);
    orri_raft_broke(l, rv, "append");
}

bool orri_raft_append_own(struct ledger_raft *l,
                          const struct orr_msg_ledger_append *msg)
{
    const size_t cap =
        orri_pad8(orr_msg_encode_bound(orr_msg_desc_ledger_append(), msg));
    struct append *a = calloc(1, sizeof *a);
    uint8_t *bytes = raft_calloc(1, cap);
    size_t len;
    if (!a || !bytes ||
        orr_msg_encode(orr_msg_desc_ledger_append(), msg, bytes, cap, &len) != ORR_OK) {
        free(a);
        raft_free(bytes);
        return false;
    }
    len = orri_pad8(len); /* cap is padded, too, and zeroed */
    *a = (struct append){.term = msg->term, .bytes = bytes, .len = len};
    pthread_mutex_lock(&l->lock);
    *l->appends_end = a;
    l->appends_end = &a->next;
    l->append_bytes += len;
    pthread_mutex_unlock(&l->lock);
    return true;
}

/* ---- news ------------------------------------------------------------------------------------- */

const char *orri_raft_host_of(const struct ledger_raft *l, raft_id id)
{
    const struct voters *of[] = {&l->voters, &l->configured};
    for (size_t v = 0; id && v < ORR_ARRAY_SIZE(of); v++)
        for (uint32_t i = 0; i < of[v]->n; i++)
            if (orri_voter_id(orr_str(of[v]->at[i].host)) == id)
                return of[v]->at[i].host;
    return "";
}

static void list_voters(struct ledger_raft *l, struct orr_ledger_info *info)
{
    info->n_voters = l->voters.n;
    for (uint32_t v = 0; v < l->voters.n; v++) {
        const raft_id id = orri_voter_id(orr_str(l->voters.at[v].host));
        info->voters[v] = l->voters.at[v];
        info->voters[v].is_leading =
            info->news.leader[0] &&
            strcmp(info->news.leader, l->voters.at[v].host) == 0;
        for (unsigned i = 0;
             l->instance == INSTANCE_RUNNING && i < l->raft.configuration.n;
             i++)
            if (l->raft.configuration.servers[i].id == id)
                info->voters[v].is_voting =
                    l->raft.configuration.servers[i].role == RAFT_VOTER;
    }
}

static void tell_news(struct ledger_raft *l)
{
    struct orr_ledger_info now;
    struct orr_ledger_news *news = &now.news;
    raft_id leader = 0;
    const char *address;
    memset(&now, 0, sizeof now); /* padding too: it is compared as bytes */
    news->term = l->state.news.term;
    if (l->instance == INSTANCE_RUNNING) {
        news->term = l->raft.current_term;
        news->is_leading =
            l->leading_term == news->term && l->raft.state == RAFT_LEADER;
        raft_leader(&l->raft, &leader, &address);
    }
    snprintf(news->leader, sizeof news->leader, "%s", orri_raft_host_of(l, leader));
    news->ticket = news->is_leading && l->ticket_term == news->term ? l->ticket : 0;
    news->committed = orr_image_stats(l->image).last;
    news->trouble.code = l->trouble.code;
    if (l->trouble.code != ORR_OK)
        snprintf(news->trouble.text, sizeof news->trouble.text, "%s", l->trouble.text);
    list_voters(l, &now);
    if (memcmp(&now, &l->state, sizeof now) == 0)
        return;
    pthread_mutex_lock(&l->sink_lock);
    pthread_mutex_lock(&l->lock);
    const bool is_news = memcmp(news, &l->state.news, sizeof *news) != 0;
    l->state = now;
    pthread_mutex_unlock(&l->lock);
    if (l->sink.news && is_news)
        l->sink.news(l->sink.arg, news);
    pthread_mutex_unlock(&l->sink_lock);
}

static void turn(uv_prepare_t *handle)
{
    struct ledger_raft *l = handle->data;
    if (orri_raft_is_closing(l)) {
        if (l->instance == INSTANCE_RUNNING)
            orri_raft_instance_close(l);
        else if (l->instance == INSTANCE_DOWN &&
                 !uv_is_closing((uv_handle_t *)&l->turn))
            orri_raft_close_handles(l);
        return;
    }
    if (l->instance == INSTANCE_RUNNING)
        watch_failures(l);
    if (l->instance == INSTANCE_RUNNING) {
        watch_leadership(l);
        write_entries(l);
    }
    orri_raft_members_turn(l);
    tell_news(l);
}

/* ---- the thread ------------------------------------------------------------------------------- */

static void wake_up(uv_async_t *handle)
{
    (void)handle; /* the turn does it */
}

static void tick(uv_timer_t *handle)
{
    (void)handle; /* a turn at least this often: deadlines of requests */
}

int orri_raft_loop_init(struct ledger_raft *l)
{
    int rv = uv_loop_init(&l->loop);
    if (rv != 0)
        return rv;
    rv = uv_async_init(&l->loop, &l->wake, wake_up);
    if (rv != 0) {
        uv_loop_close(&l->loop);
        return rv;
    }
    uv_prepare_init(&l->loop, &l->turn);
    uv_timer_init(&l->loop, &l->tick);
    uv_timer_init(&l->loop, &l->restart);
    l->turn.data = l->tick.data = l->restart.data = l;
    return 0;
}

void orri_raft_loop_fini(struct ledger_raft *l)
{
    orri_raft_close_handles(l);
    uv_run(&l->loop, UV_RUN_DEFAULT);
    uv_loop_close(&l->loop);
}

void *orri_raft_thread(void *ledger)
{
    struct ledger_raft *l = ledger;
    struct orr_error err = {.code = ORR_OK};
    l->restart_ms = RESTART_MIN_MS;
    uv_prepare_start(&l->turn, turn);
    uv_timer_start(&l->tick, tick, TICK_MS, TICK_MS);
    const enum orr_err code = orri_raft_instance_start(l, &err);
    pthread_mutex_lock(&l->lock);
    if (code != ORR_OK) {
        l->start_error = err;
        l->is_closing = true; /* whoever opens it hears why and frees it */
    }
    l->has_started = true;
    pthread_cond_signal(&l->started);
    pthread_mutex_unlock(&l->lock);
    uv_run(&l->loop, UV_RUN_DEFAULT);
    orri_raft_instance_free(l);
    uv_loop_close(&l->loop);
    free_appends(l->appends);
    return NULL;
}
