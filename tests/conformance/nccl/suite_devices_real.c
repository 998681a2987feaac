/* SPDX-License-Identifier: Apache-2.0
 * suite_devices_real.c - the devices that the driver has. They are counted by a child,
 * since a process that forks after cuInit is of no more use to CUDA.
 */
#include "suite_devices.h"

#include "orrery/gpu_abi.h"

#include <sys/wait.h>
#include <unistd.h>

static int count(void)
{
    int n = 0;

    return cuInit(0) == CUDA_SUCCESS && cuDeviceGetCount(&n) == CUDA_SUCCESS ? n : 0;
}

int suite_devices_make(int wanted)
{
    int status;
    pid_t pid = fork();

    (void)wanted;
    if (pid == 0)
        _exit(count());
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status)
               ? WEXITSTATUS(status)
               : 0;
}

void suite_devices_remove(void) {}
