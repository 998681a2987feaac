/* SPDX-License-Identifier: Apache-2.0
 * test_yaml.c - the binder on a small table: every type, every refusal with its place.
 */
#include "orr_test.h"

#include "orrery/msg.h"
#include "orrery/yaml.h"

struct point {
    struct orr_str name;
    uint32_t weight;
};

struct sample {
    struct orr_str name, note;
    bool is_on, has_box;
    uint32_t count, color, low, high;
    int64_t tries;
    uint64_t wait_ms, limit_ms, bytes, at_ms, from_ms, to_ms;
    struct orr_list_text words;
    struct orr_list_env_var env;
    struct {
        const struct point *at;
        uint32_t n;
    } points;
    struct orr_str label;
};

static const char *const colors[] = {"red", "green", "blue", NULL};

#define ROW(path, type, member, min, max, def)                                         \
    {                                                                                  \
        path, ORR_YAML_##type, offsetof(struct sample, member), 0, min, max, def,      \
            colors, NULL, "doc"                                                        \
    }
#define PAIR(path, type, low, high, min, max, def)                                     \
    {                                                                                  \
        path, ORR_YAML_##type, offsetof(struct sample, low),                           \
            offsetof(struct sample, high), min, max, def, NULL, NULL, "doc"            \
    }

static const struct orr_yaml_field point_fields[] = {
    {"name",
     ORR_YAML_NAME,
     offsetof(struct point, name),
     0,
     1,
     8,
     NULL,
     NULL,
     NULL,
     ""},
    {"weight",
     ORR_YAML_U32,
     offsetof(struct point, weight),
     0,
     0,
     9,
     "7",
     NULL,
     NULL,
     ""},
};
static const struct orr_yaml_table point_table = {
    point_fields, 2, sizeof(struct point)};

static const struct orr_yaml_field fields[] = {
    ROW("name", NAME, name, 1, 8, NULL),
    ROW("note", TEXT, note, 0, 20, ""),
    ROW("on", BOOL, is_on, 0, 0, "true"),
    ROW("count", U32, count, 1, 100, "5"),
    ROW("color", ENUM, color, 0, 2, "green"),
    PAIR("span", U32, low, high, 0, 50, "1..2"),
    ROW("span.low", U32, low, 0, 50, ""),
    ROW("span.high", U32, high, 0, 50, ""),
    ROW("tries", COUNT, tries, -1, 10, "unlimited"),
    ROW("wait", DURATION, wait_ms, 10, 604800000, "30s"),
    ROW("limit", LIMIT, limit_ms, 1000, 604800000, "unlimited"),
    ROW("bytes", SIZE, bytes, 0, INT64_C(1) << 44, "0"),
    ROW("at", TIME, at_ms, 0, INT64_MAX, "none"),
    PAIR("backoff", DURATION, from_ms, to_ms, 0, 600000, ""),
    ROW("words", TEXTS, words, 1, 3, ""),
    ROW("env", ENV, env, 0, 2, ""),
    {"points",
     ORR_YAML_RECORDS,
     offsetof(struct sample, points),
     0,
     0,
     2,
     "",
     NULL,
     &point_table,
     "doc"},
    ROW("box", SECTION, has_box, 0, 0, ""),
    ROW("box.label", TEXT, label, 1, 9, NULL),
};
static const struct orr_yaml_table table = {
    fields, ORR_ARRAY_SIZE(fields), sizeof(struct sample)};

static struct sample got;
static struct orr_error error;

static enum orr_err bind_bytes(const char *text, size_t len, struct orr_yaml **ret_yaml)
{
    error = (struct orr_error){0};
    return orr_yaml_bind(&table, "t.yaml", text, len, &got, ret_yaml, &error);
}

static void accept(const char *text)
{
    struct orr_yaml *yaml;
    if (bind_bytes(text, strlen(text), &yaml) != ORR_OK)
        fail_msg("%s", error.text);
    orr_yaml_free(yaml);
}

static void refuse(const char *text, const char *message)
{
    struct orr_yaml *yaml;
    assert_int_equal(bind_bytes(text, strlen(text), &yaml), ORR_EINVAL);
    if (!strstr(error.text, message))
        fail_msg("got: %s\nwanted: %s", error.text, message);
}

