/* SPDX-License-Identifier: Apache-2.0
 * test_pipeline.c - the pipeline example in several shapes, held against the plain C of
 * examples_reference.c.
 */
#include "examples_ranks.h"
#include "examples_reference.h"
#include "orr_test.h"
#include "pipeline.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 25 }; /* over the end of the first epoch of 22 */

static struct data data;

static const struct pipeline_config config = {.layers = 4,
                                              .width = 24,
                                              .stages = 4,
                                              .batch = 64,
                                              .micro = 8,
                                              .lr = 0.05f,
                                              .momentum = 0.9f,
                                              .seed = 5};
static const size_t sizes[] = {DATA_PIXELS, 24, 24, 24, DATA_CLASSES};

struct rank {
    struct pipeline pipeline;
    struct pipeline_config cfg;
    uint32_t world, steps, nlayers, first_layer;
    struct pipeline_layer layers[PIPELINE_LAYERS_MAX];
    float *first, *last; /* owned: weights before and after */
    float loss[STEPS];
    double accuracy;
    uint64_t digest;
};

static void open_rank(void *self)
{
    struct rank *r = self;
    pipeline_init(&r->pipeline, &r->cfg);
}

static void run_rank(void *self, uint32_t rank, ncclComm_t *take_all)
{
    struct rank *r = self;
    struct grid grid;
    struct pipeline *p = &r->pipeline;
    grid_init(&grid, take_all, rank, r->world, r->cfg.stages);
    pipeline_load(p, &data, &grid);
    r->first = calloc(p->nweights, sizeof *r->first);
    r->last = calloc(p->nweights, sizeof *r->last);
    pipeline_weights(p, r->first);
    for (uint32_t n = 0; n < r->steps; n++) {
        pipeline_step(p);
        r->loss[n] = pipeline_loss(p);
    }
    pipeline_weights(p, r->last);
    memcpy(r->layers, p->layers, sizeof r->layers);
    r->nlayers = p->nlayers;
    r->first_layer = grid.model_rank * p->nlayers;
    r->accuracy = pipeline_accuracy(p);
    r->digest = pipeline_digest(p);
    grid_fini(&grid);
    pipeline_fini(p);
}

static void train(struct rank *ranks,
                  uint32_t world,
                  const struct pipeline_config *cfg,
                  uint32_t steps)
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

/* A layer's weights and then its biases lie in both in the same order. */
static void take_weights(const struct rank *r, struct net *net)
{
    for (uint32_t i = 0; i < r->nlayers; i++)
        for (size_t k = r->layers[i].weights; k < r->layers[i].end; k++)
            net->w[r->first_layer + i][k - r->layers[i].weights] = (double)r->first[k];
}

static void compare_weights(const struct rank *r, const struct net *net)
{
    for (uint32_t i = 0; i < r->nlayers; i++)
        for (size_t k = r->layers[i].weights; k < r->layers[i].end; k++) {
            double want = net->w[r->first_layer + i][k - r->layers[i].weights];
            if (!(fabs(want - (double)r->last[k]) < 1e-4))
                fail_msg("weight %zu is %g, want %g", k, (double)r->last[k], want);
        }
}

static void follows_the_reference(uint32_t world, uint32_t stages, uint32_t micro)
{
    struct rank ranks[RANKS_MAX];
    struct pipeline_config cfg = config;
    struct net net = {.data = &data,
                      .nlayers = config.layers,
                      .batch = config.batch,
                      .lr = (double)config.lr,
                      .momentum = (double)config.momentum,
                      .seed = config.seed};
    cfg.stages = stages;
    cfg.micro = micro;
    train(ranks, world, &cfg, STEPS);
    net_init(&net, sizes);
    for (uint32_t s = 0; s < stages; s++)
        take_weights(&ranks[s], &net);
    for (int n = 0; n < STEPS; n++) {
        net_step(&net);
        for (uint32_t r = 0; r < world; r++)
            assert_true(fabs((double)ranks[r].loss[n] - net.loss) < 1e-4);
    }
    for (uint32_t r = 0; r < world; r++) {
        compare_weights(&ranks[r], &net);
        assert_true(ranks[r].digest == ranks[0].digest);
        assert_true(fabs(ranks[r].accuracy - net_accuracy(&net)) < 0.006);
    }
    net_fini(&net);
    free_ranks(ranks, world);
}

static void pipelines_of_four_stages_follow_the_reference(void **state)
{
    (void)state;
    follows_the_reference(8, 4, 8);
}

static void pipelines_of_two_stages_follow_the_reference(void **state)
{
    (void)state;
    follows_the_reference(4, 2, 8);
}

static void fewer_micro_batches_than_stages_follow_the_reference(void **state)
{
    (void)state;
    follows_the_reference(4, 4, 2);
    follows_the_reference(4, 4, 1);
}

static void pipeline_of_one_stage_follows_the_reference(void **state)
{
    (void)state;
    follows_the_reference(1, 1, 4);
}

static uint64_t digest_after(const struct pipeline_config *cfg, uint32_t steps)
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
    struct pipeline_config other = config;
    uint64_t digest = digest_after(&config, 3);
    assert_true(digest == digest_after(&config, 3));
    assert_false(digest == digest_after(&config, 4));
    other.seed++;
    assert_false(digest == digest_after(&other, 3));
}

static void pipeline_that_cannot_be_is_refused(void **state)
{
    (void)state;
    struct pipeline_config cfg = config;
    assert_null(pipeline_refuses(&cfg, 8, 1437));
    assert_non_null(pipeline_refuses(&cfg, 6, 1437));
    assert_non_null(pipeline_refuses(&cfg, 8, 63));
    cfg.micro = 16;
    cfg.batch = 48;
    assert_non_null(pipeline_refuses(&cfg, 8, 1437));
    cfg = config;
    cfg.layers = 6;
    assert_non_null(pipeline_refuses(&cfg, 8, 1437));
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
        cmocka_unit_test(pipelines_of_four_stages_follow_the_reference),
        cmocka_unit_test(pipelines_of_two_stages_follow_the_reference),
        cmocka_unit_test(fewer_micro_batches_than_stages_follow_the_reference),
        cmocka_unit_test(pipeline_of_one_stage_follows_the_reference),
        cmocka_unit_test(digest_depends_on_seed_and_steps_alone),
        cmocka_unit_test(pipeline_that_cannot_be_is_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
