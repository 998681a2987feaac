/* SPDX-License-Identifier: Apache-2.0
 * ptx_rare.c - conversions, bit tricks and the talk between lanes, one lane at a time.
 */
#include <string.h>
#include <time.h>

#include "ptx_exec.h"
#include "ptx_math.h"

uint64_t ptx_lane_get(const uint8_t *frame, uint32_t slot, unsigned width, int lane)
{
    uint64_t v = 0;
    memcpy(&v, frame + slot + (size_t)lane * width, width);
    return v;
}

void ptx_lane_set(
    uint8_t *frame, uint32_t slot, unsigned width, int lane, uint64_t value)
{
    memcpy(frame + slot + (size_t)lane * width, &value, width);
}

static uint32_t get_predicate(const uint8_t *frame, uint32_t slot)
{
    uint32_t p;
    memcpy(&p, frame + slot, sizeof p);
    return p;
}

static void set_predicate(uint8_t *frame, uint32_t slot, uint32_t value, uint32_t mask)
{
    uint32_t p = (get_predicate(frame, slot) & ~mask) | (value & mask);
    memcpy(frame + slot, &p, sizeof p);
}

static uint32_t combine(enum ptx_bool how, uint32_t a, uint32_t c)
{
    if (how == PTX_BOOL_AND)
        return a & c;
    if (how == PTX_BOOL_OR)
        return a | c;
    return how == PTX_BOOL_XOR ? a ^ c : a;
}

void ptx_set_compared(uint8_t *frame,
                      const struct ptx_ins *in,
                      uint32_t result,
                      uint32_t mask)
{
    uint32_t c = in->c == PTX_NO_SLOT ? 0 : get_predicate(frame, in->c);
    c = in->offset ? ~c : c; /* written !c */
    if (in->d != PTX_NO_SLOT)
        set_predicate(frame, in->d, combine(in->mode2, result, c), mask);
    if (in->vec[0] != PTX_NO_SLOT)
        set_predicate(frame, in->vec[0], combine(in->mode2, ~result, c), mask);
}

static bool is_float(enum ptx_type t)
{
    return t == PTX_F16 || t == PTX_BF16 || t == PTX_F32 || t == PTX_F64;
}

static bool is_signed(enum ptx_type t)
{
    return t == PTX_S8 || t == PTX_S16 || t == PTX_S32 || t == PTX_S64;
}

static double to_double(enum ptx_type t, uint64_t v)
{
    if (t == PTX_F16)
        return (double)ptx_from_f16((uint16_t)v);
    if (t == PTX_BF16)
        return (double)ptx_float32((uint32_t)v << 16);
    return t == PTX_F32 ? (double)ptx_float32((uint32_t)v) : ptx_float64(v);
}

static double to_integral(double x, enum ptx_rounding mode)
{
    if (mode == PTX_RZ)
        return trunc(x);
    if (mode == PTX_RM)
        return floor(x);
    return mode == PTX_RP ? ceil(x) : rint(x);
}

/* Saturates, and takes a NaN to 0, as the hardware does. */
static uint64_t to_integer(double x, enum ptx_type t)
{
    unsigned bits = ptx_type_bytes(t) * 8;
    if (x != x)
        return 0;
    if (is_signed(t)) {
        int64_t max = (int64_t)(UINT64_MAX >> (65 - bits));
        if (x >= (double)max)
            return (uint64_t)max;
        return x <= -(double)max - 1.0 ? (uint64_t)(-max - 1) : (uint64_t)(int64_t)x;
    }
    uint64_t max = UINT64_MAX >> (64 - bits);
    return x >= (double)max ? max : x <= 0.0 ? 0 : (uint64_t)x;
}

static uint64_t from_double(double x, const struct ptx_ins *in)
{
    if (in->mode2 & PTX_CVT_SAT)
        x = x > 0.0 ? x < 1.0 ? x : 1.0 : 0.0;
    switch ((int)in->type) {
    case PTX_F64:
        return ptx_bits64(x);
    case PTX_F32:
        return ptx_bits32(ptx_round32(x, 0.0, in->mode));
    case PTX_F16: /* only from floats: x is one */
        return ptx_to_f16((float)x);
    default:
        return ptx_to_bf16((float)x);
    }
}

static uint64_t extend(enum ptx_type t, uint64_t v)
{
    unsigned drop = 64 - ptx_type_bytes(t) * 8;
    return is_signed(t) ? (uint64_t)((int64_t)(v << drop) >> drop) : v << drop >> drop;
}

static uint64_t integer_to_float(uint64_t v, const struct ptx_ins *in)
{
    bool is_neg = is_signed(in->from) && (int64_t)v < 0;
    if (in->type == PTX_F64)
        return ptx_bits64(is_neg ? (double)(int64_t)v : (double)v);
    float f = is_neg ? (float)(int64_t)v : (float)v;
    return in->type == PTX_F32   ? ptx_bits32(f)
           : in->type == PTX_F16 ? ptx_to_f16(f)
                                 : ptx_to_bf16(f);
}

