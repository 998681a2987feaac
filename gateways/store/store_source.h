/* SPDX-License-Identifier: Apache-2.0
 * store_source.h - the files of a put, handed out piece by piece to the threads of its team.
 */
#ifndef ORR_STORE_SOURCE_H
#define ORR_STORE_SOURCE_H

#include "store_impl.h"

struct orri_source_file {
    const struct orr_store_file *what; /* borrowed */
    int fd;                            /* owned */
    uint64_t bytes;
    uint32_t mode;
    struct orr_store_range whole; /* the range of a file that has none */
    const struct orr_store_range *ranges;
    size_t n_ranges;
};

struct orri_source {
    struct orri_source_file *files; /* owned */
    size_t n_files;
    uint64_t logical_bytes;
    pthread_mutex_t lock; /* guards all below */
    size_t file, range;   /* where the next piece comes from */
    uint64_t at;          /* offset in the file */
    bool is_begun;        /* at is within the range */
    uint8_t *ahead;       /* owned: what was read of an image from `at` on */
    size_t ahead_from, ahead_len;
};

/* A chunk-to-be; len 0: nothing is left. */
struct orri_piece {
    size_t file;
    uint64_t offset;
    size_t len;
};

/* Errors: ORR_EINVAL, ORR_ENOENT, ORR_EIO, ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orri_source_open(struct orri_source *src,
                                            const struct orr_store_file *files,
                                            size_t n_files,
                                            struct orr_error *err);
void orri_source_close(struct orri_source *src);

/* Take the next piece and read it into content[ORR_STORE_CHUNK_MAX]; it may be all zero. Any
 * thread. */
ORR_NODISCARD enum orr_err orri_source_next(struct orri_source *src,
                                            struct orr_store_op *op,
                                            uint8_t *content,
                                            struct orri_piece *ret_piece,
                                            struct orr_error *err);

#endif
