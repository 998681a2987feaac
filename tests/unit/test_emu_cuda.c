/* SPDX-License-Identifier: Apache-2.0
 * test_emu_cuda.c - what only the emulated driver promises: which devices a process sees,
 * capacity between processes, killed users, stale handles, forks, and the account of what
 * is not emulated. The conformance suite has the rest.
 *
 * The driver starts once a process, so each test runs in a child of its own.
 */
#include <dlfcn.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device_file.h"
#include "emulator.h"
#include "orr_test.h"
#include "orrery/gpu_abi.h"

enum { DEVICES = 3, DEVICE_BYTES = 16 << 20 };
static char dir[64], list[256], uuids[DEVICES][48];

static int set_up(void **state)
{
    char path[96];
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/orr-emu-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    list[0] = '\0';
    for (int i = 0; i < DEVICES; i++) {
        uint8_t uuid[16] = {0x10, [15] = (uint8_t)i};
        snprintf(path, sizeof path, "%s/%d", dir, i);
        snprintf(uuids[i],
                 sizeof uuids[i],
                 "GPU-10000000-0000-0000-0000-0000000000%02x",
                 (unsigned)i);
        strcat(strcat(list, i ? ":" : ""), path);
        if (emu_device_file_create(path, uuid, "Emulated", DEVICE_BYTES, NULL) != 0)
            return -1;
    }
    return 0;
}

static int tear_down(void **state)
{
    char path[96];
    (void)state;
    for (int i = 0; i < DEVICES; i++) {
        snprintf(path, sizeof path, "%s/%d", dir, i);
        unlink(path);
    }
    return rmdir(dir);
}

#define TRY(condition)                                                                 \
    do {                                                                               \
        if (!(condition)) {                                                            \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);    \
            return 1;                                                                  \
        }                                                                              \
    } while (0)

