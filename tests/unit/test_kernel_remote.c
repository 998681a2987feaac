/* SPDX-License-Identifier: Apache-2.0
 * test_kernel_remote.c - hosts connected by the loop transport: asks, relays, monitors and losses across hosts.
 */
#include "../../runtime/core.h"
#include "../../runtime/transport_loop.h"
#include "../../runtime/wire.h"
#include "kernel_probe.h"
#include "orr_test.h"

enum { HOSTS = 3 };
static struct probe probes[HOSTS];
static struct probe_clock now;
static struct orr_system *systems[HOSTS];
static struct orr_addr addrs[HOSTS];
static struct orr_loop *loop;
static const char *const names[HOSTS] = {"h0", "h1", "h2"};

static void settle(void)
{
    for (int i = 0; i < 10000; i++) {
        bool did = orr_loop_step(loop, NULL);
        for (int h = 0; h < HOSTS; h++)
            did |= systems[h] && orr_system_step(systems[h]);
        if (!did)
            return;
    }
    fail_msg("does not come to rest");
}

static void boot(int h, unsigned role)
{
    systems[h] = probe_system(&now, names[h]);
    addrs[h] = probe_spawn(systems[h], &probes[h], &probe_type, "/p", ORR_TEMPORARY);
    assert_int_equal(orr_loop_join(loop, systems[h], role), ORR_OK);
}

static void crash(int h)
{
    orr_loop_leave(loop, orr_system_host(systems[h]));
    orr_system_free(systems[h]);
    systems[h] = NULL;
}

static int setup(void **state)
{
    (void)state;
    memset(probes, 0, sizeof(probes));
    struct orr_loop_config config = {.now_ms = NULL};
    assert_int_equal(orr_loop_new(&config, &loop), ORR_OK);
    for (int h = 0; h < HOSTS; h++)
        boot(h, ORR_ROLE_HOST);
    settle();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int h = 0; h < HOSTS; h++)
        orr_system_free(systems[h]);
    orr_loop_free(loop);
    return 0;
}

static enum orr_err
asker(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    const struct orr_msg_ping *ping = msg;
    if (id == ORR_MSG_ping)
        orr_ask(ctx, probe->peer, 100, 42, ping, .nonce = ping->nonce);
    return ORR_OK;
}

static enum orr_err
replier(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    if (id == ORR_MSG_ping)
        orr_reply(ctx, pong, .nonce = ((const struct orr_msg_ping *)msg)->nonce + 1);
    probe->number = ctx->from_role;
    return ORR_OK;
}

static enum orr_err
relayer(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)msg;
    if (id == ORR_MSG_ping)
        orr_relay(ctx, probe->peer);
    return ORR_OK;
}

static enum orr_err
keeper(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)msg;
    if (id == ORR_MSG_ping)
        probe->kept = orr_defer(ctx);
    return ORR_OK;
}

static enum orr_err
watcher(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)msg;
    if (id == ORR_MSG_ping)
        orr_monitor(ctx, probe->peer, true);
    return ORR_OK;
}

static enum orr_err
crasher(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)ctx, (void)probe, (void)id, (void)msg;
    return ORR_ECRASH;
}

static void start_at_0(probe_script_f script, struct orr_addr peer)
{
    probes[0].script = script;
    probes[0].peer = peer;
    assert_int_equal(probe_post(systems[0], addrs[0], ping, .nonce = 5), ORR_OK);
    settle();
}

static void remote_ask_by_name_is_answered(void **state)
{
    (void)state;
    probes[1].script = replier;
    start_at_0(asker, orr_addr_named(ORR_LIT("h1"), ORR_LIT("/p")));
    assert_int_equal(probes[0].n_seen, 2);
    assert_int_equal(probes[0].seen[1].id, ORR_MSG_pong);
    assert_int_equal(probes[0].seen[1].value, 6);
    assert_int_equal(probes[0].seen[1].tag, 42);
    assert_true(orr_addr_eq(probes[0].seen[1].from, addrs[1]));
    assert_int_equal(probes[1].number, ORR_ROLE_HOST);
}

