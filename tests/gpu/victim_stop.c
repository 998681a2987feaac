/* SPDX-License-Identifier: Apache-2.0
 * victim_stop.c - victim_stop.h.
 */
#include "victim_stop.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "core/part.h"
#include "cuda/suspend.h"

enum { STOP_MS = 90000 };

static const struct orri_part *part;
static void (*last_account)(struct orri_cuda_account *);
static struct orri_arena arena;

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint64_t deadline(void)
{
    return now_us() / 1000 + STOP_MS;
}

static bool find_part(void)
{
    const struct orri_part *(*get)(void) = NULL;
    void *symbol = dlsym(RTLD_DEFAULT, "orri_cuda_part");
    void *account = dlsym(RTLD_DEFAULT, "orri_cuda_last_account");
    memcpy(&get, &symbol, sizeof symbol);
    memcpy(&last_account, &account, sizeof account);
    part = get && last_account ? get() : NULL;
    return part != NULL;
}

static bool arena_open(uint64_t bytes)
{
    arena =
        (struct orri_arena){.fd = memfd_create("victim", MFD_CLOEXEC), .bytes = bytes};
    if (arena.fd < 0 || bytes == 0 || ftruncate(arena.fd, (off_t)bytes) != 0)
        return false;
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, arena.fd, 0);
    arena.at = at == MAP_FAILED ? NULL : at;
    return arena.at != NULL;
}

static void arena_close(void)
{
    if (arena.at)
        munmap(arena.at, arena.bytes);
    if (arena.fd >= 0)
        close(arena.fd);
    arena = (struct orri_arena){.fd = -1};
}

static void answer(char *line, size_t cap, const char *what, uint64_t began_us)
{
    struct orri_cuda_account a = {0};
    last_account(&a);
    snprintf(line,
             cap,
             "ok %s %llu %.3f %llu %llu %llu %llu",
             what,
             (unsigned long long)a.bytes,
             (double)(now_us() - began_us) / 1e3,
             (unsigned long long)a.drain_us,
             (unsigned long long)a.copy_us,
             (unsigned long long)a.release_us,
             (unsigned long long)a.take_us);
}

void victim_out(char *line, size_t cap)
{
    struct orr_error err = {.text = "out of host memory"};
    uint64_t began = now_us();
    if (!find_part()) {
        snprintf(line, cap, "failed: Orrery's libcuda.so.1 is not preloaded");
        return;
    }
    if (part->close(deadline(), &err) == ORR_OK) {
        if (arena_open(part->arena_bytes()) &&
            part->quiesce(&arena, deadline(), &err) == ORR_OK) {
            answer(line, cap, "out", began);
            return;
        }
        arena_close();
    }
    part->open();
    snprintf(line, cap, "failed: out: %s", err.text);
}

void victim_in(char *line, size_t cap)
{
    struct orr_error err = {0};
    uint64_t began = now_us();
    if (!part || !arena.at) {
        snprintf(line, cap, "failed: in: it is not out");
    } else if (part->resume(&arena, "", deadline(), &err) != ORR_OK) {
        snprintf(line, cap, "failed: in: %s", err.text);
    } else {
        part->open();
        answer(line, cap, "in", began);
        arena_close();
    }
}
