/* SPDX-License-Identifier: Apache-2.0
 * peer.c - what a process of a rank says, and what it is told.
 *
 * What it is told follows from where its generation is and what it has been told on this connection (said_*), so a process that
 * comes back, or whose socket was full, is simply brought up to date.  What it says is checked: a packet out of place or beyond a
 * bound ends the connection, and its rank's cuts expire.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "edge.h"

enum { PACKETS_MAX = 64, REMIND_MS = 1000 };

/* False: it does not read, or is gone; a gone one is found by its socket's end. */
static bool
say(struct orri_proc *proc, const struct orr_msg_desc *desc, const void *msg, int fd)
{
    return orri_packet_send(proc->sock, desc, msg, fd) == 0;
}

/* ---- what it says ------------------------------------------------------------------------- */

static void copy_limits(struct orri_proc *proc,
                        bool is_cooperative,
                        struct orr_str why_not,
                        struct orr_str why_no_image)
{
    proc->is_cooperative = is_cooperative;
    orr_str_copy(proc->why_not, sizeof proc->why_not, why_not);
    orr_str_copy(proc->why_no_image, sizeof proc->why_no_image, why_no_image);
    proc->ability_due = true;
}

/* The page is read, never mapped, and must be a memfd: one whose owner can neither make the reader wait nor fault. */
static bool is_page(int fd)
{
    struct stat st;
    return fd >= 0 && fcntl(fd, F_GET_SEALS) >= 0 && fstat(fd, &st) == 0 &&
           S_ISREG(st.st_mode) && st.st_size == sizeof(struct orri_page);
}

/* The record of this process from before, if there is one, takes over the connection. */
static struct orri_proc *known_as(struct orri_proc *proc,
                                  const struct orr_msg_rank_hello *msg)
{
    for (struct orri_proc *p = proc->rank->procs; p; p = p->next)
        if (p != proc && p->process == msg->process && p->process != 0)
            return p;
    if (msg->is_stopped) /* expected by its rank alone */
        for (struct orri_proc *p = proc->rank->procs; p; p = p->next)
            if (p != proc && p->is_expected && p->process == 0)
                return p;
    return NULL;
}

static struct orri_proc *
take_over(struct orr_rank_edge *edge, struct orri_proc *old, struct orri_proc *fresh)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &old->source};
    orri_proc_disconnect(old);
    old->sock = fresh->sock;
    fresh->sock = -1;
    if (old->pidfd >= 0)
        close(old->pidfd);
    old->pidfd = fresh->pidfd;
    fresh->pidfd = -1;
    old->pid = fresh->pid;
    orri_proc_free(edge, fresh);
    if (epoll_ctl(edge->epoll_fd, EPOLL_CTL_MOD, old->sock, &event) != 0)
        orri_proc_disconnect(old);
    return old;
}

/* Its program's own state is at an arena's end (coop.c). */
static bool has_saved_state(const struct orri_proc *proc)
{
    uint64_t magic = 0;
    off_t at = (off_t)(proc->arena_bytes - sizeof magic);
    return proc->arena_fd >= 0 && proc->arena_bytes >= sizeof magic &&
           pread(proc->arena_fd, &magic, sizeof magic, at) == (ssize_t)sizeof magic &&
           magic == ORRI_SAVED_MAGIC;
}

/* A program that begins anew, and loads what it saved: it gets the arena of the process that saved it.  The rank's others are
 * none of the program that saved them any more. */
static int claim_saved_state(struct orr_rank_edge *edge, struct orri_proc *proc)
{
    struct orri_proc *next;
    int fd = -1;
    if (!proc->is_cooperative || proc->is_stopped)
        return -1;
    for (struct orri_proc *p = proc->rank->procs; p; p = next) {
        next = p->next;
        bool has_state = p != proc && p->is_expected && has_saved_state(p);
        if (p == proc || !p->is_expected || (has_state && fd >= 0))
            continue;
        if (has_state) {
            fd = p->arena_fd;
            p->arena_fd = -1;
        }
        orri_proc_free(edge, p);
    }
    return fd;
}

