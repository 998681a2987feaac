/* SPDX-License-Identifier: Apache-2.0
 * redis_address.h - where a Redis is, as it is written: unix:///PATH or tcp://HOST:PORT,
 * HOST of the loopback.
 */
#ifndef ORR_REDIS_ADDRESS_H
#define ORR_REDIS_ADDRESS_H

#include "orrery/base.h"

struct redis_address {
    char path[108]; /* of the socket; "" for TCP */
    char host[64];
    int port;
};

/* Errors: ORR_EINVAL. */
ORR_NODISCARD enum orr_err redis_address_parse(const char *text,
                                               struct redis_address *ret_address,
                                               struct orr_error *err);

/* The first line of a password file.  Errors: ORR_EIO, ORR_EINVAL empty or too long. */
ORR_NODISCARD enum orr_err
redis_password_read(const char *file, char *buf, size_t cap, struct orr_error *err);

#endif
