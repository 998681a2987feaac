/* SPDX-License-Identifier: Apache-2.0
 * device_cuda.h - the devices that NVIDIA's driver lists.
 *
 * The driver is never loaded into the host: initializing it can take seconds, hang, or crash.  Each probe is a process of
 * its own, this program started anew, that has a deadline.
 * What health means here: the driver initializes and answers for the device; and, where NVML is installed, the device has no
 * uncorrected memory errors since it was started.
 */
#ifndef ORR_DEVICE_CUDA_H
#define ORR_DEVICE_CUDA_H

#include "device.h"

struct orr_device_cuda_config {
    const char *driver;  /* path or name for dlopen; NULL: libcuda.so.1 */
    uint32_t timeout_ms; /* of a probe; 0: 60 s */
};

/* Errors: ORR_EINVAL config, ORR_ENOMEM.  Whether there is a driver is for the first probe to tell. */
ORR_NODISCARD enum orr_err
orr_device_cuda_open(const struct orr_device_cuda_config *config,
                     struct orr_device **ret_device,
                     struct orr_error *err);

/* A program that opens this must hand over to it when its first argument is this one. */
#define ORR_DEVICE_PROBE_ARG "--device-probe"
int orr_device_probe_main(int argc, char **argv);

/* "NVIDIA H100 80GB HBM3" -> "H100"; a name that is not known keeps its words, joined by '-'. */
void orr_device_type_of(const char *name, char *type, size_t cap);

#endif
