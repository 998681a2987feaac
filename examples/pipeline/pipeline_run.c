/* SPDX-License-Identifier: Apache-2.0
 * pipeline_run.c - one training step, and what is asked of the weights afterwards.
 *
 * The pinned list of rows is written again only after the stream was waited for, so one
 * is enough.
 */
#include "pipeline.h"

#include "fail.h"

#include <stdlib.h>

static void settle(struct pipeline *p, const char *what)
{
    CU(cuStreamSynchronize, p->compute);
    grid_settle(p->grid, what);
}

static CUdeviceptr at(CUdeviceptr buffer, size_t nfloats)
{
    return buffer + nfloats * sizeof(float);
}

/* ---- micro-batches ---- */

static void choose_rows(struct pipeline *p)
{
    uint32_t per_epoch = p->ntrain / p->cfg.batch; /* what is left over sits out */
    uint32_t epoch = p->steps / per_epoch, nth = p->steps % per_epoch;
    uint32_t share = p->cfg.micro * p->rows;
    if (epoch != p->epoch)
        data_shuffle(p->order, p->ntrain, p->cfg.seed, epoch);
    p->epoch = epoch;
    const uint32_t *mine = p->order + nth * p->cfg.batch + p->grid->data_rank * share;
    for (uint32_t r = 0; r < share; r++)
        p->pinned_ids[r] = mine[r];
    size_t bytes = share * sizeof *p->pinned_ids;
    CU(cuMemcpyHtoDAsync, p->ids, p->pinned_ids, bytes, p->compute);
}

/* `rows` of them from values[0] to values[nlayers]. */
static void through_layers(struct pipeline *p, uint32_t rows, const CUdeviceptr *values)
{
    for (uint32_t i = 0; i < p->nlayers; i++) {
        const struct pipeline_layer *l = &p->layers[i];
        CUdeviceptr w = at(p->weights, l->weights), b = at(p->weights, l->biases);
        bool relu = !p->is_last || i + 1 < p->nlayers;
        struct nn_shape s = {rows, l->in, l->out};
        nn_linear(&p->nn, p->compute, s, values[i], w, b, relu, values[i + 1]);
    }
}

void pipeline_forward(struct pipeline *p, uint32_t n)
{
    struct pipeline_slot *s = pipeline_slot(p, n);
    if (p->is_first || p->is_last)
        nn_gather(&p->nn,
                  p->compute,
                  p->rows,
                  p->ids + n * p->rows * sizeof(uint32_t),
                  p->train_pixels,
                  p->train_labels,
                  s->pixels,
                  s->labels);
    through_layers(p, p->rows, s->values);
}

/* The gradients of layer i are complete: `reduce` adds those of all pipelines while
 * `compute` goes on. */
static void reduce_layer(struct pipeline *p, uint32_t i)
{
    const struct pipeline_layer *l = &p->layers[i];
    void *g = gpu_pointer(at(p->grads, l->weights));
    size_t n = l->end - l->weights;
    CU(cuEventRecord, p->grads_ready, p->compute);
    CU(cuStreamWaitEvent, p->reduce, p->grads_ready, CU_EVENT_WAIT_DEFAULT);
    NCCL(ncclAllReduce, g, g, n, ncclFloat32, ncclSum, p->grid->data, p->reduce);
}

void pipeline_backward(struct pipeline *p, uint32_t n)
{
    struct pipeline_slot *s = pipeline_slot(p, n);
    CUdeviceptr dy = p->dvalues[p->nlayers];
    bool add = n > 0;
    if (p->is_last) { /* the logits become their gradient */
        dy = s->values[p->nlayers];
        nn_softmax_xent(&p->nn,
                        p->compute,
                        p->rows,
                        1.0f / (float)p->cfg.batch,
                        s->labels,
                        dy,
                        at(p->losses, n));
    }
    for (uint32_t i = p->nlayers; i-- > 0; dy = p->dvalues[i]) {
        const struct pipeline_layer *l = &p->layers[i];
        CUdeviceptr dw = at(p->grads, l->weights), db = at(p->grads, l->biases);
        struct nn_shape shape = {p->rows, l->in, l->out};
        nn_linear_dw(&p->nn, p->compute, shape, s->values[i], dy, add, dw);
        nn_bias_grad(&p->nn, p->compute, p->rows, l->out, dy, add, db);
        if (n + 1 == p->cfg.micro)
            reduce_layer(p, i);
        if (i > 0 || !p->is_first) /* the pixels need none */
            nn_linear_dx(&p->nn,
                         p->compute,
                         shape,
                         dy,
                         at(p->weights, l->weights),
                         s->values[i],
                         p->dvalues[i]);
    }
}

