/* SPDX-License-Identifier: Apache-2.0
 * real.h - the driver's own library behind this one: every call by number, its address found when
 * it is first needed.
 */
#ifndef ORR_RANK_CUDA_REAL_H
#define ORR_RANK_CUDA_REAL_H

#include <stdatomic.h>
#include <stdint.h>

#include "orrery/gpu_abi.h"

#define WRAPPED(name)       CALL_##name,
#define GATED(name, n)      CALL_##name,
#define NOTED(name, n, why) CALL_##name,
#define FORWARD(name)       CALL_##name,
enum orri_cuda_call {
#include "names.def"
    CALL_MAX_
};
#undef WRAPPED
#undef GATED
#undef NOTED
#undef FORWARD

#define ORRI_EXPORT __attribute__((visibility("default")))

typedef CUresult (*orri_cuda_call_f)(void);

/* Where each call goes; trampoline.S. Written once each, by orri_cuda_resolve. */
extern _Atomic(orri_cuda_call_f) orri_cuda_slots[CALL_MAX_];

/* REAL(cuMemAlloc)(&p, 64): the driver's own, with the type of the declaration in sight. */
#define REAL(name) REAL_(name)
#define REAL_(name)                                                                    \
    ((__typeof__(&name))(void (*)(void))atomic_load_explicit(                          \
        &orri_cuda_slots[CALL_##name], memory_order_relaxed))

/* Opens the driver when nobody has; fills the slot. A call that the driver lacks gets a function
 * that answers CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER; without a driver CUDA_ERROR_NO_DEVICE. */
orri_cuda_call_f orri_cuda_resolve(unsigned call);

/* The driver is loaded at this address. */
int orri_cuda_is_driver(const void *base);

const char *orri_cuda_call_name(unsigned call);

/* Our function for an address of the driver: NULL if we have none. */
void *orri_cuda_ours(const void *real);
/* One of our names has this base ("cuMemAlloc" for cuMemAlloc_v2_ptsz). */
int orri_cuda_is_known(const char *base);

#endif
