/* SPDX-License-Identifier: Apache-2.0
 * cli_orders.h - what a user wants of a running job, and where to.
 */
#ifndef ORR_CLI_ORDERS_H
#define ORR_CLI_ORDERS_H

#include "cli.h"

#define ORR_IN_PHASE(phase) (1u << (unsigned)(phase))

struct orri_order {
    const char *job; /* borrowed: of the verb */
    enum orr_order kind;
    uint64_t before; /* number of the newest order before ours */
};

struct orri_target {
    char region[ORR_NAME_MAX];
    char cluster[ORR_NAME_MAX];
    char node[2 * ORR_NAME_MAX];
};

/* node:N, node:C/N, cluster:C, region:R, or a name that the tree has once. */
ORR_NODISCARD enum orr_err orri_target_parse(struct orri_cli *cli,
                                             const char *text,
                                             struct orri_target *ret,
                                             struct orr_error *err);

#endif