static void bind_nothing_written_gives_defaults(void **state)
{
    (void)state;
    accept("name: a");
    assert_true(got.is_on);
    assert_false(got.has_box);
    assert_int_equal(got.count, 5);
    assert_int_equal(got.color, 1);
    assert_int_equal(got.low, 1);
    assert_int_equal(got.high, 2);
    assert_int_equal(got.tries, -1);
    assert_int_equal(got.wait_ms, 30000);
    assert_int_equal(got.limit_ms, 0);
    assert_int_equal(got.words.n, 0);
}

static void bind_every_type_reads_its_value(void **state)
{
    struct orr_yaml *yaml;
    const char *text = "name: a-1\n"
                       "note: \"x: y\"\n"
                       "on: false\n"
                       "count: 100\n"
                       "color: blue\n"
                       "tries: 3\n"
                       "wait: 2h\n"
                       "limit: 7d\n"
                       "bytes: 40GiB\n"
                       "backoff: 500ms..10m\n"
                       "words: [one, 2, \"\"]\n"
                       "env: {A: \"8\", _B2: true}\n"
                       "points: [{name: p}, {name: q, weight: 1}]\n"
                       "box:\n"
                       "  label: here\n";
    (void)state;
    assert_int_equal(bind_bytes(text, strlen(text), &yaml), ORR_OK);
    assert_string_equal(got.name.ptr, "a-1");
    assert_string_equal(got.note.ptr, "x: y");
    assert_false(got.is_on);
    assert_int_equal(got.count, 100);
    assert_int_equal(got.color, 2);
    assert_int_equal(got.tries, 3);
    assert_int_equal(got.wait_ms, 7200000);
    assert_int_equal(got.limit_ms, 604800000);
    assert_int_equal(got.bytes, UINT64_C(40) << 30);
    assert_int_equal(got.from_ms, 500);
    assert_int_equal(got.to_ms, 600000);
    assert_int_equal(got.words.n, 3);
    assert_string_equal(got.words.at[1].value.ptr, "2");
    assert_string_equal(got.words.at[2].value.ptr, "");
    assert_int_equal(got.env.n, 2);
    assert_string_equal(got.env.at[1].name.ptr, "_B2");
    assert_string_equal(got.env.at[1].value.ptr, "true");
    assert_int_equal(got.points.n, 2);
    assert_int_equal(got.points.at[0].weight, 7);
    assert_int_equal(got.points.at[1].weight, 1);
    assert_true(got.has_box);
    assert_string_equal(got.label.ptr, "here");
    assert_true(orr_yaml_has(yaml, "box.label"));
    assert_false(orr_yaml_has(yaml, "at"));
    orr_yaml_free(yaml);
}

static void bind_pair_takes_one_two_or_section(void **state)
{
    (void)state;
    accept("name: a\nspan: 7");
    assert_int_equal(got.low, 7);
    assert_int_equal(got.high, 7);
    accept("name: a\nspan: 2..9");
    assert_int_equal(got.low, 2);
    assert_int_equal(got.high, 9);
    accept("name: a\nspan: {low: 3, high: 4}");
    assert_int_equal(got.low, 3);
    assert_int_equal(got.high, 4);
    refuse("name: a\nspan: 9..2", "t.yaml:2:7: span: expected a whole number 0..50");
    refuse("name: a\nspan: [1]", "or a section with low, high, got a list");
}

static void bind_time_follows_rfc3339(void **state)
{
    (void)state;
    accept("name: a\nat: 1970-01-02T00:00:00Z");
    assert_int_equal(got.at_ms, 86400000);
    accept("name: a\nat: 2027-01-15T02:00:00.250+02:00");
    assert_int_equal(got.at_ms, UINT64_C(1799971200250));
    accept("name: a\nat: none");
    assert_int_equal(got.at_ms, 0);
    refuse("name: a\nat: 2027-02-30T00:00:00Z", "at: expected a time such as");
    refuse("name: a\nat: 2027-01-15", "at: expected a time");
    refuse("name: a\nat: 2027-01-15T00:00:00", "at: expected a time");
    refuse("name: a\nat: 2027-13-15T00:00:00Z", "at: expected a time");
}

