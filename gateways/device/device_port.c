/* SPDX-License-Identifier: Apache-2.0
 * device_port.c - changes of devices to messages (device_port.h).
 *
 * The watch's thread reads this actor's state, which init writes before it attaches and nobody changes until fini has
 * detached; detaching waits for a call in progress.
 */
#include "device_port.h"

struct device_port {
    struct orr_device_port_args args;
    struct orr_addr self;
};

ORR_HANDLER(device_port, edge_greet)

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
}

static const struct orr_handler handlers[] = {
    ORR_ON(device_port, edge_greet, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_COALESCE),
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
