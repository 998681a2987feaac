/* SPDX-License-Identifier: Apache-2.0
 * cut_core.c - stands in for liborrery-rank.so in the ranks of the suite: gate.h and part.h over a board in shared memory, whose
 * coordinator stops all ranks at random cuts.  Preloaded.  Without NCCL_CUT_BOARD it counts, and never parks.
 */
#include "cut_board.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LOOK_MS = 1000 };

#define CORE __attribute__((visibility("default")))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards what follows */
static struct cut_board *board;                          /* NULL: no cuts */
static struct cut_proc *self;
static struct cut_proc lonely; /* without a board */
static const struct orri_part *nccl;

static void leave_board(void);

static void join_board(void)
{
    const char *path = getenv("NCCL_CUT_BOARD");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *at = MAP_FAILED;

    self = &lonely;
    if (fd < 0)
        return;
    at = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at == MAP_FAILED)
        return;
    board = at;
    cut_lock(board);
    while (board->state != CUT_RUN) /* not in the middle of a cut */
        cut_wait(board, cut_now_ms() + 1000);
    for (int p = 0; p < CUT_PROCS && self == &lonely; p++)
        if (!board->proc[p].is_here)
            self = &board->proc[p];
    self->is_here = true;
    self->pid = getpid();
    cut_unlock(board);
    atexit(leave_board); /* before the libraries' own ends */
}

static void prepare(void)
{
    pthread_mutex_lock(&lock);
    if (!self)
        join_board();
    pthread_mutex_unlock(&lock);
    if (board)
        cut_lock(board);
    else
        pthread_mutex_lock(&lock);
}

static void release(void)
{
    if (board)
        cut_unlock(board);
    else
        pthread_mutex_unlock(&lock);
}

CORE struct orri_clock *orri_clock_get(
    uint64_t comm, uint32_t me, uint32_t n, enum orr_clock_kind kind, uint32_t peer)
{
    struct orri_clock *c = NULL;

    prepare();
    for (uint32_t i = 0; i < self->nclocks && !c; i++) {
        struct orri_clock *o = &self->clocks[i];
        if (o->comm == comm && o->me == me && o->kind == kind && o->peer == peer)
            c = o;
    }
    if (!c && self->nclocks < CUT_CLOCKS) {
        c = &self->clocks[self->nclocks++];
        *c = (struct orri_clock){
            .comm = comm, .me = me, .n = n, .kind = kind, .peer = peer};
    }
    release();
    return c;
}

CORE void orri_clock_over(uint64_t comm, uint32_t me)
{
    prepare();
    for (uint32_t i = 0; i < self->nclocks; i++)
        if (self->clocks[i].comm == comm && self->clocks[i].me == me)
            self->clocks[i].is_over = 1;
    if (board)
        cut_notify(board);
    release();
}

static bool may_go(void)
{
    if (!board || board->state == CUT_RUN)
        return true;
    for (uint32_t i = 0; board->state == CUT_CLOSING && i < self->nclocks; i++)
        if (cut_is_behind(board, &self->clocks[i]))
            return true;
    return false;
}

CORE void
orri_gate_enter(struct orri_clock *const *clocks, uint32_t n, enum orr_clock_op op)
{
    (void)op;
    prepare();
    if (!may_go())
        board->parked++;
    while (!may_go())
        cut_wait(board, cut_now_ms() + 1000); /* the coordinator's deadline frees us */
    for (uint32_t i = 0; i < n; i++)
        clocks[i]->issued++;
    self->inside++;
    if (board)
        cut_notify(board);
    release();
}

CORE void orri_gate_leave(void)
{
    prepare();
    self->inside--;
    if (board)
        cut_notify(board);
    release();
}

CORE void orri_rank_limit(const char *why_not_suspendable,
                          const char *why_not_migratable)
{
    fprintf(stderr,
            "limit: %s / %s\n",
            why_not_suspendable ? why_not_suspendable : "-",
            why_not_migratable ? why_not_migratable : "-");
}

CORE const struct orri_comm_id *orri_comm_ids(uint32_t *ret_n)
{
    *ret_n = board->nids;
    return board->ids;
}

CORE const char *orri_stop_device(void)
{
    return "";
}

CORE bool orri_post(uint64_t name, const uint8_t *data)
{
    bool is_told = false;

    prepare();
    if (board) {
        struct cut_post *post = &board->posts[board->nposts++ % CUT_POSTS];
        post->name = name;
        memcpy(post->data, data, sizeof post->data);
        cut_notify(board);
        is_told = true;
    }
    release();
    return is_told;
}

