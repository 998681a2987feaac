/* SPDX-License-Identifier: Apache-2.0
 * process_port.c - messages to calls, and changes to messages (process_port.h).
 *
 * The edge's thread reads this actor's state, which init writes before it attaches and
 * nobody changes until fini has detached; detaching waits for a call in progress.
 */
#include "process_port.h"

#include "image_drop.h"

enum { LOG_CHUNK_MAX = 64 << 10, NOTE_MAX = 512 << 10, KEPT_MAX = 512 };

struct kept { /* an ask that is answered later; ticket 0: free */
    uint64_t ticket;
    struct orr_request request;
    bool is_image;
};

struct process_port {
    struct orr_process_port_args args;
    struct orr_addr self;
    uint64_t n_tickets;
    struct kept kept[KEPT_MAX];
};

ORR_HANDLER(process_port, process_launch)
ORR_HANDLER(process_port, process_signal)
ORR_HANDLER(process_port, process_forget)
ORR_HANDLER(process_port, process_freeze)
ORR_HANDLER(process_port, process_image)
ORR_HANDLER(process_port, process_widen)
ORR_HANDLER(process_port, rank_note)
ORR_HANDLER(process_port, image_drop)
ORR_HANDLER(process_port, process_done)
ORR_HANDLER(process_port, port_reserve)
ORR_HANDLER(process_port, log_read)
ORR_HANDLER(process_port, process_lease)
ORR_HANDLER(process_port, node_note)
ORR_HANDLER(process_port, edge_greet)

static enum orr_err
answer(struct orr_ctx *ctx, enum orr_err rc, const struct orr_error *err)
{
    return rc == ORR_OK ? ORR_OK : orr_refuse(ctx, rc, "%s", err->text);
}

static enum orr_err
process_port_on_process_launch(struct orr_ctx *ctx,
                               struct process_port *self,
                               const struct orr_msg_process_launch *msg)
{
    struct orr_error err;
    struct orr_process_launch launch = {
        .id = {msg->job, msg->generation, msg->rank},
        .device = msg->device,
        .command = msg->command,
        .env = msg->env,
        .workdir = msg->workdir,
        .wants_image = msg->wants_image,
        .overlay = msg->overlay,
        .address = msg->address,
        .hostname = msg->hostname,
        .underlay = msg->underlay,
        .peers = msg->peers,
        .restore_dir = msg->restore_dir,
        .stays_frozen = msg->stays_frozen,
    };
    return answer(
        ctx, self->args.process->ops->launch(self->args.process, &launch, &err), &err);
}

static enum orr_err
process_port_on_process_signal(struct orr_ctx *ctx,
                               struct process_port *self,
                               const struct orr_msg_process_signal *msg)
{
    struct orr_error err;
    struct orr_process_id id = {msg->job, msg->generation, msg->rank};
    return answer(
        ctx,
        self->args.process->ops->signal(self->args.process, &id, msg->signal, &err),
        &err);
}

static enum orr_err
process_port_on_process_forget(struct orr_ctx *ctx,
                               struct process_port *self,
                               const struct orr_msg_process_forget *msg)
{
    struct orr_error err;
    struct orr_process_id id = {msg->job, msg->generation, msg->rank};
    return answer(
        ctx, self->args.process->ops->forget(self->args.process, &id, &err), &err);
}

/* ---- what takes time: asked for with a ticket, answered when the edge says that it is done
 * ----------- */

static struct kept *kept_find(struct process_port *self, uint64_t ticket)
{
    for (size_t i = 0; i < KEPT_MAX; i++) {
        if (self->kept[i].ticket == ticket)
            return &self->kept[i];
    }
    return NULL;
}

/* The ticket of the request being handled, or 0: too many are kept. */
static struct kept *keep(struct process_port *self)
{
    struct kept *kept = kept_find(self, 0);
    if (kept)
        kept->ticket = ++self->n_tickets;
    return kept;
}

static enum orr_err keep_or_refuse(struct orr_ctx *ctx,
                                   struct kept *kept,
                                   enum orr_err rc,
                                   struct orr_error *err)
{
    if (rc == ORR_OK)
        kept->request = orr_defer(ctx);
    else
        kept->ticket = 0;
    return answer(ctx, rc, err);
}

static enum orr_err
process_port_on_process_freeze(struct orr_ctx *ctx,
                               struct process_port *self,
                               const struct orr_msg_process_freeze *msg)
{
    struct orr_error err;
    struct orr_process *process = self->args.process;
    struct orr_process_id id = {msg->job, msg->generation, msg->rank};
    struct kept *kept = keep(self);
    if (!kept)
        return orr_refuse(
            ctx, ORR_EBUSY, "%d freezes and images wait already", KEPT_MAX);
    kept->is_image = false;
    enum orr_err rc =
        process->ops->freeze(process, &id, msg->is_frozen, kept->ticket, &err);
    return keep_or_refuse(ctx, kept, rc, &err);
}

