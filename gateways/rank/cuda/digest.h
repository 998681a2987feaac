/* SPDX-License-Identifier: Apache-2.0
 * digest.h - what device memory held at a stop, and after the resume: for whoever wants to see that it is the same.
 *
 * With ORRERY_RANK_DIGESTS=PREFIX in its environment a process reads everything that the program has on its devices, by the
 * program's own addresses, once all work has ended and again when it was filled after the resume, and appends a line to
 * PREFIX.RANK each time:
 *
 *     out=3 buffers=17 bytes=81920 digest=0123456789abcdef
 *     in=3 buffers=17 bytes=81920 digest=0123456789abcdef was=0123456789abcdef
 *
 * What it was is remembered in the process' memory, so it travels with its image, and is not read from the arena. The numbers
 * count the process' stops. Without the variable nothing is read. With orri_cuda_lock; the gate is closed.
 */
#ifndef ORR_RANK_CUDA_DIGEST_H
#define ORR_RANK_CUDA_DIGEST_H

#include <stdint.h>

void orri_digest_out(void);
void orri_digest_in(void);

#endif
