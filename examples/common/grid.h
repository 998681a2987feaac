/* SPDX-License-Identifier: Apache-2.0
 * grid.h - the communicators of a job, and of its grid of ranks where it has one.
 *
 * A net is spread over `nmodel` consecutive ranks, and that group is repeated `ndata`
 * times: rank = data_rank * nmodel + model_rank. Each rank is in three communicators,
 * two of them split from the first: the world, its model group (the ranks that hold one
 * copy of the net) and its data group (the ranks that hold the same part of it).
 *
 * Errors: all calls end the program through die(). All are collective.
 */
#ifndef EXAMPLE_GRID_H
#define EXAMPLE_GRID_H

#include "meet.h"
#include "nn.h"
#include "watch.h"

struct grid {
    uint32_t rank, world;
    uint32_t nmodel, model_rank, ndata, data_rank;
    ncclComm_t all, model, data; /* owned */
};

/* The communicator of all ranks; the watch knows it then. */
ncclComm_t grid_join(const struct meet *m, struct watch *watch);

/* Splits *take_all; `nmodel` divides the world. */
void grid_init(struct grid *g,
               ncclComm_t *take_all,
               uint32_t rank,
               uint32_t world,
               uint32_t nmodel);
void grid_fini(struct grid *g);

/* Ends the program if one of the communicators reports an error. */
void grid_settle(const struct grid *g, const char *what);

/* FNV-1a over one copy of the net, from that over the `bytes` at `weights` of each rank's
 * part. Ends the program if two copies differ. `words` holds a uint64_t for each rank of
 * the world. */
uint64_t grid_digest(const struct grid *g,
                     CUstream stream,
                     CUdeviceptr words,
                     CUdeviceptr weights,
                     size_t bytes);

#endif
