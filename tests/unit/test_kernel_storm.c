/* SPDX-License-Identifier: Apache-2.0
 * test_kernel_storm.c - lives of actors in the kernel with workers: they are spawned, crash, are watched, restarted and stopped
 * while others post to them.  Meant for ThreadSanitizer.
 */
#include "kernel_threads.h"

enum { CHURN = 200 };

static _Atomic uint64_t n_refused, n_lives, n_ends, n_downs;

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
        cmocka_unit_test(churned_actors_end_once_and_their_askers_are_told),
        cmocka_unit_test(crashing_families_always_come_back),
        cmocka_unit_test(stop_under_fire_is_clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
