/* SPDX-License-Identifier: Apache-2.0
 * fleet_ledger.c - an address on loopback for each voter of a fleet's regions.
 *
 * Ledgers talk over TCP, and their addresses must stay theirs while the fleet is down.
 * Linux answers on all of 127/8, so an address drawn from it at random has no
 * neighbours: fleets that are made at the same moment do not meet, connections on their
 * way out (from 127.0.0.1) never take its port, and no lock has to be held.  A bind
 * shows that nobody listens there on all addresses.
 */
#include "fleet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TRIES = 100, PORT_MIN = 10000, PORTS = 10000 };

static bool is_free(const struct sockaddr_in *at)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool is_bound = fd >= 0 && bind(fd, (const void *)at, sizeof *at) == 0;
    int why = errno;
    if (fd >= 0)
        close(fd);
    errno = why;
    return is_bound;
}

enum orr_err fleet_ledger_address(char address[FLEET_ADDRESS_MAX],
                                  struct orr_error *err)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    for (int i = 0; i < TRIES; i++) {
        struct {
            uint32_t ip;
            uint32_t port;
        } random;
        if (getrandom(&random, sizeof random, 0) != sizeof random)
            break;
        /* not 127.0.x.x, where people put things by hand */
        uint32_t ip = 127u << 24 | (1 + random.ip % 254) << 16 |
                      (random.ip >> 8 & 0xff) << 8 | (1 + (random.ip >> 16) % 254);
        uint16_t port = (uint16_t)(PORT_MIN + random.port % PORTS);
        at.sin_addr.s_addr = htonl(ip);
        at.sin_port = htons(port);
        if (!is_free(&at))
            continue;
        char text[INET_ADDRSTRLEN];
        inet_ntop(AF_INET, &at.sin_addr, text, sizeof text);
        snprintf(address, FLEET_ADDRESS_MAX, "%s:%u", text, (unsigned)port);
        return ORR_OK;
    }
    return orr_fail(
        err, ORR_EIO, "no free address on loopback for a ledger: %s", strerror(errno));
}
