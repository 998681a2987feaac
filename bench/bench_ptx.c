/* SPDX-License-Identifier: Apache-2.0
 * bench_ptx.c - how fast the emulated device runs kernels: one JSON line for each of three
 * kernels of the conformance suite, with PTX instructions (times threads) a second on one
 * core. Usage: bench_ptx KERNELS.PTX [SECONDS]
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ptx.h"

enum { ELEMENTS = 1 << 18, TEXT_BYTES_MAX = 1 << 20 };
static float x[ELEMENTS], y[ELEMENTS], z[ELEMENTS];
static struct ptx_scratch scratch;

/* The arrays as if they were device memory: all granules valid. */
static struct emu_range_map map_of_arrays(void)
{
    struct emu_range_map map = {.base = 0};
    uint64_t low = UINT64_MAX, high = 0;
    const float *arrays[] = {x, y, z};
    for (int i = 0; i < 3; i++) {
        low = (uint64_t)arrays[i] < low ? (uint64_t)arrays[i] : low;
        high = (uint64_t)(arrays[i] + ELEMENTS) > high
                   ? (uint64_t)(arrays[i] + ELEMENTS)
                   : high;
    }
    map.base = low;
    map.bytes = high - low;
    map.valid = malloc((map.bytes >> EMU_GRANULE_SHIFT) + 1);
    if (map.valid)
        memset(map.valid, 1, (map.bytes >> EMU_GRANULE_SHIFT) + 1);
    return map;
}

/* Processor time: other programs on the machine do not count. */
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Run for about `seconds`; work: floating-point operations of one launch. */
static int
measure(struct ptx_launch launch, const char *name, double work, double seconds)
{
    struct ptx_outcome outcome;
    double instructions = 0, start = now(), took;
    long runs = 0;
    if (!launch.fn) {
        fprintf(stderr, "%s: no such kernel in the file\n", name);
        return 1;
    }
    do {
        if (ptx_run(&launch, &scratch, &outcome) != PTX_OK) {
            fprintf(stderr, "%s: failed at line %u\n", name, outcome.fault_line);
            return 1;
        }
        instructions += (double)outcome.n_instructions;
        runs++;
        took = now() - start;
    } while (took < seconds);
    printf("{\"bench\":\"ptx_%s\",\"value\":%.1f,\"unit\":\"M PTX instructions/s of a "
           "core\",\"peer\":null,"
           "\"peer_value\":null,\"ratio\":null,\"mflop_per_s\":%.1f}\n",
           name,
           instructions / took * 1e-6,
           work * (double)runs / took * 1e-6);
    return 0;
}

static struct ptx_module *load(const char *path)
{
    static char text[TEXT_BYTES_MAX];
    struct ptx_module *m = NULL;
    struct ptx_log log;
    FILE *f = fopen(path, "r");
    if (!f) {
        perror(path);
        return NULL;
    }
    size_t len = fread(text, 1, sizeof text, f);
    fclose(f);
    if (ptx_module_new(text, len, &m, &log) != PTX_OK)
        fprintf(stderr, "%s:%u: %s\n", path, log.line, log.reason);
    return m;
}

int main(int argc, char **argv)
{
    double seconds = argc > 2 ? atof(argv[2]) : 1.0;
    struct ptx_module *m = argc > 1 ? load(argv[1]) : NULL;
    struct emu_range_map map = map_of_arrays();
    if (!m || !map.valid) {
        fprintf(stderr, "usage: %s KERNELS.PTX [SECONDS]\n", argv[0]);
        free(map.valid);
        return 2;
    }
    for (int i = 0; i < ELEMENTS; i++)
        x[i] = y[i] = (float)(i % 1000) * 1e-3f;
    const struct {
        int32_t n;
        float a;
        float *x, *y;
    } saxpy = {ELEMENTS, 0.5f, x, y};
    const struct {
        int32_t m, n, k, pad;
        float *a, *b, *c;
    } gemm = {256, 256, 256, 0, x, y, z};
    const struct {
        int32_t n, pad;
        uint32_t *steps;
    } collatz = {4096, 0, (uint32_t *)(void *)z};
    int rc = measure((struct ptx_launch){.fn = ptx_module_function(m, "saxpy"),
                                         .grid = {ELEMENTS / 256, 1, 1},
                                         .block = {256, 1, 1},
                                         .params = &saxpy,
                                         .map = &map},
                     "saxpy",
                     2.0 * ELEMENTS,
                     seconds);
    rc |= measure((struct ptx_launch){.fn = ptx_module_function(m, "gemm_tiled"),
                                      .grid = {16, 16, 1},
                                      .block = {16, 16, 1},
                                      .params = &gemm,
                                      .map = &map},
                  "gemm_tiled",
                  2.0 * 256 * 256 * 256,
                  seconds);
    rc |= measure((struct ptx_launch){.fn = ptx_module_function(m, "collatz"),
                                      .grid = {32, 1, 1},
                                      .block = {128, 1, 1},
                                      .params = &collatz,
                                      .map = &map},
                  "collatz",
                  0.0,
                  seconds);
    ptx_scratch_fini(&scratch);
    ptx_module_free(m);
    free(map.valid);
    return rc;
}
