/* SPDX-License-Identifier: Apache-2.0
 * msg_desc.c - the descriptor of every record and message, made from messages.def.
 *
 * Each lives in a function of its own, so that FIELD can say offsetof(self_t, ...)
 * without repeating whose field it is.
 */
#include "orrery/msg.h"

/* Constants that tell whether a record holds no pointer. */
#define FLAT_bool  true
#define FLAT_u32   true
#define FLAT_u64   true
#define FLAT_i64   true
#define FLAT_f64   true
#define FLAT_addr  true
#define FLAT_str   false
#define FLAT_bytes false

enum {
#define REC_BEGIN(name)                           rec_is_flat_##name = true
#define REC_END(name)                             ,
#define MSG_BEGIN(id, name, version, lane, reply) msg_is_flat_##name = true
#define MSG_END(name)                             ,
#define FIELD(type, name, since)                  &&FLAT_##type
#define RECORD(record, name, since)               &&rec_is_flat_##record
#define LIST(record, name, since)                 &&false
#include "orrery/messages.def"
#include "orrery/msg_undef.h"
};

#define FIELD(type_, name_, since_)                                                    \
    {.name = #name_,                                                                   \
     .type = ORR_T_##type_,                                                            \
     .offset = offsetof(self_t, name_),                                                \
     .since = (since_)},
#define RECORD(record_, name_, since_)                                                 \
    {.name = #name_,                                                                   \
     .type = ORR_T_record,                                                             \
     .offset = offsetof(self_t, name_),                                                \
     .since = (since_),                                                                \
     .record = orr_rec_desc_##record_},
#define LIST(record_, name_, since_)                                                   \
    {.name = #name_,                                                                   \
     .type = ORR_T_list,                                                               \
     .offset = offsetof(self_t, name_),                                                \
     .since = (since_),                                                                \
     .record = orr_rec_desc_##record_},
#define REC_BEGIN(name_)                                                               \
    const struct orr_rec_desc *orr_rec_desc_##name_(void)                              \
    {                                                                                  \
        typedef struct orr_rec_##name_ self_t;                                         \
        static const struct orr_field_desc fields[] = {
#define REC_END(name_)                                                                 \
    {                                                                                  \
        .name = NULL                                                                   \
    }                                                                                  \
    }                                                                                  \
    ;                                                                                  \
    static const struct orr_rec_desc desc = {                                          \
        #name_, fields, ORR_ARRAY_SIZE(fields) - 1, sizeof(self_t)};                   \
    return &desc;                                                                      \
    }
#define MSG_BEGIN(id_, name_, version_, lane_, reply_)                                 \
    const struct orr_msg_desc *orr_msg_desc_##name_(void)                              \
    {                                                                                  \
        typedef struct orr_msg_##name_ self_t;                                         \
        enum {                                                                         \
            self_id = (id_),                                                           \
            self_version = (version_),                                                 \
            self_reply = ORR_MSG_##reply_,                                             \
            self_lane = ORR_LANE_##lane_                                               \
        };                                                                             \
        static const struct orr_field_desc fields[] = {
#define MSG_END(name_)                                                                 \
    {                                                                                  \
        .name = NULL                                                                   \
    }                                                                                  \
    }                                                                                  \
    ;                                                                                  \
    static const struct orr_msg_desc desc = {                                          \
        .body = {#name_, fields, ORR_ARRAY_SIZE(fields) - 1, sizeof(self_t)},          \
        .id = self_id,                                                                 \
        .version = self_version,                                                       \
        .reply = self_reply,                                                           \
        .lane = self_lane,                                                             \
        .is_flat = msg_is_flat_##name_,                                                \
    };                                                                                 \
    return &desc;                                                                      \
    }
#include "orrery/messages.def"
#include "orrery/msg_undef.h"

#define REC_BEGIN(name)
#define REC_END(name)
#define MSG_END(name)
#define FIELD(type, name, since)
#define RECORD(record, name, since)
#define LIST(record, name, since)

const struct orr_msg_desc *orr_msg_find(uint16_t id)
{
    switch (id) {
#define MSG_BEGIN(id_, name_, version_, lane_, reply_)                                 \
    case (id_):                                                                        \
        return orr_msg_desc_##name_();
#include "orrery/messages.def"
#undef MSG_BEGIN
    default:
        return NULL;
    }
}

const struct orr_msg_desc *orr_msg_nth(size_t n)
{
    static const struct orr_msg_desc *(*const all[])(void) = {
#define MSG_BEGIN(id_, name_, version_, lane_, reply_) orr_msg_desc_##name_,
#include "orrery/messages.def"
#undef MSG_BEGIN
    };
    return n < ORR_ARRAY_SIZE(all) ? all[n]() : NULL;
}
