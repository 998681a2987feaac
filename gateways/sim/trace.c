/* SPDX-License-Identifier: Apache-2.0
 * trace.c - see trace.h.
 */
#include "trace.h"

enum { BODY_MAX = TRACE_LINE_MAX - 64 };

static void host_of(const struct fleet *fleet, struct orr_addr addr, char name[16])
{
    for (uint32_t host = 0; host < fleet->n_hosts; host++) {
        fleet_host_name(fleet, host, name);
        if (orr_hash(orr_str(name)) == addr.host)
            return;
    }
    snprintf(name, 16, "-");
}

static void write_all(const struct trace *trace,
                      const char *from,
                      const char *to,
                      const struct orr_msg_desc *desc,
                      const void *msg)
{
    size_t cap = orr_msg_json(desc, msg, NULL, 0) + 1;
    char *body = malloc(cap);
    if (!body)
        return;
    orr_msg_json(desc, msg, body, cap);
    fprintf(trace->all,
            "{\"ms\":%llu,\"from\":\"%s\",\"to\":\"%s\",\"msg\":\"%s\",\"body\":%s}\n",
            (unsigned long long)orr_sim_now_ms(trace->fleet->sim),
            from,
            to,
            desc->body.name,
            body);
    free(body);
}

/* Does the text name the subject, and not one that is longer? */
static bool names(const char *text, const char *subject)
{
    size_t len = strlen(subject);
    for (const char *at = strstr(text, subject); at; at = strstr(at + 1, subject)) {
        char next = at[len];
        bool is_longer = (next >= '0' && next <= '9') || (next >= 'a' && next <= 'z');
        if (!is_longer)
            return true;
    }
    return false;
}

static void keep_line(struct trace *trace,
                      const char *from,
                      const char *to,
                      const struct orr_msg_desc *desc,
                      const void *msg)
{
    char body[2048];
    if (desc->id == ORR_MSG_job_show || desc->id == ORR_MSG_job_detail ||
        desc->id == ORR_MSG_job_wait)
        return; /* the client's looks */
    orr_msg_json(desc, msg, body, sizeof(body));
    if (!names(body, trace->subject))
        return;
    if (!trace->lines)
        trace->lines = calloc(TRACE_LINES, TRACE_LINE_MAX);
    if (!trace->lines)
        return;
    snprintf(trace->lines + trace->n_lines++ % TRACE_LINES * TRACE_LINE_MAX,
             TRACE_LINE_MAX,
             "%8llu  %-4s -> %-4s  %-16s %.*s",
             (unsigned long long)orr_sim_now_ms(trace->fleet->sim),
             from,
             to,
             desc->body.name,
             BODY_MAX,
             body);
}

void trace_message(void *arg,
                   uint64_t now_ms,
                   struct orr_addr to,
                   struct orr_addr from,
                   const struct orr_msg_desc *desc,
                   const void *msg)
{
    struct trace *trace = arg;
    char from_name[16], to_name[16];
    (void)now_ms; /* on that host's clock */
    if (desc->id == ORR_MSG_timer || (!trace->all && !trace->subject[0]))
        return;
    host_of(trace->fleet, from, from_name);
    host_of(trace->fleet, to, to_name);
    if (trace->all)
        write_all(trace, from_name, to_name, desc, msg);
    if (trace->subject[0])
        keep_line(trace, from_name, to_name, desc, msg);
}

void trace_print(const struct trace *trace, FILE *out)
{
    uint64_t first = trace->n_lines > TRACE_LINES ? trace->n_lines - TRACE_LINES : 0;
    for (uint64_t i = first; i < trace->n_lines; i++)
        fprintf(out, "%s\n", trace->lines + i % TRACE_LINES * TRACE_LINE_MAX);
}

void trace_fini(struct trace *trace)
{
    free(trace->lines);
    *trace = (struct trace){0};
}

void trace_fault_text(const struct fleet *fleet,
                      const struct fault *fault,
                      char *text,
                      size_t cap)
{
    char host[16];
    const char *name = fault_name(fault->kind);
    fleet_host_name(fleet, fault->host, host);
    switch (fault->kind) {
    case FAULT_LOSS:
    case FAULT_DUPLICATE:
    case FAULT_REORDER:
        snprintf(text, cap, "%s of %.1f %%", name, fault->value / 10000.0);
        break;
    case FAULT_DELAY:
        snprintf(text, cap, "%s up to %d ms", name, (int)fault->value);
        break;
    case FAULT_PARTITION: {
        int n = snprintf(text, cap, "%s:", name);
        for (uint32_t i = 0; i < fleet->n_hosts && n > 0 && (size_t)n < cap; i++) {
            fleet_host_name(fleet, i, host);
            if (fault_cuts_off(fault, i))
                n += snprintf(text + n, cap - (size_t)n, " %s", host);
        }
        break;
    }
    case FAULT_CRASH:
        snprintf(text,
                 cap,
                 "%s of %s%s",
                 name,
                 host,
                 fault->value && fault->host >= fleet->first_node ? ", the machine"
                                                                  : "");
        break;
    case FAULT_CLOCK:
        snprintf(text, cap, "%s of %s by %+.1f %%", name, host, fault->value / 10000.0);
        break;
    case FAULT_SOFT:
        snprintf(text, cap, "%s state away", name);
        break;
    case FAULT_DISK:
    case FAULT_KIND_MAX_:
        snprintf(text, cap, "%s of %s", name, host);
        break;
    }
}
