/* SPDX-License-Identifier: Apache-2.0
 * bench_remote.c - the transport between two processes over tcp loopback, against raw
 * libzmq doing the same: 32-byte messages a second, and the round trip of one.
 *
 * usage: bench_remote [messages] [trips]; prints two JSON lines.  Each number is the
 * median of RUNS runs; runs of ours and of the peer take turns, so that a disturbance
 * hits both.  In every run this process sends, and a forked one receives, counts, and
 * answers the last message (messages) or every one (trips).  Sending and receiving are
 * all that is measured: what a message means to the kernel is encoded and decoded
 * elsewhere, on both sides of the comparison.
 */
#include "transport_zmq.h"
#include "wire.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

enum { RUNS = 5, PAYLOAD = 32, RAW_HWM = 100000, DEADLINE_S = 60 };

/* The kernel as the transport sees it: counts items, answers one in `answer_each`. */
struct orr_system {
    struct orr_transport *transport;
    uint64_t answer_each; /* 0: none */
    uint64_t n_received;
    uint64_t n_wanted;
    uint64_t trip_ns; /* of the sender of trips: when the last one left */
    double *trips;    /* NULL: not a sender of trips */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is_up;
    bool is_done;
};

static const uint8_t payload[PAYLOAD];

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "bench_remote: %s: %s\n", what, zmq_strerror(errno));
    exit(1);
}

static void set_flag(struct orr_system *system, bool *flag)
{
    pthread_mutex_lock(&system->lock);
    *flag = true;
    pthread_cond_signal(&system->changed);
    pthread_mutex_unlock(&system->lock);
}

static void wait_flag(struct orr_system *system, const bool *flag)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += DEADLINE_S;
    pthread_mutex_lock(&system->lock);
    while (!*flag) {
        if (pthread_cond_timedwait(&system->changed, &system->lock, &until) ==
            ETIMEDOUT)
            die("no progress");
    }
    pthread_mutex_unlock(&system->lock);
}

static void send_payload(struct orr_system *system, uint64_t host)
{
    struct orr_transport *t = system->transport;
    enum orr_err rc;
    while ((rc = t->ops->send(t, host, ORR_LANE_JOB, payload, PAYLOAD)) == ORR_EBUSY)
        usleep(20);
    if (rc != ORR_OK)
        die(orr_err_text(rc));
}

enum orr_err orr_system_receive(struct orr_system *system,
                                uint64_t peer_host,
                                unsigned role,
                                const uint8_t *data,
                                size_t len)
{
    (void)role, (void)data;
    if (len != PAYLOAD)
        return ORR_EPROTO;
    system->n_received++;
    if (system->trips) {
        uint64_t now = now_ns();
        system->trips[system->n_received - 1] = (double)(now - system->trip_ns);
        system->trip_ns = now;
        if (system->n_received < system->n_wanted)
            send_payload(system, peer_host);
    }
    if (system->answer_each && system->n_received % system->answer_each == 0)
        send_payload(system, peer_host);
    if (system->n_received == system->n_wanted)
        set_flag(system, &system->is_done);
    return ORR_OK;
}

void orr_system_peer_up(struct orr_system *system,
                        uint64_t peer_host,
                        uint32_t incarnation)
{
    (void)peer_host, (void)incarnation;
    set_flag(system, &system->is_up);
}

void orr_system_peer_down(struct orr_system *system, uint64_t peer_host)
{
    (void)system, (void)peer_host;
}

/* ---- ours ---- */

static struct orr_zmq *host_new(struct orr_system *system, const char *name)
{
    struct orr_zmq *zmq;
    struct orr_error err;
    pthread_mutex_init(&system->lock, NULL);
    pthread_cond_init(&system->changed, NULL);
    const struct orr_zmq_config config = {
        .system = system, .host = name, .incarnation = 1, .build = "bench"};
    if (orr_zmq_new(&config, &zmq, &err) != ORR_OK)
        die(err.text);
    system->transport = orr_zmq_transport(zmq);
    return zmq;
}

