/* SPDX-License-Identifier: Apache-2.0
 * bench_local.c - local messages of the kernel on one worker, and the same exchanges on Erlang in the same run, where erl and
 * erlc are installed.  Prints one JSON line per number; see README.md.
 *
 * A message is `ping` with a number; acknowledgements that hold a sender back are sent but not counted.
 */
#include "../runtime/system.h"

#include <semaphore.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    WINDOW = 512,
    FAN_SENDERS = 1000,
    FAN_WINDOW = 10,
    SPAWN_STEP = 1000,
    RUNS_MAX = 9
};

static sem_t is_done;
static unsigned n_runs = 5;
static unsigned n_workers = 1;
static double scale = 1;
static const char *only; /* NULL: all */

struct peer_value {
    char name[48];
    double value;
};
static struct peer_value peers[16];
static unsigned n_peers;

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- source and sink ---- */

struct source {
    struct orr_addr to;
    uint64_t window;
    uint64_t n_windows; /* sent at the start */
};

static void send_window(struct orr_ctx *ctx, const struct source *self)
{
    for (uint64_t n = self->window; n > 0; n--)
        orr_send(ctx, self->to, ping, .nonce = n);
}

static enum orr_err source_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct source *self = state;
    memcpy(self, args, sizeof(*self));
    for (uint64_t i = 0; i < self->n_windows; i++)
        send_window(ctx, self);
    return ORR_OK;
}

ORR_HANDLER(source, pong)
static enum orr_err
source_on_pong(struct orr_ctx *ctx, struct source *self, const struct orr_msg_pong *msg)
{
    (void)msg;
    send_window(ctx, self);
    return ORR_OK;
}

