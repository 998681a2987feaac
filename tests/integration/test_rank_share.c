/* SPDX-License-Identifier: Apache-2.0
 * test_rank_share.c - ranks of one device that share its memory (gateways/rank/cuda/share): real processes on an emulated device, each
 * with parameters, which all update alike, and activations of its own.  Each compares all of its memory in every step with what the
 * same operations give in host memory; the pages of the device are counted while all wait.
 *
 * The program starts itself again as the ranks, with the interposer preloaded.  A rank ends a step with a byte to the parent and begins
 * the next with one from it, so they depend on each other outside of CUDA, too.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "device_file.h"
#include "orr_test.h"
#include "orrery/gpu_abi.h"

enum {
    PIECE = 2 << 20,
    PARAMETERS = 2 * PIECE,
    OPTIMIZER = PIECE + 4096, /* two pieces */
    ACTIVATIONS = 2 * PIECE,
    EXTRA = 5 * PIECE, /* with what four ranks have apart: more than there is */
    SMALL = 5000,      /* words */
    LEARNT = 20000,
    COMMON_PIECES = 2 + 2 + 1,
    OWN_PIECES = 2,
    RANKS_MAX = 4,
    WAIT_MS = 60000,
    SLACK = 1 << 20, /* of a rank: what its hashes need */
};

/* ---- a rank -------------------------------------------------------------------------------------- */

static const char ptx[] =
    ".version 6.0\n.target sm_70\n.address_size 64\n"
    ".visible .entry update(.param .u64 at, .param .u32 n, .param .u32 c)\n"
    "{\n"
    ".reg .pred %p; .reg .b32 %r<8>; .reg .b64 %l<4>;\n"
    "mov.u32 %r0, %ctaid.x; mov.u32 %r1, %ntid.x; mov.u32 %r2, %tid.x;\n"
    "mad.lo.u32 %r0, %r0, %r1, %r2;\n"
    "ld.param.u32 %r3, [n]; setp.ge.u32 %p, %r0, %r3; @%p bra END;\n"
    "ld.param.u64 %l0, [at]; mul.wide.u32 %l1, %r0, 4; add.u64 %l0, %l0, %l1;\n"
    "ld.param.u32 %r4, [c]; ld.global.u32 %r5, [%l0];\n"
    "mad.lo.u32 %r5, %r5, 1664525, %r4; add.u32 %r5, %r5, %r0;\n"
    "st.global.u32 [%l0], %r5;\nEND: ret;\n}\n";

struct buffer {
    CUdeviceptr device;
    uint32_t *host;
    size_t words;
};

static unsigned rank, rounds;
static CUfunction update;