static void remote_refusal_carries_its_text(void **state)
{
    (void)state;
    start_at_0(asker, orr_addr_named(ORR_LIT("h1"), ORR_LIT("/nobody")));
    assert_int_equal(probes[0].seen[1].code, ORR_EGONE);
    assert_string_equal(probes[0].seen[1].text, "no actor of that name on this host");
}

static void remote_deadline_travels(void **state)
{
    (void)state;
    probes[1].script = keeper;
    start_at_0(asker, addrs[1]);
    assert_int_equal(probes[1].kept.deadline_ms, now.now_ms + 100);
    now.now_ms += 100;
    settle();
    assert_int_equal(probes[0].seen[1].code, ORR_ETIMEOUT);
    struct orr_msg_pong late = {.nonce = 1};
    assert_int_equal(
        orr_system_reply(
            systems[1], addrs[1], &probes[1].kept, orr_msg_desc_pong(), &late),
        ORR_OK);
    settle();
    assert_int_equal(probes[0].n_seen, 2);
}

/* Holds every answer; job_cancel ends it. */
static enum orr_err
holder(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)probe;
    if (id == ORR_MSG_ping)
        orr_hold(ctx, ((const struct orr_msg_ping *)msg)->nonce);
    else if (id == ORR_MSG_node_heartbeat)
        orr_release(ctx, ((const struct orr_msg_node_heartbeat *)msg)->seq);
    return id == ORR_MSG_job_cancel ? ORR_ECRASH : ORR_OK;
}

static void held_answer_crosses_when_let_go_and_egone_when_its_actor_ends(void **state)
{
    (void)state;
    probes[1].script = holder;
    start_at_0(asker, addrs[1]);
    assert_int_equal(probes[0].n_seen, 1);
    assert_int_equal(probe_post(systems[1], addrs[1], node_heartbeat, .seq = 5),
                     ORR_OK);
    settle();
    assert_int_equal(probes[0].n_seen, 2);
    assert_int_equal(probes[0].seen[1].id, ORR_MSG_ack);
    start_at_0(asker, addrs[1]);
    assert_int_equal(probe_post(systems[1], addrs[1], job_cancel, .job = ORR_LIT("j")),
                     ORR_OK);
    settle();
    assert_int_equal(probes[0].n_seen, 4);
    assert_int_equal(probes[0].seen[3].code, ORR_EGONE);
    assert_int_equal(probes[0].seen[3].value, ORR_MSG_ping);
    assert_int_equal(probes[0].seen[3].tag, 42);
}

static void stop_of_the_system_tells_askers_of_held_answers(void **state)
{
    (void)state;
    probes[1].script = holder;
    start_at_0(asker, addrs[1]);
    orr_system_stop(systems[1]);
    settle();
    assert_int_equal(probes[0].n_seen, 2);
    assert_int_equal(probes[0].seen[1].code, ORR_EGONE);
    assert_int_equal(probes[0].seen[1].tag, 42);
}

static void relay_over_three_hosts_answers_the_asker(void **state)
{
    (void)state;
    probes[1].script = relayer;
    probes[1].peer = addrs[2];
    probes[2].script = replier;
    start_at_0(asker, addrs[1]);
    assert_int_equal(probes[0].n_seen, 2);
    assert_int_equal(probes[0].seen[1].value, 6);
    assert_int_equal(probes[0].seen[1].tag, 42);
}

static void relay_to_a_lost_host_fails_the_asker(void **state)
{
    (void)state;
    probes[1].script = relayer;
    probes[1].peer = orr_addr_named(ORR_LIT("h9"), ORR_LIT("/p"));
    start_at_0(asker, addrs[1]);
    assert_int_equal(probes[0].n_seen, 2);
    assert_int_equal(probes[0].seen[1].code, ORR_EUNREACH);
}

