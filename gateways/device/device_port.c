/* SPDX-License-Identifier: Apache-2.0
 * device_port.c - changes of devices to messages (device_port.h).
 *
 * The watch's thread reads this actor's state, which init writes before it attaches and nobody changes until fini has
 * detached; detaching waits for a call in progress.
 */
#include "device_port.h"

enum { KEPT_MAX = 256, USAGE_MS = 10000 };

struct kept { /* an ask that is answered later; ticket 0: free */
    uint64_t ticket;
    uint32_t msg;   /* which one it was */
    uint32_t index; /* device_usage */
    struct orr_request request;
};

struct device_port {
    struct orr_device_port_args args;
    struct orr_addr self;
    uint64_t n_tickets;
    struct kept kept[KEPT_MAX];
};

ORR_HANDLER(device_port, edge_greet)
ORR_HANDLER(device_port, device_suspend)
ORR_HANDLER(device_port, device_resume)
ORR_HANDLER(device_port, device_usage)
ORR_HANDLER(device_port, device_done)

static enum orr_err tell_found(void *arg,
                               struct orr_list_device_row devices,
                               struct orr_list_env_var rank_env,
                               const char *why)
{
    const struct device_port *self = arg;
    const struct orr_msg_devices_found msg = {.devices = devices, .rank_env = rank_env};
    enum orr_err rc = self->args.post(self->args.system,
                                      self->self,
                                      self->args.node,
                                      orr_msg_desc_devices_found(),
                                      &msg);
    if (rc == ORR_OK && why && self->args.no_devices)
        self->args.no_devices(self->args.no_devices_arg, why);
    return rc;
}

static enum orr_err tell_health(void *arg, const struct orr_rec_device_row *device)
{
    const struct device_port *self = arg;
    const struct orr_msg_device_health msg = {.device = *device};
    return self->args.post(self->args.system,
                           self->self,
                           self->args.node,
                           orr_msg_desc_device_health(),
                           &msg);
}

/* ---- what takes time: asked for with a ticket, answered when the driver is back ------------- */

static void tell_done(void *arg, const struct orr_device_result *result)
{
    const struct device_port *self = arg;
    const struct orr_msg_device_done msg = {.ticket = result->ticket,
                                            .code = (uint32_t)result->code,
                                            .text = orr_str(result->text),
                                            .bytes = result->bytes,
                                            .processes = result->processes};
    /* When this mailbox is full the asker's deadline speaks for us. */
    (void)self->args.post(
        self->args.system, self->self, self->self, orr_msg_desc_device_done(), &msg);
}

static struct kept *kept_find(struct device_port *self, uint64_t ticket)
{
    for (size_t i = 0; i < KEPT_MAX; i++) {
        if (self->kept[i].ticket == ticket)
            return &self->kept[i];
    }
    return NULL;
}

static enum orr_err ask(struct orr_ctx *ctx,
                        struct device_port *self,
                        uint32_t msg,
                        struct orr_device_request *q)
{
    struct orr_error err;
    struct orr_device *device = self->args.device;
    struct kept *kept = kept_find(self, 0);
    if (!device)
        return orr_refuse(ctx, ORR_ENOSYS, "these devices cannot be asked");
    if (!kept)
        return orr_refuse(
            ctx, ORR_EBUSY, "%d requests wait for the GPU driver", KEPT_MAX);
    q->ticket = ++self->n_tickets;
    enum orr_err rc = device->ops->ask(device, q, &err);
    if (rc != ORR_OK)
        return orr_refuse(ctx, rc, "%s", err.text);
    *kept = (struct kept){q->ticket, msg, q->index, orr_defer(ctx)};
    return ORR_OK;
}

static uint32_t short_ms(uint64_t timeout_ms)
{
    return timeout_ms < UINT32_MAX ? (uint32_t)timeout_ms : UINT32_MAX;
}

