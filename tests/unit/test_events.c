/* SPDX-License-Identifier: Apache-2.0
 * test_events.c - the event stream: contiguous, bounded, replayed without a hole, known
 * events dropped; and its actor: who waits, for how long, and how many may.
 */
#include "events.h"
#include "kernel_probe.h"
#include "orr_test.h"

#include <inttypes.h>

static char buf[1 << 16];

static struct orr_events *new_stream(uint32_t kept_max, size_t bytes_max)
{
    struct orr_events *e;
    assert_int_equal(orr_events_new(kept_max, bytes_max, &e, NULL), ORR_OK);
    return e;
}

static struct orr_msg_event event_of(uint64_t epoch, uint64_t seq)
{
    return (struct orr_msg_event){.epoch = epoch,
                                  .seq = seq,
                                  .id = ORR_LIT("1-1"),
                                  .source = ORR_LIT("/r1"),
                                  .type = ORR_LIT("job.state"),
                                  .subject = seq % 2 ? ORR_LIT("job/r1-1")
                                                     : ORR_LIT("node/n1"),
                                  .time_unix_ms = 1700000000123u,
                                  .from = ORR_LIT("queued"),
                                  .to = ORR_LIT("placing")};
}

static bool publish(struct orr_events *e, uint64_t epoch, uint64_t seq)
{
    struct orr_msg_event m = event_of(epoch, seq);
    return orr_events_publish(e, &m);
}

static struct orr_events_page
replay(struct orr_events *e, uint64_t after, uint32_t limit, const char *topic)
{
    struct orr_events_page p =
        orr_events_replay(e, after, limit, orr_str(topic), buf, sizeof buf - 1);
    buf[p.len] = '\0';
    return p;
}

static unsigned count_lines(void)
{
    unsigned n = 0;
    for (const char *at = buf; *at; at++)
        n += *at == '\n';
    return n;
}

/* ---- the lines ---- */

static void replay_returns_whole_lines_after_seq(void **state)
{
    (void)state;
    struct orr_events *e = new_stream(100, 1 << 20);
    for (uint64_t i = 1; i <= 50; i++)
        assert_true(publish(e, 3, i));
    struct orr_events_page p = replay(e, 40, 5, "");
    assert_true(p.epoch == 3 && p.first_seq == 1 && p.last_seq == 50);
    assert_int_equal(p.through, 45);
    assert_int_equal(count_lines(), 5);
    assert_non_null(strstr(buf, "\"seq\":41,"));
    assert_non_null(strstr(buf, "\"time\":\"2023-11-14T22:13:20.123Z\""));
    assert_int_equal(replay(e, 50, 100, "").len, 0);
    assert_int_equal(replay(e, UINT64_MAX, 100, "").len, 0);
    p = orr_events_replay(
        e, 0, 100, orr_str(""), buf, 300); /* room for one: no halves */
    buf[p.len] = '\0';
    assert_int_equal(count_lines(), 1);
    assert_int_equal(p.through, 1);
    orr_events_free(e);
}

static void topic_filters_and_through_accounts_for_the_rest(void **state)
{
    (void)state;
    struct orr_events *e = new_stream(100, 1 << 20);
    for (uint64_t i = 1; i <= 9; i++)
        publish(e, 3, i);
    assert_int_equal(replay(e, 0, 100, "job/r1-1/").through, 9);
    assert_int_equal(count_lines(), 5);
    assert_null(strstr(buf, "node/n1"));
    assert_int_equal(replay(e, 0, 2, "job/r1-1/job.state/").through, 4);
    assert_int_equal(count_lines(), 2);
    assert_int_equal(replay(e, 0, 100, "job/r1-11/").len, 0);
    orr_events_free(e);
}

static void ring_is_bounded_by_count_and_bytes(void **state)
{
    (void)state;
    struct orr_events *e = new_stream(10, 1 << 20);
    for (uint64_t i = 1; i <= 25; i++)
        publish(e, 1, i);
    assert_int_equal(replay(e, 0, 100, "").first_seq, 16);
    orr_events_free(e);
    e = new_stream(1000, 2000);
    for (uint64_t i = 1; i <= 25; i++)
        publish(e, 1, i);
    struct orr_events_page p = replay(e, 0, 100, "");
    assert_true(p.len <= 2000 && p.len > 1000);
    assert_int_equal(p.last_seq, 25);
    orr_events_free(e);
}

static void new_epoch_starts_over(void **state)
{
    (void)state;
    struct orr_events *e = new_stream(10, 1 << 20);
    publish(e, 1, 1);
    publish(e, 1, 2);
    publish(e, 2, 1);
    struct orr_events_page p = replay(e, 0, 100, "");
    assert_true(p.epoch == 2 && p.first_seq == 1);
    assert_int_equal(count_lines(), 1);
    orr_events_free(e);
}

