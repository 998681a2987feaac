/* SPDX-License-Identifier: Apache-2.0
 * test_follow.c - a follower against real hosts: kernel, ZeroMQ, the events edge.
 * Whatever happens, received + named as missed == published, in order, each once.
 */
#include "events.h"
#include "orr_test.h"
#include "orrery/follow.h"
#include "system.h"
#include "transport_zmq.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

enum { DEADLINE_MS = 30000, KEPT = 20000, BURST = 200000 };

struct replica {
    char name[8];
    char endpoint[ORR_ENDPOINT_MAX];
    struct orr_system *sys;
    struct orr_zmq *zmq;
    struct orr_events *stream;
    struct orr_addr events;
};

static char dir[64];
static struct orr_error error;
static char voters[2][ORR_ENDPOINT_MAX]; /* what /edge/ledger tells */

/* ---- edges that the hosts have ---- */

struct quiet {
    int unused;
};
ORR_HANDLER(quiet, ledger_info_get)
ORR_HANDLER(quiet, events_get)

static enum orr_err quiet_on_ledger_info_get(struct orr_ctx *ctx,
                                             struct quiet *self,
                                             const struct orr_msg_ledger_info_get *msg)
{
    (void)self;
    (void)msg;
    const struct orr_rec_voter rows[] = {{.endpoint = orr_str(voters[0])},
                                         {.endpoint = orr_str(voters[1])}};
    orr_reply(ctx, ledger_info, .voters = {rows, 2});
    return ORR_OK;
}

/* A host that lives, and never answers. */
static enum orr_err quiet_on_events_get(struct orr_ctx *ctx,
                                        struct quiet *self,
                                        const struct orr_msg_events_get *msg)
{
    (void)self;
    (void)msg;
    (void)orr_defer(ctx);
    return ORR_OK;
}

