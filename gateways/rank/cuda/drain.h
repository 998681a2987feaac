/* SPDX-License-Identifier: Apache-2.0
 * drain.h - wait until the devices have nothing to do.
 */
#ifndef ORR_RANK_CUDA_DRAIN_H
#define ORR_RANK_CUDA_DRAIN_H

#include <stdint.h>

#include "orrery/gpu_abi.h"

/* All work of all contexts, and blocks freed in stream order. The driver's wait has no deadline,
 * so a thread of its own does it; CUDA_ERROR_TIMEOUT when that is not back by deadline_ms, and
 * until it is, every later call times out at once. */
CUresult orri_drain(uint64_t deadline_ms);

#endif
