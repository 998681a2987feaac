/* SPDX-License-Identifier: Apache-2.0
 * test_cli.c - the verbs against a region made of one function: options, output, retries, exit codes.
 *
 * This file brings its own orr_client_*: a request is answered at once by `answer`, the answer waits for receive.
 */
#include "orr_test.h"

#include "orrery/client.h"
#include "orrery/job_spec.h"

#include <unistd.h>

#include "cli.h"
#include "cli_main.h"

/* ---- a region ---- */

struct orr_client {
    int unused;
};

static struct region {
    bool is_away;
    unsigned busy; /* submits to refuse first */
    unsigned submits;
    char key[64];
    bool has_one_key;
    char path[64]; /* of the last request */
    uint32_t log_phase;
    unsigned log_generation;
    struct orr_msg_job_spec spec; /* of the last submit; its texts are gone */
    struct {
        uint64_t corr;
        const struct orr_msg_desc *desc;
        void *msg;
    } queue[16];
    size_t n_queue;
    void *current; /* owned: what receive gave out */
    uint64_t next_corr;
} region;

static struct orr_client the_client;

enum orr_err orr_client_new(const char *endpoint,
                            uint64_t timeout_ms,
                            struct orr_client **ret_client,
                            struct orr_error *err)
{
    (void)timeout_ms;
    if (region.is_away)
        return orr_fail(err, ORR_EUNREACH, "%s: nobody there", endpoint);
    *ret_client = &the_client;
    return ORR_OK;
}

void orr_client_free(struct orr_client *client)
{
    (void)client;
}

const char *orr_client_host(const struct orr_client *client)
{
    (void)client;
    return "r1";
}

static void put(uint64_t corr, const struct orr_msg_desc *desc, const void *msg)
{
    ORR_ASSERT(region.n_queue < ORR_ARRAY_SIZE(region.queue));
    void *copy = malloc(orr_msg_size(desc, msg));
    ORR_ASSERT(copy);
    orr_msg_copy(desc, msg, copy);
    region.queue[region.n_queue].corr = corr;
    region.queue[region.n_queue].desc = desc;
    region.queue[region.n_queue++].msg = copy;
}

static void put_failed(uint64_t corr, enum orr_err code, const char *text)
{
    struct orr_msg_failed failed = {.code = code, .text = orr_str(text)};
    put(corr, orr_msg_desc_failed(), &failed);
}

static const struct orr_rec_job_row rows[] = {
    {.job = {"r1-1", 4},
     .name = {"one", 3},
     .project = {"p", 1},
     .phase = ORR_JOB_RUNNING,
     .world = 8,
     .gpus = 4,
     .cluster = {"c1", 2},
     .reason = {"", 0}},
    {.job = {"r1-2", 4},
     .name = {"two\"\n", 5},
     .project = {"p", 1},
     .phase = ORR_JOB_QUEUED,
     .world = 1,
     .cluster = {"", 0},
     .reason = {"no free devices", 15}},
    {.job = {"r1-3", 4},
     .name = {"three", 5},
     .project = {"p", 1},
     .phase = ORR_JOB_FAILED,
     .tier = ORR_TIER_BASIC,
     .world = 1,
     .exit_code = 3,
     .cluster = {"c1", 2},
     .reason = {"exit 3", 6}},
};

static void answer_detail(uint64_t corr, struct orr_str job)
{
    static uint8_t wire[512];
    size_t len = 0;
    const struct orr_rec_job_row *row = NULL;
    for (size_t i = 0; i < ORR_ARRAY_SIZE(rows); i++) {
        if (orr_str_eq(rows[i].job, job))
            row = &rows[i];
    }
    if (!row) {
        put_failed(corr, ORR_ENOENT, "no such job; `orrery ps -a` lists them");
        return;
    }
    struct orr_rec_text command[] = {{ORR_LIT("sh")}, {ORR_LIT("a b")}};
    struct orr_msg_job_spec spec = {
        .name = row->name, .command = {command, 2}, .world = 1};
    ORR_ASSERT(orr_msg_encode(
                   orr_msg_desc_job_spec(), &spec, wire, sizeof wire, &len) == ORR_OK);
    struct orr_rec_rank_place place = {0, ORR_LIT("n1"), ORR_NO_DEVICE, 0};
    struct orr_msg_job_detail detail = {.row = *row,
                                        .owner = ORR_LIT("me"),
                                        .spec = {wire, (uint32_t)len},
                                        .ranks = {&place, 1},
                                        .culprit =
                                            row->phase == ORR_JOB_FAILED ? 0 : -1,
                                        .culprit_node = ORR_LIT("n1"),
                                        .stderr_tail = ORR_LIT("boom")};
    put(corr, orr_msg_desc_job_detail(), &detail);
}

