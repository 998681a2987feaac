/* SPDX-License-Identifier: Apache-2.0
 * test_kernel_life.c - spawn, stop, supervision, monitors, limits.
 */
#include "kernel_probe.h"
#include "orr_test.h"

enum { N_KIDS = 3 };
static struct probe parent, kids[N_KIDS], other;
static struct probe_clock now;
static struct orr_system *sys;
static struct orr_addr addr_parent, addr_kids[N_KIDS];
static enum orr_restart kids_restart;

static enum orr_err
spawn_kids(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)probe, (void)id, (void)msg;
    for (int i = 0; i < N_KIDS; i++)
        addr_kids[i] = probe_child(ctx, &kids[i], kids_restart);
    return ORR_OK;
}

/* job_cancel: crash; pong: stop oneself; node_heartbeat: the parent stops kid seq */
static enum orr_err
script(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)probe;
    if (id == ORR_MSG_job_cancel)
        return ORR_ECRASH;
    if (id == ORR_MSG_pong)
        orr_stop(ctx, ctx->self);
    if (id == ORR_MSG_node_heartbeat)
        orr_stop(ctx, addr_kids[((const struct orr_msg_node_heartbeat *)msg)->seq]);
    return ORR_OK;
}

static void start(const struct orr_actor_type *type, enum orr_restart restart)
{
    kids_restart = restart;
    parent = (struct probe){.script = script, .on_init = spawn_kids};
    other = (struct probe){.script = script};
    for (int i = 0; i < N_KIDS; i++)
        kids[i] = (struct probe){.script = script};
    static struct orr_addr taken;
    const char *path =
        orr_system_lookup(sys, "/parent", &taken) == ORR_OK ? NULL : "/parent";
    addr_parent = probe_spawn(sys, &parent, type, path, ORR_PERMANENT);
    probe_settle(sys);
    assert_int_equal(kids[2].n_init, 1);
}

static int setup(void **state)
{
    (void)state;
    sys = probe_system(&now, "h1");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    orr_system_stop(sys);
    struct orr_system_stats stats;
    orr_system_stats(sys, &stats);
    assert_int_equal(stats.actors, 1); /* the root itself */
    orr_system_free(sys);
    return 0;
}

static void crash(struct orr_addr who)
{
    assert_int_equal(probe_post(sys, who, job_cancel, .job = ORR_LIT("j")), ORR_OK);
    probe_settle(sys);
}

static void expect_lives(unsigned first, unsigned second, unsigned third)
{
    assert_int_equal(kids[0].n_init, first);
    assert_int_equal(kids[1].n_init, second);
    assert_int_equal(kids[2].n_init, third);
}

static void one_for_one_restarts_the_failed_child_after_its_backoff(void **state)
{
    (void)state;
    start(&probe_type, ORR_PERMANENT);
    crash(addr_kids[1]);
    assert_int_equal(kids[1].n_fini, 1);
    expect_lives(1, 1, 1);
    probe_advance(sys, &now, 49); /* half of backoff_min_ms is the least */
    expect_lives(1, 1, 1);
    probe_advance(sys, &now, 51);
    expect_lives(1, 2, 1);
    assert_false(orr_addr_eq(kids[1].self, addr_kids[1])); /* a new life */
    assert_int_equal(probe_post(sys, addr_kids[1], ping, .nonce = 1), ORR_EGONE);
    assert_int_equal(probe_post(sys, kids[1].self, ping, .nonce = 1), ORR_OK);
}

static void one_for_all_restarts_all_in_order(void **state)
{
    (void)state;
    start(&probe_one_for_all, ORR_PERMANENT);
    crash(addr_kids[1]);
    assert_int_equal(kids[0].n_fini, 1);
    assert_int_equal(kids[2].n_fini, 1);
    probe_advance(sys, &now, 100);
    expect_lives(2, 2, 2);
    crash(kids[2].self);
    probe_advance(sys, &now, 200);
    expect_lives(3, 3, 3);
}

