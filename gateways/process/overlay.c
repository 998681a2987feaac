/* SPDX-License-Identifier: Apache-2.0
 * overlay.c - overlay.h.
 *
 * START      bridge and VXLAN device are made by the overlay's first rank on the machine, the veth by each
 * STOP       the veth goes with its rank, bridge and VXLAN with the last one; who makes and who removes hold one lock, or
 * a rank could find its bridge gone under its hands
 * FAILURES   everything is named, so what a killed keeper left is removed by the next host, by name
 */
#include "overlay.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/neighbour.h>
#include <linux/veth.h>
#include <net/if.h>
#include <netinet/if_ether.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netlink.h"

enum { LOCK_MS_MAX = 5000, LOCK_PAUSE_MS = 5, MAC_BYTES = 6, VXLAN_PORT = 4789 };

#define LOCK_FILE "/run/orrery-overlay.lock"
#define NEW       (NLM_F_CREATE | NLM_F_EXCL)

/* ---- names and addresses
 * ------------------------------------------------------------------- */

struct orri_overlay orri_overlay_names(const struct orri_overlay_plan *plan)
{
    struct orri_overlay o = {.link = ""};
    uint64_t all = plan->id * UINT64_C(0x9e3779b97f4a7c15);
    if (!*plan->address)
        return o;
    uint64_t rank = orr_hash(orr_str(plan->rank));
    snprintf(o.link, sizeof o.link, "ov%012" PRIx64, rank & 0xffffffffffff);
    snprintf(o.bridge, sizeof o.bridge, "ob%012" PRIx64, all >> 16);
    if (*plan->underlay)
        snprintf(o.vxlan, sizeof o.vxlan, "ox%012" PRIx64, all >> 16);
    return o;
}

/* "10.77.0.5/16" */
static bool parse_address(const char *text, struct in_addr *ret_addr, uint8_t *ret_bits)
{
    char addr[INET_ADDRSTRLEN];
    const char *slash = strchr(text, '/');
    size_t len = slash ? (size_t)(slash - text) : 0;
    if (!slash || len >= sizeof addr)
        return false;
    memcpy(addr, text, len);
    addr[len] = '\0';
    char *end;
    long bits = strtol(slash + 1, &end, 10);
    *ret_bits = (uint8_t)bits;
    return end != slash + 1 && !*end && bits > 0 && bits <= 32 &&
           inet_pton(AF_INET, addr, ret_addr) == 1;
}

/* Locally administered, and the same wherever the address is. */
static void make_mac(struct in_addr addr, uint8_t mac[MAC_BYTES])
{
    mac[0] = 0x02;
    mac[1] = 'o';
    memcpy(mac + 2, &addr, sizeof addr);
}

/* ---- links
 * ------------------------------------------------------------------------------------ */

static void link_begin(struct orri_nl *nl, uint16_t type, uint16_t flags, bool is_up)
{
    const struct ifinfomsg info = {
        .ifi_family = AF_UNSPEC, .ifi_flags = is_up ? IFF_UP : 0, .ifi_change = IFF_UP};
    orri_nl_begin(nl, type, flags, &info, sizeof info);
}

static int link_up(const char *name, bool is_up)
{
    struct orri_nl nl;
    link_begin(&nl, RTM_NEWLINK, 0, is_up);
    orri_nl_text(&nl, IFLA_IFNAME, name);
    return orri_nl_send(&nl);
}

static int link_remove(const char *name)
{
    struct orri_nl nl;
    link_begin(&nl, RTM_DELLINK, 0, false);
    orri_nl_text(&nl, IFLA_IFNAME, name);
    return orri_nl_send(&nl);
}

static int link_attach(const char *name, const char *bridge)
{
    struct orri_nl nl;
    const struct ifinfomsg info = {.ifi_family = AF_UNSPEC};
    orri_nl_begin(&nl, RTM_NEWLINK, 0, &info, sizeof info);
    orri_nl_text(&nl, IFLA_IFNAME, name);
    orri_nl_u32(&nl, IFLA_MASTER, if_nametoindex(bridge));
    return orri_nl_send(&nl);
}

