/* SPDX-License-Identifier: Apache-2.0
 * trampoline.S - the table of the driver's addresses, and the names that are passed on as they are.
 *
 * orri_cuda_slots[i] is where call i goes. At first that is a stub which has the real library
 * opened and the address filled in, with all argument registers kept, as a lazy PLT does; so a
 * program that never calls CUDA never opens the driver. An assembler jump keeps arguments of any
 * kind: floating point, structures by value, more than C wrappers know of.
 */
#if !defined(__x86_64__)
#error "gateways/rank/cuda: trampoline.S knows x86-64 only: write the jump, the stub and the resolver for this processor"
#endif

#define WRAPPED(name)          .quad orri_cuda_lazy_##name;
#define GATED(name, n)         .quad orri_cuda_lazy_##name;
#define NOTED(name, n, why)    .quad orri_cuda_lazy_##name;
#define FORWARD(name)          .quad orri_cuda_lazy_##name;
        .data
        .balign 8
        .globl orri_cuda_slots
        .hidden orri_cuda_slots
        .type orri_cuda_slots, @object
orri_cuda_slots:
#include "names.def"
        .size orri_cuda_slots, . - orri_cuda_slots
#undef WRAPPED
#undef GATED
#undef NOTED
#undef FORWARD

#define STUB(name) orri_cuda_lazy_##name: endbr64; movl $index, %r11d; jmp resolve; .set index, index + 1;
#define WRAPPED(name)          STUB(name)
#define GATED(name, n)         STUB(name)
#define NOTED(name, n, why)    STUB(name)
#define FORWARD(name)          STUB(name)
        .text
        .set index, 0
#include "names.def"
#undef WRAPPED
#undef GATED
#undef NOTED
#undef FORWARD

#define SKIP                   .set index, index + 1;
#define WRAPPED(name)          SKIP
#define GATED(name, n)         SKIP
#define NOTED(name, n, why)    SKIP
#define FORWARD(name)          .globl name; .type name, @function; name: endbr64; \
        jmp *orri_cuda_slots + 8 * index(%rip); .size name, . - name; .set index, index + 1;
        .set index, 0
#include "names.def"

/* r11d: the call. Fill its slot and go there. */
resolve:
        pushq %rdi
        pushq %rsi
        pushq %rdx
        pushq %rcx
        pushq %r8
        pushq %r9
        pushq %rax
        subq $128, %rsp
        movups %xmm0, (%rsp)
        movups %xmm1, 16(%rsp)
        movups %xmm2, 32(%rsp)
        movups %xmm3, 48(%rsp)
        movups %xmm4, 64(%rsp)
        movups %xmm5, 80(%rsp)
        movups %xmm6, 96(%rsp)
        movups %xmm7, 112(%rsp)
        movl %r11d, %edi
        call orri_cuda_resolve
        movq %rax, %r11
        movups (%rsp), %xmm0
        movups 16(%rsp), %xmm1
        movups 32(%rsp), %xmm2
        movups 48(%rsp), %xmm3
        movups 64(%rsp), %xmm4
        movups 80(%rsp), %xmm5
        movups 96(%rsp), %xmm6
        movups 112(%rsp), %xmm7
        addq $128, %rsp
        popq %rax
        popq %r9
        popq %r8
        popq %rcx
        popq %rdx
        popq %rsi
        popq %rdi
        jmp *%r11

        .section .note.GNU-stack, "", @progbits
