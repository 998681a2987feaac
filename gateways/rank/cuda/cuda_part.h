/* SPDX-License-Identifier: Apache-2.0
 * cuda_part.h - what this library exports beside the driver's names: for the core and for tests.
 */
#ifndef ORR_RANK_CUDA_PART_H
#define ORR_RANK_CUDA_PART_H

#include "real.h"
#include "suspend.h"

struct orri_part;

/* ../core/part.h */
ORRI_EXPORT const struct orri_part *orri_cuda_part(void);
/* NULL, or "uses cuMemAllocManaged": may change in both directions while the program runs. */
ORRI_EXPORT const char *orri_cuda_why_not_suspendable(void);
/* Of the last quiesce or resume. */
ORRI_EXPORT void orri_cuda_last_account(struct orri_cuda_account *ret);

#endif
