/* SPDX-License-Identifier: Apache-2.0
 * test_cli.c - the verbs against a region made of a few functions (test_cli_region.c): options, output, retries, exit codes.
 */
#include "orr_test.h"

#include <unistd.h>

#include "cli.h"
#include "cli_main.h"
#include "orrery/yaml.h"
#include "test_cli_region.h"
#include "test_cli_run.h"

static int setup(void **state)
{
    (void)state;
    region_start();
    setenv("ORRERY_REGION", "ipc:///r1", 1);
    unsetenv("ORRERY_STATE");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    region_stop();
    return 0;
}

/* ---- tests ---- */

static void main_bad_usage_is_code_2_with_remedy(void **state)
{
    (void)state;
    assert_int_equal(orrery(""), EXIT_USAGE);
    expect(errors, "usage: orrery VERB");
    assert_int_equal(orrery("sumbit x"), EXIT_USAGE);
    expect(errors, "sumbit: unknown verb; did you mean `submit`?");
    assert_int_equal(orrery("qqqq"), EXIT_USAGE);
    expect(errors, "`orrery help` lists them");
    assert_int_equal(orrery("ps --al"), EXIT_USAGE);
    expect(errors, "orrery ps: --al: unknown option; did you mean `--all`?");
    assert_int_equal(orrery("ps --gpus 2"), EXIT_USAGE);
    assert_int_equal(orrery("ps x"), EXIT_USAGE);
    expect(errors, "too many arguments");
    assert_int_equal(orrery("show"), EXIT_USAGE);
    expect(errors, "an argument is missing; usage: orrery show JOB");
    assert_int_equal(orrery("ps -o xml"), EXIT_USAGE);
    expect(errors, "expected table, json or jsonl, got `xml`");
    assert_int_equal(orrery("ps -o"), EXIT_USAGE);
    expect(errors, "--output needs a value");
    assert_int_equal(orrery("ps --all=1"), EXIT_USAGE);
    assert_int_equal(orrery("wait r1-1 --timeout 5"), EXIT_USAGE);
    expect(errors, "--timeout: expected a duration");
    assert_int_equal(orrery("ps -- true"), EXIT_USAGE);
    assert_int_equal(orrery("ps --region nowhere"), EXIT_USAGE);
    expect(errors, "not an endpoint");
    assert_int_equal(orrery("node rm"), EXIT_USAGE);
    assert_int_equal(orrery("logs r1-1 --rank 8"), EXIT_USAGE);
    expect(errors, "--rank: expected 0..7 or all, got `8`");
}

static void main_help_and_version_need_no_region(void **state)
{
    (void)state;
    unsetenv("ORRERY_REGION");
    assert_int_equal(orrery("help"), EXIT_OK);
    expect(out, "submit");
    assert_int_equal(orrery("help run"), EXIT_OK);
    expect(out, "--gpus N");
    assert_int_equal(orrery("ps --help"), EXIT_OK);
    expect(out, "-a, --all");
    assert_int_equal(orrery("version"), EXIT_OK);
    expect(out, "orrery ");
    assert_int_equal(orrery("explain gpus.min"), EXIT_OK);
    expect(out, "gpus.min: fewest devices");
    assert_int_equal(orrery("explain gpsu"), EXIT_NONE);
    assert_int_equal(orrery("ps"), EXIT_USAGE);
    expect(errors, "which region?");
}

static void region_that_is_away_is_code_3(void **state)
{
    (void)state;
    region.is_away = true;
    assert_int_equal(orrery("ps"), EXIT_UNREACH);
    expect(errors, "orrery ps: ipc:///r1: nobody there");
    unsetenv("ORRERY_REGION");
    setenv("ORRERY_STATE", "/nonexistent", 1);
    assert_int_equal(orrery("ps"), EXIT_UNREACH);
    expect(errors, "orrery dev up --state /nonexistent");
}

static void region_name_leads_to_its_path(void **state)
{
    (void)state;
    assert_int_equal(orrery("tree"), EXIT_OK);
    assert_string_equal(region.path, "/r1");
    assert_int_equal(orrery("tree --region-name eu1"), EXIT_OK);
    assert_string_equal(region.path, "/eu1");
}

