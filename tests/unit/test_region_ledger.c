/* SPDX-License-Identifier: Apache-2.0
 * test_region_ledger.c - a region on two hosts over a ledger that the test moves by hand: what leaves it, what lasts, who
 * leads.
 */
#include "region/region.h"
#include "sim.h"
#include "sim/hand_ledger.h"
#include "world.h"

#include "orr_test.h"

enum { ANSWERS = 128, A = 0, B = 1, ASK_MS = 5000 };

static const char *const names[] = {"ra", "rb"};
static struct orr_sim *sim;
static struct hand_ledger ledger;
static struct world worlds[2]; /* the event stream of each */

/* ---- a client that asks what the test posts to it ---- */

struct answer {
    uint16_t msg;
    uint32_t code;
    bool existed;
    char job[ORR_JOB_ID_MAX];
    uint32_t n_jobs;
    uint32_t phase; /* of the last job listed */
    struct orr_msg_region_check check;
};
static struct answer answers[ANSWERS]; /* by tag */
static struct orr_addr target;
static uint64_t tag;

struct asker {
    char unused;
};
ORR_HANDLER(asker, job_submit)
ORR_HANDLER(asker, job_list)
ORR_HANDLER(asker, job_wait)
ORR_HANDLER(asker, region_check_get)
ORR_HANDLER(asker, job_submitted)
ORR_HANDLER(asker, region_check)
ORR_HANDLER(asker, job_rows)
ORR_HANDLER(asker, failed)

