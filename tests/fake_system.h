/* SPDX-License-Identifier: Apache-2.0
 * fake_system.h - the kernel as a transport sees it, for tests of transports and
 * clients without a kernel: counts what comes, answers `ping` with `pong`, and lets a
 * test wait for any of it with a deadline.
 */
#ifndef ORR_FAKE_SYSTEM_H
#define ORR_FAKE_SYSTEM_H

#include "system.h"
#include "transport.h"
#include "wire.h"

#include <pthread.h>

enum { FAKE_WAIT_MS = 20000 };

struct orr_system {
    const char *host;
    uint32_t incarnation;
    struct orr_transport *transport; /* borrowed: for answers */
    pthread_mutex_t lock;            /* guards all below */
    pthread_cond_t changed;
    uint64_t ups;
    uint64_t downs;
    uint64_t messages;
    uint64_t malformed;
    uint64_t unordered; /* pings whose nonce did not follow the one before, per lane of
                           the sender */
    uint64_t next_nonce;
    uint64_t pongs;
    uint64_t bytes;
    uint64_t peer; /* of the last up */
    uint64_t peer_incarnation;
    uint64_t role; /* of the last message */
};

void fake_system_init(struct orr_system *system,
                      const char *host,
                      uint32_t incarnation);
void fake_system_fini(struct orr_system *system);

/* Wait until *count, a field of system, is at least n.  false: the deadline passed. */
bool fake_wait(struct orr_system *system, const uint64_t *count, uint64_t n);
uint64_t fake_get(struct orr_system *system, const uint64_t *count);

/* Send ping(nonce) from system to host; what the transport says. */
enum orr_err fake_ping(struct orr_system *system,
                       const char *host,
                       enum orr_lane lane,
                       uint64_t nonce);

#endif
