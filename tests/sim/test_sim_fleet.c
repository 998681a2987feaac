/* SPDX-License-Identifier: Apache-2.0
 * test_sim_fleet.c - a whole fleet under faults: one region, two clusters of three nodes, a client.
 *
 * Each seed is one history: random jobs, cancels, messages lost, repeated, delayed and reordered, hosts of nodes and
 * clusters killed and started again, machines that lose their processes.  After each step the invariants of world_check
 * hold; when the faults stop every job comes to exactly one end.  A failure prints its seed; ORR_SIM_SEED=n runs that one,
 * ORR_SIM_LOG=1 shows it.
 */
#include "cluster/cluster.h"
#include "job/job.h"
#include "node/node.h"
#include "region/region.h"
#include "sim.h"
#include "world.h"

#include "orr_test.h"

enum { CLUSTERS = 2, NODES = 6, JOBS = 24, FAULTS_MS = 30000, END_MS = 300000 };
enum host {
    REGION,
    FIRST_CLUSTER,
    FIRST_NODE = FIRST_CLUSTER + CLUSTERS,
    USER = FIRST_NODE + NODES,
    HOSTS
};

static struct world world;
static struct client client;
static struct orr_sim *sim;
static bool is_down[HOSTS];

static uint32_t pick(uint32_t n)
{
    return (uint32_t)(orr_sim_random(sim) % n);
}

/* ---- hosts ---- */

static void spawn(uint32_t host,
                  const struct orr_actor_type *type,
                  const void *args,
                  const char *path)
{
    struct orr_addr addr;
    const struct orr_spawn how = {type, args, path, ORR_PERMANENT};
    assert_int_equal(orr_system_spawn(orr_sim_system(sim, host), &how, &addr), ORR_OK);
}

static void boot_cluster(uint32_t host, uint32_t index)
{
    char path[32];
    struct orr_cluster_args args = {.region = "eu1",
                                    .region_hosts = {"r1"},
                                    .job_type = &orr_job_type,
                                    .nodes_max = 16,
                                    .jobs_max = 128,
                                    .lease_ms = 8000};
    snprintf(args.cluster, sizeof(args.cluster), "c%u", index + 1);
    snprintf(path, sizeof(path), "/eu1/c%u", index + 1);
    spawn(host, &orr_cluster_type, &args, path);
}

static void boot_node(uint32_t host, uint32_t index)
{
    struct machine *machine = &world.machines[index];
    const struct edge_args edge = {machine, &world};
    struct orr_node_args args = {.region = "eu1", .ranks_max = 128, .slots = 4};
    memcpy(args.node, machine->name, sizeof(args.node));
    snprintf(args.cluster, sizeof(args.cluster), "c%u", index * CLUSTERS / NODES + 1);
    memcpy(args.cluster_host, args.cluster, sizeof(args.cluster_host));
    spawn(host, &orr_node_type, &args, machine->node_path);
    spawn(host, &sim_process_type, &edge, "/edge/process");
    spawn(host, &sim_device_type, &edge, "/edge/device");
}

static void boot(void *arg, struct orr_sim *the_sim, uint32_t host)
{
    (void)arg;
    sim = the_sim;
    const struct edge_args edge = {NULL, &world};
    struct client *user = &client;
    if (host == REGION) {
        spawn(host, &sim_events_type, &edge, "/edge/events");
        spawn(host,
              &orr_region_type,
              &(struct orr_region_args){
                  .region = "eu1", .jobs_max = 256, .nodes_max = 64},
              "/eu1");
    } else if (host < FIRST_NODE) {
        boot_cluster(host, host - FIRST_CLUSTER);
    } else if (host < USER) {
        boot_node(host, host - FIRST_NODE);
    } else {
        spawn(host, &sim_client_type, &user, "/client");
    }
}

/* ---- history ---- */

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
            while (job->world % job->gpus_max)
                job->gpus_max--;
            job->gpus_min = pick(2) ? job->gpus_max : 1;
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

