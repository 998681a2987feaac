/* SPDX-License-Identifier: Apache-2.0
 * cli_soft.h - soft state for listings that need not trouble the region, and the tables
 * that `top` shares with `ps` and `tree`.
 */
#ifndef ORR_CLI_SOFT_H
#define ORR_CLI_SOFT_H

#include "cli.h"
#include "orrery/soft_reader.h"

struct orri_soft_row {
    enum orr_soft_kind kind;
    char key[ORR_SOFT_KEY_MAX];
    void *msg; /* owned: of orr_soft_desc(kind) */
};
struct orri_soft {
    const char *source; /* static: "redis", "memory" of the region's host, "region" */
    bool is_degraded;
    char why[480]; /* degraded, or not from Redis: why */
    struct orr_soft_count count;
    struct orri_soft_row *rows; /* owned; sorted by kind, then by name or age */
    size_t n_rows, cap_rows;
};
/* Where Redis is: ORRERY_SOFTSTATE=FILE, or softstate in ORRERY_STATE, unless another
 * region's endpoints were given.  Errors: ORR_ENOENT none is configured, ORR_EINVAL. */
ORR_NODISCARD enum orr_err orri_soft_locate(const struct orri_cli *cli,
                                            struct orr_soft_source *ret_source,
                                            struct orr_error *err);
/* Rows of these kinds (bits) from Redis.  Errors: ORR_ENOENT Redis does not know the
 * region, and as orr_soft_reader_scan. */
ORR_NODISCARD enum orr_err orri_soft_read(struct orri_cli *cli,
                                          unsigned kinds,
                                          size_t rows_max,
                                          struct orri_soft *soft,
                                          struct orr_error *err);
/* The same from the memory of the region's host. */
ORR_NODISCARD enum orr_err orri_soft_ask(struct orri_cli *cli,
                                         unsigned kinds,
                                         size_t rows_max,
                                         struct orri_soft *soft,
                                         struct orr_error *err);
/* Add a copy of msg.  false: no room. */
bool orri_soft_add(struct orri_soft *soft,
                   enum orr_soft_kind kind,
                   struct orr_str key,
                   const void *msg,
                   size_t rows_max);
void orri_soft_sort(struct orri_soft *soft); /* drops what is there twice */
/* The first row of a kind, NULL: none. */
const struct orri_soft_row *orri_soft_first(const struct orri_soft *soft,
                                            enum orr_soft_kind kind);
size_t orri_soft_count(const struct orri_soft *soft, enum orr_soft_kind kind);
/* Of any soft_* message: how long ago it was true. */
uint64_t orri_soft_age_ms(const void *msg);
void orri_soft_fini(struct orri_soft *soft);
/* What the region's host says of its edge: "redis", "memory", "degraded: why". */
void orri_soft_state(struct orri_cli *cli, char *buf, size_t cap);
/* The JSON of a record with one more field, `"name":value`. */
char *orri_json_with(char *take_json, const char *name, const char *value);

/* ---- cli_jobs.c ---- */
extern const char *const orri_job_heads[];
enum { ORRI_JOB_COLUMNS = 10 };
void orri_job_add(struct orri_table *table, const struct orr_rec_job_row *row);

/* ---- cli_fleet.c ---- */
extern const char *const orri_tree_heads[];
enum { ORRI_TREE_COLUMNS = 8 };
void orri_tree_add_cluster(struct orri_table *table,
                           const struct orr_rec_cluster_row *row);
void orri_tree_add_node(struct orri_table *table, const struct orr_rec_node_row *row);

#endif
