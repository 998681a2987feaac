/* SPDX-License-Identifier: Apache-2.0
 * rank_files.h - what a rank's directory says: who it is, that it runs, how it ended.
 *
 *   <state>/ranks/<job>.<generation>.<rank>/meta     written by the keeper when the
 * rank has started status   written when it has ended, or never started stdout, stderr
 *   env, frozen, imaging, lazy, stop, told: what was made for it, and what is being done to it (below)
 *   <state>/logs/<same>/                             the same directory after forget,
 * until it ages out
 *
 * meta and status are lines key=value, written beside and renamed: whole or absent.
 * After a loss of power a file can be empty or cut; the parser is strict and calls that
 * torn.  Nothing is synced to disk: a rank never survives its machine. A keeper holds
 * an exclusive flock on the directory for its whole life, so "is the keeper alive?"
 * needs no pid.
 */
#ifndef ORR_RANK_FILES_H
#define ORR_RANK_FILES_H

#include <sys/types.h>

#include "cgroup.h"
#include "overlay.h"
#include "process.h"

enum {
    ORRI_KEY_MAX = ORR_JOB_ID_MAX + 32, /* "<job>.<generation>.<rank>" with its NUL */
    ORRI_BOOT_MAX = 40,
    ORRI_REASON_MAX = 256,
    ORRI_ADDRESS_MAX = 64,
    ORRI_RANK_NAME_MAX = ORRI_KEY_MAX + 48,
};

struct orri_meta {
    pid_t keeper;
    pid_t rank;
    uint64_t rank_start; /* of orri_proc_start: tells pid reuse */
    uint32_t device;
    uint64_t started_unix_ms;
    char boot[ORRI_BOOT_MAX];
};

struct orri_status {
    uint32_t state; /* ORR_RANK_EXITED, _FAILED or _LOST */
    int64_t exit_code;
    uint32_t signal;
    uint64_t ended_unix_ms;
    char reason[ORRI_REASON_MAX];
};

/* What was made for the rank besides its processes, written before it is made, so that whoever comes later can remove it. */
struct orri_env {
    bool is_image;       /* it has namespaces of its own */
    pid_t init;          /* pid 1 of those; 0: not started yet */
    uint64_t init_start; /* of orri_proc_start */
    pid_t lazy;          /* brings its memory (lazy.h); 0: none */
    uint64_t lazy_start;
    char cgroup[ORRI_CGROUP_PATH_MAX]; /* empty: none */
    struct orri_overlay overlay;
    char address[ORRI_ADDRESS_MAX];
    char why[ORRI_REASON_MAX]; /* it has none although they were wanted */
};

enum orri_read { ORRI_READ_OK, ORRI_READ_ABSENT, ORRI_READ_TORN };

/* The directory's name, in key[ORRI_KEY_MAX].  Errors: ORR_EINVAL, naming the field. */
ORR_NODISCARD enum orr_err
orri_key_make(const struct orr_process_id *id, char *key, struct orr_error *err);
/* The other way; ret_id->job borrows from key. */
bool orri_key_parse(const char *key, struct orr_process_id *ret_id);

/* Unique on the machine, for what has no place in the directory: two fleets have different ones. */
void orri_rank_name(int ranks_dir, const char *key, char name[ORRI_RANK_NAME_MAX]);

/* dir: of the rank.  Writing returns 0 or an errno. */
int orri_meta_write(int dir, const struct orri_meta *meta);
/* Room for the status, so that a rank that fills the disk still has an end. */
int orri_status_reserve(int dir);
int orri_status_write(int dir, const struct orri_status *status);
enum orri_read orri_meta_read(int dir, struct orri_meta *ret_meta);
enum orri_read orri_status_read(int dir, struct orri_status *ret_status);

int orri_env_write(int dir, const struct orri_env *env);
enum orri_read orri_env_read(int dir, struct orri_env *ret_env);

/* How far a stop of the rank has come, as its node knows it. */
struct orri_stop {
    uint64_t cut;
    uint32_t step; /* enum orr_cut_step */
    uint32_t device;
    uint64_t visible; /* bit per device that it sees; 0: not said */
};
int orri_stop_write(int dir, const struct orri_stop *stop);
enum orri_read orri_stop_read(int dir, struct orri_stop *ret_stop);

/* In the directory of an image. */
struct orri_image_note {
    char logs[800]; /* where stdout and stderr were */
};
int orri_image_note_write(int dir, const struct orri_image_note *note);
enum orri_read orri_image_note_read(int dir, struct orri_image_note *ret_note);

/* A file without content says something by being there, and since when it was last set.  Setting returns 0 or an errno. */
#define ORRI_MARK_FROZEN "frozen" /* until told otherwise */
#define ORRI_MARK_IMAGING                                                              \
    "imaging" /* an image is being made: criu may have been killed in the middle */
#define ORRI_MARK_LAZY                                                                 \
    "lazy" /* restored, and not all of its memory is there: no image can be made of it */
#define ORRI_MARK_HURT                                                                 \
    "hurt" /* criu has failed on it, perhaps with its own code in it: it may die of that, as soon as it runs again */
#define ORRI_MARK_TOLD                                                                 \
    "told" /* TERM or KILL was sent to it: what it ends of then is no fault of the program */
#define ORRI_UNDO_FILE "undo" /* while an image is made: image_undo.c */
int orri_mark_set(int dir, const char *mark, bool is_set);
bool orri_mark_get(int dir, const char *mark);
/* When it was last set; UINT64_MAX: it is not. */
uint64_t orri_mark_unix_ms(int dir, const char *mark);

/* The last bytes of stderr, from a line's start where one is in reach; how many.  No
 * file: 0. */
size_t orri_tail_read(int dir, char *buf, size_t cap);
bool orri_dir_lock(int dir);                       /* false: a living keeper has it */
int orri_dir_remove(int parent, const char *name); /* with all files in it; errno */
uint64_t orri_dir_bytes(int dir);                  /* of the logs */

/* Start time in clock ticks since boot; 0: no such process. */
uint64_t orri_proc_start(pid_t pid);
void orri_boot_id(char boot[ORRI_BOOT_MAX]);
uint64_t orri_unix_ms(void);
uint64_t orri_mono_ms(void);

#endif
