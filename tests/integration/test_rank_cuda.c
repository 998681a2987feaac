/* SPDX-License-Identifier: Apache-2.0
 * test_rank_cuda.c - a program with the interposer before the emulated driver: what becomes of its memory at a stop, what holds a
 * stop up, and what forbids it. It plays both parts: the program, and the core that stops it.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/part.h"
#include "cuda/cuda_part.h"
#include "device_file.h"
#include "orr_test.h"

enum { LONG_MS = 10000, SHORT_MS = 200, GRANULE = 2 << 20, MIB = 1 << 20 };

CUresult cuMemAllocAsync(CUdeviceptr *dptr, size_t bytes, CUstream stream);
CUresult cuMemFreeAsync(CUdeviceptr dptr, CUstream stream);
CUresult cuMemAllocPitch_v2(
    CUdeviceptr *dptr, size_t *pitch, size_t width, size_t height, unsigned bytes);
CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *addr);

#define OK(call) assert_int_equal(call, CUDA_SUCCESS)

static const struct orri_part *part;
static const char *(*why_not)(void);
static CUcontext ctx;
static struct orri_arena arena;

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static struct emu_device_info device_now(void)
{
    struct emu_device_info info;
    assert_int_equal(
        emu_device_file_info(getenv("ORRERY_EMULATOR_DEVICES"), &info, NULL), 0);
    return info;
}

static uint64_t used_bytes(void)
{
    struct emu_device_info info = device_now();
    return info.memory_bytes - info.free_bytes;
}

static int set_up(void **state)
{
    (void)state;
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&ctx, 0));
    OK(cuCtxSetCurrent(ctx));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    OK(cuDevicePrimaryCtxReset(0));
    assert_int_equal(used_bytes(), 0); /* a context takes its memory along */
    return 0;
}

static void quiesce(void)
{
    struct orr_error err;
    assert_int_equal(part->close(now_ms() + LONG_MS, &err), ORR_OK);
    arena.bytes = part->arena_bytes();
    arena.fd = memfd_create("arena", MFD_CLOEXEC);
    assert_int_equal(ftruncate(arena.fd, (off_t)arena.bytes), 0);
    arena.at = mmap(NULL, arena.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, arena.fd, 0);
    enum orr_err rc = part->quiesce(&arena, now_ms() + LONG_MS, &err);
    if (rc != ORR_OK)
        fail_msg("%s", err.text);
}

static enum orr_err try_resume(void)
{
    struct orr_error err;
    return part->resume(&arena, "", now_ms() + LONG_MS, &err);
}

static void go_on(void)
{
    munmap(arena.at, arena.bytes);
    close(arena.fd);
    part->open();
}

static void stop_and_go_on(void)
{
    quiesce();
    assert_int_equal(used_bytes(), 0);
    assert_int_equal(try_resume(), ORR_OK);
    go_on();
}

static CUdeviceptr filled(size_t bytes, unsigned char value)
{
    CUdeviceptr p = 0;
    OK(cuMemAlloc(&p, bytes));
    OK(cuMemsetD8(p, value, bytes));
    return p;
}

static void expect_bytes(CUdeviceptr p, size_t bytes, unsigned char value)
{
    unsigned char *copy = malloc(bytes);
    OK(cuMemcpyDtoH(copy, p, bytes));
    for (size_t i = 0; i < bytes; i++)
        if (copy[i] != value)
            fail_msg("byte %zu is %d, not %d", i, copy[i], value);
    free(copy);
}

/* ---- memory ----------------------------------------------------------------------------------- */

static void small_blocks_share_memory(void **state)
{
    enum { N = 3000 };
    static CUdeviceptr p[N];
    (void)state;
    for (int i = 0; i < N; i++)
        p[i] = filled(700, (unsigned char)i);
    assert_true(used_bytes() <= 2 * GRANULE); /* 3000 granules would be 6 GiB */
    for (int i = 0; i < N; i += 2)
        OK(cuMemFree(p[i]));
    stop_and_go_on();
    for (int i = 1; i < N; i += 2)
        expect_bytes(p[i], 700, (unsigned char)i);
    for (int i = 1; i < N; i += 2)
        OK(cuMemFree(p[i]));
    assert_int_equal(used_bytes(), 0);
}

