/* SPDX-License-Identifier: Apache-2.0
 * kernel.c - kernels of every kind against the same thing on the host.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "suite.h"

static void
launch(const char *name, unsigned grid, unsigned block, unsigned shared, void **params)
{
    OK(cuLaunchKernel,
       suite_kernel(name),
       grid,
       1,
       1,
       block,
       1,
       1,
       shared,
       NULL,
       params,
       NULL);
}

static uint32_t random_bits(void)
{
    static uint64_t s = 0x9e3779b97f4a7c15u;
    s = s * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(s >> 33);
}

static float random_float(void)
{
    return (float)(int32_t)(random_bits() & 0xffff) * 0x1p-15f - 1.0f;
}

static float *random_floats(int n)
{
    float *x = malloc((size_t)n * 4);
    assert_non_null(x);
    for (int i = 0; i < n; i++)
        x[i] = random_float();
    return x;
}

static float *download(CUdeviceptr p, int n)
{
    float *x = malloc((size_t)n * 4);
    assert_non_null(x);
    OK(cuMemcpyDtoH, x, p, (size_t)n * 4);
    return x;
}

static void saxpy_is_exact(void **state)
{
    int n = 1000;
    float a = 1.7f, *x = random_floats(n), *y = random_floats(n);
    CUdeviceptr dx = suite_upload(x, 4000), dy = suite_upload(y, 4000);
    (void)state;
    launch("saxpy", 8, 128, 0, (void *[]){&n, &a, &dx, &dy});
    float *got = download(dy, n);
    for (int i = 0; i < n; i++)
        assert_memory_equal(&got[i], &(float){fmaf(a, x[i], y[i])}, 4);
    free(got);
    free(x);
    free(y);
    OK(cuMemFree, dx);
    OK(cuMemFree, dy);
}

/* The parameters as one buffer, in the layout of the kernel's own. */
static void parameters_may_come_in_a_buffer(void **state)
{
    struct {
        int n;
        float a;
        CUdeviceptr x, y;
    } buffer = {4, 2.0f, 0, 0};
    size_t size = sizeof buffer;
    const float ones[4] = {1, 1, 1, 1};
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER,
                     &buffer,
                     CU_LAUNCH_PARAM_BUFFER_SIZE,
                     &size,
                     CU_LAUNCH_PARAM_END};
    (void)state;
    buffer.x = buffer.y = suite_upload(ones, sizeof ones);
    OK(cuLaunchKernel, suite_kernel("saxpy"), 1, 1, 1, 32, 1, 1, 0, NULL, NULL, extra);
    float *got = download(buffer.y, 4);
    assert_true(got[3] > 2.99f && got[3] < 3.01f);
    free(got);
    OK(cuMemFree, buffer.y);
}

static void gemm_is_exact(void **state)
{
    int m = 50, n = 45, k = 37;
    float *a = random_floats(m * k), *b = random_floats(k * n);
    CUdeviceptr da = suite_upload(a, (size_t)(m * k) * 4),
                db = suite_upload(b, (size_t)(k * n) * 4);
    CUdeviceptr dc = suite_upload(NULL, (size_t)(m * n) * 4);
    (void)state;
    OK(cuLaunchKernel,
       suite_kernel("gemm_tiled"),
       3,
       4,
       1,
       16,
       16,
       1,
       0,
       NULL,
       (void *[]){&m, &n, &k, &da, &db, &dc},
       NULL);
    float *c = download(dc, m * n);
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            float sum = 0;
            for (int l = 0; l < k; l++)
                sum = fmaf(a[i * k + l], b[l * n + j], sum);
            assert_memory_equal(&c[i * n + j], &sum, 4);
        }
    free(a);
    free(b);
    free(c);
    OK(cuMemFree, da);
    OK(cuMemFree, db);
    OK(cuMemFree, dc);
}

