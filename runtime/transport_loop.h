/* SPDX-License-Identifier: Apache-2.0
 * transport_loop.h - systems in one process, connected as if by a network.
 *
 * Messages go through the wire's codec, wait in one queue ordered by time, and are delivered when orr_loop_step is called:
 * with stepped systems everything is deterministic.  A policy may delay, lose and repeat messages; without one each arrives
 * once and at once, in order.
 * A member that leaves loses what is on its way to it; each host that was in contact is told peer_down detect_ms later.
 * Threads: send from any; the other calls from one thread at a time.
 * Limits: messages_max on their way; a sender beyond that gets ORR_EBUSY.
 */
#ifndef ORR_TRANSPORT_LOOP_H
#define ORR_TRANSPORT_LOOP_H

#include "transport.h"

struct orr_loop;

enum { ORR_LOOP_COPIES = 2 };

/* Fill when each copy of a message arrives; returns how many copies there are, 0 to lose it. */
typedef unsigned (*orr_loop_policy_f)(void *arg,
                                      uint64_t from,
                                      uint64_t to,
                                      uint64_t ret_due_ms[ORR_LOOP_COPIES]);

struct orr_loop_config {
    uint64_t (*now_ms)(void *arg); /* NULL: time stands still */
    orr_loop_policy_f policy;      /* NULL: see above */
    void *arg;
    uint64_t detect_ms;
    uint32_t messages_max; /* default 1 << 20 */
};

ORR_NODISCARD enum orr_err orr_loop_new(const struct orr_loop_config *config,
                                        struct orr_loop **ret_loop);
/* After the systems that use it. */
void orr_loop_free(struct orr_loop *loop);

/* Connect a system and set its transport.  role: what the others take it for.  Errors: ORR_EEXIST, ORR_ENOMEM. */
ORR_NODISCARD enum orr_err
orr_loop_join(struct orr_loop *loop, struct orr_system *system, unsigned role);
/* Before the system is freed. */
void orr_loop_leave(struct orr_loop *loop, uint64_t host);

/* The link between two hosts is lost: each is told peer_down when it has been in contact. */
void orr_loop_break(struct orr_loop *loop, uint64_t a, uint64_t b);

/* Deliver one message or notice that is due; *ret_host (may be NULL) is who got it.  False when none is due. */
bool orr_loop_step(struct orr_loop *loop, uint64_t *ret_host);
/* UINT64_MAX when nothing is on its way. */
uint64_t orr_loop_next_due_ms(const struct orr_loop *loop);

#endif
