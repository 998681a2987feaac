/* SPDX-License-Identifier: Apache-2.0
 * test_sim_regions.c - jobs that are sent back and forth between two regions while everything goes wrong: a job runs in one of
 * them at most, goes on from its newest checkpoint, and is never lost.
 *
 * Each region is two hosts with the real region actor over a hand_ledger; its one cluster is a puppet that plays the job actors,
 * too (regions_puppet.h).  Seeds decide about losses, repeats, reordering, partitions between the regions,
 * crashes of region hosts, changes of leaders, ledgers that commit nothing for a while, and hosts that refuse jobs.  Then the
 * faults stop and every job must run.  Or one region dies for good, its operator says so, and every job that it had not taken
 * must run in the other.  REGION_SEEDS=200 REGION_SEED=1 say how many seeds, and from which.
 */
#include "hand_ledger.h"
#include "region/region.h"
#include "regions_puppet.h"
#include "sim.h"
#include "world.h"

#include "orr_test.h"

enum { FAULTS_MS = 40000, END_MS = 60000 };

static struct orr_sim *sim;
static struct hand_ledger ledgers[REGIONS];
static struct world worlds[REGIONS * HOSTS];
static bool
    has_peers; /* in the configuration of a host that starts now; one without refuses */
static uint64_t moves_asked, moves_done;
static unsigned n_said;

static bool check(void *arg, struct orr_sim *s, char *text, size_t cap)
{
    (void)arg;
    (void)s;
    for (unsigned j = 0; j < n_jobs; j++)
        if (slots[0][j].runs && slots[1][j].runs)
            breaks("runs in both regions", j);
    snprintf(text, cap, "%s", broken);
    return !broken[0];
}

/* ---- hosts ---- */

static void spawn(uint32_t host,
                  const struct orr_actor_type *type,
                  const void *args,
                  const char *path)
{
    struct orr_addr addr;
    assert_int_equal(
        orr_system_spawn(orr_sim_system(sim, host),
                         &(struct orr_spawn){type, args, path, ORR_PERMANENT},
                         &addr),
        ORR_OK);
}

static void boot(void *arg, struct orr_sim *s, uint32_t host)
{
    (void)arg;
    sim = s;
    if (host >= REGIONS * HOSTS) {
        unsigned region = host - REGIONS * HOSTS;
        spawn(host, &regions_puppet_type, &region, region ? "/r2/c2" : "/r1/c1");
        return;
    }
    unsigned region = host / HOSTS, other = 1 - region;
    static struct orr_region_args args;
    invariants_fini(&worlds[host].invariants);
    worlds[host] = (struct world){0};
    assert_int_equal(invariants_init(&worlds[host].invariants), ORR_OK);
    args = (struct orr_region_args){
        .jobs_max = 16, .n_peers = has_peers ? HOSTS : 0, .suspect_ms = 3000};
    snprintf(args.region, sizeof(args.region), "%s", region_names[region]);
    snprintf(args.host, sizeof(args.host), "%s", host_names[host]);
    for (unsigned i = 0; i < args.n_peers; i++) {
        snprintf(args.peers[i].region, ORR_NAME_MAX, "%s", region_names[other]);
        snprintf(args.peers[i].host, ORR_NAME_MAX, "%s", host_names[other * HOSTS + i]);
    }
    struct hand_ledger_args ledger = {.ledger = &ledgers[region]};
    snprintf(
        ledger.region_path, sizeof(ledger.region_path), "/%s", region_names[region]);
    const struct edge_args edge = {NULL, &worlds[host]};
    spawn(host, &sim_events_type, &edge, "/edge/events");
    spawn(host, &hand_ledger_type, &ledger, "/edge/ledger");
    spawn(host, &orr_region_type, &args, ledger.region_path);
}

static void lead(unsigned region, unsigned host)
{
    leads[region] = host;
    hand_ledger_lead(&ledgers[region], host_names[region * HOSTS + host]);
}

/* ---- what goes wrong ---- */

static unsigned dice(unsigned sides)
{
    return (unsigned)(orr_sim_random(sim) % sides);
}

static void ask_to_move(void)
{
    unsigned region = dice(REGIONS), j = dice(JOBS);
    if (j >= n_jobs)
        return;
    const struct orr_msg_job_migrate msg = {
        .job = orr_str(truths[j].id), .region = orr_str(region_names[1 - region])};
    moves_asked++;
    orr_sim_post(sim,
                 region * HOSTS + leads[region],
                 (struct orr_addr){0},
                 leader_of(region),
                 orr_msg_desc_job_migrate(),
                 &msg);
}

