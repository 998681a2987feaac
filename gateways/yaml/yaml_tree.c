/* SPDX-License-Identifier: Apache-2.0
 * yaml_tree.c - libyaml's events into a tree with marks.
 *
 * libyaml does the syntax and nothing else: its own document loader follows aliases (a
 * few lines can stand for gigabytes) and forgets where keys stood.  Every limit is
 * checked before memory is taken for what is beyond it.
 */
#include "yaml_tree.h"

#include <yaml.h>

enum { DEPTH_MAX = 8, NODES_MAX = 65536, KEYS_MAX = 4096, TEXT_MAX = 65535 };

struct reader {
    struct orr_yaml *yaml; /* borrowed: the caller's */
    yaml_parser_t parser;
    yaml_event_t event; /* the current one; type NO when none */
    size_t n_nodes;
    struct orr_error *err; /* borrowed: the caller's */
};

static struct orri_yaml_mark mark_of(yaml_mark_t m)
{
    return (struct orri_yaml_mark){(unsigned)m.line + 1, (unsigned)m.column + 1};
}

static enum orr_err no_memory(const struct reader *r)
{
    return orr_fail(r->err, ORR_ENOMEM, "%s: out of memory", r->yaml->file);
}

/* Go to the next event. */
static enum orr_err advance(struct reader *r)
{
    yaml_event_delete(&r->event); /* leaves it zeroed: YAML_NO_EVENT */
    if (yaml_parser_parse(&r->parser, &r->event))
        return ORR_OK;
    memset(&r->event, 0, sizeof r->event);
    if (r->parser.error == YAML_MEMORY_ERROR)
        return no_memory(r);
    return orri_yaml_fail_at(r->yaml,
                             mark_of(r->parser.problem_mark),
                             r->err,
                             "not YAML: %s%s%s",
                             r->parser.problem ? r->parser.problem : "unreadable",
                             r->parser.context ? " " : "",
                             r->parser.context ? r->parser.context : "");
}

static enum orr_err refuse(const struct reader *r, const char *what)
{
    return orri_yaml_fail_at(r->yaml, mark_of(r->event.start_mark), r->err, "%s", what);
}

/* Anchors, aliases and tags have no use here, and each is a way to surprise. */
static enum orr_err check_plainness(const struct reader *r)
{
    const yaml_event_t *e = &r->event;
    const yaml_char_t *anchor = NULL, *tag = NULL;
    if (e->type == YAML_ALIAS_EVENT)
        return refuse(r, "aliases (*name) are not accepted; write the value out");
    if (e->type == YAML_SCALAR_EVENT) {
        anchor = e->data.scalar.anchor;
        tag = e->data.scalar.tag;
    } else if (e->type == YAML_SEQUENCE_START_EVENT) {
        anchor = e->data.sequence_start.anchor;
        tag = e->data.sequence_start.tag;
    } else if (e->type == YAML_MAPPING_START_EVENT) {
        anchor = e->data.mapping_start.anchor;
        tag = e->data.mapping_start.tag;
    }
    if (anchor)
        return refuse(r, "anchors (&name) are not accepted; write the value out");
    if (tag)
        return refuse(r, "tags (!name) are not accepted; remove it");
    return ORR_OK;
}

/* The scalar's text, checked and copied. */
static enum orr_err
copy_scalar(struct reader *r, const char **ret_text, uint32_t *ret_len)
{
    const char *text = (const char *)r->event.data.scalar.value;
    size_t len = r->event.data.scalar.length;
    if (len > TEXT_MAX)
        return refuse(r, "text is longer than 65535 bytes; put it into a file");
    if (memchr(text, '\0', len))
        return refuse(r, "text holds a NUL byte; remove it");
    const char *copy = orr_yaml_text(r->yaml, text, len);
    if (!copy)
        return no_memory(r);
    *ret_text = copy;
    *ret_len = (uint32_t)len;
    return ORR_OK;
}

static enum orr_err
parse_value(struct reader *r, unsigned depth, struct orri_yaml_node **ret);

