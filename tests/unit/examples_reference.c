/* SPDX-License-Identifier: Apache-2.0
 * examples_reference.c - see examples_reference.h.
 */
#include "examples_reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { UNITS_MAX = 512, OUT = DATA_CLASSES };

static size_t nweights(const struct net *n, uint32_t l)
{
    return (n->in[l] + 1) * n->out[l];
}

void net_init(struct net *n, const size_t *sizes)
{
    for (uint32_t l = 0; l < n->nlayers; l++) {
        n->in[l] = sizes[l];
        n->out[l] = sizes[l + 1];
        n->w[l] = calloc(nweights(n, l), sizeof *n->w[l]);
        n->v[l] = calloc(nweights(n, l), sizeof *n->v[l]);
    }
}

void net_fini(struct net *n)
{
    for (uint32_t l = 0; l < n->nlayers; l++) {
        free(n->w[l]);
        free(n->v[l]);
    }
}

/* values[l] become the inputs of layer l; values[nlayers] the probabilities. */
static void forward(const struct net *n, const float *x, double (*values)[UNITS_MAX])
{
    for (size_t k = 0; k < n->in[0]; k++)
        values[0][k] = (double)x[k];
    for (uint32_t l = 0; l < n->nlayers; l++) {
        size_t in = n->in[l], out = n->out[l];
        for (size_t c = 0; c < out; c++) {
            double s = n->w[l][in * out + c];
            for (size_t k = 0; k < in; k++)
                s += values[l][k] * n->w[l][k * out + c];
            values[l + 1][c] = l + 1 < n->nlayers ? fmax(s, 0) : s;
        }
    }
    double *p = values[n->nlayers], sum = 0, top = -INFINITY;
    for (size_t c = 0; c < OUT; c++)
        top = fmax(top, p[c]);
    for (size_t c = 0; c < OUT; c++)
        sum += p[c] = exp(p[c] - top);
    for (size_t c = 0; c < OUT; c++)
        p[c] /= sum;
}

static void backward(struct net *n, const float *x, int32_t label, double **g)
{
    double values[NET_LAYERS_MAX + 1][UNITS_MAX], d[UNITS_MAX], dx[UNITS_MAX];
    forward(n, x, values);
    memcpy(d, values[n->nlayers], OUT * sizeof *d);
    n->loss -= log(d[label]) / n->batch;
    d[label] -= 1;
    for (uint32_t l = n->nlayers; l-- > 0;) {
        size_t in = n->in[l], out = n->out[l];
        for (size_t c = 0; c < out; c++)
            g[l][in * out + c] += d[c] / n->batch;
        for (size_t k = 0; k < in; k++) {
            dx[k] = 0;
            for (size_t c = 0; c < out; c++) {
                g[l][k * out + c] += values[l][k] * d[c] / n->batch;
                dx[k] += values[l][k] > 0 ? d[c] * n->w[l][k * out + c] : 0;
            }
        }
        memcpy(d, dx, sizeof d);
    }
}

void net_step(struct net *n)
{
    const struct rows *rows = &n->data->train;
    uint32_t per_epoch = rows->n / n->batch;
    uint32_t *order = malloc(rows->n * sizeof *order);
    double *g[NET_LAYERS_MAX];
    for (uint32_t l = 0; l < n->nlayers; l++)
        g[l] = calloc(nweights(n, l), sizeof *g[l]);
    data_shuffle(order, rows->n, n->seed, n->steps / per_epoch);
    n->loss = 0;
    for (uint32_t b = 0; b < n->batch; b++) {
        uint32_t id = order[n->steps % per_epoch * n->batch + b];
        backward(n, rows->pixels + id * (size_t)DATA_PIXELS, rows->labels[id], g);
    }
    for (uint32_t l = 0; l < n->nlayers; l++) {
        for (size_t k = 0; k < nweights(n, l); k++) {
            n->v[l][k] = n->momentum * n->v[l][k] + g[l][k];
            n->w[l][k] -= n->lr * n->v[l][k];
        }
        free(g[l]);
    }
    n->steps++;
    free(order);
}

double net_accuracy(const struct net *n)
{
    const struct rows *rows = &n->data->test;
    double values[NET_LAYERS_MAX + 1][UNITS_MAX];
    uint32_t hits = 0;
    for (uint32_t i = 0; i < rows->n; i++) {
        int32_t best = 0;
        forward(n, rows->pixels + i * (size_t)DATA_PIXELS, values);
        for (int32_t c = 1; c < OUT; c++)
            best = values[n->nlayers][c] > values[n->nlayers][best] ? c : best;
        hits += best == rows->labels[i];
    }
    return (double)hits / rows->n;
}
