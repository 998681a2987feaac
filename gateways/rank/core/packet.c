/* SPDX-License-Identifier: Apache-2.0
 * packet.c - see packet.h.
 */
#include "packet.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ID_BYTES = 2 };

union control {
    struct cmsghdr header; /* for its alignment */
    char bytes[CMSG_SPACE(sizeof(int))];
};

int orri_packet_send(int sock, const struct orr_msg_desc *desc, const void *msg, int fd)
{
    uint8_t buf[ORRI_PACKET_MAX] = {(uint8_t)desc->id, (uint8_t)(desc->id >> 8)};
    union control control = {.bytes = {0}};
    size_t len;
    if (orr_msg_encode(desc, msg, buf + ID_BYTES, sizeof buf - ID_BYTES, &len) !=
        ORR_OK)
        return EMSGSIZE;
    struct iovec part = {buf, len + ID_BYTES};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd >= 0) {
        header.msg_control = control.bytes;
        header.msg_controllen = sizeof control.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&header);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    return sendmsg(sock, &header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? errno : 0;
}

enum orr_err
orri_packet_decode(const uint8_t *buf, size_t len, struct orri_packet *ret_packet)
{
    size_t size, taken;
    if (len < ID_BYTES)
        return ORR_EPROTO;
    const struct orr_msg_desc *desc =
        orr_msg_find((uint16_t)(buf[0] | (unsigned)buf[1] << 8));
    if (!desc || orr_msg_decode_size(
                     desc, buf + ID_BYTES, len - ID_BYTES, &size, &taken) != ORR_OK)
        return ORR_EPROTO;
    void *msg = malloc(size);
    if (!msg)
        return ORR_ENOMEM;
    if (orr_msg_decode(desc, buf + ID_BYTES, len - ID_BYTES, msg, size) != ORR_OK) {
        free(msg);
        return ORR_EPROTO;
    }
    *ret_packet = (struct orri_packet){.desc = desc, .msg = msg, .fd = -1};
    return ORR_OK;
}

static int fd_of(struct msghdr *header)
{
    int fd = -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
            c->cmsg_len == CMSG_LEN(sizeof fd))
            memcpy(&fd, CMSG_DATA(c), sizeof fd);
    return fd;
}

int orri_packet_receive(int sock, struct orri_packet *ret_packet)
{
    uint8_t buf[ORRI_PACKET_MAX];
    union control control;
    struct iovec part = {buf, sizeof buf};
    struct msghdr header = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(sock, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0)
        return errno == EWOULDBLOCK || errno == EINTR ? EAGAIN : errno;
    int fd = fd_of(&header);
    if (n > 0 && !(header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) &&
        orri_packet_decode(buf, (size_t)n, ret_packet) == ORR_OK) {
        ret_packet->fd = fd;
        return 0;
    }
    if (fd >= 0)
        close(fd);
    return n == 0 ? EPIPE : EPROTO;
}

void orri_packet_fini(struct orri_packet *packet)
{
    free(packet->msg);
    if (packet->fd >= 0)
        close(packet->fd);
    packet->msg = NULL;
    packet->fd = -1;
}
