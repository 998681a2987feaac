/* SPDX-License-Identifier: Apache-2.0
 * main.c - `adam`: data-parallel ranks with state of every kind learn to read handwritten
 * digits.
 *
 * An ordinary CUDA and NCCL program, started once a rank with the variables of
 * torchrun. Rank 0 prints the loss as it falls and at the end one line with the test
 * accuracy and a digest of the weights, which is the same for the same world, seed and
 * options.
 */
#include "adam.h"
#include "learn.h"

int main(int argc, char **argv)
{
    struct learn l = {.steps = 2000};
    struct adam_config c = {
        .hidden = 64, .batch = 64, .rate = 0.003f, .keep = 0.8f, .seed = 1};
    /* clang-format off */
    const struct option_spec own[] = {
        {"hidden", OPTION_NUMBER, &c.hidden, 8, 4096, "H  units of the hidden layer, a multiple of 8"},
        {"batch", OPTION_NUMBER, &c.batch, 1, 65536, "B  rows a step over all ranks, a multiple of the world"},
        {"rate", OPTION_REAL, &c.rate, 0, 0, "X  learning rate"},
        {"keep", OPTION_REAL, &c.keep, 0, 0, "X  share of the hidden values that dropout keeps"},
        {"seed", OPTION_LONG, &c.seed, 0, UINT64_MAX, "N  of the first weights, the shuffling and dropout"},
    };
    /* clang-format on */
    learn_begin(&l, own, sizeof own / sizeof *own, argc, argv);
    learn_start(&l, adam_refuses(&c, l.meet.world, l.data.train.n));

    struct adam adam;
    struct grid grid;
    c.device = l.meet.local_rank;
    adam_init(&adam, &c);
    learn_grid(&l, &grid, 1);
    adam_load(&adam, &l.data, &grid);
    while (learn_step(&l)) {
        adam_step(&adam);
        adam_record(&adam, &l.digests);
        if (learn_is_due(&l) && grid.rank == 0)
            learn_loss(&l, adam_loss(&adam));
    }

    learn_evaluate(&l);
    double accuracy = adam_accuracy(&adam);
    uint64_t digest = adam_digest(&adam);
    learn_leave(&l);
    grid_fini(&grid);
    adam_fini(&adam);
    learn_end(&l, accuracy, digest);
    return 0;
}
