/* SPDX-License-Identifier: Apache-2.0
 * main.c - the one binary: the daemon, the fleet for development, the helpers that it
 * starts of itself, and the user's verbs.
 */
#include "cli/cli_main.h"
#include "dev/dev.h"
#include "device/device_cuda.h"
#include "device/device_helper.h"
#include "host.h"
#include "process/process_linux.h"
#include "sim/sim_main.h"

#include <string.h>

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    if (strcmp(verb, "host") == 0)
        return orr_host_main(argc - 1, argv + 1);
    if (strcmp(verb, "dev") == 0)
        return orr_dev_main(argc - 1, argv + 1);
    if (strcmp(verb, "sim") == 0)
        return orr_sim_main(argc - 1, argv + 1);
    if (strcmp(verb, ORR_SPAWNER_ARG) == 0)
        return orr_spawner_main(argc, argv);
    if (strcmp(verb, ORR_DEVICE_PROBE_ARG) == 0)
        return orr_device_probe_main(argc, argv);
    if (strcmp(verb, ORR_DEVICE_HELPER_ARG) == 0)
        return orr_device_helper_main(argc, argv);
    return orr_cli_main(argc, argv);
}
