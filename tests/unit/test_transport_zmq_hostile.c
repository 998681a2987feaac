/* SPDX-License-Identifier: Apache-2.0
 * test_transport_zmq_hostile.c - garbage at the port, peers that break the rules, and
 * peers that do not read: each loses its own link at most, while two hosts go on
 * talking.
 */
#include "fake_system.h"
#include "orr_test.h"
#include "transport_zmq.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zmq.h>

enum {
    LINKS_MAX = 8,
    ROUNDS = 40,
    HEARTBEAT_MS = 5000, /* who says nothing here is not to be given up */
    ABSENT_MS = 500,     /* long after libzmq would have connected anew */
};

/* Stops the transport's thread where it logs. */
struct hold {
    pthread_mutex_t held;
    _Atomic bool is_reached;
};

/* The host under attack, an honest peer of it, and the attacker's context. */
struct fixture {
    struct hold hold;
    struct orr_system system;
    struct orr_zmq *zmq;
    char endpoint[ORR_ENDPOINT_MAX];
    struct orr_system honest;
    struct orr_zmq *honest_zmq;
    void *context;
};

static struct orr_error error;

static void log_line(void *arg,
                     enum orr_log_level level,
                     uint64_t at_ms,
                     const char *part,
                     const char *text)
{
    struct hold *hold = arg;
    (void)level, (void)at_ms, (void)part, (void)text;
    hold->is_reached = true;
    pthread_mutex_lock(&hold->held);
    pthread_mutex_unlock(&hold->held);
}

static struct orr_zmq *
host_new(struct orr_system *system, const char *name, struct hold *hold)
{
    struct orr_zmq *zmq;
    fake_system_init(system, name, 5);
    const struct orr_zmq_config config = {
        .system = system,
        .host = name,
        .incarnation = 5,
        .build = "test",
        .links_max = LINKS_MAX,
        .queue_bytes_max = 1, /* the least that is allowed: one frame */
        .heartbeat_ms = HEARTBEAT_MS,
        .log = hold ? log_line : NULL,
        .log_arg = hold,
    };
    assert_int_equal(orr_zmq_new(&config, &zmq, &error), ORR_OK);
    system->transport = orr_zmq_transport(zmq);
    return zmq;
}

static int setup(void **state)
{
    static struct fixture f;
    pthread_mutex_init(&f.hold.held, NULL);
    f.zmq = host_new(&f.system, "r1", &f.hold);
    assert_int_equal(orr_zmq_listen(f.zmq, "tcp://127.0.0.1:*", f.endpoint, &error),
                     ORR_OK);
    assert_int_equal(orr_zmq_start(f.zmq, &error), ORR_OK);
    f.honest_zmq = host_new(&f.honest, "c1", NULL);
    assert_int_equal(orr_zmq_dial(f.honest_zmq, "r1", f.endpoint, &error), ORR_OK);
    assert_int_equal(orr_zmq_start(f.honest_zmq, &error), ORR_OK);
    assert_true(fake_wait(&f.honest, &f.honest.ups, 1));
    assert_true(fake_wait(&f.system, &f.system.ups, 1));
    f.context = zmq_ctx_new();
    *state = &f;
    return 0;
}

static void honest_traffic_flows(struct fixture *f)
{
    uint64_t pongs = fake_get(&f->honest, &f->honest.pongs);
    assert_int_equal(fake_ping(&f->honest, "r1", ORR_LANE_JOB, 0), ORR_OK);
    assert_true(fake_wait(&f->honest, &f->honest.pongs, pongs + 1));
}

/* Whatever a test did: the honest link never broke. */
static int teardown(void **state)
{
    struct fixture *f = *state;
    honest_traffic_flows(f);
    assert_int_equal(fake_get(&f->honest, &f->honest.downs), 0);
    zmq_ctx_term(f->context);
    orr_zmq_free(f->honest_zmq);
    orr_zmq_free(f->zmq);
    fake_system_fini(&f->honest);
    fake_system_fini(&f->system);
    return 0;
}

/* ---- an attacker that speaks ZeroMQ ---- */

struct frame {
    uint8_t bytes[1024];
    size_t len;
};

