/* SPDX-License-Identifier: Apache-2.0
 * test_client.c - a client against a real transport with a small kernel behind it, and
 * against peers that misbehave.
 */
#include "fake_system.h"
#include "orr_test.h"
#include "orrery/client.h"
#include "transport_zmq.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

enum { TIMEOUT_MS = 10000 };

struct fixture {
    struct orr_system system;
    struct orr_zmq *zmq;
    char endpoint[ORR_ENDPOINT_MAX];
    struct orr_client *client;
};

static struct orr_error error;

static void host_start(struct fixture *f, const char *endpoint)
{
    fake_system_init(&f->system, "r1", 1);
    const struct orr_zmq_config config = {
        .system = &f->system, .host = "r1", .incarnation = 1, .build = "test"};
    assert_int_equal(orr_zmq_new(&config, &f->zmq, &error), ORR_OK);
    f->system.transport = orr_zmq_transport(f->zmq);
    assert_int_equal(orr_zmq_listen(f->zmq, endpoint, f->endpoint, &error), ORR_OK);
    assert_int_equal(orr_zmq_start(f->zmq, &error), ORR_OK);
}

static void host_stop(struct fixture *f)
{
    orr_zmq_free(f->zmq);
    f->zmq = NULL;
    fake_system_fini(&f->system);
}

static int setup(void **state)
{
    static struct fixture f;
    host_start(&f, "tcp://127.0.0.1:*");
    if (orr_client_new(f.endpoint, TIMEOUT_MS, &f.client, &error) != ORR_OK)
        fail_msg("%s", error.text);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    orr_client_free(f->client);
    if (f->zmq)
        host_stop(f);
    return 0;
}

static void client_asks_and_gets_its_answer(void **state)
{
    struct fixture *f = *state;
    struct orr_answer answer;
    const struct orr_msg_ping ping = {.nonce = 17};
    assert_string_equal(orr_client_host(f->client), "r1");
    assert_int_equal(orr_client_ask(f->client,
                                    "/system",
                                    orr_msg_desc_ping(),
                                    &ping,
                                    TIMEOUT_MS,
                                    &answer,
                                    &error),
                     ORR_OK);
    assert_int_equal(answer.desc->id, ORR_MSG_pong);
    assert_int_equal(((const struct orr_msg_pong *)answer.msg)->nonce, 17);
    assert_int_equal(fake_get(&f->system, &f->system.role), ORR_ROLE_CLIENT);
}

static void client_asks_nobody_and_gets_the_error_with_its_text(void **state)
{
    struct fixture *f = *state;
    struct orr_answer answer;
    const struct orr_msg_ping ping = {.nonce = 17};
    assert_int_equal(orr_client_ask(f->client,
                                    "/nobody",
                                    orr_msg_desc_ping(),
                                    &ping,
                                    TIMEOUT_MS,
                                    &answer,
                                    &error),
                     ORR_ENOENT);
    assert_int_equal(error.code, ORR_ENOENT);
    assert_non_null(strstr(error.text, "no actor has that path"));
}

static void client_pipelines_and_asks_in_between(void **state)
{
    struct fixture *f = *state;
    enum { N = 3000 };
    struct orr_answer answer;
    uint64_t corr[N];
    bool is_answered[N] = {false};
    for (uint64_t i = 0; i < N; i++) {
        const struct orr_msg_ping ping = {.nonce = i};
        assert_int_equal(orr_client_send(f->client,
                                         "/system",
                                         orr_msg_desc_ping(),
                                         &ping,
                                         TIMEOUT_MS,
                                         &corr[i],
                                         &error),
                         ORR_OK);
        if (i % 1000 == 999) {
            assert_int_equal(orr_client_ask(f->client,
                                            "/system",
                                            orr_msg_desc_ping(),
                                            &ping,
                                            TIMEOUT_MS,
                                            &answer,
                                            &error),
                             ORR_OK);
            assert_int_equal(((const struct orr_msg_pong *)answer.msg)->nonce, i);
        }
    }
    for (int i = 0; i < N; i++) {
        assert_int_equal(orr_client_receive(f->client, TIMEOUT_MS, &answer, &error),
                         ORR_OK);
        uint64_t nonce = ((const struct orr_msg_pong *)answer.msg)->nonce;
        assert_true(nonce < N && !is_answered[nonce] && corr[nonce] == answer.corr);
        is_answered[nonce] = true;
    }
    assert_int_equal(orr_client_receive(f->client, 10, &answer, &error), ORR_ETIMEOUT);
}

