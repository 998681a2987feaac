/* SPDX-License-Identifier: Apache-2.0
 * pipeline.c - opening the device, loading it, letting it go. pipeline_run.c does the
 * work.
 */
#include "pipeline.h"

#include "fail.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *
pipeline_refuses(const struct pipeline_config *cfg, uint32_t world, uint32_t ntrain)
{
    if (world % cfg->stages != 0)
        return "--stages: want a divisor of the world";
    if (cfg->layers % cfg->stages != 0)
        return "--layers: want a multiple of --stages";
    if (cfg->width % NN_GROUP != 0)
        return "--width: want a multiple of 8";
    if (cfg->batch % (world / cfg->stages * cfg->micro) != 0 || cfg->batch > ntrain)
        return "--batch: want a multiple of --micro times world / stages, at most the "
               "rows to train on";
    return NULL;
}

void pipeline_init(struct pipeline *p, const struct pipeline_config *cfg)
{
    *p = (struct pipeline){.cfg = *cfg};
    nn_init(&p->nn, cfg->device);
    CU(cuStreamCreate, &p->compute, CU_STREAM_NON_BLOCKING);
    CU(cuStreamCreate, &p->reduce, CU_STREAM_NON_BLOCKING);
    CU(cuEventCreate, &p->grads_ready, CU_EVENT_DISABLE_TIMING);
    CU(cuEventCreate, &p->reduced, CU_EVENT_DISABLE_TIMING);
}

void pipeline_fini(struct pipeline *p)
{
    if (p->pinned_ids)
        CU(cuMemFreeHost, p->pinned_ids);
    CU(cuEventDestroy, p->reduced);
    CU(cuEventDestroy, p->grads_ready);
    CU(cuStreamDestroy, p->reduce);
    CU(cuStreamDestroy, p->compute);
    free(p->order);
    nn_fini(&p->nn);
    *p = (struct pipeline){0};
}

static uint32_t layer_in(const struct pipeline_config *cfg, uint32_t layer)
{
    return layer == 0 ? DATA_PIXELS : cfg->width;
}

static uint32_t layer_out(const struct pipeline_config *cfg, uint32_t layer)
{
    return layer + 1 == cfg->layers ? DATA_CLASSES : cfg->width;
}

static void plan(struct pipeline *p)
{
    const struct pipeline_config *cfg = &p->cfg;
    uint32_t stage = p->grid->model_rank, behind = cfg->stages - 1 - stage;
    size_t at = 0;
    p->is_first = stage == 0;
    p->is_last = behind == 0;
    p->rows = cfg->batch / p->grid->ndata / cfg->micro;
    p->nslots = (behind < cfg->micro - 1 ? behind : cfg->micro - 1) + 1;
    p->nlayers = cfg->layers / cfg->stages;
    for (uint32_t i = 0; i < p->nlayers; i++) {
        uint32_t layer = stage * p->nlayers + i;
        uint32_t in = layer_in(cfg, layer), out = layer_out(cfg, layer);
        size_t n = (size_t)in * out;
        p->layers[i] = (struct pipeline_layer){in, out, at, at + n, at + n + out};
        at = p->layers[i].end;
    }
    p->nweights = (at + NN_PAD - 1) / NN_PAD * NN_PAD;
}

/* ---- memory ---- */

__attribute__((format(printf, 3, 4))) static CUdeviceptr
alloc(struct pipeline *p, size_t bytes, const char *fmt, ...)
{
    char name[24];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    return nn_alloc(&p->nn, name, bytes);
}

static size_t values_bytes(const struct pipeline *p, uint32_t i)
{
    uint32_t n = i < p->nlayers ? p->layers[i].in : p->layers[i - 1].out;
    return (size_t)p->rows * n * sizeof(float);
}

static void alloc_slots(struct pipeline *p)
{
    bool has_data = p->is_first || p->is_last;
    for (uint32_t k = 0; k < p->nslots; k++) {
        struct pipeline_slot *s = &p->slots[k];
        for (uint32_t i = 0; i <= p->nlayers; i++)
            s->values[i] = alloc(p, values_bytes(p, i), "slot%u_value%u", k, i);
        if (!has_data)
            continue;
        size_t pixels = (size_t)p->rows * DATA_PIXELS * sizeof(float);
        s->pixels = p->is_first ? s->values[0] : alloc(p, pixels, "slot%u_pixels", k);
        s->labels = alloc(p, p->rows * sizeof(int32_t), "slot%u_labels", k);
    }
    for (uint32_t i = 0; i <= p->nlayers; i++)
        p->dvalues[i] = alloc(p, values_bytes(p, i), "dvalue%u", i);
}