static uint64_t convert(const struct ptx_ins *in, uint64_t v)
{
    if (!is_float(in->from)) {
        v = extend(in->from, v);
        return is_float(in->type) ? integer_to_float(v, in) : extend(in->type, v);
    }
    double x = to_double(in->from, v);
    if (!is_float(in->type))
        return to_integer(to_integral(x, in->mode), in->type);
    if (in->mode2 & PTX_CVT_INT) {
        double y = to_integral(x, in->mode);
        struct ptx_ins exact = *in;
        exact.mode = PTX_RN;
        return from_double(y, &exact);
    }
    return from_double(x, in);
}

/* The slots' types follow from the operation: width of a, and of d. */
static uint64_t bits_op(const struct ptx_ins *in, uint64_t a, uint64_t b, uint64_t c)
{
    uint32_t pos = (uint32_t)b & 255, len = (uint32_t)c & 255, r = 0;
    unsigned width = in->width_a * 8u;
    switch ((int)in->op) {
    case PTX_POPC_32:
    case PTX_POPC_64:
        return (uint64_t)__builtin_popcountll(a);
    case PTX_CLZ_32:
        return a ? (uint64_t)__builtin_clz((uint32_t)a) : 32;
    case PTX_CLZ_64:
        return a ? (uint64_t)__builtin_clzll(a) : 64;
    case PTX_BREV_32:
    case PTX_BREV_64: {
        uint64_t v = 0;
        for (unsigned i = 0; i < width; i++)
            v |= (a >> i & 1) << (width - 1 - i);
        return v;
    }
    case PTX_BFE_U32:
    case PTX_BFE_S32:
    case PTX_BFE_U64:
    case PTX_BFE_S64: {
        bool with_sign = in->op == PTX_BFE_S32 || in->op == PTX_BFE_S64;
        unsigned last = pos + len - 1 < width - 1 ? pos + len - 1 : width - 1;
        bool sign = with_sign && len > 0 && (a >> last & 1);
        uint64_t v = pos < width ? a >> pos : 0;
        uint64_t keep = len >= 64 ? UINT64_MAX : ((uint64_t)1 << len) - 1;
        if (pos + len > width) /* past the top: copies of the sign */
            keep = pos < width ? UINT64_MAX >> (64 - (width - pos)) : 0;
        return (v & keep) | (sign ? ~keep : 0);
    }
    case PTX_LOP3:
        for (unsigned i = 0; i < 8; i++)
            if (in->mode >> i & 1)
                r |= (i & 4 ? (uint32_t)a : ~(uint32_t)a) &
                     (i & 2 ? (uint32_t)b : ~(uint32_t)b) &
                     (i & 1 ? (uint32_t)c : ~(uint32_t)c);
        return r;
    case PTX_PRMT: {
        uint64_t bytes = (a & UINT32_MAX) | b << 32;
        for (unsigned i = 0; i < 4; i++) {
            uint32_t sel = (uint32_t)c >> (4 * i) & 15;
            uint32_t v = (uint32_t)(bytes >> (8 * (sel & 7))) & 255;
            r |= (sel & 8 ? (v & 128 ? 255u : 0u) : v) << (8 * i);
        }
        return r;
    }
    default:
        break;
    }
    /* funnel shifts of b:a */
    bool wraps = in->op == PTX_SHF_LW || in->op == PTX_SHF_RW;
    uint32_t n = wraps ? (uint32_t)c & 31 : c > 32 ? 32 : (uint32_t)c;
    uint64_t both = (a & UINT32_MAX) | b << 32;
    if (in->op == PTX_SHF_L || in->op == PTX_SHF_LW)
        return (uint32_t)(n == 32 ? a : both >> (32 - n));
    return (uint32_t)(n == 32 ? b : both >> n);
}

static uint64_t insert_bits(
    const struct ptx_ins *in, uint64_t a, uint64_t b, uint32_t pos, uint32_t len)
{
    unsigned width = in->width_a * 8u;
    pos &= 255;
    len &= 255;
    if (pos >= width || len == 0)
        return b;
    len = len > width - pos ? width - pos : len;
    uint64_t keep = (len >= 64 ? UINT64_MAX : ((uint64_t)1 << len) - 1) << pos;
    return (b & ~keep) | (a << pos & keep);
}

