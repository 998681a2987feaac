/* SPDX-License-Identifier: Apache-2.0
 * test_kernel_asks.c - asks are answered exactly once; replies, defer, relay; effects of failed handlers; timers.
 */
#include "kernel_probe.h"
#include "orr_test.h"

static struct probe a, b, c;
static struct probe_clock now;
static struct orr_system *sys;
static struct orr_addr addr_a, addr_b, addr_c;

static int setup(void **state)
{
    (void)state;
    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));
    memset(&c, 0, sizeof(c));
    sys = probe_system(&now, "h1");
    addr_a = probe_spawn(sys, &a, &probe_type, "/a", ORR_TEMPORARY);
    addr_b = probe_spawn(sys, &b, &probe_type, "/b", ORR_TEMPORARY);
    addr_c = probe_spawn(sys, &c, &probe_type, "/c", ORR_TEMPORARY);
    a.peer = addr_b;
    b.peer = addr_c;
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

/* a: on ping from outside, ask b with 100 ms and tag 42 */
static enum orr_err
asker(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    const struct orr_msg_ping *ping = msg;
    if (id == ORR_MSG_ping)
        orr_ask(ctx, probe->peer, 100, 42, ping, .nonce = ping->nonce);
    return ORR_OK;
}

static void start_ask(void)
{
    a.script = asker;
    assert_int_equal(probe_post(sys, addr_a, ping, .nonce = 5), ORR_OK);
    probe_settle(sys);
}

static void expect_failed(enum orr_err code, const char *text)
{
    assert_int_equal(a.n_seen, 2);
    assert_int_equal(a.seen[1].id, ORR_MSG_failed);
    assert_int_equal(a.seen[1].tag, 42);
    assert_int_equal(a.seen[1].code, code);
    if (text)
        assert_string_equal(a.seen[1].text, text);
    probe_advance(sys, &now, 1000); /* and never again */
    assert_int_equal(a.n_seen, 2);
}

static void handler_without_answer_acknowledges(void **state)
{
    (void)state;
    start_ask();
    assert_int_equal(a.n_seen, 2);
    assert_int_equal(a.seen[1].id, ORR_MSG_ack);
    assert_int_equal(a.seen[1].tag, 42);
    probe_advance(sys, &now, 1000);
    assert_int_equal(a.n_seen, 2);
}

static enum orr_err
refuser(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)probe, (void)id, (void)msg;
    return orr_refuse(ctx, ORR_ENOENT, "job %d: no such job", 7);
}

static void error_of_the_handler_is_the_answer(void **state)
{
    (void)state;
    b.script = refuser;
    start_ask();
    expect_failed(ORR_ENOENT, "job 7: no such job");
}

static enum orr_err
replier_twice(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)probe, (void)id, (void)msg;
    orr_reply(ctx, pong, .nonce = 1);
    orr_reply(ctx, pong, .nonce = 2);
    return ORR_OK;
}

static void second_answer_is_not_delivered(void **state)
{
    (void)state;
    b.script = replier_twice;
    start_ask();
    assert_int_equal(a.n_seen, 2);
    assert_int_equal(a.seen[1].id, ORR_MSG_pong);
    assert_int_equal(a.seen[1].value, 1);
}

static enum orr_err
keeper(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)msg;
    if (id == ORR_MSG_ping)
        probe->kept = orr_defer(ctx);
    else if (id == ORR_MSG_node_heartbeat)
        orr_reply_to(ctx, &probe->kept, pong, .nonce = 88);
    return ORR_OK;
}

static void deferred_request_is_answered_later(void **state)
{
    (void)state;
    b.script = keeper;
    start_ask();
    assert_int_equal(a.n_seen, 1);
    assert_int_equal(b.kept.deadline_ms, now.now_ms + 100);
    assert_int_equal(probe_post(sys, addr_b, node_heartbeat, .seq = 1), ORR_OK);
    probe_settle(sys);
    assert_int_equal(a.n_seen, 2);
    assert_int_equal(a.seen[1].value, 88);
    assert_int_equal(a.seen[1].tag, 42);
}

static void deferred_request_can_be_answered_from_outside(void **state)
{
    (void)state;
    b.script = keeper;
    start_ask();
    struct orr_msg_pong pong = {.nonce = 89};
    assert_int_equal(orr_system_reply(sys, addr_b, &b.kept, orr_msg_desc_pong(), &pong),
                     ORR_OK);
    probe_settle(sys);
    assert_int_equal(a.seen[1].value, 89);
}

static void unanswered_request_times_out_and_late_answer_is_dropped(void **state)
{
    (void)state;
    b.script = keeper;
    start_ask();
    probe_advance(sys, &now, 99);
    assert_int_equal(a.n_seen, 1);
    probe_advance(sys, &now, 1);
    assert_int_equal(probe_post(sys, addr_b, node_heartbeat, .seq = 1), ORR_OK);
    expect_failed(ORR_ETIMEOUT, "ping: the deadline passed without an answer");
}

