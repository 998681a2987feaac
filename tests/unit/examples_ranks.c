/* SPDX-License-Identifier: Apache-2.0
 * examples_ranks.c - see examples_ranks.h.
 */
#include "examples_ranks.h"

#include "device_file.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct rank {
    const struct rank_work *work;
    void *self;
    uint32_t rank, world;
    ncclUniqueId id;
    pthread_t thread;
};

static char folder[] = "/dev/shm/test-example-XXXXXX", device[64];

int ranks_set_up(void)
{
    const uint8_t uuid[16] = {1};
    if (!mkdtemp(folder))
        return -1;
    snprintf(device, sizeof device, "%s/gpu", folder);
    if (emu_device_file_create(device, uuid, "Emulated GPU", 64 << 20, NULL) != 0)
        return -1;
    setenv("ORRERY_EMULATOR_DEVICES", device, 1);
    unsetenv("CUDA_VISIBLE_DEVICES");
    return 0;
}

int ranks_tear_down(void)
{
    return unlink(device) == 0 && rmdir(folder) == 0 ? 0 : -1;
}

static void *run(void *arg)
{
    struct rank *r = arg;
    ncclComm_t all;
    r->work->open(r->self);
    NCCL(ncclCommInitRank, &all, (int)r->world, r->id, (int)r->rank);
    r->work->run(r->self, r->rank, &all);
    return NULL;
}

void ranks_run(const struct rank_work *work, uint32_t world, void *const *self)
{
    struct rank ranks[RANKS_MAX];
    ncclUniqueId id;
    NCCL(ncclGetUniqueId, &id);
    for (uint32_t r = 0; r < world; r++) {
        ranks[r] = (struct rank){
            .work = work, .self = self[r], .rank = r, .world = world, .id = id};
        if (pthread_create(&ranks[r].thread, NULL, run, &ranks[r]) != 0)
            abort();
    }
    for (uint32_t r = 0; r < world; r++)
        pthread_join(ranks[r].thread, NULL);
}
