/* SPDX-License-Identifier: Apache-2.0
 * rendezvous.h - how the ranks of a new communicator find each other.
 *
 * START      ncclGetUniqueId starts one thread in its process, the *root*, which listens on a UNIX socket in a private directory of
 *            the user.  The id carries its path and a random cookie, which is the only key to the meeting.
 * OPERATION  A rank connects, says hello (cookie, world size, rank) and waits.  When the last one has come, the root makes the
 *            segment (a memfd) and a ring of socket pairs, and answers each with the segment and its two ends of the ring.
 * STOP       The meeting is then over: the communicator depends on no process but its own ranks.  When a rank's process dies, the
 *            kernel closes its ends and both neighbours know.  A root without a meeting removes its socket and ends, so that a
 *            process that has no communicator holds nothing of one.
 *            As the real library does, it refuses two ranks on one device, unless ORRERY_EMULATOR_NCCL_SHARED_DEVICES=1.
 * FAILURES   The deadline passes: everyone who waits is told which ranks are missing.  A rank that disconnects, another world
 *            size, a rank that comes twice: told to those concerned.  Unknown cookie or garbage: the connection is closed.
 *
 * A path, since ranks have network and PID namespaces of their own, and abstract sockets, loopback and process ids end there; what
 * they do share is the machine and its file system.  kill -9 leaves a socket file, which a root of the user removes when it is a minute old.
 */
#ifndef ORRI_RENDEZVOUS_H
#define ORRI_RENDEZVOUS_H

#include "orrery/gpu_abi.h"
#include "why.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ORRI_HELLO_MAGIC = 0x4f524e43, ORRI_HELLO_VERSION = 3, ORRI_FDS = 3 };

/* What is in a ncclUniqueId. */
struct orri_id {
    char tag[8];
    uint8_t cookie[16];
    char path[104]; /* of the root's socket, terminated */
};

struct orri_hello {
    uint32_t magic, version;
    uint8_t cookie[16];
    int32_t nranks, rank;
    uint8_t device[16]; /* uuid; zeros: unknown */
};

/* With success come the descriptors of a share. */
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

/* Makes an id, and starts this process's root if there is none. Errors: system. */
ncclResult_t orri_root_invite(ncclUniqueId *ret_id, struct orri_why *why);

/* A new listening socket in the user's private directory, and its path. Removes those that killed processes left. Returns 0 or
 * -errno; EPERM: the directory is not private. */
int orri_listen(char *path, size_t cap, int *ret_fd);

/* Waits for all ranks; blocks at most orri_timeout_ms and a little. `cancel` is an
 * eventfd that ends the wait when it is readable. Errors: invalid argument (not an id,
 * world size differs), invalid usage (rank came twice, id used up), system (timeout, no
 * shared memory), remote (a rank died), internal when cancelled. */
ncclResult_t orri_join(const ncclUniqueId *id,
                       int nranks,
                       int rank,
                       const uint8_t device[16],
                       int cancel,
                       struct orri_share *ret_share,
                       struct orri_why *why);

#endif