static enum orr_err asker_on_job_submit(struct orr_ctx *ctx,
                                        struct asker *self,
                                        const struct orr_msg_job_submit *msg)
{
    (void)self;
    ctx->ops->ask(ctx, target, ASK_MS, tag, orr_msg_desc_job_submit(), msg);
    return ORR_OK;
}
static enum orr_err asker_on_job_list(struct orr_ctx *ctx,
                                      struct asker *self,
                                      const struct orr_msg_job_list *msg)
{
    (void)self;
    ctx->ops->ask(ctx, target, ASK_MS, tag, orr_msg_desc_job_list(), msg);
    return ORR_OK;
}
static enum orr_err asker_on_job_wait(struct orr_ctx *ctx,
                                      struct asker *self,
                                      const struct orr_msg_job_wait *msg)
{
    (void)self;
    ctx->ops->ask(ctx, target, 60000, tag, orr_msg_desc_job_wait(), msg);
    return ORR_OK;
}
static enum orr_err asker_on_region_check_get(
    struct orr_ctx *ctx, struct asker *self, const struct orr_msg_region_check_get *msg)
{
    (void)self;
    ctx->ops->ask(ctx, target, ASK_MS, tag, orr_msg_desc_region_check_get(), msg);
    return ORR_OK;
}
static enum orr_err asker_on_region_check(struct orr_ctx *ctx,
                                          struct asker *self,
                                          const struct orr_msg_region_check *msg)
{
    (void)self;
    answers[ctx->tag].msg = ORR_MSG_region_check;
    answers[ctx->tag].check = *msg;
    return ORR_OK;
}
static enum orr_err asker_on_job_submitted(struct orr_ctx *ctx,
                                           struct asker *self,
                                           const struct orr_msg_job_submitted *msg)
{
    (void)self;
    struct answer *answer = &answers[ctx->tag];
    answer->msg = ORR_MSG_job_submitted;
    answer->existed = msg->existed;
    orr_str_copy(answer->job, sizeof(answer->job), msg->job);
    return ORR_OK;
}
static enum orr_err asker_on_job_rows(struct orr_ctx *ctx,
                                      struct asker *self,
                                      const struct orr_msg_job_rows *msg)
{
    (void)self;
    answers[ctx->tag].msg = ORR_MSG_job_rows;
    answers[ctx->tag].n_jobs = msg->jobs.n;
    if (msg->jobs.n > 0)
        answers[ctx->tag].phase = msg->jobs.at[msg->jobs.n - 1].phase;
    return ORR_OK;
}
static enum orr_err asker_on_failed(struct orr_ctx *ctx,
                                    struct asker *self,
                                    const struct orr_msg_failed *msg)
{
    (void)self;
    answers[ctx->tag].msg = ORR_MSG_failed;
    answers[ctx->tag].code = msg->code;
    return ORR_OK;
}
static const struct orr_handler asker_handlers[] = {
    ORR_ON(asker, job_submit, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(asker, job_list, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(asker, job_wait, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(asker, region_check_get, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(asker, region_check, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(asker, job_submitted, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(asker, job_rows, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(asker, failed, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
};
static const struct orr_actor_type asker_type = {
    .name = "asker",
    .state_size = sizeof(struct asker),
    .handlers = asker_handlers,
    .n_handlers = ORR_ARRAY_SIZE(asker_handlers),
};

/* ---- a cluster that speaks only when the test has it speak ---- */

enum { SPEAK_REGISTER = 1, SPEAK_SUMMARY, SPEAK_ODD_SUMMARY, SPEAK_ACK };

struct mute {
    struct orr_request assign;
};
static bool is_mute_asked;

ORR_HANDLER(mute, timer)
ORR_HANDLER(mute, job_assign)

static enum orr_err
mute_on_timer(struct orr_ctx *ctx, struct mute *self, const struct orr_msg_timer *msg)
{
    const struct orr_addr region = orr_addr_named(orr_str(names[A]), ORR_LIT("/eu1"));
    const struct orr_rec_node_row node = {
        .node = ORR_LIT("n1"),
        .state = msg->id == SPEAK_ODD_SUMMARY ? ORR_NODE_STATE_MAX_ : ORR_NODE_UP,
        .slots = 4,
        .slots_free = 4};
    if (msg->id == SPEAK_REGISTER)
        orr_ask(ctx, region, ASK_MS, 0, cluster_register, .cluster = ORR_LIT("c1"));
    else if (msg->id == SPEAK_SUMMARY || msg->id == SPEAK_ODD_SUMMARY)
        orr_ask(ctx,
                region,
                ASK_MS,
                0,
                cluster_summary,
                .cluster = ORR_LIT("c1"),
                .nodes = {&node, 1});
    else
        orr_reply_to(ctx, &self->assign, ack);
    return ORR_OK;
}

static enum orr_err mute_on_job_assign(struct orr_ctx *ctx,
                                       struct mute *self,
                                       const struct orr_msg_job_assign *msg)
{
    (void)msg;
    self->assign = orr_defer(ctx);
    is_mute_asked = true;
    return ORR_OK;
}

static const struct orr_handler mute_handlers[] = {
    ORR_ON(mute, timer, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
    ORR_ON(mute, job_assign, ORR_ANY_STATE, ORR_ROLE_ANY, ORR_REFUSE),
};
static const struct orr_actor_type mute_type = {
    .name = "mute",
    .state_size = sizeof(struct mute),
    .handlers = mute_handlers,
    .n_handlers = ORR_ARRAY_SIZE(mute_handlers),
};

/* ---- two hosts of the region and one of the client ---- */

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
    if (host > B) {
        spawn(host, &asker_type, NULL, "/asker");
        spawn(host, &mute_type, NULL, "/eu1/c1");
        return;
    }
    invariants_fini(&worlds[host].invariants);
    worlds[host] = (struct world){0};
    assert_int_equal(invariants_init(&worlds[host].invariants), ORR_OK);
    struct orr_region_args region = {
        .region = "eu1", .jobs_max = 64, .finished_max = 8, .events_max = 8};
    snprintf(region.host, sizeof(region.host), "%s", names[host]);
    spawn(host,
          &sim_events_type,
          &(struct edge_args){NULL, &worlds[host]},
          "/edge/events");
    spawn(host,
          &hand_ledger_type,
          &(struct hand_ledger_args){&ledger, "/eu1"},
          "/edge/ledger");
    spawn(host, &orr_region_type, &region, "/eu1");
}

static int setup(void **state)
{
    (void)state;
    uint32_t host;
    memset(&ledger, 0, sizeof(ledger));
    memset(answers, 0, sizeof(answers));
    tag = 0;
    ledger.is_committing = true;
    const struct orr_sim_config config = {.seed = 5, .boot = boot};
    assert_int_equal(orr_sim_new(&config, &sim), ORR_OK);
    assert_int_equal(orr_sim_host_add(sim, names[A], &host), ORR_OK);
    assert_int_equal(orr_sim_host_add(sim, names[B], &host), ORR_OK);
    assert_int_equal(orr_sim_host_add(sim, "client", &host), ORR_OK);
    hand_ledger_lead(&ledger, names[A]);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    orr_sim_free(sim);
    hand_ledger_free(&ledger);
    for (unsigned i = 0; i < ORR_ARRAY_SIZE(worlds); i++)
        invariants_fini(&worlds[i].invariants);
    return 0;
}

static void run_for(uint64_t ms)
{
    struct orr_error err;
    assert_int_equal(orr_sim_run_until(sim, orr_sim_now_ms(sim) + ms, NULL, NULL, &err),
                     ORR_OK);
}

static struct answer *
ask(unsigned host, const struct orr_msg_desc *desc, const void *msg)
{
    struct orr_addr asker = orr_addr_named(ORR_LIT("client"), ORR_LIT("/asker"));
    tag++;
    target = orr_addr_named(orr_str(names[host]), ORR_LIT("/eu1"));
    orr_sim_post(sim, 2, (struct orr_addr){0}, asker, desc, msg);
    run_for(100);
    return &answers[tag];
}

static struct answer *submit(unsigned host, const char *key)
{
    uint8_t spec[512];
    size_t len;
    const struct orr_rec_text command = {ORR_LIT("/bin/true")};
    const struct orr_msg_job_spec job = {.name = ORR_LIT("t"),
                                         .project = ORR_LIT("p"),
                                         .command = {&command, 1},
                                         .workdir = ORR_LIT("/"),
                                         .world = 1,
                                         .shards = 1,
                                         .checkpoint_every_ms = 900000,
                                         .checkpoint_keep = 3,
                                         .hang_ms = 300000,
                                         .retries_infra = -1,
                                         .backoff_min_ms = 1000,
                                         .backoff_max_ms = 1000};
    assert_int_equal(
        orr_msg_encode(orr_msg_desc_job_spec(), &job, spec, sizeof(spec), &len),
        ORR_OK);
    const struct orr_msg_job_submit msg = {
        .key = orr_str(key), .owner = ORR_LIT("me"), .spec = {spec, (uint32_t)len}};
    return ask(host, orr_msg_desc_job_submit(), &msg);
}

static uint32_t count_jobs(unsigned host)
{
    const struct answer *answer =
        ask(host, orr_msg_desc_job_list(), &(struct orr_msg_job_list){0});
    assert_int_equal(answer->msg, ORR_MSG_job_rows);
    return answer->n_jobs;
}

static void tables_match(unsigned host)
{
    uint64_t keys;
    run_for(200);
    const struct answer *answer = ask(
        host, orr_msg_desc_region_check_get(), &(struct orr_msg_region_check_get){0});
    assert_int_equal(answer->msg, ORR_MSG_region_check);
    assert_int_equal(answer->check.open, 0);
    assert_int_equal(answer->check.digest, hand_ledger_digest(&ledger, &keys));
    assert_int_equal(answer->check.keys, keys);
}

/* ---- tests ---- */

static void submit_uncommitted_is_not_answered(void **state)
{
    (void)state;
    run_for(100);
    ledger.is_committing = false;
    struct answer *answer = submit(A, "k1");
    run_for(500);
    assert_int_equal(answer->msg, 0);
    assert_int_equal(worlds[A].invariants.last_seq, 1); /* region.leader */
    hand_ledger_commit(&ledger);
    run_for(100);
    assert_int_equal(answer->msg, ORR_MSG_job_submitted);
    assert_string_equal(answer->job, "eu1-1");
    assert_int_equal(worlds[A].invariants.last_seq, 2);
}

static void request_behind_an_uncommitted_one_waits_too(void **state)
{
    (void)state;
    run_for(100);
    ledger.is_committing = false;
    submit(A, "k1");
    struct answer *rows =
        ask(A, orr_msg_desc_job_list(), &(struct orr_msg_job_list){0});
    assert_int_equal(rows->msg,
                     0); /* it would tell of a job that may never have been */
    hand_ledger_commit(&ledger);
    run_for(100);
    assert_int_equal(rows->msg, ORR_MSG_job_rows);
    assert_int_equal(rows->n_jobs, 1);
}

static void standby_refuses_and_follows(void **state)
{
    (void)state;
    run_for(100);
    assert_int_equal(submit(A, "k1")->msg, ORR_MSG_job_submitted);
    struct answer *answer = submit(B, "k2");
    assert_int_equal(answer->msg, ORR_MSG_failed);
    assert_int_equal(answer->code, ORR_ENOTLEADER);
    tables_match(A);
    tables_match(B);
    assert_int_equal(worlds[B].invariants.last_seq, worlds[A].invariants.last_seq);
}

static void deposed_leader_confirms_nothing_and_the_next_has_all_that_was(void **state)
{
    (void)state;
    run_for(100);
    assert_string_equal(submit(A, "k1")->job, "eu1-1");
    ledger.is_committing = false;
    struct answer *lost = submit(A, "k2");
    hand_ledger_lead(&ledger, names[B]);
    ledger.is_committing = true;
    run_for(500);
    assert_int_equal(lost->msg, ORR_MSG_failed);
    assert_int_equal(lost->code, ORR_EGONE);
    assert_int_equal(count_jobs(B), 1);
    struct answer *again = submit(B, "k1");
    assert_true(again->existed);
    assert_string_equal(again->job, "eu1-1");
    assert_string_equal(submit(B, "k2")->job, "eu1-2");
    assert_int_equal(submit(A, "k3")->code, ORR_ENOTLEADER);
    tables_match(A);
    tables_match(B);
    assert_null(worlds[A].invariants.broken); /* no event twice, none left out */
    assert_null(worlds[B].invariants.broken);
    assert_int_equal(worlds[A].invariants.last_seq, worlds[B].invariants.last_seq);
}

static void leadership_that_returns_is_a_new_one(void **state)
{
    (void)state;
    run_for(100);
    for (unsigned i = 0; i < 24; i++) { /* a clean stop is no failure: no limit */
        char key[8];
        snprintf(key, sizeof(key), "k%u", i);
        hand_ledger_lead(&ledger, names[i % 2]);
        run_for(1000);
        assert_int_equal(submit(i % 2, key)->msg, ORR_MSG_job_submitted);
        tables_match(i % 2);
    }
    assert_int_equal(count_jobs(B), 24);
}

static void crashed_host_reads_everything_back(void **state)
{
    (void)state;
    run_for(100);
    for (unsigned i = 0; i < 20; i++) {
        char key[8];
        snprintf(key, sizeof(key), "k%u", i);
        assert_int_equal(submit(A, key)->msg, ORR_MSG_job_submitted);
    }
    orr_sim_crash(sim, A);
    hand_ledger_lead(&ledger, NULL);
    assert_int_equal(orr_sim_restart(sim, A), ORR_OK);
    run_for(100);
    assert_int_equal(submit(A, "x")->code, ORR_ENOTLEADER);
    hand_ledger_lead(&ledger, names[A]);
    run_for(200);
    assert_int_equal(count_jobs(A), 20);
    assert_string_equal(submit(A, "x")->job, "eu1-l");
    tables_match(A);
    assert_true(worlds[A].invariants.n_events >= 8 &&
                worlds[A].invariants.n_events <= 10); /* events_max 8 */
}

static void full_disk_is_refused_with_its_own_words(void **state)
{
    (void)state;
    run_for(100);
    ledger.trouble = ORR_EDISK;
    run_for(100);
    struct answer *answer = submit(A, "k1");
    assert_int_equal(answer->msg, ORR_MSG_failed);
    assert_int_equal(answer->code, ORR_EDISK);
    assert_int_equal(submit(B, "k1")->code, ORR_ENOTLEADER); /* another's to say */
    ledger.trouble = ORR_OK;
    run_for(1000);
    assert_int_equal(submit(A, "k1")->msg, ORR_MSG_job_submitted);
}

static void silent_ledger_deposes_the_leader(void **state)
{
    (void)state;
    run_for(100);
    ledger.is_committing = false;
    struct answer *answer = submit(A, "k1");
    run_for(4000);
    assert_int_equal(answer->msg, 0);
    run_for(10000);
    assert_int_equal(answer->msg, ORR_MSG_failed);
}

/* The news of a term count the tickets of whoever led in it.  A region that stopped itself and leads again must not take the
 * ticket of its former life for the commit of its own first entry. */
static void tickets_of_a_former_life_confirm_nothing(void **state)
{
    (void)state;
    run_for(100);
    const uint64_t term = ledger.term;
    const uint64_t told = worlds[A].invariants.last_seq;
    ledger.is_committing = false;
    submit(A, "k1");
    run_for(15000); /* deposed by itself, and back: the ledger led all the time */
    assert_int_equal(worlds[A].invariants.last_seq, told);
    assert_true(ledger.term > term);
    ledger.is_committing = true;
    assert_int_equal(submit(A, "k1")->msg, ORR_MSG_job_submitted);
    tables_match(A);
    assert_null(worlds[A].invariants.broken);
}

static void who_waits_is_sent_to_the_next_leader(void **state)
{
    (void)state;
    run_for(100);
    submit(A, "k1");
    struct answer *answer = ask(A,
                                orr_msg_desc_job_wait(),
                                &(struct orr_msg_job_wait){.job = ORR_LIT("eu1-1")});
    assert_int_equal(answer->msg, 0);
    hand_ledger_lead(&ledger, names[B]);
    run_for(200);
    assert_int_equal(answer->msg, ORR_MSG_failed);
    assert_int_equal(answer->code, ORR_ENOTLEADER);
}

/* A leader that was cut off does not know what the next one has taken: "no such job" must not come from it. */
static void no_such_job_is_said_by_a_leader_that_can_still_commit(void **state)
{
    (void)state;
    const struct orr_msg_job_wait unknown = {.job = ORR_LIT("eu1-zz")};
    run_for(100);
    struct answer *answer = ask(A, orr_msg_desc_job_wait(), &unknown);
    assert_int_equal(answer->msg, ORR_MSG_failed);
    assert_int_equal(answer->code, ORR_ENOENT);
    ledger.is_committing = false;
    answer = ask(A, orr_msg_desc_job_wait(), &unknown);
    run_for(500);
    assert_int_equal(answer->msg, 0);
    hand_ledger_lead(&ledger, names[B]);
    run_for(200);
    assert_int_equal(answer->msg, ORR_MSG_failed);
    assert_int_equal(answer->code, ORR_EGONE);
}

static void numbers_of_a_lost_ledger_do_not_come_again(void **state)
{
    (void)state;
    run_for(100);
    assert_string_equal(submit(A, "k1")->job, "eu1-1");
    orr_sim_crash(sim, A);
    hand_ledger_free(&ledger);
    memset(&ledger, 0, sizeof(ledger));
    ledger.is_committing = true;
    hand_ledger_lead(&ledger, names[A]);
    assert_int_equal(orr_sim_restart(sim, A), ORR_OK);
    run_for(200);
    assert_string_equal(submit(A, "k1")->job, "eu1-mh35"); /* 2^20 + 1 */
}

static void speak(uint32_t what)
{
    struct orr_addr mute = orr_addr_named(ORR_LIT("client"), ORR_LIT("/eu1/c1"));
    const struct orr_msg_timer msg = {.id = what};
    orr_sim_post(sim, 2, (struct orr_addr){0}, mute, orr_msg_desc_timer(), &msg);
}

/* It took the job after it had been given up, and says no more: the job is not its for ever. */
static void job_taken_by_a_cluster_that_was_given_up_goes_back(void **state)
{
    (void)state;
    run_for(100);
    speak(SPEAK_REGISTER);
    run_for(100);
    speak(SPEAK_SUMMARY);
    run_for(1500);
    is_mute_asked = false;
    assert_int_equal(submit(A, "k1")->msg, ORR_MSG_job_submitted);
    assert_true(is_mute_asked);
    run_for(1400); /* the cluster is silent for 3 s, its answer not yet late */
    speak(SPEAK_ACK);
    run_for(5000);
    assert_int_equal(count_jobs(A), 1);
    assert_int_equal(answers[tag].phase, ORR_JOB_QUEUED);
    tables_match(A);
}

static void node_state_that_is_none_is_unknown(void **state)
{
    (void)state;
    run_for(100);
    speak(SPEAK_REGISTER);
    run_for(100);
    speak(SPEAK_ODD_SUMMARY);
    tables_match(A);
    tables_match(B);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            submit_uncommitted_is_not_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(
            request_behind_an_uncommitted_one_waits_too, setup, teardown),
        cmocka_unit_test_setup_teardown(standby_refuses_and_follows, setup, teardown),
        cmocka_unit_test_setup_teardown(
            deposed_leader_confirms_nothing_and_the_next_has_all_that_was,
            setup,
            teardown),
        cmocka_unit_test_setup_teardown(
            leadership_that_returns_is_a_new_one, setup, teardown),
        cmocka_unit_test_setup_teardown(
            crashed_host_reads_everything_back, setup, teardown),
        cmocka_unit_test_setup_teardown(
            full_disk_is_refused_with_its_own_words, setup, teardown),
        cmocka_unit_test_setup_teardown(
            silent_ledger_deposes_the_leader, setup, teardown),
        cmocka_unit_test_setup_teardown(
            tickets_of_a_former_life_confirm_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(
            who_waits_is_sent_to_the_next_leader, setup, teardown),
        cmocka_unit_test_setup_teardown(
            no_such_job_is_said_by_a_leader_that_can_still_commit, setup, teardown),
        cmocka_unit_test_setup_teardown(
            numbers_of_a_lost_ledger_do_not_come_again, setup, teardown),
        cmocka_unit_test_setup_teardown(
            job_taken_by_a_cluster_that_was_given_up_goes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(
            node_state_that_is_none_is_unknown, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
