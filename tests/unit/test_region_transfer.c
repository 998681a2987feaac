/* SPDX-License-Identifier: Apache-2.0
 * test_region_transfer.c - a job goes to another region, or comes from one, while the region fails over (region_puppet.h plays the
 * other region).
 */
#include "region_puppet.h"

#include "orr_test.h"

static void start_running(void)
{
    update(ORR_JOB_LAUNCHING);
    update(ORR_JOB_RUNNING);
}

/* Up to the end of its generation here. */
static void leave(void)
{
    assert_int_equal(
        POST(job_migrate, .job = ORR_LIT("eu1-1"), .region = ORR_LIT("us2")),
        ORR_MSG_ack);
    assert_int_equal(seen.order.order, ORR_ORDER_VACATE);
    assert_int_equal(peer.n_transfers, 0);
    assert_int_equal(commit(seen.order.number, seen.order.checkpoint, 1, PUPPET_HASH),
                     ORR_MSG_ack);
}

static uint32_t n_checkpoints(void)
{
    assert_int_equal(POST(checkpoint_list, .job = ORR_LIT("eu1-1")),
                     ORR_MSG_checkpoint_rows);
    return answer.n_rows;
}

/* ---- away ---- */

static void job_is_handed_over_and_its_checkpoint_kept_until_it_is_settled(void **state)
{
    (void)state;
    start_running();
    leave();
    end(ORR_OUTCOME_MOVED, false);
    assert_int_equal(peer.n_transfers, 1);
    assert_int_equal(peer.manifest, 1);
    assert_int_equal(peer.generation, 2); /* one of its own */
    assert_true(peer.is_known);
    assert_int_equal(show()->row.phase, ORR_JOB_MOVED);
    assert_string_equal(answer.detail->to_region.ptr, "us2");
    assert_string_equal(answer.detail->to_endpoints.ptr, "ipc:///us2");
    assert_int_equal(answer.detail->order_state, ORR_ORDER_IS_DONE);
    assert_int_equal(n_checkpoints(), 1);
    assert_int_equal(POST(checkpoint_remove, .job = ORR_LIT("eu1-1"), .number = 1),
                     ORR_MSG_failed);
    fail_over(0);
    wait_for(10000);
    assert_int_equal(n_checkpoints(), 1);
    peer.is_settled = true;
    wait_for(70000);
    assert_int_equal(n_checkpoints(), 0);
    unsigned n = peer.n_offers;
    wait_for(70000);
    assert_int_equal(peer.n_offers, n); /* nothing is left to ask */
    assert_int_equal(POST(job_cancel, .job = ORR_LIT("eu1-1")), ORR_MSG_failed);
    assert_int_equal(seen.n_assigns, 1);
    tables_match();
}

static void refusal_before_it_stops_changes_nothing(void **state)
{
    (void)state;
    start_running();
    peer.refuses = true;
    assert_int_equal(
        POST(job_migrate, .job = ORR_LIT("eu1-1"), .region = ORR_LIT("us2")),
        ORR_MSG_failed);
    assert_int_equal(answer.code, ORR_EINVAL);
    assert_string_equal(answer.text,
                        "region us2 does not take it: not this one; nothing was done");
    assert_int_equal(seen.n_orders, 0);
    assert_int_equal(show()->order, 0);
    tables_match();
}

static void unanswered_handover_is_asked_about_and_never_undone(void **state)
{
    (void)state;
    start_running();
    leave();
    peer.is_mute = true; /* it takes the job, and its answer is lost */
    end(ORR_OUTCOME_MOVED, false);
    assert_int_equal(peer.n_transfers, 1);
    peer.is_silent = true;
    wait_for(20000);
    assert_int_equal(show()->row.phase, ORR_JOB_QUEUED);
    assert_non_null(strstr(answer.detail->row.reason.ptr, "has not answered"));
    assert_int_equal(POST(job_cancel, .job = ORR_LIT("eu1-1")), ORR_MSG_failed);
    assert_int_equal(answer.code, ORR_ESTATE);
    assert_int_equal(POST(job_resume, .job = ORR_LIT("eu1-1")), ORR_MSG_failed);
    fail_over(0);
    wait_for(20000);
    assert_int_equal(seen.n_assigns, 1); /* it may run there */
    peer.is_silent = false;
    wait_for(15000);
    assert_int_equal(show()->row.phase, ORR_JOB_MOVED);
    assert_int_equal(peer.n_transfers, 1); /* the offer told */
    tables_match();
}

