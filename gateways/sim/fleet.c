/* SPDX-License-Identifier: Apache-2.0
 * fleet.c - see fleet.h: the hosts, the plan of the jobs, the run.
 */
#include "fleet_impl.h"

#include "cluster/cluster.h"
#include "job/job.h"
#include "node/node.h"
#include "region/region.h"

#define REGION "eu1"
enum {
    SLOTS = 4,
    RANKS_MAX = WORLD_PROCS,
    RUN_MAX_MS = 5000,
    LOOK_MS = 200,
    SOFT_SETTLE_MS = 15000, /* hosts that were down for long are back and registered */
};

uint32_t fleet_pick(struct fleet *fleet, uint64_t n)
{
    uint64_t x = fleet->random += 0x9e3779b97f4a7c15u; /* splitmix64 */
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((x ^ (x >> 31)) % n);
}

uint32_t fleet_cluster_of(const struct fleet *fleet, uint32_t node)
{
    return (uint32_t)((uint64_t)node * fleet->plan.clusters / fleet->plan.nodes);
}

void fleet_host_name(const struct fleet *fleet, uint32_t host, char name[16])
{
    if (host >= fleet->user)
        snprintf(name, 16, "user");
    else if (host >= fleet->first_node)
        snprintf(name, 16, "n%u", host - fleet->first_node + 1);
    else if (host >= fleet->first_cluster)
        snprintf(name, 16, "c%u", host - fleet->first_cluster + 1);
    else
        snprintf(name, 16, "r%u", host + 1);
}

/* ---- boot ---- */

static void spawn(struct fleet *fleet,
                  uint32_t host,
                  const struct orr_actor_type *type,
                  const void *args,
                  const char *path)
{
    struct orr_addr addr;
    const struct orr_spawn how = {type, args, path, ORR_PERMANENT};
    ORR_ASSERT(orr_system_spawn(orr_sim_system(fleet->sim, host), &how, &addr) ==
               ORR_OK);
}

static void boot_region(struct fleet *fleet, uint32_t host)
{
    const struct edge_args edge = {NULL, &fleet->world};
    const struct ledger_edge_args ledger = {&fleet->edges, host};
    struct orr_region_args args = {.region = REGION,
                                   .has_softstate = true,
                                   .jobs_max = 2 * fleet->plan.jobs + 64,
                                   .nodes_max = fleet->plan.nodes + 8};
    snprintf(args.host, sizeof(args.host), "r%u", host + 1);
    spawn(fleet, host, &sim_events_type, &edge, "/edge/events");
    spawn(fleet, host, &sim_ledger_type, &ledger, "/edge/ledger");
    spawn(fleet, host, &orr_region_type, &args, "/" REGION);
    spawn(fleet, host, &sim_audit_type, &ledger, "/audit");
    ledger_edges_boot(&fleet->edges, host);
}

static void boot_cluster(struct fleet *fleet, uint32_t host)
{
    char path[32];
    struct orr_cluster_args args = {
        .region = REGION,
        .has_softstate = true,
        .job_type = &orr_job_type,
        .nodes_max = fleet->plan.nodes + 8,
        .jobs_max = 4 * fleet->plan.jobs + 64,
        .lease_ms = fleet->plan.lease_ms,
        .is_rigid = fleet->plan.is_rigid,
    };
    for (uint32_t i = 0; i < fleet->plan.replicas; i++)
        snprintf(args.region_hosts[i], sizeof(args.region_hosts[i]), "r%u", i + 1);
    snprintf(
        args.cluster, sizeof(args.cluster), "c%u", host - fleet->first_cluster + 1);
    snprintf(path, sizeof(path), "/" REGION "/%.16s", args.cluster);
    spawn(fleet, host, &orr_cluster_type, &args, path);
}

static void boot_node(struct fleet *fleet, uint32_t host)
{
    struct machine *machine = &fleet->machines[host - fleet->first_node];
    const struct edge_args edge = {machine, &fleet->world};
    struct orr_node_args args = {.region = REGION,
                                 .has_softstate = true,
                                 .has_stops = true,
                                 .images_dir = "/images",
                                 .ranks_max = RANKS_MAX,
                                 .slots = SLOTS};
    memcpy(args.host, machine->name, sizeof(args.host));
    memcpy(args.node, machine->name, sizeof(args.node));
    snprintf(args.cluster, sizeof(args.cluster), "c%u", machine->cluster + 1);
    memcpy(args.cluster_host, args.cluster, sizeof(args.cluster_host));
    spawn(fleet, host, &orr_node_type, &args, machine->node_path);
    spawn(fleet, host, &sim_process_type, &edge, "/edge/process");
    spawn(fleet, host, &sim_device_type, &edge, "/edge/device");
    spawn(fleet, host, &sim_rank_type, &edge, "/edge/rank");
    spawn(fleet, host, &sim_store_type, &edge, "/edge/store");
}

