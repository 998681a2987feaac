/* SPDX-License-Identifier: Apache-2.0
 * client.c - talk to a host from outside (include/orrery/client.h; docs/protocol.md,
 * "Session").
 *
 * A DEALER and its monitor in a context of their own.  Nothing reconnects: a client
 * that lost its host says so, and its user decides whether to ask again.  The
 * correlation number's lowest bit tells orr_client_ask from orr_client_send, so a late
 * answer to an ask that was given up is recognised and dropped, and answers to
 * pipelined requests that arrive during an ask are kept for orr_client_receive.
 */
#include "orrery/client.h"

#include "transport_zmq_socket.h"
#include "wire.h"

#include <sys/random.h>
#include <unistd.h>
#include <zmq.h>

enum { FRAMES_MAX = 1000, KEPT_BYTES_MAX = 64 << 20 };

/* An answer that came while another one was waited for. */
struct kept {
    struct kept *next;
    size_t len;
    uint8_t item[];
};

struct orr_client {
    void *context;
    void *socket; /* DEALER */
    void *watch;  /* tells that the connection failed or ended */
    char endpoint[ORR_ENDPOINT_MAX];
    char name[ORR_NAME_MAX]; /* ours */
    uint32_t incarnation;
    char host[ORR_NAME_MAX]; /* theirs */
    uint64_t n_sent;
    bool is_gone; /* the connection has ended */

    zmq_msg_t frame; /* being read */
    size_t frame_at;
    bool has_frame;
    struct kept *kept; /* owned, oldest first */
    struct kept **kept_end;
    size_t kept_bytes;
    void *answer; /* owned: what the last answer points into */
};

static enum orr_err fail_unreachable(struct orr_client *c, struct orr_error *err)
{
    c->is_gone = true;
    if (c->host[0] != '\0')
        return orr_fail(err,
                        ORR_EUNREACH,
                        "%s: host %s went away; is it running?",
                        c->endpoint,
                        c->host);
    return orr_fail(err,
                    ORR_EUNREACH,
                    "%s: nobody answers there; is the host running? `orrery dev up` or "
                    "`orrery host --config FILE` "
                    "starts one",
                    c->endpoint);
}

/* ---- the way out ---- */

/* Wait until the socket has what events asks for, or the connection ends, or deadline.
 */
static enum orr_err wait_for(struct orr_client *c,
                             short events,
                             uint64_t deadline_ms,
                             struct orr_error *err)
{
    zmq_pollitem_t items[] = {
        {.socket = c->socket, .events = events},
        {.socket = c->watch, .events = ZMQ_POLLIN},
    };
    for (;;) {
        uint64_t now = orri_zmq_now_ms();
        long left = deadline_ms > now ? (long)(deadline_ms - now) : 0;
        int n = zmq_poll(items, c->is_gone ? 1 : 2, c->is_gone ? 0 : left);
        int fd;
        if (n > 0 &&
            items[0].revents) /* what was delivered before the end is still read */
            return ORR_OK;
        if (n > 0 && items[1].revents && orri_zmq_watch_next(c->watch, &fd))
            c->is_gone = true; /* look once more for what came before it */
        else if (c->is_gone)
            return fail_unreachable(c, err);
        else if (n <= 0 && orri_zmq_now_ms() >= deadline_ms)
            return orr_fail(
                err,
                ORR_ETIMEOUT,
                "%s: no answer in time; the host is there, but busy or stuck",
                c->endpoint);
    }
}

/* Send one item, alone in its frame. */
static enum orr_err send_item(struct orr_client *c,
                              const struct orr_msg_envelope *envelope,
                              const struct orr_msg_desc *desc,
                              const void *msg,
                              uint64_t deadline_ms,
                              struct orr_error *err)
{
    uint8_t *item;
    size_t len;
    zmq_msg_t frame;
    enum orr_err rc = orr_wire_encode(envelope, desc, msg, &item, &len);
    if (rc != ORR_OK)
        return orr_fail(err,
                        rc,
                        "%s: %s; the request cannot be sent",
                        desc->body.name,
                        orr_err_text(rc));
    if (zmq_msg_init_size(&frame, ORR_FRAME_HEADER + ORR_ITEM_HEADER + len) != 0) {
        free(item);
        return orr_fail(err, ORR_ENOMEM, "%s: out of memory", desc->body.name);
    }
    uint8_t *at = zmq_msg_data(&frame);
    orr_frame_header(at);
    orr_item_header(at + ORR_FRAME_HEADER, len);
    memcpy(at + ORR_FRAME_HEADER + ORR_ITEM_HEADER, item, len);
    free(item);
    while (rc == ORR_OK && zmq_msg_send(&frame, c->socket, ZMQ_DONTWAIT) < 0)
        rc = wait_for(c, ZMQ_POLLOUT, deadline_ms, err);
    zmq_msg_close(&frame); /* nothing is left in it after a send */
    return rc;
}