static void alloc_buffers(struct pipeline *p)
{
    size_t f = sizeof(float), i = sizeof(int32_t), micro = p->cfg.micro;
    if (p->is_first || p->is_last) {
        p->train_pixels = alloc(p, p->ntrain * f * DATA_PIXELS, "train_pixels");
        p->train_labels = alloc(p, p->ntrain * i, "train_labels");
        p->test_pixels = alloc(p, p->ntest * f * DATA_PIXELS, "test_pixels");
        p->test_labels = alloc(p, p->ntest * i, "test_labels");
    }
    p->ids = alloc(p, micro * p->rows * i, "ids");
    p->weights = alloc(p, p->nweights * f, "weights");
    p->grads = alloc(p, p->nweights * f, "grads");
    p->moments = alloc(p, p->nweights * f, "moments");
    p->losses = alloc(p, micro * f, "losses");
    p->losses_all = alloc(p, micro * f, "losses_all");
    p->hits = alloc(p, i, "hits");
    p->digests = alloc(p, p->grid->world * sizeof(uint64_t), "digests");
    CU(cuMemHostAlloc, (void **)&p->pinned_ids, micro * p->rows * i, 0);
    memset(p->pinned_ids, 0, micro * p->rows * i);
    p->order = calloc(p->ntrain, sizeof *p->order);
    if (!p->order)
        die("out of memory for the order of %u rows", p->ntrain);
}

/* ---- first weights ---- */

/* This stage's part of the whole net, which is the same for every --stages. */
static void draw_weights(const struct pipeline *p, float *part)
{
    const struct pipeline_config *cfg = &p->cfg;
    uint64_t random = cfg->seed;
    uint32_t first = p->grid->model_rank * p->nlayers;
    size_t most = (size_t)(cfg->width + DATA_PIXELS) * (cfg->width + DATA_CLASSES);
    float *skipped = calloc(most, sizeof *skipped);
    if (!skipped)
        die("out of memory for %zu weights", most);
    for (uint32_t l = 0; l < first + p->nlayers; l++) {
        uint32_t in = layer_in(cfg, l), out = layer_out(cfg, l);
        float *w = l < first ? skipped : part + p->layers[l - first].weights;
        nn_draw(&random, in, (size_t)in * out, w);
    }
    free(skipped);
}

/* The first pipeline draws them; the others get them through their data group. */
static void share_first_weights(struct pipeline *p)
{
    if (p->grid->data_rank == 0) {
        float *part = calloc(p->nweights, sizeof *part);
        if (!part)
            die("out of memory for %zu weights", p->nweights);
        draw_weights(p, part);
        CU(cuMemcpyHtoD, p->weights, part, p->nweights * sizeof *part);
        free(part);
    }
    void *w = gpu_pointer(p->weights);
    NCCL(ncclBroadcast, w, w, p->nweights, ncclFloat32, 0, p->grid->data, p->compute);
    CU(cuStreamSynchronize, p->compute);
    grid_settle(p->grid, "first weights");
}

void pipeline_load(struct pipeline *p, const struct data *data, struct grid *grid)
{
    uint32_t first;
    p->grid = grid;
    p->ntrain = data->train.n;
    p->ntest_all = data->test.n;
    data_share(p->ntest_all, grid->data_rank, grid->ndata, &first, &p->ntest);
    plan(p);
    nn_load(&p->nn);
    alloc_slots(p);
    alloc_buffers(p);
    if (p->is_first || p->is_last) {
        nn_copy_rows(p->train_pixels, p->train_labels, &data->train, 0, p->ntrain);
        nn_copy_rows(p->test_pixels, p->test_labels, &data->test, first, p->ntest);
    }
    data_shuffle(p->order, p->ntrain, p->cfg.seed, p->epoch);
    share_first_weights(p);
}

void pipeline_weights(const struct pipeline *p, float *ret)
{
    CU(cuMemcpyDtoH, ret, p->weights, p->nweights * sizeof *ret);
}

void pipeline_record(struct pipeline *p, struct digests *d)
{
    const uint32_t counters[] = {p->steps, p->epoch};
    if (!digests_begin(d, p->steps))
        return;
    nn_digest(&p->nn, d);
    digests_add(
        d, "pinned_ids", p->pinned_ids, p->cfg.micro * p->rows * sizeof(uint32_t));
    digests_add(d, "order", p->order, p->ntrain * sizeof *p->order);
    digests_add(d, "counters", counters, sizeof counters);
    digests_end(d);
}
