/* SPDX-License-Identifier: Apache-2.0
 * replay.c - run every file of a corpus folder, each truncation of it, and each single
 * flipped byte through the fuzz target. Usage: fuzz_x_corpus DIR. Fails when DIR has no
 * file: a corpus that vanished must not look like a pass.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { INPUT_BYTES_MAX = 1 << 16, MUTATED_BYTES_MAX = 2048 };

/* An exact-size copy: the sanitizer sees the first byte read past the end. */
static void run_exact(const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    if (!copy)
        abort();
    memcpy(copy, data, len);
    LLVMFuzzerTestOneInput(copy, len);
    free(copy);
}

static void run_file(const char *path)
{
    static uint8_t data[INPUT_BYTES_MAX];
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        exit(1);
    }
    size_t len = fread(data, 1, sizeof data, f);
    fclose(f);
    run_exact(data, len);
    size_t mutated = len < MUTATED_BYTES_MAX ? len : MUTATED_BYTES_MAX;
    for (size_t n = 0; n < mutated; n++)
        run_exact(data, n);
    for (size_t i = 0; i < mutated; i++) {
        data[i] ^= 0xff;
        run_exact(data, len);
        data[i] ^= 0xff;
    }
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s CORPUS_DIR\n", argv[0]);
        return 2;
    }
    DIR *dir = opendir(argv[1]);
    if (!dir) {
        perror(argv[1]);
        return 1;
    }
    size_t n_files = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        char path[4096];
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", argv[1], e->d_name);
        run_file(path);
        n_files++;
    }
    closedir(dir);
    printf("%zu corpus files replayed\n", n_files);
    return n_files == 0;
}
