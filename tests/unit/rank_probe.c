/* SPDX-License-Identifier: Apache-2.0
 * rank_probe.c - a rank for tests: threads that issue collectives through the gate, each on a communicator of its own, none more
 * than a few ahead of the slowest rank; with a part that has "device memory" and communicators' ids.
 *
 * Usage: rank_probe SHARED_FILE THREADS calls|cooperative      (RANK, WORLD_SIZE, ORRERY_* as in a job)
 */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "orrery/rank.h"
#include "part.h"
#include "rank_probe.h"

enum { DEVICE_BYTES = 3 << 20, IDS = 2, STATE_BYTES = 1 << 16 };

static struct probe_shared *shared;
static uint32_t rank, world, n_threads;
static uint8_t *device; /* NULL while it is in the arena */
static bool has_comms = true;

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void nap(uint32_t us)
{
    nanosleep(&(struct timespec){.tv_nsec = (long)us * 1000}, NULL);
}

/* ---- a part with device memory and communicators ------------------------------------------ */

static uint64_t arena_bytes(void)
{
    return DEVICE_BYTES;
}

static enum orr_err
cuda_quiesce(struct orri_arena *piece, uint64_t deadline_ms, struct orr_error *err)
{
    (void)deadline_ms;
    if (shared->fails_quiesce == rank + 1)
        return orr_fail(err, ORR_EIO, "the device does not answer");
    if (piece->bytes < DEVICE_BYTES || has_comms)
        shared->n_bad++;
    memcpy(piece->at, device, DEVICE_BYTES);
    free(device);
    device = NULL;
    return ORR_OK;
}

static enum orr_err cuda_resume(const struct orri_arena *piece,
                                const char *uuid,
                                uint64_t deadline_ms,
                                struct orr_error *err)
{
    (void)deadline_ms;
    if (strcmp(uuid, rank == 0 ? "GPU-zero" : "") != 0)
        shared->n_bad++;
    device = malloc(DEVICE_BYTES);
    if (!device)
        return orr_fail(err, ORR_ENOMEM, "no memory");
    memcpy(device, piece->at, DEVICE_BYTES);
    for (size_t i = 0; i < DEVICE_BYTES; i += 4096)
        if (device[i] != (uint8_t)(rank + i / 4096))
            shared->n_bad++;
    return ORR_OK;
}

static enum orr_err
nccl_quiesce(struct orri_arena *piece, uint64_t deadline_ms, struct orr_error *err)
{
    (void)piece, (void)deadline_ms, (void)err;
    has_comms = false;
    shared->n_quiesced++;
    return ORR_OK;
}

/* Rank 0 makes the ids; all need them. */
static uint32_t make_ids(struct orri_comm_id *ids, uint32_t cap)
{
    uint32_t n = rank == 0 && cap >= IDS ? IDS : 0;
    for (uint32_t i = 0; i < n; i++) {
        ids[i].comm = 100 + i;
        ids[i].kind = ORRI_ID_MADE;
        memset(ids[i].id, (int)(7 + i), sizeof ids[i].id);
    }
    return n;
}

static bool has_all_ids(const struct orri_comm_id *ids, uint32_t n)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < n; i++)
        found += ids[i].comm >= 100 && ids[i].comm < 100 + IDS &&
                 ids[i].id[127] == 7 + ids[i].comm - 100;
    return found == IDS;
}

static uint32_t n_stalls;

static enum orr_err nccl_resume(const struct orri_arena *piece,
                                const char *uuid,
                                uint64_t deadline_ms,
                                struct orr_error *err)
{
    uint32_t n;
    const struct orri_comm_id *ids = orri_comm_ids(&n);
    (void)piece, (void)uuid;
    if (!device || !has_all_ids(ids, n))
        shared->n_bad++;
    if (shared->stalls_resume > n_stalls) {
        n_stalls = shared->stalls_resume;
        shared->n_stalled++;
        while (!orri_stop_has_newer() && now_ms() < deadline_ms)
            nap(1000);
        return orr_fail(err, ORR_EGONE, "its peers have not come");
    }
    has_comms = true;
    shared->n_resumed++;
    return ORR_OK;
}

static const struct orri_part cuda = {
    .name = "cuda",
    .arena_bytes = arena_bytes,
    .quiesce = cuda_quiesce,
    .resume = cuda_resume,
};
static const struct orri_part nccl = {
    .name = "nccl",
    .quiesce = nccl_quiesce,
    .resume = nccl_resume,
    .make_ids = make_ids,
    .has_all_ids = has_all_ids,
};

/* ---- a program of calls ------------------------------------------------------------------- */

