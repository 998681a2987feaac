/* SPDX-License-Identifier: Apache-2.0
 * hang_rank.c - ranks with a mistake in their order of collectives, for test_hang.py.
 *
 * Usage: hang_rank CASE RANK [FILE [GO [ALL]]].  All ranks add up over two communicators, step by step; in step BAD_STEP the named rank
 *   skips     the first communicator's collective, and goes on to the second's
 *   absent    does not come to the making of a third communicator
 *   computes  until FILE is there; then all end well
 * or with none: in step BAD_STEP all are
 *   late      to the making of a third communicator: its id is known when FILE is there, and used when GO is there
 * or at the end, in good order, the named rank
 *   leaves    gives up its communicators and its device and makes FILE; it ends when GO is there, the others when ALL is there
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fail.h"
#include "grid.h"

enum { BAD_STEP = 20, STEPS = 40, STEP_US = 10000, N = 256, MEET_MS = 60000 };

static CUstream stream;
static CUdeviceptr memory;

static void add_up(ncclComm_t comm)
{
    void *at = gpu_pointer(memory);
    NCCL(ncclAllReduce, at, at, N, ncclFloat32, ncclSum, comm, stream);
    CU(cuStreamSynchronize, stream);
    nccl_settle("a step", comm);
}

static void await_file(const char *file)
{
    while (access(file, F_OK) != 0)
        usleep(STEP_US);
}

static void make_file(const char *file)
{
    FILE *made = fopen(file, "w");
    if (!made || fclose(made) != 0)
        die("%s: cannot be made", file);
}

/* All know its id; one does not come, or all come late. */
static void make_third(const struct meet *meet, bool is_absent, char **files)
{
    char err[MEET_ERR_MAX];
    ncclUniqueId id = {{0}};
    ncclComm_t third;
    if (meet->rank == 0)
        NCCL(ncclGetUniqueId, &id);
    if (!meet_share(meet, &id, sizeof id, MEET_MS, err))
        die("%s", err);
    while (is_absent)
        pause();
    if (files && meet->rank == 0)
        make_file(files[0]);
    if (files)
        await_file(files[1]);
    NCCL(ncclCommInitRank, &third, (int)meet->world, id, (int)meet->rank);
    NCCL(ncclCommDestroy, third);
}

static void run(const char *fault,
                bool is_it,
                char **files,
                ncclComm_t comms[2],
                const struct meet *meet)
{
    for (int step = 0; step < STEPS; step++) {
        bool is_bad = step == BAD_STEP;
        if (is_bad && is_it && strcmp(fault, "computes") == 0)
            await_file(files[0]);
        if (is_bad && strcmp(fault, "absent") == 0)
            make_third(meet, is_it, NULL);
        if (is_bad && strcmp(fault, "late") == 0)
            make_third(meet, false, files);
        if (!(is_bad && is_it && strcmp(fault, "skips") == 0))
            add_up(comms[0]);
        add_up(comms[1]);
        usleep(STEP_US);
    }
}

static void finish(struct nn *nn, struct watch *watch, ncclComm_t comms[2])
{
    watch_comms(watch, NULL, 0);
    NCCL(ncclCommDestroy, comms[1]);
    NCCL(ncclCommDestroy, comms[0]);
    CU(cuStreamDestroy, stream);
    nn_fini(nn);
}

int main(int argc, char **argv)
{
    char err[MEET_ERR_MAX];
    struct meet meet;
    struct watch watch;
    struct nn nn;
    ncclComm_t comms[2];
    if (argc < 3 || (strcmp(argv[1], "computes") == 0 && argc < 4) ||
        (strcmp(argv[1], "late") == 0 && argc < 5) ||
        (strcmp(argv[1], "leaves") == 0 && argc < 6))
        usage_error(
            "hang_rank skips|absent|computes|late|leaves RANK [FILE [GO [ALL]]]");
    if (!meet_from_env(&meet, err))
        usage_error("%s", err);
    die_as_rank(meet.rank);
    watch_init(&watch);
    nn_init(&nn, meet.local_rank);
    comms[0] = grid_join(&meet, &watch);
    NCCL(ncclCommSplit, comms[0], 0, (int)meet.rank, &comms[1], NULL);
    CU(cuStreamCreate, &stream, CU_STREAM_NON_BLOCKING);
    memory = nn_alloc(&nn, "memory", N * sizeof(float));
    bool is_it = meet.rank == strtoul(argv[2], NULL, 10);
    run(argv[1], is_it, argv + 3, comms, &meet);
    bool is_left = strcmp(argv[1], "leaves") == 0;
    if (is_left && !is_it)
        await_file(argv[5]);
    finish(&nn, &watch, comms);
    if (is_left && is_it) {
        make_file(argv[3]);
        await_file(argv[4]);
    }
    watch_fini(&watch);
    return 0;
}
