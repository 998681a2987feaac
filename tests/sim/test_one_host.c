/* SPDX-License-Identifier: Apache-2.0
 * test_one_host.c - region, two clusters and four nodes on one host, stepped by hand: the plain ways of a job.
 *
 * One host has one /edge/process, so each test gives it the node that it needs; the whole fleet with faults is
 * test_sim_fleet.c.
 */
#include "client.h"
#include "cluster/cluster.h"
#include "hand_ledger.h"
#include "job/job.h"
#include "node/node.h"
#include "region/region.h"
#include "system.h"

#include "orr_test.h"

static struct world world;
static struct machine the_machine;
static struct client client;
static struct client_job jobs[8];
static struct hand_ledger ledger;
static struct orr_system *sys;

static uint64_t now_ms(void *arg)
{
    return ((struct world *)arg)->now_ms;
}
static uint64_t wall_ms(void *arg)
{
    return 1000000 + ((struct world *)arg)->now_ms;
}
static const struct orr_clock the_clock = {now_ms, wall_ms, &world};

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

static void spawn(const struct orr_actor_type *type, const void *args, const char *path)
{
    struct orr_addr addr;
    assert_int_equal(
        orr_system_spawn(
            sys, &(struct orr_spawn){type, args, path, ORR_PERMANENT}, &addr),
        ORR_OK);
}

static int setup(void **state)
{
    (void)state;
    memset(&world, 0, sizeof(world));
    memset(&client, 0, sizeof(client));
    assert_int_equal(invariants_init(&world.invariants), ORR_OK);
    world.now_ms = 1;
    world.n_machines = 1;
    world.machines = &the_machine;
    client.jobs = jobs;
    client.invariants = &world.invariants;
    struct machine *machine = &the_machine;
    *machine = (struct machine){
        .name = "n1", .node_path = "/eu1/c1/n1", .gpus = 4, .world = &world};
    struct orr_error err;
    const struct orr_system_config config = {.host = "h",
                                             .incarnation = 1,
                                             .clock = &the_clock,
                                             .seed = 7,
                                             .log = show_log,
                                             .log_level = ORR_LOG_DEBUG};
    assert_int_equal(orr_system_new(&config, &sys, &err), ORR_OK);
    const struct edge_args edge = {machine, &world};
    ledger = (struct hand_ledger){.is_committing = true};
    hand_ledger_lead(&ledger, "h");
    spawn(
        &hand_ledger_type, &(struct hand_ledger_args){&ledger, "/eu1"}, "/edge/ledger");
    spawn(&sim_events_type, &edge, "/edge/events");
    spawn(&orr_region_type,
          &(struct orr_region_args){.region = "eu1", .jobs_max = 128},
          "/eu1");
    spawn(&orr_cluster_type,
          &(struct orr_cluster_args){.region = "eu1",
                                     .cluster = "c1",
                                     .region_hosts = {"h"},
                                     .job_type = &orr_job_type},
          "/eu1/c1");
    spawn(&orr_node_type,
          &(struct orr_node_args){
              .region = "eu1", .cluster = "c1", .node = "n1", .cluster_host = "h"},
          "/eu1/c1/n1");
    spawn(&sim_process_type, &edge, "/edge/process");
    spawn(&sim_device_type, &edge, "/edge/device");
    assert_int_equal(orr_system_start(sys, &err), ORR_OK);
    client.regions[0] = orr_addr_named(ORR_LIT("h"), ORR_LIT("/eu1"));
    client.n_regions = 1;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    orr_system_stop(sys);
    orr_system_free(sys);
    hand_ledger_free(&ledger);
    invariants_fini(&world.invariants);
    return 0;
}

static struct client_job *add(uint32_t world_size, uint32_t gpus, uint32_t run_ms)
{
    struct client_job *job = &client.jobs[client.n_jobs++];
    *job = (struct client_job){.world = world_size,
                               .gpus_min = gpus,
                               .gpus_max = gpus,
                               .run_ms = run_ms,
                               .bad_rank = -1};
    return job;
}

/* What the region knows must be what its ledger would tell the next leader. */
static void tables_are_what_the_ledger_says(void)
{
    struct hand_check check = {.region = client.regions[0]};
    struct hand_check *arg = &check;
    uint64_t keys;
    spawn(&hand_check_type, &arg, "/check");
    while (!check.is_answered && orr_system_step(sys))
        ;
    assert_true(check.is_answered);
    assert_int_equal(check.open, 0);
    assert_int_equal(check.digest, hand_ledger_digest(&ledger, &keys));
    assert_int_equal(check.keys, keys);
}

static void run(void)
{
    struct client *arg = &client;
    spawn(&sim_client_type, &arg, "/client");
    while ((client.n_ended < client.n_jobs || client.n_tree_nodes == 0) &&
           world.now_ms < 60000) {
        while (orr_system_step(sys))
            ;
        uint64_t due = orr_system_next_due_ms(sys);
        world.now_ms = due > world.now_ms ? due : world.now_ms + 1;
    }
    assert_null(world.invariants.broken);
    tables_are_what_the_ledger_says();
    for (uint32_t i = 0; i < client.n_jobs; i++)
        if (client.jobs[i].goal != CLIENT_ENDED)
            fail_msg("job %s is %s: %s",
                     client.jobs[i].id,
                     orr_job_phase_name(client.jobs[i].phase),
                     client.jobs[i].reason);
}

