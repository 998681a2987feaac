/* SPDX-License-Identifier: Apache-2.0
 * fake_checkpoint.c - the driver's checkpoint calls, played with signals, so that probe_checkpoint
 * itself can be tried without a GPU: a locked victim is a stopped one, and of its memory only the
 * size is known. FAKE_CHECKPOINT=keeps-memory or waits-for-ever makes it a driver that the probe
 * must find fault with. One victim at a time.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "orrery/gpu_abi.h"

#include "checkpoint_abi.h"
#include "victim.h"

#define EXPORTED __attribute__((visibility("default")))

static struct {
    int pid;
    enum checkpoint_state state;
} fake;

static bool is_fault(const char *name)
{
    const char *chosen = getenv("FAKE_CHECKPOINT");
    return chosen && strcmp(chosen, name) == 0;
}

/* Its argument in MiB; 0 for a process that is no victim. */
static size_t victim_mib(int pid)
{
    char path[64], text[256] = "";
    snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
    FILE *in = fopen(path, "re");
    if (!in)
        return 0;
    size_t n = fread(text, 1, sizeof text - 1, in), at = strlen(text) + 1;
    fclose(in);
    if (at >= n || strcmp(text + at, VICTIM_ARG) != 0)
        return 0;
    return strtoull(text + at + sizeof VICTIM_ARG, NULL, 10);
}

/* A kernel of the emulator is a thread that runs. */
static bool is_busy(int pid)
{
    char path[300], state = 'S';
    bool found = false;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *tasks = opendir(path);
    for (struct dirent *e; tasks && (e = readdir(tasks));) {
        snprintf(path, sizeof path, "/proc/%d/task/%s/stat", pid, e->d_name);
        FILE *in = fopen(path, "re");
        if (in && fscanf(in, "%*d (%*[^)]) %c", &state) == 1)
            found |= state == 'R';
        if (in)
            fclose(in);
    }
    if (tasks)
        closedir(tasks);
    return found;
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static CUresult step_from(int pid, enum checkpoint_state from, enum checkpoint_state to)
{
    if (victim_mib(pid) == 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (fake.pid != pid) {
        fake.pid = pid;
        fake.state = CHECKPOINT_RUNNING;
    }
    if (fake.state != from)
        return CUDA_ERROR_ILLEGAL_STATE;
    fake.state = to;
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuCheckpointProcessGetRestoreThreadId(int pid, int *tid);
EXPORTED CUresult cuCheckpointProcessGetState(int pid, int *state);
EXPORTED CUresult cuCheckpointProcessLock(int pid, struct checkpoint_lock_args *args);
EXPORTED CUresult cuCheckpointProcessCheckpoint(int pid, struct checkpoint_args *args);
EXPORTED CUresult cuCheckpointProcessRestore(int pid,
                                             struct checkpoint_restore_args *args);
EXPORTED CUresult cuCheckpointProcessUnlock(int pid, struct checkpoint_args *args);

CUresult cuCheckpointProcessGetRestoreThreadId(int pid, int *tid)
{
    *tid = pid;
    return pid == getpid() || victim_mib(pid) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuCheckpointProcessGetState(int pid, int *state)
{
    *state = fake.pid == pid ? (int)fake.state : CHECKPOINT_RUNNING;
    return CUDA_SUCCESS;
}

CUresult cuCheckpointProcessLock(int pid, struct checkpoint_lock_args *args)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    const int64_t deadline = now_ms() + args->timeout_ms;
    while (is_busy(pid)) {
        if (now_ms() >= deadline && !is_fault("waits-for-ever"))
            return CUDA_ERROR_NOT_READY;
        nanosleep(&pause, NULL); /* no event tells of it */
    }
    CUresult rc = step_from(pid, CHECKPOINT_RUNNING, CHECKPOINT_LOCKED);
    if (rc == CUDA_SUCCESS)
        kill(pid, SIGSTOP);
    return rc;
}

CUresult cuCheckpointProcessCheckpoint(int pid, struct checkpoint_args *args)
{
    (void)args;
    return step_from(pid, CHECKPOINT_LOCKED, CHECKPOINT_CHECKPOINTED);
}

CUresult cuCheckpointProcessRestore(int pid, struct checkpoint_restore_args *args)
{
    (void)args;
    return step_from(pid, CHECKPOINT_CHECKPOINTED, CHECKPOINT_LOCKED);
}

CUresult cuCheckpointProcessUnlock(int pid, struct checkpoint_args *args)
{
    (void)args;
    CUresult rc = step_from(pid, CHECKPOINT_LOCKED, CHECKPOINT_RUNNING);
    if (rc == CUDA_SUCCESS)
        kill(pid, SIGCONT);
    return rc;
}

EXPORTED CUresult cuMemGetInfo(size_t *available, size_t *total)
{
    CUresult (*real)(size_t *, size_t *);
    void *symbol = dlsym(RTLD_NEXT, "cuMemGetInfo_v2");
    memcpy(&real, &symbol, sizeof real);
    CUresult rc = real(available, total);
    if (fake.state == CHECKPOINT_CHECKPOINTED && !is_fault("keeps-memory"))
        *available += victim_mib(fake.pid) << 20;
    return rc;
}
