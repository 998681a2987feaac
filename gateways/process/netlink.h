/* SPDX-License-Identifier: Apache-2.0
 * netlink.h - one request to the kernel's routing netlink and its acknowledgement, and the links of a bridge.
 */
#ifndef ORR_PROCESS_NETLINK_H
#define ORR_PROCESS_NETLINK_H

#include <linux/rtnetlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct orri_nl {
    union {
        struct nlmsghdr head;
        char bytes[1024];
    };
};

/* A request with `body` (ifinfomsg, ifaddrmsg, ndmsg). */
void orri_nl_begin(
    struct orri_nl *nl, uint16_t type, uint16_t flags, const void *body, size_t len);
void orri_nl_put(struct orri_nl *nl, uint16_t type, const void *data, size_t len);
void orri_nl_text(struct orri_nl *nl, uint16_t type, const char *text);
void orri_nl_u32(struct orri_nl *nl, uint16_t type, uint32_t value);
/* Nested attributes: what follows, until the end of it. */
struct rtattr *orri_nl_open(struct orri_nl *nl, uint16_t type);
void orri_nl_close(struct orri_nl *nl, struct rtattr *at);
/* In the calling thread's network namespace.  0 or an errno. */
int orri_nl_send(struct orri_nl *nl);

/* A request (RTM_NEWLINK, RTM_DELLINK) for the link of that name, which is up or down then. */
void orri_nl_link(
    struct orri_nl *nl, uint16_t type, uint16_t flags, const char *name, bool is_up);
int orri_nl_link_remove(const char *name);
int orri_nl_link_attach(const char *name, const char *bridge);
/* Is no link but this one attached to the bridge?  Not from /sys, which shows the network namespace of whoever mounted it.  false,
 * too, when the kernel does not say. */
bool orri_nl_bridge_is_free(const char *bridge, const char *but);

#endif
