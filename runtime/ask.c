/* SPDX-License-Identifier: Apache-2.0
 * ask.c - open asks: who waits for which answer until when.
 *
 * An ask is closed by whoever comes first, under one lock: its answer, its deadline, the end of its actor, the loss of the
 * host that was asked.  So each is answered exactly once.  The number on the wire (corr) is the place in the table plus a
 * count of its uses: late and repeated answers find another number there.
 */
#include "core.h"

struct orri_ask {
    struct orri_due due;    /* first: the wheel knows no more */
    struct orri_ask *next;  /* of the actor's, or free */
    struct orri_ask **from; /* what points at it among the actor's; NULL: relayed */
    uint64_t corr;
    uint64_t host; /* that has to answer */
    struct orri_asker asker;
    uint16_t msg_id;
    bool is_open;
};

static bool add_chunk(struct orri_time *time, uint32_t asks_max)
{
    if (time->n_asks >= asks_max)
        return false;
    if (!time->chunks)
        time->chunks = orri_zalloc((asks_max / ORRI_CHUNK + 1) * sizeof(*time->chunks));
    struct orri_ask *chunk = orri_zalloc(ORRI_CHUNK * sizeof(*chunk));
    if (!time->chunks || !chunk) {
        free(chunk);
        return false;
    }
    time->chunks[time->n_asks / ORRI_CHUNK] = chunk;
    for (uint32_t i = ORRI_CHUNK; i-- > 0;) {
        chunk[i].corr = time->n_asks + i + 1;
        chunk[i].next = time->free;
        time->free = &chunk[i];
    }
    time->n_asks += ORRI_CHUNK;
    return true;
}

uint64_t orri_ask_open(struct orri_worker *w,
                       struct orri_actor *actor,
                       const struct orri_asker *asker,
                       uint64_t host,
                       uint16_t msg_id,
                       uint64_t due_ms)
{
    struct orri_time *time = &w->sys->time;
    uint64_t corr = 0;
    pthread_mutex_lock(&time->lock);
    struct orri_ask *ask = time->free;
    if (ask || (add_chunk(time, w->sys->config.asks_max) && (ask = time->free))) {
        time->free = ask->next;
        ask->next = NULL;
        ask->from = NULL;
        ask->corr += UINT64_C(1) << 32;
        ask->host = host;
        ask->asker = *asker;
        ask->msg_id = msg_id;
        ask->is_open = true;
        if (actor) {
            ask->next = actor->asks;
            ask->from = &actor->asks;
            if (ask->next)
                ask->next->from = &ask->next;
            actor->asks = ask;
        }
        ask->due.kind = DUE_ASK;
        orri_time_insert(w->sys, &ask->due, due_ms);
        corr = ask->corr;
    }
    pthread_mutex_unlock(&time->lock);
    return corr;
}

static struct orri_ask *find(const struct orri_time *time, uint64_t corr)
{
    uint32_t at = (uint32_t)corr - 1;
    if (at >= time->n_asks)
        return NULL;
    struct orri_ask *ask = &time->chunks[at / ORRI_CHUNK][at % ORRI_CHUNK];
    return ask->is_open && ask->corr == corr ? ask : NULL;
}

static void close_ask(struct orri_time *time, struct orri_ask *ask)
{
    orri_wheel_remove(&time->wheel, &ask->due);
    if (ask->from) {
        *ask->from = ask->next;
        if (ask->next)
            ask->next->from = ask->from;
    }
    ask->is_open = false;
    ask->next = time->free;
    time->free = ask;
}

bool orri_ask_take(struct orr_system *sys,
                   uint64_t corr,
                   uint64_t host,
                   struct orri_asker *ret_asker)
{
    pthread_mutex_lock(&sys->time.lock);
    struct orri_ask *ask = find(&sys->time, corr);
    bool is_ours = ask && (ask->host == host || host == sys->host);
    if (is_ours) {
        *ret_asker = ask->asker;
        close_ask(&sys->time, ask);
    }
    pthread_mutex_unlock(&sys->time.lock);
    return is_ours;
}

void orri_ask_move(struct orr_system *sys, uint64_t corr, uint64_t host)
{
    pthread_mutex_lock(&sys->time.lock);
    struct orri_ask *ask = find(&sys->time, corr);
    if (ask)
        ask->host = host;
    pthread_mutex_unlock(&sys->time.lock);
}

void orri_asks_drop(struct orr_system *sys, struct orri_actor *actor)
{
    pthread_mutex_lock(&sys->time.lock);
    while (actor->asks)
        close_ask(&sys->time, actor->asks);
    pthread_mutex_unlock(&sys->time.lock);
}

struct orri_letter *orri_ask_expire(struct orri_worker *w, struct orri_due *due)
{
    struct orri_ask *ask = (struct orri_ask *)due;
    struct orri_letter *letter = NULL;
    if (ask->from) {
        const struct orr_msg_desc *asked = orr_msg_find(ask->msg_id);
        char text[96];
        int n = snprintf(text,
                         sizeof(text),
                         "%s: the deadline passed without an answer",
                         asked ? asked->body.name : "?");
        struct orr_msg_failed failed = {
            .code = ORR_ETIMEOUT, .msg = ask->msg_id, .text = {text, (uint32_t)n}};
        letter = orri_letter_make(w, orr_msg_desc_failed(), &failed, NULL, true);
        if (!letter) { /* no memory now: try again soon */
            orri_time_insert(w->sys, due, w->now_ms + 10);
            return NULL;
        }
        letter->slot = ask->asker.slot;
        letter->tag = ask->asker.tag;
        letter->flags = LETTER_ANSWER;
        letter->role = ORR_ROLE_LOCAL;
        letter->peer.host = ask->host;
    }
    close_ask(&w->sys->time, ask); /* relayed: the origin has its own deadline */
    return letter;
}

/* The corr of some open ask to that host, 0 when there is none. */
static uint64_t
next_to(struct orri_time *time, uint64_t host, uint32_t *at, uint16_t *ret_id)
{
    uint64_t corr = 0;
    pthread_mutex_lock(&time->lock);
    for (; *at < time->n_asks && !corr; ++*at) {
        const struct orri_ask *ask = &time->chunks[*at / ORRI_CHUNK][*at % ORRI_CHUNK];
        if (ask->is_open && ask->host == host) {
            corr = ask->corr;
            *ret_id = ask->msg_id;
        }
    }
    pthread_mutex_unlock(&time->lock);
    return corr;
}

void orri_asks_unreach(struct orri_worker *w, uint64_t host)
{
    struct orr_addr here = {.host = w->sys->host};
    struct orr_addr there = {.host = host};
    uint32_t at = 0;
    uint16_t id = 0;
    for (uint64_t corr; (corr = next_to(&w->sys->time, host, &at, &id));)
        orri_answer_failed(w, there, here, corr, id, ORR_EUNREACH, NULL);
}
