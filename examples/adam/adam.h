/* SPDX-License-Identifier: Apache-2.0
 * adam.h - one rank of a data-parallel net with state of every kind, 64 -> hidden -> 10, on one device.
 *
 * linear, batch norm, relu, dropout, linear. The weights are moved by Adam (Kingma and Ba, 2015), with two moments for
 * each; scales and shifts of the batch norm by SGD with momentum. What is the same on all ranks: weights, scales and
 * their moments. What is each rank's own: batch norm takes the statistics of its rows alone, and keeps running ones for
 * the test rows; its random numbers for dropout are those of a key and a counter, in the device's memory.
 *
 * One stream and one order: the weights depend on the configuration and the world alone.
 *
 * Errors: all calls end the program through die(). Threads: one at a time.
 */
#ifndef ADAM_H
#define ADAM_H

#include "data.h"
#include "grid.h"
#include "nn.h"

#include <stddef.h>

struct adam_config {
    uint32_t hidden; /* a multiple of 8 */
    uint32_t batch;  /* rows a step, over all ranks: a multiple of the world */
    float rate;      /* of Adam */
    float keep;      /* share of the hidden values that dropout keeps */
    uint64_t seed;
    uint32_t device; /* ordinal; taken modulo the device count */
};

#define ADAM_A        0.9f   /* decay of the first moments, */
#define ADAM_B        0.999f /* of the second, */
#define ADAM_KEEP     0.9f   /* of the running statistics; */
#define ADAM_LR       0.05f  /* SGD of the scales */
#define ADAM_MOMENTUM 0.9f

enum adam_kernel {
    ADAM_BATCH_NORM,
    ADAM_BATCH_NORM_RUNNING,
    ADAM_BATCH_NORM_BACK,
    ADAM_DROPOUT,
    ADAM_ADVANCE,
    ADAM_ADAM,
    ADAM_KERNEL_MAX_
};

enum adam_buffer {
    ADAM_TRAIN_PIXELS,
    ADAM_TRAIN_LABELS,
    ADAM_TEST_PIXELS,
    ADAM_TEST_LABELS,
    ADAM_IDS, /* rows of this rank's share of the batch */
    ADAM_PIXELS,
    ADAM_LABELS,
    ADAM_Z, /* of the first layer; normalized; and what is left of it after dropout */
    ADAM_X,
    ADAM_Y,
    ADAM_DY,
    ADAM_MASK,
    ADAM_INVERSE,
    ADAM_LOGITS,
    ADAM_WEIGHTS, /* w1[64][hidden] w2[hidden][10] b2[10], padded */
    ADAM_GRADS,   /* in the same layout, as the two moments */
    ADAM_FIRST_MOMENTS,
    ADAM_SECOND_MOMENTS,
    ADAM_SCALES, /* scale[hidden] shift[hidden] */
    ADAM_SCALE_GRADS,
    ADAM_MOMENTUM_OF_SCALES,
    ADAM_RUNNING, /* mean[hidden] variance[hidden] */
    ADAM_RANDOM,  /* key, counter */
    ADAM_LOSS,
    ADAM_HITS,
    ADAM_DIGESTS,
    ADAM_BUFFER_MAX_
};

struct adam {
    struct adam_config cfg;
    struct nn nn;
    struct grid
        *grid;       /* borrowed: outlives the adam; all its ranks hold the whole net */
    CUstream stream; /* owned */
    CUmodule module; /* owned */
    CUfunction kernels[ADAM_KERNEL_MAX_];
    CUdeviceptr buffers[ADAM_BUFFER_MAX_]; /* borrowed from `nn` */
    size_t nweights;
    uint32_t share; /* rows of a batch that are this rank's */
    uint32_t ntrain, ntest, ntest_all;
    uint32_t *ids;        /* owned: pinned, `share` of them */
    uint32_t *order;      /* owned: the rows in this epoch's order */
    uint32_t epoch;       /* that `order` is of */
    uint32_t steps;       /* done */
    float a_left, b_left; /* ADAM_A and ADAM_B to the power of `steps` */
};

/* Why a world cannot be made from `cfg`, or NULL. */
const char *
adam_refuses(const struct adam_config *cfg, uint32_t world, uint32_t ntrain);

/* Opens the device, current to this thread, as ncclCommInitRank needs it. */
void adam_init(struct adam *a, const struct adam_config *cfg);
void adam_fini(struct adam *a);

/* Loads the kernels, the data and the first weights. Collective. */
void adam_load(struct adam *a, const struct data *data, struct grid *grid);

/* Returns when the step is done on the device. Collective. */
void adam_step(struct adam *a);

/* Appends the state of this rank to its file of digests, if a line is due. */
void adam_record(struct adam *a, struct digests *d);

/* Mean loss of the last step's batch; on rank 0 only. */
float adam_loss(struct adam *a);

/* Test rows that the net names rightly, as a fraction. Collective. */
double adam_accuracy(struct adam *a);

/* FNV-1a over the weights; ends the program if two ranks differ. Collective. */
uint64_t adam_digest(struct adam *a);

/* Key of a rank's random numbers. */
uint64_t adam_key(uint64_t seed, uint32_t rank);

#endif
