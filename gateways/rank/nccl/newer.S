/* SPDX-License-Identifier: Apache-2.0
 * newer.S - the calls of newer.def: all argument registers are kept, and the stack is the caller's when the real call begins.
 */
#if !defined(__x86_64__)
#error "gateways/rank/nccl: newer.S knows x86-64 only: write the jump for this processor, or leave newer.def empty"
#endif
        .text
        .set index, 0
#define NEWER(name) \
        .globl nccl##name; .type nccl##name, @function; .globl pnccl##name; .type pnccl##name, @function; \
        nccl##name: pnccl##name: endbr64; movl $index, %r11d; jmp forward; \
        .size nccl##name, . - nccl##name; .size pnccl##name, . - pnccl##name; .set index, index + 1;
#include "newer.def"

forward:
        pushq %r9
        pushq %r8
        pushq %rcx
        pushq %rdx
        pushq %rsi
        pushq %rdi
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
        leaq 136(%rsp), %rdi
        movl %r11d, %esi
        call orri_newer_resolve
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
        popq %rdi
        popq %rsi
        popq %rdx
        popq %rcx
        popq %r8
        popq %r9
        jmp *%r11
        .section .note.GNU-stack, "", @progbits
