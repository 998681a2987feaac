/* SPDX-License-Identifier: Apache-2.0
 * suite.h - the conformance suite of NCCL: the same cases for the emulator and for
 * NVIDIA's library.
 *
 * A case is a function that every rank runs in a process of its own (this program,
 * executed again). The first check that fails ends the rank, and with it the case. What
 * only the emulator promises stands behind suite_is_emulated().
 */
#ifndef SUITE_H
#define SUITE_H

#include "orrery/gpu_abi.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SUITE_IDS = 8, SUITE_RANKS = 8 };

struct board; /* shared by the ranks of a case */

struct rank {
    int rank, world;
    struct board *board; /* borrowed: for the whole run */
    CUstream stream;
    CUcontext ctx;
};

struct conf_case {
    const char *name;
    void (*run)(struct rank *r);
    int worlds[6]; /* ends with 0 */
    bool is_for_emulator;
};

extern const struct conf_case comm_cases[], collective_cases[], exchange_cases[],
    fault_cases[], splice_cases[], cut_cases[]; /* each ends with a NULL name */

/* OK(ncclX, args): must succeed. FAILS(code, ncclX, args): must return that code. With 0:
 * for calls without arguments. */
#define OK(call, ...)                                                                  \
    suite_check(#call, ncclSuccess, call(__VA_ARGS__), __FILE__, __LINE__)
#define FAILS(code, call, ...)                                                         \
    suite_check(#call, code, call(__VA_ARGS__), __FILE__, __LINE__)
#define OK0(call)          suite_check(#call, ncclSuccess, call(), __FILE__, __LINE__)
#define FAILS0(code, call) suite_check(#call, code, call(), __FILE__, __LINE__)
#define CU(call, ...)      suite_check_cuda(#call, call(__VA_ARGS__), __FILE__, __LINE__)
#define CHECK(cond, ...)   suite_assert(cond, #cond, __FILE__, __LINE__, __VA_ARGS__)

void suite_check(
    const char *call, ncclResult_t want, ncclResult_t got, const char *file, int line);
void suite_check_cuda(const char *call, CUresult got, const char *file, int line);
__attribute__((format(printf, 5, 6))) void suite_assert(
    bool ok, const char *cond, const char *file, int line, const char *format, ...);
/* For the few calls that return no ncclResult_t. */
void suite_covered(const char *call, bool is_error_case);
bool suite_is_emulated(void);
/* A symbol of the library under test, also when another one stands before it (ORRERY_REAL_LIBNCCL). */
void *suite_symbol(const char *name);
/* Calls libcuda and NCCL make about themselves; a wait with a deadline of `ms`. */
ncclResult_t suite_await_async(ncclComm_t comm, ncclResult_t unlike, int ms);

/* All ranks of the case. */
void suite_meet(struct rank *r);
/* A unique id that rank 0 makes; the same k on all ranks, each k once. */
ncclUniqueId suite_id(struct rank *r, int k);
/* The same from any rank, where others may be gone: nobody meets. */
ncclUniqueId suite_id_of(struct rank *r, int k, int maker);
/* A communicator of all ranks from id k. */
ncclComm_t suite_comm(struct rank *r, int k);
void suite_sync(struct rank *r);
/* This rank will be killed: not a failure. Then it kills itself. */
void suite_die(struct rank *r);
void suite_will_die(struct rank *r);
int suite_pid(struct rank *r, int rank);

/* ---- Data ---------------------------------------------------------------------------- */

struct array {
    void *at; /* device memory */
    size_t count;
    ncclDataType_t type;
};

size_t type_size(ncclDataType_t type);
bool type_is_float(ncclDataType_t type);
struct array array_new(size_t count, ncclDataType_t type);
void array_free(struct array *a);
/* Values must be representable: all types hold the small integers that the suite uses. */
void array_write(const struct array *a, const double *values);
void array_read(const struct array *a, double *ret_values);
/* Fails unless a[i] == want[i], within `ulps` of the type's own steps. */
void array_expect(const struct array *a,
                  const double *want,
                  double ulps,
                  const char *what);
double *doubles(size_t count);

#endif