static void crash_of_the_host_fails_open_asks(void **state)
{
    (void)state;
    probes[1].script = keeper;
    start_at_0(asker, addrs[1]);
    crash(1);
    settle();
    assert_int_equal(probes[0].n_seen, 2);
    assert_int_equal(probes[0].seen[1].code, ORR_EUNREACH);
    assert_int_equal(probes[0].seen[1].tag, 42);
}

static void remote_monitor_is_told_of_a_crash(void **state)
{
    (void)state;
    probes[1].script = crasher;
    start_at_0(watcher, addrs[1]);
    assert_int_equal(probe_post(systems[1], addrs[1], pong, .nonce = 0), ORR_OK);
    settle();
    assert_int_equal(probes[0].n_seen, 2);
    assert_int_equal(probes[0].seen[1].id, ORR_MSG_down);
    assert_int_equal(probes[0].seen[1].value, addrs[1].slot);
    assert_int_equal(probes[0].seen[1].code, ORR_ECRASH);
    start_at_0(watcher, addrs[1]); /* gone already */
    assert_int_equal(probes[0].seen[3].code, ORR_EGONE);
}

static void remote_monitor_is_told_of_a_lost_host(void **state)
{
    (void)state;
    start_at_0(watcher, addrs[1]);
    crash(1);
    settle();
    assert_int_equal(probes[0].n_seen, 2);
    assert_int_equal(probes[0].seen[1].code, ORR_EUNREACH);
    start_at_0(watcher, orr_addr_named(ORR_LIT("h9"), ORR_LIT("/p")));
    assert_int_equal(probes[0].seen[3].code, ORR_EUNREACH);
}

static void watcher_that_is_lost_is_forgotten(void **state)
{
    (void)state;
    start_at_0(watcher, addrs[1]);
    crash(0);
    settle();
    probes[1].script = crasher;
    assert_int_equal(probe_post(systems[1], addrs[1], pong, .nonce = 0), ORR_OK);
    settle();
    struct orr_system_stats stats;
    orr_system_stats(systems[1], &stats);
    assert_int_equal(stats.dead_letters, 0); /* no `down` was sent to nowhere */
}

static void address_of_an_earlier_start_is_refused(void **state)
{
    (void)state;
    struct orr_addr old = addrs[1];
    old.incarnation = 77;
    start_at_0(asker, old);
    assert_int_equal(probes[0].seen[1].code, ORR_EGONE);
}

static void clients_pass_only_the_roles_gate(void **state)
{
    (void)state;
    crash(2);
    boot(2, ORR_ROLE_CLIENT);
    probes[2].script = asker;
    probes[2].peer = addrs[1]; /* its ping is for the fleet only */
    assert_int_equal(probe_post(systems[2], addrs[2], ping, .nonce = 1), ORR_OK);
    settle();
    assert_int_equal(probes[1].n_seen, 0);
    assert_int_equal(probes[2].seen[1].code, ORR_EPERM);
    assert_string_equal(probes[2].seen[1].text,
                        "probe /p: ping is not accepted from a client");
    probes[2].peer = orr_addr_named(ORR_LIT("h1"), ORR_LIT("/system"));
    assert_int_equal(probe_post(systems[2], addrs[2], ping, .nonce = 7), ORR_OK);
    settle();
    assert_int_equal(probes[2].seen[3].value, 7);
}

static void garbage_is_an_error_and_changes_nothing(void **state)
{
    (void)state;
    uint8_t junk[64];
    for (unsigned seed = 0; seed < 2000; seed++) {
        for (size_t i = 0; i < sizeof(junk); i++)
            junk[i] = (uint8_t)((seed * 2654435761u + i * 40503u) >> (i % 13));
        (void)orr_system_receive(
            systems[1], 5, ORR_ROLE_HOST, junk, seed % sizeof(junk));
    }
    assert_int_equal(orr_system_receive(systems[1], 5, ORR_ROLE_HOST, junk, 0),
                     ORR_EPROTO);
    settle();
    assert_int_equal(probes[1].n_seen, 0);
}

