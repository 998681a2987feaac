/* SPDX-License-Identifier: Apache-2.0
 * cli_main.c - the table of verbs, help, and the way from argv to a verb and back to an
 * exit code.
 */
#include "cli_main.h"
#include "cli.h"

#include "orrery/config.h"
#include "orrery/job_spec.h"

static int verb_version(struct orri_cli *cli);
static int verb_help(struct orri_cli *cli);

#define SPEC_OPTIONS                                                                   \
    OPT(KEY) | OPT(GPUS) | OPT(WORLD) | OPT(NAME) | OPT(PROJECT) | OPT(TIER) |         \
        OPT(WORKDIR)

/* clang-format off */
static const struct orri_verb verbs[] = {
    {"submit", orri_verb_submit, "FILE | [options] -- PROGRAM [ARGUMENT...]", "submit a job and print its id", SPEC_OPTIONS, 0, 1, true},
    {"run", orri_verb_run, "FILE | [options] -- PROGRAM [ARGUMENT...]", "submit a job, show its output, exit as it does", SPEC_OPTIONS, 0, 1, true},
    {"ps", orri_verb_ps, "", "list jobs that have not ended; -a: all", OPT(ALL) | OPT(FRESH) | OPT(VERBOSE), 0, 0, false},
    {"show", orri_verb_show, "JOB", "everything about one job", 0, 1, 1, false},
    {"logs", orri_verb_logs, "JOB", "what a rank wrote; -f: go on until it ends", OPT(FOLLOW) | OPT(RANK) | OPT(STDERR), 1, 1, false},
    {"events", orri_verb_events, "[JOB]", "every change of state, or those of a job; -f: as they happen", OPT(FOLLOW) | OPT(AFTER) | OPT(JOBS), 0, 1, false},
    {"cancel", orri_verb_cancel, "JOB...", "end jobs", OPT(WHY), 1, 10000, false},
    {"suspend", orri_verb_suspend, "JOB", "free a job's devices, keep its work", OPT(WHY) | OPT(NO_WAIT), 1, 1, false},
    {"resume", orri_verb_resume, "JOB", "a suspended job goes on where it stopped", OPT(NO_WAIT), 1, 1, false},
    {"checkpoint", orri_verb_checkpoint, "JOB | ls [JOB] | show JOB [NUMBER] | verify JOB [NUMBER] | rm JOB NUMBER", "save a job while it runs; list, show, verify, remove what was saved", 0, 1, 3, false},
    {"resize", orri_verb_resize, "JOB DEVICES", "a running job goes on on another number of devices, without losing a step", OPT(NO_WAIT), 2, 2, false},
    {"migrate", orri_verb_migrate, "JOB --to WHERE", "a job goes on elsewhere, without losing a step", OPT(TO) | OPT(GONE) | OPT(NO_WAIT), 1, 1, false},
    {"drain", orri_verb_drain, "NODE", "migrate all jobs off a node and place nothing there; --undo: it takes jobs again", OPT(UNDO) | OPT(NO_WAIT), 1, 1, false},
    {"wait", orri_verb_wait, "JOB...", "wait until jobs have ended, exit as the first that failed", 0, 1, 10000, false},
    {"tree", orri_verb_tree, "", "the region with its clusters and nodes", 0, 0, 0, false},
    {"top", orri_verb_top, "", "region, clusters, nodes and jobs, live", OPT(ONCE) | OPT(VERBOSE), 0, 0, false},
    {"node", orri_verb_node, "ls", "list nodes", 0, 1, 1, false},
    {"doctor", orri_verb_doctor, "", "is the region well, and what is to be done if not", 0, 0, 0, false},
    {"region", orri_verb_region, "ls | add HOST | remove HOST | move [HOST]", "the hosts of the region: list, add or remove one, hand over the lead", OPT(ADDRESS) | OPT(ENDPOINT), 1, 2, false},
    {"explain", orri_verb_explain, "[FIELD]", "explain the fields of a job spec", OPT(SCHEMA) | OPT(MARKDOWN) | OPT(HOST), 0, 1, false},
    {"version", verb_version, "", "print the version", 0, 0, 0, false},
    {"help", verb_help, "[VERB]", "this list, or one verb", 0, 0, 1, false},
    {"host", NULL, "--config FILE", "run the actors of this machine (a daemon)", 0, 0, 0, false},
    {"dev", NULL, "up|status|down --state DIR", "a whole fleet on this machine", 0, 0, 0, false},
    {"sim", NULL, "--seed N --faults all", "a whole fleet in virtual time, with faults; --help: more", 0, 0, 0, false},
};
/* clang-format on */

