/* SPDX-License-Identifier: Apache-2.0
 * lease.h - until when the ranks of this machine may run, where their keepers see it: <state>/lease, one shared page.
 *
 * The host writes it, every keeper reads it.  A keeper freezes its rank (SIGSTOP) when the time has come, so this needs neither
 * the host nor the node actor to be alive.  It never thaws: only the node's SIGCONT does (docs/fencing.md).
 * Times are of CLOCK_BOOTTIME, which goes on while the machine sleeps; those of another boot mean nothing and are reset.
 */
#ifndef ORR_PROCESS_LEASE_H
#define ORR_PROCESS_LEASE_H

#include "rank_files.h"

struct orri_lease; /* the mapped page */

/* Host: map <state>/lease, made if absent.  NULL: err says why. */
struct orri_lease *
orri_lease_open(int state_dir, const char *boot, struct orr_error *err);
/* Keeper: by the ranks directory beside it.  NULL: errno says why. */
const struct orri_lease *orri_lease_watch(int ranks_dir);
void orri_lease_close(struct orri_lease *lease);

/* left_ms UINT64_MAX: for ever.  silent_ms: since the cluster's last answer. */
void orri_lease_set(struct orri_lease *lease, uint64_t left_ms, uint64_t silent_ms);
/* UINT64_MAX: for ever, or never set. */
uint64_t orri_lease_left_ms(const struct orri_lease *lease);
/* When it ends; tells one lease from a later one. */
uint64_t orri_lease_end(const struct orri_lease *lease);
/* false: never set in this boot. */
bool orri_lease_silent_ms(const struct orri_lease *lease, uint64_t *ret_silent_ms);

enum { ORRI_NOTE_MAX = 512 << 10 };

/* <state>/note: bytes of the node actor, whole or as before.  Reading returns the length; 0: none. */
ORR_NODISCARD enum orr_err
orri_note_write(int state_dir, const void *bytes, size_t len, struct orr_error *err);
size_t orri_note_read(int state_dir, void *buf, size_t cap);

#endif
