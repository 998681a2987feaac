/* SPDX-License-Identifier: Apache-2.0
 * test_examples_meet.c - the examples' environment and rendezvous, on loopback.
 */
#include "meet.h"
#include "orr_test.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WORLD = 5, LONG_MS = 20000, SHORT_MS = 2000 };

/* ---- environment ---- */

static void clear_env(void)
{
    static const char *const names[] = {
        "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unsetenv(names[i]);
}

static void env_without_variables_is_a_world_of_one(void **state)
{
    (void)state;
    char err[MEET_ERR_MAX];
    struct meet m;
    clear_env();
    assert_true(meet_from_env(&m, err));
    assert_int_equal(m.world, 1);
    assert_int_equal(m.rank, 0);
    assert_true(meet_share(&m, err, sizeof err, 0, err));
}

static void env_of_torchrun_is_read(void **state)
{
    (void)state;
    char err[MEET_ERR_MAX];
    struct meet m;
    clear_env();
    setenv("RANK", "5", 1);
    setenv("WORLD_SIZE", "8", 1);
    setenv("LOCAL_RANK", "1", 1);
    setenv("MASTER_ADDR", "127.0.0.1", 1);
    setenv("MASTER_PORT", "29500", 1);
    assert_true(meet_from_env(&m, err));
    assert_int_equal(m.rank, 5);
    assert_int_equal(m.world, 8);
    assert_int_equal(m.local_rank, 1);
    assert_string_equal(m.port, "29500");
}

static void env_that_is_wrong_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *rank, *world, *addr, *want;
    } cases[] = {
        {"8", "8", "127.0.0.1", "RANK=8"},
        {"-1", "8", "127.0.0.1", "RANK=-1"},
        {"one", "8", "127.0.0.1", "RANK=one"},
        {NULL, "8", "127.0.0.1", "RANK is not set"},
        {"0", "0", "127.0.0.1", "WORLD_SIZE=0"},
        {"0", "99999999999999999999", "127.0.0.1", "WORLD_SIZE=9999"},
        {"0", "2", NULL, "MASTER_ADDR is not set"},
        {"0", "2", "127.0.0.1", "MASTER_PORT is not set"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char err[MEET_ERR_MAX] = "";
        struct meet m;
        clear_env();
        setenv("WORLD_SIZE", cases[i].world, 1);
        if (cases[i].rank)
            setenv("RANK", cases[i].rank, 1);
        if (cases[i].addr)
            setenv("MASTER_ADDR", cases[i].addr, 1);
        assert_false(meet_from_env(&m, err));
        if (!strstr(err, cases[i].want))
            fail_msg("want '%s' in '%s'", cases[i].want, err);
    }
}

/* ---- rendezvous ---- */

struct visitor {
    struct meet m;
    unsigned wait_ms;
    pthread_t thread;
    bool ok;
    char blob[128], err[MEET_ERR_MAX];
};

static void *visit(void *arg)
{
    struct visitor *v = arg;
    v->ok = meet_share(&v->m, v->blob, sizeof v->blob, v->wait_ms, v->err);
    return NULL;
}

static void start(struct visitor *v, uint32_t rank, const char *port, unsigned wait_ms)
{
    *v = (struct visitor){
        .m = {.rank = rank, .world = WORLD, .addr = "127.0.0.1", .port = port},
        .wait_ms = wait_ms,
    };
    if (rank == 0)
        memset(v->blob, 0xA5, sizeof v->blob);
    assert_int_equal(pthread_create(&v->thread, NULL, visit, v), 0);
}

static int loopback_socket(struct sockaddr_in *at, uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    *at = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
    at->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return fd;
}

