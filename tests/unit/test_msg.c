/* SPDX-License-Identifier: Apache-2.0
 * test_msg.c - the codec over every message of the schema: what goes in comes out, and
 * nothing hostile gets through.
 */
#include "orr_test.h"
#include "orrery/msg.h"

enum { BIG = 64 << 10 };

/* ---- fill any message with distinct values, from its descriptor ---- */

static uint64_t next_value;

static void fill_record(const struct orr_rec_desc *desc, void *rec, unsigned depth);

static void
fill_list(const struct orr_rec_desc *desc, struct orr_list_any *list, unsigned depth)
{
    static _Alignas(8) char pool[32][1024]; /* more than a message has lists */
    static size_t next_list;
    char *items = pool[next_list++ % ORR_ARRAY_SIZE(pool)];
    assert_true(3u * desc->size <= sizeof pool[0]);
    for (unsigned i = 0; i < 3; i++)
        fill_record(desc, items + (size_t)i * desc->size, depth + 1);
    *list = (struct orr_list_any){items, 3};
}

static void fill_field(const struct orr_field_desc *f, void *at, unsigned depth)
{
    static const char *const texts[] = {
        "", "a", "pulsar", "a text that is longer than thirty-one bytes"};
    const char *text = texts[next_value % ORR_ARRAY_SIZE(texts)];
    uint64_t v = next_value++ * 0x0123456789abcdefu;
    switch (f->type) {
    case ORR_T_bool:
        *(bool *)at = v & 1;
        break;
    case ORR_T_u32:
        *(uint32_t *)at = (uint32_t)(v >> (v & 31));
        break;
    case ORR_T_u64:
        *(uint64_t *)at = v >> (v & 63);
        break;
    case ORR_T_i64:
        *(int64_t *)at = (v & 1) ? -(int64_t)(v >> (8 + (v & 31))) : (int64_t)(v >> 9);
        break;
    case ORR_T_f64:
        *(double *)at = (double)v / 3;
        break;
    case ORR_T_str:
        *(struct orr_str *)at = orr_str(text);
        break;
    case ORR_T_bytes:
        *(struct orr_bytes *)at =
            (struct orr_bytes){(const uint8_t *)text, (uint32_t)strlen(text)};
        break;
    case ORR_T_addr:
        *(struct orr_addr *)at = (struct orr_addr){v, v >> 7, (uint32_t)v};
        break;
    case ORR_T_record:
        fill_record(f->record(), at, depth + 1);
        break;
    case ORR_T_list:
        fill_list(f->record(), at, depth);
        break;
    }
}

static void fill_record(const struct orr_rec_desc *desc, void *rec, unsigned depth)
{
    assert_true(depth <= 2); /* the schema promises one level */
    memset(rec, 0, desc->size);
    for (unsigned i = 0; i < desc->n_fields; i++)
        fill_field(&desc->fields[i], (char *)rec + desc->fields[i].offset, depth);
}

static _Alignas(8) char original[8192], decoded[BIG];
static uint8_t wire[BIG], wire2[BIG], expected[BIG];

static size_t fill_and_encode(const struct orr_msg_desc *d)
{
    size_t len;
    assert_true(d->body.size <= sizeof original);
    fill_record(&d->body, original, 0);
    assert_int_equal(orr_msg_encode(d, original, wire, sizeof wire, &len), ORR_OK);
    assert_true(len <= orr_msg_encode_bound(d, original));
    return len;
}

static void every_message_round_trips(void **state)
{
    (void)state;
    const struct orr_msg_desc *d;
    for (size_t n = 0; (d = orr_msg_nth(n)); n++) {
        size_t len = fill_and_encode(d), size, taken, len2;
        assert_ptr_equal(orr_msg_find(d->id), d);
        assert_int_equal(orr_msg_decode_size(d, wire, len, &size, &taken), ORR_OK);
        assert_int_equal(taken, len);
        assert_int_equal(orr_msg_decode(d, wire, len, decoded, size), ORR_OK);
        if (size > d->body.size)
            assert_int_equal(orr_msg_decode(d, wire, len, decoded, size - 1),
                             ORR_ENOSPC);
        assert_int_equal(orr_msg_encode(d, decoded, wire2, sizeof wire2, &len2),
                         ORR_OK);
        assert_int_equal(len2, len);
        assert_memory_equal(wire, wire2, len);
    }
}

