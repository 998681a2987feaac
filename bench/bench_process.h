/* SPDX-License-Identifier: Apache-2.0
 * bench_process.h - what benches of the process edge share: they are its spawner, too, and clean up after it.
 */
#ifndef ORR_BENCH_PROCESS_H
#define ORR_BENCH_PROCESS_H

#include "bench.h"
#include "process_linux.h"

#include <ftw.h>
#include <pthread.h>
#include <unistd.h>

static inline bool is_spawner(int argc, char **argv)
{
    return argc > 1 && strcmp(argv[1], ORR_SPAWNER_ARG) == 0;
}

/* A sink's `found`, where nothing can be there yet that matters. */
static inline enum orr_err ignore_found(void *arg, struct orr_list_rank_row ranks)
{
    (void)arg, (void)ranks;
    return ORR_OK;
}

static inline struct orr_process *
open_process(const struct orr_process_linux_config *config,
             const struct orr_process_sink *sink)
{
    struct orr_process *process;
    struct orr_error err;
    if (orr_process_linux_open(config, &process, &err) != ORR_OK)
        die(config->state_dir, err.text);
    process->ops->attach(process, sink);
    return process;
}

static inline void close_process(struct orr_process *process)
{
    process->ops->attach(process, NULL);
    process->ops->close(process);
}

static inline int
remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static inline void remove_all(const char *dir)
{
    nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
