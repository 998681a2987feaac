/* SPDX-License-Identifier: Apache-2.0
 * test_ledger_port.c - the port in a stepped kernel, between a region actor that passes on what
 * the test posts to it and a ledger in memory.
 */
#include "orr_test.h"

#include "ledger_mem.h"
#include "ledger_port.h"
#include "system.h"

static struct {
    struct orr_msg_ledger_news news;
    uint32_t n_news, acks, failures, code, pages, records;
    char text[128], leader[ORR_NAME_MAX], key[32], value[32], host[32];
    uint64_t keys, committed, term;
    uint32_t n_voters;
} told;

static struct orr_system *kernel;
static struct orr_ledger *ledger;
static struct orr_addr region_addr, port_addr;
static uint64_t now_ms;

struct region {
    char unused;
};

#define REGION_ASKS(message)                                                           \
    ORR_HANDLER(region, message)                                                       \
    static enum orr_err region_on_##message(                                           \
        struct orr_ctx *ctx, struct region *self, const struct orr_msg_##message *msg) \
    {                                                                                  \
        (void)self;                                                                    \
        ctx->ops->ask(ctx, port_addr, 5000, 1, orr_msg_desc_##message(), msg);         \
        return ORR_OK;                                                                 \
    }
REGION_ASKS(ledger_read)
REGION_ASKS(ledger_info_get)
REGION_ASKS(voter_add)
REGION_ASKS(leader_move)

#define REGION_TAKES(message, action)                                                  \
    ORR_HANDLER(region, message)                                                       \
    static enum orr_err region_on_##message(                                           \
        struct orr_ctx *ctx, struct region *self, const struct orr_msg_##message *msg) \
    {                                                                                  \
        (void)ctx, (void)self, (void)msg;                                              \
        action;                                                                        \
        return ORR_OK;                                                                 \
    }
REGION_TAKES(ledger_append,
             ctx->ops->send(ctx, port_addr, orr_msg_desc_ledger_append(), msg))
REGION_TAKES(ack, told.acks++)
REGION_TAKES(failed,
             (told.failures++,
              told.code = msg->code,
              orr_str_copy(told.text, sizeof told.text, msg->text)))
REGION_TAKES(ledger_news,
             (told.n_news++,
              told.news = *msg,
              orr_str_copy(told.leader, sizeof told.leader, msg->leader),
              orr_str_copy(told.text, sizeof told.text, msg->text)))
REGION_TAKES(ledger_page, {
    told.pages++;
    told.records = msg->records.n;
    told.committed = msg->committed;
    if (msg->records.n) {
        const struct orr_rec_ledger_record *r = &msg->records.at[0];
        orr_str_copy(told.key, sizeof told.key, r->key);
        orr_str_copy(told.value,
                     sizeof told.value,
                     (struct orr_str){(const char *)r->value.ptr, r->value.len});
    }
})
REGION_TAKES(ledger_info,
             (told.keys = msg->keys,
              told.term = msg->term,
              told.n_voters = msg->voters.n,
              orr_str_copy(told.host, sizeof told.host, msg->host)))

static const struct orr_handler region_handlers[] = {
#define H(message) ORR_ON(region, message, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE)
    H(ledger_read),
    H(ledger_info_get),
    H(voter_add),
    H(leader_move),
    H(ledger_append),
    H(ack),
    H(failed),
    ORR_ON(region, ledger_news, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_COALESCE),
    H(ledger_page),
    H(ledger_info),
};
static const struct orr_actor_type region_type = {.name = "region",
                                                  .state_size = sizeof(struct region),
                                                  .handlers = region_handlers,
                                                  .n_handlers =
                                                      ORR_ARRAY_SIZE(region_handlers)};

static uint64_t clock_now(void *arg)
{
    (void)arg;
    return now_ms;
}
static const struct orr_clock test_clock = {.now_ms = clock_now, .wall_ms = clock_now};

static void run(void)
{
    while (orr_system_step(kernel))
        ;
}

static int setup(void **state)
{
    struct orr_error err;
    (void)state;
    memset(&told, 0, sizeof told);
    now_ms = 1000;
    const struct orr_system_config config = {
        .host = "r1", .incarnation = 1, .clock = &test_clock};
    assert_int_equal(orr_system_new(&config, &kernel, &err), ORR_OK);
    assert_int_equal(orr_ledger_mem_open("r1", &ledger), ORR_OK);
    struct orr_ledger_port_args args = {
        .ledger = ledger,
        .system = kernel,
        .post = orr_system_post,
        .reply = orr_system_reply,
        .region = orr_addr_named(ORR_LIT("r1"), ORR_LIT("/r1")),
        .region_name = "eu1",
        .host = "r1",
    };
    const struct orr_spawn region = {.type = &region_type, .path = "/r1"};
    const struct orr_spawn port = {
        .type = &orr_ledger_port_type, .args = &args, .path = "/edge/ledger"};
    assert_int_equal(orr_system_spawn(kernel, &region, &region_addr), ORR_OK);
    assert_int_equal(orr_system_spawn(kernel, &port, &port_addr), ORR_OK);
    assert_int_equal(orr_system_start(kernel, &err), ORR_OK);
    run();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    orr_system_stop(kernel);
    orr_ledger_mem_new_term(ledger); /* a port that has stopped is told no more */
    ledger->ops->close(ledger);
    orr_system_free(kernel);
    return 0;
}

#define POST(name, ...)                                                                \
    do {                                                                               \
        const struct orr_msg_##name msg_ = {__VA_ARGS__};                              \
        assert_int_equal(orr_system_post(kernel,                                       \
                                         (struct orr_addr){0},                         \
                                         region_addr,                                  \
                                         orr_msg_desc_##name(),                        \
                                         &msg_),                                       \
                         ORR_OK);                                                      \
        run();                                                                         \
    } while (0)

static void put(uint64_t term, uint64_t ticket, const char *key, const char *value)
{
    const struct orr_rec_ledger_record record = {
        .key = orr_str(key),
        .value = {(const uint8_t *)value, (uint32_t)strlen(value)}};
    POST(ledger_append, .term = term, .ticket = ticket, .records = {&record, 1});
}

static void region_hears_of_the_present_at_once_and_of_each_change(void **state)
{
    (void)state;
    assert_int_equal(told.n_news, 1);
    assert_true(told.news.is_leading && told.news.ticket == 0);
    assert_string_equal(told.leader, "r1");
    put(told.news.term, 1, "job/1", "x");
    assert_true(told.n_news == 2 && told.news.ticket == 1 && told.news.committed == 1);
}

static void news_are_repeated(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        const uint32_t n = told.n_news;
        now_ms += 100;
        run();
        assert_int_equal(told.n_news, n + 1);
    }
}

