/* SPDX-License-Identifier: Apache-2.0
 * victim.c - both sides of victim.h.
 */
#include "victim.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "orrery/gpu_abi.h"

#include "victim_memory.h"
#include "victim_stop.h"

extern char **environ;

/* ---- the child ------------------------------------------------------------------------ */

static const char ptx[] = ".version 7.0\n"
                          ".target sm_75\n"
                          ".address_size 64\n"
                          ".visible .entry add_one(.param .u64 at, .param .u32 n)\n"
                          "{\n"
                          "    .reg .pred %p<2>;\n"
                          "    .reg .b32 %r<8>;\n"
                          "    .reg .b64 %rd<5>;\n"
                          "    ld.param.u64 %rd1, [at];\n"
                          "    ld.param.u32 %r1, [n];\n"
                          "    mov.u32 %r2, %ctaid.x;\n"
                          "    mov.u32 %r3, %ntid.x;\n"
                          "    mov.u32 %r4, %tid.x;\n"
                          "    mad.lo.s32 %r5, %r2, %r3, %r4;\n"
                          "    setp.ge.u32 %p1, %r5, %r1;\n"
                          "    @%p1 bra DONE;\n"
                          "    mul.wide.u32 %rd2, %r5, 4;\n"
                          "    add.s64 %rd3, %rd1, %rd2;\n"
                          "    ld.global.u32 %r6, [%rd3];\n"
                          "    add.s32 %r7, %r6, 1;\n"
                          "    st.global.u32 [%rd3], %r7;\n"
                          "DONE:\n"
                          "    ret;\n"
                          "}\n"
                          ".visible .entry wait(.param .u64 ns)\n"
                          "{\n"
                          "    .reg .pred %p<2>;\n"
                          "    .reg .b64 %rd<5>;\n"
                          "    ld.param.u64 %rd1, [ns];\n"
                          "    mov.u64 %rd2, %globaltimer;\n"
                          "AGAIN:\n"
                          "    mov.u64 %rd3, %globaltimer;\n"
                          "    sub.s64 %rd4, %rd3, %rd2;\n"
                          "    setp.lt.u64 %p1, %rd4, %rd1;\n"
                          "    @%p1 bra AGAIN;\n"
                          "    ret;\n"
                          "}\n";

enum { WORDS_A_BLOCK = 256, SAMPLES = 64 };

struct work {
    CUdeviceptr at;
    uint64_t words;
    uint32_t steps;
    CUstream stream;
    CUfunction add_one, wait;
    void *graph; /* of one step, or NULL */
};

#define CU(call, ...) must(#call, call(__VA_ARGS__))
static void must(const char *call, CUresult rc)
{
    const char *name = "?";
    if (rc == CUDA_SUCCESS)
        return;
    if (rc == CUDA_ERROR_NOT_SUPPORTED) {
        puts("unsupported");
        _exit(VICTIM_UNSUPPORTED);
    }
    cuGetErrorName(rc, &name);
    fprintf(stderr, "victim: %s: %s\n", call, name);
    printf("failed: %s: %s\n", call, name);
    fflush(stdout);
    _exit(1);
}

/* One to every word, in pieces that a 32-bit index can name. */
static void launch_step(struct work *w)
{
    const uint64_t piece = UINT64_C(1) << 30;
    for (uint64_t first = 0; first < w->words; first += piece) {
        uint64_t left = w->words - first;
        uint32_t n = (uint32_t)(left < piece ? left : piece);
        CUdeviceptr at = w->at + first * 4;
        CU(cuLaunchKernel,
           w->add_one,
           (n + WORDS_A_BLOCK - 1) / WORDS_A_BLOCK,
           1,
           1,
           WORDS_A_BLOCK,
           1,
           1,
           0,
           w->stream,
           (void *[]){&at, &n},
           NULL);
    }
}

static void draw_step(struct work *w)
{
    CU(victim_graph_begin, w->stream);
    launch_step(w);
    CU(victim_graph_end, w->stream, &w->graph);
}

static void set_up(struct work *w, size_t mib, enum victim_kind kind)
{
    CUdevice device;
    CUcontext context;
    CUmodule module;
    *w = (struct work){.words = (uint64_t)mib << 18};
    CU(cuInit, 0);
    CU(cuDeviceGet, &device, 0);
    CU(cuDevicePrimaryCtxRetain, &context, device);
    CU(cuCtxSetCurrent, context);
    CU(cuStreamCreate, &w->stream, CU_STREAM_NON_BLOCKING);
    CU(cuModuleLoadData, &module, ptx);
    CU(cuModuleGetFunction, &w->add_one, module, "add_one");
    CU(cuModuleGetFunction, &w->wait, module, "wait");
    CU(victim_memory_get, kind, device, w->words * 4, w->stream, &w->at);
    CU(cuMemsetD32, w->at, 0, w->words);
    CU(cuCtxSynchronize);
    if (kind == VICTIM_GRAPH)
        draw_step(w);
}