static void content_and_address_outlive_a_stop(void **state)
{
    size_t size = 0, pitch = 0;
    CUdeviceptr base = 0, rows = 0;
    (void)state;
    CUdeviceptr large = filled(9 * MIB + 5, 1), exact = filled(GRANULE, 2),
                tiny = filled(1, 3);
    OK(cuMemAllocPitch_v2(&rows, &pitch, 100, 50, 4));
    assert_true(pitch >= 100 && pitch % 512 == 0);
    for (int i = 0; i < 5; i++) {
        stop_and_go_on();
        expect_bytes(large, 9 * MIB + 5, 1);
        expect_bytes(exact, GRANULE, 2);
        expect_bytes(tiny, 1, 3);
    }
    OK(cuMemGetAddressRange(&base, &size, large + 5 * MIB));
    assert_int_equal(base, large);
    assert_int_equal(size, 9 * MIB + 5);
    CUdeviceptr another = filled(MIB, 4); /* and allocating goes on */
    expect_bytes(another, MIB, 4);
}

static void memory_of_the_program_itself_comes_back(void **state)
{
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
    CUmemAccessDesc access = {{CU_MEM_LOCATION_TYPE_DEVICE, 0},
                              CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    CUmemGenericAllocationHandle kept, dropped, again;
    CUdeviceptr va = 0;
    (void)state;
    OK(cuMemAddressReserve(&va, 4 * GRANULE, 0, 0, 0));
    OK(cuMemCreate(&kept, GRANULE, &prop, 0));
    OK(cuMemCreate(&dropped, GRANULE, &prop, 0));
    OK(cuMemMap(va, GRANULE, 0, kept, 0));
    OK(cuMemMap(va + GRANULE, GRANULE, 0, dropped, 0));
    OK(cuMemMap(va + 3 * GRANULE, GRANULE, 0, kept, 0)); /* one memory, two addresses */
    OK(cuMemSetAccess(va, 2 * GRANULE, &access, 1));
    OK(cuMemSetAccess(va + 3 * GRANULE, GRANULE, &access, 1));
    OK(cuMemRelease(dropped)); /* the mapping holds it */
    OK(cuMemsetD8(va, 7, GRANULE));
    OK(cuMemsetD8(va + GRANULE, 8, GRANULE));
    stop_and_go_on();
    expect_bytes(va + 3 * GRANULE, GRANULE, 7);
    expect_bytes(va + GRANULE, GRANULE, 8);
    OK(cuMemUnmap(va, 2 * GRANULE));
    OK(cuMemUnmap(va + 3 * GRANULE, GRANULE));
    assert_int_equal(used_bytes(), GRANULE); /* of the handle that is left */
    stop_and_go_on();                        /* mapped nowhere: its content, too */
    OK(cuMemMap(va, GRANULE, 0, kept, 0));
    OK(cuMemSetAccess(va, GRANULE, &access, 1));
    expect_bytes(va, GRANULE, 7);
    OK(cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)va));
    assert_int_equal(again, kept);
    OK(cuMemRelease(again));
    OK(cuMemRelease(kept));
    OK(cuMemUnmap(va, GRANULE));
    OK(cuMemAddressFree(va, 4 * GRANULE));
    assert_int_equal(used_bytes(), 0);
}

