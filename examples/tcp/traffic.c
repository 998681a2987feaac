/* SPDX-License-Identifier: Apache-2.0
 * traffic.c - see traffic.h.
 */
#include "traffic.h"

#include "data.h"
#include "fail.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { TICK_MS = 100, QUIET_TICKS_MAX = 600, BYTES_MIN = 64 };

void traffic_init(struct traffic *t,
                  const struct traffic_config *cfg,
                  const struct mesh *mesh)
{
    *t = (struct traffic){.cfg = *cfg, .rank = mesh->rank, .world = mesh->world};
    uint64_t seed = cfg->seed + t->rank;
    for (size_t k = 0; k < TRAFFIC_WORDS; k++)
        t->state[k] = data_random(&seed);
    t->random = data_random(&seed);
    for (uint32_t r = 0; r < t->world; r++) {
        struct traffic_peer *p = &t->peers[r];
        p->fd = mesh->fds[r];
        p->sent = (struct record_stream){.from = t->rank, .to = r};
        p->received = (struct record_stream){.from = r, .to = t->rank};
        p->out_room = (cfg->window + 1) * (sizeof p->header + cfg->bytes);
        p->out = malloc(p->out_room);
        p->payload = malloc(cfg->bytes);
        if (!p->out || !p->payload)
            die("out of memory for %zu bytes a rank", p->out_room);
    }
}

void traffic_fini(struct traffic *t)
{
    for (uint32_t r = 0; r < t->world; r++) {
        free(t->peers[r].out);
        free(t->peers[r].payload);
    }
    *t = (struct traffic){0};
}

/* ---- the state ---- */

static uint64_t stir(uint64_t word, uint64_t with)
{
    word = (word ^ with) * UINT64_C(0x9E3779B97F4A7C15);
    return word ^ (word >> 29);
}

static void mix_in(struct traffic *t, const uint64_t *payload, uint32_t length)
{
    for (uint32_t k = 0; k < length / sizeof *payload; k++) {
        uint64_t *word = &t->state[k % TRAFFIC_WORDS];
        *word = stir(*word, payload[k]);
    }
}

static void work(struct traffic *t)
{
    for (uint32_t n = 0; n < t->cfg.work; n++)
        for (size_t k = 0; k < TRAFFIC_WORDS; k++)
            t->state[k] = stir(t->state[k], t->state[(k + 1 + n) % TRAFFIC_WORDS]);
}

static uint64_t state_digest(const struct traffic *t)
{
    return fnv1a(FNV1A_START, t->state, sizeof t->state);
}

static void record_state(const struct traffic *t, struct digests *d)
{
    struct record_stream sent[MESH_WORLD_MAX], received[MESH_WORLD_MAX];
    const uint64_t counters[] = {t->steps, t->queued, t->records, t->bytes};
    if (!digests_begin(d, t->steps))
        return;
    for (uint32_t r = 0; r < t->world; r++) {
        sent[r] = t->peers[r].sent;
        received[r] = t->peers[r].received;
    }
    digests_add(d, "state", t->state, sizeof t->state);
    digests_add(d, "random", &t->random, sizeof t->random);
    digests_add(d, "sent", sent, t->world * sizeof *sent);
    digests_add(d, "received", received, t->world * sizeof *received);
    digests_add(d, "counters", counters, sizeof counters);
    digests_end(d);
}

/* ---- sending ---- */

static void enqueue(struct traffic_peer *p, const void *payload, uint32_t length)
{
    struct record_header h = record_next(&p->sent, payload, length);
    memmove(p->out, p->out + p->out_at, p->out_end - p->out_at);
    p->out_end -= p->out_at;
    p->out_at = 0;
    if (p->out_room - p->out_end < sizeof h + length)
        die("rank %u has taken none of %zu bytes", p->sent.to, p->out_end);
    memcpy(p->out + p->out_end, &h, sizeof h);
    memcpy(p->out + p->out_end + sizeof h, payload, length);
    p->out_end += sizeof h + length;
}

/* The records of step `queued`, or after the last the digests. */
static void make_records(struct traffic *t)
{
    uint64_t payload[RECORD_PAYLOAD_MAX / sizeof(uint64_t)], digest = state_digest(t);
    for (uint32_t r = 0; r < t->world; r++) {
        if (r == t->rank)
            continue;
        if (t->queued == t->cfg.steps) {
            enqueue(&t->peers[r], &digest, sizeof digest);
            continue;
        }
        uint32_t choices = (t->cfg.bytes - BYTES_MIN) / sizeof *payload + 1;
        uint32_t n =
            BYTES_MIN / sizeof *payload + data_random_below(&t->random, choices);
        uint64_t word = digest + r;
        for (uint32_t k = 0; k < n; k++)
            payload[k] = word = stir(word, t->state[k % TRAFFIC_WORDS]);
        enqueue(&t->peers[r], payload, n * (uint32_t)sizeof *payload);
    }
    t->queued++;
}