static const struct cut_post *find_post(uint64_t name)
{
    uint32_t n = board->nposts < CUT_POSTS ? board->nposts : CUT_POSTS;

    for (uint32_t i = 0; i < n; i++)
        if (board->posts[i].name == name)
            return &board->posts[i];
    return NULL;
}

CORE bool orri_await_posts(const uint64_t *names,
                           uint32_t n,
                           uint8_t (*ret_data)[ORRI_POST_BYTES],
                           uint64_t deadline_ms)
{
    bool is_done = true;

    prepare();
    for (uint32_t i = 0; i < n && is_done; i++) {
        const struct cut_post *post = NULL;
        while (board && !(post = find_post(names[i])) && cut_wait(board, deadline_ms))
            ;
        is_done = post != NULL;
        if (post)
            memcpy(ret_data[i], post->data, sizeof post->data);
    }
    release();
    return is_done;
}

/* For the cases of cases_cut.c. */
CORE uint64_t nccl_cut_count(void);
uint64_t nccl_cut_count(void)
{
    uint64_t n = 0;

    prepare();
    if (board)
        n = board->done;
    release();
    return n;
}

CORE bool nccl_cut_is_on(void);
bool nccl_cut_is_on(void)
{
    bool is_on;

    prepare();
    is_on = board && board->state >= CUT_STOP && board->state < CUT_RESUME;
    release();
    return is_on;
}

/* ---- The link's thread -------------------------------------------------------------------- */

static void failed(const struct orr_error *err, const char *step)
{
    cut_lock(board);
    if (board->failures++ == 0)
        snprintf(board->failure,
                 sizeof board->failure,
                 "%s in %d: %.180s",
                 step,
                 self->pid,
                 err->text);
    cut_unlock(board);
}

/* One step, without the board's lock. */
static void perform(enum cut_state step)
{
    static struct orri_comm_id ids[CUT_IDS];
    struct orr_error err = {.text = ""};
    uint64_t deadline = cut_now_ms() + 10000;
    uint32_t n;

    if (step == CUT_STOP) {
        if (nccl->close(deadline, &err) != ORR_OK)
            failed(&err, "close");
        else if (nccl->quiesce(NULL, deadline, &err) != ORR_OK)
            failed(&err, "quiesce");
    } else if (step == CUT_IDS_MADE) {
        n = nccl->make_ids(ids, CUT_IDS);
        cut_lock(board);
        for (uint32_t i = 0; i < n && board->nids < CUT_IDS; i++)
            board->ids[board->nids++] = ids[i];
        cut_unlock(board);
    } else if (step == CUT_IDS_ADDED) {
        cut_lock(board);
        n = nccl->add_ids(board->ids, board->nids_spoken, ids, CUT_IDS);
        for (uint32_t i = 0; i < n && board->nids < CUT_IDS; i++)
            board->ids[board->nids++] = ids[i];
        board->comms_left += n;
        cut_unlock(board);
    } else if (step == CUT_RESUME) {
        if (!nccl->has_all_ids(board->ids, board->nids))
            failed(&err, "has_all_ids");
        if (nccl->resume(NULL, "", deadline, &err) != ORR_OK)
            failed(&err, "resume");
        nccl->open();
    }
}

/* As the link's thread does, between cuts.  With the board's lock. */
static void look_if_due(void)
{
    static uint64_t due_ms;

    if (!nccl->look || board->state != CUT_RUN || cut_now_ms() < due_ms)
        return;
    cut_unlock(board);
    nccl->look();
    cut_lock(board);
    due_ms = cut_now_ms() + LOOK_MS;
}

static void *serve(void *unused)
{
    (void)unused;
    cut_lock(board);
    for (;;) {
        enum cut_state step = board->state;
        if (step >= CUT_STOP && self->reached != step) {
            cut_unlock(board);
            perform(step);
            cut_lock(board);
            self->reached = step;
            cut_notify(board);
        } else {
            cut_wait(board, cut_now_ms() + LOOK_MS);
            look_if_due();
        }
    }
    return NULL;
}

CORE void orri_part_register(enum orri_part_kind kind, const struct orri_part *part)
{
    pthread_t thread;

    if (kind != ORRI_PART_NCCL) /* device memory stays where it is at these cuts */
        return;
    prepare();
    release();
    nccl = part;
    if (board && pthread_create(&thread, NULL, serve, NULL) == 0)
        pthread_detach(thread);
}

/* Not in the middle of a resume: the coordinator, unlike a job, tries it once. */
static void leave_board(void)
{
    uint64_t deadline = cut_now_ms() + 15000;

    if (self->pid != getpid())
        return;
    cut_lock(board);
    while (board->state >= CUT_STOP && cut_wait(board, deadline))
        ;
    self->is_gone = true;
    cut_notify(board);
    cut_unlock(board);
}
