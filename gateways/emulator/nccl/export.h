/* SPDX-License-Identifier: Apache-2.0
 * export.h - how a call leaves the library: as ncclX, and as pncclX for profilers.
 */
#ifndef ORRI_EXPORT_H
#define ORRI_EXPORT_H

#define EXPORT __attribute__((visibility("default")))
#define ALIAS(name)                                                                    \
    extern __typeof__(nccl##name) pnccl##name                                          \
        __attribute__((alias("nccl" #name), visibility("default")))

#endif
