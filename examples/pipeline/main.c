/* SPDX-License-Identifier: Apache-2.0
 * main.c - `pipeline`: the stages of one or more pipelines learn to read handwritten
 * digits.
 *
 * An ordinary CUDA and NCCL program, started once a rank with the variables of
 * torchrun. Rank 0 prints the loss as it falls and at the end one line with the test
 * accuracy and a digest of the weights, which is the same for the same world, seed and
 * options.
 */
#include "data.h"
#include "fail.h"
#include "grid.h"
#include "pipeline.h"
#include "watch.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { ERR_MAX = 256 };
static_assert((int)ERR_MAX >= (int)DATA_ERR_MAX && (int)ERR_MAX >= (int)MEET_ERR_MAX,
              "one buffer for the errors of both");

struct options {
    struct pipeline_config cfg;
    uint32_t steps, log_every;
    char data[PATH_MAX];
    struct digests digests;
};

static void parse_options(struct options *o, int argc, char **argv)
{
    struct pipeline_config *c = &o->cfg;
    /* clang-format off */
    const struct option_spec specs[] = {
        {"steps", OPTION_NUMBER, &o->steps, 1, STEPS_MAX, "N  training steps"},
        {"stages", OPTION_NUMBER, &c->stages, 1, PIPELINE_LAYERS_MAX, "S  of a pipeline, a divisor of the world"},
        {"layers", OPTION_NUMBER, &c->layers, 1, PIPELINE_LAYERS_MAX, "L  of the net, a multiple of S"},
        {"width", OPTION_NUMBER, &c->width, 8, 4096, "W  units of the layers between, a multiple of 8"},
        {"batch", OPTION_NUMBER, &c->batch, 1, 65536, "B  rows a step over all pipelines, a multiple of M world / S"},
        {"micro", OPTION_NUMBER, &c->micro, 1, 1024, "M  micro-batches of a pipeline's part of it"},
        {"lr", OPTION_REAL, &c->lr, 0, 0, "X  learning rate"},
        {"momentum", OPTION_REAL, &c->momentum, 0, 0, "X"},
        {"seed", OPTION_LONG, &c->seed, 0, UINT64_MAX, "N  of the first weights and the shuffling"},
        {"log-every", OPTION_NUMBER, &o->log_every, 1, UINT32_MAX, "K  print the loss every K steps"},
        {"data", OPTION_PATH, o->data, 0, 0, "PATH  digits.csv (beside the program, in ../share/digits)"},
        DIGESTS_OPTIONS(&o->digests),
    };
    /* clang-format on */
    options_parse(specs, sizeof specs / sizeof *specs, argc, argv);
    options_find_data(o->data);
}

static void train(struct pipeline *p, struct watch *watch, struct options *o)
{
    for (uint32_t n = 1; n <= o->steps; n++) {
        watch_enter(watch, "training step", WATCH_STEP_S);
        pipeline_step(p);
        pipeline_record(p, &o->digests);
        if (n % o->log_every != 0 && n != 1 && n != o->steps)
            continue;
        float loss = pipeline_loss(p);
        if (p->grid->rank == 0)
            printf("step=%u loss=%.4f\n", n, (double)loss);
    }
}

/* From the device to the last word. */
static void run(const struct meet *meet, const struct data *data, struct options *o)
{
    struct watch watch;
    struct grid grid;
    struct pipeline p;
    watch_init(&watch);
    watch_enter(&watch, "start", WATCH_INIT_S);
    pipeline_init(&p, &o->cfg);
    ncclComm_t all = grid_join(meet, &watch);
    grid_init(&grid, &all, meet->rank, meet->world, o->cfg.stages);
    watch_comms(&watch, (ncclComm_t[]){grid.all, grid.model, grid.data}, 3);
    pipeline_load(&p, data, &grid);
    train(&p, &watch, o);
    watch_enter(&watch, "evaluation", WATCH_STEP_S);
    double accuracy = pipeline_accuracy(&p);
    uint64_t digest = pipeline_digest(&p);
    watch_comms(&watch, NULL, 0);
    grid_fini(&grid);
    pipeline_fini(&p);
    watch_fini(&watch);
    if (meet->rank == 0)
        printf("accuracy=%.4f digest=%016llx\n", accuracy, (unsigned long long)digest);
    if (fflush(stdout) != 0 || ferror(stdout))
        die("stdout: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    char err[ERR_MAX];
    struct options o = {
        .cfg = {.layers = 4,
                .width = 32,
                .stages = 4,
                .batch = 128,
                .micro = 8,
                .lr = 0.05f,
                .momentum = 0.9f,
                .seed = 1},
        .steps = 1100,
        .log_every = 100,
        .digests = {.every = 1},
    };
    struct meet meet;
    struct data data;
    setvbuf(stdout, NULL, _IOLBF, 0);
    parse_options(&o, argc, argv);
    if (!meet_from_env(&meet, err))
        usage_error("%s", err);
    die_as_rank(meet.rank);
    if (!data_load(&data, o.data, err))
        die("%s", err);
    const char *why = pipeline_refuses(&o.cfg, meet.world, data.train.n);
    if (why)
        usage_error("%s; the world is %u", why, meet.world);
    o.cfg.device = meet.local_rank;
    o.digests.rank = meet.rank;
    run(&meet, &data, &o);
    data_fini(&data);
    return 0;
}