static bool holds(void *arg, struct orr_sim *the_sim, char *text, size_t cap)
{
    (void)arg;
    world.now_ms = orr_sim_now_ms(the_sim);
    world_check(&world);
    snprintf(text, cap, "%s", world.broken ? world.broken : "");
    return !world.broken;
}

static bool all_ended(void *arg, struct orr_sim *the_sim)
{
    (void)arg;
    (void)the_sim;
    return client.n_ended == client.n_jobs;
}

static void crash(uint32_t host)
{
    if (!is_down[host])
        orr_sim_crash(sim, host);
    is_down[host] = true;
}

static void start(uint32_t host)
{
    if (is_down[host])
        assert_int_equal(orr_sim_restart(sim, host), ORR_OK);
    is_down[host] = false;
}

/* One random fault; what is down comes back by a later one. */
static void fault(void *arg, struct orr_sim *the_sim, uint64_t number)
{
    (void)arg;
    (void)number;
    world.now_ms = orr_sim_now_ms(the_sim);
    uint32_t node = pick(NODES);
    uint32_t cluster = pick(CLUSTERS);
    switch (pick(8)) {
    case 0:
    case 1: /* a node's host; its ranks run on */
        crash(FIRST_NODE + node);
        break;
    case 2: /* a whole machine */
        crash(FIRST_NODE + node);
        world_machine_dies(&world.machines[node]);
        break;
    case 3:
        crash(FIRST_CLUSTER + cluster);
        break;
    case 4: /* somebody is cut off, or some are together */
        orr_sim_side_set(the_sim, FIRST_NODE + node, 1);
        if (pick(3) == 0)
            orr_sim_side_set(the_sim, FIRST_CLUSTER + cluster, 1);
        break;
    case 5:
        orr_sim_side_set(the_sim, FIRST_NODE + node, 0);
        orr_sim_side_set(the_sim, FIRST_CLUSTER + cluster, 0);
        break;
    default:
        start(FIRST_NODE + node);
        start(FIRST_CLUSTER + cluster);
        break;
    }
}

static void calm(void *arg, struct orr_sim *the_sim, uint64_t number)
{
    (void)arg;
    (void)number;
    const struct orr_sim_faults none = {.delay_min_ms = 1, .delay_max_ms = 2};
    assert_int_equal(orr_sim_faults_set(the_sim, ORR_SIM_ALL, ORR_SIM_ALL, &none),
                     ORR_OK);
    for (uint32_t host = 0; host < HOSTS; host++) {
        orr_sim_side_set(the_sim, host, 0);
        start(host);
    }
}

static void show_log(void *arg,
                     enum orr_log_level level,
                     uint64_t wall,
                     const char *who,
                     const char *text)
{
    (void)arg;
    (void)wall;
    if (getenv("ORR_SIM_LOG"))
        fprintf(
            stderr, "%8u %d %s: %s\n", (unsigned)world.now_ms, (int)level, who, text);
}

static void set_up(uint64_t seed)
{
    memset(&world, 0, sizeof(world));
    memset(&client, 0, sizeof(client));
    memset(is_down, 0, sizeof(is_down));
    world.random = seed;
    world.n_machines = NODES;
    client.region = orr_addr_named(ORR_LIT("r1"), ORR_LIT("/eu1"));
    const struct orr_sim_config config = {
        .seed = seed,
        .boot = boot,
        .check = holds,
        .faults = {.delay_min_ms = 1, .delay_max_ms = 2 + (uint32_t)(seed % 20)},
        .log = show_log,
        .log_level = ORR_LOG_DEBUG,
    };
    assert_int_equal(orr_sim_new(&config, &sim), ORR_OK);
    plan_jobs();
    for (uint32_t i = 0; i < HOSTS; i++) {
        char name[16] = "r1";
        if (i >= USER)
            snprintf(name, sizeof(name), "user");
        else if (i >= FIRST_NODE)
            snprintf(name, sizeof(name), "n%u", i - FIRST_NODE + 1);
        else if (i >= FIRST_CLUSTER)
            snprintf(name, sizeof(name), "c%u", i - FIRST_CLUSTER + 1);
        if (i >= FIRST_NODE && i < USER) {
            struct machine *machine = &world.machines[i - FIRST_NODE];
            machine->gpus = 2;
            machine->world = &world;
            memcpy(machine->name, name, sizeof(name));
            char path[64];
            snprintf(path,
                     sizeof(path),
                     "/eu1/c%u/%s",
                     (i - FIRST_NODE) * CLUSTERS / NODES + 1,
                     name);
            memcpy(machine->node_path, path, sizeof(path));
        }
        uint32_t host;
        assert_int_equal(orr_sim_host_add(sim, name, &host), ORR_OK);
    }
}

