/* SPDX-License-Identifier: Apache-2.0
 * test_kernel_hold.c - output commit: what waits, what does not, in which order it leaves, and who is told when it never does.
 *
 * /a asks /b, which holds back; /c is whom /b sends to.
 */
#include "../../runtime/core.h"
#include "kernel_probe.h"
#include "orr_test.h"

static struct probe a, b, c;
static struct probe_clock now;
static struct orr_system *sys;
static struct orr_addr addr_a, addr_b, addr_c;

static enum orr_err
asker(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    const struct orr_msg_ping *ping = msg;
    if (id == ORR_MSG_ping)
        orr_ask(ctx, probe->peer, 1000, ping->nonce + 100, ping, .nonce = ping->nonce);
    else if (id == ORR_MSG_hello)
        orr_monitor(ctx, probe->peer, true);
    return ORR_OK;
}

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
    a.script = asker;
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

/* a asks b, with the nonce that b's script goes by and tag nonce + 100 */
static void ask(uint64_t nonce)
{
    a.n_seen = 0;
    assert_int_equal(probe_post(sys, addr_a, ping, .nonce = nonce), ORR_OK);
    probe_settle(sys);
}

static void release(uint64_t ticket)
{
    a.n_seen = c.n_seen = 0;
    assert_int_equal(probe_post(sys, addr_b, node_heartbeat, .seq = ticket), ORR_OK);
    probe_settle(sys);
}

static void expect(const struct probe *probe, unsigned at, uint16_t id, uint64_t value)
{
    assert_true(probe->n_seen > at);
    assert_int_equal(probe->seen[at].id, id);
    assert_int_equal(probe->seen[at].value, value);
}

/* The ping's nonce is the ticket, the heartbeat's seq what is released; an odd ticket is answered, an even one only acknowledged. */
static enum orr_err
holder(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)probe;
    if (id == ORR_MSG_ping) {
        uint64_t ticket = ((const struct orr_msg_ping *)msg)->nonce;
        if (ticket % 2)
            orr_reply(ctx, pong, .nonce = ticket);
        orr_hold(ctx, ticket); /* also what was sent before */
    } else if (id == ORR_MSG_node_heartbeat) {
        orr_release(ctx, ((const struct orr_msg_node_heartbeat *)msg)->seq);
    }
    return ORR_OK;
}

static void answers_wait_and_leave_in_order_up_to_the_ticket(void **state)
{
    (void)state;
    b.script = holder;
    for (uint64_t ticket = 1; ticket <= 4; ticket++) {
        ask(ticket);
        assert_int_equal(a.n_seen, 1);
    }
    release(0);
    assert_int_equal(a.n_seen, 0);
    release(3);
    assert_int_equal(a.n_seen, 3);
    expect(&a, 0, ORR_MSG_pong, 1);
    expect(&a, 1, ORR_MSG_ack, 0);
    assert_int_equal(a.seen[1].tag, 102);
    expect(&a, 2, ORR_MSG_pong, 3);
    release(3);
    assert_int_equal(a.n_seen, 0);
    release(UINT64_MAX);
    assert_int_equal(a.n_seen, 1);
    assert_int_equal(a.seen[0].tag, 104);
}

/* Holds with a ticket that is not 0; all kinds of output, before and after the hold.  Lets go, and sends something of its own. */
static enum orr_err
talker(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    struct orr_addr by_name = orr_addr_named(ORR_LIT("h1"), ORR_LIT("/c"));
    if (id == ORR_MSG_ping) {
        uint64_t ticket = ((const struct orr_msg_ping *)msg)->nonce;
        orr_send(ctx, probe->peer, pong, .nonce = 10 * ticket);
        orr_send(ctx, probe->peer, pong, .nonce = 10 * ticket + 1);
        if (ticket)
            orr_hold(ctx, ticket);
        orr_ask(ctx, probe->peer, 100, 7, ping, .nonce = 10 * ticket + 2);
        if (ticket)
            orr_send(ctx, by_name, pong, .nonce = 10 * ticket + 3);
    } else if (id == ORR_MSG_node_heartbeat) {
        orr_send(ctx, probe->peer, pong, .nonce = 99);
        orr_release(ctx, ((const struct orr_msg_node_heartbeat *)msg)->seq);
    }
    return ORR_OK;
}

