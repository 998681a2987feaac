/* SPDX-License-Identifier: Apache-2.0
 * main.c - `pipeline`: the stages of one or more pipelines learn to read handwritten
 * digits.
 *
 * An ordinary CUDA and NCCL program, started once a rank with the variables of
 * torchrun. Rank 0 prints the loss as it falls and at the end one line with the test
 * accuracy and a digest of the weights, which is the same for the same world, seed and
 * options.
 */
#include "learn.h"
#include "pipeline.h"

int main(int argc, char **argv)
{
    struct learn l = {.steps = 1100};
    struct pipeline_config c = {.layers = 4,
                                .width = 32,
                                .stages = 4,
                                .batch = 128,
                                .micro = 8,
                                .lr = 0.05f,
                                .momentum = 0.9f,
                                .seed = 1};
    /* clang-format off */
    const struct option_spec own[] = {
        {"stages", OPTION_NUMBER, &c.stages, 1, PIPELINE_LAYERS_MAX, "S  of a pipeline, a divisor of the world"},
        {"layers", OPTION_NUMBER, &c.layers, 1, PIPELINE_LAYERS_MAX, "L  of the net, a multiple of S"},
        {"width", OPTION_NUMBER, &c.width, 8, 4096, "W  units of the layers between, a multiple of 8"},
        {"batch", OPTION_NUMBER, &c.batch, 1, 65536, "B  rows a step over all pipelines, a multiple of M world / S"},
        {"micro", OPTION_NUMBER, &c.micro, 1, 1024, "M  micro-batches of a pipeline's part of it"},
        {"lr", OPTION_REAL, &c.lr, 0, 0, "X  learning rate"},
        {"momentum", OPTION_REAL, &c.momentum, 0, 0, "X"},
        {"seed", OPTION_LONG, &c.seed, 0, UINT64_MAX, "N  of the first weights and the shuffling"},
    };
    /* clang-format on */
    learn_begin(&l, own, sizeof own / sizeof *own, argc, argv);
    learn_start(&l, pipeline_refuses(&c, l.meet.world, l.data.train.n));

    struct pipeline pipeline;
    struct grid grid;
    c.device = l.meet.local_rank;
    pipeline_init(&pipeline, &c);
    learn_grid(&l, &grid, c.stages);
    pipeline_load(&pipeline, &l.data, &grid);
    while (learn_step(&l)) {
        pipeline_step(&pipeline);
        pipeline_record(&pipeline, &l.digests);
        if (learn_is_due(&l)) /* a collective */
            learn_loss(&l, pipeline_loss(&pipeline));
    }

    learn_evaluate(&l);
    double accuracy = pipeline_accuracy(&pipeline);
    uint64_t digest = pipeline_digest(&pipeline);
    learn_leave(&l);
    grid_fini(&grid);
    pipeline_fini(&pipeline);
    learn_end(&l, accuracy, digest);
    return 0;
}
