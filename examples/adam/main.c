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
#include "data.h"
#include "fail.h"
#include "grid.h"
#include "watch.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { ERR_MAX = 256 };
static_assert((int)ERR_MAX >= (int)DATA_ERR_MAX && (int)ERR_MAX >= (int)MEET_ERR_MAX,
              "one buffer for the errors of both");

struct options {
    struct adam_config cfg;
    uint32_t steps, log_every;
    char data[PATH_MAX];
    struct digests digests;
};

static void parse_options(struct options *o, int argc, char **argv)
{
    struct adam_config *c = &o->cfg;
    /* clang-format off */
    const struct option_spec specs[] = {
        {"steps", OPTION_NUMBER, &o->steps, 1, STEPS_MAX, "N  training steps"},
        {"hidden", OPTION_NUMBER, &c->hidden, 8, 4096, "H  units of the hidden layer, a multiple of 8"},
        {"batch", OPTION_NUMBER, &c->batch, 1, 65536, "B  rows a step over all ranks, a multiple of the world"},
        {"rate", OPTION_REAL, &c->rate, 0, 0, "X  learning rate"},
        {"keep", OPTION_REAL, &c->keep, 0, 0, "X  share of the hidden values that dropout keeps"},
        {"seed", OPTION_LONG, &c->seed, 0, UINT64_MAX, "N  of the first weights, the shuffling and dropout"},
        {"log-every", OPTION_NUMBER, &o->log_every, 1, UINT32_MAX, "K  print the loss every K steps"},
        {"data", OPTION_PATH, o->data, 0, 0, "PATH  digits.csv (beside the program, in ../share/digits)"},
        DIGESTS_OPTIONS(&o->digests),
    };
    /* clang-format on */
    options_parse(specs, sizeof specs / sizeof *specs, argc, argv);
    options_find_data(o->data);
}

static void train(struct adam *a, struct watch *watch, struct options *o)
{
    for (uint32_t n = 1; n <= o->steps; n++) {
        watch_enter(watch, "training step", WATCH_STEP_S);
        adam_step(a);
        adam_record(a, &o->digests);
        if (a->grid->rank == 0 && (n % o->log_every == 0 || n == 1 || n == o->steps))
            printf("step=%u loss=%.4f\n", n, (double)adam_loss(a));
    }
}

/* From the device to the last word. */
static void run(const struct meet *meet, const struct data *data, struct options *o)
{
    struct watch watch;
    struct grid grid;
    struct adam adam;
    watch_init(&watch);
    watch_enter(&watch, "start", WATCH_INIT_S);
    adam_init(&adam, &o->cfg);
    ncclComm_t all = grid_join(meet, &watch);
    grid_init(&grid, &all, meet->rank, meet->world, 1);
    watch_comms(&watch, (ncclComm_t[]){grid.all, grid.model, grid.data}, 3);
    adam_load(&adam, data, &grid);
    train(&adam, &watch, o);
    watch_enter(&watch, "evaluation", WATCH_STEP_S);
    double accuracy = adam_accuracy(&adam);
    uint64_t digest = adam_digest(&adam);
    watch_comms(&watch, NULL, 0);
    grid_fini(&grid);
    adam_fini(&adam);
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
        .cfg = {.hidden = 64, .batch = 64, .rate = 0.003f, .keep = 0.8f, .seed = 1},
        .steps = 2000,
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
    const char *why = adam_refuses(&o.cfg, meet.world, data.train.n);
    if (why)
        usage_error("%s; the world is %u", why, meet.world);
    o.cfg.device = meet.local_rank;
    o.digests.rank = meet.rank;
    run(&meet, &data, &o);
    data_fini(&data);
    return 0;
}
