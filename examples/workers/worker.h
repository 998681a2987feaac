/* SPDX-License-Identifier: Apache-2.0
 * worker.h - one of the processes that a launcher starts: it has a device context and device memory of its own.
 *
 * Its launcher asks over a socket for a step, and is told what came of it. The first workers of all ranks have a communicator.
 */
#ifndef EXAMPLE_WORKER_H
#define EXAMPLE_WORKER_H

#include "digests.h"
#include "meet.h"

#include <stdint.h>

enum { WORKERS_MAX = 8, WORKER_FD = 3 };

struct worker_config {
    uint32_t number; /* 0 to WORKERS_MAX - 1 */
    uint32_t floats; /* in each of its buffers */
    uint64_t seed;
};

struct worker_ask {
    uint32_t step;
    uint64_t mix; /* of all answers so far */
};

/* Serves WORKER_FD until its end, then returns. Ends the program when anything fails. */
void worker_run(const struct worker_config *cfg,
                const struct meet *meet,
                struct digests *digests);

/* All of it, or the program ends; false: the other side has ended before the first
 * byte. */
bool socket_read(int fd, void *dst, size_t len);
void socket_write(int fd, const void *src, size_t len);

#endif
