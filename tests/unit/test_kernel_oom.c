/* SPDX-License-Identifier: Apache-2.0
 * test_kernel_oom.c - the Nth allocation fails, for every N until a whole life of actors goes through: nothing crashes or
 * leaks, every ask is still answered once, and the system recovers.  Memory of messages is bounded.
 */
#include "../../runtime/memory.h"
#include "kernel_probe.h"
#include "orr_test.h"

static struct probe parent, kid;
static struct orr_addr addr_kid;
static unsigned n_open, n_closed;

static enum orr_err
spawn_kid(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)probe, (void)id, (void)msg;
    struct probe *args = &kid;
    struct orr_spawn spawn = {&probe_type, &args, "/kid", ORR_PERMANENT};
    enum orr_err err = orr_spawn(ctx, &spawn, &addr_kid);
    n_open = n_closed = 0; /* asks of an earlier life are void */
    return err;
}

static enum orr_err
parent_script(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)msg;
    if (id == ORR_MSG_ping) {
        char long_text[1000];
        memset(long_text, 'x', sizeof(long_text));
        orr_timer_set(ctx, (uint32_t)probe->number++, 10, 1);
        orr_monitor(ctx, addr_kid, true);
        orr_ask(ctx, addr_kid, 50, 1, ping, .nonce = 1);
        orr_ask(ctx, addr_kid, 50, 2, hello, .host = {long_text, sizeof(long_text)});
        orr_ask(ctx, orr_addr_named(ORR_LIT("h"), ORR_LIT("/none")), 50, 3, stats_get);
        n_open += 3;
    } else if (id == ORR_MSG_pong || id == ORR_MSG_failed || id == ORR_MSG_ack) {
        n_closed++;
    }
    return ORR_OK;
}

static enum orr_err
kid_script(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)msg;
    if (id == ORR_MSG_ping)
        orr_reply(ctx, pong, .nonce = 1);
    if (id == ORR_MSG_job_cancel && probe->number++ == 0)
        return ORR_ECRASH;
    return ORR_OK;
}

/* Returns what is left of the countdown. */
static long live_through(struct probe_clock *now)
{
    parent = (struct probe){.script = parent_script, .on_init = spawn_kid};
    kid = (struct probe){.script = kid_script};
    n_open = n_closed = 0;
    probe_clock_init(now);
    struct orr_system_config config = {
        .host = "h", .incarnation = 1, .seed = 1, .clock = &now->clock};
    struct orr_system *sys;
    if (orr_system_new(&config, &sys, NULL) != ORR_OK)
        return 0;
    struct probe *args = &parent;
    struct orr_spawn spawn = {&probe_type, &args, "/parent", ORR_PERMANENT};
    struct orr_addr addr;
    enum orr_err spawned = orr_system_spawn(sys, &spawn, &addr);
    struct orr_addr to_parent = orr_addr_named(ORR_LIT("h"), ORR_LIT("/parent"));
    struct orr_addr to_kid = orr_addr_named(ORR_LIT("h"), ORR_LIT("/kid"));
    for (int i = 0; i < 3; i++) {
        (void)!probe_post(sys, to_parent, ping, .nonce = 1);
        probe_advance(sys, now, 30);
        (void)!probe_post(sys, to_kid, job_cancel, .job = ORR_LIT("j"));
        probe_advance(sys, now, 500);
    }
    assert_int_equal(n_open, n_closed);
    long left = atomic_exchange(&orri_alloc_countdown, 0);
    if (spawned == ORR_OK) { /* whatever failed: both are there and work */
        probe_advance(sys, now, 20000);
        unsigned before = n_closed;
        assert_int_equal(probe_post(sys, to_parent, ping, .nonce = 1), ORR_OK);
        probe_advance(sys, now, 100);
        assert_int_equal(n_closed, before + 3);
        assert_int_equal(n_open, n_closed);
    }
    orr_system_stop(sys);
    orr_system_free(sys);
    return left;
}

static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    struct probe_clock now;
    long left = 0;
    for (long n = 1; left <= 0; n++) { /* until the countdown outlives the run */
        atomic_store(&orri_alloc_countdown, n);
        left = live_through(&now);
        assert_in_range(n, 1, 2000);
    }
    atomic_store(&orri_alloc_countdown, 0);
}

