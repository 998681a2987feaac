/* SPDX-License-Identifier: Apache-2.0
 * symbols.c - cuGetProcAddress: how the CUDA runtime gets at everything.
 *
 * The driver is asked first, which settles what exists, in which version and for which kind of
 * default stream; its answer is replaced by ours where we have that address under a name. What
 * we do not know (newer calls) is passed on. A call that we do know, but that the driver gives
 * under an address that none of its names has, would go round the gate: it is noted, so that
 * the process is not taken for one that can be stopped.
 */
#include "abi.h"
#include "real.h"
#include "reason.h"

/* Must be the driver's answer for a query of themselves, or a program gets past us by asking twice. */
static void *replace(const char *symbol, void *real)
{
    void *ours = orri_cuda_ours(real);
    if (ours)
        return ours;
    if (real && orri_cuda_is_known(symbol))
        orri_cuda_note("calls the driver under an address that has no name");
    return real;
}

ORRI_EXPORT CUresult cuGetProcAddress_v2(const char *symbol,
                                         void **pfn,
                                         int version,
                                         cuuint64_t flags,
                                         CUdriverProcAddressQueryResult *status)
{
    CUresult rc = REAL(cuGetProcAddress_v2)(symbol, pfn, version, flags, status);
    if (!rc && *pfn)
        *pfn = replace(symbol, *pfn);
    return rc;
}

ORRI_EXPORT CUresult cuGetProcAddress(const char *symbol,
                                      void **pfn,
                                      int version,
                                      cuuint64_t flags)
{
    CUresult rc = REAL(cuGetProcAddress)(symbol, pfn, version, flags);
    if (!rc && *pfn)
        *pfn = replace(symbol, *pfn);
    return rc;
}