static void answer_submit(uint64_t corr, const struct orr_msg_job_submit *m)
{
    char key[64];
    orr_str_copy(key, sizeof key, m->key);
    region.has_one_key = region.submits == 0 || strcmp(key, region.key) == 0;
    orr_str_copy(region.key, sizeof region.key, m->key);
    uint64_t buf[256];
    ORR_ASSERT(
        orr_msg_decode(
            orr_msg_desc_job_spec(), m->spec.ptr, m->spec.len, buf, sizeof buf) ==
        ORR_OK);
    memcpy(&region.spec, buf, sizeof region.spec);
    if (region.submits++ < region.busy) {
        put_failed(corr, ORR_EBUSY, "busy");
        return;
    }
    struct orr_msg_job_submitted submitted = {.job = ORR_LIT("r1-3")};
    put(corr, orr_msg_desc_job_submitted(), &submitted);
}

static void answer_list(uint64_t corr, const struct orr_msg_job_list *m)
{
    bool is_first = m->after.len == 0;
    struct orr_msg_job_rows page = {
        .jobs = {is_first ? rows : rows + 2, is_first ? 2 : 1}, .more = is_first};
    put(corr, orr_msg_desc_job_rows(), &page);
}

/* Generation 1 has "one\ntw", generation 2 "new\n". */
static void answer_log(uint64_t corr, const struct orr_msg_log_read *m)
{
    const char *text = region.log_generation == 1 ? "one\ntw" : "new\n";
    size_t len = strlen(text), at = m->offset < len ? (size_t)m->offset : len;
    struct orr_msg_log_chunk chunk = {
        .generation = region.log_generation,
        .offset = at,
        .data = {(const uint8_t *)text + at, (uint32_t)(len - at)},
        .is_final = true};
    if (orr_str_eq(m->job, ORR_LIT("r1-2")))
        put_failed(corr, ORR_ESTATE, "not started");
    else
        put(corr, orr_msg_desc_log_chunk(), &chunk);
}

static void answer_tree(uint64_t corr)
{
    struct orr_rec_cluster_row cluster = {
        .cluster = ORR_LIT("c1"), .nodes = 1, .gpus = 2, .gpus_free = 1};
    struct orr_rec_node_row node = {.cluster = ORR_LIT("c1"),
                                    .node = ORR_LIT("n1"),
                                    .state = ORR_NODE_DRAINING,
                                    .gpus = 2,
                                    .gpus_free = 1,
                                    .gpu_type = ORR_LIT("H100"),
                                    .gpu_memory_bytes = UINT64_C(80) << 30,
                                    .slots = 8,
                                    .slots_free = 7};
    struct orr_msg_tree tree = {
        .region = ORR_LIT("r1"), .clusters = {&cluster, 1}, .nodes = {&node, 1}};
    put(corr, orr_msg_desc_tree(), &tree);
}

static void answer_events(uint64_t corr, const struct orr_msg_events_get *m)
{
    char text[512] = "";
    size_t len = 0;
    for (uint64_t seq = m->after + 1; seq <= 3; seq++)
        len += (size_t)snprintf(
            text + len,
            sizeof text - len,
            "{\"time\":\"T%d\",\"epoch\":4,\"seq\":%d,\"type\":\"job.state\","
            "\"subject\":\"job/"
            "r1-1\",\"from\":\"queued\",\"to\":\"running\",\"cause\":\"\"}\n",
            (int)seq,
            (int)seq);
    struct orr_msg_events events = {.epoch = 4,
                                    .first_seq = 1,
                                    .last_seq = 3,
                                    .jsonl = {(const uint8_t *)text, (uint32_t)len}};
    put(corr, orr_msg_desc_events(), &events);
}

static void answer(uint64_t corr, const struct orr_msg_desc *desc, const void *msg)
{
    struct orr_msg_region_info info = {.region = ORR_LIT("r1"),
                                       .events = ORR_LIT("ipc:///none"),
                                       .epoch = 4,
                                       .seq = 3};
    switch (desc->id) {
    case ORR_MSG_job_submit:
        answer_submit(corr, msg);
        break;
    case ORR_MSG_job_list:
        answer_list(corr, msg);
        break;
    case ORR_MSG_job_show:
        answer_detail(corr, ((const struct orr_msg_job_show *)msg)->job);
        break;
    case ORR_MSG_job_wait:
        if (!orr_str_eq(((const struct orr_msg_job_wait *)msg)->job, ORR_LIT("r1-1")))
            answer_detail(corr, ((const struct orr_msg_job_wait *)msg)->job);
        break; /* r1-1 does not end */
    case ORR_MSG_job_cancel:
        if (orr_str_eq(((const struct orr_msg_job_cancel *)msg)->job, ORR_LIT("r1-9")))
            put_failed(corr, ORR_ENOENT, "r1-9: no such job");
        else
            put(corr, orr_msg_desc_ack(), &(struct orr_msg_ack){0});
        break;
    case ORR_MSG_log_read:
        answer_log(corr, msg);
        break;
    case ORR_MSG_tree_get:
        answer_tree(corr);
        break;
    case ORR_MSG_region_info_get:
        put(corr, orr_msg_desc_region_info(), &info);
        break;
    case ORR_MSG_events_get:
        answer_events(corr, msg);
        break;
    default:
        put_failed(corr, ORR_ENOSYS, "no such request");
    }
}

