/* SPDX-License-Identifier: Apache-2.0
 * examples_reference.h - the training of examples/mlp and examples/pipeline in plain C
 * on the host, on one rank and in double, to hold those against.
 */
#ifndef EXAMPLES_REFERENCE_H
#define EXAMPLES_REFERENCE_H

#include "data.h"

#include <stddef.h>

enum { NET_LAYERS_MAX = 16 };

struct net { /* linear layers with relu between them, and softmax cross entropy */
    const struct data *data; /* borrowed: outlives the net */
    uint32_t nlayers, batch;
    double lr, momentum;
    uint64_t seed;
    size_t in[NET_LAYERS_MAX], out[NET_LAYERS_MAX];
    double *w[NET_LAYERS_MAX]; /* owned: [in][out], then the biases [out] */
    double *v[NET_LAYERS_MAX]; /* owned: their moments */
    uint32_t steps;
    double loss; /* mean of the last batch */
};

/* Layers sizes[0] -> sizes[1] -> ... -> sizes[nlayers], all weights 0; the caller has
 * set the fields above `in`. */
void net_init(struct net *n, const size_t *sizes);
void net_fini(struct net *n);
void net_step(struct net *n);
double net_accuracy(const struct net *n);

#endif
