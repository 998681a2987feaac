/* SPDX-License-Identifier: Apache-2.0
 * bench_rank_cuda.c - what the CUDA interposer costs: a call, with and without it, and a stop.
 *
 *   with_devices 1 1024 env LD_PRELOAD=lib/rank/libcuda.so.1 ORRERY_REAL_LIBCUDA=... bench_rank_cuda [MIB]
 *
 * Stops: bytes a second out of the device and back, beside what memcpy moves in the same run between mappings of the same kind
 * (a shared file to a shared file, touched for the first time), by as many threads as the machine has processors.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"
#include "core/part.h"
#include "cuda/cuda_part.h"
#include "orrery/gpu_abi.h"

enum { ROUNDS = 21, CALLS = 200000, DEADLINE_MS = 60000, THREADS_MAX = 8, STOPS = 5 };

typedef CUresult (*get_current_f)(CUcontext *);
typedef CUresult (*error_name_f)(CUresult, const char **);

static void check(CUresult rc, const char *what)
{
    if (rc != CUDA_SUCCESS)
        die(what, "failed");
}

static void *find(void *library, const char *name)
{
    void *symbol = dlsym(library, name);
    if (!symbol)
        die(name, "not found; run this with LD_PRELOAD and ORRERY_REAL_LIBCUDA");
    return symbol;
}

/* ---- a call ------------------------------------------------------------------------------- */

/* Of this thread alone: others may use the machine. */
static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double ns_per_call(get_current_f call)
{
    CUcontext ctx;
    double start = cpu_s();
    for (int i = 0; i < CALLS; i++)
        check(call(&ctx), "cuCtxGetCurrent");
    return (cpu_s() - start) * 1e9 / CALLS;
}

static void bench_call(void *real)
{
    get_current_f ours, theirs;
    double with[ROUNDS], without[ROUNDS];
    void *symbols[] = {find(RTLD_DEFAULT, "cuCtxGetCurrent"),
                       find(real, "cuCtxGetCurrent")};
    memcpy(&ours, &symbols[0], sizeof ours);
    memcpy(&theirs, &symbols[1], sizeof theirs);
    for (int i = 0; i < ROUNDS; i++) { /* in turns, so that both see the same machine */
        with[i] = ns_per_call(ours);
        without[i] = ns_per_call(theirs);
    }
    print("rank.cuda.call",
          median(with, ROUNDS),
          "ns",
          "without",
          median(without, ROUNDS));
}

/* ---- a stop ------------------------------------------------------------------------------- */

static uint64_t deadline(void)
{
    return (uint64_t)(now_s() * 1e3) + DEADLINE_MS;
}

static uint8_t *shared_memory(size_t bytes)
{
    int fd = memfd_create("bench", MFD_CLOEXEC);
    void *at = fd < 0 || ftruncate(fd, (off_t)bytes) != 0
                   ? MAP_FAILED
                   : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        die("memfd", strerror(errno));
    close(fd);
    return at;
}

struct share {
    uint8_t *to;
    const uint8_t *from;
    size_t bytes;
};

static void *copy(void *arg)
{
    struct share *s = arg;
    memcpy(s->to, s->from, s->bytes);
    return NULL;
}

/* GB/s of memcpy to memory that nobody has touched. */
static double bench_memcpy(size_t bytes)
{
    pthread_t threads[THREADS_MAX];
    struct share shares[THREADS_MAX];
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    n = n > THREADS_MAX ? THREADS_MAX : n;
    uint8_t *from = shared_memory(bytes), *to = shared_memory(bytes);
    memset(from, 1, bytes);
    double start = now_s();
    for (long i = 0; i < n; i++) {
        size_t part = bytes / (size_t)n;
        shares[i] =
            (struct share){to + (size_t)i * part, from + (size_t)i * part, part};
        pthread_create(&threads[i], NULL, copy, &shares[i]);
    }
    for (long i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    double rate = (double)bytes / (now_s() - start) / 1e9;
    munmap(from, bytes);
    munmap(to, bytes);
    return rate;
}

static void stop_once(const struct orri_part *part,
                      double *ret_out,
                      double *ret_in,
                      double *ret_fixed_ms)
{
    struct orr_error err;
    struct orri_arena arena = {.fd = -1};
    struct orri_cuda_account account;
    void (*last)(struct orri_cuda_account *);
    void *symbol = find(RTLD_DEFAULT, "orri_cuda_last_account");
    memcpy(&last, &symbol, sizeof last);
    double start = now_s();
    if (part->close(deadline(), &err) != ORR_OK)
        die("close", err.text);
    arena.bytes = part->arena_bytes();
    arena.at = shared_memory(arena.bytes);
    if (part->quiesce(&arena, deadline(), &err) != ORR_OK)
        die("quiesce", err.text);
    *ret_out = (double)arena.bytes / (now_s() - start) / 1e9;
    last(&account);
    *ret_fixed_ms = (now_s() - start) * 1e3 - (double)account.copy_us / 1e3;
    start = now_s();
    if (part->resume(&arena, "", deadline(), &err) != ORR_OK)
        die("resume", err.text);
    part->open();
    *ret_in = (double)arena.bytes / (now_s() - start) / 1e9;
    munmap(arena.at, arena.bytes);
}

static void bench_stop(size_t bytes)
{
    const struct orri_part *(*part)(void);
    double out[STOPS], in[STOPS], fixed[STOPS], limit[STOPS];
    void *symbol = find(RTLD_DEFAULT, "orri_cuda_part");
    CUdeviceptr p = 0;
    memcpy(&part, &symbol, sizeof part);
    check(cuMemAlloc(&p, bytes), "cuMemAlloc");
    check(cuMemsetD8(p, 1, bytes), "cuMemsetD8");
    check(cuCtxSynchronize(), "cuCtxSynchronize");
    for (int i = 0; i < STOPS; i++) {
        stop_once(part(), &out[i], &in[i], &fixed[i]);
        limit[i] = bench_memcpy(bytes);
    }
    double rate = median(limit, STOPS);
    print("rank.cuda.out", median(out, STOPS), "GB/s", "memcpy", rate);
    print("rank.cuda.in", median(in, STOPS), "GB/s", "memcpy", rate);
    print("rank.cuda.out_fixed", median(fixed, STOPS), "ms", "second", 1000);
}

int main(int argc, char **argv)
{
    const size_t mib = argc > 1 ? strtoul(argv[1], NULL, 10) : 256;
    const char *path = getenv("ORRERY_REAL_LIBCUDA");
    void *real = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    CUcontext ctx;
    if (!real)
        die("ORRERY_REAL_LIBCUDA", "names no library");
    check(cuInit(0), "cuInit");
    check(cuDevicePrimaryCtxRetain(&ctx, 0), "cuDevicePrimaryCtxRetain");
    check(cuCtxSetCurrent(ctx), "cuCtxSetCurrent");
    bench_call(real);
    bench_stop(mib << 20);
    return 0;
}
