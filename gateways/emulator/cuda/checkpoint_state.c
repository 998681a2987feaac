/* SPDX-License-Identifier: Apache-2.0
 * checkpoint_state.c - suspending this process: RUNNING -> LOCKED -> CHECKPOINTED -> LOCKED -> RUNNING.
 *
 * Locked: calls that come wait in emu_enter; calls that are inside, and everything in streams, have ended. Checkpointed: content of
 * device memory is host memory of the process, its pages and its places at the devices are given back, and no device file is open or
 * mapped; so the process can be dumped, and restored where the device files are others.
 * Restore opens the files and takes all pages before it changes anything.
 *
 * ORRERY_EMULATOR_CHECKPOINT, in the target's environment, makes it a driver with a fault: `poisoned` (a restore that runs out of
 * memory is the end, as in driver 580), `keeps-memory`, `waits-for-ever` (timeouts are not heeded).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "control.h"

static bool has_fault(const char *name)
{
    const char *chosen = getenv("ORRERY_EMULATOR_CHECKPOINT");
    return chosen && strcmp(chosen, name) == 0;
}

/* ---- lock ------------------------------------------------------------------------------- */

/* False when the time is up first. */
static bool wait_until(pthread_cond_t *cond, const struct timespec *until)
{
    return until ? pthread_cond_timedwait(cond, &emu.lock, until) != ETIMEDOUT
                 : pthread_cond_wait(cond, &emu.lock) == 0;
}

/* A stream of any context with work left; NULL: none. */
static struct CUstream_st *busy_stream(void)
{
    struct CUstream_st *s = NULL;
    for (struct CUctx_st *ctx = emu_object_next(NULL, EMU_CONTEXT); ctx && !s;
         ctx = emu_object_next(ctx, EMU_CONTEXT))
        for (s = ctx->streams; s && emu_stream_is_idle(s);)
            s = s->next_in_ctx;
    return s;
}

static CUresult lock(uint32_t timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME,
                  &until); /* of the conditions, which are default ones */
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    const struct timespec *limit =
        timeout_ms && !has_fault("waits-for-ever") ? &until : NULL;
    bool in_time = true;
    emu.is_locked = true;
    while (in_time) {
        struct CUstream_st *s = busy_stream();
        if (!s && emu.n_inside == 0)
            return CUDA_SUCCESS;
        if (!s) {
            in_time = wait_until(&emu.quiet, limit);
            continue;
        }
        s->object.refs++;
        in_time = wait_until(&s->progress, limit);
        emu_stream_unref(s);
    }
    emu.is_locked = false;
    pthread_cond_broadcast(&emu.unlocked);
    return CUDA_ERROR_NOT_READY;
}

/* ---- checkpoint ------------------------------------------------------------------------- */

static CUresult checkpoint(CUprocessState *state)
{
    if (emu_vmm_is_shared())
        return CUDA_ERROR_NOT_SUPPORTED;
    if (has_fault("keeps-memory")) {
        *state = CU_PROCESS_STATE_CHECKPOINTED;
        return CUDA_SUCCESS;
    }
    struct emu_device_file *files[EMU_DEVICES_MAX];
    for (unsigned i = 0; i < emu.n_devices; i++)
        files[i] = emu.devices[i].file;
    CUresult rc = emu_vmm_save();
    if (!rc && (rc = emu_memory_save()))
        if (emu_vmm_take(files) || emu_vmm_restore(files))
            *state = CU_PROCESS_STATE_FAILED;
    if (rc)
        return rc;
    for (unsigned i = 0; i < emu.n_devices; i++) {
        emu_device_file_close(emu.devices[i].file);
        emu.devices[i].file = NULL;
    }
    *state = CU_PROCESS_STATE_CHECKPOINTED;
    return CUDA_SUCCESS;
}

/* ---- restore ------------------------------------------------------------------------------ */

