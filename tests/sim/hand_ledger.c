/* SPDX-License-Identifier: Apache-2.0
 * hand_ledger.c - see hand_ledger.h.
 */
#include "hand_ledger.h"

#include "orrery/record.h"

enum { NEWS_MS = 10, PAGE_RECORDS = 16 };

void hand_ledger_lead(struct hand_ledger *ledger, const char *host)
{
    ledger->term++;
    ledger->ticket = 0;
    ledger->leader = host ? orr_hash(orr_str(host)) : 0;
    orr_str_copy(
        ledger->leader_name, sizeof(ledger->leader_name), orr_str(host ? host : ""));
    while (ledger->n_open > 0)
        free(ledger->open[--ledger->n_open]);
    ledger->committed++; /* as raft's own entry at the start of a term */
}

static void take(struct hand_ledger *ledger, const struct orr_rec_ledger_record *record)
{
    struct hand_record *at = ledger->records;
    while (at < ledger->records + ledger->n_records &&
           !orr_str_eq(orr_str(at->key), record->key))
        at++;
    if (at == ledger->records + ledger->n_records) {
        ORR_ASSERT(ledger->n_records < HAND_KEYS);
        ledger->n_records++;
        orr_str_copy(at->key, sizeof(at->key), record->key);
    }
    free(at->value);
    at->value = malloc(record->value.len + 1);
    ORR_ASSERT(at->value);
    memcpy(at->value,
           record->value.len ? record->value.ptr : (const void *)"",
           record->value.len);
    at->len = record->value.len;
    at->is_gone = record->is_gone;
    at->index = ledger->committed;
}

void hand_ledger_commit(struct hand_ledger *ledger)
{
    for (uint32_t i = 0; i < ledger->n_open; i++) {
        ledger->committed++;
        for (uint32_t r = 0; r < ledger->open[i]->records.n; r++)
            take(ledger, &ledger->open[i]->records.at[r]);
        ledger->ticket = ledger->open[i]->ticket;
        free(ledger->open[i]);
    }
    ledger->n_open = 0;
}

void hand_ledger_free(struct hand_ledger *ledger)
{
    for (uint32_t i = 0; i < ledger->n_records; i++)
        free(ledger->records[i].value);
    while (ledger->n_open > 0)
        free(ledger->open[--ledger->n_open]);
}

uint64_t hand_ledger_digest(const struct hand_ledger *ledger, uint64_t *ret_keys)
{
    uint64_t sum = 0;
    *ret_keys = 0;
    for (uint32_t i = 0; i < ledger->n_records; i++) {
        const struct hand_record *at = &ledger->records[i];
        uint64_t one =
            orr_record_digest(orr_str(at->key), (struct orr_bytes){at->value, at->len});
        if (at->is_gone || one == 0)
            continue;
        sum += one;
        *ret_keys += 1;
    }
    return sum;
}

struct hand {
    struct hand_ledger_args args;
    struct orr_addr region;
};

ORR_HANDLER(hand, ledger_append)
ORR_HANDLER(hand, ledger_read)
ORR_HANDLER(hand, timer)

static void send_news(struct orr_ctx *ctx, const struct hand *self)
{
    const struct hand_ledger *ledger = self->args.ledger;
    bool is_leading = ledger->leader == ctx->self.host && !ledger->trouble;
    orr_send(ctx,
             self->region,
             ledger_news,
             .term = ledger->term,
             .is_leading = is_leading,
             .leader = orr_str(ledger->leader_name),
             .committed = ledger->committed,
             .ticket = is_leading ? ledger->ticket : 0,
             .trouble = ledger->trouble,
             .text = orr_str(ledger->trouble ? "the disk is full; make room" : ""));
}

static enum orr_err hand_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct hand *self = state;
    self->args = *(const struct hand_ledger_args *)args;
    self->region = (struct orr_addr){.host = ctx->self.host,
                                     .slot = orr_hash(orr_str(self->args.region_path))};
    orr_timer_set(ctx, 1, NEWS_MS, 0);
    return ORR_OK;
}

