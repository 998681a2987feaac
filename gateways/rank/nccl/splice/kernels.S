/* SPDX-License-Identifier: Apache-2.0
 * kernels.S - the text of kernels.ptx in the library, ended by a zero.
 */
        .section .rodata
        .globl orri_splice_ptx
        .hidden orri_splice_ptx
        .type orri_splice_ptx, @object
orri_splice_ptx:
        .incbin "kernels.ptx"
        .byte 0
        .size orri_splice_ptx, . - orri_splice_ptx
        .section .note.GNU-stack, "", @progbits