static void blocks_freed_in_stream_order_are_reused_and_go(void **state)
{
    CUstream s;
    CUdeviceptr p = 0, q = 0;
    (void)state;
    OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    OK(cuMemAllocAsync(&p, 3 * MIB, s));
    OK(cuMemsetD8Async(p, 5, 3 * MIB, s));
    stop_and_go_on();
    expect_bytes(p, 3 * MIB, 5);
    OK(cuMemFreeAsync(p, s));
    assert_int_equal(cuMemFreeAsync(p, s) != CUDA_SUCCESS, 1);
    OK(cuMemAllocAsync(&q, 3 * MIB, s));
    assert_int_equal(q, p);
    OK(cuMemFreeAsync(q, s));
    quiesce();
    assert_int_equal(arena.bytes,
                     3 * MIB); /* an upper bound: it was freed while draining */
    assert_int_equal(try_resume(), ORR_OK);
    go_on();
    assert_int_equal(used_bytes(), 0);
    OK(cuStreamDestroy(s));
}

static void resume_without_memory_is_tried_again(void **state)
{
    struct emu_device_file *other = NULL;
    struct emu_device_info info = device_now();
    (void)state;
    CUdeviceptr p = filled(20 * MIB, 9), q = filled(4 * MIB, 10);
    quiesce();
    size_t n =
        (size_t)(info.memory_bytes / EMU_PAGE_BYTES) - 21 * (MIB / EMU_PAGE_BYTES);
    uint32_t *pages = calloc(n, sizeof *pages);
    assert_int_equal(
        emu_device_file_open(getenv("ORRERY_EMULATOR_DEVICES"), &other, NULL), 0);
    assert_int_equal(emu_device_file_take(other, n, pages, NULL), 0);
    assert_int_equal(try_resume(), ORR_ENOMEM);
    assert_int_equal(used_bytes(), n * EMU_PAGE_BYTES); /* nothing was kept */
    assert_int_equal(try_resume(), ORR_ENOMEM);
    emu_device_file_close(other);
    free(pages);
    assert_int_equal(try_resume(), ORR_OK);
    go_on();
    expect_bytes(p, 20 * MIB, 9);
    expect_bytes(q, 4 * MIB, 10);
}

/* Lines of /proc/self/maps, and descriptors, that lead to the device. */
static int holds_device(void)
{
    char line[600], name[64];
    int n = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    assert_non_null(maps);
    while (fgets(line, sizeof line, maps))
        n += strstr(line, getenv("ORRERY_EMULATOR_DEVICES")) != NULL;
    fclose(maps);
    for (int fd = 0; fd < 256; fd++) {
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        ssize_t bytes = readlink(name, line, sizeof line - 1);
        line[bytes > 0 ? bytes : 0] = '\0';
        n += strstr(line, getenv("ORRERY_EMULATOR_DEVICES")) != NULL;
    }
    return n;
}

static void stop_and_driver_checkpoint_leave_nothing(void **state)
{
    CUcheckpointLockArgs lock = {.timeoutMs = LONG_MS};
    unsigned *pinned = NULL;
    (void)state;
    CUdeviceptr p = filled(5 * MIB, 1);
    OK(cuMemHostAlloc((void **)&pinned, 4096, 0));
    pinned[7] = 77;
    quiesce();
    assert_true(holds_device() > 0);
    OK(cuCheckpointProcessLock(getpid(), &lock));
    OK(cuCheckpointProcessCheckpoint(getpid(), NULL));
    assert_int_equal(holds_device(), 0);
    assert_int_equal(device_now().n_processes, 0);
    assert_int_equal(pinned[7], 77); /* stays */
    OK(cuCheckpointProcessRestore(getpid(), NULL));
    OK(cuCheckpointProcessUnlock(getpid(), NULL));
    assert_int_equal(try_resume(), ORR_OK);
    go_on();
    expect_bytes(p, 5 * MIB, 1);
    OK(cuMemcpyHtoD(p + 100, pinned, 4096));
    OK(cuMemFreeHost(pinned));
}

/* ---- the gate ------------------------------------------------------------------------------------ */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is_released, is_there;
    CUresult inner;
} latch = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void latch_set(bool *which)
{
    pthread_mutex_lock(&latch.lock);
    *which = true;
    pthread_cond_broadcast(&latch.changed);
    pthread_mutex_unlock(&latch.lock);
}

