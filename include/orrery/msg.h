/* SPDX-License-Identifier: Apache-2.0
 * msg.h - typed messages, generated from messages.def, and the codec that runs over
 * their descriptors.
 *
 * A message lives in one of two forms: the C struct (local sends copy it, with
 * everything it points to, into one block) and the msgpack body (only when it crosses a
 * host).  Both directions are one loop over the field table of the message. Decoding is
 * bounded: nothing is reserved before the bytes that justify it were seen, at most len
 * bytes are read, and the size of the result is known (orr_msg_decode_size) before
 * memory is asked for. Threads: everything here is pure and may be called from any
 * thread.
 */
#ifndef ORR_MSG_H
#define ORR_MSG_H

#include "orrery/addr.h"

#define ORR_STR_MAX   (64u << 10) /* bytes of one text that a peer may send */
#define ORR_BYTES_MAX (1u << 20)  /* bytes of one `bytes` field */
#define ORR_LIST_MAX  (64u << 10) /* records in one list */
#define ORR_BODY_MAX  (4u << 20)  /* bytes of one encoded message */

/* Lanes of a mailbox, in the order in which they are served. */
enum orr_lane { ORR_LANE_CONTROL, ORR_LANE_JOB, ORR_LANE_TELEMETRY, ORR_LANE_MAX_ };

/* Opaque bytes, borrowed as orr_str is. */
struct orr_bytes {
    const uint8_t *ptr; /* borrowed: from the message's memory */
    uint32_t len;
};

#define ORR_CTYPE_bool  bool
#define ORR_CTYPE_u32   uint32_t
#define ORR_CTYPE_u64   uint64_t
#define ORR_CTYPE_i64   int64_t
#define ORR_CTYPE_f64   double
#define ORR_CTYPE_str   struct orr_str
#define ORR_CTYPE_bytes struct orr_bytes
#define ORR_CTYPE_addr  struct orr_addr

/* The common shape of every struct orr_list_<record>, for code that works from
 * descriptors. */
struct orr_list_any {
    const void *at; /* borrowed: from the message's memory */
    uint32_t n;
};

/* struct orr_rec_<name>, struct orr_list_<name>, struct orr_msg_<name> */
#define REC_BEGIN(name) struct orr_rec_##name {
#define REC_END(name)                                                                  \
    }                                                                                  \
    ;                                                                                  \
    struct orr_list_##name {                                                           \
        const struct orr_rec_##name *at; /* borrowed: from the message's memory */     \
        uint32_t n;                                                                    \
    };
#define MSG_BEGIN(id, name, version, lane, reply) struct orr_msg_##name {
#define MSG_END(name)                                                                  \
    char end_; /* not on the wire; an empty struct is not C */                         \
    }                                                                                  \
    ;
#define FIELD(type, name, since)    ORR_CTYPE_##type name;
#define RECORD(record, name, since) struct orr_rec_##record name;
#define LIST(record, name, since)   struct orr_list_##record name;
#include "orrery/messages.def"
#include "orrery/msg_undef.h"

/* enum ORR_MSG_<name> = wire id */
enum orr_msg_id {
    ORR_MSG_none = 0,
#define REC_BEGIN(name)
#define REC_END(name)
#define MSG_BEGIN(id, name, version, lane, reply) ORR_MSG_##name = (id),
#define MSG_END(name)
#define FIELD(type, name, since)
#define RECORD(record, name, since)
#define LIST(record, name, since)
#include "orrery/messages.def"
#include "orrery/msg_undef.h"
};

enum orr_type {
    ORR_T_bool,
    ORR_T_u32,
    ORR_T_u64,
    ORR_T_i64,
    ORR_T_f64,
    ORR_T_str,
    ORR_T_bytes,
    ORR_T_addr,
    ORR_T_record,
    ORR_T_list,
};

struct orr_rec_desc;

struct orr_field_desc {
    const char *name;
    const struct orr_rec_desc *(*record)(void); /* of ORR_T_record, ORR_T_list */
    enum orr_type type;
    uint16_t offset;
    uint16_t since;
};

struct orr_rec_desc {
    const char *name;
    const struct orr_field_desc *fields;
    uint16_t n_fields;
    uint16_t size; /* of the C struct */
};

struct orr_msg_desc {
    struct orr_rec_desc body;
    uint16_t id;
    uint16_t version;
    uint16_t reply; /* id of the message that answers it, 0 if it is not a request */
    uint8_t lane;   /* enum orr_lane */
    bool is_flat;   /* holds no pointer: a copy is a memcpy */
};

/* const struct orr_msg_desc *orr_msg_desc_<name>(void), and the same for records */
#define REC_BEGIN(name) const struct orr_rec_desc *orr_rec_desc_##name(void);
#define REC_END(name)
#define MSG_BEGIN(id, name, version, lane, reply)                                      \
    const struct orr_msg_desc *orr_msg_desc_##name(void);
#define MSG_END(name)
#define FIELD(type, name, since)
#define RECORD(record, name, since)
#define LIST(record, name, since)
#include "orrery/messages.def"
#include "orrery/msg_undef.h"

/* Look up a message by wire id, or by position in the list.  NULL if there is none. */
const struct orr_msg_desc *orr_msg_find(uint16_t id);
const struct orr_msg_desc *orr_msg_nth(size_t n);

/* Bytes that orr_msg_copy needs: the struct and everything it points to. */
size_t orr_msg_size(const struct orr_msg_desc *desc, const void *msg);

/* Deep copy of msg into dst, which has orr_msg_size bytes and is aligned to 8.  The
 * copy points only into dst. */
void orr_msg_copy(const struct orr_msg_desc *desc, const void *msg, void *dst);

/* Encode msg into buf[cap]; *ret_len is set on success.
 * Errors: ORR_ENOSPC buffer too small, or a text, bytes or list beyond the limits
 * above. */
ORR_NODISCARD enum orr_err orr_msg_encode(const struct orr_msg_desc *desc,
                                          const void *msg,
                                          uint8_t *buf,
                                          size_t cap,
                                          size_t *ret_len);

/* An upper bound for the encoded length of msg, so that a buffer can be sized once. */
size_t orr_msg_encode_bound(const struct orr_msg_desc *desc, const void *msg);

/* Check a body and tell how much memory its struct form needs, and how many bytes of
 * buf it took (more may follow). Errors: ORR_EPROTO malformed, truncated, or beyond the
 * limits. */
ORR_NODISCARD enum orr_err orr_msg_decode_size(const struct orr_msg_desc *desc,
                                               const uint8_t *buf,
                                               size_t len,
                                               size_t *ret_size,
                                               size_t *ret_taken);

/* Decode a body into dst[cap], aligned to 8.  The result points only into dst.
 * Errors: ORR_EPROTO as above, ORR_ENOSPC when cap is below what orr_msg_decode_size
 * said. */
ORR_NODISCARD enum orr_err orr_msg_decode(const struct orr_msg_desc *desc,
                                          const uint8_t *buf,
                                          size_t len,
                                          void *dst,
                                          size_t cap);

/* Print as one JSON object on one line, like snprintf: returns the full length, writes
 * at most cap bytes. Text that is not UTF-8 is escaped per byte; bytes are printed as
 * text the same way. */
size_t
orr_msg_json(const struct orr_msg_desc *desc, const void *msg, char *buf, size_t cap);
size_t
orr_rec_json(const struct orr_rec_desc *desc, const void *rec, char *buf, size_t cap);

#endif
