/* SPDX-License-Identifier: Apache-2.0
 * test_kernel_hold.c - output commit: what waits, what does not, in which order it leaves, and who is told when it never does.
 *
 * /a asks /b, which holds back; /c is whom /b sends to.
 */
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

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(answers_wait_and_leave_in_order_up_to_the_ticket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
