/* SPDX-License-Identifier: Apache-2.0
 * transport_zmq_session.c - hello, refusals, and the way in (docs/protocol.md,
 * "Session").
 *
 * Session messages (hello, and a `failed` to nobody) travel alone in their frame, so
 * only a frame of one item is looked at here; the items of a busy link go to the kernel
 * unseen.  A peer that breaks the rules is told why, its link goes down, and what it
 * sends until its next hello changes nothing.
 */
#include "transport_zmq_impl.h"

enum { HELLO_SIZE_MAX = 1024 };

/* ---- saying ---- */

static void say(struct orr_zmq *z,
                const struct orri_origin *origin,
                const struct orr_msg_desc *desc,
                const void *msg)
{
    const struct orr_msg_envelope envelope = {
        .msg = desc->id,
        .from = {.host = z->host_id, .incarnation = z->incarnation},
    };
    uint8_t *item;
    size_t len;
    if (orr_wire_encode(&envelope, desc, msg, &item, &len) != ORR_OK)
        return;
    uint8_t frame[ORR_FRAME_HEADER + ORR_ITEM_HEADER + HELLO_SIZE_MAX];
    ORR_ASSERT(len <= HELLO_SIZE_MAX);
    orr_frame_header(frame);
    orr_item_header(frame + ORR_FRAME_HEADER, len);
    memcpy(frame + ORR_FRAME_HEADER + ORR_ITEM_HEADER, item, len);
    free(item);
    (void)orri_zmq_send_frame(
        z, origin, frame, ORR_FRAME_HEADER + ORR_ITEM_HEADER + len);
}

void orri_session_say_hello(struct orr_zmq *z, const struct orri_origin *origin)
{
    const struct orr_msg_hello hello = {
        .protocol_min = ORR_PROTOCOL_VERSION,
        .protocol_max = ORR_PROTOCOL_VERSION,
        .host = orr_str(z->host),
        .incarnation = z->incarnation,
        .role = ORR_ROLE_HOST,
        .build = orr_str(z->build),
        .endpoint = orr_str(z->endpoint),
    };
    say(z, origin, orr_msg_desc_hello(), &hello);
}

static void say_failed(struct orr_zmq *z,
                       const struct orri_origin *origin,
                       const struct orr_error *why)
{
    const struct orr_msg_failed failed = {
        .code = (uint32_t)why->code,
        .msg = ORR_MSG_hello,
        .text = orr_str(why->text),
    };
    say(z, origin, orr_msg_desc_failed(), &failed);
}

/* ---- hello ---- */

static bool name_is_fine(struct orr_str name)
{
    for (uint32_t i = 0; i < name.len; i++) {
        if (name.ptr[i] <= ' ' || name.ptr[i] > '~')
            return false; /* names end up in logs */
    }
    return name.len > 0 && name.len < ORR_NAME_MAX;
}

static enum orr_err check_hello(struct orr_zmq *z,
                                const struct orri_origin *origin,
                                const struct orr_msg_hello *hello,
                                struct orr_error *err)
{
    if (hello->protocol_min > ORR_PROTOCOL_VERSION ||
        hello->protocol_max < ORR_PROTOCOL_VERSION)
        return orr_fail(
            err,
            ORR_EVERSION,
            "%s speaks protocol %d, the peer %u to %u; upgrade the older one",
            z->host,
            ORR_PROTOCOL_VERSION,
            hello->protocol_min,
            hello->protocol_max);
    if (!name_is_fine(hello->host) || hello->incarnation == 0)
        return orr_fail(err,
                        ORR_EINVAL,
                        "a hello needs a host name of 1 to %d printable bytes and an "
                        "incarnation above 0",
                        ORR_NAME_MAX - 1);
    if (hello->role != ORR_ROLE_HOST && hello->role != ORR_ROLE_CLIENT)
        return orr_fail(err,
                        ORR_EINVAL,
                        "role %u: a peer is a host (2) or a client (4)",
                        hello->role);
    if (orr_hash(hello->host) == z->host_id)
        return orr_fail(err,
                        ORR_EPERM,
                        "%s is this host's own name; every host needs another one",
                        z->host);
    if (origin->dial && (!orr_str_eq(hello->host, orr_str(origin->dial->name)) ||
                         hello->role != ORR_ROLE_HOST))
        return orr_fail(err,
                        ORR_EINVAL,
                        "%s was dialled at %s and %.*s answers; correct the endpoint",
                        origin->dial->name,
                        origin->dial->endpoint,
                        ORR_STR_ARGS(hello->host));
    return ORR_OK;
}

