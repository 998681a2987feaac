/* SPDX-License-Identifier: Apache-2.0
 * test_adam.c - the adam example on worlds of 1 to 8 ranks, held against plain C in double.
 */
#include "adam.h"
#include "examples_ranks.h"
#include "orr_test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 25, HIDDEN = 24, BATCH = 64, IN = DATA_PIXELS, OUT = DATA_CLASSES };
enum { WEIGHTS = IN * HIDDEN + HIDDEN * OUT + OUT };
/* over the end of the first epoch of 22 */

static struct data data;

static const struct adam_config config = {
    .hidden = HIDDEN, .batch = BATCH, .rate = 0.003f, .keep = 0.75f, .seed = 5};

/* ---- the example ---- */

struct rank {
    struct adam adam;
    struct adam_config cfg;
    uint32_t world;
    float *first, *last; /* owned: weights before and after */
    float scales[2 * HIDDEN], running[2 * HIDDEN], loss[STEPS];
    uint64_t random[2];
    double accuracy;
    uint64_t digest;
};

static void open_rank(void *self)
{
    struct rank *r = self;
    adam_init(&r->adam, &r->cfg);
}

static float *copy_of(const struct adam *a, enum adam_buffer b, size_t n)
{
    float *copy = calloc(n, sizeof *copy);
    CU(cuMemcpyDtoH, copy, a->buffers[b], n * sizeof *copy);
    return copy;
}

static void run_rank(void *self, uint32_t rank, ncclComm_t *take_all)
{
    struct rank *r = self;
    struct grid grid;
    struct adam *a = &r->adam;
    grid_init(&grid, take_all, rank, r->world, 1);
    adam_load(a, &data, &grid);
    r->first = copy_of(a, ADAM_WEIGHTS, WEIGHTS);
    for (uint32_t n = 0; n < STEPS; n++) {
        adam_step(a);
        r->loss[n] = rank == 0 ? adam_loss(a) : 0.0f;
    }
    r->last = copy_of(a, ADAM_WEIGHTS, WEIGHTS);
    CU(cuMemcpyDtoH, r->scales, a->buffers[ADAM_SCALES], sizeof r->scales);
    CU(cuMemcpyDtoH, r->running, a->buffers[ADAM_RUNNING], sizeof r->running);
    CU(cuMemcpyDtoH, r->random, a->buffers[ADAM_RANDOM], sizeof r->random);
    r->accuracy = adam_accuracy(a);
    r->digest = adam_digest(a);
    grid_fini(&grid);
    adam_fini(a);
}

