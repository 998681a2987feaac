/* SPDX-License-Identifier: Apache-2.0
 * map.h - who of a communicator is where, and the tree of a reduction over them: pure.
 *
 * A *part* is what a device can combine by itself: with `ordered` each largest subtree of the binary tree of the communicator's
 * ranks (x[i] = x[i] op x[i + d] for d = 1, 2, 4, ...; i a multiple of 2d) whose ranks are all on one device; without it all
 * ranks of a device.  A *program* is a list of combinations, each of up to 8 values into the place of the first: over the values of
 * a part's ranks, or over the parts.  The bits of an ordered reduction depend on the number of ranks alone, since the parts'
 * programs and the program of the parts make up that one tree, wherever the ranks are.
 */
#ifndef ORRI_SPLICE_MAP_H
#define ORRI_SPLICE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ORRI_FAN = 8 }; /* values that one kernel combines */

struct orri_combine {
    int m;            /* 2 to ORRI_FAN */
    int in[ORRI_FAN]; /* numbers of values; the first receives the result */
};

struct orri_program {
    struct orri_combine *at; /* owned */
    int n;
};

struct orri_subtree {
    int device;
    int first,
        span; /* rank, and ranks of the subtree (a power of two, which may reach past the end) */
    int n;
    int *ranks;                  /* owned: n */
    struct orri_program program; /* over the values of ranks[] */
};

struct orri_map {
    int n, me;
    int ndevices, device; /* device: mine */
    int *device_of;       /* owned: of each rank; by their lowest rank, from 0 */
    int *local_of;        /* owned: the how manyth on its device */
    int *count;           /* owned: ranks of each device */
    int *leader;          /* owned: the lowest rank of each device */
    int *members;         /* owned: count[device] ranks of mine, ascending */
    int most;             /* ranks of the fullest device */
    bool is_ordered;
    struct orri_subtree *parts; /* owned; by their first rank */
    int nparts;
    struct orri_program top; /* over the parts */
};

/* place[r]: equal for ranks on one device.  False: out of memory. */
bool orri_map_init(
    struct orri_map *map, int n, int me, const uint64_t *place, bool is_ordered);
void orri_map_fini(struct orri_map *map);

/* The scratch of a device: offsets, the same on all devices of a communicator.  Two halves take turns. */
struct orri_layout {
    size_t bytes;
    size_t flags;               /* bytes at its beginning */
    size_t slot, result, inbox; /* bytes each */
    size_t half[2];       /* offsets: slots of all ranks, then result, then inbox */
    size_t mail, mail_at; /* bytes of one of a pair's two mailboxes; offset of all */
    int most, ndevices;
};
/* False: too small for so many ranks. */
bool orri_layout_init(struct orri_layout *l, const struct orri_map *map, size_t bytes);
size_t orri_layout_slot(const struct orri_layout *l, int half, int local);
size_t orri_layout_result(const struct orri_layout *l, int half);
size_t orri_layout_inbox(const struct orri_layout *l, int half);
size_t orri_layout_mail(const struct orri_layout *l, int from, int to, int half);

/* Words in the scratch, counters that only grow.  Each rank of the device that waits has a row of its own, so that it can be let go alone. */
size_t orri_flag_ready(const struct orri_layout *l,
                       int waiter,
                       int local); /* it has put its input into its slot */
size_t orri_flag_taken(const struct orri_layout *l,
                       int waiter,
                       int local); /* it has taken its output */
size_t orri_flag_done(const struct orri_layout *l,
                      int waiter); /* the leader has done its work */
size_t orri_flag_sent(const struct orri_layout *l, int from, int to); /* `to` waits */
size_t orri_flag_got(const struct orri_layout *l, int from, int to);  /* `from` waits */
/* Two words of 4 bytes, 0 while all is well: what this rank is given is not right any more; it has gone itself. */
size_t orri_flag_broken(const struct orri_layout *l, int local);
size_t orri_flag_left(const struct orri_layout *l, int local);
/* The leaders' two words, of each device, as they were at the end of an operation. */
size_t orri_flag_vote(const struct orri_layout *l, int device);

#endif
