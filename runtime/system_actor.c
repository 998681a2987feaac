/* SPDX-License-Identifier: Apache-2.0
 * system_actor.c - /system: the root supervisor, and what a host tells about itself.
 */
#include "core.h"

struct system_actor {
    struct orr_system *sys; /* borrowed: the system that runs this actor */
};

static enum orr_err
system_actor_init(struct orr_ctx *ctx, void *state, const void *args)
{
    (void)ctx;
    memcpy(state, args, sizeof(struct system_actor));
    return ORR_OK;
}

ORR_HANDLER(system_actor, stats_get)
static enum orr_err system_actor_on_stats_get(struct orr_ctx *ctx,
                                              struct system_actor *self,
                                              const struct orr_msg_stats_get *msg)
{
    (void)msg;
    struct orr_rec_dead_letter dead[ORRI_DEAD_KEPT];
    struct orr_system_stats stats;
    orr_system_stats(self->sys, &stats);
    uint32_t kept = stats.dead_letters < ORRI_DEAD_KEPT ? (uint32_t)stats.dead_letters
                                                        : ORRI_DEAD_KEPT;
    pthread_mutex_lock(&self->sys->dead_lock);
    for (uint32_t i = 0; i < kept; i++) /* newest first */
        dead[i] = self->sys->dead[(stats.dead_letters - 1 - i) % ORRI_DEAD_KEPT];
    pthread_mutex_unlock(&self->sys->dead_lock);
    orr_reply(ctx,
              stats,
              .actors = stats.actors,
              .delivered = stats.delivered,
              .refused = stats.refused,
              .dead_letters_total = stats.dead_letters,
              .dead_letters = {dead, kept});
    return ORR_OK;
}

ORR_HANDLER(system_actor, ping)
static enum orr_err system_actor_on_ping(struct orr_ctx *ctx,
                                         struct system_actor *self,
                                         const struct orr_msg_ping *msg)
{
    (void)self;
    orr_reply(ctx, pong, .nonce = msg->nonce);
    return ORR_OK;
}

static const struct orr_handler handlers[] = {
    ORR_ON(system_actor, stats_get, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(system_actor, ping, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
};

const struct orr_actor_type orri_system_type = {
    .name = "system",
    .state_size = sizeof(struct system_actor),
    .args_size = sizeof(struct system_actor),
    .init = system_actor_init,
    .handlers = handlers,
    .n_handlers = ORR_ARRAY_SIZE(handlers),
    .supervision = {.strategy = ORR_ONE_FOR_ONE,
                    .period_ms = 60000,
                    .backoff_min_ms = 100,
                    .backoff_max_ms = 10000},
};