static void bind_unknown_field_suggests(void **state)
{
    (void)state;
    refuse("name: a\ncuont: 1",
           "t.yaml:2:1: cuont: unknown field; did you mean `count`?");
    refuse("name: a\nbox:\n  lable: x",
           "t.yaml:3:3: box.lable: unknown field; did you mean `label`?");
    refuse("name: a\nlabel: x", "did you mean `box.label`?");
    refuse("name: a\nzzzzzz: x", "unknown field; accepted here: name, note, on");
    refuse("name: a\nbox.label: x", "unknown field");
    refuse("name: a\nboxx: {label: x}", "did you mean `box`?");
    refuse("name: a\npoints: [{name: p}, {nme: p}]",
           "t.yaml:2:22: points[1].nme: unknown field");
}

static void bind_wrong_value_says_what_is_accepted(void **state)
{
    (void)state;
    refuse("name: a\ncount: x",
           "t.yaml:2:8: count: expected a whole number 1..100, got `x`");
    refuse("name: a\ncount: 0", "got `0`");
    refuse("name: a\ncount: 101", "got `101`");
    refuse("name: a\ncount: 99999999999999999999", "expected a whole number");
    refuse("name: a\ncount: -1", "got `-1`");
    refuse("name: a\ncount: \"5\"", "got the text \"5\"");
    refuse("name: a\ncount: [5]", "got a list");
    refuse("name: a\ncount:", "got nothing");
    refuse("name: a\ncount: {a: 1}", "got a section");
    refuse("name: a\ncolor: gren",
           "expected red, green or blue, got `gren`; did you mean `green`?");
    refuse("name: a\nwait: 30",
           "expected a duration 10ms..7d (ms, s, m, h, d), got `30`");
    refuse("name: a\nwait: 8d", "got `8d`");
    refuse("name: a\nwait: unlimited", "got `unlimited`");
    refuse("name: a\nlimit: 10ms", "or unlimited, got `10ms`");
    refuse("name: a\nbytes: 40GB",
           "expected a size 0..16TiB (B, KiB, MiB, GiB, TiB), got `40GB`");
    refuse("name: a\nbytes: 99999999999999TiB", "expected a size");
    refuse("name: a\nwords: []", "expected a list of 1..3 texts");
    refuse("name: a\nwords: [a, b, c, d]", "expected a list of 1..3 texts");
    refuse("name: a\nwords: [a, [b]]", "t.yaml:2:12: words[1]: expected a text");
    refuse("name: a\nwords: one", "expected a list");
    refuse("name: a\nenv: {1A: x}", "env.1A: not a name of a variable");
    refuse("name: a\nenv: {A: }", "env.A: expected a text");
    refuse("name: a\non: yes", "expected true or false");
    refuse("name: /", "expected a name of at most 8 letters");
    refuse("name: .a", "expected a name");
    refuse("name: abcdefghi", "expected a name");
    refuse("name: a\nbox: 3", "box: expected a section with label, got `3`");
}

static void bind_missing_field_is_named(void **state)
{
    (void)state;
    refuse("count: 1", "t.yaml:1:1: name: missing; add `name: ...`");
    refuse("name: a\nbox: {}", "t.yaml:2:6: box.label: missing");
    refuse("name: a\npoints: [{}]", "points[0].name: missing");
}

static void parse_what_yaml_offers_beyond_is_refused(void **state)
{
    (void)state;
    refuse("name: &x a", "t.yaml:1:7: anchors (&name) are not accepted");
    refuse("name: a\nnote: *x", "aliases (*name) are not accepted");
    refuse("name: !!str a", "tags (!name) are not accepted");
    refuse("name: a\nwords: !x [a]", "tags");
    refuse("%YAML 1.1\n---\nname: a", "directives");
    refuse("name: a\n---\nname: b", "a second document");
    refuse("name: a\nname: b", "t.yaml:2:1: name: given twice, first at line 1");
    refuse("name: a\n? [x]\n: 1", "a key must be a word");
    refuse("", "empty");
    refuse("- a", "expected `field: value` lines at the top");
    refuse("just text", "expected `field: value` lines");
    refuse("name: [a", "not YAML");
    refuse("name: a\n\tcount: 1", "not YAML");
    refuse("name: \"a\\0b\"", "NUL byte");
    refuse("a: [[[[[[[[[[1]]]]]]]]]]", "nested deeper than 8 levels");
}