static struct frame frame_of(const struct orr_msg_envelope *envelope,
                             const struct orr_msg_desc *desc,
                             const void *msg)
{
    struct frame frame;
    uint8_t *item;
    size_t len;
    assert_int_equal(orr_wire_encode(envelope, desc, msg, &item, &len), ORR_OK);
    assert_true(len < 1000);
    orr_frame_header(frame.bytes);
    orr_item_header(frame.bytes + ORR_FRAME_HEADER, len);
    memcpy(frame.bytes + ORR_FRAME_HEADER + ORR_ITEM_HEADER, item, len);
    frame.len = ORR_FRAME_HEADER + ORR_ITEM_HEADER + len;
    free(item);
    return frame;
}

static struct orr_msg_hello good_hello(const char *name)
{
    return (struct orr_msg_hello){
        .protocol_min = 1,
        .protocol_max = 1,
        .host = orr_str(name),
        .incarnation = 1,
        .role = ORR_ROLE_HOST,
    };
}

static struct frame hello_frame(const struct orr_msg_hello *hello)
{
    const struct orr_msg_envelope envelope = {.msg = ORR_MSG_hello};
    return frame_of(&envelope, orr_msg_desc_hello(), hello);
}

static struct frame ping_frame(void)
{
    const struct orr_msg_envelope envelope = {.msg = ORR_MSG_ping};
    return frame_of(&envelope, orr_msg_desc_ping(), &(struct orr_msg_ping){.nonce = 1});
}

static void *attacker_connect(struct fixture *f)
{
    int wait_ms = FAKE_WAIT_MS;
    int linger = 0;
    int frames = 1;
    void *dealer = zmq_socket(f->context, ZMQ_DEALER);
    assert_non_null(dealer);
    zmq_setsockopt(dealer, ZMQ_RCVHWM, &frames, sizeof(frames));
    zmq_setsockopt(dealer, ZMQ_RCVTIMEO, &wait_ms, sizeof(wait_ms));
    zmq_setsockopt(dealer, ZMQ_LINGER, &linger, sizeof(linger));
    assert_int_equal(zmq_connect(dealer, f->endpoint), 0);
    return dealer;
}

static void send_frame(void *dealer, const struct frame *frame)
{
    assert_int_equal(zmq_send(dealer, frame->bytes, frame->len, 0), frame->len);
}

/* The message id of the next session message, and the code if it is `failed`. */
static uint32_t read_answer(void *dealer, uint32_t *ret_code)
{
    uint8_t bytes[4096];
    size_t at = 0;
    const uint8_t *item;
    size_t len;
    size_t body_at;
    enum orr_err rc;
    struct orr_msg_envelope envelope;
    _Alignas(8) uint8_t room[1024];
    int n = zmq_recv(dealer, bytes, sizeof(bytes), 0);
    assert_true(n > 0);
    assert_true(orr_frame_next(bytes, (size_t)n, &at, &item, &len, &rc));
    assert_int_equal(orr_wire_decode_envelope(item, len, &envelope, &body_at), ORR_OK);
    if (envelope.msg == ORR_MSG_failed) {
        assert_int_equal(orr_msg_decode(orr_msg_desc_failed(),
                                        item + body_at,
                                        len - body_at,
                                        room,
                                        sizeof(room)),
                         ORR_OK);
        *ret_code = ((const struct orr_msg_failed *)(const void *)room)->code;
    }
    return envelope.msg;
}

static void expect_refusal(void *dealer, enum orr_err code)
{
    uint32_t got = 0;
    assert_int_equal(read_answer(dealer, &got), ORR_MSG_failed);
    assert_int_equal(got, code);
}

static void *attacker_linked_as(struct fixture *f, const char *name, uint32_t role)
{
    uint64_t ups = fake_get(&f->system, &f->system.ups);
    uint32_t code;
    void *dealer = attacker_connect(f);
    struct orr_msg_hello hello = good_hello(name);
    hello.role = role;
    const struct frame frame = hello_frame(&hello);
    send_frame(dealer, &frame);
    assert_int_equal(read_answer(dealer, &code), ORR_MSG_hello);
    assert_true(fake_wait(&f->system, &f->system.ups, ups + 1));
    return dealer;
}

