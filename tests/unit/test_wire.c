/* SPDX-License-Identifier: Apache-2.0
 * test_wire.c - frames, items and envelopes: what goes in comes out, and no length that
 * a peer claims is believed.
 */
#include "orr_test.h"
#include "wire.h"

static const uint8_t trace[24] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12,
                                  13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24};

static struct orr_msg_envelope some_envelope(void)
{
    return (struct orr_msg_envelope){
        .msg = ORR_MSG_ping,
        .flags = ORR_ENVELOPE_ANSWER,
        .to = {.host = UINT64_MAX, .slot = 7, .incarnation = 0},
        .from = {.host = 2, .slot = UINT64_MAX, .incarnation = UINT32_MAX},
        .corr = 42,
        .timeout_ms = 1500,
        .trace = {trace, sizeof(trace)},
    };
}

static void encode_ping(uint8_t **ret_data, size_t *ret_len)
{
    struct orr_msg_envelope envelope = some_envelope();
    struct orr_msg_ping ping = {.nonce = 99};
    assert_int_equal(
        orr_wire_encode(&envelope, orr_msg_desc_ping(), &ping, ret_data, ret_len),
        ORR_OK);
}

static void item_encoded_and_decoded_is_the_same(void **state)
{
    (void)state;
    uint8_t *data;
    size_t len;
    encode_ping(&data, &len);
    struct orr_msg_envelope out;
    size_t body_at;
    assert_int_equal(orr_wire_decode_envelope(data, len, &out, &body_at), ORR_OK);
    struct orr_msg_envelope in = some_envelope();
    assert_int_equal(out.msg, in.msg);
    assert_int_equal(out.flags, in.flags);
    assert_true(orr_addr_eq(out.to, in.to));
    assert_true(orr_addr_eq(out.from, in.from));
    assert_int_equal(out.corr, in.corr);
    assert_int_equal(out.timeout_ms, in.timeout_ms);
    assert_int_equal(out.trace.len, sizeof(trace));
    assert_memory_equal(out.trace.ptr, trace, sizeof(trace));
    assert_true(out.trace.ptr > data && out.trace.ptr < data + len);
    struct orr_msg_ping ping;
    assert_int_equal(
        orr_msg_decode(
            orr_msg_desc_ping(), data + body_at, len - body_at, &ping, sizeof(ping)),
        ORR_OK);
    assert_int_equal(ping.nonce, 99);
    free(data);
}

static void envelope_truncated_anywhere_is_refused(void **state)
{
    (void)state;
    uint8_t *data;
    size_t len;
    size_t body_at;
    struct orr_msg_envelope out;
    encode_ping(&data, &len);
    assert_int_equal(orr_wire_decode_envelope(data, len, &out, &body_at), ORR_OK);
    for (size_t n = 0; n < body_at; n++) {
        uint8_t *exact = malloc(n ? n : 1); /* the sanitizer sees a read past the end */
        size_t at;
        assert_non_null(exact);
        memcpy(exact, data, n);
        assert_int_equal(orr_wire_decode_envelope(exact, n, &out, &at), ORR_EPROTO);
        free(exact);
    }
    free(data);
}

static void envelope_with_odd_trace_or_message_id_is_refused(void **state)
{
    (void)state;
    static const uint8_t long_trace[ORR_BYTES_MAX];
    static uint8_t buf[ORR_BYTES_MAX + 4096];
    const uint32_t trace_lens[] = {1, 23, 25, 49, 4096, sizeof(long_trace)};
    struct orr_msg_envelope out;
    size_t len;
    size_t at;
    for (size_t i = 0; i < ORR_ARRAY_SIZE(trace_lens); i++) {
        struct orr_msg_envelope in = some_envelope();
        in.trace = (struct orr_bytes){long_trace, trace_lens[i]};
        assert_int_equal(
            orr_msg_encode(orr_msg_desc_envelope(), &in, buf, sizeof(buf), &len),
            ORR_OK);
        assert_int_equal(orr_wire_decode_envelope(buf, len, &out, &at), ORR_EPROTO);
    }
    const uint32_t ids[] = {0, 0x10000, UINT32_MAX};
    for (size_t i = 0; i < ORR_ARRAY_SIZE(ids); i++) {
        struct orr_msg_envelope in = some_envelope();
        in.msg = ids[i];
        assert_int_equal(
            orr_msg_encode(orr_msg_desc_envelope(), &in, buf, sizeof(buf), &len),
            ORR_OK);
        assert_int_equal(orr_wire_decode_envelope(buf, len, &out, &at), ORR_EPROTO);
    }
}

static void item_beyond_the_limits_is_not_encoded(void **state)
{
    (void)state;
    static const uint8_t big[ORR_BYTES_MAX + 1];
    struct orr_msg_envelope envelope = some_envelope();
    struct orr_msg_log_chunk chunk = {.data = {big, sizeof(big)}};
    uint8_t *data = NULL;
    size_t len = 0;
    assert_int_equal(
        orr_wire_encode(&envelope, orr_msg_desc_log_chunk(), &chunk, &data, &len),
        ORR_ENOSPC);
    assert_null(data);
}

