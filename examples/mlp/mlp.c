/* SPDX-License-Identifier: Apache-2.0
 * mlp.c - opening the device, loading it, letting it go. mlp_run.c does the work.
 */
#include "mlp.h"

#include "fail.h"

#include <stdlib.h>
#include <string.h>

const char *mlp_refuses(const struct mlp_config *cfg, uint32_t world, uint32_t ntrain)
{
    if (world % cfg->tensor != 0)
        return "--tensor: want a divisor of the world";
    if (cfg->hidden % (cfg->tensor * NN_GROUP) != 0)
        return "--hidden: want a multiple of 8 times --tensor";
    if (cfg->mid % NN_GROUP != 0)
        return "--mid: want a multiple of 8";
    if (cfg->batch % (world / cfg->tensor) != 0 || cfg->batch > ntrain)
        return "--batch: want a multiple of world / tensor, at most the rows to train "
               "on";
    return NULL;
}

/* The whole layer when tensor is 1. */
static void plan_layers(struct mlp_layer ret[MLP_LAYERS],
                        const struct mlp_config *cfg,
                        uint32_t tensor)
{
    uint32_t hidden = cfg->hidden / tensor;
    const uint32_t in[] = {DATA_PIXELS, hidden, cfg->mid, hidden};
    const uint32_t out[] = {hidden, cfg->mid, hidden, DATA_CLASSES};
    size_t at = 0;
    for (int l = 0; l < MLP_LAYERS; l++) {
        size_t n = (size_t)in[l] * out[l];
        ret[l] = (struct mlp_layer){l % 2 == 1, in[l], out[l], at, at + n, 0};
        at = ret[l].end = at + n + out[l];
    }
}

static void open_event(CUevent *ret)
{
    CU(cuEventCreate, ret, CU_EVENT_DISABLE_TIMING);
}

void mlp_init(struct mlp *m, const struct mlp_config *cfg)
{
    *m = (struct mlp){.cfg = *cfg};
    nn_init(&m->nn, cfg->device);
    CU(cuStreamCreate, &m->compute, CU_STREAM_NON_BLOCKING);
    CU(cuStreamCreate, &m->reduce, CU_STREAM_NON_BLOCKING);
    CU(cuStreamCreate, &m->feed, CU_STREAM_NON_BLOCKING);
    open_event(&m->reduced);
    for (int l = 0; l < MLP_LAYERS; l++)
        open_event(&m->grads_ready[l]);
    for (int s = 0; s < MLP_SLOTS; s++)
        open_event(&m->slots[s].fed);
}

void mlp_fini(struct mlp *m)
{
    for (int s = 0; s < MLP_SLOTS; s++) {
        if (m->slots[s].ids)
            CU(cuMemFreeHost, m->slots[s].ids);
        CU(cuEventDestroy, m->slots[s].fed);
    }
    for (int l = 0; l < MLP_LAYERS; l++)
        CU(cuEventDestroy, m->grads_ready[l]);
    CU(cuEventDestroy, m->reduced);
    CU(cuStreamDestroy, m->feed);
    CU(cuStreamDestroy, m->reduce);
    CU(cuStreamDestroy, m->compute);
    free(m->order);
    nn_fini(&m->nn);
    *m = (struct mlp){0};
}

static void alloc_slots(struct mlp *m)
{
    static const char *const names[MLP_SLOTS][3] = {{"ids0", "pixels0", "labels0"},
                                                    {"ids1", "pixels1", "labels1"}};
    size_t rows = m->share;
    for (int i = 0; i < MLP_SLOTS; i++) {
        struct mlp_slot *s = &m->slots[i];
        CU(cuMemHostAlloc, (void **)&s->ids, rows * sizeof *s->ids, 0);
        memset(s->ids, 0, rows * sizeof *s->ids);
        s->device_ids = nn_alloc(&m->nn, names[i][0], rows * sizeof *s->ids);
        s->pixels = nn_alloc(&m->nn, names[i][1], rows * DATA_PIXELS * sizeof(float));
        s->labels = nn_alloc(&m->nn, names[i][2], rows * sizeof(int32_t));
    }
}