static bool welcome(struct orr_rank_edge *edge, struct orri_proc *proc)
{
    const struct orri_gen *gen = proc->rank->gen;
    const struct orr_msg_rank_welcome msg = {.generation = gen->generation,
                                             .cut = gen->cut};
    int fd = claim_saved_state(edge, proc);
    bool is_said = say(proc, orr_msg_desc_rank_welcome(), &msg, fd);
    if (fd >= 0)
        close(fd);
    return is_said;
}

static bool take_hello(struct orr_rank_edge *edge,
                       struct orri_proc **proc_at,
                       const struct orr_msg_rank_hello *msg,
                       int *take_fd)
{
    struct orri_proc *proc = *proc_at;
    const struct orri_rank *rank = proc->rank;
    if (proc->is_welcome || msg->protocol != ORR_RANK_PROTOCOL || msg->process == 0 ||
        msg->rank != rank->rank || !orr_str_eq(msg->job, orr_str(rank->gen->job)) ||
        msg->generation > rank->gen->generation)
        return false;
    struct orri_proc *known = known_as(proc, msg);
    if (known)
        proc = *proc_at = take_over(edge, known, proc);
    proc->process = msg->process;
    proc->is_expected = false;
    proc->needs_arena = msg->arena_bytes > 0;
    proc->answers_looks = msg->answers_looks;
    if (proc->is_stopped && !msg->is_stopped) { /* resumed, as it turns out */
        orri_arena_release(edge, proc);
    }
    proc->is_stopped = msg->is_stopped;
    proc->stopped_cut = msg->is_stopped ? msg->cut : 0;
    if (msg->is_stopped && proc->arena_fd < 0)
        proc->arena_bytes = msg->arena_bytes;
    copy_limits(proc, msg->is_cooperative, msg->why_not, msg->why_no_image);
    if (is_page(*take_fd)) {
        proc->page_fd = *take_fd;
        *take_fd = -1;
    }
    proc->is_welcome = true;
    return welcome(edge, proc);
}

static bool add_rows(struct orri_proc *proc, struct orr_list_clock clocks)
{
    uint32_t n = proc->n_rows + clocks.n;
    if (n > ORRI_CLOCKS_MAX)
        return false;
    if (n > proc->rows_cap) {
        uint32_t cap = n < 64 ? 64 : 2 * n;
        struct orr_rec_clock *rows = realloc(proc->rows, cap * sizeof *rows);
        if (!rows)
            return false;
        proc->rows = rows;
        proc->rows_cap = cap;
    }
    if (clocks.n)
        memcpy(proc->rows + proc->n_rows, clocks.at, clocks.n * sizeof *clocks.at);
    for (uint32_t i = proc->n_rows; i < n; i++)
        proc->rows[i].rank = proc->rank->rank; /* it speaks for no other */
    proc->n_rows = n;
    return true;
}

static bool take_clocks(struct orri_proc *proc, const struct orr_msg_rank_clocks *msg)
{
    struct orri_gen *gen = proc->rank->gen;
    if (!proc->rows_go_on)
        proc->n_rows = 0;
    proc->rows_cut = 0;
    proc->rows_go_on = msg->has_more;
    if (!add_rows(proc, msg->clocks))
        return false;
    if (msg->has_more)
        return true;
    proc->rows_cut = msg->cut;
    proc->rows_round = msg->round;
    proc->is_at_cut = msg->is_at_cut;
    gen->report_due = true;
    return true;
}

