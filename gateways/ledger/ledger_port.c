/* SPDX-License-Identifier: Apache-2.0
 * ledger_port.c - messages to calls, and news to messages (ledger_port.h).
 *
 * The ledger's thread reads this actor's args and address, which init writes before it
 * attaches and nobody changes until fini has detached; detaching waits for a call in
 * progress.  A request that waits for the ledger has copies of what its answer needs.
 */
#include "ledger_port.h"

enum { NEWS_MS = 100 };

struct ledger_port {
    struct orr_ledger_port_args args;
    struct orr_addr self;
    struct orr_ledger_reader reader;
    uint8_t *entry; /* owned: where entries are encoded */
    size_t entry_cap;
};

/* What somebody waits for. */
struct kept {
    struct orr_system *system;
    orr_ledger_reply_f reply;
    struct orr_addr self;
    struct orr_request request;
};

ORR_HANDLER(ledger_port, ledger_append)
ORR_HANDLER(ledger_port, ledger_read)
ORR_HANDLER(ledger_port, ledger_info_get)
ORR_HANDLER(ledger_port, voter_add)
ORR_HANDLER(ledger_port, voter_remove)
ORR_HANDLER(ledger_port, leader_move)
ORR_HANDLER(ledger_port, timer)

/* ---- news ------------------------------------------------------------------------------------- */

static struct orr_msg_ledger_news news_of(const struct orr_ledger_news *news)
{
    return (struct orr_msg_ledger_news){.term = news->term,
                                        .is_leading = news->is_leading,
                                        .leader = orr_str(news->leader),
                                        .committed = news->committed,
                                        .ticket = news->ticket,
                                        .trouble = news->trouble.code,
                                        .text = orr_str(news->trouble.text)};
}

/* In the ledger's thread.  One that finds no room is followed by another. */
static void tell_news(void *arg, const struct orr_ledger_news *news)
{
    const struct ledger_port *self = arg;
    const struct orr_msg_ledger_news msg = news_of(news);
    (void)self->args.post(self->args.system,
                          self->self,
                          self->args.region,
                          orr_msg_desc_ledger_news(),
                          &msg);
}

static enum orr_err ledger_port_on_timer(struct orr_ctx *ctx,
                                         struct ledger_port *self,
                                         const struct orr_msg_timer *msg)
{
    struct orr_ledger_info info;
    (void)msg;
    self->args.ledger->ops->info(self->args.ledger, &info);
    const struct orr_msg_ledger_news news = news_of(&info.news);
    ctx->ops->send(ctx, self->args.region, orr_msg_desc_ledger_news(), &news);
    orr_timer_set(ctx, 0, NEWS_MS, 0);
    return ORR_OK;
}

/* ---- entries and pages ------------------------------------------------------------------------ */

static enum orr_err
ledger_port_on_ledger_append(struct orr_ctx *ctx,
                             struct ledger_port *self,
                             const struct orr_msg_ledger_append *msg)
{
    const struct orr_msg_desc *desc = orr_msg_desc_ledger_append();
    const size_t cap = orr_msg_encode_bound(desc, msg);
    size_t len;
    if (cap > self->entry_cap) {
        uint8_t *entry = realloc(self->entry, cap);
        if (!entry)
            return orr_refuse(
                ctx, ORR_ENOMEM, "an entry of %zu bytes: out of memory", cap);
        self->entry = entry;
        self->entry_cap = cap;
    }
    const enum orr_err code = orr_msg_encode(desc, msg, self->entry, cap, &len);
    if (code != ORR_OK)
        return orr_refuse(
            ctx, code, "an entry of %u records is too large", msg->records.n);
    self->args.ledger->ops->append(
        self->args.ledger, msg->term, msg->ticket, self->entry, len);
    return ORR_OK;
}

static void reply_page(void *arg, const struct orr_msg_ledger_page *page)
{
    struct orr_ctx *ctx = arg;
    ctx->ops->reply(ctx, &ctx->request, orr_msg_desc_ledger_page(), page);
}

static enum orr_err ledger_port_on_ledger_read(struct orr_ctx *ctx,
                                               struct ledger_port *self,
                                               const struct orr_msg_ledger_read *msg)
{
    const enum orr_err code = self->args.ledger->ops->read(
        self->args.ledger, &self->reader, msg->after, reply_page, ctx);
    return code == ORR_OK ? ORR_OK : orr_refuse(ctx, code, "%s", orr_err_text(code));
}

