/* SPDX-License-Identifier: Apache-2.0
 * suspend.h - take all device memory away and give it back at the same addresses.
 *
 * START      the gate is closed (gate.h): no thread is in the driver, none gets in.
 * OPERATION  out: all work ends; content goes to the arena, each piece of physical memory at a
 *            page of its own; everything is unmapped and released, addresses stay reserved.
 *            in: all physical memory is taken first, then mapped, then filled.
 * FAILURES   out: what was let go is taken back before it returns. in: what was taken is let go
 *            again; the process stays stopped, and it can be tried again.
 */
#ifndef ORR_RANK_CUDA_SUSPEND_H
#define ORR_RANK_CUDA_SUSPEND_H

#include <stdbool.h>
#include <stdint.h>

#include "orrery/gpu_abi.h"

struct orri_cuda_why {
    CUresult code;
    char text[320];
};

/* Of the last stop or resume, for reports. */
struct orri_cuda_account {
    uint64_t bytes; /* copied */
    uint64_t drain_us, copy_us, release_us, take_us;
};

/* Bytes that the arena must have; stable while the gate is closed. */
uint64_t orri_cuda_arena_bytes(void);

/* arena: page-aligned, bytes long. Deadlines: CLOCK_MONOTONIC, ms. False: why says what, and
 * nothing has changed. */
bool orri_cuda_out(uint8_t *arena,
                   uint64_t bytes,
                   uint64_t deadline_ms,
                   struct orri_cuda_account *ret,
                   struct orri_cuda_why *why);
bool orri_cuda_in(uint8_t *arena,
                  uint64_t bytes,
                  uint64_t deadline_ms,
                  struct orri_cuda_account *ret,
                  struct orri_cuda_why *why);

#endif
