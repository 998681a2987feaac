/* SPDX-License-Identifier: Apache-2.0
 * digits_reference.h - the training of examples/digits in plain C on the host, written
 * from its description and not from its kernels, to hold those against.
 */
#ifndef DIGITS_REFERENCE_H
#define DIGITS_REFERENCE_H

#include "trainer.h"

struct reference {
    struct trainer_config cfg; /* of a world of one */
    const struct data *data;   /* borrowed: outlives the reference */
    double *w, *v;             /* owned: weights as in B_WEIGHTS, and their moments */
    uint32_t steps;
    double loss; /* mean of the last batch */
};

/* Starts from `weights`, as trainer_weights gives them. */
void reference_init(struct reference *r,
                    const struct trainer_config *cfg,
                    const struct data *data,
                    const float *weights);
void reference_fini(struct reference *r);
void reference_step(struct reference *r);
double reference_accuracy(const struct reference *r);

#endif
