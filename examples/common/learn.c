/* SPDX-License-Identifier: Apache-2.0
 * learn.c - see learn.h.
 */
#include "learn.h"

#include "fail.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { ERR_MAX = 256 };
static_assert((int)ERR_MAX >= (int)DATA_ERR_MAX && (int)ERR_MAX >= (int)MEET_ERR_MAX,
              "one buffer for the errors of both");

static void
parse(struct learn *l, const struct option_spec *own, size_t n, int argc, char **argv)
{
    /* clang-format off */
    const struct option_spec common[] = {
        {"steps", OPTION_NUMBER, &l->steps, 1, STEPS_MAX, "N  training steps"},
        {"log-every", OPTION_NUMBER, &l->log_every, 1, UINT32_MAX, "K  print the loss every K steps"},
        {"data", OPTION_PATH, l->path, 0, 0, "PATH  digits.csv (beside the program, in ../share/digits)"},
        DIGESTS_OPTIONS(&l->digests),
    };
    /* clang-format on */
    const size_t ncommon = sizeof common / sizeof *common;
    struct option_spec specs[OPTIONS_MAX];
    assert(n + ncommon <= OPTIONS_MAX);
    memcpy(specs, own, n * sizeof *own);
    memcpy(specs + n, common, sizeof common);
    options_parse(specs, n + ncommon, argc, argv);
    options_find_data(l->path);
}

void learn_begin(
    struct learn *l, const struct option_spec *own, size_t n, int argc, char **argv)
{
    char err[ERR_MAX];
    setvbuf(stdout, NULL, _IOLBF, 0);
    l->log_every = 100;
    l->digests.every = 1;
    parse(l, own, n, argc, argv);
    if (!meet_from_env(&l->meet, err))
        usage_error("%s", err);
    die_as_rank(l->meet.rank);
    l->digests.rank = l->meet.rank;
    if (!data_load(&l->data, l->path, err))
        die("%s", err);
}

void learn_start(struct learn *l, const char *why_not)
{
    if (why_not)
        usage_error("%s; the world is %u", why_not, l->meet.world);
    watch_init(&l->watch);
    watch_enter(&l->watch, "start", WATCH_INIT_S);
}

ncclComm_t learn_join(struct learn *l)
{
    return grid_join(&l->meet, &l->watch);
}

void learn_grid(struct learn *l, struct grid *grid, uint32_t nmodel)
{
    ncclComm_t all = learn_join(l);
    grid_init(grid, &all, l->meet.rank, l->meet.world, nmodel);
    watch_comms(&l->watch, (ncclComm_t[]){grid->all, grid->model, grid->data}, 3);
}

bool learn_step(struct learn *l)
{
    if (l->step >= l->steps)
        return false;
    l->step++;
    watch_enter(&l->watch, "training step", WATCH_STEP_S);
    return true;
}

bool learn_is_due(const struct learn *l)
{
    return l->step % l->log_every == 0 || l->step == 1 || l->step == l->steps;
}

void learn_loss(const struct learn *l, float loss)
{
    if (l->meet.rank == 0)
        printf("step=%u loss=%.4f\n", l->step, (double)loss);
}

void learn_evaluate(struct learn *l)
{
    watch_enter(&l->watch, "evaluation", WATCH_STEP_S);
}

void learn_leave(struct learn *l)
{
    watch_comms(&l->watch, NULL, 0);
}

void learn_end(struct learn *l, double accuracy, uint64_t digest)
{
    watch_fini(&l->watch);
    data_fini(&l->data);
    if (l->meet.rank == 0)
        printf("accuracy=%.4f digest=%016llx\n", accuracy, (unsigned long long)digest);
    if (fflush(stdout) != 0 || ferror(stdout))
        die("stdout: %s", strerror(errno));
}
