/* SPDX-License-Identifier: Apache-2.0
 * newer.c - calls that are passed on as they are (newer.def), whatever their arguments: a jump with the registers kept, in which
 * virtual communicators are replaced by the real ones.
 */
#include "../core/part.h"
#include "op.h"

#include <stdio.h>
#include <string.h>

enum {
#define NEWER(name) NEWER_##name,
#include "newer.def"
#undef NEWER
    NEWER_MAX_
};

static const char *const names[NEWER_MAX_] = {
#define NEWER(name) "nccl" #name,
#include "newer.def"
#undef NEWER
};

static ncclResult_t absent(void)
{
    return orri_nccl_fail(ncclInvalidUsage,
                          "the NCCL of this program does not have this call");
}

static ncclResult_t stale(void)
{
    return orri_nccl_fail(ncclInvalidArgument,
                          "an argument is a communicator that was destroyed");
}

static void *address_of(ncclResult_t (*call)(void))
{
    void *at;

    memcpy(&at, &call, sizeof at);
    return at;
}

static void limit(unsigned index)
{
    static char text[NEWER_MAX_][48];
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

    pthread_mutex_lock(&lock);
    snprintf(text[index], sizeof text[index], "uses %s", names[index]);
    pthread_mutex_unlock(&lock);
    orri_rank_limit(text[index], text[index]);
}

/* regs: the integer arguments, in order.  Returns where to go on. */
void *orri_newer_resolve(uint64_t regs[6], unsigned index);

void *orri_newer_resolve(uint64_t regs[6], unsigned index)
{
    void *real;

    if (!orri_real_ready())
        return address_of(absent);
    real = orri_real_symbol(names[index]);
    if (!real)
        return address_of(absent);
    if (orri_self.inside)
        return real;
    for (int i = 0; i < 6; i++) {
        struct orri_comm *c = orri_comm_find((ncclComm_t)(uintptr_t)regs[i]);
        if (c)
            regs[i] = (uint64_t)(uintptr_t)atomic_load(&c->real);
        else if (regs[i] >> 48 == ORRI_HANDLE_TAG)
            return address_of(stale);
    }
    limit(index);
    return real;
}
