/* SPDX-License-Identifier: Apache-2.0
 * kernels.cu - the arithmetic that the examples share; kernels.ptx is made from this file.
 *
 * Linear layers of any size, rows of a batch first: x[rows][in] -> y[rows][out] with
 * w[in][out], so that the 32 threads of a warp, one output each, read and write side by
 * side. `in` is a multiple of WEIGHT_GROUP.
 *
 * Every output is summed in one fixed order and no float is touched by an atomic: equal
 * inputs give equal bits. Launch shapes: x is the column, y the row or group of rows.
 */
enum { PIXELS = 64, CLASSES = 10, XENT_THREADS = 64 };
enum { LINEAR_ROWS = 4, WEIGHT_GROUP = 8 };

#define COLUMN (int)(blockIdx.x * blockDim.x + threadIdx.x)
#define ROW    (int)(blockIdx.y * blockDim.y + threadIdx.y)

/* Rows `ids` of the data set become the batch. */
extern "C" __global__ void gather(int rows,
                                  const unsigned *ids,
                                  const float *pixels,
                                  const int *labels,
                                  float *x,
                                  int *y)
{
    int c = COLUMN, r = ROW;
    if (r >= rows || c >= PIXELS)
        return;
    unsigned id = ids[r];
    x[r * PIXELS + c] = pixels[id * PIXELS + c];
    if (c == 0)
        y[r] = labels[id];
}

/* y = x w + bias, then relu if `relu`; without a bias where it is null. LINEAR_ROWS rows
 * a thread; past the end the last row is repeated. */
extern "C" __global__ void linear(int rows,
                                  int in,
                                  int out,
                                  const float *x,
                                  const float *w,
                                  const float *bias,
                                  int relu,
                                  float *y)
{
    int c = COLUMN, r = LINEAR_ROWS * ROW;
    if (r >= rows || c >= out)
        return;
    const float *a[LINEAR_ROWS];
    float s[LINEAR_ROWS];
    float start = bias ? bias[c] : 0.0f;
#pragma unroll
    for (int i = 0; i < LINEAR_ROWS; i++) {
        a[i] = x + min(r + i, rows - 1) * in;
        s[i] = start;
    }
    w += c;
#pragma unroll 8
    for (int k = 0; k < in; k++, w += out) {
        float v = *w;
#pragma unroll
        for (int i = 0; i < LINEAR_ROWS; i++)
            s[i] += a[i][k] * v;
    }
#pragma unroll
    for (int i = 0; i < LINEAR_ROWS; i++)
        if (r + i < rows)
            y[(r + i) * out + c] = relu ? fmaxf(s[i], 0.0f) : s[i];
}

/* y += bias, then relu if `relu` */
extern "C" __global__ void
bias_relu(int rows, int n, const float *bias, int relu, float *y)
{
    int c = COLUMN, r = ROW;
    if (r >= rows || c >= n)
        return;
    float v = y[r * n + c] + bias[c];
    y[r * n + c] = relu ? fmaxf(v, 0.0f) : v;
}

/* dx = dy w'; where `x`, the output of a relu, is given and 0, so is dx */
extern "C" __global__ void linear_dx(int rows,
                                     int in,
                                     int out,
                                     const float *dy,
                                     const float *w,
                                     const float *x,
                                     float *dx)
{
    int c = COLUMN, r = LINEAR_ROWS * ROW;
    if (r >= rows || c >= in)
        return;
    const float *d[LINEAR_ROWS];
    float s[LINEAR_ROWS];
#pragma unroll
    for (int i = 0; i < LINEAR_ROWS; i++) {
        d[i] = dy + min(r + i, rows - 1) * out;
        s[i] = 0.0f;
    }
    w += c * out;
#pragma unroll 4
    for (int k = 0; k < out; k++) {
        float v = w[k];
#pragma unroll
        for (int i = 0; i < LINEAR_ROWS; i++)
            s[i] += d[i][k] * v;
    }
#pragma unroll
    for (int i = 0; i < LINEAR_ROWS; i++)
        if (r + i < rows)
            dx[(r + i) * in + c] =
                x && !(x[(r + i) * in + c] > 0.0f) ? 0.0f : s[i];
}