static enum orr_err hand_on_ledger_append(struct orr_ctx *ctx,
                                          struct hand *self,
                                          const struct orr_msg_ledger_append *msg)
{
    struct hand_ledger *ledger = self->args.ledger;
    if (msg->term != ledger->term || ledger->leader != ctx->self.host) {
        ledger->refused++;
        return ORR_OK;
    }
    if (msg->ticket == 0) { /* out of order whatever came before */
        char leader[sizeof(ledger->leader_name)];
        memcpy(leader, ledger->leader_name, sizeof(leader));
        hand_ledger_lead(ledger, leader);
        return ORR_OK;
    }
    ORR_ASSERT(ledger->n_open < HAND_OPEN);
    struct orr_msg_ledger_append *copy =
        malloc(orr_msg_size(orr_msg_desc_ledger_append(), msg));
    ORR_ASSERT(copy);
    orr_msg_copy(orr_msg_desc_ledger_append(), msg, copy);
    ledger->open[ledger->n_open++] = copy;
    if (ledger->is_committing) {
        hand_ledger_commit(ledger);
        send_news(ctx, self);
    }
    return ORR_OK;
}

/* Records in order of change, whole indices only. */
static enum orr_err hand_on_ledger_read(struct orr_ctx *ctx,
                                        struct hand *self,
                                        const struct orr_msg_ledger_read *msg)
{
    const struct hand_ledger *ledger = self->args.ledger;
    struct orr_rec_ledger_record rows[HAND_KEYS];
    uint32_t n = 0;
    uint64_t last = ledger->committed;
    for (uint64_t index = msg->after + 1; index <= ledger->committed; index++) {
        for (uint32_t i = 0; i < ledger->n_records; i++) {
            const struct hand_record *at = &ledger->records[i];
            if (at->index != index || (at->is_gone && msg->after == 0))
                continue;
            rows[n++] = (struct orr_rec_ledger_record){
                orr_str(at->key), {at->value, at->len}, at->is_gone};
        }
        if (n >= PAGE_RECORDS && index < ledger->committed) {
            last = index;
            break;
        }
    }
    orr_reply(ctx,
              ledger_page,
              .is_reset = msg->after == 0,
              .last = last,
              .committed = ledger->committed,
              .records = {rows, n});
    return ORR_OK;
}

static enum orr_err
hand_on_timer(struct orr_ctx *ctx, struct hand *self, const struct orr_msg_timer *msg)
{
    (void)msg;
    send_news(ctx, self);
    orr_timer_set(ctx, 1, NEWS_MS, 0);
    return ORR_OK;
}

static const struct orr_handler hand_handlers[] = {
    ORR_ON(hand, ledger_append, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(hand, ledger_read, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(hand, timer, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};

const struct orr_actor_type hand_ledger_type = {
    .name = "hand_ledger",
    .state_size = sizeof(struct hand),
    .args_size = sizeof(struct hand_ledger_args),
    .init = hand_init,
    .handlers = hand_handlers,
    .n_handlers = ORR_ARRAY_SIZE(hand_handlers),
};

/* ---- the check ---- */

struct checker {
    struct hand_check *check;
};
ORR_HANDLER(checker, region_check)

static enum orr_err checker_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct checker *self = state;
    self->check = *(struct hand_check *const *)args;
    orr_ask(ctx, self->check->region, 1000, 0, region_check_get);
    return ORR_OK;
}

static enum orr_err checker_on_region_check(struct orr_ctx *ctx,
                                            struct checker *self,
                                            const struct orr_msg_region_check *msg)
{
    self->check->is_answered = true;
    self->check->open = msg->open;
    self->check->keys = msg->keys;
    self->check->digest = msg->digest;
    orr_stop(ctx, ctx->self);
    return ORR_OK;
}

static const struct orr_handler checker_handlers[] = {
    ORR_ON(checker, region_check, ORR_ANY_STATE, ORR_ROLE_FLEET, ORR_REFUSE),
};

const struct orr_actor_type hand_check_type = {
    .name = "hand_check",
    .state_size = sizeof(struct checker),
    .args_size = sizeof(struct hand_check *),
    .init = checker_init,
    .handlers = checker_handlers,
    .n_handlers = ORR_ARRAY_SIZE(checker_handlers),
};
