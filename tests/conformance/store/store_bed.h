/* SPDX-License-Identifier: Apache-2.0
 * store_bed.h - a private directory, content, and processes that die in the store.
 */
#ifndef ORR_STORE_BED_H
#define ORR_STORE_BED_H

#include "orr_test.h"

#include "store_impl.h"

enum { MIB = 1 << 20 };

struct bed {
    char dir
        [64]; /* in memory where there is /dev/shm: kill -9 leaves the same there as on a disk */
    char store[96]; /* path of the store */
};

void bed_init(struct bed *bed);
void bed_fini(struct bed *bed);
struct orr_store *bed_open(const struct bed *bed, unsigned threads);

/* DIR/NAME with len bytes that no other seed has. */
void bed_write(const struct bed *bed, const char *name, size_t len, uint64_t seed);
/* Does DIR/NAME hold that? */
bool bed_has(const struct bed *bed, const char *name, size_t len, uint64_t seed);
const char *bed_path(const struct bed *bed, const char *name);

/* Put DIR/NAME; its error. */
enum orr_err bed_put(struct orr_store *s,
                     const struct bed *bed,
                     const char *name,
                     enum orr_store_kind kind,
                     struct orr_store_hash *ret_part);

/* Everything in chunks/, packs/ and parts/ becomes a day old. */
void bed_age(const struct bed *bed);
/* How many files are below DIR's store/NAME. */
unsigned bed_count(const struct bed *bed, const char *name);

/* Run work in a child in which the nth call that changes the directory is fatal (SIGKILL just before it).
 * True: it was killed; false: it came to its end, with exit status *ret_status. */
bool bed_kill_at(unsigned nth, int (*work)(void *arg), void *arg, int *ret_status);
/* In this process: the nth call fails with that errno. 0: none. */
void bed_fail_at(unsigned nth, int why);
/* Has it been reached? */
bool bed_has_failed(void);

#endif
