/* SPDX-License-Identifier: Apache-2.0
 * cli.h - what the verbs of the `orrery` command share: options, the way to the region,
 * output, exit codes.
 *
 * START      orr_cli_main finds the verb and parses its options into struct orri_cli
 * OPERATION  the verb asks the region (orri_cli_ask connects when needed; a lost link is made anew by the next ask)
 * STOP       the verb returns its exit code; Ctrl-C makes every wait return within 100 ms
 * FAILURES   one line on stderr: what, why, what to do; the code says which kind (docs/cli.md)
 */
#ifndef ORR_CLI_H
#define ORR_CLI_H

#include "orrery/client.h"

/* Exit codes; `run` and `wait` return the job's own instead of 0. */
enum orri_exit {
    EXIT_OK = 0,
    EXIT_JOB = 1,     /* the job failed and has no code of its own */
    EXIT_USAGE = 2,   /* bad option, bad spec, nothing sent */
    EXIT_UNREACH = 3, /* no region there */
    EXIT_NONE = 4,    /* no such job or field */
    EXIT_REFUSED = 5, /* the region said no, or not now */
    EXIT_TIMEOUT = 6,
    EXIT_OTHER = 7,  /* input/output, memory, protocol */
    EXIT_UNWELL = 8, /* doctor found something broken */
    EXIT_MOVED = 9,  /* the job goes on in another region, which was not followed */
    EXIT_INTERRUPTED = 130,
};

enum orri_format { FORMAT_TABLE, FORMAT_JSON, FORMAT_JSONL };

#define ORRI_OPTIONS(X)                                                                \
    X(ADDRESS, "address", 0, "IP:PORT", "where other voters reach the host's ledger")  \
    X(AFTER, "after", 0, "SEQ", "only events after this one")                          \
    X(ALL, "all", 'a', NULL, "also jobs that have ended")                              \
    X(ENDPOINT, "endpoint", 0, "ENDPOINT", "where clients and clusters dial the host") \
    X(FRESH, "fresh", 0, NULL, "ask the region itself, not soft state")                \
    X(FOLLOW, "follow", 'f', NULL, "go on until the end, or Ctrl-C")                   \
    X(GONE, "gone", 0, "REGION", "it goes there and will never be back")               \
    X(GPUS, "gpus", 'g', "N", "devices: N, or N..M")                                   \
    X(HELP, "help", 'h', NULL, "explain this verb")                                    \
    X(HOST, "host", 0, NULL, "fields of a host's configuration")                       \
    X(JOBS, "jobs", 0, NULL, "first all jobs as they are, then what changes")          \
    X(KEY, "key", 0, "TEXT", "idempotency key: the same key is the same job")          \
    X(MARKDOWN, "markdown", 0, NULL, "as a markdown table")                            \
    X(NAME, "name", 'n', "NAME", "name of the job")                                    \
    X(NO_WAIT, "no-wait", 0, NULL, "do not wait for what comes of it")                 \
    X(ONCE, "once", 0, NULL, "print once and end")                                     \
    X(OUTPUT, "output", 'o', "FORMAT", "table, json or jsonl")                         \
    X(PROJECT, "project", 'p', "NAME", "project of the job")                           \
    X(RANK, "rank", 'r', "R", "a rank, or all")                                        \
    X(REGION, "region", 0, "ENDPOINT,...", "where the region's hosts listen")          \
    X(REGION_NAME,                                                                     \
      "region-name",                                                                   \
      0,                                                                               \
      "NAME",                                                                          \
      "name of the region; default: its host's")                                       \
    X(SCHEMA, "schema", 0, NULL, "as a JSON schema")                                   \
    X(STDERR, "stderr", 'e', NULL, "standard error instead of standard output")        \
    X(TIER, "tier", 0, "TIER", "premium, standard or basic")                           \
    X(TIMEOUT, "timeout", 't', "DURATION", "give up after this time, e.g. 30s")        \
    X(TO, "to", 0, "WHERE", "node:NAME, cluster:NAME or region:NAME")                  \
    X(UNDO, "undo", 0, NULL, "it takes jobs again")                                    \
    X(VERBOSE, "verbose", 'v', NULL, "say on stderr where the answer comes from")      \
    X(WHY, "why", 0, "TEXT", "reason, kept with the job")                              \
    X(WORKDIR, "workdir", 0, "DIR", "directory in which ranks start")                  \
    X(WORLD, "world", 'w', "N", "logical ranks")

enum orri_option {
#define X(id, name, letter, value, help) OPT_##id,
    ORRI_OPTIONS(X)
#undef X
        OPT_MAX_
};
#define OPT(id) (1u << OPT_##id)

struct orri_cli;

struct orri_verb {
    const char *name;
    int (*run)(struct orri_cli *cli); /* NULL: dispatched before this table is asked */
    const char *usage;                /* what follows the verb */
    const char *help;
    unsigned options; /* OPT(...) bits, beside those of every verb */
    int args_min, args_max;
    bool takes_command; /* `-- program arguments...` */
};

