/* SPDX-License-Identifier: Apache-2.0
 * kernels.cu - what this example computes besides ../common/kernels.cu; kernels.ptx is made from this file.
 *
 * A thread a column, and rows in their order: equal inputs give equal bits. Launch shapes: x is the column, y the row.
 */
#define COLUMN (int)(blockIdx.x * blockDim.x + threadIdx.x)
#define ROW    (int)(blockIdx.y * blockDim.y + threadIdx.y)

#define EPSILON 1e-5f

typedef unsigned long long u64;

/* Batch norm over the rows of this rank, then relu: z[rows][n] -> x, its normalized values, and y.
 * running: mean[n], then variance[n]; scales: scale[n], then shift[n]; inverse[n]: of the deviation. */
extern "C" __global__ void batch_norm(int rows,
                                      int n,
                                      float keep,
                                      const float *z,
                                      const float *scales,
                                      float *running,
                                      float *inverse,
                                      float *x,
                                      float *y)
{
    int c = COLUMN;
    if (c >= n)
        return;
    float mean = 0.0f, variance = 0.0f;
    for (int r = 0; r < rows; r++)
        mean += z[r * n + c];
    mean /= (float)rows;
    for (int r = 0; r < rows; r++) {
        float d = z[r * n + c] - mean;
        variance += d * d;
    }
    variance /= (float)rows;
    running[c] = keep * running[c] + (1.0f - keep) * mean;
    running[n + c] = keep * running[n + c] + (1.0f - keep) * variance;
    float i = 1.0f / sqrtf(variance + EPSILON);
    inverse[c] = i;
    for (int r = 0; r < rows; r++) {
        float v = (z[r * n + c] - mean) * i;
        x[r * n + c] = v;
        y[r * n + c] = fmaxf(scales[c] * v + scales[n + c], 0.0f);
    }
}

/* The same by the running statistics, in place. */
extern "C" __global__ void
batch_norm_running(int rows, int n, const float *scales, const float *running, float *y)
{
    int c = COLUMN, r = ROW;
    if (r >= rows || c >= n)
        return;
    float v = (y[r * n + c] - running[c]) / sqrtf(running[n + c] + EPSILON);
    y[r * n + c] = fmaxf(scales[c] * v + scales[n + c], 0.0f);
}

/* dy[rows][n], of what dropout left of y -> dz, in place, and the gradients of the scales. */
extern "C" __global__ void batch_norm_back(int rows,
                                           int n,
                                           const float *scales,
                                           const float *inverse,
                                           const float *mask,
                                           const float *x,
                                           const float *y,
                                           float *dy,
                                           float *dscales)
{
    int c = COLUMN;
    if (c >= n)
        return;
    float sum = 0.0f, sum_x = 0.0f;
    for (int r = 0; r < rows; r++) {
        int i = r * n + c;
        float d = y[i] > 0.0f ? dy[i] * mask[i] : 0.0f;
        dy[i] = d;
        sum += d;
        sum_x += d * x[i];
    }
    dscales[c] = sum_x;
    dscales[n + c] = sum;
    float by = scales[c] * inverse[c], of = 1.0f / (float)rows;
    for (int r = 0; r < rows; r++) {
        int i = r * n + c;
        dy[i] = by * (dy[i] - (sum + x[i] * sum_x) * of);
    }
}

/* y keeps a value with the probability `keep`, and has it 1 / keep times. random: key, counter; number `counter` of the
 * sequence is splitmix64's (data_random of ../common/data.c, from the state key + counter * its step). */
extern "C" __global__ void
dropout(int n, float keep, const u64 *random, float *mask, float *y)
{
    int i = COLUMN;
    if (i >= n)
        return;
    u64 z = random[0] + (random[1] + i + 1) * 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    z ^= z >> 31;
    float m = (float)(unsigned)(z >> 40) * 0x1p-24f < keep ? 1.0f / keep : 0.0f;
    mask[i] = m;
    y[i] *= m;
}

/* So many numbers are used up. */
extern "C" __global__ void advance(int n, u64 *random)
{
    if (COLUMN == 0)
        random[1] += n;
}

/* m = a m + (1 - a) g; v = b v + (1 - b) g g; w -= rate m / (sqrt(v) / root + epsilon). The caller has put the corrections
 * of the first steps into rate and root. */
extern "C" __global__ void adam(int n,
                                float rate,
                                float root,
                                float a,
                                float b,
                                const float *g,
                                float *m,
                                float *v,
                                float *w)
{
    int i = COLUMN;
    if (i >= n)
        return;
    float d = g[i];
    float first = a * m[i] + (1.0f - a) * d, second = b * v[i] + (1.0f - b) * d * d;
    m[i] = first;
    v[i] = second;
    w[i] -= rate * first / (sqrtf(second) / root + 1e-8f);
}