static void ours_receiver(int endpoint_fd, uint64_t answer_each)
{
    struct orr_system system = {.answer_each = answer_each};
    struct orr_error err;
    char endpoint[ORR_ENDPOINT_MAX] = "";
    struct orr_zmq *zmq = host_new(&system, "receiver");
    if (orr_zmq_listen(zmq, "tcp://127.0.0.1:*", endpoint, &err) != ORR_OK ||
        orr_zmq_start(zmq, &err) != ORR_OK)
        die(err.text);
    if (write(endpoint_fd, endpoint, sizeof(endpoint)) != sizeof(endpoint))
        die("pipe");
    pause();
}

static double ours_messages(const char *endpoint, uint64_t n)
{
    struct orr_system system = {.n_wanted = 1};
    struct orr_error err;
    struct orr_zmq *zmq = host_new(&system, "sender");
    if (orr_zmq_dial(zmq, "receiver", endpoint, &err) != ORR_OK ||
        orr_zmq_start(zmq, &err) != ORR_OK)
        die(err.text);
    wait_flag(&system, &system.is_up);
    uint64_t host = orr_hash(ORR_LIT("receiver"));
    uint64_t start = now_ns();
    for (uint64_t i = 0; i < n; i++)
        send_payload(&system, host);
    wait_flag(&system, &system.is_done);
    double per_s = (double)n * 1e9 / (double)(now_ns() - start);
    orr_zmq_free(zmq);
    return per_s;
}

static void ours_trips(const char *endpoint, uint64_t n, double *trips)
{
    struct orr_system system = {.n_wanted = n, .trips = trips};
    struct orr_error err;
    struct orr_zmq *zmq = host_new(&system, "sender");
    if (orr_zmq_dial(zmq, "receiver", endpoint, &err) != ORR_OK ||
        orr_zmq_start(zmq, &err) != ORR_OK)
        die(err.text);
    wait_flag(&system, &system.is_up);
    system.trip_ns = now_ns();
    send_payload(&system, orr_hash(ORR_LIT("receiver")));
    wait_flag(&system, &system.is_done);
    orr_zmq_free(zmq);
}

/* ---- raw libzmq ---- */

static void *raw_socket(void *context, int type)
{
    int hwm = RAW_HWM;
    int linger = 0;
    int wait_ms = DEADLINE_S * 1000;
    void *socket = zmq_socket(context, type);
    if (!socket)
        die("zmq_socket");
    zmq_setsockopt(socket, ZMQ_SNDHWM, &hwm, sizeof(hwm));
    zmq_setsockopt(socket, ZMQ_RCVHWM, &hwm, sizeof(hwm));
    zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof(linger));
    zmq_setsockopt(socket, ZMQ_RCVTIMEO, &wait_ms, sizeof(wait_ms));
    return socket;
}

static void raw_receiver(int endpoint_fd, uint64_t answer_each)
{
    char endpoint[ORR_ENDPOINT_MAX] = "";
    size_t len = sizeof(endpoint);
    uint8_t route[16];
    uint8_t data[PAYLOAD];
    void *router = raw_socket(zmq_ctx_new(), ZMQ_ROUTER);
    if (zmq_bind(router, "tcp://127.0.0.1:*") != 0 ||
        zmq_getsockopt(router, ZMQ_LAST_ENDPOINT, endpoint, &len) != 0)
        die("zmq_bind");
    if (write(endpoint_fd, endpoint, sizeof(endpoint)) != sizeof(endpoint))
        die("pipe");
    for (uint64_t n = 1;; n++) {
        int route_len = zmq_recv(router, route, sizeof(route), 0);
        if (route_len < 0 || zmq_recv(router, data, sizeof(data), 0) != PAYLOAD)
            die("zmq_recv");
        if (n % answer_each)
            continue;
        zmq_send(router, route, (size_t)route_len, ZMQ_SNDMORE);
        zmq_send(router, data, sizeof(data), 0);
    }
}

static void *raw_connect(const char *endpoint, void **ret_context)
{
    *ret_context = zmq_ctx_new();
    void *dealer = raw_socket(*ret_context, ZMQ_DEALER);
    if (zmq_connect(dealer, endpoint) != 0)
        die("zmq_connect");
    return dealer;
}

static void raw_trip(void *dealer)
{
    uint8_t data[PAYLOAD];
    if (zmq_send(dealer, payload, PAYLOAD, 0) != PAYLOAD ||
        zmq_recv(dealer, data, sizeof(data), 0) != PAYLOAD)
        die("round trip");
}

