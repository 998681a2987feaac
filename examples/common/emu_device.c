/* SPDX-License-Identifier: Apache-2.0
 * emu_device.c - `emu-device PATH [MIB]`: makes one emulated device, for run-local.sh. Not
 * part of the workload: under Orrery, nodes make their own.
 */
#include "device_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

int main(int argc, char **argv)
{
    struct emu_error error;
    uint8_t uuid[16];
    long mib = argc == 3 ? strtol(argv[2], NULL, 10) : 64;
    if (argc < 2 || argc > 3 || mib < 1 || mib > 1 << 20) {
        fputs("usage: emu-device PATH [MIB]   (64)\n", stderr);
        return 2;
    }
    if (getrandom(uuid, sizeof uuid, 0) != sizeof uuid)
        return 1;
    uint64_t bytes = (uint64_t)mib << 20;
    if (emu_device_file_create(argv[1], uuid, "Emulated GPU", bytes, &error) == 0)
        return 0;
    fprintf(stderr, "emu-device: %s\n", error.text);
    return 1;
}
