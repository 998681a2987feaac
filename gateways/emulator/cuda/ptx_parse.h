/* SPDX-License-Identifier: Apache-2.0
 * ptx_parse.h - the parser's state. It stops at the first error, which is in the log.
 */
#ifndef EMU_PTX_PARSE_H
#define EMU_PTX_PARSE_H

#include "ptx_code.h"

enum token_kind { TOKEN_END, TOKEN_WORD, TOKEN_INTEGER, TOKEN_FLOAT, TOKEN_PUNCT };

struct token {
    enum token_kind kind;
    char text[PTX_NAME_MAX]; /* of a word; the character of a punct */
    uint64_t integer;
    double number;      /* of a float written in decimal */
    unsigned hex_width; /* 4 or 8: a float written as its bits, in integer */
    unsigned line;
};

struct ptx_lexer {
    const char *at, *end;
    unsigned line;
    struct token token; /* the current one */
};

/* A name that stands for an address in some space. */
struct symbol {
    char *name; /* owned */
    enum ptx_space space;
    bool is_dynamic; /* shared memory whose size the launch gives */
    uint64_t offset;
};

/* %r<100>, or one register of its own name (count 0). */
struct registers {
    char *name; /* owned: the part before the number */
    enum ptx_type type;
    uint32_t count;
    uint32_t *slots; /* owned; PTX_NO_SLOT until used */
    unsigned depth;  /* of the braces that it was declared in */
};

struct label {
    char *name; /* owned */
    uint32_t pc;
    bool is_defined;
    unsigned line; /* of its first use */
};

/* What is known inside a function. */
struct body {
    struct ptx_function *fn; /* owned until finished */
    struct registers *registers;
    struct symbol *symbols;
    struct label *labels;
    size_t n_registers, n_symbols, n_labels;
    unsigned depth;
};

struct ptx_parser {
    struct ptx_lexer lexer;
    struct ptx_module *module; /* owned until finished */
    struct symbol *symbols;    /* of the module's variables and shared ones */
    size_t n_symbols;
    uint32_t shared_bytes; /* declared outside functions */
    struct body body;
    enum ptx_status status; /* PTX_OK until something is wrong */
    struct ptx_log *log;
};

/* ---- ptx_lex.c ---- */
void lex_next(struct ptx_parser *p);
bool lex_is(const struct ptx_parser *p, const char *text);
bool lex_accept(struct ptx_parser *p,
                const char *text); /* true: it was, and is behind us */
void lex_expect(struct ptx_parser *p, const char *text);
uint64_t lex_integer(struct ptx_parser *p); /* with sign */
/* A word, as a new string; NULL on error. */
char *lex_name(struct ptx_parser *p);
__attribute__((format(printf, 3, 4))) void
parse_fail(struct ptx_parser *p, enum ptx_status status, const char *format, ...);
/* Room for one more element; the array may move. False: out of memory, said so. */
bool parse_grow(struct ptx_parser *p, void *array, size_t n, size_t element_bytes);

/* ---- ptx_types.c ---- */
enum ptx_type ptx_type_by_name(const char *name, size_t len); /* without the dot */

/* ---- ptx_operand.c ---- */
uint32_t operand_slot_new(struct ptx_parser *p, unsigned width);
/* The slot of a register, special register or constant read as the given type. */
uint32_t operand_source(struct ptx_parser *p, enum ptx_type type);
/* The same for an operand of any width; tells which. */
uint32_t
operand_source_any(struct ptx_parser *p, enum ptx_type type, unsigned *ret_width);
uint32_t operand_target(struct ptx_parser *p, enum ptx_type type);
uint32_t operand_target_any(struct ptx_parser *p, unsigned *ret_width);
void operand_address(struct ptx_parser *p, struct ptx_ins *in);
uint32_t operand_constant(struct ptx_parser *p,
                          unsigned width,
                          uint64_t bits,
                          enum ptx_relative relative);

/* ---- ptx_instruction.c ---- */
void parse_instruction(struct ptx_parser *p);
struct label *parse_label(struct ptx_parser *p, const char *name);

/* ---- ptx_function.c ---- */
void parse_entry(struct ptx_parser *p);
void parse_skip_function(struct ptx_parser *p);
void body_fini(struct body *body);
void ptx_function_free(struct ptx_function *fn);

/* ---- ptx_module.c ---- */
/* .global, .const and .shared variables; the directive is the current token. */
void parse_variable(struct ptx_parser *p, enum ptx_space space);
/* [.align N] .type name[count], sized; false on error. */
struct declared {
    char *name; /* owned by the caller */
    uint64_t bytes, align, count;
    enum ptx_type type;
    bool is_open; /* name[]: its size is given at launch, or by its values */
};
bool parse_declared(struct ptx_parser *p, struct declared *ret);

#endif
