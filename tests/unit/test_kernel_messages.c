/* SPDX-License-Identifier: Apache-2.0
 * test_kernel_messages.c - delivery: order, lanes, gates, overflow, names, stale addresses, dead letters.
 */
#include "kernel_probe.h"
#include "orr_test.h"

static struct probe a, b;
static struct probe_clock now;
static struct orr_system *sys;
static struct orr_addr addr_a, addr_b;

static int setup(void **state)
{
    (void)state;
    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));
    sys = probe_system(&now, "h1");
    addr_a = probe_spawn(sys, &a, &probe_type, "/a", ORR_TEMPORARY);
    addr_b = probe_spawn(sys, &b, &probe_type, "/b", ORR_TEMPORARY);
    probe_settle(sys);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    orr_system_stop(sys);
    orr_system_free(sys);
    return 0;
}

static void messages_of_one_sender_arrive_in_order(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 5; i++)
        assert_int_equal(probe_post(sys, addr_a, ping, .nonce = i), ORR_OK);
    probe_settle(sys);
    assert_int_equal(a.n_seen, 5);
    for (uint64_t i = 0; i < 5; i++)
        assert_int_equal(a.seen[i].value, i);
}

static void lanes_control_before_job_before_telemetry(void **state)
{
    (void)state;
    assert_int_equal(probe_post(sys, addr_a, node_heartbeat, .seq = 1), ORR_OK);
    assert_int_equal(probe_post(sys, addr_a, job_cancel, .job = ORR_LIT("j")), ORR_OK);
    assert_int_equal(probe_post(sys, addr_a, ping, .nonce = 1), ORR_OK);
    probe_settle(sys);
    assert_int_equal(a.seen[0].id, ORR_MSG_ping);
    assert_int_equal(a.seen[1].id, ORR_MSG_job_cancel);
    assert_int_equal(a.seen[2].id, ORR_MSG_node_heartbeat);
}

static enum orr_err
read_text(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)ctx;
    const struct orr_msg_job_cancel *cancel = msg;
    assert_int_equal(id, ORR_MSG_job_cancel);
    assert_memory_equal(cancel->job.ptr, "eu1-7\0", 6);
    assert_memory_equal(cancel->why.ptr, "because", 7);
    probe->number++;
    return ORR_OK;
}

static enum orr_err
count_text(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)ctx;
    assert_int_equal(id, ORR_MSG_job_cancel);
    probe->number += ((const struct orr_msg_job_cancel *)msg)->why.len;
    return ORR_OK;
}

/* Blocks come in classes out of slabs: every size must find one, also where a slab holds less than one of the class. */
static void message_of_any_size_is_delivered(void **state)
{
    (void)state;
    static char text[12000];
    uint64_t sum = 0;
    a.script = count_text;
    memset(text, 'x', sizeof(text));
    for (uint32_t len = 0; len < sizeof(text); len += 97) {
        assert_int_equal(probe_post(sys, addr_a, job_cancel, .why = {text, len}),
                         ORR_OK);
        probe_settle(sys);
        sum += len;
    }
    assert_int_equal(a.number, sum);
}

static void text_is_copied_with_the_message(void **state)
{
    (void)state;
    a.script = read_text;
    char job[] = "eu1-7";
    char why[] = "because";
    assert_int_equal(
        probe_post(sys, addr_a, job_cancel, .job = orr_str(job), .why = orr_str(why)),
        ORR_OK);
    memset(job, 'x', sizeof(job));
    memset(why, 'x', sizeof(why));
    probe_settle(sys);
    assert_int_equal(a.number, 1);
}

static void named_address_finds_who_has_the_path(void **state)
{
    (void)state;
    struct orr_addr named = orr_addr_named(ORR_LIT("h1"), ORR_LIT("/b"));
    assert_int_equal(probe_post(sys, named, ping, .nonce = 9), ORR_OK);
    probe_settle(sys);
    assert_int_equal(b.n_seen, 1);
    struct orr_addr found;
    assert_int_equal(orr_system_lookup(sys, "/b", &found), ORR_OK);
    assert_true(orr_addr_eq(found, addr_b));
    assert_int_equal(orr_system_lookup(sys, "/nobody", &found), ORR_ENOENT);
}

static void taken_path_is_refused(void **state)
{
    (void)state;
    struct probe *args = &b;
    struct orr_spawn spawn = {&probe_type, &args, "/a", ORR_TEMPORARY};
    struct orr_addr addr;
    assert_int_equal(orr_system_spawn(sys, &spawn, &addr), ORR_EEXIST);
}

static void unknown_receivers_make_dead_letters(void **state)
{
    (void)state;
    struct orr_addr nobody = orr_addr_named(ORR_LIT("h1"), ORR_LIT("/nobody"));
    struct orr_addr old = addr_a;
    old.incarnation++;
    struct orr_addr other_life = addr_a;
    other_life.slot += UINT64_C(1) << 32;
    struct orr_addr elsewhere = orr_addr_named(ORR_LIT("h2"), ORR_LIT("/a"));
    assert_int_equal(probe_post(sys, nobody, ping, .nonce = 1), ORR_EGONE);
    assert_int_equal(probe_post(sys, old, ping, .nonce = 1), ORR_EGONE);
    assert_int_equal(probe_post(sys, other_life, ping, .nonce = 1), ORR_EGONE);
    assert_int_equal(probe_post(sys, elsewhere, ping, .nonce = 1), ORR_EUNREACH);
    probe_settle(sys);
    struct orr_system_stats stats;
    orr_system_stats(sys, &stats);
    assert_int_equal(stats.dead_letters, 4);
    assert_int_equal(a.n_seen, 0);
}

