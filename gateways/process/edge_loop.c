/* SPDX-License-Identifier: Apache-2.0
 * edge_loop.c - the edge's one thread.
 *
 * OPERATION  wait for: a wake-up by a caller, a report of a keeper, the end of a keeper
 * (pidfd), a time.  Then: start a spawner if there is none, send launches, forget, look
 * after ranks between two states, tell the sink FAILURES   spawner dead: read its
 * socket to the end (spawner.h: whatever was not reported by then was not started),
 * start another after a growing pause, send those launches again, once.  Sink busy: try
 * again soon; the last state of a rank replaces earlier ones, so what waits is bounded
 * by the number of ranks.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "edge.h"

enum {
    EVENTS_MAX = 64,
    BATCH_MAX = 256, /* of one kind of work before the others get their turn */
    BACKOFF_MAX_MS = 5000,
    TELL_AGAIN_MS = 5,
    SETTLE_MS = 50,
    START_SLACK_MS =
        2000, /* a keeper gives up at the timeout; its report may take a moment */
};

void orri_edge_wake(struct orri_edge *edge)
{
    uint64_t one = 1;
    ssize_t n = write(edge->wake_fd, &one, sizeof one);
    (void)n; /* full: it will wake anyway */
}

static struct orri_rank *next_of(struct orri_edge *edge, struct orri_queue *queue)
{
    pthread_mutex_lock(&edge->lock);
    struct orri_rank *rank = orri_rank_queue_peek(queue);
    pthread_mutex_unlock(&edge->lock);
    return rank;
}

static void
move_to(struct orri_edge *edge, struct orri_queue *queue, struct orri_rank *rank)
{
    pthread_mutex_lock(&edge->lock);
    orri_rank_queue_push(queue, rank);
    pthread_mutex_unlock(&edge->lock);
}

/* ---- the spawner
 * -------------------------------------------------------------------------- */

static void watch_spawner(struct orri_edge *edge, bool wants_room)
{
    struct epoll_event event = {.events = EPOLLIN | (wants_room ? EPOLLOUT : 0u),
                                .data.ptr = &edge->spawner};
    edge->is_spawner_full = wants_room;
    if (epoll_ctl(edge->epoll_fd, EPOLL_CTL_MOD, edge->spawner_fd, &event) != 0)
        epoll_ctl(edge->epoll_fd, EPOLL_CTL_ADD, edge->spawner_fd, &event);
}

static void start_spawner(struct orri_edge *edge, uint64_t now_ms)
{
    if (edge->spawner_fd >= 0 || now_ms < edge->spawner_due_ms)
        return;
    edge->spawner_due_ms = now_ms + edge->spawner_backoff_ms;
    if (edge->spawner_backoff_ms < BACKOFF_MAX_MS)
        edge->spawner_backoff_ms *= 2;
    if (orri_spawner_start(edge->ranks_path, &edge->spawner, &edge->spawner_fd, NULL) ==
        ORR_OK)
        watch_spawner(edge, false);
}

/* What was sent to a spawner that is gone goes to the next one; a launch that was there
 * both times is given up: it may be what kills spawners. */
static void spawner_ended(struct orri_edge *edge)
{
    struct orri_rank *rank;
    close(edge->spawner_fd);
    edge->spawner_fd = -1;
    kill(edge->spawner, SIGKILL);
    waitpid(edge->spawner, NULL, 0);
    while ((rank = next_of(edge, &edge->sent))) {
        if (rank->is_resent) {
            orri_edge_declare(edge,
                              rank,
                              ORR_RANK_FAILED,
                              "the spawner died twice while starting it");
            continue;
        }
        rank->is_resent = true;
        move_to(edge, &edge->launches, rank);
    }
}

static void rank_started(struct orri_edge *edge,
                         struct orri_rank *rank,
                         const struct orri_report *report,
                         int keeper)
{
    pthread_mutex_lock(&edge->lock);
    free(rank->launch);
    rank->launch = NULL;
    rank->state = ORR_RANK_RUNNING;
    rank->keeper = report->keeper;
    rank->is_image = report->is_image;
    memcpy(rank->why, report->why, sizeof rank->why);
    rank->pid = report->rank;
    rank->pid_start = report->rank_start;
    rank->changed_unix_ms = report->started_unix_ms;
    uint32_t pending = rank->pending_signal;
    orri_rank_queue_push(keeper >= 0 ? &edge->events : &edge->settling, rank);
    pthread_mutex_unlock(&edge->lock);
    if (pending)
        orri_rank_signal(
            edge, rank->key, report->rank, report->rank_start, (int)pending);
    orri_edge_watch(edge, rank, keeper);
}

