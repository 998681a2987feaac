/* SPDX-License-Identifier: Apache-2.0
 * options.c - see options.h.
 */
#include "options.h"

#include "fail.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void print_help(const struct option_spec *specs, size_t n)
{
    printf("usage: %s [options]      one process a rank, with torchrun's variables\n",
           program_invocation_short_name);
    for (size_t i = 0; i < n; i++) {
        const struct option_spec *s = &specs[i];
        printf("  --%-14s %s", s->name, s->help);
        if (s->kind == OPTION_NUMBER)
            printf(" (%u)", *(uint32_t *)s->value);
        else if (s->kind == OPTION_LONG)
            printf(" (%llu)", (unsigned long long)*(uint64_t *)s->value);
        else if (s->kind == OPTION_REAL)
            printf(" (%g)", (double)*(float *)s->value);
        putchar('\n');
    }
}

static uint64_t number_of(const struct option_spec *s, const char *text)
{
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || n < s->min || n > s->max)
        usage_error("--%s %s: want a number from %llu to %llu",
                    s->name,
                    text,
                    (unsigned long long)s->min,
                    (unsigned long long)s->max);
    return n;
}

static void set(const struct option_spec *s, const char *text)
{
    char *end;
    switch (s->kind) {
    case OPTION_NUMBER:
        *(uint32_t *)s->value = (uint32_t)number_of(s, text);
        break;
    case OPTION_LONG:
        *(uint64_t *)s->value = number_of(s, text);
        break;
    case OPTION_REAL: {
        float x = strtof(text, &end);
        if (end == text || *end || !(x >= 0.0f && x <= 100.0f))
            usage_error("--%s %s: want a number from 0 to 100", s->name, text);
        *(float *)s->value = x;
        break;
    }
    case OPTION_PATH:
        if (snprintf(s->value, PATH_MAX, "%s", text) >= PATH_MAX)
            usage_error("--%s: too long a path", s->name);
        break;
    }
}

void options_parse(const struct option_spec *specs, size_t n, int argc, char **argv)
{
    enum { HELP = OPTIONS_MAX };
    struct option names[OPTIONS_MAX + 2] = {{0}};
    int id;
    assert(n <= OPTIONS_MAX);
    for (size_t i = 0; i < n; i++)
        names[i] = (struct option){specs[i].name, required_argument, NULL, (int)i};
    names[n] = (struct option){"help", no_argument, NULL, HELP};
    while ((id = getopt_long(argc, argv, "", names, NULL)) != -1) {
        if (id == '?')
            exit(EXIT_USAGE); /* getopt has said why */
        if (id == HELP) {
            print_help(specs, n);
            exit(0);
        }
        set(&specs[id], optarg);
    }
    if (optind < argc)
        usage_error("%s: not an option", argv[optind]);
}

void options_find_data(char path[PATH_MAX])
{
    char self[PATH_MAX];
    if (path[0] != '\0')
        return;
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = '\0';
    if (snprintf(path, PATH_MAX, "%s/../share/digits/digits.csv", self) >= PATH_MAX)
        usage_error("%s: too long a path: name the data with --data PATH", self);
}
