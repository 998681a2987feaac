/* SPDX-License-Identifier: Apache-2.0
 * suite.c - see suite.h.
 */
#include "suite.h"

#include "orr_test.h"

#include <time.h>

enum { DEADLINE_MS = 20000, ASK_MS = 15000, BURST = 2000, BIG = ORR_BYTES_MAX };

static uint8_t big[BIG];

static uint64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* ---- actors ---- */

struct member {
    struct net_host *host; /* borrowed: of the test */
    struct orr_addr target;
};

static enum orr_err member_init(struct orr_ctx *ctx, void *state, const void *args)
{
    (void)ctx;
    memcpy(state, args, sizeof(struct member));
    return ORR_OK;
}

struct echo {
    struct member member;
};

ORR_HANDLER(echo, ping)
static enum orr_err
echo_on_ping(struct orr_ctx *ctx, struct echo *self, const struct orr_msg_ping *msg)
{
    struct net_host *host = self->member.host;
    pthread_mutex_lock(&host->net->lock);
    host->notes.unordered += msg->nonce != host->notes.next_nonce;
    host->notes.next_nonce = msg->nonce + 1;
    host->notes.role = ctx->from_role;
    host->notes.pings++;
    pthread_mutex_unlock(&host->net->lock);
    orr_reply(ctx, pong, .nonce = msg->nonce);
    return ORR_OK;
}

ORR_HANDLER(echo, log_chunk)
static enum orr_err echo_on_log_chunk(struct orr_ctx *ctx,
                                      struct echo *self,
                                      const struct orr_msg_log_chunk *msg)
{
    (void)ctx;
    struct net_host *host = self->member.host;
    pthread_mutex_lock(&host->net->lock);
    if (msg->data.len == BIG && memcmp(msg->data.ptr, big, BIG) == 0)
        host->notes.bytes += BIG;
    pthread_mutex_unlock(&host->net->lock);
    return ORR_OK;
}

ORR_HANDLER(echo, job_cancel)
static enum orr_err echo_on_job_cancel(struct orr_ctx *ctx,
                                       struct echo *self,
                                       const struct orr_msg_job_cancel *msg)
{
    (void)self;
    return orr_refuse(ctx, ORR_ENOENT, "job %.*s: no such job", ORR_STR_ARGS(msg->job));
}

/* Never answered. */
ORR_HANDLER(echo, job_wait)
static enum orr_err echo_on_job_wait(struct orr_ctx *ctx,
                                     struct echo *self,
                                     const struct orr_msg_job_wait *msg)
{
    (void)msg;
    struct net_host *host = self->member.host;
    (void)orr_defer(ctx);
    pthread_mutex_lock(&host->net->lock);
    host->notes.pings++;
    pthread_mutex_unlock(&host->net->lock);
    return ORR_OK;
}