static const struct orr_handler quiet_handlers[] = {
    ORR_ON(quiet, ledger_info_get, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(quiet, events_get, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
};
static const struct orr_actor_type quiet_type = {
    .name = "quiet",
    .state_size = sizeof(struct quiet),
    .handlers = quiet_handlers,
    .n_handlers = ORR_ARRAY_SIZE(quiet_handlers),
};

/* ---- replicas ---- */

static void spawn(struct replica *r,
                  const struct orr_actor_type *type,
                  const void *args,
                  const char *path,
                  struct orr_addr *ret_addr)
{
    const struct orr_spawn s = {type, args, path, ORR_PERMANENT};
    assert_int_equal(orr_system_spawn(r->sys, &s, ret_addr), ORR_OK);
}

static void start(struct replica *r, const char *name, uint32_t life, bool is_mute)
{
    struct orr_addr ledger;
    *r = (struct replica){.sys = NULL};
    snprintf(r->name, sizeof r->name, "%s", name);
    snprintf(r->endpoint, sizeof r->endpoint, "ipc://%s/%s", dir, name);
    const struct orr_system_config config = {
        .host = r->name, .incarnation = life, .workers = 1};
    assert_int_equal(orr_system_new(&config, &r->sys, &error), ORR_OK);
    const struct orr_zmq_config zmq = {
        .system = r->sys, .host = r->name, .incarnation = life, .build = "test"};
    assert_int_equal(orr_zmq_new(&zmq, &r->zmq, &error), ORR_OK);
    assert_int_equal(orr_zmq_listen(r->zmq, r->endpoint, NULL, &error), ORR_OK);
    orr_system_set_transport(r->sys, orr_zmq_transport(r->zmq));
    assert_int_equal(orr_events_new(KEPT, 64 << 20, &r->stream, &error), ORR_OK);
    const struct orr_events_args args = {r->stream};
    if (is_mute)
        spawn(r, &quiet_type, NULL, "/edge/events", &r->events);
    else
        spawn(r, &orr_events_actor, &args, "/edge/events", &r->events);
    spawn(r, &quiet_type, NULL, "/edge/ledger", &ledger);
    assert_int_equal(orr_system_start(r->sys, &error), ORR_OK);
    assert_int_equal(orr_zmq_start(r->zmq, &error), ORR_OK);
}

static void stop(struct replica *r)
{
    if (!r->sys)
        return;
    orr_system_stop(r->sys);
    orr_zmq_stop(r->zmq);
    orr_zmq_free(r->zmq);
    orr_system_free(r->sys);
    orr_events_free(r->stream);
    r->sys = NULL;
}

/* As the region actor does; one that is refused for want of room is sent again, since
 * the count must be exact here. */
static void publish(struct replica *r, uint64_t epoch, uint64_t first, uint64_t last)
{
    for (uint64_t seq = first; seq <= last; seq++) {
        const struct orr_msg_event m = {.epoch = epoch,
                                        .seq = seq,
                                        .id = ORR_LIT("id"),
                                        .source = ORR_LIT("/r1"),
                                        .type = ORR_LIT("job.state"),
                                        .subject = ORR_LIT("job/r1-1"),
                                        .cause = ORR_LIT("\"seq\":77")};
        enum orr_err rc;
        do {
            rc = orr_system_post(
                r->sys, (struct orr_addr){0}, r->events, orr_msg_desc_event(), &m);
        } while (rc == ORR_EBUSY && sched_yield() == 0);
        assert_int_equal(rc, ORR_OK);
    }
}

/* ---- the account ---- */

struct account {
    uint64_t seq; /* of the last event received or named as missed */
    uint64_t received, compacted, overrun;
};

static void take(struct account *a, const struct orr_follow_item *item)
{
    uint64_t n = item->last - item->first + 1;
    if (item->first != a->seq + 1)
        fail_msg("%lu after %lu", (unsigned long)item->first, (unsigned long)a->seq);
    a->received += item->kind == ORR_FOLLOW_EVENT ? n : 0;
    a->compacted += item->kind == ORR_FOLLOW_COMPACTED ? n : 0;
    a->overrun += item->kind == ORR_FOLLOW_OVERRUN ? n : 0;
    a->seq = item->last;
}

static void print_account(const char *who, const struct account *a)
{
    printf("%s: %lu received, %lu overrun, %lu compacted\n",
           who,
           (unsigned long)a->received,
           (unsigned long)a->overrun,
           (unsigned long)a->compacted);
}

/* Read until seq `last` is accounted for. */
static void follow_to(struct orr_follower *f, struct account *a, uint64_t last)
{
    while (a->seq < last) {
        struct orr_follow_item item;
        enum orr_err rc = orr_follower_next(f, DEADLINE_MS, &item, &error);
        if (rc != ORR_OK)
            fail_msg("after %lu: %s", (unsigned long)a->seq, error.text);
        take(a, &item);
    }
    assert_int_equal(a->seq, last);
}

static struct orr_follower *follow(const struct replica *r, uint64_t after)
{
    struct orr_follower *f;
    const struct orr_follow_config config = {.endpoints = r->endpoint, .after = after};
    assert_int_equal(orr_follower_new(&config, &f, &error), ORR_OK);
    return f;
}

/* ---- tests ---- */

static struct replica a, b;

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/orr-follow-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(voters[0], sizeof voters[0], "ipc://%s/a", dir);
    snprintf(voters[1], sizeof voters[1], "ipc://%s/b", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stop(&a);
    stop(&b);
    unlink(voters[0] + strlen("ipc://"));
    unlink(voters[1] + strlen("ipc://"));
    return rmdir(dir);
}

static atomic_uint_fast64_t burst_at;

static void *publish_burst(void *arg)
{
    for (uint64_t seq = 1; seq <= BURST; seq += 1000) {
        publish(arg, 1, seq, seq + 999);
        atomic_store(&burst_at, seq + 999); /* pairs with the load below */
    }
    return NULL;
}

static void burst_to_a_slow_subscriber_is_accounted_for(void **state)
{
    (void)state;
    pthread_t publisher;
    struct account slow = {0}, fast = {0};
    start(&a, "a", 1, false);
    struct orr_follower *f = follow(&a, 0), *g = follow(&a, 0);
    struct orr_follow_item item;
    /* both have been answered once: from now on they must be told of everything */
    publish(&a, 1, 1, 1);
    follow_to(f, &slow, 1);
    follow_to(g, &fast, 1);
    atomic_store(&burst_at, 0);
    assert_int_equal(pthread_create(&publisher, NULL, publish_burst, &a), 0);
    while (atomic_load(&burst_at) < BURST * 3 / 4) { /* pairs with the store above */
        if (orr_follower_next(g, 1, &item, &error) != ORR_OK)
            continue;
        take(&fast, &item);
    }
    follow_to(f, &slow, BURST); /* it slept through most of it */
    follow_to(g, &fast, BURST);
    pthread_join(publisher, NULL);
    print_account("slow", &slow);
    print_account("fast", &fast);
    assert_int_equal(slow.received + slow.overrun + slow.compacted, BURST);
    assert_int_equal(fast.received + fast.overrun + fast.compacted, BURST);
    assert_true(slow.received < BURST);
    orr_follower_free(f);
    orr_follower_free(g);
}

static void what_is_gone_before_joining_is_compacted(void **state)
{
    (void)state;
    struct account from_5 = {.seq = 5}, from_start = {.seq = 1000};
    start(&a, "a", 1, false);
    publish(&a, 1, 1, KEPT + 1000);
    struct orr_follower *f = follow(&a, 5), *g = follow(&a, 0);
    follow_to(f, &from_5, KEPT + 1000);
    assert_true(from_5.compacted == 995 && from_5.received == KEPT);
    follow_to(g, &from_start, KEPT + 1000); /* nothing was promised before */
    assert_true(from_start.compacted == 0 && from_start.received == KEPT);
    orr_follower_free(f);
    orr_follower_free(g);
}

static void follower_goes_on_at_another_replica(void **state)
{
    (void)state;
    struct account all = {0};
    struct orr_follow_item item;
    start(&a, "a", 1, false);
    start(&b, "b", 1, false);
    publish(&a, 7, 1, 3000);
    publish(&b, 7, 1, 2000); /* it has not read everything yet */
    struct orr_follower *f = follow(&a, 0);
    follow_to(f, &all, 3000);
    stop(&a);
    assert_int_equal(orr_follower_next(f, 200, &item, &error), ORR_ETIMEOUT);
    publish(&b, 7, 2001, 5000);
    follow_to(f, &all, 5000);
    assert_string_equal(orr_follower_endpoint(f), b.endpoint);
    assert_true(all.received == 5000);
    start(&a, "a", 2, false); /* a restart: what was retained comes first, again */
    publish(&a, 7, 1, 6000);
    stop(&b);
    follow_to(f, &all, 6000);
    assert_true(all.received == 6000 && all.overrun + all.compacted == 0);
    orr_follower_free(f);
}

static void restart_of_the_only_host_repeats_nothing(void **state)
{
    (void)state;
    struct account all = {0};
    start(&a, "a", 1, false);
    publish(&a, 7, 1, 100);
    struct orr_follower *f = follow(&a, 0);
    follow_to(f, &all, 100);
    stop(&a);
    start(&a, "a", 2, false);
    publish(&a, 7, 21, 200); /* 1..20 are compacted in the ledger */
    follow_to(f, &all, 200);
    publish(&a, 7, 101, 201); /* and once more while it follows */
    follow_to(f, &all, 201);
    assert_true(all.received == 201 && all.overrun + all.compacted == 0);
    orr_follower_free(f);
}

static void new_epoch_is_told(void **state)
{
    (void)state;
    struct account all = {0};
    start(&a, "a", 1, false);
    publish(&a, 1, 1, 10);
    struct orr_follower *f = follow(&a, 0);
    follow_to(f, &all, 10);
    publish(&a, 2, 1, 5);
    struct orr_follow_item item;
    assert_int_equal(orr_follower_next(f, DEADLINE_MS, &item, &error), ORR_OK);
    assert_int_equal(item.kind, ORR_FOLLOW_EPOCH);
    all.seq = 0;
    follow_to(f, &all, 5);
    assert_true(all.received == 15);
    orr_follower_free(f);
}

static void host_that_is_silent_is_left(void **state)
{
    (void)state;
    struct account all = {0};
    start(&a, "a", 1, true);
    start(&b, "b", 1, false);
    publish(&b, 1, 1, 10);
    struct orr_follower *f = follow(&a, 0);
    follow_to(f, &all, 10);
    assert_string_equal(orr_follower_endpoint(f), b.endpoint);
    orr_follower_free(f);
}

static void nobody_there_is_an_error_after_lost_ms(void **state)
{
    (void)state;
    struct orr_follower *f;
    struct orr_follow_item item;
    struct orr_follow_config config = {.endpoints = voters[0], .lost_ms = 300};
    assert_int_equal(orr_follower_new(&config, &f, &error), ORR_OK);
    assert_int_equal(orr_follower_next(f, DEADLINE_MS, &item, &error), ORR_EUNREACH);
    assert_non_null(strstr(error.text, voters[0]));
    orr_follower_free(f);
    config.endpoints = "nonsense";
    assert_int_equal(orr_follower_new(&config, &f, &error), ORR_EINVAL);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(burst_to_a_slow_subscriber_is_accounted_for),
        TEST(what_is_gone_before_joining_is_compacted),
        TEST(follower_goes_on_at_another_replica),
        TEST(restart_of_the_only_host_repeats_nothing),
        TEST(new_epoch_is_told),
        TEST(host_that_is_silent_is_left),
        TEST(nobody_there_is_an_error_after_lost_ms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
