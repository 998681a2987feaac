/* SPDX-License-Identifier: Apache-2.0
 * remote.c - letters to and from other hosts, through the transport and the wire's codec.
 */
#include "core.h"
#include "wire.h"

static enum orr_err
transmit(struct orri_worker *w, struct orr_addr to, const struct orri_letter *letter)
{
    struct orr_transport *transport = w->sys->transport;
    if (!transport)
        return ORR_EUNREACH;
    struct orr_msg_envelope envelope = {
        .msg = letter->desc->id,
        .flags = letter->flags & LETTER_ANSWER ? ORR_ENVELOPE_ANSWER : 0,
        .to = to,
        .from = letter->peer,
        .corr = letter->corr,
    };
    if (letter->flags & LETTER_TRACED)
        envelope.trace = (struct orr_bytes){letter->body + letter->bytes, ORRI_TRACE};
    if (letter->deadline_ms) {
        uint64_t left =
            letter->deadline_ms > w->now_ms ? letter->deadline_ms - w->now_ms : 1;
        envelope.timeout_ms = left < UINT32_MAX ? (uint32_t)left : UINT32_MAX;
    }
    uint8_t *data;
    size_t len;
    enum orr_err err =
        orr_wire_encode(&envelope, letter->desc, letter->body, &data, &len);
    if (err != ORR_OK)
        return err;
    err = transport->ops->send(
        transport, to.host, (enum orr_lane)letter->desc->lane, data, len);
    free(data);
    return err;
}

enum orr_err
orri_remote_send(struct orri_worker *w, struct orr_addr to, struct orri_letter *letter)
{
    enum orr_err err = transmit(w, to, letter);
    if (err == ORR_OK)
        orri_letter_free(w, letter);
    else
        orri_reject(w, to, letter, err, NULL);
    return err;
}

/* An answer of another host to something we asked. */
static void
receive_answer(struct orri_worker *w, uint64_t peer_host, struct orri_letter *letter)
{
    struct orri_asker whose;
    if (!orri_ask_take(w->sys, letter->corr, peer_host, &whose)) {
        orri_letter_free(w, letter); /* repeated, or too late */
        return;
    }
    if (whose.origin.host) {
        letter->corr = whose.origin_corr;
        (void)orri_remote_send(w, whose.origin, letter);
        return;
    }
    letter->slot = whose.slot;
    letter->tag = whose.tag;
    (void)orri_deliver(w, letter);
}

/* `monitor` and `down` are for the kernel itself. */
static bool
receive_watch(struct orri_worker *w, struct orr_addr to, struct orri_letter *letter)
{
    if (letter->desc->id == ORR_MSG_monitor)
        orri_watch_remote(w, letter->peer, (const void *)letter->body);
    else if (letter->desc->id == ORR_MSG_down)
        orri_watch_remote_down(w, to, (const void *)letter->body);
    else
        return false;
    orri_letter_free(w, letter);
    return true;
}

