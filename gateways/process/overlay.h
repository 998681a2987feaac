/* SPDX-License-Identifier: Apache-2.0
 * overlay.h - a rank's network: a namespace with lo and eth0, eth0's other end on a bridge of its job, the bridges of the
 * job's machines joined by VXLAN.
 *
 *   rank's namespace        this machine                                another machine
 *   eth0 10.77.0.5  ──veth──  bridge of the overlay ── VXLAN (UDP) ──  bridge of the overlay ── ...
 *
 * The address, and with it the MAC, belongs to the rank and moves with it, so that its peers notice nothing but a pause.
 * While the link is down the rank neither hears nor answers, also not with a reset.
 * Blocking: netlink calls, and a lock that is shared by all of the machine, at most some seconds.
 */
#ifndef ORR_PROCESS_OVERLAY_H
#define ORR_PROCESS_OVERLAY_H

#include "orrery/base.h"

enum { ORRI_LINK_MAX = 16 };

struct orri_overlay {
    char link
        [ORRI_LINK_MAX]; /* our end of the rank's veth; empty: the rank has lo only */
    char bridge[ORRI_LINK_MAX]; /* shared by the overlay's ranks on this machine */
    char vxlan
        [ORRI_LINK_MAX]; /* there is none while the overlay stays on this machine */
};

struct orri_overlay_plan {
    uint64_t id;              /* unique to the job and its fleet */
    const char *rank;         /* unique on the machine: names the link */
    const char *address;      /* "10.77.0.5/16"; empty: lo only */
    const char *underlay;     /* of this machine, "192.0.2.7:4789"; empty: no VXLAN */
    const char *const *peers; /* the other machines' */
    uint32_t n_peers;
};

/* The names alone; makes nothing. */
struct orri_overlay orri_overlay_names(const struct orri_overlay_plan *plan);
/* Make what is missing, and a namespace with lo up and eth0 up whose link is still down.  *ret_ns: of the namespace, close-on-exec.
 * The calling process must have one thread.  0 or an errno, then *ret_step says at what. */
int orri_overlay_make(const struct orri_overlay_plan *plan,
                      const struct orri_overlay *overlay,
                      int *ret_ns,
                      const char **ret_step);
/* An overlay that is there: let it reach `peers` as well.  Of the plan, id, underlay and peers count. */
int orri_overlay_widen(const struct orri_overlay_plan *plan,
                       const struct orri_overlay *overlay,
                       const char **ret_step);
/* ns -1: only the link; else the rank's address is also announced there, to those that know it elsewhere. */
int orri_overlay_link(const struct orri_overlay *overlay,
                      bool is_up,
                      int ns,
                      const char *address);
/* The link, and what nobody else uses then.  Also of one that was made in part or is gone. */
void orri_overlay_remove(const struct orri_overlay *overlay);

#endif