/* The current event is a key; afterwards it is the value's first. */
static enum orr_err parse_key(struct reader *r,
                              const struct orri_yaml_node *map,
                              const char **ret_key,
                              struct orri_yaml_mark *ret_at)
{
    uint32_t len = 0;
    if (r->event.type != YAML_SCALAR_EVENT)
        return refuse(r, "a key must be a word");
    enum orr_err rc = check_plainness(r);
    if (rc == ORR_OK)
        rc = copy_scalar(r, ret_key, &len);
    if (rc != ORR_OK)
        return rc;
    if (map->len >= KEYS_MAX)
        return refuse(r, "more than 4096 keys in one mapping");
    for (const struct orri_yaml_node *n = map->first; n; n = n->next) {
        if (strcmp(n->key, *ret_key) == 0)
            return orri_yaml_fail_at(r->yaml,
                                     mark_of(r->event.start_mark),
                                     r->err,
                                     "%.64s: given twice, first at line %u",
                                     *ret_key,
                                     n->key_at.line);
    }
    *ret_at = mark_of(r->event.start_mark);
    return advance(r);
}

/* The current event opened a list or mapping; afterwards it is the one that closes it.
 */
static enum orr_err
parse_children(struct reader *r, unsigned depth, struct orri_yaml_node *parent)
{
    bool is_map = parent->kind == ORRI_YAML_MAP;
    yaml_event_type_t end = is_map ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT;
    struct orri_yaml_node **tail = &parent->first;
    if (depth >= DEPTH_MAX)
        return refuse(r, "nested deeper than 8 levels");
    enum orr_err rc = advance(r);
    while (rc == ORR_OK && r->event.type != end) {
        const char *key = NULL;
        struct orri_yaml_mark key_at = {0, 0};
        if (is_map && (rc = parse_key(r, parent, &key, &key_at)) != ORR_OK)
            break;
        struct orri_yaml_node *child;
        rc = parse_value(r, depth + 1, &child);
        if (rc != ORR_OK)
            break;
        child->key = key;
        child->key_at = key_at;
        *tail = child;
        tail = &child->next;
        parent->len++;
        rc = advance(r);
    }
    return rc;
}

/* The current event starts a value; afterwards it is the value's last. */
static enum orr_err
parse_value(struct reader *r, unsigned depth, struct orri_yaml_node **ret)
{
    enum orr_err rc = check_plainness(r);
    if (rc != ORR_OK)
        return rc;
    if (++r->n_nodes > NODES_MAX)
        return refuse(r, "more than 65536 values");
    struct orri_yaml_node *node = orr_yaml_alloc(r->yaml, sizeof *node);
    if (!node)
        return no_memory(r);
    node->at = mark_of(r->event.start_mark);
    *ret = node;
    if (r->event.type == YAML_SCALAR_EVENT) {
        node->kind = ORRI_YAML_SCALAR;
        node->is_quoted = r->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
        return copy_scalar(r, &node->text, &node->len);
    }
    node->kind =
        r->event.type == YAML_MAPPING_START_EVENT ? ORRI_YAML_MAP : ORRI_YAML_LIST;
    return parse_children(r, depth, node);
}

static enum orr_err parse_document(struct reader *r)
{
    enum orr_err rc = advance(r); /* stream start */
    if (rc == ORR_OK)
        rc = advance(r);
    if (rc != ORR_OK)
        return rc;
    if (r->event.type == YAML_STREAM_END_EVENT)
        return refuse(r, "empty: write at least one `field: value`");
    if (r->event.data.document_start.version_directive ||
        r->event.data.document_start.tag_directives.start !=
            r->event.data.document_start.tag_directives.end)
        return refuse(r, "directives (%...) are not accepted; remove them");
    rc = advance(r);
    if (rc != ORR_OK)
        return rc;
    if (r->event.type != YAML_MAPPING_START_EVENT)
        return refuse(r, "expected `field: value` lines at the top");
    rc = parse_value(r, 0, &r->yaml->root);
    if (rc == ORR_OK)
        rc = advance(r); /* document end */
    if (rc == ORR_OK)
        rc = advance(r);
    if (rc == ORR_OK && r->event.type != YAML_STREAM_END_EVENT)
        return refuse(r, "a second document; one file holds one");
    return rc;
}

enum orr_err orri_yaml_parse(struct orr_yaml *yaml,
                             const char *text,
                             size_t len,
                             struct orr_error *err)
{
    struct reader r = {.yaml = yaml, .err = err};
    if (len > ORR_YAML_BYTES_MAX)
        return orr_fail(err, ORR_EINVAL, "%s: larger than 1 MiB", yaml->file);
    if (!yaml_parser_initialize(&r.parser))
        return no_memory(&r);
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
    enum orr_err rc = parse_document(&r);
    yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    return rc;
}
