/* SPDX-License-Identifier: Apache-2.0
 * ptx_module.c - the text of a module: its directives, its variables, its functions.
 */
#include <stdlib.h>
#include <string.h>

#include "ptx_parse.h"

enum { VARIABLE_BYTES_MAX = 64 << 20 };

bool parse_declared(struct ptx_parser *p, struct declared *ret)
{
    struct declared d = {.align = 0, .count = 1};
    bool has_type = false;
    while (p->lexer.token.kind == TOKEN_WORD && p->lexer.token.text[0] == '.') {
        const char *word = p->lexer.token.text + 1;
        enum ptx_type t = ptx_type_by_name(word, strlen(word));
        bool is_align = strcmp(word, "align") == 0;
        bool is_vector = strcmp(word, "v2") == 0 || strcmp(word, "v4") == 0;
        if (t != PTX_NONE) {
            d.type = t;
            has_type = true;
        } else if (is_vector) {
            d.count = (uint64_t)(word[1] - '0');
        } else if (!is_align && strcmp(word, "ptr") != 0 &&
                   strcmp(word, "global") != 0 && strcmp(word, "shared") != 0 &&
                   strcmp(word, "const") != 0) {
            parse_fail(
                p, PTX_UNSUPPORTED, "a declaration with '%.40s'", p->lexer.token.text);
        }
        lex_next(p);
        if (is_align)
            d.align = lex_integer(p);
    }
    bool is_sound = has_type && d.type != PTX_PRED && d.align <= 256 &&
                    (d.align & (d.align - 1)) == 0;
    if (p->status == PTX_OK && !is_sound)
        parse_fail(p,
                   PTX_SYNTAX,
                   "a declaration needs a type, and a power of two to align to");
    if (p->status != PTX_OK || !(d.name = lex_name(p)))
        return false;
    while (p->status == PTX_OK && lex_accept(p, "[")) {
        uint64_t n = 0;
        if (lex_is(p, "]"))
            d.is_open = true;
        else
            n = lex_integer(p);
        lex_expect(p, "]");
        d.count = n > VARIABLE_BYTES_MAX || d.count > VARIABLE_BYTES_MAX
                      ? VARIABLE_BYTES_MAX + 1 /* too many, whatever the type */
                      : d.count * n;
    }
    d.bytes = d.count * ptx_type_bytes(d.type);
    d.align = d.align ? d.align : ptx_type_bytes(d.type);
    if (p->status != PTX_OK) {
        free(d.name);
        return false;
    }
    *ret = d;
    return true;
}

/* One value of an initialiser as the bytes of a type. */
static uint64_t value(struct ptx_parser *p, enum ptx_type type)
{
    bool is_negative = p->lexer.token.kind == TOKEN_PUNCT && lex_is(p, "-");
    if (is_negative && type < PTX_F16)
        return lex_integer(p);
    if (is_negative)
        lex_next(p);
    struct token t = p->lexer.token;
    uint64_t bits = t.integer;
    if (t.kind == TOKEN_FLOAT && t.hex_width == 0) {
        double number = is_negative ? -t.number : t.number;
        float single = (float)number;
        bits = 0;
        if (ptx_type_bytes(type) == 8)
            memcpy(&bits, &number, sizeof number);
        else
            memcpy(&bits, &single, sizeof single);
    } else if (t.kind != TOKEN_INTEGER && t.kind != TOKEN_FLOAT) {
        parse_fail(p,
                   PTX_UNSUPPORTED,
                   "an initial value that is not a number: '%.40s'",
                   t.text);
    }
    lex_next(p);
    return bits;
}

/* = value or = {value, ...}, nested as the arrays are; the rest stays zero. */
static void initial_values(struct ptx_parser *p, const struct declared *d, uint8_t *to)
{
    unsigned depth = 0;
    size_t size = ptx_type_bytes(d->type), used = 0;
    do {
        while (lex_accept(p, "{"))
            depth++;
        if (!lex_is(p, "}")) {
            uint64_t v = value(p, d->type);
            if (used + size > d->bytes) {
                parse_fail(p, PTX_SYNTAX, "%.60s has more values than room", d->name);
                return;
            }
            memcpy(to + used, &v, size);
            used += size;
        }
        while (depth > 0 && lex_accept(p, "}"))
            depth--;
        if (depth > 0)
            lex_expect(p, ",");
    } while (depth > 0 && p->status == PTX_OK);
}

