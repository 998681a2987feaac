/* SPDX-License-Identifier: Apache-2.0
 * probe_checkpoint.c - what the driver's checkpoint calls do on this machine.
 *
 *   probe_checkpoint suspend MIB...   suspend and resume a process with so much memory, twice
 *   probe_checkpoint lock             timeouts, refusals, giving up
 *
 * One JSON line for each observation. Exit code 0: as Orrery relies on; 1: not so, the
 * line before says what; 77: this driver has no checkpoint calls.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orrery/gpu_abi.h"

#include "checkpoint_abi.h"
#include "checkpoint_calls.h"

enum {
    READY_MS = 30000,
    BLOCKED_MS = 300,
    LOCK_MS = 10000,
    SHORT_LOCK_MS = 1000,
    BUSY_MS = 4000,
    EXIT_UNAVAILABLE = 77
};

static struct victim victim;
static int wrong;

/* ---- what is seen, and what must be ------------------------------------------------------ */

static void observe(const char *what, bool ok, CUresult rc, double ms)
{
    printf("{\"probe\":\"%s\",\"ok\":%s,\"result\":\"%s\",\"ms\":%.1f,\"state\":%d}\n",
           what,
           ok ? "true" : "false",
           result_name(rc),
           ms,
           checkpoint_state(victim.pid));
    wrong += !ok;
}

static bool tell_and_hear(const char *line, int ms)
{
    return victim_tell(&victim, line) && victim_answers(&victim, ms);
}

static void suspend_once(size_t mib, int cycle)
{
    double lock_ms = 0, save_ms = 0, restore_ms = 0, unlock_ms = 0;
    size_t free_before = device_free_mib(), rss_before = victim_resident_mib(&victim);
    CUresult rc = checkpoint_lock(victim.pid, LOCK_MS, &lock_ms);
    bool is_held =
        victim_tell(&victim, "step\n") && !victim_answers(&victim, BLOCKED_MS);
    if (rc == CUDA_SUCCESS)
        rc = checkpoint_save(victim.pid, &save_ms);
    bool is_saved = checkpoint_state(victim.pid) == CHECKPOINT_CHECKPOINTED;
    size_t free_between = device_free_mib(), rss_between = victim_resident_mib(&victim);
    if (rc == CUDA_SUCCESS)
        rc = checkpoint_restore(victim.pid, &restore_ms);
    if (rc == CUDA_SUCCESS)
        rc = checkpoint_unlock(victim.pid, &unlock_ms);
    bool is_right = (!is_held || victim_answers(&victim, READY_MS)) &&
                    tell_and_hear("step\n", READY_MS);
    bool has_room = is_freed(mib, free_before, free_between);
    bool ok = rc == CUDA_SUCCESS && is_held && is_saved && is_right && has_room;
    printf(
        "{\"probe\":\"suspend\",\"ok\":%s,\"result\":\"%s\",\"mib\":%zu,\"cycle\":%d,"
        "\"lock_ms\":%.1f,\"checkpoint_ms\":%.1f,\"restore_ms\":%.1f,\"unlock_ms\":%."
        "1f,"
        "\"calls_wait\":%s,\"memory_right\":%s,"
        "\"device_free_mib\":[%zu,%zu,%zu],\"resident_mib\":[%zu,%zu,%zu]}\n",
        ok ? "true" : "false",
        result_name(rc),
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
        device_free_mib(),
        rss_before,
        rss_between,
        victim_resident_mib(&victim));
    wrong += !ok;
}

static bool start(size_t mib)
{
    if (victim_start(&victim, mib, "alloc", READY_MS) &&
        tell_and_hear("step\n", READY_MS))
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
    CUresult rc = checkpoint_save(victim.pid, &ms);
    observe("checkpoint without lock", rc == CUDA_ERROR_ILLEGAL_STATE, rc, ms);
    rc = checkpoint_restore(victim.pid, &ms);
    observe("restore without checkpoint", rc == CUDA_ERROR_ILLEGAL_STATE, rc, ms);
    rc = checkpoint_unlock(victim.pid, &ms);
    observe("unlock without lock", rc == CUDA_ERROR_ILLEGAL_STATE, rc, ms);
    rc = checkpoint_thread(victim.pid, &tid, &ms);
    observe("restore thread", rc == CUDA_SUCCESS && tid > 0, rc, ms);
    rc = checkpoint_thread(1, &tid, &ms);
    observe("thread of a process without CUDA", rc != CUDA_SUCCESS, rc, ms);
}

/* A kernel that runs on keeps the lock from being taken; the victim then goes on. */
static void run_timeout(void)
{
    double ms;
    char line[32];
    snprintf(line, sizeof line, "busy %d\n", (int)BUSY_MS);
    bool is_busy = tell_and_hear(line, READY_MS);
    CUresult rc = checkpoint_lock(victim.pid, SHORT_LOCK_MS, &ms);
    bool is_in_time = ms >= SHORT_LOCK_MS * 0.9 && ms < BUSY_MS;
    bool is_running = checkpoint_state(victim.pid) == CHECKPOINT_RUNNING;
    observe("lock of a busy process times out",
            is_busy && rc == CUDA_ERROR_NOT_READY && is_in_time && is_running,
            rc,
            ms);
    if (rc == CUDA_SUCCESS)
        checkpoint_unlock(victim.pid, &ms);
    double began = now_ms();
    bool goes_on = tell_and_hear("step\n", READY_MS);
    observe("it goes on after that", goes_on, CUDA_SUCCESS, now_ms() - began);
}

static void run_giving_up(void)
{
    double ms;
    CUresult rc = checkpoint_lock(victim.pid, LOCK_MS, &ms);
    observe("lock of an idle process",
            rc == CUDA_SUCCESS && checkpoint_state(victim.pid) == CHECKPOINT_LOCKED,
            rc,
            ms);
    bool is_held =
        victim_tell(&victim, "step\n") && !victim_answers(&victim, BLOCKED_MS);
    observe("its calls wait", is_held, CUDA_SUCCESS, BLOCKED_MS);
    rc = checkpoint_unlock(victim.pid, &ms);
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

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], VICTIM_ARG) == 0)
        return victim_main(strtoull(argv[2], NULL, 10), argv[3]);
    bool is_suspend = argc > 2 && strcmp(argv[1], "suspend") == 0;
    if (!is_suspend && !(argc == 2 && strcmp(argv[1], "lock") == 0)) {
        fprintf(stderr, "usage: %s suspend MIB... | lock\n", argv[0]);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!checkpoint_open_device(&victim))
        return 1;
    if (!checkpoint_is_available()) {
        puts("{\"probe\":\"checkpoint calls\",\"result\":\"not there\"}");
        return EXIT_UNAVAILABLE;
    }
    for (int i = 2; i < argc; i++)
        run_suspend(strtoull(argv[i], NULL, 10));
    if (!is_suspend)
        run_lock();
    return wrong ? 1 : 0;
}
