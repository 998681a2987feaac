/* SPDX-License-Identifier: Apache-2.0
 * trainer_run.c - one training step, and what is asked of the weights afterwards.
 *
 * The pinned list of rows is written again only after the stream was waited for, so one
 * is enough. Collectives are issued as soon as their input is complete.
 */
#include "trainer.h"

#include "fail.h"

#include <stdlib.h>

/* As in kernels.cu: columns of a block, and rows that a thread of it takes. */
enum { TILE_COLS = 32, FORWARD_ROWS = 4, INPUT_GROUP = 8, CLASS_GROUP = 5 };

static void launch(
    struct trainer *t, enum trainer_kernel k, uint32_t cols, uint32_t rows, void **args)
{
    nn_launch(t->kernels[k], t->stream, cols, rows, args);
}

static void settle(struct trainer *t, const char *what)
{
    CU(cuStreamSynchronize, t->stream);
    nccl_settle(what, t->comm);
}

/* ---- layers ---- */

struct layer { /* where its weights and biases are, in floats from the start */
    size_t weights, biases, end;
};

static struct layer layer_at(const struct trainer *t, int layer)
{
    size_t hidden = t->cfg.hidden;
    struct layer one = {0, hidden * DATA_PIXELS, hidden * (DATA_PIXELS + 1)};
    if (layer == 0)
        return one;
    return (struct layer){
        one.end, one.end + hidden * DATA_CLASSES, trainer_nweights(t)};
}

static CUdeviceptr at(const struct trainer *t, enum trainer_buffer b, size_t nfloats)
{
    return t->buffers[b] + nfloats * sizeof(float);
}

static void gather_batch(struct trainer *t)
{
    uint32_t per_epoch = t->ntrain / t->cfg.batch; /* what is left over sits out */
    uint32_t epoch = t->steps / per_epoch, nth = t->steps % per_epoch;
    if (epoch != t->epoch)
        data_shuffle(t->order, t->ntrain, t->cfg.seed, epoch);
    t->epoch = epoch;
    const uint32_t *mine = t->order + nth * t->cfg.batch + t->cfg.rank * t->share;
    for (uint32_t r = 0; r < t->share; r++)
        t->ids[r] = mine[r];
    CUdeviceptr *b = t->buffers;
    CU(cuMemcpyHtoDAsync, b[B_IDS], t->ids, t->share * sizeof *t->ids, t->stream);
    nn_gather(&t->nn,
              t->stream,
              t->share,
              b[B_IDS],
              b[B_TRAIN_PIXELS],
              b[B_TRAIN_LABELS],
              b[B_PIXELS],
              b[B_LABELS]);
}

static void forward(struct trainer *t, uint32_t rows, CUdeviceptr pixels)
{
    struct layer one = layer_at(t, 0), two = layer_at(t, 1);
    CUdeviceptr w1 = at(t, B_WEIGHTS, one.weights), b1 = at(t, B_WEIGHTS, one.biases);
    CUdeviceptr w2 = at(t, B_WEIGHTS, two.weights), b2 = at(t, B_WEIGHTS, two.biases);
    CUdeviceptr *b = t->buffers;
    uint32_t *hidden = &t->cfg.hidden;
    launch(t,
           K_HIDDEN_FORWARD,
           *hidden,
           (rows + FORWARD_ROWS - 1) / FORWARD_ROWS,
           (void *[]){&rows, hidden, &pixels, &w1, &b1, &b[B_HIDDEN]});
    launch(t,
           K_LOGITS_FORWARD,
           DATA_CLASSES * TILE_COLS, /* a warp each */
           rows,
           (void *[]){&rows, hidden, &b[B_HIDDEN], &w2, &b2, &b[B_LOGITS]});
}

/* Gradients of one layer's weights and biases, added over all ranks. */
static void layer_grads(struct trainer *t, int layer)
{
    struct layer l = layer_at(t, layer);
    CUdeviceptr weights = at(t, B_GRADS, l.weights), biases = at(t, B_GRADS, l.biases);
    CUdeviceptr *b = t->buffers;
    uint32_t *hidden = &t->cfg.hidden;
    if (layer == 0) {
        launch(
            t,
            K_INPUT_WEIGHT_GRAD,
            *hidden,
            DATA_PIXELS / INPUT_GROUP,
            (void *[]){&t->share, hidden, &b[B_PIXELS], &b[B_HIDDEN_GRAD], &weights});
        nn_bias_grad(
            &t->nn, t->stream, t->share, *hidden, b[B_HIDDEN_GRAD], false, biases);
    } else {
        launch(t,
               K_CLASS_WEIGHT_GRAD,
               *hidden,
               DATA_CLASSES / CLASS_GROUP,
               (void *[]){&t->share, hidden, &b[B_LOGITS], &b[B_HIDDEN], &weights});
        nn_bias_grad(
            &t->nn, t->stream, t->share, DATA_CLASSES, b[B_LOGITS], false, biases);
    }
    void *all = gpu_pointer(weights);
    size_t n = l.end - l.weights;
    NCCL(ncclAllReduce, all, all, n, ncclFloat32, ncclSum, t->comm, t->stream);
}