static void every_copy_stands_alone(void **state)
{
    (void)state;
    const struct orr_msg_desc *d;
    for (size_t n = 0; (d = orr_msg_nth(n)); n++) {
        size_t len = fill_and_encode(d), size = orr_msg_size(d, original), len2;
        void *copy = test_malloc(size); /* exact: the sanitizer sees a spill */
        orr_msg_copy(d, original, copy);
        memcpy(expected, wire, len);
        memset(original, 0xee, sizeof original);
        fill_and_encode(orr_msg_desc_job_spec()); /* overwrites the lists' memory */
        assert_int_equal(orr_msg_encode(d, copy, wire2, sizeof wire2, &len2), ORR_OK);
        assert_int_equal(len2, len);
        assert_memory_equal(wire2, expected, len);
        test_free(copy);
    }
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    const struct orr_msg_desc *d;
    for (size_t n = 0; (d = orr_msg_nth(n)); n++) {
        size_t len = fill_and_encode(d), size, taken;
        for (size_t cut = 0; cut < len; cut++) {
            uint8_t *exact = test_malloc(cut + 1);
            memcpy(exact, wire, cut);
            assert_int_equal(orr_msg_decode_size(d, exact, cut, &size, &taken),
                             ORR_EPROTO);
            test_free(exact);
        }
        for (size_t cap = 0; cap < len; cap++)
            assert_int_equal(orr_msg_encode(d, original, wire2, cap, &size),
                             ORR_ENOSPC);
    }
}

static void hostile_lengths_cost_nothing(void **state)
{
    (void)state;
    static const struct {
        uint8_t bytes[8];
        size_t len;
    } bad[] = {
        {{0xdd, 0xff, 0xff, 0xff, 0xff}, 5},       /* 4 G fields */
        {{0xdc, 0xff, 0xff}, 3},                   /* 64 k fields */
        {{0x91, 0xdb, 0xff, 0xff, 0xff, 0xff}, 6}, /* 4 GiB text */
        {{0x91, 0xc6, 0xff, 0xff, 0xff, 0xff}, 6}, /* 4 GiB bytes where text belongs */
        {{0x91, 0xdd, 0x7f, 0xff, 0xff, 0xff}, 6}, /* 2 G records */
        {{0x80}, 1},                               /* a map */
        {{0xc1}, 1},                               /* never used */
        {{0}, 0},
    };
    size_t size, taken;
    for (size_t i = 0; i < ORR_ARRAY_SIZE(bad); i++) {
        assert_int_equal(orr_msg_decode_size(orr_msg_desc_cluster_register(),
                                             bad[i].bytes,
                                             bad[i].len,
                                             &size,
                                             &taken),
                         ORR_EPROTO);
        assert_int_equal(
            orr_msg_decode_size(
                orr_msg_desc_job_list(), bad[i].bytes, bad[i].len, &size, &taken),
            ORR_EPROTO);
    }
}

static void newer_and_older_peers_are_understood(void **state)
{
    (void)state;
    size_t size, taken;
    const uint8_t newer[] = {0x93,
                             0x07,
                             0x92,
                             0xa1,
                             'x',
                             0xc0,
                             0x81,
                             0xa1,
                             'k',
                             0xcb,
                             0,
                             0,
                             0,
                             0,
                             0,
                             0,
                             0,
                             0};
    assert_int_equal(
        orr_msg_decode_size(orr_msg_desc_pong(), newer, sizeof newer, &size, &taken),
        ORR_OK);
    assert_int_equal(taken, sizeof newer);
    struct orr_msg_pong pong;
    assert_int_equal(
        orr_msg_decode(orr_msg_desc_pong(), newer, sizeof newer, &pong, sizeof pong),
        ORR_OK);
    assert_int_equal(pong.nonce, 7);
    const uint8_t older[] = {0x90}; /* a version 1 field is missing */
    assert_int_equal(
        orr_msg_decode_size(orr_msg_desc_pong(), older, sizeof older, &size, &taken),
        ORR_EPROTO);
}

