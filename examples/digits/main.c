/* SPDX-License-Identifier: Apache-2.0
 * main.c - `digits`: N data-parallel ranks learn to read handwritten digits.
 *
 * An ordinary CUDA and NCCL program, started once a rank with the variables of
 * torchrun. Rank 0 prints the loss as it falls and at the end one line with the test
 * accuracy and a digest of the weights, which is the same for the same world, seed and
 * options.
 */
#include "fail.h"
#include "learn.h"
#include "trainer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void save(const struct trainer *t, const char *path)
{
    size_t n = trainer_nweights(t);
    float *w = malloc(n * sizeof *w);
    FILE *file = fopen(path, "wb");
    if (!w || !file)
        die("--save %s: %s", path, strerror(errno));
    trainer_weights(t, w);
    if (fwrite(w, sizeof *w, n, file) != n || fclose(file) != 0)
        die("--save %s: %s", path, strerror(errno));
    free(w);
}

int main(int argc, char **argv)
{
    struct learn l = {.steps = 2000};
    struct trainer_config c = {
        .hidden = 64, .batch = 128, .lr = 0.1f, .momentum = 0.9f, .seed = 1};
    char weights[PATH_MAX] = ""; /* empty: they are not wanted */
    /* clang-format off */
    const struct option_spec own[] = {
        {"hidden", OPTION_NUMBER, &c.hidden, 32, 4096, "H  hidden units, a multiple of 32"},
        {"batch", OPTION_NUMBER, &c.batch, 1, 65536, "B  rows a step over all ranks, a multiple of the world"},
        {"lr", OPTION_REAL, &c.lr, 0, 0, "X  learning rate"},
        {"momentum", OPTION_REAL, &c.momentum, 0, 0, "X"},
        {"seed", OPTION_LONG, &c.seed, 0, UINT64_MAX, "N  of the first weights and the shuffling"},
        {"save", OPTION_PATH, weights, 0, 0, "PATH  where rank 0 puts the weights at the end, as floats"},
    };
    /* clang-format on */
    learn_begin(&l, own, sizeof own / sizeof *own, argc, argv);
    learn_start(&l, trainer_refuses(&c, l.meet.world, l.data.train.n));

    struct trainer trainer;
    c.rank = l.meet.rank;
    c.world = l.meet.world;
    c.device = l.meet.local_rank;
    trainer_init(&trainer, &c);
    ncclComm_t comm = learn_join(&l);
    trainer_load(&trainer, &l.data, comm);
    while (learn_step(&l)) {
        trainer_step(&trainer);
        trainer_record(&trainer, &l.digests);
        if (learn_is_due(&l) && c.rank == 0)
            learn_loss(&l, trainer_loss(&trainer));
    }

    learn_evaluate(&l);
    double accuracy = trainer_accuracy(&trainer);
    uint64_t digest = trainer_digest(&trainer);
    if (c.rank == 0 && weights[0] != '\0')
        save(&trainer, weights);
    learn_leave(&l);
    NCCL(ncclCommDestroy, comm);
    trainer_fini(&trainer);
    learn_end(&l, accuracy, digest);
    return 0;
}
