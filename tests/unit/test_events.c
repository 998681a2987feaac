/* SPDX-License-Identifier: Apache-2.0
 * test_events.c - the event stream: contiguous, bounded, replayed without a hole, and
 * the same lines on the wire.
 */
#include "events.h"
#include "orr_test.h"

#include <inttypes.h>
#include <unistd.h>
#include <zmq.h>

static char endpoint[128];

static int make_endpoint(void **state)
{
    (void)state;
    char dir[] = "/tmp/orr-events-XXXXXX";
    assert_non_null(mkdtemp(dir));
    snprintf(endpoint, sizeof endpoint, "ipc://%s/e.sock", dir);
    return 0;
}

static int remove_endpoint(void **state)
{
    (void)state;
    unlink(endpoint + 6);
    *strrchr(endpoint, '/') = '\0';
    return rmdir(endpoint + 6);
}

static struct orr_events *new_stream(uint32_t kept_max, size_t bytes_max)
{
    struct orr_events *e;
    struct orr_error err;
    assert_int_equal(orr_events_new(endpoint, kept_max, bytes_max, &e, &err), ORR_OK);
    return e;
}

static void publish(struct orr_events *e, uint64_t epoch, uint64_t seq)
{
    struct orr_msg_event m = {.epoch = epoch,
                              .seq = seq,
                              .id = ORR_LIT("1-1"),
                              .source = ORR_LIT("/r1"),
                              .type = ORR_LIT("job.state"),
                              .subject = ORR_LIT("job/r1-1"),
                              .time_unix_ms = 1700000000123u,
                              .from = ORR_LIT("queued"),
                              .to = ORR_LIT("placing")};
    orr_events_publish(e, &m);
}

static unsigned count_lines(const char *buf, size_t len)
{
    unsigned n = 0;
    for (size_t i = 0; i < len; i++)
        n += buf[i] == '\n';
    return n;
}

static void replay_returns_whole_lines_after_seq(void **state)
{
    (void)state;
    static char buf[1 << 16];
    struct orr_events *e = new_stream(100, 1 << 20);
    for (uint64_t i = 1; i <= 50; i++)
        publish(e, 3, i);
    struct orr_events_page p = orr_events_replay(e, 40, 5, buf, sizeof buf);
    assert_int_equal(p.epoch, 3);
    assert_int_equal(p.first_seq, 1);
    assert_int_equal(p.last_seq, 50);
    assert_int_equal(count_lines(buf, p.len), 5);
    assert_non_null(strstr(buf, "\"seq\":41,"));
    assert_non_null(strstr(buf, "\"time\":\"2023-11-14T22:13:20.123Z\""));
    p = orr_events_replay(e, 50, 100, buf, sizeof buf);
    assert_int_equal(p.len, 0);
    p = orr_events_replay(
        e, 0, 100, buf, 300); /* room for one line only: no half lines */
    assert_int_equal(count_lines(buf, p.len), 1);
    assert_int_equal(buf[p.len - 1], '\n');
    orr_events_free(e);
}

static void ring_is_bounded_by_count_and_bytes(void **state)
{
    (void)state;
    static char buf[1 << 16];
    struct orr_events *e = new_stream(10, 1 << 20);
    for (uint64_t i = 1; i <= 25; i++)
        publish(e, 1, i);
    assert_int_equal(orr_events_replay(e, 0, 100, buf, sizeof buf).first_seq, 16);
    orr_events_free(e);
    e = new_stream(1000, 2000);
    for (uint64_t i = 1; i <= 25; i++)
        publish(e, 1, i);
    struct orr_events_page p = orr_events_replay(e, 0, 100, buf, sizeof buf);
    assert_true(p.len <= 2000 && p.len > 1000);
    assert_int_equal(p.last_seq, 25);
    orr_events_free(e);
}

static void new_epoch_starts_over(void **state)
{
    (void)state;
    static char buf[1 << 16];
    struct orr_events *e = new_stream(10, 1 << 20);
    publish(e, 1, 1);
    publish(e, 1, 2);
    publish(e, 2, 1);
    struct orr_events_page p = orr_events_replay(e, 0, 100, buf, sizeof buf);
    assert_int_equal(p.epoch, 2);
    assert_int_equal(p.first_seq, 1);
    assert_int_equal(count_lines(buf, p.len), 1);
    orr_events_free(e);
}

static void subscriber_sees_topic_and_the_line_that_is_kept(void **state)
{
    (void)state;
    char topic[256], line[2048], kept[2048];
    int deadline_ms = 5000;
    struct orr_events *e = new_stream(10, 1 << 20);
    void *ctx = zmq_ctx_new(), *sub = zmq_socket(ctx, ZMQ_SUB);
    zmq_setsockopt(sub, ZMQ_SUBSCRIBE, "e1/", 3);
    zmq_setsockopt(sub, ZMQ_RCVTIMEO, &deadline_ms, sizeof deadline_ms);
    assert_int_equal(zmq_connect(sub, endpoint), 0);
    int first_ms = 50, n = -1;
    uint64_t seq = 0;
    zmq_setsockopt(sub, ZMQ_RCVTIMEO, &first_ms, sizeof first_ms);
    while (n < 0 && seq < 200) { /* until the subscription has arrived */
        publish(e, 1, ++seq);
        n = zmq_recv(sub, topic, sizeof topic, 0);
    }
    assert_int_equal(n, (int)strlen("e1/r1/job/r1-1/job.state/"));
    assert_memory_equal(topic, "e1/r1/job/r1-1/job.state/", (size_t)n);
    n = zmq_recv(sub, line, sizeof line, 0);
    struct orr_events_page p = orr_events_replay(e, seq - 1, 1, kept, sizeof kept);
    assert_int_equal((size_t)n + 1, p.len);
    assert_memory_equal(line, kept, (size_t)n);
    zmq_close(sub);
    zmq_ctx_term(ctx);
    orr_events_free(e);
}

static void endpoint_in_use_is_an_error_that_names_it(void **state)
{
    (void)state;
    struct orr_events *e;
    struct orr_error err;
    assert_int_equal(orr_events_new("ipc:///no/such/dir/x", 10, 100, &e, &err),
                     ORR_EIO);
    assert_non_null(strstr(err.text, "ipc:///no/such/dir/x"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            replay_returns_whole_lines_after_seq, make_endpoint, remove_endpoint),
        cmocka_unit_test_setup_teardown(
            ring_is_bounded_by_count_and_bytes, make_endpoint, remove_endpoint),
        cmocka_unit_test_setup_teardown(
            new_epoch_starts_over, make_endpoint, remove_endpoint),
        cmocka_unit_test_setup_teardown(subscriber_sees_topic_and_the_line_that_is_kept,
                                        make_endpoint,
                                        remove_endpoint),
        cmocka_unit_test(endpoint_in_use_is_an_error_that_names_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