/* dx = 0 where x, the output of a relu, is 0 */
extern "C" __global__ void relu_dx(int n, const float *x, float *dx)
{
    int i = COLUMN;
    if (i < n && !(x[i] > 0.0f))
        dx[i] = 0.0f;
}

/* g[in][out] = x' dy, WEIGHT_GROUP rows of g a thread; added to what is there if `add` */
extern "C" __global__ void linear_dw(
    int rows, int in, int out, const float *x, const float *dy, int add, float *g)
{
    int c = COLUMN, first = WEIGHT_GROUP * ROW;
    if (first >= in || c >= out)
        return;
    float s[WEIGHT_GROUP];
    g += first * out + c;
#pragma unroll
    for (int i = 0; i < WEIGHT_GROUP; i++)
        s[i] = add ? g[i * out] : 0.0f;
    x += first;
    dy += c;
#pragma unroll 4
    for (int r = 0; r < rows; r++, x += in, dy += out) {
        float v = *dy;
#pragma unroll
        for (int i = 0; i < WEIGHT_GROUP; i++)
            s[i] += x[i] * v;
    }
#pragma unroll
    for (int i = 0; i < WEIGHT_GROUP; i++)
        g[i * out] = s[i];
}

/* z becomes dloss/dz; *loss the sum over the rows; both times `scale`, 1 / global batch.
 * One block: each thread takes every XENT_THREADS-th row, then a tree adds the threads. */
extern "C" __global__ void
softmax_xent(int rows, float scale, const int *y, float *z, float *loss)
{
    __shared__ float part[XENT_THREADS];
    float sum = 0.0f;
    for (int r = threadIdx.x; r < rows; r += XENT_THREADS) {
        float *row = z + r * CLASSES, e[CLASSES], top = row[0], norm = 0.0f;
#pragma unroll
        for (int c = 1; c < CLASSES; c++)
            top = fmaxf(top, row[c]);
        int label = y[r];
        float at_label = row[label];
#pragma unroll
        for (int c = 0; c < CLASSES; c++)
            norm += e[c] = __expf(row[c] - top);
        float inverse = scale / norm;
#pragma unroll
        for (int c = 0; c < CLASSES; c++)
            row[c] = e[c] * inverse - (c == label ? scale : 0.0f);
        sum += (__logf(norm) + top - at_label) * scale;
    }
    part[threadIdx.x] = sum;
    __syncthreads();
    for (int half = XENT_THREADS / 2; half > 0; half >>= 1) {
        if (threadIdx.x < half)
            part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        *loss = part[0];
}

/* g[n] = column sums of d[rows][n]; added to what is there if `add` */
extern "C" __global__ void bias_grad(int rows, int n, const float *d, int add, float *g)
{
    int c = COLUMN;
    if (c >= n)
        return;
    float s = add ? g[c] : 0.0f;
    d += c;
#pragma unroll 4
    for (int r = 0; r < rows; r++, d += n)
        s += *d;
    g[c] = s;
}

/* v = momentum v + g; w += step v, where step is minus the learning rate */
extern "C" __global__ void
sgd(int n, float step, float momentum, const float *g, float *v, float *w)
{
    int i = COLUMN;
    if (i >= n)
        return;
    float m = momentum * v[i] + g[i];
    v[i] = m;
    w[i] += step * m;
}

/* *hits += rows whose largest logit (the first of equals) is the label */
extern "C" __global__ void
count_hits(int rows, const float *z, const int *y, unsigned *hits)
{
    int r = COLUMN;
    if (r >= rows)
        return;
    const float *row = z + r * CLASSES;
    int best = 0;
    float top = row[0];
#pragma unroll
    for (int c = 1; c < CLASSES; c++) {
        float v = row[c];
        best = v > top ? c : best;
        top = fmaxf(v, top);
    }
    if (best == y[r])
        atomicAdd(hits, 1u);
}