static void latch_wait(const bool *which)
{
    pthread_mutex_lock(&latch.lock);
    while (!*which)
        pthread_cond_wait(&latch.changed, &latch.lock);
    pthread_mutex_unlock(&latch.lock);
}

static void hold_stream(void *unused)
{
    (void)unused;
    latch_set(&latch.is_there);
    latch_wait(&latch.is_released);
    latch.inner =
        cuCtxSynchronize(); /* refused by the driver; must not wait for the gate */
}

static void *synchronize(void *unused)
{
    (void)unused;
    OK(cuCtxSetCurrent(ctx));
    OK(cuStreamSynchronize(NULL));
    return NULL;
}

static void *release_soon(void *unused)
{
    const struct timespec moment = {.tv_nsec = 50000000};
    (void)unused;
    nanosleep(&moment, NULL); /* so that whoever closes has to wait */
    latch_set(&latch.is_released);
    return NULL;
}

static void begin_held_work(pthread_t *thread)
{
    latch.is_released = latch.is_there = false;
    latch.inner = CUDA_SUCCESS;
    OK(cuLaunchHostFunc(NULL, hold_stream, NULL));
    latch_wait(&latch.is_there);
    assert_int_equal(pthread_create(thread, NULL, synchronize, NULL), 0);
}

static void closing_waits_for_those_inside(void **state)
{
    pthread_t inside, later;
    (void)state;
    CUdeviceptr p = filled(MIB, 6);
    begin_held_work(&inside);
    assert_int_equal(pthread_create(&later, NULL, release_soon, NULL), 0);
    stop_and_go_on();
    pthread_join(later, NULL);
    pthread_join(inside, NULL);
    assert_int_equal(latch.inner, CUDA_ERROR_NOT_PERMITTED);
    expect_bytes(p, MIB, 6);
}

/* Until the thread is in the driver: no event tells. */
static void wait_until_inside(struct orr_error *err)
{
    while (part->close(now_ms() + SHORT_MS, err) == ORR_OK)
        part->open();
}

static void closing_in_vain_names_the_culprit_and_opens_again(void **state)
{
    struct orr_error err = {0};
    pthread_t inside;
    (void)state;
    begin_held_work(&inside);
    wait_until_inside(&err);
    assert_non_null(strstr(err.text, "cuStreamSynchronize"));
    size_t available, total;
    OK(cuMemGetInfo(&available, &total)); /* the gate is open */
    latch_set(&latch.is_released);
    pthread_join(inside, NULL);
    stop_and_go_on();
}

static void work_that_does_not_end_is_given_up(void **state)
{
    struct orr_error err;
    (void)state;
    CUdeviceptr p = filled(MIB, 6);
    latch.is_released = latch.is_there = false;
    OK(cuLaunchHostFunc(NULL, hold_stream, NULL));
    assert_int_equal(part->close(now_ms() + LONG_MS, &err), ORR_OK);
    struct orri_arena none = {.bytes = part->arena_bytes()};
    assert_int_equal(part->quiesce(&none, now_ms() + SHORT_MS, &err), ORR_ETIMEOUT);
    assert_int_equal(part->quiesce(&none, now_ms() + LONG_MS, &err), ORR_ETIMEOUT);
    part->open();
    latch_set(&latch.is_released);
    expect_bytes(p, MIB, 6);
    OK(cuCtxSynchronize());
}

static void *look(void *ret)
{
    size_t total;
    OK(cuCtxSetCurrent(ctx));
    OK(cuMemGetInfo(ret, &total));
    return ret;
}

static void calls_wait_until_the_gate_opens(void **state)
{
    size_t available = 0;
    pthread_t thread;
    (void)state;
    CUdeviceptr p = filled(8 * MIB, 1);
    quiesce();
    assert_int_equal(pthread_create(&thread, NULL, look, &available), 0);
    assert_int_equal(try_resume(), ORR_OK);
    assert_int_equal(available, 0);
    go_on();
    pthread_join(thread, NULL);
    assert_int_equal(available, device_now().free_bytes);
    OK(cuMemFree(p));
}

