/* SPDX-License-Identifier: Apache-2.0
 * bench_queue.c - durable submits to a region: rate and latency as its queue grows, and memory per idle job.
 *
 * Usage: bench_queue ENDPOINT REGION PID DIR [JOBS]; bench/run queue starts a region without clusters and calls it.  PID: of
 * the region's host, for its memory; DIR: on the disk that its ledger is on.  JOBS: default 1000000.
 * One connection, WINDOW submits in flight; each is acknowledged when the ledger has committed it.
 * The peer is the least that a durable queue on this disk can do without grouping: one write and fdatasync per submit.
 */
#include "bench.h"
#include "orrery/client.h"

#include <fcntl.h>
#include <unistd.h>

enum {
    WINDOW = 256,
    SAMPLE = 20000,     /* submits that a rate is measured over */
    PACED_PER_S = 5000, /* half of what is promised */
    PACED = 5 * PACED_PER_S,
    PEER_WRITES = 2000,
    ENTRY_BYTES = 1024, /* about what a submit adds to the ledger */
    TIMEOUT_MS = 60000,
    START_S = 10
};

static struct orr_client *client;
static char region[ORR_NAME_MAX + 2];
static uint8_t spec[512];
static size_t spec_len;
static uint64_t serial;

/* The host may be starting: until it leads, it refuses. */
static void connect_to(const char *endpoint)
{
    struct orr_error err;
    struct orr_answer answer;
    double until = now_s() + START_S;
    do {
        enum orr_err code =
            client ? ORR_OK : orr_client_new(endpoint, TIMEOUT_MS, &client, &err);
        if (!code && !orr_client_ask(client,
                                     region,
                                     orr_msg_desc_tree_get(),
                                     &(struct orr_msg_tree_get){0},
                                     TIMEOUT_MS,
                                     &answer,
                                     &err))
            return;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    } while (now_s() < until);
    die(endpoint, err.text);
}

static void submit(void)
{
    char key[64];
    uint64_t corr;
    struct orr_error err;
    snprintf(
        key, sizeof key, "queue-%d-%llu", (int)getpid(), (unsigned long long)serial++);
    const struct orr_msg_job_submit m = {.key = orr_str(key),
                                         .owner = ORR_LIT("bench"),
                                         .spec = {spec, (uint32_t)spec_len}};
    if (orr_client_send(
            client, region, orr_msg_desc_job_submit(), &m, TIMEOUT_MS, &corr, &err))
        die("send", err.text);
}

/* False: nothing came within timeout_ms. */
static bool acknowledged(uint64_t timeout_ms)
{
    struct orr_answer answer;
    struct orr_error err;
    enum orr_err code = orr_client_receive(client, timeout_ms, &answer, &err);
    if (code == ORR_ETIMEOUT && timeout_ms < TIMEOUT_MS)
        return false;
    if (code)
        die("receive", err.text);
    if (answer.desc == orr_msg_desc_failed())
        die("submit", ((const struct orr_msg_failed *)answer.msg)->text.ptr);
    return true;
}

/* Submits/s over the last SAMPLE of n. */
static double fill(uint64_t n)
{
    uint64_t sent = 0, acked = 0;
    uint64_t from = n > SAMPLE ? n - SAMPLE : 0;
    double start = now_s();
    while (acked < n) {
        while (sent < n && sent - acked < WINDOW) {
            submit();
            sent++;
        }
        (void)acknowledged(TIMEOUT_MS);
        if (++acked == from)
            start = now_s();
    }
    return (double)(n - from) / (now_s() - start);
}

/* Milliseconds from when each was due until it was acknowledged, sorted.  Answers come in the order of the submits. */
static void pace(double *ms)
{
    uint64_t sent = 0, acked = 0;
    double start = now_s();
    while (acked < PACED) {
        while (sent < PACED && now_s() - start >= (double)sent / PACED_PER_S) {
            submit();
            sent++;
        }
        for (uint64_t wait_ms = 1; acked < sent && acknowledged(wait_ms); wait_ms = 0) {
            ms[acked] = 1e3 * (now_s() - start - (double)acked / PACED_PER_S);
            acked++;
        }
    }
    qsort(ms, PACED, sizeof *ms, by_value);
}

static double rss_bytes(const char *pid)
{
    char path[64];
    unsigned long size, resident;
    snprintf(path, sizeof path, "/proc/%s/statm", pid);
    FILE *in = fopen(path, "re");
    if (!in || fscanf(in, "%lu %lu", &size, &resident) != 2)
        die(path, "cannot be read");
    fclose(in);
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

static double syncs_per_s(const char *dir, double *ret_p99_ms)
{
    static double ms[PEER_WRITES];
    char path[4096];
    const char bytes[ENTRY_BYTES] = {1};
    snprintf(path, sizeof path, "%s/bench-sync", dir);
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        die(path, "cannot be written");
    double start = now_s();
    for (unsigned i = 0; i < PEER_WRITES; i++) {
        double from = now_s();
        if (write(fd, bytes, sizeof bytes) != sizeof bytes || fdatasync(fd) != 0)
            die(path, "cannot be written");
        ms[i] = 1e3 * (now_s() - from);
    }
    double rate = PEER_WRITES / (now_s() - start);
    close(fd);
    unlink(path);
    qsort(ms, PEER_WRITES, sizeof *ms, by_value);
    *ret_p99_ms = ms[PEER_WRITES * 99 / 100];
    return rate;
}

int main(int argc, char **argv)
{
    static double ms[PACED];
    if (argc < 5)
        die("usage", "bench_queue ENDPOINT REGION PID DIR [JOBS]");
    uint64_t jobs = argc > 5 ? strtoull(argv[5], NULL, 10) : 1000000, queued = 0;
    snprintf(region, sizeof region, "/%s", argv[2]);
    connect_to(argv[1]);
    spec_len = true_spec(spec, sizeof spec);
    double sync_p99, sync = syncs_per_s(argv[4], &sync_p99);
    const char *peer = "write + fdatasync of 1 KiB each";
    double empty = rss_bytes(argv[3]), first = 0;
    fill(1000); /* all that is made once */
    for (uint64_t upto = 1000 + SAMPLE; queued < jobs; upto *= 7) {
        char name[64];
        upto = upto < jobs ? upto : jobs;
        double rate = fill(upto - queued);
        queued = upto;
        first = first > 0 ? first : rate;
        snprintf(
            name, sizeof name, "queue_submits_at_%llu", (unsigned long long)queued);
        print(name, rate, "submits/s", peer, sync);
        if (queued == jobs)
            print("queue_flatness", rate, "submits/s", "with the queue short", first);
    }
    pace(ms);
    print("queue_ack_p50_at_5000_per_s", ms[PACED / 2], "ms", peer, sync_p99);
    print("queue_ack_p99_at_5000_per_s", ms[PACED * 99 / 100], "ms", peer, sync_p99);
    print("queue_bytes_per_idle_job",
          (rss_bytes(argv[3]) - empty) / (double)(queued + PACED + 1000),
          "bytes",
          "the promise",
          4096);
    orr_client_free(client);
    return 0;
}
