/* SPDX-License-Identifier: Apache-2.0
 * data.c - device arrays of every type, as doubles. The codecs of the narrow floats are
 * written from their definitions, by search, so as to share nothing with the emulator's.
 */
#include "suite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    size_t size;
    int exp_bits, man_bits; /* of a float; 0, 0 for an integer */
} types[ncclNumTypes] = {
    [ncclInt8] = {"int8", 1, 0, 0},
    [ncclUint8] = {"uint8", 1, 0, 0},
    [ncclInt32] = {"int32", 4, 0, 0},
    [ncclUint32] = {"uint32", 4, 0, 0},
    [ncclInt64] = {"int64", 8, 0, 0},
    [ncclUint64] = {"uint64", 8, 0, 0},
    [ncclFloat16] = {"float16", 2, 5, 10},
    [ncclFloat32] = {"float32", 4, 8, 23},
    [ncclFloat64] = {"float64", 8, 11, 52},
    [ncclBfloat16] = {"bfloat16", 2, 8, 7},
    [ncclFloat8e4m3] = {"float8e4m3", 1, 4, 3},
    [ncclFloat8e5m2] = {"float8e5m2", 1, 5, 2},
};

size_t type_size(ncclDataType_t type)
{
    return types[type].size;
}
bool type_is_float(ncclDataType_t type)
{
    return types[type].exp_bits > 0;
}

/* A finite narrow float. */
static double narrow_value(ncclDataType_t type, unsigned bits)
{
    int e = types[type].exp_bits, m = types[type].man_bits, bias = (1 << (e - 1)) - 1;
    int exp = (int)(bits >> m) & ((1 << e) - 1), man = (int)bits & ((1 << m) - 1);
    double value =
        exp ? ldexp(1.0 + ldexp(man, -m), exp - bias) : ldexp(man, 1 - bias - m);

    return bits >> (e + m) ? -value : value;
}

static unsigned narrow_bits(ncclDataType_t type, double value)
{
    unsigned end = 1u << (8 * types[type].size - 1);

    for (unsigned bits = 0; bits < end; bits++)
        if (narrow_value(type, bits) == fabs(value))
            return value < 0 ? bits | end : bits;
    CHECK(false, "%g is no %s", value, types[type].name);
    return 0;
}

/* Searching is slow; small integers are what is asked for. */
static unsigned narrow_cached(ncclDataType_t type, double value)
{
    static unsigned cache[ncclNumTypes][64];
    int index = (int)value;

    if (value != index || index < 0 || index >= 64)
        return narrow_bits(type, value);
    if (cache[type][index] == 0)
        cache[type][index] = narrow_bits(type, value);
    return cache[type][index];
}

static void encode(ncclDataType_t type, void *to, double value)
{
    union {
        float f;
        double d;
        int64_t i;
        uint32_t n;
    } u = {.i = 0};

    if (type == ncclFloat32)
        u.f = (float)value;
    else if (type == ncclFloat64)
        u.d = value;
    else if (type_is_float(type))
        u.n = narrow_cached(type, value);
    else
        u.i = (int64_t)value;
    memcpy(to, &u, types[type].size);
}

static double decode(ncclDataType_t type, const void *from)
{
    union {
        float f;
        double d;
        int8_t i8;
        int32_t i32;
        int64_t i64;
        uint8_t u8;
        uint16_t u16;
        uint32_t u32;
        uint64_t u64;
    } u = {.u64 = 0};

    memcpy(&u, from, types[type].size);
    switch ((int)type) {
    case ncclInt8:
        return u.i8;
    case ncclUint8:
        return u.u8;
    case ncclInt32:
        return u.i32;
    case ncclUint32:
        return u.u32;
    case ncclInt64:
        return (double)u.i64;
    case ncclUint64:
        return (double)u.u64;
    case ncclFloat32:
        return (double)u.f;
    case ncclFloat64:
        return u.d;
    default:
        return narrow_value(type, types[type].size == 1 ? u.u8 : u.u16);
    }
}

double *doubles(size_t count)
{
    double *d = calloc(count ? count : 1, sizeof *d);

    CHECK(d, "memory for %zu doubles", count);
    return d;
}

struct array array_new(size_t count, ncclDataType_t type)
{
    CUdeviceptr at;

    CU(cuMemAlloc, &at, count ? count * type_size(type) : 1);
    return (struct array){.at = (void *)(uintptr_t)at, .count = count, .type = type};
}

void array_free(struct array *a)
{
    CU(cuMemFree, (CUdeviceptr)(uintptr_t)a->at);
    a->at = NULL;
}

void array_write(const struct array *a, const double *values)
{
    size_t size = type_size(a->type);
    char *host = malloc(a->count * size + 1);

    for (size_t i = 0; i < a->count; i++)
        encode(a->type, host + i * size, values[i]);
    if (a->count > 0)
        CU(cuMemcpyHtoD, (CUdeviceptr)(uintptr_t)a->at, host, a->count * size);
    free(host);
}

void array_read(const struct array *a, double *ret_values)
{
    size_t size = type_size(a->type);
    char *host = malloc(a->count * size + 1);

    if (a->count > 0)
        CU(cuMemcpyDtoH, host, (CUdeviceptr)(uintptr_t)a->at, a->count * size);
    for (size_t i = 0; i < a->count; i++)
        ret_values[i] = decode(a->type, host + i * size);
    free(host);
}

void array_expect(const struct array *a,
                  const double *want,
                  double ulps,
                  const char *what)
{
    double *got = doubles(a->count);
    double step = ldexp(1, -types[a->type].man_bits);

    array_read(a, got);
    for (size_t i = 0; i < a->count; i++)
        CHECK(fabs(got[i] - want[i]) <= ulps * step * fabs(want[i]),
              "%s of %s: element %zu of %zu is %g, not %g",
              what,
              types[a->type].name,
              i,
              a->count,
              got[i],
              want[i]);
    free(got);
}
