/* SPDX-License-Identifier: Apache-2.0
 * table.h - pieces of the address space that do not overlap, sorted by address. A piece is the
 * first member of its owner's struct; the table owns only its array.
 */
#ifndef ORR_RANK_CUDA_TABLE_H
#define ORR_RANK_CUDA_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct orri_span {
    uint64_t at, bytes;
};

struct orri_table {
    struct orri_span **items; /* owned; the elements are borrowed: until removed */
    size_t n, cap;
};

/* The piece that holds address `at`; NULL if none does. */
struct orri_span *orri_table_find(const struct orri_table *t, uint64_t at);
/* Index of the first piece that ends after `at`. */
size_t orri_table_from(const struct orri_table *t, uint64_t at);
/* Room for one more, so that the next insert cannot fail. */
bool orri_table_make_room(struct orri_table *t);
void orri_table_insert(struct orri_table *t, struct orri_span *s);
void orri_table_remove(struct orri_table *t, const struct orri_span *s);

#endif
