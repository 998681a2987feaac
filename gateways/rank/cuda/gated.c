/* SPDX-License-Identifier: Apache-2.0
 * gated.c - the calls that pass the gate and go on as they are: most of the driver.
 *
 * A CUDA call takes integers and pointers only (what does not is in trampoline.S), so a wrapper
 * need not know their types, only how many there are.
 */
#include "gate.h"
#include "real.h"
#include "reason.h"

typedef uintptr_t w;
#define T0  void
#define T1  w a
#define T2  T1, w b
#define T3  T2, w c
#define T4  T3, w d
#define T5  T4, w e
#define T6  T5, w f
#define T7  T6, w g
#define T8  T7, w h
#define T9  T8, w i
#define T10 T9, w j
#define T11 T10, w k
#define A0
#define A1  a
#define A2  A1, b
#define A3  A2, c
#define A4  A3, d
#define A5  A4, e
#define A6  A5, f
#define A7  A6, g
#define A8  A7, h
#define A9  A8, i
#define A10 A9, j
#define A11 A10, k

/* The names are pasted before anything else is done with them: some are macros in gpu_abi.h. */
#define PASS(call, function, label, n, then)                                           \
    ORRI_EXPORT CUresult function(T##n) __asm__(label);                                \
    CUresult function(T##n)                                                            \
    {                                                                                  \
        orri_cuda_enter(call);                                                         \
        CUresult (*real)(T##n) = (CUresult(*)(T##n))(void (*)(                         \
            void))atomic_load_explicit(&orri_cuda_slots[call], memory_order_relaxed);  \
        CUresult rc = real(A##n);                                                      \
        then;                                                                          \
        orri_cuda_leave();                                                             \
        return rc;                                                                     \
    }
#define WRAPPED(name)
#define FORWARD(name)
#define GATED(name, n) PASS(CALL_##name, pass_##name, #name, n, (void)0)
#define NOTED(name, n, why)                                                            \
    PASS(CALL_##name,                                                                  \
         pass_##name,                                                                  \
         #name,                                                                        \
         n,                                                                            \
         if (rc == CUDA_SUCCESS) orri_cuda_note("uses " why))
#include "names.def"
