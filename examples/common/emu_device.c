/* SPDX-License-Identifier: Apache-2.0
 * emu_device.c - `emu-device PATH [MIB]` makes one emulated device, for run-local.sh; `emu-device --free PATH...` says how many
 * bytes are free on some together. Not part of the workload: under Orrery, nodes make their own.
 */
#include "device_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static int print_free(char **paths)
{
    unsigned long long sum = 0;
    for (; *paths; paths++) {
        struct emu_device_info info;
        struct emu_error error;
        if (emu_device_file_info(*paths, &info, &error) != 0) {
            fprintf(stderr, "emu-device: %s\n", error.text);
            return 1;
        }
        sum += info.free_bytes;
    }
    printf("%llu\n", sum);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--free") == 0)
        return print_free(argv + 2);
    struct emu_error error;
    uint8_t uuid[16];
    long mib = argc == 3 ? strtol(argv[2], NULL, 10) : 64;
    if (argc < 2 || argc > 3 || mib < 1 || mib > 1 << 20) {
        fputs("usage: emu-device PATH [MIB]   (64), or --free PATH...\n", stderr);
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