static void *attacker_linked(struct fixture *f, const char *name)
{
    return attacker_linked_as(f, name, ORR_ROLE_HOST);
}

/* ---- hello ---- */

static void hello_that_breaks_a_rule_is_refused_with_its_code(void **state)
{
    struct fixture *f = *state;
    static const char long_name[] =
        "a-name-of-more-than-sixty-three-bytes-is-longer-than-any-host-may-have";
    struct orr_msg_hello hello[12];
    for (size_t i = 0; i < ORR_ARRAY_SIZE(hello); i++)
        hello[i] = good_hello("mallory");
    enum orr_err code[ORR_ARRAY_SIZE(hello)];
    size_t n = 0;
    hello[n].protocol_min = hello[n].protocol_max = 2, code[n++] = ORR_EVERSION;
    hello[n].protocol_min = hello[n].protocol_max = 0, code[n++] = ORR_EVERSION;
    hello[n].protocol_min = UINT32_MAX, code[n++] = ORR_EVERSION;
    hello[n].host = ORR_LIT(""), code[n++] = ORR_EINVAL;
    hello[n].host = ORR_LIT("mal lory"), code[n++] = ORR_EINVAL;
    hello[n].host = ORR_LIT("mal\nlory"), code[n++] = ORR_EINVAL;
    hello[n].host = orr_str(long_name), code[n++] = ORR_EINVAL;
    hello[n].incarnation = 0, code[n++] = ORR_EINVAL;
    hello[n].role = ORR_ROLE_LOCAL, code[n++] = ORR_EINVAL;
    hello[n].role = ORR_ROLE_HOST | ORR_ROLE_CLIENT, code[n++] = ORR_EINVAL;
    hello[n].host = ORR_LIT("r1"), code[n++] = ORR_EPERM; /* the host's own name */
    hello[n].host = ORR_LIT("c1"),
    code[n++] = ORR_ESTALE; /* the honest peer has incarnation 5 */
    assert_int_equal(n, ORR_ARRAY_SIZE(hello));
    for (size_t i = 0; i < n; i++) {
        void *dealer = attacker_connect(f);
        const struct frame frame = hello_frame(&hello[i]);
        send_frame(dealer, &frame);
        expect_refusal(dealer, code[i]);
        zmq_close(dealer);
    }
    assert_int_equal(fake_get(&f->system, &f->system.ups), 1);
}

static void client_cannot_take_the_name_of_a_host(void **state)
{
    struct fixture *f = *state;
    void *dealer = attacker_connect(f);
    struct orr_msg_hello hello = good_hello("c1");
    hello.role = ORR_ROLE_CLIENT;
    hello.incarnation = 1000;
    const struct frame frame = hello_frame(&hello);
    send_frame(dealer, &frame);
    expect_refusal(dealer, ORR_EPERM);
    zmq_close(dealer);
}

static void message_before_hello_is_refused_and_not_delivered(void **state)
{
    struct fixture *f = *state;
    void *dealer = attacker_connect(f);
    const struct frame ping = ping_frame();
    for (int i = 0; i < 3; i++) {
        send_frame(dealer, &ping);
        expect_refusal(dealer, ORR_ESTATE);
    }
    assert_int_equal(fake_get(&f->system, &f->system.messages), 0);
    zmq_close(dealer);
}

static void second_hello_closes_the_link(void **state)
{
    struct fixture *f = *state;
    void *dealer = attacker_linked(f, "mallory");
    const struct orr_msg_hello hello = good_hello("mallory");
    const struct frame frame = hello_frame(&hello);
    send_frame(dealer, &frame);
    expect_refusal(dealer, ORR_EPROTO);
    assert_true(fake_wait(&f->system, &f->system.downs, 1));
    zmq_close(dealer);
}

