/* SPDX-License-Identifier: Apache-2.0
 * netlink.c - netlink.h.  A library would be no shorter: ours are ten kinds of request, without a dump.
 */
#include "netlink.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "orrery/base.h"

enum { ANSWER_S_MAX = 5 };

void orri_nl_begin(
    struct orri_nl *nl, uint16_t type, uint16_t flags, const void *body, size_t len)
{
    memset(nl, 0, sizeof *nl);
    nl->head =
        (struct nlmsghdr){.nlmsg_len = (uint32_t)NLMSG_LENGTH(len),
                          .nlmsg_type = type,
                          .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags),
                          .nlmsg_seq = 1};
    memcpy(nl->bytes + NLMSG_HDRLEN, body, len);
}

static struct rtattr *add(struct orri_nl *nl, uint16_t type, size_t len)
{
    size_t at = NLMSG_ALIGN(nl->head.nlmsg_len);
    ORR_ASSERT(at + RTA_SPACE(len) <= sizeof nl->bytes);
    struct rtattr *attr = (struct rtattr *)(void *)(nl->bytes + at);
    attr->rta_type = type;
    attr->rta_len = (uint16_t)RTA_LENGTH(len);
    nl->head.nlmsg_len = (uint32_t)(at + RTA_SPACE(len));
    return attr;
}

void orri_nl_put(struct orri_nl *nl, uint16_t type, const void *data, size_t len)
{
    memcpy(RTA_DATA(add(nl, type, len)), data, len);
}

void orri_nl_text(struct orri_nl *nl, uint16_t type, const char *text)
{
    orri_nl_put(nl, type, text, strlen(text) + 1);
}

void orri_nl_u32(struct orri_nl *nl, uint16_t type, uint32_t value)
{
    orri_nl_put(nl, type, &value, sizeof value);
}

struct rtattr *orri_nl_open(struct orri_nl *nl, uint16_t type)
{
    return add(nl, type, 0);
}

void orri_nl_close(struct orri_nl *nl, struct rtattr *at)
{
    at->rta_len = (uint16_t)(nl->bytes + nl->head.nlmsg_len - (char *)at);
}

int orri_nl_send(struct orri_nl *nl)
{
    union {
        struct nlmsghdr head;
        char bytes[2048];
    } answer;
    struct timeval limit = {.tv_sec = ANSWER_S_MAX};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0)
        return errno;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    int rc = send(fd, nl->bytes, nl->head.nlmsg_len, 0) < 0 ? errno : 0;
    ssize_t n = rc == 0 ? recv(fd, answer.bytes, sizeof answer.bytes, 0) : 0;
    if (n < 0)
        rc = errno;
    else if (rc == 0)
        rc = answer.head.nlmsg_type == NLMSG_ERROR
                 ? -((struct nlmsgerr *)NLMSG_DATA(&answer.head))->error
                 : EPROTO;
    close(fd);
    return rc;
}