/* A variable in the image; its offset. */
static uint64_t add_to_image(struct ptx_parser *p, struct declared *d)
{
    struct ptx_module *m = p->module;
    size_t at = (m->image_bytes + d->align - 1) / d->align * d->align;
    if (d->bytes > VARIABLE_BYTES_MAX || at > VARIABLE_BYTES_MAX - d->bytes) {
        parse_fail(
            p, PTX_UNSUPPORTED, "variables of more than %d bytes", VARIABLE_BYTES_MAX);
        return 0;
    }
    uint8_t *image = realloc(m->image, at + d->bytes + 1);
    if (!image) {
        parse_fail(p, PTX_NO_MEMORY, "out of memory");
        return 0;
    }
    memset(image + m->image_bytes, 0, at + d->bytes + 1 - m->image_bytes);
    m->image = image;
    m->image_bytes = at + d->bytes;
    char *name = strdup(d->name);
    if (!name || !parse_grow(p, &m->variables, m->n_variables, sizeof *m->variables)) {
        free(name);
        parse_fail(p, PTX_NO_MEMORY, "out of memory");
        return 0;
    }
    m->variables[m->n_variables++] = (struct ptx_variable){name, at, d->bytes};
    return at;
}

void parse_variable(struct ptx_parser *p, enum ptx_space space)
{
    struct declared d;
    uint64_t offset = 0;
    lex_next(p);
    if (!parse_declared(p, &d))
        return;
    if (space == PTX_SHARED) {
        uint64_t at = (p->shared_bytes + d.align - 1) / d.align * d.align;
        offset = d.is_open ? 0 : at;
        if (!d.is_open &&
            (d.bytes > PTX_SHARED_BYTES_MAX || at > PTX_SHARED_BYTES_MAX - d.bytes))
            parse_fail(
                p, PTX_UNSUPPORTED, "%.60s does not fit into shared memory", d.name);
        else if (!d.is_open)
            p->shared_bytes = (uint32_t)(at + d.bytes);
    } else {
        offset = add_to_image(p, &d);
        if (p->status == PTX_OK && lex_accept(p, "="))
            initial_values(p, &d, p->module->image + offset);
    }
    lex_expect(p, ";");
    if (p->status != PTX_OK ||
        !parse_grow(p, &p->symbols, p->n_symbols, sizeof *p->symbols)) {
        free(d.name);
        return;
    }
    p->symbols[p->n_symbols++] = (struct symbol){d.name, space, d.is_open, offset};
}

static void parse_version(struct ptx_parser *p)
{
    struct token t = p->lexer.token;
    if (t.kind != TOKEN_FLOAT || t.hex_width != 0 || t.number < 1.0 ||
        t.number > 99.0) {
        parse_fail(p, PTX_SYNTAX, ".version needs a number, found '%.40s'", t.text);
        return;
    }
    p->module->version = (unsigned)(t.number * 10.0 + 0.5);
    lex_next(p);
}

static void skip_line(struct ptx_parser *p)
{
    while (p->lexer.at < p->lexer.end && *p->lexer.at != '\n')
        p->lexer.at++;
    lex_next(p);
}

static void parse_directive(struct ptx_parser *p)
{
    if (lex_accept(p, ".version")) {
        parse_version(p);
    } else if (lex_is(p, ".target") || lex_is(p, ".file") || lex_is(p, ".loc")) {
        skip_line(p);
    } else if (lex_accept(p, ".address_size")) {
        if (p->lexer.token.integer != 64)
            parse_fail(p, PTX_UNSUPPORTED, "an address size that is not 64");
        lex_integer(p);
    } else if (lex_accept(p, ".visible") || lex_accept(p, ".extern") ||
               lex_accept(p, ".weak") || lex_accept(p, ";")) {
        return; /* of what follows */
    } else if (lex_accept(p, ".entry")) {
        parse_entry(p);
    } else if (lex_is(p, ".func") || lex_is(p, ".pragma") || lex_is(p, ".alias")) {
        parse_skip_function(p);
    } else if (lex_is(p, ".section")) {
        parse_skip_function(p);
    } else if (lex_is(p, ".global") || lex_is(p, ".const")) {
        parse_variable(p, PTX_GLOBAL);
    } else if (lex_is(p, ".shared")) {
        parse_variable(p, PTX_SHARED);
    } else {
        parse_fail(p, PTX_SYNTAX, "'%.40s' is not a directive", p->lexer.token.text);
    }
}