static void answer_to_an_ask_that_was_given_up_is_dropped(void **state)
{
    struct fixture *f = *state;
    struct orr_answer answer;
    const struct orr_msg_ping ping = {.nonce = 5};
    pthread_mutex_lock(&f->system.lock); /* the host cannot answer now */
    enum orr_err rc = orr_client_ask(
        f->client, "/system", orr_msg_desc_ping(), &ping, 50, &answer, &error);
    pthread_mutex_unlock(&f->system.lock);
    assert_int_equal(rc, ORR_ETIMEOUT);
    assert_int_equal(orr_client_ask(f->client,
                                    "/system",
                                    orr_msg_desc_ping(),
                                    &(struct orr_msg_ping){.nonce = 6},
                                    TIMEOUT_MS,
                                    &answer,
                                    &error),
                     ORR_OK);
    assert_int_equal(((const struct orr_msg_pong *)answer.msg)->nonce, 6);
    assert_int_equal(orr_client_receive(f->client, 50, &answer, &error), ORR_ETIMEOUT);
}

static void client_whose_host_goes_away_says_so_at_once(void **state)
{
    struct fixture *f = *state;
    struct orr_answer answer;
    const struct orr_msg_ping ping = {.nonce = 1};
    host_stop(f);
    assert_int_equal(orr_client_receive(f->client, TIMEOUT_MS, &answer, &error),
                     ORR_EUNREACH);
    assert_non_null(strstr(error.text, "host r1 went away"));
    assert_int_equal(orr_client_ask(f->client,
                                    "/system",
                                    orr_msg_desc_ping(),
                                    &ping,
                                    TIMEOUT_MS,
                                    &answer,
                                    &error),
                     ORR_EUNREACH);
}

static void client_that_leaves_is_forgotten(void **state)
{
    struct fixture *f = *state;
    assert_true(fake_wait(&f->system, &f->system.ups, 1));
    orr_client_free(f->client);
    f->client = NULL;
    assert_true(fake_wait(&f->system, &f->system.downs, 1));
}

/* Well before the transport's sweep would find out. */
static void client_over_ipc_that_leaves_is_forgotten_at_once(void **state)
{
    (void)state;
    struct fixture f;
    struct timespec start;
    struct timespec end;
    char dir[] = "/tmp/orr-client-XXXXXX";
    char endpoint[64];
    assert_non_null(mkdtemp(dir));
    snprintf(endpoint, sizeof(endpoint), "ipc://%s/s", dir);
    host_start(&f, endpoint);
    for (uint64_t i = 1; i <= 5; i++) { /* file descriptors are used again */
        assert_int_equal(orr_client_new(f.endpoint, TIMEOUT_MS, &f.client, &error),
                         ORR_OK);
        clock_gettime(CLOCK_MONOTONIC, &start);
        orr_client_free(f.client);
        assert_true(fake_wait(&f.system, &f.system.downs, i));
        clock_gettime(CLOCK_MONOTONIC, &end);
        assert_true(end.tv_sec - start.tv_sec < 15);
    }
    host_stop(&f);
    unlink(endpoint + strlen("ipc://"));
    rmdir(dir);
}

static void request_too_large_is_refused_before_it_is_sent(void **state)
{
    struct fixture *f = *state;
    static const uint8_t big[ORR_BYTES_MAX + 1];
    const struct orr_msg_job_submit submit = {.spec = {big, sizeof(big)}};
    struct orr_answer answer;
    assert_int_equal(orr_client_ask(f->client,
                                    "/r1",
                                    orr_msg_desc_job_submit(),
                                    &submit,
                                    TIMEOUT_MS,
                                    &answer,
                                    &error),
                     ORR_ENOSPC);
    assert_non_null(strstr(error.text, "job_submit"));
}

static void connect_where_nobody_listens_says_what_to_start(void **state)
{
    (void)state;
    struct orr_client *client = NULL;
    const char *const endpoints[] = {"ipc:///tmp/orr-no-such-folder/r1.sock",
                                     "tcp://127.0.0.1:1"};
    for (size_t i = 0; i < ORR_ARRAY_SIZE(endpoints); i++) {
        assert_int_equal(orr_client_new(endpoints[i], TIMEOUT_MS, &client, &error),
                         ORR_EUNREACH);
        assert_non_null(strstr(error.text, endpoints[i]));
        assert_non_null(strstr(error.text, "`orrery dev up`"));
    }
    assert_null(client);
}

static void connect_to_a_malformed_endpoint_is_refused(void **state)
{
    (void)state;
    struct orr_client *client = NULL;
    const char *const endpoints[] = {"", "r1", "tcp://", "tcp://127.0.0.1:x", "ipc://"};
    for (size_t i = 0; i < ORR_ARRAY_SIZE(endpoints); i++)
        assert_int_equal(orr_client_new(endpoints[i], TIMEOUT_MS, &client, &error),
                         ORR_EINVAL);
    assert_null(client);
}

/* A ROUTER that answers the first frame with `reply`, from its own thread. */
struct impostor {
    void *router;
    const uint8_t *reply;
    size_t len;
};

