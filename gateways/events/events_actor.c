/* SPDX-License-Identifier: Apache-2.0
 * events_actor.c - the actor at /edge/events: takes events of the region, answers those
 * who follow.
 *
 * A request that finds nothing waits here.  One asker waits once: its newer request
 * answers the older one, so that a subscriber cannot fill the table alone.
 */
#include "events.h"

#include <inttypes.h>

struct waiter {
    struct orr_request request;
    uint64_t epoch; /* 0: whatever comes */
    uint64_t after;
    uint64_t due_ms;
    uint32_t limit;
    uint32_t topic_len;
    char topic[ORR_EVENTS_TOPIC_MAX];
};

struct events {
    struct orr_events *stream; /* borrowed: of the host */
    char *page;                /* owned: ORR_EVENTS_PAGE_MAX bytes */
    uint32_t n_waiters;
    struct waiter waiters[ORR_EVENTS_WAITERS_MAX];
};

ORR_HANDLER(events, event)
ORR_HANDLER(events, events_get)
ORR_HANDLER(events, timer)

static enum orr_err events_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct events *self = state;
    self->stream = ((const struct orr_events_args *)args)->events;
    self->page = malloc(ORR_EVENTS_PAGE_MAX);
    self->n_waiters = 0;
    return self->page ? ORR_OK
                      : orr_refuse(ctx, ORR_ENOMEM, "events: no memory for a page");
}

static void events_fini(void *state)
{
    free(((struct events *)state)->page);
}

static struct orr_events_page read_page(struct events *self, const struct waiter *w)
{
    return orr_events_replay(self->stream,
                             w->after,
                             w->limit,
                             (struct orr_str){w->topic, w->topic_len},
                             self->page,
                             ORR_EVENTS_PAGE_MAX);
}

/* Whoever reads another epoch than ours.  A replica that has no event yet has not read
 * the ledger: it cannot know what is over. */
static enum orr_err
check_epoch(const struct orr_events_page *page, uint64_t epoch, struct orr_error *err)
{
    if (epoch == 0 || epoch == page->epoch)
        return ORR_OK;
    if (page->epoch == 0)
        return orr_fail(err,
                        ORR_EBUSY,
                        "events: this host has no event yet, it still reads the "
                        "ledger; ask again, or another replica");
    return orr_fail(err,
                    ORR_ESTALE,
                    "events: epoch %" PRIu64 " is over, the current one is %" PRIu64
                    "; take a snapshot and follow from there",
                    epoch,
                    page->epoch);
}

static void send_page(struct orr_ctx *ctx,
                      const struct events *self,
                      const struct waiter *w,
                      const struct orr_events_page *page)
{
    orr_reply_to(ctx,
                 &w->request,
                 events,
                 .epoch = page->epoch,
                 .first_seq = page->first_seq,
                 .last_seq = page->last_seq,
                 .through = page->through,
                 .jsonl = {(const uint8_t *)self->page, (uint32_t)page->len});
}

/* Answer w if there is something for it, or if it is due: an empty page is a heartbeat.
 * False: it waits on, past what it does not want to see. */
static bool
try_answer(struct orr_ctx *ctx, struct events *self, struct waiter *w, bool is_due)
{
    struct orr_error err;
    struct orr_events_page page = read_page(self, w);
    enum orr_err code = check_epoch(&page, w->epoch, &err);
    bool is_behind = page.through > w->after && page.first_seq > w->after + 1;
    if (code != ORR_OK) {
        orr_reply_to(ctx,
                     &w->request,
                     failed,
                     .code = code,
                     .msg = ORR_MSG_events_get,
                     .text = orr_str(err.text));
        return true;
    }
    if (page.len == 0 && !is_behind && !is_due) {
        w->after = page.through;
        return false;
    }
    send_page(ctx, self, w, &page);
    return true;
}

static void take_out(struct events *self, uint32_t i)
{
    self->waiters[i] = self->waiters[--self->n_waiters];
}