static void
take_report(struct orri_edge *edge, const struct orri_report *report, int keeper)
{
    pthread_mutex_lock(&edge->lock);
    struct orri_rank *rank = orri_rank_table_find(&edge->table, report->key);
    pthread_mutex_unlock(&edge->lock);
    edge->spawner_backoff_ms = ORRI_BACKOFF_MIN_MS;
    if (rank && rank->launch && report->is_started) {
        rank_started(edge, rank, report, keeper);
        return;
    }
    if (keeper >= 0)
        close(keeper);
    if (!rank || !rank->launch) { /* given up in the meantime */
        if (report->is_started)
            orri_group_signal(report->rank, report->rank_start, SIGKILL);
    } else if (report->error) {
        orri_edge_declare(edge,
                          rank,
                          ORR_RANK_LOST,
                          "cannot fork a keeper: %s; see the limit of processes",
                          strerror(report->error));
    } else {
        orri_edge_settle_end(edge, rank);
    }
}

/* A spawner that dies with launches unread leaves ECONNRESET, once, before the reports that are
 * still there to be read: only the end of the stream is the end. */
static void read_reports(struct orri_edge *edge)
{
    struct orri_report report;
    int keeper, rc;
    do {
        rc = orri_report_receive(edge->spawner_fd, &report, &keeper);
        if (rc > 0)
            take_report(edge, &report, keeper);
    } while (rc > 0 || rc == -ECONNRESET);
    if (rc == 0)
        spawner_ended(edge);
}

