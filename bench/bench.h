/* SPDX-License-Identifier: Apache-2.0
 * bench.h - what programs of this folder share: time, medians, one line of JSON per number, and
 * the job that does nothing.
 */
#ifndef ORR_BENCH_H
#define ORR_BENCH_H

#include "orrery/ids.h"
#include "orrery/msg.h"

#include <errno.h>
#include <time.h>

static inline double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline _Noreturn void die(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, why);
    exit(1);
}

static inline int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts them. */
static inline double median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, by_value);
    return values[n / 2];
}

static inline void print(const char *bench,
                         double value,
                         const char *unit,
                         const char *peer,
                         double peer_value)
{
    printf("{\"bench\":\"%s\",\"value\":%.6g,\"unit\":\"%s\",\"peer\":\"%s\","
           "\"peer_value\":%.6g,\"ratio\":%.3g}\n",
           bench,
           value,
           unit,
           peer,
           peer_value,
           value / peer_value);
    fflush(stdout);
}

/* The encoded spec of a job that runs /bin/true on no device; its length. */
static inline size_t true_spec(uint8_t *buf, size_t cap)
{
    size_t len;
    const struct orr_rec_text command[] = {{ORR_LIT("/bin/true")}};
    const struct orr_msg_job_spec job = {.name = ORR_LIT("true"),
                                         .project = ORR_LIT("default"),
                                         .tier = ORR_TIER_STANDARD,
                                         .command = {command, 1},
                                         .workdir = ORR_LIT("/"),
                                         .world = 1,
                                         .shards = 1,
                                         .checkpoint_mode = ORR_CHECKPOINT_NONE,
                                         .checkpoint_keep = 1,
                                         .checkpoint_every_ms = 900000,
                                         .retries_infra = -1,
                                         .backoff_min_ms = 30000,
                                         .backoff_max_ms = 600000};
    if (orr_msg_encode(orr_msg_desc_job_spec(), &job, buf, cap, &len))
        die("spec", "does not fit");
    return len;
}

#endif
