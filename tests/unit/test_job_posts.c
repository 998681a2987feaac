/* SPDX-License-Identifier: Apache-2.0
 * test_job_posts.c - what processes tell each other while the job runs: kept, and given to whoever asks.
 */
#include "job_stop_bed.h"

#include "orr_test.h"

/* byte 0: asks for it. */
static void say(uint32_t node, uint64_t generation, uint64_t name, uint8_t byte)
{
    uint8_t data[128];
    memset(data, byte, sizeof data);
    struct orr_rec_comm_id post_one = {.comm = name, .id = {data, byte ? 128 : 0}};
    const struct orr_msg_job_posts msg = {.job = ORR_LIT("eu1-1"),
                                          .generation = generation,
                                          .node = orr_str(node_name(node)),
                                          .posts = {&post_one, 1}};
    post(orr_msg_desc_job_posts(), &msg);
    run_for(100);
}

static void told_is_given_to_who_asks(void **state)
{
    (void)state;
    memset(posts_heard, 0, sizeof posts_heard);
    start_running();
    say(1, GENERATION, 77, 0);
    assert_int_equal(posts_heard[1].n_answers, 0); /* nobody has told it */
    say(0, GENERATION, 77, 9);
    assert_int_equal(posts_heard[1].n_answers, 0); /* it asks again by itself */
    say(1, GENERATION, 77, 0);
    assert_int_equal(posts_heard[1].n_answers, 1);
    assert_int_equal(posts_heard[0].n_answers, 0);
    assert_int_equal(posts_heard[1].name[0], 77);
    assert_int_equal(posts_heard[1].first[0], 9);
}

static void first_word_under_a_name_holds(void **state)
{
    (void)state;
    memset(posts_heard, 0, sizeof posts_heard);
    start_running();
    say(0, GENERATION, 5, 1);
    say(0, GENERATION, 5, 2); /* told again, or a lie */
    say(1, GENERATION - 1, 6, 3);
    say(1, GENERATION, 6, 0);
    assert_int_equal(posts_heard[1].n_answers, 0); /* of an older generation */
    say(1, GENERATION, 5, 0);
    assert_int_equal(posts_heard[1].first[0], 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STOP(told_is_given_to_who_asks),
        STOP(first_word_under_a_name_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