static void loss_and_its_gradient(struct trainer *t)
{
    float scale = 1.0f / (float)t->cfg.batch;
    CUdeviceptr *b = t->buffers;
    nn_softmax_xent(
        &t->nn, t->stream, t->share, scale, b[B_LABELS], b[B_LOGITS], b[B_LOSS]);
    void *loss = gpu_pointer(b[B_LOSS]);
    NCCL(ncclReduce, loss, loss, 1, ncclFloat32, ncclSum, 0, t->comm, t->stream);
}

static void backward(struct trainer *t)
{
    CUdeviceptr *b = t->buffers, w2 = at(t, B_WEIGHTS, layer_at(t, 1).weights);
    uint32_t hidden = t->cfg.hidden;
    layer_grads(t, 1);
    launch(t,
           K_HIDDEN_BACKWARD,
           hidden,
           t->share,
           (void *[]){
               &t->share, &hidden, &b[B_LOGITS], &w2, &b[B_HIDDEN], &b[B_HIDDEN_GRAD]});
    layer_grads(t, 0);
}

static void move_weights(struct trainer *t)
{
    CUdeviceptr *b = t->buffers;
    nn_sgd(&t->nn,
           t->stream,
           (uint32_t)trainer_nweights(t),
           t->cfg.lr,
           t->cfg.momentum,
           b[B_GRADS],
           b[B_MOMENTS],
           b[B_WEIGHTS]);
}

void trainer_step(struct trainer *t)
{
    gather_batch(t);
    forward(t, t->share, t->buffers[B_PIXELS]);
    loss_and_its_gradient(t);
    backward(t);
    move_weights(t);
    t->steps++;
    settle(t, "training");
}

/* ---- questions ---- */

float trainer_loss(struct trainer *t)
{
    float loss;
    CU(cuMemcpyDtoH, &loss, t->buffers[B_LOSS], sizeof loss);
    return loss;
}

double trainer_accuracy(struct trainer *t)
{
    CUdeviceptr *b = t->buffers;
    uint32_t count;
    void *hits = gpu_pointer(b[B_HITS]);
    CU(cuMemsetD32Async, b[B_HITS], 0, 1, t->stream);
    if (t->ntest > 0) {
        forward(t, t->ntest, b[B_TEST_PIXELS]);
        nn_count_hits(
            &t->nn, t->stream, t->ntest, b[B_LOGITS], b[B_TEST_LABELS], b[B_HITS]);
    }
    NCCL(ncclAllReduce, hits, hits, 1, ncclUint32, ncclSum, t->comm, t->stream);
    settle(t, "accuracy");
    CU(cuMemcpyDtoH, &count, b[B_HITS], sizeof count);
    return (double)count / t->ntest_all;
}

uint64_t trainer_digest(struct trainer *t)
{
    size_t n = trainer_nweights(t);
    float *w = malloc(n * sizeof *w);
    if (!w)
        die("out of memory for %zu weights", n);
    trainer_weights(t, w);
    uint64_t mine = fnv1a(FNV1A_START, w, n * sizeof *w), of_all[2] = {mine, mine};
    free(w);
    CUdeviceptr words = t->buffers[B_DIGESTS];
    CU(cuMemcpyHtoD, words, of_all, sizeof of_all);
    void *least = gpu_pointer(words);
    void *most = gpu_pointer(words + sizeof mine);
    NCCL(ncclAllReduce, least, least, 1, ncclUint64, ncclMin, t->comm, t->stream);
    NCCL(ncclAllReduce, most, most, 1, ncclUint64, ncclMax, t->comm, t->stream);
    settle(t, "digest");
    CU(cuMemcpyDtoH, of_all, words, sizeof of_all);
    if (of_all[0] != of_all[1])
        die("the weights of the ranks differ: digest %016llx here, from %016llx to "
            "%016llx",
            (unsigned long long)mine,
            (unsigned long long)of_all[0],
            (unsigned long long)of_all[1]);
    return mine;
}
