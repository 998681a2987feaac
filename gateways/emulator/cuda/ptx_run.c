/* SPDX-License-Identifier: Apache-2.0
 * ptx_run.c - a grid: its blocks one after the other, in order, so that sums by atomic
 * additions come out the same every time; in a block, warp by warp from barrier to
 * barrier.
 */
#include <stdlib.h>
#include <string.h>

#include "ptx_exec.h"

static size_t aligned(size_t n)
{
    return (n + 63) / 64 * 64;
}

void ptx_scratch_fini(struct ptx_scratch *scratch)
{
    free(scratch->memory);
    *scratch = (struct ptx_scratch){0};
}

/* What a launch needs in its scratch, and where. */
struct layout {
    size_t warps, frames, frame_bytes, shared, shared_bytes, local, local_bytes, total;
    uint32_t n_threads, n_warps;
};

static struct layout lay_out(const struct ptx_launch *launch)
{
    const struct ptx_function *fn = launch->fn;
    struct layout y = {0};
    y.n_threads = launch->block[0] * launch->block[1] * launch->block[2];
    y.n_warps = (y.n_threads + PTX_LANES - 1) / PTX_LANES;
    y.frame_bytes = aligned(fn->frame_bytes);
    y.shared_bytes = fn->shared_bytes + launch->dynamic_shared_bytes;
    y.local_bytes = (fn->local_bytes + 15) / 16 * 16;
    y.frames = aligned(y.n_warps * sizeof(struct ptx_warp));
    y.shared = y.frames + y.n_warps * y.frame_bytes;
    y.local = y.shared + aligned(y.shared_bytes);
    y.total = y.local + y.n_warps * PTX_LANES * y.local_bytes;
    return y;
}

static bool provide(struct ptx_scratch *scratch, size_t bytes)
{
    if (scratch->bytes >= bytes)
        return true;
    free(scratch->memory);
    scratch->bytes = aligned(bytes);
    scratch->memory = aligned_alloc(64, scratch->bytes);
    if (!scratch->memory)
        scratch->bytes = 0;
    return scratch->memory != NULL;
}

static void fill(uint8_t *slot, unsigned width, uint64_t value)
{
    for (int l = 0; l < PTX_LANES; l++)
        memcpy(slot + (size_t)l * width, &value, width);
}

static void fill_special(const struct ptx_function *fn,
                         uint8_t *frame,
                         enum ptx_special which,
                         uint32_t value)
{
    if (fn->special[which] != PTX_NO_SLOT)
        fill(frame + fn->special[which], 4, value);
}

static void set_lane(const struct ptx_function *fn,
                     uint8_t *frame,
                     enum ptx_special which,
                     unsigned lane,
                     uint32_t value)
{
    if (fn->special[which] != PTX_NO_SLOT)
        memcpy(frame + fn->special[which] + (size_t)lane * 4, &value, 4);
}

/* What is the same for all blocks. */
static void prepare_frame(const struct ptx_launch *launch,
                          const struct layout *y,
                          uint8_t *frame,
                          uint32_t warp)
{
    const struct ptx_function *fn = launch->fn;
    memset(frame, 0, y->frame_bytes);
    for (uint32_t i = 0; i < fn->n_constants; i++)
        fill(frame + fn->constants[i].slot,
             fn->constants[i].width,
             fn->constants[i].bits);
    for (unsigned i = 0; i < 3; i++) {
        fill_special(fn, frame, PTX_NTID_X + i, launch->block[i]);
        fill_special(fn, frame, PTX_NCTAID_X + i, launch->grid[i]);
    }
    fill_special(fn, frame, PTX_WARPID, warp);
    fill_special(fn, frame, PTX_NWARPID, y->n_warps);
    for (unsigned l = 0; l < PTX_LANES; l++) {
        uint32_t t = warp * PTX_LANES + l, one = (uint32_t)1 << l;
        set_lane(fn, frame, PTX_TID_X, l, t % launch->block[0]);
        set_lane(fn, frame, PTX_TID_Y, l, t / launch->block[0] % launch->block[1]);
        set_lane(fn, frame, PTX_TID_Z, l, t / launch->block[0] / launch->block[1]);
        set_lane(fn, frame, PTX_LANEID, l, l);
        set_lane(fn, frame, PTX_LANEMASK_EQ, l, one);
        set_lane(fn, frame, PTX_LANEMASK_LT, l, one - 1);
        set_lane(fn, frame, PTX_LANEMASK_LE, l, one | (one - 1));
        set_lane(fn, frame, PTX_LANEMASK_GE, l, ~(one - 1));
        set_lane(fn, frame, PTX_LANEMASK_GT, l, ~(one | (one - 1)));
    }
}