static void all_output_waits_and_what_is_let_go_leaves_first(void **state)
{
    (void)state;
    b.script = talker;
    ask(1);
    ask(0); /* this handler does not hold, but must not overtake */
    assert_int_equal(c.n_seen, 0);
    assert_int_equal(a.n_seen, 1);
    release(1);
    assert_int_equal(c.n_seen, 8);
    static const uint64_t values[] = {10, 11, 12, 13, 0, 1, 2, 99};
    for (unsigned i = 0; i < ORR_ARRAY_SIZE(values); i++)
        expect(&c, i, i % 4 == 2 ? ORR_MSG_ping : ORR_MSG_pong, values[i]);
    assert_int_equal(a.n_seen, 2);
    assert_int_equal(a.seen[0].tag, 101);
    assert_int_equal(a.seen[1].tag, 100);
    ask(0); /* nothing is held any more */
    assert_int_equal(a.n_seen, 2);
    assert_int_equal(c.n_seen, 11);
}

static void what_follows_a_released_part_still_waits(void **state)
{
    (void)state;
    b.script = talker;
    ask(1);
    ask(2);
    release(1);
    assert_int_equal(c.n_seen,
                     4); /* the releaser's own message waits behind ticket 2 */
    expect(&c, 3, ORR_MSG_pong, 13);
    release(2);
    assert_int_equal(c.n_seen, 6);
    expect(&c, 3, ORR_MSG_pong, 23);
    expect(&c, 4, ORR_MSG_pong, 99);
    expect(&c, 5, ORR_MSG_pong, 99);
}

/* What each ping does depends on its nonce. */
static enum orr_err
mixed(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    if (id == ORR_MSG_node_heartbeat)
        orr_release(ctx, ((const struct orr_msg_node_heartbeat *)msg)->seq);
    if (id != ORR_MSG_ping)
        return ORR_OK;
    switch (((const struct orr_msg_ping *)msg)->nonce) {
    case 1: /* some pass, in their order */
        orr_hold(ctx, 1);
        orr_send(ctx, probe->peer, pong, .nonce = 1);
        orr_send_now(ctx, probe->peer, pong, .nonce = 2);
        orr_send(ctx, probe->peer, pong, .nonce = 3);
        orr_send_now(ctx, probe->peer, ping, .nonce = 4);
        return ORR_OK;
    case 2: /* confirmed by itself */
        orr_hold(ctx, 2);
        orr_release(ctx, 2);
        orr_reply(ctx, pong, .nonce = 2);
        return ORR_OK;
    case 3: /* two tickets: the higher one counts; letting go came too early */
        orr_release(ctx, 4);
        orr_hold(ctx, 4);
        orr_hold(ctx, 3);
        orr_reply(ctx, pong, .nonce = 3);
        return ORR_OK;
    case 4: /* neither holds nor lets go: it fails */
        orr_hold(ctx, 9);
        orr_release(ctx, 9);
        orr_send(ctx, probe->peer, pong, .nonce = 5);
        orr_send_now(ctx, probe->peer, pong, .nonce = 6);
        orr_hold(ctx, 10);
        return orr_refuse(ctx, ORR_ENOENT, "no such thing");
    default: /* timers and children do not wait; watching does */
        orr_hold(ctx, 5);
        orr_timer_set(ctx, 1, 10, 77);
        probe->peer = probe_child(ctx, (void *)(uintptr_t)probe->number, ORR_TEMPORARY);
        orr_monitor(ctx, probe->peer, true);
        return ORR_OK;
    }
}

static void send_now_passes_in_order(void **state)
{
    (void)state;
    b.script = mixed;
    ask(1);
    assert_int_equal(c.n_seen, 2);
    expect(&c, 0, ORR_MSG_pong, 2);
    expect(&c, 1, ORR_MSG_ping, 4);
    release(1);
    assert_int_equal(c.n_seen, 2);
    expect(&c, 0, ORR_MSG_pong, 1);
    expect(&c, 1, ORR_MSG_pong, 3);
}

static void handler_may_confirm_itself_but_not_beforehand(void **state)
{
    (void)state;
    b.script = mixed;
    ask(2);
    assert_int_equal(a.n_seen, 2);
    expect(&a, 1, ORR_MSG_pong, 2);
    ask(3);
    assert_int_equal(a.n_seen, 1);
    release(3);
    assert_int_equal(a.n_seen, 0);
    release(4);
    expect(&a, 0, ORR_MSG_pong, 3);
}

static void failing_handler_neither_holds_nor_lets_go(void **state)
{
    (void)state;
    b.script = mixed;
    ask(4); /* nothing is held: it fails at once */
    assert_int_equal(a.n_seen, 2);
    assert_int_equal(a.seen[1].code, ORR_ENOENT);
    ask(3);
    ask(4); /* what was held before stays, and its error waits, too */
    assert_int_equal(probe_post(sys, addr_b, pong, .nonce = 0), ORR_OK);
    probe_settle(sys);
    assert_int_equal(a.n_seen, 1);
    assert_int_equal(c.n_seen, 0);
    release(4);
    assert_int_equal(a.n_seen, 2);
    expect(&a, 0, ORR_MSG_pong, 3);
    assert_int_equal(a.seen[1].code, ORR_ENOENT);
    assert_string_equal(a.seen[1].text, "no such thing");
    assert_int_equal(a.seen[1].tag, 104);
    assert_int_equal(c.n_seen, 0);
}

