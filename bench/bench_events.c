/* SPDX-License-Identifier: Apache-2.0
 * bench_events.c - the event stream with 1 and 8 followers, next to a plain PUB socket
 * with as many SUBs: how fast, and what a burst loses.
 *
 * Both sides have the publisher in one thread and each subscriber in one of its own,
 * over ipc, with lines of the same length.  `rate`: the publisher stays at most WINDOW
 * events ahead of the slowest, so that nothing is lost on either side.  `burst`: it
 * sends as fast as it can, and what nobody received and nobody was told of is lost
 * silently; PUB has libzmq's default limits.
 */
#include "bench.h"
#include "events/events.h"
#include "orrery/follow.h"
#include "system.h"
#include "transport_zmq.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>
#include <zmq.h>

enum {
    EVENTS = 200000,
    SUBSCRIBERS_MAX = 8,
    WINDOW = 30000,
    KEPT = 1 << 16, /* as a region host does */
    KEPT_BYTES = 32 << 20,
    LINE_BYTES = 256,
    WAIT_MS = 20000,
};

struct subscriber {
    pthread_t thread;
    const char *endpoint;
    atomic_uint_fast64_t at; /* seq of the last event received or named as missed */
    atomic_uint_fast64_t received;
    atomic_bool is_ready;
    uint64_t end; /* leave when at gets here */
};

struct result {
    double events_per_s;
    double received; /* shares of what was published */
    double silent;
};

static struct subscriber subs[SUBSCRIBERS_MAX];

static uint64_t slowest(unsigned n)
{
    uint64_t min = UINT64_MAX;
    for (unsigned i = 0; i < n; i++) {
        uint64_t at = atomic_load(&subs[i].at);
        min = at < min ? at : min;
    }
    return min;
}

static void start_subscribers(unsigned n, const char *endpoint, void *(*run)(void *))
{
    for (unsigned i = 0; i < n; i++) {
        subs[i] = (struct subscriber){.endpoint = endpoint, .end = EVENTS};
        if (pthread_create(&subs[i].thread, NULL, run, &subs[i]))
            die("thread", "cannot start");
    }
}

static struct result collect(unsigned n, double start)
{
    struct result r = {0};
    uint64_t received = 0, known = 0;
    for (unsigned i = 0; i < n; i++)
        pthread_join(subs[i].thread, NULL);
    double seconds = now_s() - start;
    for (unsigned i = 0; i < n; i++) {
        received += atomic_load(&subs[i].received);
        known += atomic_load(&subs[i].at);
    }
    r.events_per_s = (double)received / n / seconds;
    r.received = (double)received / n / EVENTS;
    r.silent = 1 - (double)known / n / EVENTS;
    return r;
}

/* ---- Orrery ---- */

struct host {
    struct orr_system *sys;
    struct orr_zmq *zmq;
    struct orr_events *stream;
    struct orr_addr events;
};

static void host_start(struct host *h, const char *endpoint)
{
    struct orr_error err;
    const struct orr_system_config config = {
        .host = "r1", .incarnation = 1, .workers = 1};
    if (orr_system_new(&config, &h->sys, &err))
        die("system", err.text);
    const struct orr_zmq_config zmq = {
        .system = h->sys, .host = "r1", .incarnation = 1, .build = "bench"};
    if (orr_zmq_new(&zmq, &h->zmq, &err) ||
        orr_zmq_listen(h->zmq, endpoint, NULL, &err) ||
        orr_events_new(KEPT, KEPT_BYTES, &h->stream, &err))
        die(endpoint, err.text);
    orr_system_set_transport(h->sys, orr_zmq_transport(h->zmq));
    const struct orr_events_args args = {h->stream};
    const struct orr_spawn spawn = {
        &orr_events_actor, &args, "/edge/events", ORR_PERMANENT};
    if (orr_system_spawn(h->sys, &spawn, &h->events) ||
        orr_system_start(h->sys, &err) || orr_zmq_start(h->zmq, &err))
        die(endpoint, "cannot start");
}