static const struct orr_handler source_handlers[] = {
    ORR_ON(source, pong, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};
static const struct orr_actor_type source_type = {
    .name = "source",
    .state_size = sizeof(struct source),
    .args_size = sizeof(struct source),
    .init = source_init,
    .handlers = source_handlers,
    .n_handlers = ORR_ARRAY_SIZE(source_handlers),
    .mailbox_max = 32767,
};

struct sink {
    uint64_t left;
};

static enum orr_err sink_init(struct orr_ctx *ctx, void *state, const void *args)
{
    (void)ctx;
    memcpy(state, args, sizeof(struct sink));
    return ORR_OK;
}

ORR_HANDLER(sink, ping)
static enum orr_err
sink_on_ping(struct orr_ctx *ctx, struct sink *self, const struct orr_msg_ping *msg)
{
    if (msg->nonce == 1) /* the last of its window */
        orr_send(ctx, ctx->from, pong);
    if (--self->left == 0)
        sem_post(&is_done);
    return ORR_OK;
}

static const struct orr_handler sink_handlers[] = {
    ORR_ON(sink, ping, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};
static const struct orr_actor_type sink_type = {
    .name = "sink",
    .state_size = sizeof(struct sink),
    .args_size = sizeof(struct sink),
    .init = sink_init,
    .handlers = sink_handlers,
    .n_handlers = ORR_ARRAY_SIZE(sink_handlers),
    .mailbox_max = 32767,
};

/* ---- ping-pong ---- */

struct player {
    struct orr_addr peer;
    uint64_t left;
};

static enum orr_err player_init(struct orr_ctx *ctx, void *state, const void *args)
{
    struct player *self = state;
    memcpy(self, args, sizeof(*self));
    if (self->left)
        orr_send(ctx, self->peer, ping, .nonce = self->left);
    return ORR_OK;
}

ORR_HANDLER(player, ping)
static enum orr_err
player_on_ping(struct orr_ctx *ctx, struct player *self, const struct orr_msg_ping *msg)
{
    (void)self;
    orr_send(ctx, ctx->from, pong, .nonce = msg->nonce);
    return ORR_OK;
}

ORR_HANDLER(player, pong)
static enum orr_err
player_on_pong(struct orr_ctx *ctx, struct player *self, const struct orr_msg_pong *msg)
{
    (void)msg;
    if (--self->left)
        orr_send(ctx, self->peer, ping, .nonce = self->left);
    else
        sem_post(&is_done);
    return ORR_OK;
}

static const struct orr_handler player_handlers[] = {
    ORR_ON(player, ping, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
    ORR_ON(player, pong, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};
static const struct orr_actor_type player_type = {
    .name = "player",
    .state_size = sizeof(struct player),
    .args_size = sizeof(struct player),
    .init = player_init,
    .handlers = player_handlers,
    .n_handlers = ORR_ARRAY_SIZE(player_handlers),
};

/* ---- spawning: a nursery spawns actors in steps; each tells it that it runs ---- */

struct idler {
    struct orr_addr nursery;
};

static enum orr_err idler_init(struct orr_ctx *ctx, void *state, const void *args)
{
    memcpy(state, args, sizeof(struct idler));
    const struct idler *self = args;
    orr_send(ctx, self->nursery, ack);
    return ORR_OK;
}

static const struct orr_actor_type idler_type = {
    .name = "idler",
    .state_size = sizeof(struct idler),
    .args_size = sizeof(struct idler),
    .init = idler_init,
};

struct nursery {
    uint64_t left;    /* to spawn */
    uint64_t waiting; /* spawned, not heard of */
};

static enum orr_err spawn_step(struct orr_ctx *ctx, struct nursery *self)
{
    struct idler args = {ctx->self};
    struct orr_spawn spawn = {.type = &idler_type, .args = &args};
    struct orr_addr addr;
    for (int i = 0; i < SPAWN_STEP && self->left; i++, self->left--, self->waiting++)
        if (orr_spawn(ctx, &spawn, &addr) != ORR_OK)
            return ORR_ECRASH;
    return ORR_OK;
}

static enum orr_err nursery_init(struct orr_ctx *ctx, void *state, const void *args)
{
    memcpy(state, args, sizeof(struct nursery));
    return spawn_step(ctx, state);
}

ORR_HANDLER(nursery, ack)
static enum orr_err
nursery_on_ack(struct orr_ctx *ctx, struct nursery *self, const struct orr_msg_ack *msg)
{
    (void)msg;
    if (--self->waiting)
        return ORR_OK;
    if (self->left)
        return spawn_step(ctx, self);
    sem_post(&is_done);
    return ORR_OK;
}

static const struct orr_handler nursery_handlers[] = {
    ORR_ON(nursery, ack, ORR_ANY_STATE, ORR_ROLE_LOCAL, ORR_REFUSE),
};
static const struct orr_actor_type nursery_type = {
    .name = "nursery",
    .state_size = sizeof(struct nursery),
    .args_size = sizeof(struct nursery),
    .init = nursery_init,
    .handlers = nursery_handlers,
    .n_handlers = ORR_ARRAY_SIZE(nursery_handlers),
};

/* ---- runs ---- */

static void die(const char *what)
{
    fprintf(stderr, "bench_local: %s\n", what);
    exit(1);
}

static struct orr_system *new_system(void)
{
    struct orr_system_config config = {
        .host = "bench", .incarnation = 1, .workers = n_workers};
    struct orr_system *sys;
    struct orr_error err;
    if (orr_system_new(&config, &sys, &err) != ORR_OK ||
        orr_system_start(sys, &err) != ORR_OK)
        die(err.text);
    return sys;
}

static struct orr_addr
spawn(struct orr_system *sys, const struct orr_actor_type *type, const void *args)
{
    struct orr_spawn what = {.type = type, .args = args};
    struct orr_addr addr;
    if (orr_system_spawn(sys, &what, &addr) != ORR_OK)
        die("cannot spawn");
    return addr;
}

static void wait_done(void)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 120;
    if (sem_timedwait(&is_done, &until) != 0)
        die("a run did not end within 120 s");
}

static double finish(struct orr_system *sys, double start, double n)
{
    wait_done();
    double rate = n / (now_s() - start);
    orr_system_stop(sys);
    orr_system_free(sys);
    return rate;
}

static double one_to_one(void)
{
    uint64_t n = (uint64_t)(20e6 * scale) / WINDOW * WINDOW;
    struct orr_system *sys = new_system();
    struct orr_addr to = spawn(sys, &sink_type, &(struct sink){.left = n});
    double start = now_s();
    spawn(sys, &source_type, &(struct source){to, WINDOW, 2});
    return finish(sys, start, (double)n);
}

static double ping_pong(void)
{
    uint64_t n = (uint64_t)(5e6 * scale);
    struct orr_system *sys = new_system();
    struct orr_addr peer = spawn(sys, &player_type, &(struct player){.left = 0});
    double start = now_s();
    spawn(sys, &player_type, &(struct player){.peer = peer, .left = n});
    return finish(sys, start, 2 * (double)n);
}

static double fan_in(void)
{
    uint64_t n =
        (uint64_t)(10e6 * scale) / FAN_SENDERS / FAN_WINDOW * FAN_SENDERS * FAN_WINDOW;
    struct orr_system *sys = new_system();
    struct orr_addr to = spawn(sys, &sink_type, &(struct sink){.left = n});
    double start = now_s();
    for (int i = 0; i < FAN_SENDERS; i++)
        spawn(sys, &source_type, &(struct source){to, FAN_WINDOW, 1});
    return finish(sys, start, (double)n);
}

static double spawn_many(void)
{
    uint64_t n = (uint64_t)(200e3 * scale);
    struct orr_system *sys = new_system();
    double start = now_s();
    spawn(sys, &nursery_type, &(struct nursery){.left = n});
    return finish(sys, start, (double)n);
}

static double resident_bytes(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%*d %ld", &pages) != 1)
        die("cannot read /proc/self/statm");
    fclose(file);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static double idle_bytes(void)
{
    uint64_t n = 200000; /* not scaled: what is fixed must not weigh in */
    struct orr_system *sys = new_system();
    double before = resident_bytes();
    spawn(sys, &nursery_type, &(struct nursery){.left = n});
    wait_done();
    double bytes =
        (resident_bytes() - before) / (double)n - (double)sizeof(struct idler);
    orr_system_stop(sys);
    orr_system_free(sys);
    return bytes;
}

static int by_value(const void *x, const void *y)
{
    double a = *(const double *)x;
    double b = *(const double *)y;
    return (a > b) - (a < b);
}

static void report(const char *name, double value, const char *unit)
{
    const struct peer_value *peer = NULL;
    for (unsigned i = 0; i < n_peers; i++)
        if (strcmp(peers[i].name, name) == 0)
            peer = &peers[i];
    printf("{\"bench\":\"%s\",\"value\":%.0f,\"unit\":\"%s\"", name, value, unit);
    if (peer && peer->value > 0)
        printf(",\"peer\":\"erlang\",\"peer_value\":%.0f,\"ratio\":%.2f}\n",
               peer->value,
               value / peer->value);
    else
        printf(",\"peer\":null,\"peer_value\":null,\"ratio\":null}\n");
    fflush(stdout);
}

static void
measure(const char *name, double (*run)(void), const char *unit, unsigned runs)
{
    if (only && strcmp(only, name) != 0)
        return;
    double values[RUNS_MAX];
    for (unsigned i = 0; i < runs; i++)
        values[i] = run();
    qsort(values, runs, sizeof(values[0]), by_value);
    report(name, values[runs / 2], unit);
}

/* Compile and run the peer; without erl there are no peer values. */
static void run_erlang(const char *source)
{
    char command[1024];
    int n = snprintf(
        command,
        sizeof(command),
        "command -v erlc >/dev/null && d=$(mktemp -d) && erlc -o \"$d\" '%s' && "
        "timeout 120 erl +S 1:1 -noshell -pa \"$d\" -s bench_local main; "
        "rm -rf \"$d\"",
        source);
    FILE *pipe = n < (int)sizeof(command) ? popen(command, "r") : NULL;
    if (!pipe)
        return;
    struct peer_value value;
    while (n_peers < ORR_ARRAY_SIZE(peers) &&
           fscanf(pipe, "%47s %lf", value.name, &value.value) == 2)
        peers[n_peers++] = value;
    pclose(pipe);
}

int main(int argc, char **argv)
{
    const char *peer = ORR_BENCH_PEER;
    for (int opt; (opt = getopt(argc, argv, "b:p:r:s:w:")) != -1;) {
        if (opt == 'b') {
            only = optarg;
        } else if (opt == 'p') {
            peer = optarg;
        } else if (opt == 'r' && atoi(optarg) >= 1 && atoi(optarg) <= RUNS_MAX) {
            n_runs = (unsigned)atoi(optarg);
        } else if (opt == 'w' && atoi(optarg) >= 1) {
            n_workers = (unsigned)atoi(optarg);
        } else if (opt == 's' && atof(optarg) > 0) {
            scale = atof(optarg);
        } else {
            fprintf(stderr,
                    "usage: %s [-b BENCH] [-p PEER.erl] [-r RUNS (1-%d)] [-s SCALE] "
                    "[-w WORKERS]\n",
                    argv[0],
                    RUNS_MAX);
            return 2;
        }
    }
    sem_init(&is_done, 0, 0);
    if (*peer)
        run_erlang(peer);
    measure("local_one_to_one", one_to_one, "messages/s", n_runs);
    measure("local_ping_pong", ping_pong, "messages/s", n_runs);
    measure("local_fan_in", fan_in, "messages/s", n_runs);
    measure("local_spawn", spawn_many, "actors/s", n_runs);
    measure("local_idle_bytes", idle_bytes, "bytes/actor", 1);
    return 0;
}