enum ptx_status ptx_module_new(const char *text,
                               size_t len,
                               struct ptx_module **ret_module,
                               struct ptx_log *log)
{
    struct ptx_log ignored;
    struct ptx_parser p = {.lexer = {.at = text, .end = text + len, .line = 1}};
    p.log = log ? log : &ignored;
    *p.log = (struct ptx_log){0};
    p.module = calloc(1, sizeof *p.module);
    if (!p.module)
        parse_fail(&p, PTX_NO_MEMORY, "out of memory");
    if (len > PTX_TEXT_BYTES_MAX)
        parse_fail(
            &p, PTX_UNSUPPORTED, "a text of more than %d bytes", PTX_TEXT_BYTES_MAX);
    lex_next(&p);
    while (p.status == PTX_OK && p.lexer.token.kind != TOKEN_END)
        parse_directive(&p);
    if (p.status == PTX_OK && p.module->version == 0)
        parse_fail(&p, PTX_SYNTAX, "no .version: not PTX");
    body_fini(&p.body);
    for (size_t i = 0; i < p.n_symbols; i++)
        free(p.symbols[i].name);
    free(p.symbols);
    if (p.status == PTX_OK)
        *ret_module = p.module;
    else
        ptx_module_free(p.module);
    return p.status;
}

void ptx_module_free(struct ptx_module *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->n_functions; i++)
        ptx_function_free(m->functions[i]);
    for (size_t i = 0; i < m->n_variables; i++)
        free(m->variables[i].name);
    free(m->functions);
    free(m->variables);
    free(m->image);
    free(m);
}

unsigned ptx_module_version(const struct ptx_module *m)
{
    return m->version;
}

size_t ptx_module_image(const struct ptx_module *m, const void **ret_image)
{
    *ret_image = m->image;
    return m->image_bytes;
}

void ptx_module_place(struct ptx_module *m, uint64_t address)
{
    for (size_t i = 0; i < m->n_functions; i++) {
        struct ptx_function *fn = m->functions[i];
        for (uint32_t k = 0; k < fn->n_constants; k++)
            if (fn->constants[k].relative == PTX_IMAGE)
                fn->constants[k].bits += address - m->address;
    }
    m->address = address;
}

bool ptx_module_variable(const struct ptx_module *m,
                         const char *name,
                         size_t *ret_offset,
                         size_t *ret_bytes)
{
    for (size_t i = 0; i < m->n_variables; i++)
        if (strcmp(m->variables[i].name, name) == 0) {
            *ret_offset = m->variables[i].offset;
            *ret_bytes = m->variables[i].bytes;
            return true;
        }
    return false;
}

const struct ptx_function *ptx_module_function(const struct ptx_module *m,
                                               const char *name)
{
    for (size_t i = 0; i < m->n_functions; i++)
        if (strcmp(m->functions[i]->name, name) == 0)
            return m->functions[i];
    return NULL;
}

void ptx_function_get_info(const struct ptx_function *fn,
                           struct ptx_function_info *ret_info)
{
    *ret_info = (struct ptx_function_info){fn->name,
                                           fn->n_params,
                                           fn->param_bytes,
                                           fn->shared_bytes,
                                           fn->local_bytes,
                                           fn->n_registers,
                                           fn->threads_max};
}

void ptx_function_get_param(const struct ptx_function *fn,
                            uint32_t index,
                            uint32_t *ret_offset,
                            uint32_t *ret_bytes)
{
    *ret_offset = fn->params[index].offset;
    *ret_bytes = fn->params[index].bytes;
}
