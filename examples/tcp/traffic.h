/* SPDX-License-Identifier: Apache-2.0
 * traffic.h - a state that depends on every byte that every rank has sent.
 *
 * In each step a rank sends a record to each other rank and mixes the record of each
 * other rank into its state, in rank order. The records of step s are made from the
 * state after step s - window: so a rank has up to `window` records on their way to
 * each other rank, at all times, in queues, in the system's buffers and on the wire. The
 * last record of a connection, after all steps, is the sender's digest.
 *
 * One poll loop, nonblocking. It ends the program, through die(), on a record that is
 * not the next one, on a connection that ends or breaks, and when nothing has moved for
 * QUIET_TICKS_MAX times TICK_MS of running: the ticks are its own, a program that was
 * stopped for an hour has not missed one.
 */
#ifndef TCP_TRAFFIC_H
#define TCP_TRAFFIC_H

#include "digests.h"
#include "mesh.h"
#include "record.h"

enum { TRAFFIC_WORDS = 512, TRAFFIC_WINDOW_MAX = 64 };

struct traffic_config {
    uint32_t steps, window;
    uint32_t bytes; /* largest payload, a multiple of 8 */
    uint32_t work;  /* times that the state is stirred in a step */
    uint32_t log_every;
    uint64_t seed;
};

struct traffic_peer {
    int fd;       /* borrowed: from the mesh */
    uint8_t *out; /* owned: bytes to be sent, from out_at to out_end */
    size_t out_at, out_end, out_room;
    struct record_stream sent, received;
    struct record_header header; /* of the record that is arriving, or has */
    size_t arrived;              /* bytes of it, header included */
    bool is_whole;
    uint64_t *payload; /* owned */
};

struct traffic {
    struct traffic_config cfg;
    uint32_t rank, world;
    struct traffic_peer peers[MESH_WORLD_MAX];
    uint64_t state[TRAFFIC_WORDS];
    uint64_t random;         /* of the sizes of what this rank sends */
    uint32_t steps;          /* whose records were all mixed in */
    uint32_t queued;         /* steps whose records were made */
    uint64_t records, bytes; /* received */
    uint64_t digest;         /* of all ranks' states, at the end */
};

/* The mesh outlives the traffic. */
void traffic_init(struct traffic *t,
                  const struct traffic_config *cfg,
                  const struct mesh *mesh);
void traffic_fini(struct traffic *t);

/* All steps; t->digest is then the same on every rank. */
void traffic_run(struct traffic *t, struct digests *digests);

#endif
