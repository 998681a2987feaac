/* SPDX-License-Identifier: Apache-2.0
 * device_lib.c - device_lib.h.
 */
#include "device_lib.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The directory of this program's directory. */
static size_t install_dir(char exe[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", exe, PATH_MAX - 1);
    for (int up = 0; up < 2 && n > 0; up++) {
        char *slash = memrchr(exe, '/', (size_t)n);
        n = slash ? slash - exe : 0;
    }
    return n > 0 ? (size_t)n : 0;
}

char *orr_device_lib(const char *name)
{
    char exe[PATH_MAX], *path = NULL;
    const char *dir = getenv("ORRERY_LIB");
    int n = dir && dir[0] == '/'
                ? asprintf(&path, "%s/%s", dir, name)
                : asprintf(&path, "%.*s/lib/%s", (int)install_dir(exe), exe, name);
    return n >= 0 ? path : NULL;
}

char *orr_device_preload(void)
{
    char *cuda = orr_device_lib("rank/libcuda.so.1"),
         *nccl = orr_device_lib("rank/libnccl.so.2"), *list = NULL;
    bool is_there = cuda && nccl && access(cuda, R_OK) == 0 && access(nccl, R_OK) == 0;
    if (is_there && asprintf(&list, "%s:%s", cuda, nccl) < 0)
        list = NULL;
    free(cuda);
    free(nccl);
    return list;
}
