/* SPDX-License-Identifier: Apache-2.0
 * ports.c - TCP ports for MASTER_PORT.
 *
 * A port is free when it can be bound now and was not given out lately: between the
 * answer and the bind by rank 0 there is time for another job to ask.  So the range is
 * gone through in turn, the port given out longest ago being next: how many launches a
 * second there may be depends on its size alone.  Each node has a stride of its own, or
 * nodes of one machine could follow on each other's heels.  The range lies outside the
 * system's ephemeral ports, which outgoing connections take.
 */
#include <errno.h>
#include <netinet/in.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "edge.h"

static bool can_bind(uint16_t port)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    bool ok = bind(fd, (struct sockaddr *)&any, sizeof any) == 0;
    close(fd);
    return ok;
}

static uint32_t common_divisor(uint32_t a, uint32_t b)
{
    while (b) {
        uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

enum orr_err orri_ports_init(struct orri_ports *ports)
{
    uint32_t random[2] = {0, 1};
    uint32_t range = (uint32_t)(ports->max - ports->min) + 1;
    ports->held_until_ms = calloc(range, sizeof *ports->held_until_ms);
    if (!ports->held_until_ms)
        return ORR_ENOMEM;
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        random[0] = (uint32_t)orri_mono_ms();
    ports->next = random[0] % range;
    ports->stride = 1 + random[1] % range;
    while (common_divisor(ports->stride, range) != 1)
        ports->stride++;
    return ORR_OK;
}

enum orr_err orri_edge_port_reserve(struct orr_process *process,
                                    const char **ret_addr,
                                    uint32_t *ret_port,
                                    struct orr_error *err)
{
    struct orri_edge *edge = (struct orri_edge *)process;
    struct orri_ports *ports = &edge->ports;
    uint32_t range = (uint32_t)(ports->max - ports->min) + 1;
    uint64_t now_ms = orri_mono_ms();
    enum orr_err rc = ORR_ENOSPC;
    pthread_mutex_lock(&edge->lock);
    for (uint32_t i = 0; i < range && rc != ORR_OK; i++) {
        uint32_t at = ports->next;
        ports->next = (at + ports->stride) % range;
        if (ports->held_until_ms[at] > now_ms || !can_bind((uint16_t)(ports->min + at)))
            continue;
        ports->held_until_ms[at] = now_ms + ORRI_PORT_HOLD_MS;
        *ret_addr = ports->addr;
        *ret_port = ports->min + at;
        rc = ORR_OK;
    }
    pthread_mutex_unlock(&edge->lock);
    if (rc != ORR_OK)
        return orr_fail(err,
                        rc,
                        "no free TCP port from %u to %u (all are in use or were given "
                        "out in the last %d s); widen the range",
                        ports->min,
                        ports->max,
                        ORRI_PORT_HOLD_MS / 1000);
    return ORR_OK;
}
