/* SPDX-License-Identifier: Apache-2.0
 * fuzz_frame.c - a frame as a peer sends it: items, their envelopes, and the bodies
 * that the envelopes name.
 */
#include "wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void take_item(const uint8_t *item, size_t len)
{
    struct orr_msg_envelope envelope;
    size_t body_at;
    if (orr_wire_decode_envelope(item, len, &envelope, &body_at) != ORR_OK)
        return;
    ORR_ASSERT(body_at <= len);
    ORR_ASSERT(envelope.trace.len == 0 ||
               (envelope.trace.ptr >= item &&
                envelope.trace.ptr + envelope.trace.len <= item + body_at));
    const struct orr_msg_desc *desc = orr_msg_find((uint16_t)envelope.msg);
    size_t size;
    size_t taken;
    if (!desc || orr_msg_decode_size(
                     desc, item + body_at, len - body_at, &size, &taken) != ORR_OK)
        return;
    ORR_ASSERT(taken <= len - body_at);
    void *msg = malloc(size);
    if (!msg)
        abort();
    if (orr_msg_decode(desc, item + body_at, len - body_at, msg, size) != ORR_OK)
        abort();
    free(msg);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    size_t at = 0;
    const uint8_t *item;
    size_t item_len;
    enum orr_err rc;
    while (orr_frame_next(data, len, &at, &item, &item_len, &rc))
        take_item(item, item_len);
    ORR_ASSERT(rc == ORR_OK || rc == ORR_EPROTO);
    ORR_ASSERT(rc != ORR_OK || at == len);
    return 0;
}