static void rest_for_one_restarts_the_later_ones(void **state)
{
    (void)state;
    start(&probe_rest_for_one, ORR_PERMANENT);
    crash(addr_kids[1]);
    assert_int_equal(kids[0].n_fini, 0);
    assert_int_equal(kids[2].n_fini, 1);
    probe_advance(sys, &now, 100);
    expect_lives(1, 2, 2);
}

static void transient_child_that_stops_by_itself_is_not_restarted(void **state)
{
    (void)state;
    start(&probe_type, ORR_TRANSIENT);
    assert_int_equal(probe_post(sys, addr_kids[0], pong, .nonce = 0), ORR_OK);
    crash(addr_kids[1]);
    probe_advance(sys, &now, 1000);
    expect_lives(1, 2, 1);
    assert_int_equal(kids[0].n_fini, 1);
}

static void permanent_child_is_restarted_unless_its_parent_stopped_it(void **state)
{
    (void)state;
    start(&probe_type, ORR_PERMANENT);
    assert_int_equal(probe_post(sys, addr_kids[0], pong, .nonce = 0), ORR_OK);
    assert_int_equal(probe_post(sys, addr_parent, node_heartbeat, .seq = 1), ORR_OK);
    probe_advance(sys, &now, 1000);
    expect_lives(2, 1, 1);
    assert_int_equal(kids[1].n_fini, 1);
}

static void child_stopped_during_its_backoff_is_not_restarted(void **state)
{
    (void)state;
    start(&probe_type, ORR_PERMANENT);
    crash(addr_kids[0]);
    assert_int_equal(probe_post(sys, addr_parent, node_heartbeat, .seq = 0), ORR_OK);
    probe_advance(sys, &now, 1000);
    expect_lives(1, 1, 1);
    start(&probe_one_for_all, ORR_PERMANENT);
    crash(addr_kids[1]);
    assert_int_equal(probe_post(sys, addr_parent, node_heartbeat, .seq = 1), ORR_OK);
    probe_advance(sys, &now, 1000);
    expect_lives(2, 1, 2);
}

static void failures_of_a_whole_group_are_survived(void **state)
{
    (void)state;
    start(&probe_one_for_all, ORR_PERMANENT);
    for (int i = 0; i < N_KIDS; i++) /* all at once, in one batch of news */
        assert_int_equal(probe_post(sys, kids[i].self, job_cancel, .job = ORR_LIT("j")),
                         ORR_OK);
    probe_advance(sys, &now, 100);
    expect_lives(2, 2, 2);
    start(&probe_strict, ORR_PERMANENT);
    for (int i = 0; i < N_KIDS; i++) /* more than its intensity, all at once */
        assert_int_equal(probe_post(sys, kids[i].self, job_cancel, .job = ORR_LIT("j")),
                         ORR_OK);
    probe_advance(sys, &now, 300);
    assert_int_equal(parent.n_init, 2);
    expect_lives(2, 2, 2);
}

static void nothing_is_spawned_after_the_stop(void **state)
{
    (void)state;
    orr_system_stop(sys);
    struct probe *args = &other;
    struct orr_spawn spawn = {&probe_type, &args, NULL, ORR_TEMPORARY};
    struct orr_addr addr;
    assert_int_equal(orr_system_spawn(sys, &spawn, &addr), ORR_EGONE);
}

static void backoff_doubles(void **state)
{
    (void)state;
    start(&probe_type, ORR_PERMANENT);
    for (unsigned n = 0; n < 4; n++) {
        crash(kids[0].self);
        probe_advance(sys, &now, (50u << n) - 1);
        assert_int_equal(kids[0].n_init, 1 + n);
        probe_advance(sys, &now, (50u << n) + 1);
        assert_int_equal(kids[0].n_init, 2 + n);
    }
}

