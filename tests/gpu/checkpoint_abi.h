/* SPDX-License-Identifier: Apache-2.0
 * checkpoint_abi.h - the driver's calls to suspend a process, as CUDA 13.0 has them.
 *
 * They are looked up at run time: drivers before 570 lack them.
 * All arguments are 64 bytes that must be zero where nothing is said; checkpoint_facts.c
 * holds the layouts against the toolkit's. Include orrery/gpu_abi.h before.
 */
#ifndef CHECKPOINT_ABI_H
#define CHECKPOINT_ABI_H

#include <stdint.h>

enum checkpoint_state {
    CHECKPOINT_RUNNING = 0,
    CHECKPOINT_LOCKED = 1,       /* further CUDA calls of the process wait */
    CHECKPOINT_CHECKPOINTED = 2, /* its device memory is in host memory, the GPU free */
    CHECKPOINT_FAILED = 3        /* for ever */
};

struct checkpoint_lock_args {
    unsigned timeout_ms; /* 0: waits for ever */
    unsigned reserved0;
    uint64_t reserved1[7];
};

struct checkpoint_args { /* of checkpoint, and of unlock */
    uint64_t reserved[8];
};

struct checkpoint_restore_args {
    const void *gpu_pairs; /* NULL: the same GPUs as before */
    unsigned gpu_pairs_count;
    char reserved[44];
    uint64_t reserved1;
};

struct checkpoint_api {
    CUresult (*get_thread)(int pid, int *tid);
    CUresult (*get_state)(int pid, int *state); /* enum checkpoint_state */
    CUresult (*lock)(int pid, struct checkpoint_lock_args *args);
    CUresult (*checkpoint)(int pid, struct checkpoint_args *args);
    CUresult (*restore)(int pid, struct checkpoint_restore_args *args);
    CUresult (*unlock)(int pid, struct checkpoint_args *args);
};

#endif
