/* SPDX-License-Identifier: Apache-2.0
 * gpu.c - failing by name.
 */
#include "gpu.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

static uint32_t rank_of_messages;

void die_as_rank(uint32_t rank)
{
    rank_of_messages = rank;
}

void die(const char *fmt, ...)
{
    static atomic_flag dying = ATOMIC_FLAG_INIT;
    if (atomic_flag_test_and_set(&dying)) {
        for (;;)
            pause(); /* another thread is saying why, and will exit */
    }
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fflush(stdout);
    fprintf(stderr, "digits: rank %u: %s\n", rank_of_messages, text);
    _exit(1);
}

void cu_check(const char *call, CUresult res)
{
    if (res == CUDA_SUCCESS)
        return;
    const char *name = NULL, *text = NULL;
    if (cuGetErrorName(res, &name) != CUDA_SUCCESS ||
        cuGetErrorString(res, &text) != CUDA_SUCCESS)
        die("%s: CUDA error %d", call, (int)res);
    die("%s: %s: %s", call, name, text);
}

void nccl_die(const char *what, ncclResult_t res, ncclComm_t comm)
{
    const char *last = ncclGetLastError(comm);
    const char *more = last ? last : "";
    die("%s: %s%s%s", what, ncclGetErrorString(res), more[0] ? ": " : "", more);
}

void nccl_check(const char *call, ncclResult_t res)
{
    if (res != ncclSuccess)
        nccl_die(call, res, NULL);
}
