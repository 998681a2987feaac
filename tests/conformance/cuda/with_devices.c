/* SPDX-License-Identifier: Apache-2.0
 * with_devices.c - run a program with emulated devices of its own: create them in a private
 * directory, set ORRERY_EMULATOR_DEVICES, and clean up when the program has ended.
 * Usage: with_devices COUNT MEBIBYTES PROGRAM [ARGUMENT ...]
 */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device_file.h"

enum { COUNT_MAX = 16 };
extern char **environ;

static int run(char **argv)
{
    pid_t pid;
    int status;
    int rc = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
    if (rc != 0) {
        fprintf(stderr, "%s: %s\n", argv[0], strerror(rc));
        return 2;
    }
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return 2;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(int argc, char **argv)
{
    char dir[] = "/dev/shm/orr-emu-XXXXXX", list[COUNT_MAX * 64] = "", path[64];
    int count = argc > 3 ? atoi(argv[1]) : 0, made = 0, code = 2;
    if (count < 1 || count > COUNT_MAX) {
        fprintf(stderr, "usage: %s COUNT MEBIBYTES PROGRAM [ARGUMENT ...]\n", argv[0]);
        return 2;
    }
    if (!mkdtemp(dir)) {
        perror(dir);
        return 2;
    }
    for (; made < count; made++) {
        uint8_t uuid[16] = {
            0xe, (uint8_t)getpid(), (uint8_t)(getpid() >> 8), [15] = (uint8_t)made};
        struct emu_error error;
        snprintf(path, sizeof path, "%s/%d", dir, made);
        if (emu_device_file_create(path,
                                   uuid,
                                   "Orrery Emulated GPU",
                                   strtoull(argv[2], NULL, 10) << 20,
                                   &error) != 0) {
            fprintf(stderr, "%s\n", error.text);
            break;
        }
        strcat(strcat(list, made ? ":" : ""), path);
    }
    if (made == count && setenv("ORRERY_EMULATOR_DEVICES", list, 1) == 0) {
        unsetenv("CUDA_VISIBLE_DEVICES");
        code = run(argv + 3);
    }
    while (made-- > 0) {
        snprintf(path, sizeof path, "%s/%d", dir, made);
        emu_device_file_remove(path, NULL);
    }
    rmdir(dir);
    return code;
}