static void one_fault(void)
{
    unsigned region = dice(REGIONS);
    uint32_t host = region * HOSTS + leads[region];
    switch (dice(6)) {
    case 0:
        lead(region, 1 - leads[region]);
        break;
    case 1: /* its host dies; the other one goes on */
        orr_sim_crash(sim, host);
        lead(region, 1 - leads[region]);
        break;
    case 2:
        ledgers[region].is_committing = !ledgers[region].is_committing;
        break;
    case 3:
        for (uint32_t h = 0; h < HOSTS; h++)
            orr_sim_side_set(sim, HOSTS + h, dice(2));
        orr_sim_side_set(sim, REGIONS * HOSTS + 1, 0);
        break;
    default:
        break;
    }
    if (ledgers[region].is_committing)
        hand_ledger_commit(&ledgers[region]);
    for (uint32_t h = 0; h < REGIONS * HOSTS; h++) {
        has_peers = dice(3) > 0;
        if (!orr_sim_system(sim, h) && dice(2))
            assert_int_equal(orr_sim_restart(sim, h), ORR_OK);
    }
}

static void calm(unsigned n_regions)
{
    static const struct orr_sim_faults none = {.delay_min_ms = 1, .delay_max_ms = 5};
    assert_int_equal(orr_sim_faults_set(sim, ORR_SIM_ALL, ORR_SIM_ALL, &none), ORR_OK);
    has_peers = true;
    for (uint32_t h = 0; h < n_regions * HOSTS; h++) {
        orr_sim_side_set(sim, h, 0);
        if (orr_sim_system(sim, h))
            orr_sim_crash(sim, h);
        assert_int_equal(orr_sim_restart(sim, h), ORR_OK);
    }
    for (unsigned r = 0; r < n_regions; r++) {
        ledgers[r].is_committing = true;
        hand_ledger_commit(&ledgers[r]);
        lead(r, leads[r]);
    }
}

/* With its cluster and its ranks. */
static void second_region_dies(void)
{
    for (uint32_t h = HOSTS; h < REGIONS * HOSTS; h++)
        if (orr_sim_system(sim, h))
            orr_sim_crash(sim, h);
    orr_sim_crash(sim, REGIONS * HOSTS + 1);
    memset(slots[1], 0, sizeof(slots[1]));
}

static void run_for(uint64_t ms, uint64_t seed)
{
    struct orr_error err = {0};
    enum orr_err code =
        orr_sim_run_until(sim, orr_sim_now_ms(sim) + ms, NULL, NULL, &err);
    if (code != ORR_OK && code != ORR_ETIMEOUT)
        fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
}

static bool runs_in(unsigned region, unsigned j)
{
    return slots[region][j].runs && slots[region][j].state == SLOT_RUN;
}

static bool all_run(void *arg, struct orr_sim *s)
{
    (void)arg;
    (void)s;
    unsigned n = 0;
    for (unsigned j = 0; j < n_jobs; j++)
        n += runs_in(0, j) != runs_in(1, j);
    return n_jobs == JOBS && n == JOBS;
}

/* As the first region has it on disk. */
static uint32_t phase_of(unsigned j)
{
    static uint64_t buf[1024];
    char key[ORR_JOB_ID_MAX + 8];
    snprintf(key, sizeof(key), "job/%s", truths[j].id);
    for (uint32_t i = 0; i < ledgers[0].n_records; i++) {
        const struct hand_record *record = &ledgers[0].records[i];
        if (strcmp(record->key, key) != 0 || record->is_gone)
            continue;
        assert_int_equal(orr_msg_decode(orr_msg_desc_job_record(),
                                        record->value,
                                        record->len,
                                        buf,
                                        sizeof(buf)),
                         ORR_OK);
        return ((const struct orr_msg_job_record *)(const void *)buf)->phase;
    }
    return ORR_JOB_PHASE_MAX_;
}

static bool all_run_or_went_with_it(void *arg, struct orr_sim *s)
{
    (void)arg;
    (void)s;
    unsigned n = 0;
    for (unsigned j = 0; j < n_jobs; j++)
        n += runs_in(0, j) || phase_of(j) == ORR_JOB_MOVED;
    return n_jobs == JOBS && n == JOBS;
}

/* As its operator knows; of a job that is not on its way there it changes nothing. */
static void say_that_it_is_gone(void)
{
    for (unsigned j = 0; j < n_jobs; j++) {
        const struct orr_msg_job_migrate msg = {.job = orr_str(truths[j].id),
                                                .gone = orr_str(region_names[1])};
        if (!runs_in(0, j) && phase_of(j) != ORR_JOB_MOVED)
            n_said++;
        orr_sim_post(sim,
                     leads[0],
                     (struct orr_addr){0},
                     leader_of(0),
                     orr_msg_desc_job_migrate(),
                     &msg);
    }
}

