/* SPDX-License-Identifier: Apache-2.0
 * links.c - see links.h.
 */
#include "links.h"

#include "transport_zmq.h"

struct host_links {
    struct host_links_args args;
};

ORR_HANDLER(host_links, link_want)
ORR_HANDLER(host_links, link_drop)

static enum orr_err host_links_on_link_want(struct orr_ctx *ctx,
                                            struct host_links *self,
                                            const struct orr_msg_link_want *msg)
{
    char host[ORR_NAME_MAX], endpoint[ORR_ENDPOINT_MAX];
    struct orr_error err;
    orr_str_copy(host, sizeof host, msg->host);
    orr_str_copy(endpoint, sizeof endpoint, msg->endpoint);
    enum orr_err rc = orr_zmq_dial(self->args.zmq, host, endpoint, &err);
    if (rc == ORR_OK || rc == ORR_EEXIST)
        return ORR_OK;
    orr_log(ctx, ORR_LOG_WARN, "%s", err.text);
    return orr_refuse(ctx, rc, "%s", err.text);
}

static enum orr_err host_links_on_link_drop(struct orr_ctx *ctx,
                                            struct host_links *self,
                                            const struct orr_msg_link_drop *msg)
{
    (void)ctx;
    char host[ORR_NAME_MAX];
    orr_str_copy(host, sizeof host, msg->host);
    orr_zmq_undial(self->args.zmq, host);
    return ORR_OK;
}

static enum orr_err host_links_init(struct orr_ctx *ctx, void *state, const void *args)
{
    (void)ctx;
    ((struct host_links *)state)->args = *(const struct host_links_args *)args;
    return ORR_OK;
}

static const struct orr_handler handlers[] = {
    ORR_ON(host_links, link_want, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(host_links, link_drop, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};

const struct orr_actor_type host_links_type = {
    .name = "links",
    .state_size = sizeof(struct host_links),
    .args_size = sizeof(struct host_links_args),
    .init = host_links_init,
    .handlers = handlers,
    .n_handlers = ORR_ARRAY_SIZE(handlers),
};
