/* SPDX-License-Identifier: Apache-2.0
 * wire.c - frames and items (docs/protocol.md, "Frames").
 *
 * Everything that came over a link passes through here first, so nothing here trusts a
 * length: an item is handed out only when all of its bytes are in the frame, and the
 * size of an envelope is known before it is decoded into a fixed buffer.
 */
#include "wire.h"

enum { FRAME_VERSION = 1, TRACE_LEN = 24 };

static const uint8_t frame_magic[ORR_FRAME_HEADER] = {'O', 'R', FRAME_VERSION, 0};

static uint32_t get_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

enum orr_err orr_wire_encode(const struct orr_msg_envelope *envelope,
                             const struct orr_msg_desc *desc,
                             const void *msg,
                             uint8_t **ret_data,
                             size_t *ret_len)
{
    const struct orr_msg_desc *head = orr_msg_desc_envelope();
    size_t cap = orr_msg_encode_bound(head, envelope) + orr_msg_encode_bound(desc, msg);
    uint8_t *data = malloc(cap);
    if (!data)
        return ORR_ENOMEM;
    size_t head_len = 0;
    size_t body_len = 0;
    enum orr_err rc = orr_msg_encode(head, envelope, data, cap, &head_len);
    if (rc == ORR_OK)
        rc = orr_msg_encode(desc, msg, data + head_len, cap - head_len, &body_len);
    if (rc == ORR_OK && head_len + body_len > ORR_ITEM_MAX)
        rc = ORR_ENOSPC;
    if (rc != ORR_OK) {
        free(data);
        return rc;
    }
    *ret_data = data;
    *ret_len = head_len + body_len;
    return ORR_OK;
}

enum orr_err orr_wire_decode_envelope(const uint8_t *data,
                                      size_t len,
                                      struct orr_msg_envelope *ret_envelope,
                                      size_t *ret_body_at)
{
    const struct orr_msg_desc *desc = orr_msg_desc_envelope();
    union {
        struct orr_msg_envelope envelope;
        uint8_t room[sizeof(struct orr_msg_envelope) + 2 * TRACE_LEN];
    } copy;
    size_t size;
    size_t taken;
    enum orr_err rc = orr_msg_decode_size(desc, data, len, &size, &taken);
    if (rc != ORR_OK)
        return rc;
    if (size > sizeof(copy))
        return ORR_EPROTO; /* a trace longer than any traceparent */
    rc = orr_msg_decode(desc, data, len, &copy, sizeof(copy));
    if (rc != ORR_OK)
        return rc;
    struct orr_bytes *trace = &copy.envelope.trace;
    if (copy.envelope.msg == ORR_MSG_none || copy.envelope.msg > UINT16_MAX)
        return ORR_EPROTO;
    if (trace->len != 0 && trace->len != TRACE_LEN)
        return ORR_EPROTO;
    /* The copy is about to go: borrow the same bytes from data, wherever they stand. */
    trace->ptr = trace->len ? memmem(data, taken, trace->ptr, trace->len) : NULL;
    *ret_envelope = copy.envelope;
    *ret_body_at = taken;
    return ORR_OK;
}

bool orr_frame_next(const uint8_t *frame,
                    size_t len,
                    size_t *at,
                    const uint8_t **ret_item,
                    size_t *ret_item_len,
                    enum orr_err *ret_err)
{
    *ret_err = ORR_EPROTO;
    if (*at == 0) {
        if (len < ORR_FRAME_HEADER || len > ORR_FRAME_MAX)
            return false;
        if (memcmp(frame, frame_magic, sizeof(frame_magic)) != 0)
            return false;
        *at = ORR_FRAME_HEADER;
    }
    if (*at == len) {
        *ret_err = ORR_OK;
        return false;
    }
    if (len - *at < ORR_ITEM_HEADER)
        return false;
    size_t item_len = get_be32(frame + *at);
    if (item_len == 0 || item_len > len - *at - ORR_ITEM_HEADER)
        return false;
    *ret_item = frame + *at + ORR_ITEM_HEADER;
    *ret_item_len = item_len;
    *at += ORR_ITEM_HEADER + item_len;
    *ret_err = ORR_OK;
    return true;
}

void orr_frame_header(uint8_t out[ORR_FRAME_HEADER])
{
    memcpy(out, frame_magic, sizeof(frame_magic));
}

void orr_item_header(uint8_t out[ORR_ITEM_HEADER], size_t item_len)
{
    ORR_ASSERT(item_len <= ORR_ITEM_MAX);
    for (unsigned i = 0; i < ORR_ITEM_HEADER; i++)
        out[i] = (uint8_t)(item_len >> (8 * (ORR_ITEM_HEADER - 1 - i)));
}
