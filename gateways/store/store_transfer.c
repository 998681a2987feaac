/* SPDX-License-Identifier: Apache-2.0
 * store_transfer.c - what a store lacks of a part, from the store of another host.
 *
 * START      the peer is linked (link_want); the part itself is fetched unless it is here
 * OPERATION  POOL_SLOTS chunks at a time, each piece by piece: the thread wants a piece, the actor asks for
 *            it, the answer is copied into the slot and wakes the thread, which verifies and writes
 * STOP       new chunks are synced and named, then the part; the link is let go
 * FAILURES   a peer that cannot be reached is tried again for PEER_MS since it last answered; what it does not have, or
 *            what arrives damaged, is asked of the next.  What has come stays: the next try begins there
 */
#include "store_pool_impl.h"

#include <errno.h>

enum { PEER_MS = 10000, AGAIN_MS = 50 };

struct job { /* an object in a slot */
    bool is_active;
    uint8_t *bytes; /* owned: what has come so far */
    size_t len, cap;
    double retry_s; /* ask again then */
};

struct transfer {
    struct orr_store_pool *pool; /* borrowed */
    struct pool_call *call;      /* borrowed */
    struct orr_store_fetch *fetch;
    uint64_t host;
    struct job jobs[POOL_SLOTS];
    const struct orr_store_hash *missing; /* borrowed: of fetch */
    size_t n_missing, next, n_failed;
    double heard_s;
    struct pool_fetched fetched;
};

static void want(struct transfer *t, uint32_t slot)
{
    struct pool_slot *s = &t->call->slots[slot];
    orri_rate_take(&t->pool->fetch_rate, ORR_STORE_PIECE_MAX, &t->call->op);
    pthread_mutex_lock(&t->pool->lock);
    s->offset = t->jobs[slot].len;
    s->state = SLOT_WANTED;
    pthread_mutex_unlock(&t->pool->lock);
    const struct orr_msg_store_want msg = {.call = t->call->number, .slot = slot};
    const enum orr_err code =
        pool_post(t->pool, (struct orr_addr){0}, orr_msg_desc_store_want(), &msg);
    if (code) { /* as if the peer had not been reached */
        pthread_mutex_lock(&t->pool->lock);
        s->code = ORR_EBUSY;
        s->state = SLOT_DONE;
        pthread_mutex_unlock(&t->pool->lock);
    }
}

static void begin(struct transfer *t,
                  uint32_t slot,
                  bool is_part,
                  const struct orr_store_hash *hash)
{
    struct pool_slot *s = &t->call->slots[slot];
    s->is_part = is_part; /* free: ours */
    s->hash = *hash;
    s->host = t->host;
    t->jobs[slot].is_active = true;
    t->jobs[slot].len = 0;
    t->jobs[slot].retry_s = 0;
    want(t, slot);
}

static void end(struct transfer *t, uint32_t slot)
{
    pthread_mutex_lock(&t->pool->lock);
    t->call->slots[slot].state = SLOT_FREE;
    pthread_mutex_unlock(&t->pool->lock);
    t->jobs[slot].is_active = false;
}

static bool is_over(const struct transfer *t)
{
    return orri_is_cancelled(&t->call->op);
}

/* Wait until a slot has its answer or is to be asked again; POOL_SLOTS: time is up. */
static uint32_t wait_any(struct transfer *t)
{
    struct orr_store_pool *pool = t->pool;
    uint32_t found = POOL_SLOTS;
    pthread_mutex_lock(&pool->lock);
    while (found == POOL_SLOTS && !is_over(t)) {
        const double now = orri_now_s();
        if (now - t->heard_s > PEER_MS / 1e3)
            break;
        for (uint32_t i = 0; i < POOL_SLOTS && found == POOL_SLOTS; i++)
            if (t->jobs[i].is_active && t->call->slots[i].state == SLOT_DONE &&
                t->jobs[i].retry_s <= now)
                found = i;
        if (found < POOL_SLOTS)
            break;
        const double until = now + AGAIN_MS / 1e3;
        const struct timespec ts = {.tv_sec = (time_t)until,
                                    .tv_nsec =
                                        (long)((until - (double)(time_t)until) * 1e9)};
        pthread_cond_timedwait(&pool->answered, &pool->lock, &ts);
    }
    pthread_mutex_unlock(&pool->lock);
    return found;
}

static enum orr_err grow(struct job *j, size_t more, struct orr_error *err)
{
    if (j->len + more <= j->cap)
        return ORR_OK;
    const size_t cap = j->len + more + j->cap;
    uint8_t *bytes = realloc(j->bytes, cap);
    if (!bytes)
        return orr_fail(err, ORR_ENOMEM, "store: out of memory");
    j->bytes = bytes;
    j->cap = cap;
    return ORR_OK;
}

