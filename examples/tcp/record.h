/* SPDX-License-Identifier: Apache-2.0
 * record.h - what goes over a connection: one record after the other, each with a header
 * from which its reader sees any byte that was lost, repeated, reordered or changed.
 */
#ifndef TCP_RECORD_H
#define TCP_RECORD_H

#include <stddef.h>
#include <stdint.h>

enum { RECORD_PAYLOAD_MAX = 1 << 16, RECORD_ERR_MAX = 192 };

/* In the byte order of the machine, which all ranks have in common. */
struct record_header {
    uint32_t magic;
    uint32_t from, to;
    uint32_t sequence; /* of this connection and direction, from 0 */
    uint64_t offset;   /* bytes sent before it on this connection */
    uint32_t length;   /* of the payload */
    uint32_t zero;
    uint64_t checksum; /* FNV-1a of the header with 0 here, then of the payload */
};

/* Where one direction of a connection has come to. */
struct record_stream {
    uint32_t from, to, sequence;
    uint64_t offset;
};

/* The header for `payload` as the next record of *s, which moves on. */
struct record_header
record_next(struct record_stream *s, const void *payload, uint32_t length);

/* Is `h` the header of the next record of *s, of at most `length_max`? Checked before
 * the payload is read. Returns NULL, or what is wrong, in `err`. */
const char *record_refuses(const struct record_stream *s,
                           const struct record_header *h,
                           uint32_t length_max,
                           char err[RECORD_ERR_MAX]);

/* The same for the payload; on NULL *s moves on. */
const char *record_take(struct record_stream *s,
                        const struct record_header *h,
                        const void *payload,
                        char err[RECORD_ERR_MAX]);

#endif
