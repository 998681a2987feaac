/* SPDX-License-Identifier: Apache-2.0
 * test_examples_jobs.c - the job specs that the examples ship are good ones.
 */
#include "orr_test.h"
#include "orrery/job_spec.h"

#include <string.h>

static void check_job(const char *path,
                      const char *program,
                      uint32_t world,
                      uint32_t least,
                      uint32_t most)
{
    struct orr_job_spec spec;
    struct orr_error error;
    if (orr_job_spec_load(path, &spec, &error) != ORR_OK ||
        orr_job_spec_finish(&spec, "/", &error) != ORR_OK)
        fail_msg("%s", error.text);
    assert_int_equal(spec.msg.world, world);
    assert_int_equal(spec.msg.gpus_min, least);
    assert_int_equal(spec.msg.gpus_max, most);
    assert_string_equal(spec.msg.command.at[0].value.ptr, program);
    orr_job_spec_free(&spec);
}

static void shipped_jobs_with_devices_are_good_specs(void **state)
{
    (void)state;
    check_job(EXAMPLES_DIR "/digits/job.yaml", "./build/bin/digits", 8, 4, 8);
    check_job(EXAMPLES_DIR "/digits/long.yaml", "./build/bin/digits", 8, 4, 8);
    check_job(EXAMPLES_DIR "/mlp/job.yaml", "./build/bin/mlp", 8, 4, 8);
    check_job(EXAMPLES_DIR "/pipeline/job.yaml", "./build/bin/pipeline", 8, 4, 8);
    check_job(EXAMPLES_DIR "/adam/job.yaml", "./build/bin/adam", 8, 4, 8);
}

static void shipped_job_without_devices_is_a_good_spec(void **state)
{
    (void)state;
    check_job(EXAMPLES_DIR "/tcp/job.yaml", "./build/bin/tcp", 8, 0, 0);
    check_job(EXAMPLES_DIR "/cooperative/job.yaml", "python3", 4, 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shipped_jobs_with_devices_are_good_specs),
        cmocka_unit_test(shipped_job_without_devices_is_a_good_spec),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