static void wrong_types_and_ranges_are_refused(void **state)
{
    (void)state;
    size_t size, taken;
    const uint8_t text_for_number[] = {0x91, 0xa1, 'x'};
    const uint8_t negative[] = {0x91, 0xff};
    const uint8_t beyond_u32[] = {0x92, 0xcf, 0, 0, 0, 1, 0, 0, 0, 0, 0x01};
    assert_int_equal(
        orr_msg_decode_size(orr_msg_desc_pong(), text_for_number, 3, &size, &taken),
        ORR_EPROTO);
    assert_int_equal(
        orr_msg_decode_size(orr_msg_desc_pong(), negative, 2, &size, &taken),
        ORR_EPROTO);
    assert_int_equal(
        orr_msg_decode_size(
            orr_msg_desc_timer(), beyond_u32, sizeof beyond_u32, &size, &taken),
        ORR_EPROTO);
}

static void too_long_text_is_not_encoded(void **state)
{
    (void)state;
    static char text[ORR_STR_MAX + 1];
    static uint8_t buf[ORR_STR_MAX + 1024];
    size_t len;
    memset(text, 'x', sizeof text);
    struct orr_msg_job_cancel m = {.job = {text, ORR_STR_MAX}};
    assert_int_equal(
        orr_msg_encode(orr_msg_desc_job_cancel(), &m, buf, sizeof buf, &len), ORR_OK);
    m.job.len++;
    assert_int_equal(
        orr_msg_encode(orr_msg_desc_job_cancel(), &m, buf, sizeof buf, &len),
        ORR_ENOSPC);
}

static void delivered_text_is_terminated(void **state)
{
    (void)state;
    const uint8_t body[] = {0x92, 0xa2, 'a', 'b', 0xa0};
    assert_int_equal(
        orr_msg_decode(
            orr_msg_desc_job_cancel(), body, sizeof body, decoded, sizeof decoded),
        ORR_OK);
    const struct orr_msg_job_cancel *m = (const void *)decoded;
    assert_string_equal(m->job.ptr, "ab");
    assert_string_equal(m->why.ptr, "");
}

static void json_escapes_what_json_forbids(void **state)
{
    (void)state;
    char out[256];
    struct orr_msg_failed m = {
        .code = 9, .msg = 1, .text = ORR_LIT("a\"b\\c\n\x01\xff\xc3\xa9")};
    size_t n = orr_msg_json(orr_msg_desc_failed(), &m, out, sizeof out);
    assert_string_equal(
        out,
        "{\"code\":9,\"msg\":1,\"text\":\"a\\\"b\\\\c\\n\\u0001\\u00ff\xc3\xa9\"}");
    assert_int_equal(n, strlen(out));
    assert_int_equal(orr_msg_json(orr_msg_desc_failed(), &m, out, 5), n);
    assert_string_equal(out, "{\"co");
}

static void ids_and_names_are_unique(void **state)
{
    (void)state;
    const struct orr_msg_desc *a, *b;
    for (size_t i = 0; (a = orr_msg_nth(i)); i++)
        for (size_t k = i + 1; (b = orr_msg_nth(k)); k++) {
            assert_int_not_equal(a->id, b->id);
            assert_string_not_equal(a->body.name, b->body.name);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_round_trips),
        cmocka_unit_test(every_copy_stands_alone),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(hostile_lengths_cost_nothing),
        cmocka_unit_test(newer_and_older_peers_are_understood),
        cmocka_unit_test(wrong_types_and_ranges_are_refused),
        cmocka_unit_test(too_long_text_is_not_encoded),
        cmocka_unit_test(delivered_text_is_terminated),
        cmocka_unit_test(json_escapes_what_json_forbids),
        cmocka_unit_test(ids_and_names_are_unique),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
