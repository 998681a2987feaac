/* SPDX-License-Identifier: Apache-2.0
 * ptx_special.c - the instructions whose operands follow no pattern.
 */
#include <stdlib.h>
#include <string.h>

#include "ptx_instruction.h"

static void unsupported(struct ptx_parser *p, const struct opcode *o)
{
    parse_fail(p, PTX_UNSUPPORTED, "'%.60s' is not emulated", o->text);
}

static enum ptx_type only_type(struct ptx_parser *p, const struct opcode *o)
{
    if (o->n_types == 1)
        return o->types[0];
    parse_fail(p, PTX_SYNTAX, "'%.60s' needs one type", o->text);
    return PTX_B32;
}

/* Position of the one of `names` that is a part; -1 if none is. */
static int which_part(const struct opcode *o, const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        if (opcode_has(o, names[i]))
            return i;
    return -1;
}
#define WHICH(o, names) which_part(o, names, (int)(sizeof(names) / sizeof(names)[0]))

static void mov_vector(struct ptx_parser *p, const struct opcode *o, struct ptx_ins *in)
{
    enum ptx_type t = only_type(p, o),
                  half = ptx_type_bytes(t) == 8 ? PTX_B32 : PTX_B16;
    unsigned width = 0;
    if (ptx_type_bytes(t) < 4) {
        unsupported(p, o);
        return;
    }
    bool is_unpack = lex_accept(p, "{");
    in->width_a = in->width_d = (uint8_t)ptx_type_bytes(t);
    if (is_unpack) {
        in->op = half == PTX_B32 ? PTX_UNPACK2_32 : PTX_UNPACK2_16;
        for (int i = 0; i < 2; i++) {
            in->vec[i] = operand_target_any(p, &width);
            if (in->vec[i] != PTX_NO_SLOT && width != ptx_type_bytes(half))
                parse_fail(p, PTX_SYNTAX, "the parts do not fit the type");
            lex_expect(p, i ? "}" : ",");
        }
        lex_expect(p, ",");
        in->a = operand_source(p, t);
    } else {
        in->op = half == PTX_B32 ? PTX_PACK2_32 : PTX_PACK2_16;
        in->d = operand_target(p, t);
        lex_expect(p, ",");
        lex_expect(p, "{");
        for (int i = 0; i < 2; i++) {
            in->vec[i] = operand_source(p, half);
            lex_expect(p, i ? "}" : ",");
        }
    }
    emit(p, in);
}

static bool is_clock(const struct ptx_parser *p)
{
    return lex_is(p, "%clock") || lex_is(p, "%clock64") || lex_is(p, "%globaltimer");
}

static void mov(struct ptx_parser *p, const struct opcode *o, struct ptx_ins *in)
{
    enum ptx_type t = only_type(p, o);
    if (lex_is(p, "{")) {
        mov_vector(p, o, in);
        return;
    }
    struct ptx_lexer before = p->lexer;
    in->d = operand_target(p, t);
    lex_expect(p, ",");
    in->width_d = (uint8_t)ptx_type_bytes(t);
    if (lex_is(p, "{")) {
        p->lexer = before;
        mov_vector(p, o, in);
        return;
    }
    if (is_clock(p)) {
        lex_next(p);
        in->op = PTX_CLOCK;
    } else {
        in->a = in->b = operand_source(p, t);
        unsigned bytes = ptx_type_bytes(t);
        in->op = t == PTX_PRED ? PTX_MOV_P
                 : bytes == 8  ? PTX_MOV_64
                 : bytes == 4  ? PTX_MOV_32
                               : PTX_MOV_16;
    }
    emit(p, in);
}

static enum ptx_space space_of(const struct opcode *o)
{
    static const char *const names[] = {
        "global", "const", "shared", "shared::cta", "local", "param", "param::entry"};
    static const enum ptx_space spaces[] = {PTX_GLOBAL,
                                            PTX_GLOBAL,
                                            PTX_SHARED,
                                            PTX_SHARED,
                                            PTX_LOCAL,
                                            PTX_PARAM,
                                            PTX_PARAM};
    int i = WHICH(o, names);
    return i < 0 ? PTX_GENERIC : spaces[i];
}

