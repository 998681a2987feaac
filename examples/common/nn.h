/* SPDX-License-Identifier: Apache-2.0
 * nn.h - one device, its named buffers, and the kernels that the examples share.
 *
 * Every nn_ call with a stream only puts work into it. Shapes: rows of a batch first,
 * weights [in][out]; `in` is a multiple of NN_GROUP.
 *
 * Errors: all calls end the program through die(). Threads: one at a time.
 */
#ifndef EXAMPLE_NN_H
#define EXAMPLE_NN_H

#include "data.h"
#include "digests.h"
#include "gpu.h"

#include <stdbool.h>
#include <stddef.h>

enum nn_kernel {
    NN_GATHER,
    NN_LINEAR,
    NN_BIAS_RELU,
    NN_LINEAR_DX,
    NN_RELU_DX,
    NN_LINEAR_DW,
    NN_SOFTMAX_XENT,
    NN_BIAS_GRAD,
    NN_SGD,
    NN_COUNT_HITS,
    NN_KERNEL_MAX_
};

enum { NN_BUFFERS_MAX = 128, NN_GROUP = 8, NN_PAD = 32 };

struct nn_buffer {
    char name[24];
    CUdeviceptr at; /* owned */
    size_t bytes;
};

struct nn {
    CUdevice device;
    CUmodule module; /* owned */
    CUfunction kernels[NN_KERNEL_MAX_];
    struct nn_buffer buffers[NN_BUFFERS_MAX];
    size_t nbuffers;
};

struct nn_shape {
    uint32_t rows, in, out;
};

/* Opens device `ordinal`, taken modulo the device count; it is current to this thread
 * then, as ncclCommInitRank needs it. */
void nn_init(struct nn *nn, uint32_t ordinal);
void nn_fini(struct nn *nn);

/* Loads the kernels. */
void nn_load(struct nn *nn);

/* Zeroed memory, freed by nn_fini. */
CUdeviceptr nn_alloc(struct nn *nn, const char *name, size_t bytes);

/* Adds all buffers to the line of `d`. No stream may be at work. */
void nn_digest(const struct nn *nn, struct digests *d);

/* Rows [first, first + n) of `r` go to the device. */
void nn_copy_rows(CUdeviceptr pixels,
                  CUdeviceptr labels,
                  const struct rows *r,
                  uint32_t first,
                  uint32_t n);

/* n first weights of a layer with `in` inputs: uniform within sqrt(6 / in), after He et
 * al. */
void nn_draw(uint64_t *random, uint32_t in, size_t n, float *w);

/* One thread for each of cols x rows, in tiles; threads beyond the edge do nothing. */
void nn_launch(
    CUfunction kernel, CUstream stream, uint32_t cols, uint32_t rows, void **args);

/* Rows `ids` of a data set become a batch. */
void nn_gather(struct nn *nn,
               CUstream stream,
               uint32_t rows,
               CUdeviceptr ids,
               CUdeviceptr pixels,
               CUdeviceptr labels,
               CUdeviceptr x,
               CUdeviceptr y);

/* y = x w + bias (0: without), then relu. */
void nn_linear(struct nn *nn,
               CUstream stream,
               struct nn_shape s,
               CUdeviceptr x,
               CUdeviceptr w,
               CUdeviceptr bias,
               bool relu,
               CUdeviceptr y);

/* y += bias, then relu. */
void nn_bias_relu(struct nn *nn,
                  CUstream stream,
                  uint32_t rows,
                  uint32_t n,
                  CUdeviceptr bias,
                  bool relu,
                  CUdeviceptr y);

/* dx = dy w', zero where the relu's output x (0: none) is. */
void nn_linear_dx(struct nn *nn,
                  CUstream stream,
                  struct nn_shape s,
                  CUdeviceptr dy,
                  CUdeviceptr w,
                  CUdeviceptr x,
                  CUdeviceptr dx);

/* dx = 0 where the relu's output x is. */
void nn_relu_dx(
    struct nn *nn, CUstream stream, uint32_t n, CUdeviceptr x, CUdeviceptr dx);

/* g = x' dy, and db = the column sums of dy, or both added to what is there. */
void nn_linear_dw(struct nn *nn,
                  CUstream stream,
                  struct nn_shape s,
                  CUdeviceptr x,
                  CUdeviceptr dy,
                  bool add,
                  CUdeviceptr g);
void nn_bias_grad(struct nn *nn,
                  CUstream stream,
                  uint32_t rows,
                  uint32_t n,
                  CUdeviceptr dy,
                  bool add,
                  CUdeviceptr db);

/* Logits z become their gradient, *loss the sum over the rows, both times `scale`. */
void nn_softmax_xent(struct nn *nn,
                     CUstream stream,
                     uint32_t rows,
                     float scale,
                     CUdeviceptr labels,
                     CUdeviceptr z,
                     CUdeviceptr loss);

/* v = momentum v + g; w -= lr v. */
void nn_sgd(struct nn *nn,
            CUstream stream,
            uint32_t n,
            float lr,
            float momentum,
            CUdeviceptr g,
            CUdeviceptr v,
            CUdeviceptr w);

/* *hits += rows whose largest logit is the label. */
void nn_count_hits(struct nn *nn,
                   CUstream stream,
                   uint32_t rows,
                   CUdeviceptr z,
                   CUdeviceptr labels,
                   CUdeviceptr hits);

#endif