enum step { STEP_MORE, STEP_WHOLE, STEP_LOST };

/* The slot has an answer: take it in.  MORE: it was asked again. */
static enum orr_err take_piece(struct transfer *t,
                               uint32_t slot,
                               enum step *ret_step,
                               struct orr_error *err)
{
    struct pool_slot *s = &t->call->slots[slot]; /* DONE: ours */
    struct job *j = &t->jobs[slot];
    const uint64_t max =
        s->is_part ? (uint64_t)ORR_PART_BYTES_MAX : ORR_STORE_OBJECT_MAX;
    *ret_step = STEP_MORE;
    if (j->retry_s > 0) { /* the pause is over */
        j->retry_s = 0;
        want(t, slot);
        return ORR_OK;
    }
    if (s->code == ORR_EUNREACH || s->code == ORR_EBUSY || s->code == ORR_ETIMEOUT ||
        s->code == ORR_EGONE) {
        j->retry_s = orri_now_s() + AGAIN_MS / 1e3;
        return ORR_OK;
    }
    t->heard_s = orri_now_s();
    if (s->code || s->size > max || s->len > s->size - j->len ||
        (!s->len && j->len < s->size)) {
        *ret_step = STEP_LOST;
        return ORR_OK;
    }
    enum orr_err code = grow(j, s->len, err);
    if (code)
        return code;
    memcpy(j->bytes + j->len, s->piece, s->len);
    j->len += s->len;
    t->fetched.bytes += s->len;
    if (j->len >= s->size)
        *ret_step = STEP_WHOLE;
    else
        want(t, slot);
    return ORR_OK;
}

/* ---- the part, then the chunks ---- */

static enum orr_err
fetch_part(struct transfer *t, const struct orr_store_hash *part, struct orr_error *err)
{
    enum step step = STEP_MORE;
    enum orr_err code = ORR_OK;
    begin(t, 0, true, part);
    while (!code && step == STEP_MORE) {
        if (wait_any(t) == POOL_SLOTS)
            return is_over(t)
                       ? orri_cancelled(err)
                       : orr_fail(err, ORR_EUNREACH, "store: a peer does not answer");
        code = take_piece(t, 0, &step, err);
    }
    if (!code && step == STEP_LOST)
        code = orr_fail(err, ORR_ENOENT, "store: a peer does not have the part");
    if (!code)
        code = orr_store_fetch_part(t->fetch, t->jobs[0].bytes, t->jobs[0].len, err);
    end(t, 0);
    return code;
}

static void fill_slots(struct transfer *t)
{
    for (uint32_t i = 0; i < POOL_SLOTS && t->next < t->n_missing && !is_over(t); i++)
        if (!t->jobs[i].is_active)
            begin(t, i, false, &t->missing[t->next++]);
}

static bool has_active(const struct transfer *t)
{
    for (uint32_t i = 0; i < POOL_SLOTS; i++)
        if (t->jobs[i].is_active)
            return true;
    return false;
}

static enum orr_err fetch_chunks(struct transfer *t, struct orr_error *err)
{
    enum orr_err code = ORR_OK;
    for (fill_slots(t); !code && has_active(t); fill_slots(t)) {
        enum step step;
        const uint32_t i = wait_any(t);
        if (i == POOL_SLOTS)
            return is_over(t)
                       ? orri_cancelled(err)
                       : orr_fail(err, ORR_EUNREACH, "store: a peer does not answer");
        code = take_piece(t, i, &step, err);
        if (code || step == STEP_MORE)
            continue;
        if (step == STEP_WHOLE)
            code = orr_store_fetch_chunk(t->fetch,
                                         &t->call->slots[i].hash,
                                         t->jobs[i].bytes,
                                         t->jobs[i].len,
                                         err);
        if (step == STEP_LOST || code == ORR_EPROTO) {
            t->n_failed++; /* the next peer may have it */
            code = ORR_OK;
        } else if (!code)
            t->fetched.chunks++;
        end(t, i);
    }
    return code;
}

static enum orr_err
from_peer(struct transfer *t, const struct orr_store_hash *part, struct orr_error *err)
{
    struct orr_error ignored;
    enum orr_err code =
        orr_store_fetch_begin(t->pool->config.store, part, &t->fetch, err);
    if (code)
        return code;
    code = orr_store_fetch_missing(t->fetch, &t->missing, &t->n_missing, err);
    if (code == ORR_ENOENT || code == ORR_EIO) {
        code = fetch_part(t, part, err);
        if (!code)
            code = orr_store_fetch_missing(t->fetch, &t->missing, &t->n_missing, err);
    }
    if (!code)
        code = fetch_chunks(t, err);
    if (!code && t->n_failed)
        code = orr_fail(err, ORR_ENOENT, "store: a peer lacks %zu chunks", t->n_failed);
    const enum orr_err end_code =
        orr_store_fetch_end(t->fetch, !code, code ? &ignored : err);
    return code ? code : end_code;
}

