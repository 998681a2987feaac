/* SPDX-License-Identifier: Apache-2.0
 * main.c - `digits`: N data-parallel ranks learn to read handwritten digits.
 *
 * An ordinary CUDA and NCCL program, started once a rank with the variables of
 * torchrun. Rank 0 prints the loss as it falls and at the end one line with the test
 * accuracy and a digest of the weights, which is the same for the same world, seed and
 * options.
 */
#include "data.h"
#include "meet.h"
#include "trainer.h"
#include "watch.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MEET_MS = 60 * 1000, INIT_S = 120, STEP_S = 600 };
enum { ERR_MAX = 256, EXIT_USAGE = 2 };
static_assert((int)ERR_MAX >= (int)DATA_ERR_MAX && (int)ERR_MAX >= (int)MEET_ERR_MAX,
              "one buffer for the errors of both");

struct options {
    struct trainer_config cfg;
    uint32_t steps, log_every;
    char data[PATH_MAX];
};

static const char usage[] =
    "usage: digits [options]      one process a rank, with torchrun's variables\n"
    "  --steps N      training steps (default 2000)\n"
    "  --hidden H     hidden units, a multiple of 32 (64)\n"
    "  --batch B      rows a step over all ranks, a multiple of the world (128)\n"
    "  --lr X         learning rate (0.1)\n"
    "  --momentum X   (0.9)\n"
    "  --seed N       of the first weights and the shuffling (1)\n"
    "  --log-every K  print the loss every K steps (100)\n"
    "  --data PATH    digits.csv (beside the program, in ../share/digits)\n";

__attribute__((noreturn, format(printf, 1, 2))) static void usage_error(const char *fmt,
                                                                        ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("digits: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputs("; see digits --help\n", stderr);
    va_end(ap);
    exit(EXIT_USAGE);
}

static uint64_t
number_arg(const char *name, const char *text, uint64_t min, uint64_t max)
{
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || n < min || n > max)
        usage_error("--%s %s: want a number from %llu to %llu",
                    name,
                    text,
                    (unsigned long long)min,
                    (unsigned long long)max);
    return n;
}

static float real_arg(const char *name, const char *text)
{
    char *end;
    float x = strtof(text, &end);
    if (end == text || *end || !(x >= 0.0f && x <= 100.0f))
        usage_error("--%s %s: want a number from 0 to 100", name, text);
    return x;
}

/* <directory of this program>/../share/digits/digits.csv */
static void find_data(char path[PATH_MAX])
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = '\0';
    if (snprintf(path, PATH_MAX, "%s/../share/digits/digits.csv", self) >= PATH_MAX)
        usage_error("%s: too long a path: name the data with --data PATH", self);
}

static void parse_options(struct options *o, int argc, char **argv)
{
    enum { STEPS = 1, HIDDEN, BATCH, LR, MOMENTUM, SEED, LOG_EVERY, DATA, HELP };
    static const struct option names[] = {
        {"steps", required_argument, NULL, STEPS},
        {"hidden", required_argument, NULL, HIDDEN},
        {"batch", required_argument, NULL, BATCH},
        {"lr", required_argument, NULL, LR},
        {"momentum", required_argument, NULL, MOMENTUM},
        {"seed", required_argument, NULL, SEED},
        {"log-every", required_argument, NULL, LOG_EVERY},
        {"data", required_argument, NULL, DATA},
        {"help", no_argument, NULL, HELP},
        {0},
    };
    struct trainer_config *c = &o->cfg;
    int id, at = 0;
    while ((id = getopt_long(argc, argv, "", names, &at)) != -1) {
        const char *name = names[at].name;
        switch (id) {
        case STEPS:
            o->steps = (uint32_t)number_arg(name, optarg, 1, 100000000);
            break;
        case HIDDEN:
            c->hidden = (uint32_t)number_arg(name, optarg, 32, 4096);
            break;
        case BATCH:
            c->batch = (uint32_t)number_arg(name, optarg, 1, 65536);
            break;
        case LR:
            c->lr = real_arg(name, optarg);
            break;
        case MOMENTUM:
            c->momentum = real_arg(name, optarg);
            break;
        case SEED:
            c->seed = number_arg(name, optarg, 0, UINT64_MAX);
            break;
        case LOG_EVERY:
            o->log_every = (uint32_t)number_arg(name, optarg, 1, UINT32_MAX);
            break;
        case DATA:
            if (snprintf(o->data, sizeof o->data, "%s", optarg) >= (int)sizeof o->data)
                usage_error("--data: too long a path");
            break;
        case HELP:
            fputs(usage, stdout);
            exit(0);
        default:
            exit(EXIT_USAGE); /* getopt has said why */
        }
    }
    if (optind < argc)
        usage_error("%s: not an option", argv[optind]);
    if (c->hidden % 32 != 0)
        usage_error("--hidden %u: want a multiple of 32", c->hidden);
    if (o->data[0] == '\0')
        find_data(o->data);
}

static void join(const struct meet *m, struct watch *watch, ncclComm_t *ret_comm)
{
    char err[ERR_MAX];
    ncclUniqueId id = {{0}};
    if (m->rank == 0)
        NCCL(ncclGetUniqueId, &id);
    if (!meet_share(m, &id, sizeof id, MEET_MS, err))
        die("%s", err);
    watch_enter(watch, "ncclCommInitRank", INIT_S);
    NCCL(ncclCommInitRank, ret_comm, (int)m->world, id, (int)m->rank);
    watch_comm(watch, *ret_comm);
}

static void train(struct trainer *t, struct watch *watch, const struct options *o)
{
    for (uint32_t n = 1; n <= o->steps; n++) {
        watch_enter(watch, "training step", STEP_S);
        trainer_step(t);
        if (t->cfg.rank == 0 && (n % o->log_every == 0 || n == 1 || n == o->steps))
            printf("step=%u loss=%.4f\n", n, (double)trainer_loss(t));
    }
}

int main(int argc, char **argv)
{
    char err[ERR_MAX];
    struct options o = {
        .cfg = {.hidden = 64, .batch = 128, .lr = 0.1f, .momentum = 0.9f, .seed = 1},
        .steps = 2000,
        .log_every = 100,
    };
    struct meet meet;
    struct data data;
    struct watch watch;
    struct trainer trainer;
    ncclComm_t comm;
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
    o.cfg.rank = meet.rank;
    o.cfg.world = meet.world;
    o.cfg.device = meet.local_rank;

    watch_init(&watch);
    watch_enter(&watch, "start", INIT_S);
    trainer_init(&trainer, &o.cfg);
    join(&meet, &watch, &comm);
    trainer_load(&trainer, &data, comm);
    data_fini(&data);
    train(&trainer, &watch, &o);
    watch_enter(&watch, "evaluation", STEP_S);
    double accuracy = trainer_accuracy(&trainer);
    uint64_t digest = trainer_digest(&trainer);
    watch_comm(&watch, NULL);
    NCCL(ncclCommDestroy, comm);
    trainer_fini(&trainer);
    watch_fini(&watch);
    if (meet.rank == 0)
        printf("accuracy=%.4f digest=%016llx\n", accuracy, (unsigned long long)digest);
    if (fflush(stdout) != 0 || ferror(stdout))
        die("stdout: %s", strerror(errno));
    return 0;
}
