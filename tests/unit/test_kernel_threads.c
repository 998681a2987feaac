/* SPDX-License-Identifier: Apache-2.0
 * test_kernel_threads.c - messages of the kernel with workers: nothing is lost, doubled or reordered when many send to one,
 * pairs play with timers, and foreign threads overrun tiny lanes.  Meant for ThreadSanitizer.
 */
#include "kernel_threads.h"

enum { SENDERS = 20, PER_SENDER = 500, PAIRS = 8, ROUNDS = 300 };

static _Atomic uint64_t n_sent, n_received, n_refused, n_answers;
static _Atomic bool is_out_of_order;

static void reset(void)
{
    atomic_store(&n_sent, 0);
    atomic_store(&n_received, 0);
    atomic_store(&n_refused, 0);
    atomic_store(&n_answers, 0);
}

/* ---- fan-in: many senders to one receiver ---- */

struct sink {
    uint64_t last[SENDERS];
};

ORR_HANDLER(sink, ping)
static enum orr_err
sink_on_ping(struct orr_ctx *ctx, struct sink *self, const struct orr_msg_ping *msg)
{
    (void)ctx;
    uint64_t sender = msg->nonce >> 32;
    uint64_t n = msg->nonce & UINT32_MAX;
    if (n <= self->last[sender])
        atomic_store(&is_out_of_order, true);
    self->last[sender] = n;
    atomic_fetch_add(&n_received, 1);
    return ORR_OK;
}

static const struct orr_handler sink_handlers[] = {
    ORR_ON(sink, ping, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};
static const struct orr_actor_type sink_type = {
    .name = "sink",
    .state_size = sizeof(struct sink),
    .handlers = sink_handlers,
    .n_handlers = ORR_ARRAY_SIZE(sink_handlers),
};

struct source {
    struct orr_addr to;
    uint64_t index;
    uint64_t next;
    uint64_t open;
};

static void source_more(struct orr_ctx *ctx, struct source *self)
{
    for (int i = 0; i < 10 && self->next <= PER_SENDER; i++, self->next++, self->open++)
        orr_ask(ctx, self->to, 60000, 1, ping, .nonce = self->index << 32 | self->next);
}

static enum orr_err source_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct source *self = state;
    memcpy(self, args, sizeof(*self));
    self->next = 1;
    source_more(ctx, self);
    return ORR_OK;
}

ORR_HANDLER(source, ack)
static enum orr_err
source_on_ack(struct orr_ctx *ctx, struct source *self, const struct orr_msg_ack *msg)
{
    (void)msg;
    atomic_fetch_add(&n_sent, 1);
    if (--self->open == 0)
        source_more(ctx, self);
    return ORR_OK;
}

ORR_HANDLER(source, failed)
static enum orr_err source_on_failed(struct orr_ctx *ctx,
                                     struct source *self,
                                     const struct orr_msg_failed *msg)
{
    (void)msg;
    atomic_fetch_add(&n_refused, 1);
    if (--self->open == 0)
        source_more(ctx, self);
    return ORR_OK;
}

