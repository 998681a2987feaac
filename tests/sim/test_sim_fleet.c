/* SPDX-License-Identifier: Apache-2.0
 * test_sim_fleet.c - a whole fleet under faults: one region, two clusters of three nodes, a client.
 *
 * Each seed is one history: random jobs, cancels, messages lost, repeated and delayed, hosts of nodes and clusters killed and
 * started again, machines that lose their processes.  After each step the invariants of world_check hold; when the faults
 * stop every job comes to exactly one end.  A failure prints its seed; ORR_SIM_SEED runs that one, ORR_SIM_LOG=1 shows it.
 */
#include "cluster/cluster.h"
#include "job/job.h"
#include "net.h"
#include "node/node.h"
#include "region/region.h"

#include "orr_test.h"

enum { CLUSTERS = 2, NODES = 6, FAULTS_MS = 30000, END_MS = 300000, JOBS = 24 };

static struct world world;
static struct client client;
static struct net net;
static struct net_host *nodes[NODES];
static struct net_host *clusters[CLUSTERS];

static void boot_region(struct net_host *host)
{
    const struct edge_args edge = {NULL, &world};
    net_spawn(host, &sim_events_type, &edge, "/edge/events");
    net_spawn(
        host,
        &orr_region_type,
        &(struct orr_region_args){.region = "eu1", .jobs_max = 256, .nodes_max = 64},
        "/eu1");
}

static void boot_cluster(struct net_host *host)
{
    struct orr_cluster_args args = {.region = "eu1",
                                    .region_host = "r1",
                                    .job_type = &orr_job_type,
                                    .nodes_max = 16,
                                    .jobs_max = 128,
                                    .lease_ms = 8000};
    memcpy(args.cluster, host->name, sizeof(args.cluster));
    char path[2 * ORR_NAME_MAX];
    snprintf(path, sizeof(path), "/eu1/%s", host->name);
    net_spawn(host, &orr_cluster_type, &args, path);
}

static void boot_node(struct net_host *host)
{
    struct machine *machine = host->arg;
    const struct edge_args edge = {machine, &world};
    struct orr_node_args args = {.region = "eu1", .ranks_max = 128, .slots = 4};
    memcpy(args.node, host->name, sizeof(args.node));
    const char *cluster = clusters[(machine - world.machines) * CLUSTERS / NODES]->name;
    orr_str_copy(args.cluster, sizeof(args.cluster), orr_str(cluster));
    orr_str_copy(args.cluster_host, sizeof(args.cluster_host), orr_str(cluster));
    net_spawn(host, &orr_node_type, &args, machine->node_path);
    net_spawn(host, &sim_process_type, &edge, "/edge/process");
    net_spawn(host, &sim_device_type, &edge, "/edge/device");
}

static void boot_client(struct net_host *host)
{
    struct client *arg = &client;
    net_spawn(host, &sim_client_type, &arg, "/client");
}

static uint32_t pick(uint32_t n)
{
    return (uint32_t)(world_random(&world) % n);
}

static void plan_jobs(void)
{
    client.n_jobs = JOBS;
    for (uint32_t i = 0; i < JOBS; i++) {
        struct client_job *job = &client.jobs[i];
        *job = (struct client_job){.submit_at_ms = pick(FAULTS_MS),
                                   .run_ms = 1 + pick(5000),
                                   .bad_rank = -1,
                                   .retries_user = pick(2)};
        job->world = 1u << pick(4);
        if (pick(3)) {
            job->gpus_max = 1 + pick(job->world < 6 ? job->world : 6);
            job->gpus_min = 1;
            while (job->world % job->gpus_max)
                job->gpus_max--;
            if (pick(2))
                job->gpus_min = job->gpus_max;
        }
        if (pick(4) == 0) {
            job->bad_rank = (int32_t)pick(job->world);
            job->exit_code = pick(2) ? 0 : 2;
            job->signal = job->exit_code ? 0 : 11;
        }
        if (pick(5) == 0)
            job->cancel_at_ms = job->submit_at_ms + pick(8000);
    }
}

