/* SPDX-License-Identifier: Apache-2.0
 * test_rank_hostile.c - the rank edge against processes that break the rules, beside one that does not.
 *
 * Usage: test_rank_hostile PROBE
 */
#include "rank_cut.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "orrery/rank_link.h"
#include "packet.h"

static const char *probe;

static void ignore(void *arg, const struct orr_msg_cut_report *report)
{
    (void)arg, (void)report;
}

static int dial(const struct cut *cut, uint32_t rank)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    orr_rank_link_path(cut->run, 77, rank, addr.sun_path, sizeof addr.sun_path);
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_true(sock >= 0);
    assert_int_equal(connect(sock, (const struct sockaddr *)&addr, sizeof addr), 0);
    return sock;
}

static struct orr_msg_rank_hello hello_of(uint32_t rank)
{
    return (struct orr_msg_rank_hello){.protocol = ORR_RANK_PROTOCOL,
                                       .job = ORR_LIT("r-1"),
                                       .generation = 1,
                                       .rank = rank,
                                       .process = 9000 + rank};
}

static int greet(const struct cut *cut, uint32_t rank)
{
    int sock = dial(cut, rank);
    struct orr_msg_rank_hello hello = hello_of(rank);
    struct orri_packet packet;
    struct pollfd come = {.fd = sock, .events = POLLIN};
    assert_int_equal(orri_packet_send(sock, orr_msg_desc_rank_hello(), &hello, -1), 0);
    assert_int_equal(poll(&come, 1, 20000), 1);
    assert_int_equal(orri_packet_receive(sock, &packet), 0);
    assert_int_equal(packet.desc->id, ORR_MSG_rank_welcome);
    orri_packet_fini(&packet);
    return sock;
}

/* The edge ends the connection. */
static void assert_refused(int sock)
{
    struct orri_packet packet;
    struct pollfd come = {.fd = sock, .events = POLLIN};
    int rc = 0;
    while (rc == 0 || rc == EAGAIN) {
        assert_int_equal(poll(&come, 1, 20000), 1);
        rc = orri_packet_receive(sock, &packet);
        if (rc == 0)
            orri_packet_fini(&packet);
    }
    close(sock);
}

static void wrong_greetings_are_refused(void **state)
{
    (void)state;
    static struct cut cut;
    cut_set_up(&cut, 1);
    cut_expect(&cut, 0, 0, 0);
    cut_expect(&cut, 1, 0, 0);
    struct orr_msg_rank_hello wrong[6];
    for (size_t i = 0; i < ORR_ARRAY_SIZE(wrong); i++)
        wrong[i] = hello_of(0);
    wrong[0].rank = 1; /* another's */
    wrong[1].job = ORR_LIT("r-2");
    wrong[2].generation = 2;
    wrong[3].protocol = 99;
    wrong[4].process = 0;
    for (size_t i = 0; i < 5; i++) {
        int sock = dial(&cut, 0);
        assert_int_equal(
            orri_packet_send(sock, orr_msg_desc_rank_hello(), &wrong[i], -1), 0);
        assert_refused(sock);
    }
    int twice = greet(&cut, 0);
    assert_int_equal(orri_packet_send(twice, orr_msg_desc_rank_hello(), &wrong[5], -1),
                     0);
    assert_refused(twice);
    int silent = dial(&cut, 0);
    const struct orr_msg_rank_clocks clocks = {.cut = 1};
    assert_int_equal(orri_packet_send(silent, orr_msg_desc_rank_clocks(), &clocks, -1),
                     0);
    assert_refused(silent);
    cut_tear_down(&cut);
}

static void garbage_ends_the_connection(void **state)
{
    (void)state;
    static struct cut cut;
    uint8_t bytes[300];
    cut_set_up(&cut, 1);
    cut_expect(&cut, 0, 0, 0);
    srand(1);
    for (int i = 0; i < 200; i++) {
        int sock = i % 2 ? greet(&cut, 0) : dial(&cut, 0);
        for (size_t k = 0; k < sizeof bytes; k++)
            bytes[k] = (uint8_t)rand();
        bytes[0] = (uint8_t)(0x10 + i % 12);
        bytes[1] = 0x09;
        bytes[2] = 0x91; /* an array, at least */
        assert_true(send(sock, bytes, 1 + (size_t)i % sizeof bytes, MSG_NOSIGNAL) > 0);
        if (i % 3 == 0)
            close(sock); /* at once */
        else {
            shutdown(sock, SHUT_WR);
            assert_refused(sock);
        }
    }
    cut_tear_down(&cut);
}

static void clocks_without_end_are_refused(void **state)
{
    (void)state;
    static struct cut cut;
    static struct orr_rec_clock rows[ORRI_PACKET_CLOCKS];
    cut_set_up(&cut, 1);
    cut_expect(&cut, 0, 0, 0);
    int sock = greet(&cut, 0);
    const struct orr_msg_rank_clocks clocks = {
        .cut = 1, .has_more = true, .clocks = {rows, ORRI_PACKET_CLOCKS}};
    int rc = 0;
    for (int i = 0; i < 100 && rc == 0; i++) {
        struct pollfd room = {.fd = sock, .events = POLLOUT};
        poll(&room, 1, 20000);
        rc = orri_packet_send(sock, orr_msg_desc_rank_clocks(), &clocks, -1);
    }
    assert_refused(sock);
    cut_tear_down(&cut);
}