/* Returns the hash of the history. */
static uint64_t run_seed(uint64_t seed, uint32_t fault_every_ms)
{
    struct orr_error err = {0};
    set_up(seed);
    const struct orr_sim_faults faults = {.delay_min_ms = 1,
                                          .delay_max_ms = 2 + pick(30),
                                          .loss_ppm =
                                              pick(4) ? pick(50000) : pick(300000),
                                          .duplicate_ppm = pick(30000),
                                          .reorder_ppm = pick(30000)};
    assert_int_equal(orr_sim_faults_set(sim, ORR_SIM_ALL, ORR_SIM_ALL, &faults),
                     ORR_OK);
    for (uint32_t at = fault_every_ms; fault_every_ms && at < FAULTS_MS;
         at += 1 + pick(2 * fault_every_ms))
        assert_int_equal(orr_sim_at(sim, at, fault, NULL, 0), ORR_OK);
    assert_int_equal(orr_sim_at(sim, FAULTS_MS, calm, NULL, 0), ORR_OK);
    enum orr_err rc = orr_sim_run_until(sim, END_MS, all_ended, NULL, &err);
    if (rc == ORR_ESTATE)
        fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
    for (uint32_t i = 0; i < client.n_jobs; i++)
        if (client.jobs[i].goal != CLIENT_ENDED)
            fail_msg("seed %llu: job %u (%s) has not ended: %s: %s",
                     (unsigned long long)seed,
                     i,
                     client.jobs[i].id,
                     orr_job_phase_name(client.jobs[i].phase),
                     client.jobs[i].reason);
    assert_int_equal(world.n_terminal, client.n_jobs);
    uint64_t hash = orr_sim_hash(sim);
    orr_sim_free(sim);
    return hash;
}

static void run_seeds(uint64_t first, uint32_t n, uint32_t fault_every_ms)
{
    const char *only = getenv("ORR_SIM_SEED");
    const char *count = getenv("ORR_SIM_SEEDS");
    if (only)
        first = strtoull(only, NULL, 10);
    if (only || count)
        n = count ? (uint32_t)strtoul(count, NULL, 10) : 1;
    for (uint64_t seed = first; seed < first + n; seed++)
        run_seed(seed, fault_every_ms);
}

static void fleet_with_lossy_network_ends_every_job(void **state)
{
    (void)state;
    run_seeds(1, 3, 0);
}

static void fleet_with_crashes_ends_every_job(void **state)
{
    (void)state;
    run_seeds(100, 6, 3000);
}

/* Nothing goes wrong but the programs themselves: each job ends as its plan says. */
static void fleet_without_faults_ends_each_job_as_planned(void **state)
{
    (void)state;
    struct orr_error err;
    set_up(5);
    assert_int_equal(orr_sim_run_until(sim, END_MS, all_ended, NULL, &err), ORR_OK);
    for (uint32_t i = 0; i < client.n_jobs; i++) {
        const struct client_job *job = &client.jobs[i];
        if (job->phase == ORR_JOB_CANCELLED)
            continue;
        assert_int_equal(job->phase, job->bad_rank < 0 ? ORR_JOB_DONE : ORR_JOB_FAILED);
        assert_int_equal(job->culprit, job->bad_rank);
        assert_int_equal(job->end_signal, job->signal);
        assert_int_equal(job->end_exit_code, job->exit_code);
        assert_int_equal(job->generation,
                         job->bad_rank < 0 ? 1 : 1 + job->retries_user);
    }
    orr_sim_free(sim);
}