static void boot(void *arg, struct orr_sim *sim, uint32_t host)
{
    struct fleet *fleet = arg;
    fleet->sim = sim;
    const struct client *user = &fleet->client;
    const struct soft_store *soft = &fleet->soft;
    if (host < fleet->user)
        spawn(fleet, host, &sim_soft_type, &soft, "/edge/softstate");
    if (host < fleet->first_cluster)
        boot_region(fleet, host);
    else if (host < fleet->first_node)
        boot_cluster(fleet, host);
    else if (host < fleet->user)
        boot_node(fleet, host);
    else
        spawn(fleet, host, &sim_client_type, &user, "/user");
}

/* ---- the plan ---- */

/* Every job fits into any one cluster that has all of its nodes. */
static void plan_job(struct fleet *fleet, struct client_job *job)
{
    uint32_t nodes = fleet->plan.nodes / fleet->plan.clusters;
    uint32_t slots = nodes * SLOTS;
    uint32_t gpus = nodes * fleet->plan.gpus;
    /* Some run for longer than it takes to give up the node that they are on. */
    uint32_t run_max_ms = fleet_pick(fleet, 3) ? RUN_MAX_MS : 3 * fleet->plan.lease_ms;
    *job = (struct client_job){.submit_at_ms = fleet_pick(fleet, fleet->plan.faults_ms),
                               .run_ms = 1 + fleet_pick(fleet, run_max_ms),
                               .bad_rank = -1,
                               .retries_user = fleet_pick(fleet, 2)};
    job->world = 1u << fleet_pick(fleet, 4);
    while (job->world > slots)
        job->world /= 2;
    if (gpus && fleet_pick(fleet, 3)) {
        uint32_t most = job->world < gpus ? job->world : gpus;
        job->gpus_max = 1 + fleet_pick(fleet, most);
        while (job->world % job->gpus_max)
            job->gpus_max--;
        job->gpus_min = fleet_pick(fleet, 2) ? job->gpus_max : 1;
    }
    if (fleet_pick(fleet, 4) == 0) {
        job->bad_rank = (int32_t)fleet_pick(fleet, job->world);
        job->exit_code = fleet_pick(fleet, 2) ? 0 : 2;
        job->signal = job->exit_code ? 0 : 11;
    }
    if (fleet_pick(fleet, 5) == 0)
        job->cancel_at_ms = job->submit_at_ms + fleet_pick(fleet, 8000);
}

/* So that they fill the fleet, grow, and give back. */
static void plan_elastic(struct fleet *fleet, struct client_job *job)
{
    uint32_t gpus = fleet->plan.nodes / fleet->plan.clusters * fleet->plan.gpus;
    job->world = 1u << (1 + fleet_pick(fleet, 3));
    job->gpus_max = job->world < gpus ? job->world : gpus;
    job->gpus_min = 1 + fleet_pick(fleet, job->gpus_max);
    job->run_ms = 3000 + fleet_pick(fleet, 20000);
    job->min_run_ms = fleet_pick(fleet, 5000);
    job->bad_rank = -1;
    job->exit_code = job->signal = 0;
}

/* A stream of their own: with and without orders a seed has the same jobs. */
static void plan_orders(struct fleet *fleet, struct client_job *job)
{
    uint32_t span = RUN_MAX_MS;
    job->acts_when_running = fleet_pick(fleet, 4) != 0;
    uint64_t start = job->acts_when_running ? 1 : job->submit_at_ms + 1;
    if (fleet_pick(fleet, 3) == 0)
        job->every_ms = 10000; /* the least that is allowed */
    if (fleet_pick(fleet, 3) == 0) {
        job->act_at_ms[ACT_SUSPEND] = start + fleet_pick(fleet, span);
        job->act_at_ms[ACT_RESUME] =
            job->act_at_ms[ACT_SUSPEND] + fleet_pick(fleet, 2 * span);
    }
    if (fleet_pick(fleet, 4) == 0)
        job->act_at_ms[ACT_CHECKPOINT] = start + fleet_pick(fleet, span);
    if (fleet_pick(fleet, 2) == 0)
        job->act_at_ms[ACT_MIGRATE] = start + fleet_pick(fleet, span);
    job->to = fleet_pick(fleet, fleet->plan.clusters + 1);
    for (uint32_t i = 0; i < ORR_ARRAY_SIZE(job->devices) && job->gpus_max > 1; i++) {
        job->devices[i] = 1 + fleet_pick(fleet, job->gpus_max);
        if (fleet_pick(fleet, 2))
            job->act_at_ms[ACT_RESIZE + i] = start + (i + 1) * fleet_pick(fleet, span);
    }
    if (fleet_pick(fleet, 3)) /* so that most of these come while it runs */
        job->run_ms += span;
}

