/* SPDX-License-Identifier: Apache-2.0
 * job_stop_bed.c - see job_stop_bed.h.
 */
#include "job_stop_bed.h"

#include "orr_test.h"

static void show_log(void *arg,
                     enum orr_log_level level,
                     uint64_t wall,
                     const char *who,
                     const char *text)
{
    (void)arg;
    (void)wall;
    if (getenv("ORR_SIM_LOG"))
        fprintf(stderr, "%8u %d %s: %s\n", (unsigned)now, (int)level, who, text);
}

void run_for(uint64_t ms)
{
    for (uint64_t until = now + ms; now < until;) {
        while (orr_system_step(sys))
            ;
        uint64_t due = orr_system_next_due_ms(sys);
        now = due > now && due < until ? due : until;
    }
}

void post(const struct orr_msg_desc *desc, const void *msg)
{
    assert_int_equal(orr_system_post(sys, peers[NODES], job, desc, msg), ORR_OK);
}

void start(const struct orr_msg_job_start *how)
{
    struct orr_rec_job_node list[NODES];
    for (uint32_t i = 0; i < NODES; i++)
        list[i] = (struct orr_rec_job_node){
            .node = orr_str(node_name(i)), .state = ORR_NODE_UP, .addr = peers[i]};
    struct orr_msg_job_start msg = *how;
    msg.ranks = all_places(0);
    msg.nodes = (struct orr_list_job_node){list, NODES};
    post(orr_msg_desc_job_start(), &msg);
    run_for(300);
}

uint64_t hang_ms;
uint32_t shards = 1;

int setup(void **state)
{
    (void)state;
    static const char *const paths[NODES + 3] = {
        "/eu1/c1/n0", "/eu1/c1/n1", "/eu1/c1", "/eu1", "/eu1/c1/n2"};
    struct orr_error err;
    memset(nodes, 0, sizeof(nodes));
    memset(&region, 0, sizeof(region));
    memset(&cluster, 0, sizeof(cluster));
    now = 1000;
    const struct orr_system_config config = {.host = "h",
                                             .incarnation = 1,
                                             .clock = &the_clock,
                                             .seed = 7,
                                             .log = show_log,
                                             .log_level = ORR_LOG_DEBUG};
    assert_int_equal(orr_system_new(&config, &sys, &err), ORR_OK);
    for (uint32_t i = 0; i < NODES + 3; i++) {
        const struct peer_args args = {i};
        assert_int_equal(
            orr_system_spawn(
                sys,
                &(struct orr_spawn){&peer_type, &args, paths[i], ORR_PERMANENT},
                &peers[i]),
            ORR_OK);
    }
    struct orr_job_args args = {.region = "eu1",
                                .cluster = "c1",
                                .leader = peers[NODES + 1],
                                .job = "eu1-1",
                                .generation = GENERATION,
                                .world = WORLD,
                                .shards = shards,
                                .gpus_min = 1,
                                .gpus_max = WORLD,
                                .reduce = ORR_REDUCE_ORDERED,
                                .n_nodes = NODES,
                                .hang_ms = hang_ms,
                                .spec_bytes = 8};
    assert_int_equal(orr_system_spawn(sys,
                                      &(struct orr_spawn){&orr_job_type,
                                                          &args,
                                                          "/eu1/c1/job/eu1-1/3",
                                                          ORR_TEMPORARY},
                                      &job),
                     ORR_OK);
    assert_int_equal(orr_system_start(sys, &err), ORR_OK);
    return 0;
}

int teardown(void **state)
{
    (void)state;
    orr_system_stop(sys);
    orr_system_free(sys);
    return 0;
}

void start_running(void)
{
    start(&(struct orr_msg_job_start){0});
    assert_int_equal(region.phase, ORR_JOB_RUNNING);
    assert_int_equal(region.level, ORR_LEVEL_IMAGE);
}

void order(uint64_t number, enum orr_order what)
{
    const struct orr_msg_job_order msg = {.job = ORR_LIT("eu1-1"),
                                          .generation = GENERATION,
                                          .number = number,
                                          .order = what,
                                          .checkpoint = 9};
    post(orr_msg_desc_job_order(), &msg);
}

bool was_in(uint32_t phase)
{
    for (uint32_t i = 0; i < region.n_phases; i++)
        if (region.phases[i] == phase)
            return true;
    return false;
}

uint32_t steps(enum orr_cut_step step)
{
    return nodes[0].n_steps[step] && nodes[1].n_steps[step];
}