static void job_that_exits_zero_is_done(void **state)
{
    (void)state;
    struct client_job *job = add(4, 4, 500);
    run();
    assert_int_equal(job->phase, ORR_JOB_DONE);
    assert_int_equal(world.invariants.n_terminal, 1);
    assert_true(job->has_log);
    assert_int_equal(client.n_tree_nodes, 1);
}

static void trivial_job_without_devices_is_done(void **state)
{
    (void)state;
    struct client_job *job = add(1, 0, 1);
    run();
    assert_int_equal(job->phase, ORR_JOB_DONE);
}

static void failing_rank_is_the_culprit(void **state)
{
    (void)state;
    struct client_job *job = add(8, 4, 1000);
    job->bad_rank = 5;
    job->exit_code = 3;
    run();
    assert_int_equal(job->phase, ORR_JOB_FAILED);
    assert_int_equal(job->culprit, 5);
    assert_int_equal(job->end_exit_code, 3);
    assert_string_equal(job->tail, "the end\n");
}

/* Its peers exit with 1 and are told of before it is. */
static void killed_rank_that_is_reaped_late_is_still_the_culprit(void **state)
{
    (void)state;
    struct client_job *job = add(8, 4, 1000);
    world.reap_ms = 400;
    job->bad_rank = 5;
    job->signal = 9;
    run();
    assert_int_equal(job->phase, ORR_JOB_FAILED);
    assert_int_equal(job->culprit, 5);
    assert_int_equal(job->end_signal, 9);
    assert_non_null(strstr(job->reason, "rank 5 on "));
}

static void failing_job_is_retried_as_often_as_allowed(void **state)
{
    (void)state;
    struct client_job *job = add(2, 2, 100);
    job->bad_rank = 0;
    job->signal = 11;
    job->retries_user = 2;
    run();
    assert_int_equal(job->phase, ORR_JOB_FAILED);
    assert_int_equal(job->end_signal, 11);
    assert_int_equal(job->generation, 3);
}

static void second_job_waits_for_devices(void **state)
{
    (void)state;
    add(4, 4, 1000);
    struct client_job *second = add(4, 4, 1000);
    second->submit_at_ms = 300;
    run();
    assert_int_equal(second->phase, ORR_JOB_DONE);
    assert_true(world.now_ms >= 2000);
}

static void cancelled_job_leaves_nothing(void **state)
{
    (void)state;
    struct client_job *job = add(4, 4, 50000);
    job->cancel_at_ms = 1000;
    struct client_job *waiting = add(4, 4, 100);
    waiting->submit_at_ms = 500;
    run();
    assert_int_equal(job->phase, ORR_JOB_CANCELLED);
    assert_int_equal(waiting->phase, ORR_JOB_DONE);
}

static void job_over_its_limit_fails(void **state)
{
    (void)state;
    struct client_job *job = add(2, 0, 50000);
    job->limit_ms = 2000;
    run();
    assert_int_equal(job->phase, ORR_JOB_FAILED);
    assert_int_equal(job->culprit, -1);
    assert_non_null(strstr(job->reason, "time limit"));
}

static void job_larger_than_any_cluster_says_so(void **state)
{
    (void)state;
    struct client_job *job = add(8, 8, 100);
    job->cancel_at_ms = 5000;
    add(4, 4, 100)->submit_at_ms = 1000; /* passes it by */
    run();
    assert_int_equal(job->phase, ORR_JOB_CANCELLED);
    assert_int_equal(client.jobs[1].phase, ORR_JOB_DONE);
    assert_string_equal(job->waited, "needs 8 devices; no cluster has more than 4");
}

static void waiting_job_tells_what_for(void **state)
{
    (void)state;
    add(2, 2, 3000);
    struct client_job *waiting = add(4, 4, 100);
    waiting->submit_at_ms = 500;
    run();
    assert_string_equal(waiting->waited, "waits for 4 free devices; c1 has 2");
}

#define ON_ONE_HOST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_ONE_HOST(job_that_exits_zero_is_done),
        ON_ONE_HOST(trivial_job_without_devices_is_done),
        ON_ONE_HOST(failing_rank_is_the_culprit),
        ON_ONE_HOST(killed_rank_that_is_reaped_late_is_still_the_culprit),
        ON_ONE_HOST(failing_job_is_retried_as_often_as_allowed),
        ON_ONE_HOST(second_job_waits_for_devices),
        ON_ONE_HOST(cancelled_job_leaves_nothing),
        ON_ONE_HOST(job_over_its_limit_fails),
        ON_ONE_HOST(job_larger_than_any_cluster_says_so),
        ON_ONE_HOST(waiting_job_tells_what_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
