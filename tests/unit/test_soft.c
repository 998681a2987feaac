/* SPDX-License-Identifier: Apache-2.0
 * test_soft.c - keys of soft state, what is believed of a value, and the fields of a host's
 * configuration.
 */
#include "orr_test.h"
#include "orrery/config.h"
#include "orrery/soft_reader.h"

static const struct orr_str none = {0};

static void keys_are_parsed_as_they_were_made(void **state)
{
    enum orr_soft_kind kind = ORR_SOFT_KIND_MAX_;
    struct orr_str name;
    (void)state;
    struct orr_soft_key key =
        orr_soft_key(ORR_SOFT_NODE, ORR_LIT("eu1"), ORR_LIT("a"), ORR_LIT("n3"));
    assert_string_equal(key.text, "orrery:eu1:node:a/n3");
    assert_true(orr_soft_key_parse(orr_str(key.text), ORR_LIT("eu1"), &kind, &name));
    assert_int_equal(kind, ORR_SOFT_NODE);
    assert_true(orr_str_eq(name, ORR_LIT("a/n3")));
    key = orr_soft_key(ORR_SOFT_REGION, ORR_LIT("eu1"), none, none);
    assert_string_equal(key.text, "orrery:eu1:region");
    assert_true(orr_soft_key_parse(orr_str(key.text), ORR_LIT("eu1"), &kind, &name));
    assert_int_equal(kind, ORR_SOFT_REGION);
    assert_int_equal(name.len, 0);
}

static void keys_of_others_are_passed_over(void **state)
{
    static const char *const others[] = {"",
                                         "orrery:",
                                         "orrery:eu1",
                                         "orrery:eu1:",
                                         "orrery:eu1:nonce:h1",
                                         "orrery:eu1:jobs:1",
                                         "orrery:eu11:job:1",
                                         "orrery:eu:job:1",
                                         "other:eu1:job:1"};
    enum orr_soft_kind kind;
    struct orr_str name;
    (void)state;
    for (size_t i = 0; i < ORR_ARRAY_SIZE(others); i++)
        assert_false(
            orr_soft_key_parse(orr_str(others[i]), ORR_LIT("eu1"), &kind, &name));
}

static bool
visit(void *arg, enum orr_soft_kind kind, struct orr_str key, const void *msg)
{
    const struct orr_msg_soft_node *node = msg;
    unsigned *n = arg;
    assert_int_equal(kind, ORR_SOFT_NODE);
    assert_true(key.len > 0);
    assert_int_equal(node->row.gpus, 8);
    ++*n;
    return true;
}

static bool take(const char *key, const uint8_t *value, size_t len)
{
    struct orr_soft_count count = {0};
    unsigned n = 0;
    struct orr_bytes bytes = {value, (uint32_t)len};
    assert_true(orr_soft_take(
        ORR_LIT("eu1"), 1u << ORR_SOFT_NODE, orr_str(key), bytes, visit, &n, &count));
    assert_int_equal(count.keys, 1);
    assert_int_equal(n + count.garbage, 1);
    return n == 1;
}

static void value_that_says_something_else_than_its_key_is_garbage(void **state)
{
    struct orr_msg_soft_node node = {
        .row = {.cluster = ORR_LIT("a"), .node = ORR_LIT("n3"), .gpus = 8}};
    uint8_t value[512];
    size_t len;
    (void)state;
    assert_int_equal(
        orr_msg_encode(orr_msg_desc_soft_node(), &node, value, sizeof value, &len),
        ORR_OK);
    assert_true(take("orrery:eu1:node:a/n3", value, len));
    assert_false(take("orrery:eu1:node:a/n4", value, len));
    assert_false(take("orrery:eu1:node:an3", value, len));
    node.row.state = ORR_NODE_STATE_MAX_;
    assert_int_equal(
        orr_msg_encode(orr_msg_desc_soft_node(), &node, value, sizeof value, &len),
        ORR_OK);
    assert_false(take("orrery:eu1:node:a/n3", value, len));
}

static void damaged_values_are_garbage(void **state)
{
    const struct orr_msg_soft_node node = {
        .row = {.cluster = ORR_LIT("a"), .node = ORR_LIT("n3"), .gpus = 8}};
    uint8_t value[513];
    size_t len;
    (void)state;
    assert_int_equal(
        orr_msg_encode(orr_msg_desc_soft_node(), &node, value, sizeof value - 1, &len),
        ORR_OK);
    for (size_t n = 0; n < len; n++)
        assert_false(take("orrery:eu1:node:a/n3", value, n));
    value[len] = 0xc0;
    assert_false(take("orrery:eu1:node:a/n3", value, len + 1));
}

