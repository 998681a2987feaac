/* SPDX-License-Identifier: Apache-2.0
 * role_devices.h - which device edge a node's configuration means.
 */
#ifndef ORR_ROLE_DEVICES_H
#define ORR_ROLE_DEVICES_H

#include "device/device.h"
#include "device/device_port.h"
#include "device/device_watch.h"
#include "orrery/config.h"

/* Errors: as the edge's; `devices.kind: cuda` without a driver is ORR_ENODEV. */
ORR_NODISCARD enum orr_err role_devices_open(const struct orr_config_node *node,
                                             const char *state_dir,
                                             struct orr_device **ret_device,
                                             struct orr_error *err);

/* Remove what the emulated kind keeps outside the state directory. */
ORR_NODISCARD enum orr_err role_devices_remove(const struct orr_config_node *node,
                                               const char *state_dir,
                                               struct orr_error *err);

#endif
