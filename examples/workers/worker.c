/* SPDX-License-Identifier: Apache-2.0
 * worker.c - see worker.h.
 */
#include "worker.h"

#include "fail.h"
#include "grid.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { SHOWN = 1024 }; /* floats that a step changes, and its answer depends on */

struct worker {
    const struct worker_config *cfg; /* borrowed: outlives it */
    struct nn nn;
    CUstream stream;           /* owned */
    CUdeviceptr g, v, w, sums; /* owned by nn */
    ncclComm_t comm;           /* owned; NULL: not the first of its rank */
    float shown[SHOWN];
};

bool socket_read(int fd, void *dst, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = read(fd, (char *)dst + at, len - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0 && at == 0)
            return false;
        if (n <= 0)
            die("the other side of the socket is gone: %s",
                n ? strerror(errno) : "end of file");
        at += (size_t)n;
    }
    return true;
}

void socket_write(int fd, const void *src, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = write(fd, (const char *)src + at, len - at);
        if (n < 0 && errno != EINTR)
            die("the other side of the socket is gone: %s", strerror(errno));
        at += n > 0 ? (size_t)n : 0;
    }
}

static CUdeviceptr
filled(struct worker *k, const char *name, uint64_t *random, uint32_t floats)
{
    static float values[SHOWN];
    CUdeviceptr at = nn_alloc(&k->nn, name, floats * sizeof *values);
    for (uint32_t i = 0; i < floats; i += SHOWN) {
        uint32_t n = floats - i < SHOWN ? floats - i : SHOWN;
        nn_draw(random, SHOWN, n, values);
        CU(cuMemcpyHtoD, at + i * sizeof *values, values, n * sizeof *values);
    }
    return at;
}

static void start(struct worker *k, const struct meet *meet, struct watch *watch)
{
    uint64_t random = k->cfg->seed * 1000 + meet->rank * WORKERS_MAX + k->cfg->number;
    nn_init(&k->nn, meet->local_rank);
    nn_load(&k->nn);
    CU(cuStreamCreate, &k->stream, CU_STREAM_NON_BLOCKING);
    k->g = filled(k, "g", &random, k->cfg->floats);
    k->w = filled(k, "w", &random, k->cfg->floats);
    k->v = nn_alloc(&k->nn, "v", k->cfg->floats * sizeof(float));
    k->sums = nn_alloc(&k->nn, "sums", SHOWN * sizeof(float));
    if (k->cfg->number == 0)
        k->comm = grid_join(meet, watch);
}

/* What is done depends on all answers before, and the answer on what is done.  A step has a part of the buffers. */
static uint64_t step(struct worker *k, const struct worker_ask *ask)
{
    float rate = 0.001f + (float)(ask->mix % 256) / 65536.0f;
    uint32_t parts = k->cfg->floats / SHOWN;
    CUdeviceptr at = (CUdeviceptr)(ask->step % parts) * sizeof k->shown;
    nn_sgd(&k->nn, k->stream, SHOWN, rate, 0.9f, k->g + at, k->v + at, k->w + at);
    if (k->comm) {
        NCCL(ncclAllReduce,
             gpu_pointer(k->w + at),
             gpu_pointer(k->sums),
             SHOWN,
             ncclFloat32,
             ncclSum,
             k->comm,
             k->stream);
        CU(cuStreamSynchronize, k->stream);
        nccl_settle("ncclAllReduce", k->comm);
    }
    CU(cuStreamSynchronize, k->stream);
    CU(cuMemcpyDtoH, k->shown, k->comm ? k->sums : k->w + at, sizeof k->shown);
    return fnv1a(FNV1A_START, k->shown, sizeof k->shown);
}

void worker_run(const struct worker_config *cfg,
                const struct meet *meet,
                struct digests *digests)
{
    static struct worker worker;
    struct watch watch;
    struct worker_ask ask;
    worker.cfg = cfg;
    watch_init(&watch);
    watch_enter(&watch, "start", WATCH_INIT_S);
    start(&worker, meet, &watch);
    while (socket_read(WORKER_FD, &ask, sizeof ask)) {
        watch_enter(&watch, "step", WATCH_STEP_S);
        uint64_t answer = step(&worker, &ask);
        if (digests_begin(digests, ask.step)) {
            nn_digest(&worker.nn, digests);
            digests_end(digests);
        }
        socket_write(WORKER_FD, &answer, sizeof answer);
    }
    watch_comms(&watch, NULL, 0);
    if (worker.comm)
        NCCL(ncclCommDestroy, worker.comm);
    CU(cuStreamDestroy, worker.stream);
    nn_fini(&worker.nn);
    watch_fini(&watch);
}
