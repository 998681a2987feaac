/* SPDX-License-Identifier: Apache-2.0
 * hasher.h - the hashes of pieces of device memory: on the device, or on the host where its kernel does not run, gives another
 * result, or is slower.  Which, the first piece shows; ORRERY_MEMORY_HASH=device or =host says it.
 */
#ifndef ORR_RANK_CUDA_SHARE_HASHER_H
#define ORR_RANK_CUDA_SHARE_HASHER_H

#include "../real.h"
#include "nh.h"

enum orri_hash_way { ORRI_HASH_UNKNOWN, ORRI_HASH_DEVICE, ORRI_HASH_HOST };

struct orri_hasher {               /* all of it goes with the context */
    const struct orri_nh_key *key; /* borrowed */
    size_t piece_bytes;
    enum orri_hash_way way;
    bool is_ready;
    CUmodule module;
    CUfunction kernel;
    CUstream stream;
    CUdeviceptr memory; /* key, addresses of pieces, sums */
    void *host;         /* owned: sums, or a piece */
};

/* The context is current, and no work in it touches the pieces.  Blocks. */
CUresult orri_hasher_run(struct orri_hasher *h,
                         const CUdeviceptr *pieces,
                         size_t n,
                         struct orri_hash *ret_hashes);
/* The context is gone, and what was in it. */
void orri_hasher_forget(struct orri_hasher *h);

#endif
