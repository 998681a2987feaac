/* SPDX-License-Identifier: Apache-2.0
 * ptx_math.h - the arithmetic that C leaves to the machine: done here from IEEE
 * additions, multiplications and divisions alone (built with -ffp-contract=off), so
 * that every machine gives the same bits. Inline: the interpreter's lane loops
 * vectorise them.
 */
#ifndef EMU_PTX_MATH_H
#define EMU_PTX_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "ptx_code.h"

static inline uint32_t ptx_bits32(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float ptx_float32(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline uint64_t ptx_bits64(double x)
{
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline double ptx_float64(uint64_t u)
{
    double x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* Nearest integer, ties to even, for |x| < 2^51. */
static inline double ptx_nearest(double x)
{
    return (x + 0x1.8p52) - 0x1.8p52;
}

/* 2^x in double, |x| < 1000; relative error below 1e-12. */
static inline double ptx_exp2(double x)
{
    double n = ptx_nearest(x);
    double f = (x - n) * 0.69314718055994530942;
    double p = 1.0 / 3628800;
    p = p * f + 1.0 / 362880;
    p = p * f + 1.0 / 40320;
    p = p * f + 1.0 / 5040;
    p = p * f + 1.0 / 720;
    p = p * f + 1.0 / 120;
    p = p * f + 1.0 / 24;
    p = p * f + 1.0 / 6;
    p = p * f + 0.5;
    p = p * f + 1.0;
    p = p * f + 1.0;
    return p * ptx_float64((uint64_t)((int64_t)n + 1023) << 52);
}

static inline float ptx_ex2(float x)
{
    double limited = x < -200.0f ? -200.0 : x > 200.0f ? 200.0 : (double)x;
    return x != x ? x : (float)ptx_exp2(limited);
}

static inline float ptx_lg2(float x)
{
    if (!(x > 0.0f) || x > 3.402823466e38f)
        return x == 0.0f ? -INFINITY : x > 0.0f ? x : NAN;
    uint64_t bits = ptx_bits64((double)x);
    int64_t e = (int64_t)(bits - 0x3fe6a09e667f3bcdu) >> 52;
    double m = ptx_float64(bits - ((uint64_t)e << 52)); /* [sqrt(1/2), sqrt(2)) */
    double t = (m - 1.0) / (m + 1.0), t2 = t * t;
    double p = 1.0 / 17;
    p = p * t2 + 1.0 / 15;
    p = p * t2 + 1.0 / 13;
    p = p * t2 + 1.0 / 11;
    p = p * t2 + 1.0 / 9;
    p = p * t2 + 1.0 / 7;
    p = p * t2 + 1.0 / 5;
    p = p * t2 + 1.0 / 3;
    p = p * t2 + 1.0;
    return (float)((double)e + 2.0 * t * p * 1.44269504088896340736);
}

/* sin(x + quarter * pi/2). Like the real one, of no use for huge x. */
static inline float ptx_sin(float x, int64_t quarter)
{
    if (!(fabsf(x) < 1e9f))
        return fabsf(x) <= 3.402823466e38f ? 0.0f : NAN;
    double n = ptx_nearest((double)x * 0.63661977236758134308);
    double r =
        ((double)x - n * 1.57079632679489655800) - n * 6.12323399573676603587e-17;
    double r2 = r * r, s, c;
    s = -1.0 / 39916800;
    s = s * r2 + 1.0 / 362880;
    s = s * r2 - 1.0 / 5040;
    s = s * r2 + 1.0 / 120;
    s = s * r2 - 1.0 / 6;
    s = s * r2 + 1.0;
    c = 1.0 / 479001600;
    c = c * r2 - 1.0 / 3628800;
    c = c * r2 + 1.0 / 40320;
    c = c * r2 - 1.0 / 720;
    c = c * r2 + 1.0 / 24;
    c = c * r2 - 0.5;
    c = c * r2 + 1.0;
    int64_t q = (int64_t)n + quarter;
    double v = q & 1 ? c : s * r;
    return (float)(q & 2 ? -v : v);
}

static inline float ptx_tanh(float x)
{
    double a = fabsf(x) > 20.0f ? 20.0 : (double)fabsf(x);
    float t = (float)(1.0 - 2.0 / (ptx_exp2(a * 2.88539008177792681472) + 1.0));
    return x != x ? x : copysignf(t, x);
}

static inline float ptx_min32(float a, float b)
{
    float equal = ptx_float32(ptx_bits32(a) | ptx_bits32(b)); /* of -0 and +0: -0 */
    return a < b || b != b ? a : a == b ? equal : b;
}

static inline float ptx_max32(float a, float b)
{
    float equal = ptx_float32(ptx_bits32(a) & ptx_bits32(b));
    return a > b || b != b ? a : a == b ? equal : b;
}

static inline double ptx_min64(double a, double b)
{
    double equal = ptx_float64(ptx_bits64(a) | ptx_bits64(b));
    return a < b || b != b ? a : a == b ? equal : b;
}

static inline double ptx_max64(double a, double b)
{
    double equal = ptx_float64(ptx_bits64(a) & ptx_bits64(b));
    return a > b || b != b ? a : a == b ? equal : b;
}

/* Round the exact value hi + lo (lo: the error of hi) to float in a direction. */
static inline float ptx_round32(double hi, double lo, enum ptx_rounding mode)
{
    float y = (float)hi;
    double rest = (hi - (double)y) + lo; /* its sign is right, and 0 means exact */
    bool is_up = mode == PTX_RP || (mode == PTX_RZ && y < 0.0f);
    if (mode == PTX_RN || rest == 0.0 || rest != rest)
        return y;
    if (rest < 0.0 && !is_up)
        return nextafterf(y, -INFINITY);
    if (rest > 0.0 && is_up)
        return nextafterf(y, INFINITY);
    return y;
}

/* a * b + c, rounded once. The product of two floats is exact in double. */
static inline float ptx_fma32(float a, float b, float c, enum ptx_rounding mode)
{
    double p = (double)a * (double)b, s = p + (double)c;
    double cc = s - p, lo = (p - (s - cc)) + ((double)c - cc);
    return mode == PTX_RN ? fmaf(a, b, c) : ptx_round32(s, lo == lo ? lo : 0.0, mode);
}

static inline float ptx_from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 1023;
    if (e == 31)
        return ptx_float32(sign | 0x7f800000 | m << 13);
    if (e == 0)
        return ptx_float32(sign | ptx_bits32((float)m * 0x1p-24f));
    return ptx_float32(sign | (e + 112) << 23 | m << 13);
}

static inline uint16_t ptx_to_f16(float x)
{
    uint32_t u = ptx_bits32(x), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    if (a > 0x7f800000)
        return 0x7fff;
    if (a >= 0x477ff000) /* rounds to more than the largest */
        return (uint16_t)(sign | 0x7c00);
    if (a < 0x38800000) /* subnormal: let the addition round */
        return (uint16_t)(sign | (ptx_bits32(ptx_float32(a) + 0.5f) & 0x7ff));
    a += 0xc8000fff + (a >> 13 & 1);
    return (uint16_t)(sign | a >> 13);
}

static inline uint16_t ptx_to_bf16(float x)
{
    uint32_t u = ptx_bits32(x);
    return x != x ? 0x7fff : (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

#endif