static void too_many_failures_escalate_to_the_parent(void **state)
{
    (void)state;
    start(&probe_strict, ORR_PERMANENT);
    for (int i = 0; i < 2; i++) {
        crash(kids[0].self);
        probe_advance(sys, &now, 300);
    }
    expect_lives(3, 1, 1);
    crash(kids[0].self);
    assert_int_equal(parent.n_fini, 1);
    assert_int_equal(kids[1].n_fini, 1); /* children go with their parent */
    probe_advance(sys, &now, 200);
    assert_int_equal(parent.n_init, 2); /* the root restarted it, it spawned again */
    expect_lives(4, 2, 2);
}

static void failures_far_apart_do_not_escalate(void **state)
{
    (void)state;
    start(&probe_strict, ORR_PERMANENT);
    for (int i = 0; i < 6; i++) {
        crash(kids[0].self);
        probe_advance(sys, &now, 20000);
    }
    expect_lives(7, 1, 1);
    assert_int_equal(parent.n_init, 1);
}

static void host_gives_up_when_root_actors_keep_failing(void **state)
{
    (void)state;
    start(&probe_type, ORR_TEMPORARY);
    for (int i = 0; i < 11; i++) {
        crash(parent.self);
        for (int j = 0; j < 100 && i < 10 && parent.n_init == (unsigned)i + 1; j++)
            probe_advance(sys, &now, 100);
    }
    struct orr_system_stats stats;
    orr_system_stats(sys, &stats);
    assert_true(stats.has_given_up);
    assert_int_equal(parent.n_init, 11);
    assert_int_equal(parent.n_fini, 11);
}

static void message_to_the_name_waits_for_the_next_life(void **state)
{
    (void)state;
    start(&probe_type, ORR_TEMPORARY);
    struct orr_addr named = orr_addr_named(ORR_LIT("h1"), ORR_LIT("/parent"));
    crash(named);
    assert_int_equal(probe_post(sys, named, ping, .nonce = 4), ORR_OK);
    probe_settle(sys);
    unsigned before = parent.n_seen;
    probe_advance(sys, &now, 100);
    assert_int_equal(parent.n_seen, before + 1);
    assert_int_equal(parent.seen[before].value, 4);
}

static enum orr_err
fail_init(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    (void)id, (void)msg;
    orr_send(ctx, other.self, pong, .nonce = 1);
    return probe->n_init < 3 ? ORR_EIO : ORR_OK;
}

static void failed_init_is_a_failure(void **state)
{
    (void)state;
    other = (struct probe){0};
    probe_spawn(sys, &other, &probe_type, NULL, ORR_TEMPORARY);
    parent = (struct probe){.on_init = fail_init};
    probe_spawn(sys, &parent, &probe_type, NULL, ORR_TRANSIENT);
    probe_advance(sys, &now, 1000);
    assert_int_equal(parent.n_init, 3);
    assert_int_equal(parent.n_fini, 2);
    assert_int_equal(other.n_seen, 1); /* only the effects of the good one */
}

static enum orr_err
watch(struct orr_ctx *ctx, struct probe *probe, uint16_t id, const void *msg)
{
    if (id == ORR_MSG_ping) {
        orr_monitor(ctx, probe->peer, true);
        orr_monitor(ctx, probe->peer, true); /* once is enough */
        if (((const struct orr_msg_ping *)msg)->nonce == 2)
            orr_monitor(ctx, probe->peer, false);
    }
    return ORR_OK;
}