/* Answer the host's dial of `name`: say hello at a ROUTER of our own. */
static void *attacker_dialled(struct fixture *f, const char *name)
{
    char endpoint[ORR_ENDPOINT_MAX];
    size_t len = sizeof(endpoint);
    uint8_t route[16];
    uint8_t hello[512];
    int wait_ms = FAKE_WAIT_MS;
    uint64_t ups = fake_get(&f->system, &f->system.ups);
    const struct orr_msg_hello ours = good_hello(name);
    const struct frame frame = hello_frame(&ours);
    void *router = zmq_socket(f->context, ZMQ_ROUTER);
    zmq_setsockopt(router, ZMQ_RCVTIMEO, &wait_ms, sizeof(wait_ms));
    assert_int_equal(zmq_bind(router, "tcp://127.0.0.1:*"), 0);
    assert_int_equal(zmq_getsockopt(router, ZMQ_LAST_ENDPOINT, endpoint, &len), 0);
    assert_int_equal(orr_zmq_dial(f->zmq, name, endpoint, &error), ORR_OK);
    int route_len = zmq_recv(router, route, sizeof(route), 0);
    assert_true(route_len > 0 && zmq_recv(router, hello, sizeof(hello), 0) > 0);
    assert_true(zmq_send(router, route, (size_t)route_len, ZMQ_SNDMORE) > 0);
    send_frame(router, &frame);
    assert_true(fake_wait(&f->system, &f->system.ups, ups + 1));
    return router;
}

/* Of two links between the same starts of two hosts, the one that the smaller id dialled stays. */
static void second_link_of_hosts_that_dial_each_other_is_settled_by_id(void **state)
{
    struct fixture *f = *state;
    bool has_seen[2] = {false};
    for (int i = 0; !has_seen[false] || !has_seen[true]; i++) {
        char name[16];
        uint32_t code;
        snprintf(name, sizeof(name), "twin%d", i);
        const bool is_ours_kept = orr_hash(ORR_LIT("r1")) < orr_hash(orr_str(name));
        if (has_seen[is_ours_kept])
            continue;
        has_seen[is_ours_kept] = true;
        void *router = attacker_dialled(f, name);
        void *dealer = attacker_connect(f);
        const struct orr_msg_hello hello = good_hello(name);
        const struct frame frame = hello_frame(&hello);
        uint64_t downs = fake_get(&f->system, &f->system.downs);
        send_frame(dealer, &frame);
        if (is_ours_kept)
            expect_refusal(dealer, ORR_EEXIST);
        else
            assert_int_equal(read_answer(dealer, &code), ORR_MSG_hello);
        assert_int_equal(fake_get(&f->system, &f->system.downs), downs + !is_ours_kept);
        zmq_close(dealer);
        zmq_close(router);
        assert_true(fake_wait(&f->system, &f->system.downs, downs + 1 + !is_ours_kept));
    }
}

static void links_beyond_the_limit_are_refused(void **state)
{
    struct fixture *f = *state;
    void *dealers[LINKS_MAX];
    char name[16];
    for (int i = 0; i < LINKS_MAX - 1; i++) { /* the honest one makes it LINKS_MAX */
        snprintf(name, sizeof(name), "mallory%d", i);
        dealers[i] = attacker_linked(f, name);
    }
    dealers[LINKS_MAX - 1] = attacker_connect(f);
    const struct orr_msg_hello hello = good_hello("one-too-many");
    const struct frame frame = hello_frame(&hello);
    send_frame(dealers[LINKS_MAX - 1], &frame);
    expect_refusal(dealers[LINKS_MAX - 1], ORR_ENOSPC);
    for (int i = 0; i < LINKS_MAX; i++)
        zmq_close(dealers[i]);
    assert_true(fake_wait(
        &f->system, &f->system.downs, LINKS_MAX - 1)); /* and the room comes back */
    zmq_close(attacker_linked(f, "late"));
}

/* ---- frames ---- */

static void malformed_frame_closes_the_link_of_its_sender_alone(void **state)
{
    struct fixture *f = *state;
    const struct frame ping = ping_frame();
    struct frame frames[6];
    for (size_t i = 0; i < ORR_ARRAY_SIZE(frames); i++)
        frames[i] = ping;
    frames[0].len = 3;                               /* no header */
    frames[1].len -= 1;                              /* a truncated item */
    frames[2].bytes[0] = 'X';                        /* no frame of ours */
    frames[3].bytes[2] = 9;                          /* of another version */
    frames[4].bytes[ORR_FRAME_HEADER] = 0xff;        /* 4 GiB */
    memset(frames[5].bytes + 8, 0xc1, ping.len - 8); /* an item that is no envelope */
    for (size_t i = 0; i < ORR_ARRAY_SIZE(frames); i++) {
        void *dealer = attacker_linked(f, "mallory");
        send_frame(dealer, &frames[i]);
        expect_refusal(dealer, ORR_EPROTO);
        assert_true(fake_wait(&f->system, &f->system.downs, i + 1));
        /* The link is gone: until the next hello nothing is taken. */
        send_frame(dealer, &ping);
        expect_refusal(dealer, ORR_ESTATE);
        zmq_close(dealer);
        honest_traffic_flows(f);
    }
}

