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

/* ---- ptx_memory.c: loads, stores and atomic operations ---- */
enum ptx_stop ptx_memory(struct ptx_block *block,
                         uint8_t *frame,
                         const struct ptx_ins *in,
                         uint32_t mask);

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