static uint32_t captured_timeout_ms;
static uint8_t captured_trace[24];

static enum orr_err capture(struct orr_transport *self,
                            uint64_t peer_host,
                            enum orr_lane lane,
                            const uint8_t *data,
                            size_t len)
{
    (void)self, (void)peer_host, (void)lane;
    size_t at;
    struct orr_msg_envelope envelope;
    assert_int_equal(orr_wire_decode_envelope(data, len, &envelope, &at), ORR_OK);
    if (envelope.msg != ORR_MSG_ping)
        return ORR_OK; /* the acknowledgement of the first request */
    captured_timeout_ms = envelope.timeout_ms;
    assert_int_equal(envelope.trace.len, sizeof(captured_trace));
    memcpy(captured_trace, envelope.trace.ptr, sizeof(captured_trace));
    return ORR_OK;
}

static void trace_and_deadline_go_on_to_the_next_host(void **state)
{
    (void)state;
    static const struct orr_transport_ops ops = {.send = capture};
    struct orr_transport transport = {&ops};
    orr_system_set_transport(systems[0], &transport);
    probes[0].script = asker;
    probes[0].peer = addrs[1];
    uint8_t trace[24];
    for (uint8_t i = 0; i < sizeof(trace); i++)
        trace[i] = i;
    struct orr_msg_envelope envelope = {.msg = ORR_MSG_ping,
                                        .to = addrs[0],
                                        .corr = 9,
                                        .timeout_ms = 40,
                                        .trace = {trace, sizeof(trace)}};
    struct orr_msg_ping ping = {.nonce = 1};
    uint8_t *data;
    size_t len;
    assert_int_equal(
        orr_wire_encode(&envelope, orr_msg_desc_ping(), &ping, &data, &len), ORR_OK);
    assert_int_equal(orr_system_receive(systems[0], 77, ORR_ROLE_HOST, data, len),
                     ORR_OK);
    free(data);
    assert_true(orr_system_step(systems[0]));
    assert_memory_equal(captured_trace, trace, sizeof(trace));
    assert_int_equal(captured_timeout_ms,
                     40); /* of the first asker, not 100 of its own */
}

/* Every client is a peer: what is remembered of them must go when they go. */
static void peer_that_went_is_forgotten(void **state)
{
    (void)state;
    uint32_t before = systems[0]->n_peers;
    for (uint64_t client = 1; client <= 1000; client++) {
        orr_system_peer_up(systems[0], client, 1);
        orr_system_peer_up(systems[0], client + 1000, 1);
        orr_system_peer_down(systems[0], client);
        assert_true(systems[0]->n_peers <= before + client);
    }
    for (uint64_t client = 1001; client <= 2000; client++)
        orr_system_peer_down(systems[0], client);
    assert_int_equal(systems[0]->n_peers, before);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(remote_ask_by_name_is_answered),
        T(remote_refusal_carries_its_text),
        T(remote_deadline_travels),
        T(held_answer_crosses_when_let_go_and_egone_when_its_actor_ends),
        T(stop_of_the_system_tells_askers_of_held_answers),
        T(relay_over_three_hosts_answers_the_asker),
        T(relay_to_a_lost_host_fails_the_asker),
        T(peer_that_went_is_forgotten),
        T(crash_of_the_host_fails_open_asks),
        T(remote_monitor_is_told_of_a_crash),
        T(remote_monitor_is_told_of_a_lost_host),
        T(watcher_that_is_lost_is_forgotten),
        T(address_of_an_earlier_start_is_refused),
        T(clients_pass_only_the_roles_gate),
        T(trace_and_deadline_go_on_to_the_next_host),
        T(garbage_is_an_error_and_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
