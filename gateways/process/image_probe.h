/* SPDX-License-Identifier: Apache-2.0
 * image_probe.h - do images work on this machine?  `criu check` is no evidence, so one is made and restored.
 *
 * The answer is kept in /run/orrery for the boot, this CRIU and this init, so that of many hosts on a machine one tries; where that
 * directory cannot be made, in the state directory.
 */
#ifndef ORR_PROCESS_IMAGE_PROBE_H
#define ORR_PROCESS_IMAGE_PROBE_H

#include "image_work.h"

/* Find out in the background; then the edge's ability is known, and its thread is woken.  0 or an errno. */
int orri_probe_start(struct orri_edge *edge);
void orri_probe_stop(struct orri_edge *edge);

/* The helper: try it in an empty directory, and write there what came of it. */
#define ORRI_PROBE_ARG "--probe"
int orri_probe_main(const char *dir, const char *criu, const char *init);

#endif
