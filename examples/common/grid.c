/* SPDX-License-Identifier: Apache-2.0
 * grid.c - see grid.h.
 */
#include "grid.h"

#include "fail.h"

#include <stdlib.h>

enum { MEET_MS = 60 * 1000 };

ncclComm_t grid_join(const struct meet *m, struct watch *watch)
{
    char err[MEET_ERR_MAX];
    ncclUniqueId id = {{0}};
    ncclComm_t comm;
    if (m->rank == 0)
        NCCL(ncclGetUniqueId, &id);
    if (!meet_share(m, &id, sizeof id, MEET_MS, err))
        die("%s", err);
    watch_enter(watch, "ncclCommInitRank", WATCH_INIT_S);
    NCCL(ncclCommInitRank, &comm, (int)m->world, id, (int)m->rank);
    watch_comms(watch, &comm, 1);
    return comm;
}

void grid_init(struct grid *g,
               ncclComm_t *take_all,
               uint32_t rank,
               uint32_t world,
               uint32_t nmodel)
{
    *g = (struct grid){
        .rank = rank,
        .world = world,
        .nmodel = nmodel,
        .model_rank = rank % nmodel,
        .ndata = world / nmodel,
        .data_rank = rank / nmodel,
        .all = *take_all,
    };
    *take_all = NULL;
    int m = (int)g->model_rank, d = (int)g->data_rank;
    NCCL(ncclCommSplit, g->all, d, m, &g->model, NULL);
    NCCL(ncclCommSplit, g->all, m, d, &g->data, NULL);
}

void grid_fini(struct grid *g)
{
    NCCL(ncclCommDestroy, g->data);
    NCCL(ncclCommDestroy, g->model);
    NCCL(ncclCommDestroy, g->all);
    *g = (struct grid){0};
}

void grid_settle(const struct grid *g, const char *what)
{
    nccl_settle(what, g->all);
    nccl_settle(what, g->model);
    nccl_settle(what, g->data);
}

uint64_t grid_digest(const struct grid *g,
                     CUstream stream,
                     CUdeviceptr words,
                     CUdeviceptr weights,
                     size_t bytes)
{
    uint64_t *parts = calloc(g->world, sizeof *parts);
    void *copy = malloc(bytes);
    if (!parts || !copy)
        die("out of memory for a copy of %zu bytes", bytes);
    CU(cuMemcpyDtoH, copy, weights, bytes);
    uint64_t mine = fnv1a(FNV1A_START, copy, bytes);
    free(copy);
    CUdeviceptr own = words + g->rank * sizeof mine;
    CU(cuMemcpyHtoD, own, &mine, sizeof mine);
    NCCL(ncclAllGather,
         gpu_pointer(own),
         gpu_pointer(words),
         1,
         ncclUint64,
         g->all,
         stream);
    CU(cuStreamSynchronize, stream);
    grid_settle(g, "digest");
    CU(cuMemcpyDtoH, parts, words, g->world * sizeof *parts);
    for (uint32_t r = g->nmodel; r < g->world; r++)
        if (parts[r] != parts[r % g->nmodel])
            die("the weights of rank %u and of rank %u differ: digests %016llx and "
                "%016llx",
                r,
                r % g->nmodel,
                (unsigned long long)parts[r],
                (unsigned long long)parts[r % g->nmodel]);
    uint64_t whole = fnv1a(FNV1A_START, parts, g->nmodel * sizeof *parts);
    free(parts);
    return whole;
}