/* Up to the end of the faults. */
static void begin(uint64_t seed, uint64_t faults_ms)
{
    static const struct orr_sim_faults some = {.delay_min_ms = 1,
                                               .delay_max_ms = 60,
                                               .loss_ppm = 20000,
                                               .duplicate_ppm = 100000,
                                               .reorder_ppm = 100000};
    static const struct orr_sim_faults many = {.delay_min_ms = 1,
                                               .delay_max_ms = 900,
                                               .loss_ppm = 60000,
                                               .duplicate_ppm = 300000,
                                               .reorder_ppm = 300000};
    bool is_rough = seed % 3 == 0;
    unsigned pause = is_rough ? 3 : 8;
    uint32_t host;
    const struct orr_sim_config config = {.seed = seed,
                                          .boot = boot,
                                          .check = check,
                                          .faults = is_rough ? many : some,
                                          .detect_ms = 300};
    memset(ledgers, 0, sizeof(ledgers));
    memset(truths, 0, sizeof(truths));
    memset(slots, 0, sizeof(slots));
    n_jobs = 0;
    broken[0] = '\0';
    has_peers = true;
    assert_int_equal(orr_sim_new(&config, &sim), ORR_OK);
    for (unsigned h = 0; h < REGIONS * HOSTS; h++)
        assert_int_equal(orr_sim_host_add(sim, host_names[h], &host), ORR_OK);
    assert_int_equal(orr_sim_host_add(sim, "c1", &host), ORR_OK);
    assert_int_equal(orr_sim_host_add(sim, "c2", &host), ORR_OK);
    for (unsigned r = 0; r < REGIONS; r++) {
        ledgers[r].is_committing = true;
        lead(r, 0);
    }
    while (orr_sim_now_ms(sim) < faults_ms) {
        run_for(50 + dice(400), seed);
        ask_to_move();
        if (dice(pause) == 0)
            one_fault();
    }
}

static void end_with(uint64_t seed, enum orr_err code, const char *text)
{
    for (unsigned j = 0; code != ORR_OK && j < n_jobs; j++)
        printf("%s: r1 %u/%d, r2 %u/%d\n",
               truths[j].id,
               (unsigned)slots[0][j].generation,
               (int)slots[0][j].state,
               (unsigned)slots[1][j].generation,
               (int)slots[1][j].state);
    if (code != ORR_OK)
        fail_msg("seed %llu: not all jobs run in the end: %s",
                 (unsigned long long)seed,
                 text);
    for (unsigned j = 0; j < n_jobs; j++)
        moves_done += truths[j].starts - 1;
    orr_sim_free(sim);
    for (unsigned r = 0; r < REGIONS; r++)
        hand_ledger_free(&ledgers[r]);
    for (unsigned h = 0; h < REGIONS * HOSTS; h++)
        invariants_fini(&worlds[h].invariants);
}

static void one_seed(uint64_t seed)
{
    struct orr_error err = {0};
    begin(seed, FAULTS_MS);
    calm(REGIONS);
    enum orr_err code =
        orr_sim_run_until(sim, orr_sim_now_ms(sim) + END_MS, all_run, NULL, &err);
    end_with(seed, code, err.text);
}

static void one_death(uint64_t seed)
{
    struct orr_error err = {0};
    begin(seed, 5000 + seed * 977 % 10000);
    second_region_dies();
    calm(1);
    enum orr_err code = ORR_ETIMEOUT;
    for (uint64_t ms = 0; code == ORR_ETIMEOUT && ms < END_MS; ms += 3000) {
        say_that_it_is_gone();
        code = orr_sim_run_until(
            sim, orr_sim_now_ms(sim) + 3000, all_run_or_went_with_it, NULL, &err);
    }
    end_with(seed, code, err.text);
}

static unsigned long first_seed(unsigned long most, unsigned long *ret_n)
{
    const char *text = getenv("REGION_SEEDS"), *first = getenv("REGION_SEED");
    *ret_n = text ? strtoul(text, NULL, 10) : most;
    return first ? strtoul(first, NULL, 10) : 1;
}

static void jobs_between_regions_are_never_doubled_and_never_lost(void **state)
{
    (void)state;
    unsigned long n, from = first_seed(20, &n);
    for (unsigned long seed = from; seed < from + n; seed++)
        one_seed(seed);
    printf("%lu seeds, %llu migrations asked for, %llu restarts after the first\n",
           n,
           (unsigned long long)moves_asked,
           (unsigned long long)moves_done);
    assert_true(moves_done > n);
}

static void what_was_on_its_way_to_a_region_that_died_comes_back(void **state)
{
    (void)state;
    unsigned long n, from = first_seed(40, &n);
    for (unsigned long seed = from; seed < from + n; seed++)
        one_death(seed);
    printf("%lu seeds, %u jobs were waited for\n", n, n_said);
    assert_true(n_said > n / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_between_regions_are_never_doubled_and_never_lost),
        cmocka_unit_test(what_was_on_its_way_to_a_region_that_died_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
