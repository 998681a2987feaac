/* SPDX-License-Identifier: Apache-2.0
 * numeric.h - arithmetic on arrays of NCCL's data types, on the host.
 *
 * Every function works element by element and in the order of the arguments, so that
 * the same inputs give the same bits on every machine. Narrow floats (f16, bf16, fp8)
 * are widened to f32, and each result is rounded to nearest even; fp8 saturates at its
 * largest finite value, as the hardware conversion does. Integers wrap around.
 */
#ifndef ORRI_NUMERIC_H
#define ORRI_NUMERIC_H

#include "orrery/gpu_abi.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A scalar of any data type, in its own representation. */
union orri_scalar {
    uint8_t bytes[8];
    uint64_t word;
};

/* Bytes of one element; 0 for what is not a data type. */
size_t orri_type_size(ncclDataType_t type);
const char *orri_type_name(ncclDataType_t type);
bool orri_type_is_float(ncclDataType_t type);

/* dst[i] = a[i] op b[i]; dst may be a or b. op: ncclSum, ncclProd, ncclMax, ncclMin.
 * Max and Min ignore NaN where the other operand is a number. */
void orri_combine(void *dst,
                  const void *a,
                  const void *b,
                  size_t count,
                  ncclDataType_t type,
                  ncclRedOp_t op);

/* dst[i] = src[i] * scalar. */
void orri_scale(void *dst,
                const void *src,
                size_t count,
                ncclDataType_t type,
                union orri_scalar scalar);

/* data[i] /= divisor, towards zero; integer types only. */
void orri_divide(void *data, size_t count, ncclDataType_t type, unsigned divisor);

/* 1/n in a floating type. */
union orri_scalar orri_reciprocal(ncclDataType_t type, unsigned n);

float orri_float_decode(ncclDataType_t type, uint16_t bits);
uint16_t orri_float_encode(ncclDataType_t type, float value);

#endif