static void train(struct rank *ranks, uint32_t world)
{
    static const struct rank_work work = {open_rank, run_rank};
    void *self[RANKS_MAX];
    for (uint32_t r = 0; r < world; r++) {
        ranks[r] = (struct rank){.cfg = config, .world = world};
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

/* ---- the same in plain C ---- */

struct net {
    double w[WEIGHTS], g[WEIGHTS], m[WEIGHTS], v[WEIGHTS];
    double scales[2 * HIDDEN], dscales[2 * HIDDEN], momentum[2 * HIDDEN];
    double running[RANKS_MAX][2 * HIDDEN];
    uint64_t key[RANKS_MAX], counter;
    uint32_t order[4096], steps;
    double loss;
};

struct batch { /* of one rank */
    double x[BATCH][HIDDEN], y[BATCH][HIDDEN], mask[BATCH][HIDDEN], d[BATCH][OUT];
    double inverse[HIDDEN];
};

static const float *pixels(const struct net *n, uint32_t nth)
{
    return data.train.pixels + (size_t)n->order[nth] * IN;
}

static void normalize(struct net *n, struct batch *b, uint32_t rank, uint32_t rows)
{
    for (uint32_t c = 0; c < HIDDEN; c++) {
        double mean = 0, variance = 0, keep = (double)ADAM_KEEP;
        for (uint32_t r = 0; r < rows; r++)
            mean += b->x[r][c] / rows;
        for (uint32_t r = 0; r < rows; r++)
            variance += (b->x[r][c] - mean) * (b->x[r][c] - mean) / rows;
        double *run = n->running[rank];
        run[c] = keep * run[c] + (1 - keep) * mean;
        run[HIDDEN + c] = keep * run[HIDDEN + c] + (1 - keep) * variance;
        b->inverse[c] = 1 / sqrt(variance + 1e-5);
        for (uint32_t r = 0; r < rows; r++) {
            b->x[r][c] = (b->x[r][c] - mean) * b->inverse[c];
            double y = n->scales[c] * b->x[r][c] + n->scales[HIDDEN + c];
            b->y[r][c] = y > 0 ? y : 0;
        }
    }
}

static void drop(const struct net *n, struct batch *b, uint32_t rank, uint32_t rows)
{
    for (uint32_t i = 0; i < rows * HIDDEN; i++) {
        uint64_t state = n->key[rank] + (n->counter + i) * UINT64_C(0x9e3779b97f4a7c15);
        double drawn = (double)(data_random(&state) >> 40) * 0x1p-24;
        double mask = drawn < (double)config.keep ? 1 / (double)config.keep : 0;
        b->mask[i / HIDDEN][i % HIDDEN] = mask;
        b->y[i / HIDDEN][i % HIDDEN] *= mask;
    }
}

/* The logits become their gradient. */
static void ask(struct net *n, struct batch *b, const int32_t *label, uint32_t r)
{
    const double *w2 = n->w + IN * HIDDEN, *b2 = w2 + HIDDEN * OUT;
    double sum = 0, z[OUT];
    for (uint32_t o = 0; o < OUT; o++) {
        z[o] = b2[o];
        for (uint32_t c = 0; c < HIDDEN; c++)
            z[o] += b->y[r][c] * w2[c * OUT + o];
        sum += exp(z[o]);
    }
    n->loss += (log(sum) - z[*label]) / BATCH;
    for (uint32_t o = 0; o < OUT; o++)
        b->d[r][o] = (exp(z[o]) / sum - (o == (uint32_t)*label)) / BATCH;
}

static void
back(struct net *n, const struct batch *b, uint32_t from, uint32_t rows, uint32_t c)
{
    const double *w2 = n->w + IN * HIDDEN;
    double d[BATCH], sum = 0, sum_x = 0;
    for (uint32_t r = 0; r < rows; r++) {
        d[r] = 0;
        for (uint32_t o = 0; o < OUT; o++) {
            d[r] += b->d[r][o] * w2[c * OUT + o];
            n->g[IN * HIDDEN + c * OUT + o] += b->y[r][c] * b->d[r][o];
        }
        d[r] = b->y[r][c] > 0 ? d[r] * b->mask[r][c] : 0;
        sum += d[r];
        sum_x += d[r] * b->x[r][c];
    }
    n->dscales[c] += sum_x;
    n->dscales[HIDDEN + c] += sum;
    for (uint32_t r = 0; r < rows; r++) {
        double dz =
            n->scales[c] * b->inverse[c] * (d[r] - (sum + b->x[r][c] * sum_x) / rows);
        for (uint32_t i = 0; i < IN; i++)
            n->g[i * HIDDEN + c] += (double)pixels(n, from + r)[i] * dz;
    }
}

static void go_through(struct net *n, uint32_t rank, uint32_t from, uint32_t rows)
{
    static struct batch b;
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t c = 0; c < HIDDEN; c++) {
            b.x[r][c] = 0;
            for (uint32_t i = 0; i < IN; i++)
                b.x[r][c] += (double)pixels(n, from + r)[i] * n->w[i * HIDDEN + c];
        }
    normalize(n, &b, rank, rows);
    drop(n, &b, rank, rows);
    for (uint32_t r = 0; r < rows; r++) {
        ask(n, &b, &data.train.labels[n->order[from + r]], r);
        for (uint32_t o = 0; o < OUT; o++)
            n->g[WEIGHTS - OUT + o] += b.d[r][o];
    }
    for (uint32_t c = 0; c < HIDDEN; c++)
        back(n, &b, from, rows, c);
}

static void move(struct net *n)
{
    double a = (double)ADAM_A, b = (double)ADAM_B;
    for (uint32_t i = 0; i < WEIGHTS; i++) {
        n->m[i] = a * n->m[i] + (1 - a) * n->g[i];
        n->v[i] = b * n->v[i] + (1 - b) * n->g[i] * n->g[i];
        double m = n->m[i] / (1 - pow(a, n->steps)),
               v = n->v[i] / (1 - pow(b, n->steps));
        n->w[i] -= (double)config.rate * m / (sqrt(v) + 1e-8);
    }
    for (uint32_t i = 0; i < 2 * HIDDEN; i++) {
        n->momentum[i] = (double)ADAM_MOMENTUM * n->momentum[i] + n->dscales[i];
        n->scales[i] -= (double)ADAM_LR * n->momentum[i];
    }
}

static void net_step(struct net *n, uint32_t world)
{
    uint32_t per_epoch = data.train.n / BATCH, rows = BATCH / world;
    data_shuffle(n->order, data.train.n, config.seed, n->steps / per_epoch);
    memset(n->g, 0, sizeof n->g);
    memset(n->dscales, 0, sizeof n->dscales);
    n->loss = 0;
    for (uint32_t rank = 0; rank < world; rank++)
        go_through(n, rank, n->steps % per_epoch * BATCH + rank * rows, rows);
    n->counter += rows * HIDDEN;
    n->steps++;
    move(n);
}

/* ---- tests ---- */

static void
close_to(const char *what, const float *got, const double *want, size_t n, double by)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - want[i]) < by))
            fail_msg("%s %zu is %g, want %g", what, i, (double)got[i], want[i]);
}