static int make_bridge(const char *name)
{
    struct orri_nl nl;
    link_begin(&nl, RTM_NEWLINK, NEW, true);
    orri_nl_text(&nl, IFLA_IFNAME, name);
    struct rtattr *info = orri_nl_open(&nl, IFLA_LINKINFO);
    orri_nl_text(&nl, IFLA_INFO_KIND, "bridge");
    orri_nl_close(&nl, info);
    int rc = orri_nl_send(&nl);
    return rc == EEXIST ? 0 : rc;
}

/* The other end is eth0 of the namespace at once: it is never seen outside. */
static int make_veth(const char *name, int ns, const uint8_t mac[MAC_BYTES])
{
    struct orri_nl nl;
    const struct ifinfomsg peer = {.ifi_family = AF_UNSPEC};
    link_begin(&nl, RTM_NEWLINK, NEW, false);
    orri_nl_text(&nl, IFLA_IFNAME, name);
    struct rtattr *info = orri_nl_open(&nl, IFLA_LINKINFO);
    orri_nl_text(&nl, IFLA_INFO_KIND, "veth");
    struct rtattr *data = orri_nl_open(&nl, IFLA_INFO_DATA);
    struct rtattr *at = orri_nl_open(&nl, VETH_INFO_PEER);
    memcpy(nl.bytes + nl.head.nlmsg_len, &peer, sizeof peer);
    nl.head.nlmsg_len += (uint32_t)NLMSG_ALIGN(sizeof peer);
    orri_nl_text(&nl, IFLA_IFNAME, "eth0");
    orri_nl_put(&nl, IFLA_ADDRESS, mac, MAC_BYTES);
    orri_nl_u32(&nl, IFLA_NET_NS_FD, (uint32_t)ns);
    orri_nl_close(&nl, at);
    orri_nl_close(&nl, data);
    orri_nl_close(&nl, info);
    return orri_nl_send(&nl);
}

/* ---- VXLAN
 * ------------------------------------------------------------------------------------ */

static int make_vxlan(const char *name, uint64_t id, const char *underlay)
{
    struct orri_nl nl;
    struct in_addr local;
    uint16_t port = htons(VXLAN_PORT);
    if (inet_pton(AF_INET, underlay, &local) != 1)
        return EINVAL;
    link_begin(&nl, RTM_NEWLINK, NEW, true);
    orri_nl_text(&nl, IFLA_IFNAME, name);
    struct rtattr *info = orri_nl_open(&nl, IFLA_LINKINFO);
    orri_nl_text(&nl, IFLA_INFO_KIND, "vxlan");
    struct rtattr *data = orri_nl_open(&nl, IFLA_INFO_DATA);
    orri_nl_u32(&nl, IFLA_VXLAN_ID, (uint32_t)(id & 0xffffff));
    orri_nl_put(&nl, IFLA_VXLAN_LOCAL, &local, sizeof local);
    orri_nl_put(&nl, IFLA_VXLAN_PORT, &port, sizeof port);
    orri_nl_close(&nl, data);
    orri_nl_close(&nl, info);
    int rc = orri_nl_send(&nl);
    return rc == EEXIST ? 0 : rc;
}

/* What has no known place is sent to every peer; where it came from is then learned. */
static int add_peer(const char *vxlan, const char *peer)
{
    static const uint8_t any[MAC_BYTES];
    struct in_addr addr;
    struct orri_nl nl;
    const struct ndmsg nd = {.ndm_family = AF_BRIDGE,
                             .ndm_ifindex = (int)if_nametoindex(vxlan),
                             .ndm_state = NUD_NOARP | NUD_PERMANENT,
                             .ndm_flags = NTF_SELF};
    if (inet_pton(AF_INET, peer, &addr) != 1)
        return EINVAL;
    orri_nl_begin(&nl, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_APPEND, &nd, sizeof nd);
    orri_nl_put(&nl, NDA_LLADDR, any, sizeof any);
    orri_nl_put(&nl, NDA_DST, &addr, sizeof addr);
    int rc = orri_nl_send(&nl);
    return rc == EEXIST ? 0 : rc;
}