/* Pages and arenas that are none: pipes, files, too small. */
static void false_files_do_no_harm(void **state)
{
    (void)state;
    static struct cut cut;
    int ends[2];
    cut_set_up(&cut, 2);
    cut_start(&cut, probe, 1, "calls");
    assert_int_equal(pipe(ends), 0);
    int small = memfd_create("small", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int sock = dial(&cut, 0);
    struct orr_msg_rank_hello hello = hello_of(0);
    assert_int_equal(orri_packet_send(sock, orr_msg_desc_rank_hello(), &hello, ends[0]),
                     0);
    int other = dial(&cut, 1);
    hello = hello_of(1);
    assert_int_equal(orri_packet_send(other, orr_msg_desc_rank_hello(), &hello, small),
                     0);
    cut_wait(&cut, &cut.n_abilities, 4);
    cut.timeout_ms =
        300; /* they answer nothing: the cut expires, and names one of them */
    cut.cut = 1;
    assert_int_equal(cut_step(&cut, ORR_CUT_BEGIN, false), ORR_STEP_FAILED);
    assert_non_null(strstr(cut.report->text.ptr, "does not answer"));
    assert_int_equal(cut_step(&cut, ORR_CUT_OPEN, false), ORR_STEP_DONE);
    const struct orr_msg_rank_quiesced lie = {.cut = 1, .arena_bytes = 1 << 20};
    assert_int_equal(orri_packet_send(sock, orr_msg_desc_rank_quiesced(), &lie, small),
                     0);
    close(sock);
    close(other);
    close(small);
    close(ends[0]);
    close(ends[1]);
    cut.timeout_ms = 20000;
    cut_wait_progress(&cut);
    /* this process lives, so what it said it was is still there, and lost: it bars cuts */
    cut.timeout_ms = 300;
    assert_int_equal(cut_make(&cut), ORR_STEP_FAILED);
    assert_non_null(strstr(cut.report->text.ptr, "lost its connection"));
    assert_int_equal(cut_step(&cut, ORR_CUT_OPEN, false), ORR_STEP_DONE);
    cut_end(&cut);
    cut_tear_down(&cut);
}

static void false_arena_is_refused(void **state)
{
    (void)state;
    static struct cut cut;
    cut_set_up(&cut, 1);
    cut_expect(&cut, 0, 0, 0);
    int sock = greet(&cut, 0);
    const struct orr_msg_rank_clocks clocks = {.cut = 1, .is_at_cut = true, .round = 1};
    const struct orr_msg_rank_quiesced lie = {.cut = 1, .arena_bytes = 1 << 20};
    assert_int_equal(orri_packet_send(sock, orr_msg_desc_rank_clocks(), &clocks, -1),
                     0);
    assert_int_equal(cut_make(&cut), ORR_STEP_DONE);
    int small = memfd_create("small", MFD_CLOEXEC);
    cut.timeout_ms = 500;
    const struct orr_msg_cut_step step = {.job = ORR_LIT("r-1"),
                                          .generation = 1,
                                          .cut = 1,
                                          .step = ORR_CUT_QUIESCE,
                                          .timeout_ms = 500};
    struct orr_error err;
    assert_int_equal(orr_rank_edge_step(cut.edge, &step, ignore, NULL, &err), ORR_OK);
    assert_int_equal(orri_packet_send(sock, orr_msg_desc_rank_quiesced(), &lie, small),
                     0);
    assert_refused(sock);
    assert_int_equal(cut_step(&cut, ORR_CUT_QUIESCE, false), ORR_STEP_FAILED);
    assert_int_equal(cut.report->culprit, 0);
    close(small);
    cut_tear_down(&cut);
}

static void steps_and_generations_are_fenced(void **state)
{
    (void)state;
    static struct cut cut;
    struct orr_error err;
    struct orr_msg_cut_step step = {
        .job = ORR_LIT("r-9"), .generation = 1, .cut = 1, .step = ORR_CUT_BEGIN};
    cut_set_up(&cut, 1);
    assert_int_equal(orr_rank_edge_step(cut.edge, &step, ignore, NULL, &err),
                     ORR_ENOENT);
    cut.generation = 5;
    cut_expect(&cut, 0, 0, 0);
    const struct orr_msg_rank_expect old = {
        .job = ORR_LIT("r-1"), .generation = 4, .link = 77};
    assert_int_equal(orr_rank_edge_expect(cut.edge, &old, &err), ORR_ESTALE);
    step.job = ORR_LIT("r-1");
    step.generation = 5;
    step.step = 99;
    assert_int_equal(orr_rank_edge_step(cut.edge, &step, ignore, NULL, &err),
                     ORR_EINVAL);
    cut.cut = 7;
    assert_int_equal(cut_step(&cut, ORR_CUT_BEGIN, false),
                     ORR_STEP_DONE); /* nobody there: done */
    step.cut = 6;
    step.step = ORR_CUT_OPEN;
    assert_int_equal(orr_rank_edge_step(cut.edge, &step, ignore, NULL, &err), ORR_OK);
    assert_int_equal(cut_step(&cut, ORR_CUT_BEGIN, false), ORR_STEP_DONE);
    assert_int_equal(cut.report->cut, 7);
    assert_int_equal(cut.report->step, ORR_CUT_BEGIN);
    cut_tear_down(&cut);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_greetings_are_refused),
        cmocka_unit_test(garbage_ends_the_connection),
        cmocka_unit_test(clocks_without_end_are_refused),
        cmocka_unit_test(false_files_do_no_harm),
        cmocka_unit_test(false_arena_is_refused),
        cmocka_unit_test(steps_and_generations_are_fenced),
    };
    if (argc < 2)
        return 2;
    probe = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
