/* SPDX-License-Identifier: Apache-2.0
 * redis_link.c - redis_link.h.
 */
#include "redis_link.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <poll.h>
#include <sys/socket.h>

/* The one place where hiredis's errors become ours. */
static enum orr_err
lost(const struct redisContext *c, const char *what, struct orr_error *err)
{
    const char *why = c->errstr[0] ? c->errstr : strerror(errno);
    return orr_fail(err,
                    c->err == REDIS_ERR_PROTOCOL ? ORR_EPROTO : ORR_EUNREACH,
                    "%s: %.80s",
                    what,
                    why);
}

enum orr_err redis_link_open(struct redis_link *link,
                             const struct redis_address *address,
                             uint64_t deadline_ms,
                             uint64_t now_ms,
                             struct orr_error *err)
{
    struct redisContext *c = address->path[0]
                                 ? redisConnectUnixNonBlock(address->path)
                                 : redisConnectNonBlock(address->host, address->port);
    if (!c)
        return orr_fail(err, ORR_ENOMEM, "connect: out of memory");
    if (c->err) {
        enum orr_err code = lost(c, "connect", err);
        redisFree(c);
        return code;
    }
    *link =
        (struct redis_link){.c = c, .deadline_ms = deadline_ms, .opened_ms = now_ms};
    return ORR_OK;
}

void redis_link_close(struct redis_link *link)
{
    if (link->c)
        redisFree(link->c);
    *link = (struct redis_link){.c = NULL};
}

enum orr_err redis_link_call(struct redis_link *link,
                             const struct redis_call *call,
                             int argc,
                             const char **argv,
                             const size_t *lens,
                             uint64_t now_ms)
{
    ORR_ASSERT(redis_link_has_room(link));
    if (redisAppendCommandArgv(link->c, argc, argv, lens) != REDIS_OK)
        return ORR_ENOMEM;
    link->has_output = true;
    uint32_t at = (link->head + link->n++) % REDIS_CALLS_MAX;
    link->calls[at].call = *call;
    link->calls[at].due_ms = now_ms + link->deadline_ms;
    return ORR_OK;
}

int redis_link_fd(const struct redis_link *link)
{
    return link->c ? link->c->fd : -1;
}

short redis_link_events(const struct redis_link *link)
{
    if (!link->c)
        return 0;
    return (short)(POLLIN | (!link->is_connected || link->has_output ? POLLOUT : 0));
}

uint64_t redis_link_due_ms(const struct redis_link *link)
{
    if (!link->c)
        return UINT64_MAX;
    if (!link->is_connected)
        return link->opened_ms + link->deadline_ms;
    return link->n ? link->calls[link->head].due_ms : UINT64_MAX;
}

static enum orr_err finish_connect(struct redis_link *link, struct orr_error *err)
{
    int why = 0;
    socklen_t len = sizeof why;
    if (getsockopt(link->c->fd, SOL_SOCKET, SO_ERROR, &why, &len) != 0)
        why = errno;
    if (why)
        return orr_fail(err, ORR_EUNREACH, "connect: %s", strerror(why));
    link->is_connected = true;
    return ORR_OK;
}

static enum orr_err read_replies(struct redis_link *link,
                                 redis_reply_f on_reply,
                                 void *arg,
                                 struct orr_error *err)
{
    void *reply = NULL;
    if (redisBufferRead(link->c) != REDIS_OK)
        return lost(link->c, "read", err);
    if (link->c->reader->len > REDIS_REPLY_BYTES_MAX)
        return orr_fail(err, ORR_EPROTO, "it sends more than was asked for");
    for (;;) {
        if (redisGetReplyFromReader(link->c, &reply) != REDIS_OK)
            return lost(link->c, "reply", err);
        if (!reply)
            return ORR_OK;
        if (link->n == 0) {
            freeReplyObject(reply);
            return orr_fail(err, ORR_EPROTO, "it answers what was not asked");
        }
        struct redis_call call = link->calls[link->head].call;
        link->head = (link->head + 1) % REDIS_CALLS_MAX;
        link->n--;
        on_reply(arg, &call, reply);
        freeReplyObject(reply);
    }
}

enum orr_err redis_link_service(struct redis_link *link,
                                short revents,
                                uint64_t now_ms,
                                redis_reply_f on_reply,
                                void *arg,
                                struct orr_error *err)
{
    enum orr_err code = ORR_OK;
    int is_done = 0;
    if (!link->is_connected && (revents & (POLLOUT | POLLERR | POLLHUP)))
        code = finish_connect(link, err);
    if (!code && link->is_connected && (revents & (POLLIN | POLLERR | POLLHUP)))
        code = read_replies(link, on_reply, arg, err);
    if (!code && link->is_connected && redisBufferWrite(link->c, &is_done) != REDIS_OK)
        code = lost(link->c, "write", err);
    link->has_output = !is_done;
    if (!code && now_ms >= redis_link_due_ms(link))
        code = orr_fail(err,
                        ORR_ETIMEOUT,
                        "no answer within %llu ms",
                        (unsigned long long)link->deadline_ms);
    return code;
}
