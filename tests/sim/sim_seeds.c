/* SPDX-License-Identifier: Apache-2.0
 * sim_seeds.c - many random histories of fleets of several shapes, with all faults (gateways/sim/fleet.h).
 *
 *   sim_seeds hold FIRST COUNT     every invariant holds in each of them; else the seed and the command that shows it
 *   sim_seeds orders FIRST COUNT   the same, and jobs are suspended, saved, migrated, and nodes drain
 *   sim_seeds elastic FIRST COUNT  the same, without orders, of jobs that grow by themselves and give back
 *   sim_seeds caught FIRST COUNT   this build has a bug on purpose (tests/sim/mutants): some seed must break an invariant
 *   sim_seeds sim ...              `orrery sim` of this build
 */
#include "fleet.h"
#include "sim_main.h"

#include <stdlib.h>

static bool has_orders, is_elastic;

static struct fleet_plan plan_of(uint64_t seed)
{
    static const uint32_t replicas[] = {3, 1, 3, 5};
    return (struct fleet_plan){.seed = seed,
                               .replicas = replicas[seed % 4],
                               .clusters = 1 + (uint32_t)(seed / 4 % 3),
                               .nodes = 6,
                               .jobs = 16,
                               .faults_ms = 30000,
                               .has_no_orders = !has_orders,
                               .is_elastic = is_elastic,
                               .gpus = is_elastic ? 4 : 0,
                               .kinds = FAULTS_ALL};
}

static struct fleet_result run(uint64_t seed)
{
    static struct fleet fleet;
    struct fleet_result result;
    struct orr_error err;
    const struct fleet_plan plan = plan_of(seed);
    if (fleet_init(&fleet, &plan, &err) != ORR_OK) {
        fprintf(stderr, "sim_seeds: %s\n", err.text);
        exit(2);
    }
    fleet_run(&fleet, &result);
    fleet_fini(&fleet);
    return result;
}

static void print_broken(uint64_t seed, const struct fleet_result *result)
{
    const struct fleet_plan plan = plan_of(seed);
    printf("seed %llu, %llu ms: %s: %s\n",
           (unsigned long long)seed,
           (unsigned long long)result->at_ms,
           result->broken,
           result->text);
    printf("orrery sim --seed %llu --replicas %u --clusters %u --nodes %u --jobs %u "
           "--time %ums%s%s\n",
           (unsigned long long)seed,
           plan.replicas,
           plan.clusters,
           plan.nodes,
           plan.jobs,
           (unsigned)plan.faults_ms,
           has_orders ? "" : " --no-orders",
           is_elastic ? " --elastic --gpus 4" : "");
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "sim") == 0)
        return orr_sim_main(argc - 1, argv + 1);
    has_orders = argc == 4 && strcmp(argv[1], "orders") == 0;
    is_elastic = argc == 4 && strcmp(argv[1], "elastic") == 0;
    bool must_hold =
        has_orders || is_elastic || (argc == 4 && strcmp(argv[1], "hold") == 0);
    if (argc != 4 || (!must_hold && strcmp(argv[1], "caught") != 0)) {
        fprintf(stderr,
                "usage: sim_seeds hold|orders|elastic|caught FIRST COUNT | sim ...\n");
        return 2;
    }
    uint64_t first = strtoull(argv[2], NULL, 10);
    uint64_t count = strtoull(argv[3], NULL, 10);
    for (uint64_t seed = first; seed < first + count; seed++) {
        struct fleet_result result = run(seed);
        if (!result.broken)
            continue;
        print_broken(seed, &result);
        return must_hold;
    }
    printf("%llu seeds hold\n", (unsigned long long)count);
    return !must_hold;
}
