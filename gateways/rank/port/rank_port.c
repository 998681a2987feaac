/* SPDX-License-Identifier: Apache-2.0
 * rank_port.c - messages to calls, and changes to messages (rank_port.h).
 *
 * The edge's thread reads this actor's state, which init writes before it attaches and nobody changes until fini has detached;
 * detaching waits for a call in progress.
 */
#include "rank_port.h"

struct rank_port {
    struct orr_rank_port_args args;
    struct orr_addr self;
};

ORR_HANDLER(rank_port, rank_expect)
ORR_HANDLER(rank_port, rank_forgotten)
ORR_HANDLER(rank_port, rank_arena_drop)
ORR_HANDLER(rank_port, cut_step)
ORR_HANDLER(rank_port, job_posts)
ORR_HANDLER(rank_port, edge_greet)

static enum orr_err rank_port_on_rank_expect(struct orr_ctx *ctx,
                                             struct rank_port *self,
                                             const struct orr_msg_rank_expect *msg)
{
    struct orr_error err = {.text = ""};
    enum orr_err rc = orr_rank_edge_expect(self->args.edge, msg, &err);
    return rc ? orr_refuse(ctx, rc, "%s", err.text) : ORR_OK;
}

static enum orr_err
rank_port_on_rank_forgotten(struct orr_ctx *ctx,
                            struct rank_port *self,
                            const struct orr_msg_rank_forgotten *msg)
{
    (void)ctx;
    if (msg->is_one)
        orr_rank_edge_forget_rank(
            self->args.edge, msg->job, msg->generation, msg->rank);
    else
        orr_rank_edge_forget(self->args.edge, msg->job, msg->generation);
    return ORR_OK;
}

static enum orr_err
rank_port_on_rank_arena_drop(struct orr_ctx *ctx,
                             struct rank_port *self,
                             const struct orr_msg_rank_arena_drop *msg)
{
    (void)ctx;
    orr_rank_edge_drop_arenas(self->args.edge, msg);
    return ORR_OK;
}

static void answer(void *ctx, const struct orr_msg_cut_report *report)
{
    struct orr_ctx *c = ctx;
    c->ops->reply(c, &c->request, orr_msg_desc_cut_report(), report);
}

static enum orr_err rank_port_on_cut_step(struct orr_ctx *ctx,
                                          struct rank_port *self,
                                          const struct orr_msg_cut_step *msg)
{
    struct orr_error err = {.text = ""};
    enum orr_err rc = orr_rank_edge_step(self->args.edge, msg, answer, ctx, &err);
    return rc ? orr_refuse(ctx, rc, "%s", err.text) : ORR_OK;
}

static enum orr_err rank_port_on_job_posts(struct orr_ctx *ctx,
                                           struct rank_port *self,
                                           const struct orr_msg_job_posts *msg)
{
    (void)ctx;
    orr_rank_edge_posts(self->args.edge, msg);
    return ORR_OK;
}

/* ---- from the edge's thread --------------------------------------------------------------- */

static enum orr_err tell_report(void *arg, const struct orr_msg_cut_report *msg)
{
    const struct rank_port *self = arg;
    return self->args.post(
        self->args.system, self->self, self->args.node, orr_msg_desc_cut_report(), msg);
}

static enum orr_err tell_ability(void *arg, const struct orr_msg_rank_ability *msg)
{
    const struct rank_port *self = arg;
    return self->args.post(self->args.system,
                           self->self,
                           self->args.node,
                           orr_msg_desc_rank_ability(),
                           msg);
}

static enum orr_err tell_idle(void *arg, const struct orr_msg_rank_idle *msg)
{
    const struct rank_port *self = arg;
    return self->args.post(
        self->args.system, self->self, self->args.node, orr_msg_desc_rank_idle(), msg);
}

static enum orr_err tell_posts(void *arg, const struct orr_msg_job_posts *msg)
{
    const struct rank_port *self = arg;
    return self->args.post(
        self->args.system, self->self, self->args.node, orr_msg_desc_job_posts(), msg);
}

/* ---- the actor ---------------------------------------------------------------------------- */

static void attach(struct rank_port *self)
{
    orr_rank_edge_attach(self->args.edge,
                         &(struct orr_rank_sink){.report = tell_report,
                                                 .ability = tell_ability,
                                                 .idle = tell_idle,
                                                 .posts = tell_posts,
                                                 .arg = self});
}

static enum orr_err rank_port_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct rank_port *self = state;
    self->args = *(const struct orr_rank_port_args *)args;
    self->self = ctx->self;
    attach(self);
    return ORR_OK;
}

/* The node actor was started anew: to it, nothing was told yet. */
static enum orr_err rank_port_on_edge_greet(struct orr_ctx *ctx,
                                            struct rank_port *self,
                                            const struct orr_msg_edge_greet *msg)
{
    (void)ctx, (void)msg;
    attach(self);
    return ORR_OK;
}

static void rank_port_fini(void *state)
{
    struct rank_port *self = state;
    orr_rank_edge_attach(self->args.edge, NULL);
}

static const struct orr_handler handlers[] = {
    ORR_ON(rank_port, rank_expect, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(rank_port, rank_forgotten, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(rank_port, rank_arena_drop, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(rank_port, cut_step, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(rank_port, job_posts, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(rank_port, edge_greet, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_COALESCE),
};

const struct orr_actor_type orr_rank_port_type = {
    .name = "rank_port",
    .state_size = sizeof(struct rank_port),
    .args_size = sizeof(struct orr_rank_port_args),
    .init = rank_port_init,
    .fini = rank_port_fini,
    .handlers = handlers,
    .n_handlers = ORR_ARRAY_SIZE(handlers),
};
