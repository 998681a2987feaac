/* SPDX-License-Identifier: Apache-2.0
 * coverage.c - see coverage.h. The ranks append lines "CALL ok|error" to one file.
 */
#include "coverage.h"

#include "orrery/gpu_abi.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char variable[] = "NCCL_CONFORMANCE_COVERAGE";

/* These cannot fail, and these cannot succeed: the emulator does not have them. */
static const char *const never_fail[] = {"ncclGroupStart", "ncclResetDebugInit", NULL};
static const char *const never_succeed[] = {"ncclCommShrink",
                                            "ncclCommRevoke",
                                            "ncclCommWindowRegister",
                                            "ncclCommWindowDeregister",
                                            "ncclGroupSimulateEnd",
                                            NULL};

bool coverage_begin(void)
{
    char path[] = "/tmp/nccl-coverage-XXXXXX";
    int fd = mkstemp(path);

    if (fd < 0)
        return false;
    close(fd);
    return setenv(variable, path, 1) == 0;
}

void coverage_end(void)
{
    const char *path = getenv(variable);

    if (path)
        unlink(path);
}

bool coverage_note(const char *call, bool is_error_case)
{
    static _Atomic unsigned noted[128]; /* what this process has written already */
    const char *path = getenv(variable);
    char text[96];
    unsigned hash = 5381;
    int fd, n = snprintf(
                text, sizeof text, "%s %s\n", call, is_error_case ? "error" : "ok");
    bool ok;

    for (const char *c = text; *c; c++)
        hash = hash * 33 + (unsigned char)*c;
    if (!path || atomic_exchange(&noted[hash % 128], hash) == hash)
        return true;
    fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    ok = fd >= 0 && write(fd, text, (size_t)n) == n;
    if (fd >= 0)
        close(fd);
    return ok;
}

static bool is_in(const char *const *list, const char *name)
{
    while (*list && strcmp(*list, name) != 0)
        list++;
    return *list != NULL;
}

static char *read_notes(void)
{
    const char *path = getenv(variable);
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    struct stat st;
    char *text = NULL;
    ssize_t n;

    if (fd >= 0 && fstat(fd, &st) == 0 && (text = malloc((size_t)st.st_size + 2))) {
        text[0] = '\n';
        n = read(fd, text + 1, (size_t)st.st_size);
        text[n > 0 ? n + 1 : 1] = '\0';
    }
    if (fd >= 0)
        close(fd);
    return text;
}

static int check_call(const char *notes,
                      const char *call,
                      const char *how,
                      const char *const *except)
{
    char line[96];

    snprintf(line, sizeof line, "\n%s %s\n", call, how);
    if (is_in(except, call) || strstr(notes, line))
        return 0;
    fprintf(stderr, "%s: no case in which it returns %s\n", call, how);
    return 1;
}

int coverage_missing(void)
{
    char command[512], line[512], call[64], *notes = read_notes();
    const char *library =
        getenv("ORRERY_REAL_LIBNCCL"); /* if another stands before it */
    Dl_info info;
    FILE *symbols = NULL;
    int missing = 0, calls = 0;

    if (!library && dladdr((void *)(uintptr_t)ncclGetVersion, &info))
        library = info.dli_fname;
    if (notes && library &&
        snprintf(command, sizeof command, "nm -D --defined-only '%s'", library) <
            (int)sizeof command)
        symbols = popen(command, "r");
    while (symbols && fgets(line, sizeof line, symbols)) {
        if (sscanf(line, "%*s T %63s", call) != 1 || strncmp(call, "nccl", 4) != 0)
            continue;
        calls++;
        missing += check_call(notes, call, "ok", never_succeed);
        missing += check_call(notes, call, "error", never_fail);
    }
    if (symbols)
        pclose(symbols);
    free(notes);
    return calls > 0 ? missing : -1;
}