/* Never all nodes of a cluster for long: every job has to end. */
static void plan_drains(struct fleet *fleet)
{
    uint32_t faults_ms = (uint32_t)fleet->plan.faults_ms;
    for (uint32_t i = 0; i < ORR_ARRAY_SIZE(fleet->drains); i++) {
        uint32_t node = fleet_pick(fleet, fleet->plan.nodes);
        uint64_t on = 1 + fleet_pick(fleet, faults_ms);
        fleet->drains[i] =
            (struct client_drain){.cluster = fleet_cluster_of(fleet, node),
                                  .node = node,
                                  .on_at_ms = on,
                                  .off_at_ms = on + fleet_pick(fleet, faults_ms)};
    }
    fleet->client.drains = fleet->drains;
    fleet->client.n_drains = ORR_ARRAY_SIZE(fleet->drains);
}

static uint32_t or_else(uint32_t value, uint32_t otherwise)
{
    return value ? value : otherwise;
}

static void fill_plan(struct fleet_plan *plan)
{
    plan->replicas = or_else(plan->replicas, 1);
    plan->clusters = or_else(plan->clusters, 2);
    plan->nodes = or_else(plan->nodes, 3 * plan->clusters);
    plan->gpus = or_else(plan->gpus, 2);
    plan->jobs = or_else(plan->jobs, 24);
    plan->faults_ms = plan->faults_ms ? plan->faults_ms : 30000;
    plan->settle_ms = plan->settle_ms ? plan->settle_ms : 270000;
    plan->lease_ms = or_else(plan->lease_ms, 8000);
}

static enum orr_err check_plan(const struct fleet_plan *plan, struct orr_error *err)
{
    if (plan->replicas > LEDGER_REPLICAS_MAX)
        return orr_fail(err,
                        ORR_EINVAL,
                        "replicas: at most %d hosts of one region",
                        (int)LEDGER_REPLICAS_MAX);
    if (plan->clusters > 64 || plan->nodes < plan->clusters || plan->nodes > 4000)
        return orr_fail(err,
                        ORR_EINVAL,
                        "clusters, nodes: 1 to 64 clusters of one node or more, 4000 "
                        "nodes in all");
    if (plan->gpus > 64 || plan->jobs > INVARIANT_JOBS)
        return orr_fail(err,
                        ORR_EINVAL,
                        "gpus, jobs: at most 64 GPUs on a node, %d jobs",
                        (int)INVARIANT_JOBS);
    if (plan->faults_ms > UINT32_MAX || plan->settle_ms > UINT32_MAX)
        return orr_fail(err, ORR_EINVAL, "time: at most 1000 hours");
    return ORR_OK;
}

/* ---- life ---- */

static uint64_t true_ms(void *arg)
{
    return orr_sim_now_ms(((struct fleet *)arg)->sim);
}

static bool both_reach(void *arg, uint32_t from, uint32_t to)
{
    const struct fleet *fleet = arg;
    return fleet->sides[from] == fleet->sides[to];
}

static bool holds(void *arg, struct orr_sim *sim, char *text, size_t cap)
{
    (void)sim;
    const struct invariants *inv = &((struct fleet *)arg)->world.invariants;
    if (inv->broken)
        snprintf(text, cap, "%s: %s", inv->broken, inv->text);
    return !inv->broken;
}

static void init_machine(struct fleet *fleet, uint32_t node)
{
    struct machine *machine = &fleet->machines[node];
    machine->world = &fleet->world;
    machine->gpus = fleet->plan.gpus;
    machine->cluster = fleet_cluster_of(fleet, node);
    fleet_host_name(fleet, fleet->first_node + node, machine->name);
    snprintf(machine->node_path,
             sizeof(machine->node_path),
             "/" REGION "/c%u/%.16s",
             machine->cluster + 1,
             machine->name);
}

