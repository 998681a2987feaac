/* SPDX-License-Identifier: Apache-2.0
 * links.c - see links.h.
 *
 * A link stays for as long as anybody wants it; one that the host dials for itself, such as to its
 * parent, is never let go here.
 */
#include "links.h"

#include "orrery/ids.h"
#include "transport_zmq.h"

enum { WANTS_MAX = 2 * ORR_ZMQ_DIALS_MAX };

struct want {
    uint64_t asker;  /* its slot; 0: free */
    bool is_dialled; /* by us: else the host has that link anyway */
    char host[ORR_NAME_MAX];
};

struct host_links {
    struct host_links_args args;
    struct want wants[WANTS_MAX];
};

ORR_HANDLER(host_links, link_want)
ORR_HANDLER(host_links, link_drop)

/* A want of this host by somebody, by that asker when it is not 0; NULL: none. */
static struct want *find(struct host_links *self, uint64_t asker, const char *host)
{
    for (size_t i = 0; i < WANTS_MAX; i++) {
        struct want *w = &self->wants[i];
        if (w->asker && (!asker || w->asker == asker) && strcmp(w->host, host) == 0)
            return w;
    }
    return NULL;
}

static struct want *find_free(struct host_links *self)
{
    for (size_t i = 0; i < WANTS_MAX; i++)
        if (!self->wants[i].asker)
            return &self->wants[i];
    return NULL;
}

static enum orr_err host_links_on_link_want(struct orr_ctx *ctx,
                                            struct host_links *self,
                                            const struct orr_msg_link_want *msg)
{
    char host[ORR_NAME_MAX], endpoint[ORR_ENDPOINT_MAX];
    struct orr_error err;
    orr_str_copy(host, sizeof host, msg->host);
    orr_str_copy(endpoint, sizeof endpoint, msg->endpoint);
    if (find(self, ctx->from.slot, host))
        return ORR_OK;
    const struct want *other = find(self, 0, host);
    struct want *w = find_free(self);
    if (!w)
        return orr_refuse(ctx, ORR_ENOSPC, "link to %s: too many are wanted", host);
    enum orr_err rc = orr_zmq_dial(self->args.zmq, host, endpoint, &err);
    if (rc != ORR_OK && rc != ORR_EEXIST) {
        orr_log(ctx, ORR_LOG_WARN, "%s", err.text);
        return orr_refuse(ctx, rc, "%s", err.text);
    }
    w->asker = ctx->from.slot;
    w->is_dialled = rc == ORR_OK || (other && other->is_dialled);
    memcpy(w->host, host, sizeof host);
    return ORR_OK;
}

static enum orr_err host_links_on_link_drop(struct orr_ctx *ctx,
                                            struct host_links *self,
                                            const struct orr_msg_link_drop *msg)
{
    char host[ORR_NAME_MAX];
    orr_str_copy(host, sizeof host, msg->host);
    struct want *w = find(self, ctx->from.slot, host);
    if (!w)
        return ORR_OK;
    w->asker = 0;
    if (w->is_dialled && !find(self, 0, host))
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
