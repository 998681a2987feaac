/* SPDX-License-Identifier: Apache-2.0
 * probe_checkpoint.c - what the driver's checkpoint calls do on this machine.
 *
 *   probe_checkpoint suspend MIB...   suspend and resume a process with so much memory, twice
 *   probe_checkpoint lock             timeouts, refusals, giving up
 *
 * One JSON line for each observation. Exit code 0: as Orrery relies on; 1: not so, the
 * line before says what; 77: this driver has no checkpoint calls. A driver call can hang
 * for ever: one that takes longer than CALL_S ends this program and its victim.
 */
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "orrery/gpu_abi.h"

#include "checkpoint_abi.h"
#include "victim.h"

enum {
    CALL_S = 60,
    READY_MS = 30000,
    BLOCKED_MS = 300,
    LOCK_MS = 10000,
    SHORT_LOCK_MS = 1000,
    BUSY_MS = 4000,
    EXIT_UNAVAILABLE = 77
};

static struct checkpoint_api api;
static struct victim victim;
static const char *volatile call_now = "";
static int wrong;

/* ---- driver calls, under a deadline ---------------------------------------------------- */

static void on_alarm(int signal_number)
{
    static const char before[] = "{\"probe\":\"hang\",\"call\":\"", after[] = "\"}\n";
    (void)signal_number;
    if (victim.pid > 0)
        kill(victim.pid, SIGKILL);
    if (write(1, before, sizeof before - 1) < 0 ||
        write(1, call_now, strlen(call_now)) < 0 ||
        write(1, after, sizeof after - 1) < 0)
        _exit(2);
    _exit(1);
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static const char *name_of(CUresult rc)
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
    alarm(CALL_S);
    *ret_ms = now_ms();
}

static CUresult call_end(double *ret_ms, CUresult rc)
{
    *ret_ms = now_ms() - *ret_ms;
    alarm(0);
    return rc;
}

static CUresult lock_victim(unsigned timeout_ms, double *ret_ms)
{
    struct checkpoint_lock_args args = {.timeout_ms = timeout_ms};
    return TIMED(ret_ms, "lock", api.lock(victim.pid, &args));
}

static CUresult save_victim(double *ret_ms)
{
    struct checkpoint_args args = {{0}};
    return TIMED(ret_ms, "checkpoint", api.checkpoint(victim.pid, &args));
}

static CUresult restore_victim(double *ret_ms)
{
    struct checkpoint_restore_args args = {.gpu_pairs = NULL};
    return TIMED(ret_ms, "restore", api.restore(victim.pid, &args));
}

static CUresult unlock_victim(double *ret_ms)
{
    struct checkpoint_args args = {{0}};
    return TIMED(ret_ms, "unlock", api.unlock(victim.pid, &args));
}

static int state_of(int pid)
{
    double ms;
    int state = -1;
    CUresult rc = TIMED(&ms, "get_state", api.get_state(pid, &state));
    return rc == CUDA_SUCCESS ? state : -1;
}

static size_t free_mib(void)
{
    size_t available = 0, total = 0;
    return cuMemGetInfo(&available, &total) == CUDA_SUCCESS ? available >> 20 : 0;
}

/* ---- what is seen, and what must be ------------------------------------------------------ */

static void observe(const char *what, bool ok, CUresult rc, double ms)
{
    printf("{\"probe\":\"%s\",\"ok\":%s,\"result\":\"%s\",\"ms\":%.1f,\"state\":%d}\n",
           what,
           ok ? "true" : "false",
           name_of(rc),
           ms,
           state_of(victim.pid));
    wrong += !ok;
}

static bool tell_and_hear(const char *line, int ms)
{
    return victim_tell(&victim, line) && victim_answers(&victim, ms);
}

/* Whether memory went away and came back is a matter of a tenth: contexts need some, too. */
static bool is_about(size_t mib, size_t less, size_t more)
{
    return more >= less + mib - mib / 10;
}

static void suspend_once(size_t mib, int cycle)
{
    double lock_ms = 0, save_ms = 0, restore_ms = 0, unlock_ms = 0;
    size_t free_before = free_mib(), rss_before = victim_resident_mib(&victim);
    CUresult rc = lock_victim(LOCK_MS, &lock_ms);
    bool is_held =
        victim_tell(&victim, "step\n") && !victim_answers(&victim, BLOCKED_MS);
    if (rc == CUDA_SUCCESS)
        rc = save_victim(&save_ms);
    bool is_saved = state_of(victim.pid) == CHECKPOINT_CHECKPOINTED;
    size_t free_between = free_mib(), rss_between = victim_resident_mib(&victim);
    if (rc == CUDA_SUCCESS)
        rc = restore_victim(&restore_ms);
    if (rc == CUDA_SUCCESS)
        rc = unlock_victim(&unlock_ms);
    bool is_right = (!is_held || victim_answers(&victim, READY_MS)) &&
                    tell_and_hear("step\n", READY_MS);
    bool is_freed = is_about(mib, free_before, free_between);
    bool ok = rc == CUDA_SUCCESS && is_held && is_saved && is_right && is_freed;
    printf(
        "{\"probe\":\"suspend\",\"ok\":%s,\"result\":\"%s\",\"mib\":%zu,\"cycle\":%d,"
        "\"lock_ms\":%.1f,\"checkpoint_ms\":%.1f,\"restore_ms\":%.1f,\"unlock_ms\":%."
        "1f,"
        "\"calls_wait\":%s,\"memory_right\":%s,"
        "\"device_free_mib\":[%zu,%zu,%zu],\"resident_mib\":[%zu,%zu,%zu]}\n",
        ok ? "true" : "false",
        name_of(rc),
        mib,
        cycle,
        lock_ms,
        save_ms,
        restore_ms,
        unlock_ms,
        is_held ? "true" : "false",
        is_right ? "true" : "false",
        free_before,
        free_between,
        free_mib(),
        rss_before,
        rss_between,
        victim_resident_mib(&victim));
    wrong += !ok;
}

