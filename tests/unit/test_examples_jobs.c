/* SPDX-License-Identifier: Apache-2.0
 * test_examples_jobs.c - the job specs that the examples ship are good ones.
 */
#include "orr_test.h"
#include "orrery/job_spec.h"

#include <string.h>

static void check_job(const char *path)
{
    struct orr_job_spec spec;
    struct orr_error error;
    if (orr_job_spec_load(path, &spec, &error) != ORR_OK ||
        orr_job_spec_finish(&spec, "/", &error) != ORR_OK)
        fail_msg("%s", error.text);
    assert_int_equal(spec.msg.world, 8);
    assert_int_equal(spec.msg.gpus_min, 4);
    assert_int_equal(spec.msg.gpus_max, 8);
    assert_string_equal(spec.msg.command.at[0].value.ptr, "./build/bin/digits");
    orr_job_spec_free(&spec);
}

static void shipped_job_is_a_good_spec(void **state)
{
    (void)state;
    check_job(EXAMPLES_DIR "/digits/job.yaml");
}

static void shipped_long_job_is_a_good_spec(void **state)
{
    (void)state;
    check_job(EXAMPLES_DIR "/digits/long.yaml");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shipped_job_is_a_good_spec),
        cmocka_unit_test(shipped_long_job_is_a_good_spec),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