static enum orr_err
ask_stats(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)probe;
    if (id == ORR_MSG_ping) {
        struct orr_addr system = orr_addr_named(ORR_LIT("h1"), ORR_LIT("/system"));
        orr_ask(ctx, system, 1000, 5, stats_get);
        orr_ask(ctx, system, 1000, 6, ping, .nonce = 77);
    } else if (id == ORR_MSG_stats) {
        const struct orr_msg_stats *stats = msg;
        assert_int_equal(stats->dead_letters.n, 1);
        assert_int_equal(stats->dead_letters.at[0].msg, ORR_MSG_pong);
        assert_int_equal(stats->dead_letters.at[0].why, ORR_EGONE);
        assert_int_equal(stats->actors, 3);
    }
    return ORR_OK;
}

static void system_actor_tells_dead_letters_and_answers_pings(void **state)
{
    (void)state;
    struct orr_addr nobody = orr_addr_named(ORR_LIT("h1"), ORR_LIT("/nobody"));
    assert_int_equal(probe_post(sys, nobody, pong, .nonce = 1), ORR_EGONE);
    a.script = ask_stats;
    assert_int_equal(probe_post(sys, addr_a, ping, .nonce = 1), ORR_OK);
    probe_settle(sys);
    assert_int_equal(a.n_seen, 3);
    assert_int_equal(a.seen[1].id, ORR_MSG_stats);
    assert_int_equal(a.seen[1].tag, 5);
    assert_int_equal(a.seen[2].id, ORR_MSG_pong);
    assert_int_equal(a.seen[2].value, 77);
}

static void full_lane_refuses(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 8; i++)
        assert_int_equal(probe_post(sys, addr_a, pong, .nonce = i), ORR_OK);
    assert_int_equal(probe_post(sys, addr_a, pong, .nonce = 8), ORR_EBUSY);
    /* another lane has room of its own */
    assert_int_equal(probe_post(sys, addr_a, job_cancel, .job = ORR_LIT("j")), ORR_OK);
    probe_settle(sys);
    assert_int_equal(a.n_seen, 9);
    struct orr_system_stats stats;
    orr_system_stats(sys, &stats);
    assert_int_equal(stats.refused, 1);
}

static void full_lane_drops_oldest(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 20; i++)
        assert_int_equal(probe_post(sys, addr_a, node_heartbeat, .seq = i), ORR_OK);
    probe_settle(sys);
    assert_int_equal(a.n_seen, 8);
    for (uint64_t i = 0; i < 8; i++)
        assert_int_equal(a.seen[i].value, 12 + i);
}

static void coalescing_keeps_the_newest_of_a_sender(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 30; i++)
        assert_int_equal(probe_post(sys, addr_a, hello, .incarnation = i), ORR_OK);
    assert_int_equal(orr_system_post(sys,
                                     addr_b,
                                     addr_a,
                                     orr_msg_desc_hello(),
                                     &(struct orr_msg_hello){.incarnation = 99}),
                     ORR_OK);
    probe_settle(sys);
    assert_int_equal(a.n_seen, 2);
    assert_int_equal(a.seen[0].value, 29);
    assert_int_equal(a.seen[1].value, 99);
}

static enum orr_err
ask_cancel(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)msg;
    if (id == ORR_MSG_ping)
        orr_ask(ctx, probe->peer, 1000, 3, job_cancel, .job = ORR_LIT("j"));
    return ORR_OK;
}

static void closed_state_is_refused_with_a_clear_text(void **state)
{
    (void)state;
    a.script = ask_cancel;
    a.peer = addr_b;
    b.state = 1;
    assert_int_equal(probe_post(sys, addr_a, ping, .nonce = 1), ORR_OK);
    probe_settle(sys);
    assert_int_equal(b.n_seen, 0);
    assert_int_equal(a.n_seen, 2);
    assert_int_equal(a.seen[1].id, ORR_MSG_failed);
    assert_int_equal(a.seen[1].code, ORR_ESTATE);
    assert_int_equal(a.seen[1].tag, 3);
    assert_string_equal(
        a.seen[1].text,
        "probe /b: job_cancel is not accepted in state busy, only in idle");
}

static enum orr_err
ask_stats_of_b(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)msg;
    if (id == ORR_MSG_ping)
        orr_ask(ctx, probe->peer, 1000, 3, stats_get);
    return ORR_OK;
}

static void message_without_a_handler_is_refused_by_name(void **state)
{
    (void)state;
    a.script = ask_stats_of_b;
    a.peer = addr_b;
    assert_int_equal(probe_post(sys, addr_a, ping, .nonce = 1), ORR_OK);
    probe_settle(sys);
    assert_int_equal(a.seen[1].code, ORR_ENOSYS);
    assert_string_equal(a.seen[1].text, "probe /b: has no handler for stats_get");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(messages_of_one_sender_arrive_in_order),
        T(lanes_control_before_job_before_telemetry),
        T(message_of_any_size_is_delivered),
        T(text_is_copied_with_the_message),
        T(named_address_finds_who_has_the_path),
        T(taken_path_is_refused),
        T(unknown_receivers_make_dead_letters),
        T(system_actor_tells_dead_letters_and_answers_pings),
        T(full_lane_refuses),
        T(full_lane_drops_oldest),
        T(coalescing_keeps_the_newest_of_a_sender),
        T(closed_state_is_refused_with_a_clear_text),
        T(message_without_a_handler_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