static void plan_one_job(uint32_t run_ms)
{
    client.n_jobs = 1;
    client.jobs[0] = (struct client_job){.world = 1, .run_ms = run_ms, .bad_rank = -1};
}

static void cut_off_its_node(void *arg, struct orr_sim *the_sim, uint64_t number)
{
    (void)arg;
    (void)number;
    for (uint32_t m = 0; m < NODES; m++)
        for (uint32_t i = 0; i < WORLD_PROCS; i++)
            if (proc_is_live(&world.machines[m].procs[i], orr_sim_now_ms(the_sim)))
                orr_sim_side_set(the_sim, FIRST_NODE + m, 1);
}

static void crash_clusters(void *arg, struct orr_sim *the_sim, uint64_t number)
{
    (void)arg;
    (void)the_sim;
    (void)number;
    for (uint32_t i = 0; i < CLUSTERS; i++)
        crash(FIRST_CLUSTER + i);
}

/* Longer than the lease: the job starts elsewhere, and its ranks on the node that is cut off stand still. */
static void node_cut_off_beyond_its_lease_never_doubles_a_job(void **state)
{
    (void)state;
    struct orr_error err = {0};
    set_up(11);
    plan_one_job(25000);
    assert_int_equal(orr_sim_at(sim, 5000, cut_off_its_node, NULL, 0), ORR_OK);
    assert_int_equal(orr_sim_at(sim, FAULTS_MS, calm, NULL, 0), ORR_OK);
    if (orr_sim_run_until(sim, END_MS, all_ended, NULL, &err) != ORR_OK)
        fail_msg("%s", err.text);
    assert_int_equal(client.jobs[0].phase, ORR_JOB_DONE);
    assert_int_equal(client.jobs[0].generation, 2);
    assert_int_equal(world.n_launched, 2);
    orr_sim_free(sim);
}

/* Also longer than the lease: nobody can give the job up, so it runs on. */
static void job_runs_on_while_its_cluster_is_down(void **state)
{
    (void)state;
    struct orr_error err = {0};
    set_up(12);
    plan_one_job(25000);
    assert_int_equal(orr_sim_at(sim, 5000, crash_clusters, NULL, 0), ORR_OK);
    assert_int_equal(orr_sim_at(sim, FAULTS_MS, calm, NULL, 0), ORR_OK);
    if (orr_sim_run_until(sim, END_MS, all_ended, NULL, &err) != ORR_OK)
        fail_msg("%s", err.text);
    assert_int_equal(client.jobs[0].phase, ORR_JOB_DONE);
    assert_int_equal(client.jobs[0].generation, 1);
    assert_true(world.now_ms < FAULTS_MS + 5000); /* it never stood still */
    orr_sim_free(sim);
}

static void mute_cluster(void *arg, struct orr_sim *the_sim, uint64_t is_mute)
{
    (void)arg;
    const struct orr_sim_faults faults = {
        .delay_min_ms = 1, .delay_max_ms = 80, .loss_ppm = is_mute ? 1000000 : 0};
    assert_int_equal(orr_sim_faults_set(the_sim, FIRST_CLUSTER, REGION, &faults),
                     ORR_OK);
    crash(FIRST_CLUSTER + 1); /* so that the next try goes to the same cluster */
}

