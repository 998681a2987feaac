/* SPDX-License-Identifier: Apache-2.0
 * host.c - the daemon: configuration, state directory, kernel, transport, roles; then
 * wait for a signal.
 *
 * START      config -> state directory (lock, incarnation) -> system -> transport
 * (listen) -> roles (edges, actors, dial) -> run STOP       system first (handlers
 * finish), then the transport (what is queued goes out), then the edges.  Ranks run on
 * under their keepers: stopping a host is not stopping jobs. FAILURES   of a start: one
 * line on stderr that names the field; of an edge later: the edge's own business
 */
#include "host.h"

#include "roles.h"
#include "state_dir.h"

#include <getopt.h>
#include <signal.h>
#include <unistd.h>

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

static const char usage[] =
    "usage: orrery host --config FILE           run the roles of FILE until SIGTERM\n"
    "       orrery host --config FILE --check   only read FILE and say what it would "
    "do\n"
    "       orrery host --config FILE --wipe    end all ranks of this node and remove "
    "its emulated devices\n"
    "       orrery host --config FILE --recover-alone   run, and be the only voter of "
    "the "
    "region from now on:\n"
    "                                           only when the others are gone for good "
    "(docs/operations.md)\n"
    "configs/ has a commented file for each role.\n";

struct options {
    const char *config;
    bool is_check;
    bool is_wipe;
    bool is_alone;
};

static bool parse(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {{"config", 1, NULL, 'c'},
                                          {"check", 0, NULL, 'k'},
                                          {"wipe", 0, NULL, 'w'},
                                          {"recover-alone", 0, NULL, 'a'},
                                          {NULL, 0, NULL, 0}};
    int c;
    optind = 1;
    opterr = 0;
    while ((c = getopt_long(argc, argv, ":", longs, NULL)) >= 0) {
        if (c == 'c')
            o->config = optarg;
        else if (c == 'k')
            o->is_check = true;
        else if (c == 'w')
            o->is_wipe = true;
        else if (c == 'a')
            o->is_alone = true;
        else {
            fprintf(stderr,
                    "orrery: host: %s: %s\n",
                    argv[optind - 1],
                    c == ':' ? "needs a value" : "unknown option");
            return false;
        }
    }
    if (optind < argc)
        fprintf(stderr, "orrery: host: %s: not understood\n", argv[optind]);
    return o->config && optind == argc;
}

static enum orr_err open_kernel(struct host *h, struct orr_error *err)
{
    const struct orr_host_config *c = &h->config;
    h->log = (struct orr_log){
        .fd = STDERR_FILENO, .host = c->host.ptr, .level = c->log_level};
    const struct orr_system_config system = {.host = c->host.ptr,
                                             .incarnation = h->incarnation,
                                             .workers = c->workers,
                                             .seed = orr_hash(c->host) ^ h->incarnation,
                                             .log = orr_log_line,
                                             .log_arg = &h->log,
                                             .log_level = c->log_level};
    enum orr_err code = orr_system_new(&system, &h->system, err);
    if (code)
        return code;
    const struct orr_zmq_config zmq = {.system = h->system,
                                       .host = c->host.ptr,
                                       .incarnation = h->incarnation,
                                       .build = ORR_VERSION,
                                       .heartbeat_ms = (uint32_t)c->heartbeat_ms,
                                       .log = orr_log_line,
                                       .log_arg = &h->log};
    code = orr_zmq_new(&zmq, &h->zmq, err);
    for (uint32_t i = 0; !code && i < c->listen.n; i++)
        code = orr_zmq_listen(h->zmq, c->listen.at[i].value.ptr, NULL, err);
    if (!code)
        orr_system_set_transport(h->system, orr_zmq_transport(h->zmq));
    return code;
}

static void close_host(struct host *h)
{
    if (h->system)
        orr_system_stop(h->system);
    if (h->zmq)
        orr_zmq_stop(h->zmq);
    roles_close(h);
    orr_zmq_free(h->zmq);
    orr_system_free(h->system);
    orr_config_free(&h->config);
    if (h->lock_fd >= 0)
        close(h->lock_fd);
}

static enum orr_err run(struct host *h, struct orr_error *err)
{
    sigset_t set;
    int signal_number;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(
        SIG_BLOCK, &set, NULL); /* before any thread starts: all inherit it */
    signal(SIGPIPE, SIG_IGN);
    enum orr_err code = open_kernel(h, err);
    if (!code)
        code = roles_start(h, err);
    if (!code)
        code = orr_system_start(h->system, err);
    if (!code)
        code = orr_zmq_start(h->zmq, err);
    if (code)
        return code;
    fprintf(stderr,
            "orrery: host %s is up, start number %u\n",
            h->config.host.ptr,
            h->incarnation);
    sigwait(&set, &signal_number);
    fprintf(stderr,
            "orrery: host %s stops: %s; its ranks run on\n",
            h->config.host.ptr,
            strsignal(signal_number));
    return ORR_OK;
}

static enum orr_err
start(struct host *h, const struct options *o, struct orr_error *err)
{
    enum orr_err code = state_dir_open(h->config.state.ptr, &h->lock_fd, err);
    if (code || o->is_wipe)
        return code ? code : roles_wipe(h, err);
    h->is_alone = o->is_alone;
    code = state_dir_next_incarnation(h->config.state.ptr, &h->incarnation, err);
    return code ? code : run(h, err);
}

int orr_host_main(int argc, char **argv)
{
    struct options o = {0};
    struct host h = {.lock_fd = -1};
    struct orr_error err = {.code = ORR_OK};
    if (!parse(argc, argv, &o)) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    if (orr_config_load(o.config, &h.config, &err)) {
        fprintf(stderr, "orrery: %s\n", err.text);
        return EXIT_USAGE;
    }
    enum orr_err code = ORR_OK;
    if (o.is_check)
        printf("%s: host %s:%s%s%s\n",
               o.config,
               h.config.host.ptr,
               h.config.region_role.is_on ? " region" : "",
               h.config.cluster.is_on ? " cluster" : "",
               h.config.node.is_on ? " node" : "");
    else
        code = start(&h, &o, &err);
    if (code)
        fprintf(stderr, "orrery: %s\n", err.text);
    close_host(&h);
    return code ? EXIT_FAILED : EXIT_OK;
}
