/* SPDX-License-Identifier: Apache-2.0
 * reason.h - why this process cannot be suspended, if there is a reason.
 */
#ifndef ORR_RANK_CUDA_REASON_H
#define ORR_RANK_CUDA_REASON_H

/* From now on and for good; the first one stays. text: static. */
void orri_cuda_note(const char *text);
/* NULL, or the reason of now: noted ones, and what exists at this moment and cannot be made anew. */
const char *orri_cuda_reason(void);

#endif