static int join_machines(const struct orri_overlay_plan *plan,
                         const struct orri_overlay *o)
{
    int rc = make_vxlan(o->vxlan, plan->id, plan->underlay);
    if (rc == 0)
        rc = link_attach(o->vxlan, o->bridge);
    for (uint32_t i = 0; i < plan->n_peers && rc == 0; i++)
        rc = add_peer(o->vxlan, plan->peers[i]);
    return rc;
}

/* ---- the namespace
 * ---------------------------------------------------------------------------- */

static int add_address(unsigned index, struct in_addr addr, uint8_t bits)
{
    struct orri_nl nl;
    const struct ifaddrmsg msg = {.ifa_family = AF_INET,
                                  .ifa_prefixlen = bits,
                                  .ifa_scope = RT_SCOPE_UNIVERSE,
                                  .ifa_index = index};
    orri_nl_begin(&nl, RTM_NEWADDR, NEW, &msg, sizeof msg);
    orri_nl_put(&nl, IFA_LOCAL, &addr, sizeof addr);
    orri_nl_put(&nl, IFA_ADDRESS, &addr, sizeof addr);
    return orri_nl_send(&nl);
}

/* A new namespace; the caller stays in its own. */
static int make_ns(int *ret_ns)
{
    int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int rc = own < 0 || unshare(CLONE_NEWNET) != 0 ? errno : 0;
    if (rc == 0) {
        rc = link_up("lo", true);
        *ret_ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
        if (*ret_ns < 0 && rc == 0)
            rc = errno;
        if (setns(own, CLONE_NEWNET) != 0 && rc == 0)
            rc = errno;
    }
    if (own >= 0)
        close(own);
    return rc;
}

/* Call within another network namespace.  arg is only read. */
static int within(int ns,
                  int (*call)(const struct orri_overlay_plan *),
                  const struct orri_overlay_plan *arg)
{
    int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int rc = own < 0 || setns(ns, CLONE_NEWNET) != 0 ? errno : 0;
    if (rc == 0) {
        rc = call(arg);
        if (setns(own, CLONE_NEWNET) != 0 && rc == 0)
            rc = errno;
    }
    if (own >= 0)
        close(own);
    return rc;
}

static int set_address(const struct orri_overlay_plan *plan)
{
    struct in_addr addr;
    uint8_t bits;
    if (!parse_address(plan->address, &addr, &bits))
        return EINVAL;
    int rc = add_address(if_nametoindex("eth0"), addr, bits);
    return rc == 0 ? link_up("eth0", true) : rc;
}

/* An ARP request for our own address, from it: who knows it elsewhere, learns. */
static int announce(const struct orri_overlay_plan *plan)
{
    struct in_addr addr;
    uint8_t bits, all[MAC_BYTES] = {255, 255, 255, 255, 255, 255};
    struct ether_arp arp = {.ea_hdr = {.ar_hrd = htons(ARPHRD_ETHER),
                                       .ar_pro = htons(ETH_P_IP),
                                       .ar_hln = MAC_BYTES,
                                       .ar_pln = sizeof addr,
                                       .ar_op = htons(ARPOP_REQUEST)}};
    if (!parse_address(plan->address, &addr, &bits))
        return EINVAL;
    make_mac(addr, arp.arp_sha);
    memcpy(arp.arp_spa, &addr, sizeof addr);
    memcpy(arp.arp_tpa, &addr, sizeof addr);
    struct sockaddr_ll to = {.sll_family = AF_PACKET,
                             .sll_protocol = htons(ETH_P_ARP),
                             .sll_ifindex = (int)if_nametoindex("eth0"),
                             .sll_halen = MAC_BYTES};
    memcpy(to.sll_addr, all, sizeof all);
    int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ETH_P_ARP));
    if (fd < 0)
        return errno;
    ssize_t n = sendto(fd, &arp, sizeof arp, 0, (struct sockaddr *)&to, sizeof to);
    int rc = n < 0 ? errno : 0;
    close(fd);
    return rc;
}