static bool start(size_t mib)
{
    if (victim_start(&victim, mib, READY_MS) && tell_and_hear("step\n", READY_MS))
        return true;
    printf("{\"probe\":\"victim\",\"ok\":false,\"mib\":%zu}\n", mib);
    wrong++;
    return false;
}

static void end(void)
{
    if (!victim_end(&victim, READY_MS)) {
        puts("{\"probe\":\"victim's end\",\"ok\":false}");
        wrong++;
    }
}

static void run_suspend(size_t mib)
{
    if (!start(mib))
        return;
    for (int cycle = 1; cycle <= 2 && !wrong; cycle++)
        suspend_once(mib, cycle);
    end();
}

/* ---- locking ------------------------------------------------------------------------------- */

static void run_refusals(void)
{
    double ms;
    int tid = 0;
    CUresult rc = save_victim(&ms);
    observe("checkpoint without lock", rc == CUDA_ERROR_ILLEGAL_STATE, rc, ms);
    rc = restore_victim(&ms);
    observe("restore without checkpoint", rc == CUDA_ERROR_ILLEGAL_STATE, rc, ms);
    rc = unlock_victim(&ms);
    observe("unlock without lock", rc == CUDA_ERROR_ILLEGAL_STATE, rc, ms);
    rc = TIMED(&ms, "get_thread", api.get_thread(victim.pid, &tid));
    observe("restore thread", rc == CUDA_SUCCESS && tid > 0, rc, ms);
    rc = TIMED(&ms, "get_thread", api.get_thread(1, &tid));
    observe("thread of a process without CUDA", rc != CUDA_SUCCESS, rc, ms);
}

/* A kernel that runs on keeps the lock from being taken; the victim then goes on. */
static void run_timeout(void)
{
    double ms;
    char line[32];
    snprintf(line, sizeof line, "busy %d\n", (int)BUSY_MS);
    bool is_busy = tell_and_hear(line, READY_MS);
    CUresult rc = lock_victim(SHORT_LOCK_MS, &ms);
    bool is_in_time = ms >= SHORT_LOCK_MS * 0.9 && ms < BUSY_MS;
    bool is_running = state_of(victim.pid) == CHECKPOINT_RUNNING;
    observe("lock of a busy process times out",
            is_busy && rc == CUDA_ERROR_NOT_READY && is_in_time && is_running,
            rc,
            ms);
    if (rc == CUDA_SUCCESS)
        unlock_victim(&ms);
    double began = now_ms();
    bool goes_on = tell_and_hear("step\n", READY_MS);
    observe("it goes on after that", goes_on, CUDA_SUCCESS, now_ms() - began);
}

static void run_giving_up(void)
{
    double ms;
    CUresult rc = lock_victim(LOCK_MS, &ms);
    observe("lock of an idle process",
            rc == CUDA_SUCCESS && state_of(victim.pid) == CHECKPOINT_LOCKED,
            rc,
            ms);
    bool is_held =
        victim_tell(&victim, "step\n") && !victim_answers(&victim, BLOCKED_MS);
    observe("its calls wait", is_held, CUDA_SUCCESS, BLOCKED_MS);
    rc = unlock_victim(&ms);
    bool goes_on = !is_held || victim_answers(&victim, READY_MS);
    observe("unlock without checkpoint", rc == CUDA_SUCCESS && goes_on, rc, ms);
}

static void run_lock(void)
{
    if (!start(16))
        return;
    run_refusals();
    run_timeout();
    run_giving_up();
    end();
}

/* ---- start ----------------------------------------------------------------------------------- */

static bool find(const char *name, void *ret_function)
{
    void *symbol = dlsym(RTLD_DEFAULT, name);
    memcpy(ret_function, &symbol, sizeof symbol);
    return symbol != NULL;
}

/* A driver may have the names, and answer that it does not do it. */
static bool is_available(void)
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

/* A context of our own, as the device's free memory is told to nobody without one. */
static bool open_device(void)
{
    CUdevice device;
    CUcontext context;
    double ms;
    CUresult rc = TIMED(&ms, "cuInit", cuInit(0));
    printf("{\"probe\":\"cuInit\",\"result\":\"%s\",\"ms\":%.1f}\n", name_of(rc), ms);
    return rc == CUDA_SUCCESS && cuDeviceGet(&device, 0) == CUDA_SUCCESS &&
           cuDevicePrimaryCtxRetain(&context, device) == CUDA_SUCCESS &&
           cuCtxSetCurrent(context) == CUDA_SUCCESS;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], VICTIM_ARG) == 0)
        return victim_main(strtoull(argv[2], NULL, 10));
    bool is_suspend = argc > 2 && strcmp(argv[1], "suspend") == 0;
    if (!is_suspend && !(argc == 2 && strcmp(argv[1], "lock") == 0)) {
        fprintf(stderr, "usage: %s suspend MIB... | lock\n", argv[0]);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGALRM, on_alarm);
    signal(SIGPIPE, SIG_IGN);
    if (!open_device())
        return 1;
    if (!is_available()) {
        puts("{\"probe\":\"checkpoint calls\",\"result\":\"not there\"}");
        return EXIT_UNAVAILABLE;
    }
    for (int i = 2; i < argc; i++)
        run_suspend(strtoull(argv[i], NULL, 10));
    if (!is_suspend)
        run_lock();
    return wrong ? 1 : 0;
}