/* ---- what forbids a stop ---------------------------------------------------------------------------- */

static void shared_memory_forbids_it_while_it_lives(void **state)
{
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                .requestedHandleTypes =
                                    CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                                .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
    CUmemGenericAllocationHandle h, imported;
    struct orr_error err;
    int fd = -1;
    (void)state;
    OK(cuMemCreate(&h, GRANULE, &prop, 0));
    stop_and_go_on(); /* it could be shared, but is not */
    OK(cuMemExportToShareableHandle(
        &fd, h, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    assert_non_null(strstr(why_not(), "cuMemExportToShareableHandle"));
    assert_int_equal(part->close(now_ms() + LONG_MS, &err), ORR_OK);
    assert_int_equal(part->quiesce(&arena, now_ms() + LONG_MS, &err), ORR_ENOSYS);
    part->open();
    OK(cuMemImportFromShareableHandle(
        &imported, (void *)(uintptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
    OK(cuMemRelease(h));
    assert_non_null(strstr(why_not(), "cuMemImportFromShareableHandle"));
    OK(cuMemRelease(imported));
    close(fd);
    assert_null(why_not());
    stop_and_go_on();
}

static void child_of_fork_is_told_and_not_stopped(void **state)
{
    (void)state;
    CUdeviceptr p = filled(MIB, 1);
    pid_t pid = fork();
    if (pid == 0) {
        CUdeviceptr q;
        _exit(cuMemAlloc(&q, 64) == CUDA_ERROR_NOT_INITIALIZED ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    stop_and_go_on();
    expect_bytes(p, MIB, 1);
}

static void runtime_gets_our_functions(void **state)
{
    void *alloc = NULL, *self = dlsym(RTLD_DEFAULT, "cuGetProcAddress_v2"),
         *again = NULL;
    void *name = NULL, *unknown = NULL;
    (void)state;
    OK(cuGetProcAddress("cuMemAlloc", &alloc, CUDA_VERSION, 0, NULL));
    assert_ptr_equal(alloc, dlsym(RTLD_DEFAULT, "cuMemAlloc_v2"));
    OK(cuGetProcAddress("cuGetProcAddress", &again, CUDA_VERSION, 0, NULL));
    assert_ptr_equal(again, self);
    OK(cuGetProcAddress("cuGetErrorName", &name, CUDA_VERSION, 0, NULL));
    assert_non_null(name);
    assert_int_equal(cuGetProcAddress("cuNewerThanUs", &unknown, CUDA_VERSION, 0, NULL),
                     CUDA_ERROR_NOT_FOUND);
    assert_null(why_not());
}

int main(void)
{
    const struct orri_part *(*find)(void);
    void *symbols[] = {dlsym(RTLD_DEFAULT, "orri_cuda_part"),
                       dlsym(RTLD_DEFAULT, "orri_cuda_why_not_suspendable")};
    if (!symbols[0] || !symbols[1]) {
        fprintf(stderr, "run this with LD_PRELOAD=lib/rank/libcuda.so.1\n");
        return 2;
    }
    memcpy(&find, &symbols[0], sizeof find);
    memcpy(&why_not, &symbols[1], sizeof why_not);
    part = find();
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(small_blocks_share_memory),
        CASE(content_and_address_outlive_a_stop),
        CASE(memory_of_the_program_itself_comes_back),
        CASE(blocks_freed_in_stream_order_are_reused_and_go),
        CASE(resume_without_memory_is_tried_again),
        CASE(stop_and_driver_checkpoint_leave_nothing),
        CASE(closing_waits_for_those_inside),
        CASE(closing_in_vain_names_the_culprit_and_opens_again),
        CASE(work_that_does_not_end_is_given_up),
        CASE(calls_wait_until_the_gate_opens),
        CASE(shared_memory_forbids_it_while_it_lives),
        CASE(child_of_fork_is_told_and_not_stopped),
        CASE(runtime_gets_our_functions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
