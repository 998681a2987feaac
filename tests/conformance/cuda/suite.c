/* SPDX-License-Identifier: Apache-2.0
 * suite.c - the account of calls, and what all tests share.
 */
#include "suite.h"

#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

extern char **environ;
CUdevice suite_device;
CUcontext suite_context;
static CUmodule module;
static char *ptx_text;

static struct {
    const char *name;
    unsigned succeeded, failed;
} account[] = {
#define EXPORT(name) {#name, 0, 0},
#include "exports.def"
#undef EXPORT
};

void suite_check(
    const char *call, CUresult got, CUresult want, const char *file, int line)
{
    const char *got_name = "?", *want_name = "?";
    for (size_t i = 0; i < sizeof account / sizeof account[0]; i++)
        if (strcmp(account[i].name, call) == 0)
            ++*(got ? &account[i].failed : &account[i].succeeded);
    if (got == want)
        return;
    cuGetErrorName(got, &got_name);
    cuGetErrorName(want, &want_name);
    print_error("%s:%d: %s gives %s, not %s\n", file, line, call, got_name, want_name);
    _fail(file, line);
}

int suite_set_up(void **state)
{
    (void)state;
    OK(cuInit, 0);
    OK(cuDeviceGet, &suite_device, 0);
    OK(cuDevicePrimaryCtxRetain, &suite_context, suite_device);
    OK(cuCtxSetCurrent, suite_context);
    return 0;
}

int suite_tear_down(void **state)
{
    (void)state;
    if (module)
        OK(cuModuleUnload, module);
    module = NULL;
    OK(cuCtxSetCurrent, NULL);
    OK(cuDevicePrimaryCtxRelease, suite_device);
    return 0;
}

const char *suite_ptx_path(void)
{
    const char *elsewhere = getenv("CONFORMANCE_PTX"); /* without a source tree */
    return elsewhere ? elsewhere : CONFORMANCE_PTX;
}

const char *suite_ptx(void)
{
    if (ptx_text)
        return ptx_text;
    FILE *f = fopen(suite_ptx_path(), "r");
    assert_non_null(f);
    ptx_text = calloc(1, 1 << 20);
    assert_non_null(ptx_text);
    assert_true(fread(ptx_text, 1, (1 << 20) - 1, f) > 0);
    fclose(f);
    return ptx_text;
}

CUmodule suite_module(void)
{
    if (!module)
        OK(cuModuleLoadData, &module, suite_ptx());
    return module;
}

CUfunction suite_kernel(const char *name)
{
    CUfunction f = NULL;
    OK(cuModuleGetFunction, &f, suite_module(), name);
    return f;
}

CUdeviceptr suite_upload(const void *host, size_t bytes)
{
    CUdeviceptr p = 0;
    OK(cuMemAlloc, &p, bytes);
    if (host)
        OK(cuMemcpyHtoD, p, host, bytes);
    else
        OK(cuMemsetD8, p, 0, bytes);
    return p;
}

pid_t suite_spawn(const char *name)
{
    char self[] = "/proc/self/exe", argument[64];
    char *argv[] = {self, argument, NULL};
    pid_t pid;
    snprintf(argument, sizeof argument, "%s", name);
    assert_int_equal(posix_spawn(&pid, self, NULL, NULL, argv, environ), 0);
    return pid;
}

/* A context that a kernel has poisoned stays so: each fault gets a process of its own. */
int suite_run_fault(const char *name)
{
    pid_t pid = suite_spawn(name);
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static void every_call_was_tried_both_ways(void **state)
{
    bool is_complete = true;
    (void)state;
    for (size_t i = 0; i < sizeof account / sizeof account[0]; i++)
        if (!account[i].succeeded || !account[i].failed) {
            print_error("%s: %u successes, %u errors\n",
                        account[i].name,
                        account[i].succeeded,
                        account[i].failed);
            is_complete = false;
        }
    assert_true(is_complete);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], SUITE_VICTIM) == 0)
        return victim_main();
    if (argc == 2 && strcmp(argv[1], SUITE_ANSWERER) == 0)
        return answerer_main();
    if (argc == 2)
        return fault_main(argv[1]);
    const struct CMUnitTest last[] = {cmocka_unit_test(every_call_was_tried_both_ways)};
    int failed = 0;
#define GROUP(g)                                                                       \
    failed += _cmocka_run_group_tests(#g, g##_tests, n_##g##_tests, NULL, NULL)
    GROUP(device);
    GROUP(context);
    GROUP(memory);
    GROUP(stream);
    GROUP(value);
    GROUP(module);
    GROUP(kernel);
    GROUP(vmm);
    GROUP(checkpoint);
    failed += cmocka_run_group_tests(last, NULL, NULL);
    free(ptx_text);
    return failed;
}