static void refusal_at_the_end_brings_it_back_from_its_checkpoint(void **state)
{
    (void)state;
    start_running();
    leave();
    peer.refuses = true;
    end(ORR_OUTCOME_MOVED, false);
    assert_int_equal(peer.n_transfers, 0);
    assert_int_equal(seen.n_assigns, 2);
    assert_int_equal(seen.manifest, 1);
    assert_int_equal(seen.generation, 3);
    assert_int_equal(show()->order_state, ORR_ORDER_IS_FAILED);
    assert_string_equal(answer.detail->order_text.ptr,
                        "region us2 does not take it: not this one; it goes on here");
    assert_string_equal(answer.detail->to_region.ptr, "");
    tables_match();
}

/* ---- it is gone for good ---- */

static uint16_t recall(const char *from)
{
    (void)POST(job_migrate, .job = ORR_LIT("eu1-1"), .gone = orr_str(from));
    for (int i = 0; i < 40 && !answer.msg; i++)
        run_for(100);
    uint16_t msg = answer.msg;
    if (msg == ORR_MSG_ack)
        wait_for(3000);
    return msg;
}

static void leave_for_nobody(void)
{
    start_running();
    leave();
    peer.is_silent = true;
    end(ORR_OUTCOME_MOVED, false);
    wait_for(20000);
    assert_int_equal(show()->row.phase, ORR_JOB_QUEUED);
    assert_int_equal(seen.n_assigns, 1);
}

static void job_on_its_way_to_a_region_that_is_gone_comes_back(void **state)
{
    (void)state;
    leave_for_nobody();
    assert_int_equal(recall("us2"), ORR_MSG_ack);
    assert_int_equal(seen.n_assigns, 2);
    assert_int_equal(seen.manifest, 1);
    assert_int_equal(seen.generation, 3);
    assert_int_equal(show()->order_state, ORR_ORDER_IS_FAILED);
    assert_string_equal(
        answer.detail->order_text.ptr,
        "region us2 is gone for good, as its operator says; it goes on here");
    assert_string_equal(answer.detail->to_region.ptr, "");
    unsigned n = peer.n_offers;
    peer.is_silent = false; /* whatever it would say now */
    fail_over(3);
    wait_for(20000);
    assert_int_equal(peer.n_offers, n);
    assert_int_equal(peer.n_transfers, 0);
    assert_int_equal(show()->row.generation, 3);
    assert_int_equal(n_checkpoints(), 1);
    tables_match();
}

/* A region that answers has the last word: it may have the job. */
static void region_that_answers_is_not_gone(void **state)
{
    (void)state;
    leave_for_nobody();
    peer.is_silent = false;
    peer.is_stalling = true;
    assert_int_equal(recall("us2"), ORR_MSG_failed);
    assert_int_equal(answer.code, ORR_ESTATE);
    assert_non_null(strstr(answer.text, "region us2 answers"));
    wait_for(20000);
    assert_int_equal(seen.n_assigns, 1);
    peer.is_stalling = false;
    wait_for(15000);
    assert_int_equal(show()->row.phase, ORR_JOB_MOVED);
    tables_match();
}