static uint64_t slowest(uint32_t t)
{
    uint64_t least = UINT64_MAX;
    for (uint32_t r = 0; r < world; r++)
        if (shared->issued[t][r] < least)
            least = shared->issued[t][r];
    return least;
}

/* A child counts for itself, and its parent's node hears nothing of it. */
static void fork_a_child(struct orri_clock *clock)
{
    pid_t pid = fork();
    if (pid == 0) {
        for (int i = 0; i < 100; i++) {
            orri_gate_enter(&clock, 1, ORR_CLOCK_OP_ALL_REDUCE);
            orri_gate_leave();
        }
        _exit(0);
    }
    int status = 1;
    if (pid > 0)
        waitpid(pid, &status, 0);
    if (status != 0)
        shared->n_bad++;
}

static void *issue(void *arg)
{
    uint32_t t = (uint32_t)(uintptr_t)arg;
    struct orri_clock *clock =
        orri_clock_get(100 + t, rank, world, ORR_CLOCK_COLLECTIVE, 0);
    while (!shared->is_over) {
        if (shared->skips_next == rank + 1) {
            nap(1000);
            continue;
        }
        if (t == 0 && shared->forks && shared->issued[0][rank] % 64 == 0)
            fork_a_child(clock);
        orri_gate_enter(&clock, 1, ORR_CLOCK_OP_ALL_REDUCE);
        if (!device || !has_comms)
            shared->n_bad++;
        uint64_t mine = ++shared->issued[t][rank];
        if (shared->is_slow)
            nap(shared->is_slow);
        orri_gate_leave();
        while (mine > slowest(t) + PROBE_AHEAD && !shared->is_over)
            sched_yield(); /* as a stream that is waited for */
    }
    return NULL;
}

static int run_calls(void)
{
    pthread_t threads[PROBE_THREADS_MAX];
    device = malloc(DEVICE_BYTES);
    for (size_t i = 0; i < DEVICE_BYTES; i++)
        device[i] = (uint8_t)(rank + i / 4096);
    orri_part_register(ORRI_PART_CUDA, &cuda);
    orri_part_register(ORRI_PART_NCCL, &nccl);
    for (uint32_t t = 0; t < n_threads; t++)
        if (pthread_create(&threads[t], NULL, issue, (void *)(uintptr_t)t) != 0)
            return 1;
    shared->n_started++;
    for (uint32_t t = 0; t < n_threads; t++)
        pthread_join(threads[t], NULL);
    return 0;
}

/* ---- a cooperative program ---------------------------------------------------------------- */

struct state {
    uint64_t step, sum;
    uint8_t filling[STATE_BYTES];
};

static size_t log_bytes(void *arg)
{
    return strlen(arg);
}

static int log_save(void *arg, void *to, size_t bytes)
{
    memcpy(to, arg, bytes);
    return 0;
}

static int log_load(void *arg, const void *from, size_t bytes)
{
    memcpy(arg, from, bytes);
    return 0;
}

static int run_cooperative(void)
{
    static struct state state;
    static char log[64];
    const struct orr_rank_callbacks callbacks = {log_bytes, log_save, log_load, log};
    if (orr_rank_region("state", &state, sizeof state) ||
        orr_rank_state("log", &callbacks) || !orr_rank_region("state", &state, 1))
        return 2;
    int restored = orr_rank_restored();
    if (restored < 0 || (restored && strcmp(log, "hello") != 0))
        return 3;
    strcpy(log, "hello");
    if (restored && state.sum != shared->sum[rank])
        shared->n_bad++;
    if (restored)
        shared->n_resumed++;
    shared->n_started++;
    while (!shared->is_over) {
        orr_rank_point();
        state.step++;
        state.sum = state.sum * 31 + state.step;
        memset(state.filling, (int)state.step, sizeof state.filling);
        shared->sum[rank] = state.sum;
        uint64_t mine = ++shared->issued[0][rank];
        while (mine > slowest(0) + PROBE_AHEAD && !shared->is_over)
            sched_yield();
    }
    return 0;
}

static uint32_t number(const char *name)
{
    const char *text = getenv(name);
    return text ? (uint32_t)strtoul(text, NULL, 10) : 0;
}

int main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* nothing outlives a test that failed */
    if (argc != 4)
        return 2;
    int fd = open(argv[1], O_RDWR | O_CLOEXEC);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (shared == MAP_FAILED)
        return 2;
    rank = number("RANK");
    world = number("WORLD_SIZE");
    n_threads = (uint32_t)strtoul(argv[2], NULL, 10);
    return strcmp(argv[3], "cooperative") == 0 ? run_cooperative() : run_calls();
}