#define DO(call)                                                                       \
    do {                                                                               \
        CUresult rc_ = call;                                                           \
        if (rc_) {                                                                     \
            fprintf(stderr, "rank %u, step %u: %s: %d\n", rank, rounds, #call, rc_);   \
            exit(2);                                                                   \
        }                                                                              \
    } while (0)

static struct buffer make(size_t bytes)
{
    struct buffer b = {.host = calloc(1, bytes), .words = bytes / 4};
    DO(cuMemAlloc(&b.device, bytes));
    DO(cuMemsetD32(b.device, 0, b.words));
    return b;
}

static void set(struct buffer *b, uint32_t value)
{
    DO(cuMemsetD32(b->device, value, b->words));
    for (size_t i = 0; i < b->words; i++)
        b->host[i] = value;
}

/* The same on the device and on the host: some of each piece. */
static void learn_from(struct buffer *b, size_t first, uint32_t c)
{
    uint32_t n = b->words - first < LEARNT ? (uint32_t)(b->words - first) : LEARNT;
    uint32_t *host = b->host + first;
    CUdeviceptr at = b->device + first * 4;
    void *params[] = {&at, &n, &c};
    DO(cuLaunchKernel(update, (n + 255) / 256, 1, 1, 256, 1, 1, 0, NULL, params, NULL));
    for (uint32_t i = 0; i < n; i++)
        host[i] = host[i] * 1664525 + c + i;
}

static void learn(struct buffer *b, uint32_t c)
{
    for (size_t first = 0; first < b->words; first += PIECE / 4)
        learn_from(b, first, c);
}

static void compare(const struct buffer *b, const char *what)
{
    uint32_t *copy = malloc(b->words * 4);
    DO(cuMemcpyDtoH(copy, b->device, b->words * 4));
    for (size_t i = 0; i < b->words; i++)
        if (copy[i] != b->host[i]) {
            fprintf(stderr,
                    "rank %u, step %u: word %zu of its %s is %x, not %x\n",
                    rank,
                    rounds,
                    i,
                    what,
                    copy[i],
                    b->host[i]);
            exit(3);
        }
    free(copy);
}

/* The interpreter of the emulated device takes its time to hash. */
static bool is_tiny(void)
{
    return strcmp(getenv("ORRERY_MEMORY_HASH"), "device") == 0;
}

static void start_device(void)
{
    CUcontext ctx;
    CUmodule module;
    DO(cuInit(0));
    DO(cuDevicePrimaryCtxRetain(&ctx, 0));
    DO(cuCtxSetCurrent(ctx));
    DO(cuModuleLoadData(&module, ptx));
    DO(cuModuleGetFunction(&update, module, "update"));
}

/* Ends in a byte that does not come: the parent has gone on without us, or ends. */
static bool step_is_over(int parent)
{
    char byte = 1;
    return write(parent, &byte, 1) == 1 && read(parent, &byte, 1) == 1 && byte == 1;
}

/* number, socket, step at which it needs more memory (0: never). */
static int be_rank(char **argv)
{
    const int parent = atoi(argv[1]);
    const unsigned more = (unsigned)atoi(argv[2]);
    rank = (unsigned)atoi(argv[0]);
    start_device();
    struct buffer parameters = make(is_tiny() ? PIECE : PARAMETERS),
                  small = make(SMALL * 4),
                  activations = make(is_tiny() ? 4096 : ACTIVATIONS),
                  optimizer = make(is_tiny() ? 4096 : OPTIMIZER), extra;
    do {
        rounds++;
        compare(&parameters, "parameters");
        compare(&activations, "activations");
        set(&activations, rank * 1000 + rounds);
        learn(&parameters, rounds);
        learn(&small, rounds);
        set(&optimizer, rounds);
        if (more && rounds == more)
            extra = make(EXTRA);
        if (more && rounds >= more)
            set(&extra, rank + rounds);
        compare(&parameters, "parameters");
        compare(&activations, "activations");
        compare(&optimizer, "optimizer's state");
        compare(&small, "small blocks");
        if (more && rounds >= more)
            compare(&extra, "memory that came later");
    } while (step_is_over(parent));
    return 0;
}

/* ---- the parent ----------------------------------------------------------------------------------- */

static const char *self;
static char dir[] = "/tmp/orr-share-XXXXXX";
static struct {
    pid_t pid;
    int sock;
} ranks[RANKS_MAX];

static uint64_t used_bytes(void)
{
    struct emu_device_info info;
    assert_int_equal(
        emu_device_file_info(getenv("ORRERY_EMULATOR_DEVICES"), &info, NULL), 0);
    return info.memory_bytes - info.free_bytes;
}

static void begin(unsigned r, unsigned more)
{
    int both[2];
    char number[16], sock[16], later[16];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, both), 0);
    snprintf(number, sizeof number, "%u", r);
    snprintf(sock, sizeof sock, "%d", both[1]);
    snprintf(later, sizeof later, "%u", more);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        fcntl(both[1], F_SETFD, 0);
        setenv("LD_PRELOAD", getenv("SHARE_PRELOAD"), 1);
        setenv("RANK", number, 1);
        execl(self, self, number, sock, later, (char *)NULL);
        _exit(127);
    }
    close(both[1]);
    ranks[r].pid = pid;
    ranks[r].sock = both[0];
}

/* Until it has ended the step. */
static void await(unsigned r)
{
    char byte;
    struct pollfd p = {.fd = ranks[r].sock, .events = POLLIN};
    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
    if (read(ranks[r].sock, &byte, 1) != 1)
        fail_msg("rank %u has ended", r);
}

static void tell(unsigned r, char byte)
{
    assert_int_equal(write(ranks[r].sock, &byte, 1), 1);
}

static void end(unsigned r, int expected)
{
    int status;
    close(ranks[r].sock);
    assert_int_equal(waitpid(ranks[r].pid, &status, 0), ranks[r].pid);
    assert_int_equal(status, expected);
    ranks[r].pid = 0;
}

static void kill_now(unsigned r)
{
    kill(ranks[r].pid, SIGKILL);
    end(r, SIGKILL);
}

