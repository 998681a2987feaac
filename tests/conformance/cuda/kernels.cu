/* SPDX-License-Identifier: Apache-2.0
 * kernels.cu - the kernels of the conformance suite. kernels.ptx is made from it by
 *   nvcc -arch=compute_75 -ptx kernels.cu -o kernels.ptx
 * and committed, so that no build needs nvcc.
 */
#include <cuda_fp16.h>
#include <stdint.h>
#define KERNEL extern "C" __global__ void

__constant__ float table[4] = {1.0f, -2.0f, 3.5f, 0.25f};
__device__ unsigned counter = 7;
__device__ float grid2[2][3] = {{1, 2, 3}, {4, 5, 6}};

KERNEL saxpy(int n, float a, const float *x, float *y)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        y[i] = a * x[i] + y[i];
}

KERNEL gemm_tiled(int m, int n, int k, const float *a, const float *b, float *c)
{
    __shared__ float ta[16][16], tb[16][16];
    int tx = threadIdx.x, ty = threadIdx.y, row = blockIdx.y * 16 + ty, col = blockIdx.x * 16 + tx;
    float sum = 0;
    for (int t = 0; t < (k + 15) / 16; t++) {
        ta[ty][tx] = row < m && t * 16 + tx < k ? a[row * k + t * 16 + tx] : 0;
        tb[ty][tx] = col < n && t * 16 + ty < k ? b[(t * 16 + ty) * n + col] : 0;
        __syncthreads();
        for (int i = 0; i < 16; i++)
            sum += ta[ty][i] * tb[i][tx];
        __syncthreads();
    }
    if (row < m && col < n)
        c[row * n + col] = sum;
}

/* Sum of squares: dynamic shared memory, then shuffles in the last warp, then an atomic. */
KERNEL sum_squares(int n, const float *x, float *out)
{
    extern __shared__ float part[];
    float v = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        v += x[i] * x[i];
    part[threadIdx.x] = v;
    __syncthreads();
    for (int o = blockDim.x / 2; o >= 32; o >>= 1) {
        if (threadIdx.x < o)
            part[threadIdx.x] += part[threadIdx.x + o];
        __syncthreads();
    }
    if (threadIdx.x < 32) {
        v = part[threadIdx.x];
        for (int o = 16; o; o >>= 1)
            v += __shfl_down_sync(~0u, v, o);
        if (threadIdx.x == 0)
            atomicAdd(out, v);
    }
}

KERNEL softmax_xent(int rows, int classes, const float *z, const int *label, float *dz, float *loss)
{
    int r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= rows)
        return;
    float m = z[r * classes], s = 0;
    for (int c = 1; c < classes; c++)
        m = fmaxf(m, z[r * classes + c]);
    for (int c = 0; c < classes; c++)
        s += expf(z[r * classes + c] - m);
    loss[r] = logf(s) + m - z[r * classes + label[r]];
    for (int c = 0; c < classes; c++)
        dz[r * classes + c] = (expf(z[r * classes + c] - m) / s - (c == label[r])) / rows;
}

/* How many steps of 3n+1: every lane leaves the loop at another time. */
KERNEL collatz(int n, unsigned *steps)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    unsigned long long v = i + 1;
    unsigned s = 0;
    while (v != 1) {
        v = v & 1 ? 3 * v + 1 : v >> 1;
        s++;
    }
    steps[i] = s;
}

/* An array of the thread's own, indexed by data: local memory. */
KERNEL histogram8(int n, const unsigned *x, unsigned *out)
{
    unsigned bins[8] = {0};
    int i = threadIdx.x;
    for (int k = i; k < n; k += blockDim.x)
        bins[x[k] & 7]++;
    for (int b = 0; b < 8; b++)
        atomicAdd(&out[b], bins[b]);
}

KERNEL variables(float *out)
{
    int i = threadIdx.x;
    out[i] = table[i & 3] + grid2[i & 1][i % 3];
    atomicAdd(&counter, 1u);
}

KERNEL atomics(int *s, unsigned *u, unsigned long long *l)
{
    int i = threadIdx.x;
    atomicMin(&s[0], 50 - i);
    atomicMax(&s[1], i * 3);
    atomicExch(&s[2], i);
    atomicOr(&u[0], 1u << (i & 31));
    atomicXor(&u[1], (unsigned)i);
    atomicInc(&u[2], 9);
    atomicAdd(&l[0], (unsigned long long)i << 32);
    atomicCAS(&u[3], (unsigned)i, (unsigned)i + 1);
}

KERNEL votes(unsigned *out)
{
    int i = threadIdx.x;
    unsigned b = __ballot_sync(~0u, i % 3 == 0);
    out[i] = b ^ (__any_sync(~0u, i == 40) ? 0x10000000u : 0) ^ (__all_sync(~0u, i < 64) ? 0x20000000u : 0);
    out[64 + i] = __shfl_xor_sync(~0u, (unsigned)i, 5) + 100 * __shfl_sync(~0u, (unsigned)i, 3, 8);
}

KERNEL halves(int n, const __half *x, __half *y, double *d)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    float f = __half2float(x[i]);
    y[i] = __float2half(f * 0.5f + 1.0f);
    d[i] = sqrt((double)f * f + 1.0) / 3.0;
}

struct pair {
    float4 v;
    int k;
};
KERNEL by_value(struct pair p, float4 *out, short s, unsigned char c)
{
    float4 v = p.v;
    v.x += p.k + s;
    v.y *= c;
    out[threadIdx.x] = v;
}

KERNEL store_at(int *p, long long offset)
{
    *(int *)((char *)p + offset) = 1;
}

KERNEL give_up(int *p)
{
    if (threadIdx.x == p[0])
        __trap();
}

KERNEL __launch_bounds__(64) small_blocks(int *p)
{
    p[threadIdx.x] = blockDim.x;
}

KERNEL shape(unsigned *out)
{
    unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    unsigned n = blockDim.x * blockDim.y * blockDim.z;
    out[block * n + thread] = block * 1000 + thread;
}
