/* SPDX-License-Identifier: Apache-2.0
 * test_region_admit.c - admission: a good spec enters, a bad one is told which field and what to do.
 */
#include "region/region_admit.h"

#include "orr_test.h"

static const struct orr_rec_text program[] = {{{"true", 4}}};
static const struct orr_rec_text elsewhere[] = {{{"us2", 3}}};
static const struct orr_rec_text here_too[] = {{{"us2", 3}}, {{"eu1", 3}}};
static const struct orr_rec_env_var bad_env[] = {{{"A=B", 3}, {"x", 1}}};

static struct orr_msg_job_spec good(void)
{
    return (struct orr_msg_job_spec){
        .name = ORR_LIT("j"),
        .project = ORR_LIT("default"),
        .tier = ORR_TIER_STANDARD,
        .command = {program, 1},
        .workdir = ORR_LIT("/"),
        .world = 8,
        .gpus_min = 2,
        .gpus_max = 8,
        .shards = 1,
        .checkpoint_every_ms = 900000,
        .checkpoint_keep = 3,
        .hang_ms = 300000,
        .retries_infra = -1,
        .backoff_min_ms = 1000,
        .backoff_max_ms = 600000,
    };
}

static void expect(struct orr_msg_job_spec spec, const char *names)
{
    struct orr_error err = {0};
    enum orr_err code = region_admit(&spec, "eu1", 4096, &err);
    if (!names) {
        if (code != ORR_OK)
            fail_msg("refused: %s", err.text);
        return;
    }
    assert_int_equal(code, ORR_EINVAL);
    if (!strstr(err.text, names))
        fail_msg("`%s` does not name %s", err.text, names);
}

#define EXPECT(names, ...)                                                             \
    do {                                                                               \
        struct orr_msg_job_spec spec = good();                                         \
        __VA_ARGS__;                                                                   \
        expect(spec, names);                                                           \
    } while (0)

static void admit_good_specs_enter(void **state)
{
    (void)state;
    expect(good(), NULL);
    EXPECT(NULL, spec.gpus_min = spec.gpus_max = 0);
    EXPECT(NULL, spec.limit_ms = 0; spec.hang_ms = 0);
    EXPECT(NULL, spec.regions = (struct orr_list_text){here_too, 2});
}

static void admit_bad_fields_are_named(void **state)
{
    (void)state;
    EXPECT("command", spec.command.n = 0);
    EXPECT("name", spec.name.len = 0);
    EXPECT("tier", spec.tier = ORR_TIER_MAX_);
    EXPECT("world", spec.world = 0);
    EXPECT("world", spec.world = 5000; spec.gpus_min = spec.gpus_max = 0);
    EXPECT("time.limit", spec.limit_ms = 1);
    EXPECT("time.limit", spec.limit_ms = UINT64_MAX);
    EXPECT("retries.user", spec.retries_user = -2);
    EXPECT("checkpoint.keep", spec.checkpoint_keep = 0);
    EXPECT("placement.spread", spec.spread = 9);
    EXPECT("placement.regions", spec.regions = (struct orr_list_text){elsewhere, 1});
    EXPECT("env", spec.env = (struct orr_list_env_var){bad_env, 1});
}

static void admit_rules_between_fields_are_checked(void **state)
{
    (void)state;
    EXPECT("gpus", spec.gpus_min = 9);
    EXPECT("gpus", spec.gpus_max = 16);
    EXPECT("shards", spec.shards = 3);
    EXPECT("retries.backoff", spec.backoff_min_ms = 700000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(admit_good_specs_enter),
        cmocka_unit_test(admit_bad_fields_are_named),
        cmocka_unit_test(admit_rules_between_fields_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