static void ps_pages_are_one_aligned_table(void **state)
{
    (void)state;
    assert_int_equal(orrery("ps -a"), EXIT_OK);
    expect(out, "JOB   NAME   PROJECT  TIER     PHASE    RANKS  GPUS  CLUSTER");
    expect(out, "r1-1  one    p        premium  running  8      4     c1");
    expect(out, "r1-2  two\"   p        premium  queued   1      0     -");
    expect(out, "r1-3  three  p        basic    failed   1      0     c1");
}

static void ps_json_has_names_for_enums(void **state)
{
    (void)state;
    assert_int_equal(orrery("ps -a -o jsonl"), EXIT_OK);
    expect(out,
           "{\"job\":\"r1-1\",\"name\":\"one\",\"project\":\"p\",\"tier\":\"premium\","
           "\"phase\":\"running\"");
    expect(out, "\"name\":\"two\\\"\\n\"");
    assert_int_equal(orrery("ps -a --output=json"), EXIT_OK);
    assert_int_equal(strncmp(out, "[\n{", 3), 0);
    expect(out, "}\n]\n");
}

static void submit_command_sends_a_whole_spec(void **state)
{
    (void)state;
    assert_int_equal(orrery("submit --gpus 2..4 --world=8 -- sleep 1"), EXIT_OK);
    assert_string_equal(out, "r1-3\n");
    assert_int_equal(region.spec.gpus_min, 2);
    assert_int_equal(region.spec.gpus_max, 4);
    assert_int_equal(region.spec.world, 8);
    assert_int_equal(region.spec.command.n, 2);
    assert_int_equal(strlen(region.key), 32);
    assert_int_equal(orrery("submit --key k1 -o json -- true"), EXIT_OK);
    assert_string_equal(region.key, "k1");
    assert_string_equal(out, "{\"job\":\"r1-3\",\"existed\":false}\n");
}

static void submit_busy_is_retried_with_the_same_key(void **state)
{
    (void)state;
    region.busy = 2;
    assert_int_equal(orrery("submit -- true"), EXIT_OK);
    assert_int_equal(region.submits, 3);
    assert_true(region.has_one_key);
    region.busy = UINT32_MAX;
    assert_int_equal(orrery("submit --timeout 200ms -- true"), EXIT_REFUSED);
}

static void submit_bad_spec_sends_nothing(void **state)
{
    (void)state;
    assert_int_equal(orrery("submit"), EXIT_USAGE);
    expect(errors, "either a FILE or `-- program`");
    assert_int_equal(orrery("submit a.yaml -- true"), EXIT_USAGE);
    assert_int_equal(orrery("submit /nonexistent.yaml"), EXIT_USAGE);
    expect(errors, "/nonexistent.yaml: cannot be read");
    assert_int_equal(orrery("submit --world 0 -- true"), EXIT_USAGE);
    expect(errors, "world: expected a whole number 1..65536");
    assert_int_equal(orrery("submit --"), EXIT_USAGE);
    assert_int_equal(region.submits, 0);
}

static void run_shows_output_and_exits_as_the_job(void **state)
{
    (void)state;
    assert_int_equal(orrery("run -- sh"), 3);
    expect(out, "one\ntw");
    expect(errors, "orrery run: job r1-3\n");
    expect(errors, "orrery run: job r1-3 failed: exit 3");
    assert_int_equal(orrery("run --world 2 -- sh"), 3);
    expect(out, "[0] one\n[0] tw");
    expect(out, "[1] one\n");
}

static void wait_ends_with_the_job_or_its_time(void **state)
{
    (void)state;
    assert_int_equal(orrery("wait r1-3"), 3);
    assert_string_equal(out, "r1-3 failed: exit 3\n");
    assert_int_equal(orrery("wait r1-9"), EXIT_NONE);
    assert_int_equal(orrery("wait r1-1 --timeout 50ms"), EXIT_TIMEOUT);
    assert_int_equal(orrery("wait r1-3 -o jsonl"), 3);
    expect(out, "\"phase\":\"failed\"");
}

static void show_names_the_culprit(void **state)
{
    (void)state;
    assert_int_equal(orrery("show r1-3"), EXIT_OK);
    expect(out, "phase        failed\n");
    expect(out, "command      sh 'a b'\n");
    expect(out, "culprit      rank 0 on n1\n");
    expect(out, "boom\n");
    assert_int_equal(orrery("show r1-3 -o json"), EXIT_OK);
    expect(out, "\"spec\":{\"name\":\"three\"");
    expect(out, "\"command\":[\"sh\",\"a b\"]");
    expect(out, "\"device\":null");
    expect(out, "\"phase\":\"failed\"");
    assert_int_equal(orrery("show r1-9"), EXIT_NONE);
    expect(errors, "orrery show: no such job");
}