static void set_timer(struct orr_ctx *ctx, const struct events *self)
{
    uint64_t due_ms = UINT64_MAX;
    for (uint32_t i = 0; i < self->n_waiters; i++) {
        if (self->waiters[i].due_ms < due_ms)
            due_ms = self->waiters[i].due_ms;
    }
    if (self->n_waiters)
        orr_timer_set(ctx, 0, due_ms > ctx->now_ms ? due_ms - ctx->now_ms : 0, 0);
}

static enum orr_err events_on_event(struct orr_ctx *ctx,
                                    struct events *self,
                                    const struct orr_msg_event *msg)
{
    if (!orr_events_publish(self->stream, msg))
        return ORR_OK;
    for (uint32_t i = self->n_waiters; i-- > 0;) {
        if (try_answer(ctx, self, &self->waiters[i], false))
            take_out(self, i);
    }
    return ORR_OK;
}

/* The newer request of one asker ends the older one: it is answered with what there is.
 */
static void answer_older(struct orr_ctx *ctx, struct events *self, struct orr_addr from)
{
    for (uint32_t i = self->n_waiters; i-- > 0;) {
        if (orr_addr_eq(self->waiters[i].request.from, from)) {
            (void)try_answer(ctx, self, &self->waiters[i], true);
            take_out(self, i);
        }
    }
}

static enum orr_err events_on_events_get(struct orr_ctx *ctx,
                                         struct events *self,
                                         const struct orr_msg_events_get *msg)
{
    struct orr_error err;
    uint64_t wait_ms =
        msg->wait_ms < ORR_EVENTS_WAIT_MAX_MS ? msg->wait_ms : ORR_EVENTS_WAIT_MAX_MS;
    if (msg->topic.len > ORR_EVENTS_TOPIC_MAX)
        return orr_refuse(ctx,
                          ORR_EINVAL,
                          "events: topic: longer than %d bytes",
                          ORR_EVENTS_TOPIC_MAX);
    struct waiter w = {.request = ctx->request,
                       .epoch = msg->epoch,
                       .after = msg->after,
                       .due_ms = ctx->now_ms + wait_ms,
                       .limit = msg->limit ? msg->limit : UINT32_MAX,
                       .topic_len = msg->topic.len};
    if (msg->topic.len)
        memcpy(w.topic, msg->topic.ptr, msg->topic.len);
    struct orr_events_page page = read_page(self, &w);
    enum orr_err code = check_epoch(&page, w.epoch, &err);
    if (code != ORR_OK)
        return orr_refuse(ctx, code, "%s", err.text);
    answer_older(ctx, self, ctx->request.from);
    if (wait_ms == 0 || try_answer(ctx, self, &w, false)) {
        if (wait_ms == 0)
            (void)try_answer(ctx, self, &w, true);
        return ORR_OK;
    }
    if (self->n_waiters == ORR_EVENTS_WAITERS_MAX)
        return orr_refuse(
            ctx,
            ORR_EBUSY,
            "events: %d subscribers wait here, the most there may be; ask "
            "another replica, or with wait_ms 0",
            ORR_EVENTS_WAITERS_MAX);
    w.request = orr_defer(ctx);
    self->waiters[self->n_waiters++] = w;
    set_timer(ctx, self);
    return ORR_OK;
}

static enum orr_err events_on_timer(struct orr_ctx *ctx,
                                    struct events *self,
                                    const struct orr_msg_timer *msg)
{
    (void)msg;
    for (uint32_t i = self->n_waiters; i-- > 0;) {
        if (self->waiters[i].due_ms <= ctx->now_ms) {
            (void)try_answer(ctx, self, &self->waiters[i], true);
            take_out(self, i);
        }
    }
    set_timer(ctx, self);
    return ORR_OK;
}

static const struct orr_handler handlers[] = {
    ORR_ON(events, event, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(events, events_get, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(events, timer, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};

const struct orr_actor_type orr_events_actor = {
    .name = "events",
    .state_size = sizeof(struct events),
    .args_size = sizeof(struct orr_events_args),
    .init = events_init,
    .fini = events_fini,
    .handlers = handlers,
    .n_handlers = ORR_ARRAY_SIZE(handlers),
    .mailbox_max = 1 << 16,
};
