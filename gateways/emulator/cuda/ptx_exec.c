/* SPDX-License-Identifier: Apache-2.0
 * ptx_exec.c - the interpreter: one warp at a time, one instruction for all its lanes.
 *
 * Lanes that took different ways wait with their own program counter; the ones with the
 * smallest run, until they reach the next smallest. So lanes come together again at the
 * first instruction that all of them reach, and code without divergence costs one
 * decode for 32 threads and runs as vector loops.
 *
 * Lanes that have returned ("dead") may be computed along: nobody reads their slots.
 * Only memory and predicates mask them.
 *
 * Built once for each kind of processor (PTX_SUFFIX).
 */
#include "ptx_exec.h"

#include "ptx_math.h"

/* Slots of the operands, lane by lane. An operand may be its own result. */
#define SLOT(type, slot) ((type *)(void *)(frame + (slot)))
#define LANES(body)                                                                    \
    if ((w->live & ~mask) == 0) {                                                      \
        EACH_LANE                                                                      \
        {                                                                              \
            body;                                                                      \
        }                                                                              \
    } else {                                                                           \
        for (uint32_t m_ = mask; m_; m_ &= m_ - 1) {                                   \
            int l = __builtin_ctz(m_);                                                 \
            body;                                                                      \
        }                                                                              \
    }
#define UNARY(name, T, expr)                                                           \
    case PTX_##name: {                                                                 \
        T *d = SLOT(T, in->d);                                                         \
        const T *a = SLOT(T, in->a);                                                   \
        LANES(const T x = a[l]; d[l] = (T)(expr))                                      \
        break;                                                                         \
    }
#define MIXED(name, D, A, B, expr)                                                     \
    case PTX_##name: {                                                                 \
        D *d = SLOT(D, in->d);                                                         \
        const A *a = SLOT(A, in->a);                                                   \
        const B *b = SLOT(B, in->b);                                                   \
        LANES(const A x = a[l]; const B y = b[l]; d[l] = (D)(expr))                    \
        break;                                                                         \
    }
#define BINARY(name, T, expr) MIXED(name, T, T, T, expr)
#define TERNARY(name, D, A, C, expr)                                                   \
    case PTX_##name: {                                                                 \
        D *d = SLOT(D, in->d);                                                         \
        const A *a = SLOT(A, in->a), *b = SLOT(A, in->b);                              \
        const C *c = SLOT(C, in->c);                                                   \
        LANES(const A x = a[l]; const A y = b[l]; const C z = c[l]; d[l] = (D)(expr))  \
        break;                                                                         \
    }