static void cvta(struct ptx_parser *p, const struct opcode *o, struct ptx_ins *in)
{
    enum ptx_space space = space_of(o);
    in->mode2 = (uint8_t)space;
    in->width_a = in->width_d = 8;
    in->d = operand_target(p, PTX_B64);
    lex_expect(p, ",");
    in->a = in->b = operand_source(p, PTX_B64);
    bool has_window = space == PTX_SHARED || space == PTX_LOCAL;
    in->op = !has_window ? PTX_MOV_64 : opcode_has(o, "to") ? PTX_CVTA_TO : PTX_CVTA;
    emit(p, in);
}

/* {a, b, ...} or a; all of one width. */
static void elements(struct ptx_parser *p, struct ptx_ins *in, bool is_load)
{
    bool is_list = lex_accept(p, "{");
    unsigned n = is_list ? in->n_vec : 1, width = 0, first = 0;
    if (is_list != (in->n_vec > 1))
        parse_fail(p, PTX_SYNTAX, "the operands do not fit .v2 or .v4");
    for (unsigned i = 0; i < n && p->status == PTX_OK; i++) {
        if (i > 0)
            lex_expect(p, ",");
        in->vec[i] = is_load ? operand_target_any(p, &width)
                             : operand_source_any(p, in->type, &width);
        if (in->vec[i] == PTX_NO_SLOT)
            continue;
        first = first ? first : width;
        if (width != first || width < ptx_type_bytes(in->type) || width == 0)
            parse_fail(p, PTX_SYNTAX, "a register does not fit the type in memory");
    }
    in->width_d = (uint8_t)(first ? first : 8);
    if (is_list)
        lex_expect(p, "}");
}

static void load_store(struct ptx_parser *p, const struct opcode *o, struct ptx_ins *in)
{
    bool is_load = o->base[0] == 'l';
    in->op = is_load ? PTX_LD : PTX_ST;
    in->type = (uint8_t)only_type(p, o);
    in->mode2 = (uint8_t)space_of(o);
    in->n_vec = opcode_has(o, "v2") ? 2 : opcode_has(o, "v4") ? 4 : 1;
    if (in->type == PTX_PRED || ptx_type_bytes(in->type) * in->n_vec > 16 ||
        (!is_load && in->mode2 == PTX_PARAM)) {
        unsupported(p, o);
        return;
    }
    if (is_load)
        elements(p, in, true);
    else
        operand_address(p, in);
    lex_expect(p, ",");
    if (is_load)
        operand_address(p, in);
    else
        elements(p, in, false);
    emit(p, in);
}

static void atom(struct ptx_parser *p, const struct opcode *o, struct ptx_ins *in)
{
    static const char *const names[] = {
        "add", "min", "max", "exch", "cas", "and", "or", "xor", "inc", "dec"};
    enum ptx_type t = only_type(p, o);
    int which = WHICH(o, names);
    bool is_float = t == PTX_F32 || t == PTX_F64;
    in->op = PTX_ATOM;
    in->type = (uint8_t)t;
    in->mode = (uint8_t)which;
    in->mode2 = (uint8_t)space_of(o);
    if (which < 0 || ptx_type_bytes(t) < 4 || t == PTX_PRED ||
        (is_float && which != PTX_ATOM_ADD) || in->mode2 == PTX_LOCAL ||
        in->mode2 == PTX_PARAM) {
        unsupported(p, o);
        return;
    }
    if (o->base[0] == 'a') {
        unsigned width = ptx_type_bytes(t);
        in->d = operand_target_any(p, &width);
        if (width != ptx_type_bytes(t))
            parse_fail(p, PTX_SYNTAX, "the result register does not fit the type");
        lex_expect(p, ",");
    }
    operand_address(p, in);
    lex_expect(p, ",");
    in->b = operand_source(p, t);
    if (which == PTX_ATOM_CAS) {
        lex_expect(p, ",");
        in->c = operand_source(p, t);
    }
    emit(p, in);
}

