/* SPDX-License-Identifier: Apache-2.0
 * part.h - a part: the list of files and chunks that a put makes; its bytes, and their decoder.
 *
 * On disk, little endian: "ORPART1\n", u32 files, u32 0; for each file u16 length of its name, u16 kind,
 * u32 mode, u64 bytes, u64 chunks, the name; then for each of its chunks u64 offset, u32 length,
 * 32 bytes hash.  Chunks ascend and do not overlap; what lies between them is zero.  There is one
 * way to write a part down, so equal files make equal parts.
 */
#ifndef ORR_STORE_PART_H
#define ORR_STORE_PART_H

#include "store.h"

enum { ORR_PART_BYTES_MAX = 1 << 30 };

struct orr_part_chunk {
    uint64_t offset;
    uint32_t len;
    struct orr_store_hash hash;
};

struct orr_part_file {
    char name[ORR_STORE_NAME_MAX + 1];
    uint32_t kind; /* enum orr_store_kind */
    uint32_t mode; /* permission bits */
    uint64_t bytes;
    struct orr_part_chunk *chunks; /* owned */
    uint64_t n_chunks;
};

struct orr_part {
    struct orr_part_file *files; /* owned */
    uint32_t n_files;
};

/* A name that may stand in a part. */
bool orr_part_name_ok(const char *name, size_t len);

/* ret_bytes is the caller's, to free.  Errors: ORR_ENOMEM, ORR_ENOSPC larger than
 * ORR_PART_BYTES_MAX. */
ORR_NODISCARD enum orr_err
orr_part_encode(const struct orr_part *part, uint8_t **ret_bytes, size_t *ret_len);

/* Reserves nothing that the bytes seen do not justify.  Errors: ORR_EPROTO, ORR_ENOMEM. */
ORR_NODISCARD enum orr_err
orr_part_decode(const uint8_t *bytes, size_t len, struct orr_part *ret_part);

void orr_part_fini(struct orr_part *part);

#endif
