/* SPDX-License-Identifier: Apache-2.0
 * why.h - the human side of an ncclResult_t: which thing, and what to do about it.
 */
#ifndef ORRI_WHY_H
#define ORRI_WHY_H

#include "orrery/gpu_abi.h"

struct orri_why {
    char text[248];
};

/* Writes the text and returns `code`, for `return orri_why_set(why, code, ...)`. */
__attribute__((format(printf, 3, 4))) ncclResult_t
orri_why_set(struct orri_why *why, ncclResult_t code, const char *format, ...);

/* The calling thread's last error (ncclGetLastError). Same return as above. */
__attribute__((format(printf, 2, 3))) ncclResult_t
orri_fail(ncclResult_t code, const char *format, ...);
const char *orri_last_error(void);

/* ORRERY_EMULATOR_NCCL_TIMEOUT_MS, or 300000: how long a rendezvous waits. */
unsigned orri_timeout_ms(void);

#endif
