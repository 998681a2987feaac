/* SPDX-License-Identifier: Apache-2.0
 * checkpoint_facts.c - checkpoint_abi.h against the toolkit's header, by the compiler.
 */
#include <cuda.h>
#include <stddef.h>

#include "checkpoint_abi.h"

#define FACT(cond)            _Static_assert(cond, #cond)
#define SAME_SIZE(ours, real) FACT(sizeof(struct ours) == 64 && sizeof(real) == 64)
#define SAME_PLACE(ours, member, real, real_member)                                    \
    FACT(offsetof(struct ours, member) == offsetof(real, real_member))
#define CALL(name, args)                                                               \
    FACT(__builtin_types_compatible_p(__typeof__(&name), CUresult (*)(int, args *)))

SAME_SIZE(checkpoint_lock_args, CUcheckpointLockArgs);
SAME_SIZE(checkpoint_args, CUcheckpointCheckpointArgs);
SAME_SIZE(checkpoint_args, CUcheckpointUnlockArgs);
SAME_SIZE(checkpoint_restore_args, CUcheckpointRestoreArgs);
SAME_PLACE(checkpoint_lock_args, timeout_ms, CUcheckpointLockArgs, timeoutMs);
SAME_PLACE(checkpoint_restore_args, gpu_pairs, CUcheckpointRestoreArgs, gpuPairs);
SAME_PLACE(checkpoint_restore_args,
           gpu_pairs_count,
           CUcheckpointRestoreArgs,
           gpuPairsCount);
FACT(sizeof(CUprocessState) == sizeof(int));
FACT((int)CU_PROCESS_STATE_RUNNING == CHECKPOINT_RUNNING);
FACT((int)CU_PROCESS_STATE_LOCKED == CHECKPOINT_LOCKED);
FACT((int)CU_PROCESS_STATE_CHECKPOINTED == CHECKPOINT_CHECKPOINTED);
FACT((int)CU_PROCESS_STATE_FAILED == CHECKPOINT_FAILED);
CALL(cuCheckpointProcessGetRestoreThreadId, int);
CALL(cuCheckpointProcessGetState, CUprocessState);
CALL(cuCheckpointProcessLock, CUcheckpointLockArgs);
CALL(cuCheckpointProcessCheckpoint, CUcheckpointCheckpointArgs);
CALL(cuCheckpointProcessRestore, CUcheckpointRestoreArgs);
CALL(cuCheckpointProcessUnlock, CUcheckpointUnlockArgs);