/* Long asks, whose answers and more are held and partly let go; when something cannot be recorded, an actor ends. */
static enum orr_err
long_asker(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    char text[1000];
    memset(text, 'x', sizeof(text));
    (void)msg;
    if (id == ORR_MSG_ping)
        orr_ask(ctx, probe->peer, 50, 1, hello, .host = {text, sizeof(text)});
    else
        probe->number++; /* answers */
    return ORR_OK;
}

static enum orr_err
long_holder(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    char text[1000];
    memset(text, 'y', sizeof(text));
    if (id == ORR_MSG_hello) {
        orr_hold(ctx, ++probe->number);
        orr_reply(ctx, hello, .host = {text, sizeof(text)});
        orr_monitor(ctx, probe->peer, true);
        orr_send_now(ctx, probe->peer, hello, .host = {text, sizeof(text)});
        orr_ask(ctx, probe->peer, 50, 1, hello, .host = {text, sizeof(text)});
    } else if (id == ORR_MSG_node_heartbeat) {
        orr_release(ctx, ((const struct orr_msg_node_heartbeat *)msg)->seq);
    } else if (id == ORR_MSG_job_cancel) {
        return ORR_ECRASH;
    }
    return ORR_OK;
}

/* Returns what is left of the countdown. */
static long hold_through(long countdown)
{
    struct probe_clock now;
    struct orr_system *sys = probe_system(&now, "h");
    struct probe asking = {.script = long_asker};
    struct probe holding = {.script = long_holder};
    kid = (struct probe){0};
    struct orr_addr asker = probe_spawn(sys, &asking, &probe_type, NULL, ORR_TEMPORARY);
    asking.peer = probe_spawn(sys, &holding, &probe_type, NULL, ORR_TEMPORARY);
    holding.peer = probe_spawn(sys, &kid, &probe_type, NULL, ORR_TEMPORARY);
    probe_settle(sys);
    uint64_t asked = 0;
    atomic_store(&orri_alloc_countdown, countdown);
    for (int i = 0; i < 12; i++) {
        asked += probe_post(sys, asker, ping, .nonce = 1) == ORR_OK;
        probe_settle(sys);
        if (i % 4 == 3)
            (void)!probe_post(
                sys, asking.peer, node_heartbeat, .seq = holding.number - 1);
    }
    (void)!probe_post(sys, asking.peer, job_cancel, .job = ORR_LIT("j"));
    probe_advance(sys, &now, 500);
    long left = atomic_exchange(&orri_alloc_countdown, 0);
    if (asking.n_fini == 0)
        assert_int_equal(asking.number, asked); /* each was answered once */
    if (left > 0)
        assert_int_equal(asking.n_fini, 0);
    orr_system_stop(sys);
    orr_system_free(sys);
    return left;
}

static void holding_back_survives_every_failed_allocation(void **state)
{
    (void)state;
    long left = 0;
    for (long n = 1; left <= 0; n++) {
        left = hold_through(n);
        assert_in_range(n, 1, 2000);
    }
}

static enum orr_err
flood(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)msg, (void)id;
    for (int i = 0; i < 1000; i++)
        orr_send(ctx, probe->peer, pong, .nonce = 1);
    return ORR_OK;
}

static void memory_of_messages_is_bounded(void **state)
{
    (void)state;
    struct probe_clock now;
    probe_clock_init(&now);
    struct orr_system_config config = {.host = "h",
                                       .incarnation = 1,
                                       .message_bytes_max = 64 << 10,
                                       .clock = &now.clock};
    struct orr_system *sys;
    assert_int_equal(orr_system_new(&config, &sys, NULL), ORR_OK);
    parent = (struct probe){.script = flood};
    struct orr_addr addr = probe_spawn(sys, &parent, &probe_type, NULL, ORR_TEMPORARY);
    parent.peer = addr;
    assert_int_equal(probe_post(sys, addr, ping, .nonce = 1), ORR_OK);
    probe_settle(sys);
    assert_int_equal(parent.n_fini,
                     1); /* what it did could not be recorded: it failed */
    char big[50000];
    memset(big, 'x', sizeof(big));
    struct orr_str text = {big, sizeof(big)};
    addr = orr_addr_named(ORR_LIT("h"), ORR_LIT("/system"));
    assert_int_equal(probe_post(sys, addr, hello, .host = text), ORR_ENOMEM);
    struct orr_system_stats stats;
    orr_system_stats(sys, &stats);
    assert_in_range(stats.memory_bytes, 1, 128 << 10);
    orr_system_free(sys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_failed_allocation_is_survived),
        cmocka_unit_test(holding_back_survives_every_failed_allocation),
        cmocka_unit_test(memory_of_messages_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