/* Count a transfer from the host; true: the first came, or the last has gone. */
static bool count_link(struct orr_store_pool *pool, uint64_t host, bool on)
{
    size_t at = POOL_LINKS;
    pthread_mutex_lock(&pool->lock);
    for (size_t i = 0; i < POOL_LINKS; i++)
        if (pool->links[i].n && pool->links[i].host == host)
            at = i;
    for (size_t i = 0; on && i < POOL_LINKS && at == POOL_LINKS; i++)
        if (!pool->links[i].n)
            at = i;
    ORR_ASSERT(at < POOL_LINKS); /* there are fewer threads that fetch */
    pool->links[at].host = host;
    pool->links[at].n = on ? pool->links[at].n + 1 : pool->links[at].n - 1;
    const bool is_change = pool->links[at].n == (on ? 1 : 0);
    pthread_mutex_unlock(&pool->lock);
    return is_change;
}

static void
link_peer(struct orr_store_pool *pool, const struct orr_rec_store_peer *peer, bool on)
{
    const struct orr_msg_link_want want_msg = {.host = peer->host,
                                               .endpoint = peer->endpoint};
    const struct orr_msg_link_drop drop_msg = {.host = peer->host};
    if (peer->endpoint.len == 0 || orr_addr_is_none(pool->config.links) ||
        !count_link(pool, orr_hash(peer->host), on))
        return;
    if (on)
        (void)pool_post(pool, pool->config.links, orr_msg_desc_link_want(), &want_msg);
    else
        (void)pool_post(pool, pool->config.links, orr_msg_desc_link_drop(), &drop_msg);
}

static enum orr_err try_peer(struct orr_store_pool *pool,
                             struct pool_call *call,
                             const struct orr_store_hash *part,
                             const struct orr_rec_store_peer *peer,
                             struct pool_fetched *fetched,
                             struct orr_error *err)
{
    struct transfer t = {.pool = pool,
                         .call = call,
                         .host = orr_hash(peer->host),
                         .heard_s = orri_now_s()};
    pthread_mutex_lock(&pool->lock);
    memset(call->slots, 0, POOL_SLOTS * sizeof *call->slots);
    call->number =
        ++pool->next_number; /* what an earlier peer still answers is not meant */
    pthread_mutex_unlock(&pool->lock);
    link_peer(pool, peer, true);
    enum orr_err code = from_peer(&t, part, err);
    link_peer(pool, peer, false);
    for (uint32_t i = 0; i < POOL_SLOTS; i++)
        free(t.jobs[i].bytes);
    fetched->bytes += t.fetched.bytes;
    fetched->chunks += t.fetched.chunks;
    return code;
}

enum orr_err pool_transfer(struct orr_store_pool *pool,
                           struct pool_call *call,
                           const struct orr_store_hash *part,
                           struct orr_list_store_peer peers,
                           struct pool_fetched *fetched,
                           struct orr_error *err)
{
    enum orr_err code = orr_fail(err, ORR_ENOENT, "store: no peer to fetch from");
    struct pool_slot *slots = calloc(POOL_SLOTS, sizeof *slots);
    char hex[ORR_STORE_HEX_BYTES];
    if (!slots)
        return orr_fail(err, ORR_ENOMEM, "store: out of memory");
    pthread_mutex_lock(&pool->lock);
    free(call->slots);
    call->slots = slots;
    const uint64_t own = pool->self.host;
    pthread_mutex_unlock(&pool->lock);
    for (uint32_t i = 0; code && i < peers.n && !orri_is_cancelled(&call->op); i++) {
        if (orr_hash(peers.at[i].host) == own)
            continue;
        code = try_peer(pool, call, part, &peers.at[i], fetched, err);
        if (code != ORR_ENOENT && code != ORR_EUNREACH && code != ORR_EPROTO)
            break;
    }
    orr_store_hex(part, hex);
    if (code == ORR_ENOENT || code == ORR_EUNREACH || code == ORR_EPROTO)
        return orr_fail(
            err,
            code,
            "store: part %s: none of %u peers has all of what is missing here, or "
            "answers; start the host that has it, or use an earlier checkpoint",
            hex,
            (unsigned)peers.n);
    return orri_is_cancelled(&call->op) ? orri_cancelled(err) : code;
}
