/* SPDX-License-Identifier: Apache-2.0
 * ptx_function.c - .entry functions: parameters, declarations, labels, instructions.
 */
#include <stdlib.h>
#include <string.h>

#include "ptx_parse.h"

void ptx_function_free(struct ptx_function *fn)
{
    if (!fn)
        return;
    for (uint32_t i = 0; i < fn->n_params; i++)
        free(fn->params[i].name);
    free(fn->name);
    free(fn->code);
    free(fn->constants);
    free(fn->params);
    free(fn);
}

static void pop_registers(struct body *b, unsigned depth)
{
    while (b->n_registers > 0 && b->registers[b->n_registers - 1].depth > depth) {
        struct registers *r = &b->registers[--b->n_registers];
        free(r->name);
        free(r->slots);
    }
}

void body_fini(struct body *b)
{
    b->depth = 0;
    pop_registers(b, 0);
    for (size_t i = 0; i < b->n_symbols; i++)
        free(b->symbols[i].name);
    for (size_t i = 0; i < b->n_labels; i++)
        free(b->labels[i].name);
    free(b->registers);
    free(b->symbols);
    free(b->labels);
    ptx_function_free(b->fn);
    *b = (struct body){0};
}

static void
add_symbol(struct ptx_parser *p, char *name, enum ptx_space space, uint64_t offset)
{
    struct body *b = &p->body;
    if (!parse_grow(p, &b->symbols, b->n_symbols, sizeof *b->symbols)) {
        free(name);
        return;
    }
    b->symbols[b->n_symbols++] = (struct symbol){name, space, false, offset};
}

/* Room for a variable in a space of limited size; its offset. */
static uint32_t
place(struct ptx_parser *p, uint32_t *used, const struct declared *d, uint32_t max)
{
    uint64_t at = (*used + d->align - 1) / d->align * d->align;
    if (at > max || d->bytes > max - at) {
        parse_fail(
            p, PTX_UNSUPPORTED, "%.60s does not fit: at most %u bytes", d->name, max);
        return 0;
    }
    *used = (uint32_t)(at + d->bytes);
    return (uint32_t)at;
}

static void parse_params(struct ptx_parser *p)
{
    struct ptx_function *fn = p->body.fn;
    while (p->status == PTX_OK && !lex_is(p, ")")) {
        struct declared d;
        if (fn->n_params > 0)
            lex_expect(p, ",");
        lex_expect(p, ".param");
        if (!parse_declared(p, &d))
            return;
        uint32_t at = place(p, &fn->param_bytes, &d, PTX_PARAM_BYTES_MAX);
        if (p->status != PTX_OK ||
            !parse_grow(p, &fn->params, fn->n_params, sizeof *fn->params)) {
            free(d.name);
            return;
        }
        fn->params[fn->n_params++] = (struct ptx_param){at, (uint32_t)d.bytes, d.name};
        char *name = strdup(d.name);
        if (name)
            add_symbol(p, name, PTX_PARAM, at);
        else
            parse_fail(p, PTX_NO_MEMORY, "out of memory");
    }
    lex_expect(p, ")");
}

/* .maxntid and the like, before the body. */
static void parse_tuning(struct ptx_parser *p)
{
    while (p->status == PTX_OK && !lex_is(p, "{")) {
        bool is_limit = lex_is(p, ".maxntid") || lex_is(p, ".reqntid");
        bool is_known = is_limit || lex_is(p, ".minnctapersm") ||
                        lex_is(p, ".maxnreg") || lex_is(p, ".maxnctapersm") ||
                        lex_is(p, ".noreturn");
        if (!is_known) {
            parse_fail(
                p, PTX_SYNTAX, "expected '{', found '%.40s'", p->lexer.token.text);
            return;
        }
        lex_next(p);
        uint64_t product = 1;
        for (bool is_first = true;
             p->lexer.token.kind == TOKEN_INTEGER || lex_is(p, ",");
             is_first = false) {
            if (!is_first)
                lex_expect(p, ",");
            uint64_t v = lex_integer(p);
            product = v > PTX_BLOCK_THREADS_MAX || product > PTX_BLOCK_THREADS_MAX
                          ? PTX_BLOCK_THREADS_MAX
                          : product * v;
        }
        if (is_limit && product > 0 && product < PTX_BLOCK_THREADS_MAX)
            p->body.fn->threads_max = (uint32_t)product;
    }
}