static void cancel_goes_on_after_a_failure(void **state)
{
    (void)state;
    assert_int_equal(orrery("cancel r1-9 r1-1"), EXIT_NONE);
    assert_int_equal(region.n_requests, 2);
    assert_int_equal(orrery("cancel r1-1"), EXIT_OK);
}

static void logs_are_read_to_the_end(void **state)
{
    (void)state;
    assert_int_equal(orrery("logs r1-3"), EXIT_OK);
    assert_string_equal(out, "one\ntw");
    assert_int_equal(orrery("logs -f r1-3"), EXIT_OK);
    assert_string_equal(out, "one\ntw");
    assert_int_equal(orrery("logs r1-2"), EXIT_OK);
    expect(errors, "is queued and has no output yet");
    assert_int_equal(orrery("logs r1-9"), EXIT_NONE);
}

static void logs_new_generation_is_read_from_its_start(void **state)
{
    struct orri_cli cli = {.endpoints = {{"ipc:///r1", ORR_OK}}, .n_endpoints = 1};
    struct orri_log log = {
        .stream = LOG_STDOUT, .out = tmpfile(), .generation = 1, .offset = 3};
    struct orr_error err;
    size_t bytes;
    (void)state;
    region.log_generation = 2;
    assert_int_equal(orri_logs_poll(&cli, "r1-3", &log, 1, false, &bytes, &err),
                     ORR_OK);
    assert_int_equal(bytes, 4);
    assert_int_equal(log.generation, 2);
    assert_int_equal(log.offset, 4);
    fclose(log.out);
    orri_cli_close(&cli);
}

static void tree_and_nodes_show_what_is_free(void **state)
{
    (void)state;
    assert_int_equal(orrery("tree"), EXIT_OK);
    expect(out, "r1");
    expect(out, "\n    n1  draining  1/2        H100  80GiB   7/8");
    assert_int_equal(orrery("node ls"), EXIT_OK);
    expect(out, "n1    c1       draining  1/2        H100");
    assert_int_equal(orrery("node ls -o jsonl"), EXIT_OK);
    expect(out, "\"state\":\"draining\"");
}

static void events_are_replayed_once(void **state)
{
    (void)state;
    assert_int_equal(orrery("events"), EXIT_OK);
    expect(out, "T1  job/r1-1          job.state      queued -> running\nT2");
    assert_int_equal(orrery("events -o jsonl"), EXIT_OK);
    size_t lines = 0;
    for (const char *p = out; *p; p++)
        lines += *p == '\n';
    assert_int_equal(lines, 3);
    assert_string_equal(region.path, "/edge/events");
}

static void events_followed_have_no_gap_and_no_copy(void **state)
{
    (void)state;
    region.grow_by = 4;
    region.interrupt_after = 15;
    assert_int_equal(orrery("events -f -o jsonl"), EXIT_INTERRUPTED);
    uint64_t expected = 0, seq;
    for (char *line = strtok(out, "\n"); line; line = strtok(NULL, "\n")) {
        assert_true(orri_json_u64(line, "seq", &seq));
        assert_int_equal(seq, ++expected);
    }
    assert_true(expected >= 11);
    assert_string_equal(errors, "");
}

static void events_that_are_gone_are_reported(void **state)
{
    (void)state;
    region.first_seq = 6;
    region.last_seq = 7;
    assert_int_equal(orrery("events --after 3"), EXIT_OK);
    expect(errors, "orrery events: compacted: 4..5 are no longer kept");
    assert_int_equal(orrery("events --after 3 -o jsonl"), EXIT_OK);
    expect(out, "{\"type\":\"compacted\",\"epoch\":4,\"first\":4,\"last\":5}\n");
    expect(out, "\"seq\":6,");
    expect(out, "\"seq\":7,");
    assert_string_equal(errors, "");
}

