/* SPDX-License-Identifier: Apache-2.0
 * nn.c - see nn.h.
 */
#include "nn.h"

#include "fail.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* As in kernels.cu: threads of a block, and rows that one of them takes. */
enum { TILE_COLS = 32, TILE_ROWS = 4, XENT_THREADS = 64, LINEAR_ROWS = 4 };

/* The text of kernels.ptx, zero-terminated; made by embed.cmake. */
static const char kernels_ptx[] = {
#include "common_ptx.inc"
};

static const char *const kernel_names[NN_KERNEL_MAX_] = {
    [NN_GATHER] = "gather",
    [NN_LINEAR] = "linear",
    [NN_BIAS_RELU] = "bias_relu",
    [NN_LINEAR_DX] = "linear_dx",
    [NN_RELU_DX] = "relu_dx",
    [NN_LINEAR_DW] = "linear_dw",
    [NN_SOFTMAX_XENT] = "softmax_xent",
    [NN_BIAS_GRAD] = "bias_grad",
    [NN_SGD] = "sgd",
    [NN_COUNT_HITS] = "count_hits",
};

void nn_init(struct nn *nn, uint32_t ordinal)
{
    int ndevices = 0;
    CUcontext context;
    *nn = (struct nn){0};
    CU(cuInit, 0);
    CU(cuDeviceGetCount, &ndevices);
    if (ndevices == 0)
        die("cuDeviceGetCount: no CUDA device on this machine");
    CU(cuDeviceGet, &nn->device, (int)(ordinal % (uint32_t)ndevices));
    CU(cuDevicePrimaryCtxRetain, &context, nn->device);
    CU(cuCtxSetCurrent, context);
}

void nn_load(struct nn *nn)
{
    CU(cuModuleLoadData, &nn->module, kernels_ptx);
    for (int k = 0; k < NN_KERNEL_MAX_; k++)
        CU(cuModuleGetFunction, &nn->kernels[k], nn->module, kernel_names[k]);
}

void nn_fini(struct nn *nn)
{
    for (size_t i = 0; i < nn->nbuffers; i++)
        CU(cuMemFree, nn->buffers[i].at);
    if (nn->module)
        CU(cuModuleUnload, nn->module);
    CU(cuDevicePrimaryCtxRelease, nn->device);
    *nn = (struct nn){0};
}

CUdeviceptr nn_alloc(struct nn *nn, const char *name, size_t bytes)
{
    if (nn->nbuffers == NN_BUFFERS_MAX)
        die("%s: more than %d device buffers", name, NN_BUFFERS_MAX);
    struct nn_buffer *b = &nn->buffers[nn->nbuffers];
    *b = (struct nn_buffer){.bytes = bytes ? bytes : 1};
    snprintf(b->name, sizeof b->name, "%s", name);
    CU(cuMemAlloc, &b->at, b->bytes);
    CU(cuMemsetD8, b->at, 0, b->bytes);
    CU(cuStreamSynchronize, CU_STREAM_LEGACY); /* other streams do not wait for it */
    nn->nbuffers++;
    return b->at;
}

void nn_digest(const struct nn *nn, struct digests *d)
{
    size_t most = 0;
    for (size_t i = 0; i < nn->nbuffers; i++)
        most = nn->buffers[i].bytes > most ? nn->buffers[i].bytes : most;
    void *copy = malloc(most ? most : 1);
    if (!copy)
        die("out of memory for a copy of %zu bytes", most);
    for (size_t i = 0; i < nn->nbuffers; i++) {
        const struct nn_buffer *b = &nn->buffers[i];
        CU(cuMemcpyDtoH, copy, b->at, b->bytes);
        digests_add(d, b->name, copy, b->bytes);
    }
    free(copy);
}

void nn_copy_rows(CUdeviceptr pixels,
                  CUdeviceptr labels,
                  const struct rows *r,
                  uint32_t first,
                  uint32_t n)
{
    if (n == 0)
        return;
    size_t row = DATA_PIXELS * sizeof *r->pixels;
    CU(cuMemcpyHtoD, pixels, r->pixels + first * (size_t)DATA_PIXELS, n * row);
    CU(cuMemcpyHtoD, labels, r->labels + first, n * sizeof *r->labels);
}

void nn_draw(uint64_t *random, uint32_t in, size_t n, float *w)
{
    float reach = sqrtf(6.0f / (float)in);
    for (size_t k = 0; k < n; k++)
        w[k] = reach * ((float)(data_random(random) >> 40) * 0x1p-23f - 1.0f);
}

/* ---- kernels ---- */

static uint32_t groups(uint32_t n, uint32_t of)
{
    return (n + of - 1) / of;
}