static void host_stop(struct host *h)
{
    orr_system_stop(h->sys);
    orr_zmq_stop(h->zmq);
    orr_zmq_free(h->zmq);
    orr_system_free(h->sys);
    orr_events_free(h->stream);
}

static void *run_follower(void *arg)
{
    struct subscriber *s = arg;
    struct orr_follower *f;
    struct orr_error err;
    const struct orr_follow_config config = {.endpoints = s->endpoint};
    if (orr_follower_new(&config, &f, &err))
        die(s->endpoint, err.text);
    for (uint64_t at = 0; at < s->end;) {
        struct orr_follow_item item;
        if (orr_follower_next(f, WAIT_MS, &item, &err))
            die("follower", err.text);
        if (item.first != at + 1)
            die("follower", "a hole that was not named");
        at = item.last;
        if (item.kind == ORR_FOLLOW_EVENT)
            atomic_fetch_add_explicit(&s->received, 1, memory_order_relaxed);
        atomic_store_explicit(&s->at, at, memory_order_release);
    }
    orr_follower_free(f);
    return NULL;
}

static void post_event(struct host *h, uint64_t seq)
{
    const struct orr_msg_event m = {.epoch = 1,
                                    .seq = seq,
                                    .id = ORR_LIT("1-123456"),
                                    .source = ORR_LIT("/r1"),
                                    .type = ORR_LIT("job.state"),
                                    .subject = ORR_LIT("job/r1-4k7"),
                                    .time_unix_ms = 1700000000123u,
                                    .generation = 1,
                                    .from = ORR_LIT("launching"),
                                    .to = ORR_LIT("running"),
                                    .principal = ORR_LIT("user")};
    while (orr_system_post(
               h->sys, (struct orr_addr){0}, h->events, orr_msg_desc_event(), &m) !=
           ORR_OK)
        sched_yield(); /* its mailbox is full */
}

static struct result measure_orrery(unsigned n, const char *endpoint, uint64_t window)
{
    struct host h;
    host_start(&h, endpoint);
    start_subscribers(n, endpoint, run_follower);
    post_event(&h, 1);
    while (slowest(n) < 1) /* all have joined */
        sched_yield();
    double start = now_s();
    for (uint64_t seq = 2; seq <= EVENTS; seq++) {
        while (seq > slowest(n) + window)
            sched_yield();
        post_event(&h, seq);
    }
    struct result r = collect(n, start);
    host_stop(&h);
    return r;
}

/* ---- PUB and SUB ---- */

static void *context;

static void *run_sub(void *arg)
{
    struct subscriber *s = arg;
    char topic[64], line[2 * LINE_BYTES];
    void *sub = zmq_socket(context, ZMQ_SUB);
    int hwm = (int)s->end; /* WINDOW, or 0 for libzmq's default */
    if (hwm)
        zmq_setsockopt(sub, ZMQ_RCVHWM, &hwm, sizeof hwm);
    zmq_setsockopt(sub, ZMQ_SUBSCRIBE, "", 0);
    if (zmq_connect(sub, s->endpoint))
        die(s->endpoint, zmq_strerror(zmq_errno()));
    for (uint64_t seq = 0; seq <= EVENTS;) {
        if (zmq_recv(sub, topic, sizeof topic, 0) < 0 ||
            zmq_recv(sub, line, sizeof line, 0) < 0)
            die("SUB", zmq_strerror(zmq_errno()));
        memcpy(&seq, line, sizeof seq);
        if (seq == 0)
            atomic_store(&s->is_ready, true);
        if (seq == 0 || seq > EVENTS)
            continue;
        atomic_fetch_add_explicit(&s->received, 1, memory_order_relaxed);
        atomic_store_explicit(&s->at, seq, memory_order_release);
    }
    /* nobody told it what it missed */
    atomic_store(&s->at, atomic_load(&s->received));
    atomic_store(&s->is_ready, false);
    zmq_close(sub);
    return NULL;
}