/* Run `body` in a child with these environment variables (NULL: not set). */
static void in_child(int (*body)(void), const char *devices, const char *visible)
{
    int status = -1;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        alarm(30); /* a deadline for whatever hangs */
        unsetenv("ORRERY_EMULATOR_DEVICES");
        unsetenv("CUDA_VISIBLE_DEVICES");
        if (devices)
            setenv("ORRERY_EMULATOR_DEVICES", devices, 1);
        if (visible)
            setenv("CUDA_VISIBLE_DEVICES", visible, 1);
        _exit(body());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static int no_device(void)
{
    int n;
    TRY(cuInit(0) == CUDA_ERROR_NO_DEVICE);
    TRY(cuDeviceGetCount(&n) == CUDA_ERROR_NOT_INITIALIZED);
    return 0;
}

static int all_devices(void)
{
    int n = 0;
    TRY(cuInit(0) == CUDA_SUCCESS);
    TRY(cuDeviceGetCount(&n) == CUDA_SUCCESS && n == DEVICES);
    return 0;
}

static int only_the_last(void)
{
    int n = 0;
    CUuuid uuid;
    TRY(cuInit(0) == CUDA_SUCCESS);
    TRY(cuDeviceGetCount(&n) == CUDA_SUCCESS && n == 1);
    TRY(cuDeviceGetUuid(&uuid, 0) == CUDA_SUCCESS && uuid.bytes[15] == 2);
    return 0;
}

static int last_then_first(void)
{
    int n = 0;
    CUuuid uuid;
    TRY(cuInit(0) == CUDA_SUCCESS);
    TRY(cuDeviceGetCount(&n) == CUDA_SUCCESS && n == 2);
    TRY(cuDeviceGetUuid(&uuid, 0) == CUDA_SUCCESS && uuid.bytes[15] == 2);
    TRY(cuDeviceGetUuid(&uuid, 1) == CUDA_SUCCESS && uuid.bytes[15] == 0);
    return 0;
}

static int unusable(void)
{
    TRY(cuInit(0) == CUDA_ERROR_DEVICE_UNAVAILABLE);
    return 0;
}

static void devices_are_those_named(void **state)
{
    (void)state;
    in_child(no_device, NULL, NULL);
    in_child(no_device, "", NULL);
    in_child(all_devices, list, NULL);
    in_child(unusable, "/nowhere/gpu", NULL);
}

static void visible_devices_filter_and_order(void **state)
{
    char both[128];
    (void)state;
    in_child(only_the_last, list, "2");
    in_child(only_the_last, list, uuids[2]);
    in_child(last_then_first, list, "2,0");
    snprintf(both, sizeof both, "%s,%s", uuids[2], uuids[0]);
    in_child(last_then_first, list, both);
    in_child(last_then_first, list, "2,0,7,1"); /* a wrong one ends the list */
    in_child(no_device, list, "");
    in_child(no_device, list, "-1");
    in_child(no_device, list, "GPU-ffff");
}

static bool start(void)
{
    CUcontext c;
    return cuInit(0) == CUDA_SUCCESS &&
           cuDevicePrimaryCtxRetain(&c, 0) == CUDA_SUCCESS &&
           cuCtxSetCurrent(c) == CUDA_SUCCESS;
}

/* A process that holds 12 MiB of the device; killed before it can give them back. */
static int capacity_between_processes(void)
{
    int pipes[2];
    char byte = 0;
    CUdeviceptr p;
    TRY(pipe(pipes) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        bool ok = start() && cuMemAlloc(&p, 12 << 20) == CUDA_SUCCESS;
        byte = ok ? 'y' : 'n';
        TRY(write(pipes[1], &byte, 1) == 1);
        for (;;)
            pause();
    }
    TRY(read(pipes[0], &byte, 1) == 1 && byte == 'y');
    TRY(start());
    TRY(cuMemAlloc(&p, 8 << 20) == CUDA_ERROR_OUT_OF_MEMORY);
    TRY(cuMemAlloc(&p, 2 << 20) == CUDA_SUCCESS);
    TRY(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
    TRY(cuMemAlloc(&p, 8 << 20) == CUDA_SUCCESS);
    return 0;
}

static void memory_is_shared_and_reclaimed(void **state)
{
    (void)state;
    in_child(capacity_between_processes, list, NULL);
}

static int stale_handles(void)
{
    CUstream s;
    CUevent e;
    CUcontext c;
    CUmodule m = (CUmodule)(uintptr_t)0x1234;
    CUfunction f;
    int v;
    TRY(start());
    TRY(cuStreamCreate(&s, 0) == CUDA_SUCCESS && cuStreamDestroy(s) == CUDA_SUCCESS);
    TRY(cuStreamDestroy(s) == CUDA_ERROR_INVALID_HANDLE);
    TRY(cuStreamSynchronize(s) == CUDA_ERROR_INVALID_HANDLE);
    TRY(cuEventCreate(&e, 0) == CUDA_SUCCESS && cuEventDestroy(e) == CUDA_SUCCESS);
    TRY(cuEventRecord(e, NULL) == CUDA_ERROR_INVALID_HANDLE);
    TRY(cuEventRecord((CUevent)dir, NULL) == CUDA_ERROR_INVALID_HANDLE);
    TRY(cuModuleGetFunction(&f, m, "k") == CUDA_ERROR_INVALID_HANDLE);
    TRY(cuFuncGetAttribute(&v, CU_FUNC_ATTRIBUTE_NUM_REGS, (CUfunction)dir) ==
        CUDA_ERROR_INVALID_HANDLE);
    TRY(cuCtxCreate(&c, NULL, 0, 0) == CUDA_SUCCESS);
    TRY(cuStreamCreate(&s, 0) == CUDA_SUCCESS);
    TRY(cuCtxPushCurrent(c) == CUDA_SUCCESS && cuCtxDestroy(c) == CUDA_SUCCESS);
    TRY(cuCtxDestroy(c) == CUDA_ERROR_INVALID_CONTEXT);
    TRY(cuCtxSynchronize() ==
        CUDA_ERROR_CONTEXT_IS_DESTROYED); /* it was pushed twice */
    TRY(cuStreamDestroy(s) == CUDA_ERROR_CONTEXT_IS_DESTROYED);
    return 0;
}

static void wrong_handles_are_errors(void **state)
{
    (void)state;
    in_child(stale_handles, list, NULL);
}

static int fork_after_init(void)
{
    int n, status = -1;
    CUdeviceptr p;
    TRY(start() && cuMemAlloc(&p, 64) == CUDA_SUCCESS);
    pid_t pid = fork();
    if (pid == 0)
        _exit(cuDeviceGetCount(&n) == CUDA_ERROR_NOT_INITIALIZED &&
                      cuInit(0) == CUDA_ERROR_NOT_INITIALIZED &&
                      cuMemFree(p) == CUDA_ERROR_NOT_INITIALIZED
                  ? 0
                  : 1);
    TRY(waitpid(pid, &status, 0) == pid && status == 0);
    TRY(cuMemsetD8(p, 1, 64) == CUDA_SUCCESS); /* the parent does not notice */
    return 0;
}

static void forked_child_is_not_initialised(void **state)
{
    (void)state;
    in_child(fork_after_init, list, NULL);
}

static void call_in_callback(void *arg)
{
    CUresult *rc = arg;
    *rc = cuCtxSynchronize();
}

static int unsupported_is_counted(void)
{
    const char *(*unsupported)(unsigned, uint64_t *);
    CUresult (*managed)(CUdeviceptr *, size_t, unsigned), rc = CUDA_SUCCESS;
    void *self = dlopen(NULL, RTLD_NOW), *symbol = dlsym(self, "orrEmuUnsupported");
    uint64_t count = 0;
    CUdeviceptr p;
    TRY(symbol);
    memcpy(&unsupported, &symbol, sizeof symbol);
    symbol = dlsym(self, "cuMemAllocManaged");
    TRY(symbol);
    memcpy(&managed, &symbol, sizeof symbol);
    TRY(start());
    TRY(unsupported(0, &count) == NULL);
    TRY(managed(&p, 64, 1) == CUDA_ERROR_NOT_SUPPORTED);
    TRY(managed(&p, 64, 1) == CUDA_ERROR_NOT_SUPPORTED);
    TRY(strcmp(unsupported(0, &count), "cuMemAllocManaged") == 0 && count == 2);
    TRY(unsupported(1, &count) == NULL);
    TRY(cuLaunchHostFunc(NULL, call_in_callback, &rc) == CUDA_SUCCESS);
    TRY(cuCtxSynchronize() == CUDA_SUCCESS && rc == CUDA_ERROR_NOT_PERMITTED);
    dlclose(self);
    return 0;
}

static void what_is_not_emulated_says_so(void **state)
{
    (void)state;
    in_child(unsupported_is_counted, list, NULL);
}

static int runs_past_the_end(void)
{
    static const char text[] = ".version 7.0\n.target sm_70\n.address_size "
                               "64\n.visible .entry k(.param .u64 p)\n"
                               "{ .reg .b64 %d<3>; .reg .b32 %r;\n ld.param.u64 %d1, "
                               "[p]; mov.u32 %r, %tid.x;\n"
                               "mul.wide.u32 %d2, %r, 4; add.s64 %d1, %d1, %d2; "
                               "st.global.u32 [%d1], %r; ret; }";
    CUmodule m;
    CUfunction f;
    CUdeviceptr p, q;
    TRY(start());
    TRY(cuModuleLoadData(&m, text) == CUDA_SUCCESS);
    TRY(cuModuleGetFunction(&f, m, "k") == CUDA_SUCCESS);
    TRY(cuMemAlloc(&p, 256) == CUDA_SUCCESS && cuMemAlloc(&q, 256) == CUDA_SUCCESS);
    TRY(cuLaunchKernel(f, 1, 1, 1, 64, 1, 1, 0, NULL, (void *[]){&p}, NULL) ==
        CUDA_SUCCESS);
    TRY(cuCtxSynchronize() == CUDA_SUCCESS);
    TRY(cuLaunchKernel(f, 1, 1, 1, 65, 1, 1, 0, NULL, (void *[]){&p}, NULL) ==
        CUDA_SUCCESS);
    TRY(cuCtxSynchronize() == CUDA_ERROR_ILLEGAL_ADDRESS);
    TRY(cuDevicePrimaryCtxReset(0) == CUDA_SUCCESS); /* the emulator's only way back */
    TRY(start() && cuMemAlloc(&p, 12 << 20) == CUDA_SUCCESS);
    return 0;
}

static void buffer_overrun_is_caught(void **state)
{
    (void)state;
    in_child(runs_past_the_end, list, NULL);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(devices_are_those_named),
        CASE(visible_devices_filter_and_order),
        CASE(memory_is_shared_and_reclaimed),
        CASE(wrong_handles_are_errors),
        CASE(forked_child_is_not_initialised),
        CASE(what_is_not_emulated_says_so),
        CASE(buffer_overrun_is_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
