/* SPDX-License-Identifier: Apache-2.0
 * store_port.c - messages to the pool and back, and pieces from peers (store_port.h).
 *
 * A piece's ask carries (call, slot) as its tag, so that the answer finds its way without a table here.
 */
#include "store_port.h"

#include "orrery/ids.h"

enum { T_TICK = 1, TICK_MS = 1000, PIECE_MS = 5000, SLOT_BITS = 8 };

struct store_port {
    struct orr_store_port_args args;
};

ORR_HANDLER(store_port, store_put)
ORR_HANDLER(store_port, store_get)
ORR_HANDLER(store_port, store_verify)
ORR_HANDLER(store_port, store_gc)
ORR_HANDLER(store_port, store_remove)
ORR_HANDLER(store_port, store_stat_get)
ORR_HANDLER(store_port, store_cancel)
ORR_HANDLER(store_port, store_read)
ORR_HANDLER(store_port, store_want)
ORR_HANDLER(store_port, store_data)
ORR_HANDLER(store_port, failed)
ORR_HANDLER(store_port, timer)

/* ---- to the pool ---- */

static enum orr_err submit(struct orr_ctx *ctx,
                           struct store_port *self,
                           struct orr_str id,
                           const struct orr_msg_desc *desc,
                           const void *msg)
{
    const struct orr_request request = ctx->request;
    enum orr_err code = orr_store_pool_submit(self->args.pool, &request, id, desc, msg);
    if (code)
        return orr_refuse(ctx,
                          code,
                          "store: %s: %s",
                          desc->body.name,
                          code == ORR_EBUSY ? "too many requests wait; try again later"
                                            : orr_err_text(code));
    (void)orr_defer(ctx);
    return ORR_OK;
}

#define STORE_SUBMITS(message, id_)                                                    \
    static enum orr_err store_port_on_##message(struct orr_ctx *ctx,                   \
                                                struct store_port *self,               \
                                                const struct orr_msg_##message *msg)   \
    {                                                                                  \
        return submit(ctx, self, (id_), orr_msg_desc_##message(), msg);                \
    }
STORE_SUBMITS(store_put, msg->id)
STORE_SUBMITS(store_get, msg->id)
STORE_SUBMITS(store_verify, msg->id)
STORE_SUBMITS(store_gc, msg->id)
STORE_SUBMITS(store_remove, (struct orr_str){0})
STORE_SUBMITS(store_stat_get, (struct orr_str){0})
STORE_SUBMITS(store_read, (struct orr_str){0})

static enum orr_err store_port_on_store_cancel(struct orr_ctx *ctx,
                                               struct store_port *self,
                                               const struct orr_msg_store_cancel *msg)
{
    if (orr_store_pool_cancel(self->args.pool, msg->id) > 0)
        return ORR_OK;
    return orr_refuse(
        ctx, ORR_ENOENT, "store: no call %.*s is under way", ORR_STR_ARGS(msg->id));
}

/* ---- pieces ---- */

static enum orr_err store_port_on_store_want(struct orr_ctx *ctx,
                                             struct store_port *self,
                                             const struct orr_msg_store_want *msg)
{
    struct orr_msg_store_read read;
    struct orr_store_hash hash;
    uint64_t host;
    if (!orr_store_pool_wanted(
            self->args.pool, msg->call, msg->slot, &host, &hash, &read))
        return ORR_OK;
    const struct orr_addr to = {.host = host, .slot = orr_hash(ORR_LIT("/edge/store"))};
    ctx->ops->ask(ctx,
                  to,
                  PIECE_MS,
                  msg->call << SLOT_BITS | msg->slot,
                  orr_msg_desc_store_read(),
                  &read);
    return ORR_OK;
}

static void answer(struct orr_ctx *ctx,
                   struct store_port *self,
                   enum orr_err code,
                   const struct orr_msg_store_data *data)
{
    if (ctx->tag)
        orr_store_pool_answer(self->args.pool,
                              ctx->tag >> SLOT_BITS,
                              (uint32_t)(ctx->tag & ((1u << SLOT_BITS) - 1)),
                              code,
                              data);
}

static enum orr_err store_port_on_store_data(struct orr_ctx *ctx,
                                             struct store_port *self,
                                             const struct orr_msg_store_data *msg)
{
    answer(ctx, self, ORR_OK, msg);
    return ORR_OK;
}

static enum orr_err store_port_on_failed(struct orr_ctx *ctx,
                                         struct store_port *self,
                                         const struct orr_msg_failed *msg)
{
    answer(ctx, self, msg->code ? (enum orr_err)msg->code : ORR_EPROTO, NULL);
    return ORR_OK;
}

/* ---- the actor ---- */

static enum orr_err store_port_on_timer(struct orr_ctx *ctx,
                                        struct store_port *self,
                                        const struct orr_msg_timer *msg)
{
    (void)msg;
    orr_store_pool_expire(self->args.pool, orr_now_ms(ctx));
    orr_timer_set(ctx, T_TICK, TICK_MS, 0);
    return ORR_OK;
}

static enum orr_err store_port_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct store_port *self = state;
    self->args = *(const struct orr_store_port_args *)args;
    orr_store_pool_attach(self->args.pool, ctx->self);
    orr_timer_set(ctx, T_TICK, TICK_MS, 0);
    return ORR_OK;
}

static void store_port_fini(void *state)
{
    struct store_port *self = state;
    orr_store_pool_attach(self->args.pool, (struct orr_addr){0});
}

#define PORT(message, roles)                                                           \
    ORR_ON(store_port, message, ORR_ANY_STATE, roles, ORR_REFUSE)
static const struct orr_handler handlers[] = {
    PORT(store_put, ORR_ROLE_LOCAL),
    PORT(store_get, ORR_ROLE_LOCAL),
    PORT(store_gc, ORR_ROLE_FLEET),
    PORT(store_remove, ORR_ROLE_FLEET),
    PORT(store_verify, ORR_ROLE_ANY),
    PORT(store_stat_get, ORR_ROLE_ANY),
    PORT(store_cancel, ORR_ROLE_LOCAL),
    PORT(store_read, ORR_ROLE_FLEET),
    PORT(store_want, ORR_ROLE_LOCAL),
    PORT(store_data, ORR_ROLE_FLEET),
    PORT(failed, ORR_ROLE_FLEET),
    PORT(timer, ORR_ROLE_LOCAL),
};

const struct orr_actor_type orr_store_port_type = {
    .name = "store_port",
    .state_size = sizeof(struct store_port),
    .args_size = sizeof(struct orr_store_port_args),
    .init = store_port_init,
    .fini = store_port_fini,
    .handlers = handlers,
    .n_handlers = ORR_ARRAY_SIZE(handlers),
};