static void send_line(void *pub, uint64_t seq)
{
    char line[LINE_BYTES] = {0};
    memcpy(line, &seq, sizeof seq);
    zmq_send(pub, "e1/r1/job/r1-4k7/job.state/", 27, ZMQ_SNDMORE);
    zmq_send(pub, line, sizeof line, 0);
}

/* Until all subscribers are (or are no longer) ready, word that they begin or end. */
static void repeat(void *pub, uint64_t seq, unsigned n, bool is_ready)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    for (unsigned i = 0; i < n;) {
        if (atomic_load(&subs[i].is_ready) == is_ready) {
            i++;
            continue;
        }
        send_line(pub, seq);
        nanosleep(&pause, NULL);
    }
}

static struct result measure_pub(unsigned n, const char *endpoint, uint64_t window)
{
    int hwm = 2 * WINDOW, linger_ms = 0;
    context = zmq_ctx_new();
    void *pub = zmq_socket(context, ZMQ_PUB);
    zmq_setsockopt(pub, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
    if (window < EVENTS)
        zmq_setsockopt(pub, ZMQ_SNDHWM, &hwm, sizeof hwm);
    if (zmq_bind(pub, endpoint))
        die(endpoint, zmq_strerror(zmq_errno()));
    for (unsigned i = 0; i < n; i++) {
        subs[i] = (struct subscriber){.endpoint = endpoint,
                                      .end = window < EVENTS ? 2 * WINDOW : 0};
        if (pthread_create(&subs[i].thread, NULL, run_sub, &subs[i]))
            die("thread", "cannot start");
    }
    repeat(pub, 0, n, true);
    double start = now_s();
    for (uint64_t seq = 1; seq <= EVENTS; seq++) {
        while (seq > slowest(n) + window)
            sched_yield();
        send_line(pub, seq);
    }
    repeat(pub, EVENTS + 1, n, false);
    struct result r = collect(n, start);
    zmq_close(pub);
    zmq_ctx_term(context);
    return r;
}

/* ---- */

static void
print_line(const char *bench, unsigned n, double value, const char *unit, double peer)
{
    printf(
        "{\"bench\":\"%s_%u\",\"value\":%.2f,\"unit\":\"%s\",\"peer\":\"plain PUB, %u "
        "SUB\",\"peer_value\":%.2f,\"ratio\":%.3f}\n",
        bench,
        n,
        value,
        unit,
        n,
        peer,
        peer > 0 ? value / peer : 0);
    fflush(stdout);
}

int main(void)
{
    static const unsigned counts[] = {1, SUBSCRIBERS_MAX};
    char dir[] = "/tmp/orr-bench-XXXXXX", ours[64], theirs[64];
    if (!mkdtemp(dir))
        die(dir, "cannot make a folder");
    snprintf(ours, sizeof ours, "ipc://%s/a", dir);
    snprintf(theirs, sizeof theirs, "ipc://%s/b", dir);
    for (size_t i = 0; i < ORR_ARRAY_SIZE(counts); i++) {
        unsigned n = counts[i];
        struct result rate = measure_orrery(n, ours, WINDOW);
        struct result peer_rate = measure_pub(n, theirs, WINDOW);
        struct result burst = measure_orrery(n, ours, EVENTS);
        struct result peer_burst = measure_pub(n, theirs, EVENTS);
        print_line(
            "events_rate", n, rate.events_per_s, "events/s", peer_rate.events_per_s);
        print_line("events_burst_received",
                   n,
                   100 * burst.received,
                   "%",
                   100 * peer_burst.received);
        print_line("events_burst_lost_silently",
                   n,
                   100 * burst.silent,
                   "%",
                   100 * peer_burst.silent);
    }
    unlink(ours + 6);
    unlink(theirs + 6);
    rmdir(dir);
    return 0;
}