/* Where the device is that is to take the place of `old`: every device must be in the list, if there is one. */
static CUresult
target_of(const struct emu_request *r, const uint8_t old[16], uint8_t ret[16])
{
    memcpy(ret, old, 16);
    for (uint32_t i = 0; i < r->n_pairs; i++)
        if (memcmp(r->pairs[i].oldUuid.bytes, old, 16) == 0) {
            memcpy(ret, r->pairs[i].newUuid.bytes, 16);
            return CUDA_SUCCESS;
        }
    return r->n_pairs ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

/* The first of the files path:path:... that is this device. */
static bool find_path(const char *list, const uint8_t uuid[16], char *ret, size_t bytes)
{
    char paths[EMU_PATHS_MAX], *rest = NULL;
    struct emu_device_info info;
    snprintf(paths, sizeof paths, "%s", list ? list : "");
    for (char *p = strtok_r(paths, ":", &rest); p; p = strtok_r(NULL, ":", &rest))
        if (emu_device_file_info(p, &info, NULL) == 0 &&
            memcmp(info.uuid, uuid, sizeof info.uuid) == 0) {
            snprintf(ret, bytes, "%s", p);
            return true;
        }
    return false;
}

static CUresult open_for(const struct emu_request *r,
                         const struct emu_device *d,
                         struct emu_device_file **ret_file,
                         struct emu_device_info *ret_info)
{
    char path[EMU_PATHS_MAX];
    uint8_t uuid[16];
    CUresult rc = target_of(r, d->info.uuid, uuid);
    if (rc)
        return rc;
    if (!find_path(r->paths, uuid, path, sizeof path) &&
        !find_path(getenv("ORRERY_EMULATOR_DEVICES"), uuid, path, sizeof path))
        return CUDA_ERROR_INVALID_DEVICE;
    if (emu_device_file_open(path, ret_file, NULL) != 0)
        return CUDA_ERROR_DEVICE_UNAVAILABLE;
    emu_device_file_get_info(*ret_file, ret_info);
    if (strcmp(ret_info->name, d->info.name) == 0)
        return CUDA_SUCCESS;
    emu_device_file_close(*ret_file);
    *ret_file = NULL;
    return CUDA_ERROR_INVALID_VALUE; /* another kind of device */
}

static CUresult take_pages(struct emu_device_file *const *files)
{
    CUresult rc = emu_memory_take(files);
    if (!rc && (rc = emu_vmm_take(files)))
        emu_memory_take_back(files);
    return rc;
}

static CUresult restore(const struct emu_request *r, CUprocessState *state)
{
    struct emu_device_file *files[EMU_DEVICES_MAX] = {0};
    struct emu_device_info infos[EMU_DEVICES_MAX];
    CUresult rc = r->n_pairs > EMU_PAIRS_MAX ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
    if (!rc && emu.devices[0].file) { /* keeps-memory: nothing was given back */
        *state = CU_PROCESS_STATE_LOCKED;
        return CUDA_SUCCESS;
    }
    for (unsigned i = 0; i < emu.n_devices && !rc; i++)
        rc = open_for(r, &emu.devices[i], &files[i], &infos[i]);
    if (!rc && (rc = take_pages(files)) && has_fault("poisoned"))
        *state = CU_PROCESS_STATE_FAILED;
    if (rc) {
        for (unsigned i = 0; i < emu.n_devices; i++)
            emu_device_file_close(files[i]);
        return rc;
    }
    rc = emu_memory_restore(files);
    if (!rc)
        rc = emu_vmm_restore(files);
    for (unsigned i = 0; i < emu.n_devices; i++) {
        emu.devices[i].file = files[i];
        emu.devices[i].info = infos[i];
    }
    *state = rc ? CU_PROCESS_STATE_FAILED : CU_PROCESS_STATE_LOCKED;
    return rc;
}

static CUresult unlock(CUprocessState *state)
{
    emu.is_locked = false;
    pthread_cond_broadcast(&emu.unlocked);
    *state = CU_PROCESS_STATE_RUNNING;
    return CUDA_SUCCESS;
}

/* ---- by state -------------------------------------------------------------------------------- */

CUresult emu_checkpoint_do(const struct emu_request *request, CUprocessState *state)
{
    static const CUprocessState accepted[] = {
        [EMU_LOCK] = CU_PROCESS_STATE_RUNNING,
        [EMU_CHECKPOINT] = CU_PROCESS_STATE_LOCKED,
        [EMU_RESTORE] = CU_PROCESS_STATE_CHECKPOINTED,
        [EMU_UNLOCK] = CU_PROCESS_STATE_LOCKED,
    };
    if (request->kind > EMU_UNLOCK)
        return CUDA_ERROR_INVALID_VALUE;
    if (*state == CU_PROCESS_STATE_FAILED && request->kind == EMU_RESTORE)
        return CUDA_ERROR_OPERATING_SYSTEM; /* as driver 580 says from then on */
    if (*state != accepted[request->kind])
        return CUDA_ERROR_ILLEGAL_STATE;
    if (request->kind == EMU_CHECKPOINT)
        return checkpoint(state);
    if (request->kind == EMU_RESTORE)
        return restore(request, state);
    if (request->kind == EMU_UNLOCK)
        return unlock(state);
    CUresult rc = lock(request->timeout_ms);
    if (!rc)
        *state = CU_PROCESS_STATE_LOCKED;
    return rc;
}
