/* SPDX-License-Identifier: Apache-2.0
 * config.c - keeps the program's ncclConfig_t for the day on which the communicator is made anew (comm.h).
 *
 * Only `size` bytes are the program's: an older program's struct is shorter than ours, a newer one's longer.
 */
#include "comm.h"

#include <stdio.h>
#include <string.h>

static bool reaches(const ncclConfig_t *c, size_t end)
{
    return c->size >= end;
}
#define HAS(c, field) reaches((c), offsetof(ncclConfig_t, field) + sizeof((c)->field))

bool orri_config_copy(struct orri_config *to, const ncclConfig_t *from)
{
    size_t size;

    *to = (struct orri_config){.is_set = false};
    if (!from)
        return true;
    if (from->magic != NCCL_CONFIG_MAGIC ||
        from->size < offsetof(ncclConfig_t, blocking))
        return false;
    to->u.c = (ncclConfig_t)NCCL_CONFIG_INITIALIZER; /* for the fields that it lacks */
    size = from->size < sizeof to->u ? from->size : sizeof to->u;
    memcpy(to->u.bytes, from, size);
    to->u.c.size = size;
    if (HAS(from, netName) && from->netName)
        snprintf(to->net, sizeof to->net, "%s", from->netName);
    if (HAS(from, commName) && from->commName)
        snprintf(to->name, sizeof to->name, "%s", from->commName);
    to->is_set = true;
    return true;
}

void orri_config_inherit(struct orri_config *child, const struct orri_config *parent)
{
    ncclConfig_t *c = &child->u.c;
    const ncclConfig_t *p = &parent->u.c;

    if (!parent->is_set)
        return;
    if (!child->is_set) {
        *child = *parent;
        return;
    }
#define INHERIT(field)                                                                 \
    if (HAS(p, field) && HAS(c, field) && c->field == NCCL_CONFIG_UNDEF_INT)           \
    c->field = p->field
    INHERIT(blocking);
    INHERIT(cgaClusterSize);
    INHERIT(minCTAs);
    INHERIT(maxCTAs);
    INHERIT(splitShare);
    INHERIT(trafficClass);
    INHERIT(collnetEnable);
    INHERIT(CTAPolicy);
    INHERIT(shrinkShare);
    INHERIT(nvlsCTAs);
    INHERIT(nChannelsPerNetPeer);
    INHERIT(nvlinkCentricSched);
#undef INHERIT
    if (HAS(c, netName) && !child->net[0])
        memcpy(child->net, parent->net, sizeof child->net);
}

bool orri_config_is_blocking(const struct orri_config *config)
{
    return !config->is_set || !HAS(&config->u.c, blocking) || config->u.c.blocking != 0;
}

ncclConfig_t *orri_config_get(struct orri_config *config)
{
    ncclConfig_t *c = &config->u.c;

    if (!config->is_set)
        return NULL;
    if (HAS(c, netName))
        c->netName = config->net[0] ? config->net : NULL;
    if (HAS(c, commName))
        c->commName = config->name[0] ? config->name : NULL;
    return c;
}
