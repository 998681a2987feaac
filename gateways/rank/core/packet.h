/* SPDX-License-Identifier: Apache-2.0
 * packet.h - what a rank's library and its node say to each other: one message a packet, on a SOCK_SEQPACKET socket.
 *
 * A packet is the message's id (16 bit, little endian) and its body (docs/protocol.md), at most 64 KiB; with it at most one
 * file descriptor.  Longer lists go in several packets (has_more).
 */
#ifndef ORR_RANK_PACKET_H
#define ORR_RANK_PACKET_H

#include "orrery/msg.h"

enum {
    ORRI_PACKET_MAX = 64 << 10,
    ORRI_PACKET_CLOCKS = 1000, /* records that always fit in one packet */
    ORRI_PACKET_IDS = 400,
};

struct orri_packet {
    const struct orr_msg_desc *desc;
    void *msg; /* owned */
    int fd;    /* owned; -1: none came */
};

/* Never blocks.  fd: passed along, -1 for none; stays the caller's.  0, or an errno (EAGAIN: the other side does not read). */
int orri_packet_send(int sock,
                     const struct orr_msg_desc *desc,
                     const void *msg,
                     int fd);

/* Never blocks.  0 and *ret_packet, or an errno: EAGAIN nothing there, EPIPE the other side has closed, EPROTO malformed. */
int orri_packet_receive(int sock, struct orri_packet *ret_packet);
void orri_packet_fini(struct orri_packet *packet);

/* The bytes alone.  Errors: ORR_EPROTO, ORR_ENOMEM. */
ORR_NODISCARD enum orr_err
orri_packet_decode(const uint8_t *buf, size_t len, struct orri_packet *ret_packet);

#endif