static bool take_quiesced(struct orr_rank_edge *edge,
                          struct orri_proc *proc,
                          const struct orr_msg_rank_quiesced *msg,
                          int *take_fd)
{
    struct orri_gen *gen = proc->rank->gen;
    struct stat st;
    if (gen->step != ORR_CUT_QUIESCE || msg->cut != gen->cut)
        return true; /* too late: what comes next tells it */
    if (msg->code != ORR_OK) {
        orri_gen_fail(edge,
                      gen,
                      proc->rank->rank,
                      "process %d: %.*s",
                      (int)proc->pid,
                      ORR_STR_ARGS(msg->text));
        return true;
    }
    bool has_fd = *take_fd >= 0 && fstat(*take_fd, &st) == 0 && S_ISREG(st.st_mode) &&
                  fcntl(*take_fd, F_GET_SEALS) >= 0 &&
                  (uint64_t)st.st_size >= msg->arena_bytes;
    bool is_here = *take_fd < 0 && proc->arena_fd >= 0 &&
                   proc->arena_bytes >= msg->arena_bytes; /* given to an earlier life */
    if (*take_fd >= 0 && msg->arena_bytes > 0 && !has_fd)
        return false; /* not what it says */
    if (msg->arena_bytes > 0 && !has_fd && !is_here) {
        orri_gen_fail(edge,
                      gen,
                      proc->rank->rank,
                      "process %d: the node that held its device memory is gone; "
                      "restore it from a checkpoint",
                      (int)proc->pid);
        return true;
    }
    if (msg->arena_bytes && has_fd) /* it is safe before the process gives it up */
        orri_arena_take(edge, proc, take_fd);
    else if (!msg->arena_bytes)
        orri_arena_drop(edge, proc);
    if (!welcome(edge, proc))
        return false; /* it keeps its arena, and comes again */
    proc->arena_bytes = msg->arena_bytes;
    proc->device_bytes = msg->device_bytes;
    proc->copy_us = msg->copy_us;
    proc->is_stopped = true;
    proc->stopped_cut = msg->cut;
    proc->needs_arena = gen->is_detached && msg->arena_bytes > 0;
    gen->report_due = true;
    orri_rank_hide(proc->rank); /* a stopped process must have no socket in its image */
    return true;
}

static bool take_ids(struct orri_proc *proc, const struct orr_msg_rank_comm_ids *msg)
{
    struct orri_gen *gen = proc->rank->gen;
    if (gen->step != ORR_CUT_RESUME || msg->cut != gen->cut ||
        msg->attempt != gen->attempt)
        return true;
    for (uint32_t i = 0; i < msg->ids.n; i++)
        if (!orri_gen_add_id(gen,
                             msg->ids.at[i].comm,
                             msg->ids.at[i].id.ptr,
                             msg->ids.at[i].id.len,
                             true))
            return false;
    if (!msg->has_more)
        proc->spoken_attempt = gen->attempt;
    gen->report_due = true;
    return true;
}

/* On to the job; what is not taken is asked for again. */
static void take_posts(struct orr_rank_edge *edge,
                       const struct orri_proc *proc,
                       const struct orr_msg_rank_posts *msg)
{
    const struct orri_gen *gen = proc->rank->gen;
    const struct orr_msg_job_posts on = {.job = orr_str(gen->job),
                                         .generation = gen->generation,
                                         .node = orr_str(edge->node),
                                         .posts = msg->posts};
    if (edge->has_sink)
        edge->sink.posts(edge->sink.arg, &on);
}

/* To all processes: those that do not wait for it pass over it. */
void orr_rank_edge_posts(struct orr_rank_edge *edge,
                         const struct orr_msg_job_posts *msg)
{
    pthread_mutex_lock(&edge->lock);
    struct orri_gen *gen = orri_gen_find(edge, msg->job, msg->generation);
    for (uint32_t at = 0; gen && at < msg->posts.n; at += ORRI_PACKET_IDS) {
        uint32_t left = msg->posts.n - at;
        const struct orr_msg_rank_posts piece = {
            .posts = {msg->posts.at + at,
                      left < ORRI_PACKET_IDS ? left : ORRI_PACKET_IDS}};
        for (struct orri_rank *rank = gen->ranks; rank; rank = rank->next)
            for (struct orri_proc *p = rank->procs; p; p = p->next)
                if (p->sock >= 0 && p->is_welcome)
                    say(p, orr_msg_desc_rank_posts(), &piece, -1);
    }
    pthread_mutex_unlock(&edge->lock);
}

static void take_resumed(struct orr_rank_edge *edge,
                         struct orri_proc *proc,
                         const struct orr_msg_rank_resumed *msg)
{
    struct orri_gen *gen = proc->rank->gen;
    bool is_older = msg->attempt && msg->attempt != gen->attempt;
    if (gen->step != ORR_CUT_RESUME || msg->cut != gen->cut || is_older)
        return;
    if (msg->code != ORR_OK) {
        orri_gen_fail(edge,
                      gen,
                      proc->rank->rank,
                      "process %d cannot go on: %.*s",
                      (int)proc->pid,
                      ORR_STR_ARGS(msg->text));
        return;
    }
    orri_arena_release(edge, proc);
    proc->device_bytes = 0;
    proc->copy_us = msg->copy_us;
    proc->is_stopped = proc->needs_arena = false;
    proc->resumed_attempt = gen->attempt;
    gen->report_due = true;
}

