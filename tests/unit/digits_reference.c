/* SPDX-License-Identifier: Apache-2.0
 * digits_reference.c - see digits_reference.h.
 */
#include "digits_reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HIDDEN_MAX = 512, IN = DATA_PIXELS, OUT = DATA_CLASSES };

struct net { /* views into one block of weights */
    double *w1, *b1, *w2, *b2;
};

static size_t nweights(const struct reference *r)
{
    return r->cfg.hidden * (size_t)(IN + 1 + OUT) + OUT;
}

static struct net net_of(const struct reference *r, double *w)
{
    size_t hidden = r->cfg.hidden;
    double *w2 = w + hidden * (IN + 1);
    return (struct net){w, w + hidden * IN, w2, w2 + hidden * OUT};
}

void reference_init(struct reference *r,
                    const struct trainer_config *cfg,
                    const struct data *data,
                    const float *weights)
{
    *r = (struct reference){.cfg = *cfg, .data = data};
    r->w = calloc(nweights(r), sizeof *r->w);
    r->v = calloc(nweights(r), sizeof *r->v);
    for (size_t k = 0; k < nweights(r); k++)
        r->w[k] = (double)weights[k];
}

void reference_fini(struct reference *r)
{
    free(r->w);
    free(r->v);
}

static void forward(const struct reference *r, const float *x, double *h, double p[OUT])
{
    struct net n = net_of(r, r->w);
    for (size_t j = 0; j < r->cfg.hidden; j++) {
        h[j] = n.b1[j];
        for (size_t k = 0; k < IN; k++)
            h[j] += (double)x[k] * n.w1[k * r->cfg.hidden + j];
        h[j] = fmax(h[j], 0);
    }
    double sum = 0, top = -INFINITY;
    for (size_t c = 0; c < OUT; c++) {
        p[c] = n.b2[c];
        for (size_t j = 0; j < r->cfg.hidden; j++)
            p[c] += h[j] * n.w2[c * r->cfg.hidden + j];
        top = fmax(top, p[c]);
    }
    for (size_t c = 0; c < OUT; c++)
        sum += p[c] = exp(p[c] - top);
    for (size_t c = 0; c < OUT; c++)
        p[c] /= sum;
}

static void backward(const struct reference *r,
                     const float *x,
                     int32_t label,
                     struct net g,
                     double *ret_loss)
{
    double h[HIDDEN_MAX], p[OUT];
    struct net n = net_of(r, r->w);
    size_t hidden = r->cfg.hidden;
    forward(r, x, h, p);
    *ret_loss -= log(p[label]) / r->cfg.batch;
    p[label] -= 1;
    for (size_t c = 0; c < OUT; c++) {
        g.b2[c] += p[c] / r->cfg.batch;
        for (size_t j = 0; j < hidden; j++)
            g.w2[c * hidden + j] += p[c] * h[j] / r->cfg.batch;
    }
    for (size_t j = 0; j < hidden; j++) {
        double d = 0;
        for (size_t c = 0; c < OUT && h[j] > 0; c++)
            d += p[c] * n.w2[c * hidden + j];
        g.b1[j] += d / r->cfg.batch;
        for (size_t k = 0; k < IN; k++)
            g.w1[k * hidden + j] += d * (double)x[k] / r->cfg.batch;
    }
}

void reference_step(struct reference *r)
{
    const struct rows *rows = &r->data->train;
    uint32_t per_epoch = rows->n / r->cfg.batch;
    uint32_t *order = malloc(rows->n * sizeof *order);
    double *g = calloc(nweights(r), sizeof *g);
    data_shuffle(order, rows->n, r->cfg.seed, r->steps / per_epoch);
    r->loss = 0;
    for (uint32_t b = 0; b < r->cfg.batch; b++) {
        uint32_t id = order[r->steps % per_epoch * r->cfg.batch + b];
        const float *x = rows->pixels + id * (size_t)IN;
        backward(r, x, rows->labels[id], net_of(r, g), &r->loss);
    }
    for (size_t k = 0; k < nweights(r); k++) {
        r->v[k] = (double)r->cfg.momentum * r->v[k] + g[k];
        r->w[k] -= (double)r->cfg.lr * r->v[k];
    }
    r->steps++;
    free(order);
    free(g);
}

double reference_accuracy(const struct reference *r)
{
    const struct rows *rows = &r->data->test;
    double h[HIDDEN_MAX], p[OUT];
    uint32_t hits = 0;
    for (uint32_t i = 0; i < rows->n; i++) {
        int32_t best = 0;
        forward(r, rows->pixels + i * (size_t)IN, h, p);
        for (int32_t c = 1; c < OUT; c++)
            best = p[c] > p[best] ? c : best;
        hits += best == rows->labels[i];
    }
    return (double)hits / rows->n;
}
