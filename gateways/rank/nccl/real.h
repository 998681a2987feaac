/* SPDX-License-Identifier: Apache-2.0
 * real.h - the real NCCL behind the interposer: where it is, its calls, and how they are made.
 *
 * It is opened once, by absolute path and privately, so that its names never replace ours.  The dynamic linker still binds its
 * calls of its own exported functions to ours (we are preloaded): a thread that is inside a real call is passed straight on.
 */
#ifndef ORRI_REAL_H
#define ORRI_REAL_H

#include "orrery/gpu_abi.h"

#include <stdbool.h>
#include <stddef.h>

#define EXPORT __attribute__((visibility("default")))
#define ALIAS(name)                                                                    \
    extern __typeof__(nccl##name) pnccl##name                                          \
        __attribute__((alias("nccl" #name), visibility("default")))

struct orri_real {
#define CALL(name) __typeof__(&nccl##name) name;
#include "calls.def"
#undef CALL
};
extern struct orri_real orri_real;

/* True when the real library is open; else the thread's last error says why not. */
bool orri_real_ready(void);
/* Any other call of it; NULL if it has none. */
void *orri_real_symbol(const char *name);

/* Finds the file (find.c): ORRERY_REAL_LIBNCCL, LD_LIBRARY_PATH, the RPATH and RUNPATH of loaded objects that need it, the usual
 * directories; never this library itself.  Returns false when there is none. */
bool orri_real_find(char *path, size_t cap);

/* What the calling thread is doing, and its last error. */
struct orri_self {
    int inside;   /* real calls */
    bool is_ours; /* text is newer than the real library's */
    char text[256];
};
extern _Thread_local struct orri_self orri_self;

/* REAL(CommCount, comm, &n): calls the real ncclCommCount. */
#define REAL(call, ...)                                                                \
    __extension__({                                                                    \
        ncclResult_t got_;                                                             \
        orri_self.inside++;                                                            \
        orri_self.is_ours = false;                                                     \
        got_ = orri_real.call(__VA_ARGS__);                                            \
        orri_self.inside--;                                                            \
        got_;                                                                          \
    })

#define REAL0(call) REAL(call, ) /* for calls without arguments */

/* At the start of each exported call: what the real library calls of itself goes straight on. */
#define ENTER(call, ...)                                                               \
    do {                                                                               \
        if (orri_self.inside)                                                          \
            return orri_real.call(__VA_ARGS__);                                        \
        if (!orri_real_ready())                                                        \
            return ncclSystemError;                                                    \
    } while (0)
#define ENTER0(call) ENTER(call, )
/* As above; communicators that are not ours (made by a call of newer.def) go straight on, too. */
#define ENTER_COMM(comm, call, ...)                                                    \
    do {                                                                               \
        ENTER(call, __VA_ARGS__);                                                      \
        if (orri_comm_is_foreign(comm))                                                \
            return REAL(call, __VA_ARGS__);                                            \
    } while (0)

/* Sets the thread's last error and returns code. */
__attribute__((format(printf, 2, 3))) ncclResult_t
orri_nccl_fail(ncclResult_t code, const char *format, ...);

#endif
