/* SPDX-License-Identifier: Apache-2.0
 * test_ptx.c - every family of instructions against the same thing written in C, on edge
 * values and random ones, with whole warps and with a part of one.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orr_test.h"
#include "ptx.h"

enum { N = 77 }; /* two warps and a piece */
static uint64_t A[N], B[N], C[N], D[N];
static const struct emu_range_map no_map;
static struct ptx_scratch scratch;

static bool all_memory(uint64_t address, uint64_t bytes)
{
    (void)address;
    (void)bytes;
    return true;
}

static struct ptx_module *load(const char *text)
{
    struct ptx_module *m = NULL;
    struct ptx_log log;
    enum ptx_status status = ptx_module_new(text, strlen(text), &m, &log);
    if (status != PTX_OK)
        print_error("line %u: %s\n%s\n", log.line, log.reason, text);
    assert_int_equal(status, PTX_OK);
    return m;
}

static enum ptx_status launch(const struct ptx_module *m,
                              const char *name,
                              uint32_t grid,
                              uint32_t block,
                              const void *params)
{
    struct ptx_outcome outcome;
    struct ptx_launch l = {.fn = ptx_module_function(m, name),
                           .grid = {grid, 1, 1},
                           .block = {block, 1, 1},
                           .params = params,
                           .map = &no_map,
                           .may_touch = all_memory};
    assert_non_null(l.fn);
    return ptx_run(&l, &scratch, &outcome);
}

/* d = op(a, b, c) for N threads; types as in .reg; elements are 8 bytes apart. */
static void
run_op(const char *op, const char *td, const char *ta, const char *tb, const char *tc)
{
    char text[4096];
    snprintf(text,
             sizeof text,
             ".version 8.0\n.target sm_70\n.address_size 64\n"
             ".visible .entry k(.param .u64 pa, .param .u64 pb, .param .u64 pc, .param "
             ".u64 pd)\n"
             "{\n.reg .b64 %%x<8>;\n.reg .b32 %%i;\n.reg .pred %%p<4>;\n"
             ".reg .%s %%d;\n.reg .%s %%a;\n.reg .%s %%b;\n.reg .%s %%c;\n"
             "ld.param.u64 %%x1, [pa];\nld.param.u64 %%x2, [pb];\n"
             "ld.param.u64 %%x3, [pc];\nld.param.u64 %%x4, [pd];\n"
             "mov.u32 %%i, %%tid.x;\nmul.wide.u32 %%x0, %%i, 8;\n"
             "add.s64 %%x1, %%x1, %%x0;\nadd.s64 %%x2, %%x2, %%x0;\n"
             "add.s64 %%x3, %%x3, %%x0;\nadd.s64 %%x4, %%x4, %%x0;\n"
             "ld.global.%s %%a, [%%x1];\nld.global.%s %%b, [%%x2];\nld.global.%s %%c, "
             "[%%x3];\n"
             "%s\nst.global.%s [%%x4], %%d;\nret;\n}\n",
             td,
             ta,
             tb,
             tc,
             ta,
             tb,
             tc,
             op,
             td);
    struct ptx_module *m = load(text);
    const uint64_t params[4] = {(uint64_t)A, (uint64_t)B, (uint64_t)C, (uint64_t)D};
    memset(D, 0, sizeof D);
    assert_int_equal(launch(m, "k", 1, N, params), PTX_OK);
    ptx_module_free(m);
}

static uint64_t random64(void)
{
    static uint64_t s = 88172645463325252u;
    s ^= s << 13;
    s ^= s >> 7;
    s ^= s << 17;
    return s;
}

static void fill_integers(void)
{
    static const uint64_t edges[] = {0,
                                     1,
                                     UINT64_MAX,
                                     (uint64_t)INT64_MIN,
                                     INT32_MAX,
                                     0x80000000u,
                                     0x8000,
                                     0x7fff,
                                     31,
                                     32,
                                     63,
                                     64};
    enum { EDGES = sizeof edges / sizeof edges[0] };
    for (unsigned i = 0; i < N; i++) {
        A[i] = i < EDGES ? edges[i] : random64();
        B[i] = i < EDGES ? edges[(i * 5 + 3) % EDGES]
               : i % 3   ? random64()
                         : random64() % 70;
        C[i] = i < EDGES ? edges[(i * 7 + 1) % EDGES] : random64();
    }
}