static void *impostor_run(void *arg)
{
    const struct impostor *i = arg;
    uint8_t route[64];
    uint8_t hello[512];
    int route_len = zmq_recv(i->router, route, sizeof(route), 0);
    if (route_len > 0 && zmq_recv(i->router, hello, sizeof(hello), 0) >= 0) {
        zmq_send(i->router, route, (size_t)route_len, ZMQ_SNDMORE);
        zmq_send(i->router, i->reply, i->len, 0);
    }
    return NULL;
}

static enum orr_err
connect_to_impostor(const uint8_t *reply, size_t len, uint64_t timeout_ms)
{
    char endpoint[ORR_ENDPOINT_MAX];
    size_t endpoint_len = sizeof(endpoint);
    struct orr_client *client = NULL;
    pthread_t thread;
    void *context = zmq_ctx_new();
    struct impostor i = {zmq_socket(context, ZMQ_ROUTER), reply, len};
    int wait_ms = TIMEOUT_MS;
    assert_int_equal(zmq_setsockopt(i.router, ZMQ_RCVTIMEO, &wait_ms, sizeof(wait_ms)),
                     0);
    assert_int_equal(zmq_bind(i.router, "tcp://127.0.0.1:*"), 0);
    assert_int_equal(
        zmq_getsockopt(i.router, ZMQ_LAST_ENDPOINT, endpoint, &endpoint_len), 0);
    if (reply)
        assert_int_equal(pthread_create(&thread, NULL, impostor_run, &i), 0);
    enum orr_err rc = orr_client_new(endpoint, timeout_ms, &client, &error);
    if (reply)
        pthread_join(thread, NULL);
    orr_client_free(client);
    zmq_close(i.router);
    zmq_ctx_term(context);
    return rc;
}

static void peer_that_never_says_hello_runs_into_the_deadline(void **state)
{
    (void)state;
    assert_int_equal(connect_to_impostor(NULL, 0, 100), ORR_EUNREACH);
    assert_non_null(strstr(error.text, "nobody answers"));
}

static size_t
frame_of(uint8_t frame[1024], const struct orr_msg_desc *desc, const void *msg)
{
    const struct orr_msg_envelope envelope = {.msg = desc->id};
    uint8_t *item;
    size_t len;
    assert_int_equal(orr_wire_encode(&envelope, desc, msg, &item, &len), ORR_OK);
    assert_true(len < 1000);
    orr_frame_header(frame);
    orr_item_header(frame + ORR_FRAME_HEADER, len);
    memcpy(frame + ORR_FRAME_HEADER + ORR_ITEM_HEADER, item, len);
    free(item);
    return ORR_FRAME_HEADER + ORR_ITEM_HEADER + len;
}

static void peer_that_answers_garbage_is_a_protocol_error(void **state)
{
    (void)state;
    static const uint8_t junk[] = "220 mail.example.org ESMTP";
    uint8_t frame[1024];
    size_t len =
        frame_of(frame, orr_msg_desc_ping(), &(struct orr_msg_ping){.nonce = 1});
    assert_int_equal(connect_to_impostor(junk, sizeof(junk), TIMEOUT_MS), ORR_EPROTO);
    assert_int_equal(connect_to_impostor(frame, len, TIMEOUT_MS), ORR_EPROTO);
    assert_int_equal(connect_to_impostor(frame, len - 1, TIMEOUT_MS), ORR_EPROTO);
}

static void peer_of_another_version_is_told_apart(void **state)
{
    (void)state;
    uint8_t frame[1024];
    const struct orr_msg_failed failed = {.code = ORR_EVERSION,
                                          .text = ORR_LIT("upgrade the client")};
    size_t len = frame_of(frame, orr_msg_desc_failed(), &failed);
    assert_int_equal(connect_to_impostor(frame, len, TIMEOUT_MS), ORR_EVERSION);
    assert_string_equal(error.text, "upgrade the client");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            client_asks_and_gets_its_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(
            client_asks_nobody_and_gets_the_error_with_its_text, setup, teardown),
        cmocka_unit_test_setup_teardown(
            client_pipelines_and_asks_in_between, setup, teardown),
        cmocka_unit_test_setup_teardown(
            answer_to_an_ask_that_was_given_up_is_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(
            client_whose_host_goes_away_says_so_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(
            client_that_leaves_is_forgotten, setup, teardown),
        cmocka_unit_test_setup_teardown(
            request_too_large_is_refused_before_it_is_sent, setup, teardown),
        cmocka_unit_test(client_over_ipc_that_leaves_is_forgotten_at_once),
        cmocka_unit_test(connect_where_nobody_listens_says_what_to_start),
        cmocka_unit_test(connect_to_a_malformed_endpoint_is_refused),
        cmocka_unit_test(peer_that_never_says_hello_runs_into_the_deadline),
        cmocka_unit_test(peer_that_answers_garbage_is_a_protocol_error),
        cmocka_unit_test(peer_of_another_version_is_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