static void timers_and_children_do_not_wait_but_watching_does(void **state)
{
    (void)state;
    static struct probe kid;
    kid = (struct probe){0};
    b.script = mixed;
    b.number = (uintptr_t)&kid;
    ask(5);
    assert_int_equal(kid.n_init, 1);
    b.n_seen = 0;
    probe_advance(sys, &now, 10);
    expect(&b, 0, ORR_MSG_timer, 77);
    assert_int_equal(a.n_seen, 1);
    assert_null(orri_actor_at(sys, (uint32_t)addr_b.slot)->watches);
    release(5);
    assert_non_null(orri_actor_at(sys, (uint32_t)addr_b.slot)->watches);
}

static void deadline_of_an_ask_starts_when_it_leaves(void **state)
{
    (void)state;
    b.script = talker;
    c.script = holder; /* c's answer never comes */
    assert_int_equal(probe_post(sys, addr_b, ping, .nonce = 1), ORR_OK);
    probe_advance(sys, &now, 500);
    assert_int_equal(b.n_seen, 1);
    release(1);
    b.n_seen = 0;
    probe_advance(sys, &now, 99);
    assert_int_equal(b.n_seen, 0);
    probe_advance(sys, &now, 1);
    assert_int_equal(b.n_seen, 1);
    assert_int_equal(b.seen[0].code, ORR_ETIMEOUT);
    assert_int_equal(b.seen[0].tag, 7);
}

static void request_that_expired_meanwhile_takes_its_ask_along(void **state)
{
    (void)state;
    b.script = talker;
    ask(1); /* has 1000 ms */
    probe_advance(sys, &now, 1001);
    assert_int_equal(a.n_seen, 2);
    assert_int_equal(a.seen[1].code, ORR_ETIMEOUT);
    b.n_seen = 0;
    release(1);
    assert_int_equal(a.n_seen, 0); /* no second answer */
    assert_int_equal(b.n_seen, 2);
    assert_int_equal(b.seen[1].code, ORR_ETIMEOUT);
    assert_int_equal(b.seen[1].tag, 7);
    assert_int_equal(c.n_seen, 4); /* the ask had the time of that request */
    expect(&c, 3, ORR_MSG_pong, 99);
}

/* a: asks for what b accepts in state 0 only */
static enum orr_err
canceller(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)msg;
    if (id == ORR_MSG_ping)
        orr_ask(ctx, probe->peer, 1000, 42, job_cancel, .job = ORR_LIT("j"));
    return ORR_OK;
}

/* Two messages in a run, one by name: what they tell is durable, though whoever asked has given up. */
static enum orr_err
teller(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    if (id == ORR_MSG_ping) {
        uint64_t ticket = ((const struct orr_msg_ping *)msg)->nonce;
        orr_send(ctx, probe->peer, pong, .nonce = 1);
        orr_send(ctx, probe->peer, pong, .nonce = 2);
        orr_send(ctx, orr_addr_named(ORR_LIT("h1"), ORR_LIT("/c")), pong, .nonce = 3);
        orr_hold(ctx, ticket);
    } else if (id == ORR_MSG_node_heartbeat) {
        orr_release(ctx, ((const struct orr_msg_node_heartbeat *)msg)->seq);
    }
    return ORR_OK;
}

static void what_is_told_outlives_the_request_that_led_to_it(void **state)
{
    (void)state;
    b.script = teller;
    ask(1);
    probe_advance(sys, &now, 5000); /* the asker waited for 1000 */
    release(1);
    assert_int_equal(c.n_seen, 3);
    for (unsigned i = 0; i < 3; i++)
        expect(&c, i, ORR_MSG_pong, i + 1);
}

static void refusal_because_of_the_state_waits_like_the_state(void **state)
{
    (void)state;
    b.script = holder;
    ask(1);
    b.state = 1;
    a.script = canceller;
    ask(1);
    assert_int_equal(a.n_seen, 1);
    release(1);
    assert_int_equal(a.n_seen, 2);
    expect(&a, 0, ORR_MSG_pong, 1);
    assert_int_equal(a.seen[1].code, ORR_ESTATE);
    assert_int_equal(a.seen[1].tag, 42);
    ask(1); /* nothing is held: at once */
    assert_int_equal(a.n_seen, 2);
}

