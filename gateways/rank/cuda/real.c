/* SPDX-License-Identifier: Apache-2.0
 * real.c - find and open the driver's library, which has our own SONAME.
 *
 * ORRERY_REAL_LIBCUDA names it, or it is searched for where the loader would have looked had it
 * not found us: the search paths of the objects that are loaded (RPATH, RUNPATH, LD_LIBRARY_PATH
 * and the system's directories, as dlinfo tells them), then the places where drivers live. It is
 * opened by its path, since by its name the loader would find this library; a file that is this
 * library is passed over.
 */
#include "real.h"

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static void *library; /* never closed */

#define WRAPPED(name)       #name,
#define GATED(name, n)      #name,
#define NOTED(name, n, why) #name,
#define FORWARD(name)       #name,
static const char *const names[CALL_MAX_] = {
#include "names.def"
};
#undef WRAPPED
#undef GATED
#undef NOTED
#undef FORWARD

const char *orri_cuda_call_name(unsigned call)
{
    return call < CALL_MAX_ ? names[call] : "?";
}

/* ---- where it is ------------------------------------------------------------------- */

static bool is_this_library(const char *path)
{
    Dl_info self;
    struct stat ours, theirs;
    return dladdr(names, &self) && stat(self.dli_fname, &ours) == 0 &&
           stat(path, &theirs) == 0 && ours.st_dev == theirs.st_dev &&
           ours.st_ino == theirs.st_ino;
}

static bool try_open(const char *directory)
{
    char path[4096];
    struct stat st;
    int n = snprintf(path, sizeof path, "%s/libcuda.so.1", directory);
    if (n <= 0 || (size_t)n >= sizeof path || stat(path, &st) != 0 ||
        is_this_library(path))
        return false;
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    return library != NULL;
}

/* The directories that the loader would search on behalf of one object. */
static bool try_paths_of(void *object)
{
    Dl_serinfo size, *info;
    if (dlinfo(object, RTLD_DI_SERINFOSIZE, &size) != 0 ||
        !(info = malloc(size.dls_size)))
        return false;
    bool is_open = false;
    if (dlinfo(object, RTLD_DI_SERINFOSIZE, info) == 0 &&
        dlinfo(object, RTLD_DI_SERINFO, info) == 0)
        for (unsigned i = 0; i < info->dls_cnt && !is_open; i++)
            is_open = try_open(info->dls_serpath[i].dls_name);
    free(info);
    return is_open;
}

static bool search(void)
{
    static const char *const usual[] = {"/usr/lib/x86_64-linux-gnu",
                                        "/usr/lib64",
                                        "/usr/lib",
                                        "/usr/local/nvidia/lib64",
                                        "/usr/local/cuda/compat",
                                        "/run/nvidia/driver/usr/lib/x86_64-linux-gnu",
                                        "/usr/lib/wsl/lib"};
    bool is_open = false;
    void *program = dlopen(NULL, RTLD_NOW);
    struct link_map *map = NULL;
    if (program && dlinfo(program, RTLD_DI_LINKMAP, &map) == 0)
        for (; map && !is_open; map = map->l_next) {
            void *object = dlopen(map->l_name, RTLD_NOW | RTLD_NOLOAD);
            is_open = object && try_paths_of(object);
            if (object)
                dlclose(object);
        }
    for (size_t i = 0; i < sizeof usual / sizeof usual[0] && !is_open; i++)
        is_open = try_open(usual[i]);
    return is_open;
}

static void open_library(void)
{
    const char *path = getenv("ORRERY_REAL_LIBCUDA");
    if (!path || !*path) {
        search();
        return;
    }
    if (!is_this_library(path))
        library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) /* the program is told CUDA_ERROR_NO_DEVICE; why, a person must read */
        fprintf(stderr,
                "orrery: ORRERY_REAL_LIBCUDA=%s is not the driver's library: %s\n",
                path,
                is_this_library(path) ? "it is the one that stands before it"
                                      : dlerror());
}

/* ---- its addresses ------------------------------------------------------------------- */

static CUresult no_driver(void)
{
    return CUDA_ERROR_NO_DEVICE;
}

static CUresult no_such_call(void)
{
    return CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER;
}

orri_cuda_call_f orri_cuda_resolve(unsigned call)
{
    orri_cuda_call_f f = no_driver;
    pthread_once(&once, open_library);
    if (library) {
        void *symbol = dlsym(library, names[call]);
        f = no_such_call;
        if (symbol)
            memcpy(&f, &symbol, sizeof f);
    }
    atomic_store_explicit(&orri_cuda_slots[call], f, memory_order_relaxed);
    return f;
}

int orri_cuda_is_driver(const void *base)
{
    Dl_info info;
    void *symbol = library ? dlsym(library, "cuInit") : NULL;
    return symbol && dladdr(symbol, &info) && info.dli_fbase == base;
}

/* For the library that stands before NCCL: a call of the driver itself. */
ORRI_EXPORT void *orri_cuda_real_call(const char *name);
void *orri_cuda_real_call(const char *name)
{
    pthread_once(&once, open_library);
    return library ? dlsym(library, name) : NULL;
}

/* ---- ours for theirs ------------------------------------------------------------------ */

static struct pair {
    const void *real;
    void *ours;
} pairs[CALL_MAX_]; /* sorted by real */
static unsigned n_pairs;
static pthread_once_t pairs_once = PTHREAD_ONCE_INIT;

static int compare(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    return x->real < y->real ? -1 : x->real > y->real;
}

/* Two names of one address (the emulator's _ptsz) go to whichever comes first: the same call. */
static void make_pairs(void)
{
    Dl_info info;
    void *self =
        dladdr(names, &info) ? dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD) : NULL;
    pthread_once(&once, open_library);
    for (unsigned i = 0; self && library && i < CALL_MAX_; i++) {
        void *real = dlsym(library, names[i]), *ours = dlsym(self, names[i]);
        if (real && ours)
            pairs[n_pairs++] = (struct pair){real, ours};
    }
    qsort(pairs, n_pairs, sizeof pairs[0], compare);
}

void *orri_cuda_ours(const void *real)
{
    pthread_once(&pairs_once, make_pairs);
    struct pair key = {real, NULL};
    struct pair *p = bsearch(&key, pairs, n_pairs, sizeof pairs[0], compare);
    return p ? p->ours : NULL;
}

int orri_cuda_is_known(const char *base)
{
    size_t n = strlen(base);
    for (unsigned i = 0; i < CALL_MAX_; i++)
        if (strncmp(names[i], base, n) == 0 &&
            (names[i][n] == '\0' || names[i][n] == '_'))
            return 1;
    return 0;
}