void pipeline_step(struct pipeline *p)
{
    choose_rows(p);
    pipeline_schedule(p);
    CU(cuEventRecord, p->reduced, p->reduce);
    CU(cuStreamWaitEvent, p->compute, p->reduced, CU_EVENT_WAIT_DEFAULT);
    nn_sgd(&p->nn,
           p->compute,
           (uint32_t)p->nweights,
           p->cfg.lr,
           p->cfg.momentum,
           p->grads,
           p->moments,
           p->weights);
    p->steps++;
    settle(p, "training");
}

/* ---- questions ---- */

/* The last stages add theirs; each then tells its pipeline. */
float pipeline_loss(struct pipeline *p)
{
    struct grid *g = p->grid;
    size_t n = p->cfg.micro;
    void *mine = gpu_pointer(p->losses), *all = gpu_pointer(p->losses_all);
    int last = (int)p->cfg.stages - 1;
    if (p->is_last)
        NCCL(ncclAllReduce, mine, all, n, ncclFloat32, ncclSum, g->data, p->compute);
    NCCL(ncclBroadcast, all, all, n, ncclFloat32, last, g->model, p->compute);
    settle(p, "loss");
    float *losses = calloc(n, sizeof *losses), sum = 0.0f;
    if (!losses)
        die("out of memory for %zu losses", n);
    CU(cuMemcpyDtoH, losses, p->losses_all, n * sizeof *losses);
    for (size_t i = 0; i < n; i++)
        sum += losses[i];
    free(losses);
    return sum;
}

/* Test rows [first, first + rows) through this stage, forward only. */
static void test_rows(struct pipeline *p, uint32_t first, uint32_t rows)
{
    CUdeviceptr values[PIPELINE_LAYERS_MAX + 1];
    uint32_t out = p->layers[p->nlayers - 1].out;
    int rank = (int)p->grid->model_rank;
    for (uint32_t i = 0; i <= p->nlayers; i++)
        values[i] = p->slots[0].values[i];
    if (p->is_first)
        values[0] = at(p->test_pixels, (size_t)first * DATA_PIXELS);
    else
        NCCL(ncclRecv,
             gpu_pointer(values[0]),
             (size_t)rows * p->layers[0].in,
             ncclFloat32,
             rank - 1,
             p->grid->model,
             p->compute);
    through_layers(p, rows, values);
    if (p->is_last)
        nn_count_hits(&p->nn,
                      p->compute,
                      rows,
                      values[p->nlayers],
                      p->test_labels + first * sizeof(int32_t),
                      p->hits);
    else
        NCCL(ncclSend,
             gpu_pointer(values[p->nlayers]),
             (size_t)rows * out,
             ncclFloat32,
             rank + 1,
             p->grid->model,
             p->compute);
}

double pipeline_accuracy(struct pipeline *p)
{
    uint32_t count;
    void *hits = gpu_pointer(p->hits);
    CU(cuMemsetD32Async, p->hits, 0, 1, p->compute);
    for (uint32_t first = 0; first < p->ntest; first += p->rows) {
        uint32_t left = p->ntest - first;
        test_rows(p, first, left < p->rows ? left : p->rows);
    }
    NCCL(ncclAllReduce, hits, hits, 1, ncclUint32, ncclSum, p->grid->all, p->compute);
    settle(p, "accuracy");
    CU(cuMemcpyDtoH, &count, p->hits, sizeof count);
    return (double)count / p->ntest_all;
}

uint64_t pipeline_digest(struct pipeline *p)
{
    size_t bytes = p->nweights * sizeof(float);
    return grid_digest(p->grid, p->compute, p->digests, p->weights, bytes);
}
