/* SPDX-License-Identifier: Apache-2.0
 * trainer.c - opening the device, loading it, letting it go. trainer_run.c does the
 * work.
 */
#include "trainer.h"

#include "fail.h"

#include <stdlib.h>

/* The text of kernels.ptx, zero-terminated; made by embed.cmake. */
static const char kernels_ptx[] = {
#include "digits_ptx.inc"
};

static const char *const kernel_names[K_MAX_] = {
    [K_HIDDEN_FORWARD] = "hidden_forward",
    [K_LOGITS_FORWARD] = "logits_forward",
    [K_HIDDEN_BACKWARD] = "hidden_backward",
    [K_INPUT_WEIGHT_GRAD] = "input_weight_grad",
    [K_CLASS_WEIGHT_GRAD] = "class_weight_grad",
};

static const char *const buffer_names[B_MAX_] = {
    [B_TRAIN_PIXELS] = "train_pixels",
    [B_TRAIN_LABELS] = "train_labels",
    [B_TEST_PIXELS] = "test_pixels",
    [B_TEST_LABELS] = "test_labels",
    [B_IDS] = "ids",
    [B_PIXELS] = "pixels",
    [B_LABELS] = "labels",
    [B_HIDDEN] = "hidden",
    [B_LOGITS] = "logits",
    [B_HIDDEN_GRAD] = "hidden_grad",
    [B_WEIGHTS] = "weights",
    [B_GRADS] = "grads",
    [B_MOMENTS] = "moments",
    [B_LOSS] = "loss",
    [B_HITS] = "hits",
    [B_DIGESTS] = "digests",
};

const char *
trainer_refuses(const struct trainer_config *cfg, uint32_t world, uint32_t ntrain)
{
    if (cfg->hidden % 32 != 0)
        return "--hidden: want a multiple of 32";
    if (cfg->batch % world != 0 || cfg->batch > ntrain)
        return "--batch: want a multiple of the world, at most the rows to train on";
    return NULL;
}

void trainer_init(struct trainer *t, const struct trainer_config *cfg)
{
    *t = (struct trainer){.cfg = *cfg, .share = cfg->batch / cfg->world};
    nn_init(&t->nn, cfg->device);
    CU(cuStreamCreate, &t->stream, CU_STREAM_NON_BLOCKING);
}

void trainer_fini(struct trainer *t)
{
    if (t->ids)
        CU(cuMemFreeHost, t->ids);
    free(t->order);
    if (t->module)
        CU(cuModuleUnload, t->module);
    CU(cuStreamDestroy, t->stream);
    nn_fini(&t->nn);
    *t = (struct trainer){0};
}

size_t trainer_nweights(const struct trainer *t)
{
    size_t n = t->cfg.hidden * (size_t)(DATA_PIXELS + 1 + DATA_CLASSES) + DATA_CLASSES;
    return (n + 31) / 32 * 32;
}

static void alloc_buffers(struct trainer *t)
{
    size_t rows = t->share > t->ntest ? t->share : t->ntest;
    size_t f = sizeof(float), i = sizeof(int32_t);
    const size_t bytes[B_MAX_] = {
        [B_TRAIN_PIXELS] = t->ntrain * f * DATA_PIXELS,
        [B_TRAIN_LABELS] = t->ntrain * i,
        [B_TEST_PIXELS] = t->ntest * f * DATA_PIXELS,
        [B_TEST_LABELS] = t->ntest * i,
        [B_IDS] = t->share * sizeof *t->ids,
        [B_PIXELS] = t->share * f * DATA_PIXELS,
        [B_LABELS] = t->share * i,
        [B_HIDDEN] = rows * f * t->cfg.hidden,
        [B_LOGITS] = rows * f * DATA_CLASSES,
        [B_HIDDEN_GRAD] = t->share * f * t->cfg.hidden,
        [B_WEIGHTS] = trainer_nweights(t) * f,
        [B_GRADS] = trainer_nweights(t) * f,
        [B_MOMENTS] = trainer_nweights(t) * f,
        [B_LOSS] = f,
        [B_HITS] = sizeof(uint32_t),
        [B_DIGESTS] = 2 * sizeof(uint64_t),
    };
    for (int b = 0; b < B_MAX_; b++)
        t->buffers[b] = nn_alloc(&t->nn, buffer_names[b], bytes[b]);
    CU(cuMemHostAlloc, (void **)&t->ids, bytes[B_IDS], 0);
    t->order = malloc(t->ntrain * sizeof *t->order);
    if (!t->order)
        die("out of memory for the order of %u rows", t->ntrain);
}

/* Biases and padding stay zero. */
static void draw_weights(const struct trainer_config *cfg, float *w)
{
    uint64_t random = cfg->seed;
    size_t hidden = cfg->hidden;
    nn_draw(&random, DATA_PIXELS, hidden * DATA_PIXELS, w);
    nn_draw(
        &random, cfg->hidden, hidden * DATA_CLASSES, w + hidden * (DATA_PIXELS + 1));
}

static void share_first_weights(struct trainer *t)
{
    size_t n = trainer_nweights(t);
    if (t->cfg.rank == 0) {
        float *w = calloc(n, sizeof *w);
        if (!w)
            die("out of memory for %zu weights", n);
        draw_weights(&t->cfg, w);
        CU(cuMemcpyHtoD, t->buffers[B_WEIGHTS], w, n * sizeof *w);
        free(w);
    }
    void *w = gpu_pointer(t->buffers[B_WEIGHTS]);
    NCCL(ncclBroadcast, w, w, n, ncclFloat32, 0, t->comm, t->stream);
    CU(cuStreamSynchronize, t->stream);
}

void trainer_load(struct trainer *t, const struct data *data, ncclComm_t comm)
{
    uint32_t first;
    t->comm = comm;
    t->ntrain = data->train.n;
    t->ntest_all = data->test.n;
    data_share(t->ntest_all, t->cfg.rank, t->cfg.world, &first, &t->ntest);
    nn_load(&t->nn);
    CU(cuModuleLoadData, &t->module, kernels_ptx);
    for (int k = 0; k < K_MAX_; k++)
        CU(cuModuleGetFunction, &t->kernels[k], t->module, kernel_names[k]);
    alloc_buffers(t);
    nn_copy_rows(t->buffers[B_TRAIN_PIXELS],
                 t->buffers[B_TRAIN_LABELS],
                 &data->train,
                 0,
                 t->ntrain);
    nn_copy_rows(t->buffers[B_TEST_PIXELS],
                 t->buffers[B_TEST_LABELS],
                 &data->test,
                 first,
                 t->ntest);
    data_shuffle(t->order, t->ntrain, t->cfg.seed, t->epoch);
    share_first_weights(t);
}

void trainer_weights(const struct trainer *t, float *ret)
{
    CU(cuMemcpyDtoH, ret, t->buffers[B_WEIGHTS], trainer_nweights(t) * sizeof *ret);
}

void trainer_record(struct trainer *t, struct digests *d)
{
    const uint32_t counters[] = {t->steps, t->epoch};
    if (!digests_begin(d, t->steps))
        return;
    nn_digest(&t->nn, d);
    digests_add(d, "pinned_ids", t->ids, t->share * sizeof *t->ids);
    digests_add(d, "order", t->order, t->ntrain * sizeof *t->order);
    digests_add(d, "counters", counters, sizeof counters);
    digests_end(d);
}
