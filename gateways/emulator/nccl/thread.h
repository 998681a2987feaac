/* SPDX-License-Identifier: Apache-2.0
 * thread.h - the library's own threads: detached, and without the program's signals.
 */
#ifndef ORRI_THREAD_H
#define ORRI_THREAD_H

/* Runs fn(arg). Returns 0 or -errno. */
int orri_thread_start(void *(*fn)(void *), void *arg);

#endif
