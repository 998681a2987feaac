/* SPDX-License-Identifier: Apache-2.0
 * ptx_operand.c - from the text of an operand to the slot that holds it.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ptx_parse.h"

static const char *const special_names[PTX_SPECIAL_MAX_] = {
    "%tid.x",      "%tid.y",       "%tid.z",       "%ntid.x",      "%ntid.y",
    "%ntid.z",     "%ctaid.x",     "%ctaid.y",     "%ctaid.z",     "%nctaid.x",
    "%nctaid.y",   "%nctaid.z",    "%laneid",      "%warpid",      "%nwarpid",
    "%smid",       "%lanemask_eq", "%lanemask_lt", "%lanemask_le", "%lanemask_gt",
    "%lanemask_ge"};

uint32_t operand_slot_new(struct ptx_parser *p, unsigned width)
{
    struct ptx_function *fn = p->body.fn;
    uint32_t bytes = width * PTX_LANES, slot = fn->frame_bytes;
    if (fn->frame_bytes > PTX_FRAME_BYTES_MAX - bytes) {
        parse_fail(p,
                   PTX_UNSUPPORTED,
                   "more registers than a frame of %d bytes holds",
                   PTX_FRAME_BYTES_MAX);
        return 0;
    }
    fn->frame_bytes += bytes;
    return slot;
}

uint32_t operand_constant(struct ptx_parser *p,
                          unsigned width,
                          uint64_t bits,
                          enum ptx_relative relative)
{
    struct ptx_function *fn = p->body.fn;
    for (uint32_t i = 0; i < fn->n_constants; i++)
        if (fn->constants[i].width == width && fn->constants[i].bits == bits &&
            fn->constants[i].relative == relative)
            return fn->constants[i].slot;
    if (!parse_grow(p, &fn->constants, fn->n_constants, sizeof *fn->constants))
        return 0;
    uint32_t slot = operand_slot_new(p, width);
    fn->constants[fn->n_constants++] =
        (struct ptx_constant){slot, (uint8_t)width, (uint8_t)relative, bits};
    return slot;
}

/* Slots are by width; 8-bit values live in 16 bits; predicates are 4 bytes in all, but
 * get the room of 32 lanes of one byte. */
static unsigned slot_width(enum ptx_type type)
{
    unsigned bytes = ptx_type_bytes(type);
    return bytes < 2 ? 2 : bytes;
}

/* The register that a name stands for: the innermost declaration. */
static struct registers *
find_register(struct ptx_parser *p, const char *name, uint32_t *ret_index)
{
    size_t len = strlen(name), digits = len;
    while (digits > 0 && isdigit((unsigned char)name[digits - 1]))
        digits--;
    unsigned long number =
        digits < len && len - digits < 9 ? strtoul(name + digits, NULL, 10) : 0;
    for (size_t i = p->body.n_registers; i-- > 0;) {
        struct registers *r = &p->body.registers[i];
        bool is_numbered = r->count > 0 && digits < len && number < r->count &&
                           strlen(r->name) == digits &&
                           strncmp(r->name, name, digits) == 0;
        if (is_numbered || (r->count == 0 && strcmp(r->name, name) == 0)) {
            *ret_index = is_numbered ? (uint32_t)number : 0;
            return r;
        }
    }
    return NULL;
}

static uint32_t register_slot(struct ptx_parser *p, struct registers *r, uint32_t index)
{
    if (r->slots[index] == PTX_NO_SLOT) {
        r->slots[index] = r->type == PTX_PRED
                              ? operand_slot_new(p, 1)
                              : operand_slot_new(p, slot_width(r->type));
        p->body.fn->n_registers++;
    }
    return r->slots[index];
}

static uint32_t special_slot(struct ptx_parser *p, const char *name)
{
    for (int i = 0; i < PTX_SPECIAL_MAX_; i++)
        if (strcmp(name, special_names[i]) == 0) {
            uint32_t *slot = &p->body.fn->special[i];
            if (*slot == PTX_NO_SLOT)
                *slot = operand_slot_new(p, 4);
            return *slot;
        }
    return PTX_NO_SLOT;
}

static const struct symbol *find_symbol(struct ptx_parser *p, const char *name)
{
    for (size_t i = p->body.n_symbols; i-- > 0;)
        if (strcmp(p->body.symbols[i].name, name) == 0)
            return &p->body.symbols[i];
    for (size_t i = p->n_symbols; i-- > 0;)
        if (strcmp(p->symbols[i].name, name) == 0)
            return &p->symbols[i];
    return NULL;
}

static bool is_float_type(enum ptx_type t)
{
    return t == PTX_F32 || t == PTX_F64 || t == PTX_F16 || t == PTX_BF16;
}