static void bra(struct ptx_parser *p, const struct opcode *o, struct ptx_ins *in)
{
    (void)o;
    in->op = PTX_BRA;
    struct label *l =
        p->lexer.token.kind == TOKEN_WORD ? parse_label(p, p->lexer.token.text) : NULL;
    if (!l) {
        parse_fail(
            p, PTX_SYNTAX, "expected a label, found '%.40s'", p->lexer.token.text);
        return;
    }
    in->target = (uint32_t)(l - p->body.labels); /* its number, until all are known */
    lex_next(p);
    emit(p, in);
}

static void bar(struct ptx_parser *p, const struct opcode *o, struct ptx_ins *in)
{
    in->op = opcode_has(o, "warp") ? PTX_NOP : PTX_BAR;
    if (!opcode_has(o, "sync") || opcode_has(o, "red")) {
        unsupported(p, o);
        return;
    }
    if (in->op == PTX_NOP) { /* lanes of a warp are together already */
        operand_source(p, PTX_B32);
    } else {
        uint64_t id = lex_integer(p);
        if (id > 15 || lex_is(p, ",")) {
            unsupported(p, o);
            return;
        }
        in->mode = (uint8_t)id;
    }
    emit(p, in);
}

/* p, p|q or the result register of a shuffle with its predicate. */
static void pair(struct ptx_parser *p, struct ptx_ins *in, enum ptx_type first)
{
    unsigned width = 0;
    in->d =
        first == PTX_PRED ? operand_target_any(p, &width) : operand_target(p, first);
    if (first == PTX_PRED && in->d != PTX_NO_SLOT && width != 0)
        parse_fail(p, PTX_SYNTAX, "the result is not a predicate");
    if (lex_accept(p, "|")) {
        width = 0;
        in->vec[0] = operand_target_any(p, &width);
        if (width != 0)
            parse_fail(p, PTX_SYNTAX, "the second result is not a predicate");
    }
}

static void setp(struct ptx_parser *p, const struct opcode *o, struct ptx_ins *in)
{
    static const char *const names[] = {"eq",
                                        "ne",
                                        "lt",
                                        "le",
                                        "gt",
                                        "ge",
                                        "equ",
                                        "neu",
                                        "ltu",
                                        "leu",
                                        "gtu",
                                        "geu",
                                        "num",
                                        "nan",
                                        "lo",
                                        "ls",
                                        "hi",
                                        "hs"};
    static const uint8_t unsigned_names[] = {PTX_LT, PTX_LE, PTX_GT, PTX_GE};
    static const char *const bools[] = {"-", "and", "or", "xor"};
    static const uint16_t ops[] = {[PTX_B16] = PTX_SETP_U16,
                                   [PTX_U16] = PTX_SETP_U16,
                                   [PTX_S16] = PTX_SETP_S16,
                                   [PTX_B32] = PTX_SETP_U32,
                                   [PTX_U32] = PTX_SETP_U32,
                                   [PTX_S32] = PTX_SETP_S32,
                                   [PTX_B64] = PTX_SETP_U64,
                                   [PTX_U64] = PTX_SETP_U64,
                                   [PTX_S64] = PTX_SETP_S64,
                                   [PTX_F32] = PTX_SETP_F32,
                                   [PTX_F64] = PTX_SETP_F64};
    enum ptx_type t = only_type(p, o);
    int cmp = WHICH(o, names), how = WHICH(o, bools);
    if (cmp < 0 || ops[t] == 0) {
        unsupported(p, o);
        return;
    }
    in->op = ops[t];
    in->type = (uint8_t)t;
    in->mode = cmp >= 14 ? unsigned_names[cmp - 14] : (uint8_t)cmp;
    in->mode2 = how < 0 ? PTX_BOOL_NONE : (uint8_t)how;
    pair(p, in, PTX_PRED);
    lex_expect(p, ",");
    in->a = operand_source(p, t);
    lex_expect(p, ",");
    in->b = operand_source(p, t);
    if (how > 0) {
        lex_expect(p, ",");
        in->offset = lex_accept(p, "!");
        in->c = operand_source(p, PTX_PRED);
    }
    emit(p, in);
}

