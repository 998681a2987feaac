/* SPDX-License-Identifier: Apache-2.0
 * test_mlp.c - the mlp example on grids of ranks, held against the plain C of
 * examples_reference.c.
 */
#include "examples_ranks.h"
#include "examples_reference.h"
#include "mlp.h"
#include "orr_test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 25 }; /* over the end of the first epoch of 22 */

static struct data data;

static const struct mlp_config config = {.hidden = 32,
                                         .mid = 24,
                                         .batch = 64,
                                         .tensor = 2,
                                         .lr = 0.05f,
                                         .momentum = 0.9f,
                                         .seed = 5};
static const size_t sizes[] = {DATA_PIXELS, 32, 24, 32, DATA_CLASSES};

struct rank {
    struct mlp mlp;
    struct mlp_config cfg;
    uint32_t world, steps;
    struct mlp_layer layers[MLP_LAYERS];
    float *first, *last; /* owned: weights before and after */
    float loss[STEPS];   /* of rank 0 */
    double accuracy;
    uint64_t digest;
};

static void open_rank(void *self)
{
    struct rank *r = self;
    mlp_init(&r->mlp, &r->cfg);
}

static void run_rank(void *self, uint32_t rank, ncclComm_t *take_all)
{
    struct rank *r = self;
    struct grid grid;
    grid_init(&grid, take_all, rank, r->world, r->cfg.tensor);
    mlp_load(&r->mlp, &data, &grid);
    r->first = calloc(r->mlp.nweights, sizeof *r->first);
    r->last = calloc(r->mlp.nweights, sizeof *r->last);
    mlp_weights(&r->mlp, r->first);
    for (uint32_t n = 0; n < r->steps; n++) {
        mlp_step(&r->mlp);
        r->loss[n] = rank == 0 ? mlp_loss(&r->mlp) : 0.0f;
    }
    mlp_weights(&r->mlp, r->last);
    memcpy(r->layers, r->mlp.layers, sizeof r->layers);
    r->accuracy = mlp_accuracy(&r->mlp);
    r->digest = mlp_digest(&r->mlp);
    grid_fini(&grid);
    mlp_fini(&r->mlp);
}

static void
train(struct rank *ranks, uint32_t world, const struct mlp_config *cfg, uint32_t steps)
{
    static const struct rank_work work = {open_rank, run_rank};
    void *self[RANKS_MAX];
    for (uint32_t r = 0; r < world; r++) {
        ranks[r] = (struct rank){.cfg = *cfg, .world = world, .steps = steps};
        self[r] = &ranks[r];
    }
    ranks_run(&work, world, self);
}

static void free_ranks(struct rank *ranks, uint32_t world)
{
    for (uint32_t r = 0; r < world; r++) {
        free(ranks[r].first);
        free(ranks[r].last);
    }
}

/* Calls what = part's place in the whole layer's w, for each weight and bias. */
static void each_weight(const struct rank *r,
                        uint32_t tensor_rank,
                        struct net *net,
                        const float *part,
                        void (*visit)(double *whole, float part))
{
    for (uint32_t l = 0; l < MLP_LAYERS; l++) {
        const struct mlp_layer *p = &r->layers[l];
        size_t out = net->out[l];
        size_t row = p->is_split_by_rows ? tensor_rank * p->in : 0;
        size_t column = p->is_split_by_rows ? 0 : tensor_rank * p->out;
        for (size_t c = 0; c < p->out; c++) {
            for (size_t k = 0; k < p->in; k++)
                visit(&net->w[l][(row + k) * out + column + c],
                      part[p->weights + k * p->out + c]);
            visit(&net->w[l][net->in[l] * out + column + c], part[p->biases + c]);
        }
    }
}

static void take_weight(double *whole, float part)
{
    *whole = (double)part;
}

static void compare_weight(double *whole, float part)
{
    if (!(fabs(*whole - (double)part) < 1e-4))
        fail_msg("a weight is %g, want %g", (double)part, *whole);
}

static void follows_the_reference(uint32_t world, uint32_t tensor)
{
    struct rank ranks[RANKS_MAX];
    struct mlp_config cfg = config;
    struct net net = {.data = &data,
                      .nlayers = MLP_LAYERS,
                      .batch = config.batch,
                      .lr = (double)config.lr,
                      .momentum = (double)config.momentum,
                      .seed = config.seed};
    cfg.tensor = tensor;
    train(ranks, world, &cfg, STEPS);
    net_init(&net, sizes);
    for (uint32_t t = 0; t < tensor; t++)
        each_weight(&ranks[t], t, &net, ranks[t].first, take_weight);
    for (int n = 0; n < STEPS; n++) {
        net_step(&net);
        assert_true(fabs((double)ranks[0].loss[n] - net.loss) < 1e-4);
    }
    for (uint32_t r = 0; r < world; r++) {
        each_weight(&ranks[r], r % tensor, &net, ranks[r].last, compare_weight);
        assert_true(ranks[r].digest == ranks[0].digest);
        assert_true(fabs(ranks[r].accuracy - net_accuracy(&net)) < 0.006);
    }
    net_fini(&net);
    free_ranks(ranks, world);
}

static void grid_of_two_by_two_follows_the_reference(void **state)
{
    (void)state;
    follows_the_reference(4, 2);
}

static void grid_of_one_rank_follows_the_reference(void **state)
{
    (void)state;
    follows_the_reference(1, 1);
}

static void grid_of_four_by_two_follows_the_reference(void **state)
{
    (void)state;
    follows_the_reference(8, 4);
}

static uint64_t digest_after(const struct mlp_config *cfg, uint32_t steps)
{
    struct rank ranks[RANKS_MAX];
    train(ranks, 4, cfg, steps);
    uint64_t digest = ranks[0].digest;
    free_ranks(ranks, 4);
    return digest;
}

static void digest_depends_on_seed_and_steps_alone(void **state)
{
    (void)state;
    struct mlp_config other = config;
    uint64_t digest = digest_after(&config, 3);
    assert_true(digest == digest_after(&config, 3));
    assert_false(digest == digest_after(&config, 4));
    other.seed++;
    assert_false(digest == digest_after(&other, 3));
}

static void grid_that_cannot_be_is_refused(void **state)
{
    (void)state;
    struct mlp_config cfg = config;
    assert_null(mlp_refuses(&cfg, 4, 1437));
    assert_non_null(mlp_refuses(&cfg, 3, 1437));
    assert_non_null(mlp_refuses(&cfg, 4, 63));
    cfg.hidden = 24;
    assert_non_null(mlp_refuses(&cfg, 4, 1437));
}

static int set_up(void **state)
{
    (void)state;
    char err[DATA_ERR_MAX];
    return ranks_set_up() == 0 && data_load(&data, DIGITS_CSV, err) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    data_fini(&data);
    return ranks_tear_down();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grid_of_two_by_two_follows_the_reference),
        cmocka_unit_test(grid_of_one_rank_follows_the_reference),
        cmocka_unit_test(grid_of_four_by_two_follows_the_reference),
        cmocka_unit_test(digest_depends_on_seed_and_steps_alone),
        cmocka_unit_test(grid_that_cannot_be_is_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
