/* SPDX-License-Identifier: Apache-2.0
 * bench_submit.c - trivial jobs through a whole fleet: submitted to completed,
 * acknowledged submits, one `orrery run`.
 *
 * Usage: bench_submit ORRERY_PROGRAM, with ORRERY_STATE naming a running fleet
 * (bench/run submit starts one). The peer is what the machine can do without any of it:
 * posix_spawn and wait of the same program, two at a time.
 */
#include "bench.h"
#include "orrery/client.h"

#include <fcntl.h>
#include <inttypes.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum {
    JOBS = 400,
    WINDOW = 64,
    ROUNDS = 3,
    RUNS = 31,
    PEER_SPAWNS = 1000,
    TIMEOUT_MS = 60000
};

static void read_line(const char *dir, const char *name, char *buf, size_t cap)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *in = fopen(path, "re");
    if (!in || !fgets(buf, (int)cap, in))
        die(path, "is there a fleet? `bench/run submit` starts one");
    fclose(in);
    buf[strcspn(buf, "\n")] = '\0';
}

/* ---- the fleet ---- */

struct fleet {
    struct orr_client *client;
    char region[128];
    uint8_t spec[512];
    size_t spec_len;
};

static void connect_fleet(struct fleet *f)
{
    char endpoint[512], name[64];
    struct orr_error err;
    const char *dir = getenv("ORRERY_STATE");
    if (!dir)
        die("ORRERY_STATE", "not set");
    read_line(dir, "endpoint", endpoint, sizeof endpoint);
    read_line(dir, "region", name, sizeof name);
    snprintf(f->region, sizeof f->region, "/%s", name);
    if (orr_client_new(endpoint, TIMEOUT_MS, &f->client, &err))
        die(endpoint, err.text);
    f->spec_len = true_spec(f->spec, sizeof f->spec);
}

static const void *next_answer(struct fleet *f, const struct orr_msg_desc *want)
{
    struct orr_answer answer;
    struct orr_error err;
    if (orr_client_receive(f->client, TIMEOUT_MS, &answer, &err))
        die("receive", err.text);
    if (answer.desc == orr_msg_desc_failed())
        die("answer", ((const struct orr_msg_failed *)answer.msg)->text.ptr);
    if (answer.desc != want)
        die("answer", answer.desc->body.name);
    return answer.msg;
}

static void
send_to_region(struct fleet *f, const struct orr_msg_desc *desc, const void *msg)
{
    uint64_t corr;
    struct orr_error err;
    if (orr_client_send(f->client, f->region, desc, msg, TIMEOUT_MS, &corr, &err))
        die("send", err.text);
}

/* JOBS jobs, WINDOW submits in flight; then wait for every one.  Returns seconds to the
 * last acknowledgement and the last end. */
static void one_round(struct fleet *f, double *ret_submit_s, double *ret_done_s)
{
    static char ids[JOBS][ORR_JOB_ID_MAX];
    static unsigned serial;
    unsigned sent = 0, acked = 0;
    double start = now_s();
    while (acked < JOBS) {
        while (sent < JOBS && sent - acked < WINDOW) {
            char key[64];
            snprintf(key, sizeof key, "bench-%d-%u", (int)getpid(), serial++);
            struct orr_msg_job_submit m = {.key = orr_str(key),
                                           .owner = ORR_LIT("bench"),
                                           .spec = {f->spec, (uint32_t)f->spec_len}};
            send_to_region(f, orr_msg_desc_job_submit(), &m);
            sent++;
        }
        const struct orr_msg_job_submitted *s =
            next_answer(f, orr_msg_desc_job_submitted());
        orr_str_copy(ids[acked++], ORR_JOB_ID_MAX, s->job);
    }
    *ret_submit_s = now_s() - start;
    for (unsigned asked = 0, ended = 0; ended < JOBS; ended++) {
        while (asked < JOBS && asked - ended < WINDOW) {
            struct orr_msg_job_wait m = {.job = orr_str(ids[asked++])};
            send_to_region(f, orr_msg_desc_job_wait(), &m);
        }
        const struct orr_msg_job_detail *d = next_answer(f, orr_msg_desc_job_detail());
        if (d->row.phase != ORR_JOB_DONE)
            die(d->row.job.ptr, d->row.reason.ptr);
    }
    *ret_done_s = now_s() - start;
}

/* ---- the peer: the machine alone ---- */

static pid_t spawn(char *const args[])
{
    posix_spawn_file_actions_t quiet;
    pid_t pid;
    posix_spawn_file_actions_init(&quiet);
    posix_spawn_file_actions_addopen(&quiet, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    int why = posix_spawnp(&pid, args[0], &quiet, NULL, args, environ);
    posix_spawn_file_actions_destroy(&quiet);
    if (why)
        die(args[0], strerror(why));
    return pid;
}

static double bare_spawns_per_s(void)
{
    char *args[] = {"/bin/true", NULL};
    double start = now_s();
    for (unsigned i = 0; i < PEER_SPAWNS; i++) {
        spawn(args);
        if (i >= 1)
            wait(NULL);
    }
    wait(NULL);
    return PEER_SPAWNS / (now_s() - start);
}

static double ms_of(char *const args[])
{
    int status;
    double start = now_s();
    pid_t pid = spawn(args);
    if (waitpid(pid, &status, 0) != pid || status != 0)
        die(args[0], "failed");
    return 1e3 * (now_s() - start);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        die("usage", "bench_submit ORRERY_PROGRAM");
    struct fleet f = {0};
    double submits[ROUNDS], jobs[ROUNDS], bare[ROUNDS], run_ms[RUNS], bare_ms[RUNS];
    connect_fleet(&f);
    for (unsigned i = 0; i < ROUNDS; i++) {
        double submit_s, done_s;
        one_round(&f, &submit_s, &done_s);
        submits[i] = JOBS / submit_s;
        jobs[i] = JOBS / done_s;
        bare[i] = bare_spawns_per_s();
    }
    char *run[] = {argv[1], "run", "--gpus", "0", "--", "/bin/true", NULL},
         *truth[] = {"/bin/true", NULL};
    for (unsigned i = 0; i < RUNS; i++) {
        run_ms[i] = ms_of(run);
        bare_ms[i] = ms_of(truth);
    }
    double machine = median(bare, ROUNDS);
    print("submit_to_completed",
          median(jobs, ROUNDS),
          "jobs/s",
          "bare posix_spawn of /bin/true",
          machine);
    print("submit_acknowledged",
          median(submits, ROUNDS),
          "submits/s",
          "bare posix_spawn of /bin/true",
          machine);
    print("run_true_p50",
          median(run_ms, RUNS),
          "ms",
          "/bin/true itself",
          median(bare_ms, RUNS));
    orr_client_free(f.client);
    return 0;
}
