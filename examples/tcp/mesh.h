/* SPDX-License-Identifier: Apache-2.0
 * mesh.h - a TCP connection between each two ranks.
 *
 * START      Rank 0 listens at MASTER_ADDR:MASTER_PORT. Another rank connects, again and
 * again until it gets through; the address that this connection has on its own side is
 * the one that the rank is reached at: there it listens, at a port of the system's
 * choice, and sends rank 0 a hello that says so.
 * OPERATION  When all are there, rank 0 sends the table of all addresses to each. Then
 * each rank connects to the ranks between 0 and itself, from its own address, with the
 * same hello, and accepts those above.
 * STOP       The listeners are closed when all are connected; the connections live as
 * long as the program, those to rank 0 included.
 * FAILURES   A stranger is disconnected and the wait goes on. After MESH_WAIT_MS the
 * program ends and says which rank was missing.
 */
#ifndef TCP_MESH_H
#define TCP_MESH_H

#include "meet.h"

enum { MESH_WORLD_MAX = 64, MESH_WAIT_MS = 60 * 1000 };

struct mesh {
    uint32_t rank, world;
    int fds[MESH_WORLD_MAX]; /* owned: nonblocking; -1 at `rank` */
};

/* Ends the program through die() when the mesh is not there in time. */
void mesh_init(struct mesh *m, const struct meet *who);
void mesh_fini(struct mesh *m);

#endif
