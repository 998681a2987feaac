/* SPDX-License-Identifier: Apache-2.0
 * numeric.c - the element types and their arithmetic (numeric.h).
 *
 * One kernel per (type, operator), made by macros: the loops are plain enough for the
 * compiler to vectorize. Integers are computed in unsigned types, since their overflow
 * is defined and is what a GPU does.
 */
#include "numeric.h"

#include <math.h>
#include <string.h>

/* ---- Narrow floats ------------------------------------------------------------------
 * One codec for all of them, from (exponent bits, mantissa bits). `has_inf` is false
 * for e4m3, whose all-ones exponent holds numbers and one NaN. */
struct narrow {
    int exp_bits, man_bits;
    bool has_inf, saturates;
};

static const struct narrow F16 = {5, 10, true, false};
static const struct narrow E4M3 = {4, 3, false, true};
static const struct narrow E5M2 = {5, 2, true, true};

static inline uint32_t float_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float bits_float(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline float narrow_decode(const struct narrow *t, uint32_t bits)
{
    uint32_t exp_max = (1u << t->exp_bits) - 1, man_max = (1u << t->man_bits) - 1;
    uint32_t sign = (bits >> (t->exp_bits + t->man_bits)) & 1;
    uint32_t exp = (bits >> t->man_bits) & exp_max, man = bits & man_max;
    uint32_t bias = exp_max >> 1, shift = 23 - (uint32_t)t->man_bits;
    uint32_t wide;

    if (exp == exp_max && (t->has_inf || man == man_max))
        wide = 0x7f800000u | (t->has_inf ? man << shift : 0x400000u);
    else if (exp > 0)
        wide = ((exp + 127 - bias) << 23) | (man << shift);
    else /* subnormal: an exact small product */
        wide = float_bits((float)man *
                          bits_float((127 + 1 - bias - (uint32_t)t->man_bits) << 23));
    return bits_float(wide | sign << 31);
}

static inline uint32_t narrow_encode(const struct narrow *t, float value)
{
    uint32_t u = float_bits(value), mag = u & 0x7fffffffu;
    uint32_t exp_max = (1u << t->exp_bits) - 1, man_max = (1u << t->man_bits) - 1;
    uint32_t sign = (u >> 31) << (t->exp_bits + t->man_bits);
    uint32_t inf = exp_max << t->man_bits;
    uint32_t largest = t->has_inf ? inf - 1 : inf + man_max - 1;
    int exp = (int)(mag >> 23) - 127 + (int)(exp_max >> 1);
    uint32_t man = (mag & 0x7fffffu) | 0x800000u, drop = 23 - (uint32_t)t->man_bits;
    uint32_t bits, half;

    if (mag > 0x7f800000u)
        return sign | (t->has_inf ? inf | (man_max + 1) >> 1 : inf | man_max);
    if (exp <= 0) {
        drop += (uint32_t)(1 - exp > 24 ? 24 : 1 - exp);
        exp = 1;
    }
    if (drop > 24)
        return sign; /* below half of the smallest subnormal */
    half = 1u << (drop - 1);
    bits = man >> drop;
    man &= (1u << drop) - 1;
    if (man > half || (man == half && (bits & 1)))
        bits++;
    bits += (uint32_t)(exp - 1)
            << t->man_bits; /* the implicit bit is the exponent's 1 */
    if (bits > largest)
        bits = t->saturates ? largest : inf;
    return sign | bits;
}

static inline float bf16_decode(uint16_t bits)
{
    return bits_float((uint32_t)bits << 16);
}

static inline uint16_t bf16_encode(float value)
{
    uint32_t u = float_bits(value);

    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}

static inline float f16_decode(uint16_t b)
{
    return narrow_decode(&F16, b);
}
static inline uint16_t f16_encode(float v)
{
    return (uint16_t)narrow_encode(&F16, v);
}
static inline float e4m3_decode(uint8_t b)
{
    return narrow_decode(&E4M3, b);
}
static inline uint8_t e4m3_encode(float v)
{
    return (uint8_t)narrow_encode(&E4M3, v);
}
static inline float e5m2_decode(uint8_t b)
{
    return narrow_decode(&E5M2, b);
}
static inline uint8_t e5m2_encode(float v)
{
    return (uint8_t)narrow_encode(&E5M2, v);
}

float orri_float_decode(ncclDataType_t type, uint16_t bits)
{
    if (type == ncclFloat16)
        return f16_decode(bits);
    if (type == ncclBfloat16)
        return bf16_decode(bits);
    return type == ncclFloat8e4m3 ? e4m3_decode((uint8_t)bits)
                                  : e5m2_decode((uint8_t)bits);
}

uint16_t orri_float_encode(ncclDataType_t type, float value)
{
    if (type == ncclFloat16)
        return f16_encode(value);
    if (type == ncclBfloat16)
        return bf16_encode(value);
    return type == ncclFloat8e4m3 ? e4m3_encode(value) : e5m2_encode(value);
}

/* ---- Kernels ------------------------------------------------------------------------
 */

typedef void combine_f(void *dst, const void *a, const void *b, size_t count);

#define KERNEL(name, T, expr)                                                          \
    static void name(void *dst_, const void *a_, const void *b_, size_t count)         \
    {                                                                                  \
        T *dst = dst_;                                                                 \
        const T *a = a_, *b = b_;                                                      \
        for (size_t i = 0; i < count; i++) {                                           \
            const T x = a[i], y = b[i];                                                \
            dst[i] = (expr);                                                           \
        }                                                                              \
    }

/* T: the type; U: an unsigned type as wide as an int or wider, for the arithmetic. */
#define INT_KERNELS(T, U)                                                              \
    KERNEL(sum_##T, T, (T)((U)x + (U)y))                                               \
    KERNEL(prod_##T, T, (T)((U)x * (U)y))                                              \
    KERNEL(max_##T, T, x > y ? x : y)                                                  \
    KERNEL(min_##T, T, x < y ? x : y)

#define MAX_FLOAT(x, y) ((x) < (y) || (x) != (x) ? (y) : (x))
#define MIN_FLOAT(x, y) ((y) < (x) || (x) != (x) ? (y) : (x))

#define FLOAT_KERNELS(T)                                                               \
    KERNEL(sum_##T, T, x + y)                                                          \
    KERNEL(prod_##T, T, x *y)                                                          \
    KERNEL(max_##T, T, MAX_FLOAT(x, y))                                                \
    KERNEL(min_##T, T, MIN_FLOAT(x, y))

#define NARROW_KERNELS(N, T)                                                           \
    KERNEL(sum_##N, T, N##_encode(N##_decode(x) + N##_decode(y)))                      \
    KERNEL(prod_##N, T, N##_encode(N##_decode(x) * N##_decode(y)))                     \
    KERNEL(                                                                            \
        max_##N, T, MAX_FLOAT(N##_decode(x), N##_decode(y)) == N##_decode(y) ? y : x)  \
    KERNEL(min_##N, T, MIN_FLOAT(N##_decode(x), N##_decode(y)) == N##_decode(y) ? y : x)

INT_KERNELS(int8_t, uint32_t)
INT_KERNELS(uint8_t, uint32_t)
INT_KERNELS(int32_t, uint32_t)
INT_KERNELS(uint32_t, uint32_t)
INT_KERNELS(int64_t, uint64_t)
INT_KERNELS(uint64_t, uint64_t)
FLOAT_KERNELS(float)
FLOAT_KERNELS(double)
NARROW_KERNELS(f16, uint16_t)
NARROW_KERNELS(bf16, uint16_t)
NARROW_KERNELS(e4m3, uint8_t)
NARROW_KERNELS(e5m2, uint8_t)

#define ROW(T)                                                                         \
    {                                                                                  \
        sum_##T, prod_##T, max_##T, min_##T                                            \
    }

static const struct {
    const char *name;
    size_t size;
    bool is_float;
    combine_f *combine[4]; /* by ncclSum, ncclProd, ncclMax, ncclMin */
} types[ncclNumTypes] = {
    [ncclInt8] = {"int8", 1, false, ROW(int8_t)},
    [ncclUint8] = {"uint8", 1, false, ROW(uint8_t)},
    [ncclInt32] = {"int32", 4, false, ROW(int32_t)},
    [ncclUint32] = {"uint32", 4, false, ROW(uint32_t)},
    [ncclInt64] = {"int64", 8, false, ROW(int64_t)},
    [ncclUint64] = {"uint64", 8, false, ROW(uint64_t)},
    [ncclFloat16] = {"float16", 2, true, ROW(f16)},
    [ncclFloat32] = {"float32", 4, true, ROW(float)},
    [ncclFloat64] = {"float64", 8, true, ROW(double)},
    [ncclBfloat16] = {"bfloat16", 2, true, ROW(bf16)},
    [ncclFloat8e4m3] = {"float8e4m3", 1, true, ROW(e4m3)},
    [ncclFloat8e5m2] = {"float8e5m2", 1, true, ROW(e5m2)},
};

static bool is_type(ncclDataType_t type)
{
    return (unsigned)type < (unsigned)ncclNumTypes;
}

size_t orri_type_size(ncclDataType_t type)
{
    return is_type(type) ? types[type].size : 0;
}

const char *orri_type_name(ncclDataType_t type)
{
    return is_type(type) ? types[type].name : "unknown type";
}

bool orri_type_is_float(ncclDataType_t type)
{
    return is_type(type) && types[type].is_float;
}

void orri_combine(void *dst,
                  const void *a,
                  const void *b,
                  size_t count,
                  ncclDataType_t type,
                  ncclRedOp_t op)
{
    types[type].combine[op](dst, a, b, count);
}

void orri_scale(void *dst,
                const void *src,
                size_t count,
                ncclDataType_t type,
                union orri_scalar scalar)
{
    enum { BLOCK = 256 };
    size_t size = types[type].size;
    uint64_t block[BLOCK];

    for (size_t i = 0; i < BLOCK; i++)
        memcpy((char *)block + i * size, scalar.bytes, size);
    for (size_t at = 0; at < count; at += BLOCK) {
        size_t n = count - at < BLOCK ? count - at : BLOCK;
        types[type].combine[ncclProd](
            (char *)dst + at * size, (const char *)src + at * size, block, n);
    }
}

#define DIVIDE(T)                                                                      \
    for (size_t i = 0; i < count; i++)                                                 \
        ((T *)data)[i] = (T)(((T *)data)[i] / (T)divisor);                             \
    break

void orri_divide(void *data, size_t count, ncclDataType_t type, unsigned divisor)
{
    switch ((int)type) {
    case ncclInt8:
        for (size_t i = 0; i < count; i++)
            ((int8_t *)data)[i] = (int8_t)(((int8_t *)data)[i] / (int)divisor);
        break;
    case ncclUint8:
        for (size_t i = 0; i < count; i++)
            ((uint8_t *)data)[i] = (uint8_t)(((uint8_t *)data)[i] / divisor);
        break;
    case ncclInt32:
        DIVIDE(int32_t);
    case ncclUint32:
        DIVIDE(uint32_t);
    case ncclInt64:
        DIVIDE(int64_t);
    case ncclUint64:
        DIVIDE(uint64_t);
    default:
        break;
    }
}

union orri_scalar orri_reciprocal(ncclDataType_t type, unsigned n)
{
    union orri_scalar s = {.word = 0};
    double d = 1.0 / n;
    float f = (float)d;
    uint16_t narrow;

    if (type == ncclFloat64) {
        memcpy(s.bytes, &d, sizeof d);
    } else if (type == ncclFloat32) {
        memcpy(s.bytes, &f, sizeof f);
    } else {
        narrow = orri_float_encode(type, f);
        memcpy(s.bytes, &narrow, types[type].size);
    }
    return s;
}