static void only_what_is_on_its_way_there_comes_back(void **state)
{
    (void)state;
    start_running();
    assert_int_equal(recall("us2"), ORR_MSG_failed);
    assert_int_equal(answer.code, ORR_ESTATE);
    assert_string_equal(answer.text,
                        "job eu1-1 is not on its way to region us2; nothing was done");
    leave();
    peer.is_silent = true;
    end(ORR_OUTCOME_MOVED, false);
    assert_int_equal(recall("us3"), ORR_MSG_failed);
    assert_int_equal(POST(job_migrate,
                          .job = ORR_LIT("eu1-1"),
                          .region = ORR_LIT("us3"),
                          .gone = ORR_LIT("us2")),
                     ORR_MSG_failed);
    assert_int_equal(answer.code, ORR_EINVAL);
    assert_int_equal(POST(job_cancel, .job = ORR_LIT("eu1-1")), ORR_MSG_failed);
    assert_non_null(strstr(answer.text, "--gone us2"));
    assert_int_equal(recall("us2"), ORR_MSG_ack);
    assert_int_equal(recall("us2"), ORR_MSG_failed);
    peer.is_silent = false;
    peer.has_taken = true;
    peer.generation = 9;
    start_running();
    leave();
    end(ORR_OUTCOME_MOVED, false);
    assert_int_equal(show()->row.phase, ORR_JOB_MOVED);
    assert_int_equal(recall("us2"), ORR_MSG_failed);
}

/* ---- names of hosts ---- */

static void job_names_the_hosts_that_the_other_region_fetches_from(void **state)
{
    (void)state;
    summary();
    start_running();
    leave();
    assert_string_equal(peer.hosts, "n1"); /* where it runs */
    peer.hosts[0] = '\0';
    end(ORR_OUTCOME_MOVED, false);
    assert_string_equal(peer.hosts, "s1"); /* where it lies */
}

static uint32_t offer_from(const char *host)
{
    const struct orr_rec_text hosts[] = {{ORR_LIT("u1")}, {orr_str(host)}};
    assert_int_equal(POST(job_offer,
                          .region = ORR_LIT("us2"),
                          .job = ORR_LIT("us2-7"),
                          .generation = 3,
                          .spec = puppet_spec(),
                          .level = ORR_LEVEL_IMAGE,
                          .hosts = {hosts, 2}),
                     ORR_MSG_job_offered);
    return answer.code;
}

static void host_of_both_regions_is_refused_before_anything_stops(void **state)
{
    (void)state;
    summary();
    assert_int_equal(offer_from("u2"), ORR_OK);
    assert_int_equal(offer_from("n1"), ORR_EEXIST); /* of a node */
    assert_string_equal(
        answer.text,
        "host n1 is here and there, and a name is one host's only, over all regions: "
        "give one of them another name");
    assert_int_equal(offer_from("puppet"), ORR_EEXIST); /* of a cluster */
    assert_int_equal(offer_from("ra"), ORR_EEXIST);     /* of the region */
}

/* ---- from there ---- */

static uint64_t offer(uint64_t generation)
{
    assert_int_equal(POST(job_offer,
                          .region = ORR_LIT("us2"),
                          .job = ORR_LIT("us2-7"),
                          .generation = generation,
                          .spec = puppet_spec(),
                          .level = ORR_LEVEL_IMAGE,
                          .is_final = true),
                     ORR_MSG_job_offered);
    return answer.offered.token;
}

static uint16_t transfer(uint64_t generation, uint64_t token)
{
    return POST(job_transfer,
                .region = ORR_LIT("us2"),
                .job = ORR_LIT("us2-7"),
                .generation = generation,
                .token = token,
                .spec = puppet_spec(),
                .manifest = puppet_manifest(4, PUPPET_HASH),
                .checkpoint = 4,
                .level = ORR_LEVEL_IMAGE);
}

static void only_the_newest_token_takes_a_job_and_only_once(void **state)
{
    (void)state;
    unsigned before = seen.n_assigns;
    uint64_t first = offer(3), second = offer(3);
    assert_true(first && second && first != second);
    assert_int_equal(transfer(3, first), ORR_MSG_failed); /* late */
    assert_int_equal(answer.code, ORR_ESTALE);
    assert_int_equal(transfer(2, second), ORR_MSG_failed); /* of another handover */
    assert_int_equal(transfer(3, second), ORR_MSG_ack);
    wait_for(500);
    assert_int_equal(seen.n_assigns, before + 1);
    assert_int_equal(seen.generation, 4);
    assert_int_equal(seen.manifest, 4);
    assert_int_equal(transfer(3, second), ORR_MSG_ack); /* again */
    fail_over(0);
    assert_int_equal(transfer(3, first),
                     ORR_MSG_ack); /* it is here, whatever the token */
    (void)offer(3);
    assert_true(answer.offered.is_taken);
    assert_false(answer.offered.is_settled);
    tables_match();
}

