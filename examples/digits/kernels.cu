/* SPDX-License-Identifier: Apache-2.0
 * kernels.cu - the arithmetic of the digits example; kernels.ptx is made from this
 * file.
 *
 * A two layer perceptron, rows of a batch first: x[rows][64] -> h[rows][hidden] ->
 * z[rows][10]. Weights are kept one row per output, so that every inner loop runs over
 * contiguous memory and loads four floats at once. Every output is summed by one thread
 * in one fixed order and no float is touched by an atomic: equal inputs give equal
 * bits.
 *
 * Launch shapes: x is the column (or group of four columns), y the row. Widths that are
 * read as float4 are multiples of four: 64 pixels, and hidden, which is one of sixteen.
 */
enum { PIXELS = 64, CLASSES = 10, XENT_THREADS = 64 };

static __device__ __forceinline__ float
dot(float s, const float *a, const float *b, int n)
{
#pragma unroll 16
    for (int k = 0; k < n; k += 4) {
        float4 u = *(const float4 *)(a + k), v = *(const float4 *)(b + k);
        s += u.x * v.x;
        s += u.y * v.y;
        s += u.z * v.z;
        s += u.w * v.w;
    }
    return s;
}

/* Rows `ids` of the data set become the batch. */
extern "C" __global__ void gather(int rows,
                                  const unsigned *ids,
                                  const float *pixels,
                                  const int *labels,
                                  float *x,
                                  int *y)
{
    int c = blockIdx.x * blockDim.x + threadIdx.x,
        r = blockIdx.y * blockDim.y + threadIdx.y;
    if (r >= rows || c >= PIXELS / 4)
        return;
    unsigned id = ids[r];
    ((float4 *)x)[r * (PIXELS / 4) + c] =
        ((const float4 *)pixels)[id * (PIXELS / 4) + c];
    if (c == 0)
        y[r] = labels[id];
}

/* h = relu(x w1' + b1) */
extern "C" __global__ void hidden_forward(
    int rows, int hidden, const float *x, const float *w, const float *bias, float *h)
{
    int c = blockIdx.x * blockDim.x + threadIdx.x,
        r = blockIdx.y * blockDim.y + threadIdx.y;
    if (r < rows && c < hidden)
        h[r * hidden + c] =
            fmaxf(dot(bias[c], x + r * PIXELS, w + c * PIXELS, PIXELS), 0.0f);
}

/* z = h w2' + b2 */
extern "C" __global__ void logits_forward(
    int rows, int hidden, const float *h, const float *w, const float *bias, float *z)
{
    int c = blockIdx.x * blockDim.x + threadIdx.x,
        r = blockIdx.y * blockDim.y + threadIdx.y;
    if (r >= rows || c >= CLASSES)
        return;
    const float *a = h + r * hidden, *b = w + c * hidden;
    float s = bias[c];
    for (int k = 0; k < hidden; k += 16)
        s = dot(s, a + k, b + k, 16);
    z[r * CLASSES + c] = s;
}

/* z becomes dloss/dz; *loss the sum over the rows; both times `scale`, 1 / global
 * batch. One block: each thread takes every XENT_THREADS-th row, then a tree adds the
 * threads. */
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

/* dh = (dz w2) where h > 0; four hidden units a thread */
extern "C" __global__ void hidden_backward(
    int rows, int hidden, const float *dz, const float *w, const float *h, float *dh)
{
    int c = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
    int r = blockIdx.y * blockDim.y + threadIdx.y;
    if (r >= rows || c >= hidden)
        return;
    float4 s = {0.0f, 0.0f, 0.0f, 0.0f}, on = *(const float4 *)(h + r * hidden + c);
    w += c;
    dz += r * CLASSES;
#pragma unroll
    for (int k = 0; k < CLASSES; k++, w += hidden) {
        float d = dz[k];
        float4 v = *(const float4 *)w;
        s.x += d * v.x;
        s.y += d * v.y;
        s.z += d * v.z;
        s.w += d * v.w;
    }
    s.x = on.x > 0.0f ? s.x : 0.0f;
    s.y = on.y > 0.0f ? s.y : 0.0f;
    s.z = on.z > 0.0f ? s.z : 0.0f;
    s.w = on.w > 0.0f ? s.w : 0.0f;
    *(float4 *)(dh + r * hidden + c) = s;
}

/* g[out][in] = d[rows][out]' a[rows][in]; four inputs a thread */
extern "C" __global__ void
weight_grad(int rows, int nout, int nin, const float *d, const float *a, float *g)
{
    int i = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
    int o = blockIdx.y * blockDim.y + threadIdx.y;
    if (o >= nout || i >= nin)
        return;
    float4 s = {0.0f, 0.0f, 0.0f, 0.0f};
    g += o * nin + i;
    d += o;
    a += i;
#pragma unroll 4
    for (int r = 0; r < rows; r++, d += nout, a += nin) {
        float4 v = *(const float4 *)a;
        s.x += *d * v.x;
        s.y += *d * v.y;
        s.z += *d * v.z;
        s.w += *d * v.w;
    }
    *(float4 *)g = s;
}

/* g[out] = column sums of d[rows][out] */
extern "C" __global__ void bias_grad(int rows, int nout, const float *d, float *g)
{
    int o = blockIdx.x * blockDim.x + threadIdx.x;
    if (o >= nout)
        return;
    float s = 0.0f;
    d += o;
#pragma unroll 4
    for (int r = 0; r < rows; r++, d += nout)
        s += *d;
    g[o] = s;
}

/* v = momentum v + g; w += step v, where step is minus the learning rate; four
 * parameters a thread, n is a multiple of four */
extern "C" __global__ void
sgd(int n, float step, float momentum, const float *g, float *v, float *w)
{
    int i = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= n)
        return;
    float4 a = *(const float4 *)(g + i), b = *(const float4 *)(v + i);
    float4 c = *(const float4 *)(w + i);
    b.x = momentum * b.x + a.x;
    b.y = momentum * b.y + a.y;
    b.z = momentum * b.z + a.z;
    b.w = momentum * b.w + a.w;
    c.x += step * b.x;
    c.y += step * b.y;
    c.z += step * b.z;
    c.w += step * b.w;
    *(float4 *)(v + i) = b;
    *(float4 *)(w + i) = c;
}

/* *hits += rows whose largest logit (the first of equals) is the label */
extern "C" __global__ void
count_hits(int rows, const float *z, const int *y, unsigned *hits)
{
    int r = blockIdx.x * blockDim.x + threadIdx.x;
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