static void parse_beyond_the_limits_is_refused(void **state)
{
    struct orr_yaml *yaml;
    size_t len = ORR_YAML_BYTES_MAX + 1;
    char *text = malloc(len);
    (void)state;
    assert_non_null(text);
    memset(text, '#', len);
    assert_int_equal(bind_bytes(text, len, &yaml), ORR_EINVAL);
    assert_non_null(strstr(error.text, "larger than 1 MiB"));
    memcpy(text, "a: [", 4);
    for (size_t i = 4; i < 300000; i++)
        text[i] = i % 2 ? ',' : '1';
    assert_int_equal(bind_bytes(text, 300000, &yaml), ORR_EINVAL);
    assert_non_null(strstr(error.text, "more than 65536 values"));
    size_t used = 0;
    for (unsigned i = 0; i < 5000; i++)
        used += (size_t)snprintf(text + used, len - used, "k%u: 1\n", i);
    assert_int_equal(bind_bytes(text, used, &yaml), ORR_EINVAL);
    assert_non_null(strstr(error.text, "more than 4096 keys"));
    free(text);
}

static void set_one_value_overrides(void **state)
{
    struct orr_yaml *yaml;
    struct sample s;
    (void)state;
    assert_int_equal(orr_yaml_defaults(&table, "opts", &s, &yaml, &error), ORR_OK);
    assert_int_equal(orr_yaml_set(yaml, "count", "9", &s, &error), ORR_OK);
    assert_int_equal(s.count, 9);
    assert_true(orr_yaml_has(yaml, "count"));
    assert_false(orr_yaml_has(yaml, "wait"));
    assert_int_equal(orr_yaml_set(yaml, "count", "x", &s, &error), ORR_EINVAL);
    assert_string_equal(error.text, "count: expected a whole number 1..100, got `x`");
    assert_int_equal(orr_yaml_set(yaml, "words", "x", &s, &error), ORR_EINVAL);
    assert_int_equal(orr_yaml_fail(yaml, "count", &error, "bad"), ORR_EINVAL);
    assert_string_equal(error.text, "opts: count: bad");
    orr_yaml_free(yaml);
}

static void load_a_bad_path_names_it(void **state)
{
    char *text;
    size_t len;
    (void)state;
    assert_int_equal(orr_yaml_load("/nonexistent/x.yaml", &text, &len, &error),
                     ORR_ENOENT);
    assert_non_null(strstr(error.text, "/nonexistent/x.yaml: cannot be read"));
    assert_int_equal(orr_yaml_load("/", &text, &len, &error), ORR_EIO);
    assert_non_null(strstr(error.text, "is a directory"));
}

static void closest_far_words_are_no_suggestion(void **state)
{
    struct orr_closest best = {0};
    (void)state;
    orr_closest_try(&best, "gpu", "shards");
    assert_string_equal(best.word, "");
    orr_closest_try(&best, "gpu", "gpus");
    orr_closest_try(&best, "gpu", "gpusx");
    assert_string_equal(best.word, "gpus");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bind_nothing_written_gives_defaults),
        cmocka_unit_test(bind_every_type_reads_its_value),
        cmocka_unit_test(bind_pair_takes_one_two_or_section),
        cmocka_unit_test(bind_time_follows_rfc3339),
        cmocka_unit_test(bind_unknown_field_suggests),
        cmocka_unit_test(bind_wrong_value_says_what_is_accepted),
        cmocka_unit_test(bind_missing_field_is_named),
        cmocka_unit_test(parse_what_yaml_offers_beyond_is_refused),
        cmocka_unit_test(parse_beyond_the_limits_is_refused),
        cmocka_unit_test(set_one_value_overrides),
        cmocka_unit_test(load_a_bad_path_names_it),
        cmocka_unit_test(closest_far_words_are_no_suggestion),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