static void follows_plain_c(uint32_t world)
{
    static struct rank ranks[RANKS_MAX];
    static struct net net;
    train(ranks, world);
    memset(&net, 0, sizeof net);
    for (size_t i = 0; i < WEIGHTS; i++)
        net.w[i] = (double)ranks[0].first[i];
    for (uint32_t c = 0; c < HIDDEN; c++)
        net.scales[c] = 1;
    for (uint32_t r = 0; r < world; r++) {
        net.key[r] = adam_key(config.seed, r);
        for (uint32_t c = 0; c < HIDDEN; c++)
            net.running[r][HIDDEN + c] = 1;
    }
    for (uint32_t s = 0; s < STEPS; s++) {
        net_step(&net, world);
        assert_true(fabs(net.loss - (double)ranks[0].loss[s]) < 1e-3);
    }
    for (uint32_t r = 0; r < world; r++) {
        close_to("weight", ranks[r].last, net.w, WEIGHTS, 2e-3);
        close_to("scale", ranks[r].scales, net.scales, 2 * HIDDEN, 1e-3);
        close_to("statistic", ranks[r].running, net.running[r], 2 * HIDDEN, 1e-3);
        assert_true(ranks[r].random[0] == net.key[r] &&
                    ranks[r].random[1] == net.counter);
        assert_true(ranks[r].digest == ranks[0].digest);
    }
    assert_true(ranks[0].loss[STEPS - 1] < 0.7f * ranks[0].loss[0]);
    free_ranks(ranks, world);
}

static void one_rank_follows_plain_c(void **state)
{
    (void)state;
    follows_plain_c(1);
}

static void four_ranks_follow_plain_c(void **state)
{
    (void)state;
    follows_plain_c(4);
}

static void each_rank_has_its_own_state_and_the_run_repeats(void **state)
{
    (void)state;
    static struct rank first[RANKS_MAX], again[RANKS_MAX];
    train(first, 8);
    train(again, 8);
    assert_true(first[0].digest == again[0].digest);
    for (uint32_t r = 0; r < 8; r++) {
        assert_memory_equal(
            first[r].running, again[r].running, sizeof first[r].running);
        assert_memory_equal(first[r].scales, first[0].scales, sizeof first[r].scales);
        if (r > 0) {
            assert_true(first[r].random[0] != first[0].random[0]);
            assert_memory_not_equal(
                first[r].running, first[0].running, sizeof first[r].running);
        }
    }
    free_ranks(first, 8);
    free_ranks(again, 8);
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    struct adam_config cfg = config;
    assert_null(adam_refuses(&cfg, 8, 1437));
    assert_non_null(strstr(adam_refuses(&cfg, 3, 1437), "--batch"));
    cfg.hidden = 12;
    assert_non_null(strstr(adam_refuses(&cfg, 8, 1437), "--hidden"));
    cfg = config;
    cfg.keep = 0.0f;
    assert_non_null(strstr(adam_refuses(&cfg, 8, 1437), "--keep"));
}

static int load(void **state)
{
    char err[DATA_ERR_MAX];
    (void)state;
    return data_load(&data, DIGITS_CSV, err) ? ranks_set_up() : -1;
}

static int unload(void **state)
{
    (void)state;
    data_fini(&data);
    return ranks_tear_down();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_rank_follows_plain_c),
        cmocka_unit_test(four_ranks_follow_plain_c),
        cmocka_unit_test(each_rank_has_its_own_state_and_the_run_repeats),
        cmocka_unit_test(what_cannot_be_is_refused),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
