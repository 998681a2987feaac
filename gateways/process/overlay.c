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
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
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
#include "vxlan.h"

enum {
    LOCK_MS_MAX = 5000,
    LOCK_PAUSE_MS = 5,
    WIDEN_MS_MAX = 500,
    MAC_BYTES = 6,
    ANNOUNCEMENTS = 3
};

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

static int link_up(const char *name, bool is_up)
{
    struct orri_nl nl;
    orri_nl_link(&nl, RTM_NEWLINK, 0, name, is_up);
    return orri_nl_send(&nl);
}

static int make_bridge(const char *name)
{
    struct orri_nl nl;
    orri_nl_link(&nl, RTM_NEWLINK, NEW, name, true);
    struct rtattr *info = orri_nl_open(&nl, IFLA_LINKINFO);
    orri_nl_text(&nl, IFLA_INFO_KIND, "bridge");
    orri_nl_close(&nl, info);
    int rc = orri_nl_send(&nl);
    return rc == EEXIST ? 0 : rc;
}

/* The other end is eth0 of the namespace at once: it is never seen outside. */
static int
make_veth(const char *name, int ns, const uint8_t mac[MAC_BYTES], uint32_t mtu)
{
    struct orri_nl nl;
    const struct ifinfomsg peer = {.ifi_family = AF_UNSPEC};
    orri_nl_link(&nl, RTM_NEWLINK, NEW, name, false);
    orri_nl_u32(&nl, IFLA_MTU, mtu);
    struct rtattr *info = orri_nl_open(&nl, IFLA_LINKINFO);
    orri_nl_text(&nl, IFLA_INFO_KIND, "veth");
    struct rtattr *data = orri_nl_open(&nl, IFLA_INFO_DATA);
    struct rtattr *at = orri_nl_open(&nl, VETH_INFO_PEER);
    memcpy(nl.bytes + nl.head.nlmsg_len, &peer, sizeof peer);
    nl.head.nlmsg_len += (uint32_t)NLMSG_ALIGN(sizeof peer);
    orri_nl_text(&nl, IFLA_IFNAME, "eth0");
    orri_nl_u32(&nl, IFLA_MTU, mtu);
    orri_nl_put(&nl, IFLA_ADDRESS, mac, MAC_BYTES);
    orri_nl_u32(&nl, IFLA_NET_NS_FD, (uint32_t)ns);
    orri_nl_close(&nl, at);
    orri_nl_close(&nl, data);
    orri_nl_close(&nl, info);
    return orri_nl_send(&nl);
}

/* ---- other machines
 * --------------------------------------------------------------------------- */

static int join_machines(const struct orri_overlay_plan *plan,
                         const struct orri_overlay *o,
                         const char **ret_step)
{
    struct orri_underlay own, peer;
    *ret_step = "underlay address";
    if (!orri_underlay_parse(plan->underlay, &own))
        return EINVAL;
    *ret_step = "VXLAN device";
    int rc = orri_vxlan_make(o->vxlan, plan->id, &own);
    if (rc == EEXIST)
        *ret_step = "VXLAN device, whose network identifier another one has here";
    if (rc == 0)
        rc = orri_nl_link_attach(o->vxlan, o->bridge);
    for (uint32_t i = 0; i < plan->n_peers && rc == 0; i++) {
        *ret_step = "address of another machine";
        rc = orri_underlay_parse(plan->peers[i], &peer)
                 ? orri_vxlan_peer(o->vxlan, peer.addr)
                 : EINVAL;
    }
    return rc;
}

/* Of ranks, the same on every machine: connections are to live on wherever these go.  Also where there is no other machine yet. */
static int find_mtu(const struct orri_overlay_plan *plan, uint32_t *ret_mtu)
{
    struct orri_underlay own;
    *ret_mtu = ORRI_RANK_MTU;
    if (!*plan->underlay)
        return 0;
    if (!orri_underlay_parse(plan->underlay, &own))
        return EINVAL;
    uint32_t mtu = orri_underlay_mtu(own.addr);
    if (mtu <= ORRI_VXLAN_BYTES)
        return EADDRNOTAVAIL;
    if (mtu - ORRI_VXLAN_BYTES < ORRI_RANK_MTU)
        *ret_mtu = mtu - ORRI_VXLAN_BYTES;
    return 0;
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

/* An ARP request for our own address, from it: who knows it elsewhere, learns.  More than one, as a VXLAN device that has missed it
 * sends to the old place for as long as somebody wants it to. */
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
    int rc = 0;
    for (int i = 0; i < ANNOUNCEMENTS && rc == 0; i++)
        if (sendto(fd, &arp, sizeof arp, 0, (struct sockaddr *)&to, sizeof to) < 0)
            rc = errno;
    close(fd);
    return rc;
}

/* ---- together
 * --------------------------------------------------------------------------------- */

static int lock_overlays(int ms_max)
{
    int fd = open(LOCK_FILE, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    for (int ms = 0; fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0;
         ms += LOCK_PAUSE_MS) {
        if (ms >= ms_max) {
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
    uint32_t mtu;
    *ret_step = "address";
    if (!parse_address(plan->address, &addr, &bits))
        return EINVAL;
    make_mac(addr, mac);
    *ret_step = "underlay address, which is to be of an interface of this machine";
    int rc = find_mtu(plan, &mtu);
    if (rc != 0)
        return rc;
    *ret_step = "bridge";
    rc = make_bridge(o->bridge);
    if (rc == 0 && *plan->underlay)
        rc = join_machines(plan, o, ret_step);
    if (rc == 0) {
        *ret_step = "veth pair";
        rc = make_veth(o->link, ns, mac, mtu);
    }
    if (rc == 0)
        rc = orri_nl_link_attach(o->link, o->bridge);
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
        lock = lock_overlays(LOCK_MS_MAX);
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

int orri_overlay_widen(const struct orri_overlay_plan *plan,
                       const struct orri_overlay *o,
                       const char **ret_step)
{
    *ret_step = "lock " LOCK_FILE;
    int lock = lock_overlays(WIDEN_MS_MAX);
    int rc = lock < 0 ? -lock : join_machines(plan, o, ret_step);
    if (lock >= 0)
        close(lock);
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

void orri_overlay_remove(const struct orri_overlay *o)
{
    if (!*o->link)
        return;
    int lock = lock_overlays(LOCK_MS_MAX);
    (void)orri_nl_link_remove(o->link);
    if (orri_nl_bridge_is_free(o->bridge, o->vxlan)) {
        if (*o->vxlan)
            (void)orri_nl_link_remove(o->vxlan);
        (void)orri_nl_link_remove(o->bridge);
    }
    if (lock >= 0)
        close(lock);
}
