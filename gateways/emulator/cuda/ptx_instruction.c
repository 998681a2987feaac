/* SPDX-License-Identifier: Apache-2.0
 * ptx_instruction.c - one instruction from text to bytecode: the ordinary arithmetic by
 * a table, the others by a function each (ptx_special.c).
 */
#include "ptx_instruction.h"

#include <stdlib.h>
#include <string.h>

enum ptx_type ptx_type_by_name(const char *name, size_t len)
{
    static const char *const names[] = {"",
                                        "pred",
                                        "b8",
                                        "u8",
                                        "s8",
                                        "b16",
                                        "u16",
                                        "s16",
                                        "b32",
                                        "u32",
                                        "s32",
                                        "b64",
                                        "u64",
                                        "s64",
                                        "f16",
                                        "bf16",
                                        "f32",
                                        "f64"};
    for (unsigned i = 1; i < sizeof names / sizeof names[0]; i++)
        if (strlen(names[i]) == len && memcmp(names[i], name, len) == 0)
            return (enum ptx_type)i;
    return PTX_NONE;
}

/* d, a, b, c as: t the type, w twice as wide, i 32 bits, p a predicate. */
struct row {
    const char *name;
    enum ptx_type type; /* PTX_B*: also for the signed and unsigned of that width */
    enum ptx_op op;
    const char *operands;
};
#define WIDTHS(name, OP, operands)                                                     \
    {name, PTX_B16, PTX_##OP##_16, operands},                                          \
        {name, PTX_B32, PTX_##OP##_32, operands},                                      \
    {                                                                                  \
        name, PTX_B64, PTX_##OP##_64, operands                                         \
    }
#define SIGNS(name, OP, operands)                                                      \
    {name, PTX_S16, PTX_##OP##_S16, operands},                                         \
        {name, PTX_U16, PTX_##OP##_U16, operands},                                     \
        {name, PTX_S32, PTX_##OP##_S32, operands},                                     \
        {name, PTX_U32, PTX_##OP##_U32, operands},                                     \
        {name, PTX_S64, PTX_##OP##_S64, operands},                                     \
    {                                                                                  \
        name, PTX_U64, PTX_##OP##_U64, operands                                        \
    }
#define FLOATS(name, OP, operands)                                                     \
    {name, PTX_F32, PTX_##OP##_F32, operands},                                         \
    {                                                                                  \
        name, PTX_F64, PTX_##OP##_F64, operands                                        \
    }
#define HIGH(name, OP, operands)                                                       \
    {name, PTX_S32, PTX_##OP##_S32, operands},                                         \
        {name, PTX_U32, PTX_##OP##_U32, operands},                                     \
        {name, PTX_S64, PTX_##OP##_S64, operands},                                     \
    {                                                                                  \
        name, PTX_U64, PTX_##OP##_U64, operands                                        \
    }
#define WIDE(name, OP, operands)                                                       \
    {name, PTX_S16, PTX_##OP##_S16, operands},                                         \
        {name, PTX_U16, PTX_##OP##_U16, operands},                                     \
        {name, PTX_S32, PTX_##OP##_S32, operands},                                     \
    {                                                                                  \
        name, PTX_U32, PTX_##OP##_U32, operands                                        \
    }

static const struct row rows[] = {
    WIDTHS("add", ADD, "ttt"),
    FLOATS("add", ADD, "ttt"),
    WIDTHS("sub", SUB, "ttt"),
    FLOATS("sub", SUB, "ttt"),
    FLOATS("mul", MUL, "ttt"),
    WIDTHS("mul.lo", MULLO, "ttt"),
    HIGH("mul.hi", MULHI, "ttt"),
    WIDE("mul.wide", MULWIDE, "wtt"),
    WIDTHS("mad.lo", MADLO, "tttt"),
    HIGH("mad.hi", MADHI, "tttt"),
    WIDE("mad.wide", MADWIDE, "wttw"),
    FLOATS("mad", FMA, "tttt"),
    FLOATS("fma", FMA, "tttt"),
    SIGNS("div", DIV, "ttt"),
    FLOATS("div", DIV, "ttt"),
    SIGNS("rem", REM, "ttt"),
    SIGNS("min", MIN, "ttt"),
    FLOATS("min", MIN, "ttt"),
    SIGNS("max", MAX, "ttt"),
    FLOATS("max", MAX, "ttt"),
    WIDTHS("neg", NEG, "tt"),
    FLOATS("neg", NEG, "tt"),
    WIDTHS("abs", ABS, "tt"),
    FLOATS("abs", ABS, "tt"),
    FLOATS("sqrt", SQRT, "tt"),
    FLOATS("rsqrt", RSQRT, "tt"),
    FLOATS("rcp", RCP, "tt"),
    FLOATS("copysign", COPYSIGN, "ttt"),
    {"ex2", PTX_F32, PTX_EX2_F32, "tt"},
    {"lg2", PTX_F32, PTX_LG2_F32, "tt"},
    {"sin", PTX_F32, PTX_SIN_F32, "tt"},
    {"cos", PTX_F32, PTX_COS_F32, "tt"},
    {"tanh", PTX_F32, PTX_TANH_F32, "tt"},
    WIDTHS("and", AND, "ttt"),
    WIDTHS("or", OR, "ttt"),
    WIDTHS("xor", XOR, "ttt"),
    WIDTHS("not", NOT, "tt"),
    {"and", PTX_PRED, PTX_AND_P, "ttt"},
    {"or", PTX_PRED, PTX_OR_P, "ttt"},
    {"xor", PTX_PRED, PTX_XOR_P, "ttt"},
    {"not", PTX_PRED, PTX_NOT_P, "tt"},
    WIDTHS("shl", SHL, "tti"),
    SIGNS("shr", SHR, "tti"),
    {"shr", PTX_B16, PTX_SHR_U16, "tti"},
    {"shr", PTX_B32, PTX_SHR_U32, "tti"},
    {"shr", PTX_B64, PTX_SHR_U64, "tti"},
    WIDTHS("selp", SELP, "tttp"),
    {"selp", PTX_F32, PTX_SELP_32, "tttp"},
    {"selp", PTX_F64, PTX_SELP_64, "tttp"},
    {"popc", PTX_B32, PTX_POPC_32, "it"},
    {"popc", PTX_B64, PTX_POPC_64, "it"},
    {"clz", PTX_B32, PTX_CLZ_32, "it"},
    {"clz", PTX_B64, PTX_CLZ_64, "it"},
    {"brev", PTX_B32, PTX_BREV_32, "tt"},
    {"brev", PTX_B64, PTX_BREV_64, "tt"},
    {"bfe", PTX_U32, PTX_BFE_U32, "ttii"},
    {"bfe", PTX_S32, PTX_BFE_S32, "ttii"},
    {"bfe", PTX_U64, PTX_BFE_U64, "ttii"},
    {"bfe", PTX_S64, PTX_BFE_S64, "ttii"},
    {"bfi", PTX_B32, PTX_BFI_32, "tttii"},
    {"bfi", PTX_B64, PTX_BFI_64, "tttii"},
    {"prmt", PTX_B32, PTX_PRMT, "tttt"},
    {"shf.l.clamp", PTX_B32, PTX_SHF_L, "tttt"},
    {"shf.r.clamp", PTX_B32, PTX_SHF_R, "tttt"},
    {"shf.l.wrap", PTX_B32, PTX_SHF_LW, "tttt"},
    {"shf.r.wrap", PTX_B32, PTX_SHF_RW, "tttt"},
};

static bool is_same_width_integer(enum ptx_type a, enum ptx_type b)
{
    return a < PTX_F16 && b < PTX_F16 && a != PTX_PRED && b != PTX_PRED &&
           ptx_type_bytes(a) == ptx_type_bytes(b);
}

static bool is_bits(enum ptx_type t)
{
    return t == PTX_B16 || t == PTX_B32 || t == PTX_B64;
}

static const struct row *find_row(const char *name, enum ptx_type type)
{
    const struct row *fits = NULL;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *r = &rows[i];
        if (strcmp(r->name, name) != 0)
            continue;
        if (r->type == type)
            return r;
        if (is_bits(r->type) && is_same_width_integer(r->type, type))
            fits = r;
    }
    return fits;
}

bool opcode_has(const struct opcode *o, const char *part)
{
    for (unsigned i = 0; i < o->n_parts; i++)
        if (strcmp(o->parts[i], part) == 0)
            return true;
    return false;
}

enum ptx_rounding opcode_rounding(const struct opcode *o)
{
    if (opcode_has(o, "rz") || opcode_has(o, "rzi"))
        return PTX_RZ;
    if (opcode_has(o, "rm") || opcode_has(o, "rmi"))
        return PTX_RM;
    return opcode_has(o, "rp") || opcode_has(o, "rpi") ? PTX_RP : PTX_RN;
}

/* Cut "fma.rn.f32" into base, parts and types. */
static void split(struct ptx_parser *p, struct opcode *o)
{
    char *rest = NULL;
    memcpy(o->text, p->lexer.token.text, sizeof o->text);
    memcpy(o->cut, o->text, sizeof o->cut);
    o->base = strtok_r(o->cut, ".", &rest);
    for (char *s; o->base && (s = strtok_r(NULL, ".", &rest));) {
        enum ptx_type t = ptx_type_by_name(s, strlen(s));
        if (t != PTX_NONE && o->n_types < OPCODE_TYPES_MAX)
            o->types[o->n_types++] = t;
        else if (t == PTX_NONE && o->n_parts < OPCODE_PARTS_MAX)
            o->parts[o->n_parts++] = s;
        else
            o->base = NULL;
    }
    if (!o->base)
        parse_fail(p, PTX_SYNTAX, "'%.60s' is not an instruction", o->text);
    lex_next(p);
}

void emit(struct ptx_parser *p, const struct ptx_ins *in)
{
    struct ptx_function *fn = p->body.fn;
    if (p->status == PTX_OK && parse_grow(p, &fn->code, fn->n_code, sizeof *fn->code))
        fn->code[fn->n_code++] = *in;
}

/* The name of the row: what changes the meaning stays, what is about precision goes. */
static bool row_name(const struct opcode *o, char *name, size_t size)
{
    static const char *const kept[] = {"lo", "hi", "wide", "l", "r", "clamp", "wrap"};
    static const char *const dropped[] = {
        "rn", "rz", "rm", "rp", "ftz", "sat", "approx", "full"};
    size_t n = strlen(o->base);
    if (n >= size)
        return false;
    memcpy(name, o->base, n + 1);
    for (unsigned i = 0; i < o->n_parts; i++) {
        bool is_kept = false, is_dropped = false;
        for (size_t k = 0; k < sizeof kept / sizeof kept[0]; k++)
            is_kept = is_kept || strcmp(o->parts[i], kept[k]) == 0;
        for (size_t k = 0; k < sizeof dropped / sizeof dropped[0]; k++)
            is_dropped = is_dropped || strcmp(o->parts[i], dropped[k]) == 0;
        size_t len = strlen(o->parts[i]);
        if (is_kept && n + len + 1 < size) {
            name[n] = '.';
            memcpy(name + n + 1, o->parts[i], len + 1);
            n += len + 1;
        } else if (!is_dropped) {
            return false;
        }
    }
    return true;
}

static enum ptx_type operand_type(char code, enum ptx_type t)
{
    switch (code) {
    case 'w':
        return ptx_type_bytes(t) == 2 ? PTX_B32 : PTX_B64;
    case 'i':
        return PTX_B32;
    case 'p':
        return PTX_PRED;
    default:
        return t;
    }
}

/* Directed rounding exists for some; sat is an instruction of its own afterwards. */
static void
set_rounding(struct ptx_parser *p, const struct opcode *o, struct ptx_ins *in)
{
    in->mode = (uint8_t)opcode_rounding(o);
    if (in->mode == PTX_RN || o->types[0] < PTX_F16)
        return;
    if (in->op == PTX_ADD_F32)
        in->op = PTX_ADDR_F32;
    else if (in->op == PTX_SUB_F32)
        in->op = PTX_SUBR_F32;
    else if (in->op == PTX_MUL_F32)
        in->op = PTX_MULR_F32;
    else if (in->op == PTX_FMA_F32)
        in->op = PTX_FMAR_F32;
    else
        parse_fail(
            p, PTX_UNSUPPORTED, "'%.60s' is not emulated: its rounding", o->text);
}

static void arithmetic(struct ptx_parser *p, const struct opcode *o, struct ptx_ins *in)
{
    char name[32];
    enum ptx_type t = o->n_types == 1 ? o->types[0] : PTX_NONE;
    const struct row *row = row_name(o, name, sizeof name) ? find_row(name, t) : NULL;
    if (!row) {
        parse_fail(p, PTX_UNSUPPORTED, "'%.60s' is not emulated", o->text);
        return;
    }
    in->op = (uint16_t)row->op;
    set_rounding(p, o, in);
    uint32_t *const slots[] = {&in->a, &in->b, &in->c, &in->vec[0]};
    enum ptx_type target = operand_type(row->operands[0], t);
    in->d = operand_target(p, target);
    in->width_d = (uint8_t)ptx_type_bytes(target);
    in->width_a = (uint8_t)ptx_type_bytes(t);
    for (size_t i = 1; row->operands[i]; i++) {
        lex_expect(p, ",");
        *slots[i - 1] = operand_source(p, operand_type(row->operands[i], t));
    }
    if (row->operands[2] == '\0')
        in->b = in->a; /* the loops of one operand may read two */
    emit(p, in);
    if (opcode_has(o, "sat")) {
        if (t != PTX_F32)
            parse_fail(p, PTX_UNSUPPORTED, "'%.60s' is not emulated: sat", o->text);
        in->op = PTX_SAT_F32;
        in->a = in->b = in->d;
        emit(p, in);
    }
}

void parse_instruction(struct ptx_parser *p)
{
    struct opcode o = {0};
    struct ptx_ins in = {.guard = PTX_NO_SLOT,
                         .d = PTX_NO_SLOT,
                         .a = PTX_NO_SLOT,
                         .b = PTX_NO_SLOT,
                         .c = PTX_NO_SLOT,
                         .n_vec = 1};
    for (int i = 0; i < 4; i++)
        in.vec[i] = PTX_NO_SLOT;
    in.line = p->lexer.token.line;
    if (lex_accept(p, "@")) {
        in.guard_not = lex_accept(p, "!");
        in.guard = operand_source(p, PTX_PRED);
    }
    if (p->lexer.token.kind != TOKEN_WORD) {
        parse_fail(p,
                   PTX_SYNTAX,
                   "expected an instruction, found '%.40s'",
                   p->lexer.token.text);
        return;
    }
    split(p, &o);
    if (p->status == PTX_OK && !parse_special(p, &o, &in))
        arithmetic(p, &o, &in);
    lex_expect(p, ";");
}
