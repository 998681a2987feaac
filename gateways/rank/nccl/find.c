/* SPDX-License-Identifier: Apache-2.0
 * find.c - where the real libnccl.so.2 is (real.h).
 *
 * dlopen("libnccl.so.2") would return this library, as it has that SONAME: so the file is looked for the way the dynamic linker
 * would have, and named by its path.  PyTorch's wheels find theirs by the DT_RPATH of libtorch_cuda.so, hence the loaded objects.
 */
#include "real.h"

#include <dlfcn.h>
#include <elf.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char soname[] = "libnccl.so.2";

struct search {
    char *path; /* of what was found; "" until then */
    size_t cap;
    struct stat self;
};

static bool try_file(struct search *s, const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0 || !S_ISREG(st.st_mode) ||
        (st.st_dev == s->self.st_dev && st.st_ino == s->self.st_ino))
        return false;
    return snprintf(s->path, s->cap, "%s", path) < (int)s->cap;
}

/* One directory of a list; $ORIGIN is the directory of the object that has the list. */
static bool try_directory(struct search *s,
                          const char *dir,
                          size_t len,
                          const char *origin,
                          size_t origin_len)
{
    char path[PATH_MAX];
    size_t at = 0;

    while (len > 0 && at < sizeof path) {
        size_t skip = len >= 7 && strncmp(dir, "$ORIGIN", 7) == 0     ? 7
                      : len >= 9 && strncmp(dir, "${ORIGIN}", 9) == 0 ? 9
                                                                      : 0;
        if (skip)
            at += (size_t)snprintf(
                path + at, sizeof path - at, "%.*s", (int)origin_len, origin);
        else
            path[at++] = *dir;
        skip = skip ? skip : 1;
        dir += skip;
        len -= skip;
    }
    if (at == 0 || at + sizeof soname + 1 > sizeof path)
        return false;
    snprintf(path + at, sizeof path - at, "/%s", soname);
    return try_file(s, path);
}

static bool try_list(struct search *s, const char *list, const char *object)
{
    const char *slash = object ? strrchr(object, '/') : NULL;
    size_t origin_len = slash ? (size_t)(slash - object) : 0;

    for (const char *end; list && *list; list = *end ? end + 1 : end) {
        end = strchrnul(list, ':');
        if (try_directory(s, list, (size_t)(end - list), object, origin_len))
            return true;
    }
    return false;
}

/* The string table's address: glibc has relocated it, except where that memory is read-only. */
static const char *strings_of(const struct dl_phdr_info *info, ElfW(Addr) table)
{
    return (const char *)(table < info->dlpi_addr ? table + info->dlpi_addr : table);
}

static int try_object(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct search *s = arg;
    const ElfW(Dyn) *dynamic = NULL;
    const char *strings = NULL, *lists[2] = {NULL, NULL};
    char program[PATH_MAX];
    const char *name = info->dlpi_name;
    bool needs = false;
    ssize_t n;

    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
            dynamic = (const void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    for (const ElfW(Dyn) *d = dynamic; d && d->d_tag != DT_NULL; d++)
        if (d->d_tag == DT_STRTAB)
            strings = strings_of(info, d->d_un.d_ptr);
    for (const ElfW(Dyn) *d = dynamic; strings && d->d_tag != DT_NULL; d++) {
        if (d->d_tag == DT_NEEDED)
            needs = needs || strcmp(strings + d->d_un.d_val, soname) == 0;
        if (d->d_tag == DT_RPATH)
            lists[0] = strings + d->d_un.d_val;
        if (d->d_tag == DT_RUNPATH)
            lists[1] = strings + d->d_un.d_val;
    }
    if (!needs)
        return 0;
    if (!name[0] && (n = readlink("/proc/self/exe", program, sizeof program - 1)) > 0) {
        program[n] = '\0';
        name = program;
    }
    return try_list(s, lists[0], name) || try_list(s, lists[1], name);
}

bool orri_real_find(char *path, size_t cap)
{
    static const char usual[] = "/usr/local/cuda/lib64:/usr/local/cuda/lib:"
#ifdef __x86_64__
                                "/usr/lib/x86_64-linux-gnu:/lib/x86_64-linux-gnu:"
#elif defined(__aarch64__)
                                "/usr/lib/aarch64-linux-gnu:/lib/aarch64-linux-gnu:"
#endif
                                "/usr/local/lib:/usr/lib64:/usr/lib:/lib64:/lib";
    const char *named = getenv("ORRERY_REAL_LIBNCCL");
    struct search s = {.path = path, .cap = cap};
    Dl_info self;

    if (!dladdr((void *)(uintptr_t)orri_real_find, &self) ||
        stat(self.dli_fname, &s.self) < 0)
        s.self = (struct stat){.st_dev = 0};
    if (named && named[0])
        return try_file(&s, named);
    return try_list(&s, getenv("LD_LIBRARY_PATH"), NULL) ||
           dl_iterate_phdr(try_object, &s) != 0 || try_list(&s, usual, NULL);
}