static void reduction_with_dynamic_shared_memory(void **state)
{
    int n = 5000;
    float *x = random_floats(n), *got;
    double want = 0;
    CUdeviceptr dx = suite_upload(x, (size_t)n * 4), out = suite_upload(NULL, 4);
    (void)state;
    for (int i = 0; i < n; i++)
        want += (double)x[i] * (double)x[i];
    launch("sum_squares", 4, 256, 1024, (void *[]){&n, &dx, &out});
    got = download(out, 1);
    assert_true(fabs((double)got[0] - want) < want * 1e-5);
    free(got);
    free(x);
    OK(cuMemFree, dx);
    OK(cuMemFree, out);
}

static void softmax_is_close(void **state)
{
    int rows = 70, classes = 10, *label = malloc(280);
    float *z = random_floats(700);
    (void)state;
    for (int i = 0; i < rows; i++)
        label[i] = i % classes;
    CUdeviceptr dz = suite_upload(z, 2800), dl = suite_upload(label, 280);
    CUdeviceptr grad = suite_upload(NULL, 2800), loss = suite_upload(NULL, 280);
    launch(
        "softmax_xent", 2, 64, 0, (void *[]){&rows, &classes, &dz, &dl, &grad, &loss});
    float *got = download(loss, rows), *g = download(grad, 700);
    for (int r = 0; r < rows; r++) {
        double sum = 0, total = 0;
        for (int c = 0; c < classes; c++)
            sum += exp((double)z[r * classes + c]);
        for (int c = 0; c < classes; c++)
            total += (double)g[r * classes + c];
        double want = log(sum) - (double)z[r * classes + label[r]];
        assert_true(fabs((double)got[r] - want) < 2e-6);
        assert_true(fabs(total) < 1e-7);
    }
    free(z);
    free(label);
    free(got);
    free(g);
    OK(cuMemFree, dz);
    OK(cuMemFree, dl);
    OK(cuMemFree, grad);
    OK(cuMemFree, loss);
}

static void divergent_loops_come_together(void **state)
{
    int n = 300;
    uint32_t got[300];
    CUdeviceptr out = suite_upload(NULL, sizeof got);
    (void)state;
    launch("collatz", 3, 128, 0, (void *[]){&n, &out});
    OK(cuMemcpyDtoH, got, out, sizeof got);
    for (unsigned i = 0; i < 300; i++) {
        unsigned steps = 0;
        for (uint64_t v = i + 1; v != 1; v = v & 1 ? 3 * v + 1 : v >> 1)
            steps++;
        assert_int_equal(got[i], steps);
    }
    OK(cuMemFree, out);
}

static void local_memory_is_the_threads_own(void **state)
{
    int n = 1000;
    uint32_t x[1000], got[8], want[8] = {0};
    (void)state;
    for (int i = 0; i < n; i++) {
        x[i] = random_bits();
        want[x[i] & 7]++;
    }
    CUdeviceptr dx = suite_upload(x, sizeof x), out = suite_upload(NULL, sizeof got);
    launch("histogram8", 1, 96, 0, (void *[]){&n, &dx, &out});
    OK(cuMemcpyDtoH, got, out, sizeof got);
    assert_memory_equal(got, want, sizeof got);
    OK(cuMemFree, dx);
    OK(cuMemFree, out);
}

static void variables_are_read_and_written(void **state)
{
    static const float table[4] = {1.0f, -2.0f, 3.5f, 0.25f},
                       grid[2][3] = {{1, 2, 3}, {4, 5, 6}};
    CUdeviceptr out = suite_upload(NULL, 160), counter;
    unsigned value;
    (void)state;
    launch("variables", 1, 40, 0, (void *[]){&out});
    float *got = download(out, 40);
    for (int i = 0; i < 40; i++)
        assert_memory_equal(&got[i], &(float){table[i & 3] + grid[i & 1][i % 3]}, 4);
    OK(cuModuleGetGlobal, &counter, NULL, suite_module(), "counter");
    OK(cuMemcpyDtoH, &value, counter, 4);
    assert_int_equal(value, 47);
    free(got);
    OK(cuMemFree, out);
}