void nn_launch(
    CUfunction kernel, CUstream stream, uint32_t cols, uint32_t rows, void **args)
{
    uint32_t tile_rows = rows < TILE_ROWS ? rows : TILE_ROWS;
    CU(cuLaunchKernel,
       kernel,
       groups(cols, TILE_COLS),
       groups(rows, tile_rows),
       1,
       TILE_COLS,
       tile_rows,
       1,
       0,
       stream,
       args,
       NULL);
}

void nn_gather(struct nn *nn,
               CUstream stream,
               uint32_t rows,
               CUdeviceptr ids,
               CUdeviceptr pixels,
               CUdeviceptr labels,
               CUdeviceptr x,
               CUdeviceptr y)
{
    void *args[] = {&rows, &ids, &pixels, &labels, &x, &y};
    nn_launch(nn->kernels[NN_GATHER], stream, DATA_PIXELS, rows, args);
}

void nn_linear(struct nn *nn,
               CUstream stream,
               struct nn_shape s,
               CUdeviceptr x,
               CUdeviceptr w,
               CUdeviceptr bias,
               bool relu,
               CUdeviceptr y)
{
    int is_relu = relu;
    void *args[] = {&s.rows, &s.in, &s.out, &x, &w, &bias, &is_relu, &y};
    nn_launch(nn->kernels[NN_LINEAR], stream, s.out, groups(s.rows, LINEAR_ROWS), args);
}

void nn_bias_relu(struct nn *nn,
                  CUstream stream,
                  uint32_t rows,
                  uint32_t n,
                  CUdeviceptr bias,
                  bool relu,
                  CUdeviceptr y)
{
    int is_relu = relu;
    void *args[] = {&rows, &n, &bias, &is_relu, &y};
    nn_launch(nn->kernels[NN_BIAS_RELU], stream, n, rows, args);
}

void nn_linear_dx(struct nn *nn,
                  CUstream stream,
                  struct nn_shape s,
                  CUdeviceptr dy,
                  CUdeviceptr w,
                  CUdeviceptr x,
                  CUdeviceptr dx)
{
    void *args[] = {&s.rows, &s.in, &s.out, &dy, &w, &x, &dx};
    nn_launch(
        nn->kernels[NN_LINEAR_DX], stream, s.in, groups(s.rows, LINEAR_ROWS), args);
}

void nn_relu_dx(
    struct nn *nn, CUstream stream, uint32_t n, CUdeviceptr x, CUdeviceptr dx)
{
    nn_launch(nn->kernels[NN_RELU_DX], stream, n, 1, (void *[]){&n, &x, &dx});
}

void nn_linear_dw(struct nn *nn,
                  CUstream stream,
                  struct nn_shape s,
                  CUdeviceptr x,
                  CUdeviceptr dy,
                  bool add,
                  CUdeviceptr g)
{
    int is_add = add;
    void *args[] = {&s.rows, &s.in, &s.out, &x, &dy, &is_add, &g};
    nn_launch(nn->kernels[NN_LINEAR_DW], stream, s.out, groups(s.in, NN_GROUP), args);
}

void nn_bias_grad(struct nn *nn,
                  CUstream stream,
                  uint32_t rows,
                  uint32_t n,
                  CUdeviceptr dy,
                  bool add,
                  CUdeviceptr db)
{
    int is_add = add;
    void *args[] = {&rows, &n, &dy, &is_add, &db};
    nn_launch(nn->kernels[NN_BIAS_GRAD], stream, n, 1, args);
}

void nn_softmax_xent(struct nn *nn,
                     CUstream stream,
                     uint32_t rows,
                     float scale,
                     CUdeviceptr labels,
                     CUdeviceptr z,
                     CUdeviceptr loss)
{
    void *args[] = {&rows, &scale, &labels, &z, &loss};
    CUfunction kernel = nn->kernels[NN_SOFTMAX_XENT];
    CU(cuLaunchKernel, kernel, 1, 1, 1, XENT_THREADS, 1, 1, 0, stream, args, NULL);
}

void nn_sgd(struct nn *nn,
            CUstream stream,
            uint32_t n,
            float lr,
            float momentum,
            CUdeviceptr g,
            CUdeviceptr v,
            CUdeviceptr w)
{
    float step = -lr;
    void *args[] = {&n, &step, &momentum, &g, &v, &w};
    nn_launch(nn->kernels[NN_SGD], stream, n, 1, args);
}

void nn_count_hits(struct nn *nn,
                   CUstream stream,
                   uint32_t rows,
                   CUdeviceptr z,
                   CUdeviceptr labels,
                   CUdeviceptr hits)
{
    void *args[] = {&rows, &z, &labels, &hits};
    nn_launch(nn->kernels[NN_COUNT_HITS], stream, rows, 1, args);
}
