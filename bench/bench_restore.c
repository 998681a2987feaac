/* SPDX-License-Identifier: Apache-2.0
 * bench_restore.c - from the order to restore a rank until it runs: while its memory still comes (lazy.h), and with all of it there.
 *
 * usage: bench_restore [MIB]: of the rank's memory, default 512; prints one JSON line.  Needs root and CRIU.
 */
#include "bench_process.h"

#include <signal.h>

enum { ROUNDS = 3, WAIT_S = 120 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all below */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static uint32_t states[2 * ROUNDS + 2]; /* by generation */
static bool is_able, is_known, is_imaged;
static enum orr_err image_code;

static char dir[64];

static void
wait_for(const char *what, const bool *flag, const uint32_t *state, uint32_t to)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_S;
    pthread_mutex_lock(&lock);
    while (flag ? !*flag : *state < to)
        if (pthread_cond_timedwait(&changed, &lock, &until) != 0)
            die(what, "not in time");
    pthread_mutex_unlock(&lock);
}

static void signal_change(void)
{
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static enum orr_err on_event(void *arg, const struct orr_rec_rank_row *row)
{
    (void)arg;
    if (row->state == ORR_RANK_LOST || row->state == ORR_RANK_FAILED)
        die("rank", "cannot be started or restored");
    pthread_mutex_lock(&lock);
    states[row->generation] = row->state;
    signal_change();
    return ORR_OK;
}

static enum orr_err on_done(void *arg, const struct orr_process_done *done)
{
    (void)arg;
    pthread_mutex_lock(&lock);
    is_imaged = true;
    image_code = done->code;
    signal_change();
    return ORR_OK;
}

static enum orr_err on_ability(void *arg, const struct orr_process_ability *ability)
{
    (void)arg;
    pthread_mutex_lock(&lock);
    is_known = true;
    is_able = ability->is_able;
    signal_change();
    return ORR_OK;
}

static struct orr_process *open_edge(uint64_t lazy_bytes_min)
{
    static const struct orr_process_sink sink = {.found = ignore_found,
                                                 .event = on_event,
                                                 .done = on_done,
                                                 .ability = on_ability};
    const struct orr_process_linux_config config = {.state_dir = dir,
                                                    .lazy_bytes_min = lazy_bytes_min};
    is_known = false;
    struct orr_process *process = open_process(&config, &sink);
    wait_for("the self-test", &is_known, NULL, 0);
    return process;
}

static struct orr_process_id id_of(uint64_t generation)
{
    return (struct orr_process_id){ORR_LIT("bench"), generation, 0};
}

static void launch(struct orr_process *process,
                   uint64_t generation,
                   struct orr_list_text command,
                   const char *image)
{
    struct orr_error err;
    const struct orr_process_launch l = {.id = id_of(generation),
                                         .device = ORR_NO_DEVICE,
                                         .command = command,
                                         .wants_image = true,
                                         .overlay = (uint64_t)getpid(),
                                         .restore_dir = orr_str(image)};
    if (process->ops->launch(process, &l, &err) != ORR_OK)
        die("launch", err.text);
    wait_for("the rank's start", NULL, &states[generation], ORR_RANK_RUNNING);
}

static void end(struct orr_process *process, uint64_t generation)
{
    const struct orr_process_id id = id_of(generation);
    (void)process->ops->signal(process, &id, SIGKILL, NULL);
    wait_for("the rank's end", NULL, &states[generation], ORR_RANK_EXITED);
}

/* The rank writes a line when it has filled its memory. */
static void await_filled(struct orr_process *process)
{
    const struct orr_process_id id = id_of(1);
    struct orr_process_log log = {.len = 0};
    uint8_t byte;
    const double began = now_s();
    while (log.len == 0) {
        (void)process->ops->log_read(process, &id, 1, 0, &byte, 1, &log, NULL);
        if (now_s() - began > WAIT_S)
            die("the rank", "does not fill its memory in time");
        usleep(10000);
    }
}

static void make_image(struct orr_process *process, const char *mib, const char *image)
{
    char self[512];
    struct orr_error err;
    const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    const struct orr_rec_text command[] = {
        {orr_str(self)}, {ORR_LIT("--hold")}, {orr_str(mib)}};
    launch(process, 1, (struct orr_list_text){command, 3}, "");
    await_filled(process);
    const struct orr_process_id id = id_of(1);
    const struct orr_process_image what = {.dir = orr_str(image)};
    if (process->ops->image(process, &id, &what, 1, &err) != ORR_OK)
        die("image", err.text);
    wait_for("the image", &is_imaged, NULL, 0);
    if (image_code != ORR_OK)
        die("image", "cannot be made");
    wait_for("the rank's end", NULL, &states[1], ORR_RANK_EXITED);
}

static double restore_s(uint64_t lazy_bytes_min, uint64_t generation, const char *image)
{
    double took[ROUNDS];
    struct orr_process *process = open_edge(lazy_bytes_min);
    for (uint64_t i = 0; i < ROUNDS; i++) {
        const double began = now_s();
        launch(process, generation + i, (struct orr_list_text){0}, image);
        took[i] = now_s() - began;
        end(process, generation + i);
    }
    close_process(process);
    return median(took, ROUNDS);
}

static int hold(size_t mib)
{
    volatile uint64_t *heap = malloc(mib << 20);
    for (size_t i = 0; heap && i < (mib << 20) / sizeof *heap; i++)
        heap[i] = i + 1;
    puts("filled");
    fflush(stdout);
    while (heap)
        pause();
    return 1;
}

int main(int argc, char **argv)
{
    if (is_spawner(argc, argv))
        return orr_spawner_main(argc, argv);
    if (argc == 3 && strcmp(argv[1], "--hold") == 0)
        return hold(strtoul(argv[2], NULL, 10));
    const char *mib = argc > 1 ? argv[1] : "512";
    char image[128];
    snprintf(dir, sizeof dir, "/dev/shm/orr-bench-restore-XXXXXX");
    if (!mkdtemp(dir))
        die(dir, strerror(errno));
    snprintf(image, sizeof image, "%s/image", dir);
    struct orr_process *process = open_edge(UINT64_MAX);
    if (is_able)
        make_image(process, mib, image);
    close_process(process);
    if (is_able) {
        const double lazy = restore_s(1, 2, image);
        print("restore_running",
              lazy * 1e3,
              "ms",
              "whole",
              restore_s(UINT64_MAX, 2 + ROUNDS, image) * 1e3);
    } else {
        printf("{\"bench\":\"restore_running\",\"value\":null,\"why\":\"images do not "
               "work here\"}\n");
    }
    remove_all(dir);
    return 0;
}
