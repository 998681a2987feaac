/* SPDX-License-Identifier: Apache-2.0
 * stopper.c - preloaded beside the interposer into any CUDA program: suspends and resumes the process at random moments while
 * it works. At each stop: the device has the memory back, the content that comes back is what went, a second time round. At the
 * program's end: exit code 99 and a line on stderr if anything went wrong or there were fewer stops than STOPPER_MIN (environment).
 * A process that may not be stopped just now (it shares memory; a host function of a stream waits for a thread that the gate
 * holds) or whose context a kernel has poisoned must say so and run on.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "core/part.h"
#include "device_file.h"

enum { STOP_MS = 20000, DRAIN_MS = 1000, PAUSE_US_MAX = 3000, EXIT_WRONG = 99 };

static const struct orri_part *part;
static pthread_t thread;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER;
static bool is_ending, is_started;
static pid_t pid;
static unsigned long least;
static unsigned n_stops, n_refused, n_wrong, seed, first_seed;
static uint64_t n_bytes;

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void wrong(const char *what, const char *text)
{
    fprintf(stderr, "stopper: %s: %s\n", what, text);
    n_wrong++;
}

/* On a real device, whose memory nobody in a stopped process may ask the driver for: the management library's word. */
static uint64_t real_free_bytes(void)
{
    struct {
        unsigned long long total, free, used;
    } memory = {0};
    int (*init)(void) = NULL, (*by_index)(unsigned, void **) = NULL,
        (*info)(void *, void *) = NULL;
    void *device = NULL, *library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library) {
        *(void **)&init = dlsym(library, "nvmlInit_v2");
        *(void **)&by_index = dlsym(library, "nvmlDeviceGetHandleByIndex_v2");
        *(void **)&info = dlsym(library, "nvmlDeviceGetMemoryInfo");
    }
    if (!init || !by_index || !info || init() != 0 || by_index(0, &device) != 0 ||
        info(device, &memory) != 0)
        wrong("libnvidia-ml.so.1", "does not say how much memory is free");
    return memory.free;
}

static uint64_t free_bytes(void)
{
    char list[4096], *rest = NULL;
    uint64_t sum = 0;
    const char *emulated = getenv("ORRERY_EMULATOR_DEVICES");
    if (!emulated)
        return real_free_bytes();
    snprintf(list, sizeof list, "%s", emulated);
    for (char *p = strtok_r(list, ":", &rest); p; p = strtok_r(NULL, ":", &rest)) {
        struct emu_device_info info;
        if (emu_device_file_info(p, &info, NULL) == 0)
            sum += info.free_bytes;
    }
    return sum;
}

static bool arena_new(struct orri_arena *a, uint64_t bytes)
{
    a->bytes = bytes;
    a->fd = memfd_create("stopper", MFD_CLOEXEC);
    a->at = NULL;
    if (a->fd < 0 || ftruncate(a->fd, (off_t)bytes) != 0)
        return false;
    void *at =
        bytes ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, a->fd, 0) : NULL;
    a->at = at;
    return at != MAP_FAILED;
}

static void arena_end(struct orri_arena *a)
{
    if (a->bytes)
        munmap(a->at, a->bytes);
    close(a->fd);
}

/* Out and in; false: it was refused or failed, and the process can run on. */
static bool round_trip(struct orri_arena *a)
{
    struct orr_error err = {0};
    uint64_t before = free_bytes();
    enum orr_err rc = part->quiesce(a, now_ms() + DRAIN_MS, &err);
    if (rc != ORR_OK) {
        n_refused++;
        if (rc != ORR_ENOSYS && !strstr(err.text, "a context has failed") &&
            !strstr(err.text, "has not ended"))
            wrong("quiesce", err.text);
        return false;
    }
    if (a->bytes && free_bytes() <= before)
        wrong("quiesce", "the device has no more memory than before");
    rc = part->resume(a, "", now_ms() + STOP_MS, &err);
    if (rc != ORR_OK)
        wrong("resume", err.text);
    return rc == ORR_OK;
}

static void stop(void)
{
    struct orr_error err = {0};
    struct orri_arena first, second;
    if (part->close(now_ms() + STOP_MS, &err) != ORR_OK) {
        wrong("close", err.text);
        return;
    }
    uint64_t bytes = part->arena_bytes();
    if (!arena_new(&first, bytes) || !arena_new(&second, bytes)) {
        wrong("arena", "out of memory");
    } else if (round_trip(&first) && round_trip(&second)) {
        if (bytes && memcmp(first.at, second.at, bytes) != 0)
            wrong("resume", "other bytes than those that went");
        n_stops++;
        n_bytes += bytes;
    }
    part->open();
    arena_end(&first);
    arena_end(&second);
}

static void *run(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&lock);
    while (!is_ending) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += rand_r(&seed) % PAUSE_US_MAX * 1000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&ended, &lock, &until);
        pthread_mutex_unlock(&lock);
        stop();
        pthread_mutex_lock(&lock);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

__attribute__((constructor)) static void start(void)
{
    const struct orri_part *(*find)(void);
    void *symbol = dlsym(RTLD_DEFAULT, "orri_cuda_part");
    const char *chosen = getenv("STOPPER_SEED");
    if (!symbol || !getenv("STOPPER_MIN"))
        return; /* with_devices, a shell */
    memcpy(&find, &symbol, sizeof find);
    part = find();
    least = strtoul(getenv("STOPPER_MIN"), NULL, 10);
    setenv("STOPPER_MIN",
           "0",
           1); /* children (a fault of the suite) live too short to be stopped often */
    pid = getpid();
    seed = chosen ? (unsigned)strtoul(chosen, NULL, 10) : (unsigned)pid;
    first_seed = seed;
    is_started = pthread_create(&thread, NULL, run, NULL) == 0;
}

__attribute__((destructor)) static void end(void)
{
    if (!is_started || pid != getpid())
        return;
    pthread_mutex_lock(&lock);
    is_ending = true;
    pthread_cond_signal(&ended);
    pthread_mutex_unlock(&lock);
    pthread_join(thread, NULL);
    fprintf(stderr,
            "stopper: %u stops, %u refused, %u wrong, %llu MiB in all, seed %u\n",
            n_stops,
            n_refused,
            n_wrong,
            (unsigned long long)(n_bytes >> 20),
            first_seed);
    if (n_wrong || n_stops < least)
        _exit(EXIT_WRONG);
}