const struct orri_verb *orri_verb_find(const char *name,
                                       struct orr_closest *ret_closest)
{
    for (size_t i = 0; i < ORR_ARRAY_SIZE(verbs); i++) {
        if (strcmp(verbs[i].name, name) == 0)
            return &verbs[i];
        orr_closest_try(ret_closest, name, verbs[i].name);
    }
    return NULL;
}

static void print_verbs(FILE *out)
{
    fputs("usage: orrery VERB [options] [arguments]\n\n", out);
    for (size_t i = 0; i < ORR_ARRAY_SIZE(verbs); i++)
        fprintf(out, "  %-10s %s\n", verbs[i].name, verbs[i].help);
    fputs("\nThe region: ORRERY_STATE=DIR (of `orrery dev up`), or ORRERY_REGION or "
          "--region with the endpoints of its hosts.\n`orrery help VERB` explains one. "
          "Exit codes: "
          "docs/cli.md.\n",
          out);
}

static int print_verb(const struct orri_verb *verb)
{
    printf("usage: orrery %s %s\n%s\n", verb->name, verb->usage, verb->help);
    if (verb->run) {
        fputs("\noptions:\n", stdout);
        orri_cli_print_options(stdout, verb->options);
    }
    return EXIT_OK;
}

static int unknown_verb(const char *name)
{
    struct orr_closest best = {0};
    (void)orri_verb_find(name, &best);
    if (best.word[0])
        fprintf(stderr,
                "orrery: %.64s: unknown verb; did you mean `%s`?\n",
                name,
                best.word);
    else
        fprintf(
            stderr, "orrery: %.64s: unknown verb; `orrery help` lists them\n", name);
    return EXIT_USAGE;
}

static int verb_help(struct orri_cli *cli)
{
    struct orr_closest best = {0};
    if (cli->n_args == 0) {
        print_verbs(stdout);
        return EXIT_OK;
    }
    const struct orri_verb *verb = orri_verb_find(cli->args[0], &best);
    return verb ? print_verb(verb) : unknown_verb(cli->args[0]);
}

static int verb_version(struct orri_cli *cli)
{
    if (cli->format == FORMAT_TABLE)
        printf("orrery %s (protocol %d)\n", ORR_VERSION, (int)ORR_PROTOCOL_VERSION);
    else
        printf("{\"version\":\"%s\",\"protocol\":%d}\n",
               ORR_VERSION,
               (int)ORR_PROTOCOL_VERSION);
    return EXIT_OK;
}

int orri_verb_explain(struct orri_cli *cli)
{
    struct orr_error err;
    bool is_host = cli->value[OPT_HOST] != NULL;
    const struct orr_yaml_table *table =
        is_host ? orr_host_config_table() : orr_job_spec_table();
    if (cli->value[OPT_SCHEMA]) {
        orr_yaml_print_schema(
            table, is_host ? "Orrery host configuration" : "Orrery job spec", stdout);
        return EXIT_OK;
    }
    if (cli->value[OPT_MARKDOWN]) {
        orr_yaml_print_markdown(table, stdout);
        return EXIT_OK;
    }
    const char *path = cli->n_args ? cli->args[0] : NULL;
    if (orr_yaml_explain(table, path, stdout, &err) != ORR_OK)
        return orri_cli_fail(cli, &err);
    return EXIT_OK;
}

/* Output that could not be written is a failure, whatever the verb thought. */
static int close_output(const struct orri_cli *cli, int code)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return code;
    fprintf(stderr, "orrery %s: the output cannot be written\n", cli->verb->name);
    return code == EXIT_OK ? EXIT_OTHER : code;
}

static int run_verb(const struct orri_verb *verb, int argc, char **argv)
{
    struct orr_error err;
    struct orri_cli cli = {.verb = verb};
    if (!verb->run) {
        fprintf(stderr, "orrery: %s is not part of this program\n", verb->name);
        return EXIT_USAGE;
    }
    if (orri_cli_parse(&cli, argc, argv, &err) != ORR_OK)
        return orri_cli_fail(&cli, &err);
    int code = cli.value[OPT_HELP] ? print_verb(verb) : verb->run(&cli);
    orri_cli_close(&cli);
    return close_output(&cli, code);
}

int orr_cli_main(int argc, char **argv)
{
    struct orr_closest ignored = {0};
    const char *name = argc > 1 ? argv[1] : "";
    if (argc < 2) {
        print_verbs(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = "help";
    else if (strcmp(name, "--version") == 0)
        name = "version";
    const struct orri_verb *verb = orri_verb_find(name, &ignored);
    if (!verb)
        return unknown_verb(name);
    orri_cli_catch_signals();
    return run_verb(verb, argc - 1, argv + 1);
}
