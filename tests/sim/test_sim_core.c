/* SPDX-License-Identifier: Apache-2.0
 * test_sim_core.c - the simulator itself: determinism, faults of the network, partitions, crash and restart, invariants.
 */
#include "../../runtime/sim.h"
#include "orr_test.h"

enum { PEERS = 5, EVERY_MS = 100, TIMEOUT_MS = 1000 };

/* Every host has one actor that asks the next host every 100 ms, numbered, one ask after another. */
struct ring_node {
    uint32_t index;
    uint32_t n;
    uint64_t seq;
    uint64_t last_seen;
    uint32_t asker_life; /* whose that was */
    bool is_waiting;
};

static struct counters {
    uint64_t asked, answered, failed, twice, out_of_order, boots;
} count;

static struct orr_addr next_addr(const struct ring_node *self)
{
    char name[16];
    int n = snprintf(name, sizeof(name), "n%u", (self->index + 1) % self->n);
    return orr_addr_named((struct orr_str){name, (uint32_t)n}, ORR_LIT("/ring"));
}

static enum orr_err ring_node_init(struct orr_ctx *ctx, void *state, const void *args)
{
    memcpy(state, args, sizeof(struct ring_node));
    orr_timer_set(ctx, 1, orr_random(ctx) % EVERY_MS, 0);
    return ORR_OK;
}

ORR_HANDLER(ring_node, timer)
static enum orr_err ring_node_on_timer(struct orr_ctx *ctx,
                                       struct ring_node *self,
                                       const struct orr_msg_timer *msg)
{
    (void)msg;
    orr_timer_set(ctx, 1, EVERY_MS, 0);
    if (!self->is_waiting) {
        self->is_waiting = true;
        self->seq++;
        count.asked++;
        orr_ask(ctx, next_addr(self), TIMEOUT_MS, self->seq, ping, .nonce = self->seq);
    }
    return ORR_OK;
}

ORR_HANDLER(ring_node, ping)
static enum orr_err ring_node_on_ping(struct orr_ctx *ctx,
                                      struct ring_node *self,
                                      const struct orr_msg_ping *msg)
{
    bool is_same_life = ctx->from.incarnation == self->asker_life;
    count.twice += is_same_life && msg->nonce == self->last_seen;
    count.out_of_order += is_same_life && msg->nonce < self->last_seen;
    self->asker_life = ctx->from.incarnation;
    self->last_seen = msg->nonce;
    orr_reply(ctx, pong, .nonce = msg->nonce);
    return ORR_OK;
}

ORR_HANDLER(ring_node, pong)
static enum orr_err ring_node_on_pong(struct orr_ctx *ctx,
                                      struct ring_node *self,
                                      const struct orr_msg_pong *msg)
{
    assert_true(self->is_waiting);
    assert_int_equal(msg->nonce, self->seq);
    assert_int_equal(ctx->tag, self->seq);
    self->is_waiting = false;
    count.answered++;
    return ORR_OK;
}

ORR_HANDLER(ring_node, failed)
static enum orr_err ring_node_on_failed(struct orr_ctx *ctx,
                                        struct ring_node *self,
                                        const struct orr_msg_failed *msg)
{
    (void)msg;
    assert_true(self->is_waiting);
    assert_int_equal(ctx->tag, self->seq);
    self->is_waiting = false;
    count.failed++;
    return ORR_OK;
}