static void alloc_buffers(struct mlp *m)
{
    static const char *const names[] = {"", "value1", "value2", "value3", "logits"};
    static const char *const dnames[] = {"", "dvalue1", "dvalue2", "dvalue3"};
    size_t f = sizeof(float), i = sizeof(int32_t);
    size_t rows = m->share > m->ntest ? m->share : m->ntest;
    struct nn *nn = &m->nn;
    m->train_pixels = nn_alloc(nn, "train_pixels", m->ntrain * f * DATA_PIXELS);
    m->train_labels = nn_alloc(nn, "train_labels", m->ntrain * i);
    m->test_pixels = nn_alloc(nn, "test_pixels", m->ntest * f * DATA_PIXELS);
    m->test_labels = nn_alloc(nn, "test_labels", m->ntest * i);
    for (int l = 1; l <= MLP_LAYERS; l++)
        m->values[l] = nn_alloc(nn, names[l], rows * f * m->layers[l - 1].out);
    for (int l = 1; l < MLP_LAYERS; l++)
        m->dvalues[l] = nn_alloc(nn, dnames[l], m->share * f * m->layers[l].in);
    m->weights = nn_alloc(nn, "weights", m->nweights * f);
    m->grads = nn_alloc(nn, "grads", m->nweights * f);
    m->moments = nn_alloc(nn, "moments", m->nweights * f);
    m->loss = nn_alloc(nn, "loss", f);
    m->hits = nn_alloc(nn, "hits", i);
    m->digests = nn_alloc(nn, "digests", m->grid->world * sizeof(uint64_t));
    m->order = calloc(m->ntrain, sizeof *m->order);
    if (!m->order)
        die("out of memory for the order of %u rows", m->ntrain);
}

/* This rank's part of the whole net, which is the same for every --tensor. */
static void draw_weights(const struct mlp *m, float *part)
{
    struct mlp_layer whole[MLP_LAYERS];
    uint64_t random = m->cfg.seed;
    plan_layers(whole, &m->cfg, 1);
    float *w = calloc(whole[MLP_LAYERS - 1].end, sizeof *w);
    if (!w)
        die("out of memory for %zu weights", whole[MLP_LAYERS - 1].end);
    for (int l = 0; l < MLP_LAYERS; l++) {
        const struct mlp_layer *p = &m->layers[l];
        size_t in = whole[l].in, out = whole[l].out;
        size_t row = p->is_split_by_rows ? m->grid->model_rank * p->in : 0;
        size_t column = p->is_split_by_rows ? 0 : m->grid->model_rank * p->out;
        nn_draw(&random, whole[l].in, in * out, w);
        for (size_t k = 0; k < p->in; k++)
            memcpy(part + p->weights + k * p->out,
                   w + (row + k) * out + column,
                   p->out * sizeof *w);
    }
    free(w);
}

/* The first model group draws them; the others get them through their data group. */
static void share_first_weights(struct mlp *m)
{
    if (m->grid->data_rank == 0) {
        float *part = calloc(m->nweights, sizeof *part);
        if (!part)
            die("out of memory for %zu weights", m->nweights);
        draw_weights(m, part);
        CU(cuMemcpyHtoD, m->weights, part, m->nweights * sizeof *part);
        free(part);
    }
    void *w = gpu_pointer(m->weights);
    NCCL(ncclBroadcast, w, w, m->nweights, ncclFloat32, 0, m->grid->data, m->compute);
    CU(cuStreamSynchronize, m->compute);
    grid_settle(m->grid, "first weights");
}

void mlp_load(struct mlp *m, const struct data *data, struct grid *grid)
{
    uint32_t first;
    m->grid = grid;
    m->share = m->cfg.batch / grid->ndata;
    m->ntrain = data->train.n;
    m->ntest_all = data->test.n;
    data_share(m->ntest_all, grid->data_rank, grid->ndata, &first, &m->ntest);
    plan_layers(m->layers, &m->cfg, m->cfg.tensor);
    m->nweights = (m->layers[MLP_LAYERS - 1].end + NN_PAD - 1) / NN_PAD * NN_PAD;
    nn_load(&m->nn);
    alloc_slots(m);
    alloc_buffers(m);
    nn_copy_rows(m->train_pixels, m->train_labels, &data->train, 0, m->ntrain);
    nn_copy_rows(m->test_pixels, m->test_labels, &data->test, first, m->ntest);
    data_shuffle(m->order, m->ntrain, m->cfg.seed, m->epoch);
    share_first_weights(m);
}

void mlp_weights(const struct mlp *m, float *ret)
{
    CU(cuMemcpyDtoH, ret, m->weights, m->nweights * sizeof *ret);
}

void mlp_record(struct mlp *m, struct digests *d)
{
    const uint32_t counters[] = {m->steps, m->nfed, m->epoch};
    if (!digests_begin(d, m->steps))
        return;
    CU(cuStreamSynchronize, m->feed);
    nn_digest(&m->nn, d);
    digests_add(d, "pinned_ids0", m->slots[0].ids, m->share * sizeof(uint32_t));
    digests_add(d, "pinned_ids1", m->slots[1].ids, m->share * sizeof(uint32_t));
    digests_add(d, "order", m->order, m->ntrain * sizeof *m->order);
    digests_add(d, "counters", counters, sizeof counters);
    digests_end(d);
}
