/* SPDX-License-Identifier: Apache-2.0
 * job_spec.h - a job spec as a user writes it, into the job_spec message.  Fields and
 * ranges: job_spec.def.
 *
 * START   orr_job_spec_new (defaults) or orr_job_spec_load / _parse (a YAML file)
 * THEN    orr_job_spec_set and orr_job_spec_command for what the command line adds
 * END     orr_job_spec_finish fills computed defaults and checks the rules between
 * fields; orr_job_spec_free
 */
#ifndef ORR_JOB_SPEC_H
#define ORR_JOB_SPEC_H

#include "orrery/ids.h"
#include "orrery/msg.h"
#include "orrery/yaml.h"

enum { ORR_SPEC_BYTES_MAX = 64 << 10 }; /* of an encoded spec */

struct orr_job_spec {
    struct orr_msg_job_spec msg;
    struct orr_yaml *yaml; /* owned; msg points into it */
};

/* The table made from job_spec.def. */
const struct orr_yaml_table *orr_job_spec_table(void);

/* Errors of all: ORR_EINVAL (err says where and what is accepted), ORR_ENOENT, ORR_EIO,
 * ORR_ENOMEM. */
ORR_NODISCARD enum orr_err orr_job_spec_new(struct orr_job_spec *ret_spec,
                                            struct orr_error *err);
ORR_NODISCARD enum orr_err orr_job_spec_parse(const char *file,
                                              const char *text,
                                              size_t len,
                                              struct orr_job_spec *ret_spec,
                                              struct orr_error *err);
ORR_NODISCARD enum orr_err orr_job_spec_load(const char *file,
                                             struct orr_job_spec *ret_spec,
                                             struct orr_error *err);

/* As if `path: text` were written in the file. */
ORR_NODISCARD enum orr_err orr_job_spec_set(struct orr_job_spec *spec,
                                            const char *path,
                                            const char *text,
                                            struct orr_error *err);
ORR_NODISCARD enum orr_err orr_job_spec_command(struct orr_job_spec *spec,
                                                int argc,
                                                char *const *argv,
                                                struct orr_error *err);

/* Fill what depends on other fields (world, gpus, name, workdir: relative to dir, which
 * is absolute) and check the rules between fields: gpus.min <= gpus.max <= world, world
 * a multiple of shards, backoff in order. */
ORR_NODISCARD enum orr_err
orr_job_spec_finish(struct orr_job_spec *spec, const char *dir, struct orr_error *err);
void orr_job_spec_free(struct orr_job_spec *spec);

#endif
