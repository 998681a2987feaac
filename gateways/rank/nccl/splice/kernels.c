/* SPDX-License-Identifier: Apache-2.0
 * kernels.c - data types, and the kernels of kernels.ptx (driver.h).
 */
#include "driver.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 256, BLOCKS_MAX = 1024, NAME_BYTES = 16 };

extern const char orri_splice_ptx[];

static const struct {
    const char *name;
    uint8_t bytes;
    bool is_whole;
    uint8_t exp_bits, man_bits; /* of a narrow float */
} types[ncclNumTypes] = {
    [ncclInt8] = {"i8", 1, true, 0, 0},
    [ncclUint8] = {"u8", 1, true, 0, 0},
    [ncclInt32] = {"i32", 4, true, 0, 0},
    [ncclUint32] = {"u32", 4, true, 0, 0},
    [ncclInt64] = {"i64", 8, true, 0, 0},
    [ncclUint64] = {"u64", 8, true, 0, 0},
    [ncclFloat16] = {"f16", 2, false, 5, 10},
    [ncclFloat32] = {"f32", 4, false, 0, 0},
    [ncclFloat64] = {"f64", 8, false, 0, 0},
    [ncclBfloat16] = {"bf16", 2, false, 8, 7},
    [ncclFloat8e4m3] = {"e4m3", 1, false, 4, 3},
    [ncclFloat8e5m2] = {"e5m2", 1, false, 5, 2},
};

size_t orri_type_bytes(ncclDataType_t type)
{
    return (unsigned)type < ncclNumTypes ? types[type].bytes : 0;
}

bool orri_type_is_whole(ncclDataType_t type)
{
    return types[type].is_whole;
}

/* 1/n is positive, and normal in every type for fewer than 64 ranks; below, in steps of the subnormals.  To nearest even. */
static uint64_t narrow_reciprocal(ncclDataType_t type, int n)
{
    int bias = (1 << (types[type].exp_bits - 1)) - 1, man = types[type].man_bits, exp;
    double x = (double)(float)(1.0 / n), steps;

    frexp(x, &exp); /* x = f 2^exp, f in [0.5, 1) */
    exp = exp - 1 < 1 - bias ? 1 - bias : exp - 1;
    steps = ldexp(x, man - exp) + 0x1p52; /* which has no fraction */
    return (uint64_t)(steps - 0x1p52) + ((uint64_t)(exp + bias - 1) << man);
}

uint64_t orri_type_reciprocal(ncclDataType_t type, int n)
{
    double d = 1.0 / n;
    float f = (float)d;
    uint64_t bits = 0;

    if (type == ncclFloat64)
        memcpy(&bits, &d, sizeof d);
    else if (type == ncclFloat32)
        memcpy(&bits, &f, sizeof f);
    else
        bits = narrow_reciprocal(type, n);
    return bits;
}

/* The text of one type's module; NULL: out of memory. */
static char *text_of(ncclDataType_t type)
{
    char mark[NAME_BYTES];
    const char *from, *to;

    snprintf(mark, sizeof mark, "// TYPE %s\n", types[type].name);
    from = strstr(orri_splice_ptx, mark);
    if (!from)
        return NULL;
    to = strstr(from + 1, "// TYPE ");
    return to ? strndup(from, (size_t)(to - from)) : strdup(from);
}

static ncclResult_t load(struct orri_kernels *k, ncclDataType_t type)
{
    static const char *const verbs[ORRI_VERBS] = {
        "sum", "prod", "max", "min", "mul", "div"};
    char name[NAME_BYTES], *text;
    ncclResult_t result;

    if (k->module[type])
        return ncclSuccess;
    text = text_of(type);
    if (!text)
        return orri_nccl_fail(ncclSystemError, "out of memory");
    result = CU(ModuleLoadData, &k->module[type], text);
    free(text);
    if (result != ncclSuccess)
        k->module[type] = NULL;
    for (int v = 0; v < ORRI_VERBS && result == ncclSuccess; v++) {
        if (v == ORRI_DIV && !types[type].is_whole)
            continue;
        snprintf(name, sizeof name, "%s_%s", verbs[v], types[type].name);
        result = CU(ModuleGetFunction, &k->fn[type][v], k->module[type], name);
    }
    return result;
}

void orri_kernels_fini(struct orri_kernels *k)
{
    for (int t = 0; t < ncclNumTypes; t++)
        if (k->module[t])
            orri_cu.ModuleUnload(k->module[t]);
    memset(k, 0, sizeof *k);
}

static ncclResult_t launch(CUfunction fn, size_t count, void **params, CUstream stream)
{
    size_t blocks = (count + THREADS - 1) / THREADS;

    return CU(LaunchKernel,
              fn,
              (unsigned)(blocks < BLOCKS_MAX ? blocks : BLOCKS_MAX),
              1,
              1,
              THREADS,
              1,
              1,
              0,
              stream,
              params,
              NULL);
}

ncclResult_t orri_kernel_combine(struct orri_kernels *k,
                                 enum orri_verb verb,
                                 ncclDataType_t type,
                                 CUdeviceptr out,
                                 const CUdeviceptr *in,
                                 int m,
                                 size_t count,
                                 CUstream stream)
{
    CUdeviceptr from[8] = {0};
    uint64_t n = count;
    uint32_t inputs = (uint32_t)m;
    void *params[] = {&out,
                      &from[0],
                      &from[1],
                      &from[2],
                      &from[3],
                      &from[4],
                      &from[5],
                      &from[6],
                      &from[7],
                      &n,
                      &inputs};
    ncclResult_t result = load(k, type);

    if (result != ncclSuccess || count == 0)
        return result;
    for (int i = 0; i < m; i++)
        from[i] = in[i];
    return launch(k->fn[type][verb], count, params, stream);
}

ncclResult_t orri_kernel_each(struct orri_kernels *k,
                              enum orri_verb verb,
                              ncclDataType_t type,
                              CUdeviceptr out,
                              CUdeviceptr in,
                              size_t count,
                              uint64_t scalar,
                              CUdeviceptr scalar_at,
                              CUstream stream)
{
    uint64_t n = count;
    void *params[] = {&out, &in, &n, &scalar, &scalar_at};
    ncclResult_t result = load(k, type);

    if (result != ncclSuccess || count == 0)
        return result;
    return launch(k->fn[type][verb], count, params, stream);
}
