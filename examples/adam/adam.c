/* SPDX-License-Identifier: Apache-2.0
 * adam.c - opening the device, loading it, letting it go. adam_run.c does the work.
 */
#include "adam.h"

#include "fail.h"

#include <stdlib.h>

/* The text of kernels.ptx, zero-terminated; made by embed.cmake. */
static const char kernels_ptx[] = {
#include "adam_ptx.inc"
};

static const char *const kernel_names[ADAM_KERNEL_MAX_] = {
    [ADAM_BATCH_NORM] = "batch_norm",
    [ADAM_BATCH_NORM_RUNNING] = "batch_norm_running",
    [ADAM_BATCH_NORM_BACK] = "batch_norm_back",
    [ADAM_DROPOUT] = "dropout",
    [ADAM_ADVANCE] = "advance",
    [ADAM_ADAM] = "adam",
};

static const char *const buffer_names[ADAM_BUFFER_MAX_] = {
    [ADAM_TRAIN_PIXELS] = "train_pixels",
    [ADAM_TRAIN_LABELS] = "train_labels",
    [ADAM_TEST_PIXELS] = "test_pixels",
    [ADAM_TEST_LABELS] = "test_labels",
    [ADAM_IDS] = "ids",
    [ADAM_PIXELS] = "pixels",
    [ADAM_LABELS] = "labels",
    [ADAM_Z] = "z",
    [ADAM_X] = "x",
    [ADAM_Y] = "y",
    [ADAM_DY] = "dy",
    [ADAM_MASK] = "mask",
    [ADAM_INVERSE] = "inverse",
    [ADAM_LOGITS] = "logits",
    [ADAM_WEIGHTS] = "weights",
    [ADAM_GRADS] = "grads",
    [ADAM_FIRST_MOMENTS] = "first_moments",
    [ADAM_SECOND_MOMENTS] = "second_moments",
    [ADAM_SCALES] = "scales",
    [ADAM_SCALE_GRADS] = "scale_grads",
    [ADAM_MOMENTUM_OF_SCALES] = "momentum_of_scales",
    [ADAM_RUNNING] = "running",
    [ADAM_RANDOM] = "random",
    [ADAM_LOSS] = "loss",
    [ADAM_HITS] = "hits",
    [ADAM_DIGESTS] = "digests",
};

const char *adam_refuses(const struct adam_config *cfg, uint32_t world, uint32_t ntrain)
{
    if (cfg->hidden % NN_GROUP != 0)
        return "--hidden: want a multiple of 8";
    if (cfg->batch % world != 0 || cfg->batch > ntrain)
        return "--batch: want a multiple of the world, at most the rows to train on";
    if (!(cfg->keep > 0.0f && cfg->keep <= 1.0f))
        return "--keep: want more than 0, and at most 1";
    return NULL;
}

void adam_init(struct adam *a, const struct adam_config *cfg)
{
    *a = (struct adam){.cfg = *cfg, .a_left = 1.0f, .b_left = 1.0f};
    nn_init(&a->nn, cfg->device);
    CU(cuStreamCreate, &a->stream, CU_STREAM_NON_BLOCKING);
}

void adam_fini(struct adam *a)
{
    if (a->ids)
        CU(cuMemFreeHost, a->ids);
    free(a->order);
    if (a->module)
        CU(cuModuleUnload, a->module);
    CU(cuStreamDestroy, a->stream);
    nn_fini(&a->nn);
    *a = (struct adam){0};
}

static void alloc_buffers(struct adam *a)
{
    size_t rows = a->share > a->ntest ? a->share : a->ntest;
    size_t f = sizeof(float), i = sizeof(int32_t), hidden = a->cfg.hidden;
    const size_t bytes[ADAM_BUFFER_MAX_] = {
        [ADAM_TRAIN_PIXELS] = a->ntrain * f * DATA_PIXELS,
        [ADAM_TRAIN_LABELS] = a->ntrain * i,
        [ADAM_TEST_PIXELS] = a->ntest * f * DATA_PIXELS,
        [ADAM_TEST_LABELS] = a->ntest * i,
        [ADAM_IDS] = a->share * sizeof *a->ids,
        [ADAM_PIXELS] = a->share * f * DATA_PIXELS,
        [ADAM_LABELS] = a->share * i,
        [ADAM_Z] = a->share * f * hidden,
        [ADAM_X] = a->share * f * hidden,
        [ADAM_Y] = rows * f * hidden,
        [ADAM_DY] = a->share * f * hidden,
        [ADAM_MASK] = a->share * f * hidden,
        [ADAM_INVERSE] = f * hidden,
        [ADAM_LOGITS] = rows * f * DATA_CLASSES,
        [ADAM_WEIGHTS] = a->nweights * f,
        [ADAM_GRADS] = a->nweights * f,
        [ADAM_FIRST_MOMENTS] = a->nweights * f,
        [ADAM_SECOND_MOMENTS] = a->nweights * f,
        [ADAM_SCALES] = 2 * f * hidden,
        [ADAM_SCALE_GRADS] = 2 * f * hidden,
        [ADAM_MOMENTUM_OF_SCALES] = 2 * f * hidden,
        [ADAM_RUNNING] = 2 * f * hidden,
        [ADAM_RANDOM] = 2 * sizeof(uint64_t),
        [ADAM_LOSS] = f,
        [ADAM_HITS] = i,
        [ADAM_DIGESTS] = a->grid->world * sizeof(uint64_t),
    };
    for (int b = 0; b < ADAM_BUFFER_MAX_; b++)
        a->buffers[b] = nn_alloc(&a->nn, buffer_names[b], bytes[b]);
    CU(cuMemHostAlloc, (void **)&a->ids, bytes[ADAM_IDS], 0);
    a->order = malloc(a->ntrain * sizeof *a->order);
    if (!a->order)
        die("out of memory for the order of %u rows", a->ntrain);
}

