/* SPDX-License-Identifier: Apache-2.0
 * kernel_probe.c - see kernel_probe.h.
 */
#include "kernel_probe.h"
#include "orr_test.h"

struct probe_state {
    struct probe *probe; /* borrowed: the test's */
};

static enum orr_err probe_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct probe_state *self = state;
    memcpy(self, args, sizeof(*self));
    self->probe->self = ctx->self;
    self->probe->n_init++;
    return self->probe->on_init ? self->probe->on_init(ctx, self->probe, 0, NULL)
                                : ORR_OK;
}

static void probe_fini(void *state)
{
    struct probe_state *self = state;
    if (self->probe)
        self->probe->n_fini++;
}

static unsigned probe_state_of(const void *state)
{
    return ((const struct probe_state *)state)->probe->state;
}

static const char *probe_state_name(unsigned state)
{
    return state == 0 ? "idle" : state == 1 ? "busy" : "other";
}

static enum orr_err note(struct orr_ctx *ctx,
                         struct probe_state *self,
                         uint16_t id,
                         uint64_t value,
                         const void *msg)
{
    struct probe *probe = self->probe;
    if (probe->n_seen < PROBE_SEEN_MAX) {
        struct probe_seen *seen = &probe->seen[probe->n_seen];
        *seen = (struct probe_seen){
            .id = id, .value = value, .tag = ctx->tag, .from = ctx->from};
        if (id == ORR_MSG_failed) {
            const struct orr_msg_failed *failed = msg;
            seen->code = failed->code;
            orr_str_copy(seen->text, sizeof(seen->text), failed->text);
        } else if (id == ORR_MSG_down) {
            seen->code = ((const struct orr_msg_down *)msg)->why;
        }
    }
    probe->n_seen++;
    return probe->script ? probe->script(ctx, probe, id, msg) : ORR_OK;
}

#define NOTE(name, value)                                                              \
    ORR_HANDLER(probe_state, name)                                                     \
    static enum orr_err probe_state_on_##name(struct orr_ctx *ctx,                     \
                                              struct probe_state *self,                \
                                              const struct orr_msg_##name *msg)        \
    {                                                                                  \
        return note(ctx, self, ORR_MSG_##name, (value), msg);                          \
    }
NOTE(ping, msg->nonce)
NOTE(pong, msg->nonce)
NOTE(ack, 0)
NOTE(failed, msg->msg)
NOTE(down, msg->who.slot)
NOTE(timer, msg->arg)
NOTE(job_cancel, msg->job.len)
NOTE(node_heartbeat, msg->seq)
NOTE(hello, msg->incarnation)
NOTE(stats, msg->dead_letters_total)

static const struct orr_handler handlers[] = {
    ORR_ON(probe_state, ping, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(probe_state, pong, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(probe_state, ack, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(probe_state, failed, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
    ORR_ON(probe_state, down, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(probe_state, timer, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(probe_state, job_cancel, ORR_IN(0), ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(probe_state, node_heartbeat, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_DROP_OLDEST),
    ORR_ON(probe_state, hello, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_COALESCE),
    ORR_ON(probe_state, stats, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
};

#define PROBE_TYPE(strategy_, intensity_)                                              \
    {                                                                                  \
        .name = "probe", .state_size = sizeof(struct probe_state),                     \
        .args_size = sizeof(struct probe_state), .init = probe_init,                   \
        .fini = probe_fini, .state_of = probe_state_of,                                \
        .state_name = probe_state_name, .handlers = handlers,                          \
        .n_handlers = ORR_ARRAY_SIZE(handlers), .mailbox_max = 8, .supervision = {     \
            .strategy = (strategy_),                                                   \
            .intensity = (intensity_),                                                 \
            .period_ms = 10000,                                                        \
            .backoff_min_ms = 100,                                                     \
            .backoff_max_ms = 1000                                                     \
        }                                                                              \
    }
const struct orr_actor_type probe_type = PROBE_TYPE(ORR_ONE_FOR_ONE, 5);
const struct orr_actor_type probe_one_for_all = PROBE_TYPE(ORR_ONE_FOR_ALL, 5);
const struct orr_actor_type probe_rest_for_one = PROBE_TYPE(ORR_REST_FOR_ONE, 5);
const struct orr_actor_type probe_strict = PROBE_TYPE(ORR_ONE_FOR_ONE, 2);

static uint64_t clock_now(void *arg)
{
    return ((struct probe_clock *)arg)->now_ms;
}

void probe_clock_init(struct probe_clock *clock)
{
    clock->now_ms = 1000;
    clock->clock = (struct orr_clock){clock_now, clock_now, clock};
}

struct orr_system *probe_system(struct probe_clock *clock, const char *host)
{
    probe_clock_init(clock);
    struct orr_system_config config = {
        .host = host, .incarnation = 1, .seed = 7, .clock = &clock->clock};
    struct orr_system *sys = NULL;
    assert_int_equal(orr_system_new(&config, &sys, NULL), ORR_OK);
    return sys;
}

struct orr_addr probe_spawn(struct orr_system *sys,
                            struct probe *probe,
                            const struct orr_actor_type *type,
                            const char *path,
                            enum orr_restart restart)
{
    struct probe_state args = {probe};
    struct orr_spawn spawn = {type, &args, path, restart};
    struct orr_addr addr = {0};
    assert_int_equal(orr_system_spawn(sys, &spawn, &addr), ORR_OK);
    return addr;
}

struct orr_addr
probe_child(struct orr_ctx *ctx, struct probe *probe, enum orr_restart restart)
{
    struct probe_state args = {probe};
    struct orr_spawn spawn = {&probe_type, &args, NULL, restart};
    struct orr_addr addr = {0};
    assert_int_equal(orr_spawn(ctx, &spawn, &addr), ORR_OK);
    return addr;
}

void probe_settle(struct orr_system *sys)
{
    for (int i = 0; i < 100000; i++)
        if (!orr_system_step(sys))
            return;
    fail_msg("the system does not come to rest");
}

void probe_advance(struct orr_system *sys, struct probe_clock *clock, uint64_t ms)
{
    uint64_t end = clock->now_ms + ms;
    probe_settle(sys);
    for (uint64_t due; (due = orr_system_next_due_ms(sys)) <= end;) {
        if (due > clock->now_ms)
            clock->now_ms = due;
        probe_settle(sys);
    }
    clock->now_ms = end;
    probe_settle(sys);
}