/* The answer to a job_wait that is kept open while other things are asked. */
struct orri_watch {
    const char *job;  /* borrowed: of the caller */
    uint64_t corr;    /* 0: not asked, or asked on a link that is gone */
    uint64_t due_ms;  /* ask again then */
    bool is_lost;     /* who was asked leads no more */
    uint64_t lost_ms; /* since when nobody could be asked; 0: somebody could */
    struct orr_msg_job_detail *detail; /* owned: NULL until the job has ended */
    struct orr_error error;            /* code 0, or why it cannot be waited for */
};

/* A host of the region, as given or as another host told. */
struct orri_endpoint {
    char text[256];
    enum orr_err last; /* what came of the last attempt there */
};

struct orri_cli {
    const struct orri_verb *verb;
    const char *value[OPT_MAX_]; /* NULL: not given; "" for a flag */
    char **args;                 /* borrowed: argv */
    int n_args;
    char **command; /* after `--`; NULL: no `--` */
    int n_command;
    enum orri_format format;
    struct orri_endpoint endpoints[ORR_REGION_HOSTS_MAX];
    unsigned n_endpoints;
    unsigned at;                        /* of them: where the link leads, or will */
    char region_path[ORR_NAME_MAX + 1]; /* "" until known */
    struct orr_client *client;          /* owned */
    uint64_t contact_ms;                /* of the last answer */
    uint64_t probe_corr;                /* 0: no probe is out */
    uint64_t probe_ms;                  /* when it went out */
    struct orri_watch watch;
};

/* ---- cli_options.c ---- */
/* argv[0] is the verb's name.  Errors: ORR_EINVAL, with a suggestion. */
ORR_NODISCARD enum orr_err
orri_cli_parse(struct orri_cli *cli, int argc, char **argv, struct orr_error *err);
ORR_NODISCARD enum orr_err orri_cli_duration(const struct orri_cli *cli,
                                             uint64_t default_ms,
                                             uint64_t *ret_ms,
                                             struct orr_error *err);
void orri_cli_print_options(FILE *out, unsigned options);

/* ---- cli_region.c ---- */
void orri_cli_catch_signals(void);
unsigned orri_cli_interrupts(void); /* how many Ctrl-C so far */
uint64_t orri_cli_now_ms(void);
void orri_cli_sleep(uint64_t ms); /* ends early on Ctrl-C */
/* Ends the command as a write to stdout would when nobody reads it any more: for one
 * that has nothing to write now.  orri_cli_sleep does it, too. */
void orri_cli_check_reader(void);

/* Where the region's hosts are: --region, ORRERY_REGION, ORRERY_STATE.  Errors:
 * ORR_EINVAL, ORR_EUNREACH. */
ORR_NODISCARD enum orr_err orri_cli_locate(struct orri_cli *cli, struct orr_error *err);

/* Ask the region's actor, or `path` on its leader's host, and wait for the answer;
 * reconnects a lost link.  In a region of several hosts it goes on to the next one until
 * the leader answers, so what is asked may be asked twice: it must be idempotent.  The
 * answer is borrowed until the next ask.  Errors: what the region answered,
 * ORR_EUNREACH, ORR_ETIMEOUT (err says what was tried), ORR_EPROTO. */
ORR_NODISCARD enum orr_err orri_cli_ask(struct orri_cli *cli,
                                        const char *path,
                                        const struct orr_msg_desc *desc,
                                        const void *msg,
                                        uint64_t timeout_ms,
                                        struct orr_answer *ret_answer,
                                        struct orr_error *err);
void orri_cli_close(struct orri_cli *cli);

/* ---- cli_link.c: the link to one host ---- */
ORR_NODISCARD enum orr_err
orri_link_open(struct orri_cli *cli, uint64_t timeout_ms, struct orr_error *err);
/* The next answer.  ORR_EUNREACH: the host is gone, or answers no probe while others
 * might lead. */
ORR_NODISCARD enum orr_err orri_link_receive(struct orri_cli *cli,
                                             uint64_t timeout_ms,
                                             struct orr_answer *ret_answer,
                                             struct orr_error *err);
/* Ask the host that the link leads to, whoever it is. */
ORR_NODISCARD enum orr_err orri_link_ask(struct orri_cli *cli,
                                         const char *path,
                                         const struct orr_msg_desc *desc,
                                         const void *msg,
                                         uint64_t timeout_ms,
                                         struct orr_answer *ret_answer,
                                         struct orr_error *err);

/* ---- cli_leader.c: which of the region's hosts leads ---- */
#define ORRI_LEDGER_PATH "/edge/ledger"
/* One endpoint, or several with commas.  Errors: ORR_EINVAL. */
ORR_NODISCARD enum orr_err
orri_endpoints_parse(struct orri_cli *cli, const char *text, struct orr_error *err);
/* Learn from a host that answers who the hosts of the region are. */
void orri_endpoints_learn(struct orri_cli *cli, const struct orr_msg_ledger_info *info);
/* After this error another host, or the same a little later, may do better. */
bool orri_leader_is_lost(const struct orri_cli *cli, enum orr_err rc);