static void message_of_several_parts_closes_the_link(void **state)
{
    struct fixture *f = *state;
    void *dealer = attacker_linked(f, "mallory");
    const struct frame ping = ping_frame();
    assert_true(zmq_send(dealer, "", 0, ZMQ_SNDMORE) >= 0);
    assert_true(zmq_send(dealer, ping.bytes, ping.len, ZMQ_SNDMORE) >= 0);
    send_frame(dealer, &ping);
    expect_refusal(dealer, ORR_EPROTO);
    assert_true(fake_wait(&f->system, &f->system.downs, 1));
    zmq_close(dealer);
}

static void frame_larger_than_the_limit_ends_the_connection(void **state)
{
    struct fixture *f = *state;
    void *dealer = attacker_linked(f, "mallory");
    uint8_t *huge = calloc(1, ORR_FRAME_MAX + 1u);
    assert_non_null(huge);
    orr_frame_header(huge);
    assert_true(zmq_send(dealer, huge, ORR_FRAME_MAX + 1u, 0) > 0);
    assert_true(fake_wait(&f->system, &f->system.downs, 1));
    free(huge);
    zmq_close(dealer);
}

static void peer_with_a_routing_id_of_its_own_still_gets_a_link(void **state)
{
    struct fixture *f = *state;
    char id[200];
    memset(id, 'i', sizeof(id));
    const struct orr_msg_hello hello = good_hello("mallory");
    const struct frame frame = hello_frame(&hello);
    uint32_t code;
    for (size_t len = 1; len <= sizeof(id);
         len += 66) { /* 1: fine; the others are longer than we keep */
        void *dealer = zmq_socket(f->context, ZMQ_DEALER);
        int wait_ms = len == 1 ? FAKE_WAIT_MS : 50;
        zmq_setsockopt(dealer, ZMQ_ROUTING_ID, id, len);
        zmq_setsockopt(dealer, ZMQ_RCVTIMEO, &wait_ms, sizeof(wait_ms));
        assert_int_equal(zmq_connect(dealer, f->endpoint), 0);
        send_frame(dealer, &frame);
        if (len == 1) {
            assert_int_equal(read_answer(dealer, &code), ORR_MSG_hello);
        } else {
            uint8_t byte;
            assert_true(zmq_recv(dealer, &byte, 1, 0) < 0);
        }
        zmq_close(dealer);
    }
}

/* ---- bytes ---- */