static const struct orr_handler handlers[] = {
    ORR_ON(ring_node, timer, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(ring_node, ping, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(ring_node, pong, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(ring_node, failed, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
};
static const struct orr_actor_type ring_type = {
    .name = "ring",
    .state_size = sizeof(struct ring_node),
    .args_size = sizeof(struct ring_node),
    .init = ring_node_init,
    .handlers = handlers,
    .n_handlers = ORR_ARRAY_SIZE(handlers),
};

static uint32_t n_nodes;

static void boot(void *arg, struct orr_sim *sim, uint32_t host)
{
    (void)arg;
    struct ring_node node = {.index = host, .n = n_nodes};
    struct orr_spawn spawn = {&ring_type, &node, "/ring", ORR_PERMANENT};
    struct orr_addr addr;
    assert_int_equal(orr_system_spawn(orr_sim_system(sim, host), &spawn, &addr),
                     ORR_OK);
    count.boots++;
}

static struct orr_sim *
new_sim(uint64_t seed, uint32_t n, struct orr_sim_faults faults, orr_sim_check_f check)
{
    memset(&count, 0, sizeof(count));
    n_nodes = n;
    struct orr_sim_config config = {
        .seed = seed, .boot = boot, .check = check, .faults = faults, .actors_max = 64};
    struct orr_sim *sim;
    assert_int_equal(orr_sim_new(&config, &sim), ORR_OK);
    for (uint32_t i = 0; i < n; i++) {
        char name[16];
        snprintf(name, sizeof(name), "n%u", i);
        uint32_t host;
        assert_int_equal(orr_sim_host_add(sim, name, &host), ORR_OK);
        assert_int_equal(host, i);
    }
    return sim;
}

static void run(struct orr_sim *sim, uint64_t ms)
{
    struct orr_error err = {.text = ""};
    if (orr_sim_run_until(sim, orr_sim_now_ms(sim) + ms, NULL, NULL, &err) != ORR_OK)
        fail_msg("%s", err.text);
}

static const struct orr_sim_faults calm = {.delay_min_ms = 1, .delay_max_ms = 5};
static const struct orr_sim_faults rough = {.delay_min_ms = 1,
                                            .delay_max_ms = 50,
                                            .loss_ppm = 50000,
                                            .duplicate_ppm = 50000,
                                            .reorder_ppm = 50000};

static void crash_event(void *arg, struct orr_sim *sim, uint64_t host)
{
    (void)arg;
    orr_sim_crash(sim, (uint32_t)host);
}

static void restart_event(void *arg, struct orr_sim *sim, uint64_t host)
{
    (void)arg;
    assert_int_equal(orr_sim_restart(sim, (uint32_t)host), ORR_OK);
}

static uint64_t rough_hash(uint64_t seed, struct counters *ret_count)
{
    struct orr_sim *sim = new_sim(seed, PEERS, rough, NULL);
    for (uint64_t i = 0; i < 10; i++) {
        assert_int_equal(orr_sim_at(sim, 3000 + i * 5000, crash_event, NULL, i % PEERS),
                         ORR_OK);
        assert_int_equal(
            orr_sim_at(sim, 5500 + i * 5000, restart_event, NULL, i % PEERS), ORR_OK);
    }
    run(sim, 60000);
    uint64_t hash = orr_sim_hash(sim);
    *ret_count = count;
    orr_sim_free(sim);
    return hash;
}

static void same_seed_same_trace(void **state)
{
    (void)state;
    struct counters first, again, other;
    uint64_t hash = rough_hash(1, &first);
    assert_true(hash == rough_hash(1, &again));
    assert_memory_equal(&first, &again, sizeof(first));
    assert_false(hash == rough_hash(2, &other));
    assert_true(first.failed > 0 && first.twice > 0 && first.out_of_order == 0);
    assert_int_equal(first.boots, PEERS + 10);
}

static void calm_network_loses_and_repeats_nothing(void **state)
{
    (void)state;
    struct orr_sim *sim = new_sim(3, PEERS, calm, NULL);
    run(sim, 20000);
    orr_sim_free(sim);
    assert_true(count.answered >= PEERS * (20000 / EVERY_MS - 2));
    assert_int_equal(count.failed + count.twice + count.out_of_order, 0);
}

static void loss_makes_asks_fail_once_each(void **state)
{
    (void)state;
    struct orr_sim_faults lossy = calm;
    lossy.loss_ppm = 200000;
    struct orr_sim *sim = new_sim(4, PEERS, lossy, NULL);
    run(sim, 60000);
    orr_sim_free(sim);
    assert_true(count.failed > 0 && count.answered > 0);
    assert_in_range(count.asked - count.answered - count.failed, 0, PEERS);
    /* both ways must go well: 0.8 * 0.8 */
    assert_in_range(100 * count.answered / (count.answered + count.failed), 55, 73);
}

static void partition_stops_and_heals(void **state)
{
    (void)state;
    struct orr_sim *sim = new_sim(5, 2, calm, NULL);
    run(sim, 2000);
    assert_int_equal(count.failed, 0);
    orr_sim_side_set(sim, 1, 1);
    run(sim, 5000);
    uint64_t failed = count.failed;
    uint64_t answered = count.answered;
    assert_true(failed > 4);
    run(sim, 2000);
    assert_int_equal(count.answered, answered);
    orr_sim_side_set(sim, 1, 0);
    run(sim, 2000);
    failed = count.failed;
    run(sim, 5000);
    assert_int_equal(count.failed, failed);
    assert_true(count.answered > answered + 50);
    orr_sim_free(sim);
}

static bool all_restarted(void *arg, struct orr_sim *sim)
{
    (void)arg, (void)sim;
    return count.boots == 3;
}

static void crashed_host_is_silent_until_it_restarts(void **state)
{
    (void)state;
    struct orr_sim *sim = new_sim(6, 2, calm, NULL);
    run(sim, 1000);
    orr_sim_crash(sim, 1);
    assert_null(orr_sim_system(sim, 1));
    uint64_t answered = count.answered;
    run(sim, 3000);
    assert_int_equal(count.answered, answered);
    assert_true(count.failed > 0);
    assert_int_equal(orr_sim_at(sim, orr_sim_now_ms(sim) + 500, restart_event, NULL, 1),
                     ORR_OK);
    struct orr_error err;
    assert_int_equal(orr_sim_run_until(sim, 100000, all_restarted, NULL, &err), ORR_OK);
    assert_true(orr_sim_now_ms(sim) < 5000);
    run(sim, 2000);
    assert_true(count.answered > answered);
    assert_int_equal(orr_sim_run_until(sim, orr_sim_now_ms(sim) + 10, NULL, NULL, &err),
                     ORR_OK);
    orr_sim_free(sim);
}

static bool few_answers(void *arg, struct orr_sim *sim, char *text, size_t cap)
{
    (void)arg, (void)sim;
    snprintf(text, cap, "10 answers are too many");
    return count.answered < 10;
}

static uint64_t asked_in_a_minute(int32_t drift_ppm)
{
    struct orr_sim *sim = new_sim(9, 1, calm, NULL);
    assert_int_equal(orr_sim_drift_set(sim, 0, drift_ppm), ORR_OK);
    run(sim, 60000);
    orr_sim_free(sim);
    return count.asked;
}

static void clock_that_drifts_fires_timers_early_or_late(void **state)
{
    (void)state;
    uint64_t plain = asked_in_a_minute(0);
    uint64_t fast = asked_in_a_minute(100000);
    uint64_t slow = asked_in_a_minute(-100000);
    assert_in_range(plain, 595, 601);
    assert_in_range(fast, plain + 50, plain + 65);
    assert_in_range(slow, plain - 65, plain - 50);
    struct orr_sim *sim = new_sim(9, 1, calm, NULL);
    assert_int_equal(orr_sim_drift_set(sim, 0, 600000), ORR_EINVAL);
    assert_int_equal(orr_sim_drift_set(sim, 1, 0), ORR_EINVAL);
    orr_sim_free(sim);
}

static void broken_invariant_ends_the_run_with_its_seed(void **state)
{
    (void)state;
    struct orr_sim *sim = new_sim(8, 2, calm, few_answers);
    struct orr_error err = {.text = ""};
    assert_int_equal(orr_sim_run_until(sim, 100000, NULL, NULL, &err), ORR_ESTATE);
    assert_int_equal(count.answered, 10);
    assert_non_null(strstr(err.text, "seed 8"));
    assert_non_null(strstr(err.text, "10 answers are too many"));
    orr_sim_free(sim);
}

static void a_thousand_hosts_run(void **state)
{
    (void)state;
    struct orr_sim *sim = new_sim(9, 1000, calm, NULL);
    run(sim, 3000);
    orr_sim_free(sim);
    assert_true(count.answered > 1000 * 27);
    assert_int_equal(count.failed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_seed_same_trace),
        cmocka_unit_test(calm_network_loses_and_repeats_nothing),
        cmocka_unit_test(loss_makes_asks_fail_once_each),
        cmocka_unit_test(partition_stops_and_heals),
        cmocka_unit_test(crashed_host_is_silent_until_it_restarts),
        cmocka_unit_test(clock_that_drifts_fires_timers_early_or_late),
        cmocka_unit_test(broken_invariant_ends_the_run_with_its_seed),
        cmocka_unit_test(a_thousand_hosts_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