static void monitor_is_told_how_an_actor_ended(void **state)
{
    (void)state;
    start(&probe_type, ORR_TEMPORARY);
    other = (struct probe){.script = watch};
    struct orr_addr addr = probe_spawn(sys, &other, &probe_type, NULL, ORR_TEMPORARY);
    for (int i = 0; i < 3; i++) {
        other.peer = addr_kids[i];
        assert_int_equal(probe_post(sys, addr, ping, .nonce = i == 2 ? 2 : 1), ORR_OK);
        probe_settle(sys);
    }
    crash(addr_kids[0]);
    crash(addr_kids[2]); /* no longer watched */
    assert_int_equal(probe_post(sys, addr_kids[1], pong, .nonce = 1), ORR_OK);
    probe_settle(sys);
    assert_int_equal(other.n_seen, 5);
    assert_int_equal(other.seen[3].id, ORR_MSG_down);
    assert_int_equal(other.seen[3].value, addr_kids[0].slot);
    assert_int_equal(other.seen[3].code, ORR_ECRASH);
    assert_int_equal(other.seen[4].value, addr_kids[1].slot);
    assert_int_equal(other.seen[4].code, ORR_OK);
    other.peer = addr_kids[0]; /* gone already: told at once */
    assert_int_equal(probe_post(sys, addr, ping, .nonce = 1), ORR_OK);
    probe_settle(sys);
    assert_int_equal(other.seen[6].code, ORR_EGONE);
}

static void slots_are_used_again_and_limited(void **state)
{
    (void)state;
    struct orr_system_config config = {
        .host = "small", .incarnation = 1, .actors_max = 4, .clock = &now.clock};
    struct orr_system *small;
    assert_int_equal(orr_system_new(&config, &small, NULL), ORR_OK);
    struct probe three[3] = {
        {.script = script}, {.script = script}, {.script = script}};
    struct orr_addr addr = {0};
    for (int i = 0; i < 3; i++)
        addr = probe_spawn(small, &three[i], &probe_type, NULL, ORR_TEMPORARY);
    struct probe *args = &three[0];
    struct orr_spawn spawn = {&probe_type, &args, NULL, ORR_TEMPORARY};
    struct orr_addr refused;
    assert_int_equal(orr_system_spawn(small, &spawn, &refused), ORR_ENOSPC);
    assert_int_equal(probe_post(small, addr, pong, .nonce = 1), ORR_OK);
    probe_settle(small);
    struct orr_addr next =
        probe_spawn(small, &three[2], &probe_type, NULL, ORR_TEMPORARY);
    assert_int_equal((uint32_t)next.slot, (uint32_t)addr.slot);
    assert_false(orr_addr_eq(next, addr));
    assert_int_equal(probe_post(small, addr, ping, .nonce = 1), ORR_EGONE);
    orr_system_free(small); /* without a stop: everything is freed all the same */
    assert_int_equal(three[0].n_fini, 1);
}

static void path_is_free_again_when_its_actor_is_gone(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++) {
        char path[32];
        for (int j = 0; j < 20; j++) {
            snprintf(path, sizeof(path), "/p/%d", j);
            probe_spawn(sys,
                        &(struct probe){.script = script},
                        &probe_type,
                        path,
                        ORR_TEMPORARY);
            probe_settle(sys);
            struct orr_addr addr;
            assert_int_equal(orr_system_lookup(sys, path, &addr), ORR_OK);
            assert_int_equal(probe_post(sys, addr, pong, .nonce = 1), ORR_OK);
            probe_settle(sys);
            assert_int_equal(orr_system_lookup(sys, path, &addr), ORR_ENOENT);
        }
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(one_for_one_restarts_the_failed_child_after_its_backoff),
        T(one_for_all_restarts_all_in_order),
        T(rest_for_one_restarts_the_later_ones),
        T(transient_child_that_stops_by_itself_is_not_restarted),
        T(permanent_child_is_restarted_unless_its_parent_stopped_it),
        T(child_stopped_during_its_backoff_is_not_restarted),
        T(failures_of_a_whole_group_are_survived),
        T(nothing_is_spawned_after_the_stop),
        T(backoff_doubles),
        T(too_many_failures_escalate_to_the_parent),
        T(failures_far_apart_do_not_escalate),
        T(host_gives_up_when_root_actors_keep_failing),
        T(message_to_the_name_waits_for_the_next_life),
        T(failed_init_is_a_failure),
        T(monitor_is_told_how_an_actor_ended),
        T(slots_are_used_again_and_limited),
        T(path_is_free_again_when_its_actor_is_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
