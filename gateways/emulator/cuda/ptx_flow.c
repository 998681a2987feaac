/* SPDX-License-Identifier: Apache-2.0
 * ptx_flow.c - divergence: the runnable lanes with the smallest program counter go
 * first.
 */
#include "ptx_exec.h"

static void save(struct ptx_warp *w, uint32_t lanes, uint32_t pc)
{
    for (uint32_t m = lanes; m; m &= m - 1)
        w->pc[__builtin_ctz(m)] = pc;
}

void ptx_flow_pick(struct ptx_warp *w, struct ptx_flow *f)
{
    uint32_t runnable = w->live & ~w->barred, first = UINT32_MAX;
    for (uint32_t m = runnable; m; m &= m - 1) {
        uint32_t pc = w->pc[__builtin_ctz(m)];
        first = pc < first ? pc : first;
    }
    f->pc = first;
    f->limit = UINT32_MAX;
    f->active = 0;
    for (uint32_t m = runnable; m; m &= m - 1) {
        int l = __builtin_ctz(m);
        if (w->pc[l] == first)
            f->active |= (uint32_t)1 << l;
        else if (w->pc[l] < f->limit)
            f->limit = w->pc[l];
    }
    f->n_active = (unsigned)__builtin_popcount(f->active);
}

void ptx_flow_switch(struct ptx_warp *w, struct ptx_flow *f)
{
    save(w, f->active, f->pc);
    ptx_flow_pick(w, f);
}

void ptx_flow_branch(struct ptx_warp *w,
                     struct ptx_flow *f,
                     uint32_t taken,
                     uint32_t target)
{
    if (taken == f->active) {
        f->pc = target;
        if (target >= f->limit)
            ptx_flow_switch(w, f);
        return;
    }
    save(w, f->active, f->pc);
    save(w, taken, target);
    ptx_flow_pick(w, f);
}

void ptx_flow_return(struct ptx_warp *w, struct ptx_flow *f, uint32_t lanes)
{
    w->live &= ~lanes;
    f->active &= ~lanes;
    ptx_flow_switch(w, f);
}

void ptx_flow_wait(struct ptx_warp *w, struct ptx_flow *f, uint32_t lanes)
{
    w->barred |= lanes;
    ptx_flow_switch(w, f);
}
