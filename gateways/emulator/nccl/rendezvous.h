/* SPDX-License-Identifier: Apache-2.0
 * rendezvous.h - how the ranks of a new communicator find each other.
 *
 * START      ncclGetUniqueId starts one thread in its process, the *root*, which
 * listens on TCP (loopback, or the address of NCCL_SOCKET_IFNAME) and on an abstract
 *            UNIX socket. The id carries both names and a random cookie, which is the
 *            only key to the meeting.
 * OPERATION  A rank connects by TCP, says hello (cookie, world size, rank) and waits.
 *            When the last one has come, the root makes the segment (a memfd) and a
 * ring of socket pairs, and answers. Each rank then takes the segment and its two ends
 * of the ring over the UNIX socket, as only that can carry descriptors. STOP       The
 * root forgets a meeting when all have taken their share: from then on the communicator
 * depends on no process but its own ranks. When a rank's process dies, the kernel
 * closes its ends and both neighbours know. FAILURES   The deadline passes: everyone
 * who waits is told which ranks are missing. A rank that disconnects, another world
 * size, a rank that comes twice: told to those concerned. Unknown cookie or garbage:
 * the connection is closed.
 *
 * Nothing has a name in the file system, so nothing is left behind by kill -9. Numbers
 * are in host order: a rank on another machine is refused with a text that says so.
 */
#ifndef ORRI_RENDEZVOUS_H
#define ORRI_RENDEZVOUS_H

#include "orrery/gpu_abi.h"
#include "why.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { ORRI_HELLO_MAGIC = 0x4f524e43, ORRI_HELLO_VERSION = 1, ORRI_FDS = 3 };

/* What is in a ncclUniqueId. */
struct orri_id {
    char tag[8];
    uint32_t address; /* IPv4, network order */
    uint16_t port;    /* network order */
    uint16_t reserved;
    uint8_t root[16]; /* names the UNIX socket */
    uint8_t cookie[16];
};

struct orri_hello {
    uint32_t magic, version;
    uint8_t cookie[16];
    int32_t nranks, rank;
};

struct orri_answer {
    uint32_t magic;
    int32_t result; /* ncclResult_t */
    struct orri_why why;
};

/* What a rank takes from the meeting; the caller owns the descriptors. */
struct orri_share {
    int segment;
    int ring[2]; /* to rank-1, to rank+1 */
};

extern const char orri_id_tag[8];
socklen_t orri_root_address(const uint8_t root[16], struct sockaddr_un *ret_address);

/* Makes an id, and starts this process's root if there is none. Errors: system. */
ncclResult_t orri_root_invite(ncclUniqueId *ret_id, struct orri_why *why);

/* Waits for all ranks; blocks at most orri_timeout_ms and a little. `cancel` is an
 * eventfd that ends the wait when it is readable. Errors: invalid argument (not an id,
 * world size differs), invalid usage (rank came twice), system (timeout, no shared
 * memory), remote (a rank died), internal when cancelled. */
ncclResult_t orri_join(const ncclUniqueId *id,
                       int nranks,
                       int rank,
                       int cancel,
                       struct orri_share *ret_share,
                       struct orri_why *why);

#endif