enum orr_err orr_client_send(struct orr_client *client,
                             const char *path,
                             const struct orr_msg_desc *desc,
                             const void *msg,
                             uint64_t timeout_ms,
                             uint64_t *ret_corr,
                             struct orr_error *err)
{
    (void)client;
    (void)timeout_ms;
    (void)err;
    snprintf(region.path, sizeof region.path, "%s", path);
    *ret_corr = ++region.next_corr;
    answer(*ret_corr, desc, msg);
    return ORR_OK;
}

enum orr_err orr_client_receive(struct orr_client *client,
                                uint64_t timeout_ms,
                                struct orr_answer *ret_answer,
                                struct orr_error *err)
{
    (void)client;
    free(region.current);
    region.current = NULL;
    if (region.n_queue == 0) {
        usleep((useconds_t)(timeout_ms < 20 ? timeout_ms : 20) * 1000);
        return orr_fail(err, ORR_ETIMEOUT, "no answer");
    }
    region.current = region.queue[0].msg;
    *ret_answer =
        (struct orr_answer){region.queue[0].desc, region.current, region.queue[0].corr};
    memmove(region.queue, region.queue + 1, --region.n_queue * sizeof region.queue[0]);
    return ORR_OK;
}

/* ---- running a verb ---- */

static char out[16384], errors[4096];

static void take_file(FILE *f, char *buf, size_t cap)
{
    rewind(f);
    buf[fread(buf, 1, cap - 1, f)] = '\0';
    fclose(f);
}

/* Words separated by blanks; the exit code. */
static int orrery(const char *line)
{
    static char words[1024];
    char *argv[32] = {"orrery"};
    int argc = 1;
    snprintf(words, sizeof words, "%s", line);
    for (char *w = strtok(words, " "); w; w = strtok(NULL, " "))
        argv[argc++] = w;
    FILE *out_file = tmpfile(), *err_file = tmpfile();
    assert_non_null(out_file);
    assert_non_null(err_file);
    fflush(stdout);
    fflush(stderr);
    int old_out = dup(1), old_err = dup(2);
    dup2(fileno(out_file), 1);
    dup2(fileno(err_file), 2);
    int code = orr_cli_main(argc, argv);
    fflush(stdout);
    fflush(stderr);
    dup2(old_out, 1);
    dup2(old_err, 2);
    close(old_out);
    close(old_err);
    take_file(out_file, out, sizeof out);
    take_file(err_file, errors, sizeof errors);
    return code;
}

static void expect(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("got: %s\nwanted: %s", text, part);
}

static int setup(void **state)
{
    (void)state;
    region = (struct region){.log_generation = 1};
    setenv("ORRERY_REGION", "ipc:///r1", 1);
    unsetenv("ORRERY_STATE");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < region.n_queue; i++)
        free(region.queue[i].msg);
    free(region.current);
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
    assert_string_equal(out, "r1-3 failed 3 exit 3\n");
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
    expect(out, "\"phase\":\"failed\"");
    assert_int_equal(orrery("show r1-9"), EXIT_NONE);
    expect(errors, "orrery show: no such job");
}

static void cancel_goes_on_after_a_failure(void **state)
{
    (void)state;
    assert_int_equal(orrery("cancel r1-9 r1-1"), EXIT_NONE);
    assert_int_equal(region.next_corr, 2);
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
    struct orri_cli cli = {.endpoint = "ipc:///r1"};
    struct orri_log log = {.stream = LOG_STDOUT, .generation = 1, .offset = 3};
    struct orr_error err;
    size_t bytes;
    (void)state;
    region.log_generation = 2;
    assert_int_equal(orri_logs_poll(&cli, "r1-3", &log, 1, false, &bytes, &err),
                     ORR_OK);
    assert_int_equal(bytes, 4);
    assert_int_equal(log.generation, 2);
    assert_int_equal(log.offset, 4);
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
    expect(out, "T1  job/r1-1              job.state     queued -> running\nT2");
    assert_int_equal(orrery("events -o jsonl"), EXIT_OK);
    size_t lines = 0;
    for (const char *p = out; *p; p++)
        lines += *p == '\n';
    assert_int_equal(lines, 3);
    assert_string_equal(region.path, "/edge/events");
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
        TEST(age_and_bytes_read_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
