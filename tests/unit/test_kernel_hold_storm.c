/* SPDX-License-Identifier: Apache-2.0
 * test_kernel_hold_storm.c - output commit in the kernel with workers: many ask one that holds its answers back until a disk
 * tells it what lasts.  Meant for ThreadSanitizer.
 */
#include "kernel_threads.h"

enum { ASKERS = 12, PER_ASKER = 400, WINDOW = 10, CRASH_EVERY = 97, DISK_BATCH = 7 };

static _Atomic uint64_t n_confirmed, n_unconfirmed, n_done, n_lives;
static _Atomic bool is_wrong;

/* ---- the disk: tells the newest ticket when it got a few, or a moment later ---- */

struct disk {
    struct orr_addr to;
    uint64_t newest;
    uint64_t n;
};

static void disk_flush(struct orr_ctx *ctx, struct disk *self)
{
    orr_send(ctx, self->to, pong, .nonce = self->newest);
    self->n = 0;
}

ORR_HANDLER(disk, ping)
static enum orr_err
disk_on_ping(struct orr_ctx *ctx, struct disk *self, const struct orr_msg_ping *msg)
{
    self->to = ctx->from;
    self->newest = msg->nonce;
    if (++self->n >= DISK_BATCH)
        disk_flush(ctx, self);
    else
        orr_timer_set(ctx, 1, 1, 0);
    return ORR_OK;
}

ORR_HANDLER(disk, timer)
static enum orr_err
disk_on_timer(struct orr_ctx *ctx, struct disk *self, const struct orr_msg_timer *msg)
{
    (void)msg;
    disk_flush(ctx, self);
    return ORR_OK;
}

