/* SPDX-License-Identifier: Apache-2.0
 * driver.h - the driver's own calls (not those that stand before it: what the splice makes is none of the program's memory), and the
 * kernels.
 */
#ifndef ORRI_SPLICE_DRIVER_H
#define ORRI_SPLICE_DRIVER_H

#include "../real.h"

struct orri_driver {
#define CALL(name) __typeof__(&cu##name) name;
#include "driver.def"
#undef CALL
};
extern struct orri_driver orri_cu;

/* Finds the calls.  Errors: the driver lacks one. */
ncclResult_t orri_driver_ready(void);
/* CUDA_SUCCESS, or the thread's last error: what failed. */
ncclResult_t orri_driver_check(const char *what, CUresult result);
/* CU(MemcpyDtoDAsync, to, from, bytes, stream) */
#define CU(call, ...) orri_driver_check("cu" #call, orri_cu.call(__VA_ARGS__))

enum orri_verb {
    ORRI_SUM,
    ORRI_PROD,
    ORRI_MAX,
    ORRI_MIN,
    ORRI_MUL,
    ORRI_DIV,
    ORRI_VERBS
};

size_t orri_type_bytes(ncclDataType_t type);  /* 0: none of those that we know */
bool orri_type_is_whole(ncclDataType_t type); /* an integer */
/* 1/n, in the type's own bits, as ncclAvg multiplies by it. */
uint64_t orri_type_reciprocal(ncclDataType_t type, int n);

/* A device's modules, one for each type once it is needed; they go with the context. */
struct orri_kernels {
    CUmodule module[ncclNumTypes];
    CUfunction fn[ncclNumTypes][ORRI_VERBS];
};
void orri_kernels_fini(struct orri_kernels *k);

/* All in the stream.  out[i] = in[0][i] op in[1][i] op ...: kernels.py says in which order. */
ncclResult_t orri_kernel_combine(struct orri_kernels *k,
                                 enum orri_verb verb,
                                 ncclDataType_t type,
                                 CUdeviceptr out,
                                 const CUdeviceptr *in,
                                 int m,
                                 size_t count,
                                 CUstream stream);
/* ORRI_MUL by the scalar, or by what is at scalar_at; ORRI_DIV by the scalar. */
ncclResult_t orri_kernel_each(struct orri_kernels *k,
                              enum orri_verb verb,
                              ncclDataType_t type,
                              CUdeviceptr out,
                              CUdeviceptr in,
                              size_t count,
                              uint64_t scalar,
                              CUdeviceptr scalar_at,
                              CUstream stream);

#endif