static float as_f32(uint64_t v)
{
    float f;
    memcpy(&f, &v, sizeof f);
    return f;
}
static double as_f64(uint64_t v)
{
    double f;
    memcpy(&f, &v, sizeof f);
    return f;
}
static uint64_t of_f32(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}
static uint64_t of_f64(double f)
{
    uint64_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static void fill_f32(void)
{
    static const float edges[] = {
        0.0f, -0.0f, 1.0f, -1.5f, 3.4e38f, 1e-40f, INFINITY, 0.5f};
    for (unsigned i = 0; i < N; i++) {
        A[i] = of_f32(i < 8 ? edges[i] : (float)(int32_t)random64() * 1e-8f);
        B[i] =
            of_f32(i < 8 ? edges[(i * 3 + 1) % 8] : (float)(int32_t)random64() * 3e-9f);
        C[i] =
            of_f32(i < 8 ? edges[(i * 5 + 2) % 8] : (float)(int32_t)random64() * 1e-9f);
    }
}

static void fill_f64(void)
{
    for (unsigned i = 0; i < N; i++) {
        A[i] = of_f64((double)(int64_t)random64() * 1e-17);
        B[i] = of_f64((double)(int64_t)random64() * 1e-18);
        C[i] = of_f64(i == 0 ? -0.0 : (double)(int64_t)random64() * 1e-16);
    }
}

#define CHECK(op, td, ta, tb, tc, expected)                                            \
    do {                                                                               \
        run_op(op, td, ta, tb, tc);                                                    \
        for (unsigned i = 0; i < N; i++) {                                             \
            const uint64_t a = A[i], b = B[i], c = C[i];                               \
            (void)a, (void)b, (void)c;                                                 \
            const uint64_t want = (uint64_t)(expected);                                \
            if (D[i] != want)                                                          \
                fail_msg("%s: thread %u: %llx, %llx, %llx gives %llx, not %llx",       \
                         op,                                                           \
                         i,                                                            \
                         (unsigned long long)a,                                        \
                         (unsigned long long)b,                                        \
                         (unsigned long long)c,                                        \
                         (unsigned long long)D[i],                                     \
                         (unsigned long long)want);                                    \
        }                                                                              \
    } while (0)
#define U16(op, e) CHECK(op, "b16", "b16", "b16", "b16", (uint16_t)(e))
#define U32(op, e) CHECK(op, "b32", "b32", "b32", "b32", (uint32_t)(e))
#define U64(op, e) CHECK(op, "b64", "b64", "b64", "b64", (uint64_t)(e))
#define F32(op, e) CHECK(op, "f32", "f32", "f32", "f32", of_f32(e))
#define F64(op, e) CHECK(op, "f64", "f64", "f64", "f64", of_f64(e))
#define s16(v)     ((int16_t)(v))
#define s32(v)     ((int32_t)(v))
#define s64(v)     ((int64_t)(v))
#define u16(v)     ((uint16_t)(v))
#define u32(v)     ((uint32_t)(v))
__extension__ typedef __int128 s128;

static void integers_match_c(void **state)
{
    (void)state;
    fill_integers();
    U16("add.s16 %d, %a, %b;", a + b);
    U32("add.u32 %d, %a, %b;", a + b);
    U64("add.s64 %d, %a, %b;", a + b);
    U32("sub.s32 %d, %a, %b;", a - b);
    U64("sub.u64 %d, %a, %b;", a - b);
    U16("mul.lo.u16 %d, %a, %b;", a * b);
    U32("mul.lo.s32 %d, %a, %b;", a * b);
    U64("mul.lo.u64 %d, %a, %b;", a * b);
    U32("mul.hi.s32 %d, %a, %b;", (s64(s32(a)) * s32(b)) >> 32);
    U32("mul.hi.u32 %d, %a, %b;", ((uint64_t)u32(a) * u32(b)) >> 32);
    U64("mul.hi.s64 %d, %a, %b;", ((s128)s64(a) * s64(b)) >> 64);
    U32("mad.lo.s32 %d, %a, %b, %c;", a * b + c);
    U64("mad.lo.u64 %d, %a, %b, %c;", a * b + c);
    U32("mad.hi.u32 %d, %a, %b, %c;", (((uint64_t)u32(a) * u32(b)) >> 32) + c);
    CHECK("mul.wide.s32 %d, %a, %b;",
          "b64",
          "b32",
          "b32",
          "b32",
          (uint64_t)(s64(s32(a)) * s32(b)));
    CHECK("mul.wide.u16 %d, %a, %b;",
          "b32",
          "b16",
          "b16",
          "b16",
          (uint64_t)u16(a) * u16(b));
    CHECK("mad.wide.u32 %d, %a, %b, %c;",
          "b64",
          "b32",
          "b32",
          "b64",
          (uint64_t)u32(a) * u32(b) + c);
    U32("div.s32 %d, %a, %b;", s32(b) == 0 ? 0 : s64(s32(a)) / s32(b));
    U32("div.u32 %d, %a, %b;", u32(b) ? u32(a) / u32(b) : 0);
    U64("div.u64 %d, %a, %b;", b ? a / b : 0);
    U32("rem.u32 %d, %a, %b;", u32(b) ? u32(a) % u32(b) : 0);
    U32("rem.s32 %d, %a, %b;", s32(b) == 0 ? 0 : s64(s32(a)) % s32(b));
    U32("min.s32 %d, %a, %b;", s32(a) < s32(b) ? a : b);
    U32("max.u32 %d, %a, %b;", u32(a) > u32(b) ? a : b);
    U64("max.s64 %d, %a, %b;", s64(a) > s64(b) ? a : b);
    U16("min.u16 %d, %a, %b;", u16(a) < u16(b) ? a : b);
    U32("neg.s32 %d, %a;", 0 - a);
    U32("abs.s32 %d, %a;", s32(a) < 0 ? 0 - a : a);
    U64("abs.s64 %d, %a;", s64(a) < 0 ? 0 - a : a);
}

static uint64_t reversed(uint32_t v)
{
    uint32_t r = 0;
    for (int i = 0; i < 32; i++)
        r |= (v >> i & 1) << (31 - i);
    return r;
}

static void bits_match_c(void **state)
{
    (void)state;
    fill_integers();
    U32("and.b32 %d, %a, %b;", a & b);
    U64("or.b64 %d, %a, %b;", a | b);
    U16("xor.b16 %d, %a, %b;", a ^ b);
    U32("not.b32 %d, %a;", ~a);
    U64("mov.b64 %d, %a;", a);
    U32("shl.b32 %d, %a, %b;", u32(b) > 31 ? 0 : u32(a) << u32(b));
    U32("shr.u32 %d, %a, %b;", u32(b) > 31 ? 0 : u32(a) >> u32(b));
    U32("shr.s32 %d, %a, %b;", s32(a) >> (u32(b) > 31 ? 31 : u32(b)));
    CHECK("shl.b64 %d, %a, %b;",
          "b64",
          "b64",
          "b32",
          "b32",
          u32(b) > 63 ? 0 : a << u32(b));
    CHECK("shr.s64 %d, %a, %b;",
          "b64",
          "b64",
          "b32",
          "b32",
          (uint64_t)(s64(a) >> (u32(b) > 63 ? 63 : u32(b))));
    U32("popc.b32 %d, %a;", __builtin_popcount(u32(a)));
    CHECK("clz.b64 %d, %a;",
          "b32",
          "b64",
          "b32",
          "b32",
          a ? (uint64_t)__builtin_clzll(a) : 64);
    U32("brev.b32 %d, %a;", reversed(u32(a)));
    U32("bfe.u32 %d, %a, 5, 9;", u32(a) >> 5 & 0x1ff);
    U32("bfe.s32 %d, %a, 28, 9;", s32(a) >> 28);
    U32("bfi.b32 %d, %a, %b, 8, 12;", (u32(b) & ~0xfff00u) | (u32(a) & 0xfff) << 8);
    U32("prmt.b32 %d, %a, %b, 0x7531;",
        (a >> 8 & 255) | (a >> 24 & 255) << 8 | (b >> 8 & 255) << 16 |
            (b >> 24 & 255) << 24);
    U32("lop3.b32 %d, %a, %b, %c, 0xe8;", (a & b) | (a & c) | (b & c));
    U32("shf.l.wrap.b32 %d, %a, %a, 7;", u32(a) << 7 | u32(a) >> 25);
    U32("shf.r.clamp.b32 %d, %a, %b, 40;", b);
    U32("{.reg .b16 %h<2>; mov.b32 {%h0, %h1}, %a; mov.b32 %d, {%h1, %h0};}",
        u32(a) << 16 | u32(a) >> 16);
    CHECK("mov.b64 %d, {%a, %b};",
          "b64",
          "b32",
          "b32",
          "b32",
          u32(a) | (uint64_t)u32(b) << 32);
    CHECK("mov.b64 {_, %d}, %a;", "b32", "b64", "b32", "b32", a >> 32);
}

static void floats_match_ieee(void **state)
{
    (void)state;
    fill_f32();
    F32("add.f32 %d, %a, %b;", as_f32(a) + as_f32(b));
    F32("sub.rn.f32 %d, %a, %b;", as_f32(a) - as_f32(b));
    F32("mul.f32 %d, %a, %b;", as_f32(a) * as_f32(b));
    F32("fma.rn.f32 %d, %a, %b, %c;", fmaf(as_f32(a), as_f32(b), as_f32(c)));
    F32("mad.rn.f32 %d, %a, %b, %c;", fmaf(as_f32(a), as_f32(b), as_f32(c)));
    F32("neg.f32 %d, %a;", -as_f32(a));
    F32("abs.f32 %d, %a;", fabsf(as_f32(a)));
    F32("add.sat.f32 %d, %a, %b;", fminf(fmaxf(as_f32(a) + as_f32(b), 0.0f), 1.0f));
    F32("copysign.f32 %d, %a, %b;", copysignf(as_f32(b), as_f32(a)));
    for (unsigned i = 0; i < N; i++) {
        A[i] &= 0x7fffffff;
        B[i] = of_f32(as_f32(B[i]) + 3.0f);
    }
    F32("div.rn.f32 %d, %a, %b;", as_f32(a) / as_f32(b));
    F32("sqrt.rn.f32 %d, %a;", sqrtf(as_f32(a)));
    F32("rcp.rn.f32 %d, %a;", 1.0f / as_f32(a));
    fill_f64();
    F64("add.f64 %d, %a, %b;", as_f64(a) + as_f64(b));
    F64("fma.rn.f64 %d, %a, %b, %c;", fma(as_f64(a), as_f64(b), as_f64(c)));
    F64("div.rn.f64 %d, %a, %b;", as_f64(a) / as_f64(b));
    F64("min.f64 %d, %a, %b;", fmin(as_f64(a), as_f64(b)));
    F64("mul.f64 %d, %a, 0d4008000000000000;", as_f64(a) * 3.0);
    F64("abs.f64 %d, %a;", fabs(as_f64(a)));
}

static void min_max_ignore_nan_and_order_zeros(void **state)
{
    (void)state;
    fill_f32();
    A[0] = of_f32(NAN), B[0] = of_f32(2.0f);
    A[1] = of_f32(2.0f), B[1] = of_f32(NAN);
    A[2] = of_f32(0.0f), B[2] = of_f32(-0.0f);
    A[3] = of_f32(-0.0f), B[3] = of_f32(0.0f);
    run_op("min.f32 %d, %a, %b;", "f32", "f32", "f32", "f32");
    assert_int_equal(D[0], of_f32(2.0f));
    assert_int_equal(D[1], of_f32(2.0f));
    assert_int_equal(D[2], of_f32(-0.0f));
    assert_int_equal(D[3], of_f32(-0.0f));
    run_op("max.f32 %d, %a, %b;", "f32", "f32", "f32", "f32");
    assert_int_equal(D[0], of_f32(2.0f));
    assert_int_equal(D[2], of_f32(0.0f));
    assert_int_equal(D[3], of_f32(0.0f));
}

/* The largest float at or below the exact a * b + c, by trying. */
static float fma_down(float a, float b, float c)
{
    long double exact = (long double)a * b + c; /* 24 + 24 bits and near in size */
    float f = (float)exact;
    return (long double)f > exact ? nextafterf(f, -INFINITY) : f;
}

static void directed_rounding_is_exact(void **state)
{
    (void)state;
    for (unsigned i = 0; i < N; i++) {
        A[i] = of_f32((float)(random64() % 65536) * 0.37f);
        B[i] = of_f32((float)(random64() % 65536) * 0.0113f - 300.0f);
        C[i] = of_f32((float)(random64() % 65536) * 0.71f);
    }
    F32("fma.rm.f32 %d, %a, %b, %c;", fma_down(as_f32(a), as_f32(b), as_f32(c)));
    F32("add.rm.f32 %d, %a, %c;", fma_down(as_f32(a), 1.0f, as_f32(c)));
    F32("mul.rp.f32 %d, %a, %b;", -fma_down(-as_f32(a), as_f32(b), 0.0f));
}

#define NEAR(op, e, tolerance)                                                         \
    do {                                                                               \
        run_op(op, "f32", "f32", "f32", "f32");                                        \
        for (unsigned i = 0; i < N; i++) {                                             \
            const double x = (double)as_f32(A[i]), want = (e),                         \
                         got = (double)as_f32(D[i]);                                   \
            if (!(fabs(got - want) <= (tolerance)*fmax(1e-30, fabs(want))))            \
                fail_msg("%s of %.9g is %.9g, not %.9g", op, x, got, want);            \
        }                                                                              \
    } while (0)

static void functions_are_close(void **state)
{
    (void)state;
    for (unsigned i = 0; i < N; i++)
        A[i] = of_f32((float)(random64() % 100000) * 0.001f - 50.0f + 1e-4f);
    NEAR("ex2.approx.ftz.f32 %d, %a;", exp2(x), 1.3e-7);
    NEAR("tanh.approx.f32 %d, %a;", tanh(x), 1e-6);
    NEAR("sin.approx.f32 %d, %a;", sin(x), 1e-6);
    NEAR("cos.approx.f32 %d, %a;", cos(x), 1e-6);
    for (unsigned i = 0; i < N; i++)
        A[i] = of_f32((float)exp((double)(random64() % 1000) * 0.1 - 50.0));
    NEAR("lg2.approx.f32 %d, %a;", log2(x), 1.3e-7);
    NEAR("rsqrt.approx.f32 %d, %a;", 1.0 / sqrt(x), 1.3e-7);
    NEAR("rcp.approx.ftz.f32 %d, %a;", 1.0 / x, 1.3e-7);
    static const float edges[] = {INFINITY, -INFINITY, 0.0f, 200.0f, -200.0f, -1.0f};
    for (unsigned i = 0; i < 6; i++)
        A[i] = of_f32(edges[i]);
    run_op("ex2.approx.f32 %d, %a;", "f32", "f32", "f32", "f32");
    assert_int_equal(D[0], of_f32(INFINITY));
    assert_int_equal(D[1], of_f32(0.0f));
    assert_int_equal(D[2], of_f32(1.0f));
    assert_int_equal(D[3], of_f32(INFINITY));
    run_op("lg2.approx.f32 %d, %a;", "f32", "f32", "f32", "f32");
    assert_int_equal(D[0], of_f32(INFINITY));
    assert_int_equal(D[2], of_f32(-INFINITY));
    assert_true(isnan(as_f32(D[5])));
}

static void comparisons_match_c(void **state)
{
    (void)state;
    fill_integers();
#define SETP(cmp, e) U32("setp." cmp " %p1, %a, %b; selp.b32 %d, 1, 0, %p1;", e)
    SETP("eq.s32", s32(a) == s32(b));
    SETP("ne.b32", u32(a) != u32(b));
    SETP("lt.s32", s32(a) < s32(b));
    SETP("le.u32", u32(a) <= u32(b));
    SETP("gt.s32", s32(a) > s32(b));
    SETP("hs.u32", u32(a) >= u32(b));
    U32("setp.lt.and.s32 %p1|%p2, %a, %b, !%p0; selp.b32 %d, 1, 0, %p1; @%p2 add.s32 "
        "%d, %d, 2;",
        s32(a) < s32(b) ? 1 : 2);
    U32("setp.gt.u32 %p1, %a, %b; setp.gt.u32 %p2, %b, %c; or.pred %p3, %p1, %p2;"
        "not.pred %p3, %p3; selp.b32 %d, %a, %c, %p3;",
        !(u32(a) > u32(b) || u32(b) > u32(c)) ? a : c);
    fill_f32();
    A[3] = of_f32(NAN);
#define SETPF(cmp, e)                                                                  \
    CHECK("setp." cmp ".f32 %p1, %a, %b; selp.b32 %d, 1, 0, %p1;",                     \
          "b32",                                                                       \
          "f32",                                                                       \
          "f32",                                                                       \
          "f32",                                                                       \
          e)
    SETPF("lt", as_f32(a) < as_f32(b));
    SETPF("ge", as_f32(a) >= as_f32(b));
    SETPF("ne", as_f32(a) < as_f32(b) || as_f32(a) > as_f32(b));
    SETPF("neu", as_f32(a) != as_f32(b));
    SETPF("leu", !(as_f32(a) > as_f32(b)));
    SETPF("num", !isunordered(as_f32(a), as_f32(b)));
    SETPF("nan", isunordered(as_f32(a), as_f32(b)));
}

static void conversions_match_c(void **state)
{
    (void)state;
    fill_integers();
    CHECK("cvt.s64.s32 %d, %a;", "b64", "b32", "b32", "b32", (uint64_t)s64(s32(a)));
    CHECK("cvt.u64.u32 %d, %a;", "b64", "b32", "b32", "b32", u32(a));
    CHECK("cvt.u32.u64 %d, %a;", "b32", "b64", "b32", "b32", u32(a));
    CHECK("cvt.s32.s8 %d, %a;", "b32", "b32", "b32", "b32", u32((int8_t)a));
    CHECK("cvt.u16.u32 %d, %a;", "b16", "b32", "b32", "b32", u16(a));
    CHECK("cvt.s32.s16 %d, %a;", "b32", "b16", "b32", "b32", u32(s16(a)));
    CHECK("cvt.u32.u16 %d, %a;", "b32", "b16", "b32", "b32", u16(a));
    CHECK("cvt.rn.f32.s32 %d, %a;", "f32", "b32", "b32", "b32", of_f32((float)s32(a)));
    CHECK("cvt.rn.f32.u32 %d, %a;", "f32", "b32", "b32", "b32", of_f32((float)u32(a)));
    CHECK("cvt.rn.f32.s64 %d, %a;", "f32", "b64", "b32", "b32", of_f32((float)s64(a)));
    CHECK("cvt.rn.f32.u64 %d, %a;", "f32", "b64", "b32", "b32", of_f32((float)a));
    CHECK("cvt.rn.f64.u64 %d, %a;", "f64", "b64", "b32", "b32", of_f64((double)a));
    for (unsigned i = 0; i < N; i++)
        A[i] = of_f32((float)(int32_t)random64() * 1e-5f);
    CHECK(
        "cvt.rzi.s32.f32 %d, %a;", "b32", "f32", "b32", "b32", u32((int32_t)as_f32(a)));
    CHECK("cvt.rmi.s32.f32 %d, %a;",
          "b32",
          "f32",
          "b32",
          "b32",
          u32((int32_t)floorf(as_f32(a))));
    CHECK("cvt.rni.s64.f32 %d, %a;",
          "b64",
          "f32",
          "b32",
          "b32",
          (uint64_t)llrintf(as_f32(a)));
    CHECK("cvt.rzi.u32.f32 %d, %a;",
          "b32",
          "f32",
          "b32",
          "b32",
          as_f32(a) <= 0 ? 0 : (uint32_t)as_f32(a));
    CHECK("cvt.f64.f32 %d, %a;", "f64", "f32", "b32", "b32", of_f64((double)as_f32(a)));
    F32("cvt.rpi.f32.f32 %d, %a;", ceilf(as_f32(a)));
    F32("cvt.sat.f32.f32 %d, %a;", fminf(fmaxf(as_f32(a), 0.0f), 1.0f));
    A[0] = of_f32(NAN), A[1] = of_f32(1e30f), A[2] = of_f32(-1e30f);
    run_op("cvt.rzi.s32.f32 %d, %a;", "b32", "f32", "b32", "b32");
    assert_int_equal(D[0], 0);
    assert_int_equal(D[1], INT32_MAX);
    assert_int_equal((int32_t)D[2], INT32_MIN);
    fill_f64();
    CHECK(
        "cvt.rn.f32.f64 %d, %a;", "f32", "f64", "b32", "b32", of_f32((float)as_f64(a)));
}

static void halves_round_trip(void **state)
{
    (void)state;
    for (unsigned base = 0; base < 65536;
         base += N * 13) { /* every pattern would be slow */
        for (unsigned i = 0; i < N; i++)
            A[i] = (base + i * 13) & 0xffff;
        run_op("{.reg .f32 %t; cvt.f32.f16 %t, %a; cvt.rn.f16.f32 %d, %t;}",
               "b16",
               "b16",
               "b16",
               "b16");
        for (unsigned i = 0; i < N; i++)
            if ((A[i] & 0x7c00) != 0x7c00 || (A[i] & 0x3ff) == 0)
                assert_int_equal(D[i], A[i]);
    }
    A[0] = of_f32(65520.0f), A[1] = of_f32(65519.0f), A[2] = of_f32(0x1.002p0f),
    A[3] = of_f32(0x1.006p0f), A[4] = of_f32(0x1p-25f), A[5] = of_f32(0x1.8p-25f);
    run_op("cvt.rn.f16.f32 %d, %a;", "b16", "f32", "b16", "b16");
    const uint16_t want[] = {0x7c00, 0x7bff, 0x3c00, 0x3c02, 0, 1};
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(D[i], want[i]);
    A[0] = of_f32(0x1.01p0f), A[1] = of_f32(0x1.03p0f), A[2] = of_f32(-INFINITY);
    run_op("cvt.rn.bf16.f32 %d, %a;", "b16", "f32", "b16", "b16");
    assert_int_equal(D[0], 0x3f80);
    assert_int_equal(D[1], 0x3f82);
    assert_int_equal(D[2], 0xff80);
}

static int finish(void **state)
{
    (void)state;
    ptx_scratch_fini(&scratch);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_match_c),
        cmocka_unit_test(bits_match_c),
        cmocka_unit_test(floats_match_ieee),
        cmocka_unit_test(min_max_ignore_nan_and_order_zeros),
        cmocka_unit_test(directed_rounding_is_exact),
        cmocka_unit_test(functions_are_close),
        cmocka_unit_test(comparisons_match_c),
        cmocka_unit_test(conversions_match_c),
        cmocka_unit_test(halves_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, finish);
}
