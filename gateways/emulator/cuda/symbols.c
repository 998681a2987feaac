/* SPDX-License-Identifier: Apache-2.0
 * symbols.c - cuGetProcAddress, and the account of what is not emulated.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"
#include "emulator.h"

enum { COUNTED_MAX = 512, NAME_MAX_BYTES = 64 };

static struct {
    char name[NAME_MAX_BYTES];
    uint64_t count;
} counted[COUNTED_MAX]; /* what comes when it is full is not listed */
static unsigned n_counted;
static pthread_mutex_t counted_lock = PTHREAD_MUTEX_INITIALIZER; /* guards both */

CUresult emu_unsupported(const char *name)
{
    pthread_mutex_lock(&counted_lock);
    unsigned i = 0;
    while (i < n_counted && strncmp(counted[i].name, name, NAME_MAX_BYTES - 1) != 0)
        i++;
    if (i == n_counted && n_counted < COUNTED_MAX)
        snprintf(counted[n_counted++].name, NAME_MAX_BYTES, "%s", name);
    if (i < n_counted)
        counted[i].count++;
    pthread_mutex_unlock(&counted_lock);
    return CUDA_ERROR_NOT_SUPPORTED;
}

EMU_API const char *orrEmuUnsupported(unsigned index, uint64_t *ret_count)
{
    pthread_mutex_lock(&counted_lock);
    const char *name = index < n_counted ? counted[index].name : NULL;
    if (name && ret_count)
        *ret_count = counted[index].count;
    pthread_mutex_unlock(&counted_lock);
    return name;
}

__attribute__((destructor)) static void print_unsupported(void)
{
    uint64_t count;
    const char *verbose = getenv("ORRERY_EMULATOR_VERBOSE");
    if (!verbose || strcmp(verbose, "1") != 0)
        return;
    for (unsigned i = 0; orrEmuUnsupported(i, &count); i++)
        fprintf(stderr,
                "emulated libcuda: not emulated: %s (%" PRIu64 " times)\n",
                counted[i].name,
                count);
}

#define UNSUPPORTED(name)                                                              \
    EMU_API CUresult name(void);                                                       \
    EMU_API CUresult name(void)                                                        \
    {                                                                                  \
        return emu_unsupported(#name);                                                 \
    }
#include "unsupported.def"
#undef UNSUPPORTED

EMU_API int orrEmuDeviceUuid(int device, uint8_t uuid[16])
{
    struct emu_device_info now;
    if (emu_enter() != CUDA_SUCCESS)
        return -1;
    bool is_known = device >= 0 && (unsigned)device < emu.n_devices;
    if (is_known) {
        emu_device_file_get_info(emu.devices[device].file, &now);
        memcpy(uuid, now.uuid, sizeof now.uuid);
    }
    emu_leave(CUDA_SUCCESS);
    return is_known ? 0 : -1;
}

CUresult cuCtxCreate_v2(CUcontext *pctx, unsigned int flags, CUdevice dev);

typedef CUresult (*call_f)(void);
#define TEXT(name)   #name
#define EXPORT(name) {#name, TEXT(name), (call_f)(void (*)(void))name},
static const struct {
    const char *name;   /* as a program spells it */
    const char *symbol; /* as the library exports it */
    call_f call;
} exports[] = {
#include "exports.def"
};

static call_f find(const char *symbol, int version)
{
    char name[NAME_MAX_BYTES];
    snprintf(name, sizeof name, "%s", symbol);
    char *suffix = strstr(name, "_pts"); /* per-thread default streams: the same call */
    if (suffix && (strcmp(suffix, "_ptsz") == 0 || strcmp(suffix, "_ptds") == 0))
        *suffix = '\0';
    if (strcmp(name, "cuCtxCreate") == 0 && version < 13000)
        return (call_f)(void (*)(void))cuCtxCreate_v2;
    if (strcmp(name, "orrEmuDeviceUuid") == 0)
        return (call_f)(void (*)(void))orrEmuDeviceUuid;
    for (size_t i = 0; i < sizeof exports / sizeof exports[0]; i++)
        if (strcmp(name, exports[i].name) == 0 || strcmp(name, exports[i].symbol) == 0)
            return exports[i].call;
    return NULL;
}

EMU_API CUresult cuGetProcAddress(const char *symbol,
                                  void **pfn,
                                  int cudaVersion,
                                  cuuint64_t flags,
                                  CUdriverProcAddressQueryResult *symbolStatus)
{
    const cuuint64_t known_flags = CU_GET_PROC_ADDRESS_LEGACY_STREAM |
                                   CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
    if (!symbol || !pfn || cudaVersion <= 0 || (flags & ~known_flags))
        return CUDA_ERROR_INVALID_VALUE;
    call_f call = find(symbol, cudaVersion);
    memcpy(pfn, &call, sizeof call);
    if (symbolStatus)
        *symbolStatus =
            call ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    if (!call)
        emu_unsupported(symbol);
    return call ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