static enum orr_err
device_port_on_device_suspend(struct orr_ctx *ctx,
                              struct device_port *self,
                              const struct orr_msg_device_suspend *msg)
{
    struct orr_device_request q = {.op = ORR_DEVICE_SUSPEND,
                                   .pid = msg->pid,
                                   .timeout_ms = short_ms(msg->timeout_ms)};
    return ask(ctx, self, ORR_MSG_device_suspend, &q);
}

static enum orr_err
device_port_on_device_resume(struct orr_ctx *ctx,
                             struct device_port *self,
                             const struct orr_msg_device_resume *msg)
{
    struct orr_device_request q = {.op = ORR_DEVICE_RESUME,
                                   .pid = msg->pid,
                                   .timeout_ms = short_ms(msg->timeout_ms)};
    orr_str_copy(q.from, sizeof q.from, msg->from);
    orr_str_copy(q.to, sizeof q.to, msg->to);
    return ask(ctx, self, ORR_MSG_device_resume, &q);
}

static enum orr_err device_port_on_device_usage(struct orr_ctx *ctx,
                                                struct device_port *self,
                                                const struct orr_msg_device_usage *msg)
{
    struct orr_device_request q = {
        .op = ORR_DEVICE_USAGE, .index = msg->index, .timeout_ms = USAGE_MS};
    return ask(ctx, self, ORR_MSG_device_usage, &q);
}

static enum orr_err device_port_on_device_done(struct orr_ctx *ctx,
                                               struct device_port *self,
                                               const struct orr_msg_device_done *msg)
{
    struct kept *kept = msg->ticket ? kept_find(self, msg->ticket) : NULL;
    if (!kept)
        return ORR_OK; /* asked for in an earlier life of this actor */
    kept->ticket = 0;
    if (msg->code != ORR_OK)
        orr_reply_to(ctx,
                     &kept->request,
                     failed,
                     .msg = kept->msg,
                     .code = msg->code,
                     .text = msg->text);
    else if (kept->msg == ORR_MSG_device_usage)
        orr_reply_to(ctx,
                     &kept->request,
                     device_used,
                     .index = kept->index,
                     .bytes = msg->bytes,
                     .processes = msg->processes);
    else
        orr_reply_to(ctx, &kept->request, ack);
    return ORR_OK;
}

/* ---- the actor --------------------------------------------------------------------------------- */

static void attach(struct device_port *self)
{
    orr_device_watch_attach(self->args.watch,
                            &(struct orr_device_sink){.found = tell_found,
                                                      .health = tell_health,
                                                      .arg = self});
}

static enum orr_err device_port_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct device_port *self = state;
    self->args = *(const struct orr_device_port_args *)args;
    self->self = ctx->self;
    attach(self);
    if (self->args.device)
        self->args.device->ops->attach(self->args.device, tell_done, self);
    return ORR_OK;
}

/* The node actor was started anew: to it, nothing was told yet. */
static enum orr_err device_port_on_edge_greet(struct orr_ctx *ctx,
                                              struct device_port *self,
                                              const struct orr_msg_edge_greet *msg)
{
    (void)ctx;
    (void)msg;
    attach(self);
    return ORR_OK;
}

static void device_port_fini(void *state)
{
    struct device_port *self = state;
    orr_device_watch_attach(self->args.watch, NULL);
    if (self->args.device)
        self->args.device->ops->attach(self->args.device, NULL, NULL);
}

static const struct orr_handler handlers[] = {
    ORR_ON(device_port, edge_greet, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_COALESCE),
    ORR_ON(device_port, device_suspend, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(device_port, device_resume, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(device_port, device_usage, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(device_port, device_done, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};

const struct orr_actor_type orr_device_port_type = {
    .name = "device_port",
    .state_size = sizeof(struct device_port),
    .args_size = sizeof(struct orr_device_port_args),
    .init = device_port_init,
    .fini = device_port_fini,
    .handlers = handlers,
    .n_handlers = ORR_ARRAY_SIZE(handlers),
};
