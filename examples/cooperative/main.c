/* SPDX-License-Identifier: Apache-2.0
 * main.c - `coop`: ranks that save and load their own state (orrery/rank.h), what is on their device included.
 *
 * N ranks mix the numbers that each has on its device over all ranks, step by step. It can be stopped at any step and
 * goes on anywhere, without CRIU. At the end rank 0 prints a digest, the same however often that happened. Run by itself
 * it is an ordinary program: all of orrery/rank.h does nothing then.
 */
#include "fail.h"
#include "grid.h"
#include "options.h"
#include "orrery/rank.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { NUMBERS = 4096, BYTES = NUMBERS * sizeof(float) };

struct coop {
    uint32_t steps, pause_ms, step;
    struct digests digests;
    struct meet meet;
    CUdeviceptr memory;
    CUstream stream;
    ncclComm_t comm;
};

/* ---- its state: the step is a region, what is on the device goes through callbacks ---- */

static size_t memory_bytes(void *arg)
{
    (void)arg;
    return BYTES;
}

static int memory_save(void *arg, void *to, size_t bytes)
{
    const struct coop *c = arg;
    CU(cuMemcpyDtoH, to, c->memory, bytes);
    return 0;
}

static int memory_load(void *arg, const void *from, size_t bytes)
{
    const struct coop *c = arg;
    if (bytes != BYTES)
        return -1;
    CU(cuMemcpyHtoD, c->memory, from, bytes);
    return 0;
}

static void register_state(struct coop *c)
{
    const struct orr_rank_callbacks memory = {
        memory_bytes, memory_save, memory_load, c};
    if (orr_rank_region("step", &c->step, sizeof c->step) != 0 ||
        orr_rank_state("memory", &memory) != 0)
        die("orr_rank_region, orr_rank_state: a name is taken");
    int restored = orr_rank_restored();
    if (restored < 0)
        die("what was saved does not fit this program");
    if (restored && c->meet.rank == 0)
        printf("goes on after step %u\n", c->step);
}

/* ---- the work ---- */

static void begin(struct coop *c)
{
    float numbers[NUMBERS];
    for (uint32_t i = 0; i < NUMBERS; i++)
        numbers[i] = (float)((i * 31 + c->meet.rank * 17) % 101);
    CU(cuMemcpyHtoD, c->memory, numbers, BYTES);
}

static void step(struct coop *c)
{
    float numbers[NUMBERS];
    void *at = gpu_pointer(c->memory);
    NCCL(ncclAllReduce, at, at, NUMBERS, ncclFloat32, ncclSum, c->comm, c->stream);
    CU(cuStreamSynchronize, c->stream);
    nccl_settle("a step", c->comm);
    CU(cuMemcpyDtoH, numbers, c->memory, BYTES);
    c->step++;
    if (digests_begin(&c->digests, c->step)) {
        digests_add(&c->digests, "memory", numbers, BYTES);
        digests_end(&c->digests);
    }
    for (uint32_t i = 0; i < NUMBERS; i++) /* each rank another share of the sum */
        numbers[i] = numbers[i] / (float)c->meet.world +
                     (float)((i + c->step) % (c->meet.rank + 2));
    CU(cuMemcpyHtoD, c->memory, numbers, BYTES);
    if (c->pause_ms)
        usleep(c->pause_ms * 1000);
}

static uint64_t digest(const struct coop *c)
{
    float numbers[NUMBERS];
    CU(cuMemcpyDtoH, numbers, c->memory, BYTES);
    return fnv1a(FNV1A_START, numbers, BYTES);
}

static void parse_options(struct coop *c, int argc, char **argv)
{
    /* clang-format off */
    const struct option_spec specs[] = {
        {"steps", OPTION_NUMBER, &c->steps, 1, STEPS_MAX, "N"},
        {"pause", OPTION_NUMBER, &c->pause_ms, 0, 1000, "MS  after each step"},
        DIGESTS_OPTIONS(&c->digests),
    };
    /* clang-format on */
    options_parse(specs, sizeof specs / sizeof *specs, argc, argv);
}

int main(int argc, char **argv)
{
    static struct coop c = {.steps = 1000, .digests = {.every = 1}};
    char err[MEET_ERR_MAX];
    struct watch watch;
    struct nn nn;
    setvbuf(stdout, NULL, _IOLBF, 0);
    parse_options(&c, argc, argv);
    if (!meet_from_env(&c.meet, err))
        usage_error("%s", err);
    die_as_rank(c.meet.rank);
    c.digests.rank = c.meet.rank;
    watch_init(&watch);
    nn_init(&nn, c.meet.local_rank);
    c.memory = nn_alloc(&nn, "memory", BYTES);
    CU(cuStreamCreate, &c.stream, CU_STREAM_NON_BLOCKING);
    begin(&c);
    register_state(&c);
    c.comm = grid_join(&c.meet, &watch);
    watch_enter(&watch, "steps", WATCH_STEP_S);
    while (c.step < c.steps) {
        orr_rank_point();
        step(&c);
        watch_enter(&watch, "steps", WATCH_STEP_S);
    }
    watch_comms(&watch, NULL, 0);
    NCCL(ncclCommDestroy, c.comm);
    uint64_t result = digest(&c);
    CU(cuStreamDestroy, c.stream);
    nn_fini(&nn);
    watch_fini(&watch);
    if (c.meet.rank == 0)
        printf("steps=%u digest=%016llx\n", c.step, (unsigned long long)result);
    if (fflush(stdout) != 0 || ferror(stdout))
        die("stdout: %s", strerror(errno));
    return 0;
}
