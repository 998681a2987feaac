/* SPDX-License-Identifier: Apache-2.0
 * test_cli_run.c - run a verb in this process (test_cli_run.h).
 */
#include "test_cli_run.h"

#include "cli_main.h"
#include "orr_test.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

char out[16384], errors[4096];

static void take_file(FILE *f, char *buf, size_t cap)
{
    rewind(f);
    buf[fread(buf, 1, cap - 1, f)] = '\0';
    fclose(f);
}

int orrery(const char *line)
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

void expect(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("got: %s\nwanted: %s", text, part);
}
