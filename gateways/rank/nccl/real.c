/* SPDX-License-Identifier: Apache-2.0
 * real.c - opens the real NCCL (real.h).
 */
#include "real.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

struct orri_real orri_real;
_Thread_local struct orri_self orri_self;

static void *library; /* never closed */
static char broken[224];
static atomic_bool is_open;
static pthread_once_t once = PTHREAD_ONCE_INIT;

ncclResult_t orri_nccl_fail(ncclResult_t code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(orri_self.text, sizeof orri_self.text, format, args);
    va_end(args);
    orri_self.is_ours = true;
    return code;
}

/* Stands for calls that an older library lacks. */
static ncclResult_t absent(void)
{
    return orri_nccl_fail(ncclInvalidUsage,
                          "the NCCL of this program does not have this call");
}

static void *find(const char *name)
{
    void *at = dlsym(library, name);
    ncclResult_t (*instead)(void) = absent;

    if (!at)
        memcpy(&at, &instead, sizeof at);
    return at;
}

static void load(void)
{
    char path[PATH_MAX];
    void *at;

    if (!orri_real_find(path, sizeof path)) {
        snprintf(broken,
                 sizeof broken,
                 "no libnccl.so.2 found behind Orrery's: set ORRERY_REAL_LIBNCCL to "
                 "its path");
        return;
    }
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library || dlsym(library, "orri_nccl_interposer") ||
        !dlsym(library, "ncclCommInitRank")) {
        snprintf(
            broken,
            sizeof broken,
            "%.100s is not an NCCL that can be used (%.60s): set ORRERY_REAL_LIBNCCL",
            path,
            library ? "its calls are missing, or it is Orrery's own" : dlerror());
        return;
    }
#define CALL(name)                                                                     \
    at = find("nccl" #name);                                                           \
    memcpy(&orri_real.name, &at, sizeof at);
#include "calls.def"
#undef CALL
    atomic_store(&is_open, true); /* pairs with the load in orri_real_ready */
}

bool orri_real_ready(void)
{
    if (atomic_load_explicit(&is_open, memory_order_acquire))
        return true;
    pthread_once(&once, load);
    if (atomic_load(&is_open))
        return true;
    orri_nccl_fail(ncclSystemError, "%s", broken);
    return false;
}

void *orri_real_symbol(const char *name)
{
    return orri_real_ready() ? dlsym(library, name) : NULL;
}

/* So that one copy of this library knows another. */
EXPORT extern const char orri_nccl_interposer[];
const char orri_nccl_interposer[] = "orrery";
