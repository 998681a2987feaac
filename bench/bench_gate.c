/* SPDX-License-Identifier: Apache-2.0
 * bench_gate.c - what counting costs: nanoseconds of a thread's own time for one pair of orri_gate_enter and orri_gate_leave with
 * the gate open.
 *
 * Usage: bench_gate [MILLIONS]; one JSON line per number of threads.
 */
#include <pthread.h>
#include <time.h>

#include "part.h"

enum { THREADS_MAX = 2, ROUNDS = 7 };

static uint64_t n_calls = 5000000;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *issue(void *arg)
{
    uint64_t *took = arg;
    struct orri_clock *clock =
        orri_clock_get((uint64_t)(uintptr_t)arg, 0, 1, ORR_CLOCK_COLLECTIVE, 0);
    if (!clock)
        abort();
    uint64_t start = now_ns();
    for (uint64_t i = 0; i < n_calls; i++) {
        orri_gate_enter(&clock, 1, ORR_CLOCK_OP_ALL_REDUCE);
        orri_gate_leave();
    }
    *took = now_ns() - start;
    return NULL;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_ns(uint32_t n_threads)
{
    double ns[ROUNDS];
    pthread_t threads[THREADS_MAX];
    static uint64_t took[THREADS_MAX];
    for (int r = 0; r < ROUNDS; r++) {
        ns[r] = 0;
        for (uint32_t t = 0; t < n_threads; t++)
            pthread_create(&threads[t], NULL, issue, &took[t]);
        for (uint32_t t = 0; t < n_threads; t++) {
            pthread_join(threads[t], NULL);
            ns[r] += (double)took[t] / (double)n_calls / n_threads;
        }
    }
    qsort(ns, ROUNDS, sizeof *ns, by_size);
    return ns[ROUNDS / 2];
}

int main(int argc, char **argv)
{
    static const struct orri_part part = {.name = "bench"};
    if (argc > 1)
        n_calls = strtoull(argv[1], NULL, 10) * 1000000;
    setenv("ORRERY_RANK_LINK", "/nonexistent/orrery.sock", 1); /* a host that is away */
    setenv("ORRERY_JOB", "bench-1", 1);
    orri_part_register(ORRI_PART_NCCL, &part);
    for (uint32_t n = 1; n <= THREADS_MAX; n++)
        printf("{\"bench\":\"gate\",\"threads\":%u,\"ns_per_call\":%.1f}\n",
               n,
               median_ns(n));
    return 0;
}
