/* SPDX-License-Identifier: Apache-2.0
 * main.c - `mlp`: a grid of tensor- and data-parallel ranks learns to read handwritten
 * digits.
 *
 * An ordinary CUDA and NCCL program, started once a rank with the variables of
 * torchrun. Rank 0 prints the loss as it falls and at the end one line with the test
 * accuracy and a digest of the weights, which is the same for the same world, seed and
 * options.
 */
#include "learn.h"
#include "mlp.h"

int main(int argc, char **argv)
{
    struct learn l = {.steps = 2000};
    struct mlp_config c = {.hidden = 64,
                           .mid = 32,
                           .batch = 64,
                           .tensor = 2,
                           .lr = 0.05f,
                           .momentum = 0.9f,
                           .seed = 1};
    /* clang-format off */
    const struct option_spec own[] = {
        {"tensor", OPTION_NUMBER, &c.tensor, 1, 64, "T  ranks that share a net, a divisor of the world"},
        {"hidden", OPTION_NUMBER, &c.hidden, 8, 4096, "H  units of the wide layers, a multiple of 8 T"},
        {"mid", OPTION_NUMBER, &c.mid, 8, 4096, "M  units between them, a multiple of 8"},
        {"batch", OPTION_NUMBER, &c.batch, 1, 65536, "B  rows a step over all ranks, a multiple of world / T"},
        {"lr", OPTION_REAL, &c.lr, 0, 0, "X  learning rate"},
        {"momentum", OPTION_REAL, &c.momentum, 0, 0, "X"},
        {"seed", OPTION_LONG, &c.seed, 0, UINT64_MAX, "N  of the first weights and the shuffling"},
    };
    /* clang-format on */
    learn_begin(&l, own, sizeof own / sizeof *own, argc, argv);
    learn_start(&l, mlp_refuses(&c, l.meet.world, l.data.train.n));

    struct mlp mlp;
    struct grid grid;
    c.device = l.meet.local_rank;
    mlp_init(&mlp, &c);
    learn_grid(&l, &grid, c.tensor);
    mlp_load(&mlp, &l.data, &grid);
    while (learn_step(&l)) {
        mlp_step(&mlp);
        mlp_record(&mlp, &l.digests);
        if (learn_is_due(&l) && grid.rank == 0)
            learn_loss(&l, mlp_loss(&mlp));
    }

    learn_evaluate(&l);
    double accuracy = mlp_accuracy(&mlp);
    uint64_t digest = mlp_digest(&mlp);
    learn_leave(&l);
    grid_fini(&grid);
    mlp_fini(&mlp);
    learn_end(&l, accuracy, digest);
    return 0;
}