static void step(struct work *w)
{
    if (w->graph)
        CU(victim_graph_launch, w->graph, w->stream);
    else
        launch_step(w);
    CU(cuStreamSynchronize, w->stream);
    w->steps++;
    for (uint64_t i = 0; i < SAMPLES; i++) {
        uint32_t word = 0;
        uint64_t at = (w->words - 1) / (SAMPLES - 1) * i;
        CU(cuMemcpyDtoH, &word, w->at + at * 4, sizeof word);
        if (word != w->steps) {
            printf("wrong: word %llu is %u after %u steps\n",
                   (unsigned long long)at,
                   word,
                   w->steps);
            fflush(stdout);
            _exit(3);
        }
    }
}

static void busy(struct work *w, uint64_t ms)
{
    uint64_t ns = ms * 1000000;
    CU(cuLaunchKernel, w->wait, 1, 1, 1, 1, 1, 1, 0, w->stream, (void *[]){&ns}, NULL);
}

static void obey(struct work *w, char *line, size_t cap)
{
    char answer[VICTIM_LINE];
    if (strcmp(line, "out\n") == 0) {
        victim_out(answer, sizeof answer);
    } else if (strcmp(line, "in\n") == 0) {
        victim_in(answer, sizeof answer);
    } else {
        if (strncmp(line, "busy ", 5) == 0)
            busy(w, strtoull(line + 5, NULL, 10));
        else
            step(w);
        line[strcspn(line, "\n")] = '\0';
        snprintf(answer, sizeof answer, "ok %.*s", (int)cap, line);
    }
    puts(answer);
}

int victim_main(size_t mib, const char *kind)
{
    struct work w;
    char line[64];
    setvbuf(stdout, NULL, _IOLBF, 0);
    set_up(&w, mib, victim_kind_of(kind));
    puts("ok ready");
    while (fgets(line, sizeof line, stdin))
        obey(&w, line, sizeof line);
    return 0; /* its memory goes with it */
}

/* ---- the parent ----------------------------------------------------------------------- */

bool victim_start(struct victim *v, size_t mib, const char *kind, int ms)
{
    int to[2], from[2];
    char size[24], name[16], self[] = "/proc/self/exe", arg[] = VICTIM_ARG;
    char *argv[] = {self, arg, size, name, NULL};
    posix_spawn_file_actions_t files;
    snprintf(size, sizeof size, "%zu", mib);
    snprintf(name, sizeof name, "%s", kind);
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0)
        return false;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, to[0], 0);
    posix_spawn_file_actions_adddup2(&files, from[1], 1);
    int rc = posix_spawn(&v->pid, self, &files, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    close(to[0]);
    close(from[1]);
    v->to = to[1];
    v->from = from[0];
    if (rc != 0)
        v->pid = 0;
    return rc == 0 && victim_answers(v, ms);
}

bool victim_tell(const struct victim *v, const char *line)
{
    return write(v->to, line, strlen(line)) == (ssize_t)strlen(line);
}

/* The victim writes one line at a time and is asked for the next only after it. */
bool victim_line(const struct victim *v, int ms, char line[VICTIM_LINE])
{
    struct pollfd wait = {.fd = v->from, .events = POLLIN};
    line[0] = '\0';
    if (poll(&wait, 1, ms) != 1)
        return false;
    ssize_t n = read(v->from, line, VICTIM_LINE - 1);
    line[n > 0 ? n : 0] = '\0';
    line[strcspn(line, "\n")] = '\0';
    return strncmp(line, "ok ", 3) == 0;
}

bool victim_answers(const struct victim *v, int ms)
{
    char line[VICTIM_LINE];
    return victim_line(v, ms, line);
}

bool victim_end(struct victim *v, int ms)
{
    int status = -1;
    char rest[64];
    struct pollfd wait = {.fd = v->from, .events = POLLIN};
    if (v->pid == 0)
        return false;
    close(v->to);
    while (poll(&wait, 1, ms) == 1 && read(v->from, rest, sizeof rest) > 0)
        ; /* until it closes its end: it has exited */
    if (!(wait.revents & POLLHUP))
        kill(v->pid, SIGKILL);
    close(v->from);
    waitpid(v->pid, &status, 0);
    v->pid = 0;
    v->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return v->exit_code == 0;
}

size_t victim_resident_mib(const struct victim *v)
{
    char path[64];
    size_t total = 0, resident = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)v->pid);
    FILE *in = fopen(path, "re");
    if (!in)
        return 0;
    if (fscanf(in, "%zu %zu", &total, &resident) != 2)
        resident = 0;
    fclose(in);
    return resident * (size_t)sysconf(_SC_PAGESIZE) >> 20;
}
