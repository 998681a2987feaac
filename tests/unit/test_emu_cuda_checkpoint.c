/* SPDX-License-Identifier: Apache-2.0
 * test_emu_cuda_checkpoint.c - what a suspended process of the emulated driver holds (nothing), where it can go on (on other device
 * files, from other namespaces), and what is left when it cannot.
 */
#include <dirent.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device_file.h"
#include "orr_test.h"
#include "orrery/gpu_abi.h"

enum { DEVICE_MIB = 16, BYTES = 8 << 20, GRANULE = 2 << 20, ANSWER_MS = 10000 };

static char dir[64], here[96], there[96];
static CUuuid uuid_here = {{0x11}}, uuid_there = {{0x22}};
static pid_t pid, middle;
static int ask, answer;

/* ---- the process that is suspended ------------------------------------------------------- */

static bool memory_is(CUdeviceptr p, size_t bytes, int value)
{
    static unsigned char copy[BYTES];
    bool is_right = cuMemcpyDtoH(copy, p, bytes) == CUDA_SUCCESS;
    for (size_t i = 0; is_right && i < bytes; i++)
        is_right = copy[i] == value;
    return is_right;
}

static CUdeviceptr mapped(void)
{
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
    CUmemAccessDesc access = {{CU_MEM_LOCATION_TYPE_DEVICE, 0},
                              CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    CUmemGenericAllocationHandle h;
    CUdeviceptr at = 0;
    return cuMemCreate(&h, GRANULE, &prop, 0) ||
                   cuMemAddressReserve(&at, GRANULE, 0, 0, 0) ||
                   cuMemMap(at, GRANULE, 0, h, 0) || cuMemRelease(h) ||
                   cuMemSetAccess(at, GRANULE, &access, 1)
               ? 0
               : at;
}

/* For each byte that comes: is the memory as it was; then it is changed. Answers with the device's first byte of UUID, 0: wrong. */
static int be_suspended(int in, int out)
{
    CUcontext ctx;
    CUdeviceptr p = 0, q;
    CUuuid uuid;
    char c;
    if (cuInit(0) || cuDevicePrimaryCtxRetain(&ctx, 0) || cuCtxSetCurrent(ctx) ||
        cuMemAlloc(&p, BYTES) || !(q = mapped()))
        return 1;
    for (int turn = 0;; turn++) {
        if (turn > 0 &&
            (!memory_is(p, BYTES, turn) || !memory_is(q, GRANULE, 64 + turn)))
            uuid.bytes[0] = 0;
        else if (cuDeviceGetUuid(&uuid, 0) ||
                 cuMemsetD8(p, (unsigned char)(turn + 1), BYTES) ||
                 cuMemsetD8(q, (unsigned char)(65 + turn), GRANULE) ||
                 cuCtxSynchronize())
            return 1;
        if (write(out, uuid.bytes, 1) != 1 || read(in, &c, 1) != 1)
            return 0;
    }
}

static int next_answer(void)
{
    char c = 0;
    struct pollfd p = {.fd = answer, .events = POLLIN};
    return poll(&p, 1, ANSWER_MS) == 1 && read(answer, &c, 1) == 1 ? c : -1;
}

/* In namespaces of its own when flags say so; then pid is the number that it has for us. */
static void start(int flags)
{
    int in[2], out[2], number[2];
    assert_int_equal(pipe(in) | pipe(out) | pipe(number), 0);
    middle = fork();
    if (middle == 0) {
        if (flags && unshare(flags) != 0)
            _exit(1);
        pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            close(in[1]);
            close(out[0]);
            _exit(be_suspended(in[0], out[1]));
        }
        if (write(number[1], &pid, sizeof pid) != sizeof pid)
            _exit(1);
        waitpid(pid, NULL, 0);
        _exit(0);
    }
    assert_int_equal(read(number[0], &pid, sizeof pid), sizeof pid);
    close(in[0]);
    close(out[1]);
    close(number[0]);
    close(number[1]);
    ask = in[1];
    answer = out[0];
    assert_int_equal(next_answer(), 0x11);
}

