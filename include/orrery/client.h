/* SPDX-License-Identifier: Apache-2.0
 * client.h - talk to a host from outside: connect, ask, read the answer.
 *
 * A client is a peer with the role `client`: it says hello, sends requests, and reads
 * answers in any order.  Requests can be pipelined.  One client belongs to one thread.
 * Every wait has a deadline. Source: docs/protocol.md, "Session".
 */
#ifndef ORR_CLIENT_H
#define ORR_CLIENT_H

#include "orrery/ids.h"
#include "orrery/msg.h"

struct orr_client;

struct orr_answer {
    const struct orr_msg_desc *desc;
    const void *msg; /* borrowed: until the next call on this client */
    uint64_t corr;   /* of the request it answers */
};

/* Connect and exchange hello within timeout_ms.  endpoint: ipc://PATH or
 * tcp://HOST:PORT. Errors: ORR_EUNREACH (nobody there; err says what to start),
 * ORR_EVERSION, ORR_EINVAL (endpoint). */
ORR_NODISCARD enum orr_err orr_client_new(const char *endpoint,
                                          uint64_t timeout_ms,
                                          struct orr_client **ret_client,
                                          struct orr_error *err);
void orr_client_free(struct orr_client *client);

/* Name of the host that answered; borrowed until the client is freed. */
const char *orr_client_host(const struct orr_client *client);

/* Queue a request to the actor at `path` of that host; *ret_corr tells its answer
 * apart. */
ORR_NODISCARD enum orr_err orr_client_send(struct orr_client *client,
                                           const char *path,
                                           const struct orr_msg_desc *desc,
                                           const void *msg,
                                           uint64_t timeout_ms,
                                           uint64_t *ret_corr,
                                           struct orr_error *err);

/* Wait for the next answer.  Errors: ORR_ETIMEOUT, ORR_EUNREACH, ORR_EPROTO.  A
 * `failed` answer is an answer here. */
ORR_NODISCARD enum orr_err orr_client_receive(struct orr_client *client,
                                              uint64_t timeout_ms,
                                              struct orr_answer *ret_answer,
                                              struct orr_error *err);

/* Send and wait for that one answer.  A `failed` answer becomes its code, with its text
 * in err. */
ORR_NODISCARD enum orr_err orr_client_ask(struct orr_client *client,
                                          const char *path,
                                          const struct orr_msg_desc *desc,
                                          const void *msg,
                                          uint64_t timeout_ms,
                                          struct orr_answer *ret_answer,
                                          struct orr_error *err);

#endif