static void trouble_is_told_with_its_text(void **state)
{
    (void)state;
    orr_ledger_mem_fail(ledger, ORR_EDISK);
    run();
    assert_true(told.news.trouble == ORR_EDISK && told.text[0]);
    put(told.news.term, 1, "job/1", "x");
    assert_int_equal(told.news.ticket, 0);
}

static void page_and_info_are_answered(void **state)
{
    (void)state;
    put(told.news.term, 1, "job/1", "hello");
    POST(ledger_read, .after = 0);
    assert_true(told.pages == 1 && told.records == 1 && told.committed == 1);
    assert_string_equal(told.key, "job/1");
    assert_string_equal(told.value, "hello");
    POST(ledger_read, .after = 1);
    assert_true(told.pages == 2 && told.records == 0);
    POST(ledger_info_get, .end_ = 0);
    assert_true(told.keys == 1 && told.n_voters == 1);
    assert_string_equal(told.host, "r1");
}

static void requests_are_answered_by_the_ledger(void **state)
{
    (void)state;
    POST(leader_move, .host = ORR_LIT("r1"));
    assert_true(told.acks == 1 && told.failures == 0);
    POST(voter_add, .host = ORR_LIT("r2"), .address = ORR_LIT("127.0.0.1:1"));
    assert_true(told.failures == 1 && told.code == ORR_ENOSYS && told.text[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(region_hears_of_the_present_at_once_and_of_each_change),
        T(news_are_repeated),
        T(trouble_is_told_with_its_text),
        T(page_and_info_are_answered),
        T(requests_are_answered_by_the_ledger),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
