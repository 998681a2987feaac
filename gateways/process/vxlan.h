/* SPDX-License-Identifier: Apache-2.0
 * vxlan.h - the device that joins a bridge of this machine with those of others: frames in UDP.
 *
 * Blocking: netlink calls.  Results are 0 or an errno.
 */
#ifndef ORR_PROCESS_VXLAN_H
#define ORR_PROCESS_VXLAN_H

#include <netinet/in.h>

#include "orrery/base.h"

enum {
    ORRI_VXLAN_BYTES = 50, /* of a packet: IPv4, UDP, VXLAN and the inner Ethernet */
    ORRI_RANK_MTU = 1500 - ORRI_VXLAN_BYTES,
};

struct orri_underlay {
    struct in_addr addr;
    uint16_t port;
};

/* "192.0.2.7:4789"; without a port: VXLAN's own. */
bool orri_underlay_parse(const char *text, struct orri_underlay *ret_at);
/* Of the interface that has the address; 0: none has it. */
uint32_t orri_underlay_mtu(struct in_addr addr);

/* Also when it is there.  EEXIST: another device has this identifier, its lower 24 bits. */
int orri_vxlan_make(const char *name, uint64_t id, const struct orri_underlay *at);
/* What has no known place is sent there, too; where it came from is then learned. */
int orri_vxlan_peer(const char *name, struct in_addr peer);

#endif