static void end(void)
{
    close(ask);
    close(answer);
    kill(pid, SIGKILL);
    waitpid(middle, NULL, 0);
}

/* ---- the devices ----------------------------------------------------------------------------- */

static void create(const char *path, const CUuuid *uuid)
{
    assert_int_equal(emu_device_file_create(path,
                                            (const uint8_t *)uuid->bytes,
                                            "Emulated",
                                            (uint64_t)DEVICE_MIB << 20,
                                            NULL),
                     0);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/dev/shm/orr-ckpt-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(here, sizeof here, "%s/here", dir);
    snprintf(there, sizeof there, "%s/there", dir);
    create(here, &uuid_here);
    create(there, &uuid_there);
    return setenv("ORRERY_EMULATOR_DEVICES", here, 1);
}

static int tear_down(void **state)
{
    (void)state;
    unsetenv("ORRERY_EMULATOR_CHECKPOINT");
    unlink(here);
    unlink(there);
    return rmdir(dir);
}

static CUresult lock_it(void)
{
    CUcheckpointLockArgs args = {.timeoutMs = ANSWER_MS};
    return cuCheckpointProcessLock(pid, &args);
}

static void suspend(void)
{
    assert_int_equal(lock_it(), CUDA_SUCCESS);
    assert_int_equal(cuCheckpointProcessCheckpoint(pid, NULL), CUDA_SUCCESS);
}

static CUprocessState state_now(void)
{
    CUprocessState s = CU_PROCESS_STATE_FAILED;
    assert_int_equal(cuCheckpointProcessGetState(pid, &s), CUDA_SUCCESS);
    return s;
}

/* Descriptors and mappings of the process that lead to a path. */
static int holds(const char *path)
{
    char name[300], line[600];
    int n = 0;
    snprintf(name, sizeof name, "/proc/%d/maps", pid);
    FILE *maps = fopen(name, "re");
    assert_non_null(maps);
    while (fgets(line, sizeof line, maps))
        n += strstr(line, path) != NULL;
    fclose(maps);
    snprintf(name, sizeof name, "/proc/%d/fd", pid);
    DIR *fds = opendir(name);
    assert_non_null(fds);
    for (struct dirent *e; (e = readdir(fds));) {
        snprintf(name, sizeof name, "/proc/%d/fd/%s", pid, e->d_name);
        ssize_t bytes = readlink(name, line, sizeof line - 1);
        line[bytes > 0 ? bytes : 0] = '\0';
        n += strstr(line, path) != NULL;
    }
    closedir(fds);
    return n;
}

/* ---- tests ------------------------------------------------------------------------------------- */

static void suspended_process_holds_nothing_of_the_device(void **state)
{
    struct emu_device_info info;
    (void)state;
    start(0);
    assert_true(holds(here) > 1);
    suspend();
    assert_int_equal(holds(here), 0);
    assert_int_equal(emu_device_file_info(here, &info, NULL), 0);
    assert_int_equal(info.n_processes, 0);
    assert_int_equal(info.free_bytes, info.memory_bytes);
    assert_int_equal(cuCheckpointProcessRestore(pid, NULL), CUDA_SUCCESS);
    assert_int_equal(cuCheckpointProcessUnlock(pid, NULL), CUDA_SUCCESS);
    assert_int_equal(write(ask, "c", 1), 1);
    assert_int_equal(next_answer(), 0x11);
    end();
}