/* True when sent or given up; false when the socket is full or gone. */
static bool send_launch(struct orri_edge *edge, struct orri_rank *rank)
{
    if (mkdirat(edge->ranks_dir, rank->key, 0755) != 0 && errno != EEXIST) {
        orri_edge_declare(edge,
                          rank,
                          ORR_RANK_LOST,
                          "cannot make its directory %s/%s: %s",
                          edge->ranks_path,
                          rank->key,
                          strerror(errno));
        return true;
    }
    if (send(edge->spawner_fd,
             rank->launch,
             rank->launch_bytes,
             MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        return false;
    rank->deadline_ms = orri_mono_ms() + rank->start_timeout_ms + START_SLACK_MS;
    move_to(edge, &edge->sent, rank);
    return true;
}

static void send_launches(struct orri_edge *edge)
{
    struct orri_rank *rank = NULL;
    bool is_sent = true;
    if (edge->spawner_fd < 0)
        return;
    while (is_sent && (rank = next_of(edge, &edge->launches)))
        is_sent = send_launch(edge, rank);
    if (!is_sent != edge->is_spawner_full)
        watch_spawner(edge, !is_sent);
}

/* ---- ranks between two states
 * --------------------------------------------------------------- */

/* Its keeper had begun, and is dead. */
static bool is_orphan(struct orri_edge *edge, const struct orri_rank *rank)
{
    int dir = openat(edge->ranks_dir, rank->key, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct orri_env env;
    bool is_orphan =
        dir >= 0 && orri_env_read(dir, &env) == ORRI_READ_OK && orri_dir_lock(dir);
    if (dir >= 0)
        close(dir);
    return is_orphan;
}

/* A restore may take minutes: that its keeper died is not left to the deadline. */
static struct orri_rank *find_orphan(struct orri_edge *edge)
{
    struct orri_rank *rank;
    pthread_mutex_lock(&edge->lock);
    TAILQ_FOREACH(rank, &edge->sent.head, link)
    {
        if (rank->is_restore && is_orphan(edge, rank))
            break;
    }
    pthread_mutex_unlock(&edge->lock);
    return rank;
}

static void check_ranks(struct orri_edge *edge, uint64_t now_ms)
{
    struct orri_rank *rank;
    pthread_mutex_lock(&edge->lock);
    uint32_t n_settling = edge->settling.n;
    pthread_mutex_unlock(&edge->lock);
    for (uint32_t i = 0; i < n_settling && (rank = next_of(edge, &edge->settling));
         i++) {
        if (!orri_edge_adopt_rank(edge, rank))
            move_to(edge, &edge->settling, rank);
    }
    while ((rank = find_orphan(edge)))
        orri_edge_declare(
            edge, rank, ORR_RANK_LOST, "its keeper died while it was being restored");
    while ((rank = next_of(edge, &edge->sent)) && now_ms >= rank->deadline_ms)
        orri_edge_declare(edge,
                          rank,
                          ORR_RANK_FAILED,
                          "it did not start within %u ms; is the workdir reachable?",
                          rank->start_timeout_ms);
}

static void run_forgets(struct orri_edge *edge)
{
    struct orri_rank *rank;
    for (int i = 0; i < BATCH_MAX && (rank = next_of(edge, &edge->forgets)); i++)
        orri_logs_keep(edge, rank);
}

/* ---- the sink
 * ------------------------------------------------------------------------------- */

/* Borrows from the rank and, for an ended one, fills tail. */
static struct orr_rec_rank_row
make_row(struct orri_edge *edge, const struct orri_rank *rank, char *tail)
{
    struct orr_rec_rank_row row = {
        .job = rank->id.job,
        .generation = rank->id.generation,
        .rank = rank->id.rank,
        .state = rank->state,
        .pid = (uint32_t)rank->pid,
        .device = rank->device,
        .exit_code = rank->exit_code,
        .signal = rank->signal,
        .changed_unix_ms = rank->changed_unix_ms,
        .reason = orr_str(rank->reason),
        .level = orri_rank_level(edge, rank),
        .why_level = orr_str(
            rank->is_image && !edge->ability.is_able ? edge->ability.text : rank->why),
        .is_frozen = rank->is_frozen,
        .cut = rank->cut,
        .cut_step = rank->cut_step,
        .visible = rank->visible,
        .devices = orr_str(rank->devices ? rank->devices : ""),
    };
    int dir =
        orri_rank_has_ended(rank)
            ? openat(edge->ranks_dir, rank->key, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            : -1;
    if (dir >= 0) {
        row.is_told = orri_mark_unix_ms(dir, ORRI_MARK_TOLD) <= rank->changed_unix_ms;
        row.stderr_tail =
            (struct orr_str){tail, (uint32_t)orri_tail_read(dir, tail, ORR_TAIL_MAX)};
        close(dir);
    }
    return row;
}

/* Under sink_lock.  Rows of all ranks that are not forgotten, also those that wait for their
 * start: what is not found is taken for gone.  What changed before is thereby told. */
static enum orr_err announce(struct orri_edge *edge)
{
    struct orri_rank *rank;
    uint32_t n = 0;
    pthread_mutex_lock(&edge->lock);
    uint32_t n_max = edge->table.n;
    pthread_mutex_unlock(&edge->lock);
    struct orr_rec_rank_row *rows = calloc(n_max + 1, sizeof *rows);
    char(*tails)[ORR_TAIL_MAX] = calloc(n_max + 1, sizeof *tails);
    enum orr_err rc = rows && tails ? ORR_OK : ORR_ENOMEM;
    pthread_mutex_lock(&edge->lock);
    ORRI_TABLE_EACH(&edge->table, rank)
    {
        if (rc != ORR_OK || n == n_max || rank->is_forgotten)
            continue;
        rows[n] = make_row(edge, rank, tails[n]);
        n++;
        if (rank->queue == &edge->events)
            orri_rank_queue_leave(rank);
    }
    pthread_mutex_unlock(&edge->lock);
    if (rc == ORR_OK)
        rc = edge->sink.found(edge->sink.arg, (struct orr_list_rank_row){rows, n});
    free(tails);
    free(rows);
    edge->is_announced = rc == ORR_OK;
    return rc;
}

/* Under sink_lock. */
static enum orr_err tell_one(struct orri_edge *edge, struct orri_rank *rank)
{
    char tail[ORR_TAIL_MAX];
    pthread_mutex_lock(&edge->lock);
    orri_rank_queue_leave(rank);
    pthread_mutex_unlock(&edge->lock);
    struct orr_rec_rank_row row = make_row(edge, rank, tail);
    enum orr_err rc = edge->sink.event(edge->sink.arg, &row);
    if (rc == ORR_OK)
        return rc;
    pthread_mutex_lock(&edge->lock);
    if (!rank->queue)
        orri_rank_queue_push_front(&edge->events, rank);
    pthread_mutex_unlock(&edge->lock);
    return rc;
}

/* Under sink_lock. */
static enum orr_err tell_ability(struct orri_edge *edge)
{
    pthread_mutex_lock(&edge->lock);
    struct orri_ability a = edge->ability;
    pthread_mutex_unlock(&edge->lock);
    if (!a.is_known || edge->is_ability_told || !edge->sink.ability)
        return ORR_OK;
    enum orr_err rc = edge->sink.ability(
        edge->sink.arg,
        &(struct orr_process_ability){.is_able = a.is_able,
                                      .text = orr_str(a.text),
                                      .version = orr_str(a.version)});
    edge->is_ability_told = rc == ORR_OK;
    return rc;
}

static void tell(struct orri_edge *edge, uint64_t now_ms)
{
    struct orri_rank *rank;
    enum orr_err rc = ORR_OK;
    if (now_ms < edge->tell_due_ms)
        return;
    edge->tell_due_ms = 0;
    pthread_mutex_lock(&edge->sink_lock);
    if (edge->has_sink && !edge->is_announced)
        rc = announce(edge);
    if (edge->has_sink && rc == ORR_OK)
        rc = tell_ability(edge);
    if (edge->has_sink && rc == ORR_OK)
        rc = orri_work_tell(edge);
    for (int i = 0; i < BATCH_MAX && edge->has_sink && rc == ORR_OK; i++) {
        if (!(rank = next_of(edge, &edge->events)))
            break;
        rc = tell_one(edge, rank);
    }
    pthread_mutex_unlock(&edge->sink_lock);
    if (rc != ORR_OK)
        edge->tell_due_ms = now_ms + TELL_AGAIN_MS;
}

/* ---- the thread
 * ----------------------------------------------------------------------------- */

static int earlier(int timeout, uint64_t due_ms, uint64_t now_ms)
{
    int left = due_ms > now_ms ? (int)(due_ms - now_ms) : 0;
    return timeout < 0 || left < timeout ? left : timeout;
}

static int next_timeout(struct orri_edge *edge, uint64_t now_ms)
{
    int timeout = -1;
    pthread_mutex_lock(&edge->lock);
    bool has_work = edge->forgets.n || (edge->events.n && edge->has_sink);
    if (edge->sent.n || edge->settling.n)
        timeout = SETTLE_MS;
    pthread_mutex_unlock(&edge->lock);
    if (edge->spawner_fd < 0)
        timeout = earlier(timeout, edge->spawner_due_ms, now_ms);
    if (edge->tell_due_ms)
        return earlier(timeout, edge->tell_due_ms, now_ms);
    return has_work ? 0 : timeout;
}

static void wait_and_read(struct orri_edge *edge, int timeout)
{
    struct epoll_event events[EVENTS_MAX];
    bool has_reports = false;
    int n = epoll_wait(edge->epoll_fd, events, EVENTS_MAX, timeout);
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr == &edge->wake_fd) {
            uint64_t count;
            ssize_t got = read(edge->wake_fd, &count, sizeof count);
            (void)got;
        } else if (events[i].data.ptr == &edge->spawner) {
            has_reports = true;
        } else {
            orri_edge_settle_end(edge, events[i].data.ptr);
        }
    }
    if (has_reports) /* last: it may replace what other events point to */
        read_reports(edge);
}

void *orri_edge_run(void *arg)
{
    struct orri_edge *edge = arg;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &edge->wake_fd};
    uint64_t checked_ms = orri_mono_ms();
    pthread_setname_np(pthread_self(), "orr-process");
    epoll_ctl(edge->epoll_fd, EPOLL_CTL_ADD, edge->wake_fd, &event);
    for (bool is_closing = false; !is_closing;) {
        uint64_t now_ms = orri_mono_ms();
        start_spawner(edge, now_ms);
        send_launches(edge);
        run_forgets(edge);
        if (now_ms - checked_ms >= SETTLE_MS) {
            check_ranks(edge, now_ms);
            checked_ms = now_ms;
        }
        tell(edge, now_ms);
        wait_and_read(edge, next_timeout(edge, now_ms));
        pthread_mutex_lock(&edge->lock);
        is_closing = edge->is_closing;
        pthread_mutex_unlock(&edge->lock);
    }
    if (edge->spawner_fd >= 0) {
        close(edge->spawner_fd);
        kill(edge->spawner, SIGKILL);
        waitpid(edge->spawner, NULL, 0);
    }
    return NULL;
}