static void run_steps(unsigned n, unsigned steps)
{
    for (unsigned i = 0; i < steps; i++) {
        for (unsigned r = 0; r < n; r++)
            await(r);
        for (unsigned r = 0; r < n && i + 1 < steps; r++)
            tell(r, 1);
    }
}

static void end_all(unsigned n)
{
    for (unsigned r = 0; r < n; r++)
        tell(r, 0);
    for (unsigned r = 0; r < n; r++)
        end(r, 0);
    assert_int_equal(used_bytes(), 0);
}

/* 3 ranks of 7 pieces do not fit: 5 are alike, and 2 are each one's own. */
static void what_is_alike_is_on_the_device_once(void **state)
{
    enum { N = 3, STEPS = 5 };
    (void)state;
    for (unsigned r = 0; r < N; r++)
        begin(r, 0);
    run_steps(N, 1);
    assert_true(used_bytes() <=
                (uint64_t)(COMMON_PIECES + OWN_PIECES) * PIECE + N * SLACK);
    for (unsigned r = 0; r < N; r++)
        tell(r, 1);
    run_steps(N, STEPS);
    uint64_t used = used_bytes(),
             formula = (uint64_t)(COMMON_PIECES + N * OWN_PIECES) * PIECE;
    print_message("%llu KiB for %d ranks; %d pieces once and %d of each are %llu KiB; "
                  "alone each has %d KiB\n",
                  (unsigned long long)used >> 10,
                  N,
                  COMMON_PIECES,
                  OWN_PIECES,
                  (unsigned long long)formula >> 10,
                  (COMMON_PIECES + OWN_PIECES) * (PIECE >> 10));
    assert_in_range(used, formula, formula + N * SLACK);
    end_all(N);
}

/* No room for two ranks' own: everything is swapped, and one needs more than there is while others have memory apart. */
static void what_does_not_fit_is_swapped(void **state)
{
    enum { N = 4, STEPS = 4, MORE = 4 };
    (void)state;
    for (unsigned r = 0; r < N; r++)
        begin(r, MORE);
    run_steps(N, STEPS);
    end_all(N);
}

/* Two pieces, so that hashes on the emulated device do not take for ever. */
static void the_device_hashes_as_well(void **state)
{
    enum { N = 2, STEPS = 3 };
    (void)state;
    for (unsigned r = 0; r < N; r++)
        begin(r, 0);
    run_steps(N, STEPS);
    assert_in_range(used_bytes(), 2 * PIECE, 4 * PIECE - 1); /* once; and the hash's */
    end_all(N);
}

static uint32_t next(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 8;
}

/* One dies anywhere, another comes in its place: nobody else sees anything else than it wrote. */
static void a_rank_that_dies_leaves_the_others_right(void **state)
{
    enum { N = 3, STEPS = 5 };
    uint32_t seed = 7;
    (void)state;
    for (unsigned r = 0; r < N; r++)
        begin(r, 0);
    run_steps(N, 1);
    for (unsigned i = 0; i < STEPS; i++) {
        unsigned victim = next(&seed) % N;
        struct timespec t = {.tv_nsec = (long)(next(&seed) % 60) * 1000000};
        for (unsigned r = 0; r < N; r++)
            tell(r, 1);
        nanosleep(&t, NULL); /* anywhere in its step, or before or after */
        kill_now(victim);
        for (unsigned r = 0; r < N; r++)
            if (r != victim)
                await(r);
        begin(victim, 0);
        await(victim);
    }
    end_all(N);
}

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) && setenv("ORRERY_MEMORY_DIR", dir, 1) == 0 ? 0 : -1;
}

static int remove_dir(void **state)
{
    char command[64];
    (void)state;
    for (unsigned r = 0; r < RANKS_MAX; r++)
        if (ranks[r].pid)
            kill(ranks[r].pid, SIGKILL);
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}

int main(int argc, char **argv)
{
    if (argc == 4)
        return be_rank(argv + 1);
    self = argv[0];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_alike_is_on_the_device_once),
        cmocka_unit_test(what_does_not_fit_is_swapped),
        cmocka_unit_test(a_rank_that_dies_leaves_the_others_right),
    };
    const struct CMUnitTest tiny[] = {cmocka_unit_test(the_device_hashes_as_well)};
    return is_tiny() ? cmocka_run_group_tests(tiny, make_dir, remove_dir)
                     : cmocka_run_group_tests(tests, make_dir, remove_dir);
}
