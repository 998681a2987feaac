/* SPDX-License-Identifier: Apache-2.0
 * gpu_abi.h - the CUDA driver and NCCL declarations that Orrery and its examples use, so that nothing here needs a toolkit to build.
 */
#ifndef ORR_GPU_ABI_H
#define ORR_GPU_ABI_H

#include <stddef.h>
#include <stdint.h>

/* ---- CUDA driver API ------------------------------------------------------------------------------------------------------- */

/* ---- NCCL ------------------------------------------------------------------------------------------------------------------ */

#endif