static void atomics_combine(void **state)
{
    int s[3] = {1000, 0, -1};
    uint32_t u[4] = {0};
    uint64_t l = 5;
    CUdeviceptr ds = suite_upload(s, sizeof s), du = suite_upload(u, sizeof u),
                dl = suite_upload(&l, 8);
    (void)state;
    launch("atomics", 1, 64, 0, (void *[]){&ds, &du, &dl});
    OK(cuMemcpyDtoH, s, ds, sizeof s);
    OK(cuMemcpyDtoH, u, du, sizeof u);
    OK(cuMemcpyDtoH, &l, dl, 8);
    assert_int_equal(s[0], -13);
    assert_int_equal(s[1], 189);
    assert_in_range(s[2], 0, 63);
    assert_int_equal(u[0], UINT32_MAX);
    assert_int_equal(u[1], 0);
    assert_int_equal(u[2], 4); /* 64 increments, 9 wraps to 0 */
    assert_true(u[3] > 0);
    assert_int_equal(l, ((uint64_t)(63 * 32) << 32) + 5);
    OK(cuMemFree, ds);
    OK(cuMemFree, du);
    OK(cuMemFree, dl);
}

static void lanes_talk(void **state)
{
    uint32_t got[128];
    CUdeviceptr out = suite_upload(NULL, sizeof got);
    (void)state;
    launch("votes", 1, 64, 0, (void *[]){&out});
    OK(cuMemcpyDtoH, got, out, sizeof got);
    for (unsigned i = 0; i < 64; i++) {
        uint32_t ballot = 0;
        for (unsigned l = 0; l < 32; l++)
            ballot |= (uint32_t)((i / 32 * 32 + l) % 3 == 0) << l;
        assert_int_equal(got[i], ballot ^ (i >= 32 ? 0x10000000u : 0) ^ 0x20000000u);
        assert_int_equal(got[64 + i], (i ^ 5) + 100 * ((i & ~7u) + 3));
    }
    OK(cuMemFree, out);
}

static void halves_and_doubles(void **state)
{
    enum { HALVES = 6 };
    /* 1, -2, 0.5, 65504, 2^-24, infinity; halved plus one */
    const uint16_t x[HALVES] = {0x3c00, 0xc000, 0x3800, 0x7bff, 1, 0x7c00};
    const uint16_t want[HALVES] = {0x3e00, 0, 0x3d00, 0x77ff, 0x3c00, 0x7c00};
    uint16_t y[HALVES];
    double d[HALVES];
    int n = HALVES;
    CUdeviceptr dx = suite_upload(x, sizeof x), dy = suite_upload(NULL, sizeof y);
    CUdeviceptr dd = suite_upload(NULL, sizeof d);
    (void)state;
    launch("halves", 1, 32, 0, (void *[]){&n, &dx, &dy, &dd});
    OK(cuMemcpyDtoH, y, dy, sizeof y);
    OK(cuMemcpyDtoH, d, dd, sizeof d);
    assert_memory_equal(y, want, sizeof y);
    assert_memory_equal(&d[1], &(double){sqrt(5.0) / 3.0}, 8);
    OK(cuMemFree, dx);
    OK(cuMemFree, dy);
    OK(cuMemFree, dd);
}

static void structures_pass_by_value(void **state)
{
    struct {
        float v[4];
        int k, pad[3];
    } pair = {{1, 2, 3, 4}, 10, {0}};
    short s = -3;
    unsigned char c = 200;
    CUdeviceptr out = suite_upload(NULL, 16 * 33);
    (void)state;
    launch("by_value", 1, 33, 0, (void *[]){&pair, &out, &s, &c});
    float *got = download(out, 4 * 33);
    const float want[4] = {8, 400, 3, 4};
    for (int i = 0; i < 33; i++)
        assert_memory_equal(&got[4 * i], want, 16);
    free(got);
    OK(cuMemFree, out);
}

static void grid_and_block_have_three_dimensions(void **state)
{
    uint32_t got[2 * 3 * 2 * 4 * 3 * 5];
    CUdeviceptr out = suite_upload(NULL, sizeof got);
    (void)state;
    OK(cuLaunchKernel,
       suite_kernel("shape"),
       2,
       3,
       2,
       4,
       3,
       5,
       0,
       NULL,
       (void *[]){&out},
       NULL);
    OK(cuMemcpyDtoH, got, out, sizeof got);
    for (unsigned i = 0; i < sizeof got / 4; i++)
        assert_int_equal(got[i], i / 60 * 1000 + i % 60);
    OK(cuMemFree, out);
}