static const struct orr_handler disk_handlers[] = {
    ORR_ON(disk, ping, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(disk, timer, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};
static const struct orr_actor_type disk_type = {
    .name = "disk",
    .state_size = sizeof(struct disk),
    .handlers = disk_handlers,
    .n_handlers = ORR_ARRAY_SIZE(disk_handlers),
};

/* ---- who holds: an answer carries the ticket, and must not be seen before the disk has it ---- */

struct holder {
    struct orr_addr disk;
    uint64_t ticket;
    uint64_t crash_every; /* 0: never */
};

static _Atomic uint64_t released; /* no more than this ticket was let go; of one life */

static enum orr_err holder_init(struct orr_ctx *ctx, void *state, const void *args)
{
    (void)ctx;
    memcpy(state, args, sizeof(struct holder));
    atomic_fetch_add(&n_lives, 1);
    return ORR_OK;
}

ORR_HANDLER(holder, ping)
static enum orr_err
holder_on_ping(struct orr_ctx *ctx, struct holder *self, const struct orr_msg_ping *msg)
{
    (void)msg;
    self->ticket++;
    if (self->crash_every && self->ticket % self->crash_every == 0)
        return ORR_ECRASH;
    orr_hold(ctx, self->ticket);
    orr_send_now(ctx, self->disk, ping, .nonce = self->ticket);
    if (self->ticket % 5) /* others get an ack */
        orr_reply(ctx, pong, .nonce = self->ticket);
    return ORR_OK;
}

ORR_HANDLER(holder, pong)
static enum orr_err
holder_on_pong(struct orr_ctx *ctx, struct holder *self, const struct orr_msg_pong *msg)
{
    if (msg->nonce > self->ticket)
        atomic_store(&is_wrong, true);
    atomic_store(&released, msg->nonce);
    orr_release(ctx, msg->nonce);
    return ORR_OK;
}

static const struct orr_handler holder_handlers[] = {
    ORR_ON(holder, ping, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(holder, pong, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};
static const struct orr_actor_type holder_type = {
    .name = "holder",
    .state_size = sizeof(struct holder),
    .args_size = sizeof(struct holder),
    .init = holder_init,
    .handlers = holder_handlers,
    .n_handlers = ORR_ARRAY_SIZE(holder_handlers),
};

/* Restarts it quickly, however often it fails. */
static enum orr_err mother_init(struct orr_ctx *ctx, void *state, const void *args)
{
    (void)state;
    struct orr_spawn what = {&holder_type, args, "/holder", ORR_PERMANENT};
    struct orr_addr addr = {0};
    return orr_spawn(ctx, &what, &addr);
}

static const struct orr_actor_type mother_type = {
    .name = "mother",
    .args_size = sizeof(struct holder),
    .init = mother_init,
    .supervision = {ORR_ONE_FOR_ONE, 1000000, 60000, 1, 2},
};

/* ---- who asks: tag is the number of the ask; each is closed once, in order ---- */

struct asker {
    uint64_t next;
    uint64_t closed;
    bool is_steady; /* the holder has one life */
};

static void asker_more(struct orr_ctx *ctx, struct asker *self)
{
    struct orr_addr to = orr_addr_named(ORR_LIT("h"), ORR_LIT("/holder"));
    while (self->next < PER_ASKER && self->next < self->closed + WINDOW)
        orr_ask(ctx, to, 60000, ++self->next, ping, .nonce = self->next);
}

static enum orr_err asker_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct asker *self = state;
    self->is_steady = *(const bool *)args;
    asker_more(ctx, self);
    return ORR_OK;
}

static enum orr_err asker_close(struct orr_ctx *ctx, struct asker *self)
{
    self->closed++;
    if (ctx->tag == 0 || (self->is_steady && ctx->tag != self->closed))
        atomic_store(&is_wrong, true);
    if (self->closed == PER_ASKER)
        atomic_fetch_add(&n_done, 1);
    asker_more(ctx, self);
    return ORR_OK;
}

ORR_HANDLER(asker, ack)
static enum orr_err
asker_on_ack(struct orr_ctx *ctx, struct asker *self, const struct orr_msg_ack *msg)
{
    (void)msg;
    atomic_fetch_add(&n_confirmed, 1);
    return asker_close(ctx, self);
}

ORR_HANDLER(asker, pong)
static enum orr_err
asker_on_pong(struct orr_ctx *ctx, struct asker *self, const struct orr_msg_pong *msg)
{
    if (self->is_steady && msg->nonce > atomic_load(&released))
        atomic_store(&is_wrong, true);
    atomic_fetch_add(&n_confirmed, 1);
    return asker_close(ctx, self);
}

ORR_HANDLER(asker, failed)
static enum orr_err asker_on_failed(struct orr_ctx *ctx,
                                    struct asker *self,
                                    const struct orr_msg_failed *msg)
{
    if (msg->code != ORR_EGONE)
        atomic_store(&is_wrong, true);
    atomic_fetch_add(&n_unconfirmed, 1);
    return asker_close(ctx, self);
}

static const struct orr_handler asker_handlers[] = {
    ORR_ON(asker, ack, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(asker, pong, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(asker, failed, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};
static const struct orr_actor_type asker_type = {
    .name = "asker",
    .state_size = sizeof(struct asker),
    .args_size = sizeof(bool),
    .init = asker_init,
    .handlers = asker_handlers,
    .n_handlers = ORR_ARRAY_SIZE(asker_handlers),
};

static void storm(uint64_t crash_every)
{
    atomic_store(&n_confirmed, 0);
    atomic_store(&n_unconfirmed, 0);
    atomic_store(&n_done, 0);
    atomic_store(&n_lives, 0);
    atomic_store(&is_wrong, false);
    struct orr_system *sys = new_system(0);
    struct holder args = {.crash_every = crash_every};
    args.disk = spawn(sys, &disk_type, NULL, ORR_TEMPORARY);
    spawn(sys, &mother_type, &args, ORR_TEMPORARY);
    assert_true(wait_for(&n_lives, 1));
    bool is_steady = crash_every == 0;
    for (int i = 0; i < ASKERS; i++)
        spawn(sys, &asker_type, &is_steady, ORR_TEMPORARY);
    assert_true(wait_for(&n_done, ASKERS));
    orr_system_stop(sys);
    orr_system_free(sys);
    assert_false(is_wrong);
    assert_int_equal(n_confirmed + n_unconfirmed, ASKERS * PER_ASKER);
}

static void every_answer_arrives_once_in_order_after_it_lasts(void **state)
{
    (void)state;
    storm(0);
    assert_int_equal(n_unconfirmed, 0);
}

static void every_asker_is_told_though_the_holder_crashes(void **state)
{
    (void)state;
    storm(CRASH_EVERY);
    assert_true(n_lives > 10);
    assert_true(n_confirmed > 0);
    assert_true(n_unconfirmed >= n_lives - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_answer_arrives_once_in_order_after_it_lasts),
        cmocka_unit_test(every_asker_is_told_though_the_holder_crashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