static enum orr_err take_storage(struct fleet *fleet)
{
    const struct fleet_plan *plan = &fleet->plan;
    fleet->first_cluster = plan->replicas;
    fleet->first_node = fleet->first_cluster + plan->clusters;
    fleet->user = fleet->first_node + plan->nodes;
    fleet->n_hosts = fleet->user + 1;
    fleet->machines = calloc(plan->nodes, sizeof(*fleet->machines));
    fleet->jobs = calloc(plan->jobs, sizeof(*fleet->jobs));
    fleet->n_down = calloc(fleet->n_hosts, sizeof(*fleet->n_down));
    fleet->sides = calloc(fleet->n_hosts, sizeof(*fleet->sides));
    if (!fleet->machines || !fleet->jobs || !fleet->n_down || !fleet->sides)
        return ORR_ENOMEM;
    fleet->world = (struct world){.true_ms = true_ms,
                                  .arg = fleet,
                                  .seed = plan->seed,
                                  .calm_ms = plan->has_no_orders
                                                 ? (plan->kinds ? plan->faults_ms : 0)
                                                 : UINT64_MAX,
                                  .n_machines = plan->nodes,
                                  .machines = fleet->machines};
    fleet->client = (struct client){.invariants = &fleet->world.invariants,
                                    .n_regions = plan->replicas,
                                    .look_ms = LOOK_MS,
                                    .n_jobs = plan->jobs,
                                    .jobs = fleet->jobs};
    for (uint32_t i = 0; i < plan->replicas; i++) {
        char name[16];
        fleet_host_name(fleet, i, name);
        fleet->client.regions[i] = orr_addr_named(orr_str(name), ORR_LIT("/" REGION));
    }
    for (uint32_t i = 0; i < plan->nodes; i++)
        init_machine(fleet, i);
    for (uint32_t i = 0; i < plan->jobs; i++)
        plan_job(fleet, &fleet->jobs[i]);
    for (uint32_t i = 0; i < plan->jobs && plan->is_elastic; i++)
        plan_elastic(fleet, &fleet->jobs[i]);
    uint64_t jobs_random = fleet->random;
    fleet->random ^= 0x6f72646572730000u;
    for (uint32_t i = 0; i < plan->jobs && !plan->has_no_orders; i++)
        plan_orders(fleet, &fleet->jobs[i]);
    if (!plan->has_no_orders)
        plan_drains(fleet);
    fleet->random = jobs_random;
    enum orr_err err = soft_store_init(&fleet->soft);
    return err == ORR_OK ? invariants_init(&fleet->world.invariants) : err;
}

static enum orr_err make_faults(struct fleet *fleet)
{
    const struct fault_plan plan = {
        .seed = fleet->plan.seed,
        .kinds = fleet->plan.kinds,
        .time_ms = fleet->plan.faults_ms,
        .n_hosts = fleet->n_hosts,
        .n_regions = fleet->plan.replicas,
        .first_cluster = fleet->first_cluster,
        .first_node = fleet->first_node,
        .first_client = fleet->user,
    };
    return faults_make(&plan, &fleet->faults);
}

static enum orr_err start_sim(struct fleet *fleet)
{
    const struct orr_sim_config config = {
        .seed = fleet->plan.seed,
        .boot = boot,
        .check = holds,
        .arg = fleet,
        .faults = fleet_calm_net,
        .log = fleet->plan.log,
        .log_arg = fleet->plan.log_arg,
        .log_level = ORR_LOG_DEBUG,
        .trace = fleet->plan.trace,
        .trace_arg = fleet->plan.trace_arg,
    };
    const struct ledger_config ledger = {.seed = fleet->plan.seed,
                                         .n_replicas = fleet->plan.replicas,
                                         .reaches = both_reach,
                                         .arg = fleet};
    enum orr_err err = orr_sim_new(&config, &fleet->sim);
    if (err == ORR_OK)
        err = ledger_edges_init(
            &fleet->edges, fleet->sim, REGION, &fleet->world.invariants, &ledger);
    for (uint32_t i = 0; err == ORR_OK && i < fleet->n_hosts; i++) {
        char name[16];
        uint32_t host;
        fleet_host_name(fleet, i, name);
        err = orr_sim_host_add(fleet->sim, name, &host);
    }
    return err;
}