/* ---- the way in ---- */

/* The next item; *ret_item is borrowed until the next call. */
static enum orr_err next_item(struct orr_client *c,
                              uint64_t deadline_ms,
                              const uint8_t **ret_item,
                              size_t *ret_len,
                              struct orr_error *err)
{
    for (;;) {
        enum orr_err rc = ORR_OK;
        if (c->has_frame) {
            const uint8_t *data = zmq_msg_data(&c->frame);
            if (orr_frame_next(data,
                               zmq_msg_size(&c->frame),
                               &c->frame_at,
                               ret_item,
                               ret_len,
                               &rc))
                return ORR_OK;
            zmq_msg_close(&c->frame);
            c->has_frame = false;
        }
        if (rc != ORR_OK)
            return orr_fail(err,
                            ORR_EPROTO,
                            "%s: what answers does not speak this protocol",
                            c->endpoint);
        zmq_msg_init(&c->frame);
        if (zmq_msg_recv(&c->frame, c->socket, ZMQ_DONTWAIT) >= 0) {
            c->has_frame = true;
            c->frame_at = 0;
            continue;
        }
        zmq_msg_close(&c->frame);
        rc = wait_for(c, ZMQ_POLLIN, deadline_ms, err);
        if (rc != ORR_OK)
            return rc;
    }
}

/* Decode the body of an item into c->answer.  Errors: ORR_EPROTO, ORR_ENOMEM. */
static enum orr_err decode_item(struct orr_client *c,
                                const uint8_t *item,
                                size_t len,
                                struct orr_msg_envelope *ret_envelope,
                                struct orr_answer *ret_answer)
{
    size_t body_at;
    size_t size;
    size_t taken;
    enum orr_err rc = orr_wire_decode_envelope(item, len, ret_envelope, &body_at);
    if (rc != ORR_OK)
        return rc;
    const struct orr_msg_desc *desc = orr_msg_find((uint16_t)ret_envelope->msg);
    if (!desc)
        return ORR_EPROTO;
    rc = orr_msg_decode_size(desc, item + body_at, len - body_at, &size, &taken);
    if (rc != ORR_OK)
        return rc;
    void *answer = malloc(size);
    if (!answer)
        return ORR_ENOMEM;
    rc = orr_msg_decode(desc, item + body_at, len - body_at, answer, size);
    if (rc != ORR_OK) {
        free(answer);
        return rc;
    }
    free(c->answer);
    c->answer = answer;
    *ret_answer =
        (struct orr_answer){.desc = desc, .msg = answer, .corr = ret_envelope->corr};
    return ORR_OK;
}

/* A `failed` as an error; its text goes into err as it is. */
static enum orr_err failed_to_error(const struct orr_answer *answer,
                                    struct orr_error *err)
{
    const struct orr_msg_failed *failed = answer->msg;
    enum orr_err code =
        failed->code == ORR_OK ? ORR_EPROTO : (enum orr_err)failed->code;
    if (failed->text.len == 0)
        return orr_fail(err, code, "%s", orr_err_text(code));
    return orr_fail(err, code, "%.*s", ORR_STR_ARGS(failed->text));
}

/* The next item that came over the link, decoded; a refusal of the link itself is an
 * error. */
static enum orr_err next_answer(struct orr_client *c,
                                uint64_t deadline_ms,
                                struct orr_msg_envelope *ret_envelope,
                                struct orr_answer *ret_answer,
                                const uint8_t **ret_item,
                                size_t *ret_len,
                                struct orr_error *err)
{
    enum orr_err rc = next_item(c, deadline_ms, ret_item, ret_len, err);
    if (rc != ORR_OK)
        return rc;
    rc = decode_item(c, *ret_item, *ret_len, ret_envelope, ret_answer);
    if (rc != ORR_OK)
        return orr_fail(err,
                        rc,
                        "%s: an answer that this build cannot read: %s",
                        c->endpoint,
                        orr_err_text(rc));
    if (orr_addr_is_none(ret_envelope->to) && ret_answer->desc->id == ORR_MSG_failed) {
        c->is_gone = true;
        return failed_to_error(ret_answer, err);
    }
    return ORR_OK;
}

/* ---- connecting ---- */

