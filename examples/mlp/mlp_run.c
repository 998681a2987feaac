/* SPDX-License-Identifier: Apache-2.0
 * mlp_run.c - one training step, and what is asked of the weights afterwards.
 */
#include "mlp.h"

static void settle(struct mlp *m, const char *what)
{
    CU(cuStreamSynchronize, m->compute);
    grid_settle(m->grid, what);
}

static void after(CUstream stream, CUevent event)
{
    CU(cuStreamWaitEvent, stream, event, CU_EVENT_WAIT_DEFAULT);
}

static CUdeviceptr at(CUdeviceptr buffer, size_t nfloats)
{
    return buffer + nfloats * sizeof(float);
}

static struct nn_shape shape(const struct mlp_layer *l, uint32_t rows)
{
    return (struct nn_shape){rows, l->in, l->out};
}

/* Adds what the ranks of the model group have, in place. */
static void add_parts(struct mlp *m, CUdeviceptr values, size_t n)
{
    void *v = gpu_pointer(values);
    NCCL(ncclAllReduce, v, v, n, ncclFloat32, ncclSum, m->grid->model, m->compute);
}

/* ---- batches ---- */

/* Gathers the next batch, while an earlier one may be in use. Its slot's last batch is
 * not: the host waited for that step. */
static void feed(struct mlp *m)
{
    struct mlp_slot *s = &m->slots[m->nfed % MLP_SLOTS];
    uint32_t per_epoch = m->ntrain / m->cfg.batch; /* what is left over sits out */
    uint32_t epoch = m->nfed / per_epoch, nth = m->nfed % per_epoch;
    if (epoch != m->epoch)
        data_shuffle(m->order, m->ntrain, m->cfg.seed, epoch);
    m->epoch = epoch;
    const uint32_t *mine =
        m->order + nth * m->cfg.batch + m->grid->data_rank * m->share;
    for (uint32_t r = 0; r < m->share; r++)
        s->ids[r] = mine[r];
    CU(cuMemcpyHtoDAsync, s->device_ids, s->ids, m->share * sizeof *s->ids, m->feed);
    nn_gather(&m->nn,
              m->feed,
              m->share,
              s->device_ids,
              m->train_pixels,
              m->train_labels,
              s->pixels,
              s->labels);
    CU(cuEventRecord, s->fed, m->feed);
    m->nfed++;
}

/* ---- layers ---- */

static void forward(struct mlp *m, uint32_t rows, CUdeviceptr pixels)
{
    m->values[0] = pixels;
    for (int i = 0; i < MLP_LAYERS; i++) {
        const struct mlp_layer *l = &m->layers[i];
        CUdeviceptr w = at(m->weights, l->weights), b = at(m->weights, l->biases);
        CUdeviceptr x = m->values[i], y = m->values[i + 1];
        bool relu = i + 1 < MLP_LAYERS;
        if (!l->is_split_by_rows) {
            nn_linear(&m->nn, m->compute, shape(l, rows), x, w, b, relu, y);
            continue;
        }
        nn_linear(&m->nn, m->compute, shape(l, rows), x, w, 0, false, y);
        add_parts(m, y, (size_t)rows * l->out);
        nn_bias_relu(&m->nn, m->compute, rows, l->out, b, relu, y);
    }
}

/* The gradients of layer i from dy, that of its outputs; `reduce` adds them up while
 * `compute` goes on. */
static void layer_grads(struct mlp *m, int i, CUdeviceptr dy)
{
    const struct mlp_layer *l = &m->layers[i];
    CUdeviceptr dw = at(m->grads, l->weights), db = at(m->grads, l->biases);
    struct nn_shape s = shape(l, m->share);
    nn_linear_dw(&m->nn, m->compute, s, m->values[i], dy, false, dw);
    nn_bias_grad(&m->nn, m->compute, m->share, l->out, dy, false, db);
    CU(cuEventRecord, m->grads_ready[i], m->compute);
    after(m->reduce, m->grads_ready[i]);
    void *g = gpu_pointer(dw);
    size_t n = l->end - l->weights;
    NCCL(ncclAllReduce, g, g, n, ncclFloat32, ncclSum, m->grid->data, m->reduce);
}

static void backward(struct mlp *m)
{
    CUdeviceptr dy = m->values[MLP_LAYERS]; /* after the loss: dlogits */
    for (int i = MLP_LAYERS - 1; i >= 0; i--) {
        const struct mlp_layer *l = &m->layers[i];
        CUdeviceptr w = at(m->weights, l->weights);
        CUdeviceptr x = m->values[i], dx = m->dvalues[i];
        layer_grads(m, i, dy);
        if (i == 0)
            break;
        struct nn_shape s = shape(l, m->share);
        if (l->is_split_by_rows) {
            nn_linear_dx(&m->nn, m->compute, s, dy, w, x, dx);
        } else {
            nn_linear_dx(&m->nn, m->compute, s, dy, w, 0, dx);
            add_parts(m, dx, (size_t)m->share * l->in);
            nn_relu_dx(&m->nn, m->compute, m->share * l->in, x, dx);
        }
        dy = dx;
    }
    CU(cuEventRecord, m->reduced, m->reduce);
}

static void loss_and_its_gradient(struct mlp *m, CUdeviceptr labels)
{
    float scale = 1.0f / (float)m->cfg.batch;
    void *loss = gpu_pointer(m->loss);
    nn_softmax_xent(
        &m->nn, m->compute, m->share, scale, labels, m->values[MLP_LAYERS], m->loss);
    NCCL(ncclReduce, loss, loss, 1, ncclFloat32, ncclSum, 0, m->grid->all, m->compute);
}

void mlp_step(struct mlp *m)
{
    struct mlp_slot *s = &m->slots[m->steps % MLP_SLOTS];
    while (m->nfed < m->steps + MLP_SLOTS)
        feed(m);
    after(m->compute, s->fed);
    forward(m, m->share, s->pixels);
    loss_and_its_gradient(m, s->labels);
    backward(m);
    after(m->compute, m->reduced);
    nn_sgd(&m->nn,
           m->compute,
           (uint32_t)m->nweights,
           m->cfg.lr,
           m->cfg.momentum,
           m->grads,
           m->moments,
           m->weights);
    m->steps++;
    settle(m, "training");
}

/* ---- questions ---- */

/* Every rank of a model group counts the same rows. */
float mlp_loss(struct mlp *m)
{
    float loss;
    CU(cuMemcpyDtoH, &loss, m->loss, sizeof loss);
    return loss / (float)m->grid->nmodel;
}

double mlp_accuracy(struct mlp *m)
{
    uint32_t count;
    void *hits = gpu_pointer(m->hits);
    CU(cuMemsetD32Async, m->hits, 0, 1, m->compute);
    if (m->ntest > 0) {
        forward(m, m->ntest, m->test_pixels);
        nn_count_hits(&m->nn,
                      m->compute,
                      m->ntest,
                      m->values[MLP_LAYERS],
                      m->test_labels,
                      m->hits);
    }
    NCCL(ncclAllReduce, hits, hits, 1, ncclUint32, ncclSum, m->grid->all, m->compute);
    settle(m, "accuracy");
    CU(cuMemcpyDtoH, &count, m->hits, sizeof count);
    return (double)count / m->grid->nmodel / m->ntest_all;
}

uint64_t mlp_digest(struct mlp *m)
{
    size_t bytes = m->nweights * sizeof(float);
    return grid_digest(m->grid, m->compute, m->digests, m->weights, bytes);
}
