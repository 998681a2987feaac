/* SPDX-License-Identifier: Apache-2.0
 * ports.c - TCP ports for MASTER_PORT.
 *
 * A port is free when it can be bound now and was not given out lately: between the
 * answer and the bind by rank 0 there is time for another job to ask.  The range lies
 * outside the system's ephemeral ports, which outgoing connections take.
 */
#include <errno.h>
#include <netinet/in.h>
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

static void drop_expired(struct orri_ports *ports, uint64_t now_ms)
{
    for (uint32_t i = 0; i < ports->n;) {
        if (ports->held[i].until_ms <= now_ms)
            ports->held[i] = ports->held[--ports->n];
        else
            i++;
    }
}

static bool is_held(const struct orri_ports *ports, uint16_t port)
{
    for (uint32_t i = 0; i < ports->n; i++) {
        if (ports->held[i].port == port)
            return true;
    }
    return false;
}

enum orr_err orri_edge_port_reserve(struct orr_process *process,
                                    const char **ret_addr,
                                    uint32_t *ret_port,
                                    struct orr_error *err)
{
    struct orri_edge *edge = (struct orri_edge *)process;
    struct orri_ports *ports = &edge->ports;
    uint64_t now_ms = orri_mono_ms();
    enum orr_err rc = ORR_ENOSPC;
    pthread_mutex_lock(&edge->lock);
    drop_expired(ports, now_ms);
    uint32_t range = (uint32_t)(ports->max - ports->min) + 1;
    ports->seed = ports->seed * 6364136223846793005u + 1442695040888963407u;
    uint32_t first = (uint32_t)(ports->seed >> 33) % range;
    for (uint32_t i = 0; i < range && ports->n < ORRI_PORTS_HELD_MAX && rc != ORR_OK;
         i++) {
        uint16_t port = (uint16_t)(ports->min + (first + i) % range);
        if (is_held(ports, port) || !can_bind(port))
            continue;
        ports->held[ports->n].port = port;
        ports->held[ports->n++].until_ms = now_ms + ORRI_PORT_HOLD_MS;
        *ret_addr = ports->addr;
        *ret_port = port;
        rc = ORR_OK;
    }
    pthread_mutex_unlock(&edge->lock);
    if (rc != ORR_OK)
        return orr_fail(err,
                        rc,
                        "no free TCP port from %u to %u (%u were given out in the last "
                        "%d s); widen the range",
                        ports->min,
                        ports->max,
                        ports->n,
                        ORRI_PORT_HOLD_MS / 1000);
    return ORR_OK;
}