static void impossible_launches_are_refused(void **state)
{
    CUdeviceptr p = suite_upload(NULL, 4096);
    void *params[] = {&p};
    CUfunction f = suite_kernel("shape"), small = suite_kernel("small_blocks");
    (void)state;
    ERR(CUDA_ERROR_INVALID_VALUE,
        cuLaunchKernel,
        f,
        0,
        1,
        1,
        32,
        1,
        1,
        0,
        NULL,
        params,
        NULL);
    ERR(CUDA_ERROR_INVALID_VALUE,
        cuLaunchKernel,
        f,
        1,
        1,
        1,
        1025,
        1,
        1,
        0,
        NULL,
        params,
        NULL);
    ERR(CUDA_ERROR_INVALID_VALUE,
        cuLaunchKernel,
        f,
        1,
        70000,
        1,
        32,
        1,
        1,
        0,
        NULL,
        params,
        NULL);
    ERR(CUDA_ERROR_INVALID_VALUE,
        cuLaunchKernel,
        small,
        1,
        1,
        1,
        128,
        1,
        1,
        0,
        NULL,
        params,
        NULL);
    ERR(CUDA_ERROR_INVALID_VALUE,
        cuLaunchKernel,
        f,
        1,
        1,
        1,
        32,
        1,
        1,
        1 << 20,
        NULL,
        params,
        NULL);
    ERR(CUDA_ERROR_INVALID_HANDLE,
        cuLaunchKernel,
        NULL,
        1,
        1,
        1,
        32,
        1,
        1,
        0,
        NULL,
        params,
        NULL);
    OK(cuCtxSynchronize, );
    OK(cuMemFree, p);
}

static void sums_of_atomics_repeat(void **state)
{
    int n = 20000;
    float *x = random_floats(n), *first = NULL, *again;
    CUdeviceptr dx = suite_upload(x, (size_t)n * 4), out = suite_upload(NULL, 4);
    (void)state;
    for (int i = 0; i < 3; i++) {
        OK(cuMemsetD32, out, 0, 1);
        launch("sum_squares", 1, 256, 1024, (void *[]){&n, &dx, &out});
        again = download(out, 1);
        if (first)
            assert_memory_equal(first, again, 4);
        free(first);
        first = again;
    }
    free(first);
    free(x);
    OK(cuMemFree, dx);
    OK(cuMemFree, out);
}

static void faults_poison_the_context(void **state)
{
    (void)state;
    assert_int_equal(suite_run_fault("illegal-address"), 0);
    assert_int_equal(suite_run_fault("misaligned"), 0);
    assert_int_equal(suite_run_fault("trap"), 0);
}

#define WITH_CONTEXT(f)                                                                \
    cmocka_unit_test_setup_teardown(f, suite_set_up, suite_tear_down)
const struct CMUnitTest kernel_tests[] = {
    WITH_CONTEXT(saxpy_is_exact),
    WITH_CONTEXT(parameters_may_come_in_a_buffer),
    WITH_CONTEXT(gemm_is_exact),
    WITH_CONTEXT(reduction_with_dynamic_shared_memory),
    WITH_CONTEXT(softmax_is_close),
    WITH_CONTEXT(divergent_loops_come_together),
    WITH_CONTEXT(local_memory_is_the_threads_own),
    WITH_CONTEXT(variables_are_read_and_written),
    WITH_CONTEXT(atomics_combine),
    WITH_CONTEXT(lanes_talk),
    WITH_CONTEXT(halves_and_doubles),
    WITH_CONTEXT(structures_pass_by_value),
    WITH_CONTEXT(grid_and_block_have_three_dimensions),
    WITH_CONTEXT(impossible_launches_are_refused),
    WITH_CONTEXT(sums_of_atomics_repeat),
    WITH_CONTEXT(faults_poison_the_context),
};
const unsigned n_kernel_tests = sizeof kernel_tests / sizeof kernel_tests[0];
