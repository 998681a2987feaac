/* SPDX-License-Identifier: Apache-2.0
 * suite_devices_emulated.c - emulated devices for one run of the suite, as files of a
 * directory that goes with them.
 */
#include "device_file.h"
#include "suite_devices.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DEVICES_MAX = 8, DEVICE_BYTES = 256 << 20 };

static char directory[] = "/dev/shm/nccl-conformance-XXXXXX";
static char paths[DEVICES_MAX][64];
static int made;

int suite_devices_make(int wanted)
{
    char list[sizeof paths + DEVICES_MAX] = "";
    struct emu_error error;

    if (!mkdtemp(directory))
        return 0;
    for (; made < wanted && made < DEVICES_MAX; made++) {
        uint8_t uuid[16] = {0x0e, (uint8_t)made};
        snprintf(paths[made], sizeof paths[made], "%s/gpu%d", directory, made);
        if (emu_device_file_create(
                paths[made], uuid, "Emulated device", DEVICE_BYTES, &error) != 0) {
            fprintf(stderr, "%s\n", error.text);
            break;
        }
        strcat(strcat(list, made ? ":" : ""), paths[made]);
    }
    return setenv("ORRERY_EMULATOR_DEVICES", list, 1) == 0 ? made : 0;
}

void suite_devices_remove(void)
{
    while (made > 0)
        unlink(paths[--made]);
    rmdir(directory);
}

void suite_devices_enter(int rank)
{
    (void)rank;
}
