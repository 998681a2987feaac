/* SPDX-License-Identifier: Apache-2.0
 * main.c - `digits`: N data-parallel ranks learn to read handwritten digits.
 *
 * An ordinary CUDA and NCCL program, started once a rank with the variables of
 * torchrun. Rank 0 prints the loss as it falls and at the end one line with the test
 * accuracy and a digest of the weights, which is the same for the same world, seed and
 * options.
 */
#include "data.h"
#include "fail.h"
#include "grid.h"
#include "trainer.h"
#include "watch.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ERR_MAX = 256 };
static_assert((int)ERR_MAX >= (int)DATA_ERR_MAX && (int)ERR_MAX >= (int)MEET_ERR_MAX,
              "one buffer for the errors of both");

struct options {
    struct trainer_config cfg;
    uint32_t steps, log_every;
    char data[PATH_MAX], save[PATH_MAX]; /* save empty: the weights are not wanted */
    struct digests digests;
};

static void parse_options(struct options *o, int argc, char **argv)
{
    struct trainer_config *c = &o->cfg;
    /* clang-format off */
    const struct option_spec specs[] = {
        {"steps", OPTION_NUMBER, &o->steps, 1, STEPS_MAX, "N  training steps"},
        {"hidden", OPTION_NUMBER, &c->hidden, 32, 4096, "H  hidden units, a multiple of 32"},
        {"batch", OPTION_NUMBER, &c->batch, 1, 65536, "B  rows a step over all ranks, a multiple of the world"},
        {"lr", OPTION_REAL, &c->lr, 0, 0, "X  learning rate"},
        {"momentum", OPTION_REAL, &c->momentum, 0, 0, "X"},
        {"seed", OPTION_LONG, &c->seed, 0, UINT64_MAX, "N  of the first weights and the shuffling"},
        {"log-every", OPTION_NUMBER, &o->log_every, 1, UINT32_MAX, "K  print the loss every K steps"},
        {"data", OPTION_PATH, o->data, 0, 0, "PATH  digits.csv (beside the program, in ../share/digits)"},
        {"save", OPTION_PATH, o->save, 0, 0, "PATH  where rank 0 puts the weights at the end, as floats"},
        DIGESTS_OPTIONS(&o->digests),
    };
    /* clang-format on */
    options_parse(specs, sizeof specs / sizeof *specs, argc, argv);
    if (c->hidden % 32 != 0)
        usage_error("--hidden %u: want a multiple of 32", c->hidden);
    options_find_data(o->data);
}

static void train(struct trainer *t, struct watch *watch, struct options *o)
{
    for (uint32_t n = 1; n <= o->steps; n++) {
        watch_enter(watch, "training step", WATCH_STEP_S);
        trainer_step(t);
        trainer_record(t, &o->digests);
        if (t->cfg.rank == 0 && (n % o->log_every == 0 || n == 1 || n == o->steps))
            printf("step=%u loss=%.4f\n", n, (double)trainer_loss(t));
    }
}

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
    char err[ERR_MAX];
    struct options o = {
        .cfg = {.hidden = 64, .batch = 128, .lr = 0.1f, .momentum = 0.9f, .seed = 1},
        .steps = 2000,
        .log_every = 100,
        .digests = {.every = 1},
    };
    struct meet meet;
    struct data data;
    struct watch watch;
    struct trainer trainer;
    setvbuf(stdout, NULL, _IOLBF, 0);
    parse_options(&o, argc, argv);
    if (!meet_from_env(&meet, err))
        usage_error("%s", err);
    die_as_rank(meet.rank);
    if (!data_load(&data, o.data, err))
        die("%s", err);
    if (o.cfg.batch % meet.world != 0 || o.cfg.batch > data.train.n)
        usage_error("--batch %u: want a multiple of the world of %u, at most %u rows",
                    o.cfg.batch,
                    meet.world,
                    data.train.n);
    o.cfg.rank = o.digests.rank = meet.rank;
    o.cfg.world = meet.world;
    o.cfg.device = meet.local_rank;

    watch_init(&watch);
    watch_enter(&watch, "start", WATCH_INIT_S);
    trainer_init(&trainer, &o.cfg);
    ncclComm_t comm = grid_join(&meet, &watch);
    trainer_load(&trainer, &data, comm);
    data_fini(&data);
    train(&trainer, &watch, &o);
    watch_enter(&watch, "evaluation", WATCH_STEP_S);
    double accuracy = trainer_accuracy(&trainer);
    uint64_t digest = trainer_digest(&trainer);
    if (meet.rank == 0 && o.save[0] != '\0')
        save(&trainer, o.save);
    watch_comms(&watch, NULL, 0);
    NCCL(ncclCommDestroy, comm);
    trainer_fini(&trainer);
    watch_fini(&watch);
    if (meet.rank == 0)
        printf("accuracy=%.4f digest=%016llx\n", accuracy, (unsigned long long)digest);
    if (fflush(stdout) != 0 || ferror(stdout))
        die("stdout: %s", strerror(errno));
    return 0;
}
