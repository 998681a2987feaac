/* SPDX-License-Identifier: Apache-2.0
 * test_kernel_threads.c - the kernel with workers: nothing is lost, doubled or reordered while actors are hammered, stopped
 * and restarted from all sides.  Meant for ThreadSanitizer.
 */
#include "../../runtime/system.h"
#include "orr_test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum {
    WORKERS = 3,
    SENDERS = 20,
    PER_SENDER = 500,
    PAIRS = 8,
    ROUNDS = 300,
    CHURN = 200
};

static _Atomic uint64_t n_sent, n_received, n_refused, n_answers, n_lives, n_ends,
    n_downs;
static _Atomic bool is_out_of_order;

static bool wait_for(_Atomic uint64_t *counter, uint64_t value)
{
    struct timespec nap = {.tv_nsec = 1000000};
    for (int i = 0; i < 30000 && atomic_load(counter) < value; i++)
        nanosleep(&nap, NULL); /* polls an event with a deadline */
    return atomic_load(counter) == value;
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

static struct orr_system *new_system(uint32_t mailbox_max)
{
    struct orr_system_config config = {.host = "h",
                                       .incarnation = 1,
                                       .workers = WORKERS,
                                       .mailbox_max = mailbox_max,
                                       .supervisor_intensity = 100000};
    struct orr_system *sys = NULL;
    assert_int_equal(orr_system_new(&config, &sys, NULL), ORR_OK);
    assert_int_equal(orr_system_start(sys, NULL), ORR_OK);
    atomic_store(&n_sent, 0);
    atomic_store(&n_received, 0);
    atomic_store(&n_refused, 0);
    return sys;
}

static struct orr_addr spawn(struct orr_system *sys,
                             const struct orr_actor_type *type,
                             const void *args,
                             enum orr_restart restart)
{
    struct orr_spawn what = {type, args, NULL, restart};
    struct orr_addr addr = {0};
    assert_int_equal(orr_system_spawn(sys, &what, &addr), ORR_OK);
    return addr;
}

static void fan_in(uint32_t mailbox_max)
{
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
    atomic_store(&n_answers, 0);
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

/* ---- churn: actors that crash, are watched and restarted while others post to them ---- */

struct mayfly {
    uint64_t n;
};

static enum orr_err mayfly_init(struct orr_ctx *ctx, void *state, const void *args)
{
    (void)ctx, (void)state, (void)args;
    atomic_fetch_add(&n_lives, 1);
    return ORR_OK;
}

static void mayfly_fini(void *state)
{
    (void)state;
    atomic_fetch_add(&n_ends, 1);
}

ORR_HANDLER(mayfly, ping)
static enum orr_err
mayfly_on_ping(struct orr_ctx *ctx, struct mayfly *self, const struct orr_msg_ping *msg)
{
    (void)msg;
    if (++self->n == 3)
        orr_stop(ctx, ctx->self);
    return ORR_OK;
}

static const struct orr_handler mayfly_handlers[] = {
    ORR_ON(mayfly, ping, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};
static const struct orr_actor_type mayfly_type = {
    .name = "mayfly",
    .state_size = sizeof(struct mayfly),
    .init = mayfly_init,
    .fini = mayfly_fini,
    .handlers = mayfly_handlers,
    .n_handlers = ORR_ARRAY_SIZE(mayfly_handlers),
};

struct breeder {
    uint64_t n;
};

static void breed(struct orr_ctx *ctx, struct breeder *self)
{
    if (self->n++ >= CHURN)
        return;
    struct orr_spawn what = {&mayfly_type, NULL, NULL, ORR_TEMPORARY};
    struct orr_addr child = {0};
    assert_int_equal(orr_spawn(ctx, &what, &child), ORR_OK);
    orr_monitor(ctx, child, true);
    for (uint64_t i = 0; i < 6; i++) /* the last ones find it gone */
        orr_ask(ctx, child, 60000, i, ping, .nonce = i);
}

static enum orr_err breeder_init(struct orr_ctx *ctx, void *state, const void *args)
{
    (void)args;
    breed(ctx, state);
    return ORR_OK;
}

ORR_HANDLER(breeder, down)
static enum orr_err breeder_on_down(struct orr_ctx *ctx,
                                    struct breeder *self,
                                    const struct orr_msg_down *msg)
{
    (void)msg;
    atomic_fetch_add(&n_downs, 1);
    breed(ctx, self);
    return ORR_OK;
}

ORR_HANDLER(breeder, failed)
static enum orr_err breeder_on_failed(struct orr_ctx *ctx,
                                      struct breeder *self,
                                      const struct orr_msg_failed *msg)
{
    (void)ctx, (void)self, (void)msg;
    atomic_fetch_add(&n_refused, 1);
    return ORR_OK;
}

static const struct orr_handler breeder_handlers[] = {
    ORR_ON(breeder, down, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(breeder, failed, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};
static const struct orr_actor_type breeder_type = {
    .name = "breeder",
    .state_size = sizeof(struct breeder),
    .init = breeder_init,
    .handlers = breeder_handlers,
    .n_handlers = ORR_ARRAY_SIZE(breeder_handlers),
};

static void churned_actors_end_once_and_their_askers_are_told(void **state)
{
    (void)state;
    enum { BREEDERS = 6 };
    atomic_store(&n_lives, 0);
    atomic_store(&n_ends, 0);
    atomic_store(&n_downs, 0);
    struct orr_system *sys = new_system(0);
    for (int i = 0; i < BREEDERS; i++)
        spawn(sys, &breeder_type, NULL, ORR_TEMPORARY);
    assert_true(wait_for(&n_downs, BREEDERS * CHURN));
    assert_true(wait_for(&n_refused, BREEDERS * CHURN * 3));
    struct orr_system_stats stats;
    orr_system_stats(sys, &stats);
    orr_system_stop(sys);
    orr_system_free(sys);
    assert_int_equal(n_lives, BREEDERS * CHURN);
    assert_int_equal(n_ends, BREEDERS * CHURN);
    assert_in_range(stats.actors, 1 + BREEDERS, 1 + 2 * BREEDERS);
}

/* ---- posts of foreign threads while the system stops ---- */

struct poster {
    struct orr_system *sys;
    struct orr_addr to;
    _Atomic bool is_done;
    _Atomic uint64_t n;
};

static void *post_until_done(void *arg)
{
    struct poster *poster = arg;
    struct orr_msg_ping ping = {.nonce = 0};
    while (!atomic_load(&poster->is_done)) {
        enum orr_err err = orr_system_post(
            poster->sys, poster->to, poster->to, orr_msg_desc_ping(), &ping);
        ping.nonce += err == ORR_OK;
        atomic_fetch_add(&poster->n, 1);
    }
    return NULL;
}

ORR_HANDLER(breeder, ping)
static enum orr_err breeder_on_ping(struct orr_ctx *ctx,
                                    struct breeder *self,
                                    const struct orr_msg_ping *msg)
{
    (void)self, (void)msg;
    struct orr_spawn what = {&mayfly_type, NULL, NULL, ORR_TEMPORARY};
    struct orr_addr child = {0};
    if (orr_spawn(ctx, &what, &child) == ORR_OK)
        orr_stop(ctx, child);
    return ORR_OK;
}

static const struct orr_handler spawner_handlers[] = {
    ORR_ON(breeder, ping, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};
static const struct orr_actor_type spawner_type = {
    .name = "spawner",
    .state_size = sizeof(struct breeder),
    .handlers = spawner_handlers,
    .n_handlers = ORR_ARRAY_SIZE(spawner_handlers),
};

static void stop_under_fire_is_clean(void **state)
{
    (void)state;
    struct orr_system *sys = new_system(64);
    struct poster poster = {.sys = sys};
    poster.to = spawn(sys, &spawner_type, NULL, ORR_PERMANENT);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, post_until_done, &poster),
                         0);
    struct timespec nap = {.tv_nsec = 1000000};
    for (int i = 0; i < 10000 && atomic_load(&poster.n) < 2000; i++)
        nanosleep(&nap, NULL);
    orr_system_stop(sys);
    struct orr_msg_ping ping = {.nonce = 0};
    assert_int_equal(
        orr_system_post(sys, poster.to, poster.to, orr_msg_desc_ping(), &ping),
        ORR_EGONE);
    atomic_store(&poster.is_done, true);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    struct orr_system_stats stats;
    orr_system_stats(sys, &stats);
    assert_int_equal(stats.actors, 1);
    orr_system_free(sys);
}

/* ---- supervision under fire: kids crash, their siblings are stopped, all come back ---- */

enum { KIDS = 4, LIVES = 400 };

struct crasher {
    uint64_t n;
};

ORR_HANDLER(crasher, ping)
static enum orr_err crasher_on_ping(struct orr_ctx *ctx,
                                    struct crasher *self,
                                    const struct orr_msg_ping *msg)
{
    (void)ctx, (void)msg;
    return ++self->n % 20 == 0 ? ORR_ECRASH : ORR_OK;
}

static const struct orr_handler crasher_handlers[] = {
    ORR_ON(crasher, ping, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};
static const struct orr_actor_type crasher_type = {
    .name = "crasher",
    .state_size = sizeof(struct crasher),
    .init = mayfly_init,
    .fini = mayfly_fini,
    .handlers = crasher_handlers,
    .n_handlers = ORR_ARRAY_SIZE(crasher_handlers),
};

static const char *const kid_paths[KIDS] = {"/k0", "/k1", "/k2", "/k3"};

static enum orr_err mother_init(struct orr_ctx *ctx, void *state, const void *args)
{
    (void)state, (void)args;
    for (int i = 0; i < KIDS; i++) {
        struct orr_spawn what = {&crasher_type, NULL, kid_paths[i], ORR_PERMANENT};
        struct orr_addr addr = {0};
        if (orr_spawn(ctx, &what, &addr) != ORR_OK)
            return ORR_ECRASH;
    }
    return ORR_OK;
}

static const struct orr_actor_type mother_type = {
    .name = "mother",
    .init = mother_init,
    .supervision = {ORR_ONE_FOR_ALL, 20, 60000, 1, 2}, /* it fails now and then, too */
};

static void *post_by_name(void *arg)
{
    struct poster *poster = arg;
    struct orr_msg_ping ping = {.nonce = 1};
    for (uint64_t i = 0; !atomic_load(&poster->is_done); i++) {
        struct orr_addr to = orr_addr_named(ORR_LIT("h"), orr_str(kid_paths[i % KIDS]));
        (void)!orr_system_post(poster->sys, to, to, orr_msg_desc_ping(), &ping);
    }
    return NULL;
}

static void crashing_families_always_come_back(void **state)
{
    (void)state;
    atomic_store(&n_lives, 0);
    atomic_store(&n_ends, 0);
    struct orr_system *sys = new_system(64);
    spawn(sys, &mother_type, NULL, ORR_PERMANENT);
    struct poster poster = {.sys = sys};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, post_by_name, &poster), 0);
    struct timespec nap = {.tv_nsec = 1000000};
    for (int i = 0; i < 30000 && atomic_load(&n_lives) < LIVES; i++)
        nanosleep(&nap, NULL);
    atomic_store(&poster.is_done, true);
    pthread_join(thread, NULL);
    assert_true(atomic_load(&n_lives) >= LIVES);
    orr_system_stop(sys);
    orr_system_free(sys);
    assert_int_equal(n_lives, n_ends);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fan_in_loses_nothing),
        cmocka_unit_test(fan_in_to_a_small_mailbox_accounts_for_all),
        cmocka_unit_test(ping_pong_pairs_finish_all_rounds),
        cmocka_unit_test(churned_actors_end_once_and_their_askers_are_told),
        cmocka_unit_test(crashing_families_always_come_back),
        cmocka_unit_test(stop_under_fire_is_clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