static enum orr_err
ledger_port_on_ledger_info_get(struct orr_ctx *ctx,
                               struct ledger_port *self,
                               const struct orr_msg_ledger_info_get *msg)
{
    struct orr_ledger_info info;
    struct orr_rec_voter voters[ORR_LEDGER_VOTERS_MAX];
    (void)msg;
    self->args.ledger->ops->info(self->args.ledger, &info);
    for (uint32_t i = 0; i < info.n_voters; i++)
        voters[i] = (struct orr_rec_voter){.host = orr_str(info.voters[i].host),
                                           .address = orr_str(info.voters[i].address),
                                           .endpoint = orr_str(info.voters[i].endpoint),
                                           .is_leading = info.voters[i].is_leading,
                                           .is_voting = info.voters[i].is_voting};
    orr_reply(ctx,
              ledger_info,
              .region = orr_str(self->args.region_name),
              .host = orr_str(self->args.host),
              .term = info.news.term,
              .is_leading = info.news.is_leading,
              .leader = orr_str(info.news.leader),
              .committed = info.news.committed,
              .keys = info.keys,
              .image_bytes = info.image_bytes,
              .digest = info.digest,
              .trouble = info.news.trouble.code,
              .text = orr_str(info.news.trouble.text),
              .voters = {voters, info.n_voters});
    return ORR_OK;
}

/* ---- requests that take their time ------------------------------------------------------------ */

/* In the ledger's thread, or in the handler that asked. */
static void answer(void *arg, const struct orr_error *result)
{
    struct kept *kept = arg;
    const struct orr_msg_ack ack = {.end_ = 0};
    const struct orr_msg_failed failed = {.code = result->code,
                                          .msg = kept->request.msg_id,
                                          .text = orr_str(result->text)};
    if (result->code == ORR_OK)
        (void)kept->reply(
            kept->system, kept->self, &kept->request, orr_msg_desc_ack(), &ack);
    else
        (void)kept->reply(
            kept->system, kept->self, &kept->request, orr_msg_desc_failed(), &failed);
    free(kept);
}

static struct kept *keep(struct orr_ctx *ctx, const struct ledger_port *self)
{
    struct kept *kept = malloc(sizeof *kept);
    if (kept)
        *kept = (struct kept){.system = self->args.system,
                              .reply = self->args.reply,
                              .self = self->self,
                              .request = orr_defer(ctx)};
    return kept;
}

static enum orr_err ledger_port_on_voter_add(struct orr_ctx *ctx,
                                             struct ledger_port *self,
                                             const struct orr_msg_voter_add *msg)
{
    struct kept *kept = keep(ctx, self);
    if (!kept)
        return ORR_ENOMEM;
    self->args.ledger->ops->voter_add(
        self->args.ledger, msg->host, msg->address, msg->endpoint, answer, kept);
    return ORR_OK;
}

static enum orr_err ledger_port_on_voter_remove(struct orr_ctx *ctx,
                                                struct ledger_port *self,
                                                const struct orr_msg_voter_remove *msg)
{
    struct kept *kept = keep(ctx, self);
    if (!kept)
        return ORR_ENOMEM;
    self->args.ledger->ops->voter_remove(self->args.ledger, msg->host, answer, kept);
    return ORR_OK;
}

static enum orr_err ledger_port_on_leader_move(struct orr_ctx *ctx,
                                               struct ledger_port *self,
                                               const struct orr_msg_leader_move *msg)
{
    struct kept *kept = keep(ctx, self);
    if (!kept)
        return ORR_ENOMEM;
    self->args.ledger->ops->leader_move(self->args.ledger, msg->host, answer, kept);
    return ORR_OK;
}

/* ---- the actor -------------------------------------------------------------------------------- */

static enum orr_err ledger_port_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct ledger_port *self = state;
    self->args = *(const struct orr_ledger_port_args *)args;
    self->self = ctx->self;
    self->args.ledger->ops->attach(
        self->args.ledger, &(struct orr_ledger_sink){.news = tell_news, .arg = self});
    orr_timer_set(ctx, 0, NEWS_MS, 0);
    return ORR_OK;
}

static void ledger_port_fini(void *state)
{
    struct ledger_port *self = state;
    self->args.ledger->ops->attach(self->args.ledger, NULL);
    free(self->entry);
}

static const struct orr_handler handlers[] = {
    ORR_ON(ledger_port, ledger_append, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(ledger_port, ledger_read, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(ledger_port, ledger_info_get, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(ledger_port, voter_add, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(ledger_port, voter_remove, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(ledger_port, leader_move, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(ledger_port, timer, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};

const struct orr_actor_type orr_ledger_port_type = {
    .name = "ledger_port",
    .state_size = sizeof(struct ledger_port),
    .args_size = sizeof(struct orr_ledger_port_args),
    .init = ledger_port_init,
    .fini = ledger_port_fini,
    .handlers = handlers,
    .n_handlers = ORR_ARRAY_SIZE(handlers),
    .mailbox_max = 1 << 16, /* a region that leads sends an entry per message */
};
