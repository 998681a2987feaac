/* SPDX-License-Identifier: Apache-2.0
 * host_config.h - what the files of the host configuration call of each other.
 */
#ifndef ORR_HOST_CONFIG_H
#define ORR_HOST_CONFIG_H

#include "orrery/config.h"

/* ORR_EINVAL unless endpoint is ipc:///PATH or tcp://HOST:PORT. */
ORR_NODISCARD enum orr_err orri_config_endpoint(const struct orr_host_config *config,
                                                const char *path,
                                                const char *endpoint,
                                                struct orr_error *err);

/* Check the region role's ledger and fill what follows from its voters. */
ORR_NODISCARD enum orr_err orri_config_ledger(struct orr_host_config *config,
                                              struct orr_error *err);

/* The hosts of the cluster's region; after orri_config_ledger. */
ORR_NODISCARD enum orr_err orri_config_regions(struct orr_host_config *config,
                                               struct orr_error *err);

/* Fill and check where checkpoints go. */
ORR_NODISCARD enum orr_err orri_config_store(struct orr_host_config *config,
                                             struct orr_error *err);

#endif