static void events_with_jobs_begin_with_a_snapshot(void **state)
{
    (void)state;
    region.grow_by = 1;
    region.interrupt_after = 4;
    assert_int_equal(orrery("events -f --jobs -o jsonl"), EXIT_INTERRUPTED);
    expect(out, "{\"type\":\"snapshot\",\"job\":\"r1-1\",");
    expect(out, "{\"type\":\"snapshot\",\"job\":\"r1-3\",");
    assert_null(strstr(out, "\"seq\":3,")); /* the snapshot has it */
    assert_true(strstr(out, "\"seq\":4,") > strstr(out, "\"job\":\"r1-3\""));
}

static void events_of_one_job_are_asked_for_by_topic(void **state)
{
    (void)state;
    assert_int_equal(orrery("events r1-1 -o jsonl"), EXIT_OK);
    assert_string_equal(region.topic, "job/r1-1/");
    assert_int_equal(orrery("events --after -3"), EXIT_USAGE);
    expect(errors, "--after: expected the seq of an event, got `-3`");
    region.is_away = true;
    assert_int_equal(orrery("events -f"), EXIT_UNREACH);
}

static void events_replay_starts_at_the_oldest_kept(void **state)
{
    (void)state;
    region.first_seq = 3;
    assert_int_equal(orrery("events -o jsonl"), EXIT_OK);
    expect(out, "\"seq\":3,");
    assert_string_equal(errors, ""); /* nothing was promised before */
}

static void age_and_bytes_read_well(void **state)
{
    char b[32];
    (void)state;
    assert_string_equal(orri_age(59999, b, sizeof b), "59s");
    assert_string_equal(orri_age(252000, b, sizeof b), "4m12s");
    assert_string_equal(orri_age(7500000, b, sizeof b), "2h05m");
    assert_string_equal(orri_age(788400000, b, sizeof b), "9d03h");
    assert_string_equal(orri_bytes(0, b, sizeof b), "0B");
    assert_string_equal(orri_bytes(1536, b, sizeof b), "1.5KiB");
    assert_string_equal(orri_bytes(UINT64_C(80) << 30, b, sizeof b), "80GiB");
}

/* The page names every verb and every option, so that none is added without it. */
static void documentation_names_every_verb_and_option(void **state)
{
    static const char *const options[] = {
#define X(id, name, letter, value, help) "--" name,
        ORRI_OPTIONS(X)
#undef X
    };
    char path[4096], *page, verb[32];
    size_t len;
    struct orr_error err;
    const char *root = getenv("ORR_SOURCE_DIR");
    (void)state;
    assert_non_null(root);
    snprintf(path, sizeof path, "%s/docs/cli.md", root);
    assert_int_equal(orr_yaml_load(path, &page, &len, &err), ORR_OK);
    for (size_t i = 0; i < ORR_ARRAY_SIZE(options); i++)
        expect(page, options[i]);
    assert_int_equal(orrery("help"), EXIT_OK);
    for (const char *at = out; (at = strstr(at, "\n  ")); at++) {
        if (sscanf(at, "\n  %30[a-z]", verb + 1) != 1)
            continue;
        verb[0] = '`';
        expect(page, verb);
    }
    free(page);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(main_bad_usage_is_code_2_with_remedy),
        TEST(main_help_and_version_need_no_region),
        TEST(region_that_is_away_is_code_3),
        TEST(region_name_leads_to_its_path),
        TEST(ps_pages_are_one_aligned_table),
        TEST(ps_json_has_names_for_enums),
        TEST(submit_command_sends_a_whole_spec),
        TEST(submit_busy_is_retried_with_the_same_key),
        TEST(submit_bad_spec_sends_nothing),
        TEST(run_shows_output_and_exits_as_the_job),
        TEST(wait_ends_with_the_job_or_its_time),
        TEST(show_names_the_culprit),
        TEST(cancel_goes_on_after_a_failure),
        TEST(logs_are_read_to_the_end),
        TEST(logs_new_generation_is_read_from_its_start),
        TEST(tree_and_nodes_show_what_is_free),
        TEST(events_are_replayed_once),
        TEST(events_followed_have_no_gap_and_no_copy),
        TEST(events_that_are_gone_are_reported),
        TEST(events_with_jobs_begin_with_a_snapshot),
        TEST(events_of_one_job_are_asked_for_by_topic),
        TEST(events_replay_starts_at_the_oldest_kept),
        TEST(age_and_bytes_read_well),
        TEST(documentation_names_every_verb_and_option),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
