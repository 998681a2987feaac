/* SPDX-License-Identifier: Apache-2.0
 * netlink.c - netlink.h.  A library would be no shorter: ours are ten kinds of request, and one dump.
 */
#include "netlink.h"

#include <errno.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "orrery/base.h"

enum { ANSWER_S_MAX = 5, DUMP_BYTES = 16 << 10 };

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

static int open_netlink(void)
{
    const struct timeval limit = {.tv_sec = ANSWER_S_MAX};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return fd;
}

int orri_nl_send(struct orri_nl *nl)
{
    union {
        struct nlmsghdr head;
        char bytes[2048];
    } answer;
    int fd = open_netlink();
    if (fd < 0)
        return errno;
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

/* ---- links ---- */

void orri_nl_link(
    struct orri_nl *nl, uint16_t type, uint16_t flags, const char *name, bool is_up)
{
    const struct ifinfomsg info = {
        .ifi_family = AF_UNSPEC, .ifi_flags = is_up ? IFF_UP : 0, .ifi_change = IFF_UP};
    orri_nl_begin(nl, type, flags, &info, sizeof info);
    orri_nl_text(nl, IFLA_IFNAME, name);
}

int orri_nl_link_remove(const char *name)
{
    struct orri_nl nl;
    orri_nl_link(&nl, RTM_DELLINK, 0, name, false);
    return orri_nl_send(&nl);
}

int orri_nl_link_attach(const char *name, const char *bridge)
{
    struct orri_nl nl;
    const struct ifinfomsg info = {.ifi_family = AF_UNSPEC};
    orri_nl_begin(&nl, RTM_NEWLINK, 0, &info, sizeof info);
    orri_nl_text(&nl, IFLA_IFNAME, name);
    orri_nl_u32(&nl, IFLA_MASTER, if_nametoindex(bridge));
    return orri_nl_send(&nl);
}

/* One datagram of a dump.  Returns whether there is more to come. */
static bool read_links(const char *bytes, size_t n, int but, bool *ret_is_free)
{
    const struct nlmsghdr *head = (const struct nlmsghdr *)(const void *)bytes;
    for (; NLMSG_OK(head, n); head = NLMSG_NEXT(head, n)) {
        if (head->nlmsg_type == NLMSG_DONE)
            return false;
        const struct ifinfomsg *info = NLMSG_DATA(head);
        if (head->nlmsg_type != RTM_NEWLINK || info->ifi_index != but) {
            *ret_is_free = false;
            return head->nlmsg_type == RTM_NEWLINK;
        }
    }
    return true;
}

bool orri_nl_bridge_is_free(const char *bridge, const char *but)
{
    const struct ifinfomsg info = {.ifi_family = AF_UNSPEC};
    unsigned index = if_nametoindex(bridge);
    int at = (int)if_nametoindex(but);
    _Alignas(struct nlmsghdr) char bytes[DUMP_BYTES];
    struct orri_nl nl;
    if (index == 0) /* there is none */
        return true;
    int fd = open_netlink();
    orri_nl_begin(&nl, RTM_GETLINK, NLM_F_DUMP, &info, sizeof info);
    orri_nl_u32(&nl, IFLA_MASTER, index);
    bool is_free = fd >= 0 && send(fd, nl.bytes, nl.head.nlmsg_len, 0) > 0;
    bool is_open = is_free;
    while (is_open) {
        ssize_t n = recv(fd, bytes, sizeof bytes, 0);
        if (n <= 0)
            is_free = false;
        is_open = n > 0 && read_links(bytes, (size_t)n, at, &is_free);
    }
    if (fd >= 0)
        close(fd);
    return is_free;
}