static bool
take(struct orr_rank_edge *edge, struct orri_proc **proc_at, struct orri_packet *packet)
{
    const void *msg = packet->msg;
    struct orri_proc *proc = *proc_at;
    if (packet->desc->id == ORR_MSG_rank_hello)
        return take_hello(edge, proc_at, msg, &packet->fd);
    if (!proc->is_welcome)
        return false;
    switch (packet->desc->id) {
    case ORR_MSG_rank_clocks:
        return take_clocks(proc, msg);
    case ORR_MSG_rank_quiesced:
        return take_quiesced(edge, proc, msg, &packet->fd);
    case ORR_MSG_rank_comm_ids:
        return take_ids(proc, msg);
    case ORR_MSG_rank_resumed:
        take_resumed(edge, proc, msg);
        return true;
    case ORR_MSG_rank_looked:
        orri_proc_looked(proc, msg);
        return true;
    case ORR_MSG_rank_posts:
        take_posts(edge, proc, msg);
        return true;
    case ORR_MSG_rank_limits: {
        const struct orr_msg_rank_limits *limits = msg;
        bool is_new = limits->is_cooperative && !proc->is_cooperative;
        copy_limits(
            proc, limits->is_cooperative, limits->why_not, limits->why_no_image);
        return !is_new || welcome(edge, proc); /* with what it saved, if it did */
    }
    default:
        return false;
    }
}

/* The end of a connection is the end of a process, or not: tick looks. */
void orri_proc_read(struct orr_rank_edge *edge, struct orri_proc *proc)
{
    struct orri_packet packet;
    int rc = 0;
    for (int i = 0; i < PACKETS_MAX && proc->sock >= 0 && rc == 0; i++) {
        rc = orri_packet_receive(proc->sock, &packet);
        if (rc != 0)
            break;
        if (!take(edge, &proc, &packet))
            rc = EPROTO;
        orri_packet_fini(&packet);
    }
    proc->rank->gen->is_touched = true;
    if (rc == 0 || rc == EAGAIN)
        return;
    if (proc->process == 0)
        orri_proc_free(edge, proc);
    else
        orri_proc_disconnect(proc);
}

/* ---- what it is told ---------------------------------------------------------------------- */

static bool tell_close(struct orr_rank_edge *edge, struct orri_proc *proc)
{
    const struct orri_gen *gen = proc->rank->gen;
    const struct orr_msg_rank_close msg = {.cut = gen->cut};
    /* said again and again: a library that hears nothing of its cut for long opens its gate */
    if (proc->said_close == gen->cut && edge->now_ms < proc->said_ms + REMIND_MS)
        return true;
    if (!say(proc, orr_msg_desc_rank_close(), &msg, -1))
        return false;
    proc->said_close = gen->cut;
    proc->said_ms = edge->now_ms;
    return true;
}

static void tell_targets(struct orri_proc *proc)
{
    const struct orri_gen *gen = proc->rank->gen;
    static struct orr_rec_clock list[ORRI_PACKET_CLOCKS]; /* under the edge's lock */
    struct orr_msg_rank_targets msg = {
        .cut = gen->cut, .round = gen->round, .targets.at = list, .has_more = true};
    while (proc->said_round < gen->round) {
        uint32_t at = proc->said_targets;
        for (msg.targets.n = 0;
             at < gen->n_targets && msg.targets.n < ORRI_PACKET_CLOCKS;
             at++)
            if (gen->targets[at].rank == proc->rank->rank ||
                gen->targets[at].me == UINT32_MAX)
                list[msg.targets.n++] = gen->targets[at];
        msg.has_more = at < gen->n_targets;
        if (!say(proc, orr_msg_desc_rank_targets(), &msg, -1))
            return;
        proc->said_targets = at;
        if (!msg.has_more) {
            proc->said_round = gen->round;
            proc->said_targets = 0;
        }
    }
}