static enum orr_err
process_port_on_process_image(struct orr_ctx *ctx,
                              struct process_port *self,
                              const struct orr_msg_process_image *msg)
{
    struct orr_error err;
    struct orr_process *process = self->args.process;
    struct orr_process_id id = {msg->job, msg->generation, msg->rank};
    const struct orr_process_image image = {
        msg->dir, msg->leave_running, msg->timeout_ms, msg->devices};
    struct kept *kept = keep(self);
    if (!kept)
        return orr_refuse(
            ctx, ORR_EBUSY, "%d freezes and images wait already", KEPT_MAX);
    kept->is_image = true;
    enum orr_err rc = process->ops->image(process, &id, &image, kept->ticket, &err);
    return keep_or_refuse(ctx, kept, rc, &err);
}

static enum orr_err
process_port_on_process_widen(struct orr_ctx *ctx,
                              struct process_port *self,
                              const struct orr_msg_process_widen *msg)
{
    struct orr_error err;
    struct orr_process_id id = {msg->job, msg->generation, msg->rank};
    const struct orr_process_network network = {
        msg->overlay, msg->underlay, msg->peers};
    return answer(
        ctx,
        self->args.process->ops->widen(self->args.process, &id, &network, &err),
        &err);
}

static enum orr_err process_port_on_rank_note(struct orr_ctx *ctx,
                                              struct process_port *self,
                                              const struct orr_msg_rank_note *msg)
{
    struct orr_error err;
    struct orr_process_id id = {msg->job, msg->generation, msg->rank};
    const struct orr_process_stop stop = {
        msg->cut, msg->step, msg->device, msg->visible};
    return answer(
        ctx,
        self->args.process->ops->stop_note(self->args.process, &id, &stop, &err),
        &err);
}

static enum orr_err process_port_on_image_drop(struct orr_ctx *ctx,
                                               struct process_port *self,
                                               const struct orr_msg_image_drop *msg)
{
    struct orr_error err;
    return answer(ctx, orr_image_drop(self->args.images, msg->dir, &err), &err);
}

static enum orr_err process_port_on_process_done(struct orr_ctx *ctx,
                                                 struct process_port *self,
                                                 const struct orr_msg_process_done *msg)
{
    struct kept *kept = msg->ticket ? kept_find(self, msg->ticket) : NULL;
    if (!kept)
        return ORR_OK; /* asked for in an earlier life of this actor */
    kept->ticket = 0;
    if (msg->code != ORR_OK)
        orr_reply_to(ctx,
                     &kept->request,
                     failed,
                     .msg = kept->is_image ? ORR_MSG_process_image
                                           : ORR_MSG_process_freeze,
                     .code = msg->code,
                     .text = msg->text);
    else if (kept->is_image)
        orr_reply_to(ctx,
                     &kept->request,
                     process_imaged,
                     .bytes = msg->bytes,
                     .took_ms = msg->took_ms,
                     .paused_ms = msg->paused_ms);
    else
        orr_reply_to(ctx, &kept->request, ack);
    return ORR_OK;
}

static enum orr_err process_port_on_port_reserve(struct orr_ctx *ctx,
                                                 struct process_port *self,
                                                 const struct orr_msg_port_reserve *msg)
{
    struct orr_error err;
    const char *addr;
    uint32_t port;
    (void)msg;
    enum orr_err rc =
        self->args.process->ops->port_reserve(self->args.process, &addr, &port, &err);
    if (rc == ORR_OK)
        orr_reply(ctx, port_reserved, .addr = orr_str(addr), .port = port);
    return answer(ctx, rc, &err);
}

static enum orr_err process_port_on_log_read(struct orr_ctx *ctx,
                                             struct process_port *self,
                                             const struct orr_msg_log_read *msg)
{
    struct orr_error err;
    struct orr_process_id id = {msg->job, msg->generation, msg->rank};
    struct orr_process_log log;
    uint8_t buf[LOG_CHUNK_MAX];
    size_t cap =
        msg->max_bytes && msg->max_bytes < sizeof buf ? msg->max_bytes : sizeof buf;
    enum orr_err rc = self->args.process->ops->log_read(
        self->args.process, &id, msg->stream, msg->offset, buf, cap, &log, &err);
    if (rc == ORR_OK)
        orr_reply(ctx,
                  log_chunk,
                  .generation = log.generation,
                  .offset = log.offset,
                  .data = {buf, (uint32_t)log.len},
                  .is_final = log.is_final);
    return answer(ctx, rc, &err);
}