static bool send_some(struct traffic_peer *p)
{
    ssize_t n = send(p->fd, p->out + p->out_at, p->out_end - p->out_at, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        die("connection to rank %u: %s", p->sent.to, strerror(errno));
    p->out_at += n > 0 ? (size_t)n : 0;
    return n > 0;
}

/* ---- receiving ---- */

/* Reads on in the record that is arriving, and no further. */
static bool receive_some(struct traffic *t, struct traffic_peer *p)
{
    char err[RECORD_ERR_MAX];
    size_t head = sizeof p->header;
    bool is_header = p->arrived < head;
    uint8_t *to = is_header ? (uint8_t *)&p->header + p->arrived
                            : (uint8_t *)p->payload + (p->arrived - head);
    size_t want = is_header ? head - p->arrived : head + p->header.length - p->arrived;
    ssize_t n = recv(p->fd, to, want, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0)
        die("connection to rank %u: %s",
            p->received.from,
            n == 0 ? "closed by the other side before its last record"
                   : strerror(errno));
    p->arrived += (size_t)n;
    if (is_header && p->arrived == head &&
        record_refuses(&p->received, &p->header, t->cfg.bytes, err))
        die("%s", err);
    p->is_whole = p->arrived >= head && p->arrived == head + p->header.length;
    if (p->is_whole && record_take(&p->received, &p->header, p->payload, err))
        die("%s", err);
    return true;
}

static bool is_step_whole(const struct traffic *t)
{
    for (uint32_t r = 0; r < t->world; r++)
        if (r != t->rank && !t->peers[r].is_whole)
            return false;
    return true;
}

/* All records of a step are there. */
static void take_step(struct traffic *t, struct digests *digests)
{
    for (uint32_t r = 0; r < t->world; r++) {
        struct traffic_peer *p = &t->peers[r];
        if (r == t->rank)
            continue;
        mix_in(t, p->payload, p->header.length);
        t->records++;
        t->bytes += p->arrived;
        p->arrived = 0;
        p->is_whole = false;
    }
    work(t);
    t->steps++;
    if (t->queued < t->cfg.steps || t->steps == t->cfg.steps)
        make_records(t);
    record_state(t, digests);
    if (t->rank == 0 && t->steps % t->cfg.log_every == 0)
        printf("step=%u bytes=%llu\n", t->steps, (unsigned long long)t->bytes);
}

/* The last records: all digests are there. */
static void take_digests(struct traffic *t)
{
    uint64_t mine = state_digest(t);
    t->digest = FNV1A_START;
    for (uint32_t r = 0; r < t->world; r++) {
        const void *word = r == t->rank ? &mine : t->peers[r].payload;
        t->digest = fnv1a(t->digest, word, sizeof mine);
    }
}

/* ---- the loop ---- */

/* False when there is nothing left to wait for. */
static bool wait_for_peers(struct traffic *t, struct pollfd *polls)
{
    static const int tick_ms = TICK_MS;
    uint32_t quiet = 0, waiting = 0;
    for (uint32_t r = 0; r < t->world; r++) {
        const struct traffic_peer *p = &t->peers[r];
        bool reads = r != t->rank && !p->is_whole, writes = p->out_at < p->out_end;
        polls[r].fd = reads || writes ? p->fd : -1;
        polls[r].events = (short)((reads ? POLLIN : 0) | (writes ? POLLOUT : 0));
        waiting += reads || writes;
    }
    if (waiting == 0)
        return false;
    for (;;) {
        int n = poll(polls, t->world, tick_ms);
        if (n > 0)
            return true;
        if (n < 0 && errno != EINTR)
            die("poll: %s", strerror(errno));
        if (n == 0 && ++quiet == QUIET_TICKS_MAX)
            die("step %u: nothing moves: is a peer stuck?", t->steps);
    }
}

static void serve_peers(struct traffic *t, const struct pollfd *polls)
{
    for (uint32_t r = 0; r < t->world; r++) {
        struct traffic_peer *p = &t->peers[r];
        if (polls[r].fd < 0 || polls[r].revents == 0)
            continue;
        bool is_broken = polls[r].revents & (POLLERR | POLLHUP | POLLNVAL);
        if (p->out_at < p->out_end && (is_broken || (polls[r].revents & POLLOUT)))
            send_some(p);
        while (!p->is_whole && receive_some(t, p))
            ;
    }
}

void traffic_run(struct traffic *t, struct digests *digests)
{
    struct pollfd polls[MESH_WORLD_MAX];
    while (t->queued < t->cfg.window && t->queued < t->cfg.steps)
        make_records(t);
    while (wait_for_peers(t, polls)) {
        serve_peers(t, polls);
        if (t->steps < t->cfg.steps && is_step_whole(t))
            take_step(t, digests);
    }
    take_digests(t);
}
