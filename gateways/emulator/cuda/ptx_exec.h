/* SPDX-License-Identifier: Apache-2.0
 * ptx_exec.h - the parts of the interpreter outside its inner loop.
 */
#ifndef EMU_PTX_EXEC_H
#define EMU_PTX_EXEC_H

#include "ptx_code.h"

__extension__ typedef __int128 ptx_s128;
__extension__ typedef unsigned __int128 ptx_u128;

/* ---- ptx_flow.c: which lanes run. Lanes that don't wait at w->pc[lane]. ---- */
struct ptx_flow {
    uint32_t pc;     /* of the active lanes */
    uint32_t limit;  /* the smallest pc of the others that can run */
    uint32_t active; /* 0: none can */
    unsigned n_active;
};
void ptx_flow_pick(struct ptx_warp *w, struct ptx_flow *f); /* choose; w->pc is right */
void ptx_flow_switch(struct ptx_warp *w,
                     struct ptx_flow *f); /* active ones join the rest */
void ptx_flow_branch(struct ptx_warp *w,
                     struct ptx_flow *f,
                     uint32_t taken,
                     uint32_t target);
void ptx_flow_return(struct ptx_warp *w, struct ptx_flow *f, uint32_t lanes);
void ptx_flow_wait(struct ptx_warp *w, struct ptx_flow *f, uint32_t lanes);

/* ---- ptx_exec.c and ptx_memory.c are built once for each kind of processor ---- */
#define PTX_JOIN(name, suffix)   name##_##suffix
#define PTX_JOINED(name, suffix) PTX_JOIN(name, suffix)
#define PTX_VARIANT(name)        PTX_JOINED(name, PTX_SUFFIX)
typedef enum ptx_stop ptx_memory_f(struct ptx_block *block,
                                   uint8_t *frame,
                                   const struct ptx_ins *in,
                                   uint32_t mask);
ptx_memory_f ptx_memory_base; /* loads, stores and atomic operations */
ptx_memory_f ptx_memory_fma;

/* A loop over the lanes that may be turned into vector instructions. */
#if defined(__clang__)
#define EACH_LANE                                                                      \
    _Pragma("clang loop vectorize(assume_safety)") for (int l = 0; l < PTX_LANES; l++)
#else
#define EACH_LANE _Pragma("GCC ivdep") for (int l = 0; l < PTX_LANES; l++)
#endif

/* ---- ptx_rare.c: what is seldom enough to be done lane by lane ---- */
void ptx_rare(struct ptx_block *block,
              uint8_t *frame,
              const struct ptx_ins *in,
              uint32_t mask);
void ptx_set_compared(uint8_t *frame,
                      const struct ptx_ins *in,
                      uint32_t result,
                      uint32_t mask);
/* A lane of a slot, whatever its width, zero-extended. */
uint64_t ptx_lane_get(const uint8_t *frame, uint32_t slot, unsigned width, int lane);
void ptx_lane_set(
    uint8_t *frame, uint32_t slot, unsigned width, int lane, uint64_t value);

#endif