enum orr_err
fleet_init(struct fleet *fleet, const struct fleet_plan *plan, struct orr_error *err)
{
    *fleet = (struct fleet){.plan = *plan, .random = plan->seed};
    fill_plan(&fleet->plan);
    enum orr_err code = check_plan(&fleet->plan, err);
    if (code != ORR_OK)
        return code;
    code = take_storage(fleet);
    if (code == ORR_OK)
        code = make_faults(fleet);
    if (code == ORR_OK)
        code = start_sim(fleet);
    if (code == ORR_OK)
        return ORR_OK;
    fleet_fini(fleet);
    return orr_fail(err, code, "no memory for a fleet of that size");
}

void fleet_fini(struct fleet *fleet)
{
    orr_sim_free(fleet->sim);
    if (fleet->edges.ledger)
        ledger_edges_fini(&fleet->edges);
    invariants_fini(&fleet->world.invariants);
    world_fini(&fleet->world);
    soft_store_fini(&fleet->soft);
    faults_fini(&fleet->faults);
    free(fleet->machines);
    free(fleet->jobs);
    free(fleet->n_down);
    free(fleet->sides);
    *fleet = (struct fleet){0};
}

/* ---- run ---- */

static bool all_ended(void *arg, struct orr_sim *sim)
{
    (void)sim;
    const struct client *client = &((struct fleet *)arg)->client;
    return client->n_ended == client->n_jobs;
}

static void check_ends(struct fleet *fleet)
{
    struct invariants *inv = &fleet->world.invariants;
    for (uint32_t i = 0; i < fleet->client.n_jobs; i++) {
        const struct client_job *job = &fleet->jobs[i];
        if (job->goal != CLIENT_ENDED)
            feasible_job_ends(inv, job->id, job->phase, job->reason);
        if (job->bad_rank < 0 && job->phase == ORR_JOB_FAILED)
            good_program_fails_no_job(inv, job->id, job->reason);
    }
    ends_are_told_once(inv, fleet->client.n_ended);
}

/* All that is there is told again and again, so also after a loss. */
static void check_soft(struct fleet *fleet)
{
    struct invariants *inv = &fleet->world.invariants;
    const struct soft_store *soft = &fleet->soft;
    soft_state_converges(
        inv, soft_store_has(soft, ORR_SOFT_REGION, REGION, "", ""), REGION);
    for (uint32_t i = 0; i < fleet->plan.nodes; i++) {
        char cluster[16];
        const char *node = fleet->machines[i].name;
        fleet_host_name(
            fleet, fleet->first_cluster + fleet->machines[i].cluster, cluster);
        bool is_told = soft_store_has(soft, ORR_SOFT_CLUSTER, REGION, cluster, "") &&
                       soft_store_has(soft, ORR_SOFT_NODE, REGION, cluster, node) &&
                       soft_store_has(soft, ORR_SOFT_PROGRESS, REGION, cluster, node);
        soft_state_converges(inv, is_told, node);
    }
}

void fleet_run(struct fleet *fleet, struct fleet_result *ret_result)
{
    struct orr_error err = {0};
    const struct invariants *inv = &fleet->world.invariants;
    uint64_t end_ms = fleet->plan.faults_ms + fleet->plan.settle_ms;
    fleet_schedule(fleet);
    enum orr_err code = orr_sim_run_until(fleet->sim, end_ms, all_ended, fleet, &err);
    uint64_t told_ms = orr_sim_now_ms(fleet->sim);
    told_ms = (told_ms > fleet->plan.faults_ms ? told_ms : fleet->plan.faults_ms) +
              SOFT_SETTLE_MS;
    bool is_soft = fleet->plan.kinds & FAULT_BIT(FAULT_SOFT);
    if (code == ORR_OK && is_soft)
        code = orr_sim_run_until(fleet->sim, told_ms, NULL, NULL, &err);
    if (code == ORR_OK && is_soft)
        check_soft(fleet);
    if (code != ORR_ESTATE)
        check_ends(fleet);
    *ret_result = (struct fleet_result){
        .broken = inv->broken,
        .at_ms = orr_sim_now_ms(fleet->sim),
        .hash = orr_sim_hash(fleet->sim),
        .handled = orr_sim_handled(fleet->sim),
        .n_ended = fleet->client.n_ended,
        .n_faults = fleet->faults.n,
    };
    for (uint32_t i = 0; i < fleet->faults.n; i++)
        ret_result->n_begun += !fleet->faults.at[i].is_left_out &&
                               fleet->faults.at[i].from_ms <= ret_result->at_ms;
    memcpy(ret_result->subject, inv->subject, sizeof(ret_result->subject));
    memcpy(ret_result->text, inv->text, sizeof(ret_result->text));
}
