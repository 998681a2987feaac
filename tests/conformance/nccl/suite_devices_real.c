/* SPDX-License-Identifier: Apache-2.0
 * suite_devices_real.c - the devices that the driver has. They are counted by a child,
 * since a process that forks after cuInit is of no more use to CUDA.
 *
 * NCCL refuses two ranks on one device of one machine. With CONFORMANCE_SHARED_DEVICE set larger worlds are tried, too: spliced by
 * the library before NCCL (ORRERY_REDUCE is set), or else each rank says that it is on a machine of its own.
 */
#include "suite_devices.h"

#include "orrery/gpu_abi.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static int count(void)
{
    int n = 0;

    return cuInit(0) == CUDA_SUCCESS && cuDeviceGetCount(&n) == CUDA_SUCCESS ? n : 0;
}

static bool is_shared(void)
{
    return getenv("CONFORMANCE_SHARED_DEVICE") != NULL;
}

int suite_devices_make(int wanted)
{
    int status, n;
    pid_t pid = fork();

    if (pid == 0)
        _exit(count());
    n = pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status)
            ? WEXITSTATUS(status)
            : 0;
    return n > 0 && n < wanted && is_shared() ? wanted : n;
}

void suite_devices_remove(void) {}

void suite_devices_enter(int rank)
{
    char name[24];

    snprintf(name, sizeof name, "rank%d", rank);
    if (is_shared() && !getenv("ORRERY_REDUCE"))
        setenv("NCCL_HOSTID", name, 1);
}
