/* SPDX-License-Identifier: Apache-2.0
 * faults.c - a kernel does what it must not: its context reports it, and goes on reporting
 * it for whatever is asked. Each runs in a process of its own; exit code 0 is as expected.
 */
#include <stdio.h>
#include <string.h>

#include "suite.h"

static int expect(const char *what, CUresult got, CUresult want)
{
    const char *name = "?";
    if (got == want)
        return 0;
    cuGetErrorName(got, &name);
    fprintf(stderr, "%s gives %s (%d), not %d\n", what, name, (int)got, (int)want);
    return 1;
}

/* Launch `kernel`, then see the error everywhere. */
static int provoke(const char *kernel, long long offset, CUresult want)
{
    CUdeviceptr p = suite_upload(NULL, 64), q = 0;
    int value, wrong = 0;
    OK(cuLaunchKernel,
       suite_kernel(kernel),
       1,
       1,
       1,
       32,
       1,
       1,
       0,
       NULL,
       (void *[]){&p, &offset},
       NULL);
    wrong += expect("cuCtxSynchronize", cuCtxSynchronize(), want);
    wrong += expect("cuCtxSynchronize again", cuCtxSynchronize(), want);
    wrong += expect("cuMemcpyDtoH", cuMemcpyDtoH(&value, p, 4), want);
    wrong += expect("cuMemAlloc", cuMemAlloc(&q, 64), want);
    return wrong;
}

int fault_main(const char *name)
{
    if (suite_set_up(NULL) != 0)
        return 2;
    if (strcmp(name, "illegal-address") == 0)
        return provoke("store_at", (long long)1 << 40, CUDA_ERROR_ILLEGAL_ADDRESS);
    if (strcmp(name, "misaligned") == 0)
        return provoke("store_at", 2, CUDA_ERROR_MISALIGNED_ADDRESS);
    if (strcmp(name, "trap") == 0)
        return provoke("give_up", 0, CUDA_ERROR_LAUNCH_FAILED);
    return 2;
}