static enum orr_err
relayer(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)msg;
    if (id == ORR_MSG_ping)
        orr_relay(ctx, probe->peer);
    return ORR_OK;
}

static void relayed_request_is_answered_by_the_last(void **state)
{
    (void)state;
    b.script = relayer;
    c.script = replier_twice;
    start_ask();
    assert_int_equal(c.n_seen, 1);
    assert_int_equal(c.seen[0].value, 5);
    assert_true(orr_addr_eq(c.seen[0].from, addr_a));
    assert_int_equal(a.n_seen, 2);
    assert_int_equal(a.seen[1].id, ORR_MSG_pong);
    assert_true(orr_addr_eq(a.seen[1].from, addr_c));
}

static void relay_to_nobody_fails_the_asker(void **state)
{
    (void)state;
    b.script = relayer;
    b.peer = orr_addr_named(ORR_LIT("h1"), ORR_LIT("/nobody"));
    start_ask();
    expect_failed(ORR_EGONE, "no actor of that name on this host");
}

static void asking_nobody_fails_at_once(void **state)
{
    (void)state;
    a.peer = orr_addr_named(ORR_LIT("h1"), ORR_LIT("/nobody"));
    start_ask();
    expect_failed(ORR_EGONE, "no actor of that name on this host");
}

static void asking_an_unreachable_host_fails_at_once(void **state)
{
    (void)state;
    a.peer = orr_addr_named(ORR_LIT("h2"), ORR_LIT("/b"));
    start_ask();
    expect_failed(ORR_EUNREACH, "ping: the host cannot be reached");
}

static void asking_a_full_actor_fails_busy(void **state)
{
    (void)state;
    a.script = asker;
    assert_int_equal(probe_post(sys, addr_a, ping, .nonce = 5), ORR_OK);
    for (int i = 0; i < 8; i++)
        assert_int_equal(probe_post(sys, addr_b, pong, .nonce = 1), ORR_OK);
    probe_settle(sys);
    expect_failed(ORR_EBUSY, NULL);
}

static enum orr_err
stopper(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)probe, (void)id, (void)msg;
    orr_stop(ctx, ctx->self);
    return ORR_OK;
}

static void requests_queued_for_a_stopped_actor_fail(void **state)
{
    (void)state;
    b.script = stopper;
    assert_int_equal(probe_post(sys, addr_b, pong, .nonce = 1), ORR_OK);
    a.script = asker;
    assert_int_equal(probe_post(sys, addr_a, ping, .nonce = 5), ORR_OK);
    probe_settle(sys);
    expect_failed(ORR_EGONE, "ping: the receiver has stopped");
    assert_int_equal(b.n_fini, 1);
}

static enum orr_err effects_then_error(struct orr_ctx *ctx,
                                       struct probe *probe,
                                       uint16_t id,
                                       const void *msg)
{
    (void)msg;
    if (id != ORR_MSG_ping)
        return ORR_OK;
    orr_send(ctx, probe->peer, pong, .nonce = 1);
    orr_reply(ctx, pong, .nonce = 2);
    orr_timer_set(ctx, 1, 10, 0);
    orr_monitor(ctx, probe->peer, true);
    static struct probe child;
    memset(&child, 0, sizeof(child));
    probe->peer = probe_child(ctx, &child, ORR_TEMPORARY);
    probe->number = (uint64_t)(uintptr_t)&child;
    return ORR_EIO;
}

static void effects_of_a_failed_handler_are_discarded(void **state)
{
    (void)state;
    b.script = effects_then_error;
    start_ask();
    expect_failed(ORR_EIO, "ping: input/output error");
    assert_int_equal(c.n_seen, 0);
    assert_int_equal(b.n_seen, 1);
    const struct probe *child = (const void *)(uintptr_t)b.number;
    assert_int_equal(child->n_init, 0);
    assert_int_equal(probe_post(sys, b.peer, pong, .nonce = 1), ORR_EGONE);
    struct orr_system_stats stats;
    orr_system_stats(sys, &stats);
    assert_int_equal(stats.actors, 4);
}

static enum orr_err
slow_chain(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)msg;
    if (id == ORR_MSG_ping) { /* the asker's deadline goes along */
        orr_ask(ctx, probe->peer, 5000, 9, ping, .nonce = 3);
        probe->kept = orr_defer(ctx);
    }
    return ORR_OK;
}

static void deadline_travels_with_what_is_sent(void **state)
{
    (void)state;
    b.script = slow_chain;
    c.script = keeper;
    start_ask();
    assert_int_equal(c.kept.deadline_ms, now.now_ms + 100);
    probe_advance(sys, &now, 100);
    assert_int_equal(b.n_seen, 2);
    assert_int_equal(b.seen[1].code, ORR_ETIMEOUT);
    assert_int_equal(b.seen[1].tag, 9);
}

static void expired_message_is_not_handled(void **state)
{
    (void)state;
    a.script = asker;
    assert_int_equal(probe_post(sys, addr_a, ping, .nonce = 5), ORR_OK);
    assert_true(orr_system_step(sys)); /* a asked */
    now.now_ms += 200;
    probe_settle(sys);
    assert_int_equal(b.n_seen, 0);
    expect_failed(ORR_ETIMEOUT, NULL);
}

