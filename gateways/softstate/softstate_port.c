/* SPDX-License-Identifier: Apache-2.0
 * softstate_port.c - softstate_port.h.
 *
 * A publisher is known by its address on this host, so that a new life of an actor may
 * drop what an earlier one put only by putting the same keys, or by letting them lapse.
 */
#include "softstate_port.h"

enum { T_TICK = 1, TICK_MS = 1000, PAGE_ENTRIES_MAX = 512, PAGE_BYTES_MAX = 256 << 10 };

struct softstate_port {
    struct orr_softstate_port_args args;
    bool is_told; /* the log knows the state below */
    bool is_degraded;
};

ORR_HANDLER(softstate_port, soft_put)
ORR_HANDLER(softstate_port, soft_gone)
ORR_HANDLER(softstate_port, soft_drop)
ORR_HANDLER(softstate_port, soft_status_get)
ORR_HANDLER(softstate_port, soft_scan)
ORR_HANDLER(softstate_port, timer)

static uint64_t owner_of(struct orr_addr a)
{
    return a.slot;
}

static enum orr_err softstate_port_on_soft_put(struct orr_ctx *ctx,
                                               struct softstate_port *self,
                                               const struct orr_msg_soft_put *msg)
{
    struct orr_softstate *s = self->args.softstate;
    (void)s->ops->put(s, msg->key, msg->value, msg->ttl_ms, owner_of(ctx->from));
    return ORR_OK; /* what was refused is counted by the edge */
}

static enum orr_err softstate_port_on_soft_gone(struct orr_ctx *ctx,
                                                struct softstate_port *self,
                                                const struct orr_msg_soft_gone *msg)
{
    struct orr_softstate *s = self->args.softstate;
    (void)ctx;
    s->ops->remove(s, msg->key);
    return ORR_OK;
}

static enum orr_err softstate_port_on_soft_drop(struct orr_ctx *ctx,
                                                struct softstate_port *self,
                                                const struct orr_msg_soft_drop *msg)
{
    struct orr_softstate *s = self->args.softstate;
    (void)msg;
    s->ops->drop(s, owner_of(ctx->from));
    return ORR_OK;
}

static enum orr_err
softstate_port_on_soft_status_get(struct orr_ctx *ctx,
                                  struct softstate_port *self,
                                  const struct orr_msg_soft_status_get *msg)
{
    struct orr_softstate *s = self->args.softstate;
    struct orr_softstate_status status;
    (void)msg;
    s->ops->status(s, &status);
    orr_reply(ctx,
              soft_status,
              .backend = orr_str(status.backend),
              .is_degraded = status.is_degraded,
              .why = orr_str(status.why),
              .since_unix_ms = status.since_unix_ms,
              .keys = status.keys,
              .writes = status.writes,
              .rewrites = status.rewrites,
              .refused = status.refused);
    return ORR_OK;
}

/* ---- scan ---- */

struct page {
    struct orr_rec_soft_entry entries[PAGE_ENTRIES_MAX];
    uint32_t n, limit;
    uint8_t bytes[PAGE_BYTES_MAX];
    size_t used;
};

static const void *keep(struct page *p, const void *from, uint32_t len)
{
    void *at = p->bytes + p->used;
    if (len)
        memcpy(at, from, len);
    p->used += len;
    return at;
}

static bool page_add(void *arg, struct orr_str key, struct orr_bytes value)
{
    struct page *p = arg;
    if (p->n == p->limit || p->used + key.len + value.len > sizeof p->bytes)
        return false;
    p->entries[p->n++] = (struct orr_rec_soft_entry){
        .key = {keep(p, key.ptr, key.len), key.len},
        .value = {keep(p, value.ptr, value.len), value.len}};
    return true;
}

static enum orr_err softstate_port_on_soft_scan(struct orr_ctx *ctx,
                                                struct softstate_port *self,
                                                const struct orr_msg_soft_scan *msg)
{
    struct orr_softstate *s = self->args.softstate;
    struct page *p = malloc(sizeof *p); /* large for a stack */
    if (!p)
        return orr_refuse(ctx, ORR_ENOMEM, "softstate: no memory for a page");
    p->n = 0;
    p->used = 0;
    p->limit =
        msg->limit && msg->limit < PAGE_ENTRIES_MAX ? msg->limit : PAGE_ENTRIES_MAX;
    uint64_t cursor = s->ops->scan(s, msg->cursor, page_add, p);
    orr_reply(ctx, soft_page, .entries = {p->entries, p->n}, .cursor = cursor);
    free(p);
    return ORR_OK;
}

/* ---- time ---- */

static void put_host(struct orr_ctx *ctx, struct softstate_port *self)
{
    struct orr_softstate *s = self->args.softstate;
    struct orr_msg_soft_host msg = self->args.host;
    struct orr_soft_key key =
        orr_soft_key(ORR_SOFT_HOST, msg.region, msg.host, (struct orr_str){0});
    uint8_t value[ORR_SOFT_VALUE_MAX];
    size_t len;
    msg.at_unix_ms = ctx->wall_ms;
    if (orr_msg_encode(orr_msg_desc_soft_host(), &msg, value, sizeof value, &len) ==
        ORR_OK)
        (void)s->ops->put(s,
                          orr_str(key.text),
                          (struct orr_bytes){value, (uint32_t)len},
                          0,
                          owner_of(ctx->self));
}

static void tell_log(struct orr_ctx *ctx, struct softstate_port *self)
{
    struct orr_softstate_status status;
    self->args.softstate->ops->status(self->args.softstate, &status);
    if (self->is_told && status.is_degraded == self->is_degraded)
        return;
    if (status.is_degraded)
        orr_log(ctx, ORR_LOG_WARN, "soft state is degraded: %s", status.why);
    else
        orr_log(ctx, ORR_LOG_INFO, "soft state is kept in %s", status.backend);
    self->is_told = true;
    self->is_degraded = status.is_degraded;
}

static enum orr_err softstate_port_on_timer(struct orr_ctx *ctx,
                                            struct softstate_port *self,
                                            const struct orr_msg_timer *msg)
{
    (void)msg;
    put_host(ctx, self);
    tell_log(ctx, self);
    orr_timer_set(ctx, T_TICK, TICK_MS, 0);
    return ORR_OK;
}

static enum orr_err
softstate_port_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct softstate_port *self = state;
    self->args = *(const struct orr_softstate_port_args *)args;
    put_host(ctx, self);
    orr_timer_set(ctx, T_TICK, TICK_MS, 0);
    return ORR_OK;
}

#define PORT(message, roles, overflow)                                                 \
    ORR_ON(softstate_port, message, ORR_ANY_STATE, roles, overflow)
static const struct orr_handler handlers[] = {
    PORT(soft_put, ORR_ROLE_LOCAL, ORR_DROP_OLDEST),
    PORT(soft_gone, ORR_ROLE_LOCAL, ORR_DROP_OLDEST),
    PORT(soft_drop, ORR_ROLE_LOCAL, ORR_DROP_OLDEST),
    PORT(soft_status_get, ORR_ROLE_ANY, ORR_REFUSE),
    PORT(soft_scan, ORR_ROLE_ANY, ORR_REFUSE),
    PORT(timer, ORR_ROLE_LOCAL, ORR_REFUSE),
};

const struct orr_actor_type orr_softstate_port_type = {
    .name = "softstate_port",
    .state_size = sizeof(struct softstate_port),
    .args_size = sizeof(struct orr_softstate_port_args),
    .init = softstate_port_init,
    .handlers = handlers,
    .n_handlers = ORR_ARRAY_SIZE(handlers),
};
