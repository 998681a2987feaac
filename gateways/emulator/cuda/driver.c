/* SPDX-License-Identifier: Apache-2.0
 * driver.c - cuInit and what every call does first: initialised, not a forked child,
 * not inside a host function, current context sound.
 *
 * The devices are the files named by ORRERY_EMULATOR_DEVICES (path:path:...), filtered
 * and ordered by CUDA_VISIBLE_DEVICES as the real driver does.
 */
#include "driver.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct emu_driver emu = {.lock = PTHREAD_MUTEX_INITIALIZER,
                         .unlocked = PTHREAD_COND_INITIALIZER,
                         .quiet = PTHREAD_COND_INITIALIZER,
                         .next_id = 1};
static __thread bool in_callback;

uint64_t emu_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void emu_set_in_callback(bool is_in_callback)
{
    in_callback = is_in_callback;
}

/* The lock, once no checkpoint holds calls back. */
static void enter_gate(void)
{
    pthread_mutex_lock(&emu.lock);
    while (emu.is_locked)
        pthread_cond_wait(&emu.unlocked, &emu.lock);
    emu.n_inside++;
}

CUresult emu_enter(void)
{
    if (emu.is_forked)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (in_callback)
        return CUDA_ERROR_NOT_PERMITTED;
    enter_gate();
    if (emu.is_ready)
        return CUDA_SUCCESS;
    return emu_leave(CUDA_ERROR_NOT_INITIALIZED);
}

CUresult emu_leave(CUresult rc)
{
    if (--emu.n_inside == 0 && emu.is_locked)
        pthread_cond_signal(&emu.quiet);
    pthread_mutex_unlock(&emu.lock);
    return rc;
}

CUresult emu_enter_ctx(struct CUctx_st **ret_ctx)
{
    CUresult rc = emu_enter();
    if (rc)
        return rc;
    struct CUctx_st *ctx;
    rc = emu_ctx_current(&ctx);
    if (!rc && !ctx)
        rc = CUDA_ERROR_INVALID_CONTEXT;
    if (!rc)
        rc = ctx->sticky;
    if (rc)
        return emu_leave(rc);
    *ret_ctx = ctx;
    return CUDA_SUCCESS;
}

CUresult emu_enter_device(CUdevice dev, struct emu_device **ret_device)
{
    CUresult rc = emu_enter();
    if (rc)
        return rc;
    if (dev < 0 || (unsigned)dev >= emu.n_devices)
        return emu_leave(CUDA_ERROR_INVALID_DEVICE);
    *ret_device = &emu.devices[dev];
    return CUDA_SUCCESS;
}

/* The child keeps neither the descriptors nor the right to call anything. */
static void on_fork_child(void)
{
    if (!emu.is_ready)
        return;
    emu.is_forked = true;
    emu_control_abandon();
    for (unsigned i = 0; i < emu.n_devices; i++) {
        emu_device_file_abandon(emu.devices[i].file);
        emu.devices[i].file = NULL;
    }
}

static CUresult open_device(const char *path)
{
    struct emu_device *d = &emu.devices[emu.n_devices];
    struct emu_error error;
    if (emu.n_devices == EMU_DEVICES_MAX)
        return CUDA_SUCCESS; /* like a machine with more devices than the driver takes
                              */
    int rc = emu_device_file_open(path, &d->file, &error);
    if (rc) {
        fprintf(stderr, "emulated libcuda: %s\n", error.text);
        return rc == -ENOMEM ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_DEVICE_UNAVAILABLE;
    }
    emu_device_file_get_info(d->file, &d->info);
    emu.n_devices++;
    return CUDA_SUCCESS;
}

static CUresult open_devices(void)
{
    const char *list = getenv("ORRERY_EMULATOR_DEVICES");
    char *paths = strdup(list ? list : "");
    char *rest = NULL;
    CUresult rc = paths ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    for (char *p = rc ? NULL : strtok_r(paths, ":", &rest); p && !rc;
         p = strtok_r(NULL, ":", &rest))
        rc = open_device(p);
    free(paths);
    return rc;
}

/* The device that one entry of CUDA_VISIBLE_DEVICES names, or -1. */
static int visible_entry(const char *entry)
{
    char uuid[48];
    if (strncmp(entry, "GPU-", 4) != 0) {
        char *end;
        long index = strtol(entry, &end, 10);
        return end != entry && *end == '\0' && index >= 0 && index < (long)emu.n_devices
                   ? (int)index
                   : -1;
    }
    for (unsigned i = 0; i < emu.n_devices; i++) {
        const uint8_t *u = emu.devices[i].info.uuid;
        snprintf(
            uuid,
            sizeof uuid,
            "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
            u[0],
            u[1],
            u[2],
            u[3],
            u[4],
            u[5],
            u[6],
            u[7],
            u[8],
            u[9],
            u[10],
            u[11],
            u[12],
            u[13],
            u[14],
            u[15]);
        if (strncmp(uuid, entry, strlen(entry)) == 0) /* a prefix is enough */
            return (int)i;
    }
    return -1;
}

/* Keep the named devices, in the order of the names, up to the first wrong one. */
static CUresult filter_visible(void)
{
    struct emu_device kept[EMU_DEVICES_MAX];
    unsigned n = 0;
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    if (!list)
        return CUDA_SUCCESS;
    char *entries = strdup(list);
    if (!entries)
        return CUDA_ERROR_OUT_OF_MEMORY;
    char *rest = NULL;
    for (char *e = strtok_r(entries, ", ", &rest); e; e = strtok_r(NULL, ", ", &rest)) {
        int i = visible_entry(e);
        if (i < 0 || !emu.devices[i].file)
            break; /* a device named twice hides itself and what follows */
        kept[n++] = emu.devices[i];
        emu.devices[i].file = NULL;
    }
    free(entries);
    for (unsigned i = 0; i < emu.n_devices; i++)
        emu_device_file_close(emu.devices[i].file);
    memset(emu.devices, 0, sizeof emu.devices);
    memcpy(emu.devices, kept, n * sizeof kept[0]);
    emu.n_devices = n;
    return CUDA_SUCCESS;
}

static CUresult start(void)
{
    CUresult rc = open_devices();
    if (!rc)
        rc = filter_visible();
    if (!rc && emu.n_devices == 0)
        rc = CUDA_ERROR_NO_DEVICE;
    if (!rc)
        rc = emu_range_start();
    if (!rc && pthread_atfork(NULL, NULL, on_fork_child) != 0)
        rc = CUDA_ERROR_OUT_OF_MEMORY;
    if (!rc)
        rc = emu_control_start();
    if (!rc) {
        emu.is_ready = true;
        return CUDA_SUCCESS;
    }
    for (unsigned i = 0; i < emu.n_devices; i++)
        emu_device_file_close(emu.devices[i].file);
    memset(emu.devices, 0, sizeof emu.devices);
    emu.n_devices = 0;
    return rc;
}

EMU_API CUresult cuInit(unsigned int Flags)
{
    if (emu.is_forked)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (Flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    enter_gate();
    CUresult rc = emu.is_ready ? CUDA_SUCCESS : start();
    return emu_leave(rc);
}

EMU_API CUresult cuDriverGetVersion(int *driverVersion)
{
    if (!driverVersion)
        return CUDA_ERROR_INVALID_VALUE;
    *driverVersion = CUDA_VERSION;
    return CUDA_SUCCESS;
}
