/* SPDX-License-Identifier: Apache-2.0
 * fake_system.c - see fake_system.h.
 */
#include "fake_system.h"

#include <errno.h>
#include <time.h>

void fake_system_init(struct orr_system *system, const char *host, uint32_t incarnation)
{
    pthread_condattr_t attr;
    *system = (struct orr_system){.host = host, .incarnation = incarnation};
    pthread_mutex_init(&system->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&system->changed, &attr);
    pthread_condattr_destroy(&attr);
}

void fake_system_fini(struct orr_system *system)
{
    pthread_cond_destroy(&system->changed);
    pthread_mutex_destroy(&system->lock);
}

bool fake_wait(struct orr_system *system, const uint64_t *count, uint64_t n)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += FAKE_WAIT_MS / 1000;
    int rc = 0;
    pthread_mutex_lock(&system->lock);
    while (*count < n && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&system->changed, &system->lock, &until);
    bool is_there = *count >= n;
    pthread_mutex_unlock(&system->lock);
    return is_there;
}

uint64_t fake_get(struct orr_system *system, const uint64_t *count)
{
    pthread_mutex_lock(&system->lock);
    uint64_t n = *count;
    pthread_mutex_unlock(&system->lock);
    return n;
}

static enum orr_err send_item(struct orr_system *system,
                              uint64_t host,
                              enum orr_lane lane,
                              const struct orr_msg_envelope *envelope,
                              const struct orr_msg_desc *desc,
                              const void *msg)
{
    uint8_t *data;
    size_t len;
    enum orr_err rc = orr_wire_encode(envelope, desc, msg, &data, &len);
    if (rc != ORR_OK)
        return rc;
    rc = system->transport->ops->send(system->transport, host, lane, data, len);
    free(data);
    return rc;
}

enum orr_err fake_ping(struct orr_system *system,
                       const char *host,
                       enum orr_lane lane,
                       uint64_t nonce)
{
    const struct orr_msg_ping ping = {.nonce = nonce};
    const struct orr_msg_envelope envelope = {
        .msg = ORR_MSG_ping,
        .to = orr_addr_named(orr_str(host), ORR_LIT("/system")),
        .from = {.host = orr_hash(orr_str(system->host)),
                 .incarnation = system->incarnation},
        .corr = nonce + 1,
    };
    return send_item(
        system, orr_hash(orr_str(host)), lane, &envelope, orr_msg_desc_ping(), &ping);
}

/* What the kernel's /system actor would answer: pong, or `failed` for a path that
 * nobody has. */
static void answer(struct orr_system *system,
                   const struct orr_msg_envelope *request,
                   uint64_t nonce)
{
    const struct orr_msg_pong pong = {.nonce = nonce};
    const struct orr_msg_failed failed = {
        .code = ORR_ENOENT,
        .msg = request->msg,
        .text = ORR_LIT("no actor has that path; /system is always there"),
    };
    bool is_system = request->to.slot == orr_hash(ORR_LIT("/system"));
    const struct orr_msg_desc *desc =
        is_system ? orr_msg_desc_pong() : orr_msg_desc_failed();
    const struct orr_msg_envelope envelope = {
        .msg = desc->id,
        .flags = ORR_ENVELOPE_ANSWER,
        .to = request->from,
        .from = request->to,
        .corr = request->corr,
    };
    (void)send_item(system,
                    request->from.host,
                    ORR_LANE_CONTROL,
                    &envelope,
                    desc,
                    is_system ? (const void *)&pong : &failed);
}

enum orr_err orr_system_receive(struct orr_system *system,
                                uint64_t peer_host,
                                unsigned role,
                                const uint8_t *data,
                                size_t len)
{
    struct orr_msg_envelope envelope;
    size_t body_at = 0;
    struct orr_msg_ping ping = {0};
    enum orr_err rc = orr_wire_decode_envelope(data, len, &envelope, &body_at);
    if (rc == ORR_OK && envelope.msg == ORR_MSG_ping)
        rc = orr_msg_decode(
            orr_msg_desc_ping(), data + body_at, len - body_at, &ping, sizeof(ping));
    pthread_mutex_lock(&system->lock);
    system->role = role;
    system->bytes += len;
    system->malformed += rc != ORR_OK;
    system->messages += rc == ORR_OK;
    if (rc == ORR_OK && envelope.msg == ORR_MSG_pong)
        system->pongs++;
    if (rc == ORR_OK && envelope.msg == ORR_MSG_ping) {
        system->unordered += ping.nonce != system->next_nonce;
        system->next_nonce = ping.nonce + 1;
    }
    pthread_cond_broadcast(&system->changed);
    pthread_mutex_unlock(&system->lock);
    if (rc == ORR_OK && envelope.from.host == peer_host &&
        !(envelope.flags & ORR_ENVELOPE_ANSWER) && envelope.corr)
        answer(system, &envelope, ping.nonce);
    return rc;
}

void orr_system_peer_up(struct orr_system *system,
                        uint64_t peer_host,
                        uint32_t incarnation)
{
    pthread_mutex_lock(&system->lock);
    system->ups++;
    system->peer = peer_host;
    system->peer_incarnation = incarnation;
    pthread_cond_broadcast(&system->changed);
    pthread_mutex_unlock(&system->lock);
}

void orr_system_peer_down(struct orr_system *system, uint64_t peer_host)
{
    (void)peer_host;
    pthread_mutex_lock(&system->lock);
    system->downs++;
    pthread_cond_broadcast(&system->changed);
    pthread_mutex_unlock(&system->lock);
}