/* The cluster took the job and could not say so: the region tries again, and the first try must not launch any more. */
static void try_that_was_withdrawn_gets_no_permit(void **state)
{
    (void)state;
    for (uint64_t seed = 204; seed < 214; seed++) {
        struct orr_error err = {0};
        set_up(seed);
        plan_one_job(3000);
        client.jobs[0].submit_at_ms = 1000;
        assert_int_equal(orr_sim_at(sim, 900, mute_cluster, NULL, 1), ORR_OK);
        assert_int_equal(orr_sim_at(sim, 2950, mute_cluster, NULL, 0), ORR_OK);
        if (orr_sim_run_until(sim, 60000, all_ended, NULL, &err) != ORR_OK)
            fail_msg("%s", err.text);
        assert_int_equal(client.jobs[0].phase, ORR_JOB_DONE);
        assert_int_equal(world.n_launched, 1);
        orr_sim_free(sim);
    }
}

/* The first node that has ranks; NODES: none. */
static uint32_t busy_node(void)
{
    uint32_t m = 0;
    for (; m < NODES; m++)
        for (uint32_t i = 0; i < WORLD_PROCS; i++)
            if (proc_is_live(&world.machines[m].procs[i], world.now_ms))
                return m;
    return m;
}

enum { CRASH_HOST, CRASH_MACHINE };
static void crash_busy_node(void *arg, struct orr_sim *the_sim, uint64_t what)
{
    (void)arg;
    world.now_ms = orr_sim_now_ms(the_sim);
    uint32_t node = busy_node();
    assert_true(node < NODES);
    crash(FIRST_NODE + node);
    if (what == CRASH_MACHINE)
        world_machine_dies(&world.machines[node]);
}

static void
run_wide_job_with(orr_sim_event_f fault_at_5s, uint64_t number, uint64_t calm_ms)
{
    struct orr_error err = {0};
    set_up(13);
    plan_one_job(20000);
    client.jobs[0].world = 6;
    client.jobs[0].gpus_min = client.jobs[0].gpus_max = 6;
    assert_int_equal(orr_sim_at(sim, 5000, fault_at_5s, NULL, number), ORR_OK);
    assert_int_equal(orr_sim_at(sim, calm_ms, calm, NULL, 0), ORR_OK);
    if (orr_sim_run_until(sim, END_MS, all_ended, NULL, &err) != ORR_OK)
        fail_msg("%s", err.text);
    assert_int_equal(client.jobs[0].phase, ORR_JOB_DONE);
    orr_sim_free(sim);
}

static void host_that_restarts_adopts_its_ranks(void **state)
{
    (void)state;
    run_wide_job_with(crash_busy_node, CRASH_HOST, 9000);
    assert_int_equal(client.jobs[0].generation, 1);
    assert_int_equal(world.n_launched, 6);
}

static void cluster_that_restarts_adopts_its_jobs(void **state)
{
    (void)state;
    run_wide_job_with(crash_clusters, 0, 9000);
    assert_int_equal(client.jobs[0].generation, 1);
    assert_int_equal(world.n_launched, 6);
}

/* Its peers fail at once because of it; yet it is not the program's fault, which has no retry. */
static void machine_that_dies_costs_no_user_retry(void **state)
{
    (void)state;
    run_wide_job_with(crash_busy_node, CRASH_MACHINE, 9000);
    assert_int_equal(client.jobs[0].generation, 2);
    run_wide_job_with(crash_busy_node,
                      CRASH_MACHINE,
                      60000); /* given up by lease, placed on the other cluster */
    assert_int_equal(client.jobs[0].generation, 2);
    assert_true(world.now_ms < 60000);
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
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fleet_without_faults_ends_each_job_as_planned),
        cmocka_unit_test(fleet_with_lossy_network_ends_every_job),
        cmocka_unit_test(fleet_with_crashes_ends_every_job),
        cmocka_unit_test(node_cut_off_beyond_its_lease_never_doubles_a_job),
        cmocka_unit_test(job_runs_on_while_its_cluster_is_down),
        cmocka_unit_test(try_that_was_withdrawn_gets_no_permit),
        cmocka_unit_test(host_that_restarts_adopts_its_ranks),
        cmocka_unit_test(cluster_that_restarts_adopts_its_jobs),
        cmocka_unit_test(machine_that_dies_costs_no_user_retry),
        cmocka_unit_test(same_seed_gives_same_history),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