static enum orr_err open_socket(struct orr_client *c, struct orr_error *err)
{
    int frames_max = FRAMES_MAX;
    c->context = zmq_ctx_new();
    c->socket = c->context ? zmq_socket(c->context, ZMQ_DEALER) : NULL;
    if (c->socket && orri_zmq_options(c->socket) == ORR_OK &&
        zmq_setsockopt(c->socket, ZMQ_SNDHWM, &frames_max, sizeof(frames_max)) == 0 &&
        zmq_setsockopt(c->socket, ZMQ_RCVHWM, &frames_max, sizeof(frames_max)) == 0)
        c->watch = orri_zmq_watch(c->context, c->socket, ORRI_ZMQ_EVENTS_END);
    if (!c->watch)
        return orr_fail(err,
                        ORR_ENOMEM,
                        "%s: no sockets: %s",
                        c->endpoint,
                        zmq_strerror(zmq_errno()));
    if (zmq_connect(c->socket, c->endpoint) != 0)
        return orr_fail(err,
                        ORR_EINVAL,
                        "%s: cannot connect: %s",
                        c->endpoint,
                        zmq_strerror(zmq_errno()));
    return ORR_OK;
}

static enum orr_err
say_hello(struct orr_client *c, uint64_t deadline_ms, struct orr_error *err)
{
    const struct orr_msg_hello hello = {
        .protocol_min = ORR_PROTOCOL_VERSION,
        .protocol_max = ORR_PROTOCOL_VERSION,
        .host = orr_str(c->name),
        .incarnation = c->incarnation,
        .role = ORR_ROLE_CLIENT,
        .build = ORR_LIT(ORR_VERSION),
    };
    const struct orr_msg_envelope envelope = {
        .msg = ORR_MSG_hello,
        .from = {.host = orr_hash(hello.host), .incarnation = c->incarnation},
    };
    enum orr_err rc =
        send_item(c, &envelope, orr_msg_desc_hello(), &hello, deadline_ms, err);
    if (rc != ORR_OK)
        return rc;
    struct orr_msg_envelope said;
    struct orr_answer answer;
    const uint8_t *item;
    size_t len;
    rc = next_answer(c, deadline_ms, &said, &answer, &item, &len, err);
    if (rc == ORR_ETIMEOUT) /* something accepts connections, and says nothing */
        return fail_unreachable(c, err);
    if (rc != ORR_OK)
        return rc;
    if (answer.desc->id != ORR_MSG_hello ||
        ((const struct orr_msg_hello *)answer.msg)->host.len == 0)
        return orr_fail(err,
                        ORR_EPROTO,
                        "%s: what answers there is no host: it did not say hello",
                        c->endpoint);
    orr_str_copy(
        c->host, sizeof(c->host), ((const struct orr_msg_hello *)answer.msg)->host);
    return ORR_OK;
}

enum orr_err orr_client_new(const char *endpoint,
                            uint64_t timeout_ms,
                            struct orr_client **ret_client,
                            struct orr_error *err)
{
    uint64_t random;
    enum orr_err rc = orri_endpoint_check(endpoint, false, err);
    if (rc != ORR_OK)
        return rc;
    struct orr_client *c = calloc(1, sizeof(*c));
    if (!c || getrandom(&random, sizeof(random), 0) != sizeof(random)) {
        free(c);
        return orr_fail(err, ORR_ENOMEM, "%s: out of memory", endpoint);
    }
    c->kept_end = &c->kept;
    c->incarnation = 1;
    orr_str_copy(c->endpoint, sizeof(c->endpoint), orr_str(endpoint));
    snprintf(c->name,
             sizeof(c->name),
             "client-%d-%016lx",
             (int)getpid(),
             (unsigned long)random);
    rc = open_socket(c, err);
    if (rc == ORR_OK)
        rc = say_hello(c, orri_zmq_now_ms() + timeout_ms, err);
    if (rc != ORR_OK) {
        orr_client_free(c);
        return rc;
    }
    *ret_client = c;
    return ORR_OK;
}

void orr_client_free(struct orr_client *c)
{
    if (!c)
        return;
    if (c->has_frame)
        zmq_msg_close(&c->frame);
    if (c->socket) {
        zmq_socket_monitor(c->socket, NULL, 0);
        zmq_close(c->socket);
    }
    if (c->watch)
        zmq_close(c->watch);
    if (c->context)
        zmq_ctx_term(c->context);
    for (struct kept *next, *k = c->kept; k; k = next) {
        next = k->next;
        free(k);
    }
    free(c->answer);
    free(c);
}

const char *orr_client_host(const struct orr_client *c)
{
    return c->host;
}

