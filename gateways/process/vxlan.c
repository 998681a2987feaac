/* SPDX-License-Identifier: Apache-2.0
 * vxlan.c - vxlan.h.
 *
 * Packets are not marked "don't fragment": where the way between two machines is narrower than their interfaces, it is slow, and works.
 */
#include "vxlan.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netlink.h"
#include "process_linux.h"

enum { PORT = 4789, ETHERNET_BYTES = 6 };

bool orri_underlay_parse(const char *text, struct orri_underlay *ret_at)
{
    char addr[INET_ADDRSTRLEN];
    size_t len = strcspn(text, ":");
    char *end = (char *)(uintptr_t)text + len;
    unsigned long port = *end ? strtoul(end + 1, &end, 10) : PORT;
    if (len >= sizeof addr || *end || port == 0 || port > UINT16_MAX)
        return false;
    memcpy(addr, text, len);
    addr[len] = '\0';
    ret_at->port = (uint16_t)port;
    return inet_pton(AF_INET, addr, &ret_at->addr) == 1;
}

static uint32_t mtu_of(const char *name)
{
    struct ifreq request = {.ifr_mtu = 0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    int rc = fd < 0 ? -1 : ioctl(fd, SIOCGIFMTU, &request);
    if (fd >= 0)
        close(fd);
    return rc == 0 && request.ifr_mtu > 0 ? (uint32_t)request.ifr_mtu : 0;
}

uint32_t orri_underlay_mtu(struct in_addr addr)
{
    struct ifaddrs *all;
    uint32_t mtu = 0;
    if (getifaddrs(&all) != 0)
        return 0;
    for (const struct ifaddrs *at = all; at && !mtu; at = at->ifa_next) {
        if (!at->ifa_addr || at->ifa_addr->sa_family != AF_INET)
            continue;
        const struct sockaddr_in *in = (const void *)at->ifa_addr;
        if (in->sin_addr.s_addr == addr.s_addr)
            mtu = mtu_of(at->ifa_name);
    }
    freeifaddrs(all);
    return mtu;
}

int orri_vxlan_make(const char *name, uint64_t id, const struct orri_underlay *at)
{
    struct orri_nl nl;
    uint16_t port = htons(at->port);
    orri_nl_link(&nl, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, name, true);
    struct rtattr *info = orri_nl_open(&nl, IFLA_LINKINFO);
    orri_nl_text(&nl, IFLA_INFO_KIND, "vxlan");
    struct rtattr *data = orri_nl_open(&nl, IFLA_INFO_DATA);
    orri_nl_u32(&nl, IFLA_VXLAN_ID, (uint32_t)(id & 0xffffff));
    orri_nl_put(&nl, IFLA_VXLAN_LOCAL, &at->addr, sizeof at->addr);
    orri_nl_put(&nl, IFLA_VXLAN_PORT, &port, sizeof port);
    orri_nl_close(&nl, data);
    orri_nl_close(&nl, info);
    int rc = orri_nl_send(&nl);
    return rc == EEXIST && if_nametoindex(name) ? 0 : rc;
}

int orri_vxlan_peer(const char *name, struct in_addr peer)
{
    static const uint8_t any[ETHERNET_BYTES];
    struct orri_nl nl;
    const struct ndmsg nd = {.ndm_family = AF_BRIDGE,
                             .ndm_ifindex = (int)if_nametoindex(name),
                             .ndm_state = NUD_NOARP | NUD_PERMANENT,
                             .ndm_flags = NTF_SELF};
    orri_nl_begin(&nl, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_APPEND, &nd, sizeof nd);
    orri_nl_put(&nl, NDA_LLADDR, any, sizeof any);
    orri_nl_put(&nl, NDA_DST, &peer, sizeof peer);
    int rc = orri_nl_send(&nl);
    return rc == EEXIST ? 0 : rc;
}

void orr_overlay_try(const char *machine, char *why, size_t cap)
{
    char name[IFNAMSIZ];
    struct orri_underlay at;
    why[0] = '\0';
    snprintf(name, sizeof name, "oy%x", (unsigned)getpid());
    if (!orri_underlay_parse(machine, &at)) {
        snprintf(why, cap, "%s is no IPv4 address", machine);
        return;
    }
    if (orri_underlay_mtu(at.addr) <= ORRI_VXLAN_BYTES) {
        snprintf(why,
                 cap,
                 "no interface of this machine has the address of %s "
                 "(roles.node.overlay.address)",
                 machine);
        return;
    }
    int rc = orri_vxlan_make(name, (uint64_t)getpid(), &at);
    if (rc == 0)
        rc = orri_nl_link_remove(name);
    if (rc && rc != EEXIST) /* that would say that it can be made */
        snprintf(
            why, cap, "cannot make a VXLAN device at %s: %s", machine, strerror(rc));
}
