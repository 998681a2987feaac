/* SPDX-License-Identifier: Apache-2.0
 * image_fixture.h - two nodes (process edges with a state directory each), and two ranks that talk to each other (image_rank.c).
 *
 * Teardown fails when a bridge or a cgroup is left behind.
 */
#ifndef ORR_IMAGE_FIXTURE_H
#define ORR_IMAGE_FIXTURE_H

#include "process_fixture.h"

#define SERVER "10.77.0.1/16"
#define CLIENT "10.77.0.2/16"
#define COUNT  "i=0; while :; do echo $i; i=$((i+1)); sleep 0.005; done"

struct two {
    struct fixture *a, *b;
    uint64_t overlay;
};

/* Of two generations. */
extern const struct orr_process_id server1, client1, server2, client2;

/* Why there is nothing to be tried here; NULL: there is. */
const char *image_why_skip(void);
/* As fixture_main; where why_skip says why not, that is said instead. */
int image_main(int argc,
               char **argv,
               const struct CMUnitTest *tests,
               size_t n,
               const char *(*why_skip)(void));
#define IMAGE_TEST(name)                                                               \
    cmocka_unit_test_setup_teardown(name, image_setup, image_teardown)
int image_setup(void **state);
int image_teardown(void **state);

struct orr_process_launch image_launch_of(struct two *t,
                                          struct orr_process_id id,
                                          const char *address,
                                          struct orr_rec_text *args, /* room for 16 */
                                          const char *const *argv);
/* Until it runs. */
struct told image_start(struct two *t,
                        struct fixture *f,
                        struct orr_process_id id,
                        const char *address,
                        const char *const *argv);
void image_restore(struct two *t, /* does not wait */
                   struct fixture *f,
                   struct orr_process_id id,
                   const char *address,
                   const char *dir);

/* server1 and client1. */
void image_start_pair(struct two *t, struct fixture *server, struct fixture *client);
void image_stop_pair(struct two *t);
/* They ended as they should, and printed the same. */
void image_check_ends(struct fixture *server,
                      struct orr_process_id server_id,
                      struct fixture *client,
                      struct orr_process_id client_id);

/* A path in the first node's state directory; four of them are kept. */
const char *image_dir(struct two *t, const char *name);
void image_ok(struct fixture *f,
              struct orr_process_id id,
              const char *dir,
              bool leave_running);
void image_freeze_ok(struct fixture *f, struct orr_process_id id, bool is_frozen);

char *image_read_log(struct fixture *f,
                     struct orr_process_id id,
                     const char *name); /* to be freed */
/* How many lines, which must be 0, 1, 2, ... */
unsigned long image_count_lines(const char *text);
/* Until that many more were printed than there were. */
unsigned long
image_wait_progress(struct fixture *f, struct orr_process_id id, unsigned long from);
bool image_makes_progress(struct fixture *f, struct orr_process_id id);

#endif