static void add_registers(struct ptx_parser *p, enum ptx_type type)
{
    struct body *b = &p->body;
    struct registers r = {.type = type, .depth = b->depth};
    r.name = lex_name(p);
    if (r.name && lex_accept(p, "<")) {
        uint64_t count = lex_integer(p);
        lex_expect(p, ">");
        if (count == 0 || count > 1 << 20)
            parse_fail(p,
                       PTX_SYNTAX,
                       "%.60s<%llu>: 1 to 1048576 registers",
                       r.name,
                       (unsigned long long)count);
        else
            r.count = (uint32_t)count;
    }
    uint32_t n = r.count ? r.count : 1;
    r.slots = r.name && p->status == PTX_OK ? malloc(n * sizeof *r.slots) : NULL;
    if (!r.slots ||
        !parse_grow(p, &b->registers, b->n_registers, sizeof *b->registers)) {
        parse_fail(p, PTX_NO_MEMORY, "out of memory");
        free(r.name);
        free(r.slots);
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        r.slots[i] = PTX_NO_SLOT;
    b->registers[b->n_registers++] = r;
}

static void parse_reg(struct ptx_parser *p)
{
    const char *text = p->lexer.token.text;
    enum ptx_type type =
        text[0] == '.' ? ptx_type_by_name(text + 1, strlen(text + 1)) : PTX_NONE;
    if (type == PTX_NONE) {
        parse_fail(p, PTX_UNSUPPORTED, "registers of type '%.40s'", text);
        return;
    }
    lex_next(p);
    do
        add_registers(p, type);
    while (lex_accept(p, ","));
    lex_expect(p, ";");
}

static void parse_memory(struct ptx_parser *p, enum ptx_space space)
{
    struct ptx_function *fn = p->body.fn;
    struct declared d;
    if (!parse_declared(p, &d))
        return;
    uint32_t at = space == PTX_SHARED
                      ? place(p, &fn->shared_bytes, &d, PTX_SHARED_BYTES_MAX)
                      : place(p, &fn->local_bytes, &d, PTX_LOCAL_BYTES_MAX);
    add_symbol(p, d.name, space, at);
    lex_expect(p, ";");
}

struct label *parse_label(struct ptx_parser *p, const char *name)
{
    struct body *b = &p->body;
    for (size_t i = 0; i < b->n_labels; i++)
        if (strcmp(b->labels[i].name, name) == 0)
            return &b->labels[i];
    char *copy = strdup(name);
    if (!copy || !parse_grow(p, &b->labels, b->n_labels, sizeof *b->labels)) {
        free(copy);
        parse_fail(p, PTX_NO_MEMORY, "out of memory");
        return NULL;
    }
    b->labels[b->n_labels] = (struct label){copy, 0, false, p->lexer.token.line};
    return &b->labels[b->n_labels++];
}

static void define_label(struct ptx_parser *p)
{
    struct label *l = parse_label(p, p->lexer.token.text);
    if (!l)
        return;
    if (l->is_defined)
        parse_fail(p, PTX_SYNTAX, "the label %.60s is there twice", l->name);
    l->is_defined = true;
    l->pc = p->body.fn->n_code;
    lex_next(p);
    lex_expect(p, ":");
}

static bool is_label(const struct ptx_parser *p)
{
    const struct ptx_lexer *x = &p->lexer;
    return x->token.kind == TOKEN_WORD && x->at < x->end && *x->at == ':';
}

static void parse_statement(struct ptx_parser *p)
{
    if (is_label(p)) {
        define_label(p);
    } else if (lex_accept(p, ".reg")) {
        parse_reg(p);
    } else if (lex_accept(p, ".shared")) {
        parse_memory(p, PTX_SHARED);
    } else if (lex_accept(p, ".local")) {
        parse_memory(p, PTX_LOCAL);
    } else if (lex_is(p, ".loc")) { /* to the end of the line */
        while (p->lexer.at < p->lexer.end && *p->lexer.at != '\n')
            p->lexer.at++;
        lex_next(p);
    } else if (lex_is(p, ".pragma")) {
        while (p->lexer.token.kind != TOKEN_END && !lex_is(p, ";"))
            lex_next(p);
        lex_expect(p, ";");
    } else if (!lex_accept(p, ";")) {
        parse_instruction(p);
    }
}

static void parse_body(struct ptx_parser *p)
{
    struct body *b = &p->body;
    lex_expect(p, "{");
    b->depth = 1;
    while (p->status == PTX_OK && b->depth > 0) {
        if (p->lexer.token.kind == TOKEN_END) {
            parse_fail(p, PTX_SYNTAX, "the text ends inside a function");
        } else if (lex_is(p, "{")) {
            b->depth++;
            lex_next(p);
        } else if (lex_is(p, "}")) {
            b->depth--;
            pop_registers(b, b->depth);
            lex_next(p);
        } else {
            parse_statement(p);
        }
    }
}

static void resolve_labels(struct ptx_parser *p)
{
    struct body *b = &p->body;
    for (size_t i = 0; i < b->n_labels; i++)
        if (!b->labels[i].is_defined) {
            p->lexer.token.line = b->labels[i].line;
            parse_fail(p, PTX_SYNTAX, "the label %.60s is nowhere", b->labels[i].name);
            return;
        }
    for (uint32_t i = 0; i < b->fn->n_code; i++)
        if (b->fn->code[i].op == PTX_BRA)
            b->fn->code[i].target = b->labels[b->fn->code[i].target].pc;
}

/* Dynamic shared memory begins where the static ends. */
static void place_dynamic(struct ptx_function *fn)
{
    for (uint32_t i = 0; i < fn->n_constants; i++)
        if (fn->constants[i].relative == PTX_DYNAMIC) {
            fn->shared_bytes = (fn->shared_bytes + 15) / 16 * 16;
            fn->constants[i].bits += fn->shared_bytes;
            fn->constants[i].relative = PTX_ABSOLUTE;
        }
}

/* Falling off the end is a return. */
static void append_return(struct ptx_parser *p)
{
    struct ptx_function *fn = p->body.fn;
    struct ptx_ins in = {
        .op = PTX_RET, .guard = PTX_NO_SLOT, .line = p->lexer.token.line};
    if (p->status == PTX_OK && parse_grow(p, &fn->code, fn->n_code, sizeof *fn->code))
        fn->code[fn->n_code++] = in;
}

void parse_entry(struct ptx_parser *p)
{
    struct ptx_module *m = p->module;
    struct ptx_function *fn = calloc(1, sizeof *fn);
    if (!fn) {
        parse_fail(p, PTX_NO_MEMORY, "out of memory");
        return;
    }
    p->body.fn = fn;
    fn->threads_max = PTX_BLOCK_THREADS_MAX;
    fn->shared_bytes = p->shared_bytes;
    for (int i = 0; i < PTX_SPECIAL_MAX_; i++)
        fn->special[i] = PTX_NO_SLOT;
    fn->name = lex_name(p);
    if (lex_accept(p, "("))
        parse_params(p);
    parse_tuning(p);
    parse_body(p);
    append_return(p);
    if (p->status == PTX_OK)
        resolve_labels(p);
    place_dynamic(fn);
    if (p->status == PTX_OK &&
        parse_grow(p, &m->functions, m->n_functions, sizeof *m->functions)) {
        m->functions[m->n_functions++] = fn;
        p->body.fn = NULL;
    }
    body_fini(&p->body);
}

/* A device function: declarations are fine, and a body that nobody can call. */
void parse_skip_function(struct ptx_parser *p)
{
    unsigned depth = 0;
    while (p->lexer.token.kind != TOKEN_END) {
        if (lex_is(p, "{"))
            depth++;
        bool is_end = depth == 0 ? lex_is(p, ";") : lex_is(p, "}") && --depth == 0;
        lex_next(p);
        if (is_end)
            return;
    }
    parse_fail(p, PTX_SYNTAX, "the text ends inside a function");
}
