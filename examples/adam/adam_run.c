/* SPDX-License-Identifier: Apache-2.0
 * adam_run.c - one training step, and what is asked of the weights afterwards.
 */
#include "adam.h"

#include <math.h>

static void settle(struct adam *a, const char *what)
{
    CU(cuStreamSynchronize, a->stream);
    grid_settle(a->grid, what);
}

static void
launch(struct adam *a, enum adam_kernel k, uint32_t cols, uint32_t rows, void **args)
{
    nn_launch(a->kernels[k], a->stream, cols, rows, args);
}

/* Of the weights, or what has their layout: the second layer's, and its biases. */
static CUdeviceptr second(const struct adam *a, enum adam_buffer b)
{
    return a->buffers[b] + (size_t)DATA_PIXELS * a->cfg.hidden * sizeof(float);
}

static CUdeviceptr biases(const struct adam *a, enum adam_buffer b)
{
    return second(a, b) + (size_t)DATA_CLASSES * a->cfg.hidden * sizeof(float);
}

static void gather_batch(struct adam *a)
{
    CUdeviceptr *b = a->buffers;
    uint32_t per_epoch = a->ntrain / a->cfg.batch; /* what is left over sits out */
    uint32_t epoch = a->steps / per_epoch, nth = a->steps % per_epoch;
    if (epoch != a->epoch)
        data_shuffle(a->order, a->ntrain, a->cfg.seed, epoch);
    a->epoch = epoch;
    const uint32_t *mine = a->order + nth * a->cfg.batch + a->grid->rank * a->share;
    for (uint32_t r = 0; r < a->share; r++)
        a->ids[r] = mine[r];
    CU(cuMemcpyHtoDAsync, b[ADAM_IDS], a->ids, a->share * sizeof *a->ids, a->stream);
    nn_gather(&a->nn,
              a->stream,
              a->share,
              b[ADAM_IDS],
              b[ADAM_TRAIN_PIXELS],
              b[ADAM_TRAIN_LABELS],
              b[ADAM_PIXELS],
              b[ADAM_LABELS]);
}

/* ---- there ---- */

static void drop_out(struct adam *a)
{
    CUdeviceptr *b = a->buffers;
    uint32_t n = a->share * a->cfg.hidden;
    void *args[] = {&n, &a->cfg.keep, &b[ADAM_RANDOM], &b[ADAM_MASK], &b[ADAM_Y]};
    launch(a, ADAM_DROPOUT, n, 1, args);
    launch(a, ADAM_ADVANCE, 1, 1, (void *[]){&n, &b[ADAM_RANDOM]});
}

static void name_classes(struct adam *a, uint32_t rows)
{
    CUdeviceptr *b = a->buffers;
    nn_linear(&a->nn,
              a->stream,
              (struct nn_shape){rows, a->cfg.hidden, DATA_CLASSES},
              b[ADAM_Y],
              second(a, ADAM_WEIGHTS),
              biases(a, ADAM_WEIGHTS),
              false,
              b[ADAM_LOGITS]);
}

static void forward(struct adam *a)
{
    CUdeviceptr *b = a->buffers, w = b[ADAM_WEIGHTS];
    struct nn_shape one = {a->share, DATA_PIXELS, a->cfg.hidden};
    float keep = ADAM_KEEP;
    nn_linear(&a->nn, a->stream, one, b[ADAM_PIXELS], w, 0, false, b[ADAM_Z]);
    launch(a,
           ADAM_BATCH_NORM,
           a->cfg.hidden,
           1,
           (void *[]){&a->share,
                      &a->cfg.hidden,
                      &keep,
                      &b[ADAM_Z],
                      &b[ADAM_SCALES],
                      &b[ADAM_RUNNING],
                      &b[ADAM_INVERSE],
                      &b[ADAM_X],
                      &b[ADAM_Y]});
    drop_out(a);
    name_classes(a, a->share);
}

/* ---- and back ---- */

static void add_up(struct adam *a, CUdeviceptr values, size_t n)
{
    void *v = gpu_pointer(values);
    NCCL(ncclAllReduce, v, v, n, ncclFloat32, ncclSum, a->grid->all, a->stream);
}

static void loss_and_its_gradient(struct adam *a)
{
    CUdeviceptr *b = a->buffers;
    float scale = 1.0f / (float)a->cfg.batch;
    void *loss = gpu_pointer(b[ADAM_LOSS]);
    nn_softmax_xent(&a->nn,
                    a->stream,
                    a->share,
                    scale,
                    b[ADAM_LABELS],
                    b[ADAM_LOGITS],
                    b[ADAM_LOSS]);
    NCCL(ncclReduce, loss, loss, 1, ncclFloat32, ncclSum, 0, a->grid->all, a->stream);
}

