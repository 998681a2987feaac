/* SPDX-License-Identifier: Apache-2.0
 * bench_launch.c - ranks of /bin/true launched, ended and forgotten per second, against
 * bare posix_spawn in the same run.
 *
 * usage: bench_launch [launches] [at once]; prints one JSON line.
 */
#include "bench_process.h"

#include <spawn.h>
#include <sys/wait.h>

struct bench {
    struct orr_process *process;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    uint32_t n_ended;
    uint32_t n_bad;
};

static enum orr_err on_event(void *arg, const struct orr_rec_rank_row *row)
{
    struct bench *b = arg;
    struct orr_process_id id = {row->job, row->generation, row->rank};
    if (row->state == ORR_RANK_RUNNING)
        return ORR_OK;
    bool is_good = row->state == ORR_RANK_EXITED && row->exit_code == 0 &&
                   b->process->ops->forget(b->process, &id, NULL) == ORR_OK;
    pthread_mutex_lock(&b->lock);
    b->n_ended++;
    b->n_bad += !is_good;
    pthread_cond_signal(&b->ended);
    pthread_mutex_unlock(&b->lock);
    return ORR_OK;
}

static double launches_per_s(struct bench *b, uint32_t n, uint32_t at_once)
{
    const struct orr_rec_text command[] = {{ORR_LIT("/bin/true")}};
    double start = now_s();
    for (uint32_t i = 0; i < n; i++) {
        struct orr_process_launch launch = {.id = {ORR_LIT("bench"), 1, i},
                                            .device = ORR_NO_DEVICE,
                                            .command = {command, 1}};
        pthread_mutex_lock(&b->lock);
        while (i - b->n_ended >= at_once)
            pthread_cond_wait(&b->ended, &b->lock);
        pthread_mutex_unlock(&b->lock);
        if (b->process->ops->launch(b->process, &launch, NULL) != ORR_OK)
            return 0;
    }
    pthread_mutex_lock(&b->lock);
    while (b->n_ended < n)
        pthread_cond_wait(&b->ended, &b->lock);
    pthread_mutex_unlock(&b->lock);
    return n / (now_s() - start);
}

static double spawns_per_s(uint32_t n, uint32_t at_once)
{
    char *argv[] = {(char[]){"/bin/true"}, NULL};
    char *env[] = {NULL};
    double start = now_s();
    for (uint32_t i = 0, n_ended = 0; n_ended < n;) {
        pid_t pid;
        if (i < n && i - n_ended < at_once) {
            if (posix_spawn(&pid, argv[0], NULL, NULL, argv, env) != 0)
                return 0;
            i++;
        } else {
            wait(NULL);
            n_ended++;
        }
    }
    return n / (now_s() - start);
}

int main(int argc, char **argv)
{
    if (is_spawner(argc, argv))
        return orr_spawner_main(argc, argv);
    uint32_t n = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 2000;
    uint32_t at_once = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 32;
    char dir[] = "/tmp/orr-bench-XXXXXX";
    struct bench b = {.lock = PTHREAD_MUTEX_INITIALIZER,
                      .ended = PTHREAD_COND_INITIALIZER};
    const struct orr_process_sink sink = {
        .found = ignore_found, .event = on_event, .arg = &b};
    if (!mkdtemp(dir))
        die(dir, strerror(errno));
    b.process =
        open_process(&(struct orr_process_linux_config){.state_dir = dir}, &sink);
    double spawns = spawns_per_s(n, at_once);
    double launches = launches_per_s(&b, n, at_once);
    close_process(b.process);
    remove_all(dir);
    printf("{\"bench\":\"launch\",\"value\":%.0f,\"unit\":\"launches/"
           "s\",\"peer\":\"bare posix_spawn\","
           "\"peer_value\":%.0f,\"ratio\":%.2f}\n",
           launches,
           spawns,
           launches / spawns);
    return b.n_bad || launches <= 0;
}
