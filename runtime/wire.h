/* SPDX-License-Identifier: Apache-2.0
 * wire.h - what crosses a link (docs/protocol.md, "Frames").
 *
 * A frame is one ZeroMQ message part after the routing id: 'O' 'R' version(1) 0, then
 * items.  An item is a u32 big-endian length and that many bytes: an envelope body and
 * a message body, both msgpack arrays, back to back.  Several items for one peer that
 * are ready together share a frame.
 */
#ifndef ORR_WIRE_H
#define ORR_WIRE_H

#include "orrery/msg.h"

enum {
    ORR_FRAME_HEADER = 4,
    ORR_ITEM_HEADER = 4,
    ORR_FRAME_MAX = 4 << 20, /* bytes; a larger frame is refused and the link closed */
    ORR_ITEM_MAX = ORR_FRAME_MAX - ORR_FRAME_HEADER - ORR_ITEM_HEADER,
};

enum orr_envelope_flag {
    ORR_ENVELOPE_ANSWER = 1, /* corr is that of the request this answers */
};

/* Encode one item's bytes (without its length) into a fresh buffer that the caller
 * frees. Errors: ORR_ENOSPC beyond a limit, ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orr_wire_encode(const struct orr_msg_envelope *envelope,
                                           const struct orr_msg_desc *desc,
                                           const void *msg,
                                           uint8_t **ret_data, /* owned by the caller */
                                           size_t *ret_len);

/* Decode the envelope of an item; *ret_body_at is where the body starts.  `trace`
 * borrows from data. Errors: ORR_EPROTO. */
ORR_NODISCARD enum orr_err
orr_wire_decode_envelope(const uint8_t *data,
                         size_t len,
                         struct orr_msg_envelope *ret_envelope,
                         size_t *ret_body_at);

/* Walk the items of a frame: *at starts at 0.  Returns false at the end; *ret_err tells
 * whether that was a clean one. */
bool orr_frame_next(const uint8_t *frame,
                    size_t len,
                    size_t *at,
                    const uint8_t **ret_item, /* borrowed from frame */
                    size_t *ret_item_len,
                    enum orr_err *ret_err);

/* Write the header of a frame / the length of an item. */
void orr_frame_header(uint8_t out[ORR_FRAME_HEADER]);
void orr_item_header(uint8_t out[ORR_ITEM_HEADER], size_t item_len);

#endif