/* May this new link stay?  An existing one of the same host then goes. */
static enum orr_err check_existing(struct orr_zmq *z,
                                   const struct orri_origin *origin,
                                   const struct orr_msg_hello *hello,
                                   const struct orri_link *existing,
                                   struct orr_error *err)
{
    if (hello->role != existing->role)
        return orr_fail(err,
                        ORR_EPERM,
                        "%s: that name has a live link in another role",
                        existing->name);
    if (hello->incarnation < existing->incarnation)
        return orr_fail(err,
                        ORR_ESTALE,
                        "%s: incarnation %u came after %u; two hosts have the same "
                        "name, or a clock went back",
                        existing->name,
                        hello->incarnation,
                        existing->incarnation);
    if (hello->incarnation > existing->incarnation ||
        !origin->dial == !existing->origin.dial)
        return ORR_OK;
    /* Both have dialled: both must keep the same link.  It is the one that the smaller
     * id dialled. */
    bool is_ours_kept = z->host_id < existing->host;
    if (is_ours_kept == (origin->dial != NULL))
        return ORR_OK;
    return orr_fail(
        err, ORR_EEXIST, "%s: has a link already, which stays", existing->name);
}

static void refuse_peer(struct orr_zmq *z,
                        const struct orri_origin *origin,
                        const struct orr_error *why)
{
    z->links_refused++;
    orri_zmq_log(z,
                 why->code == ORR_EEXIST ? ORR_LOG_DEBUG : ORR_LOG_WARN,
                 "link refused: %s",
                 why->text);
    say_failed(z, origin, why);
    if (origin->dial)
        orri_dial_again(z, origin->dial);
}

static void on_hello(struct orr_zmq *z,
                     const struct orri_origin *origin,
                     const struct orr_msg_hello *hello)
{
    struct orr_error err;
    uint64_t host = orr_hash(hello->host);
    struct orri_link *existing = orri_link_by_host(z, host);
    enum orr_err rc = check_hello(z, origin, hello, &err);
    if (rc == ORR_OK && existing)
        rc = check_existing(z, origin, hello, existing, &err);
    if (rc == ORR_OK && !existing && z->n_links >= z->links_max)
        rc = orr_fail(&err,
                      ORR_ENOSPC,
                      "%s has %u links, its limit; try again later",
                      z->host,
                      z->links_max);
    if (rc != ORR_OK) {
        refuse_peer(z, origin, &err);
        return;
    }
    if (existing)
        orri_link_down(z, existing, "replaced by a newer one");
    if (!origin->dial)
        orri_session_say_hello(z, origin);
    if (orri_link_up(z, origin, hello) == ORR_OK)
        orr_system_peer_up(z->system, host, hello->incarnation);
}

/* ---- the way in ---- */

/* The frame's only item, when it has exactly one. */
static bool sole_item(const uint8_t *frame,
                      size_t len,
                      struct orr_msg_envelope *ret_envelope,
                      const uint8_t **ret_body,
                      size_t *ret_body_len)
{
    size_t at = 0;
    const uint8_t *item;
    size_t item_len;
    size_t body_at;
    enum orr_err rc;
    if (!orr_frame_next(frame, len, &at, &item, &item_len, &rc) || at != len)
        return false;
    if (orr_wire_decode_envelope(item, item_len, ret_envelope, &body_at) != ORR_OK)
        return false;
    *ret_body = item + body_at;
    *ret_body_len = item_len - body_at;
    return true;
}

/* Decode a session message into room[HELLO_SIZE_MAX]; NULL when it is malformed or
 * larger than it has a reason to be. */
static const void *decode_small(const struct orr_msg_desc *desc,
                                const uint8_t *body,
                                size_t len,
                                void *room)
{
    size_t size;
    size_t taken;
    if (orr_msg_decode_size(desc, body, len, &size, &taken) != ORR_OK ||
        size > HELLO_SIZE_MAX)
        return NULL;
    return orr_msg_decode(desc, body, len, room, HELLO_SIZE_MAX) == ORR_OK ? room
                                                                           : NULL;
}

static bool is_refusal(const struct orr_msg_envelope *envelope)
{
    return envelope->msg == ORR_MSG_failed && orr_addr_is_none(envelope->to);
}