static const struct orr_handler source_handlers[] = {
    ORR_ON(source, ack, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(source, failed, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};
static const struct orr_actor_type source_type = {
    .name = "source",
    .state_size = sizeof(struct source),
    .args_size = sizeof(struct source),
    .init = source_init,
    .handlers = source_handlers,
    .n_handlers = ORR_ARRAY_SIZE(source_handlers),
};

static void fan_in(uint32_t mailbox_max)
{
    reset();
    struct orr_system *sys = new_system(mailbox_max);
    struct orr_addr to = spawn(sys, &sink_type, NULL, ORR_TEMPORARY);
    for (uint64_t i = 0; i < SENDERS; i++)
        spawn(sys, &source_type, &(struct source){.to = to, .index = i}, ORR_TEMPORARY);
    struct timespec nap = {.tv_nsec = 1000000};
    for (int i = 0; i < 30000; i++) {
        if (atomic_load(&n_sent) + atomic_load(&n_refused) == SENDERS * PER_SENDER)
            break;
        nanosleep(&nap, NULL);
    }
    orr_system_stop(sys);
    orr_system_free(sys);
    assert_int_equal(n_sent + n_refused, SENDERS * PER_SENDER); /* each exactly once */
    assert_int_equal(n_sent, n_received);
    assert_false(is_out_of_order);
}

static void fan_in_loses_nothing(void **state)
{
    (void)state;
    fan_in(4096);
    assert_int_equal(n_refused, 0);
}

static void fan_in_to_a_small_mailbox_accounts_for_all(void **state)
{
    (void)state;
    fan_in(4);
    assert_true(n_refused > 0);
}

/* ---- ping-pong with timers ---- */

struct player {
    struct orr_addr peer;
    uint64_t rounds;
};

static enum orr_err player_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct player *self = state;
    memcpy(self, args, sizeof(*self));
    if (self->peer.host)
        orr_ask(ctx, self->peer, 60000, 1, ping, .nonce = 0);
    return ORR_OK;
}

ORR_HANDLER(player, ping)
static enum orr_err
player_on_ping(struct orr_ctx *ctx, struct player *self, const struct orr_msg_ping *msg)
{
    (void)self;
    orr_timer_set(ctx, (uint32_t)msg->nonce % 3, 1, 0);
    orr_reply(ctx, pong, .nonce = msg->nonce + 1);
    return ORR_OK;
}

ORR_HANDLER(player, pong)
static enum orr_err
player_on_pong(struct orr_ctx *ctx, struct player *self, const struct orr_msg_pong *msg)
{
    atomic_fetch_add(&n_answers, 1);
    if (msg->nonce < ROUNDS)
        orr_ask(ctx, self->peer, 60000, 1, ping, .nonce = msg->nonce);
    return ORR_OK;
}

ORR_HANDLER(player, timer)
static enum orr_err player_on_timer(struct orr_ctx *ctx,
                                    struct player *self,
                                    const struct orr_msg_timer *msg)
{
    (void)ctx, (void)msg;
    self->rounds++;
    return ORR_OK;
}

static const struct orr_handler player_handlers[] = {
    ORR_ON(player, ping, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(player, pong, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(player, timer, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};
static const struct orr_actor_type player_type = {
    .name = "player",
    .state_size = sizeof(struct player),
    .args_size = sizeof(struct player),
    .init = player_init,
    .handlers = player_handlers,
    .n_handlers = ORR_ARRAY_SIZE(player_handlers),
};

static void ping_pong_pairs_finish_all_rounds(void **state)
{
    (void)state;
    reset();
    struct orr_system *sys = new_system(0);
    for (int i = 0; i < PAIRS; i++) {
        struct orr_addr peer =
            spawn(sys, &player_type, &(struct player){.rounds = 0}, ORR_TEMPORARY);
        spawn(sys, &player_type, &(struct player){.peer = peer}, ORR_TEMPORARY);
    }
    assert_true(wait_for(&n_answers, PAIRS * ROUNDS));
    orr_system_stop(sys);
    orr_system_free(sys);
}

/* ---- overflow policies while foreign threads fill tiny lanes ---- */

enum { POSTS = 20000, POSTERS = 2 };

static _Atomic uint64_t newest[POSTERS];

ORR_HANDLER(sink, node_heartbeat)
static enum orr_err sink_on_node_heartbeat(struct orr_ctx *ctx,
                                           struct sink *self,
                                           const struct orr_msg_node_heartbeat *msg)
{
    uint64_t sender = ctx->from.slot;
    if (msg->seq <= self->last[sender])
        atomic_store(&is_out_of_order, true);
    self->last[sender] = msg->seq;
    atomic_fetch_add(&n_received, 1);
    return ORR_OK;
}

ORR_HANDLER(sink, hello)
static enum orr_err
sink_on_hello(struct orr_ctx *ctx, struct sink *self, const struct orr_msg_hello *msg)
{
    (void)self;
    atomic_store(&newest[ctx->from.slot], msg->incarnation);
    return ORR_OK;
}

static const struct orr_handler picky_handlers[] = {
    ORR_ON(sink, node_heartbeat, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_DROP_OLDEST),
    ORR_ON(sink, hello, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_COALESCE),
};
static const struct orr_actor_type picky_type = {
    .name = "picky",
    .state_size = sizeof(struct sink),
    .handlers = picky_handlers,
    .n_handlers = ORR_ARRAY_SIZE(picky_handlers),
    .mailbox_max = 4,
};

static void *post_heartbeats(void *arg)
{
    struct poster *poster = arg;
    struct orr_addr from = {.host = orr_hash(ORR_LIT("h")), .slot = poster->n};
    for (uint32_t i = 1; i <= POSTS; i++) {
        struct orr_msg_node_heartbeat beat = {.seq = i};
        struct orr_msg_hello hello = {.incarnation = i};
        (void)!orr_system_post(
            poster->sys, from, poster->to, orr_msg_desc_node_heartbeat(), &beat);
        (void)!orr_system_post(
            poster->sys, from, poster->to, orr_msg_desc_hello(), &hello);
    }
    return NULL;
}

static void overflow_policies_account_for_all_and_keep_the_newest(void **state)
{
    (void)state;
    reset();
    struct orr_system *sys = new_system(0);
    struct orr_addr to = spawn(sys, &picky_type, NULL, ORR_TEMPORARY);
    pthread_t threads[POSTERS];
    struct poster posters[POSTERS];
    for (uint64_t i = 0; i < POSTERS; i++) {
        posters[i] = (struct poster){.sys = sys, .to = to, .n = i};
        assert_int_equal(
            pthread_create(&threads[i], NULL, post_heartbeats, &posters[i]), 0);
    }
    for (int i = 0; i < POSTERS; i++)
        pthread_join(threads[i], NULL);
    assert_true(wait_for(&newest[0], POSTS));
    assert_true(wait_for(&newest[1], POSTS));
    struct orr_system_stats stats = {0};
    struct timespec nap = {.tv_nsec = 1000000};
    for (int i = 0; i < 10000; i++, nanosleep(&nap, NULL)) {
        orr_system_stats(sys, &stats);
        if (atomic_load(&n_received) + stats.refused == POSTERS * POSTS)
            break;
    }
    assert_int_equal(n_received + stats.refused, POSTERS * POSTS);
    assert_false(is_out_of_order);
    orr_system_stop(sys);
    orr_system_free(sys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fan_in_loses_nothing),
        cmocka_unit_test(fan_in_to_a_small_mailbox_accounts_for_all),
        cmocka_unit_test(ping_pong_pairs_finish_all_rounds),
        cmocka_unit_test(overflow_policies_account_for_all_and_keep_the_newest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