static const struct orr_handler echo_handlers[] = {
    ORR_ON(echo, ping, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(echo, log_chunk, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(echo, job_cancel, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(echo, job_wait, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
};

static const struct orr_actor_type echo_type = {
    .name = "echo",
    .state_size = sizeof(struct echo),
    .args_size = sizeof(struct member),
    .init = member_init,
    .handlers = echo_handlers,
    .n_handlers = ORR_ARRAY_SIZE(echo_handlers),
};

/* Lives for one request or one burst: what it is told to do comes in a local message. */
struct asker {
    struct member member;
};

ORR_HANDLER(asker, ping) /* ask the target */
static enum orr_err
asker_on_ping(struct orr_ctx *ctx, struct asker *self, const struct orr_msg_ping *msg)
{
    orr_ask(ctx, self->member.target, ASK_MS, msg->nonce, ping, .nonce = msg->nonce);
    return ORR_OK;
}

ORR_HANDLER(asker, timer) /* tell the target BURST things */
static enum orr_err
asker_on_timer(struct orr_ctx *ctx, struct asker *self, const struct orr_msg_timer *msg)
{
    for (uint64_t i = 0; i < msg->arg; i++)
        orr_send(ctx, self->member.target, ping, .nonce = i);
    return ORR_OK;
}

ORR_HANDLER(asker, log_chunk)
static enum orr_err asker_on_log_chunk(struct orr_ctx *ctx,
                                       struct asker *self,
                                       const struct orr_msg_log_chunk *msg)
{
    orr_send(ctx, self->member.target, log_chunk, .data = msg->data);
    return ORR_OK;
}

ORR_HANDLER(asker, job_cancel)
static enum orr_err asker_on_job_cancel(struct orr_ctx *ctx,
                                        struct asker *self,
                                        const struct orr_msg_job_cancel *msg)
{
    orr_ask(ctx, self->member.target, ASK_MS, 1, job_cancel, .job = msg->job);
    return ORR_OK;
}

ORR_HANDLER(asker, log_read) /* ask for what is never answered, for max_bytes ms */
static enum orr_err asker_on_log_read(struct orr_ctx *ctx,
                                      struct asker *self,
                                      const struct orr_msg_log_read *msg)
{
    orr_ask(ctx, self->member.target, msg->max_bytes, 1, job_wait, .job = msg->job);
    return ORR_OK;
}

ORR_HANDLER(asker, stats_get) /* watch the target */
static enum orr_err asker_on_stats_get(struct orr_ctx *ctx,
                                       struct asker *self,
                                       const struct orr_msg_stats_get *msg)
{
    (void)msg;
    orr_monitor(ctx, self->member.target, true);
    return ORR_OK;
}

ORR_HANDLER(asker, pong)
static enum orr_err
asker_on_pong(struct orr_ctx *ctx, struct asker *self, const struct orr_msg_pong *msg)
{
    struct net_host *host = self->member.host;
    pthread_mutex_lock(&host->net->lock);
    host->notes.pongs += ctx->tag == msg->nonce;
    host->notes.pong_nonce = msg->nonce;
    pthread_mutex_unlock(&host->net->lock);
    return ORR_OK;
}

ORR_HANDLER(asker, failed)
static enum orr_err asker_on_failed(struct orr_ctx *ctx,
                                    struct asker *self,
                                    const struct orr_msg_failed *msg)
{
    (void)ctx;
    struct net_host *host = self->member.host;
    pthread_mutex_lock(&host->net->lock);
    host->notes.failures++;
    host->notes.code = msg->code;
    orr_str_copy(host->notes.text, sizeof(host->notes.text), msg->text);
    pthread_mutex_unlock(&host->net->lock);
    return ORR_OK;
}

ORR_HANDLER(asker, down)
static enum orr_err
asker_on_down(struct orr_ctx *ctx, struct asker *self, const struct orr_msg_down *msg)
{
    (void)ctx;
    struct net_host *host = self->member.host;
    pthread_mutex_lock(&host->net->lock);
    host->notes.downs++;
    host->notes.code = msg->why;
    pthread_mutex_unlock(&host->net->lock);
    return ORR_OK;
}

static const struct orr_handler asker_handlers[] = {
    ORR_ON(asker, ping, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(asker, timer, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(asker, log_chunk, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(asker, job_cancel, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(asker, log_read, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(asker, stats_get, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(asker, pong, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(asker, failed, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(asker, down, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
};

static const struct orr_actor_type asker_type = {
    .name = "asker",
    .state_size = sizeof(struct asker),
    .args_size = sizeof(struct member),
    .init = member_init,
    .handlers = asker_handlers,
    .n_handlers = ORR_ARRAY_SIZE(asker_handlers),
};

/* ---- hosts ---- */

static void host_start(struct net *net, struct net_host *host)
{
    struct orr_error err;
    struct orr_system *system;
    struct orr_addr addr;
    const struct orr_system_config config = {
        .host = host->name,
        .incarnation = host->incarnation++,
        .workers = net->ops->workers,
        .seed = 1,
    };
    const struct member member = {.host = host};
    const struct orr_spawn spawn = {
        .type = &echo_type, .args = &member, .path = "/echo"};
    assert_int_equal(orr_system_new(&config, &system, &err), ORR_OK);
    host->system = system;
    net->ops->join(net, host);
    assert_int_equal(orr_system_spawn(system, &spawn, &addr), ORR_OK);
    assert_int_equal(orr_system_start(system, &err), ORR_OK);
    pthread_mutex_lock(&net->lock);
    memset(&host->notes, 0, sizeof(host->notes));
    host->notes.echo = addr;
    pthread_mutex_unlock(&net->lock);
}

static void host_crash(struct net *net, struct net_host *host)
{
    net->ops->leave(net, host);
    orr_system_stop(host->system);
    orr_system_free(host->system);
    host->system = NULL;
}

/* An asker on host for `target`. */
static struct orr_addr asker_of(struct net_host *host, struct orr_addr target)
{
    struct orr_addr addr;
    const struct member member = {.host = host, .target = target};
    const struct orr_spawn spawn = {.type = &asker_type, .args = &member};
    assert_int_equal(orr_system_spawn(host->system, &spawn, &addr), ORR_OK);
    return addr;
}

static struct orr_addr echo_at(const struct net_host *host)
{
    return orr_addr_named(orr_str(host->name), ORR_LIT("/echo"));
}

#define POST(host, to, name, ...)                                                      \
    assert_int_equal(                                                                  \
        orr_system_post((host)->system,                                                \
                        (struct orr_addr){0},                                          \
                        (to),                                                          \
                        orr_msg_desc_##name(),                                         \
                        &(struct orr_msg_##name){.end_ = 0, __VA_ARGS__}),             \
        ORR_OK)

static uint64_t note(struct net *net, const uint64_t *count)
{
    pthread_mutex_lock(&net->lock);
    uint64_t n = *count;
    pthread_mutex_unlock(&net->lock);
    return n;
}

static void wait_for(struct net *net, const uint64_t *count, uint64_t n)
{
    uint64_t deadline = now_ms() + DEADLINE_MS;
    while (note(net, count) < n) {
        if (now_ms() > deadline)
            fail_msg("%llu of %llu came",
                     (unsigned long long)note(net, count),
                     (unsigned long long)n);
        net->ops->pump(net);
    }
}

/* Ask until it is answered: links come up in their own time. */
static void wait_for_link(struct net *net, struct net_host *from, struct net_host *to)
{
    struct orr_addr asker = asker_of(from, echo_at(to));
    uint64_t deadline = now_ms() + DEADLINE_MS;
    for (uint64_t done = 0; note(net, &from->notes.pongs) == 0; done++) {
        assert_true(now_ms() < deadline);
        POST(from, asker, ping, .nonce = 0);
        while (note(net, &from->notes.pongs) + note(net, &from->notes.failures) <= done)
            net->ops->pump(net);
    }
    pthread_mutex_lock(&net->lock);
    from->notes = (struct notes){.echo = from->notes.echo};
    to->notes = (struct notes){.echo = to->notes.echo};
    pthread_mutex_unlock(&net->lock);
}

static int setup(void **state)
{
    static struct net net;
    net = (struct net){.ops = &net_under_test};
    net.a = (struct net_host){.net = &net, .name = "a", .incarnation = 1};
    net.b = (struct net_host){.net = &net, .name = "b", .incarnation = 1};
    pthread_mutex_init(&net.lock, NULL);
    net.ops->open(&net);
    host_start(&net, &net.a);
    host_start(&net, &net.b);
    wait_for_link(&net, &net.b, &net.a);
    wait_for_link(&net, &net.a, &net.b);
    *state = &net;
    return 0;
}

static int teardown(void **state)
{
    struct net *net = *state;
    if (net->b.system)
        host_crash(net, &net->b);
    host_crash(net, &net->a);
    net->ops->close(net);
    pthread_mutex_destroy(&net->lock);
    return 0;
}

/* ---- tests ---- */

static void ask_is_answered_in_both_directions(void **state)
{
    struct net *net = *state;
    POST(&net->a, asker_of(&net->a, echo_at(&net->b)), ping, .nonce = 11);
    POST(&net->b, asker_of(&net->b, echo_at(&net->a)), ping, .nonce = 22);
    wait_for(net, &net->a.notes.pongs, 1);
    wait_for(net, &net->b.notes.pongs, 1);
    assert_int_equal(note(net, &net->a.notes.pong_nonce), 11);
    assert_int_equal(note(net, &net->b.notes.pong_nonce), 22);
    assert_int_equal(net->b.notes.role, ORR_ROLE_HOST);
}

static void refusal_arrives_with_its_code_and_text(void **state)
{
    struct net *net = *state;
    POST(&net->a,
         asker_of(&net->a, echo_at(&net->b)),
         job_cancel,
         .job = ORR_LIT("eu1-7"));
    wait_for(net, &net->a.notes.failures, 1);
    assert_int_equal(note(net, &net->a.notes.code), ORR_ENOENT);
    assert_string_equal(net->a.notes.text, "job eu1-7: no such job");
}

static void burst_arrives_once_and_in_order(void **state)
{
    struct net *net = *state;
    POST(&net->a, asker_of(&net->a, echo_at(&net->b)), timer, .arg = BURST);
    wait_for(net, &net->b.notes.pings, BURST);
    POST(&net->a, asker_of(&net->a, echo_at(&net->b)), ping, .nonce = BURST);
    wait_for(net, &net->a.notes.pongs, 1);
    assert_int_equal(note(net, &net->b.notes.pings), BURST + 1);
    assert_int_equal(note(net, &net->b.notes.unordered), 0);
}

static void largest_bytes_arrive_whole(void **state)
{
    struct net *net = *state;
    for (size_t i = 0; i < sizeof(big); i++)
        big[i] = (uint8_t)(i * 2654435761u >> 13);
    struct orr_addr asker = asker_of(&net->a, echo_at(&net->b));
    for (int i = 0; i < 3; i++)
        POST(&net->a, asker, log_chunk, .data = {big, BIG});
    wait_for(net, &net->b.notes.bytes, 3 * (uint64_t)BIG);
}

static void unknown_path_and_unknown_host_fail(void **state)
{
    struct net *net = *state;
    POST(&net->a,
         asker_of(&net->a, orr_addr_named(ORR_LIT("b"), ORR_LIT("/nobody"))),
         ping,
         .nonce = 1);
    wait_for(net, &net->a.notes.failures, 1);
    assert_int_equal(note(net, &net->a.notes.code), ORR_EGONE);
    POST(&net->a,
         asker_of(&net->a, orr_addr_named(ORR_LIT("nowhere"), ORR_LIT("/echo"))),
         ping,
         .nonce = 1);
    wait_for(net, &net->a.notes.failures, 2);
    assert_int_equal(note(net, &net->a.notes.code), ORR_EUNREACH);
}

static void ask_that_is_not_answered_times_out(void **state)
{
    struct net *net = *state;
    POST(&net->a, asker_of(&net->a, echo_at(&net->b)), log_read, .max_bytes = 100);
    wait_for(net, &net->a.notes.failures, 1);
    assert_int_equal(note(net, &net->a.notes.code), ORR_ETIMEOUT);
}

static void crash_fails_open_asks_and_tells_monitors(void **state)
{
    struct net *net = *state;
    struct orr_addr asker = asker_of(&net->a, net->b.notes.echo);
    POST(&net->a, asker, log_read, .max_bytes = 10 * DEADLINE_MS);
    POST(&net->a, asker, stats_get);
    wait_for(net, &net->b.notes.pings, 1);
    POST(&net->a,
         asker,
         ping,
         .nonce =
             0); /* behind the monitor: when it is answered, the other side watches */
    wait_for(net, &net->a.notes.pongs, 1);
    host_crash(net, &net->b);
    wait_for(net, &net->a.notes.failures, 1);
    wait_for(net, &net->a.notes.downs, 1);
    assert_int_equal(note(net, &net->a.notes.code), ORR_EUNREACH);
}

static void restarted_host_is_found_by_name_and_not_by_its_old_address(void **state)
{
    struct net *net = *state;
    struct orr_addr old = net->b.notes.echo;
    host_crash(net, &net->b);
    host_start(net, &net->b);
    wait_for_link(net, &net->b, &net->a);
    wait_for_link(net, &net->a, &net->b);
    POST(&net->a, asker_of(&net->a, old), ping, .nonce = 1);
    wait_for(net, &net->a.notes.failures, 1);
    assert_int_equal(note(net, &net->a.notes.code), ORR_EGONE);
    assert_int_equal(note(net, &net->b.notes.pings), 0);
}

#define SUITE_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SUITE_TEST(ask_is_answered_in_both_directions),
        SUITE_TEST(refusal_arrives_with_its_code_and_text),
        SUITE_TEST(burst_arrives_once_and_in_order),
        SUITE_TEST(largest_bytes_arrive_whole),
        SUITE_TEST(unknown_path_and_unknown_host_fail),
        SUITE_TEST(ask_that_is_not_answered_times_out),
        SUITE_TEST(crash_fails_open_asks_and_tells_monitors),
        SUITE_TEST(restarted_host_is_found_by_name_and_not_by_its_old_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