static void start_warp(const struct ptx_function *fn,
                       const struct layout *y,
                       struct ptx_warp *w,
                       uint32_t warp,
                       const uint32_t at[3])
{
    uint32_t n = y->n_threads - warp * PTX_LANES;
    w->live = n >= PTX_LANES ? UINT32_MAX : ((uint32_t)1 << n) - 1;
    w->barred = 0;
    memset(w->pc, 0, sizeof w->pc);
    for (unsigned i = 0; i < 3; i++)
        fill_special(fn, w->frame, PTX_CTAID_X + i, at[i]);
}

static enum ptx_status status_of(enum ptx_stop stop)
{
    switch (stop) {
    case PTX_STOP_ILLEGAL:
        return PTX_ILLEGAL_ADDRESS;
    case PTX_STOP_MISALIGNED:
        return PTX_MISALIGNED;
    case PTX_STOP_TRAP:
        return PTX_TRAPPED;
    case PTX_STOP_DONE:
    case PTX_STOP_BARRIER:
        break;
    }
    return PTX_OK;
}

/* ORRERY_EMULATOR_CPU=base: the plain variant, to see that the results are the same. */
static ptx_warp_run_f *warp_run(void)
{
#ifdef PTX_HAS_FMA
    const char *cpu = getenv("ORRERY_EMULATOR_CPU");
    bool is_plain = cpu && strcmp(cpu, "base") == 0;
    if (!is_plain && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi") && __builtin_cpu_supports("popcnt"))
        return ptx_warp_run_fma;
#endif
    return ptx_warp_run_base;
}

/* Rounds of: every warp runs until it waits or ends; then all that wait go on. */
static enum ptx_status run_block(struct ptx_block *block,
                                 const struct layout *y,
                                 struct ptx_warp *warps,
                                 uint8_t *local,
                                 ptx_warp_run_f *run)
{
    for (;;) {
        bool is_waiting = false, is_split = false;
        uint32_t barrier = 0;
        for (uint32_t i = 0; i < y->n_warps; i++) {
            struct ptx_warp *w = &warps[i];
            if (!w->live)
                continue;
            block->local = local + (size_t)i * PTX_LANES * y->local_bytes;
            enum ptx_stop stop = run(block, w);
            if (stop != PTX_STOP_DONE && stop != PTX_STOP_BARRIER)
                return status_of(stop);
            if (!w->live)
                continue;
            is_split = is_split || (is_waiting && w->barrier != barrier);
            barrier = w->barrier;
            is_waiting = true;
        }
        if (!is_waiting)
            return PTX_OK;
        if (is_split)
            return PTX_DEADLOCK;
        for (uint32_t i = 0; i < y->n_warps; i++)
            warps[i].barred = 0;
    }
}

static enum ptx_status run_grid(const struct ptx_launch *launch,
                                const struct layout *y,
                                struct ptx_block *block,
                                uint8_t *memory)
{
    struct ptx_warp *warps = (struct ptx_warp *)(void *)memory;
    ptx_warp_run_f *run = warp_run();
    enum ptx_status status = PTX_OK;
    uint32_t at[3];
    for (uint32_t i = 0; i < y->n_warps; i++) {
        warps[i].frame = memory + y->frames + i * y->frame_bytes;
        prepare_frame(launch, y, warps[i].frame, i);
    }
    for (at[2] = 0; at[2] < launch->grid[2]; at[2]++)
        for (at[1] = 0; at[1] < launch->grid[1]; at[1]++)
            for (at[0] = 0; at[0] < launch->grid[0] && status == PTX_OK; at[0]++) {
                for (uint32_t i = 0; i < y->n_warps; i++)
                    start_warp(launch->fn, y, &warps[i], i, at);
                status = run_block(block, y, warps, memory + y->local, run);
            }
    return status;
}

enum ptx_status ptx_run(const struct ptx_launch *launch,
                        struct ptx_scratch *scratch,
                        struct ptx_outcome *ret_outcome)
{
    struct layout y = lay_out(launch);
    if (!provide(scratch, y.total))
        return PTX_NO_MEMORY;
    uint8_t *memory = scratch->memory;
    memset(memory + y.shared, 0, y.total - y.shared);
    struct ptx_block block = {.launch = launch,
                              .code = launch->fn->code,
                              .shared = memory + y.shared,
                              .shared_bytes = (uint32_t)y.shared_bytes,
                              .local_bytes = (uint32_t)y.local_bytes};
    enum ptx_status status = run_grid(launch, &y, &block, memory);
    *ret_outcome = (struct ptx_outcome){
        block.n_instructions, block.fault_address, block.fault_line};
    return status;
}
