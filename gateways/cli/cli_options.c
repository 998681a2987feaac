/* SPDX-License-Identifier: Apache-2.0
 * cli_options.c - the command line of a verb: options anywhere, arguments in between, a
 * program after `--`.
 *
 * Not getopt: it cannot tell `submit FILE -- program` from `submit -- FILE program`,
 * and its messages suggest nothing.
 */
#include "cli.h"

#include "orrery/yaml.h"

struct option {
    const char *name;
    char letter;
    const char *value; /* NULL: a flag */
    const char *help;
};

static const struct option options[OPT_MAX_] = {
#define X(id, name, letter, value, help) [OPT_##id] = {name, letter, value, help},
    ORRI_OPTIONS(X)
#undef X
};

static const unsigned common =
    OPT(HELP) | OPT(OUTPUT) | OPT(REGION) | OPT(REGION_NAME) | OPT(TIMEOUT);

static bool is_accepted(const struct orri_cli *cli, unsigned id)
{
    return ((cli->verb->options | common) & (1u << id)) != 0;
}

/* "--name", "--name=value" or "-n"; *ret_value: what follows '=', or NULL. */
static unsigned
find_option(const struct orri_cli *cli, const char *arg, const char **ret_value)
{
    const char *equals = strchr(arg, '=');
    size_t len = equals ? (size_t)(equals - arg) : strlen(arg);
    *ret_value = equals ? equals + 1 : NULL;
    for (unsigned i = 0; i < OPT_MAX_; i++) {
        const struct option *o = &options[i];
        bool is_long = arg[1] == '-' && strlen(o->name) == len - 2 &&
                       memcmp(o->name, arg + 2, len - 2) == 0;
        bool is_short = arg[1] != '-' && len == 2 && o->letter == arg[1];
        if ((is_long || is_short) && is_accepted(cli, i))
            return i;
    }
    return OPT_MAX_;
}

static enum orr_err
unknown_option(const struct orri_cli *cli, const char *arg, struct orr_error *err)
{
    struct orr_closest best = {0};
    for (unsigned i = 0; i < OPT_MAX_; i++) {
        if (is_accepted(cli, i) && arg[1] == '-')
            orr_closest_try(&best, arg + 2, options[i].name);
    }
    if (best.word[0])
        return orr_fail(err,
                        ORR_EINVAL,
                        "%.64s: unknown option; did you mean `--%s`?",
                        arg,
                        best.word);
    return orr_fail(err,
                    ORR_EINVAL,
                    "%.64s: unknown option; `orrery help %s` lists them",
                    arg,
                    cli->verb->name);
}

static enum orr_err check_format(struct orri_cli *cli, struct orr_error *err)
{
    static const char *const names[] = {"table", "json", "jsonl"};
    const char *wanted = cli->value[OPT_OUTPUT];
    if (!wanted)
        return ORR_OK;
    for (unsigned i = 0; i < ORR_ARRAY_SIZE(names); i++) {
        if (strcmp(wanted, names[i]) == 0) {
            cli->format = (enum orri_format)i;
            return ORR_OK;
        }
    }
    return orr_fail(err,
                    ORR_EINVAL,
                    "--output: expected table, json or jsonl, got `%.32s`",
                    wanted);
}

static enum orr_err check_counts(const struct orri_cli *cli, struct orr_error *err)
{
    const struct orri_verb *v = cli->verb;
    bool is_few = cli->n_args < v->args_min && !cli->command;
    if (cli->command && !v->takes_command)
        return orr_fail(err, ORR_EINVAL, "no program is expected after `--`");
    if (cli->command && cli->n_command == 0)
        return orr_fail(err, ORR_EINVAL, "no program after `--`; give its name");
    if (is_few || cli->n_args > v->args_max)
        return orr_fail(err,
                        ORR_EINVAL,
                        "%s; usage: orrery %s %s",
                        is_few ? "an argument is missing" : "too many arguments",
                        v->name,
                        v->usage);
    return ORR_OK;
}

/* One option at argv[*io]; moves *io to the last word that belongs to it. */
static enum orr_err
take_option(struct orri_cli *cli, int argc, char **argv, int *io, struct orr_error *err)
{
    const char *arg = argv[*io], *value;
    unsigned id = find_option(cli, arg, &value);
    if (id == OPT_MAX_)
        return unknown_option(cli, arg, err);
    if (!options[id].value && value)
        return orr_fail(err, ORR_EINVAL, "--%s takes no value", options[id].name);
    if (options[id].value && !value) {
        if (*io + 1 == argc)
            return orr_fail(err,
                            ORR_EINVAL,
                            "--%s needs a value: %s",
                            options[id].name,
                            options[id].help);
        value = argv[++*io];
    }
    cli->value[id] = value ? value : "";
    return ORR_OK;
}

enum orr_err
orri_cli_parse(struct orri_cli *cli, int argc, char **argv, struct orr_error *err)
{
    cli->args = argv + 1; /* arguments move to the front, over what was read */
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--") == 0) {
            cli->command = argv + i + 1;
            cli->n_command = argc - i - 1;
            break;
        }
        if (argv[i][0] != '-' || argv[i][1] == '\0') {
            cli->args[cli->n_args++] = argv[i];
            continue;
        }
        enum orr_err rc = take_option(cli, argc, argv, &i, err);
        if (rc != ORR_OK)
            return rc;
    }
    if (cli->value[OPT_HELP])
        return ORR_OK;
    enum orr_err rc = check_format(cli, err);
    return rc == ORR_OK ? check_counts(cli, err) : rc;
}

enum orr_err orri_cli_duration(const struct orri_cli *cli,
                               uint64_t default_ms,
                               uint64_t *ret_ms,
                               struct orr_error *err)
{
    static const struct orr_yaml_field field = {.path = "--timeout",
                                                .type = ORR_YAML_DURATION,
                                                .min = 1,
                                                .max = INT64_C(2592000000),
                                                .def = ""};
    static const struct orr_yaml_table table = {&field, 1, sizeof(uint64_t)};
    struct orr_yaml *yaml;
    uint64_t ms;
    if (!cli->value[OPT_TIMEOUT]) {
        *ret_ms = default_ms;
        return ORR_OK;
    }
    enum orr_err rc = orr_yaml_defaults(&table, "command line", &ms, &yaml, err);
    if (rc != ORR_OK)
        return rc;
    rc = orr_yaml_set(yaml, "--timeout", cli->value[OPT_TIMEOUT], &ms, err);
    orr_yaml_free(yaml);
    if (rc == ORR_OK)
        *ret_ms = ms;
    return rc;
}

void orri_cli_print_options(FILE *out, unsigned mask)
{
    for (unsigned i = 0; i < OPT_MAX_; i++) {
        const struct option *o = &options[i];
        char left[40];
        if (((mask | common) & (1u << i)) == 0)
            continue;
        snprintf(left,
                 sizeof left,
                 "--%s%s%s",
                 o->name,
                 o->value ? " " : "",
                 o->value ? o->value : "");
        if (o->letter)
            fprintf(out, "  -%c, %-22s %s\n", o->letter, left, o->help);
        else
            fprintf(out, "      %-22s %s\n", left, o->help);
    }
}