static void process_goes_on_at_another_device(void **state)
{
    CUcheckpointGpuPair pair = {uuid_here, uuid_there},
                        wrong = {uuid_there, uuid_there};
    CUcheckpointRestoreArgs to = {.gpuPairs = &pair, .gpuPairsCount = 1},
                            nowhere = {.gpuPairs = &wrong, .gpuPairsCount = 1};
    (void)state;
    start(0);
    suspend();
    assert_int_equal(unlink(here), 0);
    assert_int_equal(setenv("ORRERY_EMULATOR_DEVICES", there, 1),
                     0); /* of the new machine: ours */
    assert_int_equal(cuCheckpointProcessRestore(pid, NULL), CUDA_ERROR_INVALID_DEVICE);
    assert_int_equal(cuCheckpointProcessRestore(pid, &nowhere),
                     CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(state_now(), CU_PROCESS_STATE_CHECKPOINTED);
    assert_int_equal(cuCheckpointProcessRestore(pid, &to), CUDA_SUCCESS);
    assert_int_equal(cuCheckpointProcessUnlock(pid, NULL), CUDA_SUCCESS);
    assert_int_equal(write(ask, "c", 1), 1);
    assert_int_equal(next_answer(), 0x22);
    end();
}

static struct emu_device_file *take_all(void)
{
    static uint32_t pages[(DEVICE_MIB << 20) / EMU_PAGE_BYTES];
    struct emu_device_file *file = NULL;
    assert_int_equal(emu_device_file_open(here, &file, NULL), 0);
    assert_int_equal(
        emu_device_file_take(file, sizeof pages / sizeof pages[0], pages, NULL), 0);
    return file;
}

static void restore_without_memory_can_be_tried_again(void **state)
{
    (void)state;
    start(0);
    suspend();
    struct emu_device_file *other = take_all();
    assert_int_equal(cuCheckpointProcessRestore(pid, NULL), CUDA_ERROR_OUT_OF_MEMORY);
    assert_int_equal(state_now(), CU_PROCESS_STATE_CHECKPOINTED);
    assert_int_equal(holds(here), 0);
    emu_device_file_close(other);
    assert_int_equal(cuCheckpointProcessRestore(pid, NULL), CUDA_SUCCESS);
    assert_int_equal(cuCheckpointProcessUnlock(pid, NULL), CUDA_SUCCESS);
    assert_int_equal(write(ask, "c", 1), 1);
    assert_int_equal(next_answer(), 0x11);
    end();
}

static void poisoned_restore_is_the_end(void **state)
{
    (void)state;
    setenv("ORRERY_EMULATOR_CHECKPOINT", "poisoned", 1);
    start(0);
    suspend();
    struct emu_device_file *other = take_all();
    assert_int_equal(cuCheckpointProcessRestore(pid, NULL), CUDA_ERROR_OUT_OF_MEMORY);
    assert_int_equal(state_now(), CU_PROCESS_STATE_FAILED);
    emu_device_file_close(other);
    assert_int_equal(cuCheckpointProcessRestore(pid, NULL),
                     CUDA_ERROR_OPERATING_SYSTEM);
    assert_int_equal(cuCheckpointProcessUnlock(pid, NULL), CUDA_ERROR_ILLEGAL_STATE);
    end();
}

static void caller_may_be_outside_of_all_namespaces(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        print_message("skipped: namespaces need root\n");
        return;
    }
    start(CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC);
    suspend();
    assert_int_equal(holds(here), 0);
    assert_int_equal(cuCheckpointProcessRestore(pid, NULL), CUDA_SUCCESS);
    assert_int_equal(cuCheckpointProcessUnlock(pid, NULL), CUDA_SUCCESS);
    assert_int_equal(write(ask, "c", 1), 1);
    assert_int_equal(next_answer(), 0x11);
    end();
}

static void process_that_ends_is_noticed(void **state)
{
    (void)state;
    start(0);
    suspend();
    end();
    assert_int_equal(cuCheckpointProcessRestore(pid, NULL), CUDA_ERROR_INVALID_VALUE);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(suspended_process_holds_nothing_of_the_device),
        CASE(process_goes_on_at_another_device),
        CASE(restore_without_memory_can_be_tried_again),
        CASE(poisoned_restore_is_the_end),
        CASE(caller_may_be_outside_of_all_namespaces),
        CASE(process_that_ends_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