/* A frame of two items, of 1 and 3 bytes. */
static const uint8_t two_items[] = {
    'O', 'R', 1, 0, 0, 0, 0, 1, 'a', 0, 0, 0, 3, 'b', 'c', 'd'};

/* Walk a whole frame from an exact copy; returns the items seen. */
static unsigned walk(const uint8_t *frame, size_t len, enum orr_err *ret_err)
{
    uint8_t *exact = malloc(len ? len : 1);
    assert_non_null(exact);
    if (len)
        memcpy(exact, frame, len);
    size_t at = 0;
    unsigned n_items = 0;
    const uint8_t *item;
    size_t item_len;
    while (orr_frame_next(exact, len, &at, &item, &item_len, ret_err)) {
        assert_true(item_len > 0 && item >= exact && item + item_len <= exact + len);
        n_items++;
    }
    free(exact);
    return n_items;
}

static void frame_with_two_items_yields_both(void **state)
{
    (void)state;
    size_t at = 0;
    const uint8_t *item;
    size_t len;
    enum orr_err rc;
    assert_true(orr_frame_next(two_items, sizeof(two_items), &at, &item, &len, &rc));
    assert_int_equal(len, 1);
    assert_memory_equal(item, "a", 1);
    assert_true(orr_frame_next(two_items, sizeof(two_items), &at, &item, &len, &rc));
    assert_int_equal(len, 3);
    assert_memory_equal(item, "bcd", 3);
    assert_false(orr_frame_next(two_items, sizeof(two_items), &at, &item, &len, &rc));
    assert_int_equal(rc, ORR_OK);
    /* ... and the end stays the end. */
    assert_false(orr_frame_next(two_items, sizeof(two_items), &at, &item, &len, &rc));
    assert_int_equal(rc, ORR_OK);
}

static void frame_without_items_is_a_clean_ping(void **state)
{
    (void)state;
    enum orr_err rc;
    uint8_t header[ORR_FRAME_HEADER];
    orr_frame_header(header);
    assert_int_equal(walk(header, sizeof(header), &rc), 0);
    assert_int_equal(rc, ORR_OK);
}

static void frame_truncated_inside_an_item_is_refused(void **state)
{
    (void)state;
    for (size_t n = 0; n < sizeof(two_items); n++) {
        bool is_boundary = n == 4 || n == 9;
        enum orr_err rc;
        walk(two_items, n, &rc);
        assert_int_equal(rc, is_boundary ? ORR_OK : ORR_EPROTO);
    }
}

static void frame_with_hostile_lengths_is_refused(void **state)
{
    (void)state;
    static const uint8_t frames[][9] = {
        {'O', 'R', 1, 0, 0, 0, 0, 0, 'a'},             /* an item of nothing */
        {'O', 'R', 1, 0, 0, 0, 0, 2, 'a'},             /* one byte too long */
        {'O', 'R', 1, 0, 0xff, 0xff, 0xff, 0xff, 'a'}, /* wraps around in 32 bits */
        {'O', 'R', 1, 0, 0x7f, 0xff, 0xff, 0xff, 'a'},
        {'O', 'R', 2, 0, 0, 0, 0, 1, 'a'}, /* another version of the frame */
        {'O', 'R', 1, 1, 0, 0, 0, 1, 'a'},
        {'o', 'r', 1, 0, 0, 0, 0, 1, 'a'},
    };
    for (size_t i = 0; i < ORR_ARRAY_SIZE(frames); i++) {
        enum orr_err rc;
        assert_int_equal(walk(frames[i], sizeof(frames[i]), &rc), 0);
        assert_int_equal(rc, ORR_EPROTO);
    }
}

static void frame_larger_than_the_limit_is_refused(void **state)
{
    (void)state;
    uint8_t *frame = calloc(1, ORR_FRAME_MAX + 1u);
    assert_non_null(frame);
    enum orr_err rc;
    orr_frame_header(frame);
    orr_item_header(frame + ORR_FRAME_HEADER, ORR_ITEM_MAX);
    assert_int_equal(walk(frame, ORR_FRAME_MAX, &rc), 1);
    assert_int_equal(rc, ORR_OK);
    assert_int_equal(walk(frame, ORR_FRAME_MAX + 1u, &rc), 0);
    assert_int_equal(rc, ORR_EPROTO);
    free(frame);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(item_encoded_and_decoded_is_the_same),
        cmocka_unit_test(envelope_truncated_anywhere_is_refused),
        cmocka_unit_test(envelope_with_odd_trace_or_message_id_is_refused),
        cmocka_unit_test(item_beyond_the_limits_is_not_encoded),
        cmocka_unit_test(frame_with_two_items_yields_both),
        cmocka_unit_test(frame_without_items_is_a_clean_ping),
        cmocka_unit_test(frame_truncated_inside_an_item_is_refused),
        cmocka_unit_test(frame_with_hostile_lengths_is_refused),
        cmocka_unit_test(frame_larger_than_the_limit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
