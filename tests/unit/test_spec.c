/* SPDX-License-Identifier: Apache-2.0
 * test_spec.c - job specs: the documented example, the computed defaults, ten broken
 * specs, and docs/job-spec.md.
 */
#include "orr_test.h"

#include "orrery/job_spec.h"

static struct orr_error error;

static enum orr_err
finish_text(const char *text, const char *dir, struct orr_job_spec *ret_spec)
{
    enum orr_err rc =
        orr_job_spec_parse("job.yaml", text, strlen(text), ret_spec, &error);
    if (rc == ORR_OK && (rc = orr_job_spec_finish(ret_spec, dir, &error)) != ORR_OK)
        orr_job_spec_free(ret_spec);
    return rc;
}

static struct orr_job_spec accept(const char *text)
{
    struct orr_job_spec spec;
    if (finish_text(text, "/home/u", &spec) != ORR_OK)
        fail_msg("%s", error.text);
    return spec;
}

static void refuse(const char *text, const char *message)
{
    struct orr_job_spec spec;
    assert_int_equal(finish_text(text, "/home/u", &spec), ORR_EINVAL);
    if (!strstr(error.text, message))
        fail_msg("got: %s\nwanted: %s", error.text, message);
}

static void spec_full_example_is_read(void **state)
{
    static const char text[] =
        "name: llm-7b\n"
        "project: nlp\n"
        "tier: premium\n"
        "command: [python, train.py, --cfg, 7b.yaml]\n"
        "workdir: /data/run42\n"
        "env: {OMP_NUM_THREADS: \"8\"}\n"
        "world: 32\n"
        "gpus: {min: 8, max: 32, type: [H100, H200], memory: 40GiB}\n"
        "shards: 1\n"
        "placement: {regions: [us2, eu1], spread: spread, exclude: []}\n"
        "checkpoint: {mode: image, every: 20m, keep: 4}\n"
        "time: {limit: 7d, deadline: 2027-01-15T00:00:00Z, min_run: 15m, hang: 6m}\n"
        "retries: {infra: 9, user: 2, backoff: 30s..10m}\n";
    struct orr_job_spec spec = accept(text);
    const struct orr_msg_job_spec *m = &spec.msg;
    (void)state;
    assert_string_equal(m->name.ptr, "llm-7b");
    assert_string_equal(m->project.ptr, "nlp");
    assert_int_equal(m->tier, ORR_TIER_PREMIUM);
    assert_int_equal(m->command.n, 4);
    assert_string_equal(m->command.at[3].value.ptr, "7b.yaml");
    assert_string_equal(m->workdir.ptr, "/data/run42");
    assert_int_equal(m->env.n, 1);
    assert_int_equal(m->world, 32);
    assert_int_equal(m->gpus_min, 8);
    assert_int_equal(m->gpus_max, 32);
    assert_int_equal(m->gpu_types.n, 2);
    assert_int_equal(m->gpu_memory_bytes, UINT64_C(40) << 30);
    assert_int_equal(m->regions.n, 2);
    assert_int_equal(m->spread, ORR_SPREAD_SPREAD);
    assert_int_equal(m->checkpoint_mode, ORR_CHECKPOINT_IMAGE);
    assert_int_equal(m->checkpoint_every_ms, 1200000);
    assert_int_equal(m->checkpoint_keep, 4);
    assert_int_equal(m->limit_ms, 604800000);
    assert_int_equal(m->deadline_unix_ms, UINT64_C(1799971200000));
    assert_int_equal(m->min_run_ms, 900000);
    assert_int_equal(m->hang_ms, 360000);
    assert_int_equal(m->retries_infra, 9);
    assert_int_equal(m->retries_user, 2);
    assert_int_equal(m->backoff_min_ms, 30000);
    assert_int_equal(m->backoff_max_ms, 600000);
    orr_job_spec_free(&spec);
}

