/* SPDX-License-Identifier: Apache-2.0
 * main.c - `tcp`: ranks that talk to each other all the time, by nothing but sockets.
 *
 * An ordinary program without CUDA, started once a rank with the variables of torchrun.
 * Its connections live as long as it does, and it ends with an error if one of them
 * breaks or loses, repeats or changes a byte. At the end rank 0 prints a digest that
 * depends on every byte that any rank sent, the same for the same world, seed and
 * options.
 */
#include "fail.h"
#include "mesh.h"
#include "options.h"
#include "traffic.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void
parse_options(struct traffic_config *c, struct digests *digests, int argc, char **argv)
{
    /* clang-format off */
    const struct option_spec specs[] = {
        {"steps", OPTION_NUMBER, &c->steps, 1, STEPS_MAX, "N  records on each connection, each way"},
        {"window", OPTION_NUMBER, &c->window, 1, TRAFFIC_WINDOW_MAX, "W  steps that a rank sends ahead"},
        {"bytes", OPTION_NUMBER, &c->bytes, 64, RECORD_PAYLOAD_MAX, "B  largest record, a multiple of 8"},
        {"work", OPTION_NUMBER, &c->work, 0, 1000000, "K  times that the state is stirred in a step"},
        {"seed", OPTION_LONG, &c->seed, 0, UINT64_MAX, "N  of the first state"},
        {"log-every", OPTION_NUMBER, &c->log_every, 1, UINT32_MAX, "K  print how far it is every K steps"},
        DIGESTS_OPTIONS(digests),
    };
    /* clang-format on */
    options_parse(specs, sizeof specs / sizeof *specs, argc, argv);
    if (c->bytes % 8 != 0)
        usage_error("--bytes %u: want a multiple of 8", c->bytes);
}

int main(int argc, char **argv)
{
    char err[MEET_ERR_MAX];
    struct traffic_config cfg = {.steps = 25000,
                                 .window = 4,
                                 .bytes = 4096,
                                 .work = 16,
                                 .seed = 1,
                                 .log_every = 5000};
    static struct digests digests = {.every = 1000};
    static struct traffic traffic;
    struct meet who;
    struct mesh mesh;
    setvbuf(stdout, NULL, _IOLBF, 0);
    parse_options(&cfg, &digests, argc, argv);
    if (!meet_from_env(&who, err))
        usage_error("%s", err);
    if (who.world < 2 || who.world > MESH_WORLD_MAX)
        usage_error("WORLD_SIZE=%u: want 2 to %d ranks", who.world, MESH_WORLD_MAX);
    die_as_rank(who.rank);
    digests.rank = who.rank;
    mesh_init(&mesh, &who);
    traffic_init(&traffic, &cfg, &mesh);
    traffic_run(&traffic, &digests);
    if (who.rank == 0)
        printf("records=%llu bytes=%llu digest=%016llx\n",
               (unsigned long long)traffic.records,
               (unsigned long long)traffic.bytes,
               (unsigned long long)traffic.digest);
    traffic_fini(&traffic);
    mesh_fini(&mesh);
    if (fflush(stdout) != 0 || ferror(stdout))
        die("stdout: %s", strerror(errno));
    return 0;
}