static enum orr_err
process_port_on_process_lease(struct orr_ctx *ctx,
                              struct process_port *self,
                              const struct orr_msg_process_lease *msg)
{
    uint64_t now = orr_now_ms(ctx);
    uint64_t left = msg->until_ms > now ? msg->until_ms - now : 0;
    self->args.process->ops->lease_set(self->args.process,
                                       msg->until_ms ? left : UINT64_MAX,
                                       now > msg->heard_ms ? now - msg->heard_ms : 0);
    return ORR_OK;
}

static enum orr_err process_port_on_node_note(struct orr_ctx *ctx,
                                              struct process_port *self,
                                              const struct orr_msg_node_note *msg)
{
    struct orr_error err;
    return answer(
        ctx,
        self->args.process->ops->note_put(self->args.process, msg->note, &err),
        &err);
}

/* ---- from the edge's thread
 * ----------------------------------------------------------------- */

static enum orr_err tell_found(void *arg, struct orr_list_rank_row ranks)
{
    const struct process_port *self = arg;
    struct orr_process *process = self->args.process;
    struct orr_msg_processes_found msg = {.ranks = ranks};
    uint8_t *note = malloc(NOTE_MAX);
    if (!note)
        return ORR_ENOMEM;
    msg.has_lease = process->ops->lease_get(process, &msg.silent_ms);
    msg.note = (struct orr_bytes){
        note, (uint32_t)process->ops->note_get(process, note, NOTE_MAX)};
    enum orr_err rc = self->args.post(self->args.system,
                                      self->self,
                                      self->args.node,
                                      orr_msg_desc_processes_found(),
                                      &msg);
    free(note);
    return rc;
}

static enum orr_err tell_event(void *arg, const struct orr_rec_rank_row *rank)
{
    const struct process_port *self = arg;
    const struct orr_msg_process_event msg = {.rank = *rank};
    return self->args.post(self->args.system,
                           self->self,
                           self->args.node,
                           orr_msg_desc_process_event(),
                           &msg);
}

static enum orr_err tell_done(void *arg, const struct orr_process_done *done)
{
    const struct process_port *self = arg;
    const struct orr_msg_process_done msg = {.ticket = done->tag,
                                             .code = (uint32_t)done->code,
                                             .text = done->text,
                                             .bytes = done->bytes,
                                             .took_ms = done->took_ms,
                                             .paused_ms = done->paused_ms};
    return self->args.post(
        self->args.system, self->self, self->self, orr_msg_desc_process_done(), &msg);
}

static enum orr_err tell_ability(void *arg, const struct orr_process_ability *ability)
{
    const struct process_port *self = arg;
    const struct orr_msg_image_ability msg = {.is_able = ability->is_able,
                                              .text = ability->text,
                                              .criu_version = ability->version};
    return self->args.post(self->args.system,
                           self->self,
                           self->args.node,
                           orr_msg_desc_image_ability(),
                           &msg);
}

/* ---- the actor
 * ------------------------------------------------------------------------------ */

static void attach(struct process_port *self)
{
    self->args.process->ops->attach(self->args.process,
                                    &(struct orr_process_sink){.found = tell_found,
                                                               .event = tell_event,
                                                               .done = tell_done,
                                                               .ability = tell_ability,
                                                               .arg = self});
}

static enum orr_err
process_port_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct process_port *self = state;
    self->args = *(const struct orr_process_port_args *)args;
    self->self = ctx->self;
    attach(self);
    return ORR_OK;
}

/* The node actor was started anew: to it, nothing was told yet. */
static enum orr_err process_port_on_edge_greet(struct orr_ctx *ctx,
                                               struct process_port *self,
                                               const struct orr_msg_edge_greet *msg)
{
    (void)ctx;
    (void)msg;
    attach(self);
    return ORR_OK;
}

static void process_port_fini(void *state)
{
    struct process_port *self = state;
    self->args.process->ops->attach(self->args.process, NULL);
}

static const struct orr_handler handlers[] = {
    ORR_ON(process_port, process_launch, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(process_port, process_signal, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(process_port, process_forget, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(process_port, process_freeze, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(process_port, process_image, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(process_port, process_widen, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(process_port, rank_note, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(process_port, image_drop, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(process_port, process_done, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(process_port, port_reserve, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(process_port, process_lease, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_COALESCE),
    ORR_ON(process_port, node_note, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(process_port, edge_greet, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_COALESCE),
    ORR_ON(process_port, log_read, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
};

const struct orr_actor_type orr_process_port_type = {
    .name = "process_port",
    .state_size = sizeof(struct process_port),
    .args_size = sizeof(struct orr_process_port_args),
    .init = process_port_init,
    .fini = process_port_fini,
    .handlers = handlers,
    .n_handlers = ORR_ARRAY_SIZE(handlers),
};