static enum orr_err receive(struct orri_worker *w,
                            uint64_t peer_host,
                            unsigned role,
                            const uint8_t *data,
                            size_t len)
{
    struct orr_msg_envelope env;
    size_t at;
    enum orr_err err = orr_wire_decode_envelope(data, len, &env, &at);
    if (err != ORR_OK)
        return err;
    env.from.host = peer_host; /* whoever it says it is */
    bool is_answer = env.flags & ORR_ENVELOPE_ANSWER;
    const struct orr_msg_desc *desc = orr_msg_find((uint16_t)env.msg);
    if (!desc || env.msg > UINT16_MAX) {
        if (env.corr && !is_answer)
            orri_answer_failed(w,
                               env.to,
                               env.from,
                               env.corr,
                               (uint16_t)env.msg,
                               ORR_ENOSYS,
                               "this host does not know the message; it may be older");
        return ORR_OK;
    }
    size_t size;
    size_t taken;
    err = orr_msg_decode_size(desc, data + at, len - at, &size, &taken);
    if (err != ORR_OK)
        return err;
    const uint8_t *trace = env.trace.len == ORRI_TRACE ? env.trace.ptr : NULL;
    struct orri_letter *letter =
        orri_letter_space(w, size, trace ? ORRI_TRACE : 0, is_answer);
    if (!letter) {
        if (env.corr && !is_answer)
            orri_answer_failed(
                w, env.to, env.from, env.corr, desc->id, ORR_EBUSY, NULL);
        return ORR_EBUSY;
    }
    err = orr_msg_decode(desc, data + at, len - at, letter->body, size);
    if (err != ORR_OK) {
        orri_letter_free(w, letter);
        return err;
    }
    letter->desc = desc;
    if (trace)
        orri_letter_set_trace(letter, trace);
    letter->peer = env.from;
    letter->corr = env.corr;
    letter->role = (uint8_t)role;
    letter->deadline_ms = env.timeout_ms ? w->now_ms + env.timeout_ms : 0;
    if (is_answer) {
        letter->flags |= LETTER_ANSWER;
        receive_answer(w, peer_host, letter);
        return ORR_OK;
    }
    if (env.to.host != w->sys->host) {
        orri_reject(w, env.to, letter, ORR_EUNREACH, "sent to the wrong host");
        return ORR_OK;
    }
    if ((role & ORR_ROLE_HOST) && receive_watch(w, env.to, letter))
        return ORR_OK;
    return orri_send(w, env.to, letter) == ORR_EBUSY ? ORR_EBUSY : ORR_OK;
}

enum orr_err orr_system_receive(struct orr_system *system,
                                uint64_t peer_host,
                                unsigned role,
                                const uint8_t *data,
                                size_t len)
{
    struct orri_worker *w = orri_outside_enter(system);
    enum orr_err err = receive(w, peer_host, role, data, len);
    orri_outside_leave(system);
    return err;
}

static void lose_peer(struct orri_worker *w, uint64_t host)
{
    orri_asks_unreach(w, host);
    orri_watch_peer_down(w, host);
}

/* Position in the table, n_peers if it is not up.  Under `tree`. */
static uint32_t find_peer(const struct orr_system *system, uint64_t peer_host)
{
    uint32_t at = 0;
    while (at < system->n_peers && system->peers[at].host != peer_host)
        at++;
    return at;
}

/* Out of memory: the peer is not remembered, and another start of it without a peer_down between goes unnoticed. */
static void
remember_peer(struct orr_system *system, uint64_t peer_host, uint32_t incarnation)
{
    uint32_t n = system->n_peers;
    if ((n & (n - 1)) == 0) { /* grow at powers of two */
        void *more = realloc(system->peers, (n ? 2 * n : 1) * sizeof(system->peers[0]));
        if (!more)
            return;
        system->peers = more;
    }
    system->peers[n].host = peer_host;
    system->peers[n].incarnation = incarnation;
    system->n_peers++;
}

void orr_system_peer_up(struct orr_system *system,
                        uint64_t peer_host,
                        uint32_t incarnation)
{
    struct orri_worker *w = orri_outside_enter(system);
    bool is_another_start = false;
    pthread_mutex_lock(&system->tree);
    uint32_t at = find_peer(system, peer_host);
    if (at == system->n_peers) {
        remember_peer(system, peer_host, incarnation);
    } else {
        is_another_start = system->peers[at].incarnation != incarnation;
        system->peers[at].incarnation = incarnation;
    }
    pthread_mutex_unlock(&system->tree);
    if (is_another_start)
        lose_peer(w, peer_host);
    orri_outside_leave(system);
}

/* Peers are remembered while they are up: every client is one, and they come and go for ever. */
void orr_system_peer_down(struct orr_system *system, uint64_t peer_host)
{
    struct orri_worker *w = orri_outside_enter(system);
    pthread_mutex_lock(&system->tree);
    uint32_t at = find_peer(system, peer_host);
    if (at < system->n_peers)
        system->peers[at] = system->peers[--system->n_peers];
    pthread_mutex_unlock(&system->tree);
    lose_peer(w, peer_host);
    orri_outside_leave(system);
}
