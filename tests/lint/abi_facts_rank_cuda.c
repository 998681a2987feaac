/* SPDX-License-Identifier: Apache-2.0
 * abi_facts_rank_cuda.c - facts about the driver API that only the interposer uses, checked by the compiler: against its own abi.h,
 * and, where the toolkit is installed, against cuda.h (ABI_FACTS_TOOLKIT).
 */
#include <stddef.h>
#ifdef ABI_FACTS_TOOLKIT
#include <cuda.h>
typedef CUmemPoolProps pool_props;
typedef CUgraphNodeParams node_params;
enum { MEM_ALLOC = CU_GRAPH_NODE_TYPE_MEM_ALLOC };
#define HANDLE_TYPES handleTypes
#else
#include "abi.h"
typedef struct orri_pool_props pool_props;
typedef struct orri_node_params node_params;
enum { MEM_ALLOC = ORRI_GRAPH_NODE_MEM_ALLOC };
#define HANDLE_TYPES handle_types
#endif

#define FACT(cond) _Static_assert(cond, #cond)

FACT(offsetof(pool_props, HANDLE_TYPES) == 4);
FACT(offsetof(pool_props, location) == 8);
FACT(offsetof(node_params, type) == 0);
FACT(MEM_ALLOC == 10);
FACT(CU_STREAM_CAPTURE_STATUS_NONE == 0);
FACT(sizeof(CUstreamCaptureStatus) == 4);
FACT(sizeof(CUipcMemHandle) == 64);
FACT(sizeof(CUipcEventHandle) == 64);
FACT(sizeof(CUmemoryPool) == 8);
FACT(sizeof(CUgreenCtx) == 8);
