/* SPDX-License-Identifier: Apache-2.0
 * edge.c - the edge's begin and end, and who listens to it.
 */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "edge.h"

enum { RANKS_MAX = 4096, GRACE_MS = 3000, IDLE_MS = 5000, RUN_MAX = 85 };

void orr_rank_edge_attach(struct orr_rank_edge *edge, const struct orr_rank_sink *sink)
{
    pthread_mutex_lock(&edge->lock);
    edge->has_sink = sink != NULL;
    if (sink)
        edge->sink = *sink;
    for (struct orri_gen *gen = sink ? edge->gens : NULL; gen; gen = gen->next) {
        gen->report_due = gen->step != ORR_CUT_NONE;
        for (struct orri_rank *rank = gen->ranks; rank; rank = rank->next)
            for (struct orri_proc *p = rank->procs; p; p = p->next)
                p->ability_due = p->is_welcome;
    }
    pthread_mutex_unlock(&edge->lock);
    orri_edge_wake_up(edge);
}

static enum orr_err make_run(const char *run, struct orr_error *err)
{
    struct stat st;
    if (mkdir(run, 0700) != 0 && errno != EEXIST)
        return orr_fail(err,
                        ORR_EIO,
                        "%s: %s; set ORRERY_RUN to a directory that can be made",
                        run,
                        strerror(errno));
    if (stat(run, &st) != 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() ||
        (st.st_mode & 077) != 0)
        return orr_fail(
            err,
            ORR_EIO,
            "%s must be a directory of user %u with mode 0700: whoever can "
            "write there could speak for ranks; chmod it, or set ORRERY_RUN",
            run,
            (unsigned)geteuid());
    return ORR_OK;
}

static void copy_config(struct orr_rank_edge *edge,
                        const struct orr_rank_edge_config *config)
{
    strcpy(edge->run, config->run);
    orr_str_copy(edge->node, sizeof edge->node, orr_str(config->node));
    orri_arenas_open(edge, config->arenas);
    edge->ranks_max = config->ranks_max ? config->ranks_max : RANKS_MAX;
    edge->grace_ms = config->grace_ms ? config->grace_ms : GRACE_MS;
    edge->idle_ms = config->idle_ms ? config->idle_ms : IDLE_MS;
}

static enum orr_err start(struct orr_rank_edge *edge, struct orr_error *err)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &edge->wake};
    edge->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    edge->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (edge->epoll_fd < 0 || edge->wake_fd < 0 ||
        epoll_ctl(edge->epoll_fd, EPOLL_CTL_ADD, edge->wake_fd, &event) != 0)
        return orr_fail(err, ORR_EIO, "rank edge: %s", strerror(errno));
    int rc = pthread_create(&edge->thread, NULL, orri_edge_loop, edge);
    if (rc != 0)
        return orr_fail(
            err, ORR_ENOMEM, "rank edge: cannot start a thread: %s", strerror(rc));
    edge->has_thread = true;
    return ORR_OK;
}

enum orr_err orr_rank_edge_open(const struct orr_rank_edge_config *config,
                                struct orr_rank_edge **ret_edge,
                                struct orr_error *err)
{
    if (strlen(config->run) > RUN_MAX)
        return orr_fail(err,
                        ORR_EINVAL,
                        "%s is longer than %d bytes, and a socket's path has 107; set "
                        "ORRERY_RUN to a shorter one",
                        config->run,
                        RUN_MAX);
    enum orr_err rc = make_run(config->run, err);
    if (rc)
        return rc;
    struct orr_rank_edge *edge = calloc(1, sizeof *edge);
    if (!edge)
        return orr_fail(err, ORR_ENOMEM, "out of memory");
    copy_config(edge, config);
    edge->epoll_fd = edge->wake_fd = -1;
    edge->wake.kind = ORRI_SOURCE_WAKE;
    pthread_mutex_init(&edge->lock, NULL);
    rc = start(edge, err);
    if (rc)
        orr_rank_edge_close(edge);
    else
        *ret_edge = edge;
    return rc;
}

void orr_rank_edge_close(struct orr_rank_edge *edge)
{
    if (!edge)
        return;
    pthread_mutex_lock(&edge->lock);
    edge->is_closing = true;
    pthread_mutex_unlock(&edge->lock);
    if (edge->has_thread) {
        orri_edge_wake_up(edge);
        pthread_join(edge->thread, NULL);
    }
    while (edge->gens)
        orri_gen_free(edge, edge->gens);
    orri_edge_bury(edge);
    if (edge->epoll_fd >= 0)
        close(edge->epoll_fd);
    if (edge->wake_fd >= 0)
        close(edge->wake_fd);
    if (edge->arenas_fd >= 0)
        close(edge->arenas_fd);
    pthread_mutex_destroy(&edge->lock);
    free(edge);
}