static void tell_quiesce(struct orr_rank_edge *edge, struct orri_proc *proc)
{
    const struct orri_gen *gen = proc->rank->gen;
    const struct orr_msg_rank_quiesce msg = {
        .cut = gen->cut,
        .timeout_ms =
            gen->deadline_ms > edge->now_ms ? gen->deadline_ms - edge->now_ms : 0,
        .is_detached = gen->is_detached,
        .dir = orr_str(gen->is_detached && edge->arenas_fd >= 0 ? edge->arenas : ""),
    };
    if (proc->said_quiesce != gen->cut && gen->state == ORR_STEP_WORKING &&
        say(proc, orr_msg_desc_rank_quiesce(), &msg, -1))
        proc->said_quiesce = gen->cut;
}

static void tell_ids(struct orri_proc *proc)
{
    const struct orri_gen *gen = proc->rank->gen;
    static struct orr_rec_comm_id list[ORRI_PACKET_IDS];
    struct orr_msg_rank_comm_ids msg = {
        .cut = gen->cut, .attempt = gen->attempt, .ids.at = list};
    while (proc->said_ids < gen->n_ids || proc->said_all_ids != gen->has_all_ids) {
        uint32_t at = proc->said_ids;
        for (msg.ids.n = 0; at < gen->n_ids && msg.ids.n < ORRI_PACKET_IDS; at++)
            list[msg.ids.n++] = (struct orr_rec_comm_id){
                .comm = gen->ids[at].comm,
                .id = {gen->ids[at].id, gen->ids[at].strength ? ORRI_ID_BYTES : 0}};
        msg.has_more = at < gen->n_ids || !gen->has_all_ids;
        if (!say(proc, orr_msg_desc_rank_comm_ids(), &msg, -1))
            return;
        proc->said_ids = at;
        proc->said_all_ids = !msg.has_more;
    }
}

static void tell_resume(struct orr_rank_edge *edge, struct orri_proc *proc)
{
    const struct orri_gen *gen = proc->rank->gen;
    const struct orr_msg_rank_resume msg = {
        .cut = gen->cut,
        .generation = gen->generation,
        .device = orr_str(proc->rank->device),
        .attempt = gen->attempt,
        .timeout_ms =
            gen->deadline_ms > edge->now_ms ? gen->deadline_ms - edge->now_ms : 0,
    };
    if (proc->resumed_attempt == gen->attempt)
        return;
    if (proc->said_attempt != gen->attempt) {
        if (gen->state != ORR_STEP_WORKING ||
            !say(proc,
                 orr_msg_desc_rank_resume(),
                 &msg,
                 proc->needs_arena ? proc->arena_fd : -1))
            return;
        proc->said_attempt = gen->attempt;
        proc->said_ids = 0;
        proc->said_all_ids = false;
    }
    tell_ids(proc);
}

static void tell_open(struct orri_proc *proc)
{
    const struct orr_msg_rank_open msg = {.cut = proc->rank->gen->cut};
    if (proc->said_open != msg.cut && say(proc, orr_msg_desc_rank_open(), &msg, -1)) {
        proc->said_open = msg.cut;
        proc->rank->gen->is_touched = true;
    }
}

void orri_proc_drive(struct orr_rank_edge *edge, struct orri_proc *proc)
{
    const struct orri_gen *gen = proc->rank->gen;
    if (proc->sock < 0 || !proc->is_welcome)
        return;
    switch ((enum orr_cut_step)gen->step) {
    case ORR_CUT_BEGIN:
    case ORR_CUT_TARGETS:
        if (!proc->is_stopped && tell_close(edge, proc))
            tell_targets(proc);
        break;
    case ORR_CUT_QUIESCE:
        if (!proc->is_stopped && tell_close(edge, proc))
            tell_targets(proc);
        tell_quiesce(edge, proc);
        break;
    case ORR_CUT_RESUME:
        tell_resume(edge, proc);
        break;
    case ORR_CUT_OPEN:
        tell_open(proc);
        break;
    case ORR_CUT_NONE:
    case ORR_CUT_SAVE:
    case ORR_CUT_RELEASE:
    case ORR_CUT_JOIN:
    case ORR_CUT_STEP_MAX_:
        break;
    }
}
