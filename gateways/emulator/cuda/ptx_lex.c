/* SPDX-License-Identifier: Apache-2.0
 * ptx_lex.c - words, numbers and punctuation. A word keeps its dots: ld.global.f32 and
 * %tid.x are one each.
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ptx_parse.h"

void parse_fail(struct ptx_parser *p, enum ptx_status status, const char *format, ...)
{
    va_list args;
    if (p->status != PTX_OK)
        return; /* the first error is the one that counts */
    p->status = status;
    p->log->line = p->lexer.token.line;
    va_start(args, format);
    vsnprintf(p->log->reason, sizeof p->log->reason, format, args);
    va_end(args);
}

bool parse_grow(struct ptx_parser *p, void *array, size_t n, size_t element_bytes)
{
    void **pointer = array;
    if (n > 0 && (n & (n - 1)) != 0)
        return true; /* room up to the next power of two */
    size_t room = n ? 2 * n : 1;
    void *grown = realloc(*pointer, room * element_bytes);
    if (!grown) {
        parse_fail(p, PTX_NO_MEMORY, "out of memory");
        return false;
    }
    *pointer = grown;
    return true;
}

static void skip_space(struct ptx_lexer *x)
{
    while (x->at < x->end) {
        char c = *x->at;
        if (c == '\n')
            x->line++;
        if (isspace((unsigned char)c)) {
            x->at++;
        } else if (c == '/' && x->end - x->at > 1 && x->at[1] == '/') {
            while (x->at < x->end && *x->at != '\n')
                x->at++;
        } else if (c == '/' && x->end - x->at > 1 && x->at[1] == '*') {
            x->at += 2;
            while (x->at < x->end &&
                   !(x->at[0] == '*' && x->end - x->at > 1 && x->at[1] == '/'))
                x->line += *x->at++ == '\n';
            x->at = x->end - x->at > 1 ? x->at + 2 : x->end;
        } else {
            break;
        }
    }
}

static bool is_word_char(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '$' || c == '%' || c == '.';
}

static void lex_word(struct ptx_parser *p)
{
    struct ptx_lexer *x = &p->lexer;
    size_t n = 0;
    x->token.kind = TOKEN_WORD;
    for (;;) {
        bool is_scope = x->end - x->at > 2 && x->at[0] == ':' && x->at[1] == ':';
        if (x->at >= x->end || !(is_word_char(*x->at) || is_scope))
            break;
        size_t len = is_scope ? 2 : 1; /* .L1::no_allocate */
        if (n + len >= PTX_NAME_MAX) {
            parse_fail(
                p, PTX_SYNTAX, "a name longer than %d characters", PTX_NAME_MAX - 1);
            return;
        }
        memcpy(x->token.text + n, x->at, len);
        n += len;
        x->at += len;
    }
    x->token.text[n] = '\0';
}

/* The digits of a number, bounded and terminated for strtoull and strtod. */
static void lex_number(struct ptx_parser *p)
{
    struct ptx_lexer *x = &p->lexer;
    char text[64], *end;
    size_t n = 0;
    for (; x->at < x->end && n < sizeof text - 1; x->at++) {
        bool is_exponent_sign = (*x->at == '-' || *x->at == '+') && n > 0 &&
                                (text[n - 1] == 'e' || text[n - 1] == 'E') &&
                                text[1] != 'x' && text[1] != 'f' && text[1] != 'd' &&
                                text[1] != 'F' && text[1] != 'D';
        if (!isalnum((unsigned char)*x->at) && *x->at != '.' && !is_exponent_sign)
            break;
        text[n++] = *x->at;
    }
    text[n] = '\0';
    char form = text[0] == '0' ? (char)tolower((unsigned char)text[1]) : '\0';
    x->token.kind = form == 'f' || form == 'd' ? TOKEN_FLOAT : TOKEN_INTEGER;
    x->token.hex_width = form == 'f' ? 4 : form == 'd' ? 8 : 0;
    if (x->token.hex_width) {
        x->token.integer = strtoull(text + 2, &end, 16);
        if (end != text + 2 + 2 * (size_t)x->token.hex_width)
            end = text;
    } else if (form == 'b') {
        x->token.integer = strtoull(text + 2, &end, 2);
    } else if (form != 'x' && strpbrk(text, ".eE")) {
        x->token.kind = TOKEN_FLOAT;
        x->token.number = strtod(text, &end);
    } else {
        x->token.integer = strtoull(text, &end, 0);
        end += *end == 'U';
    }
    if (*end != '\0' || end == text)
        parse_fail(p, PTX_SYNTAX, "'%.40s' is not a number", text);
}

void lex_next(struct ptx_parser *p)
{
    struct ptx_lexer *x = &p->lexer;
    skip_space(x);
    x->token.line = x->line;
    x->token.text[0] = '\0';
    if (x->at >= x->end || *x->at == '\0' || p->status != PTX_OK) {
        x->token.kind = TOKEN_END;
        return;
    }
    bool is_number = isdigit((unsigned char)*x->at);
    if (is_number) {
        lex_number(p);
    } else if (is_word_char(*x->at)) {
        lex_word(p);
    } else {
        x->token.kind = TOKEN_PUNCT;
        x->token.text[0] = *x->at++;
        x->token.text[1] = '\0';
    }
    if (p->status != PTX_OK)
        x->token.kind = TOKEN_END;
}

bool lex_is(const struct ptx_parser *p, const char *text)
{
    enum token_kind kind = p->lexer.token.kind;
    return (kind == TOKEN_WORD || kind == TOKEN_PUNCT) &&
           strcmp(p->lexer.token.text, text) == 0;
}

bool lex_accept(struct ptx_parser *p, const char *text)
{
    if (!lex_is(p, text))
        return false;
    lex_next(p);
    return true;
}

void lex_expect(struct ptx_parser *p, const char *text)
{
    if (!lex_accept(p, text))
        parse_fail(p,
                   PTX_SYNTAX,
                   "expected '%s', found '%.40s'",
                   text,
                   p->lexer.token.kind == TOKEN_END ? "the end" : p->lexer.token.text);
}

uint64_t lex_integer(struct ptx_parser *p)
{
    bool is_negative = lex_accept(p, "-");
    uint64_t v = p->lexer.token.integer;
    if (p->lexer.token.kind != TOKEN_INTEGER) {
        parse_fail(
            p, PTX_SYNTAX, "expected an integer, found '%.40s'", p->lexer.token.text);
        return 0;
    }
    lex_next(p);
    return is_negative ? 0 - v : v;
}

char *lex_name(struct ptx_parser *p)
{
    if (p->lexer.token.kind != TOKEN_WORD) {
        parse_fail(
            p, PTX_SYNTAX, "expected a name, found '%.40s'", p->lexer.token.text);
        return NULL;
    }
    char *name = strdup(p->lexer.token.text);
    if (!name)
        parse_fail(p, PTX_NO_MEMORY, "out of memory");
    lex_next(p);
    return name;
}
