/* SPDX-License-Identifier: Apache-2.0
 * pool.h - memory that is freed in stream order.
 */
#ifndef ORR_RANK_CUDA_POOL_H
#define ORR_RANK_CUDA_POOL_H

/* Free for good what was freed in stream order and is done. With orri_cuda_lock. */
void orri_pool_collect(void);

#endif
