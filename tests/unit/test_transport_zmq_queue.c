/* SPDX-License-Identifier: Apache-2.0
 * test_transport_zmq_queue.c - what waits for a link: frames that are whole, in lane order, and bounded.
 */
#include "orr_test.h"
#include "transport_zmq_impl.h"

enum { MAX = 1 << 20 };

/* The items of a frame; the first one's first byte goes into *ret_first. */
static unsigned items_of(const struct orri_chunk *chunk, uint8_t *ret_first)
{
    size_t at = 0;
    const uint8_t *item;
    size_t len;
    enum orr_err rc;
    unsigned n = 0;
    while (orr_frame_next(chunk->bytes, chunk->len, &at, &item, &len, &rc)) {
        if (n++ == 0)
            *ret_first = item[0];
    }
    assert_int_equal(rc, ORR_OK);
    return n;
}

static void
push(struct orri_queue *queue, enum orr_lane lane, uint8_t first, size_t len)
{
    uint8_t *data = calloc(1, len);
    assert_non_null(data);
    data[0] = first;
    assert_int_equal(orri_queue_push(queue, lane, MAX, data, len), ORR_OK);
    free(data);
}

static uint8_t pop_first(struct orri_queue *queue, unsigned n_items)
{
    uint8_t first = 0;
    struct orri_chunk *chunk = orri_queue_pop(queue);
    assert_non_null(chunk);
    assert_int_equal(items_of(chunk, &first), n_items);
    free(chunk);
    return first;
}

static void lanes_leave_in_order_whatever_came_first(void **state)
{
    (void)state;
    struct orri_queue queue = {0};
    push(&queue, ORR_LANE_TELEMETRY, 't', 10);
    push(&queue, ORR_LANE_JOB, 'j', 10);
    push(&queue, ORR_LANE_CONTROL, 'c', 10);
    assert_int_equal(pop_first(&queue, 1), 'c');
    assert_int_equal(pop_first(&queue, 1), 'j');
    assert_int_equal(pop_first(&queue, 1), 't');
    assert_null(orri_queue_pop(&queue));
    assert_int_equal(queue.bytes, 0);
}

static void messages_share_frames_up_to_the_target(void **state)
{
    (void)state;
    enum { N = 10000, LEN = 32 };
    struct orri_queue queue = {0};
    unsigned n_items = 0;
    unsigned n_frames = 0;
    for (int i = 0; i < N; i++)
        push(&queue, ORR_LANE_JOB, 1, LEN);
    for (struct orri_chunk *chunk; (chunk = orri_queue_pop(&queue)); n_frames++) {
        uint8_t first;
        assert_true(chunk->len <= ORRI_FRAME_TARGET);
        n_items += items_of(chunk, &first);
        free(chunk);
    }
    assert_int_equal(n_items, N);
    assert_true(n_frames <= 2 + N * (LEN + ORR_ITEM_HEADER) / (ORRI_FRAME_TARGET - 64));
}

static void
message_larger_than_the_target_has_its_own_frame_and_keeps_its_place(void **state)
{
    (void)state;
    struct orri_queue queue = {0};
    push(&queue, ORR_LANE_JOB, 'a', 10);
    push(&queue, ORR_LANE_JOB, 'b', 3 * ORRI_FRAME_TARGET);
    push(&queue, ORR_LANE_JOB, 'c', 10);
    push(&queue, ORR_LANE_JOB, 'd', 10);
    assert_int_equal(pop_first(&queue, 1), 'a');
    assert_int_equal(pop_first(&queue, 1), 'b');
    assert_int_equal(pop_first(&queue, 2), 'c');
}

static void
full_queue_refuses_lower_lanes_first_and_takes_again_when_drained(void **state)
{
    (void)state;
    static const uint8_t data[1000];
    struct orri_queue queue = {0};
    for (int lane = ORR_LANE_TELEMETRY; lane >= ORR_LANE_CONTROL; lane--) {
        size_t before = queue.bytes;
        while (orri_queue_push(&queue, (enum orr_lane)lane, MAX, data, sizeof(data)) ==
               ORR_OK) {
        }
        assert_true(queue.bytes > before && queue.bytes <= MAX);
        assert_int_equal(
            orri_queue_push(&queue, (enum orr_lane)lane, MAX, data, sizeof(data)),
            ORR_EBUSY);
    }
    orri_queue_clear(&queue);
    assert_int_equal(queue.bytes, 0);
    push(&queue,
         ORR_LANE_TELEMETRY,
         't',
         2 * MAX); /* an empty queue takes any one message */
    assert_int_equal(pop_first(&queue, 1), 't');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lanes_leave_in_order_whatever_came_first),
        cmocka_unit_test(messages_share_frames_up_to_the_target),
        cmocka_unit_test(
            message_larger_than_the_target_has_its_own_frame_and_keeps_its_place),
        cmocka_unit_test(
            full_queue_refuses_lower_lanes_first_and_takes_again_when_drained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