/* ---- asking ---- */

static enum orr_err send_request(struct orr_client *c,
                                 const char *path,
                                 const struct orr_msg_desc *desc,
                                 const void *msg,
                                 uint64_t corr,
                                 uint64_t timeout_ms,
                                 struct orr_error *err)
{
    const struct orr_msg_envelope envelope = {
        .msg = desc->id,
        .to = orr_addr_named(orr_str(c->host), orr_str(path)),
        .from = {.host = orr_hash(orr_str(c->name)), .incarnation = c->incarnation},
        .corr = corr,
        .timeout_ms = timeout_ms < UINT32_MAX ? (uint32_t)timeout_ms : UINT32_MAX,
    };
    if (c->is_gone)
        return fail_unreachable(c, err);
    return send_item(c, &envelope, desc, msg, orri_zmq_now_ms() + timeout_ms, err);
}

enum orr_err orr_client_send(struct orr_client *c,
                             const char *path,
                             const struct orr_msg_desc *desc,
                             const void *msg,
                             uint64_t timeout_ms,
                             uint64_t *ret_corr,
                             struct orr_error *err)
{
    uint64_t corr = ++c->n_sent << 1;
    enum orr_err rc = send_request(c, path, desc, msg, corr, timeout_ms, err);
    if (rc == ORR_OK)
        *ret_corr = corr;
    return rc;
}

static enum orr_err
keep(struct orr_client *c, const uint8_t *item, size_t len, struct orr_error *err)
{
    struct kept *k =
        c->kept_bytes + len <= KEPT_BYTES_MAX ? malloc(sizeof(*k) + len) : NULL;
    if (!k)
        return orr_fail(
            err,
            ORR_ENOSPC,
            "%s: %zu bytes of answers wait to be received; receive them first",
            c->endpoint,
            c->kept_bytes);
    k->next = NULL;
    k->len = len;
    memcpy(k->item, item, len);
    *c->kept_end = k;
    c->kept_end = &k->next;
    c->kept_bytes += len;
    return ORR_OK;
}

static enum orr_err
take_kept(struct orr_client *c, struct orr_answer *ret_answer, struct orr_error *err)
{
    struct orr_msg_envelope envelope;
    struct kept *k = c->kept;
    c->kept = k->next;
    if (!c->kept)
        c->kept_end = &c->kept;
    c->kept_bytes -= k->len;
    enum orr_err rc = decode_item(c, k->item, k->len, &envelope, ret_answer);
    free(k);
    return rc == ORR_OK ? rc
                        : orr_fail(err, rc, "%s: %s", c->endpoint, orr_err_text(rc));
}

enum orr_err orr_client_receive(struct orr_client *c,
                                uint64_t timeout_ms,
                                struct orr_answer *ret_answer,
                                struct orr_error *err)
{
    uint64_t deadline_ms = orri_zmq_now_ms() + timeout_ms;
    if (c->kept)
        return take_kept(c, ret_answer, err);
    for (;;) {
        struct orr_msg_envelope envelope;
        const uint8_t *item;
        size_t len;
        enum orr_err rc =
            next_answer(c, deadline_ms, &envelope, ret_answer, &item, &len, err);
        if (rc != ORR_OK)
            return rc;
        bool is_late = envelope.corr & 1; /* of an ask that was given up */
        if ((envelope.flags & ORR_ENVELOPE_ANSWER) && !is_late)
            return ORR_OK;
    }
}

enum orr_err orr_client_ask(struct orr_client *c,
                            const char *path,
                            const struct orr_msg_desc *desc,
                            const void *msg,
                            uint64_t timeout_ms,
                            struct orr_answer *ret_answer,
                            struct orr_error *err)
{
    uint64_t deadline_ms = orri_zmq_now_ms() + timeout_ms;
    uint64_t corr = ++c->n_sent << 1 | 1;
    enum orr_err rc = send_request(c, path, desc, msg, corr, timeout_ms, err);
    while (rc == ORR_OK) {
        struct orr_msg_envelope envelope;
        const uint8_t *item;
        size_t len;
        rc = next_answer(c, deadline_ms, &envelope, ret_answer, &item, &len, err);
        if (rc != ORR_OK || !(envelope.flags & ORR_ENVELOPE_ANSWER))
            continue;
        if (envelope.corr == corr)
            return ret_answer->desc->id == ORR_MSG_failed
                       ? failed_to_error(ret_answer, err)
                       : ORR_OK;
        if (!(envelope.corr & 1))
            rc = keep(c, item, len, err);
    }
    return rc;
}
