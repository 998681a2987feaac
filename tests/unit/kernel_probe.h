/* SPDX-License-Identifier: Apache-2.0
 * kernel_probe.h - actors for tests of the kernel: they write down what they got, and do what the test's script says.
 */
#ifndef KERNEL_PROBE_H
#define KERNEL_PROBE_H

#include "../../runtime/system.h"

enum { PROBE_SEEN_MAX = 64 };

struct probe;
typedef enum orr_err (*probe_script_f)(struct orr_ctx *ctx,
                                       struct probe *probe,
                                       uint16_t id,
                                       const void *msg);

/* Lives in the test, not in the actor: survives restarts. */
struct probe {
    probe_script_f script; /* NULL: note only */
    probe_script_f on_init;
    unsigned state;
    unsigned n_init;
    unsigned n_fini;
    struct orr_addr self;
    unsigned n_seen;
    struct probe_seen {
        uint16_t id;
        uint32_t code;  /* of failed and down */
        uint64_t value; /* nonce of ping and pong, arg of timer, seq of heartbeat */
        uint64_t tag;
        struct orr_addr from;
        char text[160]; /* of failed */
    } seen[PROBE_SEEN_MAX];
    struct orr_request kept;
    struct orr_addr peer; /* for scripts */
    uint64_t number;
};

/* In all of its types state 0 is "idle", 1 is "busy"; job_cancel is accepted in 0 only. */
extern const struct orr_actor_type probe_type;
extern const struct orr_actor_type probe_one_for_all;
extern const struct orr_actor_type probe_rest_for_one;
extern const struct orr_actor_type probe_strict; /* intensity 2 */

/* Virtual time. */
struct probe_clock {
    struct orr_clock clock; /* for the config */
    uint64_t now_ms;
};
void probe_clock_init(struct probe_clock *clock);

struct orr_system *probe_system(struct probe_clock *clock, const char *host);
struct orr_addr probe_spawn(struct orr_system *sys,
                            struct probe *probe,
                            const struct orr_actor_type *type,
                            const char *path,
                            enum orr_restart restart);
struct orr_addr
probe_child(struct orr_ctx *ctx, struct probe *probe, enum orr_restart restart);
void probe_settle(struct orr_system *sys); /* step until nothing is ready */
void probe_advance(struct orr_system *sys, struct probe_clock *clock, uint64_t ms);

#define probe_post(sys, to, name, ...)                                                 \
    orr_system_post((sys),                                                             \
                    (struct orr_addr){0},                                              \
                    (to),                                                              \
                    orr_msg_desc_##name(),                                             \
                    &(struct orr_msg_##name){.end_ = 0, __VA_ARGS__})

#endif
