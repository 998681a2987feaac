/* SPDX-License-Identifier: Apache-2.0
 * meet.h - who this rank is, and how the ranks get the same NCCL unique id.
 *
 * START      Every rank knows RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and
 * MASTER_PORT, as torchrun sets them. Rank 0 listens on MASTER_ADDR:MASTER_PORT.
 * OPERATION  Another rank connects, again and again until it gets through, and sends
 *            "meeting1", its rank and the world (two big-endian words). Rank 0 answers
 * with the blob; the rank acknowledges with one byte. STOP       Rank 0 closes the
 * listener when every rank has acknowledged. FAILURES   A stranger is disconnected and
 * the wait goes on. A rank that lost its connection comes again. After the deadline
 * both sides say who was missing.
 */
#ifndef EXAMPLE_MEET_H
#define EXAMPLE_MEET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MEET_WORLD_MAX = 4096, MEET_ERR_MAX = 256 };

struct meet {
    uint32_t rank, world, local_rank;
    const char *addr, *port; /* borrowed from the environment; NULL when world is 1 */
};

/* False, with *ret untouched and the variable named in `err`, when the environment is
 * not that of a rank. Without WORLD_SIZE: rank 0 of 1. */
bool meet_from_env(struct meet *ret, char err[MEET_ERR_MAX]);

/* Rank 0 gives `blob` to all the others, where it arrives in `blob`. Blocks for at most
 * `wait_ms`. False, with the reason in `err`, when not everybody came. */
bool meet_share(const struct meet *m,
                void *blob,
                size_t len,
                unsigned wait_ms,
                char err[MEET_ERR_MAX]);

#endif
