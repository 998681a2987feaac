/* SPDX-License-Identifier: Apache-2.0
 * bench_nccl_gate.c - what the interposer of NCCL adds to a call, as JSON lines: the calls of an NCCL that does nothing
 * (null_nccl.c), through the interposer and directly.
 *
 *   nccl_gate_allreduce     one collective
 *   nccl_gate_send          one send
 *   nccl_gate_group         a group of two collectives
 *
 * usage: bench_nccl_gate INTERPOSER NULL_NCCL [rounds]
 */
#include "bench.h"
#include "orrery/gpu_abi.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 200 };

struct library {
    __typeof__(&ncclCommInitRank) init;
    __typeof__(&ncclGroupStart) start;
    __typeof__(&ncclGroupEnd) end;
    __typeof__(&ncclAllReduce) all_reduce;
    __typeof__(&ncclSend) send;
    ncclComm_t comm;
};

static void find(void *library, const char *name, void *ret_fn)
{
    void *fn = library ? dlsym(library, name) : NULL;

    if (!fn) {
        fprintf(stderr, "bench_nccl_gate: no %s: %s\n", name, dlerror());
        exit(1);
    }
    memcpy(ret_fn, &fn, sizeof fn);
}

static void open_library(struct library *l, const char *path)
{
    void *at = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    ncclUniqueId id = {.internal = "bench"};

    find(at, "ncclCommInitRank", &l->init);
    find(at, "ncclGroupStart", &l->start);
    find(at, "ncclGroupEnd", &l->end);
    find(at, "ncclAllReduce", &l->all_reduce);
    find(at, "ncclSend", &l->send);
    if (l->init(&l->comm, 2, id, 0) != ncclSuccess)
        exit(1);
}

static void one_collective(const struct library *l)
{
    static char buffer[4];

    l->all_reduce(buffer, buffer, 1, ncclFloat32, ncclSum, l->comm, NULL);
}

static void one_send(const struct library *l)
{
    static char buffer[4];

    l->send(buffer, 1, ncclFloat32, 1, l->comm, NULL);
}

static void one_group(const struct library *l)
{
    l->start();
    one_collective(l);
    one_collective(l);
    l->end();
}

/* The least of many short samples, in ns a round: what it takes when nobody else has the processor. */
static double
measure(const struct library *l, void (*round)(const struct library *), int rounds)
{
    double least = 1e12;

    for (int s = 0; s < SAMPLES; s++) {
        const double begin = now_s();
        double ns;
        for (int i = 0; i < rounds; i++)
            round(l);
        ns = (now_s() - begin) * 1e9 / rounds;
        least = ns < least ? ns : least;
    }
    return least;
}

static void compare(const char *name,
                    const struct library *through,
                    const struct library *direct,
                    void (*round)(const struct library *),
                    int rounds)
{
    double a = measure(through, round, rounds), b = measure(direct, round, rounds);

    print(name, a - b, "ns added", "the call itself", b);
}

int main(int argc, char **argv)
{
    struct library through, direct;
    int rounds = argc > 3 ? atoi(argv[3]) : 2000;

    if (argc < 3 || rounds < 1) {
        fprintf(stderr, "usage: bench_nccl_gate INTERPOSER NULL_NCCL [rounds]\n");
        return 2;
    }
    setenv("ORRERY_REAL_LIBNCCL", argv[2], 1);
    open_library(&direct, argv[2]);
    open_library(&through, argv[1]);
    compare("nccl_gate_allreduce", &through, &direct, one_collective, rounds);
    compare("nccl_gate_send", &through, &direct, one_send, rounds);
    compare("nccl_gate_group", &through, &direct, one_group, rounds);
    return 0;
}