static double raw_messages(const char *endpoint, uint64_t n)
{
    void *context;
    void *dealer = raw_connect(endpoint, &context);
    uint8_t data[PAYLOAD];
    uint64_t start = now_ns();
    for (uint64_t i = 0; i < n; i++) {
        if (zmq_send(dealer, payload, PAYLOAD, 0) != PAYLOAD)
            die("zmq_send");
    }
    if (zmq_recv(dealer, data, sizeof(data), 0) != PAYLOAD)
        die("zmq_recv");
    double per_s = (double)n * 1e9 / (double)(now_ns() - start);
    zmq_close(dealer);
    zmq_ctx_term(context);
    return per_s;
}

static void raw_trips(const char *endpoint, uint64_t n, double *trips)
{
    void *context;
    void *dealer = raw_connect(endpoint, &context);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t start = now_ns();
        raw_trip(dealer);
        trips[i] = (double)(now_ns() - start);
    }
    zmq_close(dealer);
    zmq_ctx_term(context);
}

/* ---- runs ---- */

static pid_t fork_receiver(void (*receiver)(int, uint64_t),
                           uint64_t answer_each,
                           char endpoint[ORR_ENDPOINT_MAX])
{
    int fds[2];
    if (pipe(fds) != 0)
        die("pipe");
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(fds[0]);
        receiver(fds[1], answer_each);
        _exit(0);
    }
    close(fds[1]);
    if (read(fds[0], endpoint, ORR_ENDPOINT_MAX) != ORR_ENDPOINT_MAX)
        die("the receiver did not start");
    close(fds[0]);
    return pid;
}

static void end_receiver(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t n)
{
    qsort(values, n, sizeof(*values), by_value);
    return values[n / 2];
}

static double run_messages(void (*receiver)(int, uint64_t),
                           double (*sender)(const char *, uint64_t),
                           uint64_t n)
{
    char endpoint[ORR_ENDPOINT_MAX];
    pid_t pid = fork_receiver(receiver, n, endpoint);
    double per_s = sender(endpoint, n);
    end_receiver(pid);
    return per_s;
}

/* The median trip, without the first half: connecting and warming up. */
static double run_trips(void (*receiver)(int, uint64_t),
                        void (*sender)(const char *, uint64_t, double *),
                        uint64_t n)
{
    char endpoint[ORR_ENDPOINT_MAX];
    double *trips = calloc(n, sizeof(*trips));
    if (!trips)
        die("calloc");
    pid_t pid = fork_receiver(receiver, 1, endpoint);
    sender(endpoint, n, trips);
    end_receiver(pid);
    double ns = median(trips + n / 2, n - n / 2);
    free(trips);
    return ns / 1000;
}

static void print(const char *bench, double value, const char *unit, double peer_value)
{
    printf("{\"bench\":\"%s\",\"value\":%.6g,\"unit\":\"%s\",\"peer\":\"libzmq "
           "ROUTER/DEALER\","
           "\"peer_value\":%.6g,\"ratio\":%.3g}\n",
           bench,
           value,
           unit,
           peer_value,
           value / peer_value);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    uint64_t n_messages = argc > 1 ? strtoull(argv[1], NULL, 10) : 2000000;
    uint64_t n_trips = argc > 2 ? strtoull(argv[2], NULL, 10) : 10000;
    double ours[RUNS];
    double raw[RUNS];
    if (n_messages == 0 || n_trips < 2) {
        fprintf(stderr, "usage: bench_remote [messages] [trips]\n");
        return 2;
    }
    for (int i = 0; i < RUNS; i++) {
        raw[i] = run_messages(raw_receiver, raw_messages, n_messages);
        ours[i] = run_messages(ours_receiver, ours_messages, n_messages);
    }
    print("remote_messages_32B", median(ours, RUNS), "msg/s", median(raw, RUNS));
    for (int i = 0; i < RUNS; i++) {
        raw[i] = run_trips(raw_receiver, raw_trips, n_trips);
        ours[i] = run_trips(ours_receiver, ours_trips, n_trips);
    }
    print("remote_round_trip_32B", median(ours, RUNS), "us", median(raw, RUNS));
    return 0;
}