static void setup_fleet(uint64_t seed)
{
    memset(&world, 0, sizeof(world));
    memset(&client, 0, sizeof(client));
    world.now_ms = 1;
    world.random = seed;
    net_init(&net, &world);
    struct net_host *region =
        net_host_add(&net, "r1", ORR_ROLE_HOST, boot_region, NULL);
    for (uint32_t i = 0; i < CLUSTERS; i++) {
        char name[8];
        snprintf(name, sizeof(name), "c%u", i + 1);
        clusters[i] = net_host_add(&net, name, ORR_ROLE_HOST, boot_cluster, NULL);
    }
    world.n_machines = NODES;
    for (uint32_t i = 0; i < NODES; i++) {
        struct machine *machine = &world.machines[i];
        *machine = (struct machine){.gpus = 2, .world = &world};
        char name[8];
        char path[64];
        snprintf(name, sizeof(name), "n%u", i % 10 + 1);
        snprintf(path, sizeof(path), "/eu1/c%u/%s", i * CLUSTERS / NODES + 1, name);
        memcpy(machine->name, name, sizeof(name));
        memcpy(machine->node_path, path, sizeof(path));
        nodes[i] = net_host_add(&net, machine->name, ORR_ROLE_HOST, boot_node, machine);
    }
    struct net_host *user =
        net_host_add(&net, "user", ORR_ROLE_CLIENT, boot_client, NULL);
    client.region = orr_addr_named(ORR_LIT("r1"), ORR_LIT("/eu1"));
    plan_jobs();
    net_host_start(region);
    for (uint32_t i = 0; i < CLUSTERS; i++)
        net_host_start(clusters[i]);
    for (uint32_t i = 0; i < NODES; i++)
        net_host_start(nodes[i]);
    net_host_start(user);
}

/* One random fault; what is down comes back by a later one. */
static void fault(void)
{
    uint32_t i = pick(NODES);
    uint32_t c = pick(CLUSTERS);
    switch (pick(6)) {
    case 0:
    case 1: /* a node's host; its ranks run on */
        if (nodes[i]->sys)
            net_host_crash(nodes[i]);
        break;
    case 2: /* a whole machine */
        if (nodes[i]->sys)
            net_host_crash(nodes[i]);
        world_machine_dies(&world.machines[i]);
        break;
    case 3:
        if (clusters[c]->sys)
            net_host_crash(clusters[c]);
        break;
    default: /* something comes back */
        if (!nodes[i]->sys)
            net_host_start(nodes[i]);
        if (!clusters[c]->sys)
            net_host_start(clusters[c]);
        break;
    }
}

static void calm(void)
{
    net.loss_per_mille = net.repeat_per_mille = 0;
    for (uint32_t i = 0; i < net.n_hosts; i++)
        if (!net.hosts[i].sys)
            net_host_start(&net.hosts[i]);
}

static void check_seed(uint64_t seed, const char *what)
{
    if (world.broken)
        fail_msg("seed %llu at %llu ms (%s): %s",
                 (unsigned long long)seed,
                 (unsigned long long)world.now_ms,
                 what,
                 world.broken);
}

/* Returns the hash of the history. */
static uint64_t run_seed(uint64_t seed, uint32_t fault_every_ms)
{
    setup_fleet(seed);
    net.loss_per_mille = pick(50);
    net.repeat_per_mille = pick(30);
    net.delay_max_ms = 1 + pick(20);
    uint64_t next_fault = fault_every_ms ? 1 + pick(fault_every_ms) : UINT64_MAX;
    bool is_calm = false;
    while (client.n_ended < client.n_jobs && world.now_ms < END_MS) {
        if (!is_calm && world.now_ms >= FAULTS_MS) {
            is_calm = true;
            calm();
        }
        if (!is_calm && world.now_ms >= next_fault) {
            fault();
            next_fault = world.now_ms + 1 + pick(2 * fault_every_ms);
        }
        net_step(&net, next_fault < FAULTS_MS ? next_fault : world.now_ms + 1000);
        world_check(&world);
        check_seed(seed, "invariant");
    }
    for (uint32_t i = 0; i < client.n_jobs; i++)
        if (client.jobs[i].goal != CLIENT_ENDED)
            fail_msg("seed %llu: job %u (%s) has not ended: %s: %s",
                     (unsigned long long)seed,
                     i,
                     client.jobs[i].id,
                     orr_job_phase_name(client.jobs[i].phase),
                     client.jobs[i].reason);
    assert_int_equal(world.n_terminal, client.n_jobs);
    net_fini(&net);
    return net.hash;
}

static void run_seeds(uint64_t first, uint32_t n, uint32_t fault_every_ms)
{
    const char *only = getenv("ORR_SIM_SEED");
    if (only) {
        run_seed(strtoull(only, NULL, 10), fault_every_ms);
        return;
    }
    for (uint64_t seed = first; seed < first + n; seed++)
        run_seed(seed, fault_every_ms);
}

static void fleet_with_lossy_network_ends_every_job(void **state)
{
    (void)state;
    run_seeds(1, 10, 0);
}

static void fleet_with_crashes_ends_every_job(void **state)
{
    (void)state;
    run_seeds(100, 20, 3000);
}

static void same_seed_gives_same_history(void **state)
{
    (void)state;
    uint64_t first = run_seed(7, 2000);
    assert_int_equal(run_seed(7, 2000), first);
    assert_int_not_equal(run_seed(8, 2000), first);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fleet_with_lossy_network_ends_every_job),
        cmocka_unit_test(fleet_with_crashes_ends_every_job),
        cmocka_unit_test(same_seed_gives_same_history),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