static void spec_defaults_are_filled(void **state)
{
    struct orr_job_spec spec = accept("command: [./bin/train++.sh, x]\n");
    const struct orr_msg_job_spec *m = &spec.msg;
    (void)state;
    assert_string_equal(m->name.ptr, "train.sh");
    assert_string_equal(m->project.ptr, "default");
    assert_string_equal(m->workdir.ptr, "/home/u");
    assert_int_equal(m->tier, ORR_TIER_STANDARD);
    assert_int_equal(m->world, 1);
    assert_int_equal(m->gpus_max, 0);
    assert_int_equal(m->shards, 0);
    assert_int_equal(m->retries_infra, -1);
    assert_int_equal(m->retries_user, 0);
    assert_int_equal(m->limit_ms, 0);
    assert_int_equal(m->hang_ms, 300000);
    orr_job_spec_free(&spec);
}

static void spec_gpus_and_world_complete_each_other(void **state)
{
    static const struct {
        const char *text;
        uint32_t min, max, world;
    } cases[] = {
        {"gpus: 4", 4, 4, 4},
        {"gpus: 2..8", 2, 8, 8},
        {"gpus: {max: 8}", 8, 8, 8},
        {"gpus: {min: 2}", 2, 2, 2},
        {"gpus: {min: 2, max: 4}\nworld: 8", 2, 4, 8},
        {"world: 8", 0, 0, 8},
    };
    (void)state;
    for (size_t i = 0; i < ORR_ARRAY_SIZE(cases); i++) {
        char text[128];
        snprintf(text, sizeof text, "command: [a]\n%s\n", cases[i].text);
        struct orr_job_spec spec = accept(text);
        assert_int_equal(spec.msg.gpus_min, cases[i].min);
        assert_int_equal(spec.msg.gpus_max, cases[i].max);
        assert_int_equal(spec.msg.world, cases[i].world);
        orr_job_spec_free(&spec);
    }
}

static void spec_relative_workdir_becomes_absolute(void **state)
{
    struct orr_job_spec spec = accept("command: [a]\nworkdir: data/x");
    (void)state;
    assert_string_equal(spec.msg.workdir.ptr, "/home/u/data/x");
    orr_job_spec_free(&spec);
}

static void spec_broken_is_refused_with_place_and_remedy(void **state)
{
    (void)state;
    refuse("command: [a]\ngpu: 1",
           "job.yaml:2:1: gpu: unknown field; did you mean `gpus`?");
    refuse("command: [a]\ngpus: {mx: 1}",
           "job.yaml:2:8: gpus.mx: unknown field; did you mean `max`?");
    refuse("name: x", "job.yaml:1:1: command: missing; add `command: ...`");
    refuse("command: python",
           "job.yaml:1:10: command: expected a list of 1..1024 texts, got `python`");
    refuse("command: [a]\nworld: 0",
           "job.yaml:2:8: world: expected a whole number 1..65536, got `0`");
    refuse("command: [a]\ntier: gold",
           "expected premium, standard or basic, got `gold`");
    refuse("command: [a]\ntime: {limit: 30}",
           "time.limit: expected a duration 1s..365d");
    refuse("command: [a]\ngpus: {min: 4, max: 2}",
           "job.yaml:2:8: gpus.min: 4 is more than gpus.max 2");
    refuse("command: [a]\ngpus: {min: 0, max: 2}", "needs at least 1");
    refuse("command: [a]\nworld: 2\ngpus: 4",
           "job.yaml:2:1: world: 2 ranks cannot use gpus.max 4 devices");
    refuse("command: [a]\nworld: 6\nshards: 4",
           "shards: world 6 is not a multiple of 4 shards");
    refuse("command: [a]\nenv: {RANK: 1}", "env: RANK is set by Orrery; remove it");
    refuse("command: [\"\"]", "command: no program");
    refuse("command: [a]\nretries: {backoff: 10m..30s}",
           "retries.backoff: expected a duration");
}

static void spec_too_large_is_refused(void **state)
{
    size_t cap = 80000;
    char *text = malloc(cap);
    (void)state;
    assert_non_null(text);
    int n = snprintf(text, cap, "command: [a, b%060000d, c%010000d]\n", 1, 1);
    assert_true(n > 0);
    refuse(text, "put long texts into files");
    free(text);
}

