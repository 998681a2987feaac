/* SPDX-License-Identifier: Apache-2.0
 * trainer.h - one rank of a data-parallel perceptron, 64 -> hidden -> 10, on one
 * device.
 *
 * Every rank holds the whole data set and all weights on its device. A step takes the
 * rank's share of the global batch through the net and back, adds the gradients of all
 * ranks (one all-reduce a layer, the last layer first), and moves the weights by SGD
 * with momentum. Everything is computed on the device, in one stream, in one order: the
 * weights depend on the configuration and the world alone, never on where the ranks
 * run.
 *
 * Errors: all calls end the program through die(). Threads: one at a time.
 */
#ifndef DIGITS_TRAINER_H
#define DIGITS_TRAINER_H

#include "data.h"
#include "nn.h"

#include <stddef.h>

struct trainer_config {
    uint32_t hidden; /* units of the hidden layer; a multiple of 32 */
    uint32_t batch;  /* rows a step, over all ranks; a multiple of the world */
    float lr, momentum;
    uint64_t seed;
    uint32_t rank, world;
    uint32_t device; /* ordinal; taken modulo the device count */
};

enum trainer_kernel {
    K_HIDDEN_FORWARD,
    K_LOGITS_FORWARD,
    K_HIDDEN_BACKWARD,
    K_INPUT_WEIGHT_GRAD,
    K_CLASS_WEIGHT_GRAD,
    K_MAX_
};

enum trainer_buffer {
    B_TRAIN_PIXELS,
    B_TRAIN_LABELS,
    B_TEST_PIXELS,
    B_TEST_LABELS,
    B_IDS,    /* rows of this rank's share of the batch */
    B_PIXELS, /* the batch, and what is computed from it */
    B_LABELS,
    B_HIDDEN,
    B_LOGITS, /* after the loss: their gradient */
    B_HIDDEN_GRAD,
    B_WEIGHTS, /* w1[64][hidden] b1[hidden] w2[10][hidden] b2[10], padded to 32 */
    B_GRADS,   /* in the same layout */
    B_MOMENTS, /* in the same layout */
    B_LOSS,
    B_HITS,
    B_DIGESTS, /* smallest and largest digest of the ranks */
    B_MAX_
};

struct trainer {
    struct trainer_config cfg;
    uint32_t share;  /* rows of a batch that are this rank's */
    uint32_t ntrain; /* rows to train on */
    uint32_t ntest;  /* this rank's share of the test rows */
    uint32_t ntest_all;
    struct nn nn;
    CUstream stream; /* owned */
    CUmodule module; /* owned */
    CUfunction kernels[K_MAX_];
    CUdeviceptr buffers[B_MAX_]; /* borrowed from `nn` */
    ncclComm_t comm;             /* borrowed: see trainer_load */
    uint32_t *ids;               /* owned: pinned, `share` of them */
    uint32_t *order;             /* owned: the rows in this epoch's order */
    uint32_t epoch;              /* that `order` is of */
    uint32_t steps;              /* done */
};

/* Why a world cannot be made from `cfg`, or NULL. */
const char *
trainer_refuses(const struct trainer_config *cfg, uint32_t world, uint32_t ntrain);

/* Opens the device, current to this thread, as ncclCommInitRank needs it. */
void trainer_init(struct trainer *t, const struct trainer_config *cfg);
void trainer_fini(struct trainer *t);

/* Loads the kernels and the data and gives all ranks the first weights, those of rank
 * 0. `comm` is borrowed and outlives the last collective. Collective. */
void trainer_load(struct trainer *t, const struct data *data, ncclComm_t comm);

/* Returns when the step is done on the device and no communicator reports an error. */
void trainer_step(struct trainer *t);

/* Appends the state of this rank to its file of digests, if a line is due. */
void trainer_record(struct trainer *t, struct digests *d);

/* Mean loss of the last step's batch; on rank 0 only. */
float trainer_loss(struct trainer *t);

/* Test rows of all ranks that the net names rightly, as a fraction. Collective. */
double trainer_accuracy(struct trainer *t);

/* FNV-1a over the weights; ends the program if two ranks differ. Collective. */
uint64_t trainer_digest(struct trainer *t);

/* Number of floats in the weights, and a copy of them. */
size_t trainer_nweights(const struct trainer *t);
void trainer_weights(const struct trainer *t, float *ret);

#endif