/* The frequent conversions have loops of their own. */
static enum ptx_op
cvt_op(const struct ptx_ins *in, enum ptx_type to, enum ptx_type from)
{
    unsigned bytes_to = ptx_type_bytes(to), bytes_from = ptx_type_bytes(from);
    bool is_integer = to < PTX_F16 && from < PTX_F16;
    if (in->width_d != bytes_to || in->width_a != bytes_from || in->mode2 != 0)
        return PTX_CVT;
    if (is_integer && bytes_to == 8 && from == PTX_S32)
        return PTX_CVT_S64_S32;
    if (is_integer && bytes_to == 8 && bytes_from == 4)
        return PTX_CVT_U64_U32;
    if (is_integer && bytes_to == 4 && bytes_from == 8)
        return PTX_CVT_32_64;
    if (to == PTX_F32 && from == PTX_S32)
        return PTX_CVT_F32_S32;
    return to == PTX_F32 && from == PTX_U32 ? PTX_CVT_F32_U32 : PTX_CVT;
}

static void cvt(struct ptx_parser *p, const struct opcode *o, struct ptx_ins *in)
{
    enum ptx_type to = o->types[0], from = o->types[1];
    bool is_sat = opcode_has(o, "sat"), from_float = from >= PTX_F16,
         to_float = to >= PTX_F16;
    unsigned width_d = 0, width_a = 0;
    in->mode = (uint8_t)opcode_rounding(o);
    bool is_directed =
        in->mode != PTX_RN && !(from_float && (!to_float || to == PTX_F32));
    bool is_narrow = (to == PTX_F16 || to == PTX_BF16) && from != PTX_F32;
    if (o->n_types != 2 || to == PTX_PRED || from == PTX_PRED || is_narrow ||
        (is_sat && !to_float && !from_float) || opcode_has(o, "relu")) {
        unsupported(p, o);
        return;
    }
    in->mode2 = (uint8_t)((is_sat && to_float ? PTX_CVT_SAT : 0) |
                          (opcode_has(o, "rni") || opcode_has(o, "rzi") ||
                                   opcode_has(o, "rmi") || opcode_has(o, "rpi")
                               ? PTX_CVT_INT
                               : 0));
    if (is_directed && !(in->mode2 & PTX_CVT_INT))
        unsupported(p, o);
    in->type = (uint8_t)to;
    in->from = (uint8_t)from;
    in->d = operand_target_any(p, &width_d);
    lex_expect(p, ",");
    in->a = operand_source_any(p, from, &width_a);
    if (in->d == PTX_NO_SLOT || width_d < ptx_type_bytes(to) ||
        width_a < ptx_type_bytes(from))
        parse_fail(p, PTX_SYNTAX, "a register does not fit '%.60s'", o->text);
    in->b = in->a;
    in->width_d = (uint8_t)width_d;
    in->width_a = (uint8_t)width_a;
    in->op = (uint16_t)cvt_op(in, to, from);
    if (to == PTX_F32 && from == PTX_F32 && in->mode2 == PTX_CVT_SAT)
        in->op = PTX_SAT_F32;
    emit(p, in);
}