static void spec_of_the_command_line_survives_the_wire(void **state)
{
    struct orr_job_spec spec;
    char *argv[] = {"sleep", "1"};
    uint8_t wire[1024];
    union {
        struct orr_msg_job_spec msg;
        uint8_t bytes[4096];
    } back;
    size_t len;
    (void)state;
    assert_int_equal(orr_job_spec_new(&spec, &error), ORR_OK);
    assert_int_equal(orr_job_spec_command(&spec, 2, argv, &error), ORR_OK);
    assert_int_equal(orr_job_spec_set(&spec, "gpus", "2", &error), ORR_OK);
    assert_int_equal(orr_job_spec_set(&spec, "world", "4", &error), ORR_OK);
    assert_int_equal(orr_job_spec_set(&spec, "tier", "god", &error), ORR_EINVAL);
    assert_int_equal(orr_job_spec_finish(&spec, "/w", &error), ORR_OK);
    const struct orr_msg_desc *desc = orr_msg_desc_job_spec();
    assert_int_equal(orr_msg_encode(desc, &spec.msg, wire, sizeof wire, &len), ORR_OK);
    assert_int_equal(orr_msg_decode(desc, wire, len, &back, sizeof back), ORR_OK);
    assert_string_equal(back.msg.name.ptr, "sleep");
    assert_int_equal(back.msg.gpus_min, 2);
    assert_int_equal(back.msg.world, 4);
    assert_string_equal(back.msg.workdir.ptr, "/w");
    orr_job_spec_free(&spec);
}

/* Whatever the tables print must stand in the page, so that no field is added without
 * its line there. */
static void spec_documentation_matches_the_table(void **state)
{
    char path[4096], *page, *table;
    size_t page_len, table_len;
    const char *root = getenv("ORR_SOURCE_DIR");
    (void)state;
    assert_non_null(root);
    snprintf(path, sizeof path, "%s/docs/job-spec.md", root);
    assert_int_equal(orr_yaml_load(path, &page, &page_len, &error), ORR_OK);
    FILE *out = open_memstream(&table, &table_len);
    assert_non_null(out);
    orr_yaml_print_markdown(orr_job_spec_table(), out);
    fclose(out);
    if (!strstr(page, table))
        fail_msg("%s: put the output of `orrery explain --markdown` into it", path);
    free(table);
    free(page);
}

static void spec_examples_are_accepted(void **state)
{
    static const char *const files[] = {"examples/digits/job.yaml",
                                        "examples/digits/long.yaml"};
    const char *root = getenv("ORR_SOURCE_DIR");
    (void)state;
    assert_non_null(root);
    for (size_t i = 0; i < ORR_ARRAY_SIZE(files); i++) {
        struct orr_job_spec spec;
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", root, files[i]);
        if (orr_job_spec_load(path, &spec, &error) != ORR_OK)
            fail_msg("%s", error.text);
        if (orr_job_spec_finish(&spec, root, &error) != ORR_OK)
            fail_msg("%s", error.text);
        assert_int_equal(spec.msg.world, 8);
        orr_job_spec_free(&spec);
    }
}

static void explain_finds_fields_sections_and_slips(void **state)
{
    char *text;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    (void)state;
    assert_non_null(out);
    const struct orr_yaml_table *table = orr_job_spec_table();
    assert_int_equal(orr_yaml_explain(table, "placement", out, &error), ORR_OK);
    assert_int_equal(orr_yaml_explain(table, "gpu", out, &error), ORR_ENOENT);
    assert_non_null(strstr(error.text, "did you mean `gpus`?"));
    fclose(out);
    assert_non_null(
        strstr(text, "placement.spread: few nodes, or many\n    pack or spread\n"));
    assert_null(strstr(text, "gpus"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spec_full_example_is_read),
        cmocka_unit_test(spec_defaults_are_filled),
        cmocka_unit_test(spec_gpus_and_world_complete_each_other),
        cmocka_unit_test(spec_relative_workdir_becomes_absolute),
        cmocka_unit_test(spec_broken_is_refused_with_place_and_remedy),
        cmocka_unit_test(spec_too_large_is_refused),
        cmocka_unit_test(spec_of_the_command_line_survives_the_wire),
        cmocka_unit_test(spec_documentation_matches_the_table),
        cmocka_unit_test(spec_examples_are_accepted),
        cmocka_unit_test(explain_finds_fields_sections_and_slips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
