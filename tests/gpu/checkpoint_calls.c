/* SPDX-License-Identifier: Apache-2.0
 * checkpoint_calls.c - checkpoint_calls.h.
 */
#include "checkpoint_calls.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "checkpoint_abi.h"

static struct checkpoint_api api;
static const struct victim *whose;
static const char *volatile call_now = "";

static void on_alarm(int signal_number)
{
    static const char before[] = "{\"probe\":\"hang\",\"call\":\"", after[] = "\"}\n";
    (void)signal_number;
    if (whose->pid > 0)
        kill(whose->pid, SIGKILL);
    if (write(1, before, sizeof before - 1) < 0 ||
        write(1, call_now, strlen(call_now)) < 0 ||
        write(1, after, sizeof after - 1) < 0)
        _exit(2);
    _exit(1);
}

double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

const char *result_name(CUresult rc)
{
    const char *name = NULL;
    return cuGetErrorName(rc, &name) == CUDA_SUCCESS && name ? name : "unknown";
}

/* TIMED(&ms, "lock", api.lock(pid, &args)): its result, and how long it took. */
#define TIMED(ret_ms, name, call)                                                      \
    (call_begin(ret_ms, name), call_end(ret_ms, (CUresult)(call)))

static void call_begin(double *ret_ms, const char *name)
{
    call_now = name;
    alarm(CHECKPOINT_CALL_S);
    *ret_ms = now_ms();
}

static CUresult call_end(double *ret_ms, CUresult rc)
{
    *ret_ms = now_ms() - *ret_ms;
    alarm(0);
    return rc;
}

CUresult checkpoint_lock(int pid, unsigned timeout_ms, double *ret_ms)
{
    struct checkpoint_lock_args args = {.timeout_ms = timeout_ms};
    return TIMED(ret_ms, "lock", api.lock(pid, &args));
}

CUresult checkpoint_save(int pid, double *ret_ms)
{
    struct checkpoint_args args = {{0}};
    return TIMED(ret_ms, "checkpoint", api.checkpoint(pid, &args));
}

CUresult checkpoint_restore(int pid, double *ret_ms)
{
    struct checkpoint_restore_args args = {.gpu_pairs = NULL};
    return TIMED(ret_ms, "restore", api.restore(pid, &args));
}

CUresult checkpoint_unlock(int pid, double *ret_ms)
{
    struct checkpoint_args args = {{0}};
    return TIMED(ret_ms, "unlock", api.unlock(pid, &args));
}

CUresult checkpoint_thread(int pid, int *ret_tid, double *ret_ms)
{
    return TIMED(ret_ms, "get_thread", api.get_thread(pid, ret_tid));
}

int checkpoint_state(int pid)
{
    double ms;
    int state = -1;
    if (!api.get_state)
        return -1;
    CUresult rc = TIMED(&ms, "get_state", api.get_state(pid, &state));
    return rc == CUDA_SUCCESS ? state : -1;
}

size_t device_free_mib(void)
{
    size_t available = 0, total = 0;
    return cuMemGetInfo(&available, &total) == CUDA_SUCCESS ? available >> 20 : 0;
}

bool is_freed(size_t mib, size_t free_before, size_t free_after)
{
    return free_after >= free_before + mib - mib / 10;
}

static bool find(const char *name, void *ret_function)
{
    void *symbol = dlsym(RTLD_DEFAULT, name);
    memcpy(ret_function, &symbol, sizeof symbol);
    return symbol != NULL;
}

bool checkpoint_is_available(void)
{
    int tid;
    return find("cuCheckpointProcessGetRestoreThreadId", &api.get_thread) &&
           find("cuCheckpointProcessGetState", &api.get_state) &&
           find("cuCheckpointProcessLock", &api.lock) &&
           find("cuCheckpointProcessCheckpoint", &api.checkpoint) &&
           find("cuCheckpointProcessRestore", &api.restore) &&
           find("cuCheckpointProcessUnlock", &api.unlock) &&
           api.get_thread(getpid(), &tid) != CUDA_ERROR_NOT_SUPPORTED;
}

bool checkpoint_open_device(const struct victim *victim)
{
    CUdevice device;
    CUcontext context;
    double ms;
    whose = victim;
    signal(SIGALRM, on_alarm);
    signal(SIGPIPE, SIG_IGN);
    CUresult rc = TIMED(&ms, "cuInit", cuInit(0));
    printf(
        "{\"probe\":\"cuInit\",\"result\":\"%s\",\"ms\":%.1f}\n", result_name(rc), ms);
    return rc == CUDA_SUCCESS && cuDeviceGet(&device, 0) == CUDA_SUCCESS &&
           cuDevicePrimaryCtxRetain(&context, device) == CUDA_SUCCESS &&
           cuCtxSetCurrent(context) == CUDA_SUCCESS;
}
