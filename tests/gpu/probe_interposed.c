/* SPDX-License-Identifier: Apache-2.0
 * probe_interposed.c - takes a process' device memory away and gives it back with Orrery's libcuda.so.1, as a suspend does.
 *
 *   probe_interposed LIBRARY KIND MIB...     LIBRARY: the interposer; KIND: alloc, pool, vmm, graph
 *
 * The victim has the library preloaded, this program has not: it sees the device as the driver does. Each size is stopped twice;
 * while the memory is out, the driver's own checkpoint follows where there is one: that is what a suspend is. One JSON line for
 * each. Exit code 0: all right; 1: the line before says what is wrong; 77: this driver does not have KIND.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orrery/gpu_abi.h"

#include "checkpoint_abi.h"
#include "checkpoint_calls.h"
#include "victim_memory.h"

enum { READY_MS = 60000, STOP_MS = 100000, LOCK_MS = 10000 };

static struct victim victim;
static bool has_checkpoint;

/* What one way, out or in, took: the library's own account, in ms. */
struct trip {
    unsigned long long bytes;
    double ms, drain_ms, copy_ms, release_ms, take_ms;
};

struct driver_ms {
    CUresult rc;
    double lock, save, restore, unlock;
    size_t free_mib; /* while it was saved */
};

static bool go(const char *way, struct trip *ret)
{
    char line[VICTIM_LINE], word[8];
    unsigned long long us[4] = {0};
    *ret = (struct trip){0};
    snprintf(line, sizeof line, "%s\n", way);
    bool ok = victim_tell(&victim, line) && victim_line(&victim, STOP_MS, line) &&
              sscanf(line,
                     "ok %7s %llu %lf %llu %llu %llu %llu",
                     word,
                     &ret->bytes,
                     &ret->ms,
                     &us[0],
                     &us[1],
                     &us[2],
                     &us[3]) == 7;
    if (!ok)
        fprintf(stderr, "probe_interposed: %s: %s\n", way, line);
    ret->drain_ms = (double)us[0] / 1e3;
    ret->copy_ms = (double)us[1] / 1e3;
    ret->release_ms = (double)us[2] / 1e3;
    ret->take_ms = (double)us[3] / 1e3;
    return ok;
}

/* The process has no memory on the device now, but a context; that goes, too. */
static bool checkpoint(struct driver_ms *d)
{
    *d = (struct driver_ms){0};
    if (!has_checkpoint)
        return true;
    d->rc = checkpoint_lock(victim.pid, LOCK_MS, &d->lock);
    if (!d->rc)
        d->rc = checkpoint_save(victim.pid, &d->save);
    d->free_mib = device_free_mib();
    if (!d->rc)
        d->rc = checkpoint_restore(victim.pid, &d->restore);
    if (!d->rc)
        d->rc = checkpoint_unlock(victim.pid, &d->unlock);
    return d->rc == CUDA_SUCCESS;
}

static bool steps(void)
{
    return victim_tell(&victim, "step\n") && victim_answers(&victim, READY_MS);
}

static double gib_s(unsigned long long bytes, double ms)
{
    return ms > 0 ? (double)bytes / (double)(1 << 30) / (ms / 1e3) : 0;
}

static void print_trip(const char *way, const struct trip *t)
{
    printf(",\"%s_ms\":%.1f,\"%s_gib_s\":%.2f,\"%s_parts_ms\":[%.1f,%.1f,%.1f,%.1f]",
           way,
           t->ms,
           way,
           gib_s(t->bytes, t->ms),
           way,
           t->drain_ms,
           t->copy_ms,
           t->release_ms,
           t->take_ms);
}

static bool stop_once(const char *kind, size_t mib, int cycle)
{
    struct trip out, in = {0};
    struct driver_ms driver = {0};
    size_t before = device_free_mib(), between = 0;
    bool is_out = go("out", &out);
    if (is_out)
        between = device_free_mib();
    bool is_right = is_out && checkpoint(&driver) && go("in", &in) && steps();
    bool has_room = is_out && is_freed(mib, before, between);
    bool ok = is_right && has_room && out.bytes >= (unsigned long long)mib << 20;
    printf("{\"probe\":\"interposed\",\"ok\":%s,\"kind\":\"%s\",\"mib\":%zu,\"cycle\":%"
           "d,\"memory_right\":%s",
           ok ? "true" : "false",
           kind,
           mib,
           cycle,
           is_right ? "true" : "false");
    print_trip("out", &out);
    print_trip("in", &in);
    if (has_checkpoint)
        printf(",\"driver\":\"%s\",\"driver_ms\":[%.1f,%.1f,%.1f,%.1f],\"free_when_"
               "saved_mib\":%zu",
               result_name(driver.rc),
               driver.lock,
               driver.save,
               driver.restore,
               driver.unlock,
               driver.free_mib);
    printf(",\"device_free_mib\":[%zu,%zu,%zu],\"resident_mib\":%zu}\n",
           before,
           between,
           device_free_mib(),
           victim_resident_mib(&victim));
    return ok;
}

/* 0, 1, or 77 as the program's own. */
static int run(const char *library, const char *kind, size_t mib)
{
    setenv("LD_PRELOAD", library, 1);
    bool is_here = victim_start(&victim, mib, kind, READY_MS);
    unsetenv("LD_PRELOAD");
    bool ok = is_here && steps();
    for (int cycle = 1; cycle <= 2 && ok; cycle++)
        ok = stop_once(kind, mib, cycle);
    bool has_ended = victim_end(&victim, READY_MS);
    if (!is_here && victim.exit_code == VICTIM_UNSUPPORTED) {
        printf("{\"probe\":\"interposed\",\"kind\":\"%s\",\"skipped\":\"this driver "
               "does not have it\"}\n",
               kind);
        return VICTIM_UNSUPPORTED;
    }
    if (!ok || !has_ended)
        printf("{\"probe\":\"interposed "
               "victim\",\"ok\":false,\"kind\":\"%s\",\"mib\":%zu,\"started\":%s,"
               "\"exit\":%d}\n",
               kind,
               mib,
               is_here ? "true" : "false",
               victim.exit_code);
    return ok && has_ended ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], VICTIM_ARG) == 0)
        return victim_main(strtoull(argv[2], NULL, 10), argv[3]);
    if (argc < 4 || victim_kind_of(argv[2]) == VICTIM_KIND_MAX_) {
        fprintf(stderr, "usage: %s LIBRARY alloc|pool|vmm|graph MIB...\n", argv[0]);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!checkpoint_open_device(&victim))
        return 1;
    has_checkpoint = checkpoint_is_available();
    int code = 0;
    for (int i = 3; i < argc && code == 0; i++)
        code = run(argv[1], argv[2], strtoull(argv[i], NULL, 10));
    return code;
}
