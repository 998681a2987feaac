/* SPDX-License-Identifier: Apache-2.0
 * nh.S - the text of nh.ptx in the library, ended by a zero.
 */
        .section .rodata
        .globl orri_nh_ptx
        .hidden orri_nh_ptx
        .type orri_nh_ptx, @object
orri_nh_ptx:
        .incbin "nh.ptx"
        .byte 0
        .size orri_nh_ptx, . - orri_nh_ptx
        .section .note.GNU-stack, "", @progbits
