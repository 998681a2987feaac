/* SPDX-License-Identifier: Apache-2.0
 * system.h - the kernel of one host: actors, mailboxes, timers, supervision, and the
 * way in and out.
 *
 * One implementation, driven in two ways.  With workers > 0 the system runs its own
 * threads (work stealing, parking).  With workers == 0 nothing moves until
 * orr_system_step: one handler at a time, clock and randomness from the caller.  The
 * simulator and unit tests drive many such systems deterministically; production runs
 * the very same code.
 *
 * START      new -> set transport -> spawn actors -> start
 * OPERATION  post from any thread; the transport calls receive/peer_up/peer_down
 * STOP       stop (handlers finish, threads join) -> free
 */
#ifndef ORR_SYSTEM_H
#define ORR_SYSTEM_H

#include "orrery/actor.h"

struct orr_system;
struct orr_transport;

struct orr_clock {                  /* borrowed by the system: outlives it */
    uint64_t (*now_ms)(void *arg);  /* monotonic */
    uint64_t (*wall_ms)(void *arg); /* since 1970 UTC */
    void *arg;
};

typedef void (*orr_log_f)(void *arg,
                          enum orr_log_level level,
                          uint64_t wall_ms,
                          const char *who,
                          const char *text);

typedef void (*orr_trace_f)(void *arg,
                            uint64_t now_ms,
                            struct orr_addr to,
                            struct orr_addr from,
                            const struct orr_msg_desc *desc,
                            const void *msg);

struct orr_system_config {
    const char *host;              /* name; its orr_hash is the host id in addresses */
    uint32_t incarnation;          /* > 0, larger than at every earlier start */
    unsigned workers;              /* threads; 0 = stepped by the caller */
    uint32_t actors_max;           /* default 1 << 20 */
    uint32_t mailbox_max;          /* messages per lane of an actor; default 4096 */
    uint32_t asks_max;             /* open asks and kept requests; default 1 << 16 */
    uint64_t seed;                 /* of the random numbers that actors see */
    const struct orr_clock *clock; /* NULL: the machine's */
    orr_log_f log;                 /* NULL: nowhere */
    void *log_arg;
    enum orr_log_level log_level;
    orr_trace_f trace; /* NULL: nowhere; sees each message just before its handler */
    void *trace_arg;
    uint64_t message_bytes_max;    /* memory of all messages; default 1 GiB */
    uint32_t supervisor_intensity; /* restarts of root actors within 60 s before the
                                      host gives up; default 10 */
};

/* Errors: ORR_EINVAL (name, incarnation), ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orr_system_new(const struct orr_system_config *config,
                                          struct orr_system **ret_system,
                                          struct orr_error *err);
void orr_system_free(struct orr_system *system);

/* The host's id in addresses. */
uint64_t orr_system_host(const struct orr_system *system);

/* The transport is used for every address of another host; NULL (the default) makes
 * those ORR_EUNREACH. Set before start; borrowed, outlives the system's stop. */
void orr_system_set_transport(struct orr_system *system,
                              struct orr_transport *transport);

ORR_NODISCARD enum orr_err orr_system_start(struct orr_system *system,
                                            struct orr_error *err);

/* Stop taking messages, let running handlers finish, stop all actors (children before
 * parents), join the threads. */
void orr_system_stop(struct orr_system *system);

/* Spawn an actor under the root supervisor.  Any thread. */
ORR_NODISCARD enum orr_err orr_system_spawn(struct orr_system *system,
                                            const struct orr_spawn *spawn,
                                            struct orr_addr *ret_addr);

/* Send from outside any actor, for the edges' own threads.  from may be the address of
 * an actor of this host, or none. Errors: ORR_EBUSY mailbox full, ORR_EGONE no such
 * actor, ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orr_system_post(struct orr_system *system,
                                           struct orr_addr from,
                                           struct orr_addr to,
                                           const struct orr_msg_desc *desc,
                                           const void *msg);

/* Answer, from outside any actor, a request that an actor kept with orr_defer and handed to its edge.  Any thread.
 * Errors: ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orr_system_reply(struct orr_system *system,
                                            struct orr_addr from,
                                            const struct orr_request *request,
                                            const struct orr_msg_desc *desc,
                                            const void *msg);

/* Find a path of this host.  Errors: ORR_ENOENT. */
ORR_NODISCARD enum orr_err orr_system_lookup(struct orr_system *system,
                                             const char *path,
                                             struct orr_addr *ret_addr);

/* Stepped systems only.  Run one handler; false when nothing was ready.  Timers whose
 * time has come are fired first. */
bool orr_system_step(struct orr_system *system);
/* Stepped systems only.  When the next timer or deadline is due on the clock;
 * UINT64_MAX when none. */
uint64_t orr_system_next_due_ms(struct orr_system *system);

/* ---- for transports ---- */

/* What goes over a link: the envelope (orr_msg_envelope) and the body, both encoded,
 * back to back.  See wire.h. */

/* A message arrived.  role: what the peer may act as.  Copies what it keeps.
 * Errors: ORR_EPROTO malformed; ORR_EBUSY when the receiver's lane is full (already
 * answered to the sender). */
enum orr_err orr_system_receive(struct orr_system *system,
                                uint64_t peer_host,
                                unsigned role,
                                const uint8_t *data,
                                size_t len);
void orr_system_peer_up(struct orr_system *system,
                        uint64_t peer_host,
                        uint32_t incarnation);
/* Every open ask to that host fails with ORR_EUNREACH, every monitor there gets `down`.
 */
void orr_system_peer_down(struct orr_system *system, uint64_t peer_host);

struct orr_system_stats {
    uint64_t actors;
    uint64_t delivered;
    uint64_t refused;
    uint64_t dead_letters;
    uint64_t queued;
    uint64_t memory_bytes; /* held by the kernel for actors and messages */
    bool has_given_up;     /* root actors failed too often: all are stopped */
};
void orr_system_stats(struct orr_system *system, struct orr_system_stats *ret_stats);

#endif
