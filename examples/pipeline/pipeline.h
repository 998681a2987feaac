/* SPDX-License-Identifier: Apache-2.0
 * pipeline.h - one stage of a pipeline-parallel net, 64 -> width -> ... -> width -> 10,
 * on one device.
 *
 * The ranks are a grid (grid.h): the `stages` ranks of a model group hold consecutive
 * layers each, and each model group is a pipeline of its own for its part of the batch,
 * which it takes in `micro` micro-batches. The order is 1F1B (Narayanan et al.,
 * PipeDream-Flush, 2021): stage s takes stages - 1 - s micro-batches forward, then one
 * backward for each one forward, then the remaining ones backward. So it keeps the
 * values of at most stages - s micro-batches, in as many slots. Neighbours exchange
 * values and gradients by ncclSend and ncclRecv, in a group where a stage does both. An
 * all-reduce in the data group adds the gradients of the pipelines, on a second stream.
 *
 * Every stream has one order, the same in every run, so the weights depend on the
 * configuration and the world alone.
 *
 * Errors: all calls end the program through die(). Threads: one at a time.
 */
#ifndef PIPELINE_H
#define PIPELINE_H

#include "data.h"
#include "grid.h"
#include "nn.h"

#include <stddef.h>

enum { PIPELINE_LAYERS_MAX = 16 };

struct pipeline_config {
    uint32_t layers; /* a multiple of stages */
    uint32_t width;  /* units of the layers between; a multiple of 8 */
    uint32_t stages;
    uint32_t batch; /* rows a step, over all pipelines */
    uint32_t micro; /* micro-batches of a pipeline's part of it */
    float lr, momentum;
    uint64_t seed;
    uint32_t device; /* ordinal; taken modulo the device count */
};

struct pipeline_layer {
    uint32_t in, out;
    size_t weights, biases; /* in floats from the start; biases end the layer */
    size_t end;
};

struct pipeline_slot { /* a micro-batch between its way forward and back */
    CUdeviceptr
        values[PIPELINE_LAYERS_MAX + 1]; /* inputs of each layer, then outputs */
    CUdeviceptr pixels, labels;          /* of the first and last stage; others: 0 */
};

struct pipeline {
    struct pipeline_config cfg;
    struct nn nn;
    struct grid *grid; /* borrowed: outlives the pipeline */
    struct pipeline_layer layers[PIPELINE_LAYERS_MAX]; /* of this stage */
    uint32_t nlayers;
    struct pipeline_slot slots[PIPELINE_LAYERS_MAX];
    uint32_t nslots;
    bool is_first, is_last;
    size_t nweights;
    uint32_t rows; /* of a micro-batch */
    uint32_t ntrain, ntest, ntest_all;
    CUstream compute, reduce;               /* owned */
    CUevent grads_ready, reduced;           /* owned */
    CUdeviceptr train_pixels, train_labels; /* device buffers: borrowed from `nn` */
    CUdeviceptr test_pixels, test_labels, ids;
    CUdeviceptr dvalues[PIPELINE_LAYERS_MAX + 1]; /* gradients of a slot's values */
    CUdeviceptr weights, grads, moments;
    CUdeviceptr losses; /* of the micro-batches, on the last stage */
    CUdeviceptr losses_all, hits, digests;
    uint32_t *pinned_ids; /* owned: `micro` times `rows` */
    uint32_t *order;      /* owned: the rows in this epoch's order */
    uint32_t epoch;       /* that `order` is of */
    uint32_t steps;       /* done */
};

/* Why a pipeline of this world cannot be made from `cfg`, or NULL. */
const char *
pipeline_refuses(const struct pipeline_config *cfg, uint32_t world, uint32_t ntrain);

/* Opens the device, current to this thread, as ncclCommInitRank needs it. */
void pipeline_init(struct pipeline *p, const struct pipeline_config *cfg);
void pipeline_fini(struct pipeline *p);

/* Loads the kernels, the data and the first weights. Collective. */
void pipeline_load(struct pipeline *p, const struct data *data, struct grid *grid);

/* Returns when the step is done on the device. Collective. */
void pipeline_step(struct pipeline *p);

/* Appends the state of this rank to its file of digests, if a line is due. */
void pipeline_record(struct pipeline *p, struct digests *d);

/* Mean loss of the last step's batch. Collective. */
float pipeline_loss(struct pipeline *p);

/* Test rows that the net names rightly, as a fraction. Collective. */
double pipeline_accuracy(struct pipeline *p);

/* FNV-1a over the weights of all stages; ends the program if two pipelines differ.
 * Collective. */
uint64_t pipeline_digest(struct pipeline *p);

/* A copy of this rank's `nweights` floats. */
void pipeline_weights(const struct pipeline *p, float *ret);

/* pipeline_schedule.c, for pipeline_run.c: all micro-batches of a step, in 1F1B order. */
void pipeline_schedule(struct pipeline *p);

/* For pipeline_schedule.c: micro-batch n through this stage, either way. */
void pipeline_forward(struct pipeline *p, uint32_t n);
void pipeline_backward(struct pipeline *p, uint32_t n);

static inline struct pipeline_slot *pipeline_slot(struct pipeline *p, uint32_t n)
{
    return &p->slots[n % p->nslots];
}

#endif