static int tcp_connect(struct fixture *f)
{
    struct sockaddr_in addr = {.sin_family = AF_INET};
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    addr.sin_port = htons((uint16_t)atoi(strrchr(f->endpoint, ':') + 1));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

/* What is no ZeroMQ, or stops in the middle of it, never reaches us as a frame; it must not disturb anybody either.
 * The last link comes after all the garbage in the listener's queue: libzmq 4.3.4 aborts (zmtp_engine.cpp:446) when a
 * socket is closed while a peer of an old protocol is between its greeting and its first frame. */
static void garbage_at_the_port_disturbs_nobody(void **state)
{
    struct fixture *f = *state;
    static const uint8_t greeting[64] = {
        0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0, 'N', 'U', 'L', 'L'};
    static const uint8_t old_greeting[] = {0x01, 0x00, 0x03, 0x00, 'O', 'R'};
    static const char http[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    unsigned seed = 1;
    for (int round = 0; round < ROUNDS; round++) {
        uint8_t noise[512];
        int fds[4];
        for (size_t i = 0; i < sizeof(noise); i++)
            noise[i] = (uint8_t)rand_r(&seed);
        for (size_t i = 0; i < ORR_ARRAY_SIZE(fds); i++)
            fds[i] = tcp_connect(f);
        (void)!write(fds[0], noise, sizeof(noise));
        (void)!write(fds[1], http, sizeof(http) - 1);
        (void)!write(fds[2], greeting, (size_t)(round % 64));
        (void)!write(fds[3],
                     round % 2 ? greeting : old_greeting,
                     round % 2 ? sizeof(greeting) : sizeof(old_greeting));
        (void)!write(fds[3], noise, sizeof(noise));
        honest_traffic_flows(f);
        for (size_t i = 0; i < ORR_ARRAY_SIZE(fds); i++)
            close(fds[i]);
    }
    assert_int_equal(fake_get(&f->system, &f->system.ups), 1);
    assert_int_equal(fake_get(&f->system, &f->system.downs), 0);
    zmq_close(attacker_linked(f, "after-the-garbage"));
}

/* ---- a peer that does not read ---- */

static void full_queue_is_busy_for_telemetry_first_and_control_last(void **state)
{
    struct fixture *f = *state;
    /* A client, from which no sign of life is expected; it reads no more from here on. */
    void *dealer = attacker_linked_as(f, "mallory", ORR_ROLE_CLIENT);
    struct orr_transport *t = orr_zmq_transport(f->zmq);
    uint64_t host = orr_hash(ORR_LIT("mallory"));
    uint8_t *data = calloc(1, 1 << 20);
    assert_non_null(data);
    size_t sent[ORR_LANE_MAX_] = {0};
    static const enum orr_lane lanes[] = {
        ORR_LANE_TELEMETRY, ORR_LANE_JOB, ORR_LANE_CONTROL};
    /* Until the sockets in between are full and stay full. */
    for (int full = 0; full < 20;) {
        if (t->ops->send(t, host, ORR_LANE_TELEMETRY, data, 1 << 20) == ORR_OK) {
            full = 0;
        } else {
            full++;
            honest_traffic_flows(f); /* its thread looks at all links meanwhile */
        }
    }
    for (size_t i = 0; i < ORR_ARRAY_SIZE(lanes); i++) {
        while (t->ops->send(t, host, lanes[i], data, 64 << 10) == ORR_OK)
            sent[lanes[i]]++;
        assert_int_equal(t->ops->send(t, host, lanes[i], data, 64 << 10), ORR_EBUSY);
    }
    assert_true(sent[ORR_LANE_JOB] > 0);
    assert_true(sent[ORR_LANE_CONTROL] > 0);
    assert_true(sent[ORR_LANE_CONTROL] + sent[ORR_LANE_JOB] <=
                ORR_FRAME_MAX / (64 << 10));
    free(data);
    zmq_close(dealer);
    assert_true(fake_wait(&f->system, &f->system.downs, 1));
}

/* ---- a thread that is held up ---- */

static void *router_new(struct fixture *f, const char *endpoint, int wait_ms)
{
    int frames = 1, linger = 0;
    void *router = zmq_socket(f->context, ZMQ_ROUTER);
    zmq_setsockopt(router, ZMQ_RCVTIMEO, &wait_ms, sizeof(wait_ms));
    zmq_setsockopt(router, ZMQ_RCVHWM, &frames, sizeof(frames));
    zmq_setsockopt(router, ZMQ_LINGER, &linger, sizeof(linger));
    for (int left_ms = FAKE_WAIT_MS; zmq_bind(router, endpoint) != 0; left_ms -= 5) {
        assert_true(left_ms > 0); /* the one before still closes */
        usleep(5000);
    }
    return router;
}

/* The length of the next frame; 0: none came in time. */
static size_t
router_read(void *router, uint8_t route[16], int *ret_len, uint8_t *bytes, size_t cap)
{
    *ret_len = zmq_recv(router, route, 16, 0);
    int n = *ret_len > 0 ? zmq_recv(router, bytes, cap, 0) : 0;
    return n > 0 ? (size_t)n : 0;
}

static bool is_hello(const uint8_t *bytes, size_t len)
{
    size_t at = 0, item_len, body_at;
    const uint8_t *item;
    enum orr_err rc;
    struct orr_msg_envelope envelope;
    return orr_frame_next(bytes, len, &at, &item, &item_len, &rc) &&
           orr_wire_decode_envelope(item, item_len, &envelope, &body_at) == ORR_OK &&
           envelope.msg == ORR_MSG_hello;
}

/* Until its sockets are full and stay full while it works for somebody else. */
static void fill_up(struct fixture *f, const char *name)
{
    struct orr_transport *t = orr_zmq_transport(f->zmq);
    uint8_t *data = calloc(1, 1 << 20);
    assert_non_null(data);
    for (int full = 0; full < 20;) {
        if (t->ops->send(t, orr_hash(orr_str(name)), ORR_LANE_JOB, data, 1 << 20) ==
            ORR_OK) {
            full = 0;
        } else {
            full++;
            honest_traffic_flows(f);
        }
    }
    free(data);
}

/* A host that is dialled dies with much under way to it, and is back before the dialling thread has noticed: what the old socket
 * holds does not go to the new one, which hears hello first. */
static void dialled_host_that_is_back_at_once_hears_hello_first(void **state)
{
    struct fixture *f = *state;
    static uint8_t bytes[1024];
    char endpoint[ORR_ENDPOINT_MAX];
    size_t len = sizeof(endpoint), got;
    uint8_t route[16];
    int route_len;
    const struct orr_msg_hello ours = good_hello("victim");
    const struct frame hello = hello_frame(&ours);
    void *router = router_new(f, "tcp://127.0.0.1:*", FAKE_WAIT_MS);
    assert_int_equal(zmq_getsockopt(router, ZMQ_LAST_ENDPOINT, endpoint, &len), 0);
    assert_int_equal(orr_zmq_dial(f->zmq, "victim", endpoint, &error), ORR_OK);
    got = router_read(router, route, &route_len, bytes, sizeof(bytes));
    assert_true(is_hello(bytes, got));
    assert_true(zmq_send(router, route, (size_t)route_len, ZMQ_SNDMORE) > 0);
    send_frame(router, &hello);
    assert_true(fake_wait(&f->system, &f->system.ups, 2));
    fill_up(f, "victim");
    pthread_mutex_lock(&f->hold.held);
    f->hold.is_reached = false;
    void *dealer = attacker_connect(f); /* its link is news, which is logged */
    const struct orr_msg_hello other = good_hello("other");
    const struct frame knock = hello_frame(&other);
    send_frame(dealer, &knock);
    for (int left_ms = FAKE_WAIT_MS; !f->hold.is_reached; left_ms -= 5) {
        assert_true(left_ms > 0);
        usleep(5000);
    }
    zmq_close(router);
    router = router_new(f, endpoint, ABSENT_MS);
    got = router_read(router, route, &route_len, bytes, sizeof(bytes));
    pthread_mutex_unlock(&f->hold.held);
    zmq_setsockopt(router, ZMQ_RCVTIMEO, &(int){FAKE_WAIT_MS}, sizeof(int));
    if (got == 0)
        got = router_read(router, route, &route_len, bytes, sizeof(bytes));
    assert_true(is_hello(bytes, got));
    zmq_close(router);
    zmq_close(dealer);
}

#define HOSTILE_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOSTILE_TEST(hello_that_breaks_a_rule_is_refused_with_its_code),
        HOSTILE_TEST(client_cannot_take_the_name_of_a_host),
        HOSTILE_TEST(message_before_hello_is_refused_and_not_delivered),
        HOSTILE_TEST(second_hello_closes_the_link),
        HOSTILE_TEST(second_link_of_hosts_that_dial_each_other_is_settled_by_id),
        HOSTILE_TEST(links_beyond_the_limit_are_refused),
        HOSTILE_TEST(malformed_frame_closes_the_link_of_its_sender_alone),
        HOSTILE_TEST(message_of_several_parts_closes_the_link),
        HOSTILE_TEST(frame_larger_than_the_limit_ends_the_connection),
        HOSTILE_TEST(peer_with_a_routing_id_of_its_own_still_gets_a_link),
        HOSTILE_TEST(garbage_at_the_port_disturbs_nobody),
        HOSTILE_TEST(full_queue_is_busy_for_telemetry_first_and_control_last),
        HOSTILE_TEST(dialled_host_that_is_back_at_once_hears_hello_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
