/* SPDX-License-Identifier: Apache-2.0
 * ptx_code.h - the bytecode.
 *
 * A warp has a frame: for every register, constant and special register a slot with the
 * 32 lanes side by side (a predicate is one bit a lane). An operand is the offset of
 * its slot, whatever it is, so the interpreter never asks. Slots of constants and of
 * %tid are filled once a launch, %ctaid once a block.
 */
#ifndef EMU_PTX_CODE_H
#define EMU_PTX_CODE_H

#include "ptx.h"

enum { PTX_LANES = 32, PTX_NAME_MAX = 256 };
#define PTX_NO_SLOT UINT32_MAX

enum ptx_type {
    PTX_NONE,
    PTX_PRED,
    PTX_B8,
    PTX_U8,
    PTX_S8,
    PTX_B16,
    PTX_U16,
    PTX_S16,
    PTX_B32,
    PTX_U32,
    PTX_S32,
    PTX_B64,
    PTX_U64,
    PTX_S64,
    PTX_F16,
    PTX_BF16,
    PTX_F32,
    PTX_F64,
};

enum ptx_space {
    PTX_GENERIC,
    PTX_GLOBAL,
    PTX_SHARED,
    PTX_LOCAL,
    PTX_PARAM, /* .const is .global */
};

enum ptx_rounding { PTX_RN, PTX_RZ, PTX_RM, PTX_RP };

enum ptx_op {
#define OP(name) PTX_##name,
#include "ptx_ops.def"
#undef OP
};

struct ptx_ins {
    uint16_t op;
    uint8_t
        type; /* enum ptx_type: of memory, or of the comparison, or the target of cvt */
    uint8_t from; /* the source type of cvt */
    uint8_t mode; /* comparison, atomic operation, shuffle, vote, rounding ... */
    uint8_t
        mode2; /* space, boolean operation of setp, integer rounding and sat of cvt */
    uint8_t n_vec;            /* elements of a vector load or store */
    uint8_t width_d, width_a; /* bytes a lane of slots d and a, where they may differ */
    bool guard_not;
    uint32_t guard; /* slot of the predicate or PTX_NO_SLOT */
    uint32_t d, a, b, c;
    uint32_t vec[4]; /* slots of the elements */
    int64_t offset;  /* of an address */
    uint32_t target; /* of a branch */
    uint32_t line;
};

enum ptx_cmp {
    PTX_EQ,
    PTX_NE,
    PTX_LT,
    PTX_LE,
    PTX_GT,
    PTX_GE,
    PTX_EQU,
    PTX_NEU,
    PTX_LTU,
    PTX_LEU,
    PTX_GTU,
    PTX_GEU,
    PTX_NUM,
    PTX_NAN
};
enum ptx_bool { PTX_BOOL_NONE, PTX_BOOL_AND, PTX_BOOL_OR, PTX_BOOL_XOR };
enum ptx_atom {
    PTX_ATOM_ADD,
    PTX_ATOM_MIN,
    PTX_ATOM_MAX,
    PTX_ATOM_EXCH,
    PTX_ATOM_CAS,
    PTX_ATOM_AND,
    PTX_ATOM_OR,
    PTX_ATOM_XOR,
    PTX_ATOM_INC,
    PTX_ATOM_DEC
};
enum ptx_shfl { PTX_SHFL_UP, PTX_SHFL_DOWN, PTX_SHFL_BFLY, PTX_SHFL_IDX };
enum ptx_vote { PTX_VOTE_ANY, PTX_VOTE_ALL, PTX_VOTE_UNI, PTX_VOTE_BALLOT };
enum {
    PTX_CVT_INT = 1,
    PTX_CVT_SAT = 2
}; /* mode2 of cvt: round to integral, saturate */

enum ptx_special {
    PTX_TID_X,
    PTX_TID_Y,
    PTX_TID_Z,
    PTX_NTID_X,
    PTX_NTID_Y,
    PTX_NTID_Z,
    PTX_CTAID_X,
    PTX_CTAID_Y,
    PTX_CTAID_Z,
    PTX_NCTAID_X,
    PTX_NCTAID_Y,
    PTX_NCTAID_Z,
    PTX_LANEID,
    PTX_WARPID,
    PTX_NWARPID,
    PTX_SMID,
    PTX_LANEMASK_EQ,
    PTX_LANEMASK_LT,
    PTX_LANEMASK_LE,
    PTX_LANEMASK_GT,
    PTX_LANEMASK_GE,
    PTX_SPECIAL_MAX_
};

/* What a constant that names a variable still lacks. */
enum ptx_relative {
    PTX_ABSOLUTE,
    PTX_IMAGE,   /* + where the module's variables were placed */
    PTX_DYNAMIC, /* + the static shared memory of the function, known at its end */
};

struct ptx_constant {
    uint32_t slot;
    uint8_t width;
    uint8_t relative; /* enum ptx_relative */
    uint64_t bits;
};

struct ptx_param {
    uint32_t offset, bytes;
    char *name; /* owned; dropped when the body is parsed */
};

struct ptx_function {
    char *name;                     /* owned */
    struct ptx_ins *code;           /* owned */
    struct ptx_constant *constants; /* owned */
    struct ptx_param *params;       /* owned */
    uint32_t n_code, n_constants, n_params;
    uint32_t frame_bytes;
    uint32_t special[PTX_SPECIAL_MAX_]; /* slots, PTX_NO_SLOT when not used */
    uint32_t param_bytes, shared_bytes, local_bytes, n_registers, threads_max;
};

struct ptx_variable {
    char *name; /* owned */
    size_t offset, bytes;
};

struct ptx_module {
    unsigned version;
    struct ptx_function **functions; /* elements owned */
    size_t n_functions;
    struct ptx_variable *variables; /* owned */
    size_t n_variables;
    uint8_t *image; /* owned */
    size_t image_bytes;
    uint64_t address; /* where the image was placed */
};

static inline unsigned ptx_type_bytes(enum ptx_type t)
{
    static const uint8_t bytes[] = {
        0, 4, 1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8, 8, 2, 2, 4, 8};
    return bytes[t];
}

/* ---- the interpreter's view of a running block ---- */
struct ptx_warp {
    uint8_t *frame;
    uint32_t pc[PTX_LANES];
    uint32_t live;   /* lanes that have not returned */
    uint32_t barred; /* lanes that wait at a barrier */
    uint32_t barrier;
};

struct ptx_block {
    const struct ptx_launch *launch;
    const struct ptx_ins *code;
    uint8_t *shared;
    uint8_t *local; /* of the warp that runs: lane after lane */
    uint32_t shared_bytes, local_bytes;
    uint64_t n_instructions;
    uint64_t fault_address;
    unsigned fault_line;
};

enum ptx_stop {
    PTX_STOP_DONE,
    PTX_STOP_BARRIER,
    PTX_STOP_ILLEGAL,
    PTX_STOP_MISALIGNED,
    PTX_STOP_TRAP
};

/* Run a warp until all its lanes have returned or wait at a barrier. The two are one
 * file built for two processors; they give the same bits. */
typedef enum ptx_stop ptx_warp_run_f(struct ptx_block *block, struct ptx_warp *warp);
ptx_warp_run_f ptx_warp_run_base;
ptx_warp_run_f ptx_warp_run_fma;

#endif