/* ---- configuration ------------------------------------------------------------------ */

static enum orr_err parse(const char *softstate, struct orr_host_config *c)
{
    char text[600];
    struct orr_error err;
    int len = snprintf(text,
                       sizeof text,
                       "host: h1\nregion: eu1\nstate: /tmp/x\nlisten: "
                       "[\"ipc:///tmp/x/sock\"]\nroles: {region: {}}\n%s",
                       softstate);
    return orr_config_parse("host.yaml", text, (size_t)len, c, &err);
}

static void softstate_defaults_to_memory(void **state)
{
    struct orr_host_config c;
    (void)state;
    assert_int_equal(parse("", &c), ORR_OK);
    assert_int_equal(c.softstate.redis.len, 0);
    assert_int_equal(c.softstate.ttl_ms, 15000);
    orr_config_free(&c);
}

static void redis_is_a_socket_of_this_machine(void **state)
{
    static const char *const good[] = {
        "softstate: {redis: \"unix:///run/redis/sock\"}\n",
        "softstate: {redis: \"unix:///run/redis/sock\", user: orrery, password_file: "
        "/etc/pw, ttl: 30s}\n",
        "softstate: {redis: \"tcp://127.0.0.1:6379\", user: orrery, password_file: "
        "/etc/pw}\n"};
    static const char *const bad[] = {
        "softstate: {redis: \"unix://run/redis/sock\"}\n",
        "softstate: {redis: \"tcp://127.0.0.1:6379\"}\n", /* anybody could write there */
        "softstate: {redis: \"tcp://10.1.2.3:6379\", user: a, password_file: "
        "/etc/pw}\n",
        "softstate: {redis: \"unix:///run/sock\", user: orrery}\n",
        "softstate: {redis: \"unix:///run/sock\", user: a, password_file: pw}\n",
        "softstate: {redis: \"unix:///run/sock\", ttl: 1s}\n"};
    (void)state;
    for (size_t i = 0; i < ORR_ARRAY_SIZE(good); i++) {
        struct orr_host_config c;
        assert_int_equal(parse(good[i], &c), ORR_OK);
        orr_config_free(&c);
    }
    for (size_t i = 0; i < ORR_ARRAY_SIZE(bad); i++) {
        struct orr_host_config c;
        assert_int_equal(parse(bad[i], &c), ORR_EINVAL);
    }
}

/* Whatever ORRERY_SOFTSTATE names: the password would go there in clear. */
static void reader_goes_to_no_other_machine(void **state)
{
    static const char *const bad[] = {"tcp://192.0.2.1:6379",
                                      "tcp://redis.invalid:6379",
                                      "tcp://127.0.0.1.invalid:6379"};
    static const char *const good[] = {
        "tcp://127.0.0.1:1", "tcp://localhost:1", "tcp://[::1]:1"};
    struct orr_soft_source source = {.user = ""};
    struct orr_soft_reader *reader;
    struct orr_error err;
    (void)state;
    for (size_t i = 0; i < ORR_ARRAY_SIZE(bad); i++) {
        snprintf(source.redis, sizeof source.redis, "%s", bad[i]);
        assert_int_equal(orr_soft_reader_new(&source, 200, &reader, &err), ORR_EINVAL);
    }
    for (size_t i = 0; i < ORR_ARRAY_SIZE(good); i++) { /* nobody is there */
        snprintf(source.redis, sizeof source.redis, "%s", good[i]);
        assert_int_equal(orr_soft_reader_new(&source, 5000, &reader, &err),
                         ORR_EUNREACH);
        assert_null(strstr(err.text, "resolve"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_parsed_as_they_were_made),
        cmocka_unit_test(keys_of_others_are_passed_over),
        cmocka_unit_test(value_that_says_something_else_than_its_key_is_garbage),
        cmocka_unit_test(damaged_values_are_garbage),
        cmocka_unit_test(softstate_defaults_to_memory),
        cmocka_unit_test(redis_is_a_socket_of_this_machine),
        cmocka_unit_test(reader_goes_to_no_other_machine)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