static void events_sent_again_after_a_restart_are_known(void **state)
{
    (void)state;
    struct orr_events *e = new_stream(100, 1 << 20);
    for (uint64_t i = 5; i <= 9; i++) /* what a restarted region retained */
        assert_true(publish(e, 1, i));
    for (uint64_t i = 5; i <= 9; i++)
        assert_false(publish(e, 1, i));
    assert_true(publish(e, 1, 10));
    struct orr_events_page p = replay(e, 0, 100, "");
    assert_true(p.first_seq == 5 && p.last_seq == 10 && p.through == 10);
    assert_int_equal(count_lines(), 6);
    orr_events_free(e);
}

static void hole_is_never_bridged(void **state)
{
    (void)state;
    struct orr_events *e = new_stream(100, 1 << 20);
    publish(e, 1, 1);
    publish(e, 1, 2);
    publish(e, 1, 4);
    struct orr_events_page p = replay(e, 0, 100, "");
    assert_true(p.first_seq == 4 && p.last_seq == 4 && p.through == 4);
    assert_int_equal(count_lines(), 1);
    orr_events_free(e);
}

/* ---- the actor ---- */

/* Asks what `next` says whenever it gets a ping; lives in the test. */
struct asker {
    struct orr_msg_events_get next;
    unsigned n_pages, n_failed;
    uint64_t through, last_seq;
    uint32_t code;
    unsigned lines;
};
struct asker_state {
    struct asker *asker; /* borrowed: the test's */
};
ORR_HANDLER(asker_state, ping)
ORR_HANDLER(asker_state, events)
ORR_HANDLER(asker_state, failed)

static enum orr_err asker_init(struct orr_ctx *ctx, void *state, const void *args)
{
    (void)ctx;
    memcpy(state, args, sizeof(struct asker_state));
    return ORR_OK;
}

static enum orr_err asker_state_on_ping(struct orr_ctx *ctx,
                                        struct asker_state *self,
                                        const struct orr_msg_ping *msg)
{
    (void)msg;
    struct orr_addr to = orr_addr_named(orr_str("r1"), orr_str("/edge/events"));
    ctx->ops->ask(ctx, to, 60000, 1, orr_msg_desc_events_get(), &self->asker->next);
    return ORR_OK;
}

static enum orr_err asker_state_on_events(struct orr_ctx *ctx,
                                          struct asker_state *self,
                                          const struct orr_msg_events *msg)
{
    (void)ctx;
    self->asker->n_pages++;
    self->asker->through = msg->through;
    self->asker->last_seq = msg->last_seq;
    for (uint32_t i = 0; i < msg->jsonl.len; i++)
        self->asker->lines += msg->jsonl.ptr[i] == '\n';
    return ORR_OK;
}

static enum orr_err asker_state_on_failed(struct orr_ctx *ctx,
                                          struct asker_state *self,
                                          const struct orr_msg_failed *msg)
{
    (void)ctx;
    self->asker->n_failed++;
    self->asker->code = msg->code;
    return ORR_OK;
}

