/* SPDX-License-Identifier: Apache-2.0
 * device_file.h - an emulated device: one sparse file that all processes of the machine
 * that use the device map. The file outlives its users; a user that dies, however it
 * dies, loses its pages to the next one who needs them.
 *
 * Layout: a header (identity, user slots, busy clock), the page table
 * (for every page the set of user slots that hold it, and a serial that changes with
 * each allocation), then the pages themselves. A page is free when no slot holds it. A
 * user proves that it lives by an open-file-description lock on the byte of its slot:
 * the kernel drops it with the process, also across PID namespaces.
 */
#ifndef EMU_DEVICE_FILE_H
#define EMU_DEVICE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    EMU_DEVICE_USERS_MAX = 64,
    EMU_DEVICE_NAME_MAX = 64,
    EMU_PAGE_BYTES = 64 << 10,
};

/* What went wrong, with the remedy, for a person. */
struct emu_error {
    char text[256];
};

struct emu_device_info {
    char name[EMU_DEVICE_NAME_MAX];
    uint8_t uuid[16];
    uint64_t memory_bytes;
    uint64_t free_bytes;
    uint64_t busy_ns; /* time that kernels and copies took since creation */
    unsigned n_processes;
    int pids[EMU_DEVICE_USERS_MAX];   /* the first n_processes are set */
    bool holds[EMU_DEVICE_USERS_MAX]; /* has that one memory there? */
};

struct emu_device_file;

/* All fallible calls return 0 or a negative errno, and fill `error` unless it is NULL.
 */

/* Create the file; it must not exist. memory_bytes is rounded down to whole pages. */
int emu_device_file_create(const char *path,
                           const uint8_t uuid[16],
                           const char *name,
                           uint64_t memory_bytes,
                           struct emu_error *error);

/* Look at a device without becoming a user; pages of dead users count as free. */
int emu_device_file_info(const char *path,
                         struct emu_device_info *ret_info,
                         struct emu_error *error);

/* Remove the file. Processes that still use it keep their memory until they end. */
int emu_device_file_remove(const char *path, struct emu_error *error);

/* Become a user. Errors: -EBUSY when all user slots are taken by live processes. */
int emu_device_file_open(const char *path,
                         struct emu_device_file **ret_file,
                         struct emu_error *error);
/* Give back every page this user still holds, and the slot. */
void emu_device_file_close(struct emu_device_file *file);
/* In a child after fork: forget the file; the parent keeps slot and pages. */
void emu_device_file_abandon(struct emu_device_file *file);

void emu_device_file_get_info(struct emu_device_file *file,
                              struct emu_device_info *ret_info);

/* Take n free pages, zeroed; pages[] and serials[] (may be NULL) receive their numbers.
 * Errors: -ENOMEM; nothing is taken then. */
int emu_device_file_take(struct emu_device_file *file,
                         size_t n,
                         uint32_t *pages,
                         uint32_t *serials);
/* Hold pages that another user holds too. -ESTALE if one was freed in between. */
int emu_device_file_share(struct emu_device_file *file,
                          size_t n,
                          const uint32_t *pages,
                          const uint32_t *serials);
void emu_device_file_drop(struct emu_device_file *file,
                          size_t n,
                          const uint32_t *pages);

/* Map pages, in order, at `address` (MAP_FIXED, read and write). */
int emu_device_file_map(struct emu_device_file *file,
                        void *address,
                        size_t n,
                        const uint32_t *pages);

void emu_device_file_add_busy(struct emu_device_file *file, uint64_t busy_ns);

#endif
