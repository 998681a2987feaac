/* SPDX-License-Identifier: Apache-2.0
 * role_devices.c - see role_devices.h.
 */
#include "role_devices.h"

#include "device/device_cuda.h"
#include "device/device_emulated.h"

static enum orr_err open_emulated(const char *state_dir,
                                  uint32_t n,
                                  uint64_t memory_bytes,
                                  struct orr_device **ret_device,
                                  struct orr_error *err)
{
    const struct orr_device_emulated_config config = {
        .state_dir = state_dir, .n = n, .memory_bytes = memory_bytes};
    return orr_device_emulated_open(&config, ret_device, err);
}

/* The driver must be there now: a node that was promised GPUs must not start without them. */
static enum orr_err require_devices(struct orr_device *device, struct orr_error *err)
{
    struct orr_device_list *list = malloc(sizeof *list);
    if (!list)
        return orr_fail(err, ORR_ENOMEM, "devices: out of memory");
    enum orr_err code = device->ops->probe(device, list, err);
    free(list);
    return code;
}

enum orr_err role_devices_open(const struct orr_config_node *node,
                               const char *state_dir,
                               struct orr_device **ret_device,
                               struct orr_error *err)
{
    const struct orr_device_cuda_config cuda = {.driver = NULL};
    if (node->device_kind == ORR_DEVICES_EMULATED)
        return open_emulated(
            state_dir, node->device_count, node->device_memory_bytes, ret_device, err);
    if (node->device_kind == ORR_DEVICES_NONE)
        return open_emulated(state_dir, 0, 0, ret_device, err);
    enum orr_err code = orr_device_cuda_open(&cuda, ret_device, err);
    if (!code && node->device_kind == ORR_DEVICES_CUDA)
        code = require_devices(*ret_device, err);
    return code;
}

enum orr_err role_devices_remove(const struct orr_config_node *node,
                                 const char *state_dir,
                                 struct orr_error *err)
{
    return node->device_kind == ORR_DEVICES_EMULATED
               ? orr_device_emulated_remove(state_dir, err)
               : ORR_OK;
}