/* ---- together
 * --------------------------------------------------------------------------------- */

static int lock_overlays(void)
{
    int fd = open(LOCK_FILE, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    for (int ms = 0; fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0;
         ms += LOCK_PAUSE_MS) {
        if (ms >= LOCK_MS_MAX) {
            close(fd);
            return -ETIMEDOUT;
        }
        poll(NULL, 0, LOCK_PAUSE_MS);
    }
    return fd >= 0 ? fd : -errno;
}

static int make_links(const struct orri_overlay_plan *plan,
                      const struct orri_overlay *o,
                      int ns,
                      const char **ret_step)
{
    struct in_addr addr;
    uint8_t bits, mac[MAC_BYTES];
    *ret_step = "address";
    if (!parse_address(plan->address, &addr, &bits))
        return EINVAL;
    make_mac(addr, mac);
    *ret_step = "bridge";
    int rc = make_bridge(o->bridge);
    if (rc == 0 && *o->vxlan) {
        *ret_step = "VXLAN device";
        rc = join_machines(plan, o);
    }
    if (rc == 0) {
        *ret_step = "veth pair";
        rc = make_veth(o->link, ns, mac);
    }
    if (rc == 0)
        rc = link_attach(o->link, o->bridge);
    if (rc == 0) {
        *ret_step = "address of eth0";
        rc = within(ns, set_address, plan);
    }
    return rc;
}

int orri_overlay_make(const struct orri_overlay_plan *plan,
                      const struct orri_overlay *o,
                      int *ret_ns,
                      const char **ret_step)
{
    int ns = -1, lock = -1;
    *ret_step = "network namespace";
    int rc = make_ns(&ns);
    if (rc == 0 && *o->link) {
        *ret_step = "lock " LOCK_FILE;
        lock = lock_overlays();
        rc = lock < 0 ? -lock : make_links(plan, o, ns, ret_step);
    }
    if (lock >= 0)
        close(lock);
    if (rc == 0)
        *ret_ns = ns;
    else if (ns >= 0)
        close(ns);
    return rc;
}

int orri_overlay_link(const struct orri_overlay *o,
                      bool is_up,
                      int ns,
                      const char *address)
{
    if (!*o->link)
        return 0;
    int rc = link_up(o->link, is_up);
    if (rc == 0 && is_up && ns >= 0)
        (void)within(ns, announce, &(struct orri_overlay_plan){.address = address});
    return rc;
}

static bool is_unused(const struct orri_overlay *o)
{
    char path[64];
    struct dirent *entry;
    snprintf(path, sizeof path, "/sys/class/net/%s/brif", o->bridge);
    DIR *dir = opendir(path);
    bool is_unused = true;
    while (dir && (entry = readdir(dir)))
        is_unused = is_unused &&
                    (entry->d_name[0] == '.' || strcmp(entry->d_name, o->vxlan) == 0);
    if (dir)
        closedir(dir);
    return is_unused;
}

void orri_overlay_remove(const struct orri_overlay *o)
{
    if (!*o->link)
        return;
    int lock = lock_overlays();
    (void)link_remove(o->link);
    if (is_unused(o)) {
        if (*o->vxlan)
            (void)link_remove(o->vxlan);
        (void)link_remove(o->bridge);
    }
    if (lock >= 0)
        close(lock);
}
