/* SPDX-License-Identifier: Apache-2.0
 * process_fixture.h - a process edge on a state directory of its own, and what its sink
 * was told.
 *
 * A program that uses it must have fixture_main as its main, or begin with fixture_dispatch: it is also the spawner of the edge.
 */
#ifndef ORR_PROCESS_FIXTURE_H
#define ORR_PROCESS_FIXTURE_H

#include <pthread.h>

#include "orr_test.h"

#include "process_linux.h"

enum { FIXTURE_RANKS_MAX = 1024, FIXTURE_DONE_MAX = 1024 };

struct told { /* the last that was told of a rank */
    char job[ORR_JOB_ID_MAX];
    uint64_t generation;
    uint32_t rank, state, pid, device, signal, level;
    int64_t exit_code;
    bool is_frozen, is_told;
    uint64_t cut;
    uint32_t cut_step;
    char reason[300];
    char why[300];
    char tail[ORR_TAIL_MAX + 1];
};

struct finished { /* a freeze or an image */
    bool is_done;
    enum orr_err code;
    char text[300];
    uint64_t bytes, took_ms, paused_ms;
};

struct fixture {
    char dir[64];
    struct orr_process_linux_config config;
    struct orr_process *process;
    struct orr_error err;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct told told[FIXTURE_RANKS_MAX];
    uint32_t n_told;
    struct finished finished[FIXTURE_DONE_MAX]; /* by tag */
    uint64_t n_tags;
    bool is_able, has_ability;
    char ability[300];
    int n_found;    /* times `found` was called */
    int n_refusals; /* that the sink still answers with EBUSY */
};

/* True when the program was started as a spawner; *ret_exit is its status. */
int fixture_dispatch(int argc, char **argv, int *ret_exit);

/* All tests, or those of the pattern in argv[1]. */
int fixture_main(int argc, char **argv, const struct CMUnitTest *tests, size_t n);
#define FIXTURE_TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int fixture_setup(void **state); /* makes the directory and opens */
int fixture_teardown(
    void **state); /* closes, kills what is left and removes the directory */
void fixture_open(struct fixture *f);
void fixture_close(struct fixture *f);
void fixture_attach(struct fixture *f);

/* sh -c script as rank 0 of generation 1 */
enum orr_err fixture_sh(struct fixture *f, const char *job, const char *script);
enum orr_err fixture_signal(struct fixture *f, const char *job, uint32_t signal);
enum orr_err fixture_launch(struct fixture *f,
                            struct orr_process_id id,
                            const char *workdir,
                            const char *const *argv);

/* Wait until that rank (generation 1, rank 0) was told to be in the state; fails the
 * test after 20 s. */
struct told fixture_wait(struct fixture *f, const char *job, uint32_t state);
struct told
fixture_wait_id(struct fixture *f, struct orr_process_id id, uint32_t state);

/* Ask, and wait until it is done; of a refusal at once only code and text are set. */
struct finished
fixture_freeze(struct fixture *f, struct orr_process_id id, bool is_frozen);
struct finished fixture_image(struct fixture *f,
                              struct orr_process_id id,
                              const char *dir,
                              bool leave_running);
/* The parts: ask, and wait for that tag. */
enum orr_err fixture_image_begin(struct fixture *f,
                                 struct orr_process_id id,
                                 const char *dir,
                                 bool leave_running,
                                 uint64_t *ret_tag);
struct finished fixture_finish(struct fixture *f, uint64_t tag);
/* Wait until it is known whether images work here. */
bool fixture_ability(struct fixture *f);

/* All that was told so far, after `found` was; how many. */
uint32_t fixture_found(struct fixture *f, struct told all[FIXTURE_RANKS_MAX]);

/* The log of rank 0, generation 1. */
const char *fixture_log(struct fixture *f, const char *job, uint32_t stream);
/* Wait until the log has that text. */
void fixture_wait_log(struct fixture *f, const char *job, const char *text);
void fixture_wait_gone(pid_t pid); /* dead, or a zombie that waits for its parent */
pid_t fixture_parent(pid_t pid);
pid_t fixture_spawner(
    void); /* child of this process called orrery-spawner; waits for it */

#endif