static const struct orr_handler asker_handlers[] = {
    ORR_ON(asker_state, ping, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(asker_state, events, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(asker_state, failed, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
};
static const struct orr_actor_type asker_type = {
    .name = "asker",
    .state_size = sizeof(struct asker_state),
    .args_size = sizeof(struct asker_state),
    .init = asker_init,
    .handlers = asker_handlers,
    .n_handlers = ORR_ARRAY_SIZE(asker_handlers),
};

struct world {
    struct probe_clock clock;
    struct orr_system *sys;
    struct orr_events *stream;
    struct orr_addr events;
};
static struct world w;

static int world_start(void **state)
{
    (void)state;
    w.sys = probe_system(&w.clock, "r1");
    w.stream = new_stream(100, 1 << 20);
    const struct orr_events_args args = {w.stream};
    const struct orr_spawn spawn = {
        &orr_events_actor, &args, "/edge/events", ORR_PERMANENT};
    assert_int_equal(orr_system_spawn(w.sys, &spawn, &w.events), ORR_OK);
    probe_settle(w.sys);
    return 0;
}

static int world_stop(void **state)
{
    (void)state;
    orr_system_stop(w.sys);
    orr_system_free(w.sys);
    orr_events_free(w.stream);
    return 0;
}

static struct orr_addr asker_start(struct asker *asker)
{
    const struct asker_state args = {asker};
    const struct orr_spawn spawn = {&asker_type, &args, NULL, ORR_TEMPORARY};
    struct orr_addr addr;
    assert_int_equal(orr_system_spawn(w.sys, &spawn, &addr), ORR_OK);
    return addr;
}

static void ask(struct orr_addr asker)
{
    assert_int_equal(probe_post(w.sys, asker, ping, .nonce = 0), ORR_OK);
    probe_settle(w.sys);
}

static void tell(uint64_t epoch, uint64_t seq)
{
    struct orr_msg_event m = event_of(epoch, seq);
    assert_int_equal(
        orr_system_post(
            w.sys, (struct orr_addr){0}, w.events, orr_msg_desc_event(), &m),
        ORR_OK);
    probe_settle(w.sys);
}

static void request_waits_for_the_next_event(void **state)
{
    (void)state;
    struct asker a = {.next = {.wait_ms = 1000}};
    struct orr_addr addr = asker_start(&a);
    ask(addr);
    assert_int_equal(a.n_pages, 0);
    tell(1, 1);
    assert_true(a.n_pages == 1 && a.lines == 1 && a.through == 1);
    a.next.after = 1;
    ask(addr);
    tell(1, 1); /* known: nobody hears of it twice */
    assert_int_equal(a.n_pages, 1);
    tell(1, 2);
    assert_true(a.n_pages == 2 && a.lines == 2 && a.through == 2);
    a.next.wait_ms = 0;
    a.next.after = 2;
    ask(addr);
    assert_true(a.n_pages == 3 && a.lines == 2);
}

static void heartbeat_is_an_empty_page_when_the_wait_is_over(void **state)
{
    (void)state;
    struct asker a = {.next = {.wait_ms = 1000, .topic = ORR_LIT("job/r1-9/")}};
    struct orr_addr addr = asker_start(&a);
    ask(addr);
    tell(1, 1); /* of another job */
    probe_advance(w.sys, &w.clock, 900);
    assert_int_equal(a.n_pages, 0);
    probe_advance(w.sys, &w.clock, 200);
    assert_true(a.n_pages == 1 && a.lines == 0 && a.through == 1 && a.last_seq == 1);
    a.next.wait_ms = UINT32_MAX; /* nobody waits longer than the limit */
    ask(addr);
    probe_advance(w.sys, &w.clock, ORR_EVENTS_WAIT_MAX_MS + 100);
    assert_int_equal(a.n_pages, 2);
}

static void asker_waits_once(void **state)
{
    (void)state;
    struct asker a = {.next = {.wait_ms = 5000}};
    struct orr_addr addr = asker_start(&a);
    for (unsigned i = 0; i < 1000; i++)
        ask(addr);
    assert_int_equal(a.n_pages, 999);
    tell(1, 1);
    assert_true(a.n_pages == 1000 && a.lines == 1 && a.n_failed == 0);
}

static void those_who_wait_are_limited_and_told(void **state)
{
    (void)state;
    static struct asker all[ORR_EVENTS_WAITERS_MAX];
    struct asker more = {.next = {.wait_ms = 5000}};
    for (unsigned i = 0; i < ORR_ARRAY_SIZE(all); i++) {
        all[i] = (struct asker){.next = {.wait_ms = 5000}};
        ask(asker_start(&all[i]));
    }
    struct orr_addr addr = asker_start(&more);
    ask(addr);
    assert_true(more.n_failed == 1 && more.code == ORR_EBUSY);
    tell(1, 1);
    for (unsigned i = 0; i < ORR_ARRAY_SIZE(all); i++)
        assert_true(all[i].n_pages == 1 && all[i].lines == 1);
    more.next.after = 1;
    ask(addr);
    tell(1, 2);
    assert_true(more.n_pages == 1 && more.through == 2);
}

static void epoch_that_is_over_is_stale_and_one_not_read_yet_is_not(void **state)
{
    (void)state;
    struct asker a = {.next = {.epoch = 4, .wait_ms = 5000}};
    struct orr_addr addr = asker_start(&a);
    ask(addr); /* no event here yet: it still reads the ledger */
    assert_true(a.n_failed == 1 && a.code == ORR_EBUSY);
    tell(4, 1);
    a.next.after = 1;
    ask(addr);
    tell(5, 1); /* while it waits */
    assert_true(a.n_failed == 2 && a.code == ORR_ESTALE && a.n_pages == 0);
    ask(addr);
    assert_true(a.n_failed == 3 && a.code == ORR_ESTALE);
}

static void long_topic_is_refused(void **state)
{
    (void)state;
    static char topic[ORR_EVENTS_TOPIC_MAX + 1];
    memset(topic, 'x', sizeof topic);
    struct asker a = {.next = {.wait_ms = 5000, .topic = {topic, sizeof topic}}};
    ask(asker_start(&a));
    assert_true(a.n_failed == 1 && a.code == ORR_EINVAL);
}

#define ON_ACTOR(test) cmocka_unit_test_setup_teardown(test, world_start, world_stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replay_returns_whole_lines_after_seq),
        cmocka_unit_test(topic_filters_and_through_accounts_for_the_rest),
        cmocka_unit_test(ring_is_bounded_by_count_and_bytes),
        cmocka_unit_test(new_epoch_starts_over),
        cmocka_unit_test(events_sent_again_after_a_restart_are_known),
        cmocka_unit_test(hole_is_never_bridged),
        ON_ACTOR(request_waits_for_the_next_event),
        ON_ACTOR(heartbeat_is_an_empty_page_when_the_wait_is_over),
        ON_ACTOR(asker_waits_once),
        ON_ACTOR(those_who_wait_are_limited_and_told),
        ON_ACTOR(epoch_that_is_over_is_stale_and_one_not_read_yet_is_not),
        ON_ACTOR(long_topic_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
