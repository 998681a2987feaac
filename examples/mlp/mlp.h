/* SPDX-License-Identifier: Apache-2.0
 * mlp.h - one rank of a tensor- and data-parallel net, 64 -> hidden -> mid -> hidden ->
 * 10, on one device.
 *
 * The ranks are a grid (grid.h). The `tensor` ranks of a model group share every layer,
 * after Shoeybi et al., Megatron-LM (2019): the first and third are split by columns,
 * so each rank computes its own outputs; the second and fourth by rows, so each rank
 * computes a part of all outputs, and an all-reduce in the model group adds the parts.
 * Going back, the columns' inputs need the same. Model groups take different rows of
 * the batch; an all-reduce in the data group adds their gradients.
 *
 * Three streams: `compute`; `reduce`, where the gradients of a layer are added while
 * those of the layer before are computed; `feed`, where the next batch is gathered.
 * Every stream has one order, the same on all ranks, so the weights depend on the
 * configuration and the world alone.
 *
 * Errors: all calls end the program through die(). Threads: one at a time.
 */
#ifndef MLP_H
#define MLP_H

#include "data.h"
#include "grid.h"
#include "nn.h"

#include <stddef.h>

enum { MLP_LAYERS = 4, MLP_SLOTS = 2 };

struct mlp_config {
    uint32_t hidden, mid; /* hidden: a multiple of 8 on each rank; mid: of 8 */
    uint32_t batch;       /* rows a step, over all ranks */
    uint32_t tensor;      /* ranks that share a net */
    float lr, momentum;
    uint64_t seed;
    uint32_t device; /* ordinal; taken modulo the device count */
};

struct mlp_layer {
    bool is_split_by_rows;
    uint32_t in, out;       /* of this rank's part */
    size_t weights, biases; /* in floats from the start; biases end the layer */
    size_t end;
};

struct mlp_slot {  /* one batch; the next is gathered while this one is used */
    uint32_t *ids; /* owned: pinned */
    CUdeviceptr device_ids, pixels, labels;
    CUevent fed; /* owned */
};

struct mlp {
    struct mlp_config cfg;
    struct nn nn;
    struct grid *grid; /* borrowed: outlives the mlp */
    struct mlp_layer layers[MLP_LAYERS];
    struct mlp_slot slots[MLP_SLOTS];
    size_t nweights;
    uint32_t share; /* rows of a batch that are this model group's */
    uint32_t ntrain, ntest, ntest_all;
    CUstream compute, reduce, feed;         /* owned */
    CUevent grads_ready[MLP_LAYERS];        /* owned */
    CUevent reduced;                        /* owned */
    CUdeviceptr train_pixels, train_labels; /* device buffers: borrowed from `nn` */
    CUdeviceptr test_pixels, test_labels;
    CUdeviceptr values[MLP_LAYERS + 1]; /* outputs of layer l - 1; [0] is a batch */
    CUdeviceptr dvalues[MLP_LAYERS];    /* their gradients; [0] is not needed */
    CUdeviceptr weights, grads, moments;
    CUdeviceptr loss, hits, digests;
    uint32_t *order; /* owned: the rows in this epoch's order */
    uint32_t epoch;  /* that `order` is of */
    uint32_t nfed;   /* batches given to the feed stream */
    uint32_t steps;  /* done */
};

/* Why a grid of this world cannot be made from `cfg`, or NULL. */
const char *mlp_refuses(const struct mlp_config *cfg, uint32_t world, uint32_t ntrain);

/* Opens the device, current to this thread, as ncclCommInitRank needs it. */
void mlp_init(struct mlp *m, const struct mlp_config *cfg);
void mlp_fini(struct mlp *m);

/* Loads the kernels, the data and the first weights. Collective. */
void mlp_load(struct mlp *m, const struct data *data, struct grid *grid);

/* Returns when the step is done on the device. Collective. */
void mlp_step(struct mlp *m);

/* Appends the state of this rank to its file of digests, if a line is due. */
void mlp_record(struct mlp *m, struct digests *d);

/* Mean loss of the last step's batch; on rank 0 only. */
float mlp_loss(struct mlp *m);

/* Test rows that the net names rightly, as a fraction. Collective. */
double mlp_accuracy(struct mlp *m);

/* FNV-1a over all parts of the weights; ends the program if two nets differ.
 * Collective. */
uint64_t mlp_digest(struct mlp *m);

/* A copy of this rank's `nweights` floats. */
void mlp_weights(const struct mlp *m, float *ret);

#endif
