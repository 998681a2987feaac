/* SPDX-License-Identifier: Apache-2.0
 * cut_drive.c - the coordinator of cuts (cut_board.h): a thread in the process that runs the suite.
 */
#include "cut_board.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { APART_MS = 6, GIVE_UP_MS = 400, STEP_MS = 12000 };

struct cut_drive {
    struct cut_board *board; /* owned mapping */
    char path[64];
    pthread_t thread;
    unsigned seed;
    bool is_over; /* guarded by the board's lock */
};

/* The processes that take part in the steps. */
static bool all_reached(const struct cut_board *b, enum cut_state step)
{
    for (int p = 0; p < CUT_PROCS; p++)
        if (b->proc[p].is_here && !b->proc[p].is_gone && b->proc[p].reached != step)
            return false;
    return true;
}

static bool do_step(struct cut_board *b, enum cut_state step)
{
    uint64_t deadline = cut_now_ms() + STEP_MS;

    b->state = step;
    cut_notify(b);
    while (!all_reached(b, step))
        if (!cut_wait(b, deadline))
            return false;
    return true;
}

/* A process that has ended can't say that its communicators are not made anew any more. */
static void void_those_of_the_gone(struct cut_board *b)
{
    for (int p = 0; p < CUT_PROCS; p++)
        for (uint32_t i = 0; b->proc[p].is_gone && i < b->proc[p].nclocks; i++)
            if (b->proc[p].clocks[i].kind == ORR_CLOCK_COLLECTIVE && b->nids < CUT_IDS)
                b->ids[b->nids++] = (struct orri_comm_id){
                    .comm = b->proc[p].clocks[i].comm, .kind = ORRI_ID_VOID};
}

/* One cut, or an attempt that is given up.  With the lock held. */
static void make_cut(struct cut_board *b)
{
    uint64_t deadline = cut_now_ms() + GIVE_UP_MS;
    bool ok;

    b->state = CUT_CLOSING;
    cut_notify(b);
    while (!(ok = cut_is_consistent(b)))
        if (!cut_wait(b, deadline))
            break;
    if (ok) {
        b->cut++;
        b->nids = 0;
        ok = do_step(b, CUT_STOP) && do_step(b, CUT_IDS_MADE);
        for (uint32_t i = 0; i < b->nids; i++)
            b->comms_remade += b->ids[i].kind == ORRI_ID_MADE;
        void_those_of_the_gone(b);
        b->nids_spoken = b->nids;
        ok = ok && do_step(b, CUT_IDS_ADDED);
        ok = ok && do_step(b, CUT_RESUME);
        b->done += ok;
    } else {
        b->given_up++;
    }
    for (int p = 0; p < CUT_PROCS; p++)
        b->proc[p].reached = CUT_RUN;
    b->state = CUT_RUN;
    cut_notify(b);
}

static bool is_anyone_here(const struct cut_board *b)
{
    for (int p = 0; p < CUT_PROCS; p++)
        if (b->proc[p].is_here && !b->proc[p].is_gone)
            return true;
    return false;
}

static void *drive(void *arg)
{
    struct cut_drive *d = arg;
    struct cut_board *b = d->board;

    cut_lock(b);
    while (!d->is_over) {
        uint64_t next = cut_now_ms() + 1;
        next += d->seed == CUT_NEVER ? STEP_MS : (uint64_t)rand_r(&d->seed) % APART_MS;
        while (!d->is_over && cut_wait(b, next))
            ;
        if (!d->is_over && d->seed != CUT_NEVER && is_anyone_here(b))
            make_cut(b);
    }
    cut_unlock(b);
    return NULL;
}

struct cut_drive *cut_drive_new(unsigned seed)
{
    struct cut_drive *d = calloc(1, sizeof *d);
    pthread_mutexattr_t mutex;
    int fd;

    if (!d)
        return NULL;
    snprintf(d->path, sizeof d->path, "/dev/shm/nccl-cuts-XXXXXX");
    fd = mkstemp(d->path);
    if (fd < 0 || ftruncate(fd, sizeof *d->board) < 0) {
        free(d);
        return NULL;
    }
    d->seed = seed;
    d->board = mmap(NULL, sizeof *d->board, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (d->board == MAP_FAILED)
        abort();
    pthread_mutexattr_init(&mutex);
    pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&mutex, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&d->board->lock, &mutex);
    if (pthread_create(&d->thread, NULL, drive, d) != 0)
        abort();
    return d;
}

const char *cut_drive_path(const struct cut_drive *d)
{
    return d->path;
}

uint32_t cut_drive_free(struct cut_drive *d,
                        uint64_t *add_done,
                        uint64_t *add_remade,
                        uint64_t *add_left)
{
    uint32_t failures;

    cut_lock(d->board);
    d->is_over = true;
    cut_notify(d->board);
    cut_unlock(d->board);
    pthread_join(d->thread, NULL);
    failures = d->board->failures;
    if (failures)
        fprintf(stderr, "cuts: %u failed, first: %s\n", failures, d->board->failure);
    *add_done += d->board->done;
    *add_remade += d->board->comms_remade;
    *add_left += d->board->comms_left;
    unlink(d->path);
    munmap(d->board, sizeof *d->board);
    free(d);
    return failures;
}
