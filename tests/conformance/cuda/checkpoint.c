/* SPDX-License-Identifier: Apache-2.0
 * checkpoint.c - a process that another one suspends: states, refusals, memory that is free in between and right after.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "suite.h"

enum { BYTES = 8 << 20, LOCK_MS = 5000, BLOCKED_MS = 100, ANSWER_MS = 10000 };

/* The process that is suspended: a byte is a request, a byte is the answer. */
static struct {
    pid_t pid;
    int ask, answer;
} victim;

/* 'c' checks the memory and changes it; 's' begins to share it. */
static char obey(char order, CUdeviceptr p, CUmemGenericAllocationHandle shared)
{
    static unsigned char turn;
    unsigned char bytes[2];
    int fd = -1;
    if (order == 's')
        return cuMemExportToShareableHandle(
                   &fd, shared, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0) ==
                       CUDA_SUCCESS
                   ? 'y'
                   : 'n';
    if (cuMemcpyDtoH(&bytes[0], p, 1) || cuMemcpyDtoH(&bytes[1], p + BYTES - 1, 1))
        return 'n';
    bool is_right = bytes[0] == turn && bytes[1] == turn;
    turn++;
    return is_right && !cuMemsetD8(p, turn, BYTES) && !cuCtxSynchronize() ? 'y' : 'n';
}

int victim_main(void)
{
    CUcontext ctx;
    CUdeviceptr p = 0;
    CUmemGenericAllocationHandle h = 0;
    CUmemAllocationProp prop;
    char order;
    memset(&prop, 0, sizeof prop);
    prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    prop.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    if (cuInit(0) || cuDevicePrimaryCtxRetain(&ctx, 0) || cuCtxSetCurrent(ctx) ||
        cuMemAlloc(&p, BYTES) || cuMemsetD8(p, 0, BYTES) ||
        cuMemCreate(&h, 2 << 20, &prop, 0))
        return 1;
    for (;;) {
        if (read(0, &order, 1) != 1)
            return 0;
        order = obey(order, p, h);
        if (write(1, &order, 1) != 1)
            return 1;
    }
}

static int start_victim(void **state)
{
    int in[2], out[2];
    suite_set_up(state);
    if (pipe(in) || pipe(out))
        return -1;
    victim.pid = fork();
    if (victim.pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        close(in[1]);
        execl("/proc/self/exe", "conformance_cuda", SUITE_VICTIM, (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    victim.ask = in[1];
    victim.answer = out[0];
    return 0;
}

static int end_victim(void **state)
{
    close(victim.ask);
    kill(victim.pid, SIGKILL);
    close(victim.answer);
    while (waitpid(victim.pid, NULL, 0) < 0 && errno == EINTR)
        ;
    return suite_tear_down(state);
}

static bool answers(int ms)
{
    char c = 'n';
    struct pollfd p = {.fd = victim.answer, .events = POLLIN};
    return poll(&p, 1, ms) == 1 && read(victim.answer, &c, 1) == 1 && c == 'y';
}

static void tell(char order)
{
    assert_int_equal(write(victim.ask, &order, 1), 1);
}

static size_t free_now(void)
{
    size_t available = 0, total = 0;
    OK(cuMemGetInfo, &available, &total);
    return available;
}

static void expect_state(CUprocessState want)
{
    CUprocessState state = CU_PROCESS_STATE_FAILED;
    OK(cuCheckpointProcessGetState, victim.pid, &state);
    assert_int_equal(state, want);
}

static void a_suspended_process_goes_on_where_it_was(void **state)
{
    CUcheckpointLockArgs lock = {.timeoutMs = LOCK_MS};
    CUcheckpointCheckpointArgs save = {{0}};
    CUcheckpointRestoreArgs restore = {.gpuPairs = NULL};
    CUcheckpointUnlockArgs unlock = {{0}};
    int tid = 0;
    (void)state;
    tell('c');
    assert_true(answers(ANSWER_MS));
    OK(cuCheckpointProcessGetRestoreThreadId, victim.pid, &tid);
    assert_true(tid > 0);
    for (int cycle = 0; cycle < 2; cycle++) {
        const size_t before = free_now();
        OK(cuCheckpointProcessLock, victim.pid, &lock);
        expect_state(CU_PROCESS_STATE_LOCKED);
        tell('c');
        assert_false(answers(BLOCKED_MS));
        OK(cuCheckpointProcessCheckpoint, victim.pid, &save);
        expect_state(CU_PROCESS_STATE_CHECKPOINTED);
        assert_true(free_now() >= before + BYTES);
        OK(cuCheckpointProcessRestore, victim.pid, &restore);
        expect_state(CU_PROCESS_STATE_LOCKED);
        OK(cuCheckpointProcessUnlock, victim.pid, &unlock);
        assert_true(answers(ANSWER_MS));
        expect_state(CU_PROCESS_STATE_RUNNING);
    }
}

static void steps_out_of_order_are_refused(void **state)
{
    CUcheckpointLockArgs lock = {.timeoutMs = LOCK_MS};
    CUcheckpointCheckpointArgs save = {{0}};
    CUcheckpointRestoreArgs restore = {.gpuPairs = NULL};
    CUcheckpointUnlockArgs unlock = {{0}};
    int tid;
    (void)state;
    tell('c');
    assert_true(answers(ANSWER_MS));
    ERR(CUDA_ERROR_ILLEGAL_STATE, cuCheckpointProcessCheckpoint, victim.pid, &save);
    ERR(CUDA_ERROR_ILLEGAL_STATE, cuCheckpointProcessRestore, victim.pid, &restore);
    ERR(CUDA_ERROR_ILLEGAL_STATE, cuCheckpointProcessUnlock, victim.pid, &unlock);
    OK(cuCheckpointProcessLock, victim.pid, &lock);
    ERR(CUDA_ERROR_ILLEGAL_STATE, cuCheckpointProcessLock, victim.pid, &lock);
    OK(cuCheckpointProcessUnlock, victim.pid, &unlock); /* giving up */
    ERR(CUDA_ERROR_INVALID_VALUE, cuCheckpointProcessGetRestoreThreadId, 0, &tid);
    ERR(CUDA_ERROR_INVALID_VALUE, cuCheckpointProcessGetState, victim.pid, NULL);
}

static void shared_memory_is_not_suspended(void **state)
{
    CUcheckpointLockArgs lock = {.timeoutMs = LOCK_MS};
    CUcheckpointCheckpointArgs save = {{0}};
    CUcheckpointUnlockArgs unlock = {{0}};
    (void)state;
    tell('s');
    assert_true(answers(ANSWER_MS));
    OK(cuCheckpointProcessLock, victim.pid, &lock);
    ERR(CUDA_ERROR_NOT_SUPPORTED, cuCheckpointProcessCheckpoint, victim.pid, &save);
    OK(cuCheckpointProcessUnlock, victim.pid, &unlock);
    tell('c');
    assert_true(answers(ANSWER_MS));
}

#define WITH_VICTIM(f) cmocka_unit_test_setup_teardown(f, start_victim, end_victim)
const struct CMUnitTest checkpoint_tests[] = {
    WITH_VICTIM(a_suspended_process_goes_on_where_it_was),
    WITH_VICTIM(steps_out_of_order_are_refused),
    WITH_VICTIM(shared_memory_is_not_suspended),
};
const unsigned n_checkpoint_tests =
    sizeof checkpoint_tests / sizeof checkpoint_tests[0];