static void token_dies_with_its_leader_and_with_a_refusal(void **state)
{
    (void)state;
    uint64_t token = offer(3);
    fail_over(0);
    assert_int_equal(transfer(3, token), ORR_MSG_failed);
    assert_int_equal(answer.code, ORR_ESTALE);
    token = offer(3);
    static const uint8_t garbage[] = {0xc1};
    assert_int_equal(POST(job_offer,
                          .region = ORR_LIT("us2"),
                          .job = ORR_LIT("us2-7"),
                          .generation = 3,
                          .spec = {garbage, 1},
                          .is_final = true),
                     ORR_MSG_job_offered);
    assert_true(answer.offered.is_refused);
    assert_int_equal(transfer(3, token), ORR_MSG_failed);
    assert_int_equal(answer.code, ORR_ESTALE);
    assert_int_equal(transfer(3, offer(3)), ORR_MSG_ack);
    tables_match();
}

static void strangers_and_ids_that_are_here_are_refused(void **state)
{
    (void)state;
    POST(job_offer,
         .region = ORR_LIT("us9"),
         .job = ORR_LIT("us9-7"),
         .generation = 1,
         .spec = puppet_spec(),
         .is_final = true);
    assert_true(answer.offered.is_refused);
    assert_int_equal(answer.offered.code, ORR_EPERM);
    POST(job_offer,
         .region = ORR_LIT("us2"),
         .job = ORR_LIT("eu1-1"),
         .generation = 9,
         .spec = puppet_spec(),
         .is_final = true);
    assert_true(answer.offered.is_refused);
    assert_int_equal(answer.offered.code, ORR_EEXIST);
}

static void job_that_runs_from_its_own_stores_is_settled(void **state)
{
    (void)state;
    assert_int_equal(transfer(3, offer(3)), ORR_MSG_ack);
    wait_for(500);
    const struct orr_rec_rank_place ranks[] = {
        {.rank = 0, .node = ORR_LIT("n1"), .device = 2},
        {.rank = 1, .node = ORR_LIT("n1"), .device = 3, .local_rank = 1}};
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(POST(job_update,
                              .job = ORR_LIT("us2-7"),
                              .generation = 4,
                              .phase = i ? ORR_JOB_RUNNING : ORR_JOB_LAUNCHING,
                              .step = 100 + i,
                              .ranks = {ranks, i ? 0 : PUPPET_WORLD},
                              .level = ORR_LEVEL_IMAGE),
                         ORR_MSG_ack);
    (void)offer(3);
    assert_true(answer.offered.is_taken);
    assert_true(answer.offered.is_settled);
    tables_match();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, puppet_setup, puppet_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(job_is_handed_over_and_its_checkpoint_kept_until_it_is_settled),
        TEST(refusal_before_it_stops_changes_nothing),
        TEST(unanswered_handover_is_asked_about_and_never_undone),
        TEST(job_on_its_way_to_a_region_that_is_gone_comes_back),
        TEST(region_that_answers_is_not_gone),
        TEST(only_what_is_on_its_way_there_comes_back),
        TEST(refusal_at_the_end_brings_it_back_from_its_checkpoint),
        TEST(job_names_the_hosts_that_the_other_region_fetches_from),
        TEST(host_of_both_regions_is_refused_before_anything_stops),
        TEST(only_the_newest_token_takes_a_job_and_only_once),
        TEST(token_dies_with_its_leader_and_with_a_refusal),
        TEST(strangers_and_ids_that_are_here_are_refused),
        TEST(job_that_runs_from_its_own_stores_is_settled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