static void shfl(struct ptx_parser *p, const struct opcode *o, struct ptx_ins *in)
{
    static const char *const names[] = {"up", "down", "bfly", "idx"};
    int mode = WHICH(o, names);
    if (mode < 0 || !opcode_has(o, "sync")) {
        unsupported(p, o);
        return;
    }
    in->op = PTX_SHFL;
    in->mode = (uint8_t)mode;
    pair(p, in, PTX_B32);
    uint32_t *const slots[] = {&in->a, &in->b, &in->c};
    for (int i = 0; i < 3; i++) {
        lex_expect(p, ",");
        *slots[i] = operand_source(p, PTX_B32);
    }
    lex_expect(p, ",");
    operand_source(p, PTX_B32); /* the lanes that take part: those that are here */
    emit(p, in);
}

static void vote(struct ptx_parser *p, const struct opcode *o, struct ptx_ins *in)
{
    static const char *const names[] = {"any", "all", "uni", "ballot"};
    int mode = WHICH(o, names);
    if (mode < 0 || !opcode_has(o, "sync")) {
        unsupported(p, o);
        return;
    }
    in->op = PTX_VOTE;
    in->mode = (uint8_t)mode;
    in->d = operand_target(p, mode == PTX_VOTE_BALLOT ? PTX_B32 : PTX_PRED);
    lex_expect(p, ",");
    in->offset = lex_accept(p, "!");
    in->a = operand_source(p, PTX_PRED);
    lex_expect(p, ",");
    operand_source(p, PTX_B32);
    emit(p, in);
}

static void lop3(struct ptx_parser *p, const struct opcode *o, struct ptx_ins *in)
{
    (void)o;
    in->op = PTX_LOP3;
    in->width_a = in->width_d = 4;
    in->d = operand_target(p, PTX_B32);
    uint32_t *const slots[] = {&in->a, &in->b, &in->c};
    for (int i = 0; i < 3; i++) {
        lex_expect(p, ",");
        *slots[i] = operand_source(p, PTX_B32);
    }
    lex_expect(p, ",");
    in->mode = (uint8_t)lex_integer(p);
    emit(p, in);
}

static void activemask(struct ptx_parser *p, const struct opcode *o, struct ptx_ins *in)
{
    (void)o;
    in->op = PTX_ACTIVEMASK;
    in->d = operand_target(p, PTX_B32);
    emit(p, in);
}

static void ret(struct ptx_parser *p, const struct opcode *o, struct ptx_ins *in)
{
    in->op = o->base[0] == 't' ? PTX_TRAP : PTX_RET;
    emit(p, in);
}

/* Fences, hints and delays: with one thread at work there is nothing to order. */
static void nothing(struct ptx_parser *p, const struct opcode *o, struct ptx_ins *in)
{
    (void)o;
    while (p->lexer.token.kind != TOKEN_END && !lex_is(p, ";"))
        lex_next(p);
    in->op = PTX_NOP;
    emit(p, in);
}

bool parse_special(struct ptx_parser *p, const struct opcode *o, struct ptx_ins *in)
{
    static const struct {
        const char *base;
        void (*parse)(struct ptx_parser *p, const struct opcode *o, struct ptx_ins *in);
    } specials[] = {
        {"mov", mov},           {"cvta", cvta},
        {"ld", load_store},     {"ldu", load_store},
        {"st", load_store},     {"atom", atom},
        {"red", atom},          {"bra", bra},
        {"bar", bar},           {"barrier", bar},
        {"setp", setp},         {"cvt", cvt},
        {"shfl", shfl},         {"vote", vote},
        {"lop3", lop3},         {"activemask", activemask},
        {"ret", ret},           {"exit", ret},
        {"trap", ret},          {"membar", nothing},
        {"fence", nothing},     {"prefetch", nothing},
        {"prefetchu", nothing}, {"nanosleep", nothing},
        {"discard", nothing},
    };
    for (size_t i = 0; i < sizeof specials / sizeof specials[0]; i++)
        if (strcmp(o->base, specials[i].base) == 0) {
            specials[i].parse(p, o, in);
            return true;
        }
    return false;
}
