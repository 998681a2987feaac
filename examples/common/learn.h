/* SPDX-License-Identifier: Apache-2.0
 * learn.h - what is the same in all programs that learn to read the digits: options, ranks, data, the watch, the output.
 *
 *     learn_begin(&l, own, n, argc, argv);     options, who this rank is, the data
 *     learn_start(&l, NULL);                   the watch
 *     ... the device ...
 *     learn_grid(&l, &grid, 1);                the communicators
 *     while (learn_step(&l)) { ... if (learn_is_due(&l)) learn_loss(&l, loss); }
 *     learn_evaluate(&l);
 *     ... accuracy, digest ...
 *     learn_leave(&l);                         before the communicators go
 *     learn_end(&l, accuracy, digest);
 *
 * Errors: all calls end the program through usage_error() or die().
 */
#ifndef EXAMPLE_LEARN_H
#define EXAMPLE_LEARN_H

#include "data.h"
#include "digests.h"
#include "grid.h"
#include "meet.h"
#include "watch.h"

struct learn {
    uint32_t steps; /* to do; set before learn_begin: the default */
    uint32_t step;  /* the one that is being done, from 1 */
    uint32_t log_every;
    struct meet meet;
    struct data data; /* owned */
    struct watch watch;
    struct digests digests;
    char path[PATH_MAX]; /* of the data */
};

/* `own`: the options that this program has beside those of all; they are set as options_parse says. */
void learn_begin(
    struct learn *l, const struct option_spec *own, size_t n, int argc, char **argv);

/* Ends the program when there is a reason why it cannot learn in this world. */
void learn_start(struct learn *l, const char *why_not);

/* The communicator of all ranks, or with those of a grid. Collective; the caller owns them. */
ncclComm_t learn_join(struct learn *l);
void learn_grid(struct learn *l, struct grid *grid, uint32_t nmodel);

/* Begins the next step; false when all are done. */
bool learn_step(struct learn *l);
/* Is the loss of this step to be printed? The same in all ranks. Rank 0 prints it. */
bool learn_is_due(const struct learn *l);
void learn_loss(const struct learn *l, float loss);

void learn_evaluate(struct learn *l);
void learn_leave(struct learn *l);

/* Rank 0 prints the last line. */
void learn_end(struct learn *l, double accuracy, uint64_t digest);

#endif
