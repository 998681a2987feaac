/* SPDX-License-Identifier: Apache-2.0
 * kernels.cu - the arithmetic of the digits example; kernels.ptx is made from this file.
 *
 * A two layer perceptron, rows of a batch first: x[rows][64] -> h[rows][hidden] ->
 * z[rows][10]. Both weight matrices, w1[64][hidden] and w2[10][hidden], have a hidden unit
 * a column, so that the 32 threads of a warp, one unit each, read and write side by side
 * and share what they multiply with. hidden is a multiple of 32.
 *
 * Every output is summed in one fixed order: equal inputs give equal bits. Launch shapes:
 * x is the column, y the row or group of rows. What is not of these two layers is in
 * ../common/kernels.cu.
 */
enum { PIXELS = 64, CLASSES = 10, WARP = 32 };
enum { FORWARD_ROWS = 4, INPUT_GROUP = 8, CLASS_GROUP = 5 };

#define COLUMN (int)(blockIdx.x * blockDim.x + threadIdx.x)
#define ROW    (int)(blockIdx.y * blockDim.y + threadIdx.y)

/* h = relu(x w1 + b1), FORWARD_ROWS rows a thread; past the end the last row is repeated */
extern "C" __global__ void hidden_forward(
    int rows, int hidden, const float *x, const float *w, const float *bias, float *h)
{
    int c = COLUMN, r = FORWARD_ROWS * ROW;
    if (r >= rows || c >= hidden)
        return;
    const float *a[FORWARD_ROWS];
    float s[FORWARD_ROWS];
#pragma unroll
    for (int i = 0; i < FORWARD_ROWS; i++) {
        a[i] = x + min(r + i, rows - 1) * PIXELS;
        s[i] = bias[c];
    }
    w += c;
#pragma unroll 16
    for (int k = 0; k < PIXELS; k++, w += hidden) {
        float v = *w;
#pragma unroll
        for (int i = 0; i < FORWARD_ROWS; i++)
            s[i] += a[i][k] * v;
    }
#pragma unroll
    for (int i = 0; i < FORWARD_ROWS; i++)
        if (r + i < rows)
            h[(r + i) * hidden + c] = fmaxf(s[i], 0.0f);
}

/* z = h w2' + b2: a warp adds up one logit; blockIdx.x is the class */
extern "C" __global__ void logits_forward(
    int rows, int hidden, const float *h, const float *w, const float *bias, float *z)
{
    int c = blockIdx.x, r = ROW;
    if (r >= rows)
        return;
    const float *a = h + r * hidden + threadIdx.x, *b = w + c * hidden + threadIdx.x;
    float s = 0.0f;
    for (int k = 0; k < hidden; k += WARP, a += WARP, b += WARP)
        s += *a * *b;
#pragma unroll
    for (int far = WARP / 2; far > 0; far /= 2)
        s += __shfl_xor_sync(~0u, s, far);
    if (threadIdx.x == 0)
        z[r * CLASSES + c] = s + bias[c];
}

/* dh = dz w2, where h > 0 */
extern "C" __global__ void hidden_backward(
    int rows, int hidden, const float *dz, const float *w, const float *h, float *dh)
{
    int c = COLUMN, r = ROW;
    if (r >= rows || c >= hidden)
        return;
    float s = 0.0f;
    w += c;
    dz += r * CLASSES;
#pragma unroll
    for (int k = 0; k < CLASSES; k++, w += hidden)
        s += dz[k] * *w;
    dh[r * hidden + c] = h[r * hidden + c] > 0.0f ? s : 0.0f;
}

/* g[n][hidden] = a[rows][n]' d[rows][hidden], `group` rows of g a thread */
template <int n, int group>
static __device__ __forceinline__ void
weight_grad(int rows, int hidden, const float *a, const float *d, float *g)
{
    int c = COLUMN, first = group * ROW;
    if (first >= n || c >= hidden)
        return;
    float s[group] = {0.0f};
    a += first;
    d += c;
#pragma unroll 4
    for (int r = 0; r < rows; r++, a += n, d += hidden) {
        float v = *d;
#pragma unroll
        for (int i = 0; i < group; i++)
            s[i] += a[i] * v;
    }
#pragma unroll
    for (int i = 0; i < group; i++)
        g[(first + i) * hidden + c] = s[i];
}

extern "C" __global__ void
input_weight_grad(int rows, int hidden, const float *x, const float *dh, float *g)
{
    weight_grad<PIXELS, INPUT_GROUP>(rows, hidden, x, dh, g);
}

extern "C" __global__ void
class_weight_grad(int rows, int hidden, const float *dz, const float *h, float *g)
{
    weight_grad<CLASSES, CLASS_GROUP>(rows, hidden, dz, h, g);
}
