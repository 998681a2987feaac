/* SPDX-License-Identifier: Apache-2.0
 * base.h - what every other header needs: errors, borrowed text, assertions.
 */
#ifndef ORR_BASE_H
#define ORR_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ORR_NODISCARD       __attribute__((warn_unused_result))
#define ORR_PRINTF(fmt, at) __attribute__((format(printf, fmt, at)))
#define ORR_ARRAY_SIZE(a)   (sizeof(a) / sizeof((a)[0]))

/* For our own bugs only; never for input, peers, memory or devices. */
#define ORR_ASSERT(cond)                                                               \
    do {                                                                               \
        if (!(cond)) {                                                                 \
            fprintf(stderr, "orrery: %s:%d: bug: %s\n", __FILE__, __LINE__, #cond);    \
            abort();                                                                   \
        }                                                                              \
    } while (0)

enum orr_err {
#define ORR_ERROR(number, name, text) ORR_##name = (number),
#include "orrery/errors.def"
#undef ORR_ERROR
    ORR_ERR_MAX_
};

/* "EBUSY" and "overloaded, try again later".  Static; never NULL, also for numbers that
 * a newer peer sent. */
const char *orr_err_name(enum orr_err code);
const char *orr_err_text(enum orr_err code);

/* Human detail of an error: names the thing and the remedy.  Code never parses it. */
struct orr_error {
    enum orr_err code;
    char text[480];
};

/* Fill *err (may be NULL) and return code, so that `return orr_fail(err, ...)` reads
 * well. */
enum orr_err orr_fail(struct orr_error *err, enum orr_err code, const char *fmt, ...)
    ORR_PRINTF(3, 4);

/* Borrowed text, not always terminated.  In a message that was delivered by the kernel
 * or made by orr_msg_decode/orr_msg_copy a NUL byte follows ptr[len - 1]. */
struct orr_str {
    const char *ptr; /* borrowed: from the message's memory */
    uint32_t len;
};

#define ORR_LIT(literal) ((struct orr_str){(literal), sizeof(literal) - 1})
#define ORR_STR_ARGS(s)  (int)(s).len, (s).len ? (s).ptr : ""

static inline struct orr_str orr_str(const char *text)
{
    return (struct orr_str){text, text ? (uint32_t)strlen(text) : 0};
}

static inline bool orr_str_eq(struct orr_str a, struct orr_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* Copy into a terminated buffer of cap bytes, cutting what does not fit. */
static inline void orr_str_copy(char *dst, size_t cap, struct orr_str s)
{
    size_t n = s.len < cap - 1 ? s.len : cap - 1;
    if (n)
        memcpy(dst, s.ptr, n);
    dst[n] = '\0';
}

/* FNV-1a, 64 bit: host ids and path ids on the wire (docs/protocol.md). */
static inline uint64_t orr_hash(struct orr_str s)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (uint32_t i = 0; i < s.len; i++)
        h = (h ^ (uint8_t)s.ptr[i]) * 0x100000001b3u;
    return h;
}

#endif