/* ---- cli_watch.c: wait for a job's end while doing other things ---- */
void orri_watch_start(struct orri_cli *cli, const char *job);
void orri_watch_stop(struct orri_cli *cli);
/* Wait up to wait_ms.  ORR_ETIMEOUT: not ended yet; ORR_OK: cli->watch.detail is there.
 */
ORR_NODISCARD enum orr_err
orri_watch_poll(struct orri_cli *cli, uint64_t wait_ms, struct orr_error *err);
/* Take an answer that belongs to the watch; false: it does not. */
bool orri_watch_take(struct orri_cli *cli, const struct orr_answer *answer);
/* Of a job that has ended. */
int orri_exit_of_job(const struct orr_msg_job_detail *detail);

/* ---- cli_logs.c ---- */
enum { LOG_STDOUT = 1, LOG_STDERR = 2, LOG_STREAMS_MAX = 128 };
struct orri_log {
    uint32_t rank;
    uint32_t stream; /* LOG_STDOUT or LOG_STDERR */
    FILE *out;       /* borrowed: stdout or stderr */
    uint64_t generation;
    uint64_t offset;
    bool is_final;
    bool is_mid_line; /* the last byte printed was no newline */
};
/* Read and print what is new in all streams; *ret_bytes: how much.  The first error is
 * returned after all were asked. */
ORR_NODISCARD enum orr_err orri_logs_poll(struct orri_cli *cli,
                                          const char *job,
                                          struct orri_log *logs,
                                          size_t n,
                                          bool has_prefix,
                                          size_t *ret_bytes,
                                          struct orr_error *err);

/* Every rank has ended and all that it wrote was read. */
bool orri_logs_are_final(const struct orri_log *logs, size_t n);

/* ---- cli_checkpoint.c ---- */
void orri_checkpoint_table(const struct orr_list_checkpoint_row *rows);

/* ---- cli_print.c ---- */
enum { TABLE_COLUMNS_MAX = 12, TABLE_ROWS_MAX = 1024 };
struct orri_table {
    const char *const *heads; /* borrowed: static */
    size_t n_columns, n_rows;
    size_t width[TABLE_COLUMNS_MAX];
    bool is_headed;
    char **cells; /* owned */
};
void orri_table_init(struct orri_table *table, const char *const *heads, size_t n);
void orri_table_add(struct orri_table *table,
                    const char *const *cells); /* prints by itself when full */
void orri_table_flush(struct orri_table *table, FILE *out);
void orri_table_fini(struct orri_table *table);

const char *
orri_age(uint64_t ms, char *buf, size_t cap); /* "3s", "4m12s", "2h05m", "9d03h" */
const char *orri_bytes(uint64_t n, char *buf, size_t cap); /* "40GiB" */
uint64_t orri_wall_ms(void);

/* JSON of a record with names for enums; a malloc'd text, NULL when out of memory. */
char *orri_json(const struct orr_rec_desc *desc, const void *rec);
/* Print the records of a list: an array (json), or one a line (jsonl).  *io_count runs
 * through pages. */
void orri_json_item(enum orri_format format, size_t *io_count, const char *json);
void orri_json_end(enum orri_format format, size_t count);
/* A field of one line of JSON that we wrote ourselves. */
bool orri_json_u64(const char *line, const char *key, uint64_t *ret);
bool orri_json_text(const char *line, const char *key, char *buf, size_t cap);

/* Say it on stderr and return the exit code of its kind. */
int orri_cli_fail(const struct orri_cli *cli, const struct orr_error *err);
int orri_exit_of(enum orr_err code);

/* ---- verbs ---- */
int orri_verb_cancel(struct orri_cli *cli);
int orri_verb_checkpoint(struct orri_cli *cli);
int orri_verb_doctor(struct orri_cli *cli);
int orri_verb_drain(struct orri_cli *cli);
int orri_verb_events(struct orri_cli *cli);
int orri_verb_explain(struct orri_cli *cli);
int orri_verb_logs(struct orri_cli *cli);
int orri_verb_migrate(struct orri_cli *cli);
int orri_verb_resize(struct orri_cli *cli);
int orri_verb_node(struct orri_cli *cli);
int orri_verb_ps(struct orri_cli *cli);
int orri_verb_region(struct orri_cli *cli);
int orri_verb_resume(struct orri_cli *cli);
int orri_verb_run(struct orri_cli *cli);
int orri_verb_show(struct orri_cli *cli);
int orri_verb_submit(struct orri_cli *cli);
int orri_verb_suspend(struct orri_cli *cli);
int orri_verb_top(struct orri_cli *cli);
int orri_verb_tree(struct orri_cli *cli);
int orri_verb_wait(struct orri_cli *cli);

/* The verb of that name; NULL with the closest in *ret_closest. */
struct orr_closest;
const struct orri_verb *orri_verb_find(const char *name,
                                       struct orr_closest *ret_closest);

#endif