/* ---- ends ---- */

static enum orr_err
mortal(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    if (id == ORR_MSG_job_cancel)
        return ORR_ECRASH;
    if (id == ORR_MSG_hello) {
        orr_reply_to(ctx, &probe->kept, pong, .nonce = 1);
        orr_stop(ctx, ctx->self);
    }
    if (id == ORR_MSG_ping && ((const struct orr_msg_ping *)msg)->nonce == 1)
        probe->kept = orr_defer(ctx);
    else if (id == ORR_MSG_ping)
        return talker(ctx, probe, id, msg);
    return ORR_OK;
}

static void expect_unconfirmed(unsigned at, uint64_t tag)
{
    assert_true(a.n_seen > at);
    assert_int_equal(a.seen[at].id, ORR_MSG_failed);
    assert_int_equal(a.seen[at].code, ORR_EGONE);
    assert_int_equal(a.seen[at].value, ORR_MSG_ping);
    assert_int_equal(a.seen[at].tag, tag);
    assert_string_equal(a.seen[at].text,
                        "ping: its actor ended before it could confirm; it may have "
                        "been done: ask again");
}

static void end_of_the_actor_tells_those_whose_answer_was_held(void **state)
{
    (void)state;
    b.script = mortal;
    assert_int_equal(probe_post(sys, addr_a, hello), ORR_OK); /* it watches b */
    ask(2);
    ask(3);
    assert_int_equal(probe_post(sys, addr_b, job_cancel, .job = ORR_LIT("j")), ORR_OK);
    probe_settle(sys);
    assert_int_equal(a.n_seen, 4);
    expect_unconfirmed(1, 102);
    expect_unconfirmed(2, 103);
    expect(&a, 3, ORR_MSG_down, addr_b.slot); /* after its last words */
    probe_advance(sys, &now, 2000);
    assert_int_equal(a.n_seen, 4);
    assert_int_equal(c.n_seen, 0);
}

static void actor_that_stops_itself_takes_along_what_it_held(void **state)
{
    (void)state;
    b.script = mortal;
    ask(1);
    ask(2);
    assert_int_equal(probe_post(sys, addr_b, hello), ORR_OK);
    probe_settle(sys);
    assert_int_equal(b.n_fini, 1);
    assert_int_equal(a.n_seen, 3);
    expect_unconfirmed(1, 102);
    expect_unconfirmed(2, 101); /* its last reply */
    assert_int_equal(c.n_seen, 0);
}

static void next_life_holds_nothing(void **state)
{
    (void)state;
    static struct probe lasting;
    lasting = (struct probe){.script = mortal, .peer = addr_c};
    addr_b = probe_spawn(sys, &lasting, &probe_type, "/lasting", ORR_PERMANENT);
    a.peer = orr_addr_named(ORR_LIT("h1"), ORR_LIT("/lasting"));
    ask(2);
    assert_int_equal(probe_post(sys, addr_b, job_cancel, .job = ORR_LIT("j")), ORR_OK);
    probe_settle(sys);
    expect_unconfirmed(1, 102);
    probe_advance(sys, &now, 200);
    assert_int_equal(lasting.n_init, 2);
    ask(0);
    assert_int_equal(a.n_seen, 2);
    expect(&a, 1, ORR_MSG_ack, 0);
    assert_int_equal(c.n_seen, 3);
}

static void freed_system_frees_what_is_held(void **state)
{
    (void)state;
    static struct probe kid;
    b.script = mixed;
    b.number = (uintptr_t)&kid;
    ask(5); /* a watch */
    ask(1);
    ask(3);
    orr_system_free(sys); /* as in a crash of the host: not stopped before */
    assert_int_equal(setup(NULL), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(answers_wait_and_leave_in_order_up_to_the_ticket),
        T(all_output_waits_and_what_is_let_go_leaves_first),
        T(what_follows_a_released_part_still_waits),
        T(send_now_passes_in_order),
        T(handler_may_confirm_itself_but_not_beforehand),
        T(failing_handler_neither_holds_nor_lets_go),
        T(timers_and_children_do_not_wait_but_watching_does),
        T(deadline_of_an_ask_starts_when_it_leaves),
        T(request_that_expired_meanwhile_takes_its_ask_along),
        T(what_is_told_outlives_the_request_that_led_to_it),
        T(refusal_because_of_the_state_waits_like_the_state),
        T(end_of_the_actor_tells_those_whose_answer_was_held),
        T(actor_that_stops_itself_takes_along_what_it_held),
        T(next_life_holds_nothing),
        T(freed_system_frees_what_is_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