static void shuffle(uint8_t *frame, const struct ptx_ins *in, uint32_t mask)
{
    uint32_t from[PTX_LANES], in_range = 0;
    memcpy(from, frame + in->a, sizeof from);
    for (uint32_t m = mask; m; m &= m - 1) {
        int l = __builtin_ctz(m);
        int b = (int)ptx_lane_get(frame, in->b, 4, l) & 31;
        int c = (int)ptx_lane_get(frame, in->c, 4, l);
        int clamp = c & 31, segment = c >> 8 & 31;
        int low = l & segment, high = low | (clamp & ~segment), j;
        bool ok;
        switch ((int)in->mode) {
        case PTX_SHFL_UP:
            j = l - b;
            ok = j >= high;
            break;
        case PTX_SHFL_DOWN:
            j = l + b;
            ok = j <= high;
            break;
        case PTX_SHFL_BFLY:
            j = l ^ b;
            ok = j <= high;
            break;
        default:
            j = low | (b & ~segment);
            ok = j <= high;
        }
        in_range |= (uint32_t)ok << l;
        j = ok && mask >> j & 1 ? j : l;
        ptx_lane_set(frame, in->d, 4, l, from[j]);
    }
    if (in->vec[0] != PTX_NO_SLOT)
        set_predicate(frame, in->vec[0], in_range, mask);
}

static void vote(uint8_t *frame, const struct ptx_ins *in, uint32_t mask)
{
    uint32_t p = get_predicate(frame, in->a);
    p = (in->offset ? ~p : p) & mask;
    bool all = p == mask, any = p != 0;
    if (in->mode == PTX_VOTE_BALLOT) {
        for (uint32_t m = mask; m; m &= m - 1)
            ptx_lane_set(frame, in->d, 4, __builtin_ctz(m), p);
        return;
    }
    bool is_true = in->mode == PTX_VOTE_ALL   ? all
                   : in->mode == PTX_VOTE_ANY ? any
                                              : all || !any;
    set_predicate(frame, in->d, is_true ? UINT32_MAX : 0, mask);
}

static uint64_t clock_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void pack(uint8_t *frame, const struct ptx_ins *in, unsigned half, int l)
{
    if (in->op == PTX_PACK2_32 || in->op == PTX_PACK2_16) {
        uint64_t low = ptx_lane_get(frame, in->vec[0], half, l);
        uint64_t high = ptx_lane_get(frame, in->vec[1], half, l);
        ptx_lane_set(frame, in->d, 2 * half, l, low | high << (8 * half));
        return;
    }
    uint64_t v = ptx_lane_get(frame, in->a, 2 * half, l);
    for (unsigned i = 0; i < 2; i++)
        if (in->vec[i] != PTX_NO_SLOT)
            ptx_lane_set(frame, in->vec[i], half, l, v >> (8 * half * i));
}

/* A generic address for one in shared or local memory, and back. */
static uint64_t
translate(const struct ptx_block *block, const struct ptx_ins *in, uint64_t a, int l)
{
    uint64_t base = in->mode2 == PTX_SHARED
                        ? (uint64_t)block->shared
                        : (uint64_t)(block->local + (size_t)l * block->local_bytes);
    return in->op == PTX_CVTA ? a + base : a - base;
}

static void
one_lane(struct ptx_block *block, uint8_t *frame, const struct ptx_ins *in, int l)
{
    uint64_t a = in->a == PTX_NO_SLOT ? 0 : ptx_lane_get(frame, in->a, in->width_a, l),
             b = 0, c = 0;
    switch ((int)in->op) {
    case PTX_PACK2_32:
    case PTX_UNPACK2_32:
        pack(frame, in, 4, l);
        return;
    case PTX_PACK2_16:
    case PTX_UNPACK2_16:
        pack(frame, in, 2, l);
        return;
    case PTX_CVT:
        a = convert(in, a);
        break;
    case PTX_CVTA:
    case PTX_CVTA_TO:
        a = translate(block, in, a, l);
        break;
    case PTX_CLOCK:
        a = clock_now();
        break;
    case PTX_BFI_32:
    case PTX_BFI_64:
        a = insert_bits(in,
                        a,
                        ptx_lane_get(frame, in->b, in->width_a, l),
                        (uint32_t)ptx_lane_get(frame, in->c, 4, l),
                        (uint32_t)ptx_lane_get(frame, in->vec[0], 4, l));
        break;
    default:
        if (in->b != PTX_NO_SLOT)
            b = ptx_lane_get(frame, in->b, 4, l);
        if (in->c != PTX_NO_SLOT)
            c = ptx_lane_get(frame, in->c, 4, l);
        a = bits_op(in, a, b, c);
    }
    ptx_lane_set(frame, in->d, in->width_d, l, a);
}

void ptx_rare(struct ptx_block *block,
              uint8_t *frame,
              const struct ptx_ins *in,
              uint32_t mask)
{
    if (in->op == PTX_SHFL) {
        shuffle(frame, in, mask);
    } else if (in->op == PTX_VOTE) {
        vote(frame, in, mask);
    } else if (in->op == PTX_ACTIVEMASK) {
        for (uint32_t m = mask; m; m &= m - 1)
            ptx_lane_set(frame, in->d, 4, __builtin_ctz(m), mask);
    } else {
        for (uint32_t m = mask; m; m &= m - 1)
            one_lane(block, frame, in, __builtin_ctz(m));
    }
}