static void
log_refusal(struct orr_zmq *z, const char *name, const uint8_t *body, size_t len)
{
    _Alignas(8) uint8_t room[HELLO_SIZE_MAX];
    const struct orr_msg_failed *failed =
        decode_small(orr_msg_desc_failed(), body, len, room);
    if (failed)
        orri_zmq_log(z,
                     ORR_LOG_WARN,
                     "%s refuses the link: %s: %.200s",
                     name,
                     orr_err_name((enum orr_err)failed->code),
                     failed->text.ptr);
}

/* Sent before the peer knew that its link had ended here, and why: it breaks no rule.  What told it may have been lost. */
static void on_late(struct orr_zmq *z, const struct orri_origin *origin, size_t len)
{
    struct orr_error err;
    (void)orr_fail(&err,
                   ORR_ESTATE,
                   "a frame of %zu bytes for a link that has ended; say hello again",
                   len);
    orri_zmq_log(z, ORR_LOG_DEBUG, "%s", err.text);
    say_failed(z, origin, &err);
}

/* A frame from a peer without a link: hello, or nothing that we take. */
static void on_stranger(struct orr_zmq *z,
                        const struct orri_origin *origin,
                        const uint8_t *frame,
                        size_t len)
{
    struct orr_msg_envelope envelope;
    const uint8_t *body;
    size_t body_len;
    _Alignas(8) uint8_t room[HELLO_SIZE_MAX];
    bool is_one = sole_item(frame, len, &envelope, &body, &body_len);
    if (is_one && is_refusal(&envelope)) {
        if (origin->dial) {
            log_refusal(z, origin->dial->name, body, body_len);
            orri_dial_again(z, origin->dial);
        }
        return;
    }
    const struct orr_msg_hello *hello = NULL;
    if (is_one && envelope.msg == ORR_MSG_hello)
        hello = decode_small(orr_msg_desc_hello(), body, body_len, room);
    if (hello) {
        on_hello(z, origin, hello);
        return;
    }
    struct orr_error err;
    if (orri_link_has_ended(z, origin)) {
        on_late(z, origin, len);
        return;
    }
    z->frames_refused++;
    (void)orr_fail(
        &err,
        ORR_ESTATE,
        "a frame of %zu bytes before hello; say hello first, alone in its frame",
        len);
    refuse_peer(z, origin, &err);
}

void orri_session_end(struct orr_zmq *z,
                      struct orri_link *link,
                      enum orr_err code,
                      const char *what)
{
    struct orr_error err;
    struct orri_origin origin = link->origin;
    (void)orr_fail(
        &err, code, "%s: %s; the link is closed, say hello again", link->name, what);
    say_failed(z, &origin, &err);
    orri_link_down(z, link, what);
}

static void break_link(struct orr_zmq *z, struct orri_link *link, const char *what)
{
    z->frames_refused++;
    orri_session_end(z, link, ORR_EPROTO, what);
}

/* True when the frame was the transport's own business. */
static bool took_session_item(struct orr_zmq *z,
                              struct orri_link *link,
                              const uint8_t *frame,
                              size_t len)
{
    struct orr_msg_envelope envelope;
    const uint8_t *body;
    size_t body_len;
    if (!sole_item(frame, len, &envelope, &body, &body_len))
        return false;
    if (is_refusal(&envelope)) {
        log_refusal(z, link->name, body, body_len);
        orri_link_down(z, link, "refused by the peer");
        return true;
    }
    if (envelope.msg != ORR_MSG_hello)
        return false;
    break_link(z, link, "hello came twice");
    return true;
}

void orri_session_frame(struct orr_zmq *z,
                        const struct orri_origin *origin,
                        const uint8_t *frame,
                        size_t len)
{
    z->frames_received++;
    struct orri_link *link = orri_link_by_origin(z, origin);
    if (!link) {
        on_stranger(z, origin, frame, len);
        return;
    }
    link->heard_ms = z->now_ms;
    if (took_session_item(z, link, frame, len))
        return;
    size_t at = 0;
    const uint8_t *item;
    size_t item_len;
    enum orr_err rc;
    enum orr_err taken = ORR_OK;
    uint64_t n_items = 0;
    while (taken != ORR_EPROTO &&
           orr_frame_next(frame, len, &at, &item, &item_len, &rc)) {
        taken = orr_system_receive(z->system, link->host, link->role, item, item_len);
        n_items++;
    }
    z->items_received += n_items;
    if (taken == ORR_EPROTO)
        break_link(z, link, "a malformed message");
    else if (rc != ORR_OK)
        break_link(z, link, "a malformed frame");
}
