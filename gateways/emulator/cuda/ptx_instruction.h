/* SPDX-License-Identifier: Apache-2.0
 * ptx_instruction.h - an opcode in its parts, between the two files that parse it.
 */
#ifndef EMU_PTX_INSTRUCTION_H
#define EMU_PTX_INSTRUCTION_H

#include "ptx_parse.h"

enum { OPCODE_PARTS_MAX = 12, OPCODE_TYPES_MAX = 3 };

struct opcode {
    char text[PTX_NAME_MAX];
    char cut[PTX_NAME_MAX];
    const char *base;                    /* what follows points into cut */
    const char *parts[OPCODE_PARTS_MAX]; /* between the dots, without the types */
    enum ptx_type types[OPCODE_TYPES_MAX];
    unsigned n_parts, n_types;
};

bool opcode_has(const struct opcode *o, const char *part);
enum ptx_rounding opcode_rounding(const struct opcode *o);
void emit(struct ptx_parser *p, const struct ptx_ins *in);

/* False: not one of the special ones. */
bool parse_special(struct ptx_parser *p, const struct opcode *o, struct ptx_ins *in);

#endif