uint64_t adam_key(uint64_t seed, uint32_t rank)
{
    uint64_t state = seed ^ ((uint64_t)rank << 32);
    return data_random(&state);
}

/* Scales and variances begin with 1, biases, shifts, means and moments with 0. */
static void fill_own_state(struct adam *a)
{
    const uint64_t random[2] = {adam_key(a->cfg.seed, a->grid->rank), 0};
    size_t hidden = a->cfg.hidden;
    CUdeviceptr variances = a->buffers[ADAM_RUNNING] + hidden * sizeof(float);
    CU(cuMemcpyHtoD, a->buffers[ADAM_RANDOM], random, sizeof random);
    CU(cuMemsetD32, a->buffers[ADAM_SCALES], 0x3f800000, hidden);
    CU(cuMemsetD32, variances, 0x3f800000, hidden);
    CU(cuStreamSynchronize, CU_STREAM_LEGACY);
}

static void share_first_weights(struct adam *a)
{
    uint64_t random = a->cfg.seed;
    size_t first = (size_t)DATA_PIXELS * a->cfg.hidden;
    if (a->grid->rank == 0) {
        float *w = calloc(a->nweights, sizeof *w);
        if (!w)
            die("out of memory for %zu weights", a->nweights);
        nn_draw(&random, DATA_PIXELS, first, w);
        nn_draw(
            &random, a->cfg.hidden, (size_t)a->cfg.hidden * DATA_CLASSES, w + first);
        CU(cuMemcpyHtoD, a->buffers[ADAM_WEIGHTS], w, a->nweights * sizeof *w);
        free(w);
    }
    void *w = gpu_pointer(a->buffers[ADAM_WEIGHTS]);
    NCCL(ncclBroadcast, w, w, a->nweights, ncclFloat32, 0, a->grid->all, a->stream);
    CU(cuStreamSynchronize, a->stream);
    grid_settle(a->grid, "first weights");
}

void adam_load(struct adam *a, const struct data *data, struct grid *grid)
{
    uint32_t first;
    size_t n = (size_t)a->cfg.hidden * (DATA_PIXELS + DATA_CLASSES) + DATA_CLASSES;
    a->grid = grid;
    a->share = a->cfg.batch / grid->world;
    a->ntrain = data->train.n;
    a->ntest_all = data->test.n;
    a->nweights = (n + NN_PAD - 1) / NN_PAD * NN_PAD;
    data_share(a->ntest_all, grid->rank, grid->world, &first, &a->ntest);
    nn_load(&a->nn);
    CU(cuModuleLoadData, &a->module, kernels_ptx);
    for (int k = 0; k < ADAM_KERNEL_MAX_; k++)
        CU(cuModuleGetFunction, &a->kernels[k], a->module, kernel_names[k]);
    alloc_buffers(a);
    CUdeviceptr *b = a->buffers;
    nn_copy_rows(
        b[ADAM_TRAIN_PIXELS], b[ADAM_TRAIN_LABELS], &data->train, 0, a->ntrain);
    nn_copy_rows(
        b[ADAM_TEST_PIXELS], b[ADAM_TEST_LABELS], &data->test, first, a->ntest);
    data_shuffle(a->order, a->ntrain, a->cfg.seed, a->epoch);
    fill_own_state(a);
    share_first_weights(a);
}

void adam_record(struct adam *a, struct digests *d)
{
    const uint32_t counters[] = {a->steps, a->epoch};
    const float left[] = {a->a_left, a->b_left};
    if (!digests_begin(d, a->steps))
        return;
    nn_digest(&a->nn, d);
    digests_add(d, "pinned_ids", a->ids, a->share * sizeof *a->ids);
    digests_add(d, "order", a->order, a->ntrain * sizeof *a->order);
    digests_add(d, "counters", counters, sizeof counters);
    digests_add(d, "corrections", left, sizeof left);
    digests_end(d);
}