#define BY_WIDTH2(name, expr)                                                          \
    BINARY(name##_16, uint16_t, expr)                                                  \
    BINARY(name##_32, uint32_t, expr)                                                  \
    BINARY(name##_64, uint64_t, expr)
#define BY_TYPE(name, expr)                                                            \
    BINARY(name##_S16, int16_t, expr)                                                  \
    BINARY(name##_U16, uint16_t, expr)                                                 \
    BINARY(name##_S32, int32_t, expr)                                                  \
    BINARY(name##_U32, uint32_t, expr)                                                 \
    BINARY(name##_S64, int64_t, expr)                                                  \
    BINARY(name##_U64, uint64_t, expr)
#define PREDICATE(name, expr)                                                          \
    case PTX_##name: {                                                                 \
        const uint32_t x = *SLOT(uint32_t, in->a), y = *SLOT(uint32_t, in->b);         \
        (void)y;                                                                       \
        set_predicate(SLOT(uint32_t, in->d), expr, mask);                              \
        break;                                                                         \
    }

#define SELECT(name, T)                                                                \
    case PTX_##name: {                                                                 \
        T *d = SLOT(T, in->d);                                                         \
        const T *a = SLOT(T, in->a), *b = SLOT(T, in->b);                              \
        const uint32_t p = *SLOT(uint32_t, in->c);                                     \
        LANES(d[l] = p >> l & 1 ? a[l] : b[l])                                         \
        break;                                                                         \
    }

/* Comparisons: the bits of all lanes, dead ones too. */
#define COMPARE(expr)                                                                  \
    EACH_LANE                                                                          \
    {                                                                                  \
        r |= (uint32_t)(expr) << l;                                                    \
    }                                                                                  \
    break
#define SETP(name, T, ordered)                                                         \
    case PTX_##name: {                                                                 \
        const T *a = SLOT(T, in->a), *b = SLOT(T, in->b);                              \
        uint32_t r = 0;                                                                \
        switch (in->mode) {                                                            \
        case PTX_EQ:                                                                   \
            COMPARE(a[l] == b[l]);                                                     \
        case PTX_NE:                                                                   \
            COMPARE(a[l] != b[l] && ordered(a[l], b[l]));                              \
        case PTX_LT:                                                                   \
            COMPARE(a[l] < b[l]);                                                      \
        case PTX_LE:                                                                   \
            COMPARE(a[l] <= b[l]);                                                     \
        case PTX_GT:                                                                   \
            COMPARE(a[l] > b[l]);                                                      \
        case PTX_GE:                                                                   \
            COMPARE(a[l] >= b[l]);                                                     \
        case PTX_EQU:                                                                  \
            COMPARE(a[l] == b[l] || !ordered(a[l], b[l]));                             \
        case PTX_NEU:                                                                  \
            COMPARE(a[l] != b[l]);                                                     \
        case PTX_LTU:                                                                  \
            COMPARE(!(a[l] >= b[l]));                                                  \
        case PTX_LEU:                                                                  \
            COMPARE(!(a[l] > b[l]));                                                   \
        case PTX_GTU:                                                                  \
            COMPARE(!(a[l] <= b[l]));                                                  \
        case PTX_GEU:                                                                  \
            COMPARE(!(a[l] < b[l]));                                                   \
        case PTX_NUM:                                                                  \
            COMPARE(ordered(a[l], b[l]));                                              \
        default:                                                                       \
            COMPARE(!ordered(a[l], b[l]));                                             \
        }                                                                              \
        ptx_set_compared(frame, in, r, mask);                                          \
        break;                                                                         \
    }
#define ALWAYS(a, b)  1
#define ORDERED(a, b) ((a) == (a) && (b) == (b))

static inline void set_predicate(uint32_t *p, uint32_t value, uint32_t mask)
{
    *p = (*p & ~mask) | (value & mask);
}

#define SHIFT_MAX(y, bits) ((y) > (bits)-1 ? (bits)-1 : (y))
#define SAFE_DIV(x, y, min)                                                            \
    ((y) == 0 ? 0 : (x) == (min) && (y) == -1 ? (min) : (x) / (y))
#define SAFE_REM(x, y) ((y) == 0 || (y) == -1 ? 0 : (x) % (y))

enum ptx_stop PTX_VARIANT(ptx_warp_run)(struct ptx_block *block, struct ptx_warp *w)
{
    const struct ptx_ins *const code = block->code;
    uint8_t *const frame = w->frame;
    struct ptx_flow f = {0};
    uint64_t count = 0;
    ptx_flow_pick(w, &f);
    while (f.active) {
        const struct ptx_ins *in = &code[f.pc++];
        uint32_t mask = f.active;
        count += f.n_active;
        if (in->guard != PTX_NO_SLOT) {
            uint32_t p = *SLOT(uint32_t, in->guard);
            mask &= in->guard_not ? ~p : p;
        }
        switch ((int)in->op) {
            BY_WIDTH2(ADD, x + y)
            BY_WIDTH2(SUB, x - y)
            BINARY(MULLO_16, uint16_t, (uint32_t)x * y)
            BINARY(MULLO_32, uint32_t, x * y)
            BINARY(MULLO_64, uint64_t, x * y)
            TERNARY(MADLO_16, uint16_t, uint16_t, uint16_t, (uint32_t)x * y + z)
            TERNARY(MADLO_32, uint32_t, uint32_t, uint32_t, x * y + z)
            TERNARY(MADLO_64, uint64_t, uint64_t, uint64_t, x * y + z)
            BINARY(MULHI_S32, int32_t, (int64_t)x * y >> 32)
            BINARY(MULHI_U32, uint32_t, (uint64_t)x * y >> 32)
            BINARY(MULHI_S64, int64_t, (ptx_s128)x * y >> 64)
            BINARY(MULHI_U64, uint64_t, (ptx_u128)x * y >> 64)
            TERNARY(MADHI_S32,
                    uint32_t,
                    int32_t,
                    uint32_t,
                    (uint32_t)((int64_t)x * y >> 32) + z)
            TERNARY(MADHI_U32,
                    uint32_t,
                    uint32_t,
                    uint32_t,
                    (uint32_t)((uint64_t)x * y >> 32) + z)
            TERNARY(MADHI_S64,
                    uint64_t,
                    int64_t,
                    uint64_t,
                    (uint64_t)((ptx_s128)x * y >> 64) + z)
            TERNARY(MADHI_U64,
                    uint64_t,
                    uint64_t,
                    uint64_t,
                    (uint64_t)((ptx_u128)x * y >> 64) + z)
            MIXED(MULWIDE_S16, int32_t, int16_t, int16_t, x * y)
            MIXED(MULWIDE_U16, uint32_t, uint16_t, uint16_t, (uint32_t)x * y)
            MIXED(MULWIDE_S32, int64_t, int32_t, int32_t, (int64_t)x * y)
            MIXED(MULWIDE_U32, uint64_t, uint32_t, uint32_t, (uint64_t)x * y)
            TERNARY(MADWIDE_S16, uint32_t, int16_t, uint32_t, (uint32_t)(x * y) + z)
            TERNARY(MADWIDE_U16, uint32_t, uint16_t, uint32_t, (uint32_t)x * y + z)
            TERNARY(MADWIDE_S32,
                    uint64_t,
                    int32_t,
                    uint64_t,
                    (uint64_t)((int64_t)x * y) + z)
            TERNARY(MADWIDE_U32, uint64_t, uint32_t, uint64_t, (uint64_t)x * y + z)
            BINARY(DIV_S16, int16_t, SAFE_DIV(x, y, INT16_MIN))
            BINARY(DIV_U16, uint16_t, y ? x / y : 0)
            BINARY(DIV_S32, int32_t, SAFE_DIV(x, y, INT32_MIN))
            BINARY(DIV_U32, uint32_t, y ? x / y : 0)
            BINARY(DIV_S64, int64_t, SAFE_DIV(x, y, INT64_MIN))
            BINARY(DIV_U64, uint64_t, y ? x / y : 0)
            BINARY(REM_S16, int16_t, SAFE_REM(x, y))
            BINARY(REM_U16, uint16_t, y ? x % y : 0)
            BINARY(REM_S32, int32_t, SAFE_REM(x, y))
            BINARY(REM_U32, uint32_t, y ? x % y : 0)
            BINARY(REM_S64, int64_t, SAFE_REM(x, y))
            BINARY(REM_U64, uint64_t, y ? x % y : 0)
            BY_TYPE(MIN, x < y ? x : y)
            BY_TYPE(MAX, x > y ? x : y)
            UNARY(NEG_16, uint16_t, -(uint32_t)x)
            UNARY(NEG_32, uint32_t, -x)
            UNARY(NEG_64, uint64_t, -x)
            UNARY(ABS_16, uint16_t, x >> 15 ? -(uint32_t)x : x)
            UNARY(ABS_32, uint32_t, x >> 31 ? -x : x)
            UNARY(ABS_64, uint64_t, x >> 63 ? -x : x)
            BY_WIDTH2(AND, x & y)
            BY_WIDTH2(OR, x | y)
            BY_WIDTH2(XOR, x ^ y)
            UNARY(NOT_16, uint16_t, ~(uint32_t)x)
            UNARY(NOT_32, uint32_t, ~x)
            UNARY(NOT_64, uint64_t, ~x)
            UNARY(MOV_16, uint16_t, x)
            UNARY(MOV_32, uint32_t, x)
            UNARY(MOV_64, uint64_t, x)
            PREDICATE(AND_P, x & y)
            PREDICATE(OR_P, x | y)
            PREDICATE(XOR_P, x ^ y)
            PREDICATE(NOT_P, ~x)
            PREDICATE(MOV_P, x)
            MIXED(SHL_16, uint16_t, uint16_t, uint32_t, y > 15 ? 0 : (uint32_t)x << y)
            MIXED(SHL_32, uint32_t, uint32_t, uint32_t, y > 31 ? 0 : x << (y & 31))
            MIXED(SHL_64, uint64_t, uint64_t, uint32_t, y > 63 ? 0 : x << (y & 63))
            MIXED(SHR_U16, uint16_t, uint16_t, uint32_t, y > 15 ? 0 : x >> y)
            MIXED(SHR_U32, uint32_t, uint32_t, uint32_t, y > 31 ? 0 : x >> (y & 31))
            MIXED(SHR_U64, uint64_t, uint64_t, uint32_t, y > 63 ? 0 : x >> (y & 63))
            MIXED(SHR_S16, int16_t, int16_t, uint32_t, x >> SHIFT_MAX(y, 16u))
            MIXED(SHR_S32, int32_t, int32_t, uint32_t, x >> SHIFT_MAX(y, 32u))
            MIXED(SHR_S64, int64_t, int64_t, uint32_t, x >> SHIFT_MAX(y, 64u))
            SELECT(SELP_16, uint16_t)
            SELECT(SELP_32, uint32_t)
            SELECT(SELP_64, uint64_t)
            BINARY(ADD_F32, float, x + y)
            BINARY(ADD_F64, double, x + y)
            BINARY(SUB_F32, float, x - y)
            BINARY(SUB_F64, double, x - y)
            BINARY(MUL_F32, float, x *y)
            BINARY(MUL_F64, double, x *y)
            BINARY(DIV_F32, float, x / y)
            BINARY(DIV_F64, double, x / y)
            BINARY(MIN_F32, float, ptx_min32(x, y))
            BINARY(MIN_F64, double, ptx_min64(x, y))
            BINARY(MAX_F32, float, ptx_max32(x, y))
            BINARY(MAX_F64, double, ptx_max64(x, y))
            TERNARY(FMA_F32, float, float, float, __builtin_fmaf(x, y, z))
            TERNARY(FMA_F64, double, double, double, __builtin_fma(x, y, z))
            UNARY(NEG_F32, uint32_t, x ^ 0x80000000u)
            UNARY(NEG_F64, uint64_t, x ^ (uint64_t)1 << 63)
            UNARY(ABS_F32, uint32_t, x & 0x7fffffffu)
            UNARY(ABS_F64, uint64_t, x & ~((uint64_t)1 << 63))
            BINARY(COPYSIGN_F32, uint32_t, (x & 0x80000000u) | (y & 0x7fffffffu))
            BINARY(COPYSIGN_F64,
                   uint64_t,
                   (x & (uint64_t)1 << 63) | (y & ~((uint64_t)1 << 63)))
            UNARY(SQRT_F32, float, __builtin_sqrtf(x))
            UNARY(SQRT_F64, double, __builtin_sqrt(x))
            UNARY(RSQRT_F32, float, 1.0 / __builtin_sqrt((double)x))
            UNARY(RSQRT_F64, double, 1.0 / __builtin_sqrt(x))
            UNARY(RCP_F32, float, 1.0f / x)
            UNARY(RCP_F64, double, 1.0 / x)
            BINARY(ADDR_F32, float, ptx_fma32(x, 1.0f, y, in->mode))
            BINARY(SUBR_F32, float, ptx_fma32(x, 1.0f, -y, in->mode))
            BINARY(MULR_F32, float, ptx_fma32(x, y, -0.0f, in->mode))
            TERNARY(FMAR_F32, float, float, float, ptx_fma32(x, y, z, in->mode))
            UNARY(SAT_F32, float, x > 0.0f ? x < 1.0f ? x : 1.0f : 0.0f)
            UNARY(EX2_F32, float, ptx_ex2(x))
            UNARY(LG2_F32, float, ptx_lg2(x))
            UNARY(SIN_F32, float, ptx_sin(x, 0))
            UNARY(COS_F32, float, ptx_sin(x, 1))
            UNARY(TANH_F32, float, ptx_tanh(x))
            SETP(SETP_S16, int16_t, ALWAYS)
            SETP(SETP_U16, uint16_t, ALWAYS)
            SETP(SETP_S32, int32_t, ALWAYS)
            SETP(SETP_U32, uint32_t, ALWAYS)
            SETP(SETP_S64, int64_t, ALWAYS)
            SETP(SETP_U64, uint64_t, ALWAYS)
            SETP(SETP_F32, float, ORDERED)
            SETP(SETP_F64, double, ORDERED)
            MIXED(CVT_S64_S32, int64_t, int32_t, int32_t, ((void)y, x))
            MIXED(CVT_U64_U32, uint64_t, uint32_t, uint32_t, ((void)y, x))
            MIXED(CVT_32_64, uint32_t, uint64_t, uint64_t, ((void)y, x))
            MIXED(CVT_F32_S32, float, int32_t, int32_t, ((void)y, x))
            MIXED(CVT_F32_U32, float, uint32_t, uint32_t, ((void)y, x))
        case PTX_BRA:
            if (mask) {
                ptx_flow_branch(w, &f, mask, in->target);
                continue;
            }
            break;
        case PTX_RET:
            if (mask) {
                ptx_flow_return(w, &f, mask);
                continue;
            }
            break;
        case PTX_BAR:
            if (mask) {
                w->barrier = in->mode;
                ptx_flow_wait(w, &f, mask);
                continue;
            }
            break;
        case PTX_TRAP:
            if (!mask)
                break;
            block->fault_line = in->line;
            return PTX_STOP_TRAP;
        case PTX_LD:
        case PTX_ST:
        case PTX_ATOM: {
            enum ptx_stop stop = PTX_VARIANT(ptx_memory)(block, frame, in, mask);
            if (stop != PTX_STOP_DONE)
                return stop;
            break;
        }
        case PTX_NOP:
            break;
        default:
            ptx_rare(block, frame, in, mask);
        }
        if (f.pc >= f.limit)
            ptx_flow_switch(w, &f);
    }
    block->n_instructions += count;
    return w->live ? PTX_STOP_BARRIER : PTX_STOP_DONE;
}