static enum orr_err
many_asks(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)msg;
    if (id == ORR_MSG_ping)
        for (uint64_t i = 0; i < 70; i++)
            orr_ask(ctx, probe->peer, 100, i + 1, stats_get);
    return ORR_OK;
}

static void too_many_open_asks_fail(void **state)
{
    (void)state;
    struct probe_clock clock;
    probe_clock_init(&clock);
    struct orr_system_config config = {
        .host = "small", .incarnation = 1, .asks_max = 64, .clock = &clock.clock};
    struct orr_system *small;
    assert_int_equal(orr_system_new(&config, &small, NULL), ORR_OK);
    struct probe asking = {.script = many_asks};
    struct orr_addr addr =
        probe_spawn(small, &asking, &probe_type, "/x", ORR_TEMPORARY);
    asking.peer = orr_addr_named(ORR_LIT("small"), ORR_LIT("/system"));
    assert_int_equal(probe_post(small, addr, ping, .nonce = 1), ORR_OK);
    probe_settle(small);
    unsigned n_failed = 0;
    unsigned n_answered = 0;
    for (unsigned i = 1; i < asking.n_seen && i < PROBE_SEEN_MAX; i++) {
        n_failed += asking.seen[i].code == ORR_ENOSPC;
        n_answered += asking.seen[i].id == ORR_MSG_stats;
    }
    assert_int_equal(asking.n_seen, 71);
    assert_true(n_failed == 6);
    assert_true(n_answered == PROBE_SEEN_MAX - 1 - 6);
    orr_system_free(small);
}

static enum orr_err
timers(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    const struct orr_msg_timer *timer = msg;
    if (id == ORR_MSG_ping) {
        orr_timer_set(ctx, 1, 50, 11);
        orr_timer_set(ctx, 2, 20, 12);
        orr_timer_set(ctx, 3, 30, 13);
        orr_timer_set(ctx, 4, 100000, 14);
        orr_timer_set(ctx, 1, 10, 15); /* moves it */
    } else if (id == ORR_MSG_timer && timer->arg == 12) {
        orr_timer_cancel(ctx, 3);
    }
    probe->number = ctx->now_ms;
    return ORR_OK;
}

static void timers_fire_in_time_once_and_can_be_moved_and_cancelled(void **state)
{
    (void)state;
    a.script = timers;
    assert_int_equal(probe_post(sys, addr_a, ping, .nonce = 5), ORR_OK);
    probe_settle(sys);
    assert_int_equal(orr_system_next_due_ms(sys), now.now_ms + 10);
    probe_advance(sys, &now, 60);
    assert_int_equal(a.n_seen, 3);
    assert_int_equal(a.seen[1].value, 15);
    assert_int_equal(a.seen[2].value, 12);
    probe_advance(sys, &now, 100000 - 61);
    assert_int_equal(a.n_seen, 3);
    probe_advance(sys, &now, 1);
    assert_int_equal(a.n_seen, 4);
    assert_int_equal(a.seen[3].value, 14);
    assert_int_equal(a.number, now.now_ms);
    assert_true(orr_system_next_due_ms(sys) == UINT64_MAX);
}

static enum orr_err
cancel_fired(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)msg;
    if (id == ORR_MSG_ping)
        orr_timer_set(ctx, 1, 10, 1);
    else if (id == ORR_MSG_pong)
        orr_timer_cancel(ctx, 1);
    probe->number++;
    return ORR_OK;
}

static void cancelled_timer_is_never_seen_even_if_it_fired(void **state)
{
    (void)state;
    a.script = cancel_fired;
    assert_int_equal(probe_post(sys, addr_a, ping, .nonce = 5), ORR_OK);
    probe_settle(sys);
    assert_int_equal(probe_post(sys, addr_a, pong, .nonce = 5), ORR_OK);
    now.now_ms += 10; /* the timer's message is queued behind pong */
    probe_settle(sys);
    assert_int_equal(a.n_seen, 2);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(handler_without_answer_acknowledges),
        T(error_of_the_handler_is_the_answer),
        T(second_answer_is_not_delivered),
        T(deferred_request_is_answered_later),
        T(deferred_request_can_be_answered_from_outside),
        T(unanswered_request_times_out_and_late_answer_is_dropped),
        T(relayed_request_is_answered_by_the_last),
        T(relay_to_nobody_fails_the_asker),
        T(asking_nobody_fails_at_once),
        T(asking_an_unreachable_host_fails_at_once),
        T(asking_a_full_actor_fails_busy),
        T(requests_queued_for_a_stopped_actor_fail),
        T(effects_of_a_failed_handler_are_discarded),
        T(deadline_travels_with_what_is_sent),
        T(expired_message_is_not_handled),
        T(too_many_open_asks_fail),
        T(timers_fire_in_time_once_and_can_be_moved_and_cancelled),
        T(cancelled_timer_is_never_seen_even_if_it_fired),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