/* A port that nobody listens at now. */
static uint16_t free_port(char text[8])
{
    struct sockaddr_in at;
    socklen_t len = sizeof at;
    int fd = loopback_socket(&at, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    close(fd);
    snprintf(text, 8, "%u", ntohs(at.sin_port));
    return ntohs(at.sin_port);
}

static void finish_with_everybody_served(struct visitor v[WORLD])
{
    for (uint32_t r = 0; r < WORLD; r++) {
        pthread_join(v[r].thread, NULL);
        if (!v[r].ok)
            fail_msg("rank %u: %s", r, v[r].err);
        assert_memory_equal(v[r].blob, v[0].blob, sizeof v[r].blob);
    }
}

static void share_whatever_order_they_come_reaches_all(void **state)
{
    (void)state;
    char port[8];
    struct visitor v[WORLD];
    free_port(port);
    for (uint32_t r = WORLD; r-- > 0;) /* rank 0, who listens, comes last */
        start(&v[r], r, port, LONG_MS);
    finish_with_everybody_served(v);
}

static void share_with_strangers_serves_the_ranks(void **state)
{
    (void)state;
    static const char *const noise[] = {
        "",
        "GET / HTTP/1.0\r\n\r\n",
        "meeting1\0\0\0\7\0\0\0\5", /* a rank beyond the world */
        "meeting1\0\0\0\1\0\0\0\7", /* of another world */
    };
    char port[8];
    uint16_t number = free_port(port);
    struct visitor v[WORLD];
    start(&v[0], 0, port, LONG_MS);
    for (size_t i = 0; i < sizeof noise / sizeof *noise; i++) {
        struct sockaddr_in at;
        int fd = loopback_socket(&at, number);
        for (int tries = 0; connect(fd, (struct sockaddr *)&at, sizeof at) != 0;
             tries++) {
            assert_true(tries < 2000); /* until rank 0 listens */
            usleep(1000);
        }
        send(fd, noise[i], i < 2 ? strlen(noise[i]) : 16, MSG_NOSIGNAL);
        close(fd);
    }
    for (uint32_t r = 1; r < WORLD; r++)
        start(&v[r], r, port, LONG_MS);
    finish_with_everybody_served(v);
}

static void share_when_a_rank_is_missing_ends_and_names_it(void **state)
{
    (void)state;
    char port[8];
    struct visitor v[WORLD];
    free_port(port);
    for (uint32_t r = 0; r < WORLD - 1; r++)
        start(&v[r], r, port, SHORT_MS);
    for (uint32_t r = 0; r < WORLD - 1; r++)
        pthread_join(v[r].thread, NULL);
    assert_false(v[0].ok);
    assert_non_null(strstr(v[0].err, "1 of 5 ranks did not come"));
    assert_non_null(strstr(v[0].err, "rank 4"));
}

static void share_without_rank_0_ends_in_time(void **state)
{
    (void)state;
    char port[8];
    struct visitor v;
    free_port(port);
    start(&v, 2, port, SHORT_MS);
    pthread_join(v.thread, NULL);
    assert_false(v.ok);
    assert_non_null(strstr(v.err, "no answer from rank 0 at 127.0.0.1:"));
}

static void share_at_a_taken_port_says_so(void **state)
{
    (void)state;
    struct sockaddr_in at;
    socklen_t len = sizeof at;
    char port[8];
    struct visitor v;
    int fd = loopback_socket(&at, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    snprintf(port, sizeof port, "%u", ntohs(at.sin_port));
    start(&v, 0, port, LONG_MS);
    pthread_join(v.thread, NULL);
    close(fd);
    assert_false(v.ok);
    assert_non_null(strstr(v.err, "choose another MASTER_PORT"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(env_without_variables_is_a_world_of_one),
        cmocka_unit_test(env_of_torchrun_is_read),
        cmocka_unit_test(env_that_is_wrong_is_refused_by_name),
        cmocka_unit_test(share_whatever_order_they_come_reaches_all),
        cmocka_unit_test(share_with_strangers_serves_the_ranks),
        cmocka_unit_test(share_when_a_rank_is_missing_ends_and_names_it),
        cmocka_unit_test(share_without_rank_0_ends_in_time),
        cmocka_unit_test(share_at_a_taken_port_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