static void backward(struct adam *a)
{
    CUdeviceptr *b = a->buffers, dlogits = b[ADAM_LOGITS];
    CUdeviceptr w2 = second(a, ADAM_WEIGHTS), dw2 = second(a, ADAM_GRADS);
    uint32_t hidden = a->cfg.hidden;
    struct nn_shape one = {a->share, DATA_PIXELS, hidden};
    struct nn_shape two = {a->share, hidden, DATA_CLASSES};
    size_t n2 = (size_t)hidden * DATA_CLASSES + DATA_CLASSES;
    nn_linear_dw(&a->nn, a->stream, two, b[ADAM_Y], dlogits, false, dw2);
    nn_bias_grad(&a->nn,
                 a->stream,
                 a->share,
                 DATA_CLASSES,
                 dlogits,
                 false,
                 biases(a, ADAM_GRADS));
    add_up(a, dw2, n2);
    nn_linear_dx(&a->nn, a->stream, two, dlogits, w2, 0, b[ADAM_DY]);
    launch(a,
           ADAM_BATCH_NORM_BACK,
           hidden,
           1,
           (void *[]){&a->share,
                      &hidden,
                      &b[ADAM_SCALES],
                      &b[ADAM_INVERSE],
                      &b[ADAM_MASK],
                      &b[ADAM_X],
                      &b[ADAM_Y],
                      &b[ADAM_DY],
                      &b[ADAM_SCALE_GRADS]});
    add_up(a, b[ADAM_SCALE_GRADS], (size_t)2 * hidden);
    nn_linear_dw(
        &a->nn, a->stream, one, b[ADAM_PIXELS], b[ADAM_DY], false, b[ADAM_GRADS]);
    add_up(a, b[ADAM_GRADS], (size_t)DATA_PIXELS * hidden);
}

static void move_weights(struct adam *a)
{
    CUdeviceptr *b = a->buffers;
    uint32_t n = (uint32_t)a->nweights;
    float first = ADAM_A, other = ADAM_B;
    a->a_left *= ADAM_A;
    a->b_left *= ADAM_B;
    float rate = a->cfg.rate / (1.0f - a->a_left), root = sqrtf(1.0f - a->b_left);
    launch(a,
           ADAM_ADAM,
           n,
           1,
           (void *[]){&n,
                      &rate,
                      &root,
                      &first,
                      &other,
                      &b[ADAM_GRADS],
                      &b[ADAM_FIRST_MOMENTS],
                      &b[ADAM_SECOND_MOMENTS],
                      &b[ADAM_WEIGHTS]});
    nn_sgd(&a->nn,
           a->stream,
           2 * a->cfg.hidden,
           ADAM_LR,
           ADAM_MOMENTUM,
           b[ADAM_SCALE_GRADS],
           b[ADAM_MOMENTUM_OF_SCALES],
           b[ADAM_SCALES]);
}

void adam_step(struct adam *a)
{
    gather_batch(a);
    forward(a);
    loss_and_its_gradient(a);
    backward(a);
    move_weights(a);
    a->steps++;
    settle(a, "training");
}

/* ---- questions ---- */

float adam_loss(struct adam *a)
{
    float loss;
    CU(cuMemcpyDtoH, &loss, a->buffers[ADAM_LOSS], sizeof loss);
    return loss;
}

double adam_accuracy(struct adam *a)
{
    CUdeviceptr *b = a->buffers;
    uint32_t count, *hidden = &a->cfg.hidden;
    struct nn_shape one = {a->ntest, DATA_PIXELS, *hidden};
    void *hits = gpu_pointer(b[ADAM_HITS]), *running = &b[ADAM_RUNNING];
    CU(cuMemsetD32Async, b[ADAM_HITS], 0, 1, a->stream);
    if (a->ntest > 0) {
        nn_linear(&a->nn,
                  a->stream,
                  one,
                  b[ADAM_TEST_PIXELS],
                  b[ADAM_WEIGHTS],
                  0,
                  false,
                  b[ADAM_Y]);
        launch(a,
               ADAM_BATCH_NORM_RUNNING,
               *hidden,
               a->ntest,
               (void *[]){&a->ntest, hidden, &b[ADAM_SCALES], running, &b[ADAM_Y]});
        name_classes(a, a->ntest);
        nn_count_hits(&a->nn,
                      a->stream,
                      a->ntest,
                      b[ADAM_LOGITS],
                      b[ADAM_TEST_LABELS],
                      b[ADAM_HITS]);
    }
    NCCL(ncclAllReduce, hits, hits, 1, ncclUint32, ncclSum, a->grid->all, a->stream);
    settle(a, "accuracy");
    CU(cuMemcpyDtoH, &count, b[ADAM_HITS], sizeof count);
    return (double)count / a->ntest_all;
}

uint64_t adam_digest(struct adam *a)
{
    return grid_digest(a->grid,
                       a->stream,
                       a->buffers[ADAM_DIGESTS],
                       a->buffers[ADAM_WEIGHTS],
                       a->nweights * sizeof(float));
}