/* A literal number as a constant of a type. */
static uint32_t literal(struct ptx_parser *p, enum ptx_type type, unsigned width)
{
    bool is_negative = lex_accept(p, "-");
    struct token t = p->lexer.token;
    uint64_t bits = is_negative ? 0 - t.integer : t.integer;
    if (t.kind == TOKEN_FLOAT) {
        double number = t.number;
        float single;
        if (t.hex_width == 4) {
            memcpy(&single, &(uint32_t){(uint32_t)t.integer}, sizeof single);
            number = (double)single;
        } else if (t.hex_width == 8) {
            memcpy(&number, &t.integer, sizeof number);
        }
        number = is_negative ? -number : number;
        single = (float)number;
        if (type == PTX_F64 || (!is_float_type(type) && width == 8)) {
            memcpy(&bits, &number, sizeof bits);
        } else {
            bits = 0;
            memcpy(&bits, &single, sizeof single);
        }
        /* a NaN keeps its bits */
        if (t.hex_width == width && !is_negative)
            bits = t.integer;
    } else if (t.kind != TOKEN_INTEGER) {
        parse_fail(p,
                   PTX_SYNTAX,
                   "expected an operand, found '%.40s'",
                   t.kind == TOKEN_END ? "the end" : t.text);
        return 0;
    } else if (is_float_type(type)) {
        parse_fail(p, PTX_SYNTAX, "an integer where a float is needed");
        return 0;
    }
    lex_next(p);
    if (type == PTX_PRED)
        bits = bits ? UINT32_MAX : 0;
    return operand_constant(p,
                            width,
                            width < 8 ? bits & (((uint64_t)1 << 8 * width) - 1) : bits,
                            PTX_ABSOLUTE);
}

/* A word operand: its slot and width, or PTX_NO_SLOT with the error said. */
static uint32_t word(struct ptx_parser *p, enum ptx_type type, unsigned *ret_width)
{
    const char *name = p->lexer.token.text;
    uint32_t index, slot;
    struct registers *r = find_register(p, name, &index);
    if (r) {
        if ((r->type == PTX_PRED) != (type == PTX_PRED)) {
            parse_fail(
                p, PTX_SYNTAX, "%.60s: a predicate and a number are mixed", name);
            return PTX_NO_SLOT;
        }
        *ret_width = r->type == PTX_PRED ? 4 : slot_width(r->type);
        slot = register_slot(p, r, index);
    } else if ((slot = special_slot(p, name)) != PTX_NO_SLOT) {
        *ret_width = 4;
    } else {
        const struct symbol *s = find_symbol(p, name);
        unsigned width = type == PTX_NONE ? 8 : slot_width(type);
        if (!s || width < 4) {
            parse_fail(p, PTX_SYNTAX, "%.60s is not declared", name);
            return PTX_NO_SLOT;
        }
        *ret_width = width;
        slot = operand_constant(p,
                                width,
                                s->offset,
                                s->space == PTX_GLOBAL ? PTX_IMAGE
                                : s->is_dynamic        ? PTX_DYNAMIC
                                                       : PTX_ABSOLUTE);
    }
    lex_next(p);
    return slot;
}

uint32_t
operand_source_any(struct ptx_parser *p, enum ptx_type type, unsigned *ret_width)
{
    *ret_width = slot_width(type);
    if (p->lexer.token.kind == TOKEN_WORD)
        return word(p, type, ret_width);
    return literal(p, type, type == PTX_PRED ? 1 : *ret_width);
}

uint32_t operand_source(struct ptx_parser *p, enum ptx_type type)
{
    unsigned width;
    uint32_t slot = operand_source_any(p, type, &width);
    if (slot != PTX_NO_SLOT && type != PTX_PRED && width != slot_width(type))
        parse_fail(p,
                   PTX_SYNTAX,
                   "an operand of %u bits where %u are needed",
                   width * 8,
                   slot_width(type) * 8);
    return slot;
}

uint32_t operand_target_any(struct ptx_parser *p, unsigned *ret_width)
{
    uint32_t index;
    if (lex_accept(p, "_"))
        return PTX_NO_SLOT;
    struct registers *r = find_register(p, p->lexer.token.text, &index);
    if (p->lexer.token.kind != TOKEN_WORD || !r) {
        parse_fail(
            p, PTX_SYNTAX, "expected a register, found '%.40s'", p->lexer.token.text);
        return PTX_NO_SLOT;
    }
    *ret_width = r->type == PTX_PRED ? 0 : slot_width(r->type); /* 0: a predicate */
    lex_next(p);
    return register_slot(p, r, index);
}

uint32_t operand_target(struct ptx_parser *p, enum ptx_type type)
{
    unsigned width = 0, needed = type == PTX_PRED ? 0 : slot_width(type);
    uint32_t slot = operand_target_any(p, &width);
    if (slot == PTX_NO_SLOT)
        parse_fail(p, PTX_UNSUPPORTED, "the result '_' of this instruction");
    else if (width != needed)
        parse_fail(p, PTX_SYNTAX, "the result register does not fit the type");
    return slot;
}

void operand_address(struct ptx_parser *p, struct ptx_ins *in)
{
    unsigned width = 8;
    lex_expect(p, "[");
    if (p->lexer.token.kind == TOKEN_WORD) {
        in->a = word(p, PTX_NONE, &width);
        if (width < 4)
            parse_fail(p, PTX_SYNTAX, "an address of %u bits", width * 8);
        if (lex_accept(p, "+"))
            in->offset = (int64_t)lex_integer(p);
        else if (lex_is(p, "-"))
            in->offset = (int64_t)lex_integer(p);
    } else {
        in->a = operand_constant(p, 8, lex_integer(p), PTX_ABSOLUTE);
    }
    in->width_a = (uint8_t)width;
    lex_expect(p, "]");
}
